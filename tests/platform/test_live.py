"""What can be listened to, and when a sample was recorded."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from soundpost.audio.live import LiveTarget, SampleClock, to_integers
from soundpost.errors import InvalidValueError

RATE_HZ = 32_000
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


# --- targets ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://cam/stream", "rtsp://cam/stream"),
        ("rtsp://u:p@cam:554/s?key=1", "rtsp://***@cam:554/s?***"),
        ("HTTP://radio/x.m3u8", "http://radio/x.m3u8"),
        ("alsa:hw:1", "alsa:hw:1"),
    ],
)
def test_a_target_is_shown_without_secrets(text: str, shown: str) -> None:
    assert LiveTarget.parse(text).shown == shown


@pytest.mark.parametrize(
    "text", ["", "ftp://u:secret@host/x", "no such file.wav", "hw:1", "http:", "rtsp://"]
)
def test_what_cannot_be_listened_to_is_refused(text: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        LiveTarget.parse(text)
    assert "secret" not in str(caught.value)


# --- samples and their time -------------------------------------------------------------------


def frame_of(values: NDArray[Any], kind: str) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(values.reshape(1, -1), format=kind, layout="mono")
    frame.rate = RATE_HZ
    return frame


def test_integers_stay_what_they_are() -> None:
    for kind, dtype in (("s16", np.int16), ("s32", np.int32)):
        values = np.array([np.iinfo(dtype).min, -1, 0, 1, np.iinfo(dtype).max], dtype)
        assert np.array_equal(to_integers(frame_of(values, kind), deep=True)[:, 0], values)
    coarse = to_integers(frame_of(np.array([0, 128, 255], np.uint8), "u8"), deep=False)
    assert coarse[:, 0].tolist() == [-32768, 0, 127 * 256]


def test_floats_are_rounded_and_clipped_and_never_anything_else() -> None:
    values = np.array([-2.0, -1.0, 0.0, 1 / 32768, 1.0, np.nan, np.inf], np.float32)
    shallow = to_integers(frame_of(values, "flt"), deep=False)[:, 0]
    assert shallow.tolist() == [-32768, -32768, 0, 1, 32767, 0, 32767]
    deep = to_integers(frame_of(values, "flt"), deep=True)[:, 0]
    assert (deep >> 8).tolist() == [-(2**23), -(2**23), 0, 256, 2**23 - 1, 0, 2**23 - 1]


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def test_times_are_counted_in_samples_without_adding_errors_up() -> None:
    clock = SampleClock(NOON, 44_100, follow=False)
    assert clock.at(44_100 * 86_400) == NOON + timedelta(days=1)
    assert clock.at(1) - NOON == timedelta(microseconds=23)
    clock.add(44_100, after(1000.0))
    assert clock.at(0) == NOON
    assert clock.drift_s == 0.0


def test_the_first_sample_is_as_early_as_the_earliest_arrival_says() -> None:
    clock = SampleClock(NOON, 1000)
    clock.add(100, after(0.3))
    assert clock.at(0) == after(0.2)
    # Delayed on the way: that says nothing.
    clock.add(100, after(0.9))
    assert clock.at(0) == after(0.2)
    # Three seconds at once can only have been recorded before.
    clock.add(3000, after(1.0))
    assert clock.at(0) == after(1.0 - 3.2)
    clock.fix()
    clock.add(3000, after(1.1))
    assert clock.at(0) == after(1.0 - 3.2)


def test_a_clock_that_is_slow_or_loses_samples_is_found_out_despite_jitter() -> None:
    clock = SampleClock(NOON, 1000)
    rng = np.random.default_rng(2)
    for second in range(60):
        lost_s = 0.8 if second >= 30 else 0.0
        clock.add(1000, after(second + lost_s + float(rng.uniform(0, 2)) * (second % 3 > 0)))
        if second == 29:
            assert abs(clock.drift_s) < 0.01
    assert clock.drift_s == pytest.approx(0.8, abs=0.01)
    before = clock.at(60_000)
    clock.correct(60_000)
    assert clock.at(60_000) - before == pytest.approx(
        timedelta(seconds=0.8), abs=timedelta(0, 0.01)
    )
    assert clock.drift_s == 0.0

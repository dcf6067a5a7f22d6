"""Audio going out: byte-exact ranges, clips exact to the sample, pictures of what is there."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from soundpost.errors import (
    FileMissingError,
    InvalidValueError,
    NoSamplesError,
    RangeNotSatisfiableError,
    StretchTimeoutError,
    UnknownRecordingError,
)

RATE_HZ = 16_000


def noise(seconds: float) -> NDArray[np.float32]:
    rng = np.random.default_rng(3)
    return (rng.integers(-9000, 9000, round(seconds * RATE_HZ)) / 32768).astype(np.float32)


@pytest.fixture
def filled(sqlite_service: Any) -> tuple[Any, int, bytes]:
    """A service with one recording of 20 s, its id, and the bytes of its file."""
    ids = sqlite_service.fill(noise=noise(20.0))
    data = (sqlite_service.folder / "hall" / "noise.wav").read_bytes()
    return sqlite_service, ids["noise"], data


def fetch(service: Any, recording_id: int, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.get(f"{service.url}/v1/recordings/{recording_id}/audio", headers=named, timeout=60)


def test_the_whole_file_comes_byte_for_byte(filled: Any) -> None:
    service, known, data = filled
    answer = fetch(service, known)
    assert (answer.status_code, answer.content) == (200, data)
    assert answer.headers["Content-Type"] == "audio/wav"
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["ETag"] == f'"{service.client.recording(known).sha256}"'


@pytest.mark.parametrize(
    ("asked", "first", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        ("bytes=1000-300000", 1000, 300_001),
        ("bytes=640000-", 640_000, None),
        ("bytes=-17", -17, None),
        ("bytes=-99999999", 0, None),
        ("bytes=5-99999999", 5, None),
    ],
)
def test_a_range_is_exactly_those_bytes(
    filled: Any, asked: str, first: int, end: int | None
) -> None:
    service, known, data = filled
    answer = fetch(service, known, Range=asked)
    expected = data[first:end]
    assert (answer.status_code, answer.content) == (206, expected)
    begin = first if first >= 0 else len(data) + first
    says = f"bytes {begin}-{begin + len(expected) - 1}/{len(data)}"
    assert answer.headers["Content-Range"] == says
    assert answer.headers["Content-Length"] == str(len(expected))


@pytest.mark.parametrize("asked", ["bytes=640044-", "bytes=999999999-", "bytes=-0"])
def test_a_range_behind_the_end_is_416(filled: Any, asked: str) -> None:
    service, known, data = filled
    answer = fetch(service, known, Range=asked)
    assert (answer.status_code, answer.json()["code"]) == (416, "range-not-satisfiable")
    assert answer.headers["Content-Range"] == f"bytes */{len(data)}"


@pytest.mark.parametrize(
    "asked", ["bytes=5-3", "bytes=-", "bytes=a-b", "lines=1-2", "bytes=0-1,5-6", "bytes", ""]
)
def test_what_is_no_single_range_gets_everything(filled: Any, asked: str) -> None:
    service, known, data = filled
    answer = fetch(service, known, Range=asked)
    assert (answer.status_code, answer.content) == (200, data)


def test_an_etag_saves_the_transfer_and_guards_the_range(filled: Any) -> None:
    service, known, data = filled
    etag = fetch(service, known).headers["ETag"]
    again = fetch(service, known, If_None_Match=f'"other", W/{etag}')
    assert (again.status_code, again.content) == (304, b"")
    assert fetch(service, known, Range="bytes=0-9", If_Range=etag).content == data[:10]
    assert fetch(service, known, Range="bytes=0-9", If_Range='"other"').content == data


def test_the_client_gets_ranges_and_files(filled: Any) -> None:
    service, known, data = filled
    assert service.client.audio(known, first_byte=10, last_byte=19) == data[10:20]
    to = service.folder / "copy.wav"
    assert service.client.audio(known, to) == to
    assert to.read_bytes() == data
    with pytest.raises(RangeNotSatisfiableError):
        service.client.audio(known, service.folder / "none.wav", first_byte=len(data))
    assert not list(service.folder.glob("*none.wav*"))


def test_a_file_that_is_gone_is_410(filled: Any) -> None:
    service, known, _ = filled
    (service.folder / "hall" / "noise.wav").unlink()
    assert fetch(service, known).status_code == 410
    with pytest.raises(FileMissingError):
        service.client.clip(known, 0.0, 1.0)


@pytest.mark.parametrize(
    ("start_s", "end_s"), [(0.0, 1.0), (3.5, 4.25), (12.34567, 15.0), (19.0, 20.0)]
)
def test_a_wav_clip_is_exact_to_the_sample(filled: Any, start_s: float, end_s: float) -> None:
    service, known, _ = filled
    clip = service.client.clip(known, start_s, end_s)
    cut, rate_hz = soundfile.read(io.BytesIO(clip), dtype="float32")
    first, end = round(start_s * RATE_HZ), round(end_s * RATE_HZ)
    assert rate_hz == RATE_HZ
    np.testing.assert_array_equal(cut, noise(20.0)[first:end])
    assert service.left_behind() == []


def test_a_clip_without_an_end_goes_to_the_end(filled: Any) -> None:
    service, known, _ = filled
    cut, _ = soundfile.read(io.BytesIO(service.client.clip(known, 18.0)))
    assert len(cut) == 2 * RATE_HZ


def test_an_opus_clip_plays_for_as_long(filled: Any) -> None:
    service, known, _ = filled
    to = service.client.clip(known, 2.0, 5.5, "opus", to=service.folder / "clip.opus")
    found = soundfile.info(to)
    assert (found.format, found.subtype, found.frames) == ("OGG", "OPUS", round(3.5 * 48_000))
    assert service.left_behind() == []


def test_a_spectrogram_is_a_png_of_the_size_asked_for(filled: Any) -> None:
    service, known, _ = filled
    png = service.client.spectrogram(known, 1.0, 4.0, width=320, height=90)
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert (int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")) == (320, 90)
    to = service.client.spectrogram(known, to=service.folder / "a.png")
    assert to.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("what", ["clip", "spectrogram.png"])
@pytest.mark.parametrize(
    ("start_s", "end_s", "code"),
    [
        ("5", "5", "invalid-value"),
        ("5", "4", "invalid-value"),
        ("-1", "4", "invalid-value"),
        ("nan", "4", "invalid-value"),
        ("0", "inf", "invalid-value"),
        ("0", "3601", "invalid-value"),
        ("21", "22", "no-samples"),
    ],
)
def test_an_impossible_stretch_is_refused(
    filled: Any, what: str, start_s: str, end_s: str, code: str
) -> None:
    service, known, _ = filled
    params = {"start_s": start_s, "end_s": end_s}
    answer = httpx.get(f"{service.url}/v1/recordings/{known}/{what}", params=params, timeout=60)
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert service.left_behind() == []


def test_a_stretch_that_begins_behind_the_end_is_refused(filled: Any) -> None:
    service, known, _ = filled
    with pytest.raises(NoSamplesError):
        service.client.clip(known, 30.0)
    with pytest.raises(InvalidValueError):
        service.client.spectrogram(known, width=5)


def test_a_recording_that_nobody_knows_has_no_sound(sqlite_service: Any) -> None:
    for ask in ("audio", "clip", "spectrogram"):
        with pytest.raises(UnknownRecordingError) as caught:
            getattr(sqlite_service.client, ask)(7)
        assert caught.value.value == "7"


def test_a_copied_recording_needs_no_file(sqlite_service: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, noise(2.0), RATE_HZ)
    data = path.read_bytes()
    known = sqlite_service.client.upload(path).recording.id
    path.unlink()
    assert sqlite_service.client.audio(known) == data
    cut, _ = soundfile.read(io.BytesIO(sqlite_service.client.clip(known, 0.5, 1.0)))
    np.testing.assert_array_equal(cut, noise(2.0)[RATE_HZ // 2 : RATE_HZ])


def test_a_stretch_that_takes_too_long_is_answered_in_time(
    start_service: Any, sqlite_store: Any
) -> None:
    service = start_service(sqlite_store, stretch_timeout_s=1e-6)
    known = service.fill(noise=noise(20.0))["noise"]
    for ask in (service.client.clip, service.client.spectrogram):
        with pytest.raises(StretchTimeoutError):
            ask(known)
    deadline = time.monotonic() + 20
    while service.left_behind() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert service.left_behind() == []

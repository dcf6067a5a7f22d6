"""Windows: exact offsets, full lengths, no sample left out, at any rate and in any pieces."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from fractions import Fraction
from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from soundpost.audio.recording import Block
from soundpost.audio.windows import WindowCut, cut_windows, resample
from soundpost.errors import InvalidValueError, UnsupportedRateError


def chop(length: int, sizes: list[int], origin: int = 0) -> Iterator[Block]:
    """A ramp as blocks whose sizes repeat; its values say where each sample belongs."""
    ramp = np.arange(length, dtype=np.float32)
    at, turn = 0, 0
    while at < length:
        size = sizes[turn % len(sizes)]
        piece = ramp[at : at + size]
        yield Block(origin + at, piece, piece % 7 == 0)
        at, turn = at + size, turn + 1


def plain_windows(total: int, rate_hz: int, window_s: str, hop_s: str) -> list[tuple[int, int]]:
    """The definition: (start, length) of every window."""
    length = max(round(Fraction(window_s) * rate_hz), ceil(Fraction(hop_s) * rate_hz))
    if total <= length:
        return [(0, total)] if total else []
    starts = []
    while (start := int(len(starts) * Fraction(hop_s) * rate_hz)) + length <= total:
        starts.append(start)
    if starts[-1] + length < total:
        starts.append(total - length)
    return [(start, length) for start in starts]


RATES = st.sampled_from([1_000, 8_000, 11_025, 16_000, 22_050, 44_100, 48_000])
WINDOWS = st.sampled_from(
    [
        ("10", "5"),
        ("10", "2.5"),
        ("0.96", "0.48"),
        ("0.975", "0.1"),
        ("1", "1"),
        ("2.5", "2.5"),
        ("0.3", "0.07"),
    ]
)


@settings(max_examples=150)
@given(
    rate_hz=RATES,
    lengths=WINDOWS,
    windows=st.floats(0, 6),
    offset=st.integers(-2, 2),
    sizes=st.lists(st.integers(1, 60_000), min_size=1, max_size=4),
    origin=st.sampled_from([0, 12_345]),
)
def test_windows_follow_the_definition_however_the_stream_is_chopped(
    rate_hz: int,
    lengths: tuple[str, str],
    windows: float,
    offset: int,
    sizes: list[int],
    origin: int,
) -> None:
    window_s, hop_s = lengths
    total = max(0, int(windows * float(window_s) * rate_hz) + offset)
    sizes = [max(size, total // 500 + 1) for size in sizes]
    cuts = list(cut_windows(chop(total, sizes, origin), rate_hz, float(window_s), float(hop_s)))
    expected = plain_windows(total, rate_hz, window_s, hop_s)
    assert [(cut.start_sample - origin, len(cut.samples)) for cut in cuts] == expected
    assert [cut.index for cut in cuts] == list(range(len(cuts)))
    covered = np.zeros(total, bool)
    for cut, (start, length) in zip(cuts, expected, strict=True):
        ramp = np.arange(start, start + length, dtype=np.float32)
        np.testing.assert_array_equal(cut.samples, ramp)
        np.testing.assert_array_equal(cut.clipped, ramp % 7 == 0)
        covered[start : start + length] = True
    assert covered.all()


@pytest.mark.parametrize(
    ("rate_hz", "hop_s", "index", "start"),
    [
        (11_025, 2.5, 1, 27_562),
        (11_025, 2.5, 3, 82_687),
        (44_100, 0.1, 7, 30_870),
        (16_000, 0.96, 1, 15_360),
        (44_100, 0.96, 3, 127_008),
        (1_000, 0.0015, 3, 4),
    ],
)
def test_offsets_do_not_drift(rate_hz: int, hop_s: float, index: int, start: int) -> None:
    total = start + 3 * rate_hz
    cuts = list(cut_windows(chop(total, [9_999]), rate_hz, 2.5, hop_s))
    assert cuts[index].start_sample == start
    assert cuts[index].start_s == start / rate_hz
    assert cuts[-1].end_s == total / rate_hz


def test_an_hour_ends_where_they_should() -> None:
    """2.5 s at 11025 Hz is half a sample off an integer: a rounded hop would be 720 off."""
    rate_hz, blocks = 11_025, 360
    empty = Block(0, np.zeros(10 * rate_hz, np.float32), np.zeros(10 * rate_hz, np.bool_))
    *_, last = cut_windows((empty for _ in range(blocks)), rate_hz, 10.0, 2.5)
    assert (last.index, last.start_s, last.end_s) == (1_436, 3_590.0, 3_600.0)


def test_little_is_kept_in_memory() -> None:
    rate_hz = 8_000

    def blocks() -> Iterator[Block]:
        for index in range(360):
            at = index * 10 * rate_hz
            yield Block(at, np.zeros(10 * rate_hz, np.float32), np.zeros(10 * rate_hz, np.bool_))

    tracemalloc.start()
    count = sum(1 for _ in cut_windows(blocks(), rate_hz, 10.0, 5.0))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 719
    # An hour is 144 MB with its clipping marks.
    assert peak_bytes < 5_000_000


def test_a_window_does_not_share_memory_with_the_next() -> None:
    cuts: list[WindowCut] = list(cut_windows(chop(3_000, [700]), 1_000, 1.0, 0.5))
    cuts[0].samples[:] = -1
    np.testing.assert_array_equal(cuts[1].samples, np.arange(500, 1_500, dtype=np.float32))


@pytest.mark.parametrize(
    ("window_s", "hop_s"), [(1.0, 1.1), (1.0, 0.0), (1.0, -1.0), (1.0, 1e-6), (0.0, 0.0)]
)
def test_a_hop_that_leaves_samples_out_is_refused(window_s: float, hop_s: float) -> None:
    with pytest.raises(InvalidValueError):
        cut_windows([], 8_000, window_s, hop_s)


@settings(max_examples=100)
@given(
    length=st.integers(0, 30_000),
    from_hz=st.sampled_from([1_000, 8_000, 11_025, 16_000, 44_100, 48_000, 384_000]),
    to_hz=st.sampled_from([8_000, 16_000, 32_000, 44_100, 48_000]),
)
def test_resampling_has_the_exact_length(length: int, from_hz: int, to_hz: int) -> None:
    made = resample(np.ones(length, np.float32), from_hz, to_hz)
    # Half a sample counts as one.
    assert len(made) == int(Fraction(length * to_hz, from_hz) + Fraction(1, 2))
    assert made.dtype == np.float32
    assert np.isfinite(made).all()


@pytest.mark.parametrize("from_hz", [8_000, 11_025, 44_100, 48_000, 384_000])
@pytest.mark.parametrize("to_hz", [16_000, 32_000, 48_000])
def test_resampling_keeps_a_sine_in_level_and_phase(from_hz: int, to_hz: int) -> None:
    def sine(rate_hz: int) -> NDArray[np.float64]:
        return 0.5 * np.sin(2 * np.pi * 997 * np.arange(2 * rate_hz) / rate_hz)

    made = resample(sine(from_hz).astype(np.float32), from_hz, to_hz)
    edge = to_hz // 5
    np.testing.assert_allclose(made[edge:-edge], sine(to_hz)[edge:-edge], atol=1e-4)
    np.testing.assert_array_equal(made, resample(sine(from_hz).astype(np.float32), from_hz, to_hz))


def test_resampling_removes_what_would_fold_back() -> None:
    time_s = np.arange(96_000) / 48_000
    above = np.sin(2 * np.pi * 12_000 * time_s).astype(np.float32)
    made = resample(above, 48_000, 16_000)
    assert np.abs(made[1_000:-1_000]).max() < 1e-4


def test_resampling_refuses_absurd_rates() -> None:
    for from_hz, to_hz in [(0, 16_000), (16_000, 0), (999, 16_000), (16_000, 768_001)]:
        with pytest.raises(UnsupportedRateError):
            resample(np.zeros(10, np.float32), from_hz, to_hz)

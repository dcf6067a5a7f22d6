"""Cutting a stream of blocks into windows, and resampling them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import soxr

from soundpost.audio.recording import MAX_RATE_HZ, MIN_RATE_HZ, Block, BoolArray, FloatArray
from soundpost.errors import InvalidValueError, UnsupportedRateError


@dataclass(frozen=True)
class WindowCut:
    """One window of a recording at its own rate.

    start_sample: from the beginning of the file. samples, clipped: [N].
    """

    index: int
    start_sample: int
    samples: FloatArray
    clipped: BoolArray
    sample_rate_hz: int

    @property
    def start_s(self) -> float:
        """Where the window starts, in seconds from the beginning of the file."""
        return self.start_sample / self.sample_rate_hz

    @property
    def end_s(self) -> float:
        """Where the window ends, in seconds from the beginning of the file."""
        return (self.start_sample + len(self.samples)) / self.sample_rate_hz


def cut_windows(
    blocks: Iterable[Block], sample_rate_hz: int, window_s: float, hop_s: float
) -> Iterator[WindowCut]:
    """Cut windows of round(window_s * rate) samples; window i starts at floor(i * hop_s * rate).

    Counted from the first block. The last window ends with the recording, so every sample is
    covered by windows of full length; a recording shorter than one window gives one window of its
    own length. Not more than a window and a block are kept in memory. Raises InvalidValueError
    where the hop is longer than the window or shorter than a sample.
    """
    # As written, not as stored: the float 0.96 lies a little below 0.96.
    window = _as_written(window_s) * sample_rate_hz
    hop = _as_written(hop_s) * sample_rate_hz
    if not 1 <= hop <= window:
        raise InvalidValueError(
            hop_s, f"a hop takes at least one sample and at most the window, {window_s} s"
        )
    # Windows side by side that end on half a sample are one longer, or a sample would be lost.
    length = max(round(window), math.ceil(hop))
    return _cut(blocks, sample_rate_hz, length, hop)


def resample(samples: FloatArray, from_hz: int, to_hz: int) -> FloatArray:
    """Resample mono [N] to exactly round(N * to_hz / from_hz) samples with soxr's HQ recipe.

    Raises UnsupportedRateError outside 1 to 768 kHz.
    """
    for rate_hz in (from_hz, to_hz):
        if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
            raise UnsupportedRateError(f"{rate_hz} Hz")
    if from_hz == to_hz or not len(samples):
        return np.array(samples, dtype=np.float32)
    wanted = (2 * len(samples) * to_hz + from_hz) // (2 * from_hz)
    made = soxr.resample(np.ascontiguousarray(samples, np.float32), from_hz, to_hz, quality="HQ")
    # soxr may end one sample off.
    made = np.asarray(made[:wanted], dtype=np.float32)
    return np.pad(made, (0, wanted - len(made)))


class _Tape:
    """The stretch of a stream that later windows may still need."""

    def __init__(self, origin: int, sample_rate_hz: int) -> None:
        self.end = 0
        self._origin = origin
        self._start = 0
        self._rate_hz = sample_rate_hz
        self._samples = np.zeros(0, np.float32)
        self._clipped = np.zeros(0, np.bool_)

    def append(self, block: Block) -> None:
        self._samples = np.concatenate([self._samples, block.samples])
        self._clipped = np.concatenate([self._clipped, block.clipped])
        self.end += len(block.samples)

    def forget(self, before: int) -> None:
        """Drop what lies before a position counted from the first block."""
        drop = max(0, before - self._start)
        self._samples, self._clipped = self._samples[drop:], self._clipped[drop:]
        self._start += drop

    def cut(self, index: int, start: int, length: int) -> WindowCut:
        inside = slice(start - self._start, start - self._start + length)
        return WindowCut(
            index=index,
            start_sample=self._origin + start,
            samples=self._samples[inside].copy(),
            clipped=self._clipped[inside].copy(),
            sample_rate_hz=self._rate_hz,
        )


def _cut(
    blocks: Iterable[Block], sample_rate_hz: int, length: int, hop: Fraction
) -> Iterator[WindowCut]:
    tape: _Tape | None = None
    index, start, covered = 0, 0, 0
    for block in blocks:
        tape = tape or _Tape(block.start_sample, sample_rate_hz)
        tape.append(block)
        while start + length <= tape.end:
            yield tape.cut(index, start, length)
            covered = start + length
            index += 1
            start = int(index * hop)
        # The last window may reach back a whole length from the end.
        tape.forget(min(start, tape.end - length))
    if tape and tape.end > covered:
        last = max(0, tape.end - length)
        yield tape.cut(index, last, tape.end - last)


def _as_written(seconds: float) -> Fraction:
    if not 0 < seconds < float("inf"):
        raise InvalidValueError(seconds, "a window and its hop take more than zero seconds")
    return Fraction(str(float(seconds)))

"""Spectrograms as pictures: time to the right, frequency upwards on a logarithmic axis, in dBFS.

A long stretch takes no more memory than a short one: power is added up by column while the
recording is decoded, and of the frames of a column only a few are transformed.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from soundpost.audio.decode import open_audio
from soundpost.audio.recording import Block, FloatArray
from soundpost.errors import InvalidValueError, NoSamplesError

SIDE_RANGE_PX = (16, 4096)
LOWEST_HZ = 40.0

_FFT = 2048
# A column shows the mean of at most so many frames; more would only take longer.
_FRAMES_A_COLUMN = 16
_FRAMES_AT_ONCE = 256
# Black over violet and orange to pale yellow: even steps in lightness, so that it reads in grey.
_ANCHORS = (
    *((0, 0, 4), (40, 11, 84), (101, 21, 110), (159, 42, 99)),
    *((212, 72, 66), (245, 125, 21), (250, 193, 39), (252, 255, 164)),
)


@dataclass(frozen=True)
class Picture:
    """How to draw: width and height in pixels, black at floor_dbfs, brightest at ceiling_dbfs.

    The level of a full-scale sine is 0 dBFS.
    """

    width: int = 800
    height: int = 256
    floor_dbfs: float = -100.0
    ceiling_dbfs: float = -10.0

    def check(self) -> None:
        """Raise InvalidValueError for sizes and levels that make no sense."""
        low, high = SIDE_RANGE_PX
        for side in (self.width, self.height):
            if not low <= side <= high:
                raise InvalidValueError(f"{side} pixels", f"a side has {low} to {high}")
        if not -200.0 <= self.floor_dbfs < self.ceiling_dbfs <= 100.0:
            levels = f"{self.floor_dbfs:g} to {self.ceiling_dbfs:g} dBFS"
            raise InvalidValueError(levels, "the floor lies below the ceiling, in -200 to 100")


def draw_spectrogram(path: Path, start_s: float, end_s: float, picture: Picture) -> bytes:
    """Draw a stretch of an audio file as PNG; what lies past its end stays black.

    Raises InvalidValueError for an impossible stretch or picture, NoSamplesError where nothing
    lies in the stretch, and an AudioError where the file cannot be decoded.
    """
    picture.check()
    with open_audio(path, start_s=start_s, end_s=end_s) as stream:
        rate_hz = stream.info.sample_rate_hz
        samples = max(1, round((end_s - start_s) * rate_hz))
        columns = _Columns(min(picture.width, samples), samples)
        columns.fill(stream)
        if not stream.samples_read:
            raise NoSamplesError(path, f"nothing lies at {start_s:g} s")
    # A stretch of fewer samples than pixels has its columns side by side several times.
    power = columns.power()
    shown = np.arange(picture.width) * len(power) // picture.width
    return to_png(_levels(power[shown], rate_hz, picture))


def to_png(levels: NDArray[np.uint8]) -> bytes:
    """Write levels [H, W], 0 to 255, as a PNG with the colours of a spectrogram."""
    height, width = levels.shape
    rows = np.zeros((height, width + 1), np.uint8)
    rows[:, 1:] = levels
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        (b"PLTE", _palette().tobytes()),
        (b"IDAT", zlib.compress(rows.tobytes(), 6)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, body) for name, body in parts)


class _Columns:
    """Adds up the power spectra of a stream by the column that their middle falls into."""

    def __init__(self, width: int, samples: int) -> None:
        self._samples_a_column = samples / width
        step = min(self._samples_a_column, _FFT / 4)
        self._hop = max(1, int(max(step, self._samples_a_column / _FRAMES_A_COLUMN)))
        self._sum = np.zeros((width, _FFT // 2 + 1), np.float32)
        self._frames = np.zeros(width, np.int64)
        self._window = np.hanning(_FFT).astype(np.float32)

    def fill(self, blocks: Iterable[Block]) -> None:
        """Take a whole stream; beyond its ends there is silence."""
        half = _FFT // 2
        held, start, centre = np.zeros(half, np.float32), -half, 0
        for block in blocks:
            held = np.concatenate([held, block.samples])
            centre = self._take(held, start, centre, start + len(held) - half)
            drop = max(0, min(len(held), centre - half - start))
            held, start = held[drop:], start + drop
        end = start + len(held)
        held = np.concatenate([held, np.zeros(_FFT, np.float32)])
        self._take(held, start, centre, end)

    def power(self) -> FloatArray:
        """The mean power [W, F] of each column; 1 is a sine at full scale."""
        gain = (float(self._window.sum()) / 2.0) ** 2
        counts = np.maximum(1, self._frames)[:, None]
        return np.asarray(self._sum / (counts * gain), dtype=np.float32)

    def _take(self, held: FloatArray, start: int, centre: int, before: int) -> int:
        """Transform the frames around centres below `before`; return the next centre."""
        centres = np.arange(centre, before, self._hop)
        for first in range(0, len(centres), _FRAMES_AT_ONCE):
            self._add(held, start, centres[first : first + _FRAMES_AT_ONCE])
        return int(centres[-1]) + self._hop if len(centres) else centre

    def _add(self, held: FloatArray, start: int, centres: NDArray[np.int64]) -> None:
        offsets = centres[:, None] - _FFT // 2 - start + np.arange(_FFT)
        spectra = np.abs(np.fft.rfft(held[offsets] * self._window, axis=1)) ** 2
        columns = (centres / self._samples_a_column).astype(np.int64)
        inside = columns < len(self._frames)
        np.add.at(self._sum, columns[inside], spectra[inside].astype(np.float32))
        np.add.at(self._frames, columns[inside], 1)


def _levels(power: FloatArray, rate_hz: int, picture: Picture) -> NDArray[np.uint8]:
    """Turn power [W, F] into the levels of pixels [H, W], the highest frequency on top."""
    rows = np.stack([power[:, bins].max(axis=1) for bins in _bins(rate_hz, picture.height)])
    level_dbfs = 10.0 * np.log10(np.maximum(rows[::-1], 1e-20))
    span_db = picture.ceiling_dbfs - picture.floor_dbfs
    shares = np.clip((level_dbfs - picture.floor_dbfs) / span_db, 0.0, 1.0)
    return np.asarray(np.round(shares * 255.0), dtype=np.uint8)


def _bins(rate_hz: int, height: int) -> list[slice]:
    """Return the bins of each row from the bottom: one where a row is narrower than a bin."""
    nyquist_hz = rate_hz / 2.0
    edges_hz = np.geomspace(min(LOWEST_HZ, nyquist_hz / 8.0), nyquist_hz, height + 1)
    edges = edges_hz / rate_hz * _FFT
    firsts = np.minimum(np.round(edges[:-1]).astype(int), _FFT // 2)
    ends = np.maximum(np.round(edges[1:]).astype(int), firsts + 1)
    return [slice(first, end) for first, end in zip(firsts.tolist(), ends.tolist(), strict=True)]


def _palette() -> NDArray[np.uint8]:
    anchors = np.array(_ANCHORS, np.float64)
    at, places = np.linspace(0, 1, 256), np.linspace(0, 1, len(anchors))
    channels = [np.interp(at, places, anchors[:, channel]) for channel in range(3)]
    return np.round(np.stack(channels, axis=1)).astype(np.uint8)


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

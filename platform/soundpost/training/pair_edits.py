"""The signal processing behind known differences: stretching, pitch, bands, rooms, noise.

Waves are mono float32 [N] at 16 kHz. Nothing here changes a level without saying so.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from soundpost.audio.scenes import active_rms
from soundpost.audio.sounds.kind import Take
from soundpost.audio.sounds.synthesis import band, decay, fast_length, filtered, noise, tilt
from soundpost.audio.windows import resample
from soundpost.training.data import SAMPLE_RATE_HZ

FloatArray = NDArray[np.float32]
ComplexArray = NDArray[np.complexfloating[Any, Any]]

# Edges of the bands that listeners are told of, and the octaves over which a filter passes them.
BAND_EDGES_HZ = {"low": (0.0, 300.0), "middle": (300.0, 2_000.0), "high": (2_000.0, 8_000.0)}
_EDGE_OCTAVES = 1.0 / 6.0
NOISE_COLOURS = ("white", "pink")
BLOCK_S = 0.05
# A reverberated sound holds as much energy of the room as this, over its own, in dB.
WET_DB = 3.0

# Where the line of a motor's turning is looked for.
TURNING_HZ = (100.0, 300.0)

_FRAME, _HOP = 1_024, 256
_LINE_FRAME = 8_000
_JOIN_S = 0.05


def stretched(wave: FloatArray, factor: float) -> FloatArray:
    """Make a wave [N] `factor` times as long [round(N * factor)] at the same pitch.

    A phase vocoder: each frame advances by what the phase advanced over one hop just before it,
    at the peaks of its spectrum; the bins around a peak keep their phases to it.
    """
    length = round(len(wave) * factor)
    if length == len(wave) or not len(wave):
        return wave
    count = -(-length // _HOP) + _FRAME // _HOP
    places = np.round(np.arange(count) * _HOP / factor).astype(np.int64)
    padded = np.pad(wave, (_FRAME, 2 * _FRAME))
    frames = sliding_window_view(padded, _FRAME)
    last = len(frames) - 1
    window = _window()
    here = np.fft.rfft(frames[np.minimum(places + _FRAME // 2, last)] * window)
    before = np.fft.rfft(frames[np.clip(places + _FRAME // 2 - _HOP, 0, last)] * window)
    made = np.fft.irfft(here * np.exp(1j * _turns(here, before)), _FRAME).astype(np.float32)
    return _overlapped(made * window)[_FRAME // 2 : _FRAME // 2 + length]


def _turns(here: ComplexArray, before: ComplexArray) -> FloatArray:
    """By how much each bin of each frame [K, B] is turned, so that peaks go on from frame to frame."""
    advance = np.zeros(here.shape, np.float32)
    advance[1:] = np.angle(here[:-1]) - np.angle(before[1:])
    owners = _nearest_peaks(np.abs(here))
    turns = np.zeros_like(advance)
    for frame in range(1, len(here)):
        turns[frame] = (turns[frame - 1] + advance[frame])[owners[frame]] % (2.0 * np.pi)
    return turns


def _nearest_peaks(sizes: FloatArray) -> NDArray[np.int64]:
    """The nearest peak of the spectrum to each bin of each frame [K, B]."""
    bins = np.arange(sizes.shape[1])
    peaks = np.zeros(sizes.shape, bool)
    peaks[:, 1:-1] = (sizes[:, 1:-1] >= sizes[:, :-2]) & (sizes[:, 1:-1] > sizes[:, 2:])
    left = np.maximum.accumulate(np.where(peaks, bins, -len(bins)), axis=1)
    right = np.minimum.accumulate(np.where(peaks, bins, 2 * len(bins))[:, ::-1], axis=1)[:, ::-1]
    nearest = np.where(bins - left <= right - bins, left, right)
    # A frame without a peak is left as it is.
    return np.where((nearest >= 0) & (nearest < len(bins)), nearest, bins)


@lru_cache(maxsize=1)
def _window() -> FloatArray:
    return (0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(_FRAME) / _FRAME)).astype(np.float32)


def _overlapped(frames: FloatArray) -> FloatArray:
    """Add windowed frames [K, F] a hop apart; the squares of the windows add up to 1.5."""
    steps = _FRAME // _HOP
    total = np.zeros((len(frames) + steps - 1, _HOP), np.float32)
    for step in range(steps):
        total[step : step + len(frames)] += frames[:, step * _HOP : (step + 1) * _HOP]
    return total.reshape(-1) / np.float32(1.5)


def shifted(wave: FloatArray, semitones: float) -> FloatArray:
    """Raise the pitch of a wave [N] by semitones, lower where negative; its length stays."""
    ratio = 2.0 ** (semitones / 12.0)
    quicker = resample(wave, round(SAMPLE_RATE_HZ * ratio), SAMPLE_RATE_HZ)
    made = stretched(quicker, len(wave) / max(len(quicker), 1))
    return np.pad(made[: len(wave)], (0, max(0, len(wave) - len(made))))


def banded(wave: FloatArray, name: str, gain_db: float) -> FloatArray:
    """Raise one of `BAND_EDGES_HZ` of a wave [N] by gain_db, or cut it where negative."""
    low_hz, high_hz = BAND_EDGES_HZ[name]

    def response(frequency_hz: NDArray[np.float64]) -> NDArray[np.float64]:
        octaves = np.log2(np.maximum(frequency_hz, 1.0))
        inside = np.ones_like(octaves)
        if low_hz > 0.0:
            inside *= _step(octaves - np.log2(low_hz))
        if high_hz < SAMPLE_RATE_HZ / 2:
            inside *= _step(np.log2(high_hz) - octaves)
        return np.asarray(10.0 ** (gain_db * inside / 20.0))

    return filtered(wave, SAMPLE_RATE_HZ, response)


def _step(octaves: NDArray[np.float64]) -> NDArray[np.float64]:
    """From 0 to 1 around 0, over `_EDGE_OCTAVES` to either side."""
    place = np.clip(octaves / (2.0 * _EDGE_OCTAVES) + 0.5, 0.0, 1.0)
    return np.asarray(0.5 - 0.5 * np.cos(np.pi * place))


def room_response(rt60_s: float, rng: np.random.Generator) -> FloatArray:
    """Return an impulse response [N]: the sound itself, then noise that falls 60 dB in rt60_s."""
    take = Take(round(rt60_s * SAMPLE_RATE_HZ), SAMPLE_RATE_HZ, rng)
    late = noise(take, band(100.0, 6_000.0, 0.5)) * decay(take, rt60_s, 0.005)
    late *= np.float32(10.0 ** (WET_DB / 20.0) / np.sqrt(np.square(late).sum()))
    late[0] += 1.0
    return late


def reverberant(wave: FloatArray, response: FloatArray) -> FloatArray:
    """Convolve a wave [N] with a room's response [M], cut to N; the RMS level stays as it was."""
    length = fast_length(len(wave) + len(response))
    made = np.fft.irfft(np.fft.rfft(wave, length) * np.fft.rfft(response, length), length)
    wet: FloatArray = made[: len(wave)].astype(np.float32)
    return wet * np.float32(rms(wave) / max(rms(wet), 1e-12))


def coloured_noise(colour: str, samples: int, rng: np.random.Generator) -> FloatArray:
    """Return white or pink noise [samples] of RMS 1."""
    if colour == "white":
        return rng.standard_normal(samples, dtype=np.float32)
    falling = tilt(-3.0)
    return noise(Take(samples, SAMPLE_RATE_HZ, rng), falling)


def turning_hz(wave: FloatArray) -> float:
    """Return where the strongest line of a wave [N] is that a small motor's turning could make."""
    frames = wave[: len(wave) // _LINE_FRAME * _LINE_FRAME].reshape(-1, _LINE_FRAME)
    window = np.hanning(_LINE_FRAME).astype(np.float32)
    power = np.square(np.abs(np.fft.rfft(frames * window))).sum(axis=0)
    low, high = (round(hz * _LINE_FRAME / SAMPLE_RATE_HZ) for hz in TURNING_HZ)
    return float((low + int(np.argmax(power[low:high]))) * SAMPLE_RATE_HZ / _LINE_FRAME)


def rms(wave: FloatArray) -> float:
    """Return the RMS of a wave [N]."""
    return float(np.sqrt(np.dot(wave, wave) / max(len(wave), 1)))


def loudness(wave: FloatArray) -> float:
    """Return the RMS of the active part of a wave [N], as `audio.scenes` defines it."""
    return active_rms(wave, SAMPLE_RATE_HZ)[0] if len(wave) else 0.0


def block_powers(wave: FloatArray) -> NDArray[np.float64]:
    """Return the mean square of each 50 ms of a wave [N]; what is left at the end is left out."""
    block = round(BLOCK_S * SAMPLE_RATE_HZ)
    whole = wave[: len(wave) // block * block].reshape(-1, block)
    powers: NDArray[np.float64] = np.einsum("ij,ij->i", whole, whole, dtype=np.float64)
    return powers / block


def lasting(wave: FloatArray, samples: int) -> FloatArray:
    """Return `samples` of a sound that goes on: joined to itself where it ends, without a click."""
    join = min(round(_JOIN_S * SAMPLE_RATE_HZ), len(wave) // 4)
    if samples <= len(wave) or not join:
        return wave[:samples] if samples <= len(wave) else np.resize(wave, samples)
    rise = np.linspace(0.0, 1.0, join, dtype=np.float32)
    body = wave[join:].copy()
    # Uncorrelated sounds keep their level when the squares of the gains add up to one.
    body[-join:] = body[-join:] * np.sqrt(1.0 - rise) + wave[:join] * np.sqrt(rise)
    return np.concatenate([wave[:join], np.resize(body, samples - join)])


def faded(wave: FloatArray, seconds: float = 0.01) -> FloatArray:
    """Fade both ends, so that a cut is no click."""
    length = min(round(seconds * SAMPLE_RATE_HZ), len(wave) // 2)
    made = wave.copy()
    if length:
        ramp = np.linspace(0.0, 1.0, length, dtype=np.float32)
        made[:length] *= ramp
        made[-length:] *= ramp[::-1]
    return made


def first_burst(wave: FloatArray) -> tuple[int, int] | None:
    """Return where the first single sound of a wave [N] lies, from sample to sample.

    None where the wave has no pause of a tenth of a second, 20 dB below its loudest, after a sound
    of 50 ms to 1.2 s.
    """
    block = round(BLOCK_S * SAMPLE_RATE_HZ)
    powers = block_powers(wave)
    if not len(powers):
        return None
    loud = np.r_[False, powers >= powers.max() * 10.0**-2.0, False]
    starts = np.flatnonzero(loud[1:] & ~loud[:-1])
    ends = np.flatnonzero(~loud[1:] & loud[:-1])
    first, end = int(starts[0]), int(ends[0])
    for start, later in zip(starts[1:], ends[1:], strict=True):
        if start - end >= 2:
            break
        end = int(later)
    if not 1 <= end - first <= 24 or end + 2 > len(powers):
        return None
    return max(first - 1, 0) * block, (end + 1) * block

"""How a recording goes on in time: levels, bands, spectra, onsets, decay, pulse.

All at 16 kHz, so that two recordings of different rates are heard alike: what lies above 8 kHz is
not compared. Levels follow the conventions of `soundpost.audio.acoustics`; none is below
`FLOOR_DBFS`, under which lies the noise of converters.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from soundpost.audio.acoustics import a_weighting_db

FloatArray = NDArray[np.float32]

RATE_HZ: Final = 16_000
HOP_S: Final = 0.025
FINE_HOP_S: Final = 0.064
FLOOR_DBFS: Final = -100.0
# Low: hum and rumble. Middle: most of a voice. High: hiss, clatter, birds.
BAND_EDGES_HZ: Final = (300.0, 2_000.0)
BAND_NAMES: Final = ("low", "middle", "high")
FINE_PER_OCTAVE: Final = 24
FINE_LOWEST_HZ: Final = 80.0
FINE_HIGHEST_HZ: Final = 7_600.0

_HOP: Final = round(HOP_S * RATE_HZ)
_FRAME: Final = 512
_FINE_HOP: Final = round(FINE_HOP_S * RATE_HZ)
_FINE_FRAME: Final = 2_048
# Bands in which sudden rises are looked for: a bird is heard through a rumble.
_RISE_BANDS: Final = 12
_RISE_DB: Final = 6.0
_RISE_GAP_S: Final = 0.15
# A rise far below the loudest moment is nothing that a listener would count.
_RISE_RANGE_DB: Final = 30.0
# A fall counts as decay from 3 dB below its peak on, over at least 10 dB.
_DECAY_START_DB: Final = 3.0
_DECAY_RANGE_DB: Final = 10.0
_DECAY_LONGEST_S: Final = 1.5
_PULSE_LAGS_S: Final = (0.1, 2.0)
_LEAST_PULSE: Final = 0.1


@dataclass(frozen=True, eq=False)
class Profile:
    """Time profile of one recording; T steps of `HOP_S`, S steps of `FINE_HOP_S`.

    level_dbfs, a_level_dbfs: [T], RMS and A-weighted. bands_dbfs: [T, 3], in `BAND_NAMES`.
    fast_dbfs: [T, 12], in bands of about half an octave from 100 Hz.
    fine_dbfs: [S, K], a spectrum of K = 24 bands an octave from 80 Hz. noise_floor_dbfs: A-weighted
    level in the quietest tenth; noise_flatness: how white the spectrum is there, 0 to 1.
    decay_db_per_s: how fast levels fall after peaks, None where nothing falls by 10 dB.
    onsets_s: when sudden rises begin. pulse_hz, pulse_strength: the strongest period of the
    envelope and its autocorrelation, 0 where there is none.
    """

    level_dbfs: FloatArray
    a_level_dbfs: FloatArray
    bands_dbfs: FloatArray
    fast_dbfs: FloatArray
    fine_dbfs: FloatArray
    noise_floor_dbfs: float
    noise_flatness: float
    decay_db_per_s: float | None
    onsets_s: FloatArray
    pulse_hz: float
    pulse_strength: float


def profile(wave: FloatArray) -> Profile:
    """Measure a mono wave [N] at `RATE_HZ`, N >= 1, finite."""
    wave = np.asarray(wave - wave.mean(dtype=np.float64), np.float32)
    power = _powers(wave, _FRAME, _HOP)
    tables = _tables()
    a_level = _dbfs(power @ tables.a_weights)
    bands = _dbfs(power @ tables.bands)
    rises = _dbfs(power @ tables.rises)
    fine = _dbfs(_powers(wave, _FINE_FRAME, _FINE_HOP) @ tables.fine)
    quiet = a_level <= np.quantile(a_level, 0.1)
    hz, strength = pulse(a_level)
    return Profile(
        level_dbfs=_dbfs(power.sum(axis=1)),
        a_level_dbfs=a_level,
        bands_dbfs=bands,
        fast_dbfs=rises,
        fine_dbfs=fine,
        noise_floor_dbfs=float(np.quantile(a_level, 0.1)),
        noise_flatness=_flatness(power[quiet]),
        decay_db_per_s=decay_db_per_s(a_level),
        onsets_s=_onsets_s(rises, a_level),
        pulse_hz=hz,
        pulse_strength=strength,
    )


def band_levels_dbfs(wave: FloatArray) -> FloatArray:
    """Return levels [T, 12] over time of a wave [N] at `RATE_HZ`, as in `Profile.fast_dbfs`."""
    return _dbfs(_powers(wave, _FRAME, _HOP) @ _tables().rises)


def mean_dbfs(levels_dbfs: FloatArray) -> float:
    """Level of the mean power of levels [T] in dB; the floor for none."""
    if not levels_dbfs.size:
        return FLOOR_DBFS
    return float(10.0 * np.log10(np.mean(10.0 ** (levels_dbfs.astype(np.float64) / 10.0))))


def pulse(levels_dbfs: FloatArray) -> tuple[float, float]:
    """Return rate in Hz and strength, 0 to 1, of the strongest period of a level curve [T]."""
    first, last = (round(lag_s / HOP_S) for lag_s in _PULSE_LAGS_S)
    last = min(last, len(levels_dbfs) // 2)
    shape = np.maximum(levels_dbfs, levels_dbfs.max() - 40.0)
    shape = shape - shape.mean()
    if last <= first or float(shape.std()) < 1.0:
        return 0.0, 0.0
    spectrum = np.abs(np.fft.rfft(shape, 2 * len(shape))) ** 2
    likeness = np.fft.irfft(spectrum)[: last + 2]
    overlap = len(shape) - np.arange(len(likeness))
    likeness = likeness / overlap * len(shape) / max(float(likeness[0]), 1e-9)
    middle = likeness[first : last + 1]
    peaks = (middle > likeness[first - 1 : last]) & (middle >= likeness[first + 1 : last + 2])
    strongest = float(middle[peaks].max(initial=0.0))
    if strongest < _LEAST_PULSE:
        return 0.0, 0.0
    # A period's multiples are as strong as itself: the shortest of the strong ones is it.
    lag = first + int(np.flatnonzero(peaks & (middle >= 0.85 * strongest))[0])
    return 1.0 / (lag * HOP_S), float(np.clip(likeness[lag], 0.0, 1.0))


def decay_db_per_s(levels_dbfs: FloatArray) -> float | None:
    """Return how fast a level curve [T] falls after its peaks, the median in dB/s."""
    slopes = [slope for peak in _peaks(levels_dbfs) if (slope := _fall(levels_dbfs, peak))]
    return float(np.median(slopes)) if slopes else None


def _peaks(levels_dbfs: FloatArray) -> NDArray[np.intp]:
    """Places of the maxima within 0.1 s either side, in the upper 30 dB."""
    reach = 4
    padded = np.pad(levels_dbfs, reach, constant_values=-np.inf)
    highest = sliding_window_view(padded, 2 * reach + 1).max(axis=1)
    audible = levels_dbfs >= max(float(levels_dbfs.max()) - _RISE_RANGE_DB, FLOOR_DBFS + 20.0)
    return np.flatnonzero((levels_dbfs == highest) & audible)


def _fall(levels_dbfs: FloatArray, peak: int) -> float | None:
    """Return the slope in dB/s of the fall behind a peak, None where it is too short."""
    after = levels_dbfs[peak : peak + round(_DECAY_LONGEST_S / HOP_S)]
    lowest = np.minimum.accumulate(after)
    # It ends where the level rises again by 3 dB or has reached what is always there.
    rises = np.flatnonzero(after > lowest + 3.0)
    after = after[: rises[0]] if len(rises) else after
    end = int(after.argmin())
    drop = float(after[0] - after[end])
    if drop < _DECAY_RANGE_DB:
        return None
    inside = np.flatnonzero(
        (after[: end + 1] <= after[0] - _DECAY_START_DB) & (after[: end + 1] >= after[end] + 2.0)
    )
    first = int(inside[0]) if len(inside) else end
    last = max(int(inside[-1]) if len(inside) else end, first + 1)
    last = min(last, len(after) - 1)
    start = first if last > first else first - 1
    return float(after[start] - after[last]) / ((last - start) * HOP_S)


def _onsets_s(rises_dbfs: FloatArray, a_level_dbfs: FloatArray) -> FloatArray:
    """Times of sudden rises in bands [T, R], at least `_RISE_GAP_S` apart, the clearest first."""
    floor = max(float(a_level_dbfs.max()) - _RISE_RANGE_DB - 15.0, FLOOR_DBFS)
    clipped = np.maximum(rises_dbfs, floor)
    before = np.maximum(clipped[:-2], clipped[1:-1]) if len(clipped) > 2 else clipped[:0]
    if not len(before):
        return np.zeros(0, np.float32)
    novelty = np.maximum(clipped[2:] - before, 0.0).mean(axis=1)
    audible = a_level_dbfs[2:] >= float(a_level_dbfs.max()) - _RISE_RANGE_DB
    novelty = np.where(audible, novelty, 0.0)
    return _spaced(novelty)


def _spaced(novelty: FloatArray) -> FloatArray:
    gap, found = round(_RISE_GAP_S / HOP_S), []
    left = novelty.copy()
    while left.max() >= _RISE_DB:
        place = int(left.argmax())
        found.append((place + 2) * HOP_S)
        left[max(place - gap, 0) : place + gap + 1] = 0.0
    return np.array(sorted(found), np.float32)


def _flatness(power: FloatArray) -> float:
    """Geometric over arithmetic mean of a mean spectrum above 100 Hz; 0 for silence."""
    spectrum = power.mean(axis=0)[4:].astype(np.float64)
    if spectrum.mean() <= 10.0 ** (FLOOR_DBFS / 10.0) / len(spectrum):
        return 0.0
    return float(np.exp(np.log(spectrum + 1e-16).mean()) / (spectrum.mean() + 1e-16))


def _powers(wave: FloatArray, frame: int, hop: int) -> FloatArray:
    """Power of bins [steps, frame / 2 + 1] that add up to the mean square around each step."""
    steps = max(len(wave) // hop, 1)
    front = (frame - hop) // 2
    padded = np.zeros((steps - 1) * hop + frame, np.float32)
    length = min(len(wave), len(padded) - front)
    padded[front : front + length] = wave[:length]
    window = np.hanning(frame).astype(np.float32)
    bins = np.fft.rfft(sliding_window_view(padded, frame)[::hop] * window)
    power = np.square(bins.real) + np.square(bins.imag)
    scale = 2.0 / (frame * float(np.square(window, dtype=np.float64).sum()))
    return np.asarray(power * scale, np.float32)


def _dbfs(power: FloatArray) -> FloatArray:
    levels = 10.0 * np.log10(np.maximum(power, 1e-20))
    return np.asarray(np.maximum(levels, FLOOR_DBFS), np.float32)


@dataclass(frozen=True)
class _Tables:
    """Weights of bins: a_weights [257], bands [257, 3], rises [257, R], fine [1025, K]."""

    a_weights: FloatArray
    bands: FloatArray
    rises: FloatArray
    fine: FloatArray


@lru_cache(maxsize=1)
def _tables() -> _Tables:
    hz: NDArray[np.float64] = np.fft.rfftfreq(_FRAME, 1.0 / RATE_HZ).astype(np.float64)
    owner = np.searchsorted(np.array(BAND_EDGES_HZ), hz, side="right")
    edges = np.geomspace(100.0, 7_500.0, _RISE_BANDS + 1)
    rise_owner = np.clip(np.searchsorted(edges, hz, side="right") - 1, -1, _RISE_BANDS - 1)
    return _Tables(
        a_weights=(10.0 ** (a_weighting_db(hz) / 10.0)).astype(np.float32),
        bands=(owner[:, None] == np.arange(3)).astype(np.float32),
        rises=(rise_owner[:, None] == np.arange(_RISE_BANDS)).astype(np.float32),
        fine=_fine_weights(),
    )


def fine_centres_hz() -> NDArray[np.float64]:
    """Centres [K] of the bands of `Profile.fine_dbfs` in Hz."""
    octaves = np.log2(FINE_HIGHEST_HZ / FINE_LOWEST_HZ)
    steps = np.arange(int(octaves * FINE_PER_OCTAVE) + 1) / FINE_PER_OCTAVE
    centres: NDArray[np.float64] = FINE_LOWEST_HZ * 2.0**steps
    return centres


def _fine_weights() -> FloatArray:
    """Triangles in frequency, never narrower than a bin, each of weight one."""
    hz = np.fft.rfftfreq(_FINE_FRAME, 1.0 / RATE_HZ)
    centres = fine_centres_hz()
    half_width = np.maximum(centres * (2.0 ** (1.0 / FINE_PER_OCTAVE) - 1.0), hz[1])
    weights = np.maximum(1.0 - np.abs(hz[:, None] - centres) / half_width, 0.0)
    return np.asarray(weights / np.maximum(weights.sum(axis=0), 1e-9), np.float32)

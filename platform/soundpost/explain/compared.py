"""Measured differences between two recordings, always audio 2 minus audio 1.

What is measured of a sound is measured where, and in the bands in which, it is heard; of the whole
recording everywhere. None stands for what cannot be measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from soundpost.explain.ear import BoolArray, Ear
from soundpost.explain.listening import Listening
from soundpost.explain.profile import (
    BAND_NAMES,
    FINE_HOP_S,
    FINE_PER_OCTAVE,
    FLOOR_DBFS,
    HOP_S,
    mean_dbfs,
    pulse,
)

FloatArray = NDArray[np.float32]
DoubleArray = NDArray[np.float64]

# What lies further below a recording's loudest moment is not compared.
_RANGE_DB: Final = 60.0
# A band belongs to a sound where it is louder by so much while the sound is heard.
_OWN_DB: Final = 2.0
_LEAST_OWN_DB: Final = 5.0
# A repetition is a peak within so much of the loudest one, and falls off by so much on both sides.
_COUNT_RANGE_DB: Final = 8.0
_COUNT_FALL_DB: Final = 6.0
_ACTIVE_RANGE_DB: Final = 6.0
# Shifts of pitch that are looked for, and how much better a shifted spectrum must fit.
_MOST_SHIFT_OCTAVES: Final = 10.0 / 12.0
_SHIFT_GAIN: Final = 0.05
_CONTRAST_BANDS: Final = 13
# Weaker pulses are as often those of something else.
_LEAST_PULSE: Final = 0.45
_FALL_S: Final = 0.4
_LEAST_PAUSE_DB: Final = 6.0
_DISAGREEING_DB: Final = 1.0
# Nine in ten floors of white and pink noise are below 1.3 dB, of rain, engines and rooms above 1.8 dB.
_MOST_ROUGHNESS_DB: Final = 1.8
_LOUD_DB: Final = 6.0
_BAND_RANGE_DB: Final = 25.0


@dataclass(frozen=True, eq=False)
class Shift:
    """A pitch shift: in semitones, 0 where no shift fits better, and how well spectra fit unshifted."""

    semitones: float
    likeness: float


class Comparison:
    """Two recordings, heard by one ear."""

    def __init__(self, first: Listening, second: Listening, ear: Ear) -> None:
        self.first = first
        self.second = second
        self.ear = ear

    @property
    def both(self) -> tuple[Listening, Listening]:
        """Audio 1 and audio 2."""
        return self.first, self.second

    def audio(self, number: int) -> Listening:
        """Return audio 1 or 2."""
        return self.second if number == 2 else self.first

    def heard(self, what: str) -> tuple[float, float]:
        """Return how surely a sound is heard in each."""
        first, second = (self.ear.probability(one, what) for one in self.both)
        return first, second

    # --- levels ---------------------------------------------------------------------------------

    def levels_dbfs(self, what: str | None) -> tuple[float, float]:
        """Return A-weighted levels: of the whole, or while a sound is heard."""
        if what is None:
            first, second = (one.acoustics.a_level_dbfs for one in self.both)
        else:
            first, second = (mean_dbfs(_in(one, self._when(one, what))) for one in self.both)
        return max(first, FLOOR_DBFS), max(second, FLOOR_DBFS)

    def band_db(self, name: str) -> tuple[float, float]:
        """Return by how much a band rose, and by how much more than the other two."""
        means = [
            [mean_dbfs(one.profile.bands_dbfs[:, place]) for place in range(len(BAND_NAMES))]
            for one in self.both
        ]
        rises = np.array(means[1]) - np.array(means[0])
        place = BAND_NAMES.index(name)
        return float(rises[place]), float(rises[place] - np.delete(rises, place).mean())

    def centroids_hz(self) -> tuple[float, float]:
        """Return the mean frequency of each: how bright it is as a whole."""
        first, second = (max(one.acoustics.centroid_hz, 1.0) for one in self.both)
        return first, second

    def noise_db(self) -> tuple[float, float]:
        """Return by how much the noise floor rose in all bands, and by how much more than peaks."""
        return noise_db(*self.both)

    def falls_db(self) -> tuple[float, float] | None:
        """Return how far levels fall within 0.4 s behind loud moments, over the same floor."""
        return falls_db(*self.both)

    # --- time -----------------------------------------------------------------------------------

    def starts_s(self, what: str | None) -> tuple[float, float] | None:
        """Return when a sound is first heard in each, or anything at all."""
        starts = []
        for one in self.both:
            when = _loud(one) if what is None else self._when(one, what)
            if not when.any():
                return None
            starts.append(float(np.flatnonzero(when)[0]) * HOP_S)
        return starts[0], starts[1]

    def counts(self, what: str | None) -> tuple[tuple[int, int], float]:
        """Return how often a sound is heard in each, and log2 of how much longer in all it sounds."""
        curves = self._own_curves(what, FINE_HOP_S)
        top = max(float(curve.max()) for curve in curves)
        counts = [_repetitions(curve, top) for curve in curves]
        active = [int((curve >= top - _ACTIVE_RANGE_DB).sum()) + 1 for curve in curves]
        return (counts[0], counts[1]), float(np.log2(active[1] / active[0]))

    def rates_hz(self, what: str | None) -> tuple[float, float] | None:
        """Return how often a second a sound pulses in each; None where one has no clear pulse."""
        pulses = [pulse(curve.astype(np.float32)) for curve in self._own_curves(what, HOP_S)]
        if min(strength for _, strength in pulses) < _LEAST_PULSE:
            return None
        return pulses[0][0], pulses[1][0]

    def pitch(self, what: str | None) -> Shift:
        """Return by how many semitones the spectrum of a sound moved."""
        first, second = (_contrast(self._spectrum_db(one, what)) for one in self.both)
        most = round(_MOST_SHIFT_OCTAVES * FINE_PER_OCTAVE)
        likeness = np.array([_shifted_likeness(first, second, s) for s in range(-most, most + 1)])
        best = int(likeness.argmax())
        still = float(likeness[most])
        moved = likeness[best] - still > _SHIFT_GAIN
        steps = best - most if moved else 0
        return Shift(12.0 * steps / FINE_PER_OCTAVE, still)

    # --- where a sound is -----------------------------------------------------------------------

    def _when(self, one: Listening, what: str) -> BoolArray:
        return self.ear.when(one, what)

    def _spectrum_db(self, one: Listening, what: str | None) -> DoubleArray:
        """Return the mean spectrum [K] in dB, while a sound is heard."""
        power = 10.0 ** (one.profile.fine_dbfs.astype(np.float64) / 10.0)
        if what is not None:
            when = _stepped(self._when(one, what), FINE_HOP_S, len(power))
            power = power[when] if when.any() else power
        spectrum: DoubleArray = 10.0 * np.log10(power.mean(axis=0) + 1e-10)
        return spectrum

    def _own_curves(self, what: str | None, hop_s: float) -> tuple[DoubleArray, DoubleArray]:
        """Return levels over time [T] in the bands that a sound has, the same bands in both."""
        levels = [
            one.profile.fine_dbfs if hop_s == FINE_HOP_S else one.profile.fast_dbfs
            for one in self.both
        ]
        top = max(float(level.max()) for level in levels)
        clipped = [np.maximum(level.astype(np.float64), top - _RANGE_DB) for level in levels]
        weights = self._own_bands(what, hop_s, clipped)
        curves = [10.0 * np.log10((10.0 ** (level / 10.0)) @ weights + 1e-10) for level in clipped]
        return curves[0], curves[1]

    def _own_bands(self, what: str | None, hop_s: float, levels: list[DoubleArray]) -> DoubleArray:
        """Return weights [K] of the bands that are louder while a sound is heard; add up to one."""
        flat = np.full(levels[0].shape[1], 1.0 / levels[0].shape[1])
        if what is None:
            return flat
        when = np.concatenate(
            [
                _stepped(self._when(one, what), hop_s, len(level))
                for one, level in zip(self.both, levels, strict=True)
            ]
        )
        if not when.any() or when.all():
            return flat
        joined = np.concatenate(levels)
        rise = joined[when].mean(axis=0) - joined[~when].mean(axis=0)
        own: DoubleArray = np.maximum(rise - _OWN_DB, 0.0)
        return own / own.sum() if own.sum() >= _LEAST_OWN_DB else flat


def noise_db(first: Listening, second: Listening) -> tuple[float, float]:
    """Return by how much the noise floor rose in all bands, and by how much more than peaks."""
    both = (first, second)
    floors = [_floor_dbfs(one) for one in both]
    peaks = [float(np.quantile(one.profile.a_level_dbfs, 0.99)) for one in both]
    rise = float(np.mean(floors[1] - floors[0]))
    return rise, rise - (peaks[1] - peaks[0])


def noise_change_db(first: Listening, second: Listening) -> float | None:
    """Return the smaller of the floor's two rises where they agree in sign, else 0.

    None where neither recording has quiet moments, for a steady sound cannot be told from noise,
    where the rises plainly disagree, for then what is heard changed with the floor, and where what
    fills the pauses has a spectrum of its own: rain is no noise.
    """
    spreads = [
        float(np.quantile(one.profile.a_level_dbfs, 0.95)) - one.profile.noise_floor_dbfs
        for one in (first, second)
    ]
    if max(spreads) < _LEAST_PAUSE_DB:
        return None
    rise_db, relative_db = noise_db(first, second)
    smaller_db = min(rise_db, relative_db, key=abs)
    if rise_db * relative_db <= 0.0:
        return None if abs(smaller_db) >= _DISAGREEING_DB else 0.0
    noisier = second if rise_db > 0.0 else first
    own = abs(smaller_db) >= _DISAGREEING_DB and _roughness_db(noisier) > _MOST_ROUGHNESS_DB
    return None if own else smaller_db


def _roughness_db(one: Listening) -> float:
    """Return how far a recording's floor is from a straight line over the logarithm of frequency."""
    floor = _floor_dbfs(one)
    places = np.arange(len(floor))
    return float(np.std(floor - np.polyval(np.polyfit(places, floor, 1), places)))


def _floor_dbfs(one: Listening) -> DoubleArray:
    """Return the level [K] of each fine band in the quietest tenth of the time."""
    levels = np.maximum(one.profile.fine_dbfs.astype(np.float64), FLOOR_DBFS + 10.0)
    floor: DoubleArray = np.quantile(levels, 0.1, axis=0)
    return floor


def falls_db(first: Listening, second: Listening) -> tuple[float, float] | None:
    """Return how far levels fall within 0.4 s behind loud moments, in the mean of the bands."""
    levels = [_below_peak(one.profile.fast_dbfs) for one in (first, second)]
    falls = [
        (one, other)
        for band in _common_bands(first, second)
        if (one := _fall_db(levels[0][:, band], levels[1][:, band])) is not None
        and (other := _fall_db(levels[1][:, band], levels[0][:, band])) is not None
    ]
    if not falls:
        return None
    means = np.mean(falls, axis=0)
    return float(means[0]), float(means[1])


def _common_bands(first: Listening, second: Listening) -> NDArray[np.intp]:
    """Return the bands of `Profile.fast_dbfs` that matter in both."""
    peaks = [np.quantile(one.profile.fast_dbfs, 0.97, axis=0) for one in (first, second)]
    matter = [peak >= peak.max() - _BAND_RANGE_DB for peak in peaks]
    return np.flatnonzero(matter[0] & matter[1])


def _in(one: Listening, when: BoolArray) -> FloatArray:
    levels = one.profile.a_level_dbfs
    return np.asarray(levels[when] if when.any() else levels, np.float32)


def _loud(one: Listening) -> BoolArray:
    """Say where [T] a recording is within 20 dB of its loudest moment."""
    levels = one.profile.a_level_dbfs
    return np.asarray(levels >= max(float(levels.max()) - 20.0, FLOOR_DBFS + 1.0))


def _stepped(when: BoolArray, hop_s: float, steps: int) -> BoolArray:
    """Take a mask of `HOP_S` steps at steps of `hop_s`."""
    places = ((np.arange(steps) + 0.5) * hop_s / HOP_S).astype(np.int64)
    return np.asarray(when[np.minimum(places, len(when) - 1)])


def _below_peak(levels_dbfs: FloatArray) -> DoubleArray:
    """Return levels [T, B] against the loud moments of each band."""
    levels = levels_dbfs.astype(np.float64)
    below: DoubleArray = levels - np.quantile(levels, 0.97, axis=0)
    return below


def _fall_db(levels_db: DoubleArray, others_db: DoubleArray) -> float | None:
    """Return how far a band [T] falls behind its loud moments; None where it is too short.

    Over the floor of the noisier of the two: noise fills pauses too, but is no room.
    """
    floor = max(float(np.quantile(levels_db, 0.1)), float(np.quantile(others_db, 0.1)))
    levels_db = np.maximum(levels_db, floor)
    width = round(_FALL_S / HOP_S)
    count = len(levels_db) - width
    if count < 8:
        return None
    loud = levels_db[:count] >= -_LOUD_DB
    if not loud.any():
        return None
    lowest = sliding_window_view(levels_db, width + 1).min(axis=1)[:count]
    return float(np.mean((levels_db[:count] - lowest)[loud]))


def _repetitions(curve_db: DoubleArray, top_db: float) -> int:
    """Count the peaks of a level curve [T] that fall off to both sides, within reach of the top."""
    peaks, rising, extreme = [], True, float(curve_db[0])
    for level in curve_db.tolist():
        if rising and level <= extreme - _COUNT_FALL_DB:
            peaks.append(extreme)
            rising, extreme = False, level
        elif not rising and level >= extreme + _COUNT_FALL_DB:
            rising, extreme = True, level
        extreme = max(extreme, level) if rising else min(extreme, level)
    if rising:
        peaks.append(extreme)
    return sum(peak >= top_db - _COUNT_RANGE_DB for peak in peaks)


def _contrast(spectrum_db: DoubleArray) -> DoubleArray:
    """Take the broad shape out of a spectrum [K]: what is left are its peaks."""
    half = _CONTRAST_BANDS // 2
    padded = np.pad(spectrum_db, half, mode="edge")
    kernel = np.ones(_CONTRAST_BANDS) / _CONTRAST_BANDS
    contrast: DoubleArray = spectrum_db - np.convolve(padded, kernel, "valid")
    return contrast


def _shifted_likeness(first: DoubleArray, second: DoubleArray, steps: int) -> float:
    """Correlation of two spectra [K], the first raised by some steps."""
    length = len(first) - abs(steps)
    below, above = first[max(-steps, 0) :][:length], second[max(steps, 0) :][:length]
    below, above = below - below.mean(), above - above.mean()
    norm = float(np.sqrt((below @ below) * (above @ above)))
    return float(below @ above) / norm if norm > 1e-9 else 0.0

"""Which seconds of two recordings are compared.

Recordings of up to `EXCERPT_S` are compared whole. Of longer ones a stretch is taken: the one that
the other recording holds least like, beside what comes nearest to it there. What is told apart is
then what is new, not what merely happened at another time. Stretches are looked for by their levels
in bands, window by window, so that hours take seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from soundpost.audio.windows import resample
from soundpost.errors import NonFiniteSamplesError, NoSamplesError, TooShortError
from soundpost.explain.listening import EXCERPT_S
from soundpost.explain.profile import RATE_HZ, band_levels_dbfs

FloatArray = NDArray[np.float32]

# Of less nothing is measured, and an encoder may have no frame of it: ingest refuses it too.
SHORTEST_S: Final = 0.05
# Shorter stretches are too little to be compared with.
_LEAST_S: Final = 1.0
_FLOOR_DBFS: Final = -80.0
_ROWS: Final = 512


@dataclass(frozen=True, eq=False)
class Excerpt:
    """A mono wave [N] at its own rate; start_s: where it lies in the recording it was cut from."""

    wave: FloatArray
    rate_hz: int
    start_s: float = 0.0

    @property
    def duration_s(self) -> float:
        """How long it is."""
        return len(self.wave) / self.rate_hz

    @property
    def span_s(self) -> tuple[float, float]:
        """From which second to which of its recording it lies."""
        return self.start_s, self.start_s + self.duration_s


def check_excerpt(excerpt: Excerpt) -> None:
    """Raise NoSamplesError, TooShortError or NonFiniteSamplesError for what cannot be heard."""
    if not len(excerpt.wave):
        raise NoSamplesError(None, "there is nothing to compare")
    check_length(excerpt)
    if not np.isfinite(excerpt.wave).all():
        raise NonFiniteSamplesError(None, "replace them before comparing")


def check_length(excerpt: Excerpt, name: object = None) -> None:
    """Raise TooShortError for what is over before anything is heard."""
    if excerpt.duration_s < SHORTEST_S:
        raise TooShortError(name, f"{excerpt.duration_s * 1000:.0f} ms")


def choose(first: Excerpt, second: Excerpt) -> tuple[Excerpt, Excerpt]:
    """Return what is compared of two recordings: at most `EXCERPT_S` of each."""
    shortest_s = min(first.duration_s, second.duration_s)
    if max(first.duration_s, second.duration_s) <= EXCERPT_S:
        return first, second
    length_s = float(np.clip(shortest_s, _LEAST_S, EXCERPT_S))
    starts = [_starts_s(one.duration_s, length_s) for one in (first, second)]
    shapes = [
        np.stack([_shape(part) for part in _parts(one, begin, length_s)])
        for one, begin in zip((first, second), starts, strict=True)
    ]
    places = _least_alike(*shapes)
    chosen = [
        _cut(one, begin[place], length_s)
        for one, begin, place in zip((first, second), starts, places, strict=True)
    ]
    return chosen[0], chosen[1]


def _starts_s(duration_s: float, length_s: float) -> list[float]:
    """Windows end to end; the last one ends with the recording."""
    if duration_s <= EXCERPT_S and duration_s <= 1.5 * length_s:
        return [0.0]
    count = int(duration_s / length_s)
    starts = [length_s * place for place in range(count)]
    last_s = duration_s - length_s
    return starts if last_s - starts[-1] < 0.01 else [*starts, last_s]


def _cut(one: Excerpt, start_s: float, length_s: float) -> Excerpt:
    # What is hardly longer than the other stays whole.
    if one.duration_s <= EXCERPT_S and one.duration_s <= 1.5 * length_s:
        return one
    start = round(start_s * one.rate_hz)
    wave = one.wave[start : start + round(length_s * one.rate_hz)]
    return Excerpt(wave, one.rate_hz, one.start_s + start / one.rate_hz)


def _parts(one: Excerpt, starts_s: list[float], length_s: float) -> Iterator[FloatArray]:
    for start_s in starts_s:
        part = _cut(one, start_s, length_s)
        yield resample(part.wave, part.rate_hz, RATE_HZ)


def _shape(wave: FloatArray) -> FloatArray:
    """Return a window's levels in bands [2 B]: the usual ones, and those of loud moments."""
    wave = wave if len(wave) else np.zeros(1, np.float32)
    levels = np.maximum(band_levels_dbfs(wave), _FLOOR_DBFS)
    return np.concatenate([levels.mean(axis=0), np.quantile(levels, 0.9, axis=0)])


def _least_alike(first: FloatArray, second: FloatArray) -> tuple[int, int]:
    """Return the windows [W1, F], [W2, F] of which one is farthest from its nearest in the other."""
    nearest = [_nearest(mine, others) for mine, others in ((first, second), (second, first))]
    farthest = [int(distance.argmax()) for _, distance in nearest]
    if nearest[1][1][farthest[1]] >= nearest[0][1][farthest[0]]:
        return int(nearest[1][0][farthest[1]]), farthest[1]
    return farthest[0], int(nearest[0][0][farthest[0]])


def _nearest(mine: FloatArray, others: FloatArray) -> tuple[NDArray[np.intp], FloatArray]:
    """Return for each of [W, F] the place of the nearest among [V, F], and how far it is, in dB."""
    places, distances = [], []
    for start in range(0, len(mine), _ROWS):
        apart = np.abs(mine[start : start + _ROWS, None] - others[None]).mean(axis=2)
        places.append(apart.argmin(axis=1))
        distances.append(apart.min(axis=1))
    return np.concatenate(places), np.concatenate(distances)

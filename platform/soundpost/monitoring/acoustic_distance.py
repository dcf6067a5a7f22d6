"""How far a window's acoustic measures lie from those of the reference.

A change is often in a few neighbouring bands, while the others are full of whatever else is heard
there. So the measures are compared in groups: every three neighbouring third octaves, levels with
spectral shape, rhythm, and all of them. Each group has its own Mahalanobis distance, and how rare
that distance is says how much it means: the rarest group speaks for the window.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soundpost.errors import InvalidValueError
from soundpost.monitoring.observations import DoubleArray, IdArray
from soundpost.monitoring.tail import MIN_SCORES as TAIL_MIN
from soundpost.monitoring.tail import SHARE as TAIL_SHARE
from soundpost.monitoring.tail import Tail, fit_tail, log_survival

BoolArray = NDArray[np.bool_]

# Below this a level says only that nothing was recorded.
_QUIET_DBFS = -100.0
_SMALL = 1e-3
# Differences smaller than these are not heard, so a reference without any spread allows them.
_BAND_FLOOR_DB = 0.5
_SHAPE_FLOOR = 0.05
# Groups of features: see `_members` and `_shape`.
_NEIGHBOURING = 3
_LEVELS_AND_SHAPE = 4
_SMALLEST_DISTANCE = 1e-2
_SMALLEST_SCALE = 0.05
_LEAST_RARITY = 0.1
_KNOTS = 17
_PARTS = 5


@dataclass(frozen=True, eq=False)
class AcousticFeatures:
    """values: [N, B + S], bands first. bands: how many third octaves all of them have."""

    values: DoubleArray
    bands: int
    band_counts: IdArray


def acoustic_features(documents: Sequence[Mapping[str, Any]], bands: int = 0) -> AcousticFeatures:
    """Turn N acoustics documents into features: bands in dB, levels, and logarithms of the shape.

    Only the bands that all of them have are used, and at most `bands` where that is not 0. Raises
    InvalidValueError where a measure is missing or no number.
    """
    try:
        counts = np.array([len(d["third_octave_dbfs"]) for d in documents], np.int64)
        common = int(counts.min()) if bands == 0 else min(int(counts.min()), bands)
        levels = np.array([d["third_octave_dbfs"][:common] for d in documents], np.float64)
        shape = np.array([_shape(d) for d in documents], np.float64)
    except KeyError as error:
        raise InvalidValueError(error.args[0], "missing from an acoustics document") from error
    _check_finite(levels, shape)
    return AcousticFeatures(np.hstack([np.maximum(levels, _QUIET_DBFS), shape]), common, counts)


def _check_finite(*values: DoubleArray) -> None:
    if any(np.isnan(part).any() or np.isposinf(part).any() for part in values):
        raise InvalidValueError("an acoustics document", "it has NaN or infinity")


def _shape(document: Mapping[str, Any]) -> list[float]:
    return [
        max(document["level_dbfs"], _QUIET_DBFS),
        max(document["a_level_dbfs"], _QUIET_DBFS),
        float(np.log2(document["centroid_hz"] + 20.0)),
        float(np.log10(document["flatness"] + _SMALL)),
        float(np.log1p(document["onsets_per_s"])),
        *(float(np.log10(m + _SMALL)) for m in document["modulation"]),
    ]


@dataclass(frozen=True, eq=False)
class Groups:
    """Mahalanobis distances of G groups of features.

    centre, spread: [P]. roots: [P, S] whitens the groups side by side; starts: [G] where each
    begins. members: [G, P].
    """

    centre: DoubleArray
    spread: DoubleArray
    roots: DoubleArray
    starts: IdArray
    members: BoolArray

    def distances(self, values: DoubleArray) -> DoubleArray:
        """Return the logarithm of each distance [N, G] over the root of its dimensions.

        values: [N, P]; a group with a missing one (NaN) gets -inf.
        """
        standard = (values - self.centre) / self.spread
        missing = np.isnan(standard)
        squares = np.square(np.where(missing, 0.0, standard) @ self.roots)
        mean = np.add.reduceat(squares, self.starts, axis=1) / self.members.sum(axis=1)
        found = 0.5 * np.log(mean + _SMALLEST_DISTANCE**2)
        if missing.any():
            found[missing @ self.members.T] = -np.inf
        return np.asarray(found)


@dataclass(frozen=True, eq=False)
class AcousticDistance:
    """Groups with how rare each distance is on held-out windows of the reference.

    knots: [G, K] quantiles of the distances below the tail; threshold, scale, shape: [G] of the
    tail; rarity: -ln of the share beyond the threshold. vectors: [M, P] the reference, standardised,
    to name the nearest row. bands: third octaves that all of the reference has.
    """

    groups: Groups
    knots: DoubleArray
    threshold: DoubleArray
    scale: DoubleArray
    shape: DoubleArray
    rarity: float
    vectors: DoubleArray
    bands: int

    def score(self, documents: Sequence[Mapping[str, Any]]) -> tuple[DoubleArray, IdArray]:
        """Return the rarity [N], -ln p of the rarest group, and the nearest reference row [N].

        Windows that lack the upper bands, of a lower sample rate, are compared by the groups that
        they have.
        """
        values = _padded(documents, self.bands)
        rarity = self._rarity(self.groups.distances(values)).max(axis=1)
        standard = (values - self.groups.centre) / self.groups.spread
        return np.maximum(rarity, _LEAST_RARITY), _nearest(standard, self.vectors)

    def _rarity(self, distances: DoubleArray) -> DoubleArray:
        """-ln p [N, G]: interpolated between quantiles, then along the tail."""
        last = self.knots.shape[1] - 1
        # What equals the whole reference, such as silence after silence, is not rare at all.
        below = (distances[:, :, None] > self.knots[None]).sum(axis=2)
        at = np.clip(below - 1, 0, last - 1)
        group = np.arange(len(self.knots))[None]
        low, high = self.knots[group, at], self.knots[group, at + 1]
        part = np.clip((distances - low) / np.maximum(high - low, 1e-9), 0.0, 1.0)
        body = -np.log1p(-(at + part) / last * (1.0 - np.exp(-self.rarity)))
        beyond = log_survival(distances, self.threshold, self.scale, self.shape)
        return np.asarray(np.where(distances > self.threshold, self.rarity + beyond, body))


def fit_acoustics(
    documents: Sequence[Mapping[str, Any]], units: IdArray, shrinkage: float
) -> AcousticDistance:
    """Fit on M documents of units [M]. shrinkage: share of the diagonal in covariances, 0 to 1.

    The distances whose rarity is learnt are of units that were held out, in up to five parts.
    """
    features = acoustic_features(documents)
    groups = _fit_groups(features.values, features.bands, shrinkage)
    held_out = _held_out(features, units, shrinkage, groups)
    tails = [_tail(column) for column in held_out.T]
    share = max(len(documents) * TAIL_SHARE, float(TAIL_MIN)) / (len(documents) + 1.0)
    share = min(share, 0.5)
    below = np.linspace(0.0, 1.0 - share, _KNOTS)
    return AcousticDistance(
        groups=groups,
        knots=np.quantile(held_out, below, axis=0).T,
        threshold=np.array([tail.threshold for tail in tails]),
        scale=np.array([max(tail.scale, _SMALLEST_SCALE) for tail in tails]),
        shape=np.array([tail.shape for tail in tails]),
        rarity=-float(np.log(share)),
        vectors=(features.values - groups.centre) / groups.spread,
        bands=features.bands,
    )


def _held_out(
    features: AcousticFeatures, units: IdArray, shrinkage: float, groups: Groups
) -> DoubleArray:
    found = groups.distances(features.values)
    _, part = np.unique(units, return_inverse=True)
    parts = min(int(part.max()) + 1, _PARTS)
    for number in range(parts):
        out = part % parts == number
        if parts > 1 and (~out).sum() >= 2:
            kept = _fit_groups(features.values[~out], features.bands, shrinkage)
            found[out] = kept.distances(features.values[out])
    return found


def _fit_groups(values: DoubleArray, bands: int, shrinkage: float) -> Groups:
    centre = values.mean(axis=0)
    floor = np.full(values.shape[1], _SHAPE_FLOOR)
    floor[: bands + 2] = _BAND_FLOOR_DB
    spread = np.maximum(values.std(axis=0), floor)
    standard = (values - centre) / spread
    correlation = (1.0 - shrinkage) * (standard.T @ standard) / len(standard)
    # The diagonal is 1, also where a feature never moved: its floor is its spread.
    np.fill_diagonal(correlation, 1.0)
    members = _members(bands, values.shape[1])
    blocks = [_root(correlation, member) for member in members]
    widths = [block.shape[1] for block in blocks]
    return Groups(
        centre, spread, np.hstack(blocks), np.cumsum([0, *widths[:-1]]).astype(np.int64), members
    )


def _root(correlation: DoubleArray, member: BoolArray) -> DoubleArray:
    """Columns [P, width] that whiten the members of a group and leave out the others."""
    columns = np.zeros((len(member), int(member.sum())))
    inverse = np.linalg.inv(correlation[np.ix_(member, member)])
    columns[member] = np.linalg.cholesky(inverse)
    return columns


def _members(bands: int, features: int) -> BoolArray:
    """Which features [P] each group holds: neighbouring bands, levels and shape, rhythm, all."""
    width = min(_NEIGHBOURING, bands)
    spans = [(first, first + width) for first in range(bands - width + 1)]
    spans += [(bands, bands + _LEVELS_AND_SHAPE), (bands + _LEVELS_AND_SHAPE, features)]
    rows = [[start <= at < end for at in range(features)] for start, end in [*spans, (0, features)]]
    return np.array(rows)


def _tail(distances: DoubleArray) -> Tail:
    """The tail of a group's distances; a short one beyond the greatest where they hardly spread."""
    top = float(np.quantile(distances, 0.9))
    return fit_tail(distances) or Tail(top, max(float(distances.std()), _SMALLEST_SCALE), 0.0)


def _padded(documents: Sequence[Mapping[str, Any]], bands: int) -> DoubleArray:
    """Features [N, P] with a number of bands, NaN where a window has fewer."""
    try:
        held = [list(d["third_octave_dbfs"][:bands]) for d in documents]
        shape = [_shape(d) for d in documents]
    except KeyError as error:
        raise InvalidValueError(error.args[0], "missing from an acoustics document") from error
    shapes = np.array(shape, np.float64)
    _check_finite(shapes, *(np.array(own, np.float64) for own in held))
    levels = np.array([own + [np.nan] * (bands - len(own)) for own in held], np.float64)
    return np.hstack([np.maximum(levels, _QUIET_DBFS), shapes])


def _nearest(left: DoubleArray, right: DoubleArray) -> IdArray:
    known = np.where(np.isnan(left), 0.0, left)
    cross = known.astype(np.float32) @ right.T.astype(np.float32)
    squares = np.square(right).sum(axis=1).astype(np.float32)
    nearest: IdArray = (squares - 2.0 * cross).argmin(axis=1)
    return nearest

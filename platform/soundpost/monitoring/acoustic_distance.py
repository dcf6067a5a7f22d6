"""How far a window's acoustic measures lie from those of the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from soundpost.errors import InvalidValueError
from soundpost.monitoring.observations import DoubleArray, IdArray

# Below this a level says only that nothing was recorded.
_QUIET_DBFS = -100.0
_SMALL = 1e-3
# Differences smaller than these are not heard, so a reference without any spread allows them.
_BAND_FLOOR_DB = 0.5
_SHAPE_FLOOR = 0.05
_SHAPE_NAMES = ("level_dbfs", "a_level_dbfs", "centroid", "flatness", "onsets")


@dataclass(frozen=True, eq=False)
class AcousticFeatures:
    """values: [N, B + S], bands first. bands: how many third octaves all of them have."""

    values: DoubleArray
    bands: int
    band_counts: IdArray


def acoustic_features(documents: Sequence[Mapping[str, Any]], bands: int = 0) -> AcousticFeatures:
    """Turn N acoustics documents into features: bands in dB, levels, and logarithms of the shape.

    Only the bands that all of them have are used, and at most `bands` where that is not 0. Raises
    InvalidValueError where a measure is missing.
    """
    try:
        counts = np.array([len(d["third_octave_dbfs"]) for d in documents], np.int64)
        common = int(counts.min()) if bands == 0 else min(int(counts.min()), bands)
        levels = np.array([d["third_octave_dbfs"][:common] for d in documents], np.float64)
        shape = np.array([_shape(d) for d in documents], np.float64)
    except KeyError as error:
        raise InvalidValueError(error.args[0], "missing from an acoustics document") from error
    return AcousticFeatures(np.hstack([np.maximum(levels, _QUIET_DBFS), shape]), common, counts)


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
class AcousticDistance:
    """A Mahalanobis distance with a covariance shrunk towards its diagonal.

    centre, spread: [B + S]. correlation: [B + S, B + S] of standardised features. vectors: [M, B +
    S] the reference, standardised, to name the nearest row.
    """

    centre: DoubleArray
    spread: DoubleArray
    correlation: DoubleArray
    vectors: DoubleArray
    bands: int

    def score(self, documents: Sequence[Mapping[str, Any]]) -> tuple[DoubleArray, IdArray]:
        """Return the distance [N] divided by the root of the dimensions, and the nearest row [N].

        1 is what a window of the reference has on average. Windows that lack the upper bands, of
        a lower sample rate, are compared by those that they have.
        """
        features = acoustic_features(documents, self.bands)
        distance = np.empty(len(documents))
        nearest = np.empty(len(documents), np.int64)
        held = np.minimum(features.band_counts, self.bands)
        for bands in np.unique(held):
            rows = np.flatnonzero(held == bands)
            found = acoustic_features([documents[row] for row in rows.tolist()], int(bands))
            distance[rows], nearest[rows] = self._score(found.values, int(bands))
        return distance, nearest

    def _score(self, values: DoubleArray, bands: int) -> tuple[DoubleArray, IdArray]:
        used = np.r_[0:bands, self.bands : len(self.centre)]
        standard = (values - self.centre[used]) / self.spread[used]
        root = np.linalg.cholesky(np.linalg.inv(self.correlation[np.ix_(used, used)]))
        white = standard @ root
        reference = self.vectors[:, used] @ root
        distance = np.sqrt(np.square(white).mean(axis=1))
        return distance, _nearest(white, reference)


def fit_acoustics(documents: Sequence[Mapping[str, Any]], shrinkage: float) -> AcousticDistance:
    """Fit on M documents. shrinkage: share of the diagonal in the covariance, 0 to 1."""
    features = acoustic_features(documents)
    values = features.values
    centre = values.mean(axis=0)
    floor = np.full(values.shape[1], _SHAPE_FLOOR)
    floor[: features.bands + 2] = _BAND_FLOOR_DB
    spread = np.maximum(values.std(axis=0), floor)
    standard = (values - centre) / spread
    correlation = (1.0 - shrinkage) * (standard.T @ standard) / len(standard)
    # The diagonal is 1, also where a feature never moved: its floor is its spread.
    np.fill_diagonal(correlation, 1.0)
    return AcousticDistance(centre, spread, correlation, standard, features.bands)


def _nearest(left: DoubleArray, right: DoubleArray) -> IdArray:
    cross = left.astype(np.float32) @ right.T.astype(np.float32)
    squares = np.square(right).sum(axis=1).astype(np.float32)
    nearest: IdArray = (squares - 2.0 * cross).argmin(axis=1)
    return nearest

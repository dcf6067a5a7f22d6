"""Distance to the nearest reference vectors, in units of how dense the reference is there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from soundpost.monitoring.observations import DoubleArray, FloatArray, IdArray

# More would not fit into the time that a window may take.
MAX_VECTORS = 4096
# Vectors are stored in eight bits a number: below this distance they are the same sound.
SMALLEST_DISTANCE = 0.05
_CHUNK = 512
# Squared distances of single precision below this are those of vectors that are the same.
_ROUNDING = np.float32(4e-6)


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Reference vectors [M, P] after `project`, with what their own neighbourhood measures.

    rows: [M] the row of each in what it was fitted on. scale2: [M] squared distance to its own k'-th
    neighbour, the local scale (local outlier factor's idea, Breunig et al. 2000).
    centre [D], axes [D, P]: the projection. k: neighbours averaged.
    """

    vectors: FloatArray
    rows: IdArray
    scale2: FloatArray
    centre: FloatArray
    axes: FloatArray
    k: int

    def score(self, vectors: FloatArray) -> tuple[DoubleArray, IdArray]:
        """Return the novelty [N] of vectors [N, D] and the fitted row [N] that each is nearest to.

        1 is as far from the reference as its own vectors are from each other.
        """
        novelty = np.empty(len(vectors))
        nearest = np.empty(len(vectors), np.int64)
        for start in range(0, len(vectors), _CHUNK):
            part = slice(start, start + _CHUNK)
            novelty[part], nearest[part] = self._chunk(vectors[part])
        return novelty, nearest

    def _chunk(self, vectors: FloatArray) -> tuple[DoubleArray, IdArray]:
        ratio = _squared_distances(project(vectors, self.centre, self.axes), self.vectors)
        ratio /= self.scale2
        if self.k == 1:
            best = ratio.argmin(axis=1)
            least = self._rounded(ratio[np.arange(len(best)), best], best)
            return np.sqrt(least).astype(np.float64), self.rows[best]
        few = np.argpartition(ratio, self.k - 1, axis=1)[:, : self.k]
        values = np.take_along_axis(ratio, few, axis=1)
        best = np.take_along_axis(few, values.argmin(axis=1)[:, None], axis=1)[:, 0]
        values = self._rounded(values, few)
        return np.sqrt(values).mean(axis=1).astype(np.float64), self.rows[best]

    def _rounded(self, ratio: FloatArray, at: IdArray) -> FloatArray:
        """Ratios to reference vectors `at`, 0 where nothing but rounding is between them."""
        return np.where(ratio * self.scale2[at] < _ROUNDING, np.float32(0.0), ratio)


def fit_neighbours(
    vectors: FloatArray, groups: IdArray, *, k: int, density_k: int, whitening: float, seed: int = 0
) -> Neighbours:
    """Fit on vectors [M, D] of groups [M]: a vector's own group is not its neighbourhood.

    density_k: which neighbour gives the local scale; 0 gives all the same. whitening: 0 leaves the
    vectors as they are; else each direction is divided by its spread, plus this share of the mean
    spread.
    """
    kept = _subset(len(vectors), seed)
    centre, axes = _projection(vectors, whitening)
    points = project(vectors[kept], centre, axes)
    return Neighbours(
        vectors=points,
        rows=kept,
        scale2=_local_scales(points, groups[kept], density_k),
        centre=centre,
        axes=axes,
        k=min(k, len(points)),
    )


def project(vectors: FloatArray, centre: FloatArray, axes: FloatArray) -> FloatArray:
    """Return vectors [N, P] on the fitted axes, with unit norm."""
    turned = (vectors - centre) @ axes
    norms = np.linalg.norm(turned, axis=1, keepdims=True)
    unit: FloatArray = (turned / np.maximum(norms, 1e-12)).astype(np.float32, copy=False)
    return unit


def _subset(count: int, seed: int) -> IdArray:
    """Rows that are kept: all, or a seeded draw."""
    if count <= MAX_VECTORS:
        return np.arange(count)
    drawn = np.random.default_rng(seed).choice(count, MAX_VECTORS, replace=False)
    return np.sort(drawn)


def _projection(vectors: FloatArray, whitening: float) -> tuple[FloatArray, FloatArray]:
    dimension = vectors.shape[1]
    if whitening <= 0.0:
        return np.zeros(dimension, np.float32), np.eye(dimension, dtype=np.float32)
    centre = vectors.mean(axis=0)
    spread, axes = np.linalg.eigh(np.cov(vectors - centre, rowvar=False, bias=True))
    spread = np.maximum(spread, 0.0)
    floor = whitening * float(spread.mean()) + 1e-6
    return centre, (axes / np.sqrt(spread + floor)).astype(np.float32)


def _squared_distances(left: FloatArray, right: FloatArray) -> FloatArray:
    """Squared Euclidean distances [N, M] of unit vectors."""
    squared: FloatArray = left @ right.T
    squared *= np.float32(-2.0)
    squared += np.float32(2.0)
    return np.maximum(squared, np.float32(0.0), out=squared)


def _local_scales(points: FloatArray, groups: IdArray, density_k: int) -> FloatArray:
    """Squared distance of each point to its k-th neighbour of another group, or of any if alone."""
    if density_k == 0 or len(points) < 2:
        return np.ones(len(points), np.float32)
    scales = np.empty(len(points), np.float32)
    alone = bool((groups == groups[0]).all())
    for start in range(0, len(points), _CHUNK):
        squared = _squared_distances(points[start : start + _CHUNK], points)
        own = groups[start : start + _CHUNK, None] == groups[None]
        if alone:
            own = np.arange(start, start + len(squared))[:, None] == np.arange(len(points))[None]
        squared[own] = np.inf
        scales[start : start + _CHUNK] = _kth(squared, density_k)
    return np.maximum(scales, np.float32(SMALLEST_DISTANCE**2))


def _kth(squared: FloatArray, k: int) -> FloatArray:
    """The k-th smallest of each row, or its largest finite one if there are fewer."""
    k = min(k, squared.shape[1])
    values = np.sort(np.partition(squared, k - 1, axis=1)[:, :k], axis=1)
    finite = np.isfinite(values).sum(axis=1).clip(1)
    kth: FloatArray = values[np.arange(len(values)), finite - 1]
    return kth

"""The exact index: every vector is compared. The oracle for the fast one, and its tail."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from threading import RLock

import numpy as np
from numpy.typing import NDArray

from soundpost.archive.index import FloatArray, IdArray, Neighbours
from soundpost.errors import InvalidValueError, VectorIndexError
from soundpost_indexer.interface import (
    Chunk,
    IndexStats,
    check_batch,
    check_ids,
    check_k,
    no_neighbours,
    unit_vectors,
)

# Two ways of adding up one float32 inner product of unit vectors differ by less than this.
SLACK = 1e-5

_SCORES_AT_ONCE = 1 << 24
_ROWS_AT_ONCE = 1 << 13
_IDS_FILE, _VECTORS_FILE = "ids.npy", "vectors.npy"

Rows = NDArray[np.intp]


class ExactIndex:
    """Contiguous growing arrays and a matrix product; a removed vector is gone at once."""

    def __init__(self, dimension: int) -> None:
        if dimension < 1:
            raise InvalidValueError(dimension, "an index has at least one dimension")
        self._dimension = dimension
        self._lock = RLock()
        self._clear()

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return self._dimension

    def __len__(self) -> int:
        """How many vectors can be found."""
        return self._count

    def add(self, ids: IdArray, vectors: FloatArray) -> None:
        """Add vectors [N, D] under ids [N]; an id that is already there is replaced."""
        known, units = check_batch(ids, vectors, self._dimension)
        self.add_units(known, units)

    def add_units(self, ids: IdArray, units: FloatArray) -> None:
        """Add what `check_batch` returned: ids ascending and distinct, vectors of unit length."""
        with self._lock:
            old = np.isin(ids, self._ids[: self._count])
            rows = self._rows_of(ids[old])
            self._vectors[rows] = units[old]
            self._append(ids[~old], units[~old])

    def remove(self, ids: IdArray) -> int:
        """Remove ids; unknown ones are ignored. Return how many were there."""
        wanted = check_ids(ids)
        with self._lock:
            gone = np.flatnonzero(np.isin(self._ids[: self._count], wanted))
            self._close_holes(gone)
        return len(gone)

    def search(self, vectors: FloatArray, k: int, allowed: IdArray | None = None) -> Neighbours:
        """Find the k nearest of each row of [Q, D], among `allowed` ids if given."""
        check_k(k)
        queries = unit_vectors(vectors, self._dimension)
        with self._lock:
            ids, pool = self._ids[: self._count], self._vectors[: self._count]
            if allowed is not None:
                rows = np.flatnonzero(np.isin(ids, check_ids(allowed)))
                ids, pool = ids[rows], pool[rows]
            return nearest(queries, ids, pool, k)

    def ids(self) -> IdArray:
        """Every id that can be found, ascending."""
        with self._lock:
            return np.sort(self._ids[: self._count])

    def vectors(self, ids: IdArray) -> FloatArray:
        """Return the unit vectors [N, D] of ids [N]. Raises InvalidValueError for an unknown id."""
        with self._lock:
            return self._vectors[self._rows_of(check_ids(ids))]

    def stats(self) -> IndexStats:
        """Engine, layout, counts and size."""
        size = self._count * (self._dimension * 4 + 8)
        return IndexStats("exact", "flat", self._count, tail=0, removed=0, bytes=size)

    def fill(self, chunks: Iterable[Chunk], count: int) -> None:
        """Replace the content by chunks of (ids [N], vectors [N, D])."""
        fresh = ExactIndex(self._dimension)
        fresh._reserve(count)
        for ids, vectors in chunks:
            fresh.add(ids, vectors)
        self._become(fresh)

    def save(self, folder: Path) -> None:
        """Write ids and vectors, by ascending id."""
        with self._lock:
            order = np.argsort(self._ids[: self._count])
            np.save(folder / _IDS_FILE, self._ids[order], allow_pickle=False)
            np.save(folder / _VECTORS_FILE, self._vectors[order], allow_pickle=False)

    def load(self, folder: Path) -> None:
        """Replace the content by what `save` wrote. Raises VectorIndexError if it does not fit."""
        ids = read_ids(folder / _IDS_FILE)
        vectors = read_array(folder / _VECTORS_FILE)
        if vectors.dtype != np.float32 or vectors.shape != (len(ids), self._dimension):
            expected = (len(ids), self._dimension)
            raise VectorIndexError(folder, f"vectors are {vectors.shape}, expected {expected}")
        fresh = ExactIndex(self._dimension)
        fresh._ids, fresh._vectors = ids, vectors.astype(np.float32, copy=False)
        fresh._count = len(ids)
        self._become(fresh)

    def _clear(self) -> None:
        self._count = 0
        self._ids: IdArray = np.empty(0, np.int64)
        self._vectors: FloatArray = np.empty((0, self._dimension), np.float32)

    def _become(self, other: ExactIndex) -> None:
        with self._lock:
            self._ids, self._vectors, self._count = other._ids, other._vectors, other._count

    def _rows_of(self, ids: IdArray) -> Rows:
        if not len(ids):
            return np.empty(0, np.intp)
        held = self._ids[: self._count]
        order = np.argsort(held)
        places = np.searchsorted(held, ids, sorter=order)
        rows = order[np.minimum(places, len(order) - 1)] if len(order) else order
        missing = ids[held[rows] != ids] if len(order) else ids
        if len(missing):
            raise InvalidValueError(int(missing[0]), "no vector of the index has this id")
        return rows

    def _append(self, ids: IdArray, units: FloatArray) -> None:
        end = self._count + len(ids)
        if end > len(self._ids):
            self._reserve(max(end, self._count * 3 // 2))
        self._ids[self._count : end] = ids
        self._vectors[self._count : end] = units
        self._count = end

    def _reserve(self, capacity: int) -> None:
        ids = np.empty(capacity, np.int64)
        vectors = np.empty((capacity, self._dimension), np.float32)
        ids[: self._count] = self._ids[: self._count]
        vectors[: self._count] = self._vectors[: self._count]
        self._ids, self._vectors = ids, vectors

    def _close_holes(self, gone: Rows) -> None:
        # The last rows move into the holes: the cost is that of what goes, not of what stays.
        end = self._count - len(gone)
        holes = gone[gone < end]
        movers = np.setdiff1d(np.arange(end, self._count), gone)
        self._ids[holes], self._vectors[holes] = self._ids[movers], self._vectors[movers]
        self._vectors[end : self._count] = 0.0
        self._count = end


def nearest(queries: FloatArray, ids: IdArray, pool: FloatArray, k: int) -> Neighbours:
    """Compare unit queries [Q, D] with all of pool [N, D], whose ids are [N]."""
    found = no_neighbours(len(queries), k)
    step = max(1, _SCORES_AT_ONCE // max(1, len(ids)))
    for first in range(0, len(queries) if len(ids) else 0, step):
        block = queries[first : first + step]
        for offset, scores in enumerate(block @ pool.T):
            place(found, first + offset, block[offset], ids, pool, _close_to_best(scores, k))
    return found


def place(
    found: Neighbours, at: int, query: FloatArray, ids: IdArray, pool: FloatArray, rows: Rows
) -> None:
    """Rank candidate rows of pool [N, D] for one query [D] and write the best into found[at].

    Scores are added up in float64, row by row, so that equal vectors get equal scores wherever
    they lie: a matrix product rounds differently from place to place.
    """
    scores = np.empty(len(rows), np.float32)
    for first in range(0, len(rows), _ROWS_AT_ONCE):
        part = slice(first, first + _ROWS_AT_ONCE)
        products = pool[rows[part]].astype(np.float64) * query.astype(np.float64)
        scores[part] = np.clip(products.sum(axis=1), -1.0, 1.0)
    order = np.lexsort((ids[rows], -scores))[: found.ids.shape[1]]
    found.ids[at, : len(order)] = ids[rows[order]]
    found.scores[at, : len(order)] = scores[order]


def merge(first: Neighbours, second: Neighbours) -> Neighbours:
    """Join two results [Q, K] for the same queries over distinct ids to one [Q, K]."""
    ids = np.concatenate([first.ids, second.ids], axis=1)
    scores = np.concatenate([first.scores, second.scores], axis=1)
    order = np.lexsort((ids, -scores), axis=1)[:, : first.ids.shape[1]]
    return Neighbours(np.take_along_axis(ids, order, 1), np.take_along_axis(scores, order, 1))


def read_array(path: Path) -> NDArray[np.number]:
    """Read a .npy file, never a pickle. Raises VectorIndexError if it is not one."""
    try:
        array: NDArray[np.number] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise VectorIndexError(path, str(error)) from error
    return array


def read_ids(path: Path) -> IdArray:
    """Read ids [N]. Raises VectorIndexError unless they are int64 and strictly ascending."""
    ids = read_array(path)
    if ids.dtype != np.int64 or ids.ndim != 1 or (np.diff(ids) <= 0).any():
        raise VectorIndexError(path, "these are no ascending 64-bit ids")
    return ids.astype(np.int64, copy=False)


def _close_to_best(scores: FloatArray, k: int) -> Rows:
    if k >= len(scores):
        return np.arange(len(scores))
    threshold = np.partition(scores, -k)[-k] - SLACK
    return np.flatnonzero(scores >= threshold)

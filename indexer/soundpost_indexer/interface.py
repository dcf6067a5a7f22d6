"""What every vector index offers and accepts; one engine a file implements it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from soundpost.archive.index import FloatArray, GrowingIndex, IdArray, Neighbours
from soundpost.errors import DimensionError, InvalidValueError

Chunk = tuple[IdArray, FloatArray]


@dataclass(frozen=True)
class IndexStats:
    """What an index holds. `bytes` is the size of its vectors, ids and graph, mapped or in memory.

    vectors: how many can be found. tail: those of them that are newer than the sealed body.
    removed: those still in the body that are never shown and go with the next seal.
    """

    engine: str
    layout: str
    vectors: int
    tail: int
    removed: int
    bytes: int


class VectorIndex(GrowingIndex, Protocol):
    """A searchable set of vectors by cosine, which can be kept in files.

    Vectors are brought to unit length when they come in. Results are sorted best first, ties by
    the lower id, and a score does not depend on where in the index its vector lies. Wrong
    dimensions raise DimensionError; non-finite values, negative ids and k below one raise
    InvalidValueError, and change nothing. Any thread may search while another adds or removes.
    """

    def ids(self) -> IdArray:
        """Every id that can be found, ascending."""
        ...

    def vectors(self, ids: IdArray) -> FloatArray:
        """Return the unit vectors [N, D] of ids [N]. Raises InvalidValueError for an unknown id."""
        ...

    def stats(self) -> IndexStats:
        """Engine, layout, counts and size."""
        ...

    def fill(self, chunks: Iterable[Chunk], count: int) -> None:
        """Replace the content by chunks of (ids [N], vectors [N, D]), ids ascending throughout.

        count is how many are expected; it chooses the layout and need not be exact.
        """
        ...

    def save(self, folder: Path) -> None:
        """Write everything into files of an existing, empty folder; it may reorganise itself."""
        ...

    def load(self, folder: Path) -> None:
        """Replace the content by what `save` wrote. Raises VectorIndexError if it does not fit."""
        ...


def no_neighbours(queries: int, k: int) -> Neighbours:
    """Return the result of finding nothing: ids -1 and scores -inf, both [queries, k]."""
    shape = (queries, k)
    return Neighbours(np.full(shape, -1, np.int64), np.full(shape, -np.inf, np.float32))


def check_k(k: int) -> None:
    """Raise InvalidValueError unless at least one result is asked for."""
    if k < 1:
        raise InvalidValueError(k, "ask for at least one result")


def check_ids(ids: ArrayLike) -> IdArray:
    """Return ids as int64 [N]. Raises InvalidValueError for negative ones and other kinds."""
    array = np.asarray(ids)
    if array.size == 0:
        return np.empty(0, np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InvalidValueError(f"ids of shape {array.shape} and type {array.dtype}")
    if array.min() < 0 or array.max() > np.iinfo(np.int64).max:
        raise InvalidValueError(int(array.min()), "ids are 64 bits and not negative")
    return array.astype(np.int64)


def unit_vectors(vectors: ArrayLike, dimension: int) -> FloatArray:
    """Return vectors [N, D] with unit length; a zero vector stays, it is like nothing.

    Raises DimensionError, and InvalidValueError for NaN and infinity.
    """
    with np.errstate(over="ignore"):  # what is too large becomes infinite and is refused below
        array = np.atleast_1d(np.asarray(vectors).astype(np.float32, copy=False))
    if array.ndim != 2 or array.shape[1] != dimension:
        raise DimensionError(array.shape[-1], f"shape {array.shape}, the index has {dimension}")
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise InvalidValueError(f"the vector in row {row}", "it has NaN or infinity")
    lengths = np.sqrt(np.einsum("nd,nd->n", array, array, dtype=np.float64))
    return np.asarray(array / np.where(lengths > 0.0, lengths, 1.0)[:, None], dtype=np.float32)


def check_batch(ids: ArrayLike, vectors: ArrayLike, dimension: int) -> Chunk:
    """Return ids [N] and unit vectors [N, D]; of an id given twice the last one counts."""
    known, units = check_ids(ids), unit_vectors(vectors, dimension)
    if len(known) != len(units):
        raise InvalidValueError(f"{len(known)} ids", f"for {len(units)} vectors")
    last = _last_of_each(known)
    return known[last], units[last]


def _last_of_each(ids: IdArray) -> NDArray[np.intp]:
    _, from_the_end = np.unique(ids[::-1], return_index=True)
    rows: NDArray[np.intp] = len(ids) - 1 - from_the_end
    return rows

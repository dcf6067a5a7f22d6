"""What the platform asks of a vector index; `soundpost_indexer` implements it.

The protocol lives here because imports run downwards: search is handed an index and never
imports an engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IdArray = NDArray[np.int64]


@dataclass(frozen=True)
class Neighbours:
    """The nearest vectors of each query, best first.

    ids: [Q, K] embedding ids, -1 where there are fewer than K. scores: [Q, K] cosines, -inf there.
    """

    ids: IdArray
    scores: FloatArray


class SearchIndex(Protocol):
    """A searchable set of unit vectors, each known by its embedding id."""

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        ...

    def __len__(self) -> int:
        """How many vectors can be found."""
        ...

    def search(self, vectors: FloatArray, k: int, allowed: IdArray | None = None) -> Neighbours:
        """Find the k nearest of each row of [Q, D], among `allowed` ids if given."""
        ...


class GrowingIndex(SearchIndex, Protocol):
    """One that is filled by whoever has it."""

    def add(self, ids: IdArray, vectors: FloatArray) -> None:
        """Add vectors [N, D] under ids [N]; an id that is already there is replaced."""
        ...

    def remove(self, ids: IdArray) -> int:
        """Remove ids; unknown ones are ignored. Return how many were there."""
        ...

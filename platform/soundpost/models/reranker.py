"""The second stage's protocol: a query and the candidates that the index proposes, judged jointly.

Everything above knows only this; `diffatr` implements it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class RerankerSpec:
    """What a reranker is, and over which encoder's vectors it works.

    `revision` names the exact weights. `encoder_revision` is that of the encoder it was trained
    over: over another's vectors its answers mean nothing. `steps` is how many steps an answer takes,
    None for one that takes no steps.
    """

    name: str
    revision: str
    encoder_name: str
    encoder_revision: str
    dimension: int
    steps: int | None = None


@dataclass(frozen=True)
class Candidates:
    """What the index proposes: N stretches of sound, each known by the vectors that are kept of it.

    keys [N]: what a candidate is known by, such as its embedding id; they seed its noise and fix
    the order of calculation, so that a score depends on nothing but query and candidates.
    vectors [N, D]: unit norm, one for the whole stretch. frames [N, S, D]: unit norm, one a
    second, zero past lengths [N].
    """

    keys: NDArray[np.int64]
    vectors: FloatArray
    frames: FloatArray
    lengths: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.keys)


@runtime_checkable
class Reranker(Protocol):
    """Judges candidates together for one query."""

    @property
    def spec(self) -> RerankerSpec:
        """Name and revision, and the encoder it belongs to."""
        ...

    @property
    def weight(self) -> float:
        """How much the joint probability counts: final score = cosine + weight * probability."""
        ...

    def applies_to(self, text: str) -> bool:
        """Say whether a text claims anything that similarity alone cannot tell.

        Where it does not, similarity orders best. Raises InvalidValueError for an empty text.
        """
        ...

    def joint_probability(
        self, text: str, similarities: FloatArray, candidates: Candidates
    ) -> FloatArray:
        """Return [N] probabilities, together 1, that a candidate is the one that a text means.

        similarities [N] are the cosines of the first stage. Equal to the bit from run to run, and
        for any order of the candidates. N = 0 gives an empty array, N = 1 gives 1.
        Raises InvalidValueError for an empty text and for vectors that are not finite.
        """
        ...

"""Searching captions by words beside the search by sound, and making one ranking of both.

Two rankings whose scores mean different things are fused by reciprocal rank (Cormack, Clarke and
Buettcher 2009): 1 / (60 + place), summed. Words alone make a hit only where one caption of a window
has every content word of the query; what was found so keeps its relevance beside it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from soundpost.store import caption_search, captions, embeddings
from soundpost.store.caption_search import CaptionMatch, Filters

FloatArray = NDArray[np.float32]
Key = TypeVar("Key", bound=Hashable)

RRF_K = 60
BY_SOUND, BY_WORDS = "sound", "words"


@dataclass(frozen=True)
class Words:
    """What captions say to a query: matches by embedding, the best first."""

    matches: dict[int, CaptionMatch] = field(default_factory=dict)

    @property
    def whole(self) -> list[CaptionMatch]:
        """Those with every content word of the query."""
        return [match for match in self.matches.values() if match.whole]

    def place(self, embedding_ids: Sequence[int]) -> int | None:
        """The best place of some windows among the matches, 0 for the first; None without one."""
        return min(
            (self._places[key] for key in embedding_ids if key in self._places), default=None
        )

    def best_of(self, embedding_ids: Sequence[int]) -> CaptionMatch | None:
        """The best match of some windows, None without one."""
        place = self.place(embedding_ids)
        return None if place is None else list(self.matches.values())[place]

    @cached_property
    def _places(self) -> dict[int, int]:
        return {embedding_id: place for place, embedding_id in enumerate(self.matches)}


NO_WORDS = Words()


def find_words(session: Session, query: str, limit: int, filters: Filters) -> Words:
    """Look for the words of a query in captions; nothing where there are no captions."""
    if not captions.any_of(session, filters.model_id):
        return NO_WORDS
    found = caption_search.find(session, query, limit, filters)
    return Words({match.embedding_id: match for match in found})


def cosines_of(
    session: Session, embedding_ids: Sequence[int], query: FloatArray
) -> dict[int, float]:
    """Compare a unit vector [D] with embeddings; those that are gone or damaged are left out."""
    vectors = embeddings.vectors_of(session, embedding_ids)
    cosines = {key: float(vector @ query) for key, vector in vectors.items()}
    return {key: cosine for key, cosine in cosines.items() if np.isfinite(cosine)}


def fuse(*rankings: Sequence[Key]) -> dict[Key, float]:
    """Return the reciprocal rank score of everything that is in a ranking, best first in each."""
    scores: dict[Key, float] = {}
    for ranking in rankings:
        for place, key in enumerate(ranking, start=1):
            scores[key] = scores.get(key, 0.0) + 1.0 / (RRF_K + place)
    return scores

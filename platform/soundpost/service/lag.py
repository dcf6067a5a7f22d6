"""How far the index is behind the database."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from soundpost.archive.index import SearchIndex
from soundpost.models.encoder import EncoderSpec
from soundpost.store import embeddings, models
from soundpost.store.session import Store


@dataclass(frozen=True)
class Lag:
    """Vectors in the index, embeddings of its model in the database, and what is missing.

    behind_s: for how long something has been missing, as far as anybody looked.
    """

    vectors: int
    embeddings: int
    behind: int
    behind_s: float


class LagClock:
    """Compares index and database, and remembers since when they differ.

    An embedding does not say when it was written, so the time is that between two looks.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_step_at = time.monotonic()

    def measure(self, store: Store, spec: EncoderSpec, index: SearchIndex) -> Lag:
        """Compare now. Raises StoreError."""
        with store.reading() as session:
            model = models.find(session, spec.name, spec.revision)
            there = 0 if model is None else embeddings.count(session, model.id)
        vectors = len(index)
        behind = max(0, there - vectors)
        return Lag(vectors, there, behind, self._since(behind))

    def _since(self, behind: int) -> float:
        now = time.monotonic()
        with self._lock:
            if behind == 0:
                self._in_step_at = now
            return now - self._in_step_at

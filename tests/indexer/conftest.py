"""What tests of processes that build and follow an index share: an archive that grows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from soundpost.archive.index import FloatArray, IdArray
from soundpost.config import Settings
from soundpost.models.encoder import EncoderSpec
from soundpost.store import embeddings, models, recordings, sources, windows
from soundpost.store.session import Store
from soundpost_indexer.interface import VectorIndex

SPEC = EncoderSpec("tone", "1", 16, 16_000, 10.0, 5.0)


@dataclass(frozen=True)
class GrowingArchive:
    """A store with a model of 16 dimensions, and recordings of windows with random vectors."""

    store: Store
    settings: Settings
    model_id: int
    numbers: count[int]

    @property
    def url(self) -> str:
        """The database, for another process."""
        return self.store.engine.url.render_as_string(hide_password=False)

    def record(self, windows_of_it: int) -> tuple[int, IdArray]:
        """Add a recording; return its id and those of its embeddings."""
        number = next(self.numbers)
        vectors = np.random.default_rng(number).normal(size=(windows_of_it, 16))
        frames = np.zeros((1, 16), np.int8)
        rows = [
            windows.WindowRow(5.0 * at, 5.0 * at + 10.0, {}, vector, frames)
            for at, vector in enumerate(vectors.astype(np.float32))
        ]
        with self.store.session() as session:
            source_id = sources.ensure(session, "hall").id
            new = recordings.NewRecording(source_id, f"{number:064x}", f"/{number}.wav", 1, 2)
            recording_id = recordings.add(session, new)[0].id
            return recording_id, windows.add_batch(session, recording_id, self.model_id, rows)

    def forget(self, recording_id: int) -> None:
        """Delete a recording."""
        with self.store.session() as session:
            recordings.remove(session, recording_id)

    def rows(self) -> tuple[IdArray, FloatArray]:
        """What SQL has: ids [N] and unit vectors [N, D]."""
        ids, vectors = [np.empty(0, np.int64)], [np.empty((0, 16), np.float32)]
        with self.store.reading() as session:
            for some_ids, some in embeddings.stream(session, self.model_id):
                ids.append(some_ids)
                vectors.append(some / np.linalg.norm(some, axis=1, keepdims=True))
        return np.concatenate(ids), np.concatenate(vectors)

    def check(self, index: VectorIndex) -> None:
        """An index has the rows of SQL, no more and no less, and finds each of them."""
        ids, vectors = self.rows()
        np.testing.assert_array_equal(index.ids(), ids)
        if len(ids):
            np.testing.assert_array_equal(index.search(vectors, 1).ids[:, 0], ids)


@pytest.fixture
def growing(store: Store, tmp_path: Path) -> GrowingArchive:
    """An archive on SQLite and on PostgreSQL."""
    return _new(store, tmp_path / "home", "faiss")


@pytest.fixture
def new_archive(sqlite_store: Store, tmp_path: Path) -> Callable[..., Any]:
    """new_archive(engine="faiss") -> an archive on SQLite, for what is not about the database."""
    return lambda engine="faiss": _new(sqlite_store, tmp_path / "home", engine)


def _new(store: Store, home: Path, engine: str) -> GrowingArchive:
    with store.session() as session:
        model_id = models.ensure(session, SPEC).id
    return GrowingArchive(store, Settings(home=home, index=engine), model_id, count(1))

"""An opened index holds exactly the rows of SQL, whatever happened to its snapshots."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import delete
from sqlalchemy.orm import Session

from soundpost.archive.index import FloatArray, IdArray
from soundpost.config import Settings
from soundpost.errors import InvalidValueError
from soundpost.models.encoder import EncoderSpec
from soundpost.store import embeddings, models, recordings, sources, windows
from soundpost.store.session import Store, open_store
from soundpost.store.tables import Embedding, Tombstone, Window
from soundpost_indexer import build, snapshot
from soundpost_indexer.build import Opened

DIMENSION = 16
SPEC = EncoderSpec(
    name="Tone, in C",
    revision="1",
    dimension=DIMENSION,
    sample_rate_hz=16_000,
    window_s=10,
    hop_s=5,
)


class Archive:
    """A store with a model, and recordings of windows with random vectors."""

    def __init__(self, store: Store, home: Path, engine: str = "faiss") -> None:
        self.store = store
        self.settings = Settings(home=home, index=engine)
        with store.session() as session:
            self.model_id = models.ensure(session, SPEC).id

    def record(self, count: int, seed: int = 0, spec: EncoderSpec = SPEC) -> int:
        """Add a recording of that many windows, and return its id."""
        vectors = np.random.default_rng(seed).normal(size=(count, DIMENSION)).astype(np.float32)
        frames = np.zeros((1, DIMENSION), np.int8)
        rows = [
            windows.WindowRow(5.0 * at, 5.0 * at + 10.0, {}, vector, frames)
            for at, vector in enumerate(vectors)
        ]
        with self.store.session() as session:
            source_id, number = sources.ensure(session, "hall").id, recordings.count(session)
            new = recordings.NewRecording(
                source_id, f"{seed:032x}{number:032x}", f"/{number}.wav", 1, 2
            )
            recording_id = recordings.add(session, new)[0].id
            model_id = models.ensure(session, spec).id
            windows.add_batch(session, recording_id, model_id, rows)
        return recording_id

    def forget(self, recording_id: int) -> None:
        with self.store.session() as session:
            recordings.remove(session, recording_id)

    def rows(self) -> tuple[IdArray, FloatArray]:
        """What SQL has of the model: ids [N] and unit vectors [N, D]."""
        with self.store.reading() as session:
            parts = list(embeddings.stream(session, self.model_id))
        if not parts:
            return np.empty(0, np.int64), np.empty((0, DIMENSION), np.float32)
        vectors = np.concatenate([vectors for _, vectors in parts])
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.concatenate([ids for ids, _ in parts]), vectors / lengths

    def open(self) -> Opened:
        return build.open_current(self.settings, self.store, self.model_id)

    def seal(self) -> Path:
        return build.seal(self.settings, self.store, self.model_id).path

    def due(self) -> bool:
        return build.seal_if_due(self.settings, self.store, self.model_id) is not None

    def check(self, opened: Opened) -> Opened:
        """The index has the rows of SQL, no more and no less, and finds each of them."""
        ids, vectors = self.rows()
        np.testing.assert_array_equal(opened.index.ids(), ids)
        np.testing.assert_allclose(opened.index.vectors(ids), vectors, atol=1e-6)
        if len(ids):
            found = opened.index.search(vectors, 1).ids[:, 0]
            np.testing.assert_array_equal(found, ids)
        return opened


@pytest.fixture(params=["faiss", "exact"])
def archive(request: pytest.FixtureRequest, sqlite_store: Store, tmp_path: Path) -> Archive:
    return Archive(sqlite_store, tmp_path / "home", request.param)


@pytest.fixture
def everywhere(store: Store, tmp_path: Path) -> Archive:
    """An archive on SQLite and on PostgreSQL."""
    return Archive(store, tmp_path / "home")


# --- opening ----------------------------------------------------------------------------------


def test_an_empty_archive_opens_empty(archive: Archive) -> None:
    assert archive.check(archive.open()).snapshot is None
    archive.seal()
    assert archive.check(archive.open()).snapshot is not None
    archive.record(3)
    archive.check(archive.open())


def test_an_unknown_model_is_refused(archive: Archive) -> None:
    with pytest.raises(InvalidValueError, match="99"):
        build.open_index(archive.settings, archive.store, 99)


def test_snapshot_tail_and_tombstones_make_up_the_rows_of_sql(everywhere: Archive) -> None:
    first, second = everywhere.record(40, seed=1), everywhere.record(30, seed=2)
    everywhere.forget(first)
    sealed = everywhere.seal()
    third = everywhere.record(20, seed=3)
    everywhere.record(10, seed=4)
    everywhere.forget(second)
    everywhere.forget(third)
    opened = everywhere.check(everywhere.open())
    assert opened.snapshot == sealed
    stats = opened.index.stats()
    assert (stats.vectors, stats.tail, stats.removed) == (10, 10, 30)


def test_models_do_not_mix(archive: Archive) -> None:
    other = EncoderSpec("other", "1", DIMENSION, 16_000, 10, 5)
    archive.record(5, seed=1)
    archive.record(5, seed=2, spec=other)
    archive.seal()
    archive.record(5, seed=3, spec=other)
    archive.record(5, seed=4)
    assert len(archive.check(archive.open()).index) == 10


def test_an_open_index_follows_the_store(everywhere: Archive) -> None:
    opened = everywhere.open()
    first = everywhere.record(20, seed=1)
    opened = everywhere.check(build.refresh(everywhere.store, everywhere.model_id, opened))
    everywhere.record(20, seed=2)
    everywhere.forget(first)
    opened = everywhere.check(build.refresh(everywhere.store, everywhere.model_id, opened))
    everywhere.check(build.refresh(everywhere.store, everywhere.model_id, opened))


def test_the_engine_can_be_changed(sqlite_store: Store, tmp_path: Path) -> None:
    before = Archive(sqlite_store, tmp_path, "faiss")
    before.record(10)
    sealed = before.seal()
    after = Archive(sqlite_store, tmp_path, "exact")
    opened = after.check(after.open())
    assert opened.index.stats().engine == "exact" and opened.snapshot is None
    assert sealed.exists()


# --- ids that become visible late -------------------------------------------------------------


def test_a_lower_id_that_becomes_visible_after_the_watermark_is_found(everywhere: Archive) -> None:
    """As after transactions that commit in another order than they took their ids."""
    everywhere.record(30)
    ids, _ = everywhere.rows()
    held_back = ids[[0, 13, 14, 28]].tolist()
    with everywhere.store.session() as session:
        kept = [
            {column.name: getattr(row, column.name) for column in Embedding.__table__.columns}
            for row in (session.get_one(Embedding, key) for key in held_back)
        ]
        session.execute(delete(Embedding).where(Embedding.id.in_(held_back)))
    everywhere.seal()
    opened = everywhere.check(everywhere.open())
    assert len(opened.index) == 26
    with everywhere.store.session() as session:
        session.add_all(Embedding(**values) for values in kept)
    assert len(everywhere.check(everywhere.open()).index) == 30
    everywhere.check(build.refresh(everywhere.store, everywhere.model_id, opened))


@pytest.mark.postgres
def test_transactions_that_commit_out_of_order(
    postgres_server: Any, postgres_template: str, tmp_path: Path
) -> None:
    """The real thing, by a writer that does not hold the order of ids."""
    database = postgres_server.create(postgres_template)
    store = open_store(postgres_server.url(database))
    archive = Archive(store, tmp_path)
    recording_id = archive.record(5)
    vector, frames = np.eye(DIMENSION, dtype="<f4")[0].tobytes(), bytes(DIMENSION)

    def insert(session: Session, start_s: float) -> int:
        window = Window(recording_id=recording_id, start_s=start_s, end_s=start_s + 10)
        session.add(window)
        session.flush()
        row = Embedding(
            window_id=window.id, model_id=archive.model_id, vector=vector, frames=frames
        )
        session.add(row)
        session.flush()
        return row.id

    with store.session() as slow:
        lower = insert(slow, 1000.0)
        with store.session() as quick:
            higher = insert(quick, 2000.0)
        archive.seal()
        opened = archive.open()
        assert higher in opened.index.ids() and lower not in opened.index.ids()
    assert lower < higher
    assert lower in build.refresh(store, archive.model_id, opened).index.ids()
    assert {lower, higher} <= set(archive.open().index.ids().tolist())
    store.close()
    postgres_server.drop(database)


def test_a_deletion_whose_tombstone_is_lost_is_found(everywhere: Archive) -> None:
    recording_id = everywhere.record(10, seed=1)
    everywhere.record(10, seed=2)
    opened, _ = everywhere.open(), everywhere.seal()
    everywhere.forget(recording_id)
    with everywhere.store.session() as session:
        session.execute(delete(Tombstone))
    assert len(everywhere.check(everywhere.open()).index) == 10
    everywhere.check(build.refresh(everywhere.store, everywhere.model_id, opened))


# --- snapshots that cannot be trusted ---------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.999])
def test_a_flipped_byte_is_found_and_an_older_snapshot_used(archive: Archive, share: float) -> None:
    archive.record(30, seed=1)
    older = archive.seal()
    archive.record(5, seed=2)
    newer = archive.seal()
    for path in sorted(newer.iterdir()):
        raw = bytearray(path.read_bytes())
        raw[int(share * len(raw))] ^= 0x10
        path.write_bytes(raw)
        opened = archive.check(archive.open())
        assert opened.snapshot == older
        assert opened.set_aside == (newer.with_name(f"{newer.name}.corrupt"),)
        raw[int(share * len(raw))] ^= 0x10
        opened.set_aside[0].rename(newer)
        path.write_bytes(raw)
        assert archive.check(archive.open()).snapshot == newer


def test_without_any_valid_snapshot_all_is_read_from_sql_and_sealed_anew(archive: Archive) -> None:
    archive.record(30)
    for path in (archive.seal(), archive.seal()):
        (path / "ids.npy").write_bytes(b"nonsense")
    opened = archive.check(archive.open())
    assert opened.snapshot is None and len(opened.set_aside) == 2
    renewed = build.rebuild(archive.settings, archive.store, archive.model_id)
    assert archive.check(renewed).snapshot is not None and renewed.set_aside == ()


def test_rebuilding_leaves_one_snapshot(archive: Archive) -> None:
    archive.record(30)
    older = [archive.seal(), archive.seal()]
    renewed = archive.check(build.rebuild(archive.settings, archive.store, archive.model_id))
    assert renewed.snapshot is not None
    assert snapshot.published(renewed.snapshot.parent) == [renewed.snapshot]
    assert not any(path.exists() for path in older)


def test_a_database_put_back_to_an_earlier_state_does_not_get_later_vectors(
    archive: Archive, tmp_path: Path
) -> None:
    """Its ids are given out again, for other sounds."""
    archive.record(30, seed=1)
    database = Path(str(archive.store.engine.url.database))
    archive.store.close()
    backup = database.read_bytes()
    archive.record(20, seed=2)
    sealed = archive.seal()
    archive.store.close()
    for path in tmp_path.glob("soundpost.db*"):
        path.unlink()
    database.write_bytes(backup)
    archive.record(20, seed=3)
    opened = archive.check(archive.open())
    assert opened.snapshot is None
    assert opened.set_aside == (sealed.with_name(f"{sealed.name}.foreign"),)


def test_a_snapshot_of_an_emptied_archive_is_not_trusted_by_a_new_one(
    archive: Archive, tmp_path: Path
) -> None:
    empty = Path(str(archive.store.engine.url.database))
    archive.store.close()
    backup = empty.read_bytes()
    archive.forget(archive.record(20, seed=1))
    archive.seal()
    archive.store.close()
    for path in tmp_path.glob("soundpost.db*"):
        path.unlink()
    empty.write_bytes(backup)
    archive.record(10, seed=2)
    archive.check(archive.open())


# --- sealing ----------------------------------------------------------------------------------


def test_sealing_is_due_when_a_share_has_changed(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "DUE_COUNT", 20)
    first = archive.record(19, seed=1)
    assert not archive.due()
    archive.record(381, seed=2)
    assert archive.due() and not archive.due()
    archive.record(30, seed=3)
    assert not archive.due()
    archive.forget(first)
    assert archive.due() and not archive.due()
    archive.check(archive.open())


def test_the_default_spares_small_archives() -> None:
    assert build.DUE_COUNT == 1000 and build.DUE_SHARE == 0.1


def test_nothing_is_sealed_while_another_is_at_it(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "DUE_COUNT", 1)
    folder = archive.seal().parent
    archive.record(10)
    with snapshot.writer_lock(folder):
        assert not archive.due()
    assert archive.due()


def test_what_is_deleted_while_sealing_does_not_come_back(
    everywhere: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "_CHUNK", 8)
    doomed = [everywhere.record(10, seed=seed) for seed in range(6)]
    everywhere.record(20, seed=9)
    done = threading.Event()

    def remove() -> None:
        for recording_id in doomed:
            everywhere.forget(recording_id)
        done.set()

    thread = threading.Thread(target=remove)
    thread.start()
    while not done.is_set():
        everywhere.seal()
    thread.join()
    assert len(everywhere.check(everywhere.open()).index) == 20


SEAL_FOR_EVER = """
import sys
from pathlib import Path
from soundpost.config import Settings
from soundpost.store.session import open_store
from soundpost_indexer import build

store = open_store(sys.argv[1])
settings = Settings(home=Path(sys.argv[2]))
while True:
    build.seal(settings, store, int(sys.argv[3]))
    print("sealed", flush=True)
"""


def sealing(archive: Archive) -> subprocess.Popen[bytes]:
    url = archive.store.engine.url.render_as_string(hide_password=False)
    arguments = [url, str(archive.settings.home), str(archive.model_id)]
    return subprocess.Popen(
        [sys.executable, "-c", SEAL_FOR_EVER, *arguments], stdout=subprocess.PIPE
    )


def test_kill_9_while_sealing_loses_nothing(sqlite_store: Store, tmp_path: Path) -> None:
    archive = Archive(sqlite_store, tmp_path / "home")
    archive.record(2000, seed=100)
    rng = np.random.default_rng(11)
    writing = archive.seal().with_name("writing")
    for seed in range(10):
        with sealing(archive) as process:
            assert process.stdout is not None
            process.stdout.readline()
            archive.record(3, seed=seed)
            threading.Event().wait(float(rng.uniform(0.0, 0.08)))
            while seed % 2 and not writing.exists() and process.poll() is None:
                pass  # Every other time not at any moment, but while files are being written.
            process.kill()
        assert process.returncode == -signal.SIGKILL
        opened = archive.check(archive.open())
        assert opened.snapshot is not None and opened.set_aside == ()
    sealed = archive.seal()
    assert not writing.exists()
    assert len(snapshot.published(sealed.parent)) == 2


def test_two_processes_sealing_at_once_do_no_harm(sqlite_store: Store, tmp_path: Path) -> None:
    archive = Archive(sqlite_store, tmp_path / "home")
    archive.record(500, seed=100)
    with sealing(archive) as one, sealing(archive) as two:
        for process in (one, two):
            assert process.stdout is not None
            assert process.stdout.readline() == b"sealed\n"
        for seed in range(10):
            archive.record(5, seed=seed)
            opened = archive.check(archive.open())
            assert opened.set_aside == ()
        for process in (one, two):
            assert process.poll() is None, "a writer failed"
            process.kill()
    archive.check(archive.open())

"""An index that follows the database: nothing missing, nothing twice, nothing that was deleted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import delete, text

from soundpost.archive.index import FloatArray, IdArray, SearchIndex
from soundpost.config import Settings
from soundpost.errors import InvalidValueError
from soundpost.models.encoder import EncoderSpec
from soundpost.store import models, recordings
from soundpost.store.session import open_store
from soundpost.store.tables import Embedding, Tombstone
from soundpost_indexer import build, follow
from soundpost_indexer.follow import LiveIndex

# How long something that should happen within a second may take on a busy machine.
DEADLINE_S = 60.0


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def still(archive: Any, **options: float) -> LiveIndex:
    """An index that looks only when it is told to."""
    return LiveIndex(archive.settings, archive.store, archive.model_id, **options)


def seal(archive: Any) -> Path:
    return build.seal(archive.settings, archive.store, archive.model_id).path


@pytest.fixture
def swap_at_10(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "SWAP_COUNT", 10)


# --- what is new and what is gone -------------------------------------------------------------


def test_it_starts_with_everything_and_searches_like_any_index(growing: Any) -> None:
    _, ids = growing.record(30)
    live: SearchIndex = still(growing)
    _, vectors = growing.rows()
    assert (len(live), live.dimension) == (30, 16)
    np.testing.assert_array_equal(live.search(vectors, 1).ids[:, 0], ids)
    found = live.search(vectors[:1], 5, allowed=ids[10:12])
    assert set(found.ids[0].tolist()) == {*ids[10:12].tolist(), -1}


def test_what_is_committed_is_found_and_what_is_deleted_is_not(growing: Any) -> None:
    with LiveIndex(growing.settings, growing.store, growing.model_id) as live:
        first, _ = growing.record(20)
        wait_until(lambda: len(live) == 20)
        growing.record(10)
        wait_until(lambda: len(live) == 30)
        growing.forget(first)
        wait_until(lambda: len(live) == 10)
        growing.check(live.opened.index)


def test_one_look_brings_it_up_to_date(growing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_CHUNK", 7)
    live = still(growing)
    gone, _ = growing.record(20)
    growing.record(25)
    growing.forget(gone)
    growing.record(1)
    live.follow()
    growing.check(live.opened.index)
    assert live.status().behind == 0


def test_a_recording_that_came_and_went_between_two_looks_leaves_nothing(growing: Any) -> None:
    live = still(growing)
    for _ in range(3):
        growing.forget(growing.record(5)[0])
        live.follow()
        assert len(live) == 0
    growing.record(5)
    live.follow()
    growing.check(live.opened.index)


def test_other_models_are_not_mixed_in(growing: Any) -> None:
    with growing.store.session() as session:
        other = models.ensure(session, EncoderSpec("other", "1", 16, 16_000, 10.0, 5.0)).id
    beside = LiveIndex(growing.settings, growing.store, other)
    live = still(growing)
    growing.forget(growing.record(5)[0])
    growing.record(5)
    live.follow()
    beside.follow()
    assert (len(live), len(beside)) == (5, 0)


def test_an_unknown_model_is_refused(growing: Any) -> None:
    with pytest.raises(InvalidValueError, match="99"):
        LiveIndex(growing.settings, growing.store, 99)


def test_closing_ends_its_threads_and_leaves_it_searchable(growing: Any) -> None:
    growing.record(5)
    before = threading.active_count()
    live = LiveIndex(growing.settings, growing.store, growing.model_id).start()
    assert threading.active_count() == before + 1
    live.close()
    live.close()
    assert threading.active_count() == before
    growing.record(5)
    assert len(live) == 5


# --- what the order of ids cannot tell --------------------------------------------------------


def test_rows_that_were_changed_by_hand_are_found_by_the_check(growing: Any) -> None:
    _, ids = growing.record(20)
    growing.record(5)
    live = still(growing, check_s=0.0)
    with growing.store.session() as session:
        session.execute(delete(Embedding).where(Embedding.id.in_(ids[:7].tolist())))
    live.follow()
    growing.check(live.opened.index)
    assert live.status().last_error is None


@pytest.mark.usefixtures("swap_at_10")
def test_a_database_put_back_to_an_earlier_state_is_opened_anew(
    new_archive: Callable[..., Any],
) -> None:
    archive = new_archive()
    archive.record(20)
    database = Path(archive.store.engine.url.database)
    archive.store.close()
    backup = database.read_bytes()
    archive.forget(archive.record(20)[0])
    archive.record(20)
    with LiveIndex(archive.settings, archive.store, archive.model_id) as live:
        assert len(live) == 40
        archive.store.close()
        for path in database.parent.glob(f"{database.name}*"):
            path.unlink()
        database.write_bytes(backup)
        archive.store.close()
        wait_until(lambda: live.status().swaps == 1)
        archive.record(20)  # With ids that were given to other vectors before.
        wait_until(lambda: len(live) == 40 and live.status().last_error is None)
        archive.check(live.opened.index)


def test_vectors_that_changed_under_their_ids_are_noticed(new_archive: Callable[..., Any]) -> None:
    archive = new_archive()
    archive.record(20)
    live = still(archive, check_s=0.0)
    with archive.store.session() as session:
        other = np.random.default_rng(99).normal(size=16).astype("<f4").tobytes()
        session.execute(text("UPDATE embeddings SET vector = :other"), {"other": other})
    live.follow()
    assert "[index]" in (live.status().last_error or "")

    def right_again() -> bool:
        live.follow()
        return live.status().last_error is None

    wait_until(right_again)
    stored = archive.rows()[1]
    np.testing.assert_allclose(
        live.opened.index.vectors(live.opened.index.ids()), stored, atol=1e-6
    )
    live.close()


# --- newer snapshots --------------------------------------------------------------------------


@pytest.mark.usefixtures("swap_at_10")
def test_a_newer_snapshot_takes_over_once_much_lies_beside_the_old_one(growing: Any) -> None:
    growing.record(50)
    first = seal(growing)
    with LiveIndex(growing.settings, growing.store, growing.model_id, poll_s=0.01) as live:
        assert live.status().snapshot == first
        growing.record(9)
        wait_until(lambda: len(live) == 59)
        second = seal(growing)
        gone, _ = growing.record(1)
        wait_until(lambda: live.status().snapshot == second)
        growing.forget(gone)
        wait_until(lambda: len(live) == 59)
        growing.check(live.opened.index)
        assert (live.status().swaps, live.status().stats.tail) == (1, 0)


@pytest.mark.usefixtures("swap_at_10")
def test_without_any_snapshot_the_first_one_is_taken(growing: Any) -> None:
    with LiveIndex(growing.settings, growing.store, growing.model_id, poll_s=0.01) as live:
        growing.record(50)
        path = seal(growing)
        wait_until(lambda: live.status().snapshot == path)
        growing.check(live.opened.index)


@pytest.mark.usefixtures("swap_at_10")
def test_a_snapshot_that_masks_what_was_deleted_is_replaced_by_one_without(growing: Any) -> None:
    """Its highest embedding is a lower one than before."""
    growing.record(20)
    last, _ = growing.record(20)
    seal(growing)
    with LiveIndex(growing.settings, growing.store, growing.model_id, poll_s=0.01) as live:
        growing.forget(last)
        wait_until(lambda: len(live) == 20)
        assert live.status().stats.removed == 20
        smaller = seal(growing)
        wait_until(lambda: live.status().snapshot == smaller)
        assert live.status().stats.removed == 0
        growing.check(live.opened.index)


@pytest.mark.usefixtures("swap_at_10")
def test_a_damaged_snapshot_never_takes_over(new_archive: Callable[..., Any]) -> None:
    archive = new_archive()
    archive.record(50)
    first = seal(archive)
    live = still(archive)
    archive.record(20)
    damaged = seal(archive)
    (damaged / "body.faiss").write_bytes(b"nonsense")
    live.follow()
    wait_until(lambda: not live.status().opening)
    live.follow()
    archive.check(live.opened.index)
    assert (live.status().snapshot, live.status().swaps) == (first, 0)
    assert damaged.with_name(f"{damaged.name}.corrupt").exists()
    assert live.status().last_error is None
    newest = seal(archive)
    live.follow()
    wait_until(lambda: "index-open" not in {thread.name for thread in threading.enumerate()})
    live.follow()
    assert live.status().snapshot == newest
    live.close()


@pytest.mark.usefixtures("swap_at_10")
def test_the_old_index_serves_and_follows_while_the_new_one_is_opened(
    new_archive: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = new_archive()
    archive.record(50)
    seal(archive)
    opening, go_on = threading.Event(), threading.Event()
    verify = build.verify

    def slow(path: Path) -> Any:
        opening.set()
        assert go_on.wait(DEADLINE_S)
        return verify(path)

    with LiveIndex(archive.settings, archive.store, archive.model_id, poll_s=0.01) as live:
        monkeypatch.setattr(build, "verify", slow)
        gone, _ = archive.record(20)
        archive.record(5)
        newer = seal(archive)
        assert opening.wait(DEADLINE_S)
        archive.record(7)
        archive.forget(gone)
        wait_until(lambda: len(live) == 62)
        assert live.status().swaps == 0 and live.status().opening
        go_on.set()
        wait_until(lambda: live.status().snapshot == newer)
        assert len(live) == 62
        archive.check(live.opened.index)


@pytest.mark.usefixtures("swap_at_10")
def test_what_takes_over_has_read_as_far_as_what_it_replaces(
    new_archive: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the old one went on while the new one was as good as ready."""
    archive = new_archive()
    gone, _ = archive.record(50)
    opened, go_on = threading.Event(), threading.Event()
    advance, seen = build.advance, list[int]()

    def watched(*arguments: Any) -> Any:
        if threading.current_thread().name != "index-open":
            seen.append(len(live))
            return advance(*arguments)
        result = advance(*arguments)
        opened.set()
        assert go_on.wait(DEADLINE_S)
        return result

    live = still(archive)
    seal(archive)
    monkeypatch.setattr(build, "advance", watched)
    live.follow()
    assert opened.wait(DEADLINE_S)
    archive.record(7)
    archive.forget(gone)
    live.follow()
    assert len(live) == 7
    seen.clear()
    go_on.set()
    wait_until(lambda: "index-open" not in {thread.name for thread in threading.enumerate()})
    live.follow()
    assert live.status().swaps == 1 and set(seen) == {7}
    archive.check(live.opened.index)


# --- an outage --------------------------------------------------------------------------------


@pytest.mark.postgres
def test_it_serves_through_an_outage_and_goes_on_after_it(
    postgres_server: Any, postgres_template: str, tmp_path: Path
) -> None:
    database = postgres_server.create(postgres_template)
    store = open_store(postgres_server.url(database))
    with store.session() as session:
        model_id = models.ensure(session, EncoderSpec("tone", "1", 2, 16_000, 10.0, 5.0)).id
    add_vectors(postgres_server.url(database), model_id, 10)
    with LiveIndex(Settings(home=tmp_path), store, model_id, poll_s=0.01) as live:
        assert len(live) == 10
        postgres_server.execute(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS false')
        postgres_server.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"
        )
        wait_until(lambda: live.status().last_error is not None)
        first_lag_s = live.status().lag_s
        assert "[store]" in (live.status().last_error or "")
        wait_until(lambda: live.status().lag_s > first_lag_s)
        assert len(live.search(np.ones((1, 2), np.float32), 10).ids[0]) == 10
        postgres_server.execute(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS true')
        add_vectors(postgres_server.url(database), model_id, 5)
        wait_until(lambda: len(live) == 15)
        wait_until(lambda: live.status().last_error is None)
    store.close()
    postgres_server.drop(database)


def add_vectors(url: str, model_id: int, count: int) -> None:
    store = open_store(url)
    with store.session() as session:
        number = recordings.count(session)
        statements = f"""
            INSERT INTO sources (name, timezone, created_at) VALUES ('{number}', 'UTC', now());
            INSERT INTO recordings
                (source_id, sha256, path, status, truncated, remarks, created_at)
                SELECT max(id), '{number}', '/a', 'embedded', false, '[]', now() FROM sources;
            INSERT INTO windows (recording_id, start_s, end_s, acoustics)
                SELECT (SELECT max(id) FROM recordings), at, at + 10, '{{}}'
                FROM generate_series(1, {count}) AS at;
            INSERT INTO embeddings (window_id, model_id, vector, frames)
                SELECT id, {model_id}, '\\x0000803f00000000', '\\x0000' FROM windows
                WHERE id NOT IN (SELECT window_id FROM embeddings)
        """
        for statement in statements.split(";"):
            session.execute(text(statement.replace(":", "\\:")))
    store.close()


def test_a_look_that_fails_in_any_way_is_noted_and_the_next_one_may_succeed(
    new_archive: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = new_archive()
    live = still(archive)
    archive.record(5)

    def broken(*_: object) -> None:
        raise KeyError("lost")

    with monkeypatch.context() as patched:
        patched.setattr(build, "advance", broken)
        live.follow()
    assert live.status().last_error == "[unexpected] KeyError: 'lost'"
    assert live.status().behind == 5
    live.follow()
    assert live.status().last_error is None
    archive.check(live.opened.index)


# --- many at once -----------------------------------------------------------------------------


class Hammer:
    """Searchers that hold an index to its promises while it changes under them."""

    def __init__(self, live: LiveIndex, ids: IdArray, vectors: FloatArray) -> None:
        self.live, self.ids, self.vectors = live, ids, vectors
        self.gone: frozenset[int] = frozenset()
        self.done = threading.Event()
        self.searches = 0
        self.wrong: list[str] = []

    def run(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        while not self.done.is_set() and not self.wrong:
            rows = rng.choice(len(self.ids), size=4, replace=False)
            gone = self.gone
            found = self.live.search(self.vectors[rows], 200).ids
            if found[:, 0].tolist() != self.ids[rows].tolist():
                self.wrong.append("what stays was not found")
            for each in found:
                kept = each[each >= 0].tolist()
                if len(kept) != len(set(kept)):
                    self.wrong.append("found twice in one search")
                if gone.intersection(kept):
                    self.wrong.append("found after it was deleted")
            self.searches += 1

    def threads(self, number: int) -> Iterator[threading.Thread]:
        for seed in range(number):
            yield threading.Thread(target=self.run, args=(seed,))


@pytest.mark.parametrize("engine", ["faiss", "exact"])
@pytest.mark.usefixtures("swap_at_10")
def test_eight_searchers_see_no_gap_no_double_and_nothing_deleted(
    engine: str, new_archive: Callable[..., Any]
) -> None:
    archive = new_archive(engine)
    _, stays = archive.record(100)
    vectors = archive.rows()[1]
    seal(archive)
    with LiveIndex(archive.settings, archive.store, archive.model_id, poll_s=0.001) as live:
        hammer = Hammer(live, stays, vectors)
        threads = list(hammer.threads(8))
        for thread in threads:
            thread.start()
        try:
            for turn in range(30):
                recording_id, ids = archive.record(12)
                wait_until(lambda expected=112: len(live) == expected)
                archive.forget(recording_id)
                wait_until(lambda: len(live) == 100)
                hammer.gone |= frozenset(ids.tolist())
                if turn % 5 == 0:
                    archive.record(1)
                    archive.forget(archive.record(11)[0])
                    seal(archive)
                    wait_until(lambda: not live.status().opening)
                    archive.forget(max_recording(archive))
                    wait_until(lambda: len(live) == 100)
        finally:
            hammer.done.set()
            for thread in threads:
                thread.join()
        assert hammer.wrong == []
        assert hammer.searches > 8
        if engine == "faiss":
            assert live.status().swaps > 0
        archive.check(live.opened.index)


def max_recording(archive: Any) -> int:
    with archive.store.reading() as session:
        return int(session.scalars(text("SELECT max(id) FROM recordings")).one())


def test_tombstones_that_were_purged_do_not_look_like_an_earlier_state(growing: Any) -> None:
    live = still(growing)
    for _ in range(2):
        growing.forget(growing.record(5)[0])
    live.follow()
    with growing.store.session() as session:
        newest = text("SELECT max(id) FROM tombstones")
        last = session.scalars(newest).one()
        session.execute(delete(Tombstone).where(Tombstone.id < last))
    growing.record(3)
    live.follow()
    assert live.status().last_error is None
    growing.check(live.opened.index)

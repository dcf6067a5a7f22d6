"""Snapshots as rows, leases over machines, and which model serves, on both databases."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count

import numpy as np
import pytest

from soundpost.archive.prepare import SHORTEST_S
from soundpost.errors import FileMissingError, InvalidValueError
from soundpost.models.encoder import EncoderSpec
from soundpost.store import embeddings, leases, models, recordings, snapshots, sources
from soundpost.store.embeddings import Watermark
from soundpost.store.session import Store
from soundpost.store.snapshots import NewSnapshot
from soundpost.store.windows import WindowRow, add_batch

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
LEASE_S = 60.0
OLD = EncoderSpec("old", "1", 4, 16_000, 10.0, 5.0)
# Cut differently, as a model with another window length would.
NEW = EncoderSpec("new", "1", 6, 16_000, 4.0, 4.0)


class Archive:
    """A store with two models, and recordings that either has embedded as far as one says."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.old, self.new = self.model(OLD), self.model(NEW)
        self._numbers: Iterator[int] = count(1)

    def model(self, spec: EncoderSpec) -> int:
        with self.store.session() as session:
            return models.ensure(session, spec).id

    def record(self, duration_s: float = 20.0) -> int:
        number = next(self._numbers)
        with self.store.session() as session:
            source_id = sources.ensure(session, "hall").id
            new = recordings.NewRecording(
                source_id, f"{number:064x}", f"/{number}.wav", 1, 2, duration_s=duration_s
            )
            return recordings.add(session, new)[0].id

    def embed(self, recording_id: int, spec: EncoderSpec, until_s: float = 20.0) -> None:
        """Write the windows of a model up to a second; the recording is embedded at its end."""
        starts_s = np.arange(0.0, until_s - spec.window_s + 0.001, spec.hop_s)
        vector = np.ones(spec.dimension, np.float32)
        frames = np.zeros((1, spec.dimension), np.int8)
        rows = [WindowRow(at, at + spec.window_s, {}, vector, frames) for at in starts_s.tolist()]
        model_id = self.model(spec)
        with self.store.session() as session:
            recordings.mark_embedding(session, recording_id)
            add_batch(session, recording_id, model_id, rows)
            if until_s >= (recordings.get(session, recording_id).duration_s or 0.0) - SHORTEST_S:
                recordings.mark_embedded(session, recording_id)

    def switch(self, model_id: int) -> bool:
        with self.store.session() as session:
            return models.switch_if_complete(session, model_id)

    def serving(self) -> int | None:
        with self.store.reading() as session:
            model = models.serving(session)
        return model.id if model is not None else None

    def coverage(self, model_id: int) -> tuple[int, int]:
        with self.store.reading() as session:
            found = models.coverage(session, model_id)
        return found.embedded, found.recordings

    def missing(self, model_id: int) -> list[int]:
        with self.store.reading() as session:
            return models.missing(session, model_id)


@pytest.fixture
def archive(store: Store) -> Archive:
    return Archive(store)


# --- which model serves -----------------------------------------------------------------------


def test_the_first_model_that_embeds_a_recording_serves(archive: Archive) -> None:
    assert archive.serving() is None
    assert not archive.switch(archive.old)
    recording_id = archive.record()
    archive.embed(recording_id, OLD, until_s=15.0)
    assert not archive.switch(archive.old), "it is not embedded to its end"
    archive.embed(recording_id, OLD)
    assert archive.switch(archive.old)
    assert archive.serving() == archive.old
    assert not archive.switch(archive.old), "it serves already"


def test_the_old_space_serves_until_the_new_one_is_complete(archive: Archive) -> None:
    made = [archive.record() for _ in range(3)]
    for recording_id in made:
        archive.embed(recording_id, OLD)
    archive.switch(archive.old)
    archive.embed(made[0], NEW)
    archive.embed(made[1], NEW, until_s=12.0)
    assert archive.coverage(archive.new) == (1, 3)
    assert archive.missing(archive.new) == made[1:]
    assert not archive.switch(archive.new) and archive.serving() == archive.old
    archive.embed(made[1], NEW)
    archive.embed(made[2], NEW)
    assert archive.coverage(archive.new) == (3, 3)
    assert archive.coverage(archive.old) == (3, 3)
    assert archive.switch(archive.new) and archive.serving() == archive.new
    assert archive.switch(archive.old), "and back, without embedding anything again"


def test_a_recording_that_came_since_does_not_keep_the_new_model_from_serving(
    archive: Archive,
) -> None:
    known, later = archive.record(), archive.record()
    archive.embed(known, OLD)
    archive.switch(archive.old)
    archive.embed(known, NEW)
    assert archive.coverage(archive.new) == (1, 2)
    assert archive.missing(archive.new) == []
    assert archive.switch(archive.new)
    archive.embed(later, NEW)
    assert archive.coverage(archive.new) == (2, 2)


def test_what_the_old_model_found_and_the_new_one_cannot_read_stops_the_switch(
    archive: Archive,
) -> None:
    gone = archive.record()
    archive.embed(gone, OLD)
    archive.switch(archive.old)
    with archive.store.session() as session:
        recordings.mark_failed(session, gone, FileMissingError("/gone.wav"))
    assert not archive.switch(archive.new)
    assert archive.missing(archive.new) == [gone]
    with archive.store.session() as session:
        recordings.remove(session, gone)
    assert archive.switch(archive.new)


def test_a_failed_recording_is_not_waited_for(archive: Archive) -> None:
    archive.embed(archive.record(), OLD)
    broken = archive.record()
    with archive.store.session() as session:
        recordings.mark_failed(session, broken, FileMissingError("/gone.wav"))
    assert archive.coverage(archive.old) == (1, 1)


def test_a_remainder_too_short_for_a_window_counts_as_embedded(archive: Archive) -> None:
    assert models.UNCOVERED_S == SHORTEST_S
    archive.embed(archive.record(20.0 + SHORTEST_S / 2), OLD)
    assert archive.coverage(archive.old) == (1, 1)
    archive.embed(archive.record(20.0 + 2 * SHORTEST_S), OLD)
    assert archive.coverage(archive.old) == (1, 2)


def test_an_unknown_model_cannot_serve(archive: Archive) -> None:
    with archive.store.session() as session, pytest.raises(InvalidValueError, match="99"):
        models.serve(session, 99)


# --- snapshots as rows ------------------------------------------------------------------------


def new(model_id: int, number: int, **values: int) -> NewSnapshot:
    made = NewSnapshot(
        model_id=model_id,
        folder=f"old-12/{number:08d}",
        embedding_id=10 * number,
        tombstone_id=0,
        count=10 * number,
        bytes=1000 * number,
        engine="faiss",
        layout="flat",
        sealed_at=NOON + timedelta(minutes=number),
        builder="here:1",
    )
    return replace(made, **values)  # type: ignore[arg-type]  # any field that is a number


def test_the_newest_snapshot_is_the_one_sealed_last(archive: Archive) -> None:
    with archive.store.session() as session:
        assert snapshots.newest(session, archive.old) is None
        for number in (2, 3, 1):
            snapshots.record(session, new(archive.old, number))
        snapshots.record(session, new(archive.new, 9))
    with archive.store.reading() as session:
        found = snapshots.find(session, archive.old)
        assert [row.count for row in found] == [30, 20, 10]
        assert snapshots.newest(session, archive.old) == found[0]


def test_a_folder_has_one_row_and_rows_go_with_their_folders(archive: Archive) -> None:
    with archive.store.session() as session:
        snapshots.record(session, new(archive.old, 1))
        snapshots.record(session, new(archive.old, 1, count=7))
        snapshots.record(session, new(archive.old, 2))
        snapshots.record(session, new(archive.new, 1))
        assert [row.count for row in snapshots.find(session, archive.old)] == [20, 7]
        assert snapshots.keep_only(session, archive.old, ["old-12/00000002"]) == 1
        assert [row.folder for row in snapshots.find(session, archive.old)] == ["old-12/00000002"]
        assert snapshots.keep_only(session, archive.old, []) == 1
        assert len(snapshots.find(session, archive.new)) == 1


def test_a_report_says_what_came_and_went_since_the_newest_snapshot(archive: Archive) -> None:
    first, second = archive.record(), archive.record()
    archive.embed(first, OLD)
    archive.embed(second, OLD)
    archive.embed(first, NEW)
    archive.switch(archive.old)
    with archive.store.session() as session:
        mark = embeddings.newest(session, archive.old)
        row = new(archive.old, 1, embedding_id=mark.embedding_id, tombstone_id=mark.tombstone_id)
        snapshots.record(session, row)
    archive.embed(archive.record(), OLD)
    with archive.store.session() as session:
        recordings.remove(session, first)
    with archive.store.reading() as session:
        old, other = models.find_all(session)
        found = snapshots.report(session, old, now=row.sealed_at + timedelta(seconds=90))
        assert (found.vectors, found.behind, found.sealed) == (6, 3 + 3, 10)
        assert (found.serving, found.age_s, found.snapshot) == (True, 90.0, row.folder)
        bare = snapshots.report(session, other)
        assert (bare.vectors, bare.behind, bare.serving, bare.snapshot) == (0, 0, False, None)
        assert found.to_document()["sealed_at"] == "2026-11-21T12:01:00+00:00"


# --- watermarks -------------------------------------------------------------------------------


def test_a_cheap_look_tells_whether_something_came_or_went(archive: Archive) -> None:
    store, model_id = archive.store, archive.old
    with store.reading() as session:
        assert embeddings.newest(session, model_id) == Watermark()
    recording_id = archive.record()
    archive.embed(recording_id, OLD)
    with store.reading() as session:
        first = embeddings.newest(session, model_id)
        assert embeddings.changes_since(session, model_id, Watermark()) == 3
        assert embeddings.changes_since(session, model_id, first) == 0
        assert embeddings.count(session, model_id, until_id=first.embedding_id - 1) == 2
    with store.session() as session:
        recordings.remove(session, recording_id)
    with store.reading() as session:
        later = embeddings.newest(session, model_id)
        assert later.tombstone_id > first.tombstone_id
        assert embeddings.changes_since(session, model_id, first) == 3
        # What came and went since is nothing that a reader has to do.
        assert embeddings.changes_since(session, model_id, Watermark()) == 0


def test_old_tombstones_go_but_the_newest_stays(archive: Archive) -> None:
    for _ in range(2):
        recording_id = archive.record()
        archive.embed(recording_id, OLD)
        with archive.store.session() as session:
            recordings.remove(session, recording_id)
    later = datetime.now(UTC) + timedelta(hours=1)
    with archive.store.session() as session:
        made = embeddings.tombstones(session, archive.old)
        assert len(made.embedding_ids) == 6

        def purge(until_id: int, before: datetime) -> int:
            return embeddings.purge_tombstones(session, archive.old, until_id, before)

        assert purge(made.last_id, later - timedelta(hours=2)) == 0
        assert purge(2, later) == 2
        assert purge(made.last_id, later) == 3
        assert embeddings.tombstones(session, archive.old).last_id == made.last_id


# --- leases -----------------------------------------------------------------------------------


def take(store: Store, holder: str, after_s: float = 0.0, **values: object) -> str | None:
    with store.session() as session:
        now = NOON + timedelta(seconds=after_s)
        return leases.take(session, "index:1", holder, LEASE_S, now=now, **values)  # type: ignore[arg-type]  # any option


def renew(store: Store, token: str, after_s: float = 0.0) -> bool:
    with store.session() as session:
        now = NOON + timedelta(seconds=after_s)
        return leases.renew(session, "index:1", token, LEASE_S, now=now)


def test_a_lease_has_one_holder_until_it_ends(store: Store) -> None:
    first = take(store, "a")
    assert first is not None
    assert take(store, "b") is None and take(store, "a") is None
    assert renew(store, first, after_s=50)
    assert take(store, "b", after_s=LEASE_S + 1) is None
    with store.reading() as session:
        assert leases.holder_of(session, "index:1", now=NOON) == "a"
        assert leases.holder_of(session, "index:1", now=NOON + timedelta(hours=1)) is None
    second = take(store, "b", after_s=50 + LEASE_S + 1)
    assert second is not None
    assert not renew(store, first), "the first holder finds out"
    assert renew(store, second)


def test_a_lease_is_taken_over_from_the_dead_and_by_force(store: Store) -> None:
    first = take(store, "a")
    assert first is not None
    assert take(store, "b", over="c") is None
    second = take(store, "b", over="a")
    assert second is not None and not renew(store, first)
    third = take(store, "c", by_force=True)
    assert third is not None and not renew(store, second)


def test_only_its_holder_gives_a_lease_back(store: Store) -> None:
    first = take(store, "a")
    assert first is not None
    with store.session() as session:
        leases.release(session, "index:1", "of another")
    assert take(store, "b") is None
    with store.session() as session:
        leases.release(session, "index:1", first)
    assert take(store, "b") is not None


def test_of_eight_that_ask_at_once_one_gets_the_lease(store: Store) -> None:
    got: list[str | None] = []
    together = threading.Barrier(8)

    def ask(number: int) -> None:
        together.wait()
        got.append(take(store, f"holder {number}"))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 8 and sum(token is not None for token in got) == 1

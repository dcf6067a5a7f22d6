"""Builders: one at a time, killed at any moment, and the rows say what is there."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select, text

from soundpost.errors import InvalidValueError, LeaseLostError, VectorIndexError
from soundpost.store import embeddings, leases, snapshots
from soundpost.store.tables import IndexSnapshot, Lease
from soundpost_indexer import build, builder, snapshot
from soundpost_indexer.builder import BuildPass


@pytest.fixture
def due_at_10(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "DUE_COUNT", 10)


def build_pass(archive: Any, host: str | None = None) -> BuildPass:
    return builder.build_pass(archive.settings, archive.store, archive.model_id, host=host)


def rows_of(archive: Any) -> list[IndexSnapshot]:
    with archive.store.reading() as session:
        return snapshots.find(session, archive.model_id)


def folder_of(archive: Any) -> Path:
    model = build.model_of(archive.store, archive.model_id)
    return build.folder_of(archive.settings, model)


def check(archive: Any) -> None:
    """The index is right, the rows are those of the folder, and nothing is left over."""
    opened = build.open_current(archive.settings, archive.store, archive.model_id)
    assert opened.set_aside == ()
    archive.check(opened.index)
    there = snapshot.published(folder_of(archive))
    assert [row.folder for row in rows_of(archive)] == [f"{p.parent.name}/{p.name}" for p in there]
    names = {path.name for path in folder_of(archive).iterdir()}
    assert names == {path.name for path in there} | {"writer.lock"}
    with archive.store.reading() as session:
        assert leases.holder_of(session, f"index:{archive.model_id}") is None


# --- one pass ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("due_at_10")
def test_a_pass_seals_what_is_due_and_says_so_in_sql(growing: Any) -> None:
    growing.record(9)
    assert build_pass(growing).outcome == "current"
    assert rows_of(growing) == []
    growing.record(1)
    made = build_pass(growing)
    assert made.outcome == "sealed" and made.snapshot is not None
    (row,) = rows_of(growing)
    assert (row.count, row.engine, row.layout) == (10, "faiss", "flat")
    assert row.folder == f"{folder_of(growing).name}/00000001"
    assert row.bytes == sum(path.stat().st_size for path in made.snapshot.path.iterdir())
    assert row.builder == f"{socket.gethostname()}:{os.getpid()}"
    assert build_pass(growing).outcome == "current"
    check(growing)


@pytest.mark.usefixtures("due_at_10")
def test_old_snapshots_go_with_their_rows(growing: Any) -> None:
    for _ in range(4):
        growing.record(10)
        assert build_pass(growing).outcome == "sealed"
    assert [row.count for row in rows_of(growing)] == [40, 30]
    check(growing)


def test_an_unknown_model_is_refused(growing: Any) -> None:
    with pytest.raises(InvalidValueError, match="99"):
        builder.build_pass(growing.settings, growing.store, 99)


@pytest.mark.usefixtures("due_at_10")
def test_the_rows_follow_the_folder(growing: Any) -> None:
    """A builder that died between the two, doctor's rebuild, or somebody with a broom."""
    growing.record(10)
    build.seal(growing.settings, growing.store, growing.model_id)
    assert rows_of(growing) == []
    assert build_pass(growing).outcome == "current"
    assert len(rows_of(growing)) == 1
    for path in snapshot.published(folder_of(growing)):
        snapshot.set_aside(path, "corrupt", "test")
    assert build_pass(growing).outcome == "sealed"
    assert [row.folder[-8:] for row in rows_of(growing)] == ["00000002"]


@pytest.mark.usefixtures("due_at_10")
def test_what_a_dead_builder_left_is_cleared_away(growing: Any) -> None:
    growing.record(10)
    build_pass(growing)
    folder = folder_of(growing)
    for name in ("writing", "00000000.old"):
        (folder / name).mkdir()
        (folder / name / "half").write_bytes(b"half")
    with growing.store.session() as session:
        holder = builder._holder(growing.settings, None)
        assert leases.take(session, f"index:{growing.model_id}", holder, 3600.0)
    assert build_pass(growing).outcome == "current"
    check(growing)


@pytest.mark.usefixtures("due_at_10")
def test_tombstones_go_when_no_snapshot_holds_what_they_are_for(
    growing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = growing.record(20)
    second, _ = growing.record(20)
    growing.record(20)
    build_pass(growing)
    growing.forget(first)
    assert build_pass(growing).outcome == "sealed"
    monkeypatch.setattr(builder, "TOMBSTONES_KEPT_S", -3600.0)
    assert build_pass(growing).tombstones == 0, "the older snapshot holds them still"
    growing.forget(second)
    assert build_pass(growing).outcome == "sealed"
    with growing.store.reading() as session:
        left = embeddings.tombstones(session, growing.model_id).embedding_ids
    assert len(left) == 20, "of the first deletion none, of the second all"
    check(growing)


def test_a_rebuild_leaves_one_snapshot_and_its_row(growing: Any) -> None:
    growing.record(30)
    for _ in range(2):
        build.seal(growing.settings, growing.store, growing.model_id)
    opened = builder.rebuild(growing.settings, growing.store, growing.model_id)
    assert opened.snapshot is not None and opened.snapshot.name == "00000003"
    assert len(rows_of(growing)) == 1
    check(growing)


# --- two builders -----------------------------------------------------------------------------


@pytest.mark.usefixtures("due_at_10")
def test_the_second_builder_returns_at_once(growing: Any) -> None:
    growing.record(10)
    with snapshot.writer_lock(folder_of(growing)):
        assert build_pass(growing).outcome == "busy"
    with growing.store.session() as session:
        name = f"index:{growing.model_id}"
        token = leases.take(session, name, "another machine", 3600.0)
    assert token is not None
    assert build_pass(growing).outcome == "busy"
    assert rows_of(growing) == []
    with growing.store.session() as session:
        leases.release(session, name, token)
    assert build_pass(growing).outcome == "sealed"


def steal_while_filling(archive: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another machine takes the lease while this one builds, as after a long pause."""
    chunks = build._every_chunk

    def stolen(*arguments: Any) -> Any:
        yield from chunks(*arguments)
        with archive.store.session() as session:
            name = f"index:{archive.model_id}"
            assert leases.take(session, name, "another machine", 3600.0, by_force=True)

    monkeypatch.setattr(build, "_every_chunk", stolen)


@pytest.mark.usefixtures("due_at_10")
def test_a_builder_that_lost_its_lease_shows_nothing(
    growing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    growing.record(10)
    steal_while_filling(growing, monkeypatch)
    assert build_pass(growing).outcome == "lost"
    assert snapshot.published(folder_of(growing)) == [] and rows_of(growing) == []
    with growing.store.reading() as session:
        name = f"index:{growing.model_id}"
        assert leases.holder_of(session, name) == "another machine", "it is not given back for it"


def test_a_rebuild_that_another_one_overtakes_says_so(
    growing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    growing.record(10)
    steal_while_filling(growing, monkeypatch)
    with pytest.raises(LeaseLostError):
        builder.rebuild(growing.settings, growing.store, growing.model_id)
    assert rows_of(growing) == []


@pytest.mark.usefixtures("due_at_10")
def test_the_lease_is_renewed_while_building_takes_long(
    growing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    growing.record(10)
    monkeypatch.setattr(builder, "LEASE_S", 1.0)
    chunks = build._every_chunk

    def leased_until() -> datetime:
        with growing.store.reading() as session:
            return session.scalars(select(Lease.leased_until)).one()

    def slow(*arguments: Any) -> Any:
        yield from chunks(*arguments)
        first, give_up = leased_until(), time.monotonic() + 60.0
        while leased_until() == first:
            assert time.monotonic() < give_up, "it was not renewed"
            time.sleep(0.05)

    monkeypatch.setattr(build, "_every_chunk", slow)
    assert build_pass(growing).outcome == "sealed"


@pytest.mark.usefixtures("due_at_10")
def test_a_full_disk_leaves_nothing_and_frees_the_lease(
    new_archive: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = new_archive()
    archive.record(10)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("soundpost_indexer.faiss_index.FaissIndex.save", full)
        with pytest.raises(VectorIndexError, match="No space left"):
            build_pass(archive)
    check(archive)
    assert build_pass(archive).outcome == "sealed"


# --- real processes ---------------------------------------------------------------------------

BUILD_FOR_EVER = """
import json, sys
from pathlib import Path
from soundpost.config import Settings
from soundpost.store.session import open_store
from soundpost_indexer import build, builder

build.DUE_COUNT, build.DUE_SHARE = 1, 0.0
store = open_store(sys.argv[1])
settings = Settings(home=Path(sys.argv[2]))
print("ready", flush=True)
while True:
    made = builder.build_pass(settings, store, int(sys.argv[3]))
    number = made.snapshot.path.name if made.snapshot else None
    print(json.dumps([made.outcome, number]), flush=True)
"""


def building(archive: Any) -> subprocess.Popen[str]:
    arguments = [archive.url, str(archive.settings.home), str(archive.model_id)]
    command = [sys.executable, "-c", BUILD_FOR_EVER, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.usefixtures("due_at_10")
def test_builders_killed_at_random_moments_leave_nothing_behind(growing: Any) -> None:
    rng = np.random.default_rng(7)
    growing.record(1500)
    writing = folder_of(growing) / "writing"
    for turn in range(8):
        with building(growing) as process:
            growing.record(20)
            threading.Event().wait(float(rng.uniform(0.0, 0.15)))
            while turn % 2 and not writing.exists() and process.poll() is None:
                growing.record(1)  # Every other time not at any moment, but while it writes.
            process.kill()
        assert process.returncode == -signal.SIGKILL
        growing.record(20)
        # At once: nobody waits for the lease of the dead.
        assert build_pass(growing).outcome in ("sealed", "current")
        check(growing)
    growing.record(500)
    assert build_pass(growing).outcome == "sealed"
    check(growing)


@pytest.mark.usefixtures("due_at_10")
def test_two_builders_that_race_seal_each_snapshot_once(growing: Any) -> None:
    growing.record(300)
    processes = [building(growing) for _ in range(2)]
    printed: list[list[Any]] = []
    readers = [
        threading.Thread(target=lambda p=process: printed.extend(map(json.loads, p.stdout)))
        for process in processes
    ]
    for reader in readers:
        reader.start()
    try:
        for _ in range(25):
            growing.record(5)
            opened = build.open_current(growing.settings, growing.store, growing.model_id)
            growing.check(opened.index)
            assert opened.set_aside == ()
    finally:
        for process in processes:
            assert process.poll() is None, "a builder failed"
            process.terminate()
        for reader in readers:
            reader.join()
        for process in processes:
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
    assert {outcome for outcome, _ in printed} <= {"sealed", "current", "busy"}
    numbers = [number for outcome, number in printed if outcome == "sealed"]
    assert len(numbers) > 2 and len(numbers) == len(set(numbers))
    build_pass(growing)
    check(growing)


@pytest.mark.usefixtures("due_at_10")
def test_a_paused_builder_does_not_undo_what_another_did_meanwhile(
    new_archive: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds the lock of the folder, so the other has to be content with waiting for it."""
    archive = new_archive()
    archive.record(300)
    process = building(archive)
    try:
        process.send_signal(signal.SIGSTOP)
        archive.record(300)
        for _ in range(3):
            assert build_pass(archive).outcome in ("sealed", "current", "busy")
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.communicate()
    build_pass(archive)
    check(archive)


def test_the_rows_are_only_of_the_model(growing: Any) -> None:
    growing.record(10)
    builder.rebuild(growing.settings, growing.store, growing.model_id)
    with growing.store.reading() as session:
        listed = session.scalars(text("SELECT model_id FROM index_snapshots")).all()
    assert listed == [growing.model_id]

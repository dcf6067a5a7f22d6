"""Connections, transactions and what happens when several processes write."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import make_url, select, text
from sqlalchemy.exc import IntegrityError

from soundpost.errors import InvalidValueError, StoreError, UnknownSourceError
from soundpost.store import recordings, sources
from soundpost.store.session import Store, hide_password, open_store, parse_url
from soundpost.store.tables import Recording, Source, Window, utc_now


def run_at_once(scripts: Sequence[str], url: str) -> list[object]:
    """Run scripts in processes of their own, started when all are ready; return what they print."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    processes = [
        subprocess.Popen([sys.executable, "-c", PRELUDE + script, url], text=True, **pipes)
        for script in scripts
    ]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    finished = [process.communicate(timeout=60) for process in processes]
    assert [error for _, error in finished] == [""] * len(scripts)
    return [json.loads(output) for output, _ in finished]


PRELUDE = """
import json, sys
from soundpost.store import recordings, sources
from soundpost.store.session import open_store
store = open_store(sys.argv[1])
sys.stdout.write("ready\\n"); sys.stdout.flush(); sys.stdin.readline()
def add(sha256, path):
    with store.session() as session:
        # Reading before writing is what ends in "database is locked" unless it is prevented.
        recordings.by_path(session, path)
        source = sources.ensure(session, "hall")
        new = recordings.NewRecording(source.id, sha256, path, 1, 1)
        recording, made = recordings.add(session, new)
        return recording.id, made
"""

ADD_FIFTY = """
ids = [add(f"{{i:060x}}{name:>04}", f"/{name}/{{i}}.wav")[0] for i in range(50)]
sys.stdout.write(json.dumps(ids))
"""

ADD_THE_SAME = """
sys.stdout.write(json.dumps([add(f"{{i:064x}}", f"/{name}/{{i}}.wav") for i in range(20)]))
"""


def test_four_processes_that_write_at_once_lose_nothing(store_url: str) -> None:
    scripts = [ADD_FIFTY.format(name=name) for name in "abcd"]
    ids = [made for made in run_at_once(scripts, store_url) if isinstance(made, list)]
    store = open_store(store_url)
    with store.reading() as session:
        assert recordings.count(session) == 200
        assert len(sources.find_all(session)) == 1
        kept = set(session.scalars(select(Recording.id)))
    store.close()
    assert kept == {key for made in ids for key in made}


def test_content_that_two_processes_bring_at_once_is_one_recording(store_url: str) -> None:
    scripts = [ADD_THE_SAME.format(name=name) for name in "abcd"]
    results = run_at_once(scripts, store_url)
    for same in zip(*results, strict=True):
        assert len({key for key, _ in same}) == 1
        assert [made for _, made in same].count(True) == 1
    store = open_store(store_url)
    with store.reading() as session:
        assert recordings.count(session) == 20
    store.close()


def test_an_error_takes_the_whole_transaction_back(store: Store) -> None:
    with pytest.raises(UnknownSourceError), store.session() as session:
        sources.ensure(session, "hall")
        sources.by_name(session, "cellar")
    with store.reading() as session:
        assert sources.find_all(session) == []


def test_a_reading_transaction_cannot_write(store: Store) -> None:
    with pytest.raises(StoreError, match=r"read-?only"), store.reading() as session:
        sources.ensure(session, "hall")
    with store.session() as session:
        sources.ensure(session, "hall")


def test_a_reader_sees_the_state_before_and_does_not_wait(store: Store) -> None:
    with store.session() as writer:
        sources.ensure(writer, "hall")
        with store.reading() as reader:
            assert sources.find_all(reader) == []
    with store.reading() as reader:
        assert len(sources.find_all(reader)) == 1


def test_rows_can_be_used_after_their_transaction(store: Store) -> None:
    with store.session() as session:
        source = sources.ensure(session, "hall")
        new = recordings.NewRecording(source.id, "0" * 64, "/a.wav", 1, 1)
        recording, _ = recordings.add(session, new)
    assert (recording.path, recording.status, recording.source.name) == (
        "/a.wav",
        "queued",
        "hall",
    )


def test_foreign_keys_hold(store: Store) -> None:
    with pytest.raises(IntegrityError), store.session() as session:
        session.add(Window(recording_id=12345, start_s=0.0, end_s=1.0))


def test_a_status_outside_the_list_is_refused(store: Store) -> None:
    with pytest.raises(IntegrityError), store.session() as session:
        source = sources.ensure(session, "hall")
        session.add(Recording(source_id=source.id, path="/a", status="done"))


def test_a_time_without_a_zone_is_refused(store: Store) -> None:
    naive = utc_now().replace(tzinfo=None)
    with pytest.raises(InvalidValueError, match="needs its zone"), store.session() as session:
        session.add(Source(name="hall", created_at=naive))


@pytest.mark.parametrize(
    "moment",
    ["2026-03-29T01:59:59.999999+00:00", "2026-03-29T03:30:00+02:00", "1969-12-31T23:00:00-05:00"],
)
def test_times_come_back_in_utc_to_the_microsecond(store: Store, moment: str) -> None:
    given = datetime.fromisoformat(moment)
    with store.session() as session:
        session.add(Source(name="hall", created_at=given))
    with store.reading() as session:
        found = session.scalars(select(Source.created_at)).one()
    assert found == given
    assert found.utcoffset() is not None and not found.utcoffset()


def test_the_folder_of_a_new_file_is_made(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'new' / 'folder' / 'soundpost.db'}")
    with store.reading() as session:
        assert session.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"
        assert session.execute(text("PRAGMA foreign_keys")).scalar_one() == 1
        assert session.execute(text("PRAGMA busy_timeout")).scalar_one() == 30_000
    store.close()
    assert (tmp_path / "new" / "folder" / "soundpost.db").exists()


def test_a_new_file_waits_for_the_program_that_is_writing_its_first_rows(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE first (id INTEGER)")
    other.execute("BEGIN IMMEDIATE")
    done = threading.Timer(0.3, other.execute, ["COMMIT"])
    done.start()
    store = open_store(f"sqlite:///{path}")
    with store.reading() as session:
        assert session.scalar(text("PRAGMA journal_mode")) == "wal"
    store.close()
    done.join()
    other.close()


def test_a_folder_that_cannot_be_made_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="folder cannot be made"):
        open_store(f"sqlite:///{tmp_path / 'file' / 'soundpost.db'}")


def test_a_file_that_is_no_database_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "soundpost.db").write_text("this was a letter to a friend" * 100)
    with pytest.raises(StoreError, match="not a database"):
        open_store(f"sqlite:///{tmp_path / 'soundpost.db'}")


def test_a_server_out_of_reach_is_named_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        open_store(f"postgresql://ada:secret@/archive?host={tmp_path}")
    assert "ada:***@" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "SOUNDPOST_DATABASE_URL" in caught.value.remedy


def test_a_lock_held_by_another_program_is_a_store_error(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("soundpost.store.session.BUSY_TIMEOUT_S", 0.05)
    store = open_store(sqlite_url)
    other = sqlite3.connect(str(make_url(sqlite_url).database), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"), store.session() as session:
        sources.ensure(session, "hall")
    other.close()
    store.close()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://host/db", "a file"])
def test_urls_that_cannot_work_are_refused(url: str) -> None:
    with pytest.raises(StoreError):
        parse_url(url)


def test_passwords_are_hidden_wherever_they_are() -> None:
    assert parse_url("postgresql://u:p@h/d").drivername == "postgresql+psycopg"
    shown = hide_password(parse_url("postgresql://u:hush@h/d?password=hush&sslmode=require"))
    assert "hush" not in shown
    assert "sslmode=require" in shown

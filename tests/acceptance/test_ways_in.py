"""Recordings that arrive by themselves: a watched folder and a stream, in real processes."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

DEADLINE_S = 120.0
Start = Callable[..., subprocess.Popen[str]]


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until something holds; fail if it never does."""
    until = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.1)


def recorded(home: Path) -> list[tuple[str, str | None]]:
    """Return path and start of every recording that has a job."""
    query = (
        "SELECT r.path, r.started_at FROM recordings r JOIN jobs j"
        " ON j.key = 'embed:' || r.id ORDER BY r.path"
    )
    if not (home / "soundpost.db").exists():
        return []
    with closing(sqlite3.connect(f"file:{home / 'soundpost.db'}?mode=ro", uri=True)) as database:
        tables = database.execute("SELECT count(*) FROM sqlite_master WHERE name = 'jobs'")
        return list(database.execute(query)) if tables.fetchone() != (0,) else []


@pytest.fixture
def started(soundpost: Any) -> Iterator[Start]:
    """Return a function that starts the command; what still runs at the end is killed."""
    running: list[subprocess.Popen[str]] = []

    def start(*args: str | Path) -> subprocess.Popen[str]:
        running.append(soundpost.start(*args))
        return running[-1]

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_watched_folder_is_taken_until_it_is_stopped(
    soundpost: Any, started: Start, write_tones: Callable[..., Path], number: signal.Signals
) -> None:
    folder = soundpost.folder / "card"
    write_tones(folder / "20260315_043000.wav", (440, 1.0))
    options = ("--source", "card", "--settle-s", "0.3", "--time-from-name")
    process = started("watch-folder", folder, *options)
    eventually(lambda: len(recorded(soundpost.home)) == 1)
    write_tones(folder / "day 2" / "20260316_043000.wav", (550, 1.0))
    (folder / "empty.wav").touch()
    eventually(lambda: len(recorded(soundpost.home)) == 2)
    process.send_signal(number)
    out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0
    assert "Traceback" not in err
    assert "1 queued" in out
    assert "Stopping" in err
    assert [path for path, _ in recorded(soundpost.home)] == [
        str(folder / "20260315_043000.wav"),
        str(folder / "day 2" / "20260316_043000.wav"),
    ]
    assert all(started for _, started in recorded(soundpost.home))


def test_a_second_listener_of_a_source_is_told_why_not(
    soundpost: Any, started: Start, write_tones: Callable[..., Path]
) -> None:
    sound = write_tones(soundpost.folder / "sound.wav", (440, 3.0))
    # Nobody answers there: it waits and tries again, and holds its source.
    process = started("listen", "http://127.0.0.1:9/live", "--source", "mic")
    lock = soundpost.home / "spool" / "mic" / ".lock"
    eventually(lock.exists)
    refused = soundpost("listen", sound, "--source", "mic", code=2)
    assert "[spool-busy]" in refused.err
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0
    assert "the stream was lost" in err
    assert out == "0 recordings, 0:00 in all, over 0 connections.\n"
    soundpost("listen", sound, "--source", "mic")
    assert len(recorded(soundpost.home)) == 1

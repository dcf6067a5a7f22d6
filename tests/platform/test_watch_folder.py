"""A watched folder gives every audio file once, when it has stopped growing, whatever happens."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sqlalchemy import select

from soundpost.archive.discover import Discovery
from soundpost.archive.plan import IngestOptions
from soundpost.archive.register import register
from soundpost.archive.summary import Finding, Summary
from soundpost.archive.watch_folder import Admit, FolderWatcher, on_network_share
from soundpost.errors import EmptyFileError, InvalidValueError, QueueFullError, StoreError
from soundpost.jobs import JobQueue, NoSender
from soundpost.store.session import Store, open_store
from soundpost.store.tables import Job, Recording

DEADLINE_S = 60.0
SETTLE_S = 0.3


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until something holds; fail if it never does."""
    until = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.02)


@dataclass
class Shelf:
    """Takes files as the archive would, and keeps what was in them at that moment."""

    taken: list[tuple[Path, bytes]] = field(default_factory=list)
    faults: list[Exception] = field(default_factory=list)
    bad: set[str] = field(default_factory=set)

    def admit(self, paths: list[Path]) -> Summary:
        if self.faults:
            raise self.faults.pop(0)
        summary = Summary(files=len(paths))
        for path in paths:
            if path.name in self.bad:
                raise ZeroDivisionError(path)
            content = path.read_bytes()
            if content:
                self.taken.append((path, content))
                summary.queued += 1
            else:
                fault = EmptyFileError(path)
                summary.failed.append(Finding.from_error(str(path), fault))
        return summary

    @property
    def names(self) -> list[str]:
        return [path.name for path, _ in self.taken]


@contextmanager
def watching(
    folder: Path, admit: Admit, *, polling: bool = False, rescan_s: float = 300.0
) -> Iterator[threading.Thread]:
    """Watch in a thread for the length of the context."""
    watcher = FolderWatcher(
        folder, admit, settle_s=SETTLE_S, force_polling=polling, rescan_s=rescan_s
    )
    stop = threading.Event()
    thread = threading.Thread(target=watcher.run, args=(stop,))
    thread.start()
    try:
        yield thread
    finally:
        stop.set()
        thread.join(DEADLINE_S)
        assert not thread.is_alive()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "in"
    path.mkdir()
    return path


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.mark.parametrize("polling", [False, True])
def test_what_is_there_and_what_comes_is_taken_once(
    folder: Path, shelf: Shelf, polling: bool
) -> None:
    (folder / "before.wav").write_bytes(b"1")
    (folder / "notes.txt").write_bytes(b"no sound")
    with watching(folder, shelf.admit, polling=polling):
        eventually(lambda: shelf.names == ["before.wav"])
        (folder / "after.flac").write_bytes(b"2")
        (folder / "._after.flac").write_bytes(b"a sidecar")
        deep = folder / "2026" / "11"
        deep.mkdir(parents=True)
        (deep / "deep.WAV").write_bytes(b"3")
        eventually(lambda: len(shelf.taken) == 3)
        (folder / "last.wav").write_bytes(b"4")
        eventually(lambda: "last.wav" in shelf.names)
    assert Counter(shelf.names) == Counter(["before.wav", "after.flac", "deep.WAV", "last.wav"])


def test_a_growing_file_is_taken_whole_and_one_that_never_stops_is_not(
    folder: Path, shelf: Shelf
) -> None:
    with watching(folder, shelf.admit), (folder / "endless.wav").open("wb") as endless:
        with (folder / "growing.wav").open("wb") as growing:
            for step in range(40):
                growing.write(bytes([step]) * 1000)
                growing.flush()
                endless.write(b"x" * 1000)
                endless.flush()
                time.sleep(SETTLE_S / 10)
        while shelf.names != ["growing.wav"]:
            endless.write(b"x" * 1000)
            endless.flush()
            time.sleep(SETTLE_S / 10)
    ((_, content),) = shelf.taken
    assert content == b"".join(bytes([step]) * 1000 for step in range(40))


def test_a_file_with_a_temporary_name_is_taken_under_its_own(folder: Path, shelf: Shelf) -> None:
    with watching(folder, shelf.admit):
        part = folder / "x.wav.part"
        part.write_bytes(b"half")
        (folder / "mark.wav").write_bytes(b"mark")
        eventually(lambda: shelf.names == ["mark.wav"])
        part.write_bytes(b"whole")
        part.rename(folder / "x.wav")
        (folder / "mark2.wav").write_bytes(b"mark")
        eventually(lambda: {"x.wav", "mark2.wav"} <= set(shelf.names))
    assert [content for path, content in shelf.taken if path.name == "x.wav"] == [b"whole"]
    assert len(shelf.taken) == 3


def test_a_file_that_vanishes_before_it_settles_is_forgotten(folder: Path, shelf: Shelf) -> None:
    with watching(folder, shelf.admit):
        for number in range(5):
            (folder / f"gone{number}.wav").write_bytes(b"x")
            (folder / f"gone{number}.wav").unlink()
        (folder / "mark.wav").write_bytes(b"mark")
        eventually(lambda: shelf.names == ["mark.wav"])


def test_a_file_that_changes_later_is_taken_again(folder: Path, shelf: Shelf) -> None:
    with watching(folder, shelf.admit):
        (folder / "a.wav").write_bytes(b"first")
        eventually(lambda: len(shelf.taken) == 1)
        (folder / "a.wav").write_bytes(b"second!")
        eventually(lambda: len(shelf.taken) == 2)
    assert [content for _, content in shelf.taken] == [b"first", b"second!"]


def test_folders_that_are_moved_in_bring_their_files(
    folder: Path, shelf: Shelf, tmp_path: Path
) -> None:
    card = tmp_path / "card" / "day"
    card.mkdir(parents=True)
    for name in ("a.wav", "b.wav"):
        (card / name).write_bytes(name.encode())
    with watching(folder, shelf.admit):
        (folder / "mark.wav").write_bytes(b"mark")
        eventually(lambda: shelf.names == ["mark.wav"])
        (tmp_path / "card").rename(folder / "card")
        eventually(lambda: len(shelf.taken) == 3)
        trash = folder / ".Trashes"
        (folder / "card").rename(trash)
        (trash / "c.wav").write_bytes(b"thrown away")
        (folder / "mark2.wav").write_bytes(b"mark")
        eventually(lambda: "mark2.wav" in shelf.names)
    assert Counter(shelf.names) == Counter(["mark.wav", "a.wav", "b.wav", "mark2.wav"])


def test_an_event_that_was_lost_costs_only_a_delay(
    folder: Path, shelf: Shelf, tmp_path: Path
) -> None:
    """What is behind a link to another folder is not announced."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with watching(folder, shelf.admit, rescan_s=0.2):
        (folder / "link").symlink_to(elsewhere)
        (folder / "mark.wav").write_bytes(b"mark")
        eventually(lambda: shelf.names == ["mark.wav"])
        (elsewhere / "quiet.wav").write_bytes(b"nobody hears of it")
        eventually(lambda: "quiet.wav" in shelf.names)
    assert len(shelf.taken) == 2


def test_a_failing_file_is_reported_and_stops_nothing(
    folder: Path, shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    shelf.bad.add("b.wav")
    for name in ("a.wav", "b.wav", "c.wav"):
        (folder / name).write_bytes(name.encode())
    (folder / "empty.wav").touch()
    with watching(folder, shelf.admit), caplog.at_level(logging.WARNING):
        eventually(lambda: set(shelf.names) == {"a.wav", "c.wav"})
        (folder / "d.wav").write_bytes(b"d")
        eventually(lambda: "d.wav" in shelf.names)
    reported = Counter(str(getattr(record, "path", "")) for record in caplog.records)
    assert reported == {str(folder / "b.wav"): 1, str(folder / "empty.wav"): 1}


@pytest.mark.parametrize("fault", [QueueFullError(3), StoreError("postgresql://db")])
def test_what_cannot_be_admitted_now_waits(
    folder: Path, shelf: Shelf, fault: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    shelf.faults = [fault, fault]
    (folder / "a.wav").write_bytes(b"a")
    with watching(folder, shelf.admit), caplog.at_level(logging.WARNING):
        eventually(lambda: shelf.names == ["a.wav"])
    assert [record.message for record in caplog.records] == ["files have to wait"] * 2


def test_a_mistake_in_the_options_ends_it(folder: Path, shelf: Shelf) -> None:
    shelf.faults = [InvalidValueError("--started-at")]
    (folder / "a.wav").write_bytes(b"a")
    watcher = FolderWatcher(folder, shelf.admit, settle_s=0.0, force_polling=False)
    with pytest.raises(InvalidValueError):
        watcher.run(threading.Event())


@pytest.mark.parametrize("polling", [False, True])
def test_a_folder_that_goes_away_is_waited_for(
    folder: Path, shelf: Shelf, polling: bool, caplog: pytest.LogCaptureFixture
) -> None:
    away = folder.with_name("away")
    with watching(folder, shelf.admit, polling=polling), caplog.at_level(logging.WARNING):
        (folder / "a.wav").write_bytes(b"a")
        eventually(lambda: shelf.names == ["a.wav"])
        folder.rename(away)
        eventually(lambda: "the folder is gone, waiting for it" in caplog.messages)
        (away / "b.wav").write_bytes(b"b")
        away.rename(folder)
        eventually(lambda: shelf.names == ["a.wav", "b.wav"])
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / "c.wav").write_bytes(b"c")
        eventually(lambda: "c.wav" in shelf.names)
    assert shelf.names == ["a.wav", "b.wav", "c.wav"]


def test_a_folder_that_is_not_there_yet_is_waited_for(tmp_path: Path, shelf: Shelf) -> None:
    with watching(tmp_path / "later", shelf.admit):
        (tmp_path / "later").mkdir()
        (tmp_path / "later" / "a.wav").write_bytes(b"a")
        eventually(lambda: shelf.names == ["a.wav"])


def test_local_folders_are_not_polled(tmp_path: Path) -> None:
    assert not on_network_share(tmp_path)
    assert not on_network_share(tmp_path / "not there")


# --- with the archive -------------------------------------------------------------------------


def write_noise(path: Path, seed: int) -> Path:
    """Write half a second of noise under a temporary name first."""
    wave = np.random.default_rng(seed).normal(0, 0.1, 4_000)
    soundfile.write(path.with_suffix(".part"), wave, 8_000, format="WAV")
    return path.with_suffix(".part").rename(path)


def into(store: Store, stop: threading.Event | None = None) -> Admit:
    """Admit as the command does."""

    def admit(paths: list[Path]) -> Summary:
        options = IngestOptions(source="mic")
        return register(Discovery(files=paths), options, store, JobQueue(NoSender()), stop=stop)

    return admit


def content(store: Store) -> dict[str, str]:
    """Return path by hash; every recording has exactly one job."""
    with store.reading() as session:
        rows = session.scalars(select(Recording)).all()
        jobs = Counter(job.payload["recording"] for job in session.scalars(select(Job)))
        # One may have come in between the two questions.
        known = {row.id: jobs[row.id] for row in rows}
        assert known == {row.id: 1 for row in rows}
        return {str(row.sha256): row.path for row in rows}


def hashes(paths: list[Path]) -> dict[str, str]:
    return {hashlib.sha256(path.read_bytes()).hexdigest(): str(path) for path in paths}


def test_renamed_later_it_is_the_same_recording(folder: Path, store: Store) -> None:
    with watching(folder, into(store)):
        write_noise(folder / "a.wav", 1)
        eventually(lambda: len(content(store)) == 1)
        renamed = (folder / "a.wav").rename(folder / "b.wav")
        eventually(lambda: content(store) == hashes([renamed]))


WATCH = """
import sys, threading
from pathlib import Path
sys.path[:0] = [{tests!r}]
from test_watch_folder import into
from soundpost.archive.watch_folder import FolderWatcher
from soundpost.store.session import open_store
stop = threading.Event()
print("watching", flush=True)
FolderWatcher(Path({folder!r}), into(open_store({url!r}), stop), settle_s=0.1).run(stop)
"""


@pytest.mark.slow
def test_killed_again_and_again_nothing_is_lost_or_doubled(folder: Path, sqlite_url: str) -> None:
    tests = str(Path(__file__).parent)
    code = WATCH.format(tests=tests, folder=str(folder), url=sqlite_url)
    rng = np.random.default_rng(3)
    written: list[Path] = []
    for _ in range(6):
        watcher = _start(code)
        until = time.monotonic() + float(rng.uniform(0.3, 1.5))
        while time.monotonic() < until:
            written.append(write_noise(folder / f"{len(written):04d}.wav", len(written)))
            time.sleep(0.01)
        watcher.send_signal(signal.SIGKILL)
        watcher.wait()
        # Some come while nobody watches, and some get another name.
        written.append(write_noise(folder / f"{len(written):04d}.wav", len(written)))
        written[-2] = written[-2].rename(written[-2].with_name(f"renamed{len(written)}.wav"))
    store = open_store(sqlite_url)
    watcher = _start(code)
    try:
        eventually(lambda: content(store) == hashes(written))
    finally:
        watcher.kill()
        watcher.wait()
        store.close()
    assert len(written) == len(hashes(written))


def _start(code: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    watcher = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert watcher.stdout is not None
    assert watcher.stdout.readline() == "watching\n"
    watcher.stdout.close()
    return watcher

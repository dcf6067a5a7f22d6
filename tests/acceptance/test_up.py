"""`soundpost up` as a new user would try it: upload, search, kill, stop."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from soundpost.client import Client
from soundpost.errors import NotAudioError, SoundpostError

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

RATE_HZ = 16_000
PATIENCE_S = 120.0


def until(condition: Callable[[], bool]) -> None:
    last = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < last, "it did not come about"
        time.sleep(0.1)


def tone(path: Path, hz: float) -> Path:
    time_s = np.arange(3 * RATE_HZ) / RATE_HZ
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * hz * time_s), RATE_HZ, subtype="PCM_16")
    return path


@dataclass
class Running:
    """A running installation, its address and what it printed."""

    process: subprocess.Popen[str]
    address: str
    lines: list[str] = field(default_factory=list)

    def read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())

    def printed(self, pattern: str) -> int:
        """How many lines hold a pattern."""
        return sum(re.search(pattern, line) is not None for line in list(self.lines))


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_ready(client: Client) -> bool:
    try:
        return client.ready().ready
    except SoundpostError:
        return False


@pytest.fixture
def running(soundpost: Any) -> Iterator[Running]:
    """The whole of an installation, started by one command."""
    soundpost.more.update(SOUNDPOST_RECONCILE_S="1", SOUNDPOST_LEASE_S="5")
    port = free_port()
    process = soundpost.start("up", "--port", str(port))
    running = Running(process, f"http://127.0.0.1:{port}")
    reader = threading.Thread(target=running.read, daemon=True)
    reader.start()
    yield running
    family = children_of(process.pid) if process.poll() is None else []
    process.kill()
    process.wait()
    # Killed without a word, it must leave nobody behind.
    until(lambda: not any(is_running(member) for member in family))
    reader.join(10.0)
    sys.stdout.write("\n".join(running.lines))  # Shown where a test fails.
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


@pytest.fixture
def client(running: Running) -> Iterator[Client]:
    with Client(running.address) as client:
        until(lambda: is_ready(client))
        yield client


def embedded(client: Client, count: int) -> bool:
    rows = list(client.recordings())
    return len(rows) == count and all(row.status == "embedded" for row in rows)


def children_of(process_id: int) -> list[int]:
    listed = Path(f"/proc/{process_id}/task/{process_id}/children").read_text(encoding="ascii")
    return [int(child) for child in listed.split()]


def is_running(process_id: int) -> bool:
    try:
        stat = Path(f"/proc/{process_id}/stat").read_text(encoding="ascii")
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_a_worker_that_is_told_to_stop_again_and_again_stops(soundpost: Any) -> None:
    worker = soundpost.start("worker")
    try:
        assert any("ready" in line for line in worker.stderr)
        last = time.monotonic() + PATIENCE_S
        while worker.poll() is None and time.monotonic() < last:
            worker.send_signal(signal.SIGTERM)
        assert worker.returncode == 0
    finally:
        worker.kill()
        worker.communicate()


def test_an_upload_is_found_by_a_search_and_a_stop_leaves_nothing(
    soundpost: Any, running: Running, client: Client, tmp_path: Path
) -> None:
    answer = client.upload(tone(tmp_path / "a.wav", 440.0), source="pump 3")
    assert not answer.known
    until(lambda: embedded(client, 1))
    until(lambda: bool(client.search_text("440 Hz").hits))
    (hit, *_) = client.search_text("440 Hz").hits
    assert (hit.recording_id, hit.source) == (answer.recording.id, "pump 3")
    assert client.upload(tmp_path / "a.wav", source="pump 3").known
    with pytest.raises(NotAudioError) as caught:
        (tmp_path / "text.wav").write_text("no audio")
        client.upload(tmp_path / "text.wav", source="pump 3")
    assert caught.value.remedy

    status = soundpost("status", "--json").document
    assert status["recordings"]["embedded"] == 1
    assert status["jobs"]["failed"] == 0
    jobs = soundpost("jobs", "--json").document["jobs"]
    assert "done" in {job["state"] for job in jobs if job["kind"] == "embed"}

    family = children_of(running.process.pid)
    assert len(family) == 5
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(60.0) == 0
    for process_id in family:
        assert not Path(f"/proc/{process_id}").exists()


def test_every_program_may_be_killed_and_work_goes_on(
    running: Running, client: Client, tmp_path: Path
) -> None:
    names = ("service", "worker", "watch", "index", "clock")
    until(lambda: len(children_of(running.process.pid)) == len(names))
    for number, victim in enumerate(children_of(running.process.pid)):
        client.upload(tone(tmp_path / f"{number}.wav", 300.0 + 50 * number), source="field")
        os.kill(victim, signal.SIGKILL)
        until(lambda number=number: running.printed("signal 9") == number + 1)  # type: ignore[misc]  # mypy cannot infer it
        until(lambda: is_ready(client))
    until(lambda: embedded(client, len(names)))
    for name in names:
        assert running.printed(rf"{name} │ ended \(signal 9\)") == 1


def test_a_folder_is_queued_by_the_command_line_and_found_by_the_client(
    soundpost: Any, client: Client, tmp_path: Path
) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(30):
        tone(folder / f"{number:02}.wav", 200.0 + 20 * number)
    done = soundpost("ingest", folder, "--queue", "--source", "archive", "--json").document
    assert (done["queued"], done["ingested"]) == (30, 0)
    until(lambda: embedded(client, 30))
    until(lambda: client.index().vectors >= 30 and client.index().behind == 0)
    again = soundpost("ingest", folder, "--queue", "--source", "archive", "--json").document
    assert (again["queued"], again["duplicate"]) == (0, 30)


def test_deleting_is_honoured_at_once(client: Client, tmp_path: Path) -> None:
    first = client.upload(tone(tmp_path / "a.wav", 440.0), source="x").recording.id
    client.upload(tone(tmp_path / "b.wav", 445.0), source="x")
    until(lambda: embedded(client, 2))
    until(lambda: len(client.search_text("440 Hz").hits) == 2)
    client.delete(first)
    assert first not in {hit.recording_id for hit in client.search_text("440 Hz").hits}

"""A pump is watched in a whole installation: normal days, a change, people told once, and the end of it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from aiosmtpd.controller import Controller

from soundpost.client import Client
from soundpost.errors import SoundpostError

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

RATE_HZ = 16_000
LENGTH_S = 16.0
PATIENCE_S = 180.0
MORNING = datetime(2026, 11, 2, 6, tzinfo=UTC)


def until(condition: Callable[[], bool], what: str) -> None:
    last = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < last, f"it did not come about: {what}"
        time.sleep(0.2)


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Inbox:
    """A mail server that keeps what it is given."""

    def __init__(self) -> None:
        self.subjects: list[str] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.subjects.append(str(message_from_bytes(envelope.content)["Subject"]))
        return "250 OK"


@pytest.fixture
def mail() -> Iterator[tuple[Inbox, int]]:
    inbox, port = Inbox(), free_port()
    controller = Controller(inbox, hostname="127.0.0.1", port=port)
    controller.start()
    yield inbox, port
    controller.stop()


@pytest.fixture
def hook() -> Iterator[tuple[list[dict[str, Any]], str]]:
    """A web server that keeps the documents that it is sent."""
    documents: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            documents.append(json.loads(self.rfile.read(length)))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield documents, f"http://127.0.0.1:{server.server_port}/hook"
    server.shutdown()
    thread.join()
    server.server_close()


class Pump:
    """Writes recordings of a pump, one every half hour of its own time, and brings them in."""

    def __init__(self, folder: Path, client: Client) -> None:
        self.folder, self.client, self.made = folder, client, 0

    def runs(self, count: int, whistle: float = 0.0) -> None:
        """Bring in recordings; whistle: amplitude of a tone that should not be there."""
        for _ in range(count):
            rng = np.random.default_rng(self.made)
            time_s = np.arange(int(LENGTH_S * RATE_HZ)) / RATE_HZ
            # Its pitch wanders from second to second as it does from one recording to the next.
            pitch_hz = np.repeat(440.0 + rng.normal(0, 5, int(LENGTH_S)), RATE_HZ)
            wave = 0.1 * np.sin(2 * np.pi * np.cumsum(pitch_hz) / RATE_HZ)
            wave += whistle * np.sin(2 * np.pi * 2500.0 * time_s) + rng.normal(0, 0.003, len(wave))
            path = self.folder / f"{self.made}.wav"
            soundfile.write(path, wave, RATE_HZ, subtype="PCM_16")
            started_at = MORNING + self.made * timedelta(minutes=30)
            self.client.upload(path, source="pump-3", started_at=started_at)
            self.made += 1


@pytest.fixture
def installation(soundpost: Any) -> Iterator[tuple[subprocess.Popen[str], Client]]:
    soundpost.more.update(
        SOUNDPOST_RECONCILE_S="1",
        SOUNDPOST_LEASE_S="5",
        SOUNDPOST_TICK_S="0.5",
        SOUNDPOST_NOTIFY_TICK_S="0.5",
        SOUNDPOST_NOTIFY_GROUP_WAIT_S="3",
        SOUNDPOST_NOTIFY_GROUP_INTERVAL_S="3",
    )
    port = free_port()
    process = soundpost.start("up", "--port", str(port))
    drains = [
        threading.Thread(target=stream.read, daemon=True)
        for stream in (process.stdout, process.stderr)
    ]
    for drain in drains:
        drain.start()
    with Client(f"http://127.0.0.1:{port}") as client:
        until(lambda: is_ready(client), "the service is ready")
        yield process, client
    process.send_signal(signal.SIGINT)
    assert process.wait(60.0) == 0
    for drain in drains:
        drain.join(10.0)
    for stream in (process.stdout, process.stderr):
        stream.close()


def is_ready(client: Client) -> bool:
    try:
        return client.ready().ready
    except SoundpostError:
        return False


def watcher_of(supervisor: int) -> int:
    """The process that watches, found by its queues."""
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text(encoding="ascii")
    for child in map(int, children.split()):
        if re.search(rb"--queues\0watch", Path(f"/proc/{child}/cmdline").read_bytes()):
            return child
    raise AssertionError("nobody watches")


def test_a_pump_is_watched_from_its_baseline_to_the_end_of_an_incident(
    soundpost: Any,
    installation: tuple[subprocess.Popen[str], Client],
    mail: tuple[Inbox, int],
    hook: tuple[list[dict[str, Any]], str],
    tmp_path: Path,
) -> None:
    process, client = installation
    (inbox, smtp_port), (documents, address) = mail, hook
    folder = tmp_path / "pump"
    folder.mkdir()
    pump = Pump(folder, client)

    def done(kind: str) -> bool:
        return all(job.state == "done" for job in client.jobs(kind=kind))

    def watched() -> bool:
        count = sum(1 for _ in client.jobs(kind="watch"))
        return done("embed") and done("watch") and count == pump.made - 20

    def incidents() -> list[dict[str, Any]]:
        return list(soundpost("incidents", "list", "--json").document)

    # What is normal.
    pump.runs(20)
    until(lambda: done("embed"), "the reference is embedded")
    made = soundpost("baseline", "create", "pump-3", "--json").document
    assert (made["state"], made["summary"]["recordings"]) == ("active", 20)
    level = ("--set", "above_dbfs=-20", "--keep", "1h", "--severity", "critical")
    soundpost("rules", "add", "level", "--source", "pump-3", "--name", "too loud", *level)
    mailto = f"mailto://127.0.0.1:{smtp_port}/?from=soundpost@example.org&to=office@example.org"
    soundpost("channels", "add", "office", mailto)
    soundpost("channels", "add", "plant", address)

    # A quiet day.
    pump.runs(24)
    until(watched, "the quiet day is watched")
    assert incidents() == []
    assert not documents
    assert not inbox.subjects

    # It whistles; who watches it is killed in the middle of it.
    pump.runs(2, whistle=0.3)
    os.kill(watcher_of(process.pid), signal.SIGKILL)
    pump.runs(1, whistle=0.3)
    until(watched, "the change is watched")
    (incident,) = incidents()
    assert (incident["state"], incident["severity"]) == ("open", "critical")
    shown = soundpost("incidents", "show", str(incident["id"]), "--json").document
    assert {part["kind"] for part in shown["rules"]} == {"novelty", "level"}
    assert any("2.5 kHz" in str(finding) for finding in shown["findings"])
    until(lambda: bool(documents) and bool(inbox.subjects), "people are told")
    assert [document["kind"] for document in documents] == ["opened"]
    assert len(inbox.subjects) == 1
    assert "pump-3" in inbox.subjects[0]

    # Somebody looks after it, and it sounds as before.
    soundpost("incidents", "acknowledge", str(incident["id"]), "--reason", "on my way")
    pump.runs(8)
    until(lambda: incidents()[0]["state"] == "resolved", "it is over")
    until(lambda: len(documents) == 2 and len(inbox.subjects) == 2, "people are told of the end")
    assert [document["kind"] for document in documents] == ["opened", "resolved"]
    history = soundpost("incidents", "show", str(incident["id"]), "--json").document["history"]
    actions = [entry["action"] for entry in history]
    assert actions[0] == "opened"
    assert "acknowledged" in actions
    assert actions[-1] == "resolved"

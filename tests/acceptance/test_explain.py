"""What was found is put into words, by workers of an installation and at the command line alone."""

from __future__ import annotations

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
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from soundpost.client import Client
from soundpost.errors import SoundpostError

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

RATE_HZ = 16_000
LENGTH_S = 8.0
PATIENCE_S = 180.0
MORNING = datetime(2026, 11, 2, 6, tzinfo=UTC)


def until(condition: Callable[[], bool], what: str) -> None:
    last = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < last, f"it did not come about: {what}"
        time.sleep(0.2)


def write_pump(folder: Path, first: int, count: int, whistle: float = 0.0) -> list[Path]:
    """Write recordings of a pump, one every half hour; whistle: the amplitude of a new tone."""
    folder.mkdir(exist_ok=True)
    made = []
    for number in range(first, first + count):
        rng = np.random.default_rng(number)
        time_s = np.arange(int(LENGTH_S * RATE_HZ)) / RATE_HZ
        pitch_hz = np.repeat(440.0 + rng.normal(0, 5, int(LENGTH_S)), RATE_HZ)
        wave = 0.1 * np.sin(2 * np.pi * np.cumsum(pitch_hz) / RATE_HZ)
        wave += whistle * np.sin(2 * np.pi * 2500.0 * time_s) + rng.normal(0, 0.003, len(wave))
        started_at = MORNING + number * timedelta(minutes=30)
        path = folder / f"{started_at:%Y%m%d_%H%M%S}Z.wav"
        soundfile.write(path, wave, RATE_HZ, subtype="PCM_16")
        made.append(path)
    return made


def learn(soundpost: Any) -> None:
    """Say what is normal: twenty recordings, and a level that is too loud."""
    write_pump(soundpost.folder / "normal", 0, 20)
    bring_in(soundpost, "normal")
    made = soundpost("baseline", "create", "pump-3", "--json").document
    assert made["state"] == "active"
    level = ("--set", "above_dbfs=-16", "--keep", "1h")
    soundpost("rules", "add", "level", "--source", "pump-3", "--name", "too loud", *level)


def bring_in(soundpost: Any, folder: str) -> None:
    soundpost("ingest", folder, "--source", "pump-3", "--time-from-name")


def check_explained(finding: dict[str, Any]) -> None:
    """A finding has three tiers, claims that nothing contradicts, and what was measured."""
    explanation = finding["explanation"]
    assert set(explanation["tiers"]) == {"1", "2", "3"}
    assert explanation["summary"]
    assert explanation["without_audio"] is None
    assert finding["claims"]
    assert all(claim["verdict"] != "contradicted" for claim in finding["claims"])
    assert any(claim["verdict"] == "supported" for claim in finding["claims"])


def test_without_an_installation_watching_explains_what_it_finds(soundpost: Any) -> None:
    learn(soundpost)
    write_pump(soundpost.folder / "worn", 20, 3, whistle=0.4)
    bring_in(soundpost, "worn")
    told = soundpost("watch", "pump-3").out
    assert re.search(r"incident 1 opened", told)
    assert re.search(r"\d findings? explained", told)
    shown = soundpost("incidents", "show", "1", "--json").document
    assert shown["findings"]
    for finding in shown["findings"]:
        check_explained(finding)
    printed = soundpost("incidents", "show", "1").out
    assert "told apart from" in printed
    assert "Measured" in printed
    assert soundpost("watch", "pump-3").out.startswith("0 recordings watched")

    # The same in so many words, and once more, when nothing has to be made.
    normal, worn = (min((soundpost.folder / f).iterdir()) for f in ("normal", "worn"))
    first = soundpost("explain", normal, worn, "--tier", "1", "--json").document
    again = soundpost("explain", normal, worn, "--tier", "1", "--json").document
    assert again == first
    assert "[invalid-value]" in soundpost("explain", normal, worn, "--tier", "4", code=2).err
    assert "[captioner-unavailable]" in soundpost("caption", worn, code=2).err


@pytest.fixture
def installation(soundpost: Any) -> Iterator[tuple[subprocess.Popen[str], Client]]:
    soundpost.more.update(
        SOUNDPOST_RECONCILE_S="1",
        SOUNDPOST_LEASE_S="5",
        SOUNDPOST_TICK_S="0.5",
        # The first one loads a model, and the machine may be busy.
        SOUNDPOST_EXPLAIN_TIMEOUT_S="180",
    )
    learn(soundpost)
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = soundpost.start("up", "--port", str(port))
    streams = (process.stdout, process.stderr)
    drains = [threading.Thread(target=stream.read, daemon=True) for stream in streams]
    for drain in drains:
        drain.start()
    with Client(f"http://127.0.0.1:{port}", timeout_s=200.0) as client:
        until(lambda: is_ready(client), "the service is ready")
        yield process, client
    process.send_signal(signal.SIGINT)
    assert process.wait(60.0) == 0
    for drain in drains:
        drain.join(10.0)
    for stream in streams:
        stream.close()


def is_ready(client: Client) -> bool:
    try:
        return client.ready().ready
    except SoundpostError:
        return False


def explaining_worker(supervisor: int) -> int | None:
    """The process that embeds and explains, found by its queues."""
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text(encoding="ascii")
    for child in map(int, children.split()):
        if re.search(rb"--queues\0embed,explain", Path(f"/proc/{child}/cmdline").read_bytes()):
            return child
    return None


def test_workers_explain_what_is_found_whoever_is_killed(
    soundpost: Any, installation: tuple[subprocess.Popen[str], Client]
) -> None:
    process, client = installation
    worn = write_pump(soundpost.folder / "worn", 20, 3, whistle=0.4)
    for number, path in enumerate(worn, start=20):
        started_at = MORNING + number * timedelta(minutes=30)
        client.upload(path, source="pump-3", started_at=started_at)
    until(lambda: any(client.jobs(kind="explain")), "something is to be explained")
    worker = explaining_worker(process.pid)
    if worker is not None:
        os.kill(worker, signal.SIGKILL)
    until(
        lambda: all(job.state == "done" for job in client.jobs(kind="explain")),
        "everything is explained",
    )
    incident = next(client.incidents())
    detail = client.incident(incident.id)
    assert detail.findings
    for finding in detail.findings:
        check_explained(finding.model_dump())
        assert client.finding(finding.id) == finding
    normal, *_ = client.recordings(source="pump-3")
    *_, last = client.recordings(source="pump-3")
    made = client.explain(normal.id, last.id, tiers=[1])
    assert made.tiers[0].claims

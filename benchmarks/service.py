"""What a service costs: searches over HTTP, alone, by fifty at once and while it takes in audio."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from soundpost.client import Client
from soundpost.errors import SoundpostError

QUERIES = ("a dog barks", "rain on a roof", "glass breaking", "an engine idles", "church bells")
PATIENCE_S = 240.0


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one search, as its client sees it."""

    what: str
    p50_ms: float
    p95_ms: float
    p99_ms: float
    a_second: float


@dataclass(frozen=True)
class ServiceResult:
    """What was measured, in one run.

    searchable_s: from the commit of a recording's windows to the first search that finds it, one
    value a recording.
    """

    latencies: list[Latency]
    searchable_s: list[float]
    vectors: int


def measure(files: list[Path]) -> ServiceResult:
    """Run an installation over the first half of the files, and search while the rest comes in."""
    with tempfile.TemporaryDirectory() as name, _running(Path(name)) as (address, env):
        half = len(files) // 2
        _queue(env, files[:half], Path(name))
        client = Client(address)
        _wait_embedded(client, half)
        latencies = [
            _latency("1 client", address, 1, 200),
            _latency("50 clients", address, 50, 600),
        ]
        _queue(env, files[half:], Path(name))
        latencies.append(_latency("50 clients during ingest", address, 50, 600))
        _wait_embedded(client, len(files))
        return ServiceResult(latencies, _searchable(client, Path(name)), client.index().vectors)


def _latency(what: str, address: str, clients: int, searches: int) -> Latency:
    with ThreadPoolExecutor(clients) as pool:
        sessions = [Client(address) for _ in range(clients)]
        began = time.perf_counter()
        share = searches // clients
        runs = [pool.submit(_search_often, session, share) for session in sessions]
        taken_ms = np.concatenate([run.result() for run in runs])
        spent_s = time.perf_counter() - began
    for session in sessions:
        session.close()
    p50, p95, p99 = np.quantile(taken_ms, [0.5, 0.95, 0.99])
    return Latency(what, float(p50), float(p95), float(p99), len(taken_ms) / spent_s)


def _search_often(client: Client, count: int) -> list[float]:
    taken_ms = []
    for number in range(count):
        began = time.perf_counter()
        client.search_text(QUERIES[number % len(QUERIES)])
        taken_ms.append(1e3 * (time.perf_counter() - began))
    return taken_ms


def _searchable(client: Client, folder: Path, count: int = 20) -> list[float]:
    """Upload recordings one by one, and watch for their rows and for their vectors."""
    import soundfile

    waits_s = []
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"new-{number}.wav"
        soundfile.write(path, 0.1 * rng.standard_normal(5 * 16_000), 16_000)
        before = client.index().vectors
        recording_id = client.upload(path, source="new").recording.id
        last = time.monotonic() + PATIENCE_S
        while client.recording(recording_id).status != "embedded" and time.monotonic() < last:
            time.sleep(0.005)
        committed = time.perf_counter()
        while client.index().vectors <= before and time.monotonic() < last:
            time.sleep(0.005)
        waits_s.append(time.perf_counter() - committed)
    return waits_s


def _queue(env: dict[str, str], files: list[Path], folder: Path) -> None:
    listed = folder / "list.txt"
    listed.write_text("\n".join(map(str, files)), encoding="utf-8")
    command = [sys.executable, "-m", "soundpost_ui", "ingest", f"@{listed}", "--queue"]
    subprocess.run(command, env=env, check=True, capture_output=True)


def _wait_embedded(client: Client, count: int) -> None:
    last = time.monotonic() + PATIENCE_S
    while client.index().vectors < count:
        if time.monotonic() > last:
            raise TimeoutError(f"{count} recordings not within {PATIENCE_S:.0f} s")
        time.sleep(0.2)


@contextmanager
def _running(home: Path) -> Iterator[tuple[str, dict[str, str]]]:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = os.environ | {"SOUNDPOST_HOME": str(home), "SOUNDPOST_RECONCILE_S": "1"}
    command = [sys.executable, "-m", "soundpost_ui", "up", "--port", str(port)]
    with (home / "up.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_ready(address)
        yield address, env
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60.0)


def _wait_ready(address: str) -> None:
    last = time.monotonic() + PATIENCE_S
    with Client(address) as client:
        while time.monotonic() < last:
            try:
                if client.ready().ready:
                    return
            except SoundpostError:
                threading.Event().wait(0.2)
    raise TimeoutError("the service is not ready")


if __name__ == "__main__":
    found = sorted(Path(sys.argv[1]).iterdir())[: int(sys.argv[2])]
    sys.stdout.write(f"{measure(found)}\n")

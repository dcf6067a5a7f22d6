"""What the pipeline costs: messages through each broker, audio through one and two workers."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
QUIET = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "error")
PATIENCE_S = 240.0


@dataclass(frozen=True)
class BrokerResult:
    """What a broker did with the same messages.

    lost: of 20 messages with a worker killed in the middle, those that had not run when nothing had
    come for 8 s, without the table of jobs that sends them again.
    """

    name: str
    tasks_per_s: float
    first_ms: float
    lost: int


@dataclass(frozen=True)
class ScalingResult:
    """Seconds of audio embedded in a second of wall clock, by worker processes and cores."""

    processes: int
    cores: int
    audio_s_per_s: float


def brokers(messages: int = 300) -> Iterator[BrokerResult]:
    """Measure the broker without a server, SQLAlchemy's, and Redis where it is installed."""
    with tempfile.TemporaryDirectory() as name:
        yield _measure("folder (folder://)", Path(name), {}, messages)
    with tempfile.TemporaryDirectory() as name:
        url = {"BENCH_SQLALCHEMY_URL": f"sqla+sqlite:///{name}/messages.db"}
        yield _measure("SQLite (sqla+sqlite://)", Path(name), url, min(messages, 30))
    if shutil.which("redis-server"):
        with tempfile.TemporaryDirectory() as name, _redis(Path(name)) as redis_url:
            yield _measure("Redis", Path(name), {"SOUNDPOST_BROKER_URL": redis_url}, messages)


def scaling(files: Path, limit: int) -> Iterator[ScalingResult]:
    """Embed the same files with one process on one core, one on two, and two on two.

    Each process computes with one thread, but decodes beside it, so that one is not held to a core
    unless it is told to.
    """
    for processes, cores in ((1, 1), (1, 2), (2, 2)):
        with tempfile.TemporaryDirectory() as name:
            yield ScalingResult(
                processes, cores, _embed(files, Path(name), processes, cores, limit)
            )


def _environment(home: Path, more: dict[str, str]) -> dict[str, str]:
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    base = {"SOUNDPOST_HOME": str(home), "PYTHONPATH": path, "OMP_WAIT_POLICY": "PASSIVE"}
    return os.environ | base | more


def _measure(name: str, home: Path, more: dict[str, str], messages: int) -> BrokerResult:
    env = _environment(home, more)
    with _worker(env):
        first_s = _run(env, home, range(1))
        spent_s = _run(env, home, range(1, messages + 1))
    return BrokerResult(name, messages / spent_s, 1e3 * first_s, _lost(env, home))


def _run(env: dict[str, str], home: Path, numbers: range) -> float:
    """Send messages and return the seconds until the last one has run."""
    before = len(_done(home))
    began = time.perf_counter()
    _send(env, home, numbers)
    _until(lambda: len(_done(home)) >= before + len(numbers))
    return time.perf_counter() - began


def _lost(env: dict[str, str], home: Path) -> int:
    """Kill a worker while it works on twenty messages, start another, and count what never ran."""
    numbers = range(10_000, 10_020)
    _send(env, home, numbers)
    with _worker(env):
        _until(lambda: any(number in _done(home) for number in numbers))
    with _worker(env):
        quiet_since, seen = time.monotonic(), -1
        while time.monotonic() - quiet_since < 8.0:
            count = len(_done(home) & set(numbers))
            if count != seen:
                quiet_since, seen = time.monotonic(), count
            time.sleep(0.1)
    return len(set(numbers) - _done(home))


def _send(env: dict[str, str], home: Path, numbers: range) -> None:
    code = (
        f"import empty_task; empty_task.send(range({numbers.start}, {numbers.stop}), {str(home)!r})"
    )
    subprocess.run([sys.executable, "-c", code], env=env, check=True)


def _done(home: Path) -> set[int]:
    try:
        return {int(line) for line in (home / "done").read_text("ascii").split()}
    except FileNotFoundError:
        return set()


@contextmanager
def _worker(env: dict[str, str]) -> Iterator[None]:
    command = [sys.executable, "-m", "celery", "--quiet", "--app", "empty_task", "worker"]
    command += ["--queues", "embed", "--concurrency", "1", *QUIET]
    with _killed_at_the_end(command, env):
        yield


@contextmanager
def _killed_at_the_end(command: list[str], env: dict[str, str]) -> Iterator[None]:
    null = subprocess.DEVNULL
    process = subprocess.Popen(command, env=env, start_new_session=True, stdout=null, stderr=null)
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def _redis(home: Path) -> Iterator[str]:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(home)]
    command = ["redis-server", *options, "--loglevel", "warning"]
    with _killed_at_the_end(command, dict(os.environ)):
        time.sleep(0.5)
        yield f"redis://127.0.0.1:{port}/0"


def _embed(files: Path, home: Path, processes: int, cores: int, limit: int) -> float:
    from soundpost.archive.discover import Discovery, Selection, find_files
    from soundpost.archive.plan import IngestOptions
    from soundpost.archive.register import register
    from soundpost.jobs import JobQueue, NoSender
    from soundpost.store import jobs, recordings
    from soundpost.store.session import open_store
    from soundpost_migrations.upgrade import upgrade

    url = f"sqlite:///{home / 'soundpost.db'}"
    upgrade(url)
    store = open_store(url)
    found = find_files([files], Selection()).files[: limit + 1]
    env = _environment(home, {"SOUNDPOST_THREADS": "1", "SOUNDPOST_RECONCILE_S": "0.5"})
    allowed = ",".join(map(str, sorted(os.sched_getaffinity(0))[:cores]))
    soundpost = ["taskset", "--cpu-list", allowed, sys.executable, "-m", "soundpost_ui"]

    def embedded() -> int:
        with store.reading() as session:
            return jobs.counts(session).get(("embed", "done"), 0)

    with (
        _killed_at_the_end([*soundpost, "worker", "--processes", str(processes)], env),
        _killed_at_the_end([*soundpost, "beat"], env),
    ):
        # One recording first: every process has loaded its model when the clock starts.
        register(Discovery(found[:1]), IngestOptions(), store, JobQueue(NoSender()))
        _until(lambda: embedded() == 1)
        register(Discovery(found[1:]), IngestOptions(), store, JobQueue(NoSender()))
        began = time.perf_counter()
        _until(lambda: embedded() == len(found))
        spent_s = time.perf_counter() - began
    with store.reading() as session:
        rows = recordings.find(session, status="embedded", limit=None)
        audio_s = sum(row.duration_s or 0.0 for row in rows)
    store.close()
    return audio_s / spent_s


def _until(condition: Callable[[], bool]) -> None:
    last = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > last:
            raise TimeoutError(f"not within {PATIENCE_S:.0f} s")
        time.sleep(0.02)


if __name__ == "__main__":
    for result in brokers():
        sys.stdout.write(f"{result}\n")
        sys.stdout.flush()
    if len(sys.argv) > 1:
        for scaled in scaling(Path(sys.argv[1]), 400):
            sys.stdout.write(f"{scaled}\n")
            sys.stdout.flush()

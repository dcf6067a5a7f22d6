"""Whatever is killed, and whenever: every recording is embedded once, and nothing is left over.

Real processes: worker, clock, broker and database are killed with SIGKILL at random moments, by
seed, and started again, while recordings come in.
"""

from __future__ import annotations

import gc
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psycopg
import pytest
import soundfile
from sqlalchemy import func, select

from soundpost.config import Settings
from soundpost.errors import StoreError
from soundpost.store import jobs, models
from soundpost.store.session import Store, open_store
from soundpost.store.tables import Embedding, Recording, Window
from soundpost_indexer.build import open_index
from soundpost_migrations.upgrade import upgrade

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

RECORDINGS = 300
KILLS = 6
RATE_HZ = 8_000
PATIENCE_S = 150.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short recordings, every one another."""
    root = tmp_path_factory.mktemp("recordings")
    rng = np.random.default_rng(0)
    for number in range(RECORDINGS):
        wave = 0.1 * rng.standard_normal(RATE_HZ // 2)
        soundfile.write(root / f"{number:03}.wav", wave, RATE_HZ, subtype="PCM_16")
    return root


@dataclass
class Victim:
    """A program that is killed and started again."""

    name: str
    command: list[str]
    env: dict[str, str]
    log: Path
    user: str | None = None
    process: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> None:
        """Start it, in a group of its own."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                user=self.user,
            )

    def kill(self) -> None:
        """End it at once, with its children, as a power cut would."""
        if self.process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def needed(command: str) -> str:
    """Find a server's program; CI must have it."""
    found = shutil.which(command)
    if found is None:
        message = f"{command} is not installed"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


@dataclass
class Installation:
    """Everything that runs, and where it is kept."""

    home: Path
    url: str
    victims: list[Victim]
    env: dict[str, str]

    def start(self) -> None:
        for victim in self.victims:
            victim.start()

    def end(self) -> None:
        for victim in reversed(self.victims):
            victim.kill()

    def soundpost(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command line to its end."""
        return subprocess.run(
            [sys.executable, "-m", "soundpost_ui", *arguments],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


def environment(home: Path, url: str, broker_url: str) -> dict[str, str]:
    """Settings with short intervals, so that what is lost is found within the test."""
    return os.environ | {
        "SOUNDPOST_HOME": str(home),
        "SOUNDPOST_DATABASE_URL": url,
        "SOUNDPOST_BROKER_URL": broker_url,
        "SOUNDPOST_ENCODER": "placeholder:tone",
        "SOUNDPOST_LEASE_S": "3",
        "SOUNDPOST_RECONCILE_S": "0.5",
        "SOUNDPOST_RESEND_S": "3",
        "SOUNDPOST_EMBED_TOGETHER_S": "8",
        "OMP_NUM_THREADS": "1",
    }


def programs(env: dict[str, str], home: Path) -> list[Victim]:
    soundpost = [sys.executable, "-m", "soundpost_ui"]
    return [
        Victim("worker", [*soundpost, "worker"], env, home / "worker.log"),
        Victim("index", [*soundpost, "worker", "--queues", "index"], env, home / "index.log"),
        Victim("clock", [*soundpost, "beat"], env, home / "clock.log"),
    ]


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Installation]:
    """One machine without servers: SQLite, and messages in a folder."""
    url = f"sqlite:///{tmp_path / 'soundpost.db'}"
    upgrade(url)
    env = environment(tmp_path, url, "")
    installation = Installation(tmp_path, url, programs(env, tmp_path), env)
    installation.start()
    yield installation
    installation.end()


@pytest.fixture
def served() -> Iterator[Installation]:
    """PostgreSQL and Redis of this test's own."""
    postgres, redis = needed("postgres"), needed("redis-server")
    # Not tmp_path: the path of a Unix socket is limited to 107 characters.
    home = Path(tempfile.mkdtemp(prefix="soundpost-chaos-"))
    home.chmod(0o755)
    data, port = home / "pg", free_port()
    user = "postgres" if os.getuid() == 0 else None
    data.mkdir()
    if user:
        shutil.chown(data, user)
    make = [needed("initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "--no-sync"]
    subprocess.run(make, check=True, capture_output=True, user=user, cwd=data)
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(data),
        "shared_buffers": "16MB",
    }
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    log = home / "servers.log"
    log.touch()
    server = Victim("postgres", [postgres, "-D", str(data), *options], dict(os.environ), log, user)
    keep = ["--dir", str(home), "--save", "", "--appendonly", "yes", "--appendfsync", "always"]
    broker = Victim(
        "redis", [redis, "--port", str(port), "--bind", "127.0.0.1", *keep], dict(os.environ), log
    )
    url = f"postgresql://postgres@/postgres?host={data}"
    env = environment(home, url, f"redis://127.0.0.1:{port}/0")
    server.start()
    broker.start()
    _until(lambda: _answers(url))
    upgrade(url)
    workers = programs(env, home)
    installation = Installation(home, url, [server, broker, *workers], env)
    for worker in workers:
        worker.start()
    yield installation
    installation.end()
    shutil.rmtree(home)


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


def _until(condition: object, patience_s: float = PATIENCE_S) -> None:
    last = time.monotonic() + patience_s
    while not condition():  # type: ignore[operator]  # any callable
        assert time.monotonic() < last, "it did not come about"
        time.sleep(0.1)


class Chaos(threading.Thread):
    """Kills one program after the other at random moments, and starts again whatever is dead.

    `calm` is set after the last kill; from then on it only looks after them, as an operating
    system does: PostgreSQL refuses to start while an orphan of the killed one is still there.
    """

    def __init__(self, victims: list[Victim], seed: int) -> None:
        super().__init__(name="chaos", daemon=True)
        self._victims = victims
        self._random = random.Random(seed)
        self.calm = threading.Event()
        self.over = threading.Event()

    def run(self) -> None:
        for _ in range(KILLS):
            self._look_after_all(self._random.uniform(0.1, 1.5))
            victim = self._random.choice(self._victims)
            victim.kill()
            time.sleep(self._random.uniform(0.0, 0.6))
            victim.start()
        self.calm.set()
        while not self.over.is_set():
            self._look_after_all(0.2)

    def _look_after_all(self, duration_s: float) -> None:
        self.over.wait(duration_s)
        for victim in self._victims:
            if victim.process is not None and victim.process.poll() is not None:
                victim.start()


def survives(installation: Installation, folder: Path, seed: int) -> None:
    """Bring the recordings in while programs are killed, and look at what is left."""
    chaos = Chaos(installation.victims, seed)
    chaos.start()
    try:
        _survives(installation, folder, chaos)
    finally:
        chaos.over.set()
        chaos.join()


def _survives(installation: Installation, folder: Path, chaos: Chaos) -> None:

    def brought_in() -> bool:
        done = installation.soundpost("ingest", str(folder), "--queue", "--source", "field")
        return done.returncode == 0

    _until(brought_in)
    _until(chaos.calm.is_set)
    store = _opened(installation.url)
    _until(lambda: _all_is_done(store))
    _is_whole(store)
    _is_indexed(store, installation.home)
    store.close()
    _until(lambda: _nothing_is_left(installation.home))
    with warnings.catch_warnings():
        # Connections whose server was killed are dropped, and not closed: they are here, not later.
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def _opened(url: str) -> Store:
    store: list[Store] = []

    def opened() -> bool:
        try:
            store.append(open_store(url))
        except StoreError:
            return False
        return True

    _until(opened)
    return store[0]


def _all_is_done(store: Store) -> bool:
    try:
        with store.reading() as session:
            states = {state for _, state in jobs.counts(session)}
            count = session.scalar(select(func.count(Recording.id)))
    except StoreError:
        return False
    return states == {"done"} and count == RECORDINGS


def _is_whole(store: Store) -> None:
    with store.reading() as session:
        embedded = select(func.count(Recording.id)).where(Recording.status == "embedded")
        assert session.scalar(embedded) == RECORDINGS
        windows = session.execute(
            select(Window.recording_id, func.count(Embedding.id))
            .join(Embedding, Embedding.window_id == Window.id)
            .group_by(Window.recording_id)
        ).all()
        assert len(windows) == RECORDINGS
        assert {count for _, count in windows} == {1}


def _is_indexed(store: Store, home: Path) -> None:
    """Every vector is in the index that a service opens, once."""
    with store.reading() as session:
        model = models.serving(session)
        wanted = sorted(session.scalars(select(Embedding.id)))
    assert model is not None
    held = open_index(Settings(home=home), store, model.id).ids().tolist()
    assert sorted(held) == wanted


def _nothing_is_left(home: Path) -> bool:
    """Nothing half written: what a killed program began goes when it starts again."""
    return not any(path.suffix in (".part", ".tmp") for path in home.rglob("*"))


@pytest.mark.parametrize("seed", range(20))
def test_servers_and_workers_may_be_killed(served: Installation, folder: Path, seed: int) -> None:
    survives(served, folder, seed)


@pytest.mark.parametrize("seed", range(20, 25))
def test_workers_without_servers_may_be_killed(
    embedded: Installation, folder: Path, seed: int
) -> None:
    survives(embedded, folder, seed)

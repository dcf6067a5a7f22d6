"""Databases for tests: every test that asks for one runs on SQLite and on PostgreSQL.

postgres_server: a real server for this test run.
empty_url: a fresh database without tables. store_url: one with tables. store: the same, open.
pump_archive: an archive of one source, pump-3, to be watched.
save_tiny_clap: writes a CLAP checkpoint for tests.
untrained_reranker: the folder of a reranker for the stand-in encoder.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import numpy as np
import psycopg
import pytest
from hypothesis import settings

from soundpost.config import load_settings
from soundpost.store import models, recordings, sources, windows
from soundpost.store.recordings import NewRecording
from soundpost.store.session import Store, open_store
from soundpost.store.windows import WindowRow
from soundpost_migrations.upgrade import upgrade

# How long an example takes depends on what else the machine does, and says nothing of the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def _settings_of_this_test() -> Iterator[None]:
    """Settings are read once a process: a test must not be given those that another one read."""
    load_settings.cache_clear()
    yield
    load_settings.cache_clear()


# Durability is not what these tests are about; without it they take a third of the time.
SERVER_SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "max_connections": "40",
}


@dataclass
class PostgresServer:
    """A server on a Unix socket in a folder of its own; databases are copied from templates."""

    folder: Path
    names: Iterator[int] = field(default_factory=count)

    def url(self, database: str) -> str:
        """The URL of one of its databases."""
        return f"postgresql://postgres@/{database}?host={self.folder}"

    def create(self, template: str = "template1") -> str:
        """Make a database and return its name."""
        name = f"test_{next(self.names)}"
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return name

    def drop(self, database: str) -> None:
        """Remove a database, also with connections left open."""
        self.execute(f'DROP DATABASE "{database}" WITH (FORCE)')

    def execute(self, statement: str) -> None:
        """Run one statement outside a transaction."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())


@pytest.fixture(autouse=True)
def environment_is_left_as_it_was() -> Iterator[None]:
    """Undo what a test does to the environment: commands that later ones start inherit it."""
    before = dict(os.environ)
    yield
    ours = {name for name in os.environ.keys() | before if name.startswith("SOUNDPOST_")}
    for name in ours:
        if name in before:
            os.environ[name] = before[name]
        else:
            os.environ.pop(name, None)


@pytest.fixture(scope="session")
def untrained_reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small reranker for the stand-in encoder, whose weights are random."""
    # Most tests need no torch.
    import torch

    from soundpost.models.diffatr import DiffAtrConfig, DiffAtrModel
    from soundpost.models.placeholder import ToneEncoder
    from soundpost.models.pretrained import quietly

    spec = ToneEncoder().spec
    with torch.random.fork_rng():
        torch.manual_seed(5)
        sizes = {"dimension": spec.dimension, "token_width": spec.token_width, "text_width": 16}
        config = DiffAtrConfig(
            dimensions=sizes,
            encoder_name=spec.name,
            encoder_revision=spec.revision,
            weight=0.5,
        )
        model = DiffAtrModel(config)
    folder = tmp_path_factory.mktemp("reranker")
    with quietly():
        model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Start a PostgreSQL server; skip where there is none, fail where CI must have one."""
    if shutil.which("initdb") is None or shutil.which("postgres") is None:
        reason = "initdb and postgres are not on the path"
        if os.environ.get("CI"):
            pytest.fail(f"{reason}, and CI must test PostgreSQL")
        pytest.skip(reason)
    # Not tmp_path: the path of a Unix socket is limited to 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="soundpost-pg-"))
    server = _start(folder)
    try:
        yield PostgresServer(folder)
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=30)
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres_template(postgres_server: PostgresServer) -> str:
    """A PostgreSQL database with the tables, to be copied."""
    name = postgres_server.create()
    upgrade(postgres_server.url(name))
    return name


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with the tables, to be copied."""
    path = tmp_path_factory.mktemp("template") / "soundpost.db"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A fresh database without tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    database = server.create()
    yield server.url(database)
    server.drop(database)


@pytest.fixture
def sqlite_url(tmp_path: Path, sqlite_template: Path) -> str:
    """A fresh SQLite file with the tables."""
    path = tmp_path / "soundpost.db"
    shutil.copyfile(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def store_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh database with the tables."""
    if request.param == "sqlite":
        yield request.getfixturevalue("sqlite_url")
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    database = server.create(request.getfixturevalue("postgres_template"))
    yield server.url(database)
    server.drop(database)


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    """A fresh store, open."""
    opened = open_store(store_url)
    yield opened
    opened.close()


@pytest.fixture
def sqlite_store(sqlite_url: str) -> Iterator[Store]:
    """A fresh store on SQLite only, for tests that are not about the database."""
    opened = open_store(sqlite_url)
    yield opened
    opened.close()


def _start(folder: Path) -> subprocess.Popen[bytes]:
    data = folder / "data"
    # PostgreSQL refuses to run as root.
    user = "postgres" if os.geteuid() == 0 else None
    if user is not None:
        shutil.chown(folder, user)
    initialise = ["initdb", "--auth=trust", "--username=postgres", "--no-sync", "-E", "UTF8"]
    subprocess.run(
        [*initialise, "--locale=C", "-D", str(data)],
        user=user,
        cwd=folder,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    options = [f"--{name}={value}" for name, value in SERVER_SETTINGS.items()]
    command = ["postgres", "-D", str(data), f"--unix_socket_directories={folder}", *options]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, user=user, cwd=folder, stdout=log, stderr=log)
    _wait_until_ready(server, folder)
    return server


def _wait_until_ready(server: subprocess.Popen[bytes], folder: Path) -> None:
    for _ in range(300):
        if server.poll() is not None:
            break
        try:
            psycopg.connect(PostgresServer(folder).url("postgres")).close()
        except psycopg.OperationalError:
            time.sleep(0.1)
        else:
            return
    server.kill()
    pytest.fail(f"PostgreSQL did not start:\n{(folder / 'server.log').read_text()}")


# --- an archive to be watched -----------------------------------------------------------------


class PumpArchive:
    """A source whose windows lie around a centre in the space of a model."""

    noon = datetime(2026, 11, 1, 12, tzinfo=UTC)
    dimension = 16
    windows = 12

    def __init__(self, store: Store) -> None:
        self.store = store
        self.rng = np.random.default_rng(7)
        self.centre = np.eye(self.dimension)[0]
        self.model_id = self.add_model("1")
        with store.session() as session:
            self.source_id = sources.ensure(session, "pump-3").id

    def add_model(self, revision: str) -> int:
        """Add a model, and let it serve."""
        with self.store.session() as session:
            model = models.EncoderModel(
                name="test",
                revision=revision,
                dimension=self.dimension,
                sample_rate_hz=16_000,
                window_s=5.0,
                hop_s=5.0,
            )
            session.add(model)
            session.flush()
            models.serve(session, model.id)
            return model.id

    def arrive(
        self,
        number: int,
        *,
        started_at: datetime | None = None,
        without_start: bool = False,
        sample_rate_hz: int = 16_000,
    ) -> int:
        """Add a recording that is not embedded yet; it began `number` minutes after noon."""
        began = started_at or self.noon + timedelta(minutes=number)
        with self.store.session() as session:
            new = NewRecording(
                self.source_id,
                f"{number:064x}",
                f"/{number}.wav",
                1,
                1,
                started_at=None if without_start else began,
                duration_s=5.0 * self.windows,
                sample_rate_hz=sample_rate_hz,
                channels=1,
            )
            return recordings.add(session, new)[0].id

    def embed(
        self,
        recording_id: int,
        offset: float = 0.0,
        level_dbfs: float = -30.0,
        *,
        rows: list[WindowRow] | None = None,
    ) -> None:
        """Embed a recording; offset: how far its windows lie off the centre."""
        if rows is None:
            starts = [5.0 * row for row in range(self.windows)]
            rows = [self.window(start_s, offset, level_dbfs) for start_s in starts]
        with self.store.session() as session:
            windows.add_batch(session, recording_id, self.model_id, rows)
            recordings.mark_embedded(session, recording_id, duration_s=rows[-1].end_s)

    def record(
        self,
        number: int,
        offset: float = 0.0,
        level_dbfs: float = -30.0,
        *,
        started_at: datetime | None = None,
        without_start: bool = False,
        rows: list[WindowRow] | None = None,
    ) -> int:
        """Add an embedded recording; see `arrive` and `embed`."""
        made = self.arrive(number, started_at=started_at, without_start=without_start)
        self.embed(made, offset, level_dbfs, rows=rows)
        return made

    def window(
        self,
        start_s: float,
        offset: float = 0.0,
        level_dbfs: float = -30.0,
        *,
        length_s: float = 5.0,
        bands: int = 26,
    ) -> WindowRow:
        """Return a window, as the encoder and the measuring of acoustics would."""
        frames = self.centre + offset * np.eye(self.dimension)[1]
        seconds = max(1, round(length_s))
        frames = frames + self.rng.normal(0, 0.05, (seconds, self.dimension))
        frames /= np.linalg.norm(frames, axis=1, keepdims=True)
        mean = frames.mean(axis=0)
        return WindowRow(
            start_s,
            start_s + length_s,
            self.acoustics(level_dbfs + self.rng.normal(0, 0.5), bands),
            (mean / np.linalg.norm(mean)).astype(np.float32),
            np.rint(frames * 127).astype(np.int8),
            [("machine", 0.8)],
        )

    def acoustics(self, level_dbfs: float, bands: int = 26) -> dict[str, object]:
        """Return the acoustic document of a window."""
        rng = self.rng
        return {
            "level_dbfs": level_dbfs,
            "peak_dbfs": level_dbfs + 12.0,
            "a_level_dbfs": level_dbfs - 2.0,
            "third_octave_dbfs": (level_dbfs - 15.0 + rng.normal(0, 1, bands)).tolist(),
            "centroid_hz": 1000.0 + rng.normal(0, 30),
            "flatness": 0.2 + rng.normal(0, 0.01),
            "modulation": [0.1, 0.1, 0.1, 0.1],
            "modulation_hz": 2.0,
            "modulation_depth": 0.1,
            "onsets_per_s": 0.5,
            "clipped_share": 0.0,
            "silent_share": 0.0,
        }


@pytest.fixture
def pump_archive(store: Store) -> PumpArchive:
    """An archive on each database."""
    return PumpArchive(store)


@pytest.fixture
def lite_pump_archive(sqlite_store: Store) -> PumpArchive:
    """An archive on SQLite, for tests that are not about the database."""
    return PumpArchive(sqlite_store)


# --- a small checkpoint -----------------------------------------------------------------------

_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
_SENTENCES = [
    "a dog barks and an engine idles",
    "rain falls on a roof while people are talking",
    "a violin plays a melody in a crowded room",
]
_TEXT = {
    "vocab_size": 400,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
}
_AUDIO = {
    "patch_embeds_hidden_size": 16,
    "hidden_size": 128,
    "depths": [1, 1, 1, 1],
    "num_attention_heads": [1, 2, 4, 8],
}


def _save_tiny_clap(folder: Path, *, fusion: bool = False) -> Path:
    """Save a CLAP of 0.35 million weights.

    As in a trained one, batch norm fits log-mels and attention outweighs the first token, so
    that unlike sounds and texts are told apart.
    """
    # Most tests do without them, and they take seconds to import.
    import torch
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

    audio = _AUDIO | ({"enable_fusion": True, "fusion_type": "aff_2d"} if fusion else {})
    torch.manual_seed(0)
    model = ClapModel(ClapConfig(text_config=_TEXT, audio_config=audio, projection_dim=48))
    model.audio_model.audio_encoder.batch_norm.running_mean.fill_(-40.0)
    model.audio_model.audio_encoder.batch_norm.running_var.fill_(400.0)
    for layer in model.text_model.encoder.layer:
        layer.attention.self.value.weight.data.mul_(20.0)
        layer.attention.output.dense.weight.data.mul_(20.0)
    model.save_pretrained(folder)
    truncation = "fusion" if fusion else "rand_trunc"
    ClapFeatureExtractor(truncation=truncation).save_pretrained(folder)
    _save_tokenizer(folder)
    return folder


def _save_tokenizer(folder: Path) -> None:
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaTokenizerFast

    pairs = ByteLevelBPETokenizer()
    pairs.train_from_iterator(
        _SENTENCES * 3, vocab_size=_TEXT["vocab_size"], special_tokens=_SPECIAL
    )
    pairs.save_model(str(folder))
    RobertaTokenizerFast(
        vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"), model_max_length=512
    ).save_pretrained(folder)


@pytest.fixture(scope="session")
def save_tiny_clap() -> Callable[..., Path]:
    """save_tiny_clap(folder, fusion=False): write a tiny, randomly initialised CLAP."""
    return _save_tiny_clap

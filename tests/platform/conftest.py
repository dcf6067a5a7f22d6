"""Media files made on the fly, a service on a socket, and sources whose rules fire when told."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
import uvicorn
from av.container import OutputContainer
from fastapi import FastAPI
from numpy.typing import NDArray

from soundpost.archive.discover import Selection, find_files
from soundpost.archive.ingest import ingest
from soundpost.archive.listen import Admit, Heard, Listener, ListenOptions
from soundpost.archive.plan import IngestOptions
from soundpost.archive.rerank import NO_SECOND_STAGE, SecondStage
from soundpost.archive.spool import Spool, started_at
from soundpost.archive.summary import Finding, Summary
from soundpost.audio.live import Clock, LiveTarget, now
from soundpost.client import Client
from soundpost.config import Settings
from soundpost.errors import NotAudioError
from soundpost.jobs import JobQueue
from soundpost.models.encoder import AudioTextEncoder
from soundpost.models.placeholder import ToneEncoder
from soundpost.models.reranker import Candidates, RerankerSpec
from soundpost.monitoring import incidents as watching
from soundpost.monitoring.incidents import Applied, Change, Round
from soundpost.monitoring.observations import Observations
from soundpost.monitoring.rules import Firing
from soundpost.service.app import create_app
from soundpost.store import audit, incidents, recordings, rules, silences, sources
from soundpost.store.files import AudioFiles
from soundpost.store.jobs import ToSend
from soundpost.store.rules import NewRule
from soundpost.store.session import Store
from soundpost.store.silences import NewSilence
from soundpost.store.watch_tables import Incident
from soundpost_indexer.exact import ExactIndex

MediaWriter = Callable[..., Path]


@pytest.fixture(scope="session")
def write_media() -> MediaWriter:
    """write_media(path, samples [N, channels], rate_hz, codec=None, video=None, subtype=None).

    With a codec FFmpeg encodes, otherwise libsndfile.
    """
    return _write_media


def _write_media(
    path: Path,
    samples: NDArray[np.floating],
    rate_hz: int,
    *,
    codec: str | None = None,
    video: str | None = None,
    subtype: str | None = None,
) -> Path:
    if codec is None:
        if path.suffix == ".opus":
            soundfile.write(path, samples, rate_hz, format="OGG", subtype="OPUS")
        else:
            soundfile.write(path, samples, rate_hz, subtype=subtype)
        return path
    # Every stream has to be known before the first packet is written.
    with av.open(path, "w") as container:
        pictures = _add_video_stream(container, video) if video else None
        sound = _add_audio_stream(container, codec, samples.shape[1], rate_hz)
        if pictures:
            _encode_pictures(container, pictures, len(samples) / rate_hz)
        _encode_sound(container, sound, np.asarray(samples, np.float32))
    return path


def _add_video_stream(container: OutputContainer, codec: str) -> av.VideoStream:
    stream = container.add_stream(codec, rate=10)
    stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
    return stream


def _add_audio_stream(
    container: OutputContainer, codec: str, channels: int, rate_hz: int
) -> av.AudioStream:
    layout = {1: "mono", 2: "stereo"}[channels]
    stream = container.add_stream(codec, rate=rate_hz, layout=layout)
    if not codec.startswith("pcm"):
        stream.bit_rate = 128_000
    return stream


def _encode_pictures(container: OutputContainer, stream: av.VideoStream, duration_s: float) -> None:
    for index in range(max(1, int(duration_s * 10))):
        picture = np.full((64, 64, 3), index % 256, np.uint8)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts = index
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def _encode_sound(
    container: OutputContainer, stream: av.AudioStream, samples: NDArray[np.float32]
) -> None:
    rate_hz, layout = stream.rate, stream.layout.name
    packed = np.ascontiguousarray(samples.reshape(1, -1))
    whole = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
    whole.rate, whole.pts, whole.time_base = rate_hz, 0, Fraction(1, rate_hz)
    fifo = av.AudioFifo()
    resampler = av.AudioResampler(format=stream.format.name, layout=layout, rate=rate_hz)
    for frame in resampler.resample(whole) + resampler.resample(None):
        fifo.write(frame)
    size = stream.codec_context.frame_size or 1024
    while frame := fifo.read(size) or fifo.read(0, partial=True):
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


# --- a service --------------------------------------------------------------------------------

RATE_HZ = 16_000


@dataclass
class Kept:
    """A sender that keeps what it is given."""

    messages: list[ToSend] = field(default_factory=list)

    def send(self, message: ToSend) -> None:
        """Keep it."""
        self.messages.append(message)


@dataclass
class RunningService:
    """A service on a socket, and everything behind it."""

    url: str
    client: Client
    settings: Settings
    store: Store
    index: ExactIndex
    objects: AudioFiles
    sender: Kept
    folder: Path

    def fill(self, source: str = "hall", **pieces: NDArray[np.float32]) -> dict[str, int]:
        """Write recordings and embed them; return their ids by name."""
        folder = self.folder / source
        folder.mkdir(exist_ok=True)
        for name, wave in pieces.items():
            soundfile.write(folder / f"{name}.wav", wave, RATE_HZ, subtype="PCM_16")
        found = find_files([folder], Selection())
        options = IngestOptions(source=source)
        assert not ingest(found, options, self.store, ToneEncoder(), self.index).failed
        with self.store.reading() as session:
            rows = recordings.find(session, source=source, limit=None)
        return {Path(row.path).stem: row.id for row in rows}

    def left_behind(self) -> list[Path]:
        """The temporary files that are there now."""
        folder = self.settings.requests_dir
        return sorted(folder.iterdir()) if folder.exists() else []


ServiceStarter = Callable[..., RunningService]


@pytest.fixture
def start_service(tmp_path: Path) -> Iterator[ServiceStarter]:
    """start_service(store, encoder=ToneEncoder(), second_stage=..., **settings): on a free port."""
    with ExitStack() as stack:

        def start(
            store: Store,
            encoder: AudioTextEncoder | None = None,
            second_stage: SecondStage = NO_SECOND_STAGE,
            **changes: object,
        ) -> RunningService:
            settings = Settings(home=tmp_path / "home", **changes)  # type: ignore[arg-type]  # any field
            index, sender = ExactIndex(32), Kept()
            objects = AudioFiles(settings.resolved_objects_url)
            queue = JobQueue.of(settings, sender)
            app = create_app(
                settings,
                store,
                index,
                encoder or ToneEncoder(),
                queue,
                objects,
                second_stage=second_stage,
            )
            url = stack.enter_context(_serving(app))
            client = stack.enter_context(Client(url))
            return RunningService(url, client, settings, store, index, objects, sender, tmp_path)

        yield start


@pytest.fixture
def service(start_service: ServiceStarter, store: Store) -> RunningService:
    """A service on each database, with the encoder of tones."""
    return start_service(store)


@pytest.fixture
def sqlite_service(start_service: ServiceStarter, sqlite_store: Store) -> RunningService:
    """A service on SQLite, for tests that are not about the database."""
    return start_service(sqlite_store)


@contextmanager
def _serving(app: FastAPI) -> Iterator[str]:
    config = uvicorn.Config(app, port=0, log_config=None, ws="none", lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="service")
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.started, "the service did not start"
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(30)
    assert not thread.is_alive(), "the service did not stop"


class OrderReranker:
    """Knows which of two tones comes first: "1000 hz before 200 hz". For vectors of ToneEncoder.

    let: it answers only once this is set.
    """

    def __init__(self, encoder_revision: str = "1", weight: float = 2.0) -> None:
        self.spec = RerankerSpec(
            "order", "7", "placeholder:tone", encoder_revision, ToneEncoder().spec.dimension, 1
        )
        self.weight = weight
        self.let = threading.Event()
        self.let.set()
        self.asked: list[Candidates] = []

    def applies_to(self, text: str) -> bool:
        """Only an order is told by more than similarity."""
        assert self.let.wait(60)
        return " before " in text

    def joint_probability(
        self, text: str, similarities: NDArray[np.float32], candidates: Candidates
    ) -> NDArray[np.float32]:
        """Prefer what holds the tones in the order in which the text names them."""
        assert self.let.wait(60)
        self.asked.append(candidates)
        tones = ToneEncoder().embed_text(text.split(" before "))
        peaks = (candidates.frames @ tones.T).argmax(axis=1)
        in_order = (peaks[:, 0] < peaks[:, -1]).astype(np.float32)
        likely = np.exp(3.0 * in_order)
        probabilities: NDArray[np.float32] = (likely / likely.sum()).astype(np.float32)
        return probabilities


@pytest.fixture
def order_reranker() -> Iterator[OrderReranker]:
    """A reranker that hears which tone comes first; whatever waits for it is let go in the end."""
    reranker = OrderReranker()
    yield reranker
    reranker.let.set()


@pytest.fixture
def make_observations() -> Callable[..., Observations]:
    """Windows around a few points of the sphere, as a source with a few usual sounds gives them."""
    return _observations


def _observations(
    windows: int = 120,
    recordings: int = 6,
    *,
    seed: int = 0,
    shift: float = 0.0,
    level_db: float = 0.0,
    bands: int = 26,
    dimension: int = 32,
    seconds: int = 5,
    start_s: float = 1.7e9,
    spread: float = 0.4,
) -> Observations:
    """spread is that of windows around the usual sounds; shift moves vectors and frames off
    them, level_db the acoustics."""
    rng = np.random.default_rng(seed)
    usual = np.random.default_rng(99).normal(size=(4, dimension))
    vectors = usual[rng.integers(4, size=windows)] + spread * rng.normal(size=(windows, dimension))
    frames = np.repeat(vectors, seconds, axis=0)
    frames = frames + 0.4 * rng.normal(size=frames.shape)
    return Observations(
        window_ids=np.arange(windows) + 1000,
        recording_ids=np.arange(windows) * recordings // windows + 10,
        starts_s=start_s + 5.0 * np.arange(windows),
        durations_s=np.full(windows, 5.0),
        vectors=_unit(vectors + shift),
        frames=_unit(frames + shift),
        frame_windows=np.repeat(np.arange(windows), seconds),
        acoustics=tuple(_document(rng, level_db, bands) for _ in range(windows)),
    )


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float32]:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def _document(rng: np.random.Generator, level_db: float, bands: int) -> dict[str, Any]:
    level = -40.0 + level_db + rng.normal()
    return {
        "level_dbfs": level,
        "a_level_dbfs": level - 3.0 + 0.3 * rng.normal(),
        "third_octave_dbfs": (level - 14.0 + rng.normal(size=bands)).tolist(),
        "centroid_hz": 900.0 * float(np.exp(0.1 * rng.normal())),
        "flatness": 0.1 * float(np.exp(0.1 * rng.normal())),
        "modulation": np.abs(0.1 + 0.02 * rng.normal(size=4)).tolist(),
        "onsets_per_s": float(rng.integers(3)),
    }


# --- incidents --------------------------------------------------------------------------------


class IncidentWorld:
    """One database with a source and rules, and a clock that the test moves."""

    def __init__(self, store: Store, cadence_s: float | None = 60.0) -> None:
        self.store = store
        self.source_id = self.add_source("pump-1", cadence_s)
        self.told: list[tuple[int, str]] = []
        self.names: dict[str, int] = {}

    def add_source(self, name: str, cadence_s: float | None = 60.0, tags: Any = ()) -> int:
        with self.store.session() as session:
            source = sources.ensure(session, name)
            sources.describe(session, name, cadence_s=cadence_s, tags=tags)
            return source.id

    def add_rule(self, name: str, kind: str = "level", **values: Any) -> int:
        with self.store.session() as session:
            new = NewRule(name=name, kind=kind, created_by="test", **values)
            self.names[name] = rules.add(session, new, now=_START).id
            return self.names[name]

    def hear(
        self,
        start_s: float,
        end_s: float,
        *fired: tuple[int, float, float],
        also: tuple[int, ...] | None = None,
        source_id: int | None = None,
        now_s: float | None = None,
        late: bool = False,
    ) -> Applied:
        """Hear a recording; fired: (rule, from, until). also: rules that were looked at too."""
        source = source_id or self.source_id
        firings = [
            Firing(rule_id, source, _at(begin), _at(end), f"rule {rule_id} held")
            for rule_id, begin, end in fired
        ]
        looked = also if also is not None else tuple(self.names.values())
        round_ = Round(
            source,
            firings,
            {rule_id: _at(end_s) for rule_id in {*looked, *(f[0] for f in fired)}},
            _at(start_s),
            late,
        )
        with self.store.session() as session:
            return watching.apply(session, round_, _at(now_s or end_s), self.note)

    def tick(self, seconds: float) -> list[Change]:
        with self.store.session() as session:
            return watching.tick(session, _at(seconds), self.note)

    def note(self, session: Any, incident: Incident, kind: str, now: datetime) -> None:
        if incident.suppressed_by is None:
            self.told.append((incident.id, kind))

    def act(self, action: Callable[..., Any], incident_id: int, seconds: float, *more: Any) -> Any:
        with self.store.session() as session:
            return action(session, incident_id, "ann", *more, now=_at(seconds), on_change=self.note)

    def all(self) -> list[Incident]:
        with self.store.reading() as session:
            return incidents.find(session, newest_first=False, lapsed=True, limit=None)

    def only(self) -> Incident:
        (incident,) = self.all()
        return incident

    def actions(self, incident_id: int) -> list[str]:
        with self.store.reading() as session:
            return [entry.action for entry in audit.history(session, "incident", incident_id)]

    def silence(self, **values: Any) -> int:
        given = {
            "kind": "silence",
            "starts_at": _at(0),
            "ends_at": _at(1000),
            "reason": "works",
            "created_by": "ann",
            **values,
        }
        with self.store.session() as session:
            return silences.add(session, NewSilence(**given), now=_START).id


_START = datetime(2026, 11, 21, 12, tzinfo=UTC)


def _at(seconds: float) -> datetime:
    return _START + timedelta(seconds=seconds)


@pytest.fixture
def make_world(store: Store) -> Callable[[], IncidentWorld]:
    """Return the function that makes a world on each database."""
    return lambda: IncidentWorld(store)


@pytest.fixture
def world(make_world: Callable[[], IncidentWorld]) -> IncidentWorld:
    """A source and rules on each database."""
    return make_world()


@pytest.fixture
def one(sqlite_store: Store) -> IncidentWorld:
    """The same on SQLite, for what is not about the database."""
    return IncidentWorld(sqlite_store)


# --- listening --------------------------------------------------------------------------------

_QUICK = ListenOptions(segment_s=2.0, stall_s=1.0, first_wait_s=0.05, longest_wait_s=0.2)


@dataclass
class Shelf:
    """Keeps the segments that it is given, with the time in their names."""

    kept: list[tuple[datetime, NDArray[np.int16]]] = field(default_factory=list)
    contents: set[bytes] = field(default_factory=set)
    faults: list[Exception] = field(default_factory=list)
    refuse: bool = False
    rate_hz: int = 32_000

    def admit(self, paths: list[Path]) -> Summary:
        if self.faults:
            raise self.faults.pop(0)
        (path,) = paths
        if self.refuse:
            fault = NotAudioError(path)
            return Summary(files=1, failed=[Finding.from_error(str(path), fault)])
        samples, rate_hz = soundfile.read(path, dtype="int16")
        assert rate_hz == self.rate_hz
        self.kept.append((started_at(path.name), samples))
        self.contents.add(path.read_bytes())
        return Summary(files=1, queued=1)

    def stretches(self) -> list[tuple[datetime, NDArray[np.int16]]]:
        """Join the segments that follow each other to the microsecond."""
        joined: list[tuple[datetime, list[NDArray[np.int16]]]] = []
        for moment, samples in self.kept:
            if joined:
                first, parts = joined[-1]
                length_us = round(sum(map(len, parts)) * 1_000_000 / self.rate_hz)
                if first + timedelta(microseconds=length_us) == moment:
                    parts.append(samples)
                    continue
            joined.append((moment, [samples]))
        return [(first, np.concatenate(parts)) for first, parts in joined]


@dataclass
class Listening:
    """A listener in a thread."""

    thread: threading.Thread
    stop: threading.Event
    heard: list[Heard]

    def end(self) -> Heard:
        self.stop.set()
        self.thread.join(60.0)
        (heard,) = self.heard
        return heard


def _listen(
    url: str,
    folder: Path,
    admit: Admit,
    options: ListenOptions = _QUICK,
    clock: Clock = now,
) -> Listening:
    """Listen in a thread."""
    stop, heard = threading.Event(), list[Heard]()
    listener = Listener(
        LiveTarget.parse(url), Spool(folder), admit, random.Random(5), options, clock
    )
    thread = threading.Thread(target=lambda: heard.append(listener.run(stop)))
    thread.start()
    return Listening(thread, stop, heard)


@pytest.fixture
def shelf() -> Shelf:
    """Where the segments of a listener arrive."""
    return Shelf()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The spool of a listener."""
    return tmp_path / "spool" / "mic"


@pytest.fixture
def listen() -> Callable[..., Listening]:
    """Return the function that listens in a thread."""
    return _listen

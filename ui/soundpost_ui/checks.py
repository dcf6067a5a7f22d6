"""What `soundpost doctor` looks at: each check finds out one thing and says what to do about it."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import numpy as np

from soundpost.errors import NoRerankerError, SoundpostError
from soundpost.store import embeddings, models, recordings
from soundpost_indexer import build, builder
from soundpost_ui import terminal
from soundpost_ui.workspace import Workspace

Level = Literal["ok", "warning", "error"]

_LOW_BYTES = 2 * 1024**3
_FULL_BYTES = 200 * 1024**2
_PACKAGES = ("torch", "transformers", "faiss-cpu", "faiss-gpu", "soundfile", "av", "sqlalchemy")
_SHOWN_FILES = 10
_TEXTS = ("a dog barking", "rain on a roof", "an engine idling", "a glass breaking")
_DISTINCT_COSINE = 0.999


@dataclass(frozen=True)
class Check:
    """What was found about one thing."""

    name: str
    level: Level
    message: str
    remedy: str = ""

    def to_document(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return dict(vars(self))


def diagnose(workspace: Workspace, files: bool) -> list[Check]:
    """Run every check; one that cannot run is an error of its own and stops no other."""
    steps: list[tuple[str, Callable[[Workspace], Iterator[Check]]]] = [
        ("versions", _versions),
        ("settings", _settings),
        ("disk", _disk),
        ("database", _database),
        ("model", _model),
        ("reranker", _reranker),
        ("index", _index),
    ]
    if files:
        steps.append(("files", _files))
    return [check for name, step in steps for check in _guarded(name, step, workspace)]


def rebuild(workspace: Workspace) -> list[Check]:
    """Build the index anew from the database."""
    return list(_guarded("index", _rebuild, workspace))


def _guarded(
    name: str, step: Callable[[Workspace], Iterator[Check]], workspace: Workspace
) -> Iterator[Check]:
    try:
        yield from step(workspace)
    except SoundpostError as error:
        yield Check(name, "error", f"[{error.code}] {error}", error.remedy)


def _versions(workspace: Workspace) -> Iterator[Check]:
    found = {name: _version(name) for name in _PACKAGES}
    listed = ", ".join(f"{name} {number}" for name, number in found.items() if number)
    here = f"soundpost {version('soundpost')}, Python {platform.python_version()}"
    yield Check("versions", "ok", f"{here}, {listed}")
    if found["faiss-cpu"] and found["faiss-gpu"]:
        remedy = "Uninstall both, then install soundpost[cpu] or soundpost[gpu]"
        yield Check("versions", "error", "faiss-cpu and faiss-gpu hide each other", remedy)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _settings(workspace: Workspace) -> Iterator[Check]:
    from soundpost.store.session import hide_password, parse_url

    settings = workspace.settings
    database = hide_password(parse_url(settings.resolved_database_url))
    yield Check("settings", "ok", f"home {settings.home}, database {database}")
    yield Check("settings", "ok", f"encoder {settings.encoder}, index {settings.index}")


def _disk(workspace: Workspace) -> Iterator[Check]:
    free = shutil.disk_usage(workspace.settings.home).free
    message = f"{terminal.size(free)} free in {workspace.settings.home}"
    remedy = "Make room, or set SOUNDPOST_HOME to another disk"
    level: Level = "error" if free < _FULL_BYTES else "warning" if free < _LOW_BYTES else "ok"
    yield Check("disk", level, message, remedy)


def _database(workspace: Workspace) -> Iterator[Check]:
    store = workspace.store
    with store.reading() as session:
        total, failed = recordings.count(session), recordings.count(session, status="failed")
        waiting = len(recordings.unfinished(session))
    counted = terminal.plural(total, "recording")
    yield Check("database", "ok", f"{store.address}, revision {store.revision()}, {counted}")
    if waiting:
        remedy = "Give the ingest command again; it goes on where it was"
        yield Check("database", "warning", f"{waiting:,} recordings are unfinished", remedy)
    if failed:
        remedy = "List them with: soundpost recordings --status failed"
        yield Check("database", "warning", f"{failed:,} files could not be read", remedy)


def _model(workspace: Workspace) -> Iterator[Check]:
    encoder = workspace.encoder
    spec = encoder.spec
    name = f"{spec.name} {spec.revision[:12]}: {spec.dimension} dimensions"
    yield Check("model", "ok", f"{name}, {spec.sample_rate_hz:,} Hz, {spec.window_s:g} s windows")
    remedy = "Use another checkpoint, or install Soundpost again"
    for complaint in _complaints(workspace):
        yield Check("model", "error", complaint, remedy)
    with workspace.store.reading() as session:
        known = models.find(session, spec.name, spec.revision)
        other = [model for model in models.find_all(session) if known is None or model != known]
        vectors = embeddings.count(session, known.id) if known else 0
        lost = sum(embeddings.count(session, model.id) for model in other)
    if lost and not vectors:
        remedy = "Ingest the recordings again, or set SOUNDPOST_ENCODER back"
        yield Check("model", "warning", "the archive was embedded by another model", remedy)


def _reranker(workspace: Workspace) -> Iterator[Check]:
    reranker, problem = workspace.second_stage.reranker, workspace.second_stage.problem
    if reranker is not None:
        spec = reranker.spec
        how = f" in {terminal.plural(spec.steps, 'step')}" if spec.steps else ""
        message = f"{spec.name} {spec.revision[:12]} reorders what is found by words{how}"
        yield Check("reranker", "ok", message)
    elif isinstance(problem, NoRerankerError):
        yield Check("reranker", "ok", f"none: {problem}")
    elif problem is not None:
        raise problem


def _complaints(workspace: Workspace) -> Iterator[str]:
    """Yield what is wrong with the vectors that the encoder makes."""
    spec = workspace.encoder.spec
    texts = workspace.encoder.embed_text(_TEXTS)
    wave = np.random.default_rng(0).normal(
        0.0, 0.1, (1, round(spec.window_s * spec.sample_rate_hz))
    )
    first, second = (workspace.encoder.embed_audio(wave.astype(np.float32)) for _ in range(2))
    if texts.shape != (len(_TEXTS), spec.dimension) or first.shape != (1, spec.dimension):
        yield f"vectors of {texts.shape[-1]} and {first.shape[-1]}, declared {spec.dimension}"
        return
    if not np.allclose(np.linalg.norm(np.concatenate([texts, first]), axis=1), 1.0, atol=1e-3):
        yield "its vectors are not of unit length"
    cosines = texts @ texts.T - np.eye(len(_TEXTS))
    if cosines.max() > _DISTINCT_COSINE:
        yield "different texts give the same vector"
    if not np.allclose(first, second, atol=1e-5):
        yield "the same audio gives different vectors"


def _index(workspace: Workspace) -> Iterator[Check]:
    settings, store = workspace.settings, workspace.store
    opened = build.open_current(settings, store, workspace.model_id)
    with store.reading() as session:
        count = embeddings.count(session, workspace.model_id)
    remedy = "Build it anew with: soundpost doctor --rebuild-index"
    for path in opened.set_aside:
        yield Check("index", "warning", f"a snapshot was unusable and is now {path}", remedy)
    if len(opened.index) != count:
        message = f"{len(opened.index):,} vectors, but {count:,} in the database"
        yield Check("index", "error", message, remedy)
        return
    stats = opened.index.stats()
    origin = f"snapshot {opened.snapshot.name}" if opened.snapshot else "no snapshot yet"
    shape = f"{stats.engine} {stats.layout}, {terminal.size(stats.bytes)}"
    yield Check("index", "ok", f"{count:,} vectors, in step with the database ({shape}, {origin})")


def _rebuild(workspace: Workspace) -> Iterator[Check]:
    opened = builder.rebuild(workspace.settings, workspace.store, workspace.model_id)
    yield Check("index", "ok", f"built anew from the database: {len(opened.index):,} vectors")


def _files(workspace: Workspace) -> Iterator[Check]:
    looked_at, wrong = 0, list[SoundpostError]()
    with workspace.store.reading() as session:
        rows = recordings.find(session, status="embedded", limit=None)
    for row in rows:
        looked_at += 1
        try:
            workspace.objects.open_local(row)
        except SoundpostError as error:
            wrong.append(error)
    if not wrong:
        yield Check("files", "ok", f"{terminal.plural(looked_at, 'file')}, all there and unchanged")
        return
    for found in wrong[:_SHOWN_FILES]:
        yield Check("files", "error", f"[{found.code}] {found}", found.remedy)
    if len(wrong) > _SHOWN_FILES:
        hidden = f"{len(wrong) - _SHOWN_FILES:,} more of {looked_at:,}"
        yield Check("files", "error", f"and {hidden} missing or changed")

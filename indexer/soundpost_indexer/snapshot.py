"""Snapshots: sealed folders with a checksum of every byte, published by an atomic rename.

    <folder of one model>/writer.lock         held while one is written, freed by the system at death
                          writing/            being written; what a dead writer left is removed
                          00000007/           manifest.json and the files of the index
                          00000006.corrupt/   set aside by a reader that found it damaged

A reader takes no lock: a published folder never changes, and goes by one rename.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from soundpost.errors import CorruptSnapshotError, VectorIndexError

FORMAT_VERSION = 1
KEPT = 2

_MANIFEST = "manifest.json"
_LOCK = "writer.lock"
_WRITING = "writing"
_NAME = re.compile(r"\d{8}")
_ASIDE = re.compile(r"(\d{8})\.(corrupt|foreign|old)(\.\d+)?")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Manifest:
    """What a snapshot holds: whose vectors, up to where, and the checksum of every file.

    embedding_id and tombstone_id are the watermarks: every embedding up to the first is in it, if
    no deletion up to the second removed it. files: SHA-256 by name. created_at: ISO 8601, UTC.
    """

    model_name: str
    model_revision: str
    dimension: int
    engine: str
    layout: str
    count: int
    embedding_id: int
    tombstone_id: int
    created_at: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def fits(self, model_name: str, model_revision: str, dimension: int, engine: str) -> bool:
        """Whether it holds vectors of exactly this model, in files of this engine."""
        own = (self.model_name, self.model_revision, self.dimension, self.engine)
        return own == (model_name, model_revision, dimension, engine)


@dataclass(frozen=True)
class Snapshot:
    """A published snapshot: where it lies and what it says of itself."""

    path: Path
    manifest: Manifest


@contextmanager
def writer_lock(folder: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the right to write snapshots into a folder; yield whether it was got.

    Without `wait` it is not got while another process or thread has it. The system frees it when
    its holder dies, so what is half written by then belongs to nobody, and is removed here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        if (folder / _WRITING).exists():
            log.info("removed an unfinished index snapshot", extra={"folder": str(folder)})
            shutil.rmtree(folder / _WRITING)
        yield True


def publish(folder: Path, manifest: Manifest, write: Callable[[Path], None]) -> Snapshot:
    """Write a snapshot, make it durable and show it; the caller holds `writer_lock`.

    `write` is handed an empty folder for its files. The newest two snapshots are kept. Raises
    VectorIndexError where the disk is full or refuses; nothing is changed then.
    """
    writing = folder / _WRITING
    try:
        writing.mkdir()
        write(writing)
        sealed = _seal(writing, manifest)
        path = folder / f"{_next_number(folder):08d}"
        writing.rename(path)
        _sync(folder)
    except OSError as error:
        raise VectorIndexError(folder, f"the snapshot cannot be written: {error}") from error
    finally:
        shutil.rmtree(writing, ignore_errors=True)
    prune(folder)
    return Snapshot(path, sealed)


def published(folder: Path) -> list[Path]:
    """Every published snapshot, newest first."""
    names = [name for name in _names(folder) if _NAME.fullmatch(name)]
    return [folder / name for name in sorted(names, reverse=True)]


def read_manifest(path: Path) -> Manifest:
    """Read what a snapshot says of itself, without looking at its other files.

    Raises CorruptSnapshotError where a byte of it is wrong, FileNotFoundError where the snapshot
    is gone, VectorIndexError where it cannot be read or a later Soundpost wrote it.
    """
    raw = _read(path, _MANIFEST)
    try:
        document = json.loads(raw)
        if _render(document["manifest"]) != raw:
            raise CorruptSnapshotError(path / _MANIFEST)
        if document["manifest"]["format_version"] > FORMAT_VERSION:
            raise VectorIndexError(path, "written by a later version of Soundpost")
        return Manifest(**document["manifest"])
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptSnapshotError(path / _MANIFEST, str(error)) from error


def verify(path: Path) -> Manifest:
    """Read every byte of a snapshot and return its manifest. Raises as `read_manifest` does."""
    manifest = read_manifest(path)
    for name, expected in manifest.files.items():
        if _checksum(path, name) != expected:
            raise CorruptSnapshotError(path / name)
    return manifest


def newest_manifest(
    folder: Path, accept: Callable[[Manifest], bool] = lambda manifest: True
) -> Manifest | None:
    """Return the manifest of the newest accepted snapshot; its other files are not looked at."""
    for path in published(folder):
        try:
            manifest = read_manifest(path)
        except (VectorIndexError, FileNotFoundError):
            continue
        if accept(manifest):
            return manifest
    return None


def set_aside(path: Path, kind: Literal["corrupt", "foreign"], reason: str) -> Path | None:
    """Rename a snapshot so that nobody opens it again; return its new path.

    None where another process did it first, or where the folder cannot be written.
    """
    aside = _free_name(path, kind)
    extra = {"snapshot": str(path), "kind": kind, "reason": reason}
    try:
        path.rename(aside)
    except OSError as error:
        log.warning("index snapshot left where it is", extra=extra | {"error": str(error)})
        return None
    log.warning("index snapshot set aside", extra=extra | {"aside": str(aside)})
    return aside


def prune(folder: Path, kept: int = KEPT) -> None:
    """Remove all but the newest snapshots and the newest one set aside; needs `writer_lock`."""
    for path in published(folder)[kept:]:
        # By one rename first, so that no reader finds half of it; one may have set it aside.
        with suppress(FileNotFoundError):
            path.rename(_free_name(path, "old"))
    aside = sorted(name for name in _names(folder) if _ASIDE.fullmatch(name))
    damaged = [name for name in aside if ".old" not in name]
    for name in set(aside) - set(damaged[-1:]):
        shutil.rmtree(folder / name, ignore_errors=True)


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []


def _next_number(folder: Path) -> int:
    names = [name for name in _names(folder) if _NAME.fullmatch(name[:8])]
    return max((int(name[:8]) for name in names), default=0) + 1


def _free_name(path: Path, kind: str) -> Path:
    name, number = path.with_name(f"{path.name}.{kind}"), 1
    while name.exists():
        number += 1
        name = path.with_name(f"{path.name}.{kind}.{number}")
    return name


def _seal(writing: Path, manifest: Manifest) -> Manifest:
    names = sorted(path.name for path in writing.iterdir())
    sealed = replace(
        manifest,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        files={name: _checksum(writing, name) for name in names},
    )
    (writing / _MANIFEST).write_bytes(_render(asdict(sealed)))
    for name in [*names, _MANIFEST]:
        _sync(writing / name)
    _sync(writing)
    return sealed


def _render(manifest: Mapping[str, Any]) -> bytes:
    """Write a manifest in the one way there is, so that any other byte shows."""
    text = json.dumps(manifest, sort_keys=True)
    document = {"sha256": hashlib.sha256(text.encode()).hexdigest(), "manifest": manifest}
    return (json.dumps(document, sort_keys=True, indent=1) + "\n").encode()


def _read(path: Path, name: str) -> bytes:
    with _explained(path, name):
        return (path / name).read_bytes()


def _checksum(path: Path, name: str) -> str:
    with _explained(path, name), (path / name).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _explained(path: Path, name: str) -> Iterator[None]:
    """Tell a snapshot that was removed meanwhile, a damaged one and an unreadable one apart."""
    try:
        yield
    except FileNotFoundError as error:
        if not path.exists():
            raise
        raise CorruptSnapshotError(path / name, "the file is missing") from error
    except OSError as error:
        if error.errno == errno.EIO:
            raise CorruptSnapshotError(path / name, "the disk cannot read it") from error
        raise VectorIndexError(path / name, str(error)) from error


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

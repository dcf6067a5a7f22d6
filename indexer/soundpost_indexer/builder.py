"""What an index job does: seal what is due, clear away what is old, and say what there is.

Two things keep builders apart. The lock of the snapshot folder is freed by the system at death,
and works where machines share the folder through a file system that has locks. The lease in SQL
works wherever they share the database; it ends with time, and is confirmed before a snapshot is
shown, so that a builder that was paused for minutes does not show what it made. Either way a
snapshot is whole: it appears by one rename.
"""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from soundpost.config import Settings
from soundpost.errors import LeaseLostError, StoreError, VectorIndexError
from soundpost.store import embeddings, leases, snapshots
from soundpost.store.session import Store
from soundpost.store.snapshots import NewSnapshot
from soundpost.store.tables import EncoderModel, utc_now
from soundpost_indexer import build
from soundpost_indexer.build import Opened
from soundpost_indexer.snapshot import (
    Manifest,
    Snapshot,
    prune,
    published,
    read_manifest,
    writer_lock,
)

LEASE_S = 60.0
# Every reader has long asked for these deletions; one that slept through compares counts.
TOMBSTONES_KEPT_S = 24 * 3600.0

Outcome = Literal["sealed", "current", "busy", "lost"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuildPass:
    """What one pass did.

    outcome: sealed; current, where nothing was due; busy, where another builder is at it; lost,
    where another one took over meanwhile. tombstones: how many were no longer needed.
    """

    outcome: Outcome
    snapshot: Snapshot | None = None
    tombstones: int = 0
    wall_s: float = 0.0


def build_pass(
    settings: Settings, store: Store, model_id: int, *, host: str | None = None
) -> BuildPass:
    """Seal a model's index if that is due, remove what is old, and publish the rows.

    It returns at once where another builder is at work. A pass that dies leaves nothing that the
    next one does not mend. `host` names this machine. Raises InvalidValueError for an unknown
    model, StoreError, and VectorIndexError where a snapshot cannot be written.
    """
    began = time.perf_counter()
    model = build.model_of(store, model_id)
    holder = _holder(settings, host)
    with writer_lock(build.folder_of(settings, model), wait=False) as mine:
        if not mine:
            return BuildPass("busy")
        # Whoever has the lease under this name would also have the lock, if it were alive.
        with _leased(store, model_id, holder, over=holder) as right:
            if right is None:
                return BuildPass("busy")
            return _pass(settings, store, model, right, began)


def rebuild(settings: Settings, store: Store, model_id: int, *, host: str | None = None) -> Opened:
    """Seal anew from SQL, drop the older snapshots, publish the row, and open the new one.

    Waits for a builder on this machine; one elsewhere gives up what it is building. Raises as
    `build_pass` does, and LeaseLostError where another rebuild began meanwhile.
    """
    model = build.model_of(store, model_id)
    folder, holder = build.folder_of(settings, model), _holder(settings, host)
    with writer_lock(folder), _leased(store, model_id, holder, by_force=True) as right:
        if right is None:
            raise LeaseLostError(model.name)
        build.seal_locked(settings, store, model, right.confirm)
        prune(folder, kept=1)
        _publish(store, model, folder)
    return build.open_current(settings, store, model_id)


class _Right:
    """The lease of a builder, renewed in a thread for as long as it builds."""

    def __init__(self, store: Store, name: str, token: str) -> None:
        self._store, self._name, self._token = store, name, token
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="index-lease", daemon=True)
        self._thread.start()

    def confirm(self) -> None:
        """Raise LeaseLostError if another has it by now."""
        if not self._renew():
            raise LeaseLostError(self._name)

    def release(self) -> None:
        """Give it back, if the database can be reached; otherwise it ends with time."""
        self._over.set()
        self._thread.join()
        try:
            with self._store.session() as session:
                leases.release(session, self._name, self._token)
        except StoreError as error:
            log.warning("lease not given back", extra={"lease": self._name, "reason": str(error)})

    def _keep(self) -> None:
        while not self._over.wait(LEASE_S / 3):
            try:
                if not self._renew():
                    return
            except StoreError as error:
                extra = {"lease": self._name, "reason": str(error)}
                log.warning("lease not renewed", extra=extra)

    def _renew(self) -> bool:
        with self._store.session() as session:
            return leases.renew(session, self._name, self._token, LEASE_S)


@contextmanager
def _leased(
    store: Store, model_id: int, holder: str, *, over: str | None = None, by_force: bool = False
) -> Iterator[_Right | None]:
    name = f"index:{model_id}"
    with store.session() as session:
        token = leases.take(session, name, holder, LEASE_S, over=over, by_force=by_force)
    if token is None:
        yield None
        return
    right = _Right(store, name, token)
    try:
        yield right
    finally:
        right.release()


def _pass(
    settings: Settings, store: Store, model: EncoderModel, right: _Right, began: float
) -> BuildPass:
    folder, sealed = build.folder_of(settings, model), None
    try:
        if build.is_due(settings, store, model):
            sealed = build.seal_locked(settings, store, model, right.confirm)
    except LeaseLostError:
        log.warning("index not sealed: another builder took over", extra={"model": model.name})
        return BuildPass("lost", wall_s=time.perf_counter() - began)
    prune(folder)
    manifests = _publish(store, model, folder)
    purged = _purge_tombstones(store, model, manifests)
    outcome: Outcome = "sealed" if sealed is not None else "current"
    return BuildPass(outcome, sealed, purged, time.perf_counter() - began)


def _publish(store: Store, model: EncoderModel, folder: Path) -> list[Manifest]:
    """Make the rows agree with the folder: a builder may have died between the two."""
    found = list(_manifests(folder))
    rows = [_row(model.id, path, manifest) for path, manifest in found]
    with store.session() as session:
        known = {row.folder: row.sealed_at for row in snapshots.find(session, model.id)}
        snapshots.keep_only(session, model.id, [row.folder for row in rows])
        for row in rows:
            if known.get(row.folder) != row.sealed_at:
                snapshots.record(session, row)
    return [manifest for _, manifest in found]


def _manifests(folder: Path) -> Iterator[tuple[Path, Manifest]]:
    for path in published(folder):
        try:
            yield path, read_manifest(path)
        except (VectorIndexError, FileNotFoundError) as error:
            # Whoever opens it says what is wrong and sets it aside.
            log.warning("snapshot not listed", extra={"path": str(path), "reason": str(error)})


def _row(model_id: int, path: Path, manifest: Manifest) -> NewSnapshot:
    return NewSnapshot(
        model_id=model_id,
        folder=f"{path.parent.name}/{path.name}",
        embedding_id=manifest.embedding_id,
        tombstone_id=manifest.tombstone_id,
        count=manifest.count,
        bytes=sum(file.stat().st_size for file in path.iterdir()),
        engine=manifest.engine,
        layout=manifest.layout,
        sealed_at=datetime.fromisoformat(manifest.created_at),
        builder=f"{socket.gethostname()}:{os.getpid()}",
    )


def _purge_tombstones(store: Store, model: EncoderModel, manifests: list[Manifest]) -> int:
    """Delete tombstones of vectors that are in no snapshot any more."""
    if not manifests:
        return 0
    read_by_all = min(manifest.tombstone_id for manifest in manifests)
    before = utc_now() - timedelta(seconds=TOMBSTONES_KEPT_S)
    with store.session() as session:
        return embeddings.purge_tombstones(session, model.id, read_by_all, before)


def _holder(settings: Settings, host: str | None) -> str:
    """Name this machine and its folder of snapshots, which is what the lock is about."""
    folder = hashlib.sha256(str(settings.index_dir.resolve()).encode()).hexdigest()[:12]
    return f"{host or socket.gethostname()}:{folder}"

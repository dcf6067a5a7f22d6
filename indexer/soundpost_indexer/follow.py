"""An index for processes that run for long: it follows the database by itself.

A thread asks every fifth of a second for the newest embedding and the newest deletion, and applies
what is new to the index that is in use. Where that has grown far beyond its snapshot and a newer
one is there, another thread opens it meanwhile; it is brought to the same state and then takes the
place of the old one by one assignment. Searches hold on to the index they began with.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from soundpost.archive.index import FloatArray, IdArray, Neighbours
from soundpost.config import Settings
from soundpost.errors import SoundpostError, VectorIndexError, describe
from soundpost.store import embeddings
from soundpost.store.embeddings import Watermark
from soundpost.store.session import Store
from soundpost_indexer import build
from soundpost_indexer.build import Opened
from soundpost_indexer.interface import IndexStats
from soundpost_indexer.snapshot import published, read_manifest

POLL_S = 0.2
# While the database is out of reach it is asked less and less often, down to this.
LONGEST_PAUSE_S = 1.0
# A newer snapshot is opened once so many vectors lie beside the present one, or are masked in it.
SWAP_COUNT = 1000
# Counts are compared, and a sample of vectors, to find what the order of ids cannot tell: rows
# that were changed by hand, and a database that was put back to an earlier state.
CHECK_S = 60.0
# After a snapshot could not be opened.
_RETRY_S = 5.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LiveStatus:
    """How an index that follows the database is doing.

    mark: up to where it has read. behind: vectors that came or went beyond it at the last look.
    lag_s: seconds since the moment of which it is known to have had everything. last_error: what
    keeps it from following, None where nothing does. swaps: how often a newer snapshot or a
    reopened index took over; opening: whether one is being opened.
    """

    stats: IndexStats
    snapshot: Path | None
    mark: Watermark
    behind: int
    lag_s: float
    last_error: str | None
    swaps: int
    opening: bool


class LiveIndex:
    """The index of a model, in step with the database; a SearchIndex.

    It is complete once it is made. `start`, or using it as a context manager, makes it follow;
    `close` ends that, and what it holds can still be searched. Where the database is out of reach
    it serves what it has and goes on when it can. Raises as `build.open_current` does.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        model_id: int,
        *,
        poll_s: float = POLL_S,
        check_s: float = CHECK_S,
    ) -> None:
        self._settings, self._store = settings, store
        self._poll_s, self._check_s = poll_s, check_s
        self._model = build.model_of(store, model_id)
        self._stop = threading.Event()
        self._follower: threading.Thread | None = None
        self._opener: threading.Thread | None = None
        self._refused: set[Path] = set()
        self._open_not_before = 0.0
        self._ready: Opened | None = None
        self._behind, self._failures, self._swaps = 0, 0, 0
        self._last_error: str | None = None
        self._complete_at = self._checked_at = time.monotonic()
        self._opened = build.open_current(settings, store, model_id)

    # --- searching ----------------------------------------------------------------------------

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return self._model.dimension

    @property
    def opened(self) -> Opened:
        """What is in use at this moment."""
        return self._opened

    def __len__(self) -> int:
        """How many vectors can be found."""
        return len(self._opened.index)

    def search(self, vectors: FloatArray, k: int, allowed: IdArray | None = None) -> Neighbours:
        """Find the k nearest of each row of [Q, D], among `allowed` ids if given."""
        return self._opened.index.search(vectors, k, allowed)

    def stats(self) -> IndexStats:
        """Describe what is in use."""
        return self._opened.index.stats()

    def status(self) -> LiveStatus:
        """Say how it is doing; never waits for the database."""
        opened = self._opened
        return LiveStatus(
            stats=opened.index.stats(),
            snapshot=opened.snapshot,
            mark=opened.mark,
            behind=self._behind,
            lag_s=time.monotonic() - self._complete_at,
            last_error=self._last_error,
            swaps=self._swaps,
            opening=self._is_opening(),
        )

    # --- following ----------------------------------------------------------------------------

    def start(self) -> Self:
        """Begin to follow the database, in a thread."""
        if self._follower is None:
            self._follower = threading.Thread(target=self._run, name="index-follow", daemon=True)
            self._follower.start()
        return self

    def close(self) -> None:
        """Stop following; returns when its threads have ended."""
        self._stop.set()
        for thread in (self._follower, self._opener):
            if thread is not None:
                thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def follow(self) -> None:
        """Look once and apply what is new. A failure is noted in the status, and never raised."""
        began = time.monotonic()
        try:
            self._look()
        except Exception as error:  # noqa: BLE001  # The next look may succeed; it is noted.
            self._note(error)
        else:
            self._recover(began)

    def _run(self) -> None:
        while not self._stop.wait(self._pause_s()):
            self.follow()

    def _pause_s(self) -> float:
        longest_s = max(self._poll_s, LONGEST_PAUSE_S)
        return min(longest_s, self._poll_s * 2.0 ** min(self._failures, 10))

    def _look(self) -> None:
        self._swap_if_ready()
        mark = self._opened.mark
        with self._store.reading() as session:
            newest = embeddings.newest(session, self._model.id)
            news = (
                newest.embedding_id > mark.embedding_id or newest.tombstone_id > mark.tombstone_id
            )
            self._behind = embeddings.changes_since(session, self._model.id, mark) if news else 0
        if newest.tombstone_id < mark.tombstone_id:
            self._start_over("deletions have disappeared")
        if news:
            self._up_to_date(self._opened, in_use=True)
            self._behind = 0
        self._check_if_due()
        if (path := self._newer_snapshot()) is not None:
            self._begin_opening(lambda: self._open_newer(path))

    def _up_to_date(self, opened: Opened, *, in_use: bool = False) -> Opened:
        """Apply everything after the watermark of an index; raises _Stopped when told to stop."""
        complete = False
        while not complete:
            if self._stop.is_set():
                raise _Stopped
            # A transaction for each chunk: none is open for long.
            with self._store.reading() as session:
                mark, complete = build.advance(session, self._model.id, opened.index, opened.mark)
            opened = replace(opened, mark=mark)
            if in_use:
                self._opened = opened
        return opened

    def _check_if_due(self) -> None:
        if time.monotonic() - self._checked_at < self._check_s:
            return
        index, mark = self._opened.index, self._opened.mark
        with self._store.reading() as session:
            counted = embeddings.count(session, self._model.id, until_id=mark.embedding_id)
            if embeddings.newest(session, self._model.id).tombstone_id != mark.tombstone_id:
                return  # Something was deleted just now; the next look counts again.
            if counted != len(index):
                build.reconcile(session, self._model.id, index)
        if not build.agrees(self._store, self._model.id, self._opened):
            self._start_over("vectors have changed")
        self._checked_at = time.monotonic()

    def _start_over(self, reason: str) -> None:
        """Open everything anew: the database was put back to an earlier state."""
        self._begin_opening(self._open_anew)
        raise VectorIndexError(self._model.name, f"{reason}; it is opened anew")

    def _note(self, error: Exception) -> None:
        if isinstance(error, _Stopped):
            return
        self._last_error = _described(error)
        self._failures += 1
        if self._failures == 1:
            log.warning("index cannot follow", extra=self._extra(reason=self._last_error))

    def _recover(self, began: float) -> None:
        self._complete_at = began
        if self._failures:
            self._failures, self._last_error = 0, None
            log.info("index follows again", extra=self._extra())

    def _extra(self, **more: object) -> dict[str, object]:
        return {"model": self._model.name, "model_id": self._model.id, **more}

    # --- opening another one ------------------------------------------------------------------

    def _swap_if_ready(self) -> None:
        ready = self._ready
        if ready is None:
            return
        # Whatever the one in use has shown, this one shows: it has read as far, and further.
        self._opened = self._up_to_date(ready)
        self._ready = None
        self._swaps += 1
        extra = self._extra(snapshot=str(ready.snapshot), vectors=len(ready.index))
        log.info("index swapped", extra=extra)

    def _is_opening(self) -> bool:
        alive = self._opener is not None and self._opener.is_alive()
        return alive or self._ready is not None

    def _begin_opening(self, open_it: Callable[[], Opened | None]) -> None:
        if self._is_opening() or time.monotonic() < self._open_not_before:
            return
        self._opener = threading.Thread(
            target=self._open, args=(open_it,), name="index-open", daemon=True
        )
        self._opener.start()

    def _open(self, open_it: Callable[[], Opened | None]) -> None:
        try:
            opened = open_it()
            self._ready = self._up_to_date(opened) if opened is not None else None
        except _Stopped:
            return
        except Exception as error:  # noqa: BLE001  # It is tried again; what is in use goes on.
            self._open_not_before = time.monotonic() + _RETRY_S
            log.warning("index snapshot not opened", extra=self._extra(reason=_described(error)))

    def _open_anew(self) -> Opened:
        return build.open_current(self._settings, self._store, self._model.id)

    def _open_newer(self, path: Path) -> Opened | None:
        found = build.open_snapshot(self._settings, self._store, self._model, path)
        if isinstance(found, Opened):
            return found
        self._refused.add(path)
        return None

    def _newer_snapshot(self) -> Path | None:
        """Return a snapshot that is worth opening."""
        stats = self._opened.index.stats()
        if stats.tail + stats.removed < SWAP_COUNT or self._is_opening():
            return None
        for path in published(build.folder_of(self._settings, self._model)):
            mark = self._mark_of(path)
            if mark is not None:
                return path if _is_newer(mark, self._opened.sealed) else None
        return None

    def _mark_of(self, path: Path) -> Watermark | None:
        try:
            manifest = read_manifest(path)
        except (VectorIndexError, FileNotFoundError):
            return None
        if path in self._refused or not build.fits(self._settings, self._model, manifest):
            return None
        return Watermark(manifest.embedding_id, manifest.tombstone_id)


class _Stopped(Exception):
    """The index was told to stop following."""


def _described(error: Exception) -> str:
    if isinstance(error, SoundpostError):
        return describe(error)
    return f"[unexpected] {type(error).__name__}: {error}"


def _is_newer(mark: Watermark, than: Watermark | None) -> bool:
    """Whether one snapshot was sealed later; deletions may have lowered its highest embedding."""
    if than is None:
        return True
    return (mark.tombstone_id, mark.embedding_id) > (than.tombstone_id, than.embedding_id)

"""Writes what was embedded: whole chunks, in order, in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from sqlalchemy.orm import Session

from soundpost.archive.index import GrowingIndex
from soundpost.archive.prepare import PreparedEnd
from soundpost.archive.relay import Stopwatch
from soundpost.archive.summary import Finding, Summary, remedy_for
from soundpost.errors import NoSamplesError, UnknownRecordingError
from soundpost.store import recordings
from soundpost.store.session import Store
from soundpost.store.windows import WindowRow, add_batch

# Takes part in the transaction in which a recording comes to its end.
Settled = Callable[[Session, PreparedEnd], None]


@dataclass(frozen=True, eq=False)
class Encoded:
    """A window with its vector, ready for the store."""

    recording_id: int
    row: WindowRow


@dataclass
class _Part:
    """What a chunk holds of one recording; with an end if it is complete with it."""

    recording_id: int
    rows: list[WindowRow] = field(default_factory=list)
    end: PreparedEnd | None = None


class Writer:
    """Collects windows and ends of recordings and commits them in chunks.

    A recording becomes embedded in the same transaction as its last window; its vectors become
    searchable after the commit. It is the only writer of the summary's `ingested`, `truncated`,
    `remarked`, `windows` and `audio_s`. `settled` is called in the transaction that completes a
    recording. Use it as a context manager: leaving it without an error writes what is left.
    """

    def __init__(
        self,
        store: Store,
        index: GrowingIndex | None,
        model_id: int,
        summary: Summary,
        stopwatch: Stopwatch,
        writing: threading.Lock,
        settled: Settled | None = None,
    ) -> None:
        self._store = store
        self._index = index
        self._model_id = model_id
        self._summary = summary
        self._stopwatch = stopwatch
        self._writing = writing
        self._settled = settled
        self._parts: list[_Part] = []
        self._windows = 0
        self._last_write = time.monotonic()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="write")
        self._running: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._pool:
            if kind is None:
                self._write()
                self._wait()

    def add(self, encoded: Encoded) -> None:
        """Take the next window of a recording."""
        self._part(encoded.recording_id).rows.append(encoded.row)
        self._windows += 1

    def end(self, end: PreparedEnd) -> None:
        """Take the end of a recording."""
        self._part(end.recording_id).end = end

    def write_if_due(self, chunk_windows: int, chunk_s: float) -> None:
        """Hand a chunk to the writing thread if it is full or has waited long enough."""
        waited_s = time.monotonic() - self._last_write
        if self._windows >= chunk_windows or (self._parts and waited_s >= chunk_s):
            self._write()

    def _part(self, recording_id: int) -> _Part:
        if not self._parts or self._parts[-1].recording_id != recording_id:
            self._parts.append(_Part(recording_id))
        return self._parts[-1]

    def _write(self) -> None:
        self._wait()
        parts, self._parts, self._windows = self._parts, [], 0
        self._last_write = time.monotonic()
        if parts:
            self._running = self._pool.submit(self._commit, parts)

    def _wait(self) -> None:
        if self._running is not None:
            self._running.result()
            self._running = None

    def _commit(self, parts: list[_Part]) -> None:
        with self._writing, self._stopwatch.stage("store"), self._store.session() as session:
            kept = [(part, ids) for part in parts if (ids := self._save(session, part)) is not None]
        for part, ids in kept:
            self._count(part)
            if len(ids) and self._index is not None:
                self._index.add(ids, np.stack([row.vector for row in part.rows]))

    def _save(self, session: Session, part: _Part) -> Any:
        """Write one part; return its embedding ids, or None if its recording was deleted."""
        try:
            if part.rows and part.end is None:
                recordings.mark_embedding(session, part.recording_id)
            ids = add_batch(session, part.recording_id, self._model_id, part.rows)
            if part.end is not None:
                self._settle(session, part.end)
        except UnknownRecordingError:
            # Someone deleted it while it was being embedded: that is what they wanted.
            return None
        return ids

    def _settle(self, session: Session, end: PreparedEnd) -> None:
        if end.windows == 0:
            fault = end.fault or NoSamplesError(end.name)
            recordings.mark_failed(session, end.recording_id, fault)
        else:
            recordings.mark_embedded(
                session,
                end.recording_id,
                duration_s=end.duration_s,
                fault=end.fault,
                remarks=[remark.to_document() for remark in end.remarks],
            )
        if self._settled is not None:
            self._settled(session, end)

    def _count(self, part: _Part) -> None:
        self._summary.windows += len(part.rows)
        end, path = part.end, part.end.name if part.end else ""
        if end is None:
            return
        if end.windows == 0:
            fault = end.fault or NoSamplesError(end.name)
            self._summary.failed.append(Finding.from_error(path, fault, end.recording_id))
            return
        self._summary.ingested += 1
        self._summary.audio_s += end.duration_s
        if end.fault is not None:
            self._summary.truncated.append(Finding.from_error(path, end.fault, end.recording_id))
        for remark in end.remarks:
            remedy = remedy_for(remark.code)
            self._summary.remarked.append(
                Finding(path, remark.code, remark.detail, remedy, end.recording_id)
            )

"""Recordings into the archive: known by content, cut into windows, embedded, searchable.

Four kinds of threads share the work, so that the encoder hardly ever waits: examining (header,
hash), preparing (decode, measure, resample), writing, and the caller's own, which only encodes.
Rows are written in the order of the files whatever the threads do, in transactions that are whole
or absent: a run that is cut off anywhere is completed by the same run again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

from sqlalchemy.orm import Session

from soundpost.archive.discover import Discovery
from soundpost.archive.embed import Embedder
from soundpost.archive.index import GrowingIndex
from soundpost.archive.plan import IngestOptions, Plan, Workload
from soundpost.archive.prepare import Job, PreparedEnd
from soundpost.archive.relay import Feed, Stopwatch
from soundpost.archive.summary import Progress, Summary
from soundpost.archive.triage import Triage, source_of
from soundpost.archive.writer import Writer
from soundpost.jobs import JobQueue
from soundpost.models.encoder import AudioTextEncoder
from soundpost.store import models
from soundpost.store.files import AudioFiles
from soundpost.store.session import Store

_JOBS_WAITING = 128

ProgressCallback = Callable[[Progress], None]


def ingest(
    found: Discovery,
    options: IngestOptions,
    store: Store,
    encoder: AudioTextEncoder,
    index: GrowingIndex | None,
    objects: AudioFiles | None = None,
    progress: ProgressCallback | None = None,
    stop: threading.Event | None = None,
    queue: JobQueue | None = None,
) -> Summary:
    """Bring files into the archive and return what became of each.

    What is wrong with a file is in the summary and on its row, and never stops the others. New
    vectors are added to `index`, if one is given, after their transaction. With options.copy the
    audio is kept in `objects` too. `stop` ends the run early, with everything written that was
    embedded; the same call again goes on from there. `queue` is asked to have each recording
    watched if its source is. Raises InvalidValueError for options that contradict each other,
    StoreError where the database fails.
    """
    options.check(len(found.files))
    run = _Run(found, options, store, encoder, index, objects if options.copy else None, queue)
    return run.execute(progress or _ignore, stop or threading.Event())


class _Run:
    """One ingest from its first file to its summary."""

    def __init__(
        self,
        found: Discovery,
        options: IngestOptions,
        store: Store,
        encoder: AudioTextEncoder,
        index: GrowingIndex | None,
        objects: AudioFiles | None,
        queue: JobQueue | None,
    ) -> None:
        self._found = found
        self._options = options
        self._store = store
        self._encoder = encoder
        self._began = time.perf_counter()
        self._stopwatch = Stopwatch()
        self._summary = Summary.of(found)
        self._workload = Workload(found.files)
        plan, model_id = self._make_plan()
        writing = threading.Lock()
        self._triage = Triage(store, objects, plan, self._summary, self._stopwatch, writing)
        settled = partial(_have_watched, queue) if queue is not None else None
        self._writer = Writer(
            store, index, model_id, self._summary, self._stopwatch, writing, settled
        )
        self._embedder = Embedder(encoder, self._writer, options, self._stopwatch)

    def execute(self, progress: ProgressCallback, stop: threading.Event) -> Summary:
        """Run to the end, or until told to stop."""
        jobs: Feed[Job] = Feed(_JOBS_WAITING)
        with self._triaging(jobs) as triaged:
            with self._writer:
                self._embedder.run(jobs, stop, lambda: progress(self._progress()))
                jobs.stop()
            self._summary.interrupted = stop.is_set()
            triaged.result()
        self._finish()
        progress(self._progress())
        return self._summary

    def _make_plan(self) -> tuple[Plan, int]:
        options = self._options
        with self._store.session() as session:
            source = source_of(session, self._found, options, self._summary)
            model = models.ensure(session, self._encoder.spec)
            hop_s = self._encoder.spec.hop_s
            return Plan(source.id, model.id, hop_s, options.timing, self._found.origins), model.id

    @contextmanager
    def _triaging(self, jobs: Feed[Job]) -> Iterator[Future[None]]:
        """Sort the files out in a thread of its own, which ends with this context."""

        def triage() -> None:
            try:
                self._triage.run(self._found.files, jobs.put, self._workload)
            finally:
                jobs.end()

        with ThreadPoolExecutor(1, thread_name_prefix="triage") as pool:
            try:
                yield pool.submit(triage)
            finally:
                jobs.stop()

    def _progress(self) -> Progress:
        done = self._summary.reached
        return Progress(
            files_done=done,
            files_total=self._summary.files,
            audio_done_s=self._embedder.audio_done_s,
            audio_total_s=max(self._embedder.audio_done_s, self._workload.total_s()),
            failed=len(self._summary.failed),
            elapsed_s=time.perf_counter() - self._began,
        )

    def _finish(self) -> None:
        summary = self._summary
        order = {str(path): place for place, path in enumerate(self._found.files)}
        for findings in (summary.failed, summary.truncated, summary.remarked):
            findings.sort(key=lambda finding: (order.get(finding.path, -1), finding.code))
        summary.stages = self._stopwatch.seconds()
        summary.wall_s = time.perf_counter() - self._began


def _have_watched(queue: JobQueue, session: Session, end: PreparedEnd) -> None:
    if end.windows:
        queue.watch_embedded(session, end.recording_id)
        queue.caption_embedded(session, end.recording_id)


def _ignore(_: Progress) -> None:
    """Take a progress report nobody asked for."""

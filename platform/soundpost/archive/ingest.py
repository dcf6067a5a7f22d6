"""Recordings into the archive: known by content, cut into windows, embedded, searchable.

Four kinds of threads share the work, so that the encoder hardly ever waits: examining (header,
hash), preparing (decode, measure, resample), writing, and the caller's own, which only encodes.
Rows are written in the order of the files whatever the threads do, in transactions that are whole
or absent: a run that is cut off anywhere is completed by the same run again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import cpu_count

import numpy as np

from soundpost.archive.discover import Discovery
from soundpost.archive.frames import pool_frames
from soundpost.archive.index import SearchIndex
from soundpost.archive.plan import IngestOptions, Plan, Workload
from soundpost.archive.prepare import Job, Preparation, Prepared, PreparedEnd, PreparedWindow
from soundpost.archive.relay import Feed, Stopwatch
from soundpost.archive.summary import Finding, Progress, Summary
from soundpost.archive.triage import Triage
from soundpost.archive.writer import Encoded, Writer
from soundpost.errors import UnreadableFileError
from soundpost.models.encoder import AudioEncoding, AudioTextEncoder
from soundpost.store import models, recordings, sources
from soundpost.store.files import AudioFiles
from soundpost.store.session import Store
from soundpost.store.windows import WindowRow

TAG_FLOOR = 0.1
TAGS_A_WINDOW = 10
_JOBS_WAITING = 128

ProgressCallback = Callable[[Progress], None]


def ingest(
    found: Discovery,
    options: IngestOptions,
    store: Store,
    encoder: AudioTextEncoder,
    index: SearchIndex | None,
    objects: AudioFiles | None = None,
    progress: ProgressCallback | None = None,
    stop: threading.Event | None = None,
) -> Summary:
    """Bring files into the archive and return what became of each.

    What is wrong with a file is in the summary and on its row, and never stops the others. New
    vectors are added to `index`, if one is given, after their transaction. With options.copy the audio is kept in `objects` too. `stop` ends the run early, with everything
    written that was embedded; the same call again goes on from there. Raises InvalidValueError
    for options that contradict each other, StoreError where the database fails.
    """
    options.check(len(found.files))
    run = _Run(found, options, store, encoder, index, objects if options.copy else None)
    return run.execute(progress or _ignore, stop or threading.Event())


@dataclass
class _Batch:
    """Windows for the encoder, with the ends of recordings where they fall between them."""

    items: list[Prepared] = field(default_factory=list)
    windows: int = 0

    def add(self, item: Prepared) -> None:
        self.items.append(item)
        self.windows += isinstance(item, PreparedWindow)


class _Run:
    """One ingest from its first file to its summary."""

    def __init__(
        self,
        found: Discovery,
        options: IngestOptions,
        store: Store,
        encoder: AudioTextEncoder,
        index: SearchIndex | None,
        objects: AudioFiles | None,
    ) -> None:
        self._found = found
        self._options = options
        self._store = store
        self._encoder = encoder
        self._began = time.perf_counter()
        self._stopwatch = Stopwatch()
        self._summary = Summary(
            files=len(found.files) + len(found.unreadable),
            not_audio=found.not_audio,
            left_out=len(found.left_out),
        )
        self._workload = Workload(found.files)
        plan = self._make_plan()
        writing = threading.Lock()
        self._triage = Triage(store, objects, plan, self._summary, self._stopwatch, writing)
        self._writer = Writer(store, index, plan, self._summary, self._stopwatch, writing)
        self._audio_done_s = 0.0

    def execute(self, progress: ProgressCallback, stop: threading.Event) -> Summary:
        """Run to the end, or until told to stop."""
        jobs: Feed[Job] = Feed(_JOBS_WAITING)
        with self._triaging(jobs) as triaged:
            with self._writer:
                self._embed_all(jobs, progress, stop)
                jobs.stop()
            self._summary.interrupted = stop.is_set()
            triaged.result()
        self._finish()
        progress(self._progress())
        return self._summary

    def _make_plan(self) -> Plan:
        options = self._options
        with self._store.session() as session:
            source = sources.ensure(session, options.source, options.timezone)
            model = models.ensure(session, self._encoder.spec)
            for folder in self._found.unreadable:
                fault = UnreadableFileError(folder, "the folder cannot be listed")
                row = recordings.record_failure(session, source.id, str(folder), fault)
                self._summary.failed.append(Finding.from_error(str(folder), fault, row.id))
            return Plan(source.id, model.id, self._encoder.spec.hop_s, options.timing)

    @contextmanager
    def _triaging(self, jobs: Feed[Job]) -> Iterator[Future[None]]:
        """Sort the files out in a thread of its own, which ends with this context."""
        with ThreadPoolExecutor(1, thread_name_prefix="triage") as pool:
            try:
                yield pool.submit(self._triage.run, self._found.files, jobs, self._workload)
            finally:
                jobs.stop()

    def _embed_all(
        self, jobs: Feed[Job], progress: ProgressCallback, stop: threading.Event
    ) -> None:
        size = self._options.batch_size
        # Half of the cores, but two at least: behind a single one the encoder waits for every file
        # that is slow to decode.
        threads = self._options.threads or max(2, (cpu_count() or 1) // 2)
        batch = _Batch()
        with Preparation(jobs, self._encoder.spec, self._stopwatch, threads, 2 * size) as prepared:
            for item in prepared:
                if stop.is_set():
                    break
                if item is not None:
                    batch.add(item)
                if batch.windows >= size:
                    self._embed(batch)
                    batch = _Batch()
                self._writer.write_if_due(self._options.chunk_windows, self._options.chunk_s)
                progress(self._progress())
        self._embed(batch)

    def _embed(self, batch: _Batch) -> None:
        windows = [item for item in batch.items if isinstance(item, PreparedWindow)]
        rows = iter(self._encode(windows)) if windows else iter(())
        for item in batch.items:
            if isinstance(item, PreparedEnd):
                self._writer.end(item)
            else:
                self._writer.add(Encoded(item.recording_id, next(rows)))
                self._audio_done_s += self._new_audio_s(item)

    def _encode(self, windows: Sequence[PreparedWindow]) -> list[WindowRow]:
        spec = self._encoder.spec
        length = round(spec.window_s * spec.sample_rate_hz)
        waves = np.zeros((len(windows), length), dtype=np.float32)
        lengths = np.array([min(length, len(window.wave)) for window in windows], dtype=np.int64)
        for wave, window, valid in zip(waves, windows, lengths, strict=True):
            wave[:valid] = window.wave[:valid]
        with self._stopwatch.stage("encode"):
            encoding = self._encoder.encode_audio(waves, lengths)
        return [self._row(encoding, row, window) for row, window in enumerate(windows)]

    def _row(self, encoding: AudioEncoding, row: int, window: PreparedWindow) -> WindowRow:
        duration_s = window.end_s - window.start_s
        return WindowRow(
            start_s=window.start_s,
            end_s=window.end_s,
            acoustics=window.acoustics,
            vector=encoding.embedding[row],
            frames=pool_frames(encoding.frames[row], encoding.frame_hop_s, duration_s),
            tags=self._tags(encoding, row),
        )

    def _tags(self, encoding: AudioEncoding, row: int) -> list[tuple[str, float]]:
        labels = self._encoder.spec.tag_labels
        if encoding.tags is None or not labels:
            return []
        order = np.argsort(-encoding.tags[row], kind="stable")[:TAGS_A_WINDOW]
        likely = [(labels[column], float(encoding.tags[row, column])) for column in order]
        return [(label, probability) for label, probability in likely if probability >= TAG_FLOOR]

    def _new_audio_s(self, window: PreparedWindow) -> float:
        length_s = window.end_s - window.start_s
        return length_s if window.index == 0 else min(length_s, self._encoder.spec.hop_s)

    def _progress(self) -> Progress:
        done = self._summary.reached
        return Progress(
            files_done=done,
            files_total=self._summary.files,
            audio_done_s=self._audio_done_s,
            audio_total_s=max(self._audio_done_s, self._workload.total_s()),
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


def _ignore(_: Progress) -> None:
    """Take a progress report nobody asked for."""

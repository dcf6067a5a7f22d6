"""Recordings into the archive by job: examined and admitted here, embedded by workers.

A recording's row and its job are written in one transaction; its message follows the commit. No
model is loaded: the command line, watchers and the service can do this.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

from sqlalchemy.orm import Session

from soundpost.archive.discover import Discovery
from soundpost.archive.plan import IngestOptions, Plan, Workload
from soundpost.archive.prepare import Job
from soundpost.archive.relay import Stopwatch
from soundpost.archive.summary import Summary
from soundpost.archive.triage import Triage, source_of
from soundpost.errors import QueueFullError
from soundpost.jobs import LIVE, JobQueue
from soundpost.store.files import AudioFiles
from soundpost.store.session import Store

# Files that are admitted between two looks at the queue.
_GROUP = 64
# How long to wait before looking at a full queue again.
_PATIENCE_S = 0.5


def register(
    found: Discovery,
    options: IngestOptions,
    store: Store,
    queue: JobQueue,
    objects: AudioFiles | None = None,
    *,
    priority: int = LIVE,
    patient: bool = True,
    stop: threading.Event | None = None,
) -> Summary:
    """Admit files and ask for their windows; return what became of each, `queued` for new work.

    The same file again adds nothing. With options.copy the audio is kept in `objects`. While the
    source has as many jobs as it may, a patient call waits, until `stop` ends it, and another
    raises QueueFullError. Raises DiskFullError where too little space is left, InvalidValueError
    for options that contradict each other, StoreError where the database fails.
    """
    options.check(len(found.files))
    stop = stop or threading.Event()
    summary = Summary.of(found)
    began, kept = time.perf_counter(), objects if options.copy else None
    with store.session() as session:
        source_id = source_of(session, found, options, summary).id
    stopwatch = Stopwatch()
    enqueue = partial(_enqueue, queue, source_id, priority)
    plan = Plan(source_id, None, 0.0, options.timing, found.origins)
    triage = Triage(store, kept, plan, summary, stopwatch, threading.Lock(), enqueue)
    for group in _groups(found.files):
        queue.check_disk()
        if patient:
            _wait_for_room(store, queue, source_id, stop)
        if stop.is_set():
            summary.interrupted = True
            break
        triage.run(group, partial(_count, summary), Workload(group))
    summary.stages, summary.wall_s = stopwatch.seconds(), time.perf_counter() - began
    return summary


def _enqueue(queue: JobQueue, source_id: int, priority: int, session: Session, job: Job) -> None:
    queue.embed(session, job.recording_id, source_id, notes=job.notes, priority=priority)


def _count(summary: Summary, job: Job) -> None:
    summary.queued += 1


def _groups(files: list[Path]) -> Iterator[list[Path]]:
    left = iter(files)
    while group := list(islice(left, _GROUP)):
        yield group


def _wait_for_room(store: Store, queue: JobQueue, source_id: int, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            with store.reading() as session:
                queue.check_room(session, source_id, _GROUP)
            return
        except QueueFullError:
            stop.wait(_PATIENCE_S)

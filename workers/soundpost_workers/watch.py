"""Watching by job: recordings in the order of time, baselines in the background.

A recording is scored, heard by its rules and done with in one transaction: whatever ends this
process, it counts once or not at all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy.orm import Session

from soundpost.config import Settings
from soundpost.errors import MonitoringError
from soundpost.jobs import WATCH, JobQueue
from soundpost.monitoring import baselines as making
from soundpost.monitoring.incidents import Change
from soundpost.monitoring.reading import began_at
from soundpost.monitoring.watch import Watched, Watcher, begin_watching
from soundpost.store import audit, baselines, jobs, models, recordings, sources
from soundpost.store.jobs import Leased
from soundpost.store.session import Store
from soundpost.store.tables import Job, Recording, utc_now
from soundpost_workers.leased import Postponed, do_leased

# A recording before this one that is still on its way is waited for, but not for ever.
EARLIER_WAIT = timedelta(minutes=2)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WatchTools:
    """What a process watches with; what it has fitted stays in memory.

    on_watched: is told of each recording once it is done with.
    """

    settings: Settings
    store: Store
    queue: JobQueue
    watcher: Watcher
    worker: str
    on_watched: Callable[[Watched], None] | None = None


def watch(tools: WatchTools, job_id: int) -> int:
    """Do the watching that waits for the source of a job, in the order of time; return how many."""
    with tools.store.reading() as session:
        job = session.get(Job, job_id)
        source_id = job.source_id if job is not None else None
        waiting = list(_in_order(session, source_id)) if source_id is not None else []
    work = partial(_watch, tools)
    return sum(
        do_leased(tools.store, tools.settings, waiting_id, tools.worker, work)
        for waiting_id in waiting or [job_id]
    )


def _in_order(session: Session, source_id: int) -> Iterator[int]:
    """The jobs that wait to watch a source, by when their recordings began."""
    queued = jobs.find(session, kind=WATCH, source_id=source_id, state="queued", limit=500)
    began = recordings.beginnings(session, [_recording_of(job) for job in queued])
    # A recording that was deleted is done with in no time.
    first = datetime.min.replace(tzinfo=utc_now().tzinfo)
    for job in sorted(queued, key=lambda job: (began.get(_recording_of(job), first), job.id)):
        yield job.id


def _recording_of(job: Job) -> int:
    return int(job.payload["recording"])


def _watch(tools: WatchTools, leased: Leased) -> None:
    recording_id, source_id = int(leased.payload["recording"]), leased.source_id or 0
    tools.watcher.warm(source_id)
    with tools.store.session() as session:
        sources.hold(session, source_id)
        now = utc_now()
        recording = session.get(Recording, recording_id)
        if recording is not None and _comes_after_another(session, leased, recording, now):
            raise Postponed(now)
        # With the rest of this transaction, or not at all.
        if not jobs.complete(session, leased):
            return
        watched = tools.watcher.watch(session, recording_id, now)
    for change in watched.applied.changes:
        log.info("incident %d %s", change.incident_id, change.kind)
    if tools.on_watched is not None:
        tools.on_watched(watched)


def _comes_after_another(
    session: Session, leased: Leased, recording: Recording, now: datetime
) -> bool:
    """Whether an earlier recording of the source is still on its way, and worth waiting for.

    One that failed before is not waited for: it may fail for ever.
    """
    since = now - EARLIER_WAIT
    if recording.created_at < since:
        return False
    before = began_at(recording.started_at, recording.created_at)
    if recordings.on_their_way(session, recording.source_id, before, since):
        return True
    unfinished = [
        job
        for state in ("queued", "running")
        for job in jobs.find(session, kind=WATCH, source_id=recording.source_id, state=state)
        if job.id != leased.id and job.attempts <= 1 and job.created_at > since
    ]
    began = recordings.beginnings(session, [_recording_of(job) for job in unfinished])
    return any(moment < before for moment in began.values())


def prepare_baseline(tools: WatchTools, job_id: int) -> bool:
    """Do a job that asks for a baseline to be prepared; return False if it is not this worker's."""

    def work(leased: Leased) -> None:
        baseline_id = int(leased.payload["baseline"])
        made = making.prepare(tools.store, baseline_id)
        log.info("version %d of a baseline of source %d is ready", made.version, made.source_id)
        if leased.payload.get("then") == "activate":
            with tools.store.session() as session:
                begin_watching(session, baseline_id, audit.SOUNDPOST, "it was asked for")

    final = (MonitoringError,)
    return do_leased(tools.store, tools.settings, job_id, tools.worker, work, final=final)


def tick(tools: WatchTools, now: datetime) -> list[Change]:
    """Let time pass: incidents that are over, sources that say nothing, learning that has ended.

    Returns what changed of incidents.
    """
    with tools.store.session() as session:
        changes = tools.watcher.tick(session, now)
    look_after_baselines(tools, now)
    return changes


def look_after_baselines(tools: WatchTools, now: datetime) -> None:
    """Ask for the preparing of what has learned for long enough, and of what a new model needs."""
    with tools.store.session() as session:
        for baseline in baselines.learning(session, now):
            making.end_learning(session, baseline)
            if baseline.state == "preparing":
                tools.queue.prepare_baseline(session, baseline.id, then="activate")
        _follow_model(tools, session)


def _follow_model(tools: WatchTools, session: Session) -> None:
    """Have what is normal said in the space of the model that serves now."""
    serving = models.serving(session)
    if serving is None:
        return
    for baseline in baselines.find(session, state="active"):
        if baseline.model_id == serving.id or baselines.followed(session, baseline, serving.id):
            continue
        made = making.follow_model(session, baseline, serving.id)
        tools.queue.prepare_baseline(session, made.id, then="activate")

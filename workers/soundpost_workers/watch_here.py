"""Watching what waits, here and now: for archives without a worker, and for looking at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy.orm import Session

from soundpost.jobs import BASELINE, EXPLAIN, NOTIFY, WATCH
from soundpost.monitoring.incidents import Change
from soundpost.monitoring.watch import Watched
from soundpost.store import audit, baselines, incidents, jobs, notifications, recordings, sources
from soundpost.store.tables import Job, Recording, Source, utc_now
from soundpost.store.watch_tables import Baseline
from soundpost_workers.explain import ExplainTools, explain
from soundpost_workers.notify import Courier, compose, deliver
from soundpost_workers.watch import (
    WatchTools,
    look_after_baselines,
    prepare_baseline,
    tick,
    watch,
)


@dataclass(frozen=True)
class NoticedChange:
    """What became of an incident, and why."""

    incident_id: int
    source: str
    kind: str
    reason: str | None


@dataclass(frozen=True)
class Noticed:
    """What came of watching one recording; began_at and source None: it was deleted.

    scored: whether there was a baseline to compare with.
    """

    recording_id: int
    source: str | None
    began_at: datetime | None
    windows: int
    scored: bool
    changes: tuple[NoticedChange, ...]


@dataclass(frozen=True)
class PreparedHere:
    """A baseline that was prepared, or that cannot be."""

    source: str
    version: int
    state: str
    error_code: str | None
    error_detail: str | None


@dataclass(frozen=True)
class Waiting:
    """A job that was not done now, with what went wrong if it was tried.

    failed: it is not tried again by itself.
    """

    job_id: int
    kind: str
    error_code: str | None
    error: str | None
    failed: bool = False


@dataclass(frozen=True)
class Outcome:
    """What was done: recordings watched, what time alone changed, messages, and what is left.

    explained: findings that were put into words.
    """

    watched: int
    prepared: tuple[PreparedHere, ...]
    passed: tuple[NoticedChange, ...]
    delivered: int
    waiting: tuple[Waiting, ...]
    explained: int = 0


def watch_here(
    tools: WatchTools,
    courier: Courier,
    source: str | None,
    on_noticed: Callable[[Noticed], None],
    explaining: ExplainTools | None = None,
) -> Outcome:
    """Prepare the baselines that wait, watch the recordings that wait, and tell of it once.

    source: only the recordings of this one. Each recording is handed to on_noticed as soon as it
    is done with. explaining: what findings are explained with; without it they are left to workers.
    Safe beside workers. Raises UnknownSourceError.
    """
    wanted = _sources(tools, source)
    look_after_baselines(tools, utc_now())
    prepared = _prepare(tools)
    watched = _watch(tools, wanted, on_noticed)
    passed = tick(tools, utc_now())
    prepared += _prepare(tools)
    tried = _explain(explaining, wanted) if explaining is not None else []
    with tools.store.reading() as session:
        told = tuple(_told(session, change) for change in passed)
    delivered = _tell(tools, courier)
    explained, failed = _ended(tools, tried)
    left = (*_left(tools, wanted), *failed)
    return Outcome(watched, tuple(prepared), told, delivered, left, explained)


def _sources(tools: WatchTools, name: str | None) -> list[int]:
    with tools.store.reading() as session:
        found = sources.find_all(session) if name is None else [sources.by_name(session, name)]
    return [source.id for source in found]


def _prepare(tools: WatchTools) -> list[PreparedHere]:
    with tools.store.reading() as session:
        waiting = jobs.find(session, kind=BASELINE, state="queued", limit=None)
    done = [int(job.payload["baseline"]) for job in waiting if prepare_baseline(tools, job.id)]
    with tools.store.reading() as session:
        return [_prepared(session, baselines.get(session, number)) for number in done]


def _prepared(session: Session, baseline: Baseline) -> PreparedHere:
    source = session.get_one(Source, baseline.source_id).name
    error = baseline.error_code, baseline.error_detail
    return PreparedHere(source, baseline.version, baseline.state, *error)


def _watch(tools: WatchTools, wanted: Sequence[int], on_noticed: Callable[[Noticed], None]) -> int:
    seen = 0

    def notice(watched: Watched) -> None:
        nonlocal seen
        seen += 1
        with tools.store.reading() as session:
            noticed = _noticed(session, watched)
        on_noticed(noticed)

    telling = replace(tools, on_watched=notice)
    for source_id in wanted:
        before = -1
        # A round may end early, with recordings that wait for others; go on while that helps.
        while seen > before and (job_id := _first(tools, source_id)) is not None:
            before = seen
            watch(telling, job_id)
    return seen


def _first(tools: WatchTools, source_id: int) -> int | None:
    with tools.store.reading() as session:
        found = jobs.find(session, kind=WATCH, source_id=source_id, state="queued", limit=1)
    return found[0].id if found else None


def _noticed(session: Session, watched: Watched) -> Noticed:
    recording = session.get(Recording, watched.recording_id)
    began = recordings.beginnings(session, [watched.recording_id])
    return Noticed(
        recording_id=watched.recording_id,
        source=session.get_one(Source, recording.source_id).name if recording else None,
        began_at=began.get(watched.recording_id),
        windows=watched.windows,
        scored=watched.scored,
        changes=tuple(_told(session, change) for change in watched.applied.changes),
    )


def _told(session: Session, change: Change) -> NoticedChange:
    incident = incidents.get(session, change.incident_id)
    entries = audit.history(session, "incident", incident.id)
    reasons = [entry.reason for entry in entries if entry.action == change.kind]
    name = session.get_one(Source, incident.source_id).name
    return NoticedChange(incident.id, name, change.kind, reasons[-1] if reasons else None)


def _explain(tools: ExplainTools, wanted: Sequence[int]) -> list[int]:
    """Try once to explain what waits for it; return the jobs that were tried."""
    found: list[Job] = []
    with tools.store.reading() as session:
        for source_id in wanted:
            found += jobs.find(session, kind=EXPLAIN, source_id=source_id, state="queued")
    return [job.id for job in found if explain(tools, job.id)]


def _ended(tools: WatchTools, tried: Sequence[int]) -> tuple[int, list[Waiting]]:
    """Return how many of the jobs that were tried are done, and those that failed for good."""
    with tools.store.reading() as session:
        found = [jobs.get(session, number) for number in tried]
    failed = [_waiting(job) for job in found if job.state == "failed"]
    return sum(job.state == "done" for job in found), failed


def _tell(tools: WatchTools, courier: Courier) -> int:
    """Compose what is due and try each message once; return how many arrived."""
    compose(tools.store, tools.queue, tools.settings)
    with tools.store.reading() as session:
        due = jobs.find(session, kind=NOTIFY, state="queued", due_before=utc_now(), limit=None)
    tried = [job for job in due if deliver(courier, job.id)]
    with tools.store.reading() as session:
        ids = [int(job.payload["notification"]) for job in tried]
        return sum(notifications.get(session, number).state == "sent" for number in ids)


def _left(tools: WatchTools, wanted: Sequence[int]) -> tuple[Waiting, ...]:
    """What still waits of what was asked for, and what could not be told."""
    with tools.store.reading() as session:
        found: list[Job] = []
        for source_id in wanted:
            found += jobs.find(session, kind=WATCH, source_id=source_id, state="queued")
            found += jobs.find(session, kind=EXPLAIN, source_id=source_id, state="queued")
        found += jobs.find(session, kind=BASELINE, state="queued")
        # One that was never tried waits for its time, such as that of a group.
        told = jobs.find(session, kind=NOTIFY, state="queued")
        found += [job for job in told if job.error_code is not None]
    return tuple(_waiting(job) for job in found)


def _waiting(job: Job) -> Waiting:
    failed = job.state == "failed"
    return Waiting(job.id, job.kind, job.error_code, _last_line(job), failed)


def _last_line(job: Job) -> str | None:
    """What a traceback ends with."""
    return job.error_detail.rstrip().splitlines()[-1] if job.error_detail else None

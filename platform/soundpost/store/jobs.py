"""Jobs: what is to be done, who is doing it, and what became of it.

The table is the only truth. A worker leases a job before it works and renews the lease while it
does; whoever holds no valid lease changes nothing. So a message may be lost, doubled or late.
"""

from __future__ import annotations

import random
import secrets
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import ColumnElement, Select, and_, delete, func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from soundpost.errors import (
    JobStateError,
    QueueFullError,
    SoundpostError,
    UnknownJobError,
    WorkerLostError,
)
from soundpost.store.session import insert_new
from soundpost.store.tables import Job, utc_now

State = Literal["queued", "running", "done", "failed", "cancelled"]
UNFINISHED = ("queued", "running")

LIVE, BACKFILL = 0, 10
BACKOFF_S = 5.0
LONGEST_BACKOFF_S = 600.0


@dataclass(frozen=True)
class NewJob:
    """Work to be done. Lower priority goes first; it may start at due_at, at once if None."""

    kind: str
    key: str
    queue: str
    payload: Mapping[str, Any] = field(default_factory=dict)
    source_id: int | None = None
    priority: int = LIVE
    max_attempts: int = 5
    due_at: datetime | None = None


@dataclass(frozen=True)
class Leased:
    """A job that this worker may do until the lease ends."""

    id: int
    kind: str
    payload: Mapping[str, Any]
    source_id: int | None
    attempts: int
    lease: str


@dataclass(frozen=True)
class ToSend:
    """A job whose message should be sent."""

    id: int
    kind: str
    queue: str
    priority: int


def add(session: Session, new: NewJob) -> tuple[Job, bool]:
    """Add a queued job; return it and whether it is new.

    An unfinished job of the same key is the same work: it is returned unchanged, also when another
    process adds it at the same moment.
    """
    now = utc_now()
    statement = insert_new(session, Job).values(
        kind=new.kind,
        key=new.key,
        queue=new.queue,
        payload=dict(new.payload),
        source_id=new.source_id,
        state="queued",
        priority=new.priority,
        attempts=0,
        max_attempts=new.max_attempts,
        due_at=new.due_at or now,
        created_at=now,
    )
    made = session.scalar(statement.on_conflict_do_nothing().returning(Job.id))
    if made is not None:
        return get(session, made), True
    same = select(Job).where(Job.key == new.key, Job.state.in_(UNFINISHED))
    known = session.scalar(same)
    # It was finished between the two statements: then this is new work after all.
    return (known, False) if known is not None else add(session, new)


def get(session: Session, job_id: int) -> Job:
    """Return a job. Raises UnknownJobError."""
    job = session.get(Job, job_id)
    if job is None:
        raise UnknownJobError(job_id)
    return job


def find(
    session: Session,
    *,
    state: State | None = None,
    kind: str | None = None,
    source_id: int | None = None,
    after_id: int | None = None,
    due_before: datetime | None = None,
    newest_first: bool = False,
    limit: int | None = 100,
) -> list[Job]:
    """Return the jobs that meet every filter and come after `after_id`, by id or newest_first."""
    statement = select(Job).order_by(Job.id.desc() if newest_first else Job.id).limit(limit)
    if after_id is not None:
        statement = statement.where(Job.id < after_id if newest_first else Job.id > after_id)
    if source_id is not None:
        statement = statement.where(Job.source_id == source_id)
    if state is not None:
        statement = statement.where(Job.state == state)
    if kind is not None:
        statement = statement.where(Job.kind == kind)
    if due_before is not None:
        statement = statement.where(Job.due_at <= due_before)
    return list(session.scalars(statement))


def latest(session: Session, key: str) -> Job | None:
    """Return the newest job of this key, in whatever state it is."""
    return session.scalar(select(Job).where(Job.key == key).order_by(Job.id.desc()).limit(1))


def counts(session: Session) -> dict[tuple[str, str], int]:
    """Return how many jobs there are by (kind, state)."""
    statement = select(Job.kind, Job.state, func.count()).group_by(Job.kind, Job.state)
    return {(kind, state): count for kind, state, count in session.execute(statement)}


def oldest_waiting_s(session: Session, *, now: datetime | None = None) -> float | None:
    """Return for how long the oldest due job has waited, None if none does."""
    moment = now or utc_now()
    statement = select(func.min(Job.due_at)).where(Job.state == "queued", Job.due_at <= moment)
    due_at = session.scalar(statement)
    return None if due_at is None else (moment - due_at).total_seconds()


@dataclass(frozen=True)
class WorkerSign:
    """The last sign of life of a worker, and how many jobs it holds now."""

    worker: str
    seen_at: datetime
    running: int


def workers(session: Session, since: datetime, *, now: datetime | None = None) -> list[WorkerSign]:
    """Return the workers that took, held or ended a job since a moment, by name.

    One with a lease that has not ended is seen at this moment: it renews it while it works.
    """
    moment = now or utc_now()
    holding = and_(Job.state == "running", Job.leased_until >= moment)
    statement = (
        select(
            Job.worker,
            func.max(Job.started_at),
            func.max(Job.finished_at),
            func.count().filter(holding),
        )
        .where(Job.worker.is_not(None))
        .where(or_(Job.started_at >= since, Job.finished_at >= since, holding))
        .group_by(Job.worker)
        .order_by(Job.worker)
    )
    signs = []
    for worker, started, ended, held in session.execute(statement):
        past = [when for when in (started, ended) if when is not None]
        signs.append(WorkerSign(worker or "", moment if held else max(past), held))
    return signs


def durations(session: Session, limit: int) -> list[tuple[str, float]]:
    """Return (kind, seconds from its last start to its end) of the jobs that were done last."""
    statement = (
        select(Job.kind, Job.started_at, Job.finished_at)
        .where(Job.state == "done")
        .order_by(Job.id.desc())
        .limit(limit)
    )
    return [
        (kind, (ended - started).total_seconds())
        for kind, started, ended in session.execute(statement)
        if ended is not None and started is not None
    ]


def unheard(
    session: Session,
    kinds: Sequence[str],
    queues: Sequence[str],
    waited_s: float,
    *,
    now: datetime | None = None,
) -> int:
    """Count the due jobs of some kinds whose message was sent so long ago, and no one came."""
    moment = now or utc_now()
    sent_before = moment - timedelta(seconds=waited_s)
    statement = select(func.count()).where(
        Job.state == "queued",
        Job.due_at <= moment,
        Job.kind.in_(kinds),
        Job.queue.in_(queues),
        Job.sent_at < sent_before,
    )
    return session.scalar(statement) or 0


def check_room(session: Session, source_id: int, limit: int) -> None:
    """Raise QueueFullError if `limit` jobs of a source are unfinished already."""
    statement = select(func.count()).where(Job.source_id == source_id, Job.state.in_(UNFINISHED))
    waiting = session.scalar(statement) or 0
    if waiting >= limit:
        raise QueueFullError(waiting, f"the limit is {limit}")


# --- what workers do --------------------------------------------------------------------------


def lease(
    session: Session, job_id: int, worker: str, lease_s: float, *, now: datetime | None = None
) -> Leased | None:
    """Take a job, or return None: it is done, gone, not due, or another worker has it."""
    taken = _take(session, select(Job.id).where(Job.id == job_id), worker, lease_s, now)
    return taken[0] if taken else None


def lease_more(
    session: Session,
    kind: str,
    worker: str,
    lease_s: float,
    limit: int,
    *,
    now: datetime | None = None,
) -> list[Leased]:
    """Take up to `limit` further jobs of a kind that were never tried, the most urgent first.

    What was tried and did not end is left to be done alone: it may be what ended its worker.
    """
    untried = select(Job.id).where(Job.kind == kind, Job.attempts == 0, Job.state == "queued")
    ordered = untried.order_by(Job.priority, Job.due_at, Job.id).limit(limit)
    return _take(session, ordered, worker, lease_s, now)


def renew(
    session: Session, held: Sequence[Leased], lease_s: float, *, now: datetime | None = None
) -> set[int]:
    """Extend leases; return the ids of the jobs that are still this worker's."""
    until = (now or utc_now()) + timedelta(seconds=lease_s)
    statement = update(Job).where(_is_mine(held)).values(leased_until=until)
    return set(session.scalars(statement.returning(Job.id)))


def complete(session: Session, held: Leased) -> bool:
    """Note that a job is done; return False if it was not this worker's any more."""
    return _settle(session, held, **_free("done"), finished_at=utc_now())


def fail(
    session: Session,
    held: Leased,
    error: Exception,
    *,
    final: bool = False,
    wait_s: float = 0.0,
    now: datetime | None = None,
) -> State | None:
    """Note a failure: the job is tried again later, or parked after its last attempt.

    `final` parks it at once: another attempt would end the same. It is not tried again before
    `wait_s`. Returns its state, or None if it was not this worker's any more.
    """
    job = session.get(Job, held.id)
    if job is None:
        return None
    last = final or job.attempts >= job.max_attempts
    moment = now or utc_now()
    values = _parked(moment) if last else _next_try(job, moment)
    if not last:
        values["due_at"] = max(values["due_at"], moment + timedelta(seconds=wait_s))
    values["error_code"] = error.code if isinstance(error, SoundpostError) else "unexpected"
    values["error_detail"] = "".join(traceback.format_exception(error))
    if not _settle(session, held, **values):
        return None
    return "failed" if last else "queued"


def give_back(session: Session, held: Sequence[Leased]) -> None:
    """Return jobs undone, as if they had never been taken: their worker is told to stop."""
    statement = update(Job).where(_is_mine(held))
    session.execute(statement.values(**_free("queued"), attempts=Job.attempts - 1, sent_at=None))


def postpone(session: Session, held: Leased, due_at: datetime) -> bool:
    """Return a job undone until a moment: no attempt was made of it.

    Returns False if it was not this worker's any more.
    """
    values = {**_free("queued"), "attempts": Job.attempts - 1, "due_at": due_at, "sent_at": None}
    return _settle(session, held, **values)


def hasten(session: Session, keys: Sequence[str], due_at: datetime) -> int:
    """Let waiting jobs start earlier than they would; return how many."""
    late = and_(Job.key.in_(keys), Job.state == "queued", Job.due_at > due_at)
    changed = update(Job).where(late).values(due_at=due_at, sent_at=None)
    return len(session.scalars(changed.returning(Job.id)).all())


# --- what people and the reconciler do --------------------------------------------------------


def retry(session: Session, job_id: int) -> Job:
    """Queue a failed or cancelled job again, with all its attempts; due at once.

    Raises UnknownJobError, and JobStateError if it is neither or its work is queued anew already.
    """
    changed = (
        update(Job)
        .where(Job.id == job_id, Job.state.in_(("failed", "cancelled")))
        .values(**_free("queued"), attempts=0, due_at=utc_now(), sent_at=None, finished_at=None)
    )
    try:
        with session.begin_nested():
            if session.scalar(changed.returning(Job.id)) is None:
                raise JobStateError(job_id, get(session, job_id).state)
    except IntegrityError as error:
        raise JobStateError(job_id, "another job does the same work already") from error
    return _fresh(session, job_id)


def cancel(session: Session, job_id: int) -> Job:
    """End a job that is not finished; a worker that has it finds out when it renews its lease.

    Raises UnknownJobError, and JobStateError if it is finished.
    """
    changed = (
        update(Job)
        .where(Job.id == job_id, Job.state.in_(UNFINISHED))
        .values(**_free("cancelled"), finished_at=utc_now())
    )
    if session.scalar(changed.returning(Job.id)) is None:
        raise JobStateError(job_id, get(session, job_id).state)
    return _fresh(session, job_id)


def release_lapsed(session: Session, *, now: datetime | None = None) -> list[int]:
    """Queue the jobs again whose lease ended, or park them after their last attempt."""
    moment = now or utc_now()
    statement = select(Job).where(Job.state == "running", Job.leased_until < moment)
    lapsed = list(session.scalars(statement.order_by(Job.id).with_for_update(skip_locked=True)))
    for job in lapsed:
        lost = WorkerLostError(job.worker, f"job {job.id}, attempt {job.attempts}")
        again = job.attempts < job.max_attempts
        values = _next_try(job, moment) if again else _parked(moment)
        for name, value in values.items():
            setattr(job, name, value)
        job.error_code, job.error_detail = lost.code, str(lost)
    session.flush()
    return [job.id for job in lapsed]


def take_unsent(
    session: Session, resend_s: float, limit: int = 1000, *, now: datetime | None = None
) -> list[ToSend]:
    """Return the due jobs whose message was never sent or is older than resend_s, as sent now."""
    moment = now or utc_now()
    stale = or_(Job.sent_at.is_(None), Job.sent_at < moment - timedelta(seconds=resend_s))
    chosen = (
        select(Job)
        .where(Job.state == "queued", Job.due_at <= moment, stale)
        .order_by(Job.priority, Job.due_at, Job.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    found = list(session.scalars(chosen))
    for job in found:
        job.sent_at = moment
    session.flush()
    return [ToSend(job.id, job.kind, job.queue, job.priority) for job in found]


def remove_finished(session: Session, before: datetime) -> int:
    """Delete what was done or cancelled before a moment; failed jobs stay until they are settled."""
    old = and_(Job.state.in_(("done", "cancelled")), Job.finished_at < before)
    return len(session.scalars(delete(Job).where(old).returning(Job.id)).all())


# --- the states -------------------------------------------------------------------------------


def _take(
    session: Session,
    chosen: Select[Any],
    worker: str,
    lease_s: float,
    now: datetime | None,
) -> list[Leased]:
    moment = now or utc_now()
    ready = or_(
        and_(Job.state == "queued", Job.due_at <= moment),
        and_(Job.state == "running", Job.leased_until < moment, Job.attempts < Job.max_attempts),
    )
    locked = chosen.where(ready).with_for_update(skip_locked=True)
    statement = (
        update(Job)
        .where(Job.id.in_(locked))
        .values(
            state="running",
            attempts=Job.attempts + 1,
            # The same for all that are taken together: it says which call took them.
            lease=secrets.token_hex(16),
            leased_until=moment + timedelta(seconds=lease_s),
            worker=worker,
            started_at=moment,
        )
        .returning(Job.id, Job.kind, Job.payload, Job.source_id, Job.attempts, Job.lease)
    )
    rows = session.execute(statement).all()
    return [Leased(*row) for row in sorted(rows, key=lambda row: row.id)]


def _is_mine(held: Sequence[Leased]) -> ColumnElement[bool]:
    tokens = {job.lease for job in held}
    ids = [job.id for job in held]
    return and_(Job.id.in_(ids), Job.lease.in_(tokens), Job.state == "running")


def _settle(session: Session, held: Leased, **values: Any) -> bool:
    statement = update(Job).where(_is_mine([held])).values(**values)
    return session.scalar(statement.returning(Job.id)) is not None


def _free(state: State) -> dict[str, Any]:
    return {"state": state, "lease": None, "leased_until": None}


def _next_try(job: Job, now: datetime) -> dict[str, Any]:
    due_at = now + timedelta(seconds=backoff_s(job.id, job.attempts))
    return {**_free("queued"), "due_at": due_at, "sent_at": None}


def _parked(now: datetime) -> dict[str, Any]:
    return {**_free("failed"), "finished_at": now}


def backoff_s(job_id: int, attempts: int) -> float:
    """Return how long to wait after an attempt: doubling, with jitter, at most ten minutes."""
    longest = min(LONGEST_BACKOFF_S, BACKOFF_S * 2.0 ** (attempts - 1))
    return longest * random.Random(f"{job_id}/{attempts}").uniform(0.5, 1.0)


def _fresh(session: Session, job_id: int) -> Job:
    statement = select(Job).where(Job.id == job_id)
    return session.scalars(statement, execution_options={"populate_existing": True}).one()

"""Baselines: versions of what is normal for a source, and the recordings that they refer to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session, undefer

from soundpost.errors import BaselineStateError, InvalidValueError, UnknownBaselineError
from soundpost.store import sources
from soundpost.store.recordings import beginning
from soundpost.store.session import insert_new
from soundpost.store.tables import Embedding, Recording, Source, Window, utc_now
from soundpost.store.watch_tables import Baseline, BaselineRecording

State = Literal["learning", "preparing", "ready", "active", "retired", "failed"]


@dataclass(frozen=True)
class NewBaseline:
    """A version to be made; chosen says how its recordings were chosen."""

    source_id: int
    model_id: int
    created_by: str
    state: State = "preparing"
    chosen: dict[str, Any] = field(default_factory=dict)
    learn_until: datetime | None = None
    parent_id: int | None = None


@dataclass(frozen=True)
class Prepared:
    """What preparing a baseline found; summary: figures that people are shown."""

    calibration: bytes
    quality: list[dict[str, Any]]
    summary: dict[str, Any]


def add(session: Session, new: NewBaseline, recording_ids: Sequence[int] = ()) -> Baseline:
    """Add the next version of a source's baseline."""
    sources.hold(session, new.source_id)
    latest = select(func.max(Baseline.version)).where(Baseline.source_id == new.source_id)
    baseline = Baseline(
        source_id=new.source_id,
        version=(session.scalar(latest) or 0) + 1,
        model_id=new.model_id,
        state=new.state,
        chosen=new.chosen,
        learn_until=new.learn_until,
        parent_id=new.parent_id,
        created_by=new.created_by,
    )
    session.add(baseline)
    session.flush()
    refer_to(session, baseline.id, recording_ids)
    return baseline


def refer_to(session: Session, baseline_id: int, recording_ids: Sequence[int]) -> None:
    """Add recordings to those that a baseline refers to; one that is there already stays."""
    rows = [
        {"baseline_id": baseline_id, "recording_id": key} for key in dict.fromkeys(recording_ids)
    ]
    if rows:
        statement = insert_new(session, BaselineRecording).on_conflict_do_nothing()
        session.connection().execute(statement, rows)


def get(session: Session, baseline_id: int) -> Baseline:
    """Return a baseline with its calibration. Raises UnknownBaselineError."""
    statement = select(Baseline).where(Baseline.id == baseline_id)
    baseline = session.scalar(statement.options(undefer(Baseline.calibration)))
    if baseline is None:
        raise UnknownBaselineError(baseline_id)
    return baseline


def by_version(session: Session, source: Source, version: int) -> Baseline:
    """Return a version of a source's baseline. Raises UnknownBaselineError."""
    statement = select(Baseline).where(Baseline.source_id == source.id, Baseline.version == version)
    baseline = session.scalar(statement)
    if baseline is None:
        raise UnknownBaselineError(f"{source.name}, version {version}")
    return baseline


def active(session: Session, source_id: int) -> Baseline | None:
    """Return the baseline by which a source is watched."""
    statement = select(Baseline).where(Baseline.source_id == source_id, Baseline.state == "active")
    return session.scalar(statement)


def find(
    session: Session, *, source_id: int | None = None, state: State | None = None
) -> list[Baseline]:
    """Return baselines by source, the newest version first."""
    statement = select(Baseline).order_by(Baseline.source_id, Baseline.version.desc())
    if source_id is not None:
        statement = statement.where(Baseline.source_id == source_id)
    if state is not None:
        statement = statement.where(Baseline.state == state)
    return list(session.scalars(statement))


def learning(session: Session, until: datetime) -> list[Baseline]:
    """Return the baselines whose time of learning is over."""
    statement = select(Baseline).where(Baseline.state == "learning", Baseline.learn_until <= until)
    return list(session.scalars(statement.order_by(Baseline.id)))


def followed(session: Session, baseline: Baseline, model_id: int) -> bool:
    """Whether a version was made of this one in another model's space, whatever became of it."""
    statement = select(Baseline.id).where(
        Baseline.source_id == baseline.source_id,
        Baseline.model_id == model_id,
        Baseline.id > baseline.id,
    )
    return session.scalar(statement.limit(1)) is not None


def recording_ids(session: Session, baseline_id: int) -> list[int]:
    """Return the recordings that a baseline refers to and that are still there, by id."""
    statement = select(BaselineRecording.recording_id)
    statement = statement.where(BaselineRecording.baseline_id == baseline_id)
    return list(session.scalars(statement.order_by(BaselineRecording.recording_id)))


def embedded_recordings(
    session: Session,
    source_id: int,
    model_id: int,
    after: datetime | None = None,
    before: datetime | None = None,
) -> list[int]:
    """Return a source's recordings that a model has embedded, that begin in [after, before).

    A recording that does not know when it began counts from when it arrived.
    """
    heard = select(Window.recording_id).join(Embedding, Embedding.window_id == Window.id)
    heard = heard.where(Embedding.model_id == model_id)
    statement = select(Recording.id).where(
        Recording.source_id == source_id, Recording.status == "embedded", Recording.id.in_(heard)
    )
    if after is not None:
        statement = statement.where(beginning() >= after)
    if before is not None:
        statement = statement.where(beginning() < before)
    return list(session.scalars(statement.order_by(Recording.id)))


def save(session: Session, baseline_id: int, prepared: Prepared) -> None:
    """Keep what preparing found; a baseline that was being prepared is ready then."""
    baseline = get(session, baseline_id)
    baseline.calibration, baseline.quality = prepared.calibration, prepared.quality
    baseline.summary, baseline.error_code, baseline.error_detail = prepared.summary, None, None
    if baseline.state in ("learning", "preparing", "failed"):
        baseline.state = "ready"
    session.flush()


def mark_failed(session: Session, baseline_id: int, code: str, detail: str) -> None:
    """Note why a baseline could not be prepared; one that is in use stays in use."""
    baseline = get(session, baseline_id)
    baseline.error_code, baseline.error_detail = code, detail
    if baseline.state in ("learning", "preparing"):
        baseline.state = "failed"
    session.flush()


def activate(session: Session, baseline_id: int, *, now: datetime | None = None) -> Baseline:
    """Watch by this baseline from now on; the one before it is retired.

    Raises UnknownBaselineError, and BaselineStateError unless it is prepared.
    """
    moment = now or utc_now()
    baseline = get(session, baseline_id)
    sources.hold(session, baseline.source_id)
    session.refresh(baseline, ["state"])
    if baseline.state not in ("ready", "active", "retired") or baseline.calibration is None:
        raise BaselineStateError(f"version {baseline.version}", f"it is {baseline.state}")
    retired = update(Baseline).where(
        Baseline.source_id == baseline.source_id,
        Baseline.state == "active",
        Baseline.id != baseline_id,
    )
    session.execute(retired.values(state="retired", retired_at=moment))
    if baseline.state != "active":
        baseline.state, baseline.activated_at, baseline.retired_at = "active", moment, None
    session.flush()
    return baseline


def retire(session: Session, source_id: int, *, now: datetime | None = None) -> Baseline:
    """Stop watching a source by its baseline. Raises BaselineStateError if it has none."""
    sources.hold(session, source_id)
    baseline = active(session, source_id)
    if baseline is None:
        raise BaselineStateError(source_id, "no baseline is active")
    baseline.state, baseline.retired_at = "retired", now or utc_now()
    session.flush()
    return baseline


def remove(session: Session, baseline_id: int) -> None:
    """Delete a version with its scores. Raises BaselineStateError for the active one."""
    baseline = get(session, baseline_id)
    if baseline.state == "active":
        raise BaselineStateError(f"version {baseline.version}", "it is active")
    children = update(Baseline).where(Baseline.parent_id == baseline_id)
    session.execute(children.values(parent_id=None))
    session.execute(delete(Baseline).where(Baseline.id == baseline_id))


def check_recordings(session: Session, source_id: int, wanted: Sequence[int]) -> None:
    """Raise InvalidValueError unless every id is a recording of this source."""
    statement = select(Recording.id).where(Recording.source_id == source_id)
    known = set(session.scalars(statement.where(Recording.id.in_(wanted))))
    strangers = sorted(set(wanted) - known)
    if strangers:
        raise InvalidValueError(strangers, "not recordings of this source")

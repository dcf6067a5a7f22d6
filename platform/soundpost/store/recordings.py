"""Recordings: one row a content, and one a file that never became a recording."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, Select, delete, func, insert, literal, select, text, update
from sqlalchemy.orm import Session

from soundpost.errors import InvalidValueError, SoundpostError, UnknownRecordingError
from soundpost.store.clock import overlaps, to_epoch_us
from soundpost.store.embeddings import hold_id_order
from soundpost.store.session import insert_new
from soundpost.store.tables import Embedding, Recording, Source, Tombstone, Window, utc_now

Status = Literal["queued", "embedding", "embedded", "failed"]


@dataclass(frozen=True)
class NewRecording:
    """What is known of a recording before it is decoded; its path is absolute.

    size_bytes and modified_ns are those of the file when it was hashed.
    """

    source_id: int
    sha256: str
    path: str
    size_bytes: int
    modified_ns: int
    object_key: str | None = None
    started_at: datetime | None = None
    duration_s: float | None = None
    sample_rate_hz: int | None = None
    channels: int | None = None
    format: str | None = None


def add(session: Session, new: NewRecording) -> tuple[Recording, bool]:
    """Add a queued recording; return it and whether it is new.

    The same content twice is one recording: the row that is there already is returned unchanged,
    also when another process adds it at the same moment. A failure noted of this path is removed.
    Raises InvalidValueError for a start in the first or last year of the calendar.
    """
    if new.started_at is not None:
        to_epoch_us(new.started_at)
    forget_failure(session, new.path)
    statement = insert_new(session, Recording).values(**asdict(new), status="queued")
    made = session.scalar(statement.on_conflict_do_nothing().returning(Recording.id))
    recording = by_sha256(session, new.sha256) if made is None else get(session, made)
    if recording is None:
        raise UnknownRecordingError(new.sha256, "it was deleted just now")
    return recording, made is not None


def record_failure(
    session: Session,
    source_id: int,
    path: str,
    error: SoundpostError,
    *,
    size_bytes: int | None = None,
    modified_ns: int | None = None,
) -> Recording:
    """Note that a file could not become a recording: one row a path, the latest failure."""
    values = {
        "source_id": source_id,
        "size_bytes": size_bytes,
        "modified_ns": modified_ns,
        "status": "failed",
        "error_code": error.code,
        "error_detail": str(error),
        "created_at": utc_now(),
    }
    statement = insert_new(session, Recording).values(path=path, **values)
    upsert = statement.on_conflict_do_update(
        index_elements=["path"], index_where=text("sha256 IS NULL"), set_=values
    )
    made = session.scalar(upsert.returning(Recording.id))
    return session.scalars(
        select(Recording).where(Recording.id == made),
        execution_options={"populate_existing": True},
    ).one()


def forget_failure(session: Session, path: str) -> None:
    """Remove the failure noted of a path, if there is one."""
    session.execute(delete(Recording).where(Recording.path == path, Recording.sha256.is_(None)))


def get(session: Session, recording_id: int) -> Recording:
    """Return a recording. Raises UnknownRecordingError."""
    recording = session.get(Recording, recording_id)
    if recording is None:
        raise UnknownRecordingError(recording_id)
    return recording


def by_sha256(session: Session, sha256: str) -> Recording | None:
    """Return the recording of this content."""
    return session.scalar(select(Recording).where(Recording.sha256 == sha256))


def by_path(session: Session, path: str) -> Recording | None:
    """Return the newest content known under a path; failures have none and do not count."""
    statement = select(Recording).where(Recording.path == path, Recording.sha256.is_not(None))
    return session.scalar(statement.order_by(Recording.id.desc()).limit(1))


def relocate(
    session: Session, recording_id: int, path: str, size_bytes: int, modified_ns: int
) -> None:
    """Note where a recording's file is now. Raises UnknownRecordingError."""
    _change(session, recording_id, path=path, size_bytes=size_bytes, modified_ns=modified_ns)


def describe(session: Session, recording_id: int, **known: Any) -> None:
    """Note what decoding found: started_at, duration_s, sample_rate_hz, channels, format.

    Raises InvalidValueError for another field, UnknownRecordingError for an unknown id.
    """
    allowed = {"started_at", "duration_s", "sample_rate_hz", "channels", "format", "object_key"}
    if not known.keys() <= allowed:
        raise InvalidValueError(sorted(known.keys() - allowed), "not a field that is described")
    _change(session, recording_id, **known)


def mark_embedding(session: Session, recording_id: int) -> None:
    """Note that work on a recording began, and forget an earlier error."""
    _change(session, recording_id, status="embedding", error_code=None, error_detail=None)


def mark_embedded(
    session: Session,
    recording_id: int,
    *,
    duration_s: float | None = None,
    fault: SoundpostError | None = None,
    remarks: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Note that every window of a recording is there.

    duration_s is what was decoded; a fault says why that ends early, and marks it truncated.
    """
    measured = {} if duration_s is None else {"duration_s": duration_s}
    _change(
        session,
        recording_id,
        status="embedded",
        truncated=fault is not None,
        error_code=fault and fault.code,
        error_detail=fault and str(fault),
        remarks=[dict(remark) for remark in remarks],
        **measured,
    )


def mark_failed(session: Session, recording_id: int, error: SoundpostError) -> None:
    """Note that nothing of a recording could be used, and why."""
    _change(
        session,
        recording_id,
        status="failed",
        error_code=error.code,
        error_detail=str(error),
    )


def unfinished(session: Session, source_id: int | None = None) -> list[Recording]:
    """Return what is queued or was interrupted while being embedded, oldest first."""
    statement = select(Recording).where(Recording.status.in_(["queued", "embedding"]))
    if source_id is not None:
        statement = statement.where(Recording.source_id == source_id)
    return list(session.scalars(statement.order_by(Recording.id)))


def find(
    session: Session,
    *,
    source: str | None = None,
    status: Status | None = None,
    after: datetime | None = None,
    before: datetime | None = None,
    limit: int | None = 100,
    offset: int = 0,
    beyond_id: int | None = None,
    newest_first: bool = False,
) -> list[Recording]:
    """Return the recordings that meet every filter, by id, ascending or newest_first.

    beyond_id is the last id of the page before; what is added meanwhile doubles or hides nothing.

    after and before select what meets [after, before) by the wall clock; a recording without a
    start then never does. An unknown source name matches nothing.
    """
    statement = _filtered(select(Recording), source, status, after, before)
    if beyond_id is not None:
        further = Recording.id < beyond_id if newest_first else Recording.id > beyond_id
        statement = statement.where(further)
    order = Recording.id.desc() if newest_first else Recording.id
    return list(session.scalars(statement.order_by(order).limit(limit).offset(offset)))


def count(
    session: Session,
    *,
    source: str | None = None,
    status: Status | None = None,
    after: datetime | None = None,
    before: datetime | None = None,
) -> int:
    """Count what `find` would return without a limit."""
    statement = _filtered(select(func.count(Recording.id)), source, status, after, before)
    total: int = session.execute(statement).scalar_one()
    return total


def beginnings(session: Session, recording_ids: Sequence[int]) -> dict[int, datetime]:
    """Return when recordings began, by id; one that does not know it began when it arrived."""
    statement = select(Recording.id, beginning()).where(Recording.id.in_(list(recording_ids)))
    return {row[0]: row[1] for row in session.execute(statement)}


def previous_at(session: Session, recording: Recording) -> datetime | None:
    """Return when the recording of the same source began that came before this one, if one did."""
    began = recording.started_at or recording.created_at
    statement = select(func.max(beginning())).where(
        Recording.source_id == recording.source_id,
        Recording.id != recording.id,
        Recording.sha256.is_not(None),
        beginning() <= began,
    )
    return session.scalar(statement)


def on_their_way(session: Session, source_id: int, before: datetime, since: datetime) -> bool:
    """Whether recordings of a source that began before a moment, and arrived since, wait still."""
    statement = select(Recording.id).where(
        Recording.source_id == source_id,
        Recording.status.in_(["queued", "embedding"]),
        Recording.created_at > since,
        beginning() < before,
    )
    return session.scalar(statement.limit(1)) is not None


def beginning() -> ColumnElement[datetime]:
    """When a recording began; one that does not know it began when it arrived."""
    return func.coalesce(Recording.started_at, Recording.created_at)


def embedded_s(session: Session) -> float:
    """How many seconds of audio are embedded."""
    statement = select(func.sum(Recording.duration_s)).where(Recording.status == "embedded")
    return session.scalar(statement) or 0.0


def remove(session: Session, recording_id: int) -> str | None:
    """Delete a recording with its windows, vectors and tags; return the key of its object.

    The embedding ids are kept as tombstones, for indexes that still hold them. The caller deletes
    the object after the transaction. Raises UnknownRecordingError.
    """
    hold_id_order(session)
    locked = select(Recording.id, Recording.object_key).where(Recording.id == recording_id)
    row = session.execute(locked.with_for_update()).one_or_none()
    if row is None:
        raise UnknownRecordingError(recording_id)
    object_key: str | None = row.object_key
    session.execute(_tombstones_of(recording_id))
    session.execute(delete(Recording).where(Recording.id == recording_id))
    return object_key


def _tombstones_of(recording_id: int) -> Any:
    doomed = (
        select(Embedding.id, Embedding.model_id, literal(utc_now(), Tombstone.deleted_at.type))
        .join(Window, Window.id == Embedding.window_id)
        .where(Window.recording_id == recording_id)
        .order_by(Embedding.id)
    )
    return insert(Tombstone).from_select(["embedding_id", "model_id", "deleted_at"], doomed)


def _change(session: Session, recording_id: int, **values: Any) -> None:
    changed = session.scalar(
        update(Recording)
        .where(Recording.id == recording_id)
        .values(**values)
        .returning(Recording.id)
    )
    if changed is None:
        raise UnknownRecordingError(recording_id)


def _filtered(
    statement: Select[Any],
    source: str | None,
    status: Status | None,
    after: datetime | None,
    before: datetime | None,
) -> Select[Any]:
    if source is not None:
        statement = statement.join(Source, Source.id == Recording.source_id)
        statement = statement.where(Source.name == source)
    if status is not None:
        statement = statement.where(Recording.status == status)
    length_s = func.coalesce(Recording.duration_s, 0.0)
    return statement.where(overlaps(Recording.started_at, 0.0, length_s, after, before))

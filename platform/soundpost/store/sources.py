"""Sources: the named microphones, machines, places and archives that recordings come from."""

from __future__ import annotations

from dataclasses import dataclass
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from soundpost.errors import InvalidValueError, UnknownSourceError
from soundpost.store.session import insert_new
from soundpost.store.tables import Recording, Source, Window

MAX_NAME_LENGTH = 200


@dataclass(frozen=True)
class SourceSummary:
    """A source and what there is of it; duration_s sums the recordings whose length is known."""

    source: Source
    recordings: int
    embedded: int
    failed: int
    windows: int
    duration_s: float


def ensure(session: Session, name: str, timezone: str | None = None) -> Source:
    """Return the source of this name, made if it is new; a timezone given replaces the one kept.

    Raises InvalidValueError for an empty or overlong name, or a timezone that does not exist.
    """
    _check(name, timezone)
    made = insert_new(session, Source).values(name=name, timezone=timezone or "UTC")
    session.execute(made.on_conflict_do_nothing())
    source = by_name(session, name)
    if timezone is not None and source.timezone != timezone:
        source.timezone = timezone
        session.flush()
    return source


def by_name(session: Session, name: str) -> Source:
    """Return the source of this name. Raises UnknownSourceError."""
    source = session.scalar(select(Source).where(Source.name == name))
    if source is None:
        raise UnknownSourceError(name)
    return source


def by_id(session: Session, source_id: int) -> Source:
    """Return a source. Raises UnknownSourceError."""
    source = session.get(Source, source_id)
    if source is None:
        raise UnknownSourceError(source_id)
    return source


def find_all(session: Session) -> list[Source]:
    """Return every source, by name."""
    return list(session.scalars(select(Source).order_by(Source.name)))


def summaries(session: Session) -> list[SourceSummary]:
    """Return every source with its counts, by name."""
    recordings = _recording_counts(session)
    windows = _window_counts(session)
    nothing = (0, 0, 0, 0.0)
    return [
        SourceSummary(source, total, embedded, failed, windows.get(source.id, 0), duration_s)
        for source in find_all(session)
        for total, embedded, failed, duration_s in [recordings.get(source.id, nothing)]
    ]


def _recording_counts(session: Session) -> dict[int, tuple[int, int, int, float]]:
    statement = select(
        Recording.source_id,
        func.count(),
        func.count().filter(Recording.status == "embedded"),
        func.count().filter(Recording.status == "failed"),
        func.sum(Recording.duration_s),
    ).group_by(Recording.source_id)
    return {
        source_id: (total, embedded, failed, duration_s or 0.0)
        for source_id, total, embedded, failed, duration_s in session.execute(statement)
    }


def _window_counts(session: Session) -> dict[int, int]:
    statement = (
        select(Recording.source_id, func.count())
        .join(Window, Window.recording_id == Recording.id)
        .group_by(Recording.source_id)
    )
    return {row[0]: row[1] for row in session.execute(statement)}


def _check(name: str, timezone: str | None) -> None:
    if not name.strip() or len(name) > MAX_NAME_LENGTH or not name.isprintable():
        raise InvalidValueError(name, f"a source's name has 1 to {MAX_NAME_LENGTH} characters")
    if timezone is None:
        return
    try:
        ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidValueError(timezone, "no such timezone; try Europe/Zurich") from error

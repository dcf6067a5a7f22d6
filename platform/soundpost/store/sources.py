"""Sources: the named microphones, machines, places and archives that recordings come from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from soundpost.errors import InvalidValueError, UnknownSourceError
from soundpost.store.session import insert_new
from soundpost.store.tables import Recording, Source, Window
from soundpost.store.watch_tables import SourceTag

MAX_NAME_LENGTH = 200
MAX_TAG_LENGTH = 100
MAX_TAGS = 50
SHORTEST_CADENCE_S = 1.0
LONGEST_CADENCE_S = 366 * 86_400.0
# Recordings from which the cadence is estimated, and how few are not enough.
_CADENCE_RECORDINGS = 200
_CADENCE_FEWEST = 5


@dataclass(frozen=True)
class SourceSummary:
    """A source and what there is of it; duration_s sums the recordings whose length is known."""

    source: Source
    recordings: int
    embedded: int
    failed: int
    windows: int
    duration_s: float
    tags: tuple[str, ...] = ()


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


def get(session: Session, source_id: int) -> Source:
    """Return the source of this id. Raises UnknownSourceError."""
    source = session.get(Source, source_id)
    if source is None:
        raise UnknownSourceError(source_id)
    return source


def hold(session: Session, source_id: int) -> Source:
    """Let nobody else change how a source is watched until this transaction ends.

    Recordings may still come in meanwhile. Raises UnknownSourceError.
    """
    # The weakest lock that excludes itself; SQLite has one writer anyway, and knows no such lock.
    statement = select(Source).where(Source.id == source_id).with_for_update(key_share=True)
    source = session.scalar(statement, execution_options={"populate_existing": True})
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
    tags, nothing = tags_by_source(session), (0, 0, 0, 0.0)
    return [
        SourceSummary(
            source,
            total,
            embedded,
            failed,
            windows.get(source.id, 0),
            duration_s,
            tuple(tags.get(source.id, ())),
        )
        for source in find_all(session)
        for total, embedded, failed, duration_s in [recordings.get(source.id, nothing)]
    ]


# --- tags, cadence, zone ----------------------------------------------------------------------


def describe(
    session: Session,
    name: str,
    *,
    timezone: str | None = None,
    cadence_s: float | None = None,
    no_cadence: bool = False,
    tags: Iterable[str] | None = None,
) -> Source:
    """Change what is given of a source; no_cadence: it is estimated from its recordings again.

    Raises UnknownSourceError, and InvalidValueError for a zone, a cadence or a tag that is wrong.
    """
    source = by_name(session, name)
    _check(name, timezone)
    if cadence_s is not None:
        check_cadence(cadence_s)
    source.timezone = timezone or source.timezone
    source.cadence_s = None if no_cadence else cadence_s or source.cadence_s
    session.flush()
    if tags is not None:
        set_tags(session, source.id, tags)
    return source


def set_tags(session: Session, source_id: int, tags: Iterable[str]) -> list[str]:
    """Give a source exactly these tags; return them in order. Raises InvalidValueError."""
    wanted = sorted(set(tags))
    if len(wanted) > MAX_TAGS:
        raise InvalidValueError(len(wanted), f"a source has at most {MAX_TAGS} tags")
    for tag in wanted:
        check_tag(tag)
    session.execute(delete(SourceTag).where(SourceTag.source_id == source_id))
    session.add_all([SourceTag(source_id=source_id, tag=tag) for tag in wanted])
    session.flush()
    return wanted


def tags_of(session: Session, source_id: int) -> list[str]:
    """Return the tags of a source, in order."""
    statement = select(SourceTag.tag).where(SourceTag.source_id == source_id)
    return list(session.scalars(statement.order_by(SourceTag.tag)))


def tags_by_source(session: Session) -> dict[int, list[str]]:
    """Return the tags of every source that has some."""
    found: dict[int, list[str]] = {}
    rows = session.execute(select(SourceTag.source_id, SourceTag.tag).order_by(SourceTag.tag))
    for source_id, tag in rows:
        found.setdefault(source_id, []).append(tag)
    return found


def tag_counts(session: Session) -> dict[str, int]:
    """Return how many sources have each tag."""
    statement = select(SourceTag.tag, func.count()).group_by(SourceTag.tag)
    return {row[0]: row[1] for row in session.execute(statement)}


def estimate_cadence_s(session: Session, source_id: int) -> float | None:
    """Estimate how often a source is heard, from when its latest recordings arrived, in seconds.

    It is the gap in the middle of the time they span, not of their number: a day's recordings that
    arrive together count as one, and one outage is outweighed. None for fewer than five recordings.
    """
    statement = (
        select(Recording.created_at)
        .where(Recording.source_id == source_id, Recording.sha256.is_not(None))
        .order_by(Recording.id.desc())
        .limit(_CADENCE_RECORDINGS)
    )
    arrived = sorted(session.scalars(statement))
    if len(arrived) < _CADENCE_FEWEST:
        return None
    gaps_s = sorted((later - earlier).total_seconds() for earlier, later in pairwise(arrived))
    half_s, passed_s = sum(gaps_s) / 2, 0.0
    for gap_s in gaps_s:
        passed_s += gap_s
        if passed_s >= half_s:
            return max(gap_s, SHORTEST_CADENCE_S)
    return None


def last_arrival(session: Session, source_id: int) -> datetime | None:
    """Return when the latest recording of a source arrived."""
    statement = select(func.max(Recording.created_at)).where(
        Recording.source_id == source_id, Recording.sha256.is_not(None)
    )
    return session.scalar(statement)


def check_tag(tag: str) -> None:
    """Raise InvalidValueError for a tag that cannot be told from another, or is none."""
    if not tag or tag != tag.strip() or len(tag) > MAX_TAG_LENGTH or not tag.isprintable():
        raise InvalidValueError(tag, f"a tag has 1 to {MAX_TAG_LENGTH} characters, no space around")


def check_cadence(cadence_s: float) -> None:
    """Raise InvalidValueError for a cadence below a second or above a year."""
    if not SHORTEST_CADENCE_S <= cadence_s <= LONGEST_CADENCE_S:
        raise InvalidValueError(cadence_s, "a cadence lies between a second and a year, in seconds")


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

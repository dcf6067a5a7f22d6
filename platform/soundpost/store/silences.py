"""Silences and maintenance windows: when nobody is told, or when what is heard does not count."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from soundpost.errors import InvalidValueError, SilenceEndedError, UnknownSilenceError
from soundpost.store import audit
from soundpost.store.sources import check_tag
from soundpost.store.watch_tables import Silence

SilenceKind = Literal["silence", "maintenance"]
MAX_REASON_LENGTH = 1000
_CLOCK = re.compile(r"(?:[01]\d|2[0-3]):[0-5]\d", re.ASCII)


@dataclass(frozen=True)
class NewSilence:
    """A silence to be added; see the table for its members. ends_at: None for one without an end,
    which only a weekly one may be."""

    kind: SilenceKind
    starts_at: datetime
    ends_at: datetime | None
    reason: str
    created_by: str
    source_id: int | None = None
    tag: str | None = None
    rule_id: int | None = None
    weekly: Mapping[str, Any] | None = None


def add(session: Session, new: NewSilence, *, now: datetime) -> Silence:
    """Add a silence. Raises InvalidValueError for one that makes no sense."""
    check(new)
    values = {**asdict(new), "weekly": dict(new.weekly) if new.weekly is not None else None}
    silence = Silence(**values, created_at=now)
    session.add(silence)
    session.flush()
    audit.note(session, new.created_by, "added", "silence", silence.id, now=now, reason=new.reason)
    return silence


def get(session: Session, silence_id: int) -> Silence:
    """Return a silence. Raises UnknownSilenceError."""
    silence = session.get(Silence, silence_id)
    if silence is None:
        raise UnknownSilenceError(silence_id)
    return silence


def find(
    session: Session,
    *,
    kind: SilenceKind | None = None,
    source_id: int | None = None,
    unfinished_at: datetime | None = None,
    after_id: int | None = None,
    newest_first: bool = False,
    limit: int | None = 100,
) -> list[Silence]:
    """Return the silences that meet every filter and come after `after_id`.

    unfinished_at leaves out those that ended by then. source_id finds those of just this source.
    """
    order = Silence.id.desc() if newest_first else Silence.id
    statement = select(Silence).order_by(order).limit(limit)
    if after_id is not None:
        statement = statement.where(
            Silence.id < after_id if newest_first else Silence.id > after_id
        )
    if kind is not None:
        statement = statement.where(Silence.kind == kind)
    if source_id is not None:
        statement = statement.where(Silence.source_id == source_id)
    if unfinished_at is not None:
        statement = statement.where(or_(Silence.ends_at.is_(None), Silence.ends_at > unfinished_at))
    return list(session.scalars(statement))


def concerning(
    session: Session, kind: SilenceKind, source_id: int, tags: set[str], after: datetime
) -> list[Silence]:
    """Return the silences of a kind that may hold for a source at or after a moment.

    Whether one does at a moment, and for which rules, `monitoring.silencing` says.
    """
    statement = select(Silence).where(
        Silence.kind == kind,
        or_(Silence.source_id.is_(None), Silence.source_id == source_id),
        or_(Silence.tag.is_(None), Silence.tag.in_(sorted(tags))),
        or_(Silence.ends_at.is_(None), Silence.ends_at > after),
    )
    return list(session.scalars(statement.order_by(Silence.id)))


def end(
    session: Session, silence_id: int, actor: str, *, now: datetime, reason: str | None = None
) -> Silence:
    """End a silence now; one that has not begun never does.

    Raises UnknownSilenceError, and SilenceEndedError where it is over already.
    """
    silence = get(session, silence_id)
    if silence.ends_at is not None and silence.ends_at <= now:
        raise SilenceEndedError(silence_id, f"since {silence.ends_at:%Y-%m-%d %H:%M} UTC")
    silence.ends_at = now
    silence.starts_at = min(silence.starts_at, now)
    session.flush()
    audit.note(session, actor, "ended", "silence", silence_id, now=now, reason=reason)
    return silence


def check(new: NewSilence) -> None:
    """Raise InvalidValueError for a silence that makes no sense."""
    if new.kind not in ("silence", "maintenance"):
        raise InvalidValueError(new.kind, "a silence is of the kind silence or maintenance")
    if not new.reason.strip() or len(new.reason) > MAX_REASON_LENGTH:
        raise InvalidValueError(new.reason, f"say why, in 1 to {MAX_REASON_LENGTH} characters")
    if new.ends_at is not None and new.ends_at <= new.starts_at:
        raise InvalidValueError(new.ends_at.isoformat(), "it ends before it starts")
    if new.ends_at is None and new.weekly is None:
        raise InvalidValueError(None, "a silence needs an end, or the hours of each week it holds")
    if new.source_id is not None and new.tag is not None:
        raise InvalidValueError(new.tag, "a silence is for one source or for a tag, not for both")
    if new.tag is not None:
        check_tag(new.tag)
    if new.weekly is not None:
        _check_weekly(new.weekly)


def _check_weekly(weekly: Mapping[str, Any]) -> None:
    if set(weekly) != {"days", "from", "to"}:
        raise InvalidValueError(sorted(map(str, weekly)), "weekly hours have days, from and to")
    days = weekly["days"]
    if not isinstance(days, list) or not days or len(set(map(str, days))) != len(days):
        raise InvalidValueError(days, "days are a list of different days, Monday is 0")
    for day in days:
        if not isinstance(day, int) or isinstance(day, bool) or not 0 <= day <= 6:
            raise InvalidValueError(day, "a day is a number from 0 (Monday) to 6 (Sunday)")
    for member in ("from", "to"):
        if not isinstance(weekly[member], str) or not _CLOCK.fullmatch(weekly[member]):
            raise InvalidValueError(weekly[member], "a time of day is HH:MM, from 00:00 to 23:59")
    if weekly["from"] == weekly["to"]:
        raise InvalidValueError(weekly["to"], "it ends when it starts; a whole day is two halves")

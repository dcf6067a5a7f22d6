"""When silences and maintenance windows hold: plain times, and hours of each week in a zone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from soundpost.store import silences, sources
from soundpost.store.tables import Source
from soundpost.store.watch_tables import Silence

Interval = tuple[datetime, datetime]
# Beyond this a maintenance window that ended has nothing to say about a source that is not heard.
LOOK_BACK = timedelta(days=8)


class Quiet:
    """The silences and maintenance windows of one source, as they are at a moment.

    They are read once; which of them hold for a rule is asked of it.
    """

    def __init__(self, session: Session, source: Source, since: datetime) -> None:
        tags = set(sources.tags_of(session, source.id))
        self._zone = ZoneInfo(source.timezone)
        self._silences = silences.concerning(session, "silence", source.id, tags, since)
        self._maintenance = silences.concerning(session, "maintenance", source.id, tags, since)

    def silence(self, rule_id: int, moment: datetime) -> Silence | None:
        """Return what keeps a rule from telling anybody at a moment, maintenance too."""
        for silence in (*self._silences, *self._maintenance):
            if concerns(silence, rule_id) and holds(silence, moment, self._zone):
                return silence
        return None

    def in_maintenance(self, rule_id: int, moment: datetime) -> bool:
        """Whether what a rule hears at a moment does not count."""
        return any(
            concerns(window, rule_id) and holds(window, moment, self._zone)
            for window in self._maintenance
        )

    def counts(
        self, rule_id: int, starts_s: NDArray[np.float64], ends_s: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Return which windows [N] count for a rule: those outside of its maintenance windows.

        starts_s, ends_s: [N] seconds since 1970.
        """
        counted = np.ones(len(starts_s), dtype=bool)
        if len(starts_s) == 0:
            return counted
        start = datetime.fromtimestamp(float(starts_s.min()), UTC)
        until = datetime.fromtimestamp(float(ends_s.max()), UTC)
        for begin, end in self._maintained(rule_id, start, until):
            counted &= (ends_s <= begin.timestamp()) | (starts_s >= end.timestamp())
        return counted

    def last_maintained(self, rule_id: int, now: datetime) -> datetime | None:
        """Return when the latest maintenance of the past week ended, `now` if it goes on."""
        ends = [end for _, end in self._maintained(rule_id, now - LOOK_BACK, now)]
        return min(max(ends), now) if ends else None

    def _maintained(self, rule_id: int, start: datetime, until: datetime) -> list[Interval]:
        return [
            interval
            for window in self._maintenance
            if concerns(window, rule_id)
            for interval in intervals(window, start, until, self._zone)
        ]


def concerns(silence: Silence, rule_id: int) -> bool:
    """Whether a silence is for a rule of a source that it is for."""
    return silence.rule_id is None or silence.rule_id == rule_id


def holds(silence: Silence, moment: datetime, zone: ZoneInfo) -> bool:
    """Whether a silence holds at a moment; its end is not part of it."""
    found = intervals(silence, moment, moment, zone)
    return any(begin <= moment < end for begin, end in found)


def intervals(silence: Silence, start: datetime, until: datetime, zone: ZoneInfo) -> list[Interval]:
    """Return the times in which a silence holds that touch [start, until], in order, UTC."""
    far = datetime.max.replace(tzinfo=UTC)
    whole = (silence.starts_at, silence.ends_at or far)
    if silence.weekly is None:
        return list(_clipped([whole], start, until))
    weekly = _weekly(silence, start, until, zone)
    inside = [(max(a, whole[0]), min(b, whole[1])) for a, b in weekly]
    return list(_clipped([(a, b) for a, b in inside if a < b], start, until))


def _clipped(found: Sequence[Interval], start: datetime, until: datetime) -> Iterable[Interval]:
    return ((a, b) for a, b in found if a <= until and b >= start)


def _weekly(silence: Silence, start: datetime, until: datetime, zone: ZoneInfo) -> list[Interval]:
    weekly = silence.weekly or {}
    opens, closes = time.fromisoformat(weekly["from"]), time.fromisoformat(weekly["to"])
    # One that began the evening before may reach over midnight.
    first = start.astimezone(zone).date() - timedelta(days=1)
    count = (until.astimezone(zone).date() - first).days + 1
    days = [first + timedelta(days=number) for number in range(count)]
    return [
        (
            _in_utc(day, opens, zone),
            _in_utc(day if opens < closes else day + timedelta(days=1), closes, zone),
        )
        for day in days
        if day.weekday() in weekly["days"]
    ]


def _in_utc(day: date, clock: time, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, clock, tzinfo=zone).astimezone(UTC)

"""Wall-clock arithmetic in SQL, exact to the microsecond on every database."""

from __future__ import annotations

from datetime import MAXYEAR, MINYEAR, UTC, datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, and_, func, or_
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction

from soundpost.errors import InvalidValueError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)
_MICROSECOND = timedelta(microseconds=1)


class epoch_us(GenericFunction[int]):
    """Microseconds since 1970 of a UTC time column."""

    type = BigInteger()
    inherit_cache = True


@compiles(epoch_us, "postgresql")
def _epoch_us_postgresql(element: epoch_us, compiler: SQLCompiler, **options: Any) -> str:
    moment = compiler.process(element.clauses, **options)
    return f"CAST(extract(epoch FROM {moment}) * 1000000 AS BIGINT)"


@compiles(epoch_us, "sqlite")
def _epoch_us_sqlite(element: epoch_us, compiler: SQLCompiler, **options: Any) -> str:
    # Times are text here, "2026-03-29 01:59:59.999999"; SQLite's own functions drop microseconds.
    moment = compiler.process(element.clauses, **options)
    whole = f"CAST(strftime('%s', substr({moment}, 1, 19)) AS INTEGER) * 1000000"
    return f"({whole} + CAST(substr({moment}, 21, 6) AS INTEGER))"


def to_epoch_us(moment: datetime) -> int:
    """Microseconds since 1970 of an aware time.

    Raises InvalidValueError for a naive time, and in the first and last year of the calendar,
    where another zone may have no date for it.
    """
    if moment.tzinfo is None:
        raise InvalidValueError(moment, "a time needs its zone")
    if not MINYEAR < moment.year < MAXYEAR:
        raise InvalidValueError(moment, "the year is out of range")
    return (moment - EPOCH) // _MICROSECOND


def overlaps(
    started_at: Any,
    start_s: Any,
    end_s: Any,
    after: datetime | None,
    before: datetime | None,
) -> ColumnElement[bool]:
    """Whether [started_at + start_s, started_at + end_s) meets [after, before).

    An unknown start meets nothing, unless both bounds are None. Raises InvalidValueError for a
    bound without a zone.
    """
    conditions: list[ColumnElement[bool]] = []
    # The exact comparison costs microseconds a row, which adds up over a million windows. A cheap
    # one that implies it comes first and answers for all but the recordings on the edge.
    if before is not None:
        exactly = func.epoch_us(started_at) + _in_us(start_s) < to_epoch_us(before)
        surely = and_(started_at < before - _DAY, start_s < _DAY.total_seconds())
        conditions += [started_at < before, or_(surely, exactly)]
    if after is not None:
        exactly = func.epoch_us(started_at) + _in_us(end_s) > to_epoch_us(after)
        conditions.append(or_(started_at > after, exactly))
    return and_(True, *conditions)


def _in_us(duration_s: Any) -> ColumnElement[float]:
    return func.round(duration_s * 1_000_000.0)

"""When a recording began, read from the name its recorder gave the file.

Recorders name files by their clock: AudioMoth `20260315_043000.WAV` (older firmware: seconds in
hexadecimal, `5C8A3E10.WAV`), Song Meter `SITE_20260315_043000.wav` or `SITE_20260315$043000.wav`,
Swift `S1_20260315_043000-0500.wav`, Zoom, Sony and Olympus `260315_0430.wav`, phones
`Recording 2026-03-15 04-30-00.m4a`, loggers `1773549000.wav` or `1773549000123.wav`.

A `Z`, `UTC` or offset in the name decides; otherwise the clock is taken to run in the zone that
the caller names. Where that clock was turned back, an hour happens twice: the first is taken.
Where it was turned forward, an hour never happens: the clock is taken as not yet turned. Both
are said in a remark. A date that does not exist is no match.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from pathlib import PurePath
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from soundpost.errors import InvalidValueError

_OFFSET = (
    r"(?:[ _]?(?P<utc>Z|UTC)(?![A-Za-z0-9])"
    r"|[ _]?(?P<sign>[+-])(?P<offset_hour>\d\d):?(?P<offset_minute>00|15|30|45)(?!\d))?"
)
_LONG = re.compile(
    r"(?<!\d)(?P<year>(?:19|20)\d\d)(?P<ds>[-_.]?)(?P<month>\d\d)(?P=ds)(?P<day>\d\d)"
    r"(?:[T_$ -]|_\$| at |_at_)?"
    r"(?P<hour>\d{1,2})(?P<ts>[-_.:h]?)(?P<minute>\d\d)"
    r"(?:(?P=ts)(?P<second>\d\d)(?:[.,](?P<fraction>\d{1,6}))?)?(?!\d)"
    r"(?:\s?(?P<half>[AaPp])[Mm](?![A-Za-z]))?" + _OFFSET
)
_SHORT = re.compile(
    r"(?<!\d)(?P<year>\d\d)(?P<month>\d\d)(?P<day>\d\d)[-_ T]"
    r"(?P<hour>\d\d)(?P<minute>\d\d)(?P<second>\d\d)?(?!\d)" + _OFFSET
)
_EPOCH = re.compile(r"(?<!\d)(?P<seconds>\d{10})(?P<millis>\d{3})?(?!\d)")
_HEX = re.compile(r"[0-9A-F]{8}")

# Ten digits are seconds since 1970 only where that gives a day of digital recorders.
_EPOCH_RANGE_S = (1_000_000_000, 2_208_988_800)
# AudioMoth exists since 2015; below it eight digits are more likely a date.
_HEX_RANGE_S = (1_420_070_400, 2_208_988_800)
_OFFSET_LIMIT = timedelta(hours=14)

AMBIGUOUS = "ambiguous-local-time"
NONEXISTENT = "nonexistent-local-time"
SHORT_NAME = "time-from-short-name"


@dataclass(frozen=True)
class Moment:
    """A point in time in UTC, and what must be known about how it was found: code and detail."""

    at: datetime
    remark: tuple[str, str] | None = None


def zone_named(name: str) -> tzinfo:
    """Return the time zone with this IANA name. Raises InvalidValueError for an unknown one."""
    if name.upper() in {"UTC", "Z"}:
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidValueError(name, "not a time zone; one is Europe/Berlin") from error


def moment_from_text(text: str, zone: tzinfo) -> Moment:
    """Read an ISO 8601 time; without an offset it is local to `zone`. Raises InvalidValueError."""
    try:
        return _in_utc(datetime.fromisoformat(text.strip()), zone)
    except (ValueError, OverflowError) as error:
        raise InvalidValueError(text, "write times as 2026-03-15T04:30 or ...+01:00") from error


def moment_from_name(name: str, zone: tzinfo) -> Moment | None:
    """Return when the recording with this file name began, or None if the name does not say.

    Only the last part of a path counts, without its suffix. The first date that exists wins.
    """
    stem = PurePath(name).stem
    return next(_candidates(stem, zone), None)


def _candidates(stem: str, zone: tzinfo) -> Iterator[Moment]:
    for match in _LONG.finditer(stem):
        yield from _from_calendar(match, zone)
    yield from _from_seconds(stem)
    for match in _SHORT.finditer(stem):
        yield from (_doubted(moment, match) for moment in _from_calendar(match, zone))


def _from_calendar(match: re.Match[str], zone: tzinfo) -> Iterator[Moment]:
    try:
        local = _calendar_time(match)
        offset = _stated_offset(match)
    except ValueError:
        return
    yield _in_utc(local if offset is None else local.replace(tzinfo=offset), zone)


def _calendar_time(match: re.Match[str]) -> datetime:
    part = match.groupdict()
    year = int(part["year"])
    fraction = (part.get("fraction") or "").ljust(6, "0")
    # The zone is put on by the caller, who knows whether the name states an offset.
    return datetime(  # noqa: DTZ001
        year if year >= 100 else 2000 + year,
        int(part["month"]),
        int(part["day"]),
        _hour(int(part["hour"]), part.get("half")),
        int(part["minute"]),
        int(part["second"] or 0),
        int(fraction),
    )


def _hour(hour: int, half: str | None) -> int:
    if half is None:
        return hour
    if not 1 <= hour <= 12:
        raise ValueError(hour)
    return hour % 12 + (12 if half in "Pp" else 0)


def _stated_offset(match: re.Match[str]) -> tzinfo | None:
    if match["utc"]:
        return UTC
    if not match["sign"]:
        return None
    size = timedelta(hours=int(match["offset_hour"]), minutes=int(match["offset_minute"]))
    if size > _OFFSET_LIMIT:
        raise ValueError(size)
    return timezone(-size if match["sign"] == "-" else size)


def _from_seconds(stem: str) -> Iterator[Moment]:
    if _HEX.fullmatch(stem) and _HEX_RANGE_S[0] <= int(stem, 16) < _HEX_RANGE_S[1]:
        yield Moment(datetime.fromtimestamp(int(stem, 16), UTC))
    for match in _EPOCH.finditer(stem):
        if _EPOCH_RANGE_S[0] <= int(match["seconds"]) < _EPOCH_RANGE_S[1]:
            since = timedelta(milliseconds=int(match["millis"] or 0))
            yield Moment(datetime.fromtimestamp(int(match["seconds"]), UTC) + since)


def _doubted(moment: Moment, match: re.Match[str]) -> Moment:
    """Four digits after a short date may also be a counter; say how they were read."""
    if match["second"] or moment.remark:
        return moment
    detail = f"{match[0]} was read as a date and HHMM; give --started-at if it ends in a counter"
    return Moment(moment.at, (SHORT_NAME, detail))


def _in_utc(time: datetime, zone: tzinfo) -> Moment:
    if time.tzinfo is not None:
        return Moment(time.astimezone(UTC))
    first = time.replace(tzinfo=zone, fold=0)
    moment = first.astimezone(UTC)
    if first.utcoffset() == time.replace(tzinfo=zone, fold=1).utcoffset():
        return Moment(moment)
    if moment.astimezone(zone).replace(tzinfo=None) == time:
        return Moment(moment, (AMBIGUOUS, f"{time} happened twice in {zone}; the first was taken"))
    detail = f"{time} never happened in {zone}; the clock was taken as not yet turned forward"
    return Moment(moment, (NONEXISTENT, detail))

"""Recorder names are read as the moments their recorders meant."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.archive.recorder_names import (
    AMBIGUOUS,
    NONEXISTENT,
    SHORT_NAME,
    moment_from_name,
    moment_from_text,
    zone_named,
)
from soundpost.errors import InvalidValueError

BERLIN = ZoneInfo("Europe/Berlin")
EXPECTED = datetime(2026, 3, 15, 4, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    "name",
    [
        "20260315_043000.WAV",
        "20260315_043000T.WAV",
        "20260315_043000Z.wav",
        "20260315_043000UTC.wav",
        "20260315_043000_000.WAV",
        "SITE3_20260315_043000.wav",
        "SM2_0+1_20260315_$043000.wav",
        "S4A00001_20260315$043000.wav",
        "SWIFT_20260315_043000+0000.flac",
        "SWIFT_20260315_013000-0300.flac",
        "20260315T100000+0530.wav",
        "Recording 2026-03-15 04-30-00.m4a",
        "2026-03-15T04-30-00Z.wav",
        "2026-03-15T04:30:00+00:00.wav",
        "2026-03-15 04.30.00.opus",
        "2026_03_15_04_30_00.mp3",
        "Screen Recording 2026-03-15 at 4.30.00 AM.mov",
        "REC20260315043000.amr",
        "20260315 043000.m4a",
        "2026-03-15_04-30.wav",
        "260315-043000.wav",
        "1773549000.wav",
        "rec-1773549000000.m4a",
        f"{1773549000:08X}.WAV",
        "to_20269999_990000_then_20260315_043000.wav",
        "/archive/20110101_000000/20260315_043000.wav",
    ],
)
def test_a_recorder_name_gives_its_moment(name: str) -> None:
    moment = moment_from_name(name, UTC)
    assert moment is not None
    assert moment.at == EXPECTED
    assert moment.remark is None


@pytest.mark.parametrize(
    "name",
    [
        "ZOOM0001.WAV",
        "260315_001.WAV",
        "dog barking.wav",
        "20260230_043000.wav",
        "20261315_043000.wav",
        "20260315_243000.wav",
        "20260315_046000.wav",
        "20260315.wav",
        "20260315_043000+9900.wav",
        "2026-03-15 at 14.30.00 PM.wav",
        "0123456789.wav",
        "9999999999.wav",
        "DEADBEEF.WAV",
        "freesound_412345.mp3",
        "",
    ],
)
def test_a_name_without_a_possible_time_gives_none(name: str) -> None:
    assert moment_from_name(name, UTC) is None


def test_short_names_are_read_as_a_date_and_a_time_with_a_warning() -> None:
    moment = moment_from_name("260315_0430.wav", UTC)
    assert moment is not None
    assert moment.at == EXPECTED
    assert moment.remark is not None
    assert moment.remark[0] == SHORT_NAME


def test_a_zone_applies_to_a_name_without_an_offset() -> None:
    moment = moment_from_name("20260315_053000.wav", BERLIN)
    assert moment is not None
    assert moment.at == EXPECTED


@pytest.mark.parametrize("name", ["20260315_043000Z.wav", "20260315_063000+0200.wav"])
def test_an_offset_in_the_name_beats_the_zone(name: str) -> None:
    moment = moment_from_name(name, ZoneInfo("Asia/Tokyo"))
    assert moment is not None
    assert moment.at == EXPECTED


def test_afternoons_and_fractions_of_a_second_are_kept() -> None:
    late = moment_from_name("2026-03-15 at 4.30.00 PM.m4a", UTC)
    exact = moment_from_name("2026-03-15T04-30-00.250Z.wav", UTC)
    assert late is not None and late.at == EXPECTED + timedelta(hours=12)
    assert exact is not None and exact.at == EXPECTED + timedelta(milliseconds=250)


def test_the_hour_that_happens_twice_is_the_first_and_says_so() -> None:
    moment = moment_from_name("20261025_023000.wav", BERLIN)
    assert moment is not None
    assert moment.at == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert moment.remark is not None and moment.remark[0] == AMBIGUOUS


def test_the_hour_that_never_happens_is_read_as_a_clock_not_yet_turned() -> None:
    moment = moment_from_name("20260329_023000.wav", BERLIN)
    assert moment is not None
    assert moment.at == datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
    assert moment.remark is not None and moment.remark[0] == NONEXISTENT


@given(
    st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2099, 12, 31)),  # noqa: DTZ001
    st.integers(min_value=-12 * 4, max_value=14 * 4),
    st.text(alphabet="ABCxyz-_ ", max_size=8),
)
def test_any_moment_written_with_its_offset_is_read_back(
    time: datetime, quarters: int, prefix: str
) -> None:
    zone = timezone(timedelta(minutes=15 * quarters))
    meant = time.replace(microsecond=0, tzinfo=zone)
    moment = moment_from_name(f"{prefix}{meant:%Y%m%d_%H%M%S%z}.wav", BERLIN)
    assert moment is not None
    assert moment.at == meant


@given(st.text(max_size=60))
def test_no_name_is_an_error(name: str) -> None:
    moment = moment_from_name(name.replace("/", "_"), BERLIN)
    assert moment is None or moment.at.tzinfo is UTC


def test_written_times_take_the_zone_unless_they_state_one() -> None:
    assert moment_from_text("2026-03-15T05:30", BERLIN).at == EXPECTED
    assert moment_from_text("2026-03-15T04:30Z", BERLIN).at == EXPECTED
    assert moment_from_text("2026-03-15", BERLIN).at == datetime(2026, 3, 14, 23, tzinfo=UTC)


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-02-30", "15.03.2026", "0001-01-01T00:00+14:00"]
)
def test_a_time_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(InvalidValueError):
        moment_from_text(text, UTC)


@pytest.mark.parametrize("name", ["", "Berlin", "../etc/passwd", "Europe/Nowhere", "Europe"])
def test_an_unknown_zone_is_refused(name: str) -> None:
    with pytest.raises(InvalidValueError):
        zone_named(name)

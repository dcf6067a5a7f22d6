"""Sources, models and recordings: what people and ingest ask of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from soundpost.errors import (
    EmptyFileError,
    InvalidValueError,
    NotAudioError,
    TruncatedError,
    UnknownRecordingError,
    UnknownSourceError,
)
from soundpost.models.encoder import EncoderSpec
from soundpost.store import models, recordings, sources
from soundpost.store.recordings import NewRecording
from soundpost.store.session import Store
from soundpost.store.tables import Recording

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
SPEC = EncoderSpec(
    name="tone", revision="1", dimension=4, sample_rate_hz=16_000, window_s=10.0, hop_s=5.0
)


def new(source_id: int, number: int = 0, **values: Any) -> NewRecording:
    given = {"path": f"/archive/{number}.wav", "size_bytes": 10, "modified_ns": 20, **values}
    return NewRecording(source_id=source_id, sha256=f"{number:064x}", **given)


@pytest.fixture
def hall(store: Store) -> int:
    with store.session() as session:
        return sources.ensure(session, "hall").id


# --- sources ----------------------------------------------------------------------------------


def test_a_source_is_made_once_and_keeps_its_timezone(store: Store) -> None:
    with store.session() as session:
        first = sources.ensure(session, "Halle 3, Kühlung", "Europe/Zurich")
    with store.session() as session:
        again = sources.ensure(session, "Halle 3, Kühlung")
        assert (again.id, again.timezone) == (first.id, "Europe/Zurich")
        assert sources.ensure(session, "Halle 3, Kühlung", "UTC").timezone == "UTC"
    with store.reading() as session:
        assert [source.timezone for source in sources.find_all(session)] == ["UTC"]


@pytest.mark.parametrize("name", ["", "  ", "x" * 201, "two\nlines"])
def test_unusable_names_are_refused(sqlite_store: Store, name: str) -> None:
    with pytest.raises(InvalidValueError), sqlite_store.session() as session:
        sources.ensure(session, name)


@pytest.mark.parametrize("timezone", ["Mars/Olympus", "", "../../etc/passwd", "/etc/localtime"])
def test_unknown_timezones_are_refused(sqlite_store: Store, timezone: str) -> None:
    with pytest.raises(InvalidValueError, match="timezone"), sqlite_store.session() as session:
        sources.ensure(session, "hall", timezone)


def test_an_unknown_source_is_named(store: Store) -> None:
    with pytest.raises(UnknownSourceError, match="attic"), store.reading() as session:
        sources.by_name(session, "attic")


def test_summaries_count_what_there_is(store: Store, hall: int) -> None:
    with store.session() as session:
        sources.ensure(session, "attic")
        for number, duration_s in enumerate([10.0, 20.5, None]):
            recordings.add(session, new(hall, number, duration_s=duration_s))
        recordings.mark_embedded(session, 1)
        recordings.record_failure(session, hall, "/bad.wav", EmptyFileError("/bad.wav"))
    with store.reading() as session:
        attic, other = sources.summaries(session)
    assert (attic.source.name, attic.recordings, attic.duration_s) == ("attic", 0, 0.0)
    assert (other.recordings, other.embedded, other.failed, other.windows) == (4, 1, 1, 0)
    assert other.duration_s == 30.5


# --- models -----------------------------------------------------------------------------------


def test_a_model_is_known_by_name_and_revision(store: Store) -> None:
    with store.session() as session:
        made = models.ensure(session, SPEC)
        assert models.ensure(session, SPEC).id == made.id
        assert models.find(session, "tone", "2") is None
        found = models.find(session, "tone", "1")
        assert found is not None and found.id == made.id
        assert [model.id for model in models.find_all(session)] == [made.id]


@pytest.mark.parametrize("change", [{"dimension": 8}, {"window_s": 5.0}, {"hop_s": 10.0}])
def test_one_revision_cannot_mean_two_things(sqlite_store: Store, change: dict[str, Any]) -> None:
    changed = EncoderSpec(**{**SPEC.__dict__, **change})
    with pytest.raises(InvalidValueError, match="tone@1"), sqlite_store.session() as session:
        models.ensure(session, SPEC)
        models.ensure(session, changed)


# --- recordings -------------------------------------------------------------------------------


def test_the_same_content_twice_is_one_recording(store: Store, hall: int) -> None:
    with store.session() as session:
        first, made = recordings.add(session, new(hall, path="/a.wav"))
        again, made_again = recordings.add(session, new(hall, path="/copy of a.wav"))
        assert (made, made_again) == (True, False)
        assert (again.id, again.path, again.status) == (first.id, "/a.wav", "queued")
        assert recordings.by_sha256(session, f"{0:064x}") is again
        assert recordings.by_sha256(session, f"{1:064x}") is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    name=st.one_of(
        st.binary(min_size=1, max_size=40).filter(lambda name: b"\0" not in name),
        st.text("é\N{GRINNING FACE}'\"\\%_\n", min_size=1).map(str.encode),
    )
)
def test_any_file_name_comes_back_as_it_is(store: Store, hall: int, name: bytes) -> None:
    """File names are bytes; Python shows those that are not UTF-8 with surrogates."""
    path = "/" + name.decode("utf-8", "surrogateescape")
    with store.session() as session:
        recordings.record_failure(session, hall, path, EmptyFileError(path))
    with store.session() as session:
        found = session.query(Recording).where(Recording.path == path).one()
        assert found.path == path
        assert found.error_detail == str(EmptyFileError(path))
        session.delete(found)


def test_a_failure_is_one_row_a_path_until_it_succeeds(store: Store, hall: int) -> None:
    with store.session() as session:
        first = recordings.record_failure(session, hall, "/a.wav", EmptyFileError("/a.wav"))
        assert (first.status, first.error_code) == ("failed", "empty-file")
    with store.session() as session:
        second = recordings.record_failure(
            session, hall, "/a.wav", NotAudioError("/a.wav"), size_bytes=5, modified_ns=6
        )
        assert (second.id, second.error_code, second.size_bytes) == (first.id, "not-audio", 5)
        recordings.record_failure(session, hall, "/b.wav", EmptyFileError("/b.wav"))
        assert recordings.count(session, status="failed") == 2
        assert recordings.by_path(session, "/a.wav") is None
    with store.session() as session:
        recordings.add(session, new(hall, path="/a.wav"))
        assert [row.path for row in recordings.find(session, status="failed")] == ["/b.wav"]


def test_a_path_is_known_by_its_newest_content(store: Store, hall: int) -> None:
    with store.session() as session:
        recordings.add(session, new(hall, 1, path="/a.wav"))
        recordings.add(session, new(hall, 2, path="/a.wav"))
        newest = recordings.by_path(session, "/a.wav")
        assert newest is not None and newest.sha256 == f"{2:064x}"
        recordings.relocate(session, newest.id, "/moved.wav", 11, 21)
        moved = recordings.by_path(session, "/moved.wav")
        assert moved is not None
        assert (moved.id, moved.size_bytes, moved.modified_ns) == (newest.id, 11, 21)
        older = recordings.by_path(session, "/a.wav")
        assert older is not None and older.sha256 == f"{1:064x}"


def test_a_recording_goes_from_queued_to_embedded(store: Store, hall: int) -> None:
    with store.session() as session:
        recording, _ = recordings.add(session, new(hall))
        recordings.mark_embedding(session, recording.id)
        assert recording.status == "embedding"
        assert recordings.unfinished(session) == [recording]
        recordings.describe(session, recording.id, sample_rate_hz=8_000, channels=2, format="wav")
        fault = TruncatedError("/archive/0.wav", "ends at 3.2 s")
        remarks = [{"code": "clipped", "detail": "0.1 %"}]
        recordings.mark_embedded(
            session, recording.id, duration_s=3.2, fault=fault, remarks=remarks
        )
    with store.reading() as session:
        found = recordings.get(session, recording.id)
        assert (found.status, found.truncated, found.error_code) == ("embedded", True, "truncated")
        assert found.error_detail is not None and "3.2 s" in found.error_detail
        assert (found.duration_s, found.remarks, found.channels) == (3.2, remarks, 2)
        assert recordings.unfinished(session) == []


def test_trying_again_forgets_the_earlier_fault(store: Store, hall: int) -> None:
    with store.session() as session:
        recording, _ = recordings.add(session, new(hall))
        recordings.mark_failed(session, recording.id, NotAudioError("/archive/0.wav"))
        assert (recording.status, recording.error_code) == ("failed", "not-audio")
        assert recordings.unfinished(session, hall) == []
        recordings.mark_embedding(session, recording.id)
        assert (recording.error_code, recording.error_detail) == (None, None)
        recordings.mark_embedded(session, recording.id)
        assert (recording.truncated, recording.error_code) == (False, None)


def test_unknown_ids_and_fields_are_refused(store: Store, hall: int) -> None:
    with store.session() as session:
        for change in (
            lambda: recordings.get(session, 7),
            lambda: recordings.mark_embedding(session, 7),
            lambda: recordings.remove(session, 7),
        ):
            with pytest.raises(UnknownRecordingError, match="7"):
                change()
        with pytest.raises(InvalidValueError, match="sha256"):
            recordings.describe(session, 7, sha256="0" * 64)


def test_filters_go_by_source_state_and_wall_clock(store: Store, hall: int) -> None:
    hour = timedelta(hours=1)
    with store.session() as session:
        attic = sources.ensure(session, "attic").id
        for number in range(4):
            started_at = NOON + number * hour
            recordings.add(session, new(hall, number, started_at=started_at, duration_s=1800.0))
        recordings.add(session, new(hall, 8, duration_s=60.0))
        recordings.add(session, new(attic, 9, started_at=NOON, duration_s=60.0))
        recordings.mark_embedded(session, 2)

    def found(**filters: Any) -> list[int]:
        with store.reading() as session:
            rows = recordings.find(session, **filters)
            unpaged = {k: v for k, v in filters.items() if k not in ("limit", "offset")}
            if unpaged == filters:
                assert recordings.count(session, **filters) == len(rows)
            return [row.id for row in rows]

    assert found() == [1, 2, 3, 4, 5, 6]
    assert found(source="attic") == [6]
    assert found(source="nowhere") == []
    assert found(status="embedded") == [2]
    assert found(source="hall", limit=2, offset=1) == [2, 3]
    # [after, before) meets a recording that is still going on, not one that ends as it begins.
    assert found(after=NOON + hour / 4, before=NOON + hour) == [1]
    assert found(source="hall", after=NOON + hour / 2, before=NOON + 2 * hour) == [2]
    assert found(source="hall", before=NOON + timedelta(microseconds=1)) == [1]
    assert found(before=NOON) == []


def test_the_number_of_a_deleted_recording_is_not_given_again(store: Store, hall: int) -> None:
    with store.session() as session:
        first, _ = recordings.add(session, new(hall, object_key="ab/cd/abcd.wav"))
        assert recordings.remove(session, first.id) == "ab/cd/abcd.wav"
        second, made = recordings.add(session, new(hall))
        assert made and second.id > first.id

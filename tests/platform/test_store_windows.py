"""Windows, vectors and tags: many at once, never twice, and found again by time."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sqlalchemy import func, select

from soundpost.errors import InvalidValueError, UnknownRecordingError
from soundpost.models.encoder import EncoderSpec
from soundpost.store import embeddings, models, recordings, sources, windows
from soundpost.store.session import Store
from soundpost.store.tables import Tag, Window
from soundpost.store.windows import WindowRow

DIMENSION = 8
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
SPEC = EncoderSpec(
    name="tone", revision="1", dimension=DIMENSION, sample_rate_hz=16_000, window_s=10.0, hop_s=5.0
)


def rows(count: int, first: int = 0, seed: int = 0) -> list[WindowRow]:
    """Windows of 10 s, 5 s apart, each with its own vector, frames and two tags."""
    made = []
    for index in range(first, first + count):
        rng = np.random.default_rng([seed, index])
        vector = rng.normal(size=DIMENSION).astype(np.float32)
        frames = rng.integers(-127, 128, size=(10, DIMENSION), dtype=np.int8)
        tags = [("Bell", 0.25), ("Rain", 0.5 + index / 4096)]
        acoustics = {"level_dbfs": -20.0 - index, "octaves": [1.0, None]}
        made.append(WindowRow(index * 5.0, index * 5.0 + 10.0, acoustics, vector, frames, tags))
    return made


class Archive:
    """A store with one model and as many recordings as are asked for."""

    def __init__(self, store: Store) -> None:
        self.store = store
        with store.session() as session:
            self.model_id = models.ensure(session, SPEC).id

    def recording(self, started_at: datetime | None = None, source: str = "hall") -> int:
        with self.store.session() as session:
            number = recordings.count(session)
            source_id = sources.ensure(session, source).id
            new = recordings.NewRecording(
                source_id, f"{number:064x}", f"/{number}.wav", 1, 2, started_at=started_at
            )
            return recordings.add(session, new)[0].id

    def add(self, recording_id: int, batch: list[WindowRow]) -> list[int]:
        with self.store.session() as session:
            return windows.add_batch(session, recording_id, self.model_id, batch).tolist()


@pytest.fixture
def archive(store: Store) -> Archive:
    return Archive(store)


# --- writing ----------------------------------------------------------------------------------


def test_what_is_stored_comes_back(archive: Archive) -> None:
    recording_id = archive.recording(NOON)
    given = rows(300)
    ids = archive.add(recording_id, given)
    assert ids == sorted(set(ids))
    with archive.store.reading() as session:
        found = embeddings.details(session, ids)
        vectors = np.concatenate([v for _, v in embeddings.stream(session, archive.model_id)])
    for row, detail, vector in zip(given, found, vectors, strict=True):
        assert (detail.start_s, detail.end_s) == (row.start_s, row.end_s)
        assert detail.acoustics == row.acoustics
        assert detail.tags == (row.tags[1], row.tags[0])
        np.testing.assert_array_equal(detail.frames, row.frames)
        np.testing.assert_array_equal(vector, row.vector)
    assert (found[0].source, found[0].path, found[0].started_at) == ("hall", "/0.wav", NOON)
    assert found[0].recording_id == recording_id


def test_work_goes_on_after_the_last_whole_batch(archive: Archive) -> None:
    recording_id, other = archive.recording(), archive.recording()
    archive.add(other, rows(3))
    archive.add(recording_id, rows(40))
    with pytest.raises(KeyboardInterrupt), archive.store.session() as session:
        windows.add_batch(session, recording_id, archive.model_id, rows(40, first=40))
        raise KeyboardInterrupt
    with archive.store.reading() as session:
        assert windows.last_complete(session, recording_id, archive.model_id) == 40
        assert windows.last_complete(session, recording_id, archive.model_id + 1) == 0
        assert embeddings.count(session, archive.model_id) == 43


def test_writing_a_window_again_changes_nothing(archive: Archive) -> None:
    recording_id = archive.recording()
    ids = archive.add(recording_id, rows(30))
    overlapping = archive.add(recording_id, rows(20, first=20, seed=9))
    assert overlapping[:10] == ids[20:]
    assert archive.add(recording_id, rows(30)[::-1]) == ids[::-1]
    with archive.store.reading() as session:
        assert embeddings.count(session, archive.model_id) == 40
        kept = np.concatenate([v for _, v in embeddings.stream(session, archive.model_id)])
        np.testing.assert_array_equal(kept[25], rows(30)[25].vector)
        assert session.scalar(select(func.count(Tag.id))) == 80


def test_a_second_model_shares_the_windows(archive: Archive) -> None:
    recording_id = archive.recording()
    ids = archive.add(recording_id, rows(5))
    other = EncoderSpec(**{**SPEC.__dict__, "revision": "2"})
    with archive.store.session() as session:
        second = models.ensure(session, other).id
        more = windows.add_batch(session, recording_id, second, rows(5, seed=1)).tolist()
        assert session.scalar(select(func.count(Window.id))) == 5
        assert set(ids).isdisjoint(more)
        assert embeddings.allowed_ids(session, archive.model_id).tolist() == ids
        assert embeddings.allowed_ids(session, second).tolist() == more
        assert [detail.model_id for detail in embeddings.details(session, more)] == [second] * 5


def test_an_empty_batch_and_a_window_without_tags_or_frames_are_fine(archive: Archive) -> None:
    recording_id = archive.recording()
    assert archive.add(recording_id, []) == []
    row = rows(1)[0]
    bare = WindowRow(0.0, 0.04, {}, row.vector, np.empty((0, DIMENSION), np.int8))
    ids = archive.add(recording_id, [bare])
    with archive.store.reading() as session:
        detail = embeddings.details(session, ids)[0]
    assert (detail.tags, detail.frames.shape) == ((), (0, DIMENSION))


@pytest.mark.parametrize("wrong", ["vector", "frames", "nan", "model", "recording"])
def test_what_does_not_fit_is_refused_and_leaves_nothing(archive: Archive, wrong: str) -> None:
    recording_id = archive.recording()
    vector = np.full(DIMENSION + (wrong == "vector"), 0.5, np.float32)
    vector[0] = np.nan if wrong == "nan" else 0.5
    frames = np.zeros((1, DIMENSION + (wrong == "frames")), np.int8)
    batch = [rows(1)[0], WindowRow(5.0, 15.0, {}, vector, frames)]
    model_id = archive.model_id + (wrong == "model")
    with (
        pytest.raises(UnknownRecordingError if wrong == "recording" else InvalidValueError),
        archive.store.session() as session,
    ):
        windows.add_batch(session, recording_id + (wrong == "recording"), model_id, batch)
    with archive.store.reading() as session:
        assert session.scalar(select(func.count(Window.id))) == 0


# --- reading ----------------------------------------------------------------------------------


def test_the_stream_goes_by_chunks_from_where_it_is_told(archive: Archive) -> None:
    ids = archive.add(archive.recording(), rows(25))
    with archive.store.reading() as session:
        chunks = list(embeddings.stream(session, archive.model_id, chunk=10))
        assert [found.tolist() for found, _ in chunks] == [ids[:10], ids[10:20], ids[20:]]
        assert [vectors.shape for _, vectors in chunks] == [(10, 8), (10, 8), (5, 8)]
        assert all(vectors.dtype == np.float32 for _, vectors in chunks)
        late = list(embeddings.stream(session, archive.model_id, after_id=ids[22], chunk=10))
        assert [found.tolist() for found, _ in late] == [ids[23:]]
        assert embeddings.high_watermark(session, archive.model_id) == ids[-1]
        assert list(embeddings.stream(session, archive.model_id, after_id=ids[-1])) == []
        assert embeddings.high_watermark(session, archive.model_id + 1) == 0


def test_details_come_in_the_order_asked_without_what_is_gone(archive: Archive) -> None:
    ids = archive.add(archive.recording(), rows(1500))
    wanted = [ids[1400], 10**9, ids[0], ids[700], ids[0]]
    with archive.store.reading() as session:
        found = [detail.embedding_id for detail in embeddings.details(session, wanted)]
        everything = embeddings.details(session, np.array(ids[::-1]))
        assert embeddings.details(session, []) == []
    assert found == [ids[1400], ids[0], ids[700], ids[0]]
    assert [detail.embedding_id for detail in everything] == ids[::-1]


def test_windows_are_filtered_by_the_wall_clock_to_the_microsecond(archive: Archive) -> None:
    started_at = NOON + timedelta(microseconds=123_457)
    ids = archive.add(archive.recording(started_at), rows(6))
    unknown = archive.add(archive.recording(None), rows(2))
    attic = archive.add(archive.recording(NOON, "attic"), rows(1))

    def found(**filters: object) -> list[int]:
        with archive.store.reading() as session:
            allowed = embeddings.allowed_ids(session, archive.model_id, **filters)  # type: ignore[arg-type]
        assert allowed.dtype == np.int64
        return allowed.tolist()

    second, tick = timedelta(seconds=1), timedelta(microseconds=1)
    assert found() == ids + unknown + attic
    assert found(source="attic") == attic
    assert found(source="nowhere") == []
    # Window i is [5 i, 5 i + 10) s from the start: it ends before what begins at its end.
    assert found(source="hall", after=started_at + 20 * second) == ids[3:]
    assert found(source="hall", after=started_at + 20 * second - tick) == ids[2:]
    assert found(source="hall", before=started_at + 10 * second) == ids[:2]
    assert found(source="hall", before=started_at + 10 * second + tick) == ids[:3]
    assert found(after=started_at + 12 * second, before=started_at + 13 * second) == ids[1:3]
    zurich = datetime.fromisoformat("2026-06-01T14:00:00.123457+02:00")
    assert found(source="hall", before=zurich + tick) == ids[:1]
    with pytest.raises(InvalidValueError, match="zone"):
        found(after=datetime(2026, 6, 1))  # noqa: DTZ001 - the naive time is what is tested


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+02:00", "9999-12-31T23:00:00-02:00"])
def test_the_ends_of_the_calendar_are_refused(archive: Archive, text: str) -> None:
    moment = datetime.fromisoformat(text)
    for bound in ("after", "before"):
        with (
            pytest.raises(InvalidValueError, match="year"),
            archive.store.reading() as session,
        ):
            embeddings.allowed_ids(session, archive.model_id, **{bound: moment})


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    after_us=st.none() | st.integers(-200_000_000_000, 200_000_000_000),
    before_us=st.none() | st.integers(-200_000_000_000, 200_000_000_000),
)
def test_the_filter_agrees_with_its_definition(
    days: tuple[Archive, list[tuple[int, timedelta]]],
    after_us: int | None,
    before_us: int | None,
) -> None:
    archive, known = days
    after = None if after_us is None else timedelta(microseconds=after_us)
    before = None if before_us is None else timedelta(microseconds=before_us)
    expected = [
        key
        for key, begin in known
        if (before is None or begin < before)
        and (after is None or begin + timedelta(seconds=10) > after)
    ]
    with archive.store.reading() as session:
        found = embeddings.allowed_ids(
            session,
            archive.model_id,
            after=None if after is None else NOON + after,
            before=None if before is None else NOON + before,
        )
    assert found.tolist() == expected


@pytest.fixture
def days(archive: Archive) -> tuple[Archive, list[tuple[int, timedelta]]]:
    """Recordings of two days and one that is longer than a day: (id, begin after NOON) each."""
    known = []
    for start_s in (-100_000.0, -40_000.0, 0.0, 50_000.0):
        begin = timedelta(seconds=start_s)
        recording_id = archive.recording(NOON + begin)
        for offset_s in (0.0, 3_600.3, 86_400.0, 90_000.1):
            row = rows(1)[0]
            window = WindowRow(offset_s, offset_s + 10.0, {}, row.vector, row.frames)
            [key] = archive.add(recording_id, [window])
            known.append((key, begin + timedelta(seconds=offset_s)))
    return archive, known


@settings(max_examples=30)
@given(
    arrays.arrays(
        np.float32,
        arrays.array_shapes(min_dims=2, max_dims=2, max_side=20),
        elements=st.floats(-1, 1, width=32),
    )
)
def test_vectors_and_frames_survive_their_encoding(values: np.ndarray) -> None:
    blobs = [embeddings.encode_vector(row) for row in values]
    np.testing.assert_array_equal(embeddings.decode_vectors(blobs), values)
    # Little-endian on every machine.
    assert np.frombuffer(blobs[0], "<f4")[0] == values[0, 0]
    blob = embeddings.encode_frames(embeddings.quantise_frames(values))
    restored = embeddings.decode_frames(blob, values.shape[1]) / embeddings.FRAME_SCALE
    assert np.abs(restored - values).max() <= 0.5 / embeddings.FRAME_SCALE + 1e-6


# --- deleting ---------------------------------------------------------------------------------


def test_deleting_a_recording_leaves_only_tombstones(archive: Archive) -> None:
    doomed, kept = archive.recording(), archive.recording()
    first = archive.add(doomed, rows(3))
    others = archive.add(kept, rows(2))
    last = archive.add(doomed, rows(2, first=3))
    with archive.store.session() as session:
        assert recordings.remove(session, doomed) is None
    with archive.store.reading() as session:
        assert embeddings.allowed_ids(session, archive.model_id).tolist() == others
        assert session.scalar(select(func.count(Window.id))) == 2
        assert session.scalar(select(func.count(Tag.id))) == 4
        deleted = embeddings.tombstones(session, archive.model_id)
        assert deleted.embedding_ids.tolist() == first + last
        assert embeddings.tombstones(session, archive.model_id + 1).embedding_ids.size == 0
    # An index that has read these asks only for newer ones, whatever their embedding ids.
    with archive.store.session() as session:
        recordings.remove(session, kept)
    with archive.store.reading() as session:
        newer = embeddings.tombstones(session, archive.model_id, deleted.last_id)
        assert newer.embedding_ids.tolist() == others
        assert embeddings.tombstones(session, archive.model_id, newer.last_id).last_id == (
            newer.last_id
        )


def test_an_id_that_was_deleted_never_comes_back(archive: Archive) -> None:
    recording_id = archive.recording()
    ids = archive.add(recording_id, rows(3))
    with archive.store.session() as session:
        recordings.remove(session, recording_id)
    again = archive.add(archive.recording(), rows(3))
    assert min(again) > max(ids)


def test_ids_become_visible_in_their_order(archive: Archive) -> None:
    """Whoever has seen id N must never find a lower one later: it would miss it for ever."""
    first, second = archive.recording(), archive.recording()
    done = threading.Event()

    def write_second() -> None:
        archive.add(second, rows(2))
        done.set()

    with archive.store.session() as session:
        ids = windows.add_batch(session, first, archive.model_id, rows(2)).tolist()
        writer = threading.Thread(target=write_second)
        writer.start()
        # The second writer must not get through before this transaction ends.
        assert not done.wait(0.3)
        with archive.store.reading() as reader:
            assert embeddings.high_watermark(reader, archive.model_id) == 0
    writer.join()
    with archive.store.reading() as reader:
        assert embeddings.allowed_ids(reader, archive.model_id).tolist()[:2] == ids
        assert embeddings.count(reader, archive.model_id) == 4

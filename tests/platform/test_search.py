"""A search finds the moment, judges it, merges what belongs together, and admits to nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from soundpost.archive.clips import Stretch, parse_stretch, write_clip
from soundpost.archive.discover import Selection, find_files
from soundpost.archive.ingest import ingest
from soundpost.archive.plan import IngestOptions, Timing
from soundpost.archive.search import (
    SearchOptions,
    SearchResult,
    example_from_embedding,
    example_from_file,
    search_similar,
    search_text,
)
from soundpost.errors import (
    EmptyArchiveError,
    InvalidValueError,
    NoSamplesError,
    NotAudioError,
    OutputExistsError,
    UnknownSourceError,
    UnknownWindowError,
)
from soundpost.models.placeholder import ToneEncoder
from soundpost.store import embeddings, recordings
from soundpost.store.session import Store
from soundpost_indexer.exact import ExactIndex

RATE_HZ = 16_000
BERLIN = ZoneInfo("Europe/Berlin")


@dataclass
class Archive:
    """A searchable archive."""

    store: Store
    index: ExactIndex
    folder: Path

    def search(self, text: str, **options: object) -> SearchResult:
        """Search it by text."""
        return search_text(
            text,
            SearchOptions(**options),  # type: ignore[arg-type]
            self.store,
            ToneEncoder(),
            self.index,
        )

    def similar(self, path: Path, start_s: float, end_s: float, known: int | None) -> SearchResult:
        """Search it by an example."""
        example = example_from_file(path, ToneEncoder(), start_s, end_s, known)
        return search_similar(example, SearchOptions(), self.store, ToneEncoder(), self.index)


def tones(*parts: tuple[float, float]) -> NDArray[np.float32]:
    """Sines one after the other: (pitch in Hz, seconds); a pitch of 0 is silence."""
    return np.concatenate(
        [
            0.3 * np.sin(2 * np.pi * hz * np.arange(round(length_s * RATE_HZ)) / RATE_HZ)
            for hz, length_s in parts
        ]
    ).astype(np.float32)


@pytest.fixture
def archive(sqlite_store: Store, tmp_path: Path) -> Archive:
    """Two sources: a field with times of day, a hall without."""
    field, hall = tmp_path / "field", tmp_path / "hall"
    field.mkdir()
    hall.mkdir()
    pieces = {
        field / "20260715_043000.wav": tones((200, 21), (1000, 3), (200, 16)),
        field / "20260715_053000.wav": tones((1000, 30)),
        hall / "mixed.wav": tones((3000, 8), (0, 20), (3000, 8)),
        hall / "low.wav": tones((100, 6)),
    }
    for path, wave in pieces.items():
        soundfile.write(path, wave, RATE_HZ, subtype="PCM_16")
    index = ExactIndex(32)
    for folder, timing in ((field, Timing(from_name=True, zone=BERLIN)), (hall, Timing())):
        zone = "Europe/Berlin" if folder == field else None
        options = IngestOptions(source=folder.name, timing=timing, timezone=zone)
        found = find_files([folder], Selection())
        assert not ingest(found, options, sqlite_store, ToneEncoder(), index).failed
    return Archive(sqlite_store, index, tmp_path)


def test_a_hit_says_where_and_when_to_the_second(archive: Archive) -> None:
    result = archive.search("1000 hz tone", source="field")
    hits = {Path(hit.path).name: hit for hit in result.hits}
    hit = hits["20260715_043000.wav"]
    assert (hit.start_s, hit.end_s) == (21.0, 24.0)
    assert 21.0 <= hit.peak_s < 24.0
    expected = datetime(2026, 7, 15, 2, 30, tzinfo=UTC) + timedelta(seconds=hit.peak_s)
    assert hit.at == expected
    assert hit.at is not None and hit.at.utcoffset() == timedelta(hours=2)
    assert hit.source == "field"
    assert 0.3 <= hit.relevance <= 1.0
    assert hit.tags[0][0] == "tone"


def test_neighbouring_windows_are_one_hit_with_the_best_score(archive: Archive) -> None:
    best = archive.search("1000 hz").hits[0]
    assert Path(best.path).name == "20260715_053000.wav"
    assert (best.start_s, best.end_s) == (0.0, 30.0)
    assert len([hit for hit in archive.search("1000 hz").hits if hit.path == best.path]) == 1


def test_separate_moments_of_a_recording_are_separate_hits(archive: Archive) -> None:
    hits = archive.search("3000 hz").hits
    assert sorted((hit.start_s, hit.end_s) for hit in hits) == [(0.0, 8.0), (28.0, 36.0)]


def test_merging_does_not_cost_hits(archive: Archive) -> None:
    assert len(archive.search("1000 hz", k=2).hits) == 2
    assert len(archive.search("1000 hz", k=1).hits) == 1


def test_hits_come_best_first(archive: Archive) -> None:
    scores = [hit.relevance for hit in archive.search("200 hz", min_score=0.0, k=50).hits]
    assert len(scores) > 3
    assert scores == sorted(scores, reverse=True)


def test_nothing_relevant_is_no_hit_but_how_far_it_was(archive: Archive) -> None:
    result = archive.search("a church choir")
    assert result.hits == ()
    assert result.nearest is not None and result.nearest.relevance < 0.3
    assert result.searched == len(archive.index)
    assert archive.search("a church choir", min_score=0.0).hits


def test_filters_by_source_and_time(archive: Archive) -> None:
    def names(**options: object) -> set[str]:
        return {Path(hit.path).name for hit in archive.search("1000 hz", **options).hits}

    five = datetime(2026, 7, 15, 5, 0, tzinfo=BERLIN)
    assert names(source="hall") == set()
    assert names(after=five) == {"20260715_053000.wav"}
    assert names(before=five) == {"20260715_043000.wav"}
    assert names(after=five + timedelta(days=1)) == set()
    assert archive.search("1000 hz", after=five + timedelta(days=1)).searched == 0


def test_time_filters_look_at_windows_not_at_recordings(archive: Archive) -> None:
    moment = datetime(2026, 7, 15, 4, 30, 30, tzinfo=BERLIN)
    assert archive.search("1000 hz", after=moment, before=moment + timedelta(minutes=5)).hits == ()


@pytest.mark.parametrize(
    "options",
    [{"k": 0}, {"k": -1}, {"min_score": -0.1}, {"min_score": 1.1}, {"min_score": float("nan")}],
)
def test_options_out_of_range_are_refused(archive: Archive, options: dict[str, float]) -> None:
    with pytest.raises(InvalidValueError):
        archive.search("1000 hz", **options)


def test_a_time_that_ends_before_it_begins_is_refused(archive: Archive) -> None:
    noon = datetime(2026, 7, 15, 12, tzinfo=UTC)
    with pytest.raises(InvalidValueError):
        archive.search("1000 hz", after=noon, before=noon)


@pytest.mark.parametrize("text", ["", " \t\n", "x" * 1001])
def test_an_empty_or_endless_text_is_refused(archive: Archive, text: str) -> None:
    with pytest.raises(InvalidValueError):
        archive.search(text)


def test_an_unknown_source_is_an_error(archive: Archive) -> None:
    with pytest.raises(UnknownSourceError):
        archive.search("1000 hz", source="nowhere")


def test_an_empty_archive_is_an_error_with_a_remedy(sqlite_store: Store) -> None:
    with pytest.raises(EmptyArchiveError) as caught:
        search_text("a dog", SearchOptions(), sqlite_store, ToneEncoder(), ExactIndex(32))
    assert "soundpost ingest" in caught.value.remedy


def test_a_deleted_recording_is_never_found(archive: Archive) -> None:
    (best, *_) = archive.search("1000 hz").hits
    with archive.store.session() as session:
        recordings.remove(session, best.recording_id)
    assert best.path not in {hit.path for hit in archive.search("1000 hz").hits}


def test_an_example_finds_its_like_and_not_itself(archive: Archive) -> None:
    path = archive.folder / "field" / "20260715_043000.wav"
    with archive.store.reading() as session:
        known = recordings.by_path(session, str(path))
    assert known is not None
    result = archive.similar(path, 21.0, 24.0, known.id)
    assert Path(result.hits[0].path).name == "20260715_053000.wav"
    assert result.hits[0].relevance > 0.9
    assert all(
        hit.recording_id != known.id or hit.end_s <= 21.0 or hit.start_s >= 24.0
        for hit in result.hits
    )


def test_an_example_from_outside_finds_the_recording_itself(archive: Archive) -> None:
    path = archive.folder / "outside.wav"
    soundfile.write(path, tones((100, 3)), RATE_HZ)
    assert Path(archive.similar(path, 0.0, 3.0, None).hits[0].path).name == "low.wav"


def test_an_example_past_the_end_is_an_error(archive: Archive) -> None:
    with pytest.raises(NoSamplesError):
        archive.similar(archive.folder / "hall" / "low.wav", 100.0, 110.0, None)


def test_a_result_is_json_ready(archive: Archive) -> None:
    document = json.loads(json.dumps(archive.search("1000 hz").to_document(), allow_nan=False))
    assert document["hits"][0]["relevance"] > 0.3
    assert document["hits"][0]["at"].startswith("2026-07-15T")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rain.wav", Stretch("rain.wav")),
        ("rain.wav@5-10", Stretch("rain.wav", 5.0, 10.0)),
        ("rain.wav@1:05-1:12.5", Stretch("rain.wav", 65.0, 72.5)),
        ("rain.wav@1:00:05-", Stretch("rain.wav", 3605.0)),
        ("rain.wav@-10", Stretch("rain.wav", 0.0, 10.0)),
        ("me@home.wav@5-10", Stretch("me@home.wav", 5.0, 10.0)),
        ("#12@5-10", Stretch("#12", 5.0, 10.0)),
        ("12", Stretch("12")),
    ],
)
def test_parts_are_read_as_people_write_them(text: str, expected: Stretch) -> None:
    assert parse_stretch(text) == expected


@pytest.mark.parametrize("text", ["a.wav@", "a.wav@5", "a.wav@10-5", "a.wav@5-5", "@5-10", "a@x-y"])
def test_parts_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(InvalidValueError):
        parse_stretch(text)


def test_a_name_is_an_id_only_if_no_file_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_stretch("#12@5-10").recording_id == 12
    assert parse_stretch("12").recording_id == 12
    assert parse_stretch("12.wav").recording_id is None
    Path("12").touch()
    assert parse_stretch("12").recording_id is None


def test_a_file_whose_name_looks_like_a_part_is_taken_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("take@1-2").touch()
    assert parse_stretch("take@1-2") == Stretch("take@1-2")


def test_a_clip_is_exact_to_the_sample(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    wave = rng.integers(-30_000, 30_000, 44_100 * 3, dtype=np.int16)
    soundfile.write(tmp_path / "in.wav", wave, 44_100)
    clip = write_clip(tmp_path / "in.wav", tmp_path / "out.wav", 0.5, 1.25)
    cut, rate_hz = soundfile.read(tmp_path / "out.wav", dtype="int16")
    assert (rate_hz, clip.samples) == (44_100, 33_075)
    np.testing.assert_array_equal(cut, wave[22_050:55_125])


def test_a_whole_recording_is_a_clip_too(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "in.wav", np.zeros(1000, np.int16), 8_000)
    assert write_clip(tmp_path / "in.wav", tmp_path / "out.flac").samples == 1000


def test_a_clip_never_overwrites_unasked_nor_leaves_half_a_file(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "in.wav", np.zeros(8000, np.int16), 8_000)
    out = tmp_path / "out.wav"
    out.write_bytes(b"precious")
    with pytest.raises(OutputExistsError):
        write_clip(tmp_path / "in.wav", out)
    with pytest.raises(NoSamplesError):
        write_clip(tmp_path / "in.wav", out, 5.0, 6.0, force=True)
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(NotAudioError):
        write_clip(tmp_path / "text.wav", out, force=True)
    assert out.read_bytes() == b"precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.wav", "out.wav", "text.wav"]
    assert write_clip(tmp_path / "in.wav", out, 0.0, 0.5, force=True).samples == 4000


@pytest.mark.parametrize("name", ["out.mp3", "out", "missing/out.wav"])
def test_a_clip_that_cannot_be_written_is_an_error(tmp_path: Path, name: str) -> None:
    soundfile.write(tmp_path / "in.wav", np.zeros(8000, np.int16), 8_000)
    with pytest.raises(InvalidValueError):
        write_clip(tmp_path / "in.wav", tmp_path / name)


def test_an_opus_clip_sounds_the_same_for_the_same_time(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "in.wav", tones((1000, 25)), RATE_HZ)
    clip = write_clip(tmp_path / "in.wav", tmp_path / "out.opus", 1.0, 22.5)
    wave, rate_hz = soundfile.read(tmp_path / "out.opus")
    assert (rate_hz, len(wave)) == (48_000, round(21.5 * 48_000))
    assert clip.duration_s == 21.5
    spectrum = np.abs(np.fft.rfft(wave))
    assert np.argmax(spectrum) * rate_hz / len(wave) == pytest.approx(1000, abs=1)
    assert np.sqrt(np.mean(wave**2)) == pytest.approx(0.3 / np.sqrt(2), rel=0.05)


def test_an_example_can_be_a_window_that_is_embedded_already(archive: Archive) -> None:
    with archive.store.reading() as session:
        path = archive.folder / "hall" / "low.wav"
        known = recordings.by_path(session, str(path))
        assert known is not None
        first = int(embeddings.ids_of(session, known.id)[0])
    example = example_from_embedding(first, ToneEncoder(), archive.store)
    heard = example_from_file(path, ToneEncoder(), 0.0, 4.0)
    np.testing.assert_allclose(example.vector, heard.vector, atol=1e-6)
    assert (example.recording_id, example.start_s, example.end_s) == (known.id, 0.0, 4.0)
    with pytest.raises(UnknownWindowError):
        example_from_embedding(10**9, ToneEncoder(), archive.store)

"""Captions in a search: words beside sound, one ranking of both, and the floor of relevance holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from sqlalchemy import select

from soundpost.archive.caption_search import RRF_K, fuse
from soundpost.archive.discover import Selection, find_files
from soundpost.archive.ingest import ingest
from soundpost.archive.plan import IngestOptions
from soundpost.archive.search import (
    SearchOptions,
    SearchResult,
    example_from_file,
    search_similar,
    search_text,
)
from soundpost.models.placeholder import ToneEncoder
from soundpost.store import captions, models, recordings
from soundpost.store.captions import Author, NewCaption
from soundpost.store.session import Store
from soundpost.store.tables import Recording, Window
from soundpost_indexer.exact import ExactIndex

RATE_HZ = 16_000
# One window of the stand-in.
LENGTH_S = 4
SOURCES = {"field": (1000.0, 3000.0), "hall": (200.0,)}


def tone(pitch_hz: float) -> NDArray[np.float32]:
    time_s = np.arange(LENGTH_S * RATE_HZ) / RATE_HZ
    return (0.3 * np.sin(2 * np.pi * pitch_hz * time_s)).astype(np.float32)


@dataclass
class Archive:
    """One five second recording a pitch, in two sources, on each database."""

    store: Store
    index: ExactIndex
    folder: Path

    def search(self, text: str, **options: object) -> SearchResult:
        """Search it by text."""
        chosen = SearchOptions(**options)  # type: ignore[arg-type]  # As the test says.
        return search_text(text, chosen, self.store, ToneEncoder(), self.index)

    def found(self, text: str, **options: object) -> list[tuple[str, tuple[str, ...]]]:
        """What a search finds: the file's name, and what found it."""
        hits = self.search(text, **options).hits
        return [(Path(hit.path).stem, hit.matched) for hit in hits]

    def caption(self, wordings: Mapping[str, str]) -> None:
        """Put recordings into words, by the names of their files."""
        spec = ToneEncoder().spec
        with self.store.session() as session:
            model = models.ensure(session, spec)
            author = Author(model.id, "fixed", "1")
            statement = select(Window.id, Recording.path).join(
                Recording, Recording.id == Window.recording_id
            )
            by_name = {Path(path).stem: key for key, path in session.execute(statement)}
            for name, wording in wordings.items():
                captions.save(session, author, {by_name[name]: [NewCaption(wording)]})


@pytest.fixture
def archive(store: Store, tmp_path: Path) -> Archive:
    index = ExactIndex(32)
    for source, pitches in SOURCES.items():
        folder = tmp_path / source
        folder.mkdir()
        for pitch_hz in pitches:
            soundfile.write(folder / f"{pitch_hz:.0f}.wav", tone(pitch_hz), RATE_HZ)
        found = find_files([folder], Selection())
        assert not ingest(found, IngestOptions(source=source), store, ToneEncoder(), index).failed
    return Archive(store, index, tmp_path)


def test_without_captions_a_search_is_by_sound_alone(archive: Archive) -> None:
    assert archive.found("1000 hz") == [("1000", ("sound",))]
    hit = archive.search("1000 hz").hits[0]
    assert hit.caption is None
    assert hit.to_document()["matched"] == ["sound"]


def test_a_hit_shows_its_caption_and_what_found_it(archive: Archive) -> None:
    archive.caption({"1000": "a whistle at 1000 hz", "3000": "a kettle"})
    hit = archive.search("1000 hz").hits[0]
    assert (hit.caption, hit.matched) == ("a whistle at 1000 hz", ("sound", "words"))
    assert archive.search("3000 hz").hits[0].caption == "a kettle"
    assert archive.search("3000 hz").hits[0].matched == ("sound",)


def test_words_alone_find_what_has_all_of_them_with_its_relevance_beside_it(
    archive: Archive,
) -> None:
    archive.caption({"3000": "a kettle whistles at 1000 hz", "200": "a motor hums at 50 hz"})
    found = archive.found("whistling kettle, 1000 hz")
    assert found == [("1000", ("sound",)), ("3000", ("words",))]
    hit = archive.search("whistling kettle, 1000 hz").hits[1]
    assert hit.relevance < 0.3
    assert -1.0 <= hit.similarity < 1.0
    assert hit.caption == "a kettle whistles at 1000 hz"
    # One word of two is no reason to show it, however low the floor of sound.
    assert archive.found("a humming kettle at 1000 hz") == [("1000", ("sound",))]


def test_nothing_heard_and_nothing_said_is_nothing_found(archive: Archive) -> None:
    archive.caption({"3000": "a kettle"})
    result = archive.search("an owl")
    assert result.hits == ()
    assert result.nearest is not None


def test_what_sound_and_words_agree_on_comes_first(archive: Archive) -> None:
    both = archive.found("1000 hz and 3000 hz", min_score=0.0)
    last = both[-1][0]
    archive.caption({last: "1000 hz and 3000 hz"})
    fused = archive.found("1000 hz and 3000 hz", min_score=0.0)
    assert fused[0] == (last, ("sound", "words"))
    assert {name for name, _ in fused} == {name for name, _ in both}


def test_filters_and_the_number_of_hits_hold_for_words_too(archive: Archive) -> None:
    archive.caption({"1000": "a kettle", "3000": "a kettle", "200": "a kettle"})
    assert len(archive.found("kettle")) == 3
    assert archive.found("kettle", source="hall") == [("200", ("words",))]
    assert len(archive.found("kettle", k=2)) == 2


def test_a_deleted_recording_is_not_found_by_its_words(archive: Archive) -> None:
    archive.caption({"200": "a kettle"})
    with archive.store.session() as session:
        number = next(r.id for r in recordings.find(session) if Path(r.path).stem == "200")
        recordings.remove(session, number)
    assert archive.found("kettle") == []


def test_a_search_by_example_shows_captions_and_asks_no_words(archive: Archive) -> None:
    archive.caption({"1000": "a whistle"})
    example = example_from_file(archive.folder / "field" / "1000.wav", ToneEncoder())
    result = search_similar(
        example, SearchOptions(k=1), archive.store, ToneEncoder(), archive.index
    )
    assert (result.hits[0].caption, result.hits[0].matched) == ("a whistle", ("sound",))


def test_fusion_is_the_sum_of_reciprocal_ranks() -> None:
    scores = fuse(["a", "b"], ["b", "c"])
    assert scores == pytest.approx(
        {
            "a": 1 / (RRF_K + 1),
            "b": 1 / (RRF_K + 2) + 1 / (RRF_K + 1),
            "c": 1 / (RRF_K + 2),
        }
    )
    assert fuse([], []) == {}

"""Searching over HTTP finds what searching in process finds, and gives up in time."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from soundpost.archive import search
from soundpost.archive.search import SearchOptions
from soundpost.errors import (
    BusyError,
    EmptyArchiveError,
    InvalidValueError,
    NoSamplesError,
    NotAudioError,
    SearchTimeoutError,
    UnknownRecordingError,
    UnknownSourceError,
    UnknownWindowError,
)
from soundpost.models.placeholder import ToneEncoder
from soundpost.store import recordings
from soundpost.store.session import Store

RATE_HZ = 16_000


def tones(*parts: tuple[float, float]) -> NDArray[np.float32]:
    waves = [
        0.3 * np.sin(2 * np.pi * hz * np.arange(round(length_s * RATE_HZ)) / RATE_HZ)
        for hz, length_s in parts
    ]
    return np.concatenate(waves).astype(np.float32)


@pytest.fixture
def filled(service: Any) -> Any:
    """A service with two sources of tones."""
    service.fill("hall", high=tones((3000, 8), (0, 20), (3000, 8)), low=tones((100, 6)))
    service.fill("field", walk=tones((200, 21), (1000, 3), (200, 16)), tone=tones((1000, 30)))
    return service


def test_a_text_finds_what_it_finds_in_process(filled: Any) -> None:
    found = filled.client.search_text("1000 hz tone", k=5)
    expected = search.search_text(
        "1000 hz tone", SearchOptions(k=5), filled.store, ToneEncoder(), filled.index
    )
    wanted = expected.to_document()
    document = found.model_dump(mode="json", exclude={"took_s"})
    assert document == wanted
    assert len(found.hits) == 2
    assert found.took_s > 0


def test_filters_narrow_a_search(filled: Any) -> None:
    with filled.store.session() as session:
        (tone,) = [row for row in recordings.find(session) if row.path.endswith("tone.wav")]
        recordings.describe(session, tone.id, started_at=datetime(2026, 7, 15, 3, tzinfo=UTC))
    client = filled.client
    assert client.search_text("1000 hz", source="hall").hits == []
    assert client.search_text("1000 hz", source="field", min_score=0.0, k=50).hits
    (hit,) = client.search_text("1000 hz", after=datetime(2026, 7, 15, tzinfo=UTC)).hits
    assert (hit.recording_id, hit.at.date().isoformat()) == (tone.id, "2026-07-15")
    assert client.search_text("1000 hz", before=datetime(2026, 7, 15, tzinfo=UTC)).hits == []
    assert len(client.search_text("1000 hz", k=1).hits) == 1


def test_nothing_found_says_how_far_it_was(filled: Any) -> None:
    result = filled.client.search_text("a church choir")
    assert result.hits == []
    assert result.nearest is not None and result.nearest.relevance < result.min_score


def test_an_example_finds_its_like(filled: Any) -> None:
    path = filled.folder / "example.wav"
    soundfile.write(path, tones((100, 3), (1000, 4)), RATE_HZ)
    names = [Path(hit.path).name for hit in filled.client.search_audio(path, end_s=3.0).hits]
    assert names == ["low.wav"]
    found = filled.client.search_audio(path, start_s=3.0, k=1, source="field")
    assert Path(found.hits[0].path).name == "tone.wav"
    assert filled.left_behind() == []


def test_a_window_finds_its_like_and_not_itself(filled: Any) -> None:
    rows = {Path(row.path).name: row.id for row in filled.client.recordings()}
    windows = list(filled.client.windows(rows["walk.wav"], page_size=3))
    assert [window.start_s for window in windows] == [2.0 * i for i in range(len(windows))]
    (inside,) = [window for window in windows if window.start_s == 20.0]
    assert inside.tags[0].label == "tone"
    assert "level_dbfs" in inside.acoustics
    by_id = filled.client.search_window(embedding_id=inside.embedding_id, k=1, min_score=0.5)
    assert by_id.hits[0].recording_id != rows["walk.wav"] or by_id.hits[0].start_s != 20.0
    found = filled.client.search_window(recording_id=rows["walk.wav"], start_s=21.0, end_s=24.0)
    assert found.hits[0].recording_id == rows["tone.wav"]


def test_a_deleted_recording_is_found_no_more(filled: Any) -> None:
    (best, *_) = filled.client.search_text("1000 hz").hits
    filled.client.delete(best.recording_id)
    assert best.recording_id not in {
        h.recording_id for h in filled.client.search_text("1000 hz").hits
    }
    with pytest.raises(UnknownRecordingError):
        filled.client.delete(best.recording_id)


def test_what_cannot_be_searched_is_an_error_of_its_class(filled: Any) -> None:
    client = filled.client
    text = filled.folder / "words.txt"
    text.write_text("only words")
    with pytest.raises(UnknownSourceError) as caught:
        client.search_text("1000 hz", source="nowhere")
    assert caught.value.value == "nowhere"
    with pytest.raises(NotAudioError):
        client.search_audio(text)
    with pytest.raises(NoSamplesError):
        client.search_audio(filled.folder / "hall" / "low.wav", start_s=100.0)
    with pytest.raises(UnknownWindowError):
        client.search_window(embedding_id=10**6)
    with pytest.raises(UnknownRecordingError):
        client.search_window(recording_id=10**6)
    for query in ({}, {"embedding_id": 1, "recording_id": 1}):
        with pytest.raises(InvalidValueError):
            client.search_window(**query)
    for bad in ({"k": 0}, {"k": 1001}, {"min_score": 1.5}, {"min_score": -0.1}):
        with pytest.raises(InvalidValueError):
            client.search_text("1000 hz", **bad)
    noon = datetime(2026, 7, 15, 12, tzinfo=UTC)
    with pytest.raises(InvalidValueError):
        client.search_text("1000 hz", after=noon, before=noon)
    for words in ("", "  \n", "x" * 1001):
        with pytest.raises(InvalidValueError):
            client.search_text(words)


def test_an_empty_archive_says_what_to_do(sqlite_service: Any) -> None:
    with pytest.raises(EmptyArchiveError) as caught:
        sqlite_service.client.search_text("a dog")
    assert "POST /v1/recordings" in caught.value.remedy


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'{"text": 5}',
        b'{"text": "a", "after": "2026-07-15T12:00:00"}',
        b'{"text": "a", "after": 1752580800}',
        b'{"text": "a", "min_score": NaN}',
        b'{"text": "a", "colour": "blue"}',
        b'{"text": "\\ud800"}',
        b"\xff\xfe",
        b"",
    ],
)
def test_a_body_that_makes_no_sense_is_refused(sqlite_service: Any, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = httpx.post(
        f"{sqlite_service.url}/v1/search/text", content=body, headers=headers, timeout=60
    )
    assert answer.status_code in (400, 422)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["code"] in ("malformed-request", "invalid-value")


def test_a_body_that_is_too_large_is_413(sqlite_service: Any) -> None:
    answer = httpx.post(
        f"{sqlite_service.url}/v1/search/text", json={"text": "x" * 100_000}, timeout=60
    )
    assert (answer.status_code, answer.json()["code"]) == (413, "upload-too-large")


class SlowEncoder(ToneEncoder):
    """Embeds texts when it is let."""

    def __init__(self) -> None:
        self.let = threading.Event()
        self.asked = threading.Semaphore(0)

    def embed_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Wait, unless the text is one of the readiness check."""
        self.asked.release()
        assert self.let.wait(60)
        return super().embed_text(texts)


@pytest.fixture
def slow(start_service: Any, sqlite_store: Store) -> Iterator[Any]:
    """A service whose encoder hangs until it is let."""
    encoder = SlowEncoder()
    service = start_service(
        sqlite_store, encoder, search_timeout_s=30.0, search_threads=1, search_waiting=1
    )
    service.fill(tone=tones((1000, 6)))
    yield service, encoder
    encoder.let.set()


def test_a_search_that_takes_too_long_is_answered_in_time(slow: Any) -> None:
    service, encoder = slow
    with pytest.raises(SearchTimeoutError) as caught:
        service.client.search_text("1000 hz", timeout_s=0.05)
    assert caught.value.value == "0.05 s"
    encoder.let.set()
    assert service.client.search_text("1000 hz").hits


def test_too_many_searches_are_turned_away_at_once(slow: Any) -> None:
    service, encoder = slow
    with ThreadPoolExecutor(10) as pool:
        asked = [pool.submit(service.client.search_text, "1000 hz") for _ in range(10)]
        refused = list(islice(as_completed(asked, timeout=30), 8))
        assert {type(future.exception()) for future in refused} == {BusyError}
        encoder.let.set()
        # One was being worked on and one waited for its turn.
        served = set(asked) - set(refused)
        assert all(future.result(30).hits for future in served)


def test_a_slow_search_does_not_hold_up_the_rest(slow: Any) -> None:
    service, encoder = slow
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(service.client.search_text, "1000 hz")
        assert encoder.asked.acquire(timeout=20)
        assert service.client.health().status == "ok"
        assert len(list(service.client.recordings())) == 1
        assert not waiting.done()
        encoder.let.set()
        assert waiting.result(30).hits


def test_fifty_searchers_at_once_all_get_their_answer(sqlite_service: Any) -> None:
    sqlite_service.fill(tone=tones((1000, 30)), low=tones((200, 30)))
    with ThreadPoolExecutor(50) as pool:
        texts = ["1000 hz" if number % 2 else "200 hz" for number in range(100)]
        results = list(pool.map(sqlite_service.client.search_text, texts))
    names = [Path(result.hits[0].path).stem for result in results]
    assert names == ["tone" if number % 2 else "low" for number in range(100)]

"""Reranking over HTTP is that of the search in process, and says the same of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from soundpost.archive import rerank
from soundpost.archive.rerank import NO_SECOND_STAGE, SecondStage
from soundpost.archive.search import SearchOptions, search_text
from soundpost.errors import InvalidValueError
from soundpost.models.placeholder import ToneEncoder
from soundpost.service import schemas
from soundpost.store.session import Store

RATE_HZ = 16_000
QUERY = "1000 hz before 200 hz"


def tones(*parts: tuple[float, float]) -> NDArray[np.float32]:
    waves = [
        0.3 * np.sin(2 * np.pi * hz * np.arange(round(length_s * RATE_HZ)) / RATE_HZ)
        for hz, length_s in parts
    ]
    return np.concatenate(waves).astype(np.float32)


def fill(service: Any) -> None:
    service.fill(
        "hall",
        low_first=tones((200, 4), (0, 2), (1000, 4)),
        high_first=tones((1000, 4), (0, 2), (200, 4)),
        high=tones((1000, 6)),
    )


@pytest.fixture
def filled(start_service: Any, sqlite_store: Store, order_reranker: Any) -> Any:
    """A service that reranks."""
    stage = SecondStage(order_reranker, budget_s=30.0, threads=4)
    service = start_service(sqlite_store, second_stage=stage)
    fill(service)
    yield service
    order_reranker.let.set()
    stage.close()


def names(result: schemas.SearchResult) -> list[str]:
    return [Path(hit.path).stem for hit in result.hits]


def test_a_text_is_reranked_as_it_is_in_process(filled: Any, order_reranker: Any) -> None:
    found = filled.client.search_text(QUERY, k=5, min_score=0.05)
    options = SearchOptions(k=5, min_score=0.05)
    stage = SecondStage(order_reranker, budget_s=30.0)
    expected = search_text(
        QUERY, options, filled.store, ToneEncoder(), filled.index, stage
    ).to_document()
    document = found.model_dump(mode="json", exclude={"took_s"})
    for answer in (document, expected):
        assert answer["rerank"].pop("took_s") > 0
    assert document == expected
    assert names(found)[0] == "high_first"
    assert found.rerank.applied and found.rerank.steps == 1
    stage.close()


def test_how_much_is_reranked_is_for_the_asker_to_say(filled: Any) -> None:
    client = filled.client
    off = client.search_text(QUERY, min_score=0.05, rerank="off")
    assert (off.rerank.applied, off.rerank.reason) == (False, "off")
    assert all(hit.joint_probability is None for hit in off.hits)
    some = client.search_text(QUERY, min_score=0.05, rerank=2)
    assert some.rerank.candidates == 2
    assert sum(hit.joint_probability is not None for hit in some.hits) == 2
    assert len(some.hits) == len(off.hits)


@pytest.mark.parametrize("value", [0, -1, 1001, True, "all", "64", 2.5, None, [1], {}])
def test_a_number_out_of_range_is_refused(filled: Any, value: Any) -> None:
    with pytest.raises(InvalidValueError) as caught:
        filled.client.search_text(QUERY, rerank=value)
    assert "rerank" in str(caught.value.value)


def test_only_texts_are_reranked(filled: Any) -> None:
    rows = list(filled.client.recordings())
    found = filled.client.search_window(recording_id=rows[0].id, min_score=0.0)
    assert (found.rerank.applied, found.rerank.reason) == (False, "by-example")
    body = {"recording_id": rows[0].id, "rerank": 5}
    answer = httpx.post(f"{filled.url}/v1/search/window", json=body, timeout=60)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-value")


@pytest.mark.parametrize("text", ["x" * 10_000, "🌧" * 10_000, " \n"])
def test_texts_that_cannot_be_searched_are_refused(
    filled: Any, order_reranker: Any, text: str
) -> None:
    with pytest.raises(InvalidValueError):
        filled.client.search_text(text)
    assert order_reranker.asked == []


@pytest.mark.parametrize("text", ["雨の音", "صوت المطر", "🐶🔊"])
def test_any_script_is_a_query(filled: Any, text: str) -> None:
    found = filled.client.search_text(f"{text} before {text}", min_score=0.0)
    assert found.hits and found.rerank.applied


def test_a_reranker_that_hangs_costs_its_budget_and_no_answer(
    start_service: Any, sqlite_store: Store, order_reranker: Any
) -> None:
    stage = SecondStage(order_reranker, budget_s=0.02)
    service = start_service(sqlite_store, second_stage=stage)
    fill(service)
    order_reranker.let.clear()
    for _ in range(5):
        found = service.client.search_text(QUERY, min_score=0.05)
        assert found.hits
        assert (found.rerank.applied, found.rerank.reason) == (False, "rerank-timeout")
    order_reranker.let.set()
    stage.close()


def test_a_service_without_one_says_so(start_service: Any, sqlite_store: Store) -> None:
    service = start_service(sqlite_store, second_stage=NO_SECOND_STAGE)
    fill(service)
    found = service.client.search_text(QUERY, min_score=0.05, rerank=20)
    assert (found.rerank.applied, found.rerank.reason) == (False, "no-reranker")
    assert found.hits


def test_the_metrics_tell_how_reranking_goes(filled: Any) -> None:
    filled.client.search_text(QUERY, min_score=0.05)
    filled.client.search_text(QUERY, min_score=0.05, rerank="off")
    told = filled.client.metrics()
    assert 'soundpost_rerank_seconds_count{outcome="ok"} 1.0' in told
    assert 'soundpost_rerank_seconds_count{outcome="off"} 1.0' in told


def test_client_and_search_have_the_same_bounds() -> None:
    assert schemas.MOST_RERANKED == rerank.MOST_CANDIDATES

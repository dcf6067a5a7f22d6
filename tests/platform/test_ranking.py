"""What a ranking is worth, against the definitions, and how a weight is chosen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.evaluation.metrics import average_precision_at
from soundpost.evaluation.retrieval_tables import difference
from soundpost.training.ranking import (
    Case,
    Judged,
    Reading,
    by_similarity,
    choose_reading,
    judge_all,
)


def relevant_in(rng: np.random.Generator, queries: int, items: int) -> list[np.ndarray]:
    return [
        np.sort(rng.choice(items, int(rng.integers(1, 14)), replace=False)) for _ in range(queries)
    ]


@given(st.integers(0, 1_000), st.sampled_from([0.0, 0.3, 5.0]))
def test_recall_and_precision_are_those_of_the_whole_ranking(seed: int, weight: float) -> None:
    rng = np.random.default_rng(seed)
    similarities = rng.random((5, 40)).astype(np.float32)
    relevant = relevant_in(rng, 5, 40)
    opinions = rng.dirichlet(np.ones(40), 5).astype(np.float32)
    judged = judge_all(similarities, 40, lambda query, rows, _: opinions[query, rows])
    ranked = judged.ranked(relevant, Reading(1.0, weight))
    for query, wanted in enumerate(relevant):
        scores = similarities[query] + np.float32(weight) * opinions[query]
        is_wanted = np.isin(np.arange(40), wanted)
        precision = average_precision_at(scores, is_wanted, 10)
        assert ranked.precision()[query] == pytest.approx(precision)
        order = np.argsort(-scores)
        for k in (1, 5, 10):
            assert ranked.recall(k)[query] == is_wanted[order[:k]].any()


def test_a_second_stage_sees_no_more_than_the_first_proposes() -> None:
    similarities = np.linspace(1, 0, 100, dtype=np.float32)[None]
    seen = []
    judge_all(similarities, 16, lambda _, rows, best: seen.append(rows.tolist()) or best)
    assert seen == [list(range(16))]


def case_of(right: list[bool], opinion: float) -> Case:
    """Two candidates a query: the first is more similar by 0.1, the second is judged `opinion`."""
    count = len(right)
    rows = np.tile(np.arange(2), (count, 1))
    similarities = np.tile(np.array([0.5, 0.4], np.float32), (count, 1))
    probabilities = np.tile(np.array([1 - opinion, opinion], np.float32), (count, 1))
    relevant = [np.array([0 if first else 1]) for first in right]
    counts = np.ones(count, np.float32)
    return Case(Judged(rows, similarities, probabilities, counts), relevant)


def test_a_second_stage_is_heard_where_it_helps() -> None:
    chosen = choose_reading(case_of([False] * 8 + [True] * 2, 0.9), [])
    assert chosen.weight > 0.1
    assert case_of([False], 0.9).ranked(chosen).recall(1).all()


def test_nothing_is_chosen_that_costs_another_set_something() -> None:
    helped, harmed = case_of([False] * 10, 0.9), case_of([True] * 10, 0.9)
    assert harmed.ranked(choose_reading(helped, [harmed])).recall(1).all()


def test_a_second_stage_that_knows_nothing_is_not_heard() -> None:
    assert choose_reading(case_of([True] * 10, 0.9), []) == Reading()


def test_what_does_not_count_changes_nothing() -> None:
    """A query that claims nothing is ordered by similarity, one that half counts has half the weight."""
    judged = replace(case_of([True] * 3, 0.9).judged, counts=np.array([0.0, 0.5, 1.0], np.float32))
    relevant = [np.array([0])] * 3
    assert judged.ranked(relevant, Reading(1.0, 0.2)).recall(1).tolist() == [1.0, 1.0, 0.0]


def test_a_higher_temperature_makes_probabilities_more_alike() -> None:
    judged = case_of([True], 0.9).judged
    assert judged.tempered(1.0)[0] == pytest.approx([0.1, 0.9])
    odds = judged.tempered(2.0)[0]
    assert odds[1] / odds[0] == pytest.approx(3.0)
    assert odds.sum() == pytest.approx(1.0)


def test_the_difference_of_pairs_is_narrower_than_the_values() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(300)
    values, beside = (hard < 0.6).astype(float), (hard < 0.5).astype(float)
    case = case_of([True] * 300, 0.5)
    found = difference(values, beside, case)
    assert found.mean == pytest.approx((values - beside).mean())
    assert found.low <= found.mean <= found.high
    assert found.high - found.low < 0.1


def test_similarity_alone_ranks_by_similarity() -> None:
    similarities = np.random.default_rng(1).random((3, 50)).astype(np.float32)
    judged = by_similarity(similarities)
    best = similarities.argmax(1)
    assert judged.ranked([np.array([row]) for row in best], Reading()).recall(1).all()

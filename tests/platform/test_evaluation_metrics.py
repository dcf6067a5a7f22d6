"""Measures against their definitions, written out the slow way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.config import load_settings
from soundpost.evaluation.metrics import (
    average_precision,
    average_precision_at,
    bootstrap,
    expected_calibration_error,
)
from soundpost.evaluation.paraphrases import CITY_PARAPHRASES, PARAPHRASES
from soundpost.training.data import captions, entailments
from soundpost.training.ontology import load_ontology
from soundpost.training.wordings import TEMPLATES, WORDINGS


def slow_average_precision(scores: list[float], relevant: list[bool], k: int) -> float:
    order = sorted(range(len(scores)), key=lambda index: (-scores[index], index))
    found, total = 0, 0.0
    for rank, index in enumerate(order[:k], start=1):
        if relevant[index]:
            found += 1
            total += found / rank
    return total / min(k, sum(relevant))


EVERY_PARAPHRASE = PARAPHRASES | CITY_PARAPHRASES


@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=1, max_size=30))
def test_average_precision_equals_its_definition(items: list[tuple[int, bool]]) -> None:
    scores, relevant = np.array([s for s, _ in items], float), np.array([r for _, r in items])
    if not relevant.any():
        assert np.isnan(average_precision_at(scores, relevant, 10))
        return
    for k, measured in (
        (10, average_precision_at(scores, relevant, 10)),
        (len(items), average_precision(scores, relevant)),
    ):
        expected = slow_average_precision([float(s) for s in scores], list(relevant), k)
        assert measured == pytest.approx(expected)


def test_perfect_and_worst_rankings() -> None:
    relevant = np.array([True, True, False, False])
    assert average_precision_at(np.array([4.0, 3.0, 2.0, 1.0]), relevant, 10) == 1.0
    assert average_precision_at(np.array([1.0, 2.0, 3.0, 4.0]), relevant, 2) == 0.0


def test_interval_holds_the_mean_and_is_wider_when_clips_come_in_groups() -> None:
    rng = np.random.default_rng(0)
    values = np.repeat(rng.integers(0, 2, 50), 8).astype(float)
    alone = bootstrap(values)
    grouped = bootstrap(values, np.repeat(np.arange(50), 8))
    assert alone.low <= alone.mean <= alone.high
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)


def test_calibration_error_is_zero_for_honest_and_large_for_boastful_scores() -> None:
    rng = np.random.default_rng(0)
    stated = rng.random(200_000)
    outcomes = rng.random(200_000) < stated
    assert expected_calibration_error(stated, outcomes) < 0.01
    assert expected_calibration_error(np.full(1_000, 0.9), np.zeros(1_000, bool)) > 0.85


def test_every_class_has_five_paraphrases_in_other_words() -> None:
    assert len(PARAPHRASES) == 50
    for label, phrases in EVERY_PARAPHRASE.items():
        assert len(set(phrases)) == 5
        words = {word for word in label.split("_") if len(word) > 2}
        shared = [p for p in phrases if words & set(p.lower().replace(",", "").split())]
        # A few classes have no other common word (water, saw); one phrase may keep it.
        assert len(shared) <= 1, (label, shared)


def test_no_paraphrase_is_a_training_wording() -> None:
    trained = {t.format(w).lower() for ws in WORDINGS.values() for w in ws for t in TEMPLATES}
    asked = {phrase.lower() for phrases in EVERY_PARAPHRASE.values() for phrase in phrases}
    assert not trained & asked


def test_no_paraphrase_is_in_the_training_data() -> None:
    data = load_settings().data
    if not (data / "text").is_dir():
        pytest.skip(f"no training data at {data}: set SOUNDPOST_DATA")
    names = [s for item in load_ontology(data) for s in (*item.synonyms, *item.descriptions)]
    read = {text.lower() for text in (*names, *captions(data), *entailments(data))}
    asked = {phrase.lower() for phrases in EVERY_PARAPHRASE.values() for phrase in phrases}
    assert not read & asked

"""A gate learns which texts claim order, time or loudness, and lets all through before that."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from soundpost.models.claim_gate import ClaimGate
from soundpost.models.placeholder import ToneEncoder
from soundpost.models.retrieval_set import TextSet, read_texts
from soundpost.training.claim_gate import (
    FALSE_CLAIMS,
    ClaimTexts,
    compose_claim_texts,
    fit_gate,
)

CAPTIONS = tuple(f"a {size} {thing} hums" for size in ("small", "big") for thing in "abcdefg")


def worded(texts: list[str]) -> TextSet:
    """Texts as states that say for each word what it is, and nothing of its neighbours."""
    words = [text.lower().replace(",", " ,").split() for text in texts]
    longest = max(map(len, words))
    tokens = np.zeros((len(texts), longest, 48), np.float32)
    for row, line in enumerate(words):
        for place, word in enumerate(line):
            seed = sum(ord(letter) * 31**at for at, letter in enumerate(word))
            tokens[row, place] = np.random.default_rng(seed % 2**32).standard_normal(48)
    lengths = np.array([len(line) for line in words], np.int64)
    return TextSet(tuple(texts), np.zeros((len(texts), 4), np.float32), tokens, lengths)


def logits(gate: ClaimGate, texts: TextSet) -> np.ndarray:
    with torch.no_grad():
        found = gate(
            torch.from_numpy(texts.tokens.astype(np.float32)), torch.from_numpy(texts.lengths)
        )
    return np.asarray(found.numpy())


@pytest.fixture(scope="module")
def known() -> ClaimTexts:
    composed = compose_claim_texts(CAPTIONS, ToneEncoder(), count=1500)
    return ClaimTexts(worded(list(composed.texts.texts)), composed.claiming)


def test_before_it_is_trained_every_text_claims_something() -> None:
    assert (logits(ClaimGate(48), worded(["a dog", "a dog before rain"])) > 0).all()


def test_what_is_composed_knows_its_claims(known: ClaimTexts) -> None:
    by_text = dict(zip(known.texts.texts, known.claiming, strict=True))
    assert not any(by_text[caption] for caption in CAPTIONS if caption in by_text)
    told = [claims for text, claims in by_text.items() if " before " in text or "then" in text]
    assert len(told) > 50
    assert all(told)
    assert 0.4 < known.claiming.mean() < 0.9


def test_it_learns_what_a_claim_is(known: ClaimTexts) -> None:
    gate = ClaimGate(48)
    fit_gate(gate, known)
    found = logits(gate, known.texts) > 0
    assert found[known.claiming].mean() > 0.9
    assert found[~known.claiming].mean() < 2 * FALSE_CLAIMS
    assert not any(parameter.requires_grad for parameter in gate.parameters())


def test_equal_seeds_make_equal_gates_and_padding_is_nothing(known: ClaimTexts) -> None:
    first, again = ClaimGate(48), ClaimGate(48)
    fit_gate(first, known, seed=3)
    fit_gate(again, known, seed=3)
    some = known.texts.rows(np.arange(20))
    np.testing.assert_array_equal(logits(first, some), logits(again, some))
    longer = np.pad(some.tokens, ((0, 0), (0, 5), (0, 0)), constant_values=9.0)
    padded = TextSet(some.texts, some.vectors, longer, some.lengths)
    np.testing.assert_array_equal(logits(first, some), logits(first, padded))


def test_texts_are_encoded_by_the_encoder() -> None:
    composed = compose_claim_texts((), ToneEncoder(), count=20)
    wanted = read_texts(list(composed.texts.texts), ToneEncoder())
    np.testing.assert_array_equal(composed.texts.vectors, wanted.vectors)
    assert len(composed.claiming) == 20

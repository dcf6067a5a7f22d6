"""Scores of texts: hand-computed examples, and obvious code beside the fast."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from soundpost.evaluation.cider import Cider, ngrams
from soundpost.evaluation.text_scores import (
    agreement,
    bleu,
    bleu_counts,
    bleu_from,
    distinct,
    longest_common,
    mtld,
    rouge_l,
    words_of,
)

# The example of Papineni et al. (2002).
_THE = "the the the the the the the"
_MAT = ["The cat is on the mat.", "There is a cat on the mat."]
# The example of Lin (2004): both share two words with the reference, in and out of order.
_POLICE = ["police killed the gunman"]


def test_words_keep_hyphens_apostrophes_and_decimals() -> None:
    assert words_of(
        "A dog\N{RIGHT SINGLE QUOTATION MARK}s high-pitched bark, 2.5 dB up -- then 3."
    ) == [
        "a",
        "dog's",
        "high-pitched",
        "bark",
        "2.5",
        "db",
        "up",
        "then",
        "3",
    ]


def test_bleu_clips_a_word_to_the_most_that_one_reference_holds() -> None:
    counts = bleu_counts(words_of(_THE), [words_of(text) for text in _MAT])
    # Two of seven, as in the paper; the closest length is that of the longer reference.
    assert counts.tolist() == [2, 0, 0, 0, 7, 6, 5, 4, 7, 7]
    assert bleu([_THE], [_MAT], order=1) == pytest.approx(2 / 7)
    assert bleu([_THE], [_MAT]) == 0.0


def test_bleu_of_a_known_sentence() -> None:
    # Matches 5/6, 3/5, 2/4, 1/3 of "the cat sat on the mat"; as long as the reference.
    found = bleu(["the cat sat on the mat"], [["the cat lay on the mat", "a cat sat on a mat"]])
    ours = words_of("the cat sat on the mat")
    counts = bleu_counts(ours, [words_of("the cat lay on the mat"), words_of("a cat sat on a mat")])
    assert counts.tolist() == [6, 5, 2, 0, 6, 5, 4, 3, 6, 6]
    assert found == 0.0
    assert bleu_from(counts, 3) == pytest.approx((1.0 * 1.0 * 0.5) ** (1 / 3))


def test_bleu_punishes_what_is_too_short() -> None:
    found = bleu(["the cat is on"], [["the cat is on the mat"]])
    assert found == pytest.approx(math.exp(1 - 6 / 4))


def test_bleu_is_of_the_corpus_not_a_mean() -> None:
    texts = ["the cat is on the mat", "a dog"]
    references = [["the cat is on the mat"], ["two birds sing"]]
    precisions = (6 / 8, 5 / 6, 4 / 4, 3 / 3)
    expected = math.exp(1 - 9 / 8) * math.prod(precisions) ** 0.25
    assert bleu(texts, references) == pytest.approx(expected)


def test_rouge_l_of_the_paper_s_example() -> None:
    reference = [words_of(text) for text in _POLICE]
    in_order = rouge_l(words_of("police kill the gunman"), reference)
    out_of_order = rouge_l(words_of("the gunman kill police"), reference)
    # Precision and recall are equal, so F is the same whatever recall weighs: 3/4 and 2/4.
    assert in_order == pytest.approx(0.75)
    assert out_of_order == pytest.approx(0.5)


def test_rouge_l_takes_the_best_precision_and_the_best_recall() -> None:
    found = rouge_l(["a", "b"], [["a", "b", "c", "d"], ["a"]])
    precision, recall = 2 / 2, 1 / 1
    assert found == pytest.approx(2.44 * precision * recall / (recall + 1.44 * precision))


def test_the_longest_common_subsequence_is_that_of_trying_all() -> None:
    rng = np.random.default_rng(1)
    for _ in range(30):
        first = rng.choice(list("abc"), size=rng.integers(0, 7)).tolist()
        second = rng.choice(list("abc"), size=rng.integers(0, 7)).tolist()
        subsequences = {
            chosen for n in range(len(second) + 1) for chosen in itertools.combinations(second, n)
        }
        longest = max(
            n
            for n in range(len(first) + 1)
            for chosen in itertools.combinations(first, n)
            if chosen in subsequences
        )
        assert longest_common(first, second) == longest


def _obvious_cider(
    candidate: list[str], references: list[list[str]], corpus: list[list[list[str]]]
) -> float:
    """CIDEr-D from its formula, over one dense vector of all n-grams an order."""
    total = 0.0
    for order in (1, 2, 3, 4):
        texts = [candidate, *(words for texts in corpus for words in texts)]
        grams = sorted({gram for words in texts for gram in ngrams(words, order)})
        held = [sum(any(g in ngrams(w, order) for w in texts) for texts in corpus) for g in grams]
        says = np.log(len(corpus) / np.maximum(1, held))

        def vector(words: list[str], grams=grams, says=says, order=order) -> np.ndarray:
            counts = Counter(tuple(words[i : i + order]) for i in range(len(words)))
            return np.array([counts[gram] for gram in grams]) * says

        for words in references:
            ours, theirs = vector(candidate), vector(words)
            norm = np.linalg.norm(ours) * np.linalg.norm(theirs)
            penalty = math.exp(-((len(candidate) - len(words)) ** 2) / 72)
            total += penalty * (np.minimum(ours, theirs) @ theirs / norm if norm else 0.0)
    return 10 * total / len(references) / 4


def test_cider_is_its_formula() -> None:
    rng = np.random.default_rng(2)
    corpus = [
        [rng.choice(list("abcdef"), size=rng.integers(1, 9)).tolist() for _ in range(3)]
        for _ in range(6)
    ]
    cider = Cider(corpus)
    for references in corpus:
        for candidate in (references[0], rng.choice(list("abcdefg"), size=6).tolist(), []):
            expected = _obvious_cider(candidate, references, corpus)
            assert cider.score(candidate, references) == pytest.approx(expected)


def test_cider_of_a_perfect_text_is_ten_and_of_common_words_nothing() -> None:
    corpus = [[words_of("a dog barks very loudly")], [words_of("a cat purrs near the door")]]
    cider = Cider(corpus)
    assert cider.score(corpus[0][0], corpus[0]) == pytest.approx(10.0)
    # Every item holds "a": it says nothing.
    assert cider.score(["a"], corpus[0]) == 0.0


def test_cider_gains_nothing_from_repeating_a_word() -> None:
    corpus = [[["dog", "barks"]], [["cat", "purrs"]]]
    cider = Cider(corpus)
    # Orders 1: dot 2 * log(2)^2 of norms sqrt(8) and sqrt(2); penalty of two words too many.
    expected = 10 * math.exp(-4 / 72) * (2 / (math.sqrt(8) * math.sqrt(2)) + 1 / math.sqrt(3)) / 4
    counted = cider.score(["dog", "barks", "dog", "barks"], corpus[0])
    bigrams = 1 / math.sqrt(5)  # dog barks twice, barks dog once
    expected += 10 * math.exp(-4 / 72) * (bigrams - 1 / math.sqrt(3)) / 4
    assert counted == pytest.approx(expected)


def test_distinct_is_the_share_of_different_runs() -> None:
    texts = ["a dog barks", "a dog howls"]
    assert distinct(texts) == pytest.approx(4 / 6)
    assert distinct(texts, order=2) == pytest.approx(3 / 4)
    assert math.isnan(distinct(["dog"], order=2))


def test_mtld_counts_whole_factors_and_the_last_in_part() -> None:
    # 1, 1, 1, .75, .6 after "the b a": wait for the word that brings the share to .72 or below.
    forward = ["a", "b", "a", "c", "d"]  # a b a: 2/3, one factor; c d: share 1, nothing
    # Backwards: d c a b a: 4/5 remains above; (1 - .8) / .28 of a factor.
    expected = (5 / 1 + 5 / (0.2 / 0.28)) / 2
    assert mtld([" ".join(forward)]) == pytest.approx(expected)


def test_mtld_of_the_paper_s_example() -> None:
    # "of the people by the people ...": TTR 1, 1, 1, 1, .8, .667 ends the first factor.
    words = "of the people by the people for the people"
    # Forward: a factor of six words, then "for the people" at 1. Backwards, of "people the for
    # people the by people the of": 1, 1, 1, .75, .6 a factor of five; "by people the of" at 1.
    assert mtld([words]) == pytest.approx((9 / 1 + 9 / 1) / 2)


def test_mtld_without_repetition_is_the_length() -> None:
    assert mtld(["a b", "c"]) == 3.0
    assert math.isnan(mtld([""]))


def test_agreement_of_perfect_texts_and_its_intervals() -> None:
    references = [["a dog barks in the yard", "x"], ["two cats fight on a roof", "y"]]
    found = agreement([texts[0] for texts in references], references, np.array([0, 1]))
    assert set(found) == {"BLEU_1", "BLEU_2", "BLEU_3", "BLEU_4", "ROUGE-L", "CIDEr-D"}
    assert found["BLEU_4"].mean == pytest.approx(1.0)
    assert found["ROUGE-L"].mean == pytest.approx(1.0)
    # The other reference of each shares nothing.
    assert found["CIDEr-D"].mean == pytest.approx(5.0)
    assert found["BLEU_4"].low == pytest.approx(1.0)


def test_the_interval_of_bleu_is_that_of_resampling_whole_groups() -> None:
    rng = np.random.default_rng(3)
    texts = [" ".join(rng.choice(list("abcd"), size=8)) for _ in range(12)]
    references = [[" ".join(rng.choice(list("abcd"), size=8))] for _ in range(12)]
    groups = np.repeat(np.arange(4), 3)
    found = agreement(texts, references, groups)["BLEU_2"]
    drawn = np.random.default_rng(0).integers(4, size=(2_000, 4))
    resampled = []
    for row in drawn[:200]:
        chosen = [i for group in row for i in np.flatnonzero(groups == group)]
        resampled.append(bleu([texts[i] for i in chosen], [references[i] for i in chosen], 2))
    counts = [
        bleu_counts(words_of(t), [words_of(r[0])]) for t, r in zip(texts, references, strict=True)
    ]
    everything = [
        bleu_from(sum(counts[i] for g in row for i in np.flatnonzero(groups == g)), 2)
        for row in drawn
    ]
    np.testing.assert_allclose(resampled, everything[:200])
    assert [found.low, found.high] == pytest.approx(np.quantile(everything, [0.025, 0.975]))
    assert found.low < found.mean < found.high

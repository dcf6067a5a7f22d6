"""Scores of texts against references, and of how varied texts are, by their published definitions.

Words: lower case, Unicode normalised; runs of letters and digits, joined by a hyphen or an apostrophe
between them ("high-pitched", "dog's") or by the point of a number ("2.5"); all else separates. It
stands for the Penn Treebank tokeniser of the COCO captioning scores, which drops punctuation too but
cuts "dog's" in two.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from soundpost.evaluation.cider import ORDERS, Cider, ngrams
from soundpost.evaluation.metrics import Estimate, bootstrap

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

_WORD = re.compile(r"\d+\.\d+|[^\W_]+(?:[-'][^\W_]+)*")
# Weight of recall over precision in ROUGE-L, as in the COCO captioning scores.
_BETA = 1.2
# Below which share of different words a factor of MTLD ends.
_FACTOR = 0.72
_RESAMPLES = 2_000


def words_of(text: str) -> list[str]:
    """Cut a text into words."""
    text = (
        unicodedata.normalize("NFKC", text).lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    )
    return _WORD.findall(text)


def bleu_counts(candidate: Sequence[str], references: Sequence[Sequence[str]]) -> FloatArray:
    """Return [10]: matched runs of 1 to 4 words, all such runs, length, and that of a reference.

    Matches are clipped to the most that one reference holds; of the references' lengths the closest
    counts, the shorter where two are equally close.
    """
    matched, made = [], []
    for order in ORDERS:
        ours = ngrams(candidate, order)
        held = [ngrams(words, order) for words in references]
        matched.append(sum(min(count, max(h[gram] for h in held)) for gram, count in ours.items()))
        made.append(sum(ours.values()))
    closest = min((abs(len(words) - len(candidate)), len(words)) for words in references)[1]
    return np.array([*matched, *made, len(candidate), closest], np.float64)


def bleu_from(counts: FloatArray, order: int = 4) -> FloatArray:
    """Return BLEU [...] of summed counts [..., 10]: 0 where no run of some order matches.

    Papineni et al., BLEU: a Method for Automatic Evaluation of Machine Translation, 2002; the
    geometric mean of the precisions of 1 to `order` words, times the brevity penalty.
    """
    matched, made = counts[..., :order], counts[..., 4 : 4 + order]
    length, closest = counts[..., 8], counts[..., 9]
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.exp(np.log(matched / made).mean(-1))
        brevity = np.exp(np.minimum(0.0, 1.0 - closest / length))
    return np.asarray(np.nan_to_num(precision * brevity, nan=0.0), np.float64)


def bleu(candidates: Sequence[str], references: Sequence[Sequence[str]], order: int = 4) -> float:
    """Return BLEU over a whole corpus: candidates [N], each with several references."""
    counts = [
        bleu_counts(words_of(c), [*map(words_of, r)]) for c, r in _pairs(candidates, references)
    ]
    return float(bleu_from(np.sum(counts, axis=0), order))


def longest_common(first: Sequence[str], second: Sequence[str]) -> int:
    """Return the length of the longest common subsequence of words."""
    lengths = [0] * (len(second) + 1)
    for word in first:
        before = 0
        for j, other in enumerate(second, start=1):
            above = lengths[j]
            lengths[j] = before + 1 if word == other else max(above, lengths[j - 1])
            before = above
    return lengths[-1]


def rouge_l(candidate: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Return ROUGE-L of a text in words: F of the longest common subsequence, recall weighing 1.2.

    Lin, ROUGE: a Package for Automatic Evaluation of Summaries, 2004; of several references the
    best precision and the best recall count.
    """
    common = [longest_common(candidate, words) for words in references]
    if not any(common):
        return 0.0
    precision = max(common) / len(candidate)
    recall = max(c / len(words) for c, words in zip(common, references, strict=True) if words)
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def distinct(texts: Sequence[str], order: int = 1) -> float:
    """Return Distinct-n: the share of different ones among all runs of `order` words of texts.

    Li et al., A Diversity-Promoting Objective Function for Neural Conversation Models, 2016. It
    falls with the number of words, so only sets of one size compare. NaN without such a run.
    """
    grams = [gram for text in texts for gram in ngrams(words_of(text), order).elements()]
    return len(set(grams)) / len(grams) if grams else float("nan")


def mtld(texts: Sequence[str]) -> float:
    """Return MTLD of texts read one after the other: the mean of both directions, words a factor.

    McCarthy and Jarvis, MTLD, vocd-D, and HD-D, 2010: the mean length of runs of words until the
    share of different ones falls to 0.72; the last run counts in part. A text without a repeated
    word has no factor: its length is returned. NaN without words.
    """
    words = [word for text in texts for word in words_of(text)]
    if not words:
        return float("nan")
    return (_words_a_factor(words) + _words_a_factor(words[::-1])) / 2


def _words_a_factor(words: Sequence[str]) -> float:
    factors, count, share = 0.0, 0, 1.0
    seen: set[str] = set()
    for word in words:
        seen.add(word)
        count += 1
        share = len(seen) / count
        if share <= _FACTOR:
            factors, count, share = factors + 1, 0, 1.0
            seen.clear()
    factors += (1.0 - share) / (1.0 - _FACTOR)
    return len(words) / (factors or 1.0)


def agreement(
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    groups: IntArray | None = None,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Return BLEU_1 to BLEU_4, ROUGE-L and CIDEr-D of candidates [N] with several references each.

    Intervals draw whole groups [N]. BLEU is that of the corpus, the others means over the texts;
    CIDEr-D knows how often words are said from these very references.
    """
    ours = [words_of(text) for text in candidates]
    theirs = [[words_of(text) for text in texts] for texts in references]
    counts = np.stack([bleu_counts(c, r) for c, r in zip(ours, theirs, strict=True)])
    cider = Cider(theirs)
    rouge = np.array([rouge_l(c, r) for c, r in zip(ours, theirs, strict=True)])
    consensus = np.array([cider.score(c, r) for c, r in zip(ours, theirs, strict=True)])
    found = {f"BLEU_{n}": _bleu_estimate(counts, n, groups, seed) for n in ORDERS}
    return found | {
        "ROUGE-L": bootstrap(rouge, groups, seed),
        "CIDEr-D": bootstrap(consensus, groups, seed),
    }


def _bleu_estimate(counts: FloatArray, order: int, groups: IntArray | None, seed: int) -> Estimate:
    """BLEU of counts [N, 10], and its interval over groups drawn as `metrics.bootstrap` draws them."""
    rng = np.random.default_rng(seed)
    groups = np.arange(len(counts)) if groups is None else groups
    _, inverse = np.unique(groups, return_inverse=True)
    sums = np.zeros((int(inverse.max()) + 1, counts.shape[1]))
    np.add.at(sums, inverse, counts)
    drawn = rng.integers(len(sums), size=(_RESAMPLES, len(sums)))
    # How often each group was drawn: a product instead of a table [resamples, groups, 10].
    times = np.stack([np.bincount(row, minlength=len(sums)) for row in drawn])
    low, high = np.quantile(bleu_from(times @ sums, order), [0.025, 0.975])
    return Estimate(float(bleu_from(sums.sum(0), order)), float(low), float(high))


def _pairs(
    candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> list[tuple[str, Sequence[str]]]:
    return list(zip(candidates, references, strict=True))

"""Rankings that a second stage makes, and what they are worth: R@k, mAP@10, differences in pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from soundpost.evaluation.metrics import Estimate, bootstrap

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]
Relevant = Sequence[IntArray]
# Says the joint probabilities [L] of the candidates at rows [L] for one query.
Judge = Callable[[int, IntArray, FloatArray], FloatArray]

DEPTH = 10
# What a weight may be; 0 is similarity alone.
WEIGHTS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0)
# A weight must not cost more than this of R@1 in any other set that choices are made on.
MOST_LOST = 0.005


@dataclass(frozen=True)
class Ranked:
    """The first ten of each ranking: hits [Q, 10] says which are wanted, wanted [Q] how many are.

    Queries of which nothing is wanted are left out before.
    """

    hits: NDArray[np.bool_]
    wanted: IntArray

    def recall(self, k: int) -> NDArray[np.float64]:
        """Return R@k of each query [Q]: 1 where something wanted is among the first k."""
        return self.hits[:, :k].any(axis=1).astype(np.float64)

    def precision(self) -> NDArray[np.float64]:
        """Return AP@10 of each query [Q], as `average_precision_at` defines it."""
        places = np.arange(1, self.hits.shape[1] + 1)
        precision = np.cumsum(self.hits, axis=1) / places
        best = np.minimum(DEPTH, self.wanted)
        return np.asarray((precision * self.hits).sum(axis=1) / best, np.float64)


@dataclass(frozen=True)
class Judged:
    """What the first stage proposes of each query and the second makes of it.

    rows [Q, L], by descending similarity [Q, L]; probabilities [Q, L] together 1 in each row.
    """

    rows: IntArray
    similarities: FloatArray
    probabilities: FloatArray

    def ranked(self, relevant: Relevant, weight: float) -> Ranked:
        """Return the rankings by similarity + weight * probability; ties keep their order."""
        scores = self.similarities + np.float32(weight) * self.probabilities
        best = np.argsort(-scores, axis=1, kind="stable")[:, :DEPTH]
        rows = np.take_along_axis(self.rows, best, axis=1)
        hits = np.stack([np.isin(row, wanted) for row, wanted in zip(rows, relevant, strict=True)])
        return Ranked(hits, np.array([len(wanted) for wanted in relevant], np.int64))


def propose(similarities: FloatArray, length: int) -> tuple[IntArray, FloatArray]:
    """Return the rows and similarities [Q, L] of the most similar `length` of [Q, N]."""
    length = min(length, similarities.shape[1])
    rows = np.argsort(-similarities, axis=1, kind="stable")[:, :length]
    return rows, np.take_along_axis(similarities, rows, axis=1)


def judge_all(similarities: FloatArray, length: int, judge: Judge) -> Judged:
    """Let a second stage judge the most similar `length` candidates of each query [Q, N]."""
    rows, best = propose(similarities, length)
    probabilities = [judge(query, rows[query], best[query]) for query in range(len(rows))]
    return Judged(rows, best, np.stack(probabilities))


def by_similarity(similarities: FloatArray) -> Judged:
    """Return what similarity alone makes of similarities [Q, N]."""
    rows, best = propose(similarities, max(DEPTH, 16))
    return Judged(rows, best, np.zeros_like(best))


@dataclass(frozen=True)
class Case:
    """One set that was judged; a group [Q] holds the queries that are no independent evidence."""

    judged: Judged
    relevant: Relevant
    groups: IntArray | None = None

    def ranked(self, weight: float) -> Ranked:
        """Return the rankings with a weight."""
        return self.judged.ranked(self.relevant, weight)


def choose_weight(main: Case, others: Sequence[Case]) -> float:
    """Return the weight of the best mean of R@1 and mAP@10 in `main` that loses nowhere else.

    A weight that costs another set more than `MOST_LOST` of R@1 or mAP@10 is not taken.
    """
    best, chosen = -1.0, 0.0
    for weight in WEIGHTS:
        ranked = main.ranked(weight)
        value = float(ranked.recall(1).mean() + ranked.precision().mean())
        if value > best and all(_loss(case, weight) <= MOST_LOST for case in others):
            best, chosen = value, weight
    return chosen


def _loss(case: Case, weight: float) -> float:
    """Return by how much a weight is worse than similarity alone, in R@1 or mAP@10."""
    ranked, alone = case.ranked(weight), case.ranked(0.0)
    by_recall = alone.recall(1).mean() - ranked.recall(1).mean()
    by_precision = alone.precision().mean() - ranked.precision().mean()
    return float(max(by_recall, by_precision))


def difference(values: NDArray[np.float64], beside: NDArray[np.float64], case: Case) -> Estimate:
    """Return the mean of values [Q] - beside [Q], of the same queries, and its interval."""
    return bootstrap(values - beside, case.groups)

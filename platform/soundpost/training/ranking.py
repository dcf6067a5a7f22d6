"""Rankings that a second stage makes, and what they are worth: R@k, mAP@10, and how it is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]
Relevant = Sequence[IntArray]
# Says the joint probabilities [L] of the candidates at rows [L] for one query.
Judge = Callable[[int, IntArray, FloatArray], FloatArray]

DEPTH = 10
# A reading must not cost more than this of R@1 or mAP@10 in any other set that choices are made on.
MOST_LOST = 0.005


@dataclass(frozen=True)
class Reading:
    """How probabilities are read: taken to the power of 1 / temperature, then weighted.

    final score = similarity + weight * tempered probability; weight 0 is similarity alone.
    """

    temperature: float = 1.0
    weight: float = 0.0

    def __str__(self) -> str:
        return f"{self.weight:g}, {self.temperature:g}"


SIMILARITY = Reading()
READINGS = (
    SIMILARITY,
    *(
        Reading(temperature, weight)
        for temperature in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
        for weight in (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0)
    ),
)


@dataclass(frozen=True)
class Ranked:
    """The first ten of each ranking: hits [Q, 10] says which are wanted, wanted [Q] how many are.

    Queries of which nothing is wanted are left out before.
    """

    hits: NDArray[np.bool_]
    wanted: IntArray

    def recall(self, k: int) -> NDArray[np.float64]:
        """Return R@k of each query [Q]: 1 where something wanted is among the first k."""
        return np.asarray(self.hits[:, :k].any(axis=1), np.float64)

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
    counts [Q]: how much of the weight they have for a query, 0 to 1.
    """

    rows: IntArray
    similarities: FloatArray
    probabilities: FloatArray
    counts: FloatArray

    def ranked(self, relevant: Relevant, reading: Reading) -> Ranked:
        """Return the rankings by their final scores; ties keep the order of similarity."""
        weights = np.float32(reading.weight) * self.counts[:, None]
        scores = self.similarities + weights * self.tempered(reading.temperature)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :DEPTH]
        rows = np.take_along_axis(self.rows, best, axis=1)
        hits = np.stack([np.isin(row, wanted) for row, wanted in zip(rows, relevant, strict=True)])
        return Ranked(hits, np.array([len(wanted) for wanted in relevant], np.int64))

    def tempered(self, temperature: float) -> FloatArray:
        """Return probabilities [Q, L] to the power of 1 / temperature, together 1 again."""
        logs = np.log(np.maximum(self.probabilities, np.finfo(np.float32).tiny)) / temperature
        powers = np.exp(logs - logs.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def propose(similarities: FloatArray, length: int) -> tuple[IntArray, FloatArray]:
    """Return the rows and similarities [Q, L] of the most similar `length` of [Q, N]."""
    length = min(length, similarities.shape[1])
    rows = np.argsort(-similarities, axis=1, kind="stable")[:, :length]
    return rows, np.take_along_axis(similarities, rows, axis=1)


def judge_all(similarities: FloatArray, length: int, judge: Judge) -> Judged:
    """Let a second stage judge the most similar `length` candidates of each query [Q, N]."""
    rows, best = propose(similarities, length)
    probabilities = [judge(query, rows[query], best[query]) for query in range(len(rows))]
    return Judged(rows, best, np.stack(probabilities), np.ones(len(rows), np.float32))


def by_similarity(similarities: FloatArray) -> Judged:
    """Return what similarity alone makes of similarities [Q, N]."""
    rows, best = propose(similarities, max(DEPTH, 16))
    return Judged(rows, best, np.zeros_like(best), np.zeros(len(rows), np.float32))


@dataclass(frozen=True)
class Case:
    """One set that was judged; a group [Q] holds the queries that are no independent evidence."""

    judged: Judged
    relevant: Relevant
    groups: IntArray | None = None

    def ranked(self, reading: Reading) -> Ranked:
        """Return the rankings by a reading."""
        return self.judged.ranked(self.relevant, reading)


def choose_reading(main: Case, others: Sequence[Case]) -> Reading:
    """Return the reading with the least weight that is as good as the best in `main`.

    What counts is the sum of R@1 and AP@10. As good is what is within one standard error of the
    best (Breiman et al. 1984): more trust than that in a second stage does not pay, and costs where
    it knows less. A reading that costs another set more than `MOST_LOST` is not taken.
    """
    allowed = [
        reading for reading in READINGS if all(_loss(case, reading) <= MOST_LOST for case in others)
    ]
    values = {reading: _value(main.ranked(reading)) for reading in allowed}
    best = max(values.values(), key=lambda value: float(value.mean()))
    enough = best.mean() - best.std() / np.sqrt(len(best))
    good = [reading for reading, value in values.items() if value.mean() >= enough]
    return min(good, key=lambda reading: (reading.weight, -float(values[reading].mean())))


def _value(ranked: Ranked) -> NDArray[np.float64]:
    return ranked.recall(1) + ranked.precision()


def _loss(case: Case, reading: Reading) -> float:
    """Return by how much a reading is worse than similarity alone, in R@1 or mAP@10."""
    ranked, alone = case.ranked(reading), case.ranked(SIMILARITY)
    by_recall = alone.recall(1).mean() - ranked.recall(1).mean()
    by_precision = alone.precision().mean() - ranked.precision().mean()
    return float(max(by_recall, by_precision))

"""Measures of retrieval and tagging, each by its textbook definition, with intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating]
BoolArray = NDArray[np.bool_]


def average_precision_at(scores: FloatArray, relevant: BoolArray, k: int) -> float:
    """Return AP@k of one ranking: mean of the precision at each relevant rank up to k.

    scores [N] rank the items (ties in order of index), relevant [N] says which are wanted;
    divided by min(k, number wanted). NaN where nothing is wanted.
    """
    wanted = int(relevant.sum())
    if wanted == 0:
        return float("nan")
    hits = relevant[np.argsort(-scores, kind="stable")[:k]]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float((precision * hits).sum() / min(k, wanted))


def average_precision(scores: FloatArray, relevant: BoolArray) -> float:
    """Return AP over the whole ranking. NaN where nothing is wanted."""
    return average_precision_at(scores, relevant, len(scores))


def area_under_roc(scores: FloatArray, positive: BoolArray, max_fpr: float = 1.0) -> float:
    """Return the area under the ROC curve of scores [N] up to a false positive rate.

    With max_fpr below 1 it is standardised as McClish (1989) did, so that chance is 0.5 and a
    perfect ranking 1, the partial AUC of DCASE task 2. NaN where one of the classes is missing.
    """
    count, negatives = int(positive.sum()), int((~positive).sum())
    if count == 0 or negatives == 0:
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    # Equal scores are one step of the curve, or their order would matter.
    last = np.r_[np.flatnonzero(np.diff(ranked)), len(ranked) - 1]
    hits = np.r_[0.0, np.cumsum(positive[order])[last] / count]
    misses = np.r_[0.0, np.cumsum(~positive[order])[last] / negatives]
    if max_fpr >= 1.0:
        return float(np.trapezoid(hits, misses))
    inside = misses < max_fpr
    at_end = float(np.interp(max_fpr, misses, hits))
    area = float(np.trapezoid(np.r_[hits[inside], at_end], np.r_[misses[inside], max_fpr]))
    least = max_fpr * max_fpr / 2.0
    return 0.5 * (1.0 + (area - least) / (max_fpr - least))


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(
    values: FloatArray, groups: NDArray[np.int64] | None = None, seed: int = 0
) -> Estimate:
    """Return the mean of values [N] and its percentile interval over 2,000 resamples.

    With `groups` [N] whole groups are drawn: clips of one origin are no independent evidence.
    """
    rng = np.random.default_rng(seed)
    groups = np.arange(len(values)) if groups is None else groups
    _, inverse = np.unique(groups, return_inverse=True)
    sums = np.bincount(inverse, weights=values)
    sizes = np.bincount(inverse)
    drawn = rng.integers(len(sums), size=(2_000, len(sums)))
    means = sums[drawn].sum(1) / sizes[drawn].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(float(np.mean(values)), float(low), float(high))


def expected_calibration_error(
    probabilities: FloatArray, outcomes: BoolArray, bins: int = 10
) -> float:
    """Return ECE: the mean gap between stated probability and observed share, over equal-width bins.

    Guo et al., On Calibration of Modern Neural Networks, 2017.
    """
    which = np.minimum((probabilities * bins).astype(int), bins - 1)
    gaps = [
        abs(float(probabilities[which == b].mean() - outcomes[which == b].mean()))
        * float((which == b).mean())
        for b in range(bins)
        if (which == b).any()
    ]
    return float(sum(gaps))

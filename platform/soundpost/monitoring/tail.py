"""The tail of a distribution beyond what was seen of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from soundpost.monitoring.observations import DoubleArray

SHARE = 0.1
MIN_SCORES = 10
# A tail that ends, or is lighter than exponential, is never assumed from few scores.
_SHAPE_RANGE = (0.0, 0.5)


@dataclass(frozen=True)
class Tail:
    """A generalised Pareto distribution above a threshold.

    Fitted by probability-weighted moments (Hosking and Wallis 1987). threshold, scale: in units of
    the scores; shape: at least 0, exponential or heavier.
    """

    threshold: float
    scale: float
    shape: float

    def survival(self, scores: DoubleArray) -> DoubleArray:
        """Return the share [N] of the tail beyond scores [N]."""
        return np.exp(-log_survival(scores, self.threshold, self.scale, self.shape))


def log_survival(
    scores: DoubleArray,
    threshold: float | DoubleArray,
    scale: float | DoubleArray,
    shape: float | DoubleArray,
) -> DoubleArray:
    """Return minus the logarithm of the share beyond scores [N]; 0 at and below the threshold."""
    above = np.maximum(scores - threshold, 0.0) / scale
    heavy = np.maximum(shape, 1e-9)
    return np.asarray(np.log1p(heavy * above) / heavy)


def fit_tail(scores: DoubleArray) -> Tail | None:
    """Fit the greatest tenth of scores [N], at least 10; None where they are few or all alike."""
    count = max(MIN_SCORES, round(SHARE * len(scores)))
    if len(scores) <= count:
        return None
    ordered = np.sort(scores)
    threshold = float(ordered[-count - 1])
    excess = ordered[-count:] - threshold
    mean = float(excess.mean())
    if mean <= 1e-9:
        return None
    # b1 weighs each excess by the share of smaller ones.
    b1 = float((np.arange(count) / (count - 1) * excess).mean())
    a1 = mean - b1
    raw = 2.0 - mean / (mean - 2.0 * a1) if mean > 2.0 * a1 + 1e-12 else _SHAPE_RANGE[1]
    shape = float(np.clip(raw, *_SHAPE_RANGE))
    return Tail(threshold, mean * (1.0 - shape), shape)

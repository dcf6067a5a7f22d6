"""Evidence that gathers over windows until it is more than chance brings once in the budget.

An e-detector (Shin, Ramdas and Rinaldo, arXiv 2203.03532) of the Shiryaev-Roberts kind: after each
window of d seconds with the p-value p, R becomes (R + d) e(p), where the bet e(p) has a mean of at
most 1 as long as nothing changed. R minus the time is then a supermartingale, so the mean time until
R reaches a threshold of c seconds is at least c. Two detectors share the budget: a fast one that
bets on very small p-values, for short loud events, and a slow one that bets on p-values that are a
little too small for long, for drifts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from soundpost.errors import BrokenCalibrationError, InvalidValueError
from soundpost.monitoring.observations import DoubleArray

DETECTORS: Final = ("fast", "slow")
# Bets 1 + b (1 - 2 p): the smaller, the slower the drift that they gather evidence of.
SLOW_BETS: Final = (0.2, 0.5, 0.9)
# Evidence beyond twice the threshold is not counted, or it would take long to fade.
_CEILING = 2.0
_VERSION = 1


@dataclass(frozen=True)
class Thresholds:
    """Evidence, in seconds, at which each detector fires, and what its bets are divided by.

    fast_means: [1], slow_means: [len(SLOW_BETS)]: what the bets bring on this source's normal sound,
    1 where p-values are uniform and independent, more where they are not.
    """

    fast_s: float
    slow_s: float
    fast_means: tuple[float, ...] = (1.0,)
    slow_means: tuple[float, ...] = (1.0,) * len(SLOW_BETS)

    def of(self, name: str) -> tuple[float, DoubleArray]:
        """Return a detector's threshold in seconds and its means [K]."""
        if name == "fast":
            return self.fast_s, np.array(self.fast_means)
        return self.slow_s, np.array(self.slow_means)

    @classmethod
    def for_budget(cls, budget_s: float) -> Thresholds:
        """Split a budget, in seconds between false alarms, evenly between the detectors.

        Raises InvalidValueError for a budget that is not positive.
        """
        if not 0.0 < budget_s < float("inf"):
            raise InvalidValueError(budget_s, "a budget is a time between false alarms above 0 s")
        return cls(2.0 * budget_s, 2.0 * budget_s)


@dataclass(frozen=True)
class Alarm:
    """More evidence of a change than the budget allows.

    detector: the one with more of it; fired: all that fired. strength: evidence over its threshold,
    1 to 2. since_window_id: the first window of what it gathered on. windows, since_s: how many
    windows and how much audio ago that was, this one counted.
    """

    detector: str
    fired: tuple[str, ...]
    strength: float
    since_window_id: int
    windows: int
    since_s: float


def fast_bets(p_values: DoubleArray) -> DoubleArray:
    """Return the bets [..., 1]: every power k p^(k-1) mixed evenly over k (Vovk and Sellke).

    The integral is (1 - p + p ln p) / (p (ln p)^2).
    """
    p = np.minimum(p_values, 1.0 - 1e-4)[..., None]
    logarithm = np.log(p)
    bets: DoubleArray = (1.0 - p + p * logarithm) / (p * np.square(logarithm))
    return bets


def slow_bets(p_values: DoubleArray) -> DoubleArray:
    """Return the bets [..., len(SLOW_BETS)], 1 + b (1 - 2 p)."""
    return 1.0 + np.array(SLOW_BETS) * (1.0 - 2.0 * p_values[..., None])


BETS: Final = {"fast": fast_bets, "slow": slow_bets}


def gather(evidence: DoubleArray, bets: DoubleArray, duration_s: DoubleArray) -> DoubleArray:
    """Return the evidence of each bet after a window, in seconds; their mean is what counts."""
    return (evidence + duration_s) * bets


@dataclass
class _Detector:
    """One detector's state. evidence: [K] seconds. likelihood: [K] CUSUM beside it, which says
    where the change began. since: [K] (window id, windows ago, seconds ago)."""

    evidence: DoubleArray
    likelihood: DoubleArray
    since: list[tuple[int, int, float]]

    @classmethod
    def new(cls, name: str) -> _Detector:
        size = BETS[name](np.array(0.5)).shape[-1]
        return cls(np.zeros(size), np.zeros(size), [(0, 0, 0.0)] * size)

    @property
    def total_s(self) -> float:
        return float(self.evidence.mean())

    def step(self, bets: DoubleArray, duration_s: float, window_id: int, threshold: float) -> None:
        self.evidence = gather(self.evidence, bets, np.array(duration_s))
        self.evidence *= min(1.0, _CEILING * threshold / max(self.total_s, 1e-300))
        anew = self.likelihood <= 1.0
        self.since = [
            (window_id, 1, duration_s) if new else (first, windows + 1, seconds + duration_s)
            for new, (first, windows, seconds) in zip(anew, self.since, strict=True)
        ]
        self.likelihood = np.minimum(np.where(anew, 1.0, self.likelihood) * bets, threshold)

    def to_document(self) -> dict[str, Any]:
        return {
            "evidence": self.evidence.tolist(),
            "likelihood": self.likelihood.tolist(),
            "since": [list(place) for place in self.since],
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> _Detector:
        since = [(int(w), int(n), float(s)) for w, n, s in document["since"]]
        arrays = [np.array(document[name], np.float64) for name in ("evidence", "likelihood")]
        if any(a.shape != (len(since),) or not np.isfinite(a).all() for a in arrays):
            raise ValueError("evidence is a finite number for each bet")
        return cls(arrays[0], arrays[1], since)


class Evidence:
    """The two detectors of one source, from window to window and from recording to recording."""

    def __init__(self, thresholds: Thresholds) -> None:
        self.thresholds = thresholds
        self._detectors = {name: _Detector.new(name) for name in DETECTORS}

    def step(self, p_value: float, duration_s: float, window_id: int = 0) -> Alarm | None:
        """Take the next window's p-value, and return an alarm as long as there is one.

        Raises InvalidValueError for a p-value outside (0, 1] or a duration that is not positive.
        """
        if not 0.0 < p_value <= 1.0:
            raise InvalidValueError(p_value, "a p-value lies above 0 and is at most 1")
        if not 0.0 < duration_s < float("inf"):
            raise InvalidValueError(duration_s, "a window takes more than zero seconds")
        for name, detector in self._detectors.items():
            threshold_s, means = self.thresholds.of(name)
            bets = BETS[name](np.array(p_value)) / means
            detector.step(bets, duration_s, window_id, threshold_s)
        return self.alarm()

    def alarm(self) -> Alarm | None:
        """Return the alarm of the evidence as it stands."""
        strengths = self.strengths()
        fired = tuple(name for name in DETECTORS if strengths[name] >= 1.0)
        if not fired:
            return None
        strongest = max(fired, key=lambda name: strengths[name])
        detector = self._detectors[strongest]
        place = detector.since[int(detector.evidence.argmax())]
        return Alarm(strongest, fired, strengths[strongest], *place)

    def strengths(self) -> dict[str, float]:
        """Return each detector's evidence over its threshold; 1 and above is an alarm."""
        return {n: d.total_s / self.thresholds.of(n)[0] for n, d in self._detectors.items()}

    def resolve(self) -> None:
        """Begin anew, as after an incident that is over: the budget counts from here."""
        self._detectors = {name: _Detector.new(name) for name in DETECTORS}

    def to_document(self) -> dict[str, Any]:
        """Return the state as a small JSON document, without the thresholds."""
        detectors = {name: d.to_document() for name, d in self._detectors.items()}
        return {"version": _VERSION, **detectors}

    @classmethod
    def from_document(cls, document: Mapping[str, Any], thresholds: Thresholds) -> Evidence:
        """Go on where `to_document` stopped. Raises BrokenCalibrationError."""
        made = cls(thresholds)
        try:
            made._detectors = {n: _Detector.from_document(document[n]) for n in DETECTORS}
        except (KeyError, TypeError, ValueError) as error:
            raise BrokenCalibrationError("evidence", str(error)) from error
        return made

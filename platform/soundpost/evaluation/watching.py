"""A source being watched, as the product does it, on arrays: what the evaluations have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from soundpost.monitoring.budget import Budget, calibrate_budget
from soundpost.monitoring.calibration import Calibration, calibrate
from soundpost.monitoring.evidence import Evidence
from soundpost.monitoring.novelty import DEFAULT_METHOD, Novelty, fit
from soundpost.monitoring.observations import Observations

DoubleArray = NDArray[np.float64]

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S


@dataclass(frozen=True, eq=False)
class Watch:
    """A baseline with its calibration and its thresholds."""

    novelty: Novelty
    calibration: Calibration
    budget: Budget

    def p_values(self, observed: Observations) -> DoubleArray:
        """Return the p-values [N] of windows."""
        return self.calibration.p_values(self.novelty.score(observed).novelty)

    def alarms(self, p_values: Sequence[float], duration_s: float) -> list[int]:
        """Return the rows at which alarms begin; each is resolved at once."""
        evidence, rows = Evidence(self.budget.thresholds), []
        for row, p_value in enumerate(p_values):
            if evidence.step(p_value, duration_s, row):
                rows.append(row)
                evidence.resolve()
        return rows

    def delay(self, before: Sequence[float], after: Sequence[float], duration_s: float) -> int:
        """Return after how many windows of a change an alarm stands, 0 for none.

        Evidence gathers over the p-values before the change as well; alarms there are resolved.
        """
        evidence = Evidence(self.budget.thresholds)
        for p_value in before:
            if evidence.step(p_value, duration_s):
                evidence.resolve()
        for row, p_value in enumerate(after):
            if evidence.step(p_value, duration_s):
                return row + 1
        return 0


def make_watch(
    baseline: Observations, budget_s: float, method: str = DEFAULT_METHOD, *, tail: bool = True
) -> Watch:
    """Make a baseline as the product does, without contexts."""
    novelty = fit(baseline, method)
    units = novelty.folds.unit
    calibration = calibrate(novelty.leave_one_out().novelty, units, tail=tail)
    budget = calibrate_budget(
        calibration.held_out(), baseline.durations_s, units, baseline.starts_s, budget_s
    )
    return Watch(novelty, calibration, budget)

"""How rare a score is among those of what is normal, and how much rareness is too much.

Any score of windows will do: novelty, or how much a window resembles a text or an example.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from soundpost.monitoring.budget import Budget, calibrate_budget
from soundpost.monitoring.calibration import Calibration
from soundpost.monitoring.evidence import Evidence
from soundpost.monitoring.observations import DoubleArray, IdArray


@dataclass(frozen=True, eq=False)
class Yardstick:
    """A calibration, and when its reference windows [N] were heard.

    durations_s, starts_s: [N] of the windows that the calibration begins with; others in it, such
    as those of false alarms, make the p-values but not the budget.
    """

    calibration: Calibration
    durations_s: DoubleArray
    starts_s: DoubleArray

    def p_values(self, scores: DoubleArray, contexts: tuple[str, ...] = ()) -> DoubleArray:
        """Return how rare scores [M] are, in (0, 1]; contexts: [M] names."""
        return self.calibration.p_values(scores, contexts)

    def budget(self, budget_s: float) -> Budget:
        """Return the thresholds that keep a budget on the reference's own held-out p-values."""
        return _budget(self, budget_s)

    def make_test(self, budget_s: float, document: Mapping[str, Any] | None) -> Evidence:
        """Begin a sequential test within a budget, or go on with one."""
        thresholds = self.budget(budget_s).thresholds
        return Evidence.from_document(document, thresholds) if document else Evidence(thresholds)


# Seconds of work, and the same for every window that is compared.
@lru_cache(maxsize=256)
def _budget(yardstick: Yardstick, budget_s: float) -> Budget:
    calibration, count = yardstick.calibration, len(yardstick.durations_s)
    held_out: DoubleArray = calibration.held_out()[:count]
    units: IdArray = calibration.units[:count]
    return calibrate_budget(held_out, yardstick.durations_s, units, yardstick.starts_s, budget_s)

"""Rules on what is measured or recognised in each window: level, silence, tag."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soundpost.audio.acoustics import (
    LEVEL_FLOOR_DBFS,
    SILENCE_DBFS,
    THIRD_OCTAVE_CENTRES_HZ,
)
from soundpost.errors import RuleSettingsError
from soundpost.monitoring.rule_kinds.runs import Run, find_runs
from soundpost.monitoring.rule_kinds.settings import DAY_S, SettingsReader
from soundpost.monitoring.rules import Firing, Heard, State, Tools

DoubleArray = NDArray[np.float64]
# Nominal centres differ from the exact ones by less than this; neighbours by a quarter.
_NOMINAL = 0.05


class OnRuns:
    """What rules share that hold while consecutive windows meet a condition."""

    def tick(self, heard: Heard, state: State, rule_id: int) -> tuple[list[Firing], State]:
        """Time alone changes nothing: what is not heard does not hold."""
        return [], state

    @staticmethod
    def fire(
        heard: Heard,
        state: State,
        rule_id: int,
        holds: NDArray[np.bool_],
        figures: DoubleArray,
        enough: Callable[[Run], bool],
        describe: Callable[[Run], tuple[str, dict[str, Any]]],
    ) -> tuple[list[Firing], State]:
        """Fire for each run that is enough. holds, figures: [N], the greater the stronger."""
        before = Run.from_document(state.get("run"))
        runs, at_end = find_runs(heard.observations, holds, figures, before)
        firings = []
        for run in filter(enough, runs):
            reason, evidence = describe(run)
            firings.append(
                Firing(
                    rule_id=rule_id,
                    source_id=heard.source_id,
                    at=run.since,
                    until=run.until,
                    reason=reason,
                    evidence=evidence,
                    window_ids=run.window_ids,
                    weights=run.weights,
                )
            )
        return firings, {} if at_end is None else {"run": at_end.to_document()}


@dataclass(frozen=True)
class Level(OnRuns):
    """A level above or below a limit for a time.

    measure: a (A-weighted), z (unweighted) or band (a third octave, at centre_hz). limit_dbfs: see
    `audio.acoustics` for dBFS.
    """

    measure: str
    centre_hz: float | None
    above: bool
    limit_dbfs: float
    duration_s: float

    @classmethod
    def read(cls, document: Mapping[str, Any], tools: Tools) -> Level:
        """Read the settings. Raises RuleSettingsError."""
        reader = SettingsReader("level", document)
        measure = reader.choice("measure", "a", ("a", "z", "band"))
        centre_hz = reader.optional_number("centre_hz", 20.0, 25_000.0)
        above = reader.optional_number("above_dbfs", LEVEL_FLOOR_DBFS, 20.0)
        below = reader.optional_number("below_dbfs", LEVEL_FLOOR_DBFS, 20.0)
        duration_s = reader.number("duration_s", 0.0, 0.0, DAY_S)
        reader.close()
        if (above is None) == (below is None):
            raise RuleSettingsError("above_dbfs, below_dbfs", "give one of the two")
        if (measure == "band") != (centre_hz is not None):
            raise RuleSettingsError(f"measure={measure}", "centre_hz goes with the measure band")
        limit_dbfs = above if above is not None else below
        centre_hz = None if centre_hz is None else _nearest_centre_hz(centre_hz)
        return cls(measure, centre_hz, above is not None, limit_dbfs or 0.0, duration_s)

    def evaluate(self, heard: Heard, state: State, rule_id: int) -> tuple[list[Firing], State]:
        """Fire where the level was beyond the limit for long enough."""
        levels = self._levels_dbfs(heard)
        known = np.isfinite(levels)
        beyond = levels > self.limit_dbfs if self.above else levels < self.limit_dbfs
        figures = np.where(known, levels if self.above else -levels, -np.inf)
        firings, new = self.fire(
            heard, state, rule_id, beyond & known, figures, self._is_enough, self._describe
        )
        if len(levels) and not known.any():
            new["waiting"] = f"the third octave at {self.centre_hz:.0f} Hz is above half the rate"
        return firings, new

    def _levels_dbfs(self, heard: Heard) -> DoubleArray:
        """The measured level of each window [N]; NaN where the band is not there."""
        documents = heard.observations.acoustics
        if self.centre_hz is None:
            member = "a_level_dbfs" if self.measure == "a" else "level_dbfs"
            return np.array([float(document[member]) for document in documents])
        row = THIRD_OCTAVE_CENTRES_HZ.index(self.centre_hz)
        bands = [document["third_octave_dbfs"] for document in documents]
        return np.array([float(b[row]) if row < len(b) else np.nan for b in bands])

    def _is_enough(self, run: Run) -> bool:
        return run.duration_s >= self.duration_s

    def _describe(self, run: Run) -> tuple[str, dict[str, Any]]:
        level_dbfs = run.strongest if self.above else -run.strongest
        names = {"a": "A-weighted level", "z": "level"}
        name = names.get(self.measure, f"level at {self.centre_hz or 0.0:.0f} Hz")
        side = "above" if self.above else "below"
        reason = (
            f"{name} up to {level_dbfs:.1f} dBFS, {side} {self.limit_dbfs:.1f} dBFS "
            f"for {run.duration_s:.0f} s"
        )
        if not self.above:
            reason = reason.replace("up to", "down to")
        return reason, {"level_dbfs": level_dbfs, "duration_s": run.duration_s}


@dataclass(frozen=True)
class Silence(OnRuns):
    """Digital silence, or a level below a limit, for a time."""

    below_dbfs: float
    duration_s: float

    @classmethod
    def read(cls, document: Mapping[str, Any], tools: Tools) -> Silence:
        """Read the settings. Raises RuleSettingsError."""
        reader = SettingsReader("silence", document)
        settings = cls(
            below_dbfs=reader.number("below_dbfs", SILENCE_DBFS, LEVEL_FLOOR_DBFS, 0.0),
            duration_s=reader.number("duration_s", 60.0, 0.0, DAY_S),
        )
        reader.close()
        return settings

    def evaluate(self, heard: Heard, state: State, rule_id: int) -> tuple[list[Firing], State]:
        """Fire where there was nothing to hear for long enough."""
        levels = np.array([float(a["level_dbfs"]) for a in heard.observations.acoustics])
        holds = levels < self.below_dbfs
        return self.fire(heard, state, rule_id, holds, -levels, self._is_enough, self._describe)

    def _is_enough(self, run: Run) -> bool:
        return run.duration_s >= self.duration_s

    def _describe(self, run: Run) -> tuple[str, dict[str, Any]]:
        level_dbfs = -run.strongest
        what = "digital silence" if level_dbfs <= LEVEL_FLOOR_DBFS else f"{level_dbfs:.1f} dBFS"
        reason = f"{what}, below {self.below_dbfs:.1f} dBFS for {run.duration_s:.0f} s"
        return reason, {"level_dbfs": level_dbfs, "duration_s": run.duration_s}


@dataclass(frozen=True)
class Tag(OnRuns):
    """A sound class whose probability is above a value for a number of consecutive windows."""

    label: str
    above: float
    windows: int

    @classmethod
    def read(cls, document: Mapping[str, Any], tools: Tools) -> Tag:
        """Read the settings. Raises RuleSettingsError."""
        reader = SettingsReader("tag", document)
        settings = cls(
            label=reader.word("label", None, 100),
            above=reader.number("above", 0.5, 0.0, 1.0),
            windows=reader.whole("windows", 1, 1, 10_000),
        )
        reader.close()
        return settings

    def evaluate(self, heard: Heard, state: State, rule_id: int) -> tuple[list[Firing], State]:
        """Fire where the class was heard in enough windows in a row."""
        probabilities = np.array([float(tags.get(self.label, 0.0)) for tags in heard.tags])
        holds = probabilities > self.above
        return self.fire(
            heard, state, rule_id, holds, probabilities, self._is_enough, self._describe
        )

    def _is_enough(self, run: Run) -> bool:
        return run.windows >= self.windows

    def _describe(self, run: Run) -> tuple[str, dict[str, Any]]:
        windows = f"{run.windows} windows" if run.windows > 1 else "one window"
        reason = (
            f"{self.label} with a probability of up to {run.strongest:.2f}, above "
            f"{self.above:.2f}, in {windows}"
        )
        return reason, {"probability": run.strongest, "windows": run.windows}


def _nearest_centre_hz(centre_hz: float) -> float:
    nearest: float = min(THIRD_OCTAVE_CENTRES_HZ, key=lambda c: abs(math.log(c / centre_hz)))
    if abs(nearest / centre_hz - 1.0) > _NOMINAL:
        detail = f"no third octave is centred there; the nearest is {nearest:.0f} Hz"
        raise RuleSettingsError(f"centre_hz={centre_hz:g}", detail)
    return nearest

"""Rules with a false-alarm budget: novelty, a description in words, a sound like an example.

Each turns windows into p-values against the source's own baseline, and gathers evidence over them
until there is more than chance brings once in the budget. A threshold on a similarity is refused:
what 0.4 means differs from source to source.
"""

from __future__ import annotations

import base64
import binascii
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soundpost.errors import RuleSettingsError
from soundpost.monitoring.observations import FloatArray, IdArray
from soundpost.monitoring.rule_kinds.runs import NAMED_WINDOWS
from soundpost.monitoring.rule_kinds.settings import DAY_S, LONGEST_S, SettingsReader
from soundpost.monitoring.rules import Alarm, Firing, Heard, Reference, State, TestFactory, Tools

DoubleArray = NDArray[np.float64]
DEFAULT_BUDGET_S = 30 * DAY_S
SHORTEST_BUDGET_S = 60.0
NO_BASELINE = "an active baseline of this source"


@dataclass(frozen=True, eq=False)
class Comparison:
    """The p-value of each window [N], and the test that gathers their evidence."""

    p_values: DoubleArray
    make_test: TestFactory


@dataclass(frozen=True)
class Budgeted(ABC):
    """A rule that may raise a false alarm once in budget_s seconds of audio."""

    budget_s: float
    tools: Tools

    @abstractmethod
    def compare(self, heard: Heard) -> Comparison | str:
        """Return the p-value of each window [N], or what the rule lacks to tell."""

    @abstractmethod
    def describe(self, heard: Heard, row: int) -> str:
        """Say what was heard in the strangest window."""

    def tick(self, heard: Heard, state: State, rule_id: int) -> tuple[list[Firing], State]:
        """Time alone is no evidence."""
        return [], state

    def evaluate(self, heard: Heard, state: State, rule_id: int) -> tuple[list[Firing], State]:
        """Fire where there is more evidence than the budget allows."""
        compared = self.compare(heard)
        if isinstance(compared, str):
            return [], {"waiting": compared}
        p_values = compared.p_values
        version = heard.reference.version if heard.reference is not None else None
        document = state.get("test") if state.get("baseline") == version else None
        test = compared.make_test(self.budget_s, document)
        alarms: list[Alarm | None] = [
            test.step(float(p_value), float(step_s), int(window_id))
            for p_value, step_s, window_id in zip(
                p_values,
                heard.observations.steps_s(),
                heard.observations.window_ids,
                strict=True,
            )
        ]
        firings = [
            self._firing(heard, rule_id, p_values, alarms, rows) for rows in _stretches(alarms)
        ]
        return firings, {"test": test.to_document(), "baseline": version}

    def _firing(
        self,
        heard: Heard,
        rule_id: int,
        p_values: DoubleArray,
        alarms: list[Alarm | None],
        rows: range,
    ) -> Firing:
        alarm = max((a for row in rows if (a := alarms[row])), key=lambda a: a.strength)
        first = alarms[rows[0]]
        # What the evidence gathered on may have begun in an earlier recording.
        begin = max(0, rows[0] + 1 - (first.windows if first is not None else 1))
        behind = np.arange(begin, rows[-1] + 1)
        strangest = behind[np.argsort(p_values[behind], kind="stable")][:NAMED_WINDOWS]
        lowest = float(p_values[strangest[0]])
        days = self.budget_s / DAY_S
        reason = (
            f"{self.describe(heard, int(strangest[0]))} (p {lowest:.2g}); {alarm.detector} "
            f"detector, {alarm.windows} windows in {alarm.since_s:.0f} s, at one false alarm in "
            f"{days:.3g} days"
        )
        observations = heard.observations
        evidence = {
            "detector": alarm.detector,
            "strength": round(alarm.strength, 4),
            "windows": alarm.windows,
            "since_s": alarm.since_s,
            "p_value": lowest,
            "budget_s": self.budget_s,
        }
        return Firing(
            rule_id=rule_id,
            source_id=heard.source_id,
            at=datetime.fromtimestamp(float(observations.starts_s[rows[0]]), UTC),
            until=datetime.fromtimestamp(
                float(observations.starts_s[rows[-1]] + observations.durations_s[rows[-1]]), UTC
            ),
            reason=reason,
            evidence=evidence,
            window_ids=tuple(int(observations.window_ids[row]) for row in strangest),
            weights=tuple(float(p_values[row]) for row in strangest),
        )


@dataclass(frozen=True)
class Novelty(Budgeted):
    """The source no longer sounds like its baseline."""

    @classmethod
    def read(cls, document: Mapping[str, Any], tools: Tools) -> Novelty:
        """Read the settings. Raises RuleSettingsError."""
        reader = SettingsReader("novelty", document)
        budget_s = _read_budget_s(reader)
        reader.close()
        return cls(budget_s, tools)

    def compare(self, heard: Heard) -> Comparison | str:
        """Those of the baseline."""
        if heard.p_values is None:
            return NO_BASELINE
        return Comparison(heard.p_values, self.tools.make_test)

    def describe(self, heard: Heard, row: int) -> str:
        """Say how new it is."""
        if heard.novelty is None:
            return "sounds unlike its baseline"
        return f"sounds unlike its baseline, novelty {float(heard.novelty[row]):.2f}"


@dataclass(frozen=True)
class Text(Budgeted):
    """Something like a description is heard, more than this source's baseline brings by itself.

    vector: the description's, [D] unit norm, under the model `model`; empty where not yet known.
    """

    text: str
    vector: FloatArray
    model: str

    @classmethod
    def read(cls, document: Mapping[str, Any], tools: Tools) -> Text:
        """Read the settings. Raises RuleSettingsError."""
        reader = SettingsReader("text", document)
        reader.refuse_raw_similarity()
        budget_s, text = _read_budget_s(reader), reader.word("text", None)
        vector, model = _read_vector(reader, needed=False)
        reader.close()
        return cls(budget_s, tools, text, vector, model)

    def compare(self, heard: Heard) -> Comparison | str:
        """How rarely the baseline is as similar to the text."""
        if heard.reference is None:
            return NO_BASELINE
        if self.model == heard.model and len(self.vector):
            return resemblance(self.vector, heard, heard.reference)
        if self.tools.embed_text is None:
            return f"the text under the model {heard.model or 'in use'}"
        return resemblance(self.tools.embed_text(self.text), heard, heard.reference)

    def describe(self, heard: Heard, row: int) -> str:
        """Say what was heard."""
        return f"heard '{self.text}'"


@dataclass(frozen=True)
class Exemplar(Budgeted):
    """Something like an example is heard, more than this source's baseline brings by itself.

    name: how people call the example. vector: [D] unit norm, under the model `model`.
    """

    name: str
    vector: FloatArray
    model: str

    @classmethod
    def read(cls, document: Mapping[str, Any], tools: Tools) -> Exemplar:
        """Read the settings. Raises RuleSettingsError."""
        reader = SettingsReader("exemplar", document)
        reader.refuse_raw_similarity()
        budget_s, name = _read_budget_s(reader), reader.word("name", "the example")
        vector, model = _read_vector(reader, needed=True)
        reader.close()
        return cls(budget_s, tools, name, vector, model)

    def compare(self, heard: Heard) -> Comparison | str:
        """How rarely the baseline is as similar to the example."""
        if heard.reference is None:
            return NO_BASELINE
        if self.model != heard.model:
            return f"the example again: it was embedded by {self.model}, heard is {heard.model}"
        return resemblance(self.vector, heard, heard.reference)

    def describe(self, heard: Heard, row: int) -> str:
        """Say what was heard."""
        return f"sounds like {self.name}"


def resemblance(vector: FloatArray, heard: Heard, reference: Reference) -> Comparison:
    """Return for each window heard [N] how rarely the baseline is as similar to a vector [D].

    Recordings of the baseline are held out one by one: its windows are alike within a recording, and
    a budget that ignored it would not hold.
    """
    normal = similarities(vector, reference.vectors, reference.frames, reference.frame_windows)
    observed = heard.observations
    found = similarities(vector, observed.vectors, observed.frames, observed.frame_windows)
    yardstick = reference.yardstick(normal)
    return Comparison(yardstick.p_values(found), yardstick.make_test)


def similarities(
    vector: FloatArray, vectors: FloatArray, frames: FloatArray, frame_windows: IdArray
) -> DoubleArray:
    """Return the cosine [N] of a vector [D] with each window, or with its best second if greater.

    vectors: [N, D]. frames: [F, D], one a second; frame_windows: [F] the row of each one's window.
    """
    best: DoubleArray = np.asarray(vectors @ vector, dtype=np.float64)
    np.maximum.at(best, frame_windows, np.asarray(frames @ vector, dtype=np.float64))
    return best


def write_vector(vector: FloatArray) -> str:
    """Write a vector [D] as it is kept in settings: base64 of little-endian float32."""
    return base64.b64encode(np.ascontiguousarray(vector, dtype="<f4").tobytes()).decode("ascii")


def _read_budget_s(reader: SettingsReader) -> float:
    return reader.number("budget_s", DEFAULT_BUDGET_S, SHORTEST_BUDGET_S, LONGEST_S)


def _read_vector(reader: SettingsReader, *, needed: bool) -> tuple[FloatArray, str]:
    """The vector and the model that made it; empty where there is none and none is needed."""
    text = reader.word("vector", None if needed else "-", 100_000)
    model = reader.word("model", None if needed or text != "-" else "-", 300)
    if text == "-":
        return np.zeros(0, dtype=np.float32), ""
    try:
        vector = np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4")
    except (binascii.Error, ValueError) as error:
        raise RuleSettingsError("vector", "base64 of little-endian float32") from error
    norm = float(np.linalg.norm(vector))
    if not np.isfinite(norm) or abs(norm - 1.0) > 1e-2:
        raise RuleSettingsError("vector", f"a vector of length 1, not {norm:.3g}")
    return vector.astype(np.float32), model


def _stretches(alarms: list[Alarm | None]) -> list[range]:
    """Rows of consecutive windows with an alarm."""
    found: list[range] = []
    for row, alarm in enumerate(alarms):
        if alarm is None:
            continue
        if found and found[-1].stop == row:
            found[-1] = range(found[-1].start, row + 1)
        else:
            found.append(range(row, row + 1))
    return found

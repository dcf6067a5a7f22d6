"""What rules hear, and what they say: the contract between watching, the kinds of rules and incidents.

The kinds themselves are in `monitoring.rule_kinds`, one file a family.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from soundpost.monitoring.observations import DoubleArray, FloatArray, IdArray, Observations

Family = Literal["sound", "health"]
State = dict[str, Any]

# Kinds that look after the source itself; what the others hear is no news while one of these fires.
HEALTH_KINDS = frozenset({"silence", "microphone", "stalled", "format", "clock"})
INHIBITING_KINDS = frozenset({"microphone", "format", "stalled"})
# Those that weigh evidence against a false-alarm budget.
INHIBITED_KINDS = frozenset({"novelty", "text", "exemplar"})


def family_of(kind: str) -> Family:
    """Return whether a kind listens to the sound or looks after the source."""
    return "health" if kind in HEALTH_KINDS else "sound"


class Yardstick(Protocol):
    """How rare a score is on what is normal, and how much of that is too much."""

    def p_values(self, scores: DoubleArray) -> DoubleArray:
        """Return how rare scores [M] are, in (0, 1]."""
        ...

    def make_test(self, budget_s: float, document: Mapping[str, Any] | None) -> SequentialTest:
        """Begin a sequential test within a budget, or go on with one."""
        ...


class Reference(Protocol):
    """What is normal for a source: the windows of its active baseline, under the model `model`.

    model: as `model_key` writes it. version: changes when the baseline does. vectors: [N, D] unit
    norm. frames: [F, D] unit norm; frame_windows: [F] the row of the window each belongs to.
    """

    @property
    def model(self) -> str:
        """The model that made the vectors."""
        ...

    @property
    def version(self) -> int:
        """The version of the baseline."""
        ...

    @property
    def vectors(self) -> FloatArray:
        """One a window."""
        ...

    @property
    def frames(self) -> FloatArray:
        """One a second."""
        ...

    @property
    def frame_windows(self) -> IdArray:
        """The row of each frame's window."""
        ...

    def yardstick(self, scores: DoubleArray) -> Yardstick:
        """Return how rare a score is, from the scores [N] of these windows; greater is rarer."""
        ...


class Alarm(Protocol):
    """More evidence than the false-alarm budget allows, as `monitoring.evidence.Alarm`."""

    @property
    def detector(self) -> str:
        """Which detector has most of it, such as fast or slow."""
        ...

    @property
    def strength(self) -> float:
        """The evidence over what the budget asks for."""
        ...

    @property
    def windows(self) -> int:
        """On how many windows it gathered."""
        ...

    @property
    def since_s(self) -> float:
        """Over how much audio it gathered."""
        ...


class SequentialTest(Protocol):
    """Gathers p-values until they are more than chance brings; see `monitoring.evidence`."""

    def step(self, p_value: float, duration_s: float, window_id: int = 0) -> Alarm | None:
        """Take the next window's p-value; return an alarm as long as there is one."""
        ...

    def to_document(self) -> dict[str, Any]:
        """Return the state, JSON-ready."""
        ...


# (budget in seconds, document of an earlier state or None) -> the test, begun or gone on with.
TestFactory = Callable[[float, Mapping[str, Any] | None], SequentialTest]


EmbedText = Callable[[str], FloatArray]


@dataclass(frozen=True)
class Tools:
    """What kinds of rules work with. embed_text: a unit vector [D] under the model of what is heard.

    Where it is None, a text that was embedded by another model waits.
    """

    make_test: TestFactory
    embed_text: EmbedText | None = None


def model_key(name: str, revision: str) -> str:
    """Name a model by its exact weights."""
    return f"{name}@{revision}"


@dataclass(frozen=True, eq=False)
class Heard:
    """One recording of a source as rules take it, or a tick: that time passed without one.

    recording_id: None for a tick, whose observations are empty. started_at: UTC. tags: one mapping
    of label to probability a window. p_values, novelty: [N], None without an active baseline.
    late: the source has been watched beyond this recording already. model: as `model_key` writes
    it. cadence_s: how often the source is heard, None if unknown. previous_at: when the recording
    before arrived, or the latest one for a tick.
    """

    source_id: int
    source_name: str
    timezone: str
    recording_id: int | None
    started_at: datetime
    duration_s: float
    sample_rate_hz: int | None
    remarks: tuple[Mapping[str, Any], ...]
    observations: Observations
    tags: tuple[Mapping[str, float], ...]
    p_values: DoubleArray | None
    novelty: DoubleArray | None
    now: datetime
    late: bool = False
    channels: int | None = None
    model: str = ""
    reference: Reference | None = None
    cadence_s: float | None = None
    previous_at: datetime | None = None

    @property
    def until(self) -> datetime:
        """When the recording ended, UTC."""
        return self.started_at + timedelta(seconds=self.duration_s)

    def take(self, rows: NDArray[np.bool_]) -> Heard:
        """Return the same with only some windows: a mask [N]."""
        kept = np.flatnonzero(rows)
        return replace(
            self,
            observations=self.observations.take(rows),
            tags=tuple(self.tags[row] for row in kept),
            p_values=None if self.p_values is None else self.p_values[kept],
            novelty=None if self.novelty is None else self.novelty[kept],
        )


@dataclass(frozen=True)
class Firing:
    """That a rule held for a source from `at` until `until` (UTC), and by what it is known.

    reason: one line with the measured figure. evidence: JSON-ready. window_ids: the windows that
    carry it, the strongest first; weights: as many figures, where they have one.
    """

    rule_id: int
    source_id: int
    at: datetime
    until: datetime
    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    window_ids: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()


class Kind(Protocol):
    """A kind of rule with its settings, checked when it was made.

    Its state is JSON-ready, and begins as {}. A state may say under "waiting" what the rule lacks
    to work, such as a baseline: people are shown it.
    """

    def evaluate(self, heard: Heard, state: State, rule_id: int) -> tuple[list[Firing], State]:
        """Hear a recording: return where the rule holds, in order of time, and the new state."""
        ...

    def tick(self, heard: Heard, state: State, rule_id: int) -> tuple[list[Firing], State]:
        """Note that time passed without a recording."""
        ...

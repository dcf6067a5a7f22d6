"""Runs: stretches of consecutive windows in which something holds, also from recording to recording."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soundpost.monitoring.observations import Observations

# Windows this far apart still follow each other: recorders lose a moment between two files.
GAP_S = 2.0
# How many windows of a run are named: the strongest.
NAMED_WINDOWS = 8


@dataclass(frozen=True)
class Run:
    """A stretch in which something holds. since_s, until_s: seconds since 1970. windows: how many.

    strongest: the greatest figure of its windows (negate what counts downwards). window_ids, and
    weights: the strongest of them in this recording.
    """

    since_s: float
    until_s: float
    windows: int
    strongest: float
    window_ids: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()

    @property
    def duration_s(self) -> float:
        """How long it lasts."""
        return self.until_s - self.since_s

    @property
    def since(self) -> datetime:
        """When it began, UTC."""
        return datetime.fromtimestamp(self.since_s, UTC)

    @property
    def until(self) -> datetime:
        """When it ended, or as far as was heard, UTC."""
        return datetime.fromtimestamp(self.until_s, UTC)

    def to_document(self) -> dict[str, Any]:
        """Return what the next recording needs of it, JSON-ready."""
        return {
            "since_s": self.since_s,
            "until_s": self.until_s,
            "windows": self.windows,
            "strongest": self.strongest,
        }

    @classmethod
    def from_document(cls, document: dict[str, Any] | None) -> Run | None:
        """Read what `to_document` wrote."""
        return None if not document else cls(**document)


def find_runs(
    observations: Observations,
    holds: NDArray[np.bool_],
    figures: NDArray[np.float64],
    before: Run | None,
) -> tuple[list[Run], Run | None]:
    """Return the runs of a recording, in order, and the one that reaches its end.

    holds: [N]. figures: [N], the greater the stronger. before: the run that reached the end of the
    recording before; the first run goes on with it where no more than `GAP_S` lie between.
    """
    starts_s = observations.starts_s
    ends_s = starts_s + observations.durations_s
    runs: list[Run] = []
    for rows in _groups(starts_s, ends_s, holds):
        run = _run(observations, rows, figures, ends_s)
        if before is not None and not runs and _follows(run, before, starts_s):
            run = replace(
                run,
                since_s=before.since_s,
                windows=before.windows + run.windows,
                strongest=max(before.strongest, run.strongest),
            )
        runs.append(run)
    if len(starts_s) == 0:
        return [], before
    reaches = bool(runs) and runs[-1].until_s >= float(ends_s.max()) - GAP_S
    return runs, runs[-1] if reaches else None


def _follows(run: Run, before: Run, starts_s: NDArray[np.float64]) -> bool:
    first = run.since_s <= float(starts_s.min()) + GAP_S
    return first and before.since_s <= run.since_s <= before.until_s + GAP_S


def _groups(
    starts_s: NDArray[np.float64], ends_s: NDArray[np.float64], holds: NDArray[np.bool_]
) -> list[list[int]]:
    groups: list[list[int]] = []
    for row in np.flatnonzero(holds).tolist():
        last = groups[-1][-1] if groups else None
        if last == row - 1 and last is not None and starts_s[row] <= ends_s[last] + GAP_S:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def _run(
    observations: Observations,
    rows: Sequence[int],
    figures: NDArray[np.float64],
    ends_s: NDArray[np.float64],
) -> Run:
    strongest = sorted(rows, key=lambda row: -float(figures[row]))[:NAMED_WINDOWS]
    return Run(
        since_s=float(observations.starts_s[rows[0]]),
        until_s=float(ends_s[list(rows)].max()),
        windows=len(rows),
        strongest=float(figures[strongest[0]]),
        window_ids=tuple(int(observations.window_ids[row]) for row in strongest),
        weights=tuple(float(figures[row]) for row in strongest),
    )

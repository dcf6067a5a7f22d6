"""Which windows of a baseline are held out together, and what stays to compare them with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from soundpost.errors import BaselineTooSmallError
from soundpost.monitoring.observations import DoubleArray, IdArray, Observations

MIN_WINDOWS = 8
MAX_FOLDS = 10
BLOCKS = 5
# A recording that holds more than this share leaves too little behind when it is held out.
_LARGEST_SHARE = 0.75
# Windows nearer in time than this share a sound that goes on: they are no held-out evidence.
MARGIN_S = 10.0


@dataclass(frozen=True, eq=False)
class Folds:
    """A partition of N windows. unit: [N] which recording (or block of time) each window is of.

    fold: [N] units that are held out together; each in at most `MAX_FOLDS` parts.
    by_recording: whether units are recordings.
    """

    unit: IdArray
    fold: IdArray
    by_recording: bool
    starts_s: DoubleArray
    ends_s: DoubleArray

    @property
    def count(self) -> int:
        """How many folds there are."""
        return int(self.fold.max()) + 1

    def held_out(self, number: int) -> NDArray[np.bool_]:
        """Return which windows [N] a fold holds out."""
        return np.asarray(self.fold == number)

    def kept(self, number: int) -> NDArray[np.bool_]:
        """Return which windows [N] they are compared with; blocks of time keep a margin."""
        out = self.held_out(number)
        if self.by_recording:
            return ~out
        near = (self.starts_s < self.ends_s[out].max() + MARGIN_S) & (
            self.ends_s > self.starts_s[out].min() - MARGIN_S
        )
        return np.asarray(~near)


def make_folds(observed: Observations) -> Folds:
    """Hold out one recording at a time, or several in a row where there are more than MAX_FOLDS.

    A single recording, or one with most of the windows, is cut into BLOCKS blocks of time instead;
    the order of the rows makes no difference. Raises BaselineTooSmallError below MIN_WINDOWS
    windows, or where one recording is too short to leave anything beyond the margins.
    """
    if len(observed) < MIN_WINDOWS:
        detail = f"at least {MIN_WINDOWS} windows are needed"
        raise BaselineTooSmallError(f"{len(observed)} windows", detail)
    _, unit, sizes = np.unique(observed.recording_ids, return_inverse=True, return_counts=True)
    by_recording = bool(sizes.max() <= _LARGEST_SHARE * len(observed))
    if not by_recording:
        unit = _blocks(observed)
    return _checked(
        Folds(
            unit=unit.astype(np.int64),
            fold=_together(unit, observed.starts_s),
            by_recording=by_recording,
            starts_s=observed.starts_s,
            ends_s=observed.starts_s + observed.durations_s,
        )
    )


def _blocks(observed: Observations) -> IdArray:
    order = np.lexsort((observed.window_ids, observed.starts_s))
    block = np.empty(len(observed), np.int64)
    block[order] = np.arange(len(observed)) * BLOCKS // len(observed)
    return block


def _together(unit: IdArray, starts_s: DoubleArray) -> IdArray:
    """Number the folds: units in a row in time, about equally many windows in each."""
    units = int(unit.max()) + 1
    first_s = np.full(units, np.inf)
    np.minimum.at(first_s, unit, starts_s)
    order = np.lexsort((np.arange(units), first_s))
    folds = min(units, MAX_FOLDS)
    fold = np.empty(units, np.int64)
    fold[order] = np.arange(units) * folds // units
    numbered: IdArray = fold[unit]
    return numbered


def _checked(folds: Folds) -> Folds:
    least = min(int(folds.kept(number).sum()) for number in range(folds.count))
    if least < 2:
        detail = f"held-out blocks keep {MARGIN_S:.0f} s of distance, and nothing is left"
        raise BaselineTooSmallError(f"{len(folds.unit)} windows", detail)
    return folds

"""What a drill found: how much was noticed, from which level on, and how soon.

Detection over level is fitted by isotonic regression (pool adjacent violators: Ayer et al., 1955),
with straight lines between the levels: louder is never less detected. Intervals are of 95 %, by
bootstrap over recordings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any, Final

import numpy as np

from soundpost.monitoring.drill_copies import Gone
from soundpost.monitoring.observations import DoubleArray

CAUGHT: Final = 0.9
EVENT, LASTING, TREATMENT = "short", "lasting", "change"
ALL_SOUNDS: Final = "all of them"
_RESAMPLES = 1_000
_INTERVAL = (0.025, 0.975)


@dataclass(frozen=True)
class Trial:
    """One change in one copy, and whether it was noticed.

    kind: short, lasting (sounds) or change. level_db: of a sound over the background, None
    otherwise. delay_s, windows: from its beginning until the end of the window that raised the
    alarm; None where nothing did. clipped: whether it drove the copy to full scale.
    """

    copy: int
    recording_id: int
    change: str
    kind: str
    level_db: float | None
    delay_s: float | None = None
    windows: int | None = None
    detector: str | None = None
    clipped: bool = False

    @property
    def found(self) -> bool:
        """Whether it was noticed."""
        return self.delay_s is not None


@dataclass(frozen=True)
class Untouched:
    """What the same copies raised without any change.

    alarmed: how many had an alarm after the moment at which changes began; alarms: of all alarms.
    """

    copies: int
    alarmed: int
    alarms: int
    heard_s: float

    @property
    def share(self) -> float:
        """Part of the copies in which chance alone looks like a detection."""
        return self.alarmed / max(1, self.copies)


@dataclass(frozen=True)
class Part:
    """What a part of the reference caught when it was held against the others.

    fast_threshold: of its fast detector, over the budget; 1 is the theorem's half. loudest: short
    sounds at the greatest level, and how many of them were caught.
    """

    part: int
    copies: int
    fast_threshold: float
    loudest: int
    loudest_found: int


@dataclass(frozen=True)
class Delays:
    """Median of the delays, and its interval. windows: median number of windows."""

    median_s: float
    low_s: float
    high_s: float
    windows: float


@dataclass(frozen=True)
class ChangeResult:
    """All trials of one change; of a sound: at one level, or at all of them (level_db None)."""

    change: str
    kind: str
    level_db: float | None
    trials: int
    found: int
    fast: int
    slow: int
    delays: Delays | None

    @property
    def share(self) -> float:
        """Part that was noticed."""
        return self.found / max(1, self.trials)


@dataclass(frozen=True)
class Curve:
    """Detection of a sound by level. shares: as counted. fitted: never falling.

    level_db: where 90 % are caught, by the fit: -inf where the lowest level is enough, inf where
    the greatest is not. low_db, high_db: its interval.
    """

    change: str
    kind: str
    trials: int
    levels_db: tuple[float, ...]
    shares: tuple[float, ...]
    fitted: tuple[float, ...]
    level_db: float
    low_db: float
    high_db: float
    delays: Delays | None

    @property
    def together(self) -> bool:
        """Whether it is of all sounds of its kind."""
        return self.change == ALL_SOUNDS


@dataclass(frozen=True)
class Drilled:
    """Everything a drill found. heard_after_s: median time that was left after a change began."""

    source: str
    version: int
    budget_s: float
    seed: int
    recordings: int
    tested: int
    groups: int
    fitted_share: float
    copy_s: float
    heard_after_s: float
    untouched: Untouched
    trials: tuple[Trial, ...]
    curves: tuple[Curve, ...]
    changes: tuple[ChangeResult, ...]
    gone: tuple[Gone, ...]
    notes: tuple[str, ...]
    parts: tuple[Part, ...] = ()

    def to_document(self) -> dict[str, Any]:
        """Return it JSON-ready; a level that was not reached is null, and `reached` says why."""
        document = asdict(self)
        del document["trials"]
        document["untouched"]["share"] = self.untouched.share
        document["trials"] = len(self.trials)
        document["curves"] = [_curve_document(curve) for curve in self.curves]
        document["changes"] = [asdict(row) | {"share": row.share} for row in self.changes]
        return document


def _curve_document(curve: Curve) -> dict[str, Any]:
    found = asdict(curve)
    for name in ("level_db", "low_db", "high_db"):
        found[name] = found[name] if np.isfinite(found[name]) else None
    reached = "within" if np.isfinite(curve.level_db) else "below" if curve.level_db < 0 else "not"
    return {"reached": reached, **found}


# --- from trials ------------------------------------------------------------------------------


def summarise(trials: Sequence[Trial], seed: int) -> tuple[list[Curve], list[ChangeResult]]:
    """Return the curves of the sounds, all of each kind together last, and the other changes."""
    curves: list[Curve] = []
    for kind in (EVENT, LASTING):
        sounds = [trial for trial in trials if trial.kind == kind]
        curves += [_curve(name, kind, own, seed) for name, own in _by_change(sounds)]
        curves += [_curve(ALL_SOUNDS, kind, sounds, seed)] if sounds else []
    others = [trial for trial in trials if trial.kind == TREATMENT]
    return curves, [_change(own, seed) for _, own in _by_change(others)]


def _by_change(trials: Sequence[Trial]) -> list[tuple[str, list[Trial]]]:
    order = {name: place for place, name in enumerate(dict.fromkeys(t.change for t in trials))}
    ordered = sorted(trials, key=lambda trial: order[trial.change])
    return [(name, list(own)) for name, own in groupby(ordered, lambda trial: trial.change)]


def _change(trials: Sequence[Trial], seed: int) -> ChangeResult:
    found = [trial for trial in trials if trial.found]
    return ChangeResult(
        change=trials[0].change,
        kind=trials[0].kind,
        level_db=trials[0].level_db,
        trials=len(trials),
        found=len(found),
        fast=sum(trial.detector == "fast" for trial in found),
        slow=sum(trial.detector == "slow" for trial in found),
        delays=_delays(trials, seed),
    )


def _curve(name: str, kind: str, trials: Sequence[Trial], seed: int) -> Curve:
    levels = sorted({trial.level_db for trial in trials if trial.level_db is not None})
    owners = sorted({trial.recording_id for trial in trials})
    counts = np.zeros((2, len(owners), len(levels)))
    for trial in trials:
        if trial.level_db is not None:
            place = owners.index(trial.recording_id), levels.index(trial.level_db)
            counts[(0, *place)] += trial.found
            counts[(1, *place)] += 1
    found, tried = counts
    shares = found.sum(axis=0) / tried.sum(axis=0)
    fitted = isotonic(shares, tried.sum(axis=0))
    low, high = _level_interval(found, tried, levels, seed)
    return Curve(
        change=name,
        kind=kind,
        trials=len(trials),
        levels_db=tuple(levels),
        shares=tuple(shares.tolist()),
        fitted=tuple(fitted.tolist()),
        level_db=caught_from(levels, fitted),
        low_db=low,
        high_db=high,
        delays=_delays(trials, seed),
    )


def isotonic(values: DoubleArray, weights: DoubleArray) -> DoubleArray:
    """Return the never-falling values [L] nearest to given ones [L], by weighted squares."""
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        blocks.append((value, max(weight, 1e-9), 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, m, i), (b, n, j) = blocks[-2:]
            blocks[-2:] = [((a * m + b * n) / (m + n), m + n, i + j)]
    return np.concatenate([np.full(size, value) for value, _, size in blocks])


def caught_from(levels_db: Sequence[float], fitted: DoubleArray, share: float = CAUGHT) -> float:
    """Return the level from which a share is caught; -inf: from the lowest on, inf: at none."""
    reached = np.flatnonzero(fitted >= share - 1e-9)
    if not len(reached):
        return float("inf")
    at = int(reached[0])
    if at == 0:
        return float("-inf")
    part = (share - fitted[at - 1]) / (fitted[at] - fitted[at - 1])
    return float(levels_db[at - 1] + min(part, 1.0) * (levels_db[at] - levels_db[at - 1]))


def _level_interval(
    found: DoubleArray, tried: DoubleArray, levels_db: Sequence[float], seed: int
) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    owners = len(found)
    weights = rng.multinomial(owners, np.full(owners, 1.0 / owners), _RESAMPLES)
    sums, totals = weights @ found, weights @ tried
    # A level that none of the drawn recordings was tried at counts as it was found in all.
    shares = np.where(
        totals > 0, sums / np.maximum(totals, 1e-9), found.sum(axis=0) / tried.sum(axis=0)
    )
    levels = [
        caught_from(levels_db, isotonic(share, total))
        for share, total in zip(shares, totals, strict=True)
    ]
    return _quantiles(np.sort(levels))


def _quantiles(ascending: DoubleArray) -> tuple[float, float]:
    """Nearest order statistics: some may be infinite, and nothing lies between those."""
    low, high = (round(q * (len(ascending) - 1)) for q in _INTERVAL)
    return float(ascending[low]), float(ascending[high])


def _delays(trials: Sequence[Trial], seed: int) -> Delays | None:
    found = [(t.recording_id, t.delay_s, t.windows) for t in trials if t.delay_s is not None]
    if not found:
        return None
    by_owner: dict[int, list[float]] = {}
    for owner, delay_s, _ in found:
        by_owner.setdefault(owner, []).append(float(delay_s))
    low_s, high_s = _resampled([np.array(own) for own in by_owner.values()], np.median, seed)
    median_s = float(np.median([delay_s for _, delay_s, _ in found]))
    windows = float(np.median([count for _, _, count in found if count is not None]))
    return Delays(median_s, low_s, high_s, windows)


def _resampled(
    parts: Sequence[DoubleArray], statistic: Callable[[DoubleArray], Any], seed: int
) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(parts), size=(_RESAMPLES // 2, len(parts)))
    values = [float(statistic(np.concatenate([parts[k] for k in row]))) for row in drawn.tolist()]
    return _quantiles(np.sort(values))

"""Thresholds that keep the false-alarm budget on the source's own sound, not only in theory.

The guarantee of `evidence` holds for p-values that are uniform and independent. Windows that follow
each other are alike, so are the windows of one recording, and a reference of N windows knows its
own distribution only so well: false alarms come in less time than stated. Two corrections, both
from held-out p-values of the reference, drawn in blocks (whole recordings, or stretches of long
ones; block bootstrap, Künsch 1989):

1. Each bet is divided by a mean so great that the product over a block has a mean of at most 1, for
   19 of 20 references that could have been recorded instead. What is left is an e-detector over
   blocks, however much the windows of a block have in common.
2. The time between false alarms is counted at a range of thresholds, and the thresholds are raised
   until it is the budget. Evidence of this kind has a tail that is a power (Kesten 1973): the
   logarithm of the time grows linearly in that of the threshold, with the slope k at which the
   k-th power of the product over a block has a mean of 1. That line is followed beyond what the
   reference is long enough to show; its slope comes from all blocks, not from the few alarms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from soundpost.errors import BrokenCalibrationError
from soundpost.monitoring.evidence import BETS, DETECTORS, Thresholds, fast_bets, gather
from soundpost.monitoring.observations import DoubleArray, IdArray

# Stretches of long recordings, in windows: long against what windows have in common.
_STRETCH = 120
_CHAINS = 48
_STEPS = 3000
_REPLICATES = 12
_REPLICATE_STEPS = 1000
_GRID = 48
# The greatest threshold that is counted, in the lengths of a drawn sequence: one strange window lifts
# evidence far beyond the time that it had, and the line begins where alarms become few.
_REACH = 1e4
_FEWEST_ALARMS = 10
_TEMPER_REPLICATES = 200
_TEMPER_CONFIDENCE = 0.95
_GREATEST_TEMPER = 20.0
# The thresholds hold for this share of the references that could have been recorded instead.
_CONFIDENCE = 0.8
# A threshold beyond this multiple of the budget says that evidence grows without a change.
_GREATEST_RAISE: Final = 1e6


@dataclass(frozen=True)
class Budget:
    """A stated budget, the thresholds that keep it, and what was measured.

    stated_s: time between false alarms that was asked for. measured_s: what held-out reference
    sequences gave with these thresholds; low_s, high_s: over resampled recordings, four of five.
    plain_s: what they gave without the correction. extrapolated: whether the line was followed
    beyond what could be counted. holds: whether measured_s reaches stated_s. reference_s: length of
    the reference. fast_windows: strangest windows in a row until the fast detector fires, at least.
    """

    stated_s: float
    thresholds: Thresholds
    measured_s: float
    low_s: float
    high_s: float
    plain_s: float
    extrapolated: bool
    holds: bool
    reference_s: float
    fast_windows: int

    def to_document(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return asdict(self)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Budget:
        """Rebuild what `to_document` wrote. Raises BrokenCalibrationError."""
        try:
            values = dict(document)
            found = dict(values.pop("thresholds"))
            for name in ("fast_means", "slow_means"):
                found[name] = tuple(found[name])
            return cls(thresholds=Thresholds(**found), **values)
        except (KeyError, TypeError, ValueError) as error:
            raise BrokenCalibrationError("budget", str(error)) from error


@dataclass(frozen=True, eq=False)
class Sequences:
    """Held-out p-values in the order of time, cut into blocks that are drawn as they are.

    p_values, durations_s: [N]. first, length: [B] of the blocks' rows.
    """

    p_values: DoubleArray
    durations_s: DoubleArray
    first: IdArray
    length: IdArray


def sequences(
    p_values: DoubleArray, durations_s: DoubleArray, units: IdArray, starts_s: DoubleArray
) -> Sequences:
    """Order windows [N] by unit and time, and cut units into blocks of at most 120 windows."""
    order = np.lexsort((starts_s, units))
    sizes = np.bincount(np.unique(units, return_inverse=True)[1])
    first, length, at = [], [], 0
    for size in sizes.tolist():
        pieces = -(-size // _STRETCH)
        edges = at + np.arange(pieces + 1) * size // pieces
        first.extend(edges[:-1].tolist())
        length.extend(np.diff(edges).tolist())
        at += size
    return Sequences(
        p_values[order], durations_s[order], np.array(first, np.int64), np.array(length, np.int64)
    )


def calibrate_budget(
    p_values: DoubleArray,
    durations_s: DoubleArray,
    units: IdArray,
    starts_s: DoubleArray,
    budget_s: float,
    seed: int = 0,
) -> Budget:
    """Find thresholds for a budget from the held-out p-values [N] of a reference.

    durations_s, starts_s: [N] of the windows. units: [N] recordings or blocks of time. Raises
    InvalidValueError for a budget that is not positive.
    """
    plain = Thresholds.for_budget(budget_s)
    drawn = sequences(p_values, durations_s, units, starts_s)
    rng = np.random.default_rng(seed)
    bets = {name: BETS[name](drawn.p_values) for name in DETECTORS}
    uncorrected = {
        name: _line(drawn, bets[name], _blocks(drawn), _STEPS, rng) for name in DETECTORS
    }
    means = {name: tempering(bets[name], drawn, rng) for name in DETECTORS}
    lines = {name: _lines(drawn, bets[name] / means[name], rng) for name in DETECTORS}
    chosen = {name: _threshold(lines[name], budget_s) for name in DETECTORS}
    thresholds = Thresholds(
        chosen["fast"], chosen["slow"], tuple(means["fast"].tolist()), tuple(means["slow"].tolist())
    )
    times = _together(lines, thresholds)
    low_s, high_s = np.quantile(times[1:], [0.1, 0.9]).tolist()
    return Budget(
        stated_s=budget_s,
        thresholds=thresholds,
        measured_s=float(times[0]),
        low_s=low_s,
        high_s=high_s,
        plain_s=float(_together({n: [line] for n, line in uncorrected.items()}, plain)[0]),
        extrapolated=any(chosen[n] > lines[n][0].counted_s for n in DETECTORS),
        holds=bool(times[0] >= budget_s),
        reference_s=float(durations_s.sum()),
        fast_windows=_fast_windows(thresholds, p_values, durations_s),
    )


def tempering(bets: DoubleArray, drawn: Sequences, rng: np.random.Generator) -> DoubleArray:
    """Return the means [K], at least 1, that bets [N, K] are divided by; see the module, 1."""
    sums = np.add.reduceat(np.log(bets), drawn.first, axis=0)
    blocks = len(drawn.first)
    counts = rng.multinomial(blocks, np.full(blocks, 1.0 / blocks), _TEMPER_REPLICATES)
    weights = np.vstack([np.ones((1, blocks)), counts]) / blocks
    roots = [_temper(sums[:, k], drawn.length, weights) for k in range(bets.shape[1])]
    # What is watched is as uncertain as the reference was, hence the root of two.
    found = [
        root[0]
        + np.sqrt(2.0) * max(0.0, float(np.quantile(root[1:], _TEMPER_CONFIDENCE)) - root[0])
        for root in roots
    ]
    return np.exp(np.maximum(found, 0.0))


def _temper(sums: DoubleArray, length: IdArray, weights: DoubleArray) -> DoubleArray:
    """The logarithm x [R] at which the weighted mean of exp(sums - length x) is 1, by bisection."""
    low, high = np.full(len(weights), -5.0), np.full(len(weights), _GREATEST_TEMPER)
    for _ in range(40):
        middle = (low + high) / 2.0
        exponents = sums[None] - length[None] * middle[:, None]
        top = exponents.max(axis=1, keepdims=True)
        mean = np.log((weights * np.exp(exponents - top)).sum(axis=1) + 1e-300) + top[:, 0]
        low, high = np.where(mean > 0.0, middle, low), np.where(mean > 0.0, high, middle)
    return high


@dataclass(frozen=True, eq=False)
class Line:
    """Time between alarms by threshold: counted at points, a power of the threshold beyond them.

    log_thresholds, log_times: [P] ascending, in log seconds. slope, at most 1. counted_s: the
    greatest threshold with enough alarms.
    """

    log_thresholds: DoubleArray
    log_times: DoubleArray
    slope: float

    @property
    def counted_s(self) -> float:
        """Up to which threshold the time was counted."""
        return float(np.exp(self.log_thresholds[-1]))

    def log_time(self, threshold_s: float) -> float:
        """Return the logarithm of the time between alarms at a threshold."""
        wanted = float(np.log(threshold_s))
        beyond = max(wanted - float(self.log_thresholds[-1]), 0.0)
        inside = float(np.interp(wanted, self.log_thresholds, self.log_times))
        return inside + self.slope * beyond

    def threshold_s(self, time_s: float, greatest_s: float) -> float:
        """Return the smallest threshold with at least this time between alarms, or the greatest."""
        wanted = float(np.log(time_s))
        times = np.maximum.accumulate(self.log_times)
        if wanted <= times[-1]:
            at = int(np.searchsorted(times, wanted))
            return min(float(np.exp(self.log_thresholds[at])), greatest_s)
        if self.slope <= 1e-3:
            return greatest_s
        further = float(self.log_thresholds[-1]) + (wanted - float(times[-1])) / self.slope
        return float(np.exp(min(further, np.log(greatest_s))))


def _blocks(drawn: Sequences) -> IdArray:
    return np.arange(len(drawn.first))


def _lines(drawn: Sequences, bets: DoubleArray, rng: np.random.Generator) -> list[Line]:
    """The line of all blocks, then those of resampled ones, counted side by side."""
    blocks = _blocks(drawn)
    whole = _line(drawn, bets, blocks, _STEPS, rng)
    resampled = [rng.choice(blocks, len(blocks)) for _ in range(_REPLICATES)]
    rows = [_draw(drawn, some, _REPLICATE_STEPS, rng) for some in resampled]
    return [whole, *_count_lines(drawn, bets, resampled, rows)]


def _line(
    drawn: Sequences, bets: DoubleArray, blocks: IdArray, steps: int, rng: np.random.Generator
) -> Line:
    return _count_lines(drawn, bets, [blocks], [_draw(drawn, blocks, steps, rng)])[0]


def _count_lines(
    drawn: Sequences, bets: DoubleArray, blocks: list[IdArray], rows: list[IdArray]
) -> list[Line]:
    """One line for each of several sets of blocks, counted over its rows [steps, chains]."""
    step_s = float(drawn.durations_s.mean())
    thresholds = np.geomspace(3.0 * step_s, len(rows[0]) * step_s * _REACH, _GRID)
    alarms = count_alarms(bets, drawn.durations_s, np.hstack(rows), thresholds)
    counts = [part.sum(axis=1) for part in np.hsplit(alarms, len(rows))]
    return [
        _through(thresholds, count, float(drawn.durations_s[row].sum()), slope)
        for count, row, slope in zip(
            counts, rows, (tail_index(drawn, bets, some) for some in blocks), strict=True
        )
    ]


def _through(thresholds_s: DoubleArray, alarms: DoubleArray, total_s: float, slope: float) -> Line:
    """The line through alarms [G] counted at thresholds [G]."""
    points = max(int((alarms >= _FEWEST_ALARMS).cumprod().sum()), 2)
    log_times = np.log(total_s / np.maximum(alarms[:points], 1.0))
    return Line(np.log(thresholds_s[:points]), log_times, slope)


def tail_index(drawn: Sequences, bets: DoubleArray, blocks: IdArray) -> float:
    """Return the power, from 0 to 1, that evidence of bets [N, K] has beyond what was counted.

    It is the k with a mean of exp(k s) of 1, s being the logarithm of a bet's product over a block
    (Kesten 1973), of the bet with the smallest; 0 where evidence grows without a change.
    """
    sums = np.add.reduceat(np.log(bets), drawn.first, axis=0)[blocks]
    low, high = np.zeros(sums.shape[1]), np.ones(sums.shape[1])
    for _ in range(40):
        middle = (low + high) / 2.0
        below = np.exp(middle * sums).mean(axis=0) <= 1.0
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return float(low.min())


def _draw(drawn: Sequences, blocks: IdArray, steps: int, rng: np.random.Generator) -> IdArray:
    """Rows [steps, chains] of blocks drawn one after the other."""
    mean = float(drawn.length[blocks].mean())
    columns = []
    for _ in range(_CHAINS):
        picked: list[IdArray] = []
        have = 0
        while have < steps:
            some = rng.choice(blocks, max(1, int((steps - have) / mean) + 1))
            picked.extend(np.arange(drawn.first[b], drawn.first[b] + drawn.length[b]) for b in some)
            have += int(drawn.length[some].sum())
        columns.append(np.concatenate(picked)[:steps])
    return np.stack(columns, axis=1)


def count_alarms(
    bets: DoubleArray, durations_s: DoubleArray, rows: IdArray, thresholds_s: DoubleArray
) -> DoubleArray:
    """Count alarms [G, chains] at thresholds [G] over rows [steps, chains]; each begins anew.

    bets: [N, K], durations_s: [N] of the windows that rows name.
    """
    # [K, G, chains]: sums over a short last axis take most of the time.
    evidence = np.zeros((bets.shape[1], len(thresholds_s), rows.shape[1]))
    alarms = np.zeros(evidence.shape[1:])
    limits = thresholds_s[:, None]
    by_bet = np.ascontiguousarray(bets.T)[:, None]
    for row in rows:
        evidence = gather(evidence, by_bet[..., row], durations_s[row])
        fired = evidence.sum(axis=0) / len(evidence) >= limits
        if fired.any():
            alarms += fired
            evidence[:, fired] = 0.0
    return alarms


def _threshold(lines: list[Line], budget_s: float) -> float:
    """The threshold that keeps half of the rate in most resampled references; never below theory."""
    greatest_s = _GREATEST_RAISE * budget_s
    needed = [line.threshold_s(2.0 * budget_s, greatest_s) for line in lines]
    most = float(np.quantile(needed[1:], _CONFIDENCE))
    return max(2.0 * budget_s, needed[0], most)


def _together(lines: Mapping[str, list[Line]], thresholds: Thresholds) -> DoubleArray:
    """Time between alarms of either detector [1 + replicates]; their rates add up."""
    fast = np.array([line.log_time(thresholds.fast_s) for line in lines["fast"]])
    slow = np.array([line.log_time(thresholds.slow_s) for line in lines["slow"]])
    return np.asarray(np.exp(-np.logaddexp(-fast, -slow)))


def _fast_windows(thresholds: Thresholds, p_values: DoubleArray, durations_s: DoubleArray) -> int:
    """How many windows at the smallest p-value without a tail bring the fast detector to fire."""
    smallest = np.array(1.0 / (len(p_values) + 1.0))
    threshold_s, means = thresholds.of("fast")
    bet = float(np.log(fast_bets(smallest)[0] / means[0]))
    if bet <= 1e-3:
        return 10**6
    return max(1, int(np.ceil(np.log(threshold_s / float(durations_s.mean())) / bet)))

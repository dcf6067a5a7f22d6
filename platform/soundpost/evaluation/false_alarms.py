"""False alarms against the stated budget, and how soon a broken propeller is noticed.

One mission alone, the one that nothing was chosen on: half of its normal flights are the baseline,
the other half are unseen normal sound, its broken flights are the change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from soundpost.evaluation.flights import Noise, noise_level, with_noise
from soundpost.evaluation.observing import Listener
from soundpost.evaluation.watching import HOUR_S, Watch, make_watch
from soundpost.monitoring.observations import Observations

FloatArray = NDArray[np.float32]

WINDOW_S = 5.0
STATED_S = HOUR_S
# Each unseen flight is heard this often, each time with other noise.
ROUNDS = 24
# Clean flights cannot be heard anew: these many hours are drawn of them.
CLEAN_H = 10.0


@dataclass(frozen=True)
class WatchedLevel:
    """One level of noise. heard_s: normal sound watched; alarms in it, and stated for it.

    delays_s: from the splice to the alarm, of the changes that were found; changes: how many.
    low, high: alarms an hour, 95 % interval over flights. calibrated_s: the budget's own figure.
    """

    snr_db: float | None
    heard_s: float
    alarms: int
    low: float
    high: float
    calibrated_s: float
    changes: int
    delays_s: tuple[float, ...]

    @property
    def per_hour(self) -> float:
        """Measured false alarms an hour."""
        return self.alarms * HOUR_S / self.heard_s

    @property
    def ratio(self) -> float:
        """Measured over stated rate of false alarms."""
        return self.alarms * STATED_S / self.heard_s


def watch_level(
    listener: Listener,
    normal: Sequence[FloatArray],
    broken: Sequence[FloatArray],
    noise: Noise,
    snr_db: float | None,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> WatchedLevel:
    """Watch unseen flights at a level of noise, then broken ones spliced in after them.

    normal: of one mission; every other one is the baseline.
    """
    rng = np.random.default_rng(seed)
    level = noise_level(normal[::2], snr_db)
    baseline = with_noise(normal[::2], noise.baseline, level, rng)
    watch = make_watch(listener.observe(baseline, WINDOW_S), STATED_S)
    unseen = normal[1::2]
    mix = partial(with_noise, clips=noise.test, noise_rms=level, rng=rng)
    heard = _heard(watch, listener, unseen, mix, 1 if snr_db is None else rounds)
    order = _clean_order(heard, rng) if snr_db is None else rng.permutation(len(heard)).tolist()
    alarms = _alarms(watch, [heard[n] for n in order])
    lengths = [len(heard[n]) for n in order]
    low, high = _interval(alarms, lengths, [n % len(unseen) for n in order], rng)
    changed = listener.observe(mix(broken), WINDOW_S)
    delays = _delays(watch, changed, heard, rng)
    return WatchedLevel(
        snr_db=snr_db,
        heard_s=sum(lengths) * WINDOW_S,
        alarms=sum(alarms),
        low=low,
        high=high,
        calibrated_s=watch.budget.measured_s,
        changes=len(delays),
        delays_s=tuple(delay * WINDOW_S for delay in delays if delay),
    )


def _heard(
    watch: Watch,
    listener: Listener,
    unseen: Sequence[FloatArray],
    mix: Callable[[Sequence[FloatArray]], list[FloatArray]],
    rounds: int,
) -> list[list[float]]:
    """The p-values of every unseen flight in every round, one flight after the other."""
    found = []
    for _ in range(rounds):
        observed = listener.observe(mix(unseen), WINDOW_S)
        p_values = watch.p_values(observed)
        found += [p_values[observed.recording_ids == n].tolist() for n in range(len(unseen))]
    return found


def _clean_order(heard: Sequence[Sequence[float]], rng: np.random.Generator) -> list[int]:
    """Flights drawn again and again, as there are no others."""
    mean_s = WINDOW_S * float(np.mean([len(flight) for flight in heard]))
    drawn: list[int] = rng.integers(len(heard), size=round(CLEAN_H * HOUR_S / mean_s)).tolist()
    return drawn


def _alarms(watch: Watch, flights: Sequence[Sequence[float]]) -> list[int]:
    """How many alarms begin in each of several flights, one after the other."""
    rows = watch.alarms([p for flight in flights for p in flight], WINDOW_S)
    ends = np.cumsum([len(flight) for flight in flights])
    owners = np.searchsorted(ends, rows, side="right")
    counts: list[int] = np.bincount(owners, minlength=len(flights)).tolist()
    return counts


def _delays(
    watch: Watch, changed: Observations, heard: Sequence[Sequence[float]], rng: np.random.Generator
) -> list[int]:
    """After how many windows of each broken flight an alarm stands; unseen flights come before."""
    p_values = watch.p_values(changed)
    delays = []
    for number in np.unique(changed.recording_ids):
        some = rng.integers(len(heard), size=2).tolist()
        before = [p_value for flight in some for p_value in heard[flight]]
        after = p_values[changed.recording_ids == number].tolist()
        delays.append(watch.delay(before, after, WINDOW_S))
    return delays


def _interval(
    alarms: Sequence[int], lengths: Sequence[int], flights: Sequence[int], rng: np.random.Generator
) -> tuple[float, float]:
    """95 % interval of alarms an hour, over resampled flights with all their rounds."""
    counts = np.bincount(flights, weights=alarms)
    hours = np.bincount(flights, weights=lengths) * WINDOW_S / HOUR_S
    drawn = rng.integers(len(counts), size=(1000, len(counts)))
    rates = counts[drawn].sum(axis=1) / np.maximum(hours[drawn].sum(axis=1), 1e-9)
    low, high = np.quantile(rates, [0.025, 0.975])
    return float(low), float(high)

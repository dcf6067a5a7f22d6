"""Which flights have a broken propeller: our methods and two peers on the same mixtures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from soundpost.evaluation.flights import Flights, Noise, noise_level, with_noise
from soundpost.evaluation.metrics import area_under_roc
from soundpost.evaluation.observing import Listener, cut, recording_means
from soundpost.evaluation.peers import fit_mel_mahalanobis, train_autoencoder
from soundpost.monitoring.novelty import NOVELTY_METHODS, fit

FloatArray = NDArray[np.float32]
DoubleArray = NDArray[np.float64]

RATE_HZ = 16_000
# Seconds of a stretch, and of the windows whose scores are averaged over it. The product's windows
# are of 5 s; the peers' are of 1 s throughout, so ours are shown with those as well.
STRETCHES = ((1.0, 1.0), (10.0, 5.0), (10.0, 1.0))
MAX_FPR = 0.1
AUTOENCODER, MAHALANOBIS = "autoencoder", "mel Mahalanobis"
PEERS = (AUTOENCODER, MAHALANOBIS)
_RESAMPLES = 500


@dataclass(frozen=True, eq=False)
class Scored:
    """Scores [M] of stretches, which are of broken flights, and of which flight each is."""

    scores: DoubleArray
    broken: NDArray[np.bool_]
    flights: NDArray[np.int64]

    def area(self, max_fpr: float = 1.0) -> float:
        """Return the AUC, or the partial one."""
        return area_under_roc(self.scores, self.broken, max_fpr)


@dataclass(frozen=True, eq=False)
class Mixtures:
    """Flights at one level of noise."""

    baseline: list[FloatArray]
    normal: list[FloatArray]
    broken: list[FloatArray]


def mixtures(flights: Flights, noise: Noise, snr_db: float | None, seed: int) -> Mixtures:
    """Mix noise into all flights, the baseline's too: it is recorded where one watches."""
    rng = np.random.default_rng(seed)
    level = noise_level(flights.baseline, snr_db)
    return Mixtures(
        with_noise(flights.baseline, noise.baseline, level, rng),
        with_noise(flights.normal, noise.test, level, rng),
        with_noise(flights.broken, noise.test, level, rng),
    )


def score_ours(
    listener: Listener,
    mixed: Mixtures,
    duration_s: float,
    window_s: float,
    methods: Sequence[str] = NOVELTY_METHODS,
) -> dict[str, Scored]:
    """Score stretches of the test flights by each of our methods."""
    baseline = listener.observe(mixed.baseline, window_s)
    test = listener.observe(mixed.normal + mixed.broken, window_s)
    found = {}
    for method in methods:
        scores = fit(baseline, method).score(test).novelty
        found[method] = _stretches(scores, test.recording_ids, mixed, duration_s / window_s)
    return found


def score_peers(mixed: Mixtures, epochs: int = 50, seed: int = 0) -> list[dict[str, Scored]]:
    """Train both peers on the baseline and score the test flights, for each of STRETCHES."""
    normal = np.concatenate([cut(wave, 1.0, RATE_HZ) for wave in mixed.baseline])
    test = [cut(wave, 1.0, RATE_HZ) for wave in mixed.normal + mixed.broken]
    flights = np.repeat(np.arange(len(test)), [len(windows) for windows in test])
    windows = np.concatenate(test)
    scores = {
        AUTOENCODER: train_autoencoder(normal, epochs, seed).score(windows),
        MAHALANOBIS: fit_mel_mahalanobis(normal).score(windows),
    }
    return [
        {name: _stretches(values, flights, mixed, seconds) for name, values in scores.items()}
        for seconds, _ in STRETCHES
    ]


def _stretches(
    scores: DoubleArray, flights: NDArray[np.int64], mixed: Mixtures, windows: float
) -> Scored:
    means, owners = recording_means(scores, flights, round(windows))
    return Scored(means, owners >= len(mixed.normal), owners)


def interval(scored: Scored, max_fpr: float, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % percentile interval of the area over resampled flights, in each class."""
    rng = np.random.default_rng(seed)
    rows = {number: np.flatnonzero(scored.flights == number) for number in scored.flights}
    normal = np.unique(scored.flights[~scored.broken])
    broken = np.unique(scored.flights[scored.broken])
    areas = []
    for _ in range(_RESAMPLES):
        drawn = np.r_[rng.choice(normal, len(normal)), rng.choice(broken, len(broken))]
        some = np.concatenate([rows[number] for number in drawn])
        areas.append(area_under_roc(scored.scores[some], scored.broken[some], max_fpr))
    low, high = np.quantile(areas, [0.025, 0.975])
    return float(low), float(high)

"""Whether two recordings sound the same, and the claim that they do."""

from __future__ import annotations

from typing import Final

import numpy as np

from soundpost.explain.claims import Claim
from soundpost.explain.compared import Comparison
from soundpost.explain.listening import Listening
from soundpost.explain.profile import FLOOR_DBFS
from soundpost.explain.verdict import Checked, Verdict

ALIKE_DURATION_S: Final = 0.15
# Levels in twelve bands every 25 ms, where either is heard, but for a gain that nobody hears: their
# mean difference, and that of the hundredth that differs most.
ALIKE_DB: Final = 0.4
ALIKE_MOST_DB: Final = 3.0
ALIKE_GAIN_DB: Final = 0.8
# Differences between frames of the encoder, as one minus the cosine, in the mean.
ALIKE_FRAMES: Final = 0.03
_RANGE_DB: Final = 30.0


def alike(first: Listening, second: Listening) -> bool:
    """Say whether no difference can be heard between two recordings."""
    if abs(first.duration_s - second.duration_s) > ALIKE_DURATION_S:
        return False
    mean_db, most_db = band_difference_db(first, second)
    same_levels = mean_db <= ALIKE_DB and most_db <= ALIKE_MOST_DB
    return same_levels and frame_difference(first, second) <= ALIKE_FRAMES


def band_difference_db(first: Listening, second: Listening) -> tuple[float, float]:
    """Return how far levels over time differ, in the mean and in the most different hundredth."""
    levels = first.profile.fast_dbfs, second.profile.fast_dbfs
    steps = min(len(level) for level in levels)
    floor = max(max(float(level.max()) for level in levels) - _RANGE_DB, FLOOR_DBFS)
    gain_db = second.acoustics.a_level_dbfs - first.acoustics.a_level_dbfs
    gain_db = gain_db if abs(gain_db) <= ALIKE_GAIN_DB else 0.0
    changes = np.maximum(levels[1][:steps] - gain_db, floor) - np.maximum(levels[0][:steps], floor)
    return float(np.abs(changes).mean()), float(np.quantile(np.abs(changes), 0.99))


def frame_difference(first: Listening, second: Listening) -> float:
    """Return one minus the mean cosine of frames at the same time."""
    steps = min(len(first.frames), len(second.frames))
    cosines = (first.frames[:steps] * second.frames[:steps]).sum(axis=1)
    return float(1.0 - cosines.mean())


def check_nothing(claim: Claim, compared: Comparison) -> Checked:
    """Check that nothing differs."""
    mean_db, most_db = band_difference_db(*compared.both)
    measurement = {"mean_difference_db": mean_db, "most_difference_db": most_db}
    same = alike(*compared.both)
    reason = f"levels over time differ by {mean_db:.1f} dB in the mean, by {most_db:.1f} dB at most"
    if same:
        return Checked(claim, Verdict.SUPPORTED, measurement, reason)
    # A little beyond the limits nobody can be sure that it is heard.
    plain = mean_db > 1.5 * ALIKE_DB or most_db > 1.5 * ALIKE_MOST_DB
    verdict = Verdict.CONTRADICTED if plain else Verdict.NOT_MEASURABLE
    return Checked(claim, verdict, measurement, reason)

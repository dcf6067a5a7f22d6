"""One motor: is a throttle step, or a propeller taken off, told from repeats of the same state?

Every other recording of a state is its baseline, where that makes enough windows; the rest are the
same state again. Windows of one second, as the recordings are two seconds long. Nothing was chosen
by these figures.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from soundpost.evaluation.metrics import area_under_roc
from soundpost.evaluation.observing import Listener
from soundpost.monitoring.folds import MIN_WINDOWS
from soundpost.monitoring.novelty import NOVELTY_METHODS, fit
from soundpost.monitoring.observations import Observations
from soundpost.training.data import load_clips, load_waves, unit_wave

FloatArray = NDArray[np.float32]
State = tuple[str, int]

WINDOW_S = 1.0
CHANGES = ("throttle step of 10 %", "larger throttle step", "propeller taken off or put on")


@dataclass(frozen=True, eq=False)
class Changed:
    """Areas under the ROC curve by change and method, one a baseline state."""

    areas: dict[tuple[str, str], list[float]]


def load_states(data: Path, cache: Path) -> dict[State, list[FloatArray]]:
    """Return the recordings of each (label, throttle in percent). Raises DataMissingError."""
    clips = load_clips(data)
    states: dict[State, list[FloatArray]] = defaultdict(list)
    for clip, wave in zip(clips, load_waves(data, clips, cache), strict=True):
        if clip.dataset == "motor":
            throttle = int(clip.path.split("pct_")[0].rsplit("_", 1)[1])
            states[clip.label, throttle].append(unit_wave(wave))
    return dict(states)


def measure_changes(listener: Listener, states: dict[State, list[FloatArray]]) -> Changed:
    """Fit each state on half of its recordings, and tell the other half from other states."""
    seen = {state: listener.observe(waves, WINDOW_S) for state, waves in states.items()}
    areas: dict[tuple[str, str], list[float]] = defaultdict(list)
    for state, own in seen.items():
        even = own.recording_ids % 2 == 0
        if int(even.sum()) < MIN_WINDOWS:
            continue
        for method in NOVELTY_METHODS:
            novelty = fit(own.take(even), method)
            same = novelty.score(own.take(~even)).novelty
            for change, others in _others(state, seen).items():
                other = np.concatenate([novelty.score(o).novelty for o in others])
                positive = np.r_[np.zeros(len(same)), np.ones(len(other))] > 0
                area = area_under_roc(np.r_[same, other], positive)
                areas[change, method].append(area)
    return Changed(dict(areas))


def _others(state: State, seen: dict[State, Observations]) -> dict[str, list[Observations]]:
    """What differs from a state in one respect, by the change."""
    found: dict[str, list[Observations]] = defaultdict(list)
    for (label, throttle), observed in seen.items():
        if label == state[0] and throttle != state[1]:
            step = abs(throttle - state[1])
            found[CHANGES[0] if step <= 10 else CHANGES[1]].append(observed)
        elif label != state[0] and throttle == state[1]:
            found[CHANGES[2]].append(observed)
    return dict(found)

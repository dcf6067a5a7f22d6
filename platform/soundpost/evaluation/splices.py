"""How loud a new sound must be over a long background to be noticed, and how soon it is.

Backgrounds are synthetic (`soundpost.audio.scenes`), the new sounds are held-out clips of ESC-50 and
synthetic ones that are in no background. Nothing was chosen by these figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from soundpost.audio.scenes import Event, Scene, synthesise
from soundpost.evaluation.observing import Listener
from soundpost.evaluation.watching import DAY_S, Watch, make_watch

FloatArray = NDArray[np.float32]

RATE_HZ = 16_000
WINDOW_S = 5.0
BACKGROUNDS = {"fan": ("fan",), "rain": ("rain",), "pump and rain": ("pump", "rain")}
INTRUDERS = ("alarm", "glass", "dog", "siren")
LEVELS_DB = (-10.0, -5.0, 0.0, 5.0, 10.0, 20.0)
BASELINE_RECORDINGS = 12
RECORDING_S = 100.0
# Quiet windows before a splice, and windows in which an alarm may still come after it began.
_BEFORE = 60
_AFTER_S = 20.0
_SPLICE_S = 5.0


@dataclass(frozen=True)
class Detection:
    """Splices at one level over one background: how many, how many found, delays in windows."""

    background: str
    level_db: float
    splices: int
    found: int
    delays: tuple[int, ...]


def background(kinds: Sequence[str], seconds: float, seed: int) -> FloatArray:
    """Return a recording [N] of continuous sounds over noise; every seed is another one."""
    events = [Event(kind, 0.0, seconds, -32.0) for kind in kinds]
    scene = Scene(events, seconds, RATE_HZ, noise_dbfs=-46.0, seed=seed)
    return np.asarray(scene.render().wave, np.float32)


def splice(
    under: FloatArray, sound: FloatArray, level_db: float, rng: np.random.Generator
) -> FloatArray:
    """Add a sound [M] to a background [N] in the first window, at a level over the background."""
    at = int(rng.integers(round(2.5 * RATE_HZ)))
    sound = sound[: min(len(sound), round(_SPLICE_S * RATE_HZ), len(under) - at)]
    gain = 10.0 ** (level_db / 20.0) * _rms(under) / max(_loudest(sound), 1e-6)
    mixed = under.copy()
    mixed[at : at + len(sound)] += np.float32(gain) * sound
    return mixed


def intruders(clips: Sequence[FloatArray], count: int, seed: int) -> list[FloatArray]:
    """Return sounds: clips drawn without repeats, then synthetic kinds."""
    rng = np.random.default_rng(seed)
    drawn = rng.permutation(len(clips))[: max(0, count - len(INTRUDERS))]
    made = [synthesise(kind, 3.0, RATE_HZ, rng) for kind in INTRUDERS]
    return [clips[number] for number in drawn] + made[: count - len(drawn)]


def detections(
    listener: Listener,
    name: str,
    sounds: Sequence[FloatArray],
    *,
    levels_db: Sequence[float] = LEVELS_DB,
    budget_s: float = DAY_S,
    recordings: int = BASELINE_RECORDINGS,
    recording_s: float = RECORDING_S,
) -> list[Detection]:
    """Watch one background of BACKGROUNDS and splice sounds into new recordings of it."""
    kinds = BACKGROUNDS[name]
    normal = [background(kinds, recording_s, seed) for seed in range(recordings)]
    watch = make_watch(listener.observe(normal, WINDOW_S), budget_s)
    quiet = listener.observe(
        [background(kinds, recording_s, 1000 + seed) for seed in range(3)], WINDOW_S
    )
    before = watch.p_values(quiet).tolist()[:_BEFORE]
    unders = [background(kinds, _AFTER_S, 2000 + number) for number in range(len(sounds))]
    found = []
    for level_db in levels_db:
        rng = np.random.default_rng(0)
        mixed = [splice(u, s, level_db, rng) for u, s in zip(unders, sounds, strict=True)]
        delays = _delays(watch, listener, before, mixed)
        caught = tuple(delay for delay in delays if delay)
        found.append(Detection(name, level_db, len(mixed), len(caught), caught))
    return found


def _delays(
    watch: Watch, listener: Listener, before: list[float], mixed: Sequence[FloatArray]
) -> list[int]:
    observed = listener.observe(mixed, WINDOW_S)
    p_values = watch.p_values(observed)
    return [
        watch.delay(before, p_values[observed.recording_ids == number].tolist(), WINDOW_S)
        for number in range(len(mixed))
    ]


def _rms(wave: FloatArray) -> float:
    return float(np.sqrt(np.square(wave, dtype=np.float64).mean()))


def _loudest(wave: FloatArray) -> float:
    """RMS of the loudest half second: a clip is often one bark and silence."""
    frame = min(RATE_HZ // 2, len(wave))
    frames = wave[: len(wave) // frame * frame].reshape(-1, frame)
    return float(np.sqrt(np.square(frames, dtype=np.float64).mean(axis=1).max()))

"""The flights of a drone, heard by its own microphone, with the noise of other places mixed in.

Two missions (`origin`) of flights with whole propellers (normal) and broken ones. Development uses
one mission alone; the figures that are reported use the other one for testing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from soundpost.training.data import load_clips, load_waves, unit_wave

FloatArray = NDArray[np.float32]

DEVELOPMENT_MISSION = "cw_square"
TEST_MISSION = "cw_f8"
# Clean, then noise as loud as the flight and louder.
NOISE_LEVELS_DB: tuple[float | None, ...] = (None, 0.0, -5.0, -10.0, -15.0)
_SPREAD_DB = 6.0
_SKIPPED = 80_000


@dataclass(frozen=True, eq=False)
class Flights:
    """Waves [N] at 16 kHz. baseline: half of one mission's normal flights, normal, broken: to test.

    own_normal: the other half of the baseline's mission, never heard before either.
    """

    baseline: list[FloatArray]
    own_normal: list[FloatArray]
    normal: list[FloatArray]
    broken: list[FloatArray]


@dataclass(frozen=True, eq=False)
class Noise:
    """Clips of ESC-50 by what they may be mixed with, so that no clip is heard on both sides."""

    baseline: list[FloatArray]
    test: list[FloatArray]


def load_flights(data: Path, cache: Path, development: bool) -> Flights:
    """Load the flights. Raises DataMissingError.

    The baseline is every other normal flight of the development mission. In development the test is
    the rest of that mission; otherwise it is the whole other mission.
    """
    own_normal, own_broken = _mission(data, cache, DEVELOPMENT_MISSION)
    baseline, rest = own_normal[::2], own_normal[1::2]
    if development:
        return Flights(baseline, rest, rest, own_broken)
    return Flights(baseline, rest, *_mission(data, cache, TEST_MISSION))


def load_noise(data: Path, cache: Path, development: bool) -> Noise:
    """Load the clips of noise: folds 1 and 2 for baselines, 3 (development) or 4 for tests."""
    clips = load_clips(data)
    waves = load_waves(data, clips, cache)
    folds: dict[int, list[FloatArray]] = {1: [], 2: [], 3: [], 4: []}
    for clip, wave in zip(clips, waves, strict=True):
        if clip.dataset == "esc50" and clip.fold in folds and np.abs(wave).max() > 100:
            folds[clip.fold].append(unit_wave(wave))
    return Noise(folds[1] + folds[2], folds[3] if development else folds[4])


def _mission(data: Path, cache: Path, origin: str) -> tuple[list[FloatArray], list[FloatArray]]:
    clips = load_clips(data)
    waves = load_waves(data, clips, cache)
    sorted_out: dict[str, list[FloatArray]] = {"normal": [], "broken": []}
    for clip, wave in zip(clips, waves, strict=True):
        if clip.dataset == "uav" and clip.origin == origin:
            sorted_out[clip.label].append(unit_wave(wave))
    return sorted_out["normal"], sorted_out["broken"]


def with_noise(
    waves: Sequence[FloatArray],
    clips: Sequence[FloatArray],
    noise_rms: float,
    rng: np.random.Generator,
) -> list[FloatArray]:
    """Mix clips, one after the other, into waves; a noise of 0 leaves them as they are.

    Clips are `noise_rms` loud, give or take 6 dB, and begin anywhere in a window, or the level of a
    window would be the same in all. The noise does not turn louder because the machine does.
    """
    return [_noisy(wave, clips, noise_rms, rng) for wave in waves] if noise_rms else list(waves)


def noise_level(normal: Sequence[FloatArray], snr_db: float | None) -> float:
    """Return the RMS of noise at a ratio to the mean power of normal sound; 0 for None.

    One level for a machine, as in MIMII (Purohit et al. 2019).
    """
    if snr_db is None:
        return 0.0
    power = np.mean([np.square(wave, dtype=np.float64).mean() for wave in normal])
    return float(np.sqrt(power) * 10.0 ** (-snr_db / 20.0))


def _noisy(
    wave: FloatArray, clips: Sequence[FloatArray], noise_rms: float, rng: np.random.Generator
) -> FloatArray:
    skipped = int(rng.integers(_SKIPPED))
    pieces: list[FloatArray] = []
    while sum(map(len, pieces)) < skipped + len(wave):
        clip = clips[int(rng.integers(len(clips)))]
        gain = 10.0 ** (rng.uniform(-_SPREAD_DB, _SPREAD_DB) / 20.0)
        pieces.append(clip * np.float32(gain / max(_rms(clip), 1e-6)))
    noise = np.concatenate(pieces)[skipped : skipped + len(wave)]
    return np.asarray(wave + np.float32(noise_rms) * noise, np.float32)


def _rms(wave: FloatArray) -> float:
    return float(np.sqrt(np.square(wave, dtype=np.float64).mean()))

"""Training examples from labelled clips: cut, placed, mixed, coloured; all from explicit seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from soundpost.training.data import SAMPLE_RATE_HZ

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Example:
    """A wave [N] and what is in it: class index and share of each part, in order of onset."""

    wave: FloatArray
    classes: tuple[int, ...]
    shares: tuple[float, ...]
    in_sequence: bool = False


class Mixer:
    """Draws examples: every class equally often, half of them mixtures or sequences."""

    def __init__(
        self, waves: Sequence[NDArray[np.int16]], classes: Sequence[int], window_s: float
    ) -> None:
        self.waves = waves
        self.samples = round(window_s * SAMPLE_RATE_HZ)
        self.members: dict[int, list[int]] = {}
        for index, label in enumerate(classes):
            self.members.setdefault(label, []).append(index)
        self.labels = sorted(self.members)

    def example(self, rng: np.random.Generator) -> Example:
        """Draw one example."""
        first, second = rng.choice(self.labels, 2, replace=False)
        kind = rng.random()
        if kind < 0.45:
            wave = self._part(int(first), self.samples, rng)
            example = Example(wave, (int(first),), (1.0,))
        elif kind < 0.9:
            example = self._mixture(int(first), int(second), rng)
        else:
            example = self._sequence(int(first), int(second), rng)
        return Example(
            _level(_colour(example.wave, rng), rng),
            example.classes,
            example.shares,
            example.in_sequence,
        )

    def batch(self, size: int, rng: np.random.Generator) -> list[Example]:
        """Draw `size` examples."""
        return [self.example(rng) for _ in range(size)]

    def _mixture(self, first: int, second: int, rng: np.random.Generator) -> Example:
        difference_db = rng.uniform(-10.0, 10.0)
        gain = 10.0 ** (difference_db / 20.0)
        a = self._part(first, self.samples, rng)
        b = self._part(second, self.samples, rng)
        # The louder one is asked for more often than the one it covers.
        share = 1.0 / (1.0 + 10.0 ** (-difference_db / 20.0))
        return Example(a * np.float32(gain) + b, (first, second), (share, 1.0 - share))

    def _sequence(self, first: int, second: int, rng: np.random.Generator) -> Example:
        cut = int(self.samples * rng.uniform(0.35, 0.65))
        a = self._part(first, cut, rng)
        b = self._part(second, self.samples - cut, rng)
        return Example(np.concatenate([a, b]), (first, second), (0.5, 0.5), True)

    def _part(self, label: int, samples: int, rng: np.random.Generator) -> FloatArray:
        """Return `samples` of a clip of this class at unit loudness, placed or cut at random."""
        members = self.members[label]
        wave = self.waves[members[int(rng.integers(len(members)))]]
        if len(wave) > samples:
            start = _loud_start(wave, samples, rng)
            cut = wave[start : start + samples].astype(np.float32)
        else:
            cut = np.zeros(samples, np.float32)
            at = int(rng.integers(samples - len(wave) + 1))
            cut[at : at + len(wave)] = wave
            if rng.random() < 0.5:
                cut = np.roll(cut, int(rng.integers(samples)))
        return cut / max(_loudness(cut), 1.0)


def _loud_start(wave: NDArray[np.int16], samples: int, rng: np.random.Generator) -> int:
    """Choose a cut among three that is not the quietest: clips are often silent at one end."""
    starts = rng.integers(len(wave) - samples + 1, size=3)
    power = [np.square(wave[s : s + samples : 8].astype(np.float32)).sum() for s in starts]
    return int(starts[int(np.argsort(power)[1 + int(rng.integers(2))])])


def _loudness(wave: FloatArray) -> float:
    """Return the RMS of the louder tenths of a second, so that one click counts as loud."""
    blocks = wave[: len(wave) // 1_600 * 1_600].reshape(-1, 1_600)
    power = np.square(blocks).mean(axis=1)
    return float(np.sqrt(np.quantile(power, 0.9))) + 1e-3


def _colour(wave: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Tilt the spectrum gently, as another microphone would, at times."""
    if rng.random() < 0.5:
        return wave
    pole = float(rng.uniform(-0.4, 0.4))
    coloured = wave.copy()
    coloured[1:] += np.float32(pole) * wave[:-1]
    return coloured


def _level(wave: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Bring the wave to a random level between -45 and -8 dBFS, with a little noise."""
    level_dbfs = rng.uniform(-45.0, -8.0)
    wave = wave * np.float32(10.0 ** (level_dbfs / 20.0) / _loudness(wave))
    if rng.random() < 0.3:
        noise_dbfs = level_dbfs - rng.uniform(10.0, 40.0)
        noise = rng.standard_normal(len(wave), dtype=np.float32)
        wave = wave + noise * np.float32(10.0 ** (noise_dbfs / 20.0))
    return np.clip(wave, -1.0, 1.0)

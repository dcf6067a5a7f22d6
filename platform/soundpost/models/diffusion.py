"""Diffusion apart from any network: the noise schedule, the samplers, and noise that can be repeated.

Schedule: cosine, abar(s) = cos^2((s + 0.008) / 1.008 * pi / 2), beta at most 0.999 (Nichol and
Dhariwal 2021, arXiv 2102.09672). Samplers: DDPM (Ho et al. 2020, arXiv 2006.11239) and DDIM (Song et
al. 2021, arXiv 2010.02502), both for a network that predicts x_0.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from soundpost.errors import InvalidValueError

_OFFSET = 0.008
_LARGEST_BETA = 0.999
_WORD = 1 << 64

# Says what x_0 [...] is, from x_k [...] and the step k.
Predict = Callable[[Tensor, int], Tensor]
# Gives standard normal noise [...]; draw 0 is where a sampler starts, draw k + 1 belongs to step k.
Noise = Callable[[int], Tensor]


@dataclass(frozen=True)
class NoiseSchedule:
    """How much of x_0 is left after each of K steps: abar[k] falls from nearly 1 to nearly 0."""

    abar: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.abar)

    def add_noise(self, x_0: Tensor, noise: Tensor, steps: Tensor) -> Tensor:
        """Return x_k [B, ...] = sqrt(abar_k) x_0 + sqrt(1 - abar_k) noise for steps k [B]."""
        abar = torch.tensor(self.abar, dtype=x_0.dtype, device=x_0.device)[steps]
        abar = abar.reshape(-1, *(1 for _ in x_0.shape[1:]))
        return abar.sqrt() * x_0 + (1 - abar).sqrt() * noise

    def noisier(self, scale: float) -> NoiseSchedule:
        """Return the schedule that treats x_0 as if it were scaled down to `scale` (arXiv 2301.10972).

        abar / (1 - abar) is multiplied by scale^2 at each step; 1 changes nothing.
        """
        kept = [scale**2 * abar / (scale**2 * abar + 1 - abar) for abar in self.abar]
        return NoiseSchedule(tuple(kept))

    def spread(self, count: int) -> tuple[int, ...]:
        """Return `count` steps from the last to 0, evenly spread; one step is the last.

        Raises InvalidValueError for fewer than 1 or more than K.
        """
        if not 1 <= count <= len(self):
            raise InvalidValueError(f"{count} steps", f"from 1 to {len(self)} are possible")
        return tuple(int(step) for step in np.linspace(len(self) - 1, 0, count).round())


@lru_cache
def cosine_schedule(steps: int = 50) -> NoiseSchedule:
    """Return the cosine schedule of K steps."""
    kept = [
        math.cos((step / steps + _OFFSET) / (1 + _OFFSET) * math.pi / 2) ** 2
        for step in range(steps + 1)
    ]
    betas = [min(1 - after / before, _LARGEST_BETA) for before, after in pairwise(kept)]
    return NoiseSchedule(tuple(np.cumprod(1 - np.array(betas)).tolist()))


@dataclass(frozen=True)
class DdimSampler:
    """DDIM over any number of a schedule's steps. eta 0 adds no noise on the way, 1 as much as DDPM.

    clamp: every prediction of x_0 is cut to [-clamp, clamp]; None leaves it.
    """

    schedule: NoiseSchedule
    steps: int
    eta: float = 0.0
    clamp: float | None = 1.0

    def sample(self, predict: Predict, noise: Noise) -> Tensor:
        """Denoise from pure noise to x_0 of any shape."""
        chosen = self.schedule.spread(self.steps)
        x = noise(0)
        for step, after in zip(chosen, [*chosen[1:], None], strict=True):
            x_0 = predict(x, step)
            if self.clamp is not None:
                x_0 = x_0.clamp(-self.clamp, self.clamp)
            if after is None:
                return x_0
            x = self._towards(x, x_0, step, after, noise)
        return x

    def _towards(self, x: Tensor, x_0: Tensor, step: int, after: int, noise: Noise) -> Tensor:
        now, then = self.schedule.abar[step], self.schedule.abar[after]
        sigma = self.eta * math.sqrt((1 - then) / (1 - now) * (1 - now / then))
        direction = (x - math.sqrt(now) * x_0) / math.sqrt(1 - now)
        x = math.sqrt(then) * x_0 + math.sqrt(max(0.0, 1 - then - sigma**2)) * direction
        return x + sigma * noise(step + 1) if sigma else x


@dataclass(frozen=True)
class DdpmSampler:
    """DDPM over all steps of a schedule: draws each x_{k-1} from its posterior given x_k and x_0."""

    schedule: NoiseSchedule

    def sample(self, predict: Predict, noise: Noise) -> Tensor:
        """Denoise from pure noise to x_0; every prediction is clamped to [-1, 1]."""
        x = noise(0)
        for step in reversed(range(1, len(self.schedule))):
            x_0 = predict(x, step).clamp(-1.0, 1.0)
            mean, deviation = self._posterior(x, x_0, step)
            x = mean + deviation * noise(step + 1)
        return predict(x, 0).clamp(-1.0, 1.0)

    def _posterior(self, x: Tensor, x_0: Tensor, step: int) -> tuple[Tensor, float]:
        now, then = self.schedule.abar[step], self.schedule.abar[step - 1]
        beta = 1 - now / then
        of_x_0 = math.sqrt(then) * beta / (1 - now)
        of_x = math.sqrt(1 - beta) * (1 - then) / (1 - now)
        return of_x_0 * x_0 + of_x * x, math.sqrt(beta * (1 - then) / (1 - now))


def seed_of(text: str) -> int:
    """Return the 64 bits by which a text seeds its noise."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big")


@dataclass(frozen=True)
class SeededNoise:
    """Standard normal noise [N] that depends on nothing but the query, a candidate's key and the draw.

    A hash of the three (the finaliser of SplitMix64, Steele et al. 2014) gives two uniform numbers,
    Box and Muller's transform a normal one: no generator holds a state, so order means nothing.
    """

    query: int
    keys: NDArray[np.int64]

    def __call__(self, draw: int) -> Tensor:
        """Return the noise of one draw, float32 [N]."""
        stream = _mixed(_mixed(self.keys.astype(np.uint64)) + np.uint64(self.query % _WORD))
        first = _mixed(stream + np.uint64(2 * draw + 1))
        second = _mixed(stream + np.uint64(2 * draw + 2))
        radius = np.sqrt(-2.0 * np.log(_uniform(first)))
        normal = radius * np.cos(2.0 * np.pi * _uniform(second))
        return torch.from_numpy(normal.astype(np.float32))


def _mixed(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scatter 64-bit words, so that neighbours become strangers."""
    words = words * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _uniform(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Turn words into numbers above 0 and at most 1."""
    return ((words >> np.uint64(11)).astype(np.float64) + 1.0) / float(1 << 53)

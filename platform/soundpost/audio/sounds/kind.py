"""What a sound kind is: its name, wordings to ask for it, its parameters, its synthesis."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from soundpost.errors import InvalidValueError

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Take:
    """One sound to be made: how many samples, at which rate, with whose randomness."""

    samples: int
    rate_hz: int
    rng: np.random.Generator

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.samples / self.rate_hz

    @property
    def nyquist_hz(self) -> float:
        """Half the sample rate."""
        return self.rate_hz / 2

    def times_s(self) -> NDArray[np.float64]:
        """Time of each sample [N]."""
        return np.arange(self.samples) / self.rate_hz

    def silence(self) -> FloatArray:
        """Zeros [N] to build on."""
        return np.zeros(self.samples, dtype=np.float32)

    def part(self, duration_s: float) -> Take:
        """A take of another length that draws from the same generator."""
        return Take(max(round(duration_s * self.rate_hz), 1), self.rate_hz, self.rng)


@dataclass(frozen=True)
class Parameter:
    """A quantity of a sound: its unit, the range it is drawn from, the range it may be set to."""

    unit: str
    usual: tuple[float, float]
    allowed: tuple[float, float]
    meaning: str

    def draw(self, rng: np.random.Generator) -> float:
        """A value from the usual range; even in its logarithm when the range is wide."""
        low, high = self.usual
        if low > 0.0 and high / low > 2.0:
            return float(np.exp(rng.uniform(np.log(low), np.log(high))))
        return float(rng.uniform(low, high))


@dataclass(frozen=True)
class SoundKind:
    """A kind of sound: `texts` are ways to ask for it, `synth` makes [N] from a take."""

    name: str
    texts: tuple[str, ...]
    synth: Callable[..., FloatArray]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)

    def resolve(self, given: Mapping[str, float], rng: np.random.Generator) -> dict[str, float]:
        """The value of every parameter: as given, else drawn.

        All are drawn in any case, so that setting one leaves the draws that follow as they are.
        Raises InvalidValueError for an unknown name or a value out of range.
        """
        unknown = sorted(set(given) - set(self.parameters))
        if unknown:
            known = ", ".join(self.parameters) or "none"
            raise InvalidValueError(unknown[0], f"{self.name} has these parameters: {known}")
        drawn = {name: parameter.draw(rng) for name, parameter in self.parameters.items()}
        return drawn | {name: self._allowed(name, value) for name, value in given.items()}

    def _allowed(self, name: str, value: float) -> float:
        parameter = self.parameters[name]
        low, high = parameter.allowed
        if not low <= value <= high:
            text = f"{self.name} takes {name} from {low:g} to {high:g} {parameter.unit}"
            raise InvalidValueError(f"{name}={value}", text)
        return float(value)

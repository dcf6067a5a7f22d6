"""Who writes explanations: the protocol of a writer, and a stand-in that says what it is told to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


class WrittenText(Protocol):
    """A text that knows how sure its writer was of each part."""

    @property
    def text(self) -> str:
        """The text."""
        ...

    def probability(self, start: int, end: int) -> float:
        """Return the mean probability of the tokens of text[start:end]."""
        ...


class DifferenceWriter(Protocol):
    """Writes what differs between two recordings, given by their audio vectors."""

    @property
    def name(self) -> str:
        """What kind of model it is."""
        ...

    @property
    def revision(self) -> str:
        """Its exact weights."""
        ...

    def write(
        self,
        first: FloatArray,
        second: FloatArray,
        tiers: Sequence[int],
        *,
        banned: Sequence[str] = (),
        seed: int | None = None,
    ) -> Sequence[WrittenText]:
        """Write a text for each of the tiers; none of the `banned` phrases is in them."""
        ...


@dataclass(frozen=True)
class FixedText:
    """A text whose writer is as sure of every word."""

    text: str
    sure: float = 1.0

    def probability(self, start: int, end: int) -> float:
        """Return how sure it is."""
        return self.sure


class FixedWriter:
    """Writes given texts, tier by tier one after the other, for tests and demonstrations.

    texts: the texts of each tier; a text with a banned phrase is passed over, the last one that is
    left stays. `calls` keeps what was asked: tiers and banned phrases.
    """

    def __init__(self, texts: Mapping[int, Sequence[str]], sure: float = 1.0) -> None:
        self.name, self.revision = "fixed", "1"
        self.calls: list[tuple[tuple[int, ...], tuple[str, ...]]] = []
        self._texts = {tier: list(rows) for tier, rows in texts.items()}
        self._sure = sure

    def write(
        self,
        first: FloatArray,
        second: FloatArray,
        tiers: Sequence[int],
        *,
        banned: Sequence[str] = (),
        seed: int | None = None,
    ) -> list[FixedText]:
        """Write the first text of each tier that holds nothing banned; "" where there is none."""
        self.calls.append((tuple(tiers), tuple(banned)))
        return [FixedText(self._allowed(tier, banned), self._sure) for tier in tiers]

    def _allowed(self, tier: int, banned: Sequence[str]) -> str:
        for text in self._texts[tier]:
            if not any(phrase.lower() in text.lower() for phrase in banned):
                return text
        return ""

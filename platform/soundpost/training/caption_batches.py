"""Batches of sounds with captions, drawn from several sources by their shares."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from soundpost.errors import InvalidValueError
from soundpost.models.caption_condition import Conditions, Style, conditions
from soundpost.models.encoder import FloatArray
from soundpost.models.text_latents import UNKNOWN, CaptionVocabulary, id_tensor
from soundpost.training.caption_data import CaptionSource

# So many times what a batch holds is drawn for it.
_PARTS = 4


@dataclass(frozen=True)
class CaptionBatch:
    """Sounds, and for each a caption: ids [B, L] padded, lengths [B]."""

    sounds: Conditions
    ids: Tensor
    lengths: Tensor


@dataclass(frozen=True, eq=False)
class Reworded:
    """A source whose captions are others: those of its first rows, in the twin's wording."""

    source: CaptionSource
    captions: tuple[tuple[str, ...], ...]

    @property
    def style(self) -> Style:
        """The style of the twin's wording."""
        return self.source.style.taught

    def tokens(self, row: int, rng: np.random.Generator) -> FloatArray:
        """Return the tokens of the source."""
        return self.source.tokens(row, rng)


class CaptionBatches:
    """Draws batches; captions that are too long, or hold an unknown word, are left out.

    Raises InvalidValueError where a source has no caption left.
    """

    def __init__(
        self,
        sources: Sequence[tuple[CaptionSource, float]],
        vocabulary: CaptionVocabulary,
        length: int,
        noise: float = 0.0,
    ) -> None:
        self.length, self.noise = length, noise
        shares = np.array([share for _, share in sources], np.float64)
        self.shares = shares / shares.sum()
        self.sources = [source for source, _ in sources]
        self.rows = [_usable(source, vocabulary, length) for source in self.sources]
        for source, rows in zip(self.sources, self.rows, strict=True):
            if not rows:
                detail = "every caption is too long or has an unknown word"
                raise InvalidValueError(f"captions of style {source.style.name}", detail)

    def draw(self, rng: np.random.Generator, size: int) -> CaptionBatch:
        """Draw a batch: each sound by its source's share, a caption of the sound at random.

        Its captions are of about one length, so that little is spent on padding: of several times as
        many drawn, in order of length, one part is taken at random.
        """
        numbers = rng.choice(len(self.sources), size * _PARTS, p=self.shares)
        drawn = []
        for number in numbers.tolist():
            usable = self.rows[number]
            row, told = usable[rng.integers(len(usable))]
            drawn.append((number, row, told[rng.integers(len(told))]))
        drawn.sort(key=lambda one: len(one[2]))
        first = size * int(rng.integers(_PARTS))
        part = drawn[first : first + size]
        tokens = [self.sources[number].tokens(row, rng) for number, row, _ in part]
        styles = [self.sources[number].style for number, _, _ in part]
        ids = [told for _, _, told in part]
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        sounds = _blurred(conditions(tokens, styles), self.noise, generator)
        return CaptionBatch(sounds, *id_tensor(ids, self.length))

    def mean(self, rng: np.random.Generator, size: int) -> Tensor:
        """Return the mean token [D] of so many sounds: where sounds lie in general."""
        sounds = self.draw(rng, size).sounds
        return sounds.tokens[sounds.present].mean(dim=0)


def told_ids(
    sources: Iterable[CaptionSource], vocabulary: CaptionVocabulary, length: int
) -> list[list[int]]:
    """Return the ids of every usable caption of sources."""
    rows = [row for source in sources for row in _usable(source, vocabulary, length)]
    return [ids for _, told in rows for ids in told]


def _usable(
    source: CaptionSource, vocabulary: CaptionVocabulary, length: int
) -> list[tuple[int, list[list[int]]]]:
    """Return rows of a source with the ids of their captions that can be used."""
    counts = [len(told) for told in source.captions]
    flat = iter(vocabulary.ids([caption for told in source.captions for caption in told]))
    found = []
    for row, count in enumerate(counts):
        each = [next(flat) for _ in range(count)]
        good = [ids for ids in each if 0 < len(ids) <= length and UNKNOWN not in ids]
        if good:
            found.append((row, good))
    return found


def _blurred(sounds: Conditions, noise: float, generator: torch.Generator) -> Conditions:
    """Add noise of a deviation to each dimension of the tokens, which stay unit."""
    moved = sounds.tokens + noise * torch.randn(sounds.tokens.shape, generator=generator)
    unit = functional.normalize(moved, dim=-1) * sounds.present[..., None]
    return replace(sounds, tokens=unit)

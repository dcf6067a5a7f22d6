"""Batches that ADIFF learns from: pairs with texts drawn anew, captions by position, and texts alone.

A batch has one kind of answer, so that hardly anything is padding: tier 1, 2 or 3, or 0 for position
captioning ("Audio 1 is ... ."). It is of pairs, or of texts alone, which are longer. Longer answers
come in smaller batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from soundpost.explain.audio_vector import text_vector
from soundpost.models.adiff import AdiffDimensions, pad_prompt
from soundpost.models.language_model import LanguageTokenizer
from soundpost.training.adiff_projection import (
    EDIT_KINDS,
    EVENT_KEYS,
    Disturbance,
    edited,
    events,
)
from soundpost.training.adiff_rows import AdiffRow
from soundpost.training.adiff_words import PrefixWords
from soundpost.training.pair_records import PairRecord
from soundpost.training.pair_store import PairSet
from soundpost.training.pair_texts import PROMPTS, position_caption, reference

FloatArray = NDArray[np.float32]

CAPTIONS = 0
KINDS = (CAPTIONS, 1, 2, 3)
# Of the pairs a step of tier 1, how many there are of each kind: about as many tokens.
_SIZES = {CAPTIONS: 1.0, 1: 1.0, 2: 0.75, 3: 0.5}
_SIZES_OF_TEXTS = {1: 0.75, 2: 0.5, 3: 0.2}
# The deviation of what is added to a text's unit vector, in each of its D dimensions, times sqrt(D).
TEXT_NOISE = 0.3
UNDISTURBED = Disturbance()


@dataclass(frozen=True)
class Sample:
    """Two audio vectors [A], what is asked, what is to be answered, and what is heard and changed.

    words: what the prefix is to say (`PrefixWords`).
    heard_1, heard_2 [E] and edits [C], kinds and what they are of, are 0 or 1; all -1 where that is
    not known.
    """

    first: FloatArray
    second: FloatArray
    prompt: str
    answer: str
    heard_1: FloatArray
    heard_2: FloatArray
    edits: FloatArray
    words: list[int]


@dataclass(frozen=True)
class Batch:
    """Samples as tensors: vectors [B, A], prompts [B, Q], answers [B, L] valid up to lengths [B].

    heard_1, heard_2 [B, E], edits [B, C] and words [B, P] as in Sample.
    """

    first: Tensor
    second: Tensor
    prompts: Tensor
    answers: Tensor
    lengths: Tensor
    heard_1: Tensor
    heard_2: Tensor
    edits: Tensor
    words: Tensor

    def __len__(self) -> int:
        return len(self.first)

    def to(self, device: str) -> Batch:
        """Return the batch on a device."""
        return Batch(*(getattr(self, one.name).to(device) for one in fields(self)))


@dataclass(frozen=True)
class CaptionedRows:
    """Published explanations whose recordings are not here: their captions stand in for them.

    first, second [N, D]: unit vectors of the captions in the encoder's joint space.
    """

    rows: Sequence[AdiffRow]
    first: FloatArray
    second: FloatArray


@dataclass(frozen=True)
class Shares:
    """What the steps of a training are made of.

    captions: of all steps, position captioning. tiers: how the other steps are shared out. texts: of
    these, steps of texts in place of audio.
    """

    captions: float = 0.15
    tiers: tuple[float, float, float] = (0.4, 0.35, 0.25)
    texts: float = 0.1

    def kinds(self) -> NDArray[np.float64]:
        """Return how probable each of KINDS is."""
        tiers = np.array(self.tiers) / sum(self.tiers)
        return np.concatenate([[self.captions], (1.0 - self.captions) * tiers])


class AdiffBatches:
    """Draws batches of pairs, and of captioned rows if there are any."""

    def __init__(
        self,
        pairs: PairSet,
        captioned: CaptionedRows | None,
        tokenizer: LanguageTokenizer,
        shape: AdiffDimensions,
        size: int,
    ) -> None:
        self.pairs, self.captioned = pairs, captioned
        self.tokenizer, self.shape, self.size = tokenizer, shape, size
        self.words = PrefixWords(tokenizer, shape)
        rows = captioned.rows if captioned else ()
        self._by_tier = {
            tier: np.flatnonzero([row.tier == tier for row in rows]) for tier in KINDS[1:]
        }

    def draw(
        self, rng: np.random.Generator, shares: Shares, disturb: Disturbance = UNDISTURBED
    ) -> Batch:
        """Draw a batch; `disturb` is done to the vectors of recordings."""
        kind = int(rng.choice(KINDS, p=shares.kinds()))
        texts = rng.random() < shares.texts
        if texts and self.captioned is not None and kind != CAPTIONS:
            return self.of_texts(kind, rng)
        return self.of_pairs(kind, rng, disturb)

    def of_pairs(
        self, kind: int, rng: np.random.Generator, disturb: Disturbance = UNDISTURBED
    ) -> Batch:
        """Draw a batch of pairs and one of KINDS."""
        count = max(1, round(self.size * _SIZES[kind]))
        return self._batch(self._of_pairs(kind, count, rng, disturb))

    def of_texts(self, tier: int, rng: np.random.Generator) -> Batch:
        """Draw a batch of a tier with texts in place of audio; of pairs where there are none."""
        captioned = self.captioned
        if captioned is None or not len(self._by_tier[tier]):
            return self.of_pairs(tier, rng)
        count = max(1, round(self.size * _SIZES_OF_TEXTS[tier]))
        return self._batch([self._of_texts(captioned, tier, rng) for _ in range(count)])

    def _of_pairs(
        self, kind: int, count: int, rng: np.random.Generator, disturb: Disturbance
    ) -> list[Sample]:
        drawn = self.pairs.draw(rng, count)
        firsts, seconds = disturb(*self.pairs.both(drawn), rng)
        return [
            self._of_pair(kind, first, second, pair.record, rng)
            for pair, first, second in zip(drawn, firsts, seconds, strict=True)
        ]

    def _of_pair(
        self,
        kind: int,
        first: FloatArray,
        second: FloatArray,
        record: PairRecord,
        rng: np.random.Generator,
    ) -> Sample:
        """Write about a pair, half of the time the other way round."""
        if rng.random() < 0.5:
            first, second, record = second, first, record.reversed()
        if kind == CAPTIONS:
            prompt, answer = position_caption(record, int(rng.integers(1, 4)), rng)
        else:
            prompt, answer = _one_of(PROMPTS[kind], rng), reference(record, kind, rng)
        edits = edited(record.edits)
        heard_1, heard_2 = (events(heard) for heard in (record.heard_1, record.heard_2))
        words = self.words(record, prompt)
        return Sample(first, second, prompt, answer, heard_1, heard_2, edits, words)

    def _of_texts(self, captioned: CaptionedRows, tier: int, rng: np.random.Generator) -> Sample:
        row = int(rng.choice(self._by_tier[tier]))
        first, second = (
            self._as_audio(vectors[row], rng) for vectors in (captioned.first, captioned.second)
        )
        unknown = np.full(len(EVENT_KEYS), -1.0, np.float32)
        edits = np.full(len(EDIT_KINDS) + len(EVENT_KEYS), -1.0, np.float32)
        answer = captioned.rows[row].answer
        prompt = _one_of(PROMPTS[tier], rng)
        words = self.words.unknown()
        return Sample(first, second, prompt, answer, unknown, unknown, edits, words)

    def _as_audio(self, vector: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Return the audio vector [A] of a text's unit vector [D], moved at random."""
        moved = vector + TEXT_NOISE / np.sqrt(len(vector)) * rng.standard_normal(len(vector))
        unit = (moved / np.linalg.norm(moved)).astype(np.float32)
        # All but the flag at the end and the embedding at the start is zero, whatever the encoder.
        alone = text_vector(unit, 0)
        a = np.zeros(self.shape.audio_width, np.float32)
        a[: len(unit)], a[-1] = alone[: len(unit)], alone[-1]
        return a

    def _batch(self, samples: Sequence[Sample]) -> Batch:
        end = self.tokenizer.end
        prompts = [
            pad_prompt(ids, self.shape, end)
            for ids in self.tokenizer.encode_all([sample.prompt for sample in samples])
        ]
        answers = [
            [*ids, end] for ids in self.tokenizer.encode_all([sample.answer for sample in samples])
        ]
        lengths = [len(ids) for ids in answers]
        padded = [ids + [end] * (max(lengths) - len(ids)) for ids in answers]
        stacked = {
            name: torch.from_numpy(np.stack([getattr(sample, name) for sample in samples]))
            for name in ("first", "second", "heard_1", "heard_2", "edits")
        }
        return Batch(
            prompts=torch.tensor(prompts),
            answers=torch.tensor(padded),
            lengths=torch.tensor(lengths),
            words=torch.tensor([sample.words for sample in samples]),
            **stacked,
        )


def _one_of(texts: Sequence[str], rng: np.random.Generator) -> str:
    return texts[int(rng.integers(len(texts)))]


def cut_to(batch: Batch, room: int) -> Batch:
    """Return a batch whose answers fit into so many tokens."""
    if batch.answers.shape[1] <= room:
        return batch
    return replace(batch, answers=batch.answers[:, :room], lengths=batch.lengths.clamp(max=room))

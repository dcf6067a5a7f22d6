"""How good, how varied and how fast captions are: writers beside each other on the same sounds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from soundpost.evaluation.metrics import Estimate, bootstrap
from soundpost.evaluation.text_scores import IntArray, agreement, distinct, mtld
from soundpost.models.caption_condition import Conditions, Style, conditions
from soundpost.models.encoder import FloatArray

# So many captions of one sound, where it is asked how varied they are.
VARIED = 5
# Of the first so many sounds: asking for them takes most of the time.
VARIED_SOUNDS = 200
# Sounds captioned at once: what an ingest of some minutes brings.
BATCH = 32
REPEATS = 5
_SEED = 40


class CaptionWriter(Protocol):
    """What both captioners do (models.dac, models.caption_twin)."""

    @property
    def revision(self) -> str:
        """Names the exact weights."""
        ...

    def write(self, sounds: Conditions, seeds: Sequence[int], diverse: bool = False) -> list[str]:
        """Return a caption for each of B sounds."""
        ...


class TextEmbedder(Protocol):
    """The part of an encoder that is needed here."""

    def embed_text(self, texts: Sequence[str]) -> FloatArray:
        """Embed texts to unit vectors [len(texts), D]."""
        ...


class MostAlike:
    """A writer that draws several captions and keeps the one most like the sound to an encoder."""

    def __init__(self, writer: CaptionWriter, encoder: TextEmbedder, tried: int) -> None:
        self.writer, self.encoder, self.tried = writer, encoder, tried

    @property
    def revision(self) -> str:
        """That of the writer."""
        return self.writer.revision

    def write(self, sounds: Conditions, seeds: Sequence[int], diverse: bool = False) -> list[str]:
        """Return a caption for each of B sounds; where they are to be varied, as the writer does."""
        if diverse:
            return self.writer.write(sounds, seeds, diverse=True)
        many = [self.tried * seed + number for seed in seeds for number in range(self.tried)]
        drawn = self.writer.write(sounds.repeated(self.tried), many, diverse=True)
        vectors = self.encoder.embed_text([text or "." for text in drawn])
        wholes = (sounds.tokens * sounds.present[..., None]).sum(1).numpy()
        similar = np.einsum("bnd,bd->bn", vectors.reshape(len(seeds), self.tried, -1), wholes)
        return [drawn[self.tried * row + best] for row, best in enumerate(similar.argmax(axis=1))]


@dataclass(frozen=True)
class CaptionTask:
    """N sounds to caption, with several references each.

    tokens: [M_i, D] each, what the captioner reads. vectors: [N, D] unit, what a caption is compared
    to. groups [N]: sounds that are no independent evidence.
    """

    name: str
    tokens: tuple[FloatArray, ...]
    vectors: FloatArray
    references: tuple[tuple[str, ...], ...]
    groups: IntArray
    style: Style

    def sounds(self, start: int = 0, count: int | None = None) -> Conditions:
        """Return some of the sounds as a batch."""
        chosen = self.tokens[start : None if count is None else start + count]
        return conditions(chosen, [self.style] * len(chosen))


@dataclass(frozen=True)
class Captioned:
    """What a writer made of a task: one caption a sound, and VARIED of the first VARIED_SOUNDS."""

    captions: tuple[str, ...]
    varied: tuple[tuple[str, ...], ...]


def caption(writer: CaptionWriter, task: CaptionTask) -> Captioned:
    """Write captions for all sounds of a task, the varied ones each with a seed of its own."""
    single: list[str] = []
    several: list[str] = []
    for start in range(0, len(task.tokens), BATCH):
        sounds = task.sounds(start, BATCH)
        seeds = [_SEED + start + row for row in range(len(sounds))]
        single += writer.write(sounds, seeds)
        seeds = seeds[: max(VARIED_SOUNDS - start, 0)]
        if not seeds:
            continue
        sounds = sounds.rows(slice(len(seeds)))
        many = [VARIED * seed + number for seed in seeds for number in range(VARIED)]
        several += writer.write(sounds.repeated(VARIED), many, diverse=True)
    sets = [tuple(several[i : i + VARIED]) for i in range(0, len(several), VARIED)]
    return Captioned(tuple(single), tuple(sets))


@dataclass(frozen=True)
class CaptionScores:
    """Scores of one writer: of its single captions, and of its varied ones.

    texts: BLEU, ROUGE-L, CIDEr-D of the single ones. distinct_1, distinct_2, mtld: mean over sounds
    of those of VARIED captions of one sound. varied_cider: mean of theirs. vocabulary: Distinct-1 of
    all single captions together. similarity: cosine of caption and sound in the encoder's space.
    """

    texts: dict[str, Estimate]
    distinct_1: Estimate
    distinct_2: Estimate
    mtld: Estimate
    varied_cider: Estimate
    vocabulary: float
    similarity: Estimate
    varied_similarity: Estimate


def score(task: CaptionTask, made: Captioned, encoder: TextEmbedder) -> CaptionScores:
    """Score what a writer made."""
    groups, asked = task.groups, len(made.varied)
    several = np.repeat(groups[:asked], VARIED)
    flat = [text for texts in made.varied for text in texts]
    references = [texts for texts in task.references[:asked] for _ in range(VARIED)]
    return CaptionScores(
        texts=agreement(made.captions, task.references, groups),
        distinct_1=_mean([distinct(texts, 1) for texts in made.varied], groups[:asked]),
        distinct_2=_mean([distinct(texts, 2) for texts in made.varied], groups[:asked]),
        mtld=_mean([mtld(texts) for texts in made.varied], groups[:asked]),
        varied_cider=agreement(flat, references, several)["CIDEr-D"],
        vocabulary=distinct(made.captions),
        similarity=_similarity(encoder, made.captions, task.vectors, groups),
        varied_similarity=_similarity(
            encoder, flat, np.repeat(task.vectors[:asked], VARIED, axis=0), several
        ),
    )


def _mean(values: Sequence[float], groups: IntArray) -> Estimate:
    found = np.array(values, np.float64)
    # A set of empty captions has no share of different words: it is as poor as can be.
    return bootstrap(np.nan_to_num(found, nan=0.0), groups)


def _similarity(
    encoder: TextEmbedder, texts: Sequence[str], vectors: FloatArray, groups: IntArray
) -> Estimate:
    unique = sorted({text or "." for text in texts})
    embedded = np.concatenate(
        [encoder.embed_text(unique[start : start + 256]) for start in range(0, len(unique), 256)]
    )
    place = {text: row for row, text in enumerate(unique)}
    rows = embedded[[place[text or "."] for text in texts]]
    return bootstrap(np.einsum("nd,nd->n", rows, vectors).astype(np.float64), groups)


def captions_per_s(
    writers: Sequence[CaptionWriter], task: CaptionTask, diverse: bool = False
) -> NDArray[np.float64]:
    """Return captions a second [repeats, writers] of one batch, the writers in turn.

    In turn, so that whatever else the machine does falls on all alike: compare within a repeat.
    """
    sounds = task.sounds(0, BATCH)
    seeds = [_SEED + row for row in range(len(sounds))]
    rates = np.zeros((REPEATS + 1, len(writers)))
    for repeat in range(REPEATS + 1):
        for number, writer in enumerate(writers):
            began = time.perf_counter()
            writer.write(sounds, seeds, diverse)
            rates[repeat, number] = len(sounds) / (time.perf_counter() - began)
    # The first time finds nothing in memory.
    return rates[1:]

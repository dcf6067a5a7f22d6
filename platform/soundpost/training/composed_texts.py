"""Scenes made of captions alone: what a reranker learns about words that no clip is labelled with.

In a space that audio and text share, the vector of a caption stands in for a sound (text-only
training, arXiv 2309.07372). The two are not the same: a frame is taken for the mean frame, plus what
the caption says beside other captions, times a gain, plus what real frames have that their text does
not say. Gain and rest are fitted to single sounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from soundpost.models.encoder import AudioTextEncoder, FloatArray
from soundpost.models.reranker import Candidates
from soundpost.models.retrieval_set import RetrievalSet, read_texts
from soundpost.training.composed import (
    ActiveClip,
    Event,
    Plan,
    Pool,
    Scene,
    distractors,
    draw_plan,
    play,
)
from soundpost.training.composed_queries import draw_query, relevant_scenes
from soundpost.training.data import SAMPLE_RATE_HZ
from soundpost.training.sound_phrases import Phrase

# Longer captions tell a story of their own; these words order it.
_MOST_WORDS = 7
_TELLING = frozenset(
    (
        "and",
        "then",
        "while",
        "followed",
        "before",
        "after",
        "as",
        "with",
        "during",
        "when",
        "by",
        "background",
        "distance",
        "loud",
        "loudly",
        "quiet",
        "quietly",
        "first",
        "finally",
        "later",
    )
)


@dataclass(frozen=True)
class Gap:
    """How frames differ from texts: means [D], the gain, and rests [R, D] of real frames."""

    frame_mean: FloatArray
    text_mean: FloatArray
    gain: float
    rests: FloatArray

    def frame(self, said: FloatArray, rest: FloatArray) -> FloatArray:
        """Return a unit frame [D] for what is said above the mean text, and a rest [D]."""
        made = self.frame_mean + np.float32(self.gain) * said + rest
        return np.asarray(made / np.linalg.norm(made), np.float32)


def fit_gap(texts: FloatArray, frames: FloatArray) -> Gap:
    """Fit to frames [R, D] and the vectors [R, D] of the texts that are true of them."""
    frame_mean, text_mean = frames.mean(axis=0), texts.mean(axis=0)
    said, heard = texts - text_mean, frames - frame_mean
    gain = float((said * heard).sum() / (said * said).sum())
    return Gap(frame_mean, text_mean, gain, np.asarray(heard - np.float32(gain) * said, np.float32))


def simple_captions(captions: Sequence[str]) -> list[str]:
    """Return the captions that name one thing: short, and without words that order a story."""
    found: dict[str, None] = {}
    for caption in captions:
        plain = caption.strip().rstrip(".").lower()
        words = plain.replace(",", " ,").split()
        if 1 < len(words) <= _MOST_WORDS and "," not in words and not _TELLING & set(words):
            found[plain] = None
    return list(found)


def compose_texts(
    captions: Sequence[str], families: int, gap: Gap, encoder: AudioTextEncoder, seed: int
) -> RetrievalSet:
    """Compose families of a plan and its distractors whose sounds are captions; a query for each."""
    rng = np.random.default_rng(seed)
    pool = text_pool(captions, rng)
    plans: list[Plan] = []
    owners: list[int] = []
    for number in range(families):
        plan = draw_plan(pool, rng)
        group = [plan, *distractors(plan, pool, rng)]
        plans += group
        owners += [number] * len(group)
    scenes = [play(plan, pool, rng) for plan in plans]
    queries = [draw_query(plan, lambda sound, _: Phrase(sound), rng) for plan in plans]
    used = sorted({sound for plan in plans for sound in plan.sounds})
    said = dict(zip(used, encoder.embed_text(used) - gap.text_mean, strict=True))
    sounds = _candidates([_frames(scene, said, gap, rng) for scene in scenes])
    texts = read_texts([query.text for query in queries], encoder)
    relevant = relevant_scenes(queries, scenes)
    return RetrievalSet(texts, sounds, relevant, np.array(owners, np.int64))


def text_pool(captions: Sequence[str], rng: np.random.Generator) -> Pool:
    """Return captions, or names, as sounds of one clip each, which has a length and nothing else."""
    lengths = rng.integers(SAMPLE_RATE_HZ, 5 * SAMPLE_RATE_HZ, len(captions))
    silence = np.zeros(5 * SAMPLE_RATE_HZ, np.float32)
    clips = {row: ActiveClip(silence[:length]) for row, length in enumerate(lengths.tolist())}
    return Pool(clips, dict(enumerate(captions)))


def _frames(
    scene: Scene, said: dict[str, FloatArray], gap: Gap, rng: np.random.Generator
) -> FloatArray:
    """Return the frames [S, D] of a scene, one a second."""
    rests = [gap.rests[rng.integers(len(gap.rests))] for _ in scene.events]
    silence = gap.rests[rng.integers(len(gap.rests))]
    rows = []
    for second in range(int(np.ceil(scene.duration_s))):
        shares = np.array([_share(event, second) for event in scene.events], np.float32)
        total = max(float(shares.sum()), 1e-6)
        heard = min(1.0, total)
        if total < 0.1:
            rows.append(gap.frame(np.zeros_like(silence), silence))
            continue
        weights = shares / np.float32(total)
        own = gap.rests[rng.integers(len(gap.rests))]
        meaning = sum(w * said[e.sound] for w, e in zip(weights, scene.events, strict=True))
        rest = sum(w * rest for w, rest in zip(weights, rests, strict=True))
        rows.append(gap.frame(np.float32(heard) * meaning, 0.8 * rest + 0.3 * own))
    return np.stack(rows)


def _share(event: Event, second: int) -> float:
    """Return how much of a second an event fills, by its amplitude."""
    inside = min(event.end_s, second + 1.0) - max(event.start_s, float(second))
    return float(max(0.0, inside) * 10.0 ** (event.level_db / 20.0))


def _candidates(frames: Sequence[FloatArray]) -> Candidates:
    lengths = np.array([len(part) for part in frames], np.int64)
    joined = np.zeros((len(frames), int(lengths.max()), frames[0].shape[1]), np.float32)
    means: list[NDArray[np.float32]] = []
    for row, part in enumerate(frames):
        joined[row, : len(part)] = part
        mean = part.mean(axis=0)
        means.append(mean / np.linalg.norm(mean))
    return Candidates(np.arange(len(frames)), np.stack(means), joined, lengths)

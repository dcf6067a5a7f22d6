"""Composed scenes as sets of texts and sounds: which clips, how many, and what the encoder makes of them.

Three parts share neither a clip nor a recording that clips were cut from: rerankers are trained on
the first, choices are made on the second, and the third is only ever measured on. Embeddings are
kept below runs/ in pieces, so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from soundpost.archive.frames import pool_frames
from soundpost.models.encoder import AudioTextEncoder
from soundpost.models.reranker import Candidates
from soundpost.models.retrieval_set import RetrievalSet, TextSet, read_texts
from soundpost.store.embeddings import FRAME_SCALE
from soundpost.training.composed import (
    Layout,
    Plan,
    Pool,
    Scene,
    active,
    distractors,
    draw_plan,
    play,
    render,
    sound_of,
)
from soundpost.training.composed_queries import Query, draw_query, relevant_scenes
from soundpost.training.data import Clip, load_clips, load_waves
from soundpost.training.sound_phrases import Phrase, draw_phrase

FloatArray = NDArray[np.float32]
Phrases = Callable[[str, np.random.Generator], Phrase]

DATASETS = ("esc50", "urbansound8k")
# Folds of ESC-50 and of UrbanSound8K. What is measured on, the measured encoder never heard.
PARTS: dict[str, dict[str, tuple[int, ...]]] = {
    "train": {"esc50": (1, 2), "urbansound8k": (1,)},
    "develop": {"esc50": (3,), "urbansound8k": (2,)},
    "test": {"esc50": (4,), "urbansound8k": (3,)},
}
# What is shipped is trained on all of them.
EVERYTHING = "everything"
_PIECE = 250
_SINGLES = 4
_BATCH = 16


@dataclass(frozen=True)
class Composition:
    """Scenes, and queries of some of them; relevant holds what each query is true of.

    families [Q], where every scene has its query: which were made to be taken for each other.
    """

    scenes: tuple[Scene, ...]
    queries: tuple[Query, ...]
    relevant: tuple[NDArray[np.int64], ...]
    families: NDArray[np.int64] | None = None


def part_clips(clips: Sequence[Clip], part: str, datasets: Sequence[str] = DATASETS) -> list[int]:
    """Return the rows of a part's clips; recordings that a later part has too are left out."""
    if part == EVERYTHING:
        return [row for row, clip in enumerate(clips) if clip.dataset in datasets]
    names = list(PARTS)
    later = names[names.index(part) + 1 :]
    taken = {
        (clip.dataset, clip.origin) for clip in clips if any(_belongs(clip, name) for name in later)
    }
    return [
        row
        for row, clip in enumerate(clips)
        if clip.dataset in datasets
        and _belongs(clip, part)
        and (clip.dataset, clip.origin) not in taken
    ]


def _belongs(clip: Clip, part: str) -> bool:
    return clip.fold in PARTS[part].get(clip.dataset, ())


def load_pool(data: Path, cache: Path, part: str, datasets: Sequence[str] = DATASETS) -> Pool:
    """Load the clips of a part. Raises DataMissingError."""
    clips = load_clips(data)
    waves = load_waves(data, clips, cache)
    rows = part_clips(clips, part, datasets)
    return Pool(
        {row: active(waves[row]) for row in rows}, {row: sound_of(clips[row]) for row in rows}
    )


def compose_for_training(
    pool: Pool, families: int, singles: int, seed: int, phrases: Phrases = draw_phrase
) -> Composition:
    """Compose families of a plan and its distractors, and single sounds; a query for every scene.

    So every query has others beside it that look alike and are wrong.
    """
    rng = np.random.default_rng(seed)
    groups: list[list[Plan]] = []
    for _ in range(families):
        plan = draw_plan(pool, rng)
        groups.append([plan, *distractors(plan, pool, rng)])
    alone = [draw_plan(pool, rng, Layout.SINGLE) for _ in range(singles)]
    # A few single sounds together are a family too: they tell the kinds of sound apart.
    groups += [alone[start : start + _SINGLES] for start in range(0, singles, _SINGLES)]
    plans = [plan for group in groups for plan in group]
    owners = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    scenes = [play(plan, pool, rng) for plan in plans]
    queries = [draw_query(plan, phrases, rng) for plan in plans]
    relevant = relevant_scenes(queries, scenes)
    return Composition(tuple(scenes), tuple(queries), relevant, owners)


def compose_for_measuring(
    pool: Pool,
    families: int,
    others: int,
    seed: int,
    phrases: Sequence[tuple[Phrases, bool]],
) -> Composition:
    """Compose `families` of a plan with its distractors and `others` beside them.

    There is one query a family. Query i words its sounds with phrases[i % len(phrases)]; the flag
    beside it asks for wordings that training never sees.
    """
    rng = np.random.default_rng(seed)
    plans: list[Plan] = []
    queries: list[Query] = []
    for number in range(families):
        plan = draw_plan(pool, rng)
        words, kept = phrases[number % len(phrases)]
        queries.append(draw_query(plan, words, rng, kept=kept))
        plans += [plan, *distractors(plan, pool, rng)]
    plans += [draw_plan(pool, rng) for _ in range(others)]
    order = rng.permutation(len(plans))
    scenes = [play(plans[row], pool, rng) for row in order]
    return Composition(tuple(scenes), tuple(queries), relevant_scenes(queries, scenes))


def window_waves(wave: FloatArray, window_samples: int) -> list[tuple[int, FloatArray]]:
    """Cut windows side by side as the archive does: (start, samples), the last ends with the wave."""
    if len(wave) <= window_samples:
        return [(0, wave)]
    starts = [*range(0, len(wave) - window_samples + 1, window_samples)]
    if starts[-1] + window_samples < len(wave):
        starts.append(len(wave) - window_samples)
    return [(start, wave[start : start + window_samples]) for start in starts]


@dataclass(frozen=True)
class Embedded:
    """Recordings as the archive keeps them.

    windows: for each its windows' unit vectors [W_i, D]. frames: for each one vector a second, times
    127, [S_i, D], without what its last window repeats.
    """

    windows: tuple[FloatArray, ...]
    frames: tuple[NDArray[np.int8], ...]

    def candidates(self) -> Candidates:
        """Return them as a reranker sees them: known by their places, vectors of unit means."""
        means = np.stack([windows.sum(axis=0) for windows in self.windows])
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        lengths = np.array([len(part) for part in self.frames], np.int64)
        joined = np.zeros((len(lengths), int(lengths.max()), means.shape[1]), np.float32)
        for row, part in enumerate(self.frames):
            joined[row, : len(part)] = part.astype(np.float32) / np.float32(FRAME_SCALE)
        return Candidates(np.arange(len(lengths)), means, joined, lengths)

    def best_window(self, vectors: FloatArray) -> FloatArray:
        """Return the cosine [Q, N] of text vectors [Q, D] with the best window of each."""
        cosines = vectors @ np.concatenate(self.windows).T
        starts = np.cumsum([0, *(len(windows) for windows in self.windows[:-1])])
        return np.maximum.reduceat(cosines, starts, axis=1)


def embed_waves(encoder: AudioTextEncoder, waves: Sequence[FloatArray]) -> Embedded:
    """Embed recordings of up to 15 s as the archive does."""
    rate_hz = encoder.spec.sample_rate_hz
    length = round(encoder.spec.window_s * rate_hz)
    cuts = [(row, *cut) for row, wave in enumerate(waves) for cut in window_waves(wave, length)]
    windows: list[list[FloatArray]] = [[] for _ in waves]
    frames: list[list[NDArray[np.int8]]] = [[] for _ in waves]
    for start in range(0, len(cuts), _BATCH):
        group = cuts[start : start + _BATCH]
        lengths = np.array([len(wave) for _, _, wave in group], np.int64)
        batch = np.zeros((len(group), int(lengths.max())), np.float32)
        for place, (_, _, wave) in enumerate(group):
            batch[place, : len(wave)] = wave
        made = encoder.encode_audio(batch, lengths)
        for place, (row, at, wave) in enumerate(group):
            pooled = pool_frames(made.frames[place], made.frame_hop_s, len(wave) / rate_hz)
            repeated = sum(map(len, frames[row])) - round(at / rate_hz)
            windows[row].append(made.embedding[place])
            frames[row].append(pooled[max(0, repeated) :])
    return Embedded(tuple(map(np.stack, windows)), tuple(map(np.concatenate, frames)))


def embed_scenes(
    encoder: AudioTextEncoder, scenes: Sequence[Scene], pool: Pool, folder: Path
) -> Embedded:
    """Embed scenes, in pieces that are kept in `folder` by what they were made of."""
    windows: list[FloatArray] = []
    frames: list[NDArray[np.int8]] = []
    for start in track(range(0, len(scenes), _PIECE), description="Embedding scenes"):
        piece = scenes[start : start + _PIECE]
        path = folder / f"{_name_of(piece, encoder.spec.revision)}.npz"
        if not path.is_file():
            _write_piece(path, embed_waves(encoder, [render(scene, pool) for scene in piece]))
        kept = _read_piece(path)
        windows += kept.windows
        frames += kept.frames
    return Embedded(tuple(windows), tuple(frames))


def _name_of(scenes: Sequence[Scene], revision: str) -> str:
    text = f"{revision} {scenes!r}"
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _write_piece(path: Path, piece: Embedded) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(
            file,
            windows=np.concatenate(piece.windows),
            window_counts=np.array([len(part) for part in piece.windows]),
            frames=np.concatenate(piece.frames),
            frame_counts=np.array([len(part) for part in piece.frames]),
        )
    partial.replace(path)


def _read_piece(path: Path) -> Embedded:
    with np.load(path, allow_pickle=False) as kept:
        windows = np.split(kept["windows"], np.cumsum(kept["window_counts"])[:-1])
        frames = np.split(kept["frames"], np.cumsum(kept["frame_counts"])[:-1])
    return Embedded(tuple(windows), tuple(frames))


def retrieval_set(
    composition: Composition, sounds: Embedded, encoder: AudioTextEncoder
) -> RetrievalSet:
    """Return a composition whose scenes are embedded as a set of texts and sounds."""
    texts: TextSet = read_texts([query.text for query in composition.queries], encoder)
    return RetrievalSet(texts, sounds.candidates(), composition.relevant, composition.families)


def joined(parts: Sequence[Composition]) -> Composition:
    """Return all scenes and queries of several compositions; what is relevant is found anew."""
    scenes = tuple(scene for part in parts for scene in part.scenes)
    queries = tuple(query for part in parts for query in part.queries)
    families = join_families([part.families for part in parts])
    return Composition(scenes, queries, relevant_scenes(queries, scenes), families)


def join_families(parts: Sequence[NDArray[np.int64] | None]) -> NDArray[np.int64] | None:
    """Return the families of several sets, numbered anew; None unless all sets have them."""
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    starts = np.cumsum([0, *(int(part.max(initial=-1)) + 1 for part in known[:-1])])
    return np.concatenate([part + start for part, start in zip(known, starts, strict=True)])


def join_texts(parts: Sequence[TextSet]) -> TextSet:
    """Return the texts of several sets, one after the other."""
    longest = max(part.tokens.shape[1] for part in parts)
    tokens = [
        np.pad(part.tokens, ((0, 0), (0, longest - part.tokens.shape[1]), (0, 0))) for part in parts
    ]
    return TextSet(
        tuple(text for part in parts for text in part.texts),
        np.concatenate([part.vectors for part in parts]),
        np.concatenate(tokens),
        np.concatenate([part.lengths for part in parts]),
    )


def join_sounds(parts: Sequence[Candidates]) -> Candidates:
    """Return the sounds of several sets, one after the other, keyed anew by their places."""
    longest = max(part.frames.shape[1] for part in parts)
    frames = [
        np.pad(part.frames, ((0, 0), (0, longest - part.frames.shape[1]), (0, 0))) for part in parts
    ]
    lengths = np.concatenate([part.lengths for part in parts])
    vectors = np.concatenate([part.vectors for part in parts])
    return Candidates(np.arange(len(lengths)), vectors, np.concatenate(frames), lengths)


def join_sets(parts: Sequence[RetrievalSet]) -> RetrievalSet:
    """Return several sets as one; no text of one is true of a sound of another."""
    starts = np.cumsum([0, *(len(part.sounds) for part in parts[:-1])])
    relevant = [
        rows + start for part, start in zip(parts, starts, strict=True) for rows in part.relevant
    ]
    texts, sounds = [part.texts for part in parts], [part.sounds for part in parts]
    families = join_families([part.families for part in parts])
    return RetrievalSet(join_texts(texts), join_sounds(sounds), tuple(relevant), families)

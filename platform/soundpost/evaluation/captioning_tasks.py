"""The sounds that captioners are measured on: held-out recordings, and texts in place of recordings."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from soundpost.errors import DataMissingError
from soundpost.evaluation.captioning_scores import CaptionTask
from soundpost.evaluation.text_scores import IntArray
from soundpost.models.caption_condition import Style
from soundpost.models.encoder import AudioTextEncoder, FloatArray
from soundpost.training.caption_data import (
    HeardCaptions,
    Recording,
    draw_recordings,
    draw_scenes,
    frames_of,
    load_captions,
    plain,
    save_captions,
)
from soundpost.training.composed import Scene
from soundpost.training.pair_records import Heard
from soundpost.training.pair_scenes import load_pair_pool
from soundpost.training.pair_texts import caption

KEPT = Path("runs/explain/eval")
# References of a recording, of the many wordings that are true of it.
REFERENCES = 5
_SEED = 77
_TEXTS = {"AudioCaps, as text": "audiocaps/val.csv", "Clotho, as text": "clotho/val.csv"}
# Fewer clips than this are no measurement.
LEAST_CLIPS = 50
_BATCH = 16

WriteCaption = Callable[[Sequence[Heard], np.random.Generator], str]


def heard_task(
    encoder: AudioTextEncoder, data: Path, cache: Path, most: int = 500, kept: Path = KEPT
) -> list[CaptionTask]:
    """Return single sounds and scenes of clips that no captioner was trained on."""
    path = kept / encoder.spec.revision[:16] / f"captions-{most}-{_SEED}.npz"
    pool = load_pair_pool(data, cache, "test")
    if not path.is_file():
        recordings = list(draw_recordings(pool.sounds, most, _SEED))
        save_captions(path, _heard(encoder, recordings, caption))
    heard = load_captions(path)
    rng = np.random.default_rng(_SEED)
    tokens = tuple(heard.tokens(row, rng) for row in range(len(heard.counts)))
    return [
        CaptionTask(
            name="Held-out scenes and clips",
            tokens=tokens,
            vectors=np.stack([_unit(part.sum(axis=0)) for part in tokens]),
            references=heard.captions,
            groups=groups_of(draw_scenes(pool.sounds, most, _SEED), pool.origins),
            style=Style.RECORDS,
        )
    ]


def groups_of(scenes: Iterable[Scene], origins: Mapping[int, str]) -> IntArray:
    """Return the number of each scene's origin: the recording that its first clip was cut from."""
    found = [origins[scene.events[0].clip] for scene in scenes]
    return np.unique(found, return_inverse=True)[1].astype(np.int64)


def _heard(
    encoder: AudioTextEncoder, recordings: Sequence[Recording], write: WriteCaption
) -> HeardCaptions:
    rng = np.random.default_rng([_SEED, 1])
    tokens: list[FloatArray] = []
    for start in range(0, len(recordings), _BATCH):
        tokens += frames_of(encoder, [one.wave for one in recordings[start : start + _BATCH]])
    told = tuple(
        tuple(write(recording.heard, rng) for _ in range(REFERENCES)) for recording in recordings
    )
    counts = np.array([len(part) for part in tokens], np.int64)
    return HeardCaptions(np.concatenate(tokens).astype(np.float16), counts, told)


def text_tasks(
    encoder: AudioTextEncoder, data: Path, trained: frozenset[str] = frozenset(), most: int = 500
) -> list[CaptionTask]:
    """Return the validation captions of AudioCaps and Clotho: the first is read, four are to match.

    trained: texts that captioners were trained on, as `plain` leaves them; clips with one are left
    out, and a task of which hardly any clip is left (`spent`).
    """
    found = {name: unseen(_rows(data, path), trained) for name, path in _TEXTS.items()}
    return [
        _text_task(encoder, name, rows[:most])
        for name, rows in found.items()
        if len(rows) >= LEAST_CLIPS
    ]


def spent(data: Path, trained: frozenset[str]) -> list[str]:
    """Say of which texts hardly a clip is left to measure on, a sentence each."""
    lines = []
    for name, path in _TEXTS.items():
        rows = _rows(data, path)
        left = len(unseen(rows, trained))
        if left < LEAST_CLIPS:
            lines.append(
                f"{name}: not measured. Of {len(rows):,} clips all but {left} have a caption that the "
                "captioners were trained on."
            )
    return lines


def _rows(data: Path, path: str) -> list[tuple[str, ...]]:
    return five_captions(data / "text" / path)


def unseen(rows: Sequence[tuple[str, ...]], trained: frozenset[str]) -> list[tuple[str, ...]]:
    """Return the clips of which no caption was trained on."""
    return [texts for texts in rows if not any(plain(text) in trained for text in texts)]


def trained_texts(folders: Sequence[Path]) -> frozenset[str]:
    """Return the texts of prepared folders. Raises PathNotFoundError for a folder without them."""
    sources = [load_captions(folder / "texts.npz") for folder in folders]
    return frozenset(plain(text) for one in sources for row in one.captions for text in row)


def _text_task(
    encoder: AudioTextEncoder, name: str, rows: Sequence[tuple[str, ...]]
) -> CaptionTask:
    first = [texts[0] for texts in rows]
    vectors = np.concatenate(
        [encoder.embed_text(first[start : start + 256]) for start in range(0, len(first), 256)]
    )
    return CaptionTask(
        name=name,
        tokens=tuple(vector[None] for vector in vectors),
        vectors=vectors,
        references=tuple(texts[1:] for texts in rows),
        groups=np.arange(len(rows)),
        style=Style.PEOPLE,
    )


def five_captions(path: Path) -> list[tuple[str, ...]]:
    """Read the captions of each clip. Raises DataMissingError."""
    if not path.is_file():
        raise DataMissingError(path)
    with path.open(newline="", encoding="utf-8") as lines:
        rows = [[row[f"caption_{n}"].strip() for n in range(1, 6)] for row in csv.DictReader(lines)]
    return [tuple(texts) for texts in rows if all(texts)]


def _unit(vector: FloatArray) -> FloatArray:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-9), np.float32)

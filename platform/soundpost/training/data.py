"""The training data: one row a clip, waves at one rate, splits by fold and origin."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from soundpost.errors import DataMissingError

SAMPLE_RATE_HZ = 16_000

# Held out of every measured model: nothing of these is seen in training.
ESC50_HELD_OUT = 4
URBANSOUND8K_HELD_OUT = 3


@dataclass(frozen=True)
class Clip:
    """One file of audio.csv."""

    path: str
    seconds: float
    dataset: str
    fold: int | None
    label: str
    origin: str


def load_clips(data: Path) -> list[Clip]:
    """Read audio.csv. Raises DataMissingError."""
    manifest = data / "audio.csv"
    if not manifest.is_file():
        raise DataMissingError(manifest)
    with manifest.open(newline="", encoding="utf-8") as lines:
        return [_clip(row) for row in csv.DictReader(lines)]


def _clip(row: dict[str, str]) -> Clip:
    fold = int(row["fold"]) if row["fold"] else None
    return Clip(
        row["path"], float(row["seconds"]), row["dataset"], fold, row["label"], row["origin"]
    )


def is_held_out(clip: Clip, esc50: int = ESC50_HELD_OUT, us8k: int = URBANSOUND8K_HELD_OUT) -> bool:
    """Say whether a clip belongs to the folds kept for measuring."""
    return (clip.dataset, clip.fold) in {("esc50", esc50), ("urbansound8k", us8k)}


def load_waves(
    data: Path, clips: Sequence[Clip], cache: Path, progress: Callable[[int], None] | None = None
) -> list[NDArray[np.int16]]:
    """Decode clips to 16 kHz mono int16 [N], once: the result is kept in `cache`."""
    names = [clip.path for clip in clips]
    store, index = cache / "waves.npy", cache / "waves.csv"
    if not index.is_file() or index.read_text(encoding="utf-8").splitlines()[::2] != names:
        _decode_all(data, names, store, index, progress)
    lengths = [int(line) for line in index.read_text(encoding="utf-8").splitlines()[1::2]]
    waves = np.load(store, mmap_mode="r", allow_pickle=False)
    return np.split(waves, np.cumsum(lengths)[:-1])


def _decode_all(
    data: Path,
    names: Sequence[str],
    store: Path,
    index: Path,
    progress: Callable[[int], None] | None,
) -> None:
    store.parent.mkdir(parents=True, exist_ok=True)
    waves = []
    for done, name in enumerate(names):
        waves.append(_decode(data / "audio" / name))
        if progress:
            progress(done + 1)
    np.save(store, np.concatenate(waves), allow_pickle=False)
    lines = [f"{name}\n{len(wave)}\n" for name, wave in zip(names, waves, strict=True)]
    index.write_text("".join(lines), encoding="utf-8")


def _decode(path: Path) -> NDArray[np.int16]:
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = samples.mean(axis=1)
    if rate != SAMPLE_RATE_HZ:
        mono = soxr.resample(mono, rate, SAMPLE_RATE_HZ)
    return np.asarray(np.round(np.clip(mono, -1.0, 1.0) * 32_767), np.int16)


def unit_wave(wave: NDArray[np.int16]) -> NDArray[np.float32]:
    """Return the wave as float32 in [-1, 1)."""
    return np.asarray(wave, np.float32) * np.float32(2.0**-15)


_CAPTIONED = ("audiocaps", "clotho")


def captions(data: Path) -> list[str]:
    """Return every caption of AudioCaps and Clotho, each once, in a fixed order."""
    return _captions(
        data, [f"{name}/{part}.csv" for name in _CAPTIONED for part in ("train", "val")]
    )


def validation_captions(data: Path) -> list[str]:
    """Return those of their validation clips, which captioners are measured on."""
    return _captions(data, [f"{name}/val.csv" for name in _CAPTIONED])


def _captions(data: Path, names: Sequence[str]) -> list[str]:
    text = data / "text"
    if not text.is_dir():
        raise DataMissingError(text)
    found: dict[str, None] = {}
    for name in names:
        for row in _rows(text / name):
            for column, value in row.items():
                if column.startswith("caption"):
                    found[value.strip()] = None
    return [caption for caption in found if caption]


def entailments(data: Path) -> list[str]:
    """Return sentences of the Clotho entailment set: wordings of the same and of other scenes."""
    found: dict[str, None] = {}
    for name in ("development", "validation"):
        path = data / "text" / "clotho_entailment" / f"clotho_entailment_{name}.csv"
        for row in _rows(path):
            for column in ("Entailment", "Neutral", "Contradiction"):
                found[row[column].strip()] = None
    return [sentence for sentence in found if sentence]


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise DataMissingError(path)
    with path.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))

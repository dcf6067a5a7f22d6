"""Measure an encoder on the held-out folds: prompts, paraphrases, tags, teacher and chance beside.

Run as: python -m soundpost.evaluation.encoder --model runs/measured --write docs/models/compact-results.md
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from soundpost.config import load_settings
from soundpost.evaluation.metrics import (
    Estimate,
    average_precision,
    average_precision_at,
    bootstrap,
    expected_calibration_error,
)
from soundpost.evaluation.paraphrases import PARAPHRASES
from soundpost.models.compact import CompactEncoder, CompactModel
from soundpost.models.encoder import AudioTextEncoder
from soundpost.training.data import Clip, is_held_out, load_clips, load_waves, unit_wave
from soundpost.training.teacher import Teacher
from soundpost.training.wordings import label_prompt

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class HeldOut:
    """The held-out clips of one dataset: waves, class index of each, labels in order."""

    clips: list[Clip]
    waves: list[FloatArray]
    classes: NDArray[np.int64]
    labels: list[str]

    @property
    def origins(self) -> NDArray[np.int64]:
        """Which recording each clip was cut from, as a number."""
        return np.unique([clip.origin for clip in self.clips], return_inverse=True)[1]


def held_out(data: Path, cache: Path, dataset: str, folds: tuple[int, int] = (4, 3)) -> HeldOut:
    """Load the held-out fold of `dataset` (esc50 or urbansound8k)."""
    clips = load_clips(data)
    waves = load_waves(data, clips, cache)
    kept = [i for i, c in enumerate(clips) if c.dataset == dataset and is_held_out(c, *folds)]
    chosen = [clips[i] for i in kept]
    labels = sorted({clip.label for clip in chosen})
    return HeldOut(
        chosen,
        [unit_wave(waves[i]) for i in kept],
        np.array([labels.index(clip.label) for clip in chosen]),
        labels,
    )


def embed_clips(
    encoder: AudioTextEncoder, waves: Sequence[FloatArray]
) -> tuple[FloatArray, FloatArray]:
    """Return embeddings [N, D] and tag probabilities [N, C] of clips of up to one window."""
    samples = round(encoder.spec.window_s * encoder.spec.sample_rate_hz)
    embeddings, tags = [], []
    for start in range(0, len(waves), 16):
        group = [wave[:samples] for wave in waves[start : start + 16]]
        lengths = np.array([len(wave) for wave in group])
        batch = np.zeros((len(group), int(lengths.max())), np.float32)
        for row, wave in enumerate(group):
            batch[row, : len(wave)] = wave
        encoding = encoder.encode_audio(batch, lengths)
        embeddings.append(encoding.embedding)
        if encoding.tags is not None:
            tags.append(encoding.tags)
    return np.concatenate(embeddings), np.concatenate(tags)


def accuracy(similarity: FloatArray, data: HeldOut) -> Estimate:
    """Share of clips whose nearest prompt is their own; similarity [clips, classes]."""
    return bootstrap((similarity.argmax(1) == data.classes).astype(float), data.origins)


def precision_at_10(similarity: FloatArray, classes: NDArray[np.int64], data: HeldOut) -> Estimate:
    """mAP@10 of queries over clips; similarity [queries, clips], classes [queries]."""
    values = [
        average_precision_at(row, data.classes == wanted, 10)
        for row, wanted in zip(similarity, classes, strict=True)
    ]
    return bootstrap(np.array(values), classes)


def measure(encoder: AudioTextEncoder, esc50: HeldOut, us8k: HeldOut) -> dict[str, Estimate]:
    """Return the marks of an encoder."""
    prompts = encoder.embed_text([label_prompt(label) for label in esc50.labels])
    asked = [text for label in esc50.labels for text in PARAPHRASES[label]]
    paraphrases = encoder.embed_text(asked)
    environment, _ = embed_clips(encoder, esc50.waves)
    city, _ = embed_clips(encoder, us8k.waves)
    city_prompts = encoder.embed_text([label_prompt(label) for label in us8k.labels])
    queries = np.arange(len(esc50.labels))
    f4, f3 = esc50.clips[0].fold, us8k.clips[0].fold
    return {
        f"ESC-50 fold {f4}, accuracy by one prompt": accuracy(environment @ prompts.T, esc50),
        f"ESC-50 fold {f4}, text to audio, mAP@10": precision_at_10(
            prompts @ environment.T, queries, esc50
        ),
        f"ESC-50 fold {f4}, paraphrases, mAP@10": precision_at_10(
            paraphrases @ environment.T, np.repeat(queries, 5), esc50
        ),
        f"UrbanSound8K fold {f3}, accuracy by one prompt": accuracy(city @ city_prompts.T, us8k),
        f"UrbanSound8K fold {f3}, text to audio, mAP@10": precision_at_10(
            city_prompts @ city.T, np.arange(len(us8k.labels)), us8k
        ),
    }


def tag_agreement(
    encoder: AudioTextEncoder, teacher: FloatArray, waves: Sequence[FloatArray]
) -> Estimate:
    """Mean AP over the classes that the teacher hears (p >= 0.5) in at least three clips."""
    _, ours = embed_clips(encoder, waves)
    heard = teacher >= 0.5
    classes = np.flatnonzero(heard.sum(0) >= 3)
    return bootstrap(np.array([average_precision(ours[:, c], heard[:, c]) for c in classes]))


def teacher_probabilities(teacher: Teacher, waves: Sequence[FloatArray], cache: Path) -> FloatArray:
    """Return the teacher's best probability of each class in each clip [N, 521], kept in cache."""
    if cache.is_file():
        kept: FloatArray = np.load(cache, allow_pickle=False)
        if len(kept) == len(waves):
            return kept
    values = np.stack([teacher.probabilities(wave).max(0) for wave in waves])
    cache.parent.mkdir(parents=True, exist_ok=True)
    np.save(cache, values, allow_pickle=False)
    return values


def teacher_accuracy(data: Path, cache: Path, test: HeldOut, folds: tuple[int, int]) -> Estimate:
    """Accuracy of a ridge classifier on the teacher's log scores, fitted on the training folds."""
    clips = load_clips(data)
    waves = load_waves(data, clips, cache)
    dataset = test.clips[0].dataset
    used = [i for i, c in enumerate(clips) if c.dataset == dataset and not is_held_out(c, *folds)]
    name = f"teacher-{dataset}-{folds[0]}-{folds[1]}"
    train_waves = [unit_wave(waves[i]) for i in used]
    train = np.log(
        teacher_probabilities(Teacher(data), train_waves, cache / f"{name}-train.npy") + 1e-4
    )
    score = np.log(
        teacher_probabilities(Teacher(data), test.waves, cache / f"{name}-test.npy") + 1e-4
    )
    mean, spread = train.mean(0), train.std(0) + 1e-3
    x, y = (train - mean) / spread, (score - mean) / spread
    wanted = np.eye(len(test.labels))[[test.labels.index(clips[i].label) for i in used]]
    solved = np.linalg.solve(x.T @ x + 300.0 * np.eye(x.shape[1]), x.T @ (wanted - wanted.mean(0)))
    return bootstrap(((y @ solved).argmax(1) == test.classes).astype(float), test.origins)


def random_encoder(encoder: CompactEncoder, seed: int) -> CompactEncoder:
    """Return an encoder of the same shape with random weights: what chance gives."""
    torch.manual_seed(seed)
    return CompactEncoder(CompactModel(encoder.model.config), encoder.tokenizer, "random")


def calibration(encoder: CompactEncoder, esc50: HeldOut, us8k: HeldOut) -> dict[str, float]:
    """ECE of the relevance where its curve was not fitted.

    These are the paraphrases of every other class of ESC-50, and UrbanSound8K.
    """
    gaps = {}
    unseen = esc50.labels[1::2]
    asked = [text for label in unseen for text in PARAPHRASES[label]]
    city = [label_prompt(label) for label in us8k.labels]
    meant = np.repeat([esc50.labels.index(label) for label in unseen], 5)
    cases = (
        ("ESC-50 paraphrases of the other classes", esc50, asked, meant),
        ("UrbanSound8K prompts", us8k, city, np.arange(len(city))),
    )
    for name, data, texts, classes in cases:
        queries = encoder.embed_text(texts)
        audio, _ = embed_clips(encoder, data.waves)
        stated = encoder.relevance(queries, queries @ audio.T)
        wanted = classes[:, None] == data.classes[None]
        gaps[name] = expected_calibration_error(stated.ravel(), wanted.ravel())
    return gaps


def report(
    data: Path, cache: Path, folder: Path | None, folds: tuple[int, int] = (4, 3)
) -> list[str]:
    """Measure everything and return the lines of a Markdown table."""
    encoder = CompactEncoder.load(folder)
    esc50 = held_out(data, cache, "esc50", folds)
    us8k = held_out(data, cache, "urbansound8k", folds)
    ours, chance = measure(encoder, esc50, us8k), measure(random_encoder(encoder, 0), esc50, us8k)
    f4, f3 = folds
    teacher = {
        f"ESC-50 fold {f4}, accuracy by one prompt": teacher_accuracy(data, cache, esc50, folds),
        f"UrbanSound8K fold {f3}, accuracy by one prompt": teacher_accuracy(
            data, cache, us8k, folds
        ),
    }
    name = f"teacher-esc50-{folds[0]}-{folds[1]}-test.npy"
    heard = teacher_probabilities(Teacher(data), esc50.waves, cache / name)
    ours[f"ESC-50 fold {folds[0]}, tags, mean AP against the teacher"] = tag_agreement(
        encoder, heard, esc50.waves
    )
    lines = [
        "| measure | compact | random weights | teacher with a fitted ridge classifier |",
        "|---|---|---|---|",
    ]
    for measure_name, value in ours.items():
        cells = (value, chance.get(measure_name, "-"), teacher.get(measure_name, "-"))
        lines.append(f"| {measure_name} | " + " | ".join(str(cell) for cell in cells) + " |")
    lines += [
        f"| Relevance, calibration error, {n} | {gap:.3f} | - | - |"
        for n, gap in calibration(encoder, esc50, us8k).items()
    ]
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the marks, and write them where --write says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("runs/measured"))
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"))
    parser.add_argument("--development", action="store_true", help="use the development folds")
    parser.add_argument("--write", type=Path)
    options = parser.parse_args(arguments)
    folds = (3, 2) if options.development else (4, 3)
    lines = report(load_settings().data, options.cache, options.model, folds)
    sys.stdout.write("\n".join(lines) + "\n")
    if options.write:
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Fit the relevance of the compact encoder, and put the finished weights into the package.

The curve is fitted where its model never trained (ESC-50 fold 4) and then given to the weights
trained on everything in the same way. Run as:
python -m soundpost.evaluation.calibration --measured runs/measured --shipped runs/shipped
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from soundpost.config import load_settings
from soundpost.evaluation.encoder import HeldOut, embed_clips, held_out
from soundpost.evaluation.paraphrases import PARAPHRASES
from soundpost.models.compact import SHIPPED_WEIGHTS, CompactEncoder
from soundpost.training.data import is_held_out, load_clips, load_waves, unit_wave
from soundpost.training.wordings import label_prompt

FloatArray = NDArray[np.float32]

# Enough clips to know where audio lies in the space on the whole.
BACKGROUND_CLIPS = 1_500


def fit_logistic(features: NDArray[np.float64], wanted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return weights [F + 1], offset last, of the likeliest logistic curve (Newton's method)."""
    design = np.column_stack([features, np.ones(len(features))])
    weights = np.zeros(design.shape[1])
    for _ in range(50):
        stated = 1.0 / (1.0 + np.exp(-design @ weights))
        gradient = design.T @ (wanted - stated) - 1e-3 * weights
        curvature = (design * (stated * (1.0 - stated))[:, None]).T @ design
        step = np.linalg.solve(curvature + 1e-3 * np.eye(len(weights)), gradient)
        weights += step
        if np.abs(step).max() < 1e-8:
            break
    return weights


def describe_background(encoder: CompactEncoder, waves: Sequence[FloatArray]) -> None:
    """Keep the mean and covariance of embeddings of `waves` in the model."""
    embeddings, _ = embed_clips(encoder, waves)
    centred = embeddings - embeddings.mean(0)
    with torch.no_grad():
        encoder.model.background_mean.copy_(torch.from_numpy(embeddings.mean(0)))
        covariance = centred.T @ centred / len(centred)
        encoder.model.background_covariance.copy_(torch.from_numpy(covariance))


def fit_relevance(encoder: CompactEncoder, data: HeldOut) -> NDArray[np.float64]:
    """Return (slope of z, slope of cosine, offset) fitted on held-out clips.

    The queries are label prompts and the paraphrases of every other class: a curve that knew
    only the words of the training labels would take any other wording for irrelevant.
    """
    fitted = {label: PARAPHRASES[label] for label in data.labels[::2]}
    texts = [label_prompt(label) for label in data.labels]
    texts += [text for phrases in fitted.values() for text in phrases]
    classes = list(range(len(data.labels)))
    classes += [data.labels.index(label) for label, phrases in fitted.items() for _ in phrases]
    queries = encoder.embed_text(texts)
    audio, _ = embed_clips(encoder, data.waves)
    cosines = queries @ audio.T
    z = encoder.standard_scores(queries, cosines)
    features = np.column_stack([z.ravel(), cosines.ravel()]).astype(np.float64)
    wanted = np.array(classes)[:, None] == data.classes[None]
    return fit_logistic(features, wanted.ravel())


def background_waves(data: Path, cache: Path, everything: bool) -> list[FloatArray]:
    """Return clips, evenly spread over those that the model trained on."""
    clips = load_clips(data)
    waves = load_waves(data, clips, cache)
    used = [i for i, clip in enumerate(clips) if everything or not is_held_out(clip)]
    chosen = np.random.default_rng(0).choice(used, BACKGROUND_CLIPS, replace=False)
    return [unit_wave(waves[i]) for i in sorted(chosen)]


def save(encoder: CompactEncoder, folder: Path) -> None:
    """Write weights in half precision, configuration and tokenizer to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.nn.Module.half(encoder.model).save_pretrained(folder)
    encoder.tokenizer.save(str(folder / "tokenizer.json"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Calibrate the measured model, hand its curve to the shipped one, and ship that."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measured", type=Path, default=Path("runs/measured"))
    parser.add_argument("--shipped", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"))
    parser.add_argument("--to", type=Path, default=SHIPPED_WEIGHTS)
    options = parser.parse_args(arguments)
    data = load_settings().data
    measured = CompactEncoder.load(options.measured)
    describe_background(measured, background_waves(data, options.cache, False))
    curve = fit_relevance(measured, held_out(data, options.cache, "esc50"))
    sys.stdout.write(f"relevance: z {curve[0]:.3f}, cosine {curve[1]:.3f}, offset {curve[2]:.3f}\n")
    measured.model.calibration.copy_(torch.from_numpy(curve))
    save(measured, options.measured)
    if options.shipped is None:
        return
    shipped = CompactEncoder.load(options.shipped)
    describe_background(shipped, background_waves(data, options.cache, True))
    shipped.model.calibration.copy_(torch.from_numpy(curve))
    save(shipped, options.to)


if __name__ == "__main__":
    main()

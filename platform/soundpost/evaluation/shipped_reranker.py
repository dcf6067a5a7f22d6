"""Train the reranker that is shipped: the measured recipe, over the shipped encoder, on all clips.

Nothing is left to measure it on, so weight and temperature are those that the measured one was
given on the development sets. Run as: python -m soundpost.evaluation.shipped_reranker
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from soundpost.config import load_settings
from soundpost.evaluation.retrieval_methods import DIFFATR, Effort, Workshop
from soundpost.evaluation.retrieval_sets import Sets
from soundpost.models.compact import CompactEncoder
from soundpost.models.diffatr import SHIPPED_RERANKER, DiffAtrConfig
from soundpost.training.composed_sets import EVERYTHING
from soundpost.training.ranking import Reading

FILES = ("config.json", "model.safetensors")


def readings(workshop: Workshop) -> tuple[Reading, Reading]:
    """Return how the measured reranker is read: sounds for a text, and texts for a sound."""
    method = workshop.method(DIFFATR, 1)
    return workshop.reading(method, False), workshop.reading(method, True)


def put(folder: Path, found: tuple[Reading, Reading], out: Path) -> None:
    """Copy weights and config, read in this way, to where the package holds them."""
    out.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile(folder / name, out / name)
    sounds, texts = found
    config = DiffAtrConfig.from_pretrained(folder)
    config.sound_temperature, config.weight = sounds.temperature, sounds.weight
    config.text_temperature, config.text_weight = texts.temperature, texts.weight
    config.save_pretrained(out)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is shipped, and put it into the package."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("runs/measured"))
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"))
    parser.add_argument("--out", type=Path, default=SHIPPED_RERANKER)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    data = load_settings().data
    measured = Sets(CompactEncoder.load(options.model, threads=1), data, options.cache)
    shipped = Sets(CompactEncoder.load(threads=1), data, options.cache, EVERYTHING)
    folder = Workshop(shipped, Effort()).trained(DIFFATR)
    found = readings(Workshop(measured, Effort()))
    put(folder, found, options.out)
    sys.stdout.write(f"{options.out}: sounds {found[0]}, texts {found[1]} (weight, temperature)\n")


if __name__ == "__main__":
    main()

"""Measure what a second stage adds to similarity: DiffATR by steps, a plain one, ablations, time.

Run as: python -m soundpost.evaluation.retrieval --write docs/benchmarks.md

Everything that takes long is kept below runs/retrieval: embeddings, weights, judgements. Weight and
temperature, the only things that are chosen, are chosen on folds 3 of ESC-50 and 2 of UrbanSound8K;
the tables are of folds 4 and 3, which neither the encoder nor a second stage ever heard.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from soundpost.config import load_settings
from soundpost.evaluation.document import Section
from soundpost.evaluation.retrieval_methods import Effort, Workshop
from soundpost.evaluation.retrieval_sets import Sets
from soundpost.evaluation.retrieval_tables import PARTS, Tables
from soundpost.models.compact import CompactEncoder

SECTION = Section("## Reranking", "reranking")
_INTRODUCTION = (
    "R@k: how often something right is among the first k, in points of a hundred, as is mAP@10; 95 % "
    "bootstrap intervals over queries (clips: over classes), differences in pairs. A second stage "
    "judges the 64 most similar candidates; final score = similarity + weight * probability, tempered. "
    "Weight and temperature are chosen on other folds."
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables, and write them where --write says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("runs/measured"))
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"))
    parser.add_argument("--only", nargs="+", choices=tuple(PARTS), default=tuple(PARTS))
    parser.add_argument("--write", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    encoder = CompactEncoder.load(options.model, device="cpu", threads=1)
    sets = Sets(encoder, load_settings().data, options.cache)
    tables = Tables(Workshop(sets, Effort()))
    began = time.monotonic()
    lines: list[str] = []
    for name in options.only:
        found = PARTS[name](tables)
        sys.stdout.write("\n".join(found) + "\n")
        sys.stdout.flush()
        lines += found
    if tables.gains:
        lines += tables.marks()
    took_s = time.monotonic() - began
    when = f"{datetime.now(UTC):%Y-%m-%d}"
    lines = [
        f"Written by `make eval-retrieval` on {when}, {took_s:.0f} s.",
        "",
        _INTRODUCTION,
        "",
        *lines,
    ]
    if options.write:
        SECTION.write(options.write, lines)


if __name__ == "__main__":
    main()

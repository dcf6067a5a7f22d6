"""Measure what explanations of held-out pairs are worth, as written, after checking, and without a model.

Run as: python -m soundpost.evaluation.difference --write docs/benchmarks.md

Pairs are made anew from their seeds, of clips that neither the encoder nor the network was trained on;
what was told of them is kept below runs/explain/eval by the revisions of both, so that another run
only judges. Figures are by soundpost.evaluation.difference_scores.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from rich.progress import track

from soundpost.config import load_settings
from soundpost.evaluation import adiff_texts
from soundpost.evaluation.difference_outcomes import Outcome, read_chunk, write_chunk
from soundpost.evaluation.difference_runs import Teller, time_tiers
from soundpost.evaluation.difference_tables import Tables, markdown
from soundpost.evaluation.document import Section
from soundpost.evaluation.held_out_pairs import HeldOutPair, each_slot, select, waves_of
from soundpost.models.adiff_writer import AdiffWriter
from soundpost.models.compact import CompactEncoder
from soundpost.training.pairs import PairPool, load_pair_pool

SECTION = Section("## Explanations", "explanations")
CHUNK = 24
# Tiers 2 and 3 are told of every so manieth pair.
EVERY = 5
# The marks: seconds for one pair on two cores, by tier.
MOST_S = {1: 1.0, 3: 3.0}
_TIMED = 10
_INTRODUCTION = (
    "Pairs of ESC-50 fold 4, UrbanSound8K fold 3, motor states and synthetic machines that neither the "
    "encoder nor the network was trained on, every kind of edit alike. `unchecked`: the network's text. "
    "`checked`: what a user sees, after claims were checked and what was contradicted was written again or "
    "replaced by measurements. `measurements alone`: no network. Shares and means with 95 % bootstrap "
    "intervals over origins. Invented: false of the record, its contents and what was measured on the exact "
    "renders; beyond the record: also what is true but was not edited, such as the level that an added sound "
    "raises. Swap: (B, A) told beside (A, B); claims in one form, so that louder in one is softer in the other."
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what is needed to tell pairs."""
    parser.add_argument("--encoder", type=Path, default=Path("runs/measured"))
    parser.add_argument("--adiff", type=Path, default=Path("runs/explain/adiff/stage3"))
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"))
    parser.add_argument("--kept", type=Path, default=Path("runs/explain/eval"))
    parser.add_argument(
        "--pairs", type=int, default=630, help="edited ones; a third as many without"
    )
    parser.add_argument("--split", default="test")
    parser.add_argument("--write", type=Path)


def load_teller(options: argparse.Namespace) -> Teller:
    """Load the encoder and the network that options name."""
    encoder = CompactEncoder.load(options.encoder, device="cpu", threads=2)
    return Teller(encoder, AdiffWriter.load(options.adiff, threads=2), options.kept)


def tell_pairs(options: argparse.Namespace, teller: Teller | None = None) -> list[Outcome]:
    """Return what is told of the held-out pairs; what is kept is not told again."""
    teller = teller or load_teller(options)
    folder = options.kept / teller.revision / f"{options.split}-{options.pairs}"
    pool = load_pair_pool(load_settings().data, options.cache, options.split)
    pairs = chosen_pairs(pool, options)
    starts = range(0, len(pairs), CHUNK)
    outcomes: list[Outcome] = []
    for start in track(starts, "Explaining pairs", disable=not sys.stderr.isatty()):
        path = folder / f"{start:05d}.jsonl"
        found = read_chunk(path)
        if found is None:
            found = tell_chunk(teller, pool, pairs[start : start + CHUNK], start)
            write_chunk(path, found)
        outcomes += found
    return outcomes


def chosen_pairs(pool: PairPool, options: argparse.Namespace) -> list[HeldOutPair]:
    """Choose pairs, or read which ones were chosen before."""
    path = options.kept / f"pairs-{options.split}-{options.pairs}.jsonl"
    kept = read_chunk(path)
    if kept is None:
        kept = [Outcome(pair, {}) for pair in select(pool, each_slot(options.pairs))]
        write_chunk(path, kept)
    return [outcome.pair for outcome in kept]


def tell_chunk(
    teller: Teller, pool: PairPool, pairs: Sequence[HeldOutPair], first: int
) -> list[Outcome]:
    """Tell some pairs, the first of them being number `first` of all."""
    tiers = [(1, 2, 3) if (first + row) % EVERY == 0 else (1,) for row in range(len(pairs))]
    told = teller.tell(waves_of(pool, pairs), tiers)
    return [Outcome(pair, ways, summary) for pair, (ways, summary) in zip(pairs, told, strict=True)]


def timing(teller: Teller, options: argparse.Namespace) -> list[str]:
    """Return how long one pair takes, from two waves to a checked text, on two cores."""
    pool = load_pair_pool(load_settings().data, options.cache, options.split)
    pairs = chosen_pairs(pool, options)
    rows = np.random.default_rng(3).choice(len(pairs), size=_TIMED, replace=False)
    waves = waves_of(pool, [pairs[row] for row in sorted(rows.tolist())])
    rows_of_table = [
        [f"tier {tier}", f"{np.median(took):.2f} s", f"{max(took):.2f} s", _mark(tier, took)]
        for tier, took in time_tiers(teller, waves, tuple(MOST_S)).items()
    ]
    header = ["one pair, two cores", "median", f"slowest of {_TIMED}", "mark"]
    return ["### Time", "", *markdown(header, rows_of_table)]


def _mark(tier: int, took_s: Sequence[float]) -> str:
    held = float(np.median(took_s)) <= MOST_S[tier]
    return f"at most {MOST_S[tier]:g} s: {'held' if held else 'MISSED'}"


def report(options: argparse.Namespace) -> Iterator[list[str]]:
    """Yield the parts of the section."""
    teller = load_teller(options)
    outcomes = tell_pairs(options, teller)
    yield Tables(outcomes).lines()
    sets = adiff_texts.text_sets(load_settings().data, options.texts)
    yield adiff_texts.lines(teller.network, teller.encoder, sets)
    yield timing(teller, options)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables, and write them where --write says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_options(parser)
    parser.add_argument("--texts", type=int, default=200, help="published rows a dataset and tier")
    options = parser.parse_args(arguments)
    torch.set_num_threads(2)
    began = time.monotonic()
    lines: list[str] = []
    for part in report(options):
        sys.stdout.write("\n".join(part) + "\n")
        sys.stdout.flush()
        lines += part
    took_s = time.monotonic() - began
    head = f"Written by `make eval-explain` on {datetime.now(UTC):%Y-%m-%d}, {took_s:.0f} s."
    if options.write:
        SECTION.write(options.write, [head, "", _INTRODUCTION, "", *lines])


if __name__ == "__main__":
    main()

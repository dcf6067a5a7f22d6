"""Measure what explanations of held-out pairs are worth, as written, after checking, and without a model.

Run as: python -m soundpost.evaluation.difference --write docs/benchmarks.md

Pairs are made anew from their seeds, of clips that the network was not trained on; what was told of
them is kept below runs/explain/eval by the revisions of encoder and network, so that another run only
judges. Figures are by soundpost.evaluation.difference_scores.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
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
from soundpost.evaluation.difference_runs import Teller, code_of, time_tiers
from soundpost.evaluation.difference_tables import Tables, markdown
from soundpost.evaluation.document import Section
from soundpost.evaluation.held_out_pairs import KNOWN, HeldOutPair, each_slot, select, waves_of
from soundpost.models.adiff_writer import AdiffWriter
from soundpost.models.compact import CompactEncoder
from soundpost.training import pairs
from soundpost.training.pair_scenes import PairPool, load_pair_pool
from soundpost.training.pair_store import load_encoder

SECTION = Section("## Explanations", "explanations")
CHUNK = 24
# Tiers 2 and 3 are told of every so manieth pair.
EVERY = 5
# The marks: seconds for one pair on two cores, by tier.
MOST_S = {1: 1.0, 3: 3.0}
_TIMED = 10
_TRACKED = "Explaining pairs"
_INTRODUCTION = (
    "Pairs of ESC-50 fold 4, UrbanSound8K fold 3, speech, motor states and synthetic machines that the "
    f"network was not trained on, every kind of edit alike. {KNOWN} `unchecked`: the network's text. "
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
    parser.add_argument("--processes", type=int, default=2, help="with one compute thread each")
    parser.add_argument("--write", type=Path)


def load_teller(options: argparse.Namespace) -> Teller:
    """Load the encoder and the network that options name."""
    encoder = CompactEncoder.load(options.encoder, device="cpu")
    return Teller(encoder, AdiffWriter.load(options.adiff), options.kept / "texts")


def tell_pairs(options: argparse.Namespace, teller: Teller) -> list[Outcome]:
    """Return what is told of the held-out pairs; what is kept is not told again."""
    telling = Telling(options, teller)
    missing = [number for number in telling.chunks if not telling.path(number).is_file()]
    if options.processes > 1 and len(missing) > 1:
        _tell_with_processes(options, missing)
    for number in track(missing, _TRACKED, disable=not sys.stderr.isatty()):
        if not telling.path(number).is_file():
            telling.tell(number)
    return [one for number in telling.chunks for one in read_chunk(telling.path(number)) or ()]


class Telling:
    """The pairs that options name, told chunk by chunk into files."""

    def __init__(self, options: argparse.Namespace, teller: Teller) -> None:
        self.teller = teller
        self.pool = load_pair_pool(load_settings().data, options.cache, options.split)
        name = f"{options.split}-{options.pairs}-{code_of(Path(pairs.__file__), 'pair*.py')}"
        self.pairs = chosen_pairs(self.pool, options.pairs, options.kept / f"pairs-{name}.jsonl")
        self.folder = options.kept / teller.revision / name
        self.chunks = range(-(-len(self.pairs) // CHUNK))

    def path(self, number: int) -> Path:
        """Return the file of a chunk."""
        path: Path = self.folder / f"{number:04d}.jsonl"
        return path

    def tell(self, number: int) -> None:
        """Tell the pairs of a chunk."""
        places = range(number * CHUNK, min((number + 1) * CHUNK, len(self.pairs)))
        chosen = [self.pairs[place] for place in places]
        tiers = [(1, 2, 3) if place % EVERY == 0 else (1,) for place in places]
        told = self.teller.tell(waves_of(self.pool, chosen), tiers)
        rows = zip(chosen, told, strict=True)
        write_chunk(
            self.path(number), [Outcome(pair, ways, summary) for pair, (ways, summary) in rows]
        )


def chosen_pairs(pool: PairPool, count: int, path: Path) -> list[HeldOutPair]:
    """Choose pairs, or read from a file which ones were chosen before."""
    kept = read_chunk(path)
    if kept is None:
        kept = [Outcome(pair, {}) for pair in select(pool, each_slot(count))]
        write_chunk(path, kept)
    return [outcome.pair for outcome in kept]


_at_work: dict[str, Telling] = {}


def _start(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    _at_work["telling"] = Telling(options, load_teller(options))


def _tell(number: int) -> None:
    _at_work["telling"].tell(number)


def _tell_with_processes(options: argparse.Namespace, missing: Sequence[int]) -> None:
    # What the processes inherit: one compute thread each.
    os.environ.update({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"})
    context = multiprocessing.get_context("spawn")
    with context.Pool(options.processes, _start, (options,)) as workers:
        told = workers.imap_unordered(_tell, missing)
        for _ in track(told, _TRACKED, total=len(missing), disable=not sys.stderr.isatty()):
            pass


def timing(teller: Teller, options: argparse.Namespace) -> list[str]:
    """Return how long one pair takes, from two waves to a checked text, on two cores."""
    telling = Telling(options, teller)
    pool, chosen = telling.pool, telling.pairs
    rows = np.random.default_rng(3).choice(len(chosen), size=_TIMED, replace=False)
    waves = waves_of(pool, [chosen[row] for row in sorted(rows.tolist())])
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
    yield as_text(options, teller.network)
    yield timing(teller, options)


def as_text(options: argparse.Namespace, network: AdiffWriter) -> list[str]:
    """Return the table of published explanations, their captions in the space that was trained on.

    The spaces of two encoders are not one, and no recording is heard here that an encoder could know.
    """
    sets = adiff_texts.text_sets(load_settings().data, options.texts)
    return adiff_texts.lines(network, load_encoder(options.captions), sets)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables, and write them where --write says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_options(parser)
    parser.add_argument("--texts", type=int, default=200, help="published rows a dataset and tier")
    parser.add_argument(
        "--captions", default="compact", help="the encoder of captions that the network learnt from"
    )
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

"""What the parts of ADIFF are worth: stages of one length beside each other, before any checking.

Run as: python -m soundpost.evaluation.explain_ablations --run "B, baseline=runs/explain/ablations/b/stage2" ...

B, C, D and E are the ablations of the paper (arXiv 2502.04476): B has neither separator nor
cross-projection, C has both, D adds position captioning, E stage 3. Every run is a folder that
soundpost.training.adiff left. The pairs are those of the development folds, told by the network alone.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from soundpost.evaluation.difference_outcomes import UNCHECKED, Outcome, Way, as_told
from soundpost.evaluation.difference_scores import Scores
from soundpost.evaluation.difference_tables import cell, markdown, references_of
from soundpost.evaluation.document import Section
from soundpost.evaluation.held_out_pairs import HeldOutPair, each_slot, groups_of, slot_of
from soundpost.evaluation.metrics import Estimate, bootstrap
from soundpost.evaluation.text_scores import agreement
from soundpost.models.adiff_writer import AdiffWriter
from soundpost.training.pair_store import PairSet, load_pairs
from soundpost.training.pairs import Pair

SECTION = Section("## Explanations: what helps", "explanation ablations")
MEASURES = (
    "edits named",
    "direction right, of those named",
    "right audio, of those named",
    "invented claims an explanation",
    "swap: share of claims mirrored",
)
_WAYS = (Way(UNCHECKED, 1), Way(UNCHECKED, 1, swapped=True))
_INTRODUCTION = (
    "Stages of equal length: a run with stage 3 had stage 2 before it, twice the steps in all. Told by "
    "the network alone, tier 1, pairs of the development folds; "
    "95 % intervals over scenes. The last column is the share of edits named less that of the first "
    "run, in pairs."
)


@dataclass(frozen=True)
class Run:
    """A trained network under its name in the table."""

    name: str
    folder: Path

    @classmethod
    def parsed(cls, text: str) -> Run:
        """Read NAME=FOLDER."""
        name, _, folder = text.rpartition("=")
        return cls(name or folder, Path(folder))


def choose(pairs: PairSet, count: int, seed: int = 0) -> list[Pair]:
    """Choose about so many edited pairs of a set, every kind alike, and some without an edit."""
    left = Counter(each_slot(count))
    chosen = []
    for place in np.random.default_rng(seed).permutation(len(pairs.pairs)).tolist():
        pair = pairs.pairs[place]
        if left[slot_of(pair)] > 0:
            left[slot_of(pair)] -= 1
            chosen.append(pair)
    return chosen


def told_by(writer: AdiffWriter, pairs: PairSet, chosen: Sequence[Pair]) -> list[Outcome]:
    """Let a network tell pairs, both ways round."""
    firsts, seconds = pairs.both(chosen)
    texts = [
        writer.write_many(firsts, seconds, tier=1),
        writer.write_many(seconds, firsts, tier=1),
    ]
    return [
        Outcome(
            HeldOutPair(pair.record, slot_of(pair), str(pair.record.seed)),
            {way: as_told(written[row].text) for way, written in zip(_WAYS, texts, strict=True)},
        )
        for row, pair in enumerate(chosen)
    ]


def compare(runs: Sequence[Run], pairs: PairSet, count: int) -> list[str]:
    """Return the table of the runs."""
    chosen = choose(pairs, count)
    rows, first = [], np.zeros(0)
    for run in runs:
        outcomes = told_by(AdiffWriter.load(run.folder), pairs, chosen)
        named = _named(outcomes)
        first = named if not len(first) else first
        rows.append([run.name, *_cells(outcomes), str(_more(outcomes, named - first))])
    header = ["", *MEASURES, "BLEU_4", "CIDEr-D", f"edits named, more than {runs[0].name}"]
    return [f"{len(chosen)} pairs.", "", *markdown(header, rows)]


def _cells(outcomes: Sequence[Outcome]) -> list[str]:
    measures = Scores.of(outcomes, _WAYS[0]).measures()
    edited = [outcome for outcome in outcomes if outcome.pair.edited]
    found = agreement(
        [outcome.told[_WAYS[0]].text for outcome in edited],
        [references_of(outcome, 1) for outcome in edited],
        groups_of([outcome.pair for outcome in edited]),
    )
    texts = [str(found[name]) for name in ("BLEU_4", "CIDEr-D")]
    return [*(cell(measures[name]) for name in MEASURES), *texts]


def _named(outcomes: Sequence[Outcome]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return whether each edit of all pairs was named."""
    judged = Scores.of(outcomes, _WAYS[0]).judged
    return np.array([value for one in judged for value in one.named], np.float64)


def _more(
    outcomes: Sequence[Outcome], values: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> Estimate:
    groups = groups_of([outcome.pair for outcome in outcomes])
    edits = [len(outcome.pair.record.edits) for outcome in outcomes]
    return bootstrap(values, np.repeat(groups, edits))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, and write it where --write says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", type=Run.parsed, action="append", required=True, dest="runs")
    parser.add_argument("--pairs", type=Path, default=Path("runs/explain/pairs/dev-measured"))
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    table = compare(options.runs, load_pairs(options.pairs), options.count)
    head = f"Written by `make eval-explain-ablations` on {datetime.now(UTC):%Y-%m-%d}."
    lines = [head, "", _INTRODUCTION, "", *table]
    sys.stdout.write("\n".join(lines) + "\n")
    if options.write:
        SECTION.write(options.write, lines)


if __name__ == "__main__":
    main()

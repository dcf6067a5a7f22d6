"""Measure captions: DAC by number of steps beside its autoregressive twin, on sounds and on texts.

Run as: python -m soundpost.evaluation.captioning --write docs/benchmarks.md

(a) scenes and clips of the held-out folds, heard by an encoder that never heard them, and of speech,
which it was trained on; references in several wordings from what is known of each. (b) AudioCaps and Clotho as text: one caption's vector in
place of the sound, the other four as references; clips with a caption that was trained on are left
out. What was heard is kept below runs/explain/eval.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from soundpost.config import load_settings
from soundpost.evaluation.captioning_scores import (
    BATCH,
    VARIED,
    VARIED_SOUNDS,
    Captioned,
    CaptionScores,
    CaptionTask,
    CaptionWriter,
    MostAlike,
    TextEmbedder,
    caption,
    captions_per_s,
    score,
)
from soundpost.evaluation.captioning_tasks import heard_task, spent, text_tasks, trained_texts
from soundpost.evaluation.document import Section
from soundpost.evaluation.meteor import Meteor, missing
from soundpost.models.caption_twin import TwinWriter
from soundpost.models.compact import CompactEncoder
from soundpost.models.dac import DacSampling, DacWriter

SECTION = Section("## Captions", "captioning")
CAPTIONS = tuple(Path("runs/explain/captions") / name for name in ("compact", "measured"))
STEPS = (1, 2, 3, 5, 10, 30)
BEST_OF = 4
TWIN = "twin, a word at a time"
# The marks: so many times the twin's captions per second, and so much of its CIDEr-D at most lost.
FASTER, LOSS = 2.0, 0.05
_INTRODUCTION = (
    f"Means with 95 % bootstrap intervals over origins. The encoder never heard the two held-out folds; the "
    f"clips of speech it was trained on. One caption a sound: the likeliest of each "
    f"writer. Varied: {VARIED} captions of each of the first {VARIED_SOUNDS} sounds (DAC from full noise, the twin from the nucleus "
    f"0.9); Distinct-1, Distinct-2 and MTLD are those of one sound's {VARIED} captions, mean over sounds. "
    f"Similarity: cosine of caption and sound in the encoder's space. Captions per second: batches of "
    f"{BATCH} sounds, one thread, the writers in turn; median, and median of the ratio to the twin."
)


@dataclass(frozen=True)
class Entry:
    """A writer under its name in the tables."""

    name: str
    writer: CaptionWriter


def name_of(steps: int) -> str:
    """Name DAC with a number of steps."""
    return f"DAC, {steps} step{'s' * (steps > 1)}"


def entries(dac: DacWriter, twin: CaptionWriter, encoder: TextEmbedder) -> list[Entry]:
    """Return the twin, DAC by steps, and DAC that chooses the best of several, by both its ways."""
    by_steps = [Entry(name_of(steps), _sampled(dac, steps=steps)) for steps in STEPS]
    usual = f"{name_of(dac.sampling.steps)}, best of {BEST_OF}"
    surest = Entry(f"{usual}, by its words", _sampled(dac, candidates=BEST_OF))
    alike = Entry(f"{usual}, by the encoder", MostAlike(dac, encoder, BEST_OF))
    return [Entry(TWIN, twin), *by_steps, surest, alike]


def _sampled(dac: DacWriter, steps: int | None = None, candidates: int | None = None) -> DacWriter:
    usual = dac.sampling
    sampling = replace(usual, steps=steps or usual.steps, candidates=candidates or usual.candidates)
    return DacWriter(dac.model, dac.vocabulary, dac.revision, sampling)


@dataclass(frozen=True)
class Result:
    """One row: scores, captions a second, and how many times those of the twin."""

    name: str
    made: Captioned
    scores: CaptionScores
    per_s: float
    times: float
    varied_per_s: float
    varied_times: float


def measure(task: CaptionTask, compared: Sequence[Entry], encoder: TextEmbedder) -> list[Result]:
    """Caption a task with every writer, the twin first, and score what they wrote."""
    writers = [entry.writer for entry in compared]
    rates, varied = captions_per_s(writers, task), captions_per_s(writers, task, diverse=True)
    results = []
    for number, entry in enumerate(compared):
        made = caption(entry.writer, task)
        results.append(
            Result(
                name=entry.name,
                made=made,
                scores=score(task, made, encoder),
                per_s=float(np.median(rates[:, number])),
                times=float(np.median(rates[:, number] / rates[:, 0])),
                varied_per_s=float(np.median(varied[:, number])),
                varied_times=float(np.median(varied[:, number] / varied[:, 0])),
            )
        )
    return results


def tables(task: CaptionTask, results: Sequence[Result]) -> list[str]:
    """Return the two tables of a task."""
    lines = [f"### {task.name}", "", f"{len(task.tokens):,} sounds.", ""]
    lines += _table(
        "one caption a sound | CIDEr-D | BLEU_4 | ROUGE-L | Distinct-1 of all | similarity | a second "
        "| times the twin",
        [_single(result) for result in results],
    )
    lines += _table(
        f"{VARIED} varied captions a sound | CIDEr-D | Distinct-1 | Distinct-2 | MTLD | similarity "
        "| a second | times the twin",
        [_varied(result) for result in results],
    )
    return lines


def _single(result: Result) -> list[str]:
    scores = result.scores
    agreed = [str(scores.texts[name]) for name in ("CIDEr-D", "BLEU_4", "ROUGE-L")]
    rates = [f"{result.per_s:,.0f}", f"{result.times:.2f}"]
    own = [f"{scores.vocabulary:.4f}", str(scores.similarity)]
    return [result.name, *agreed, *own, *rates]


def _varied(result: Result) -> list[str]:
    scores = result.scores
    found = (scores.varied_cider, scores.distinct_1, scores.distinct_2)
    own = [f"{scores.mtld.mean:.1f}", str(scores.varied_similarity)]
    rates = [f"{result.varied_per_s:,.0f}", f"{result.varied_times:.2f}"]
    return [result.name, *map(str, found), *own, *rates]


def _table(header: str, rows: Sequence[Sequence[str]]) -> list[str]:
    columns = header.split(" | ")
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]


def marks(task: CaptionTask, results: Sequence[Result], shipped: str) -> list[str]:
    """Say which marks DAC in its shipped number of steps reaches beside the twin."""
    twin = results[0]
    dac = next(result for result in results if result.name == shipped)
    lost = 1.0 - dac.scores.texts["CIDEr-D"].mean / max(twin.scores.texts["CIDEr-D"].mean, 1e-9)
    lost_varied = 1.0 - dac.scores.varied_cider.mean / max(twin.scores.varied_cider.mean, 1e-9)
    more_varied = (
        dac.scores.distinct_1.mean > twin.scores.distinct_1.mean
        and dac.scores.mtld.mean > twin.scores.mtld.mean
    )
    cells = [
        task.name,
        f"{dac.times:.2f}, {_held(dac.times >= FASTER)}",
        f"{-lost:+.1%}, {_held(lost <= LOSS)}",
        f"{-lost_varied:+.1%}, {_held(lost_varied <= LOSS)}",
        f"{_both(dac)} to {_both(twin)}, {_held(more_varied)}",
    ]
    return ["| " + " | ".join(cells) + " |"]


def _both(result: Result) -> str:
    return f"{result.scores.distinct_1.mean:.3f} and {result.scores.mtld.mean:.1f}"


def _held(reached: bool) -> str:
    return "held" if reached else "MISSED"


def samples(task: CaptionTask, results: Sequence[Result], shipped: str, seed: int = 5) -> list[str]:
    """Return some sounds chosen by seed with a reference and what both wrote."""
    twin, dac = results[0], next(result for result in results if result.name == shipped)
    chosen = np.random.default_rng(seed).choice(
        len(task.tokens), size=min(5, len(task.tokens)), replace=False
    )
    rows = [
        [task.references[i][0], dac.made.captions[i], twin.made.captions[i]]
        for i in sorted(chosen.tolist())
    ]
    return _table("a reference | DAC | twin", rows)


def meteor_lines(found: Sequence[tuple[CaptionTask, Sequence[Result]]], shipped: str) -> list[str]:
    """Return METEOR of both on every task, or why there is none."""
    lacking = missing()
    spice = "SPICE: not measured, its parser must be downloaded."
    if lacking:
        return [f"METEOR: not measured, {lacking}. {spice}", ""]
    rows = []
    with Meteor() as meteor:
        for task, results in found:
            both = [r for r in results if r.name in (TWIN, shipped)]
            scores = [meteor.score(r.made.captions, task.references, task.groups) for r in both]
            rows.append([task.name, *map(str, scores)])
    return [*_table(f"METEOR | {TWIN} | {shipped}", rows), spice, ""]


def report(
    tasks: Sequence[CaptionTask], dac: DacWriter, twin: CaptionWriter, encoder: TextEmbedder
) -> Iterator[list[str]]:
    """Yield the parts of the section: each task, then the marks."""
    compared = entries(dac, twin, encoder)
    shipped = name_of(dac.sampling.steps)
    found = []
    for task in tasks:
        results = measure(task, compared, encoder)
        found.append((task, results))
        yield [*tables(task, results), *samples(task, results, shipped)]
    header = (
        f"marks, {shipped} | captions per second, 2 times the twin's | CIDEr-D, at most 5 % lost "
        "| the same of varied ones | varied: Distinct-1 and MTLD above the twin's"
    )
    lines = ["### Marks", "", *_table(header, [])[:-1]]
    lines += [row for task, results in found for row in marks(task, results, shipped)]
    yield [*lines, "", *meteor_lines(found, shipped)]


PARTS = ("heard", "text")


def tasks_of(options: argparse.Namespace, encoder: CompactEncoder) -> list[CaptionTask]:
    """Return the tasks that options name."""
    data, tasks = load_settings().data, list[CaptionTask]()
    if "heard" in options.only:
        tasks += heard_task(encoder, data, options.cache, options.sounds)
    if "text" in options.only:
        tasks += text_tasks(encoder, data, trained_texts(options.trained), options.sounds)
    return tasks


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables, and write them where --write says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--encoder", type=Path, default=Path("runs/measured"))
    parser.add_argument("--dac", type=Path, default=Path("runs/explain/dac/dac"))
    parser.add_argument("--twin", type=Path, default=Path("runs/explain/dac/twin"))
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"))
    parser.add_argument("--steps", type=int, default=DacSampling().steps, help="the shipped number")
    parser.add_argument("--sounds", type=int, default=500, help="at most, of each task")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument(
        "--trained", type=Path, nargs="*", default=list(CAPTIONS), help="what was trained on"
    )
    parser.add_argument("--write", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    began = time.monotonic()
    encoder = CompactEncoder.load(options.encoder, device="cpu", threads=1)
    tasks = tasks_of(options, encoder)
    dac = DacWriter.load(options.dac, replace(DacSampling(), steps=options.steps))
    lines: list[str] = []
    if "text" in options.only:
        lines += [*spent(load_settings().data, trained_texts(options.trained)), ""]
    for part in report(tasks, dac, TwinWriter.load(options.twin), encoder):
        sys.stdout.write("\n".join(part) + "\n")
        sys.stdout.flush()
        lines += part
    took_s = time.monotonic() - began
    head = f"Written by `make eval-explain` on {datetime.now(UTC):%Y-%m-%d}, {took_s:.0f} s."
    if options.write:
        SECTION.write(options.write, [head, "", _INTRODUCTION, "", *lines])


if __name__ == "__main__":
    main()

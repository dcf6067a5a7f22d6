"""The tables of `make eval-retrieval`: lines of Markdown from what second stages made of tasks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from soundpost.evaluation.metrics import Estimate, bootstrap
from soundpost.evaluation.retrieval_methods import (
    CONTRASTIVE,
    DIFFATR,
    GENERATION,
    LENGTHS,
    ON_ONE,
    PLAIN,
    STEPS,
    Method,
    Workshop,
)
from soundpost.evaluation.retrieval_sets import unseen_words
from soundpost.training.composed_sets import DATASETS
from soundpost.training.ranking import (
    SIMILARITY,
    Case,
    Ranked,
    Reading,
    by_similarity,
)
from soundpost.training.retrieval_tasks import Task, sounds_at

WORDINGS = ("prompts", "paraphrases")
# The marks: so many points of R@1 more than similarity in composed scenes, so many less elsewhere,
# and the share of the gain of fifty steps that one step keeps.
GAIN, LOSS, KEPT = 0.05, 0.005, 0.95
COLUMNS = ("R@1", "R@5", "R@10", "mAP@10")
_TIMED_RUNS = 60


@dataclass(frozen=True)
class Row:
    """One line of a table: a name, its rankings, and how they were read."""

    name: str
    ranked: Ranked
    reading: Reading


def measures(ranked: Ranked) -> list[NDArray[np.float64]]:
    """Return R@1, R@5, R@10 and AP@10 of each query."""
    return [ranked.recall(1), ranked.recall(5), ranked.recall(10), ranked.precision()]


def points(estimate: Estimate) -> str:
    """Write a share in points of a hundred with its interval."""
    return f"{estimate.mean:.1%} [{estimate.low:.1%}, {estimate.high:.1%}]".replace("%", "")


def difference(values: NDArray[np.float64], beside: NDArray[np.float64], case: Case) -> Estimate:
    """Return the mean of values [Q] - beside [Q], of the same queries, and its interval."""
    return bootstrap(values - beside, case.groups)


def signed(estimate: Estimate) -> str:
    """Write a difference in points of a hundred with its interval."""
    low, high = f"{estimate.low:+.1%}", f"{estimate.high:+.1%}"
    return f"{estimate.mean:+.1%} [{low}, {high}]".replace("%", "")


def table(title: str, case: Case, rows: Sequence[Row]) -> list[str]:
    """Return a table: measures of each row and its differences to similarity alone."""
    alone = case.ranked(SIMILARITY)
    header = [title, *COLUMNS, "R@1 more than similarity", "mAP@10 more", "weight, temperature"]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for row in (Row("similarity", alone, SIMILARITY), *rows):
        cells = [points(bootstrap(values, case.groups)) for values in measures(row.ranked)]
        if row.name == "similarity":
            cells += ["", "", ""]
        else:
            gain = difference(row.ranked.recall(1), alone.recall(1), case)
            precision = difference(row.ranked.precision(), alone.precision(), case)
            cells += [signed(gain), signed(precision), str(row.reading)]
        lines.append(f"| {row.name} | " + " | ".join(cells) + " |")
    return [*lines, ""]


class Tables:
    """All tables, and what of the marks was missed."""

    def __init__(self, workshop: Workshop) -> None:
        self.workshop = workshop
        self.losses: list[str] = []
        self.gains: dict[str, float] = {}
        self._readings: dict[tuple[str, int, int, bool], Reading] = {}

    def reading(self, method: Method, to_texts: bool) -> Reading:
        """Return how a method is read, chosen once."""
        key = (method.recipe.name, method.steps, method.length, to_texts)
        if key not in self._readings:
            self._readings[key] = self.workshop.reading(method, to_texts)
        return self._readings[key]

    def compared(self) -> list[tuple[str, Method]]:
        """Return DiffATR by steps, and the plain reranker."""
        stages = [(f"DiffATR, {steps} step{'s' * (steps > 1)}", DIFFATR, steps) for steps in STEPS]
        stages.append(("plain cross-attention", PLAIN, 1))
        return [(name, self.workshop.method(recipe, steps)) for name, recipe, steps in stages]

    def rows(self, task: Task, methods: Sequence[tuple[str, Method]]) -> list[Row]:
        """Let methods judge a task; what loses more than is allowed is noted."""
        rows = []
        for name, method in methods:
            case = self.workshop.case(task, method)
            reading = self.reading(method, task.to_texts)
            ranked = case.ranked(reading)
            self._note(name, task, case, ranked)
            rows.append(Row(name, ranked, reading))
        return rows

    def _note(self, name: str, task: Task, case: Case, ranked: Ranked) -> None:
        alone = case.ranked(SIMILARITY)
        for measure, ours, theirs in zip(COLUMNS, measures(ranked), measures(alone), strict=True):
            lost = float(theirs.mean() - ours.mean())
            if lost > LOSS and measure in ("R@1", "mAP@10"):
                direction = "audio to text" if task.to_texts else "text to audio"
                self.losses.append(f"{name}, {task.name}, {direction}: {measure} {-lost:+.1%}")

    def clips(self) -> list[str]:
        """Return tables (a): clips of the folds that nothing was trained on."""
        lines = ["### (a) Clips, trained without them", ""]
        methods = self.compared()
        for dataset in DATASETS:
            for wording in WORDINGS:
                for to_texts in (False, True):
                    task = self.clip_task(dataset, wording, to_texts)
                    lines += table(task_title(task), task.alone(), self.rows(task, methods))
        return lines

    def clip_task(self, dataset: str, wording: str, to_texts: bool) -> Task:
        """Return the task of one dataset's held-out clips."""
        data = self.workshop.sets.clips(dataset, "test", wording)
        count = 5 if wording == "paraphrases" else 1
        # Wordings of one class, and clips of one class, are no independent evidence.
        classes = np.arange(len(data.texts)) // count
        if to_texts:
            owner = np.zeros(len(data.sounds), np.int64)
            for text, rows in enumerate(data.relevant):
                owner[rows] = classes[text]
            classes = owner
        return Task(f"{dataset} {wording}", data, to_texts, classes)

    def out_of_domain(self) -> list[str]:
        """Return tables (b): trained on one dataset, measured on the other."""
        lines = ["### (b) Out of domain: trained on one dataset, measured on the other", ""]
        for trained, recipe in ON_ONE.items():
            other = next(name for name in DATASETS if name != trained)
            methods = [
                (f"DiffATR on {trained}, {steps} step{'s' * (steps > 1)}", method)
                for steps in (50, 1)
                for method in [self.workshop.method(recipe, steps)]
            ]
            tasks = [
                self.clip_task(other, wording, to_texts)
                for wording in WORDINGS
                for to_texts in (False, True)
            ]
            composed = self.workshop.sets.measuring("test", other).data
            tasks += [Task(f"composed {other}", composed, way) for way in (False, True)]
            for task in tasks:
                lines += table(task_title(task), task.alone(), self.rows(task, methods))
        return lines

    def composed(self) -> list[str]:
        """Return tables (c): composed scenes."""
        measured = self.workshop.sets.measuring("test")
        lines = [
            "### (c) Composed scenes",
            "",
            f"{len(measured.data.texts):,} queries over {len(measured.data.sounds):,} scenes.",
            "",
        ]
        methods = self.compared()
        task = Task("composed", measured.data)
        rows = self.rows(task, methods)
        alone = task.alone().ranked(SIMILARITY)
        best = measured.embedded.best_window(measured.data.texts.vectors)
        window = Case(by_similarity(best), task.relevant()).ranked(SIMILARITY)
        self.gains = {
            row.name: float(row.ranked.recall(1).mean() - alone.recall(1).mean()) for row in rows
        }
        lines += table(
            task_title(task),
            task.alone(),
            [Row("similarity of the best window", window, SIMILARITY), *rows],
        )
        back = Task("composed", measured.data, to_texts=True)
        lines += table(task_title(back), back.alone(), self.rows(back, methods))
        return [*lines, *self._by_kind(task, rows)]

    def _by_kind(self, task: Task, rows: Sequence[Row]) -> list[str]:
        """Return R@1 by what a query asks about and by whether its words were trained on."""
        queries = self.workshop.sets.measuring("test").composition.queries
        unseen = unseen_words(len(queries))
        about = np.array([query.about for query in queries])
        groups = {"usual words": ~unseen, "unseen words": unseen}
        groups |= {f"about {name}": about == name for name in sorted(set(about))}
        alone = task.alone().ranked(SIMILARITY)
        everyone = [Row("similarity", alone, SIMILARITY), *rows]
        lines = ["| R@1 | " + " | ".join(row.name for row in everyone) + " | queries |"]
        lines.append("|---" * (len(everyone) + 2) + "|")
        for name, chosen in groups.items():
            cells = [points(bootstrap(row.ranked.recall(1)[chosen])) for row in everyone]
            lines.append(f"| {name} | " + " | ".join(cells) + f" | {int(chosen.sum())} |")
        return [*lines, ""]

    def ablations(self) -> list[str]:
        """Return the tables of what each loss and the length of the list are worth."""
        task = Task("composed", self.workshop.sets.measuring("test").data)
        recipes = (
            ("both", DIFFATR),
            ("generation only", GENERATION),
            ("contrastive only", CONTRASTIVE),
        )
        methods = [(name, self.workshop.method(recipe, 1)) for name, recipe in recipes]
        lines = ["### What helps", "", "Composed scenes, text to audio, one step.", ""]
        lines += table("losses", task.alone(), self.rows(task, methods))
        rows = []
        for length in LENGTHS:
            method = self.workshop.method(DIFFATR, 1, length)
            reading = self.reading(method, task.to_texts)
            ranked = self.workshop.case(task, method).ranked(reading)
            rows.append(Row(f"{length} candidates", ranked, reading))
        return [*lines, *table("list", task.alone(), rows)]

    def cost(self) -> list[str]:
        """Return the table of how long judging takes, on one thread."""
        lines = ["### Time", "", "p50 and p95, one thread.", ""]
        lines.append(
            "| judge | 100 candidates | text read too | 1,000 candidates | text read too |"
        )
        lines.append("|---|---|---|---|---|")
        for name, method in self.compared():
            cells = [self._timed(method, n, reads) for n in (100, 1_000) for reads in (False, True)]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        note = "Marks: 100 in 10 ms at p95, 1,000 in 50 ms. A search has read its text already."
        return [*lines, "", note, ""]

    def _timed(self, method: Method, count: int, reads: bool) -> str:
        """Time a judge with its text already encoded, or (reads) encoding it too."""
        data, reranker = self.workshop.sets.measuring("test").data, method.reranker
        sounds = sounds_at(data.sounds, np.arange(count))
        took_ms = []
        for run, text in enumerate(data.texts.texts[:_TIMED_RUNS]):
            similarities = sounds.vectors @ data.texts.vectors[run]
            read = data.texts.rows(np.array([run]))
            began = time.perf_counter()
            if reads:
                reranker.joint_probability(text, similarities, sounds)
            else:
                reranker.sound_probability(read, similarities, sounds)
            took_ms.append(1_000 * (time.perf_counter() - began))
        p50, p95 = np.quantile(took_ms[5:], [0.5, 0.95])
        return f"{p50:.1f} ms, {p95:.1f} ms"

    def marks(self) -> list[str]:
        """Say which marks were reached."""
        gains = self.gains
        one, fifty = gains["DiffATR, 1 step"], gains["DiffATR, 50 steps"]
        kept = one / fifty if fifty > 0 else float("nan")
        plain = gains["plain cross-attention"]
        lines = [
            "### Marks",
            "",
            f"- (c), R@1 at least {GAIN:.0%} more than similarity: DiffATR in one step {one:+.1%}, in "
            + f"fifty {fifty:+.1%}: {'reached' if one >= GAIN else 'missed'}.",
            f"- One step keeps at least {KEPT:.0%} of the gain of fifty: {kept:.0%}, "
            + f"{'reached' if kept >= KEPT else 'missed'}.",
            f"- The plain cross-attention reranker: {plain:+.1%}; "
            + ("it is the better one." if plain > one else "DiffATR is the better one."),
        ]
        if not self.losses:
            return [*lines, f"- Nothing loses more than {LOSS:.1%} of R@1 or mAP@10: reached.", ""]
        lines.append(f"- Lost more than {LOSS:.1%}:")
        return [*lines, *(f"  - {loss}" for loss in self.losses), ""]


def task_title(task: Task) -> str:
    """Name a task at the head of its table."""
    return f"{task.name}, {'audio to text' if task.to_texts else 'text to audio'}"


Part = Callable[[Tables], list[str]]
PARTS: dict[str, Part] = {
    "clips": Tables.clips,
    "domain": Tables.out_of_domain,
    "composed": Tables.composed,
    "ablations": Tables.ablations,
    "cost": Tables.cost,
}

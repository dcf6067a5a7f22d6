"""The tables of `make eval-explain` on pairs: lines of Markdown from outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from soundpost.evaluation.difference_outcomes import (
    CHECKED,
    MEASURED,
    METHODS,
    UNCHECKED,
    Outcome,
    Way,
)
from soundpost.evaluation.difference_scores import EDITED, VERDICTS, Scores
from soundpost.evaluation.held_out_pairs import AGAIN, SAME, SLOTS, UNEDITED, groups_of
from soundpost.evaluation.meteor import Meteor, missing
from soundpost.evaluation.metrics import Estimate
from soundpost.evaluation.text_scores import agreement
from soundpost.training.pair_texts import reference

TIERS = (1, 2, 3)
# The marks of what is shown to users: at least, or at most.
AT_LEAST = {
    "edits named": 0.80,
    "direction right, of those named": 0.90,
    "right audio, of those named": 0.95,
    f"silent, {SAME}": 0.98,
    f"silent, {AGAIN}": 0.98,
    "swap: the same claims turned round": 0.95,
    "swap: share of claims mirrored": 0.95,
}
AT_MOST = {"invented claims an explanation": 0.10}
# Different wordings of the truth that a text is compared to.
REFERENCES = 5
_SEED = 9


def held(name: str, mean: float) -> str:
    """Return the mark of a measure and whether a mean reaches it; nothing where it has none."""
    if name in AT_LEAST:
        return f"at least {AT_LEAST[name]:.2f}: {_held(mean >= AT_LEAST[name])}"
    if name in AT_MOST:
        return f"at most {AT_MOST[name]:.2f}: {_held(mean <= AT_MOST[name])}"
    return ""


def _held(reached: bool) -> str:
    return "held" if reached else "MISSED"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table and an empty line."""
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]


def cell(estimate: Estimate | None) -> str:
    """Write an estimate, or that there is nothing to estimate."""
    return "-" if estimate is None else str(estimate)


def _cell_of(way: Way, name: str, measures: Mapping[str, Estimate | None]) -> str:
    # What measurements say was measured: there are no verdicts on it.
    return "-" if way.method == MEASURED and name in VERDICTS else cell(measures[name])


@dataclass(frozen=True)
class Tables:
    """All tables of pairs."""

    outcomes: Sequence[Outcome]

    @cached_property
    def ways(self) -> list[Way]:
        """The ways in which any pair was told, not turned round."""
        told = {way for outcome in self.outcomes for way in outcome.told if not way.swapped}
        return [Way(m, t) for t in TIERS for m in METHODS if Way(m, t) in told]

    def lines(self) -> list[str]:
        """Return all of them."""
        parts = (self.main, self.tiers, self.by_kind, self.verdicts, self.texts)
        return [line for part in parts for line in part()]

    def scores(self, way: Way) -> Scores:
        """Judge all that was told in a way."""
        return Scores.of(self.outcomes, way)

    def main(self) -> list[str]:
        """Return what tier 1 is worth by method, with the marks."""
        ways = [way for way in self.ways if way.tier == 1]
        edited = sum(outcome.pair.edited for outcome in self.outcomes)
        lines = ["### Tier 1", "", f"{edited} pairs with a known difference, "]
        lines[-1] += f"{len(self.outcomes) - edited} without."
        return [*lines, "", *self._measures(ways)]

    def _measures(self, ways: Sequence[Way]) -> list[str]:
        found = [self.scores(way).measures() for way in ways]
        header = ["", *(way.method for way in ways), "mark, after checking"]
        checked = next((m for way, m in zip(ways, found, strict=True) if way.method == CHECKED), {})
        rows = []
        for name in found[0] if found else ():
            cells = [_cell_of(way, name, m) for way, m in zip(ways, found, strict=True)]
            estimate = checked.get(name)
            mark = "" if estimate is None else held(name, estimate.mean)
            if any(one != "-" for one in cells):
                rows.append([name, *cells, mark])
        return markdown(header, rows)

    def tiers(self) -> list[str]:
        """Return the same of tiers 2 and 3, of the pairs told in them."""
        lines: list[str] = []
        for tier in TIERS[1:]:
            ways = [way for way in self.ways if way.tier == tier]
            if ways:
                told = sum(ways[0] in outcome.told for outcome in self.outcomes)
                lines += [f"### Tier {tier}", "", f"{told} of the pairs.", ""]
                lines += self._measures(ways)
        return lines

    def by_kind(self) -> list[str]:
        """Return tier 1 as the product has it, by what was edited."""
        way = Way(CHECKED, 1)
        if way not in self.ways:
            return []
        scores = self.scores(way)
        names = list(EDITED)[:4]
        rows = []
        for slot in (slot for slot in SLOTS if slot not in UNEDITED):
            here = scores.where(lambda one, slot=slot: one.slot == slot)  # type: ignore[misc]  # bound
            cells = [cell(here.mean(EDITED[name])) for name in names]
            fell = cell(here.mean(lambda one: [one.fell_back]))
            rows.append([slot, str(len(here.judged)), *cells, fell])
        header = ["tier 1, checked", "pairs", *names, "fell back"]
        return ["### By kind of edit", "", *markdown(header, rows)]

    def verdicts(self) -> list[str]:
        """Return how often the verdicts on the network's own claims are right."""
        ways = [way for way in self.ways if way.method == UNCHECKED]
        rows = [
            [f"tier {way.tier}", *(cell(scores.mean(values)) for values in VERDICTS.values())]
            for way in ways
            for scores in [self.scores(way)]
        ]
        return ["### Verdicts", "", *markdown(["before anything is left out", *VERDICTS], rows)]

    def texts(self) -> list[str]:
        """Return how near the texts come to references, by tier and method."""
        lacking = missing()
        lines = ["### Texts beside references", "", _SPICE]
        lines[-1] += f" METEOR: not measured, {lacking}." if lacking else ""
        if lacking:
            return [*lines, "", *self._agreements(None)]
        with Meteor() as meteor:
            return [*lines, "", *self._agreements(meteor)]

    def _agreements(self, meteor: Meteor | None) -> list[str]:
        rows = []
        for way in self.ways:
            told = [
                outcome for outcome in self.outcomes if way in outcome.told and outcome.pair.edited
            ]
            texts = [outcome.told[way].text for outcome in told]
            references = [references_of(outcome, way.tier) for outcome in told]
            groups = groups_of([outcome.pair for outcome in told])
            row = text_cells(texts, references, groups, meteor)
            rows.append([f"tier {way.tier}, {way.method}", str(len(told)), *row])
        return markdown(["held-out pairs", "texts", *TEXT_COLUMNS], rows)


TEXT_COLUMNS = ("BLEU_4", "ROUGE-L", "CIDEr-D", "METEOR")
_SPICE = (
    f"{REFERENCES} references a pair, from its record, in other wordings. SPICE: not measured, its "
    "parser must be downloaded."
)


def text_cells(
    texts: Sequence[str],
    references: Sequence[Sequence[str]],
    groups: np.ndarray[tuple[int], np.dtype[np.int64]],
    meteor: Meteor | None,
) -> list[str]:
    """Return the cells of TEXT_COLUMNS."""
    found = agreement(texts, references, groups)
    cells = [str(found[name]) for name in TEXT_COLUMNS[:3]]
    return [*cells, str(meteor.score(texts, references, groups)) if meteor else "-"]


def references_of(outcome: Outcome, tier: int) -> list[str]:
    """Return several wordings of the truth about a pair, always the same."""
    record = outcome.pair.record
    rng = np.random.default_rng([_SEED, tier, record.seed, *record.places])
    return [reference(record, tier, rng) for _ in range(REFERENCES)]

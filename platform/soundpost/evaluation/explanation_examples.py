"""Print explanations of held-out pairs in full: what is known, what was written, what was checked.

Run as: python -m soundpost.evaluation.explanation_examples --write docs/examples/explanations.md

Which pairs are printed is drawn by a seed, not chosen. What was told of them is what
soundpost.evaluation.difference kept below runs/explain/eval; this makes it where it is missing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np

from soundpost.evaluation.difference import add_options, load_teller, tell_pairs
from soundpost.evaluation.difference_outcomes import CHECKED, Outcome, Told, Way
from soundpost.evaluation.difference_scores import Judged, judge
from soundpost.evaluation.difference_tables import TIERS, markdown
from soundpost.explain.verdict import Checked
from soundpost.training.pair_records import Edit, Heard

COUNT, SEED = 20, 2502
_WAYS = tuple(Way(CHECKED, tier) for tier in TIERS)
_NAMES = {1: "concise", 2: "brief", 3: "detailed"}
_INTRODUCTION = (
    "{count} pairs of recordings that the network was not trained on, drawn by seed {seed} among "
    "those told in all three tiers. Each is printed as it came out, the bad ones too. `known` is the "
    "exact record of what was done; the network and the checks never see it."
)


def draw(outcomes: Sequence[Outcome], count: int = COUNT, seed: int = SEED) -> list[Outcome]:
    """Draw pairs among those told in all tiers."""
    whole = [outcome for outcome in outcomes if all(way in outcome.told for way in _WAYS)]
    order = np.random.default_rng(seed).permutation(len(whole))[:count]
    return [whole[place] for place in order.tolist()]


def page(outcomes: Sequence[Outcome], seed: int = SEED) -> list[str]:
    """Return a page of all of them."""
    lines = ["# Explanations of held-out pairs", ""]
    lines += [_INTRODUCTION.format(count=len(outcomes), seed=seed), ""]
    lines += ["Written by `make eval-explain`.", ""]
    for number, outcome in enumerate(outcomes, start=1):
        lines += example(number, outcome)
    return lines


def example(number: int, outcome: Outcome) -> list[str]:
    """Return one pair in full."""
    record = outcome.pair.record
    edits = "; ".join(map(edit_words, record.edits)) or "nothing audible"
    lines = [f"## {number}. {outcome.pair.slot}", ""]
    lines += [f"- known: {edits}, from audio 1 to audio 2 ({record.kind})"]
    for audio, heard, seconds in (
        (1, record.heard_1, record.duration_1_s),
        (2, record.heard_2, record.duration_2_s),
    ):
        lines.append(f"- audio {audio}, {seconds:.1f} s: {'; '.join(map(heard_words, heard))}")
    said = _one_line(outcome.summary)
    lines += [f"- {said[:1].lower()}{said[1:]}", ""]
    for way in _WAYS:
        lines += _tier(way, outcome)
    return lines


def _tier(way: Way, outcome: Outcome) -> list[str]:
    told, judged = outcome.told[way], judge(outcome, way)
    times = "once" if told.attempts == 1 else f"{told.attempts} times"
    by = (
        f"by the {told.written_by}, written {times}"
        if told.attempts
        else f"by the {told.written_by}"
    )
    lines = [f"**Tier {way.tier}, {_NAMES[way.tier]}** ({by}; {_verdict(judged)})", ""]
    lines += [f"> {_one_line(told.text)}", ""]
    return [*lines, *_claims(told)]


def _verdict(judged: Judged) -> str:
    """Say in short what the record says to a text."""
    if not judged.named:
        said = "silent, as it should be" if judged.silent else "not silent"
    else:
        right = sum(judged.direction)
        said = f"names {sum(judged.named)} of {len(judged.named)} edits, {right} the right way"
    return f"{said}, {judged.invented} invented"


def _claims(told: Told) -> list[str]:
    if not told.claims:
        return ["No claim that can be checked.", ""]
    header = ["audio", "what", "claim", "quoted", "verdict", "measured"]
    return markdown(header, [_row(claim) for claim in told.claims])


def _row(checked: Checked) -> list[str]:
    claim = checked.claim
    measured = ", ".join(f"{name} {value:.3g}" for name, value in checked.measurement.items())
    because = f"{checked.reason} ({measured})" if measured else checked.reason
    return [
        "both" if claim.audio == 0 else str(claim.audio),
        claim.what or "the whole",
        f"{claim.attribute}: {claim.direction}",
        _cell(claim.quote),
        str(checked.verdict),
        _cell(because),
    ]


def edit_words(edit: Edit) -> str:
    """Say an edit in the words of the record."""
    amount = "" if edit.amount is None else f" ({edit.amount:g} {edit.unit})"
    by = f" by {edit.other}" if edit.other else ""
    return f"{edit.what or 'the whole'} {edit.kind}{by}{amount}"


def heard_words(heard: Heard) -> str:
    """Say an event in the words of the record."""
    times = f", {heard.count} times" if heard.count > 1 else ""
    where = ", in the background" if heard.background else ""
    return f"{heard.what} {heard.start_s:.1f} to {heard.end_s:.1f} s, {heard.level_db:.0f} dBFS{times}{where}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _one_line(text).replace("|", "/")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the page, and write it where --write says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_options(parser)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args(arguments)
    told = tell_pairs(options, load_teller(options))
    outcomes = draw(told, options.count, options.seed)
    text = "\n".join(page(outcomes, options.seed)).rstrip() + "\n"
    if options.write:
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()

"""How often checking claims is right: true and false claims on pairs whose difference is known.

    python -m soundpost.evaluation.claim_checking --split dev

True claims are those of a perfect text, and sounds that are heard. False ones are the same the other
way round, the same of a pair in which nothing of the kind differs, and sounds that are not there.
The limits of `soundpost.explain` were set by these figures; `test` was not looked at.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from soundpost.config import load_settings
from soundpost.explain.check import check_one
from soundpost.explain.claim import Attribute, Claim, Direction, direction_of
from soundpost.explain.compared import Comparison
from soundpost.explain.ear import ear_of
from soundpost.explain.lexicon import EVENTS, alike
from soundpost.explain.listening import listen
from soundpost.explain.profile import BAND_NAMES
from soundpost.explain.verdict import Verdict
from soundpost.models.compact import CompactEncoder
from soundpost.training.data import SAMPLE_RATE_HZ
from soundpost.training.pair_records import PairRecord
from soundpost.training.pair_truth import false_of, is_silent, truth
from soundpost.training.pairs import SPLITS, load_pair_pool, make_group

TRUE = "true"
REVERSED = "other way"
ELSEWHERE = "not of this pair"
NOT_THERE = "sound not there"
_FIRST_SEED = 500_000
_PAIRS_A_GROUP = 6


@dataclass(frozen=True)
class Case:
    """A claim on a pair, and how it was made."""

    claim: Claim
    made: str


def cases_of(record: PairRecord, rng: np.random.Generator) -> Iterator[Case]:
    """Yield true and false claims on a pair."""
    for claim in truth(record):
        if not false_of(claim, record):
            yield Case(claim, TRUE)
        yield from _false(_reversed(claim), REVERSED, record)
    yield from _sounds(record, rng)
    attributes = [one for one in Attribute if one not in (Attribute.EVENT, Attribute.NOTHING)]
    drawn = _drawn(attributes[int(rng.integers(len(attributes)))], record, rng)
    if drawn is not None:
        yield from _false(drawn, ELSEWHERE, record)
    if not is_silent(record):
        yield Case(Claim(0, None, Attribute.NOTHING, Direction.SAME), ELSEWHERE)


def _false(claim: Claim, made: str, record: PairRecord) -> Iterator[Case]:
    if claim.attribute is not Attribute.NOTHING and false_of(claim, record):
        yield Case(claim, made)


def _reversed(claim: Claim) -> Claim:
    return replace(claim, audio=3 - claim.audio if claim.audio else 0)


def _sounds(record: PairRecord, rng: np.random.Generator) -> Iterator[Case]:
    """Claim what is heard, and a sound that is in neither recording."""
    there = {heard.what for heard in (*record.heard_1, *record.heard_2)}
    for audio, heard in ((1, record.heard_1), (2, record.heard_2)):
        for one in heard:
            yield Case(Claim(audio, one.what, Attribute.EVENT, Direction.PRESENT), TRUE)
    absent = [what for what in EVENTS if not any(alike(what, other) for other in there)]
    what = absent[int(rng.integers(len(absent)))]
    audio = int(rng.integers(1, 3))
    for direction in (Direction.PRESENT, Direction.ONLY):
        yield Case(Claim(audio, what, Attribute.EVENT, direction), NOT_THERE)


def _drawn(attribute: Attribute, record: PairRecord, rng: np.random.Generator) -> Claim | None:
    """Draw a claim of an attribute on a sound that both recordings have, or on the whole."""
    direction = direction_of(attribute, 1 if rng.random() < 0.5 else -1)
    if attribute is Attribute.BAND:
        return Claim(2, BAND_NAMES[int(rng.integers(3))], attribute, direction)
    if attribute in (Attribute.NOISE, Attribute.REVERB):
        return Claim(2, None, attribute, direction)
    shared = sorted({one.what for one in record.heard_1} & {one.what for one in record.heard_2})
    if not shared:
        return None
    return Claim(2, shared[int(rng.integers(len(shared)))], attribute, direction)


Counts = dict[tuple[Attribute, str], Counter[Verdict]]


def measure(encoder: CompactEncoder, split: str, groups: int, data: Path, cache: Path) -> Counts:
    """Check claims on the pairs of some groups; count verdicts by attribute and making."""
    pool = load_pair_pool(data, cache, split)
    counts: Counts = {}
    for seed in range(_FIRST_SEED, _FIRST_SEED + groups):
        group = make_group(pool, seed)
        heard = listen(encoder, group.recordings, SAMPLE_RATE_HZ)
        rng = np.random.default_rng(seed)
        for place in rng.permutation(len(group.pairs))[:_PAIRS_A_GROUP]:
            pair = group.pairs[int(place)]
            compared = Comparison(heard[pair.first], heard[pair.second], ear_of(encoder))
            for case in cases_of(pair.record, rng):
                verdict = check_one(case.claim, compared).verdict
                counts.setdefault((case.claim.attribute, case.made), Counter())[verdict] += 1
    return counts


def table(counts: Counts) -> list[str]:
    """Return the counts as a table in Markdown."""
    lines = [
        "| attribute | claim | claims | supported | contradicted | not measurable |",
        "|---|---|---|---|---|---|",
    ]
    for attribute in Attribute:
        for made in (TRUE, REVERSED, ELSEWHERE, NOT_THERE):
            found = counts.get((attribute, made))
            if found is not None:
                total = found.total()
                shares = " | ".join(f"{found[verdict] / total:.3f}" for verdict in Verdict)
                lines.append(f"| {attribute} | {made} | {total} | {shares} |")
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--split", choices=SPLITS, default="dev")
    parser.add_argument("--groups", type=int, default=60)
    parser.add_argument("--encoder", type=Path, help="folder of a compact encoder; the shipped one")
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"))
    options = parser.parse_args(argv)
    encoder = CompactEncoder.load(options.encoder)
    data = load_settings().data
    counts = measure(encoder, options.split, options.groups, data, options.cache)
    sys.stdout.write("\n".join([*table(counts), ""]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

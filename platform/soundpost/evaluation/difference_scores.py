"""Texts beside the records of their pairs: what they name, which way, where, and what they invent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from soundpost.evaluation.difference_outcomes import Outcome, Told, Way
from soundpost.evaluation.held_out_pairs import AGAIN, SAME, groups_of
from soundpost.evaluation.metrics import Estimate, bootstrap
from soundpost.explain.claim import Attribute, Claim, Direction
from soundpost.explain.verdict import Verdict
from soundpost.training.pair_records import PairRecord
from soundpost.training.pair_truth import direction_right, false_of, names, naming, right_audio

Key = tuple[str | None, Attribute, int, Direction | int]
# A measure of one text: as many values as there is evidence, none where it does not apply.
Values = Callable[["Judged"], Iterable[float]]


@dataclass(frozen=True)
class Judged:
    """One text beside its record.

    named: of each edit. direction, audio: of each edit that is named, whether every claim that names
    it says the right way and the right recording. invented: claims that are false of the record;
    beyond: claims of a difference, or of a sound, that are no part of the edits or contents.
    supported: of each claim so judged, whether it is true; contradicted: whether it is false.
    consistent: whether (B, A) was told the same the other way round; mirrored: the share of claims
    of either that are in the other; contrary: whether any is the opposite of one there. None where
    (B, A) was not told.
    """

    slot: str
    named: tuple[bool, ...]
    direction: tuple[bool, ...]
    audio: tuple[bool, ...]
    claims: int
    invented: int
    beyond: int
    silent: bool
    fell_back: bool
    regenerated: bool
    supported: tuple[bool, ...] = ()
    contradicted: tuple[bool, ...] = ()
    checked: int = 0
    consistent: bool | None = None
    mirrored: float | None = None
    contrary: bool | None = None


def alleges(claim: Claim) -> bool:
    """Say whether a claim is of a difference: something here and not there, or more of something."""
    return claim.direction in (Direction.ONLY, Direction.ABSENT) or claim.sign != 0


def silent(claims: Sequence[Claim]) -> bool:
    """Say whether claims come to "no audible difference": it is said, and no difference beside it."""
    said = any(claim.attribute is Attribute.NOTHING for claim in claims)
    return said and not any(map(alleges, claims))


def key_of(claim: Claim, swapped: bool = False) -> Key:
    """Return a claim of a difference in one form, however it is said; `swapped` said of (B, A).

    Missing in one audio is heard only in the other; softer in one is louder in the other.
    """
    if claim.sign:
        return (claim.what, claim.attribute, -claim.change if swapped else claim.change, 0)
    audio = 3 - claim.audio if swapped and claim.audio else claim.audio
    if claim.direction is Direction.ABSENT and audio:
        return (claim.what, claim.attribute, 3 - audio, Direction.ONLY)
    return (claim.what, claim.attribute, audio, claim.direction)


def _differences(claims: Sequence[Claim], swapped: bool = False) -> frozenset[Key]:
    return frozenset(
        key_of(claim, swapped)
        for claim in claims
        if alleges(claim) or claim.attribute is Attribute.NOTHING
    )


def _opposite(key: Key) -> Key:
    what, attribute, place, direction = key
    turned = -place if direction == 0 else 3 - place if place else place
    return (what, attribute, turned, direction)


def swap(claims: Sequence[Claim], others: Sequence[Claim]) -> tuple[bool, float, bool]:
    """Compare claims of (A, B) with those of (B, A): consistent, share mirrored, any contrary."""
    ours, theirs = _differences(claims), _differences(others, swapped=True)
    either = ours | theirs
    mirrored = len(ours & theirs) / len(either) if either else 1.0
    contrary = any(_opposite(key) in theirs for key in ours if _opposite(key) != key)
    return ours == theirs, mirrored, contrary


def judge(outcome: Outcome, way: Way) -> Judged:
    """Judge what was told of a pair in one way, and in the same way of the pair turned round."""
    record, told = outcome.pair.record, outcome.told[way]
    record = record.reversed() if way.swapped else record
    claims = [checked.claim for checked in told.claims]
    named = naming(claims, record.edits)
    found = [(edit, some) for edit, some in zip(record.edits, named, strict=True) if some]
    false = [false_of(claim, record) for claim in claims]
    other = outcome.told.get(way._replace(swapped=not way.swapped))
    turned = swap(claims, [c.claim for c in other.claims]) if other else (None, None, None)
    return Judged(
        slot=outcome.pair.slot,
        named=tuple(bool(some) for some in named),
        direction=tuple(all(direction_right(c, edit) for c in some) for edit, some in found),
        audio=tuple(all(right_audio(c, edit) for c in some) for edit, some in found),
        claims=len(claims),
        invented=sum(false),
        beyond=sum(beyond(claim, record) for claim in claims),
        silent=silent(claims),
        fell_back=told.fell_back,
        regenerated=told.attempts > 1,
        supported=_of(told, Verdict.SUPPORTED, [not wrong for wrong in false]),
        contradicted=_of(told, Verdict.CONTRADICTED, false),
        checked=sum(one.verdict is not Verdict.NOT_MEASURABLE for one in told.claims),
        consistent=turned[0],
        mirrored=turned[1],
        contrary=turned[2],
    )


def beyond(claim: Claim, record: PairRecord) -> bool:
    """Say whether a claim is no part of what was edited or is heard, be it physically true or not."""
    if claim.attribute is Attribute.NOTHING:
        return bool(record.edits)
    if alleges(claim):
        return not any(names(claim, edit) and direction_right(claim, edit) for edit in record.edits)
    return claim.attribute is Attribute.EVENT and false_of(claim, record)


def _of(told: Told, verdict: Verdict, right: Sequence[bool]) -> tuple[bool, ...]:
    return tuple(
        good for one, good in zip(told.claims, right, strict=True) if one.verdict is verdict
    )


# The measures of a table, in its order: of pairs that were edited.
EDITED: dict[str, Values] = {
    "edits named": lambda one: one.named,
    "direction right, of those named": lambda one: one.direction,
    "right audio, of those named": lambda one: one.audio,
    "invented claims an explanation": lambda one: [one.invented],
    "claims beyond the record, an explanation": lambda one: [one.beyond],
    "claims an explanation": lambda one: [one.claims],
    "silent though something was edited": lambda one: [one.silent],
}
# Of all pairs.
EVERY: dict[str, Values] = {
    "swap: the same claims turned round": lambda one: _given(one.consistent),
    "swap: share of claims mirrored": lambda one: _given(one.mirrored),
    "swap: any claim contrary": lambda one: _given(one.contrary),
    "fell back to measurements": lambda one: [one.fell_back],
    "written again": lambda one: [one.regenerated],
}
VERDICTS: dict[str, Values] = {
    "supported claims that are true": lambda one: one.supported,
    "contradicted claims that are false": lambda one: one.contradicted,
    "claims that can be measured": lambda one: _given(
        one.checked / one.claims if one.claims else None
    ),
}


def _given(value: float | None) -> list[float]:
    return [] if value is None else [float(value)]


@dataclass(frozen=True)
class Scores:
    """All texts of one way, judged, with the origins of their pairs [N]."""

    way: Way
    judged: tuple[Judged, ...]
    groups: NDArray[np.int64]

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], way: Way) -> Scores:
        """Judge every pair that was told in this way."""
        told = [outcome for outcome in outcomes if way in outcome.told]
        groups = groups_of([outcome.pair for outcome in told])
        return cls(way, tuple(judge(outcome, way) for outcome in told), groups)

    def where(self, wanted: Callable[[Judged], bool]) -> Scores:
        """Return those of some pairs."""
        rows = [row for row, one in enumerate(self.judged) if wanted(one)]
        return Scores(self.way, tuple(self.judged[row] for row in rows), self.groups[rows])

    @property
    def edited(self) -> Scores:
        """Those of pairs that differ."""
        return self.where(lambda one: bool(one.named))

    def mean(self, values: Values) -> Estimate | None:
        """Return the mean of all values and its interval over origins, None without any."""
        pairs = [
            (float(value), group)
            for one, group in zip(self.judged, self.groups.tolist(), strict=True)
            for value in values(one)
        ]
        if not pairs:
            return None
        found = np.array(pairs, np.float64)
        return bootstrap(found[:, 0], found[:, 1].astype(np.int64))

    def silence(self, slot: str) -> Estimate | None:
        """Return how often nothing was said to differ of the pairs of SAME or AGAIN."""
        return self.where(lambda one: one.slot == slot).mean(lambda one: [one.silent])

    def measures(self) -> dict[str, Estimate | None]:
        """Return every measure by name."""
        edited = self.edited
        found = {name: edited.mean(values) for name, values in EDITED.items()}
        found |= {f"silent, {slot}": self.silence(slot) for slot in (SAME, AGAIN)}
        return found | {name: self.mean(values) for name, values in (EVERY | VERDICTS).items()}

"""What explanations of pairs are scored by: texts whose claims are known, beside known records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from soundpost.evaluation.difference_outcomes import (
    CHECKED,
    MEASURED,
    UNCHECKED,
    Outcome,
    Told,
    Way,
    read_chunk,
    write_chunk,
)
from soundpost.evaluation.difference_scores import Scores, judge, key_of, silent, swap
from soundpost.evaluation.difference_tables import Tables, held, references_of
from soundpost.evaluation.held_out_pairs import (
    AGAIN,
    DIFFERENT,
    SAME,
    SLOTS,
    TWO,
    HeldOutPair,
    each_slot,
    groups_of,
    slot_of,
)
from soundpost.explain.claim import Attribute, Claim, Direction
from soundpost.explain.claims import parse
from soundpost.explain.verdict import Checked, Verdict
from soundpost.training.pair_records import Edit, EditKind, Heard, PairRecord
from soundpost.training.pair_truth import truth
from soundpost.training.pairs import Pair

_WAY = Way(CHECKED, 1)
_TURNED = Way(CHECKED, 1, swapped=True)
_DOG = Heard("dog", 1.0, 2.0, -20.0)
_RAIN = Heard("rain", 0.0, 5.0, -30.0, background=True)
_CAT = Heard("cat", 3.0, 4.0, -20.0)

_ADDED = PairRecord(
    (Edit(EditKind.ADDED, "cat"),), (_DOG, _RAIN), (_DOG, _RAIN, _CAT), 5.0, 5.0, {"level_db": 1.0}
)
_SOFTER = PairRecord(
    (Edit(EditKind.SOFTER, "dog", amount=9.0, unit="dB"),),
    (_DOG, _RAIN),
    (replace(_DOG, level_db=-29.0), _RAIN),
    5.0,
    5.0,
    {"level_db": -4.0},
)
_TWO = PairRecord(
    (Edit(EditKind.ADDED, "cat"), Edit(EditKind.SOFTER, "dog", amount=9.0, unit="dB")),
    (_DOG, _RAIN),
    (replace(_DOG, level_db=-29.0), _RAIN, _CAT),
    5.0,
    5.0,
)
_NOTHING = PairRecord((), (_DOG, _RAIN), (_DOG, _RAIN), 5.0, 5.0, kind="identical")
_RECORDS = (_ADDED, _SOFTER, _TWO, _NOTHING)


def _slot(record: PairRecord) -> str:
    return {0: SAME, 2: TWO}.get(len(record.edits)) or str(record.edits[0].kind)


def _told(claims: Sequence[Claim], verdict: Verdict = Verdict.SUPPORTED) -> Told:
    return Told("", tuple(Checked(claim, verdict) for claim in claims))


def _outcome(record: PairRecord, claims: Sequence[Claim], other: Sequence[Claim]) -> Outcome:
    pair = HeldOutPair(record, _slot(record), "here")
    return Outcome(pair, {_WAY: _told(claims), _TURNED: _told(other)})


def _outcomes_of(writes: Claims) -> list[Outcome]:
    return [_outcome(record, writes(record), writes(record.reversed())) for record in _RECORDS]


class Claims:
    """What a writer claims of a record."""

    def __call__(self, record: PairRecord) -> tuple[Claim, ...]:
        raise NotImplementedError


class Perfect(Claims):
    def __call__(self, record: PairRecord) -> tuple[Claim, ...]:
        return truth(record)


class MixesAudiosUp(Claims):
    def __call__(self, record: PairRecord) -> tuple[Claim, ...]:
        return tuple(
            replace(claim, audio=3 - claim.audio if claim.audio else 0) for claim in truth(record)
        )


class SaysNothing(Claims):
    def __call__(self, record: PairRecord) -> tuple[Claim, ...]:
        return (Claim(0, None, Attribute.NOTHING, Direction.SAME),)


class Invents(Claims):
    """The truth, and a train that is nowhere."""

    def __call__(self, record: PairRecord) -> tuple[Claim, ...]:
        return (*truth(record), Claim(2, "train", Attribute.EVENT, Direction.ONLY))


def _measures(writes: Claims) -> dict[str, float | None]:
    found = Scores.of(_outcomes_of(writes), _WAY).measures()
    return {name: None if e is None else e.mean for name, e in found.items()}


def test_a_perfect_writer() -> None:
    found = _measures(Perfect())
    assert found["edits named"] == 1.0
    assert found["direction right, of those named"] == 1.0
    assert found["right audio, of those named"] == 1.0
    assert found["invented claims an explanation"] == 0.0
    assert found["claims beyond the record, an explanation"] == 0.0
    assert found[f"silent, {SAME}"] == 1.0
    assert found[f"silent, {AGAIN}"] is None
    assert found["silent though something was edited"] == 0.0
    assert found["swap: the same claims turned round"] == 1.0
    assert found["swap: any claim contrary"] == 0.0
    assert found["supported claims that are true"] == 1.0


def test_claims_of_alike_sounds_belong_to_their_own_edits() -> None:
    """Rain in one scene and thunder in the other are two edits, each told once and rightly."""
    scenes = PairRecord(
        (Edit(EditKind.REMOVED, "rain"), Edit(EditKind.ADDED, "thunderstorm")),
        (_RAIN, _DOG),
        (replace(_RAIN, what="thunderstorm"), _DOG),
        5.0,
        5.0,
        kind="different",
    )
    judged = judge(_outcome(scenes, truth(scenes), truth(scenes.reversed())), _WAY)
    assert judged.named == judged.direction == judged.audio == (True, True)


def test_a_writer_that_mixes_the_recordings_up_names_all_and_is_never_right() -> None:
    found = _measures(MixesAudiosUp())
    assert found["edits named"] == 1.0
    assert found["right audio, of those named"] == 0.0
    assert found["direction right, of those named"] == 0.0
    # Of four edited texts' claims every one is false.
    assert found["invented claims an explanation"] == pytest.approx(4 / 3)
    # Wrong the same way both times: no inconsistency.
    assert found["swap: the same claims turned round"] == 1.0
    assert found["supported claims that are true"] == pytest.approx(1 / 5)


def test_a_writer_that_says_nothing_is_silent_where_it_should_speak() -> None:
    found = _measures(SaysNothing())
    assert found["edits named"] == 0.0
    assert found["right audio, of those named"] is None
    assert found["silent though something was edited"] == 1.0
    assert found[f"silent, {SAME}"] == 1.0
    # "No audible difference" of a pair that differs is itself untrue.
    assert found["invented claims an explanation"] == 1.0


def test_a_writer_that_invents_is_caught() -> None:
    found = _measures(Invents())
    assert found["edits named"] == 1.0
    assert found["invented claims an explanation"] == 1.0
    assert found["claims beyond the record, an explanation"] == 1.0
    assert found[f"silent, {SAME}"] == 0.0
    # The train is in audio 2 both times, so it is not the same train.
    assert found["swap: the same claims turned round"] == 0.0
    assert found["swap: any claim contrary"] == 1.0


def test_what_is_true_but_no_part_of_the_record_is_counted_apart() -> None:
    # The added cat made the whole louder: true, and not what was edited.
    louder = Claim(2, None, Attribute.LEVEL, Direction.LOUDER)
    judged = judge(_outcome(_ADDED, (*truth(_ADDED), louder), ()), _WAY)
    assert (judged.invented, judged.beyond) == (0, 1)


def test_contradicted_claims_are_right_where_the_claim_is_false() -> None:
    invented = Claim(2, "train", Attribute.EVENT, Direction.ONLY)
    told = Told(
        "",
        (
            Checked(invented, Verdict.CONTRADICTED),
            Checked(truth(_ADDED)[0], Verdict.CONTRADICTED),
            Checked(invented, Verdict.NOT_MEASURABLE),
        ),
    )
    judged = judge(Outcome(HeldOutPair(_ADDED, "added", "here"), {_WAY: told}), _WAY)
    assert judged.contradicted == (True, False)
    assert judged.supported == ()
    assert (judged.claims, judged.checked) == (3, 2)
    assert judged.consistent is None


def test_a_claim_turned_round_is_the_same_claim() -> None:
    softer = Claim(1, "dog", Attribute.LEVEL, Direction.SOFTER)
    louder = Claim(2, "dog", Attribute.LEVEL, Direction.LOUDER)
    assert key_of(softer) == key_of(louder)
    only = Claim(1, "cat", Attribute.EVENT, Direction.ONLY)
    absent = Claim(1, "cat", Attribute.EVENT, Direction.ABSENT)
    # Missing in audio 1 of (B, A) is missing in audio 2 of (A, B): only in audio 1.
    assert key_of(absent, swapped=True) == key_of(only)
    assert swap([softer, only], [replace(louder, audio=1), absent]) == (True, 1.0, False)
    assert swap([softer], [louder]) == (False, 0.0, True)
    assert swap([softer, only], [absent]) == (False, 0.5, False)


def test_what_is_the_same_in_both_does_not_break_silence() -> None:
    nothing = Claim(0, None, Attribute.NOTHING, Direction.SAME)
    both = Claim(0, "dog", Attribute.EVENT, Direction.PRESENT)
    only = Claim(1, "dog", Attribute.EVENT, Direction.ONLY)
    assert silent([nothing, both])
    assert not silent([nothing, only])
    # A text that says nothing that can be checked has not said that nothing differs.
    assert not silent([both])


def test_texts_are_judged_by_what_the_parser_finds_in_them() -> None:
    text = "A cat meows only in audio 2."
    claims = tuple(Checked(claim, Verdict.SUPPORTED) for claim in parse(text))
    outcome = Outcome(HeldOutPair(_ADDED, "added", "here"), {_WAY: Told(text, claims)})
    judged = judge(outcome, _WAY)
    assert judged.named == (True,)
    assert judged.audio == (True,)
    assert judged.invented == 0


def test_outcomes_come_back_from_disk_as_they_were(tmp_path: Path) -> None:
    outcomes = _outcomes_of(Invents())
    path = tmp_path / "deep" / "chunk.jsonl"
    assert read_chunk(path) is None
    write_chunk(path, outcomes)
    assert read_chunk(path) == outcomes


def test_slots_are_those_of_the_records() -> None:
    assert slot_of(Pair(0, 1, _ADDED)) == "added"
    assert slot_of(Pair(0, 1, _TWO)) == TWO
    assert slot_of(Pair(0, 0, _NOTHING)) == SAME
    assert slot_of(Pair(0, 3, _NOTHING)) == AGAIN
    assert slot_of(Pair(0, 3, replace(_TWO, kind="different"))) == DIFFERENT
    wanted = each_slot(600)
    assert set(wanted) == set(SLOTS)
    assert sum(count for slot, count in wanted.items() if slot not in (SAME, AGAIN)) >= 600


def test_pairs_of_one_origin_are_one_group() -> None:
    pairs = [HeldOutPair(_ADDED, "added", name) for name in ("b", "a", "b")]
    assert groups_of(pairs).tolist() == [1, 0, 1]


def test_marks_are_held_or_missed() -> None:
    assert held("edits named", 0.81).endswith("held")
    assert held("edits named", 0.79).endswith("MISSED")
    assert held("invented claims an explanation", 0.2).endswith("MISSED")
    assert held("claims an explanation", 0.2) == ""


def test_tables_of_a_perfect_and_of_a_mixing_writer(tmp_path: Path) -> None:
    outcomes = []
    for record in _RECORDS:
        told = {}
        for way, writes in (
            (Way(UNCHECKED, 1), MixesAudiosUp()),
            (_WAY, Perfect()),
            (Way(MEASURED, 1), Perfect()),
        ):
            told[way] = _told(writes(record))
        outcomes.append(Outcome(HeldOutPair(record, _slot(record), "here"), told))
    lines = "\n".join(Tables(outcomes).main())
    named = next(line for line in lines.splitlines() if line.startswith("| right audio"))
    assert named.count("0.000 [0.000, 0.000]") == 1
    assert named.count("1.000 [1.000, 1.000]") == 2
    assert named.endswith("held |")


def test_references_are_always_the_same_and_say_what_was_edited() -> None:
    outcome = _outcome(_ADDED, (), ())
    texts = references_of(outcome, 1)
    assert texts == references_of(outcome, 1)
    assert len(texts) == 5
    assert all(any(claim.what == "cat" for claim in parse(text)) for text in texts)
    assert np.isin("cat", " ".join(texts).replace(".", "").split())

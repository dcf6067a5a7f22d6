"""Reference texts: they name every edit rightly, say nothing untrue, and are read back exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from soundpost.explain.claims import Attribute, Claim, Direction, parse
from soundpost.explain.lexicon import EVENTS, alike
from soundpost.training.pair_records import BANDS, Edit, EditKind, Heard, PairRecord
from soundpost.training.pair_texts import (
    CAPTION_PROMPTS,
    PROMPTS,
    caption,
    position_caption,
    reference,
    truth,
)
from soundpost.training.pair_truth import (
    claims_of,
    direction_right,
    false_of,
    is_silent,
    names,
    naming,
    right_audio,
)

Rng = np.random.Generator
_AMOUNTS = {
    EditKind.LOUDER: ("dB", 3.0, 12.0),
    EditKind.SOFTER: ("dB", 3.0, 12.0),
    EditKind.EARLIER: ("s", 0.3, 4.0),
    EditKind.LATER: ("s", 0.3, 4.0),
    EditKind.MORE: ("times", 1.0, 3.0),
    EditKind.FEWER: ("times", 1.0, 3.0),
    EditKind.FASTER: ("ratio", 1.1, 2.0),
    EditKind.SLOWER: ("ratio", 1.1, 2.0),
    EditKind.HIGHER: ("semitones", 1.0, 7.0),
    EditKind.LOWER: ("semitones", 1.0, 7.0),
    EditKind.BAND_CUT: ("dB", 4.0, 14.0),
    EditKind.BAND_BOOST: ("dB", 4.0, 14.0),
    EditKind.REVERB_MORE: ("s RT60", 0.2, 2.0),
    EditKind.REVERB_LESS: ("s RT60", 0.2, 2.0),
    EditKind.NOISE_MORE: ("dB SNR", 3.0, 25.0),
    EditKind.NOISE_LESS: ("dB SNR", 3.0, 25.0),
}
_WHOLE = tuple(kind for kind in EditKind if kind.value.startswith(("band", "reverb", "noise")))


def draw_keys(rng: Rng, count: int) -> list[str]:
    """Draw sounds that nobody could take for each other."""
    keys: list[str] = []
    while len(keys) < count:
        key = str(rng.choice(sorted(EVENTS)))
        if not any(alike(key, other) for other in keys):
            keys.append(key)
    return keys


def draw_heard(key: str, rng: Rng) -> Heard:
    """Draw how a sound lies in a recording of 10 s."""
    start_s, end_s = float(rng.uniform(0.0, 5.0)), float(rng.uniform(6.0, 9.5))
    level_db, count = float(rng.uniform(-40.0, -15.0)), int(rng.integers(1, 4))
    return Heard(key, start_s, end_s, level_db, count, bool(rng.random() < 0.3))


def edited(heard: tuple[Heard, ...], kind: EditKind, what: str, new: str, rng: Rng) -> tuple[
    tuple[Heard, ...], Edit
]:  # fmt: skip
    """Return what is heard after an edit, and the edit."""
    if kind is EditKind.ADDED:
        return (*heard, draw_heard(new, rng)), Edit(kind, new)
    if kind is EditKind.REMOVED:
        return tuple(one for one in heard if one.what != what), Edit(kind, what)
    if kind is EditKind.REPLACED:
        put = tuple(replace(one, what=new) if one.what == what else one for one in heard)
        return put, Edit(kind, what, new)
    unit, least, most = _AMOUNTS[kind]
    amount = float(rng.uniform(least, most))
    if kind in _WHOLE:
        band = str(rng.choice(BANDS)) if kind.value.startswith("band") else None
        return heard, Edit(kind, band, amount=amount, unit=unit)
    return heard, Edit(kind, what, amount=amount, unit=unit)


def draw_record(kind: EditKind, rng: Rng, second: EditKind | None = None) -> PairRecord:
    """Draw a record with an edit of a kind, or of two kinds, each of a sound of its own."""
    keys = draw_keys(rng, 6)
    heard = first = tuple(draw_heard(key, rng) for key in keys[: rng.integers(2, 4)])
    edits = []
    for turn, one in enumerate((kind, second)):
        if one is not None:
            heard, edit = edited(heard, one, keys[turn], keys[4 + turn], rng)
            edits.append(edit)
    rendered = {
        "level_db": float(rng.normal(0.0, 2.0)),
        "centroid_ratio": float(np.exp(rng.normal(0.0, 0.2))),
    }
    return PairRecord(tuple(edits), first, heard, 10.0, 10.0, rendered)


def draw_scenes(rng: Rng) -> PairRecord:
    """Draw a record of two different scenes, which may share a sound."""
    keys = draw_keys(rng, 6)
    only_1, only_2 = keys[: rng.integers(1, 4)], keys[3 : 3 + rng.integers(1, 3)]
    both = keys[5:] if rng.random() < 0.5 else []
    edits = [Edit(EditKind.REMOVED, key) for key in only_1]
    edits += [Edit(EditKind.ADDED, key) for key in only_2]
    heard = [tuple(draw_heard(key, rng) for key in (*only, *both)) for only in (only_1, only_2)]
    return PairRecord(tuple(edits), heard[0], heard[1], 10.0, 8.0, kind="different")


def draw_identical(rng: Rng) -> PairRecord:
    """Draw a record of a recording and itself."""
    heard = tuple(draw_heard(key, rng) for key in draw_keys(rng, int(rng.integers(1, 4))))
    return PairRecord((), heard, heard, 10.0, 10.0, kind="identical")


def judge(record: PairRecord, text: str) -> None:
    """Every edit is named, in its direction and audio, and no claim is untrue."""
    claims = parse(text)
    for edit, named in zip(record.edits, naming(claims, record.edits), strict=True):
        assert named, (text, edit)
        assert all(direction_right(c, edit) and right_audio(c, edit) for c in named), (text, edit)
    assert not [claim for claim in claims if false_of(claim, record)], text
    nothing = any(claim.attribute is Attribute.NOTHING for claim in claims)
    assert nothing is is_silent(record), text


@pytest.mark.parametrize("kind", list(EditKind))
@pytest.mark.parametrize("tier", [1, 2, 3])
def test_texts_say_every_edit_and_nothing_untrue(kind: EditKind, tier: int) -> None:
    """One edit or two, in either order of the recordings."""
    rng = np.random.default_rng(list(EditKind).index(kind))
    for turn in range(6):
        other = str(rng.choice([one for one in EditKind if one.value[:4] != kind.value[:4]]))
        record = draw_record(kind, rng, EditKind(other) if turn % 3 == 2 else None)
        judge(record, reference(record, tier, rng))
        judge(record.reversed(), reference(record.reversed(), tier, rng))


@pytest.mark.parametrize("tier", [1, 2, 3])
def test_texts_of_different_scenes_and_of_identical_recordings(tier: int) -> None:
    """Scenes say what each holds; a recording and itself have no audible difference."""
    rng = np.random.default_rng(tier)
    for _ in range(10):
        scenes = draw_scenes(rng)
        judge(scenes, reference(scenes, tier, rng))
        identical = draw_identical(rng)
        judge(identical, reference(identical, tier, rng))


@pytest.mark.parametrize("tier", [2, 3])
def test_other_scenes_are_not_said_to_be_one_with_a_change(tier: int) -> None:
    """Where one sound stands for another in another place, the rest is not as it was."""
    edits = (Edit(EditKind.REPLACED, "dog", "siren"),)
    rng = np.random.default_rng(tier)
    heard = [(draw_heard(key, rng),) for key in ("dog", "siren")]
    record = PairRecord(edits, heard[0], heard[1], 5.0, 6.0, kind="different")
    texts = [reference(record, tier, rng).lower() for _ in range(60)]
    words = ("nothing else", "all else", "the rest of", "untouched", "the setting stays")
    assert not [text for text in texts if any(word in text for word in words)]


def test_texts_are_as_long_as_their_tier() -> None:
    """Few words, one sentence, a paragraph."""
    rng = np.random.default_rng(5)
    lengths: dict[int, list[int]] = {1: [], 2: [], 3: []}
    for kind in EditKind:
        record = draw_record(kind, rng)
        for tier, counts in lengths.items():
            text = reference(record, tier, rng)
            counts.append(len(text.split()))
            assert text[0].isupper()
            assert text.endswith(".")
            assert "  " not in text
            assert "{" not in text
            assert tier != 2 or ". " not in text
    assert max(lengths[1]) <= 28
    assert 25 <= np.median(lengths[2]) <= 50
    assert 60 <= np.median(lengths[3]) <= 120


def test_texts_differ_between_seeds_and_not_for_one() -> None:
    """A record has many wordings, and a seed has one."""
    record = draw_record(EditKind.LOUDER, np.random.default_rng(1))
    for tier in (1, 2, 3):
        texts = {reference(record, tier, np.random.default_rng(seed)) for seed in range(40)}
        assert len(texts) > 30
        again = [reference(record, tier, np.random.default_rng(3)) for _ in range(2)]
        assert again[0] == again[1]


def test_truth_is_what_the_edits_say() -> None:
    """One claim an edit, two of a replacement, and "nothing" of a recording and itself."""
    rng = np.random.default_rng(2)
    for kind in EditKind:
        record = draw_record(kind, rng)
        claims = truth(record)
        assert claims == claims_of(record.edits[0])
        assert len(claims) == (2 if kind is EditKind.REPLACED else 1)
        for claim in claims:
            assert names(claim, record.edits[0])
            assert direction_right(claim, record.edits[0])
            assert right_audio(claim, record.edits[0])
            assert not false_of(claim, record)
    nothing = Claim(0, None, Attribute.NOTHING, Direction.SAME)
    assert truth(draw_identical(rng)) == (nothing,)


RECORD = PairRecord(
    (Edit(EditKind.LOUDER, "dog", amount=6.0, unit="dB"), Edit(EditKind.ADDED, "siren")),
    (Heard("dog", 0.0, 2.0, -30.0), Heard("engine", 0.0, 9.0, -30.0, background=True)),
    (
        Heard("dog", 0.0, 2.0, -24.0),
        Heard("engine", 0.0, 9.0, -30.0, background=True),
        Heard("siren", 3.0, 6.0, -20.0),
    ),
    10.0,
    10.0,
    {"level_db": 3.0, "low_db": -0.2, "high_db": 2.0, "centroid_ratio": 1.5},
)


@pytest.mark.parametrize(
    ("text", "untrue"),
    [
        ("The dog is louder in audio 2.", False),
        ("The dog is softer in audio 1.", False),
        ("The dog is softer in audio 2.", True),
        ("The dog is later in audio 2.", True),
        ("The cat is louder in audio 2.", True),
        ("Only audio 2 has a siren.", False),
        ("Only audio 1 has a siren.", True),
        ("Only audio 2 has a dog.", True),
        ("The siren is missing in audio 1.", False),
        ("The dog is missing in audio 1.", True),
        ("The cat is missing in audio 1.", True),
        ("Audio 1 has a siren.", True),
        ("Both have a dog barking.", False),
        ("Both have a siren.", True),
        ("Audio 1 has an air conditioner.", False),
        ("Audio 1 has rain.", True),
        ("Audio 2 is louder.", False),
        ("Audio 1 is louder.", True),
        ("Audio 2 is brighter.", False),
        ("Audio 2 is duller.", True),
        ("Audio 2 has more treble.", False),
        ("Audio 2 has more bass.", True),
        ("Audio 2 has more echo.", True),
        ("Audio 2 is noisier.", True),
        ("The dog is as loud in audio 2.", True),
        ("No audible difference between the two recordings.", True),
    ],
)
def test_untrue_claims_are_told_from_true_ones(text: str, untrue: bool) -> None:
    """What is heard, the edits, and what was measured on the renders bear a claim out, or do not."""
    (claim,) = parse(text)
    assert false_of(claim, RECORD) is untrue


def test_naming_an_edit_asks_for_its_attribute_and_an_alike_sound() -> None:
    """A wrong direction or audio still names it; another sound or attribute does not."""
    louder, added = RECORD.edits
    softer = Claim(2, "dog", Attribute.LEVEL, Direction.SOFTER)
    assert names(softer, louder)
    assert not direction_right(softer, louder)
    assert not names(Claim(2, "siren", Attribute.LEVEL, Direction.LOUDER), louder)
    assert not names(Claim(2, "dog", Attribute.TIME, Direction.LATER), louder)
    assert not names(Claim(2, None, Attribute.LEVEL, Direction.LOUDER), louder)
    elsewhere = Claim(1, "siren", Attribute.EVENT, Direction.ONLY)
    assert names(elsewhere, added)
    assert not right_audio(elsewhere, added)
    assert not names(Claim(2, "siren", Attribute.EVENT, Direction.PRESENT), added)
    whole = Edit(EditKind.SOFTER, amount=5.0, unit="dB")
    assert names(Claim(1, None, Attribute.LEVEL, Direction.LOUDER), whole)
    assert direction_right(Claim(1, None, Attribute.LEVEL, Direction.LOUDER), whole)


def test_a_claim_of_the_very_sound_names_no_edit_of_one_alike() -> None:
    """An engine that goes and a helicopter that comes are told apart where both are named."""
    edits = (Edit(EditKind.REMOVED, "engine"), Edit(EditKind.ADDED, "helicopter"))
    engine, helicopter = claims_of(edits[0])[0], claims_of(edits[1])[0]
    assert names(engine, edits[1])
    assert naming([engine, helicopter], edits) == [[engine], [helicopter]]
    airplane = replace(engine, what="airplane")
    assert naming([airplane], edits) == [[airplane], [airplane]]


def test_captions_name_what_is_heard() -> None:
    """A caption is read as the sounds of its recording, and says nothing else."""
    rng = np.random.default_rng(4)
    for _ in range(60):
        heard = tuple(draw_heard(key, rng) for key in draw_keys(rng, int(rng.integers(1, 4))))
        claims = parse(f"In audio 1, {caption(heard, rng)}.")
        assert {(claim.audio, claim.what) for claim in claims} == {(1, one.what) for one in heard}
        assert {claim.direction for claim in claims} == {Direction.PRESENT}
    assert caption((), rng) == "hardly anything"


def test_position_captions_answer_their_prompt() -> None:
    """Of audio 1, of audio 2, or of each."""
    rng = np.random.default_rng(6)
    for which in (1, 2, 3):
        for _ in range(20):
            record = draw_record(EditKind.REPLACED, rng)
            prompt, text = position_caption(record, which, rng)
            assert prompt in CAPTION_PROMPTS[which]
            audios = {claim.audio for claim in parse(text)}
            assert audios == ({1, 2} if which == 3 else {which})
            assert not [claim for claim in parse(text) if false_of(claim, record)]


def test_prompts_are_several_a_tier_and_shared_by_none() -> None:
    """The tier must be known from the prompt alone."""
    prompts = [prompt for tier in (1, 2, 3) for prompt in PROMPTS[tier]]
    assert len(set(prompts)) == len(prompts)
    assert all(len(PROMPTS[tier]) >= 3 for tier in (1, 2, 3))

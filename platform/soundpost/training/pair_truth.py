"""What a perfect text claims of a pair, and which claims of a text are right, wrong or invented."""

from __future__ import annotations

import math
from collections.abc import Sequence

from soundpost.explain.claim import Attribute, Claim, Direction, direction_of
from soundpost.explain.lexicon import alike
from soundpost.training.pair_records import CENTROID_RATIO, Edit, EditKind, Heard, PairRecord

AUDIBLE_DB = 0.5
AUDIBLE_RATIO = 1.03
_AUDIBLE_S = 0.1

# What of a sound each kind of edit changes, and which way, from audio 1 to audio 2.
CHANGES: dict[EditKind, tuple[Attribute, int]] = {
    EditKind.LOUDER: (Attribute.LEVEL, 1),
    EditKind.SOFTER: (Attribute.LEVEL, -1),
    EditKind.EARLIER: (Attribute.TIME, -1),
    EditKind.LATER: (Attribute.TIME, 1),
    EditKind.MORE: (Attribute.COUNT, 1),
    EditKind.FEWER: (Attribute.COUNT, -1),
    EditKind.FASTER: (Attribute.RATE, 1),
    EditKind.SLOWER: (Attribute.RATE, -1),
    EditKind.HIGHER: (Attribute.PITCH, 1),
    EditKind.LOWER: (Attribute.PITCH, -1),
    EditKind.BAND_BOOST: (Attribute.BAND, 1),
    EditKind.BAND_CUT: (Attribute.BAND, -1),
    EditKind.REVERB_MORE: (Attribute.REVERB, 1),
    EditKind.REVERB_LESS: (Attribute.REVERB, -1),
    EditKind.NOISE_MORE: (Attribute.NOISE, 1),
    EditKind.NOISE_LESS: (Attribute.NOISE, -1),
}
# Machines whose pitch goes with their speed.
_TURNING = frozenset({"motor", "drone", "fan", "engine", "pump", "airplane", "helicopter"})


def is_silent(record: PairRecord) -> bool:
    """Say whether a perfect text says that nothing differs."""
    return not record.edits and record.kind != "different"


def truth(record: PairRecord) -> tuple[Claim, ...]:
    """Return the claims of a perfect text, without quotes: its edits, seen from audio 2."""
    if is_silent(record):
        return (Claim(0, None, Attribute.NOTHING, Direction.SAME),)
    return tuple(claim for edit in record.edits for claim in claims_of(edit))


def claims_of(edit: Edit) -> tuple[Claim, ...]:
    """Return what a perfect text claims of an edit."""
    only = Direction.ONLY
    match edit.kind:
        case EditKind.ADDED:
            return (Claim(2, edit.what, Attribute.EVENT, only),)
        case EditKind.REMOVED:
            return (Claim(1, edit.what, Attribute.EVENT, only),)
        case EditKind.REPLACED:
            return (
                Claim(1, edit.what, Attribute.EVENT, only),
                Claim(2, edit.other, Attribute.EVENT, only),
            )
    attribute, sign = CHANGES[edit.kind]
    return (Claim(2, edit.what, attribute, direction_of(attribute, sign)),)


# --- a claim and an edit -------------------------------------------------------------------------


def names(claim: Claim, edit: Edit) -> bool:
    """Say whether a claim speaks of an edit: the same attribute of an alike sound.

    An added, removed or replaced sound is named by a claim that it is only in one, or not in one.
    """
    if edit.kind not in CHANGES:
        placed = claim.direction in (Direction.ONLY, Direction.ABSENT)
        return claim.attribute is Attribute.EVENT and placed and _of(claim.what, _sounds(edit))
    attribute, _ = CHANGES[edit.kind]
    if claim.attribute is not attribute or claim.direction is Direction.SAME:
        return False
    if attribute is Attribute.BAND:
        return claim.what == edit.what
    if attribute in (Attribute.REVERB, Attribute.NOISE):
        return claim.what is None or edit.what is None or alike(claim.what, edit.what)
    if claim.what is None or edit.what is None:
        return claim.what is edit.what
    return alike(claim.what, edit.what)


def naming(claims: Sequence[Claim], edits: Sequence[Edit]) -> list[list[Claim]]:
    """Return for each edit the claims that name it.

    A claim of the very sound of one edit names none of the edits of sounds that are only like it.
    """
    named = []
    for edit in edits:
        others = {key for other in edits if other is not edit for key in _sounds(other)}
        others -= set(_sounds(edit))
        named.append([c for c in claims if names(c, edit) and c.what not in others])
    return named


def direction_right(claim: Claim, edit: Edit) -> bool:
    """Say whether a claim that names an edit has its direction: there or gone, more or less."""
    if edit.kind not in CHANGES:
        return names(claim, edit) and right_audio(claim, edit)
    return claim.change == CHANGES[edit.kind][1]


def right_audio(claim: Claim, edit: Edit) -> bool:
    """Say whether a claim that names an edit names the right audio.

    Of a sound that comes or goes: the one that has it, or (ABSENT) has it not. Of other edits:
    one of the two, where the direction is that of the edit seen from there.
    """
    if edit.kind in CHANGES:
        return claim.audio in (1, 2) and direction_right(claim, edit)
    where = {EditKind.ADDED: 2, EditKind.REMOVED: 1}.get(edit.kind)
    if where is None:
        old, new = (edit.what or ""), (edit.other or "")
        same = alike(old, new)
        where = claim.audio if same else 1 if alike(claim.what or "", old) else 2
    return claim.audio == (where if claim.direction is Direction.ONLY else 3 - where)


def _sounds(edit: Edit) -> tuple[str, ...]:
    return tuple(key for key in (edit.what, edit.other) if key is not None)


def _of(what: str | None, keys: tuple[str, ...]) -> bool:
    return what is not None and any(alike(what, key) for key in keys)


# --- a claim and a record ------------------------------------------------------------------------


def false_of(claim: Claim, record: PairRecord) -> bool:
    """Say whether a claim is untrue of a pair, or says what nothing in the record bears out."""
    match claim.attribute:
        case Attribute.NOTHING:
            return not is_silent(record)
        case Attribute.EVENT:
            return _false_event(claim, record)
        case _ if claim.direction is Direction.SAME:
            return any(names(_other_way(claim), edit) for edit in record.edits)
        case _:
            return not _borne_out(claim, record)


def _other_way(claim: Claim) -> Claim:
    direction = direction_of(claim.attribute, 1)
    return Claim(2, claim.what, claim.attribute, direction)


def _false_event(claim: Claim, record: PairRecord) -> bool:
    here, there = _holds(record, claim.audio, claim.what), False
    if claim.audio:
        there = _holds(record, 3 - claim.audio, claim.what)
    match claim.direction:
        case Direction.PRESENT:
            return not here
        case Direction.ABSENT:
            return _holds_exactly(record, claim.audio, claim.what) or not (there or here)
        case _:
            return not here or _holds_exactly(record, 3 - claim.audio, claim.what)


def _heard(record: PairRecord, audio: int) -> tuple[Heard, ...]:
    return record.heard_1 if audio == 1 else record.heard_2


def _holds(record: PairRecord, audio: int, what: str | None) -> bool:
    """Say whether an audio, or each of both (0), has a sound or one like it."""
    if audio == 0:
        return _holds(record, 1, what) and _holds(record, 2, what)
    return any(alike(what or "", heard.what) for heard in _heard(record, audio))


def _holds_exactly(record: PairRecord, audio: int, what: str | None) -> bool:
    audios = (1, 2) if audio == 0 else (audio,)
    return any(what == heard.what for each in audios for heard in _heard(record, each))


def _borne_out(claim: Claim, record: PairRecord) -> bool:
    if claim.change == 0:
        return False
    said = [edit for edit in record.edits if names(claim, edit)]
    if said:
        return any(direction_right(claim, edit) for edit in said)
    if claim.what is None or claim.attribute is Attribute.BAND:
        return _rendered_sign(claim, record) == claim.change
    return _consequence(claim, record)


def _rendered_sign(claim: Claim, record: PairRecord) -> int:
    """Return which way the measured difference of the whole recordings goes, 0 for none."""
    rendered = record.rendered
    match claim.attribute:
        case Attribute.LEVEL:
            return _sign(rendered.get("level_db", 0.0), AUDIBLE_DB)
        case Attribute.BAND:
            return _sign(rendered.get(f"{claim.what}_db", 0.0), AUDIBLE_DB)
        case Attribute.PITCH:
            return _sign(brightness(record), AUDIBLE_RATIO - 1.0)
        case _:
            return 0


def brightness(record: PairRecord) -> float:
    """Return by how much audio 2 is brighter: the logarithm of the ratio of the centroids."""
    return math.log(max(record.rendered.get(CENTROID_RATIO, 1.0), 1e-3))


def _sign(value: float, least: float) -> int:
    return 0 if abs(value) < least else 1 if value > 0 else -1


def _consequence(claim: Claim, record: PairRecord) -> bool:
    """Say whether a claim of a sound follows plainly from what is heard in both recordings."""
    for edit in record.edits:
        turning = claim.what in _TURNING and edit.what in _TURNING
        both = {claim.attribute, CHANGES.get(edit.kind, (None, 0))[0]}
        if turning and both == {Attribute.RATE, Attribute.PITCH}:
            return CHANGES[edit.kind][1] == claim.change
    firsts = [heard for heard in record.heard_1 if alike(claim.what or "", heard.what)]
    seconds = [heard for heard in record.heard_2 if alike(claim.what or "", heard.what)]
    pairs = [(a, b) for a in firsts for b in seconds if a.what == b.what]
    return any(_heard_sign(claim.attribute, a, b) == claim.change for a, b in pairs)


def _heard_sign(attribute: Attribute, first: Heard, second: Heard) -> int:
    match attribute:
        case Attribute.LEVEL:
            return _sign(second.level_db - first.level_db, AUDIBLE_DB)
        case Attribute.TIME:
            return _sign(second.start_s - first.start_s, _AUDIBLE_S)
        case Attribute.COUNT:
            return _sign(float(second.count - first.count), 0.5)
        case _:
            return 0

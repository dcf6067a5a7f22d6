"""Reference texts of pairs, written from their records: three tiers, captions, and prompts.

Every word of a text that can be checked is true of the record, and `claims.parse` reads it back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from soundpost.explain.claim import Attribute, Direction, direction_of
from soundpost.explain.lexicon import SoundEvent
from soundpost.explain.phrasing import (
    ALL_NAMES,
    MUCH,
    NOTHING,
    PLAIN,
    SLIGHT,
    Names,
    compare,
    drawn,
    hold,
    is_plural,
    listed,
    place,
    replace,
    sentence,
    sound,
    verb,
)
from soundpost.training.pair_captions import caption, narrated, things_of
from soundpost.training.pair_records import Edit, EditKind, Heard, PairRecord
from soundpost.training.pair_truth import CHANGES, brightness, is_silent, truth
from soundpost.training.pair_wordings import (
    ADDITIONS,
    BARE_SENTENCES,
    CAPTION_PROMPTS,
    CLOSINGS,
    CLOSINGS_OF_DIFFERENT,
    EDIT_LEADS,
    IMPRESSIONS,
    LIKEWISE,
    NO_IMPRESSIONS,
    PLACES,
    PROMPTS,
    SCENE_IMPRESSIONS,
    SECOND_LEADS,
    SENTENCES,
    WHOLE_IMPRESSIONS,
)

__all__ = ["CAPTION_PROMPTS", "PROMPTS", "caption", "position_caption", "reference", "truth"]

LONGEST_TIER_1 = 28
LONGEST_TIER_2 = 58
_TRIES = 12
# From where on a difference is plain, and much, in each unit.
_DEGREES: dict[str, tuple[float, float]] = {
    "dB": (4.0, 9.0),
    "s": (0.7, 2.0),
    "ratio": (1.2, 1.6),
    "semitones": (2.0, 5.0),
    "s RT60": (0.4, 1.2),
    "% throttle": (15.0, 35.0),
}
_SHORT_TIER_2 = 30
_SHORT_TIER_3 = 75
_OF_BANDS = (EditKind.BAND_BOOST, EditKind.BAND_CUT)
_EARLY, _LATE = 0.15, 0.6
_CLEARLY_DB = 2.0
_CLEARLY_BRIGHTER = 0.2


def reference(record: PairRecord, tier: int, rng: np.random.Generator) -> str:
    """Write what differs: in a few words (1), one sentence (2) or a paragraph (3)."""
    names = drawn(ALL_NAMES, rng)
    if is_silent(record):
        return _silent(record, tier, names, rng)
    match tier:
        case 1:
            text = _shortest(lambda: _concise(record, names, rng), LONGEST_TIER_1)
            return text if len(text.split()) <= LONGEST_TIER_1 else _bare(record, names, rng)
        case 2:
            return _shortest(lambda: _extended(record, names, rng), LONGEST_TIER_2)
        case _:
            return _paragraph(record, names, rng)


def position_caption(record: PairRecord, which: int, rng: np.random.Generator) -> tuple[str, str]:
    """Return a prompt for what is heard in audio 1, 2, or each of both (3), and the answer."""
    heard = {1: record.heard_1, 2: record.heard_2}
    audios = (1, 2) if which == 3 else (which,)
    answers = [_captioned(heard[audio], audio, rng) for audio in audios]
    return drawn(CAPTION_PROMPTS[which], rng), " ".join(answers)


def _captioned(heard: Sequence[Heard], audio: int, rng: np.random.Generator) -> str:
    frame = drawn(("Audio {} is {}.", "Audio {} holds {}.", "In audio {} one hears {}."), rng)
    return frame.format(audio, caption(heard, rng, doing=True))


def _shortest(write: Callable[[], str], longest: int) -> str:
    """Write until the text is short enough; else take the shortest."""
    texts: list[str] = []
    for _ in range(_TRIES):
        texts.append(write())
        if len(texts[-1].split()) <= longest:
            return texts[-1]
    return min(texts, key=lambda text: len(text.split()))


# --- what is said of the edits -------------------------------------------------------------------


def degree_of(edit: Edit) -> int:
    """Return SLIGHT, PLAIN or MUCH by an edit's amount; PLAIN where it has none that tells."""
    if edit.amount is None or edit.unit not in _DEGREES:
        return PLAIN
    amount = edit.amount
    if edit.unit == "ratio":
        amount = max(amount, 1.0 / max(amount, 1e-6))
    plain, much = _DEGREES[edit.unit]
    return SLIGHT if amount < plain else PLAIN if amount < much else MUCH


def statement(edit: Edit, names: Names, rng: np.random.Generator) -> str:
    """Say one edit, mostly as seen from audio 2."""
    match edit.kind:
        case EditKind.ADDED:
            return place(edit.what or "", Direction.ONLY, 2, names, rng)
        case EditKind.REMOVED if rng.random() < 0.6:
            return place(edit.what or "", Direction.ABSENT, 2, names, rng)
        case EditKind.REMOVED:
            return place(edit.what or "", Direction.ONLY, 1, names, rng)
        case EditKind.REPLACED:
            return replace(edit.what or "", edit.other or "", names, rng)
    attribute, sign = CHANGES[edit.kind]
    audio = 2 if rng.random() < 0.8 else 1
    direction = direction_of(attribute, sign if audio == 2 else -sign)
    return compare(edit.what, attribute, direction, audio, names, rng, degree_of(edit))


def _statements(record: PairRecord, names: Names, rng: np.random.Generator) -> list[str]:
    """Say every edit; of different scenes, what only one and only the other holds."""
    if _are_scenes(record):
        return _only_each(record, names, rng)
    edits = list(record.edits)
    if rng.random() < 0.5:
        edits.reverse()
    if len(edits) == 2 and rng.random() < 0.6:
        return _together(edits, names, rng)
    return [statement(edit, names, rng) for edit in edits]


def _together(edits: Sequence[Edit], names: Names, rng: np.random.Generator) -> list[str]:
    """Say two edits of one audio at once: "in audio 2 the dog is louder and a siren is added"."""
    for _ in range(_TRIES):
        first, second = (statement(edit, names, rng) for edit in edits)
        for audio in (2, 1):
            where = f"in {names.of(audio)}"
            ends = second.endswith(where) and not second.endswith(f"only {where}")
            if first.startswith(f"{where} ") and ends and names.of(3 - audio) not in second:
                return [f"{first} and {second.removesuffix(where).strip()}"]
    return [statement(edit, names, rng) for edit in edits]


def _are_scenes(record: PairRecord) -> bool:
    """Say whether the recordings are of different scenes, with more edits than are told singly."""
    return len(record.edits) > 2 or (record.kind == "different" and not record.edits)


def _only_each(record: PairRecord, names: Names, rng: np.random.Generator) -> list[str]:
    said = []
    for audio in (1, 2):
        keys = _keys(record, audio)
        other = _keys(record, 3 - audio)
        alone = [key for key in keys if key not in other]
        if alone:
            items = things_of(alone, rng)
            frame = drawn(
                ("only {x} has {}", "only {x} holds {}", "{} {are} heard only in {x}"), rng
            )
            many = len(items) > 1 or is_plural(items[0])
            said.append(frame.format(listed(items), x=names.of(audio), are=verb("is", many)))
    return said


def _keys(record: PairRecord, audio: int) -> list[str]:
    heard = record.heard_1 if audio == 1 else record.heard_2
    return list(dict.fromkeys(one.what for one in sorted(heard, key=lambda one: one.start_s)))


def _shared(record: PairRecord) -> list[str]:
    second = _keys(record, 2)
    return [key for key in _keys(record, 1) if key in second]


def _of_edits(record: PairRecord) -> set[str]:
    return {key for edit in record.edits for key in (edit.what, edit.other) if key}


# --- tier 1 --------------------------------------------------------------------------------------


def _concise(record: PairRecord, names: Names, rng: np.random.Generator) -> str:
    said = _statements(record, names, rng)
    others = [key for key in _shared(record) if key not in _of_edits(record)]
    if not others and rng.random() < 0.4:
        others = _shared(record)
    link = drawn(("; ", ", whereas " if _are_scenes(record) else ", and "), rng)
    text = link.join(said)
    if not others:
        return sentence(text)
    context = _context(others, names, rng)
    ending = drawn(("; {}", ", while {}", ". {}"), rng)
    if ending.startswith("."):
        return f"{sentence(text)} {sentence(context)}"
    return sentence(text + ending.format(context))


def _bare(record: PairRecord, names: Names, rng: np.random.Generator) -> str:
    """Say the edits and nothing else, as shortly as they can be said."""
    return _shortest(lambda: sentence("; ".join(_statements(record, names, rng))), LONGEST_TIER_1)


def _context(keys: Sequence[str], names: Names, rng: np.random.Generator) -> str:
    """Say what both recordings hold."""
    items = things_of(keys, rng)
    if rng.random() < 0.5:
        return hold(drawn(names.both, rng), items, rng)
    many = len(items) > 1 or is_plural(items[0])
    where = drawn(("in both", "in both recordings"), rng)
    return f"{listed(items)} {verb('is', many)} heard {where}"


# --- tier 2 --------------------------------------------------------------------------------------


def _extended(record: PairRecord, names: Names, rng: np.random.Generator) -> str:
    link = ", whereas " if _are_scenes(record) else ", and "
    edits = link.join(_statements(record, names, rng))
    content = _content(record, names, rng)
    frame = drawn(SENTENCES if content else BARE_SENTENCES, rng)
    keys = _told_of(record, rng)[:2]
    shared = [key for key in keys if key in _shared(record)] or _shared(record)[:1] or keys
    slots = {"character": _character(keys, rng), "with": _with_character(keys, rng)}
    slots["shared"] = _with_character(shared, rng)
    text = frame.format(content=content, edits=edits, **slots)
    if len(text.split()) < _SHORT_TIER_2 and record.kind != "different":
        text += drawn(ADDITIONS, rng)
    return sentence(text)


def _content(record: PairRecord, names: Names, rng: np.random.Generator) -> str:
    """Say what both hold, or what each holds; nothing where the edits say it all."""
    shared = _shared(record)
    if shared:
        return hold(drawn(names.both, rng), things_of(shared, rng), rng)
    if {*_keys(record, 1), *_keys(record, 2)} <= _of_edits(record):
        return ""
    return f"{hold(names.first, things_of(_keys(record, 1), rng), rng)}, and " + hold(
        names.second, things_of(_keys(record, 2), rng), rng
    )


def _told_of(record: PairRecord, rng: np.random.Generator) -> list[str]:
    """Return the sounds in the order in which they deserve words: those of the edits first."""
    keys = dict.fromkeys((*_keys(record, 1), *_keys(record, 2)))
    of_edits = [key for key in keys if key in _of_edits(record)]
    others = [key for key in keys if key not in of_edits]
    rng.shuffle(others)
    return [*of_edits, *others]


def _character(keys: Sequence[str], rng: np.random.Generator) -> str:
    """Say what some sounds are like: "the dog sounds short and rough, the rain even and broad"."""
    parts = [f"{sound(key).the_thing} {{}} {_like(key, rng)}" for key in keys]
    said = verb(drawn(("sounds", "is", "seems"), rng), sound(keys[0]).plural) if keys else ""
    parts = [parts[0].format(said), *(part.format("").replace("  ", " ") for part in parts[1:])]
    return _joined(parts, rng)


def _with_character(keys: Sequence[str], rng: np.random.Generator) -> str:
    """Say the same as an addition: "with the dog short and rough"."""
    return "with " + _joined([f"{sound(key).the_thing} {_like(key, rng)}" for key in keys], rng)


def _like(key: str, rng: np.random.Generator) -> str:
    return drawn(sound(key).character or ("plain and unchanging",), rng)


def _joined(parts: Sequence[str], rng: np.random.Generator) -> str:
    if len(parts) == 2 and rng.random() < 0.5:
        return " and ".join(parts)
    return ", ".join(parts)


# --- tier 3 --------------------------------------------------------------------------------------


def _paragraph(record: PairRecord, names: Names, rng: np.random.Generator) -> str:
    said = _statements(record, names, rng)
    leads = [drawn(EDIT_LEADS, rng), *(drawn(SECOND_LEADS, rng) for _ in said[1:])]
    told = [sentence(lead.format(text)) for lead, text in zip(leads, said, strict=True)]
    told += _impressions(record, names, rng)
    courses = _courses(record, names, rng)
    order = [*told, *courses] if rng.random() < 0.5 else [*courses, *told]
    if len(" ".join(order).split()) < _SHORT_TIER_3:
        order += _places(record, names, rng)
    order.append(sentence(_character(_told_of(record, rng)[:3], rng)))
    order += _physically(record, names, rng)
    order += _closings(record, " ".join(order), rng)
    return " ".join(order)


def _courses(record: PairRecord, names: Names, rng: np.random.Generator) -> list[str]:
    """Tell the course of each recording; of the second in short, where it is that of the first."""
    first = narrated(record.heard_1, names.first, record.duration_1_s, rng)
    if _same_course(record) and rng.random() < 0.5:
        return [first, sentence(drawn(LIKEWISE, rng).format(x=names.second))]
    return [first, narrated(record.heard_2, names.second, record.duration_2_s, rng)]


def _same_course(record: PairRecord) -> bool:
    rearranged = {EditKind.EARLIER, EditKind.LATER, EditKind.MORE, EditKind.FEWER}
    moved = any(edit.kind in rearranged or edit.kind not in CHANGES for edit in record.edits)
    return not moved and _keys(record, 1) == _keys(record, 2)


def _physically(record: PairRecord, names: Names, rng: np.random.Generator) -> list[str]:
    """Say of the whole recordings what the renders bear out clearly, now and then."""
    if any(edit.what is None or edit.kind in _OF_BANDS for edit in record.edits):
        return []
    said = []
    for attribute, value, least in (
        (Attribute.LEVEL, record.rendered.get("level_db", 0.0), _CLEARLY_DB),
        (Attribute.PITCH, brightness(record), _CLEARLY_BRIGHTER),
    ):
        if abs(value) > least and rng.random() < 0.4:
            direction = direction_of(attribute, 1 if value > 0 else -1)
            said.append(sentence(compare(None, attribute, direction, 2, names, rng)))
    return said


def _impressions(record: PairRecord, names: Names, rng: np.random.Generator) -> list[str]:
    """Say how the edits may strike a listener, in words that no instrument could check."""
    if record.kind == "different":
        return []
    return [_impression(edit, names, rng) for edit in record.edits]


def _impression(edit: Edit, names: Names, rng: np.random.Generator) -> str:
    event = sound(edit.what) if edit.what and edit.kind not in _OF_BANDS else None
    table = IMPRESSIONS if event else IMPRESSIONS | WHOLE_IMPRESSIONS
    return sentence(drawn(table[edit.kind], rng).format(x=names.second, **_slots(event)))


def _slots(event: SoundEvent | None) -> dict[str, str]:
    verbs = ("is", "seems", "has", "stands", "lends", "takes", "leaves", "draws", "comes", "sets")
    slots = {name: verb(name, event is not None and event.plural) for name in verbs}
    return slots | {"the": event.the_thing if event else ""}


def _places(record: PairRecord, names: Names, rng: np.random.Generator) -> list[str]:
    """Say where the sound of an edit, or another, lies in a recording that holds it."""
    if any(edit.kind in (EditKind.EARLIER, EditKind.LATER) for edit in record.edits):
        return []
    keys = _told_of(record, rng)
    audio = int(rng.integers(1, 3))
    heard, duration_s = (
        (record.heard_1, record.duration_1_s)
        if audio == 1
        else (record.heard_2, record.duration_2_s)
    )
    told = [one for key in keys for one in heard if one.what == key][:1]
    said = []
    for one in told:
        share = one.start_s / max(duration_s, 1e-3)
        if share >= _EARLY and one.what == _keys(record, audio)[0]:
            continue
        frames = PLACES[0 if share < _EARLY else 1 if share < _LATE else 2]
        text = drawn(frames, rng).format(x=names.of(audio), **_slots(sound(one.what)))
        said.append(sentence(text))
    return said


def _closings(record: PairRecord, so_far: str, rng: np.random.Generator) -> list[str]:
    """Round a paragraph off, at greater length where it is short."""
    if record.kind == "different":
        closings: Sequence[str] = CLOSINGS_OF_DIFFERENT
        chosen = [closings[int(place)] for place in rng.permutation(len(closings))[:2]]
    else:
        short = len(so_far.split()) < _SHORT_TIER_3
        chosen = [drawn(SCENE_IMPRESSIONS, rng)] if short else []
        chosen.append(drawn(CLOSINGS, rng))
    return [sentence(text) for text in chosen]


# --- nothing changed -----------------------------------------------------------------------------


def _silent(record: PairRecord, tier: int, names: Names, rng: np.random.Generator) -> str:
    nothing = drawn(NOTHING, rng)
    if tier == 1:
        return sentence(nothing)
    content = hold(drawn(names.both, rng), things_of(_keys(record, 1), rng), rng)
    character = _character(_told_of(record, rng)[:tier], rng)
    if tier == 2:
        frames = ("{c}, and {n}; {k}", "{n}; {c}; {k}", "{n}: {c}; {k}")
        return sentence(drawn(frames, rng).format(c=content, n=nothing, k=character))
    told = narrated(record.heard_1, names.first, record.duration_1_s, rng)
    again = narrated(record.heard_2, names.second, record.duration_2_s, rng)
    parts = [
        sentence(nothing),
        told,
        again,
        sentence(character),
        sentence(drawn(NO_IMPRESSIONS, rng)),
    ]
    return " ".join(parts)

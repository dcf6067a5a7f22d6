"""Claims: what an explanation says, clause by clause, in a form that can be checked.

The parser knows words, not sentences: it finds the recordings, sounds and comparing words of each
clause and joins those that belong together. What it does not know makes no claim and no error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import pairwise

from soundpost.explain.claim import (
    Attribute,
    Claim,
    Direction,
    direction_of,
)
from soundpost.explain.clauses import Clause, Noun, Ref, Sentence, sentences_of
from soundpost.explain.cues import EXCEPTED, NEGATED, NOTHING, OF_ONE_PROPERTY, WHOLE, Cue, Mode

__all__ = ["Attribute", "Claim", "Direction", "parse"]

_AND = re.compile(r"^[\s,]*(?:and|or|nor)?\s*(?:also\s+)?(?:the|a|an|no|any)?\s*$", re.IGNORECASE)
_VERB_OF_MANY = re.compile(r"\b(?:are|both|get|sound|come|become|were)\b", re.IGNORECASE)
_INSTEAD = re.compile(r"\binstead\b(?!\s+of)|^\W*where\s+(?:in\s+)?\*", re.IGNORECASE)
_PRONOUN = re.compile(r"\b(?:it|they|this|which|that)\b", re.IGNORECASE)
_ELLIPSIS = re.compile(
    r"^\W*(?:and\s+|in\s+)?[*\s,]*(?:(?:is|are|sounds?|comes?|gets?|becomes?|seems?|also|both|a|"
    r"little|bit|much|far|slightly|clearly|somewhat|noticeably|markedly|well)\s+)*$",
    re.IGNORECASE,
)
_FREE = re.compile(
    r"\b(?:the|a|an|its)\s+((?:[a-z]+\s+){0,2}?[a-z]+)\s+(?:\*+\s+)?"
    r"(?:is|are|sounds?|gets?|becomes?|comes?|seems?|grows?)\s+(?:\w+\s+){0,2}$",
    re.IGNORECASE,
)
_GENERIC = frozenset(
    [
        "sound",
        "sounds",
        "recording",
        "audio",
        "clip",
        "one",
        "scene",
        "whole",
        "mix",
        "level",
        "volume",
        "pitch",
        "tone",
        "it",
        "overall",
        "signal",
        "loudness",
        "pace",
        "speed",
        "tempo",
        "everything",
        "file",
        "track",
        "excerpt",
        "version",
        "it",
        "texture",
        "timbre",
    ]
)
_MOST_WORDS_AFTER_NO = 4
_GOES = (Mode.REPLACED_BY, Mode.ABSENT_BEFORE)
_THAN = re.compile(r"\bthan\b", re.IGNORECASE)
_THAN_WHAT = re.compile(r"\s+(?:in\s+\w+\s+)?than\s+", re.IGNORECASE)
# A loose word before another word says something of that: "a longer duration".
_ATTRIBUTE = re.compile(
    r"-\w|\s+(?!(?:in|on|of|at|by|for|than|and|but|or|as|while|whereas|here|there|over)\b)[a-z]",
    re.IGNORECASE,
)
_ORIGIN = re.compile(r"\b(?:of|from)\s*$", re.IGNORECASE)


@dataclass
class _Reader:
    """What has been read so far: claims, and what "it" and a bare verb would speak of."""

    text: str
    claims: list[Claim] = field(default_factory=list)
    audio: int | None = None
    subjects: list[Noun] = field(default_factory=list)
    known: set[str] = field(default_factory=set)

    def add(
        self, sentence: Sentence, claim: tuple[int, str | None, Attribute, Direction],
        start: int, end: int,
    ) -> None:  # fmt: skip
        """Note a claim once a sentence, with the words that make it."""
        start, end = start + sentence.start, end + sentence.start
        while start < end and self.text[start].isspace():
            start += 1
        said = {(c.audio, c.what, c.attribute, c.direction) for c in self.claims
                if c.start >= sentence.start}  # fmt: skip
        if claim not in said:
            self.claims.append(Claim(*claim, self.text[start:end], start, end))


def parse(text: str) -> tuple[Claim, ...]:
    """Return the claims of a text, in the order of their clauses; see `Claim`."""
    reader = _Reader(text)
    for sentence in sentences_of(text):
        if not _nothing(reader, sentence):
            reader.subjects = reader.subjects if _PRONOUN.search(sentence.masked) else []
        for number, clause in enumerate(sentence.clauses):
            _read_clause(reader, sentence, number, clause)
    return tuple(reader.claims)


def _nothing(reader: _Reader, sentence: Sentence) -> bool:
    """Read "no audible difference" and the like."""
    found = NOTHING.search(sentence.masked)
    if found is None or EXCEPTED.search(sentence.masked):
        return False
    if not found.group().lower().startswith(("no", "can", "could")):
        clause = next(c for c in sentence.clauses if found.start() <= c.end)
        if any(noun.end <= found.start() for noun in clause.nouns):
            return False
        if NEGATED.search(sentence.masked[: found.start()]):
            return False
    if _of_one_thing(sentence, found.end()):
        return False
    reader.add(sentence, (0, None, Attribute.NOTHING, Direction.SAME), *found.span())
    return True


def _of_one_thing(sentence: Sentence, end: int) -> bool:
    """Say whether "no difference" is said of a sound, or of its pitch, and not of the recordings."""
    if OF_ONE_PROPERTY.match(sentence.masked, end):
        return True
    after = [noun for clause in sentence.clauses for noun in clause.events if noun.start >= end]
    return bool(after) and sentence.masked[end : after[0].start].strip().lower() in (
        "in",
        "of",
        "to",
    )


def _read_clause(reader: _Reader, sentence: Sentence, number: int, clause: Clause) -> None:
    audio = _audio(sentence, number)
    subjects: list[Noun] = []
    for cue in clause.cues:
        if cue.mode is None:
            subjects += _compare(reader, sentence, clause, cue, audio)
    placed = _place(reader, sentence, clause, audio, subjects)
    own = clause.refs and clause.refs[0].subject and not subjects
    starts = own and all(clause.refs[0].start <= noun.start for noun in clause.nouns)
    if clause.nouns or own:
        reader.subjects = [] if starts else subjects or placed[-1:]
    if audio is not None:
        reader.audio = audio


def _audio(sentence: Sentence, number: int) -> int | None:
    """Return the recording of a clause: its own, the last before it, the next one, or none."""
    clauses = sentence.clauses
    own = _own(sentence.masked, clauses[number])
    if own is not None:
        return own.audio
    before = [ref.audio for clause in reversed(clauses[:number]) for ref in reversed(clause.refs)]
    after = [ref.audio for clause in clauses[number + 1 :] for ref in clause.refs]
    if any(cue.mode is not Mode.SAME for cue in clauses[number].cues):
        before, after = [a for a in before if a], [a for a in after if a]
    if before or after:
        return (before or after)[0]
    audio = sentence.compared[0] if sentence.compared else 0
    return 3 - audio if audio else None


def _own(masked: str, clause: Clause) -> Ref | None:
    """Return the recording that a clause speaks of, of those that it names.

    Not the one that a sound comes from ("the dog of audio 1 is louder in audio 2") nor the one that it
    is compared with: of what goes, the one in which it is gone.
    """
    subject = next((ref for ref in clause.refs if ref.subject), None)
    if subject is not None or len(clause.refs) < 2:
        return subject or next(iter(clause.refs), None)
    gone = next((cue.start for cue in clause.cues if cue.mode in _GOES), None)
    there = [ref for ref in clause.refs if gone is not None and ref.start >= gone]
    than = _THAN.search(masked, clause.start, clause.end)
    ours = [ref for ref in clause.refs if than is None or ref.start < than.start()]
    held = [ref for ref in ours if not _ORIGIN.search(masked[clause.start : ref.start])]
    return (there or held or ours or clause.refs)[0]


# --- comparisons ---------------------------------------------------------------------------------


def _compare(
    reader: _Reader, sentence: Sentence, clause: Clause, cue: Cue, audio: int | None
) -> list[Noun]:
    """Note what one comparing word says, and return the sounds that it says it of."""
    masked = sentence.masked
    # Of both at once nothing can be more: it is compared with something else.
    if (cue.sign and audio == 0) or NEGATED.search(masked[clause.start : cue.start]):
        return []
    nouns = _subjects(reader, sentence, clause, cue)
    attribute, events = _attribute(masked, cue, nouns, clause)
    if attribute is None or _within_one(masked, clause, cue, events):
        return []
    if audio is None:
        audio = reader.audio if reader.audio and _PRONOUN.match(masked.lstrip()) else 2
    direction = direction_of(attribute, cue.sign)
    start = min([cue.start, *(n.start for n in nouns if n in clause.nouns)])
    end = max([cue.end, *(n.end for n in nouns if n in clause.nouns)])
    for what in _whats(sentence, clause, cue, attribute, nouns, events):
        begin = start if nouns else _whole_start(clause, cue)
        reader.add(sentence, (audio, what, attribute, direction), begin, end)
    reader.known.update(noun.what for noun in events if noun.what)
    return events


def _within_one(masked: str, clause: Clause, cue: Cue, events: list[Noun]) -> bool:
    """Say whether a sound is compared with another sound: "louder than the rain"."""
    than = _THAN_WHAT.match(masked, cue.end)
    if than is None:
        return False
    others = {noun.what for noun in clause.events if noun.start == than.end()}
    return bool(others - {noun.what for noun in events})


def _subjects(reader: _Reader, sentence: Sentence, clause: Clause, cue: Cue) -> list[Noun]:
    """Return the nouns that a comparing word belongs to; none means the whole recording."""
    masked = sentence.masked
    for noun in clause.nouns:
        if noun.start >= cue.end and not masked[cue.end : noun.start].strip():
            return [noun]
    if cue.loose and _ATTRIBUTE.match(masked, cue.end):
        return []
    before = [n for n in clause.nouns if n.end <= cue.start and not n.context]
    if WHOLE.search(masked[clause.start : clause.end]):
        return [n for n in before if n.attribute is not Attribute.EVENT]
    if before:
        return _coordinated(masked, before, cue)
    bands = [n for n in clause.nouns if n.start >= cue.end and n.attribute is Attribute.BAND]
    if bands and masked[cue.end : bands[0].start].strip().lower() in ("in", "at"):
        return bands[:1]
    if cue.loose or any(ref.subject and ref.start < cue.start for ref in clause.refs):
        return []
    lead = masked[clause.start : cue.start]
    if reader.subjects and (_ELLIPSIS.match(lead) or _PRONOUN.search(lead)):
        return reader.subjects
    after = [n for n in clause.nouns if n.start >= cue.end and not n.context]
    if after and re.search(r"\b(?:is|are)\s+$|:\s*$", masked[cue.end : after[0].start]):
        return after[:1]
    return []


def _coordinated(masked: str, before: list[Noun], cue: Cue) -> list[Noun]:
    """Return the last noun, and those that an "and" joins to it under one plural verb."""
    chosen = [before[-1]]
    if before[-1].attribute is not Attribute.EVENT:
        events = [noun for noun in before if noun.attribute is Attribute.EVENT]
        return chosen + events[-1:]
    others = [noun for noun in before[:-1] if noun.attribute is not Attribute.EVENT]
    if (
        others
        and others[-1].attribute in _OF_SOUNDS
        and (masked[others[-1].end : before[-1].start].strip().lower() == "of")
    ):
        return others[-1:]
    if _VERB_OF_MANY.search(masked[before[-1].end : cue.start]):
        for noun in reversed(before[:-1]):
            if not _AND.match(masked[noun.end : chosen[0].start]):
                break
            chosen.insert(0, noun)
    last = others[-1:] if others and others[-1].attribute in _PROPERTIES else []
    return [*last, *chosen]


_PROPERTIES = (Attribute.LEVEL, Attribute.PITCH, Attribute.RATE, Attribute.COUNT)
_HELD = (Attribute.NOISE, Attribute.REVERB, Attribute.BAND)
_OF_SOUNDS = (Attribute.BAND, Attribute.REVERB)


def _attribute(
    masked: str, cue: Cue, nouns: list[Noun], clause: Clause
) -> tuple[Attribute | None, list[Noun]]:
    """Return what is compared, and the sounds of which."""
    events = [noun for noun in nouns if noun.attribute is Attribute.EVENT]
    special = [noun.attribute for noun in nouns if noun.attribute is not Attribute.EVENT]
    if special and cue.attribute in (None, Attribute.LEVEL, Attribute.PITCH):
        return special[-1], events if special[-1] in _PROPERTIES else []
    if cue.attribute is not None:
        return cue.attribute, [] if cue.attribute is Attribute.NOISE else events
    word = masked[cue.start : cue.end].lower()
    after = [noun for noun in events if noun.start >= cue.end]
    if after and word in ("more", "less"):
        return Attribute.COUNT, after
    return None, []


def _whats(
    sentence: Sentence, clause: Clause, cue: Cue, attribute: Attribute,
    nouns: list[Noun], events: list[Noun],
) -> list[str | None]:  # fmt: skip
    if attribute is Attribute.BAND:
        return [noun.what for noun in nouns if noun.attribute is Attribute.BAND][-1:]
    if events:
        return [noun.what for noun in events]
    if nouns or attribute in (Attribute.REVERB, Attribute.NOISE):
        return [None]
    free = _FREE.search(sentence.masked[clause.start : cue.start])
    if free is None or free.group(1).split()[-1].lower() in _GENERIC:
        return [None]
    return [free.group(1).lower()]


def _whole_start(clause: Clause, cue: Cue) -> int:
    """Return where a statement of a whole recording begins: at its subject."""
    starts = [ref.start for ref in clause.refs if ref.subject and ref.start < cue.start]
    return max(starts, default=cue.start)


# --- what is there -------------------------------------------------------------------------------


def _place(
    reader: _Reader, sentence: Sentence, clause: Clause, audio: int | None, compared: list[Noun]
) -> list[Noun]:
    """Note in which recording the sounds of a clause are, and return the sounds."""
    nouns = [n for n in clause.nouns if n not in compared and not _is_weighed(sentence, clause, n)]
    modes = [cue for cue in clause.cues if cue.mode is not None]
    events = [n for n in nouns if n.attribute is Attribute.EVENT]
    told = events or [n for n in nouns if n.attribute in (Attribute.NOISE, Attribute.REVERB)]
    if not told and modes and not clause.nouns:
        _placed_before(reader, sentence, modes, audio)
    for noun in nouns:
        direction, cue, other = _direction(sentence, clause, modes, noun, audio)
        _note(reader, sentence, clause, noun, direction, cue, audio, other)
    return events


def _is_weighed(sentence: Sentence, clause: Clause, noun: Noun) -> bool:
    """Say whether a comparing word is said of the echo, the noise or a band: "not more echo"."""
    before = [cue for cue in clause.cues if cue.mode is None and cue.start <= noun.start]
    near = [cue for cue in before if not sentence.masked[cue.end : noun.start].strip()]
    return noun.attribute is not Attribute.EVENT and bool(near)


def _placed_before(
    reader: _Reader, sentence: Sentence, modes: list[Cue], audio: int | None
) -> None:
    """Read "..., but only in audio 2" and "... but is missing in audio 2" of the sound before."""
    cue = modes[-1]
    direction = {
        Mode.ONLY: Direction.ONLY,
        Mode.ABSENT_BEFORE: Direction.ABSENT,
    }.get(cue.mode or Mode.SAME)
    for noun in reader.subjects[-1:]:
        if direction is not None:
            claim = (audio or 2, noun.what, Attribute.EVENT, direction)
            reader.add(sentence, claim, cue.start, cue.end)


def _direction(
    sentence: Sentence, clause: Clause, modes: list[Cue], noun: Noun, audio: int | None
) -> tuple[Direction, Cue | None, bool]:
    """Return how a sound is there, by which word, and whether in the other recording."""
    for cue in modes:
        after = noun.start >= cue.end
        match cue.mode:
            case Mode.REPLACED_BY:
                return Direction.ONLY, cue, not after
            case Mode.REPLACES:
                return Direction.ONLY, cue, after and _denied(sentence.masked, clause, cue, noun)
            case Mode.JOINED_BY if after:
                return Direction.ONLY, cue, False
            case Mode.JOINS if not after:
                return Direction.ONLY, cue, False
            case Mode.ABSENT_AFTER if after and _denied(sentence.masked, clause, cue, noun):
                return Direction.ABSENT, cue, False
            case Mode.ABSENT_BEFORE if not noun.context and _gone(clause, cue, noun):
                return Direction.ABSENT, cue, False
    only = next((c for c in modes if _is_only(sentence.masked, clause, c, noun)), None)
    if only is not None and not noun.context:
        return Direction.ONLY, only, False
    elsewhere = any(audio and ref.audio == 3 - audio for ref in clause.excluded)
    again = not clause.refs and noun.definite
    if elsewhere or (_INSTEAD.search(sentence.masked) and not again):
        return (Direction.PRESENT if noun.context else Direction.ONLY), None, False
    return Direction.PRESENT, None, False


def _is_only(masked: str, clause: Clause, cue: Cue, noun: Noun) -> bool:
    """Say whether a word says of a sound that the other recording has it not.

    What adds must be a recording: a sound may add something to its scene.
    """
    if cue.mode is Mode.EXTRA:
        between = masked[cue.end : noun.start]
        return noun.start >= cue.end and len(between.split()) <= 1 and "," not in between
    before = any(other.end <= cue.start and not other.context for other in clause.events)
    adds = cue.mode is Mode.ADDS and noun.start >= cue.end and not before
    return adds or cue.mode is Mode.ONLY


def _denied(masked: str, clause: Clause, cue: Cue, noun: Noun) -> bool:
    """Say whether "no" or "instead of" reaches a sound: the next one, and those joined to it."""
    after = [n for n in clause.nouns if n.start >= cue.end]
    if len(masked[cue.end : after[0].start].split()) > _MOST_WORDS_AFTER_NO:
        return False
    for first, second in pairwise(after):
        if noun is first:
            return True
        gap = masked[first.end : second.start]
        if not (_AND.match(gap) and re.search(r"\b(?:and|or|nor)\b", gap)):
            return noun is first
    return True


def _gone(clause: Clause, cue: Cue, noun: Noun) -> bool:
    before = [n for n in clause.nouns if n.end <= cue.start and not n.context]
    if before and noun.start >= cue.end:
        # "The dog does not bark" names it twice.
        return noun.start - cue.end <= 1 and noun.what == before[-1].what
    return noun.end <= cue.start if before else True


def _note(
    reader: _Reader, sentence: Sentence, clause: Clause, noun: Noun, direction: Direction,
    cue: Cue | None, audio: int | None, other: bool,
) -> None:  # fmt: skip
    where = _where(reader, clause, noun, direction, audio)
    if where is None:
        return
    if where == 0 and direction is Direction.ONLY:
        direction = Direction.PRESENT
    start, end = noun.start, noun.end
    if cue is not None and direction is not Direction.PRESENT:
        start, end = min(start, cue.start), max(end, cue.end)
    if noun.attribute is Attribute.EVENT:
        where = 3 - where if other and where else where
        reader.add(sentence, (where, noun.what, Attribute.EVENT, direction), start, end)
        reader.known.add(noun.what or "")
    elif noun.attribute in _HELD and (cue is not None or not _compares(clause)):
        sign = {Direction.ONLY: 1, Direction.ABSENT: -1}.get(direction, 0)
        if sign:
            what = (where, noun.what, noun.attribute, direction_of(noun.attribute, sign))
            reader.add(sentence, what, start, end)


def _compares(clause: Clause) -> bool:
    return any(cue.mode is None for cue in clause.cues)


def _where(
    reader: _Reader, clause: Clause, noun: Noun, direction: Direction, audio: int | None
) -> int | None:
    """Return the recording that a sound is said of; None where nothing new is said of it."""
    if direction is not Direction.PRESENT:
        return 2 if audio is None else audio
    same = any(cue.mode is Mode.SAME for cue in clause.cues)
    if same and not clause.refs:
        return 0
    if not clause.refs and noun.definite and noun.what in reader.known:
        return None
    if audio is not None:
        return audio
    return reader.audio or 0

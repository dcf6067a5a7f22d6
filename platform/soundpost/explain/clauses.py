"""Sentences cut into clauses: which recordings, sounds and comparing words stand in each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from soundpost.explain.claim import Attribute
from soundpost.explain.cues import (
    COMPARE,
    COMPARED,
    EXCLUDED,
    FROM_TO,
    LACKED,
    LOOSE,
    MODES,
    REFERENCE,
    Cue,
    Mode,
    number_of,
)
from soundpost.explain.lexicon import find_events

_SENTENCE = re.compile(r"[^.!?\n]+(?:[.!?](?!\s|$)[^.!?\n]*)*")
_THAT = (
    r"(?:differ(?:s|ence)?|apart|is|hears?|finds?|changed|once|notices?|means)(?:\s+in)?\s+that\b"
)
_STRONG = re.compile(
    rf";|,?\s*\b(?:but|whereas|although|though|however|yet)\b|\b{_THAT}|,\s*with\s+(?=the\b)",
    re.IGNORECASE,
)
_WEAK = re.compile(
    r",\s*and\s+|,\s*while\s+|,\s*with\s+|,\s*as\s+|,|\b(?:and|while|with)\b", re.IGNORECASE
)
_HOLDS = re.compile(
    r"\b(?:has|have|holds?|contains?|features?|carry|carries|heard|there\s+(?:is|are)|consists?"
    r"|opens?|starts?|begins?|shares?|plays?|brings|goes|go)\b",
    re.IGNORECASE,
)
# A "high-frequency chirp" is a sound: the band is named by a noun.
_OF_BAND = (
    r"(?:frequency\s+)?(?:band|range|tones|part)|frequency\s+(?:notes|content|energy|components)"
)
_BANDS = (
    ("low", rf"bass(?:es)?|low\s+end|(?:low(?:er)?|deep)[-\s]+(?:frequencies|{_OF_BAND}|notes|tones)|lows"),
    ("middle", rf"(?:mid(?:dle)?|medium)[-\s]*(?:frequencies|{_OF_BAND})|midrange|mids"),
    ("high", rf"treble|high\s+end|(?:high(?:er)?|upper)[-\s]+(?:frequencies|{_OF_BAND}|notes)|highs"),
)  # fmt: skip
_NOUNS: tuple[tuple[Attribute, str | None, re.Pattern[str]], ...] = (
    *(
        (Attribute.BAND, band, re.compile(rf"\b(?:the\s+)?(?:{words})\b", re.IGNORECASE))
        for band, words in _BANDS
    ),
    (Attribute.REVERB, None, re.compile(r"\b(?:the\s+|some\s+)?(?:reverb(?:eration)?|echo(?:es)?)\b", re.IGNORECASE)),
    (Attribute.NOISE, None, re.compile(r"\b(?:the\s+|some\s+|a\s+layer\s+of\s+)?(?:background\s+)?noise\b(?!\s+of)", re.IGNORECASE)),
    (Attribute.LEVEL, None, re.compile(r"\bthe\s+(?:overall\s+)?(?:level|volume|loudness)\b", re.IGNORECASE)),
    (Attribute.COUNT, None, re.compile(r"\bthe\s+number\s+of\b", re.IGNORECASE)),
    (Attribute.PITCH, None, re.compile(r"\b(?:the|its)\s+pitch\b", re.IGNORECASE)),
    (Attribute.RATE, None, re.compile(r"\b(?:the|its)\s+(?:pace|speed|tempo)\b", re.IGNORECASE)),
)  # fmt: skip
_CONTEXT = re.compile(
    r"\b(?:over|behind|under|beneath|to|during|amid|alongside|beside|next\s+to|on\s+top\s+of"
    r"|against|along\s+with|among|before|after|above|below|beyond|between)\s+(?:\w+\s+){0,1}$",
    re.IGNORECASE,
)
# "A more static scene" has no static in it.
_STEADY = re.compile(
    r"\b(?:more|less|relatively|rather|quite|very|mostly)\s+static$", re.IGNORECASE
)
_AND_GAP = re.compile(r"^[\s,]*(?:and|or)?\s*(?:the|a|an)?\s*$", re.IGNORECASE)


@dataclass(frozen=True)
class Ref:
    """A recording named: audio 1 or 2, or 0 for both. subject: it does what the clause says."""

    start: int
    end: int
    audio: int
    subject: bool


@dataclass(frozen=True)
class Noun:
    """Something that a comparison can speak of: a sound (EVENT), or a band, the noise, the echo."""

    start: int
    end: int
    attribute: Attribute
    what: str | None
    definite: bool = False
    context: bool = False


@dataclass
class Clause:
    """A clause [start:end] of a sentence, with its own words.

    excluded: recordings of which it says that they are otherwise ("unlike audio 1").
    """

    start: int
    end: int
    refs: list[Ref] = field(default_factory=list)
    nouns: list[Noun] = field(default_factory=list)
    cues: list[Cue] = field(default_factory=list)
    excluded: list[Ref] = field(default_factory=list)

    @property
    def events(self) -> list[Noun]:
        """The sounds named."""
        return [noun for noun in self.nouns if noun.attribute is Attribute.EVENT]


@dataclass
class Sentence:
    """A sentence from `start` of the text, its clauses, and the recordings only compared with.

    masked: its words, with stars for each recording named.
    """

    start: int
    masked: str
    clauses: list[Clause]
    compared: list[int]


def sentences_of(text: str) -> Iterator[Sentence]:
    """Cut a text into sentences and these into clauses, with places counted from the sentence."""
    last = 0
    for match in _SENTENCE.finditer(text):
        sentence, last = _read(match.group(), match.start(), last)
        yield sentence


def _read(words: str, start: int, last: int) -> tuple[Sentence, int]:
    masked, compared = _masked(words, (COMPARED, FROM_TO))
    masked, excluded = _masked(masked, (EXCLUDED, LACKED), unless_alone=True)
    refs: list[Ref] = []
    for match in REFERENCE.finditer(masked):
        number = number_of(match)
        audio = number if number is not None else 3 - (last or 2)
        last = audio or last
        refs.append(Ref(match.start(), match.end(), audio, _subject(masked, match.start())))
    for ref in refs:
        masked = masked[: ref.start] + "*" * (ref.end - ref.start) + masked[ref.end :]
    nouns = _nouns(masked)
    cues = sorted([*_cues(masked, nouns), *_neither(words, refs)], key=lambda cue: cue.start)
    clauses = _cut(masked, refs, nouns, cues)
    for ref in excluded:
        _exclude(clauses, ref)
    return Sentence(start, masked, clauses, [ref.audio for ref in compared]), last


def _neither(words: str, refs: Sequence[Ref]) -> Iterator[Cue]:
    """Yield what "neither recording" says besides naming both: that what is told is in none."""
    for ref in refs:
        if words[ref.start : ref.end].lower().startswith("neither"):
            mode = Mode.ABSENT_AFTER if ref.subject else Mode.ABSENT_BEFORE
            yield Cue(ref.start, ref.end, mode=mode)


def _exclude(clauses: list[Clause], ref: Ref) -> None:
    """Note that a clause speaks of what a recording has not: the one around, or right after it.

    "unlike audio 1" (a subject) speaks of what follows, which a comma may part from it.
    """
    number = next(n for n, clause in enumerate(clauses) if ref.start < clause.end)
    around = clauses[number : number + 2]
    chosen = [clause for clause in around if any(r.audio == 3 - ref.audio for r in clause.refs)]
    ends = around[0].end <= ref.end + 1
    (chosen or around)[-1 if ref.subject and ends else 0].excluded.append(ref)


def _masked(
    words: str, patterns: Sequence[re.Pattern[str]], unless_alone: bool = False
) -> tuple[str, list[Ref]]:
    """Blank out recordings that are only compared with, and return which they are.

    unless_alone: only beside another recording; what is missing in the only one named is absent.
    """
    found: list[Ref] = []
    for pattern in patterns:
        for match in pattern.finditer(words):
            rest = words[: match.start()] + " " * len(match.group()) + words[match.end() :]
            named = REFERENCE.search(match.group("ref"))
            if named is None or (unless_alone and REFERENCE.search(rest) is None):
                continue
            ahead = match.group().lower().startswith("unlike")
            found.append(Ref(*match.span(), number_of(named) or 0, ahead))
            words = words[: match.start()] + "~" * len(match.group()) + words[match.end() :]
    return words, found


def _subject(masked: str, start: int) -> bool:
    return not re.search(
        r"\b(?:in|of|from|to|for|by|on|with|than|at)\s*$", masked[:start], re.IGNORECASE
    )


def _nouns(masked: str) -> list[Noun]:
    nouns = [
        Noun(m.start, m.end, Attribute.EVENT, m.key, masked[m.start : m.end].lower().startswith("the "))
        for m in find_events(masked)
        if not (m.key == "static" and _STEADY.search(masked[: m.end]))
    ]  # fmt: skip
    for attribute, what, pattern in _NOUNS:
        for match in pattern.finditer(masked):
            if not _overlaps(match.start(), match.end(), nouns):
                nouns.append(Noun(match.start(), match.end(), attribute, what))
    return _with_context(masked, sorted(nouns, key=lambda noun: noun.start))


def _with_context(masked: str, nouns: list[Noun]) -> list[Noun]:
    """Mark the sounds over, behind or beside which something happens."""
    marked: list[Noun] = []
    for noun in nouns:
        context = bool(_CONTEXT.search(masked[: noun.start]))
        if marked and marked[-1].context:
            context |= bool(_AND_GAP.match(masked[marked[-1].end : noun.start]))
        attribute, what = noun.attribute, noun.what
        marked.append(Noun(noun.start, noun.end, attribute, what, noun.definite, context))
    return marked


def _overlaps(start: int, end: int, spans: Sequence[Noun | Cue]) -> bool:
    return any(start < span.end and span.start < end for span in spans)


def _cues(masked: str, nouns: list[Noun]) -> list[Cue]:
    cues: list[Cue] = []
    # "Fallen leaves" do not fall, and "lower frequencies" are not lower than others.
    events = [noun for noun in nouns if noun.attribute in (Attribute.EVENT, Attribute.BAND)]
    for attribute, sign, pattern in COMPARE:
        for match in pattern.finditer(masked):
            if not (_overlaps(*match.span(), cues) or _overlaps(*match.span(), events)):
                cues.append(Cue(*match.span(), attribute=attribute, sign=sign))
    for mode, pattern in MODES:
        for match in pattern.finditer(masked):
            if not (_overlaps(*match.span(), cues) or _overlaps(*match.span(), events)):
                cues.append(Cue(*match.span(), mode=mode))
    for sign, pattern in LOOSE:
        for match in pattern.finditer(masked):
            if not (_overlaps(*match.span(), cues) or _overlaps(*match.span(), events)):
                cues.append(Cue(*match.span(), sign=sign, loose=True))
    return sorted(cues, key=lambda cue: cue.start)


def _cut(masked: str, refs: list[Ref], nouns: list[Noun], cues: list[Cue]) -> list[Clause]:
    clauses: list[Clause] = []
    start, stops = 0, _separators(masked, nouns, cues)
    for number, stop in enumerate(stops):
        if stop.start < start:
            continue
        left = _fill(Clause(start, stop.start), refs, nouns, cues)
        following = _next_stop(stops[number + 1 :], stop, len(masked))
        right = _fill(Clause(stop.end, following), refs, nouns, cues)
        if stop.strong or _parts(masked, left, right):
            clauses.append(left)
            start = stop.end
    clauses.append(_fill(Clause(start, len(masked)), refs, nouns, cues))
    return clauses


@dataclass(frozen=True)
class _Stop:
    """Where two statements may meet. strong: always; wide: what follows may be a list itself."""

    start: int
    end: int
    strong: bool
    wide: bool


def _separators(masked: str, nouns: list[Noun], cues: list[Cue]) -> list[_Stop]:
    stops = []
    for pattern in (_STRONG, _WEAK):
        strong = pattern is _STRONG
        for match in pattern.finditer(masked):
            if not (_overlaps(*match.span(), nouns) or _overlaps(*match.span(), cues)):
                word = match.group().strip()
                wide = strong or (word.startswith(",") and len(word) > 1)
                stops.append(_Stop(*match.span(), strong, wide))
    return sorted(stops, key=lambda stop: (stop.start, not stop.strong))


def _next_stop(following: Sequence[_Stop], stop: _Stop, end: int) -> int:
    """Return where the statement after a separator ends: a wide one, at the next wide one."""
    for other in following:
        if other.start >= stop.end and (other.wide or not stop.wide):
            return other.start
    return end


def _fill(clause: Clause, refs: list[Ref], nouns: list[Noun], cues: list[Cue]) -> Clause:
    clause.refs = [ref for ref in refs if clause.start <= ref.start < clause.end]
    clause.nouns = [noun for noun in nouns if clause.start <= noun.start < clause.end]
    clause.cues = [cue for cue in cues if clause.start <= cue.start < clause.end]
    return clause


def _parts(masked: str, left: Clause, right: Clause) -> bool:
    """Say whether a comma or an "and" parts two statements, not two sounds of a list."""
    lead = left.cues[0] if left.cues and not left.refs else None
    if lead and lead.mode is Mode.REPLACES and not masked[left.start : lead.start].strip(" ,"):
        return False
    said = [cue for cue in left.cues if not cue.loose]
    more = [cue for cue in right.cues if not cue.loose]
    complete = bool(said) or bool(_HOLDS.search(masked[left.start : left.end]) and left.nouns)
    if left.refs and right.refs:
        return True
    return complete and bool(more or right.refs) and bool(left.nouns or left.refs)

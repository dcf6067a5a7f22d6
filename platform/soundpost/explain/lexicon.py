"""The sounds that explanations speak of: how each is said, found in a text, and seen in AudioSet tags.

A key is the label of the training clips, where one sound has one key (`training.composed.sound_of`);
synthetic kinds of the same sound share it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from soundpost.explain.other_sounds import MORE_ALIKE, OTHER_SOUNDS
from soundpost.explain.sound_clauses import (
    CHARACTER,
    CLAUSES,
    MORE_CLASSES,
    MORE_PHRASES,
    SYNONYMS,
)
from soundpost.explain.sound_words import CONFUSABLE, ONTOLOGY_CLASSES, SOUND_PHRASES, WORDINGS
from soundpost.explain.word_stems import Word, words_of

_PLURAL = frozenset(
    {"sea_waves", "crickets", "water_drops", "footsteps", "church_bells", "fireworks",
     "children_playing"}
)  # fmt: skip
_UNCOUNTED = _PLURAL | frozenset(
    {"rain", "chirping_birds", "wind", "pouring_water", "thunderstorm", "clapping", "breathing",
     "laughing", "brushing_teeth", "snoring", "drinking_sipping", "glass_breaking",
     "street_music", "speech", "hiss", "traffic"}
)  # fmt: skip
# Classes that the ontology has and the encoder's tags have not.
_NO_TAGS = frozenset({"Male speech, man speaking", "Female speech, woman speaking", "Howl (wind)"})
_KEY_OF_KIND: Final[Mapping[str, str]] = MappingProxyType(
    {
        "bell": "church_bells",
        "clock": "clock_tick",
        "thunder": "thunderstorm",
        "bird": "chirping_birds",
        "cricket": "crickets",
        "babble": "speech",
        "knock": "door_wood_knock",
        "glass": "glass_breaking",
    }
)
_LONGEST_WORDING = 6


@dataclass(frozen=True)
class SoundEvent:
    """One sound: the thing, the doing, what happens, other wordings, and its AudioSet tags."""

    key: str
    thing: str
    doing: str
    clause: str
    wordings: tuple[str, ...]
    tags: tuple[str, ...]
    plural: bool = False
    uncounted: bool = False
    character: tuple[str, ...] = ()

    @property
    def a_thing(self) -> str:
        """The thing with its article, if it takes one: "a dog", "rain"."""
        if self.uncounted:
            return self.thing
        return f"{'an' if self.thing[0] in 'aeiou' else 'a'} {self.thing}"

    @property
    def the_thing(self) -> str:
        """The thing as one already spoken of."""
        return f"the {self.thing}"


@dataclass(frozen=True)
class Mention:
    """A sound named in a text: text[start:end] names `key`."""

    key: str
    start: int
    end: int


def _tags(key: str) -> tuple[str, ...]:
    names = (*ONTOLOGY_CLASSES.get(key, ()), *MORE_CLASSES.get(key, ()))
    return tuple(dict.fromkeys(name for name in names if name not in _NO_TAGS))


def _event(key: str, thing: str, doing: str) -> SoundEvent:
    wordings = (thing, doing, CLAUSES[key], *WORDINGS.get(key, ()), *SYNONYMS.get(key, ()))
    return SoundEvent(
        key=key,
        thing=thing,
        doing=doing,
        clause=CLAUSES[key],
        wordings=tuple(dict.fromkeys(wordings)),
        tags=_tags(key),
        plural=key in _PLURAL,
        uncounted=key in _UNCOUNTED,
        character=CHARACTER[key],
    )


def _other(key: str, tags: tuple[str, ...], wordings: tuple[str, ...]) -> SoundEvent:
    thing = wordings[0]
    return SoundEvent(key, thing, thing, f"{thing} can be heard", wordings, tags, uncounted=True)


EVENTS: Final[Mapping[str, SoundEvent]] = MappingProxyType(
    {key: _event(key, *words) for key, words in (SOUND_PHRASES | MORE_PHRASES).items()}
)
# Sounds that only free text names: they can be checked by their tags, and are never composed.
OTHER_EVENTS: Final[Mapping[str, SoundEvent]] = MappingProxyType(
    {key: _other(key, *sound) for key, sound in OTHER_SOUNDS.items()}
)


def event_of(key: str) -> SoundEvent | None:
    """Return a sound by its key, of either table."""
    return EVENTS.get(key) or OTHER_EVENTS.get(key)


def event_of_kind(kind: str) -> str:
    """Return the key of a kind of `soundpost.audio.scenes`: "bell" is "church_bells"."""
    return _KEY_OF_KIND.get(kind, kind)


def alike(first: str, second: str) -> bool:
    """Say whether two sounds are the same, or so near that nobody could blame the confusion."""
    groups = (*CONFUSABLE, *MORE_ALIKE)
    return first == second or any(first in group and second in group for group in groups)


def tags_of(what: str) -> tuple[str, ...]:
    """Return the AudioSet names of a sound, none for one that is not known."""
    event = event_of(what)
    return event.tags if event else ()


def _wordings() -> dict[tuple[str, ...], str]:
    table: dict[tuple[str, ...], str] = {}
    for event in (*EVENTS.values(), *OTHER_EVENTS.values()):
        for wording in event.wordings:
            words = tuple(word.stem for word in words_of(wording) if not word.skipped)
            table.setdefault(words, event.key)
    return table


_TABLE = _wordings()
_FIRST = frozenset(words[0] for words in _TABLE)


def find_events(text: str) -> tuple[Mention, ...]:
    """Return every sound named in a text, in order, by the longest wording at each place."""
    words = words_of(text)
    mentions, at = [], 0
    while at < len(words):
        length, key = _longest(words, at)
        if key is None:
            at += 1
            continue
        mentions.append(Mention(key, _with_article(words, at), words[at + length - 1].end))
        at += length
    return tuple(mentions)


def find_event(words: str) -> str | None:
    """Return the key of the sound that some words name: the longest wording in them, else None."""
    mentions = find_events(words)
    return max(mentions, key=lambda mention: mention.end - mention.start).key if mentions else None


def _longest(words: list[Word], at: int) -> tuple[int, str | None]:
    """Return how many words from `at` on name a sound, and its key."""
    if words[at].stem not in _FIRST:
        return 1, None
    stems: list[str] = []
    found: tuple[int, str | None] = (1, None)
    for place in range(at, len(words)):
        if place > at and words[place].apart:
            break
        if words[place].skipped and place > at:
            continue
        stems.append(words[place].stem)
        if len(stems) > _LONGEST_WORDING:
            break
        key = _TABLE.get(tuple(stems))
        if key is not None:
            found = (place - at + 1, key)
    return found


def _with_article(words: list[Word], at: int) -> int:
    """Return where a mention begins: at its article, if one stands right before it."""
    before = words[at - 1] if at else None
    if before is not None and before.article and not words[at].apart:
        return before.start
    return words[at].start


__all__ = [
    "EVENTS",
    "OTHER_EVENTS",
    "Mention",
    "SoundEvent",
    "alike",
    "event_of",
    "event_of_kind",
    "find_event",
    "find_events",
    "tags_of",
]

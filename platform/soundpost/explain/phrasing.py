"""The sentences of explanations: one statement each, in many wordings that `claims.parse` reads.

Training texts and the texts composed from measurements are built from the same statements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from soundpost.explain.claim import Attribute, Direction
from soundpost.explain.lexicon import SoundEvent, event_of

T = TypeVar("T")

SLIGHT, PLAIN, MUCH = 0, 1, 2
_DEGREES = (("slightly ", "a little "), ("", "clearly ", "noticeably "), ("much ", "far "))
_DEGREES_OF_PARTICIPLES = (("slightly ", "a little "), ("", "clearly "), ("strongly ", "clearly "))
_PARTICIPLES = frozenset({"raised", "boosted", "cut", "reduced"})
_UNGRADED = frozenset({"more times", "fewer times"})


@dataclass(frozen=True)
class Names:
    """What the two recordings are called in a text."""

    first: str
    second: str
    both: tuple[str, ...] = ("both", "both recordings", "the two recordings")

    def of(self, audio: int) -> str:
        """Return the name of audio 1 or 2."""
        return self.first if audio == 1 else self.second


AUDIO_NAMES = Names("audio 1", "audio 2")
ALL_NAMES: tuple[Names, ...] = (
    AUDIO_NAMES,
    AUDIO_NAMES,
    Names("the first recording", "the second recording"),
    Names("recording 1", "recording 2"),
    Names("the first audio", "the second audio"),
)

_PLURAL_WORDS = frozenset(
    [
        "birds",
        "children",
        "crickets",
        "fireworks",
        "footsteps",
        "insects",
        "musicians",
        "people",
        "waves",
    ]
)
_PLURAL_THINGS = frozenset({"sea waves", "water drops", "church bells", "playing children"}) | {
    "church bells ringing"
}

# By what words an attribute is compared. The first word of each is the usual one.
WORDS: dict[tuple[Attribute, Direction], tuple[str, ...]] = {
    (Attribute.LEVEL, Direction.LOUDER): ("louder", "louder", "stronger"),
    (Attribute.LEVEL, Direction.SOFTER): ("softer", "quieter", "fainter", "weaker"),
    (Attribute.TIME, Direction.EARLIER): ("earlier", "earlier", "sooner"),
    (Attribute.TIME, Direction.LATER): ("later",),
    (Attribute.COUNT, Direction.MORE): ("more often", "more times"),
    (Attribute.COUNT, Direction.FEWER): ("less often", "fewer times"),
    (Attribute.RATE, Direction.FASTER): ("faster", "faster", "quicker"),
    (Attribute.RATE, Direction.SLOWER): ("slower",),
    (Attribute.PITCH, Direction.HIGHER): ("higher in pitch", "higher-pitched"),
    (Attribute.PITCH, Direction.LOWER): ("lower in pitch", "lower-pitched", "deeper"),
    (Attribute.BAND, Direction.BOOSTED): ("stronger", "raised", "boosted", "louder"),
    (Attribute.BAND, Direction.CUT): ("weaker", "reduced", "cut", "softer"),
    (Attribute.REVERB, Direction.MORE): ("more reverberant",),
    (Attribute.REVERB, Direction.LESS): ("less reverberant", "drier"),
    (Attribute.NOISE, Direction.MORE): ("noisier",),
    (Attribute.NOISE, Direction.LESS): ("cleaner", "less noisy"),
}
# The same of a whole recording, where pitch is its brightness.
WORDS_OF_ALL: dict[tuple[Attribute, Direction], tuple[str, ...]] = WORDS | {
    (Attribute.PITCH, Direction.HIGHER): ("brighter", "higher-pitched"),
    (Attribute.PITCH, Direction.LOWER): ("duller", "lower-pitched", "darker"),
    (Attribute.LEVEL, Direction.LOUDER): ("louder",),
    (Attribute.LEVEL, Direction.SOFTER): ("softer", "quieter"),
}
BAND_NAMES: dict[str, tuple[tuple[str, bool], ...]] = {
    "low": (("low frequencies", True), ("bass", False), ("low end", False)),
    "middle": (("middle frequencies", True), ("midrange", False)),
    "high": (("high frequencies", True), ("treble", False), ("high end", False)),
}

_OF_EVENT = (
    "{the} {is} {word} in {x}",
    "{the} {is} {word} in {x}",
    "in {x} {the} {is} {word}",
    "{the} {sounds} {word} in {x}",
    "in {x} {the} {sounds} {word}",
    "{the} {is} {word} in {x} than in {y}",
    "compared with {y}, {the} {is} {word} in {x}",
    "{the} {becomes} {word} in {x}",
)
_HEARD = (
    "{the} {is} heard {word} in {x}",
    "in {x} {the} {is} heard {word}",
    "{the} {comes} {word} in {x}",
    "in {x} {the} {comes} {word}",
    "{the} {is} heard {word} in {x} than in {y}",
    "compared with {y}, {the} {comes} {word} in {x}",
)
_OF_ALL = (
    "{x} is {word}",
    "{x} sounds {word}",
    "{x} is {word} than {y}",
    "compared with {y}, {x} is {word}",
    "{x} is {word} overall",
    "{x} as a whole is {word}",
)
_OF_BAND = (
    "the {band} {is} {word} in {x}",
    "in {x} the {band} {is} {word}",
    "compared with {y}, the {band} {is} {word} in {x}",
    "{x} has {deg}{more} {band}",
)
_REVERB = (
    "{x} has {deg}{more} echo",
    "{x} has {deg}{more} reverberation",
    "there is {deg}{more} echo in {x}",
    "there is {deg}{more} reverberation in {x} than in {y}",
)
_NOISE = (
    "{x} has {deg}{more} noise",
    "{x} has {deg}{more} background noise",
    "there is {deg}{more} noise in {x}",
    "there is {deg}{more} background noise in {x} than in {y}",
)
ONLY = (
    "only {x} has {a}",
    "only {x} holds {a}",
    "{a} {is} heard only in {x}",
    "only in {x} {is} {a} heard",
    "{a} {is} heard in {x} but not in {y}",
    "{x} has {a} that {y} lacks",
    "unlike {y}, {x} has {a}",
    "{a} {is} heard in {x} only",
)
ADDED = (
    *ONLY,
    "{x} adds {a}",
    "{a} {is} added in {x}",
    "in {x} {a} {is} added",
    "{a} {appears} in {x}",
    "{a} {is} new in {x}",
    "new in {x} {is} {a}",
    "in {x} {a} {joins} in",
)
ABSENT = (
    "{the} {is} missing in {x}",
    "{x} has no {thing}",
    "{x} lacks {the}",
    "{x} is without {the}",
    "in {x} {the} {is} missing",
)
GONE = (
    *ABSENT,
    "{the} {is} gone in {x}",
    "in {x} {the} {is} gone",
    "{the} {is} no longer heard in {x}",
    "{x} no longer has {the}",
    "{x} loses {the}",
)
REPLACED = (
    "{a} {replaces} {the_old} in {x}",
    "{the_old} {old_is} replaced by {a} in {x}",
    "in {x} {the_old} {old_is} replaced by {a}",
    "in {x} {a} {takes} the place of {the_old}",
    "{x} has {a} instead of {the_old}",
    "{the_old} {gives} way to {a} in {x}",
    "where {y} has {a_old}, {x} has {a} instead",
    "{y} has {a_old}, {x} {a} instead",
    "in place of {the_old}, {x} has {a}",
)
NOTHING = (
    "no audible difference between the two recordings",
    "there is no audible difference between the two recordings",
    "no difference can be heard between audio 1 and audio 2",
    "the two recordings sound the same",
    "the two recordings cannot be told apart",
    "nothing audible has changed between the two recordings",
    "both recordings sound exactly the same",
    "audio 1 and audio 2 sound identical",
    "the two recordings do not differ audibly",
)
HOLDS = ("has", "holds", "contains", "features")


def drawn(options: Sequence[T], rng: np.random.Generator) -> T:
    """Draw one of several."""
    return options[int(rng.integers(len(options)))]


def verb(singular: str, plural: bool) -> str:
    """Return a verb in the third person: "is", "sounds", or "are", "sound"."""
    many = {"is": "are", "has": "have", "does": "do"}
    return singular if not plural else many.get(singular, singular.removesuffix("s"))


def is_plural(item: str) -> bool:
    """Say whether words for a sound are plural: "people laughing", but not "someone laughing"."""
    return item in _PLURAL_THINGS or item.split(" ")[0] in _PLURAL_WORDS


def sound(key: str) -> SoundEvent:
    """Return the words of a sound; one that the lexicon does not know is called by its key."""
    known = event_of(key)
    if known is not None:
        return known
    thing = key.replace("_", " ")
    return SoundEvent(key, thing, thing, thing, (thing,), ())


def listed(items: Sequence[str]) -> str:
    """Join items as English does: "a, b and c"."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


def sentence(text: str) -> str:
    """Begin with a capital and end with a stop."""
    text = text.strip()
    return f"{text[:1].upper()}{text[1:]}."


def degree(level: int, rng: np.random.Generator, word: str = "") -> str:
    """Draw an adverb for SLIGHT, PLAIN or MUCH, with a space after it, or nothing."""
    if word in _UNGRADED:
        return ""
    table = _DEGREES_OF_PARTICIPLES if word in _PARTICIPLES else _DEGREES
    return drawn(table[level], rng)


def compare(
    what: str | None,
    attribute: Attribute,
    direction: Direction,
    audio: int,
    names: Names,
    rng: np.random.Generator,
    level: int = PLAIN,
) -> str:
    """Say that a sound, a band or a whole recording is louder, later, ... in one of two audios."""
    if attribute is Attribute.BAND:
        return _of_band(what or "middle", direction, audio, names, rng, level)
    if attribute in (Attribute.REVERB, Attribute.NOISE) and rng.random() < 0.6:
        return _amount(attribute, direction, audio, names, rng, level)
    table = WORDS if what else WORDS_OF_ALL
    word = drawn(table[attribute, direction], rng)
    slots = {"word": degree(level, rng, word) + word, "x": names.of(audio)}
    slots["y"] = names.of(3 - audio)
    if what is None:
        return drawn(_OF_ALL, rng).format(**slots)
    frames = _HEARD if attribute in (Attribute.TIME, Attribute.COUNT) else _OF_EVENT
    return drawn(frames, rng).format(**slots, **_agreeing(sound(what)))


def _agreeing(event: SoundEvent) -> dict[str, str]:
    verbs = ("is", "sounds", "becomes", "comes", "appears", "joins", "replaces", "takes", "gives")
    words = {name: verb(name, event.plural) for name in verbs}
    return words | {"the": event.the_thing, "a": event.a_thing, "thing": event.thing}


def _of_band(
    band: str,
    direction: Direction,
    audio: int,
    names: Names,
    rng: np.random.Generator,
    level: int,
) -> str:
    name, plural = drawn(BAND_NAMES[band], rng)
    word = drawn(WORDS[Attribute.BAND, direction], rng)
    stronger = direction is Direction.BOOSTED
    more = ("stronger" if stronger else "weaker") if plural else ("more" if stronger else "less")
    return drawn(_OF_BAND, rng).format(
        band=name,
        word=degree(level, rng, word) + word,
        deg=degree(level, rng),
        more=more,
        x=names.of(audio),
        y=names.of(3 - audio),
        **{"is": verb("is", plural)},
    )


def _amount(
    attribute: Attribute,
    direction: Direction,
    audio: int,
    names: Names,
    rng: np.random.Generator,
    level: int,
) -> str:
    return drawn(_REVERB if attribute is Attribute.REVERB else _NOISE, rng).format(
        deg=degree(level, rng),
        more=direction.value,
        x=names.of(audio),
        y=names.of(3 - audio),
    )


def place(
    key: str, direction: Direction, audio: int, names: Names, rng: np.random.Generator
) -> str:
    """Say that a sound is heard only in one audio, or (ABSENT) is missing in one."""
    only, absent = (ADDED, GONE) if audio == 2 else (ONLY, ABSENT)
    frames: Sequence[str] = only if direction is Direction.ONLY else absent
    slots = {"x": names.of(audio), "y": names.of(3 - audio)}
    return drawn(frames, rng).format(**slots, **_agreeing(sound(key)))


def replace(old: str, new: str, names: Names, rng: np.random.Generator) -> str:
    """Say that a sound of audio 1 gives way to another in audio 2."""
    event, gone = sound(new), sound(old)
    slots = _agreeing(event) | {
        "the_old": gone.the_thing,
        "a_old": gone.a_thing,
        "old_is": verb("is", gone.plural),
        "gives": verb("gives", gone.plural),
        "x": names.of(2),
        "y": names.of(1),
    }
    return drawn(REPLACED, rng).format(**slots)


def hold(subject: str, items: Sequence[str], rng: np.random.Generator) -> str:
    """Say that one recording, or both, hold some sounds."""
    plural = subject.startswith(("both", "the two"))
    what = listed(items) or "hardly anything"
    return f"{subject} {verb(drawn(HOLDS, rng), plural)} {what}"

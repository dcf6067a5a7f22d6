"""One checkable statement of an explanation: which audio, what, attribute, direction, quoted span."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Attribute(StrEnum):
    """What of a sound, or of a whole recording, a claim speaks of."""

    EVENT = "event"
    LEVEL = "level"
    TIME = "time"
    COUNT = "count"
    RATE = "rate"
    PITCH = "pitch"
    BAND = "band"
    REVERB = "reverb"
    NOISE = "noise"
    NOTHING = "nothing"


class Direction(StrEnum):
    """Which way it differs, or, of an event, where it is heard."""

    ONLY = "only"
    PRESENT = "present"
    ABSENT = "absent"
    LOUDER = "louder"
    SOFTER = "softer"
    EARLIER = "earlier"
    LATER = "later"
    MORE = "more"
    FEWER = "fewer"
    LESS = "less"
    FASTER = "faster"
    SLOWER = "slower"
    HIGHER = "higher"
    LOWER = "lower"
    BOOSTED = "boosted"
    CUT = "cut"
    SAME = "same"


# The direction of more and of less of each attribute.
DIRECTIONS: dict[Attribute, tuple[Direction, Direction]] = {
    Attribute.LEVEL: (Direction.LOUDER, Direction.SOFTER),
    Attribute.TIME: (Direction.LATER, Direction.EARLIER),
    Attribute.COUNT: (Direction.MORE, Direction.FEWER),
    Attribute.RATE: (Direction.FASTER, Direction.SLOWER),
    Attribute.PITCH: (Direction.HIGHER, Direction.LOWER),
    Attribute.BAND: (Direction.BOOSTED, Direction.CUT),
    Attribute.REVERB: (Direction.MORE, Direction.LESS),
    Attribute.NOISE: (Direction.MORE, Direction.LESS),
}


def direction_of(attribute: Attribute, sign: int) -> Direction:
    """Return how an attribute's increase (+1) or decrease (-1) is called; SAME for 0."""
    if sign == 0:
        return Direction.SAME
    return DIRECTIONS[attribute][0 if sign > 0 else 1]


@dataclass(frozen=True)
class Claim:
    """A statement of audio 1 or 2, or of both (0); quote == text[start:end].

    what: key of the lexicon, "low", "middle" or "high" of a BAND, a noun that the lexicon does not
    know, or None for the whole recording. Of an EVENT, ONLY says that the other audio has it not,
    PRESENT says nothing of the other, ABSENT that this audio has it not.
    """

    audio: int
    what: str | None
    attribute: Attribute
    direction: Direction
    quote: str = ""
    start: int = 0
    end: int = 0

    @property
    def sign(self) -> int:
        """+1 for more of the attribute, later included, -1 for less, 0 for what has no direction."""
        more, less = DIRECTIONS.get(self.attribute, (None, None))
        return 1 if self.direction is more else -1 if self.direction is less else 0

    @property
    def change(self) -> int:
        """The sign, said of audio 2 relative to audio 1."""
        return self.sign * {1: -1, 2: 1}.get(self.audio, 0)

"""Questions about composed scenes: what a question claims, and of which scenes it is true.

A query names all or a part of what is known of a scene, in one of many wordings; whether it is true
of another scene is read from that scene's events, never from how its text looks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from soundpost.training.composed import Event, Layout, Plan, Scene
from soundpost.training.sound_phrases import Phrase

# Two sounds follow each other although the end of one lies a little in the other.
_TOUCH_S = 0.05
# A sound is the first, or the last, where nothing else begins, or ends, within this.
_CLEAR_S = 0.3
_SHARED = 0.6
_LOUDER_DB = 8.0


class Relation(StrEnum):
    """What a query may claim of sounds."""

    BEFORE = "before"
    WHILE = "while"
    LOUDER = "louder"
    FIRST = "first"
    LAST = "last"


@dataclass(frozen=True)
class Claim:
    """A relation between one or two sounds."""

    relation: Relation
    sounds: tuple[str, ...]

    def holds(self, scene: Scene) -> bool:
        """Say whether it is true of a scene that has the sounds."""
        return _HOLDS[self.relation](scene, *self.sounds)


@dataclass(frozen=True)
class Query:
    """A text, the sounds that it names, and what it claims of them."""

    text: str
    sounds: frozenset[str]
    claims: tuple[Claim, ...]
    about: str

    def true_of(self, scene: Scene) -> bool:
        """Say whether a scene has every sound that is named, and every claim holds."""
        if not self.sounds <= {event.sound for event in scene.events}:
            return False
        return all(claim.holds(scene) for claim in self.claims)


def _events(scene: Scene, sound: str) -> list[Event]:
    return [event for event in scene.events if event.sound == sound]


def _before(scene: Scene, first: str, second: str) -> bool:
    return any(
        a.end_s <= b.start_s + _TOUCH_S
        for a in _events(scene, first)
        for b in _events(scene, second)
    )


def _while(scene: Scene, first: str, second: str) -> bool:
    return any(
        min(a.end_s, b.end_s) - max(a.start_s, b.start_s)
        >= _SHARED * min(a.duration_s, b.duration_s)
        for a in _events(scene, first)
        for b in _events(scene, second)
    )


def _louder(scene: Scene, first: str, second: str) -> bool:
    least = min(event.level_db for event in _events(scene, first))
    most = max(event.level_db for event in _events(scene, second))
    return least - most >= _LOUDER_DB


def _first(scene: Scene, sound: str) -> bool:
    own = min(event.start_s for event in _events(scene, sound))
    others = [event.start_s for event in scene.events if event.sound != sound]
    return all(own + _CLEAR_S <= start_s for start_s in others)


def _last(scene: Scene, sound: str) -> bool:
    own = max(event.end_s for event in _events(scene, sound))
    others = [event.end_s for event in scene.events if event.sound != sound]
    return all(own - _CLEAR_S >= end_s for end_s in others)


_HOLDS: dict[Relation, Callable[..., bool]] = {
    Relation.BEFORE: _before,
    Relation.WHILE: _while,
    Relation.LOUDER: _louder,
    Relation.FIRST: _first,
    Relation.LAST: _last,
}


@dataclass(frozen=True)
class _Kind:
    """One kind of query: what it asks about, its claims by the sounds' places, and its wordings.

    In a wording {a}, {b}, {c} are phrases of the sounds, {loud_a} and {quiet_a} say how loud it is.
    The last wordings, `kept`, are never used in training.
    """

    about: str
    claims: tuple[tuple[Relation, str], ...]
    wordings: tuple[str, ...]
    kept: tuple[str, ...] = ()


_B, _W, _L = Relation.BEFORE, Relation.WHILE, Relation.LOUDER

BEFORE = _Kind(
    "order",
    ((_B, "ab"),),
    (
        "{a} before {b}",
        "{a}, then {b}",
        "{a} and then {b}",
        "{a} followed by {b}",
        "first {a}, then {b}",
        "{b} after {a}",
        "after {a} comes {b}",
        "{a}, and after that {b}",
        "{a}, later {b}",
        "before {b} there is {a}",
        "{b} once {a} is over",
    ),
    ("{a} precedes {b}", "{b} follows {a}", "{a}, subsequently {b}", "{b} preceded by {a}"),
)
CHAIN = _Kind(
    "order",
    ((_B, "ab"), (_B, "bc")),
    (
        "{a}, then {b}, then {c}",
        "first {a}, then {b}, and finally {c}",
        "{a} followed by {b} and then {c}",
        "{b} after {a} and before {c}",
        "{a} before {b} before {c}",
        "{c} after {b} after {a}",
    ),
    ("{b} between {a} and {c}", "in this order: {a}, {b}, {c}"),
)
AGAIN = _Kind(
    "order",
    ((_B, "ab"), (_B, "ba")),
    (
        "{a}, then {b}, then {a} again",
        "{a}, {b}, and {a} once more",
        "{a} before and after {b}",
        "{b} between two times {a}",
    ),
    ("{a} both precedes and follows {b}",),
)
FIRST = _Kind(
    "order",
    ((Relation.FIRST, "a"),),
    ("it starts with {a}", "{a} at the beginning", "first of all {a}", "it begins with {a}"),
    ("the opening is {a}",),
)
FIRST_OF_TWO = _Kind(
    "order",
    ((Relation.FIRST, "a"),),
    ("it starts with {a}, {b} is there too", "{a} comes first, and there is {b}"),
)
LAST = _Kind(
    "order",
    ((Relation.LAST, "a"),),
    ("it ends with {a}", "{a} at the end", "{a} comes last", "finally {a}"),
    ("the closing sound is {a}",),
)
LAST_OF_TWO = _Kind(
    "order",
    ((Relation.LAST, "a"),),
    ("it ends with {a}, {b} is there too", "{b} somewhere, and at the end {a}"),
)
BOTH = _Kind(
    "sounds",
    (),
    (
        "{a} and {b}",
        "{a} as well as {b}",
        "there are {a} and {b}",
        "{a}, {b}",
        "both {a} and {b}",
    ),
    ("{a} plus {b}",),
)
THREE = _Kind("sounds", (), ("{a}, {b} and {c}", "{a} and {b} and also {c}"))
TOGETHER = _Kind(
    "overlap",
    ((_W, "ab"),),
    (
        "{a} while {b}",
        "{a} and {b} at the same time",
        "{a} during {b}",
        "{a} mixed with {b}",
        "{a} together with {b}",
        "at once {a} and {b}",
    ),
    ("simultaneously {a} and {b}",),
)
BEHIND = _Kind(
    "loudness",
    ((_W, "ab"), (_L, "ab")),
    (
        "{a} with {b} in the background",
        "{a} over {quiet_b}",
        "{loud_a} with {quiet_b}",
        "{loud_a} while {b} is in the background",
        "{a} in the foreground and {b} behind it",
        "{quiet_b} behind {loud_a}",
        "{quiet_b} under {a}",
        "{a} near, {b} in the distance",
        "in the background {b}, in front {a}",
        "{b} is quieter than {a} and goes on at the same time",
    ),
    ("{a} drowning out {b}", "{b} barely audible beneath {a}"),
)
LOUDER = _Kind(
    "loudness",
    ((_L, "ab"),),
    (
        "{loud_a} and {quiet_b}",
        "{loud_a}, {quiet_b}",
        "{a} louder than {b}",
        "{b} quieter than {a}",
    ),
)
LOUD_QUIET = _Kind(
    "loudness and order",
    ((_B, "ab"), (_L, "ab")),
    (
        "{loud_a}, then {quiet_b}",
        "{loud_a} before {quiet_b}",
        "{quiet_b} after {loud_a}",
        "{loud_a} followed by {quiet_b}",
    ),
)
QUIET_LOUD = _Kind(
    "loudness and order",
    ((_B, "ab"), (_L, "ba")),
    (
        "{quiet_a}, then {loud_b}",
        "{quiet_a} before {loud_b}",
        "{loud_b} after {quiet_a}",
        "{quiet_a} followed by {loud_b}",
    ),
)
ORDER_OVER = _Kind(
    "loudness and order",
    ((_B, "ab"), (_L, "ac"), (_L, "bc")),
    (
        "{a}, then {b}, with {c} in the background",
        "{a} before {b}, {quiet_c} all the time",
        "{a} followed by {b} over {quiet_c}",
        "{quiet_c} throughout, first {a}, then {b}",
    ),
)
ALONE = _Kind(
    "sounds",
    (),
    (
        "{a}",
        "{a}",
        "{a}",
        "the sound of {a}",
        "a recording of {a}",
        "{a} can be heard",
        "I hear {a}",
    ),
)


def kinds_for(plan: Plan) -> list[tuple[_Kind, tuple[str, ...]]]:
    """Return the kinds of query that a plan answers, each with its sounds in their places."""
    sounds = plan.sounds
    match plan.layout:
        case Layout.SINGLE:
            return [(ALONE, sounds)]
        case Layout.TOGETHER:
            return [(TOGETHER, sounds), (TOGETHER, sounds[::-1]), (BOTH, sounds)]
        case Layout.OVER:
            return [*3 * [(BEHIND, sounds)], (LOUDER, sounds), (BOTH, sounds), (TOGETHER, sounds)]
        case Layout.SEQUENCE_OVER:
            a, b, c = sounds
            return [
                *2 * [(ORDER_OVER, sounds)],
                (BEHIND, (a, c)),
                (BEHIND, (b, c)),
                (BEFORE, (a, b)),
                (THREE, sounds),
            ]
        case _:
            return _sequence_kinds(plan)


def _sequence_kinds(plan: Plan) -> list[tuple[_Kind, tuple[str, ...]]]:
    first, second = plan.sounds[:2]
    if len(plan.sounds) == 2:
        if plan.quiet is not None:
            kind = LOUD_QUIET if plan.quiet == 1 else QUIET_LOUD
            return [*3 * [(kind, plan.sounds)], (BEFORE, plan.sounds)]
        return [
            *6 * [(BEFORE, plan.sounds)],
            (FIRST_OF_TWO, plan.sounds),
            (LAST_OF_TWO, plan.sounds[::-1]),
            (BOTH, plan.sounds[::-1]),
        ]
    last = plan.sounds[2]
    if last == first:
        return [(AGAIN, (first, second))]
    return [
        *3 * [(CHAIN, plan.sounds)],
        (BEFORE, (first, second)),
        (BEFORE, (second, last)),
        (BEFORE, (first, last)),
        (FIRST_OF_TWO, (first, second)),
        (LAST_OF_TWO, (last, second)),
        (FIRST, (first,)),
        (LAST, (last,)),
        (THREE, (second, first, last)),
    ]


def draw_query(
    plan: Plan,
    phrases: Callable[[str, np.random.Generator], Phrase],
    rng: np.random.Generator,
    *,
    kept: bool = False,
) -> Query:
    """Draw a query that a scene of this plan answers.

    phrases(sound, rng) words a sound. With `kept`, wordings that training never sees are used where
    a kind has them.
    """
    kinds = kinds_for(plan)
    kind, sounds = kinds[int(rng.integers(len(kinds)))]
    wordings = kind.kept if kept and kind.kept else kind.wordings
    wording = str(rng.choice(list(wordings)))
    words: dict[str, str] = {}
    for place, sound in zip("abc", sounds, strict=False):
        phrase = phrases(sound, rng)
        words |= {
            place: phrase.plain,
            f"loud_{place}": phrase.loud(rng),
            f"quiet_{place}": phrase.quiet(rng),
        }
    by_place = dict(zip("abc", sounds, strict=False))
    claims = tuple(
        Claim(relation, tuple(by_place[place] for place in places))
        for relation, places in kind.claims
    )
    return Query(wording.format_map(words), frozenset(sounds), claims, kind.about)


def relevant_scenes(
    queries: Iterable[Query], scenes: Sequence[Scene]
) -> tuple[NDArray[np.int64], ...]:
    """Return for each query the numbers of the scenes that it is true of."""
    having: dict[str, set[int]] = {}
    for number, scene in enumerate(scenes):
        for event in scene.events:
            having.setdefault(event.sound, set()).add(number)
    found = []
    for query in queries:
        sets = sorted((having.get(sound, set()) for sound in query.sounds), key=len)
        possible = sorted(set.intersection(*sets)) if sets else []
        true = [number for number in possible if query.true_of(scenes[number])]
        found.append(np.array(true, np.int64))
    return tuple(found)

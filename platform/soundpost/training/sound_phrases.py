"""How sounds are named inside a longer question: as a thing, as a doing, loud or quiet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from soundpost.explain.sound_words import SOUND_PHRASES, WORDINGS

__all__ = ["SOUND_PHRASES", "Phrase", "draw_phrase", "with_article"]

# Things that take no article.
_WITHOUT_ARTICLE = frozenset(
    (
        "rain",
        "sea waves",
        "crickets",
        "birdsong",
        "water drops",
        "wind",
        "pouring water",
        "thunder",
        "clapping",
        "breathing",
        "footsteps",
        "laughter",
        "tooth brushing",
        "snoring",
        "sipping",
        "breaking glass",
        "church bells",
        "fireworks",
        "playing children",
        "street music",
    )
)
_LOUD, _LOUD_PHRASE = ("loud", "very loud", "nearby"), ("{} close by", "{}, loud", "loud: {}")
_QUIET = ("quiet", "distant", "faint", "soft")
_QUIET_PHRASE = ("{} far away", "{}, faint", "quiet: {}", "{} in the distance")


@dataclass(frozen=True)
class Phrase:
    """Words for one sound; `thing` is the noun in it, if it is no more than a noun."""

    plain: str
    thing: str | None = None

    def loud(self, rng: np.random.Generator) -> str:
        """Say that it is loud."""
        return self._told(_LOUD, _LOUD_PHRASE, rng)

    def quiet(self, rng: np.random.Generator) -> str:
        """Say that it is quiet."""
        return self._told(_QUIET, _QUIET_PHRASE, rng)

    def _told(
        self, adjectives: tuple[str, ...], phrases: tuple[str, ...], rng: np.random.Generator
    ) -> str:
        if self.thing is None:
            return str(rng.choice(phrases)).format(self.plain)
        described = f"{rng.choice(adjectives)} {self.thing}"
        return described if self.thing in _WITHOUT_ARTICLE else with_article(described)


def with_article(thing: str) -> str:
    """Put "a" or "an" before a thing."""
    return f"{'an' if thing[0] in 'aeiou' else 'a'} {thing}"


def draw_phrase(sound: str, rng: np.random.Generator) -> Phrase:
    """Draw words for a sound: the thing, the doing, or another of its wordings."""
    thing, doing = SOUND_PHRASES[sound]
    kind = rng.random()
    if kind < 0.45:
        return Phrase(thing if thing in _WITHOUT_ARTICLE else with_article(thing), thing)
    if kind < 0.75:
        return Phrase(doing)
    return Phrase(str(rng.choice(WORDINGS[sound])))

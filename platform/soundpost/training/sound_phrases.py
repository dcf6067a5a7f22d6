"""How sounds are named inside a longer question: as a thing, as a doing, loud or quiet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from soundpost.training.wordings import WORDINGS

# The thing and the doing. Both fit wherever a question names a sound; the thing also takes an
# adjective before it.
SOUND_PHRASES: dict[str, tuple[str, str]] = {
    "dog": ("dog", "a dog barking"),
    "rooster": ("rooster", "a rooster crowing"),
    "pig": ("pig", "a pig grunting"),
    "cow": ("cow", "a cow mooing"),
    "frog": ("frog", "a frog croaking"),
    "cat": ("cat", "a cat meowing"),
    "hen": ("hen", "a hen clucking"),
    "insects": ("buzzing insect", "insects buzzing"),
    "sheep": ("sheep", "a sheep bleating"),
    "crow": ("crow", "a crow cawing"),
    "rain": ("rain", "rain falling"),
    "sea_waves": ("sea waves", "waves crashing"),
    "crackling_fire": ("fire", "a fire crackling"),
    "crickets": ("crickets", "crickets chirping"),
    "chirping_birds": ("birdsong", "birds singing"),
    "water_drops": ("water drops", "water dripping"),
    "wind": ("wind", "wind blowing"),
    "pouring_water": ("pouring water", "water being poured"),
    "toilet_flush": ("toilet flush", "a toilet flushing"),
    "thunderstorm": ("thunder", "thunder rumbling"),
    "crying_baby": ("baby", "a baby crying"),
    "sneezing": ("sneeze", "someone sneezing"),
    "clapping": ("clapping", "people clapping"),
    "breathing": ("breathing", "someone breathing"),
    "coughing": ("cough", "someone coughing"),
    "footsteps": ("footsteps", "someone walking"),
    "laughing": ("laughter", "people laughing"),
    "brushing_teeth": ("tooth brushing", "someone brushing their teeth"),
    "snoring": ("snoring", "someone snoring"),
    "drinking_sipping": ("sipping", "someone sipping a drink"),
    "door_wood_knock": ("knock on the door", "someone knocking on a door"),
    "mouse_click": ("mouse click", "a computer mouse clicking"),
    "keyboard_typing": ("keyboard", "someone typing on a keyboard"),
    "door_wood_creaks": ("door", "a door creaking"),
    "can_opening": ("drink can", "a can being opened"),
    "washing_machine": ("washing machine", "a washing machine running"),
    "vacuum_cleaner": ("vacuum cleaner", "a vacuum cleaner running"),
    "clock_alarm": ("alarm clock", "an alarm clock ringing"),
    "clock_tick": ("clock", "a clock ticking"),
    "glass_breaking": ("breaking glass", "glass breaking"),
    "helicopter": ("helicopter", "a helicopter flying"),
    "chainsaw": ("chainsaw", "a chainsaw running"),
    "siren": ("siren", "a siren wailing"),
    "car_horn": ("car horn", "a car honking"),
    "engine": ("engine", "an engine running"),
    "train": ("train", "a train passing"),
    "church_bells": ("church bells", "church bells ringing"),
    "airplane": ("airplane", "an airplane flying"),
    "fireworks": ("fireworks", "fireworks exploding"),
    "hand_saw": ("hand saw", "someone sawing wood"),
    "air_conditioner": ("air conditioner", "an air conditioner humming"),
    "children_playing": ("playing children", "children playing"),
    "drilling": ("drill", "someone drilling"),
    "gun_shot": ("gun shot", "a gun being fired"),
    "jackhammer": ("jackhammer", "a jackhammer breaking concrete"),
    "street_music": ("street music", "musicians playing in the street"),
}

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

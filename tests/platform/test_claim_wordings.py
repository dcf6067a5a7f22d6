"""Sentences in the words of other people: the differences that a reader reads, and no others."""

from __future__ import annotations

import pytest

from soundpost.explain.claims import Attribute, Direction, parse


def said(text: str) -> set[str]:
    """Return all that a text claims."""
    return {f"{c.audio} {c.what or 'whole'} {c.attribute} {c.direction}" for c in parse(text)}


def differences(text: str) -> set[str]:
    """Return what a text says to differ, or not to, without what is merely there."""
    there = (f" {Attribute.EVENT} {Direction.PRESENT}", f" {Direction.SAME}")
    return {one for one in said(text) if one == NOTHING or not one.endswith(there)}


NOTHING = "0 whole nothing same"
REPLACED = ("1 dog event only", "2 siren event only")
# Which recording, where several are named.
PLACES: dict[str, tuple[str, ...]] = {
    "The dog of audio 1 is replaced by a siren in audio 2.": REPLACED,
    "The dog heard in audio 1 is replaced in audio 2 by a siren.": REPLACED,
    "The dog in audio 1 gives way to a siren in audio 2.": REPLACED,
    "In audio 2 the dog of audio 1 is replaced by a siren.": REPLACED,
    "A siren takes the place of the dog of audio 1 in audio 2.": REPLACED,
    "A siren in audio 2 takes the place of the dog in audio 1.": REPLACED,
    "The dog present in audio 1 is absent in audio 2.": ("2 dog event absent",),
    "The dog of the first recording is missing in the second.": ("2 dog event absent",),
    "In audio 2 the dog of audio 1 is missing.": ("2 dog event absent",),
    "Audio 2 includes a dog that is not in audio 1.": ("2 dog event only",),
    "Audio 1 has a dog which cannot be heard in audio 2.": ("1 dog event only",),
    "A dog that is not there in audio 1 is heard in audio 2.": ("2 dog event only",),
    "The dog of audio 1 is louder in audio 2.": ("2 dog level louder",),
    "The dog of audio 1 is louder than the dog of audio 2.": ("1 dog level louder",),
    "The siren from audio 2 is lower in pitch than that of audio 1.": ("2 siren pitch lower",),
}


@pytest.mark.parametrize("text", PLACES)
def test_a_difference_is_read_of_the_recording_it_is_said_of(text: str) -> None:
    """Where a sound comes from, and what it is compared with, is another recording."""
    assert differences(text) == set(PLACES[text])


# What is denied: all that is claimed.
DENIED: dict[str, tuple[str, ...]] = {
    "A dog does not bark in audio 2.": ("2 dog event absent",),
    "The dogs don't bark in audio 2.": ("2 dog event absent",),
    "There isn't a dog in audio 2.": ("2 dog event absent",),
    "Audio 2 doesn't include a dog.": ("2 dog event absent",),
    "Audio 2 hasn\u2019t got a dog.": ("2 dog event absent",),
    "You cannot hear a dog in audio 2.": ("2 dog event absent",),
    "A dog can't be heard in audio 2.": ("2 dog event absent",),
    "Audio 2 never has a dog.": ("2 dog event absent",),
    "Audio 2 has neither a dog nor a siren.": ("2 dog event absent", "2 siren event absent"),
    "Neither recording has a dog.": ("0 dog event absent",),
    "Neither audio 1 nor audio 2 has a dog.": ("0 dog event absent",),
    "A dog is heard in neither recording.": ("0 dog event absent",),
    "Neither recording is louder.": (),
    "The dog is not louder in audio 2.": ("2 dog event present",),
    "The dog doesn't get louder in audio 2.": ("2 dog event present",),
    "The dog does not change in audio 2.": ("2 dog event present",),
    "Audio 2 does not have more echo.": (),
    "There is no more noise in audio 2 than in audio 1.": (),
    "In both recordings the dog is louder than the rain.": (
        "0 dog event present",
        "0 rain event present",
    ),
    "The two recordings do not sound the same.": (),
    "They don't sound alike.": (),
    "There is no difference in level.": (),
    "Audio 2 shows no significant changes in pitch or loudness.": (),
    "The two recordings don't differ.": (NOTHING,),
    "The recordings can't be told apart.": (NOTHING,),
    "The two recordings are practically identical.": (NOTHING,),
}


@pytest.mark.parametrize("text", DENIED)
def test_what_is_denied_is_not_claimed(text: str) -> None:
    """A sound that is not there is absent, and what is not more is not less either."""
    assert said(text) == set(DENIED[text])


# What it is that differs: the word that compares may belong to another one.
COMPARED: dict[str, tuple[str, ...]] = {
    "The overall level is lower in audio 1.": ("1 whole level softer",),
    "Audio 2 has a higher overall loudness.": ("2 whole level louder",),
    "The overall volume increases in audio 2.": ("2 whole level louder",),
    "The level of the rain drops in audio 2.": ("2 rain level softer",),
    "The number of barks is higher in audio 2.": ("2 dog count more",),
    "Audio 2 has a lower tempo.": ("2 whole rate slower",),
    "The dog is raised by three semitones in audio 2.": ("2 dog pitch higher",),
    "The dog is lowered by 4 dB in audio 2.": ("2 dog level softer",),
    "The lower frequencies are louder in audio 2.": ("2 low band boosted",),
    "The higher frequencies are softer in audio 2.": ("2 high band cut",),
    "Audio 2 is louder in the low frequencies.": ("2 low band boosted",),
    "The bass of the dog is stronger in audio 2.": ("2 low band boosted",),
    "The echo of the dog is weaker in audio 2.": ("2 whole reverb less",),
    "In audio 2 the dog is louder than the rain.": (),
    "The dog is higher in pitch than the siren in audio 2.": (),
    "The dog is louder in audio 2 than the dog in audio 1.": ("2 dog level louder",),
    "Audio 2 has a higher proportion of birds.": (),
    "The rain has a slower attack in audio 2.": (),
    "Audio 2 holds noise, creating a more immersive scene.": (),
    "Audio 2 has an echo with a longer duration.": (),
    "The echo is longer in audio 2.": ("2 whole reverb more",),
}


@pytest.mark.parametrize("text", COMPARED)
def test_a_comparison_is_read_of_what_it_compares(text: str) -> None:
    """Level, number, pace, pitch or band; and never of two sounds in one recording."""
    assert differences(text) == set(COMPARED[text])


# What is told of one recording, and what is said of it beside another.
TOLD: dict[str, tuple[str, ...]] = {
    "Audio 2 adds a siren to the rain.": ("2 siren event only",),
    "Audio 2 introduces a distinct siren.": ("2 siren event only",),
    "Audio 2 has rain and an additional siren.": ("2 siren event only",),
    "In audio 2 birds are heard, and their chirping adds a gentle texture.": (),
    "In audio 2 the wind adds depth, the dog a new layer.": (),
    "In audio 1 a dog barks and later a siren wails.": (),
    "In audio 1 a dog barks, and later on there is a siren.": (),
    "A dog barks in both, but later in audio 2.": ("2 dog time later",),
    "The scene of audio 2 is more static and predictable.": (),
    "Audio 2 is a low-frequency, steady and softer sound.": ("2 whole level softer",),
    "Audio 2 has a high-frequency hiss and a weaker dog.": ("2 dog level softer",),
    "The high-frequency content is stronger in audio 2.": ("2 high band boosted",),
}


@pytest.mark.parametrize("text", TOLD)
def test_what_happens_in_one_recording_is_no_difference(text: str) -> None:
    """Sounds follow each other, add to a scene and have a character without a comparison."""
    assert differences(text) == set(TOLD[text])


# Differences in other words.
REWORDED: dict[str, tuple[str, ...]] = {
    "The dog has been removed in audio 2.": ("2 dog event absent",),
    "In audio 2 the dog has been replaced by a siren.": REPLACED,
    "Audio 2 lacks treble.": ("2 high band cut",),
    "The bass is missing in audio 2.": ("2 low band cut",),
    "There is an echo in audio 2 but not in audio 1.": ("2 whole reverb more",),
    "Audio 1 has noise that audio 2 lacks.": ("1 whole noise more",),
    "Unlike audio 1, audio 2 has background noise.": ("2 whole noise more",),
    "The bass is weaker in audio 2, unlike in audio 1.": ("2 low band cut",),
    "The dog is not as loud in audio 2 as in audio 1.": ("2 dog level softer",),
    "The dog is twice as loud in audio 2.": ("2 dog level louder",),
    "The clock ticks twice as fast in audio 2.": ("2 clock_tick rate faster",),
    "The footsteps slow down in audio 2.": ("2 footsteps rate slower",),
    "Audio 2 has less frequent barking.": ("2 dog count fewer",),
    "The sneeze is heard one more time in audio 2.": ("2 sneezing count more",),
    "The dog barks two times more in audio 2.": ("2 dog count more",),
}


@pytest.mark.parametrize("text", REWORDED)
def test_differences_are_read_in_other_words(text: str) -> None:
    """With "has been", with "not as", and of a band or an echo that only one recording has."""
    assert differences(text) == set(REWORDED[text])
    assert not any(one.endswith(" same") for one in said(text))

"""Sentences in the words of other people: the differences that a reader reads, and no others."""

from __future__ import annotations

import pytest

from soundpost.explain.claims import Attribute, Direction, parse


def differences(text: str) -> set[str]:
    """Return what a text says to differ, or not to, without what is merely there."""
    return {
        f"{claim.audio} {claim.what or 'whole'} {claim.attribute} {claim.direction}"
        for claim in parse(text)
        if claim.direction not in (Direction.PRESENT, Direction.SAME)
        or claim.attribute is Attribute.NOTHING
    }


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

"""The lexicon: every sound of the training clips has words, tags that exist, and is found again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import soundpost.models
from soundpost.audio.scenes import KINDS
from soundpost.explain.lexicon import (
    EVENTS,
    OTHER_EVENTS,
    alike,
    event_of,
    event_of_kind,
    find_event,
    find_events,
    tags_of,
)
from soundpost.explain.sound_words import CONFUSABLE, SOUND_PHRASES, WORDINGS
from soundpost.training.composed import SAME_NAME

COMPACT = Path(soundpost.models.__file__).parent / "weights" / "compact" / "config.json"
ALL = {**EVENTS, **OTHER_EVENTS}


def test_every_label_and_every_kind_has_an_event() -> None:
    """Labels under their names in composed scenes, synthetic kinds under the sound that they are."""
    labels = {SAME_NAME.get(label, label) for label in WORDINGS} - {"uav"}
    assert labels <= set(EVENTS)
    assert {event_of_kind(kind) for kind in KINDS} <= set(EVENTS)
    assert set(SOUND_PHRASES) <= set(EVENTS)
    assert event_of_kind("bird") == "chirping_birds"
    assert event_of_kind("dog") == "dog"
    assert event_of_kind("pump") == "pump"


def test_tags_are_those_of_the_shipped_encoder() -> None:
    """A sound without a tag, or with one that the encoder lacks, could not be checked."""
    labels = set(json.loads(COMPACT.read_text(encoding="utf-8"))["tag_labels"])
    for event in ALL.values():
        assert event.tags, event.key
        assert set(event.tags) <= labels, event.key
        assert tags_of(event.key) == event.tags
    assert tags_of("nothing known") == ()


@pytest.mark.parametrize("key", sorted(ALL))
def test_every_wording_names_its_sound(key: str) -> None:
    """Whatever a sound is called in a text, it is found by that."""
    for wording in ALL[key].wordings:
        assert find_event(wording) == key, wording
        assert find_event(f"There is {wording} somewhere") == key, wording


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ("a man speaking", "speech"),
        ("the women were talking", "speech"),
        ("two dogs barked", "dog"),
        ("the barking of a dog", "dog"),
        ("a car horn", "car_horn"),
        ("cars drive past", "traffic"),
        ("a door is knocked on", "door_wood_knock"),
        ("knocks on a wooden door", "door_wood_knock"),
        ("The Rain fell", "rain"),
        ("children's voices", "speech"),
        ("an acoustic guitar", "guitar"),
        ("it can be heard", None),
        ("", None),
    ],
)
def test_free_words_are_found(words: str, key: str | None) -> None:
    """Plural and verb forms, articles and capitals make no difference, and the longest wins."""
    assert find_event(words) == key


def test_mentions_stand_where_they_say() -> None:
    """Each mention is a span, with its article."""
    text = "First a dog is barking, then the rain falls."
    spans = [(mention.key, text[mention.start : mention.end]) for mention in find_events(text)]
    assert spans == [("dog", "a dog is barking"), ("rain", "the rain falls")]


def test_alike_is_symmetric_and_holds_for_what_training_keeps_apart() -> None:
    """Confusable sounds are alike, unlike ones are not."""
    for group in CONFUSABLE:
        assert all(alike(first, second) for first in group for second in group)
    assert all(alike(a, b) == alike(b, a) for a in EVENTS for b in EVENTS)
    assert alike("engine", "air_conditioner")
    assert alike("motor", "drone")
    assert not alike("dog", "rain")
    assert not alike("speech", "siren")


def test_words_agree_with_articles() -> None:
    """ "an engine", "a dog", "rain"; "the crickets" are plural."""
    assert EVENTS["engine"].a_thing == "an engine"
    assert EVENTS["dog"].a_thing == "a dog"
    assert EVENTS["rain"].a_thing == "rain"
    assert EVENTS["crickets"].plural
    assert event_of("guitar") is OTHER_EVENTS["guitar"]
    assert event_of("no such sound") is None


def test_character_names_no_other_sound() -> None:
    """What a sound is like would otherwise be read as another sound in the recording."""
    for event in EVENTS.values():
        assert event.character
        assert all(find_event(words) is None for words in event.character), event.key


@given(st.text(max_size=200))
def test_any_text_is_searched(text: str) -> None:
    """Mentions are in order, apart, and within the text."""
    end = 0
    for mention in find_events(text):
        assert end <= mention.start < mention.end <= len(text)
        end = mention.end

"""Claims: what sentences say is read from them, in which audio, which way, and where it stands."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.explain.claims import Attribute, Claim, Direction, parse
from soundpost.explain.lexicon import EVENTS
from soundpost.explain.phrasing import (
    ALL_NAMES,
    NOTHING,
    WORDS_OF_ALL,
    compare,
    hold,
    place,
    replace,
    sentence,
    sound,
)

Said = tuple[int, str | None, str, str]


def said(text: str) -> list[Said]:
    """Return the claims of a text without their quotes, which must be what stands there."""
    claims = parse(text)
    assert all(claim.quote == text[claim.start : claim.end] for claim in claims)
    return [(c.audio, c.what, c.attribute.value, c.direction.value) for c in claims]


SENTENCES: list[tuple[str, list[Said]]] = [
    (
        "Audio 1 features a man speaking while rain falls, whereas audio 2 has only birds chirping.",
        [
            (1, "speech", "event", "present"),
            (1, "rain", "event", "present"),
            (2, "chirping_birds", "event", "present"),
        ],
    ),
    (
        "In audio 2 the dog is louder and a siren is added.",
        [(2, "dog", "level", "louder"), (2, "siren", "event", "only")],
    ),
    (
        "Audio 2 adds a siren to the rain; both have a dog barking.",
        [
            (2, "siren", "event", "only"),
            (2, "rain", "event", "present"),
            (0, "dog", "event", "present"),
        ],
    ),
    (
        "The dog is much louder in audio 2 than in audio 1; rain falls in both.",
        [(2, "dog", "level", "louder"), (0, "rain", "event", "present")],
    ),
    ("The dog is louder than in audio 1.", [(2, "dog", "level", "louder")]),
    ("Compared with the second recording, the first is softer.", [(1, None, "level", "softer")]),
    (
        "The dog is replaced by a siren in audio 2.",
        [(1, "dog", "event", "only"), (2, "siren", "event", "only")],
    ),
    (
        "A siren replaces the dog in audio 2, while rain goes on in both.",
        [
            (2, "siren", "event", "only"),
            (1, "dog", "event", "only"),
            (0, "rain", "event", "present"),
        ],
    ),
    (
        "Where audio 1 has a dog, audio 2 has a siren instead.",
        [(1, "dog", "event", "only"), (2, "siren", "event", "only")],
    ),
    (
        "In place of the dog, audio 2 has a siren.",
        [(1, "dog", "event", "only"), (2, "siren", "event", "only")],
    ),
    (
        "Only the second recording has a dog and a siren.",
        [(2, "dog", "event", "only"), (2, "siren", "event", "only")],
    ),
    ("The first recording holds a siren that the second lacks.", [(1, "siren", "event", "only")]),
    ("A dog is heard in audio 1 but not in audio 2.", [(1, "dog", "event", "only")]),
    ("Unlike audio 1, audio 2 has a dog.", [(2, "dog", "event", "only")]),
    ("The siren is no longer heard in audio 2.", [(2, "siren", "event", "absent")]),
    ("Missing from audio 2 is the dog.", [(2, "dog", "event", "absent")]),
    (
        "Audio 1 is a recording of rain without wind or thunder.",
        [
            (1, "rain", "event", "present"),
            (1, "wind", "event", "absent"),
            (1, "thunderstorm", "event", "absent"),
        ],
    ),
    (
        "Audio 2 has a louder dog and no rain.",
        [(2, "dog", "level", "louder"), (2, "rain", "event", "absent")],
    ),
    (
        "The former has a cat, the latter a dog.",
        [(1, "cat", "event", "present"), (2, "dog", "event", "present")],
    ),
    (
        "A dog barks in both, but it comes earlier in the second recording.",
        [(0, "dog", "event", "present"), (2, "dog", "time", "earlier")],
    ),
    (
        "The dog is heard more often in audio 1, and the pitch of the siren is higher.",
        [(1, "dog", "count", "more"), (1, "siren", "pitch", "higher")],
    ),
    (
        "The dog and the siren are louder in audio 2.",
        [(2, "dog", "level", "louder"), (2, "siren", "level", "louder")],
    ),
    (
        "Audio 2 has less treble and more background noise.",
        [(2, "high", "band", "cut"), (2, None, "noise", "more")],
    ),
    (
        "The low frequencies are weaker in the second recording.",
        [(2, "low", "band", "cut")],
    ),
    (
        "Audio 2 is louder and brighter, with more echo.",
        [
            (2, None, "level", "louder"),
            (2, None, "pitch", "higher"),
            (2, None, "reverb", "more"),
        ],
    ),
    ("Audio 2 is 6.2 dB louder than audio 1.", [(2, None, "level", "louder")]),
    (
        "Compared with audio 1, the engine runs faster and higher in audio 2.",
        [(2, "engine", "rate", "faster"), (2, "engine", "pitch", "higher")],
    ),
    ("The theremin is louder in audio 2.", [(2, "theremin", "level", "louder")]),
    ("The dog is not louder in audio 2.", [(2, "dog", "event", "present")]),
    ("The dog is as loud in audio 2.", [(2, "dog", "level", "same")]),
    ("Otherwise the two recordings are the same.", []),
    ("Nothing of what is said here can be checked at all.", []),
    ("", []),
]


@pytest.mark.parametrize(("text", "expected"), SENTENCES, ids=[text for text, _ in SENTENCES])
def test_sentences_say_what_a_reader_would_read(text: str, expected: list[Said]) -> None:
    """Every claim is found, in its audio and its direction, and none is made up."""
    assert said(text) == expected


@pytest.mark.parametrize("text", NOTHING)
def test_no_difference_is_read_in_every_wording(text: str) -> None:
    """Such a text claims that nothing differs, and of which sounds it is true."""
    assert said(sentence(text)) == [(0, None, "nothing", "same")]
    told = said(f"{sentence(text)} Both hold a dog barking.")
    assert told == [(0, None, "nothing", "same"), (0, "dog", "event", "present")]


def test_change_is_that_of_audio_2() -> None:
    """Softer in audio 1 is louder in audio 2; what has no direction changes nothing."""
    for audio, direction, change in (
        (2, Direction.LOUDER, 1),
        (1, Direction.LOUDER, -1),
        (1, Direction.SOFTER, 1),
        (0, Direction.LOUDER, 0),
    ):
        assert Claim(audio, None, Attribute.LEVEL, direction).change == change
    assert Claim(2, "dog", Attribute.TIME, Direction.EARLIER).change == -1
    assert Claim(2, "dog", Attribute.EVENT, Direction.ONLY).change == 0


@pytest.mark.parametrize(("attribute", "direction"), list(WORDS_OF_ALL))
def test_statements_of_the_grammar_are_read_back(
    attribute: Attribute, direction: Direction
) -> None:
    """Whatever wording is drawn, the claim is the one that was to be said."""
    rng = np.random.default_rng(7)
    whats = ["dog", "crickets", "door_wood_knock", None]
    if attribute is Attribute.BAND:
        whats = ["low", "middle", "high"]
    if attribute in (Attribute.REVERB, Attribute.NOISE):
        whats = [None]
    if attribute in (Attribute.TIME, Attribute.COUNT, Attribute.RATE):
        whats = whats[:3]
    for turn in range(40):
        names, audio, what = ALL_NAMES[turn % 5], 1 + turn % 2, whats[turn % len(whats)]
        text = sentence(compare(what, attribute, direction, audio, names, rng, turn % 3))
        claims = said(text)
        assert (audio, what, attribute.value, direction.value) in claims, text
        assert len(claims) == 1, text


@given(st.sampled_from(sorted(EVENTS)), st.sampled_from(sorted(EVENTS)), st.integers(0, 2**32))
def test_statements_of_what_is_there_are_read_back(key: str, other: str, seed: int) -> None:
    """Every sound, in every wording of being only in one, missing, replaced, or in both."""
    rng = np.random.default_rng(seed)
    names, audio = ALL_NAMES[seed % 5], 1 + seed % 2
    only = said(sentence(place(key, Direction.ONLY, audio, names, rng)))
    assert only == [(audio, key, "event", "only")]
    absent = said(sentence(place(key, Direction.ABSENT, audio, names, rng)))
    assert absent == [(audio, key, "event", "absent")]
    both = said(sentence(hold("both recordings", [sound(key).doing], rng)))
    assert both == [(0, key, "event", "present")]
    if key != other:
        replaced = said(sentence(replace(key, other, names, rng)))
        assert set(replaced) == {(1, key, "event", "only"), (2, other, "event", "only")}


WORDS = st.sampled_from(
    [
        "audio",
        "1",
        "2",
        "the",
        "first",
        "second",
        "recording",
        "both",
        "only",
        "no",
        "longer",
        "without",
        "dog",
        "rain",
        "a",
        "siren",
        "louder",
        "than",
        "is",
        "are",
        ",",
        ".",
        ";",
        "and",
        "but",
        "while",
        "instead",
        "of",
        "replaced",
        "by",
        "missing",
        "in",
        "more",
        "less",
        "noise",
        "echo",
        "bass",
        "it",
        "not",
        "compared",
        "with",
        "whereas",
        "also",
        "adds",
        "that",
        "lacks",
        "unlike",
        "same",
        "difference",
        "no",
    ]
)


@given(st.one_of(st.text(max_size=300), st.lists(WORDS, max_size=30).map(" ".join)))
def test_any_text_is_read(text: str) -> None:
    """No text is an error, and every quote is a span of it that holds words."""
    for claim in parse(text):
        assert claim.quote == text[claim.start : claim.end]
        assert claim.quote.strip()
        assert claim.audio in (0, 1, 2)

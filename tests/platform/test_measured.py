"""What the measurements say alone: a summary in numbers, and texts whose every claim is borne out."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from numpy.typing import NDArray

from soundpost.audio.scenes import Event, Scene
from soundpost.explain.check import Verdict, check
from soundpost.explain.claim import Attribute, Direction
from soundpost.explain.claims import parse
from soundpost.explain.lexicon import alike as same_sound
from soundpost.explain.listening import Listening, listen
from soundpost.explain.measured import alike, compose, measurements, nothing_differs, summary
from soundpost.models.compact import CompactEncoder

FloatArray = NDArray[np.float32]
RATE_HZ = 16_000
RAIN = Event("rain", 0.0, 5.0, -34.0)
ALARM = Event("alarm", 1.0, 2.5, -24.0)


@lru_cache(maxsize=1)
def encoder() -> CompactEncoder:
    return CompactEncoder.load(threads=1)


def scene(*events: Event) -> FloatArray:
    return np.asarray(Scene(events, 5.0, RATE_HZ, seed=3).render().wave, np.float32)


@lru_cache(maxsize=8)
def heard(name: str) -> tuple[Listening, Listening]:
    rain = scene(RAIN)
    second = {
        "alarm": scene(RAIN, ALARM),
        "louder": rain * np.float32(3.0),
        "a little louder": rain * np.float32(1.06),
        "another noise": rain + 1e-6 * np.random.default_rng(0).standard_normal(len(rain)),
        "the same": rain,
        "silence": np.zeros_like(rain),
        "short": rain[: RATE_HZ // 3],
    }[name]
    one, other = listen(encoder(), [rain, second.astype(np.float32)], RATE_HZ)
    return one, other


# --- the summary ------------------------------------------------------------------------------


def test_the_summary_gives_numbers_with_their_units() -> None:
    said = summary(*heard("louder"))
    assert said == summary(*heard("louder"))
    assert "9.5 dB louder (A-weighted)" in said
    assert "9.5 dB quieter" in summary(*heard("louder")[::-1])
    assert "now sounds like" in summary(*heard("alarm"))
    assert "0.3 s long instead of 5.0 s" in summary(*heard("short"))


def test_the_summary_of_what_is_alike_says_so() -> None:
    assert summary(*heard("the same")) == summary(*heard("a little louder"))
    assert "no audible difference" in summary(*heard("the same"))


def test_measurements_are_a_document_of_finite_numbers() -> None:
    document = measurements(*heard("louder"))
    assert document["levels_db"]["a_level_dbfs"] == pytest.approx(9.54, abs=0.05)
    assert document["durations_s"] == [5.0, 5.0]
    assert np.isfinite(measurements(*heard("silence"))["levels_db"]["level_dbfs"])


# --- alike ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("the same", True),
        ("a little louder", True),
        ("another noise", True),
        ("louder", False),
        ("alarm", False),
        ("silence", False),
        ("short", False),
    ],
)
def test_alike_is_what_nobody_can_tell_apart(name: str, same: bool) -> None:
    first, second = heard(name)
    assert alike(first, second) is same
    assert alike(second, first) is same


def test_two_silences_are_alike() -> None:
    _, silence = heard("silence")
    assert alike(silence, silence)


# --- composed texts ---------------------------------------------------------------------------


@pytest.mark.parametrize("tier", [1, 2, 3])
@pytest.mark.parametrize("name", ["alarm", "louder", "silence", "short", "the same"])
def test_every_claim_of_a_composed_text_is_supported(name: str, tier: int) -> None:
    first, second = heard(name)
    text = compose(first, second, encoder(), tier)
    checked = check(parse(text), first, second, encoder())
    assert text.endswith(".")
    assert [one for one in checked if one.verdict is not Verdict.SUPPORTED] == []


def test_what_is_plain_is_said_of_the_right_audio() -> None:
    first, second = heard("alarm")
    for pair, audio in (((first, second), 2), ((second, first), 1)):
        claims = parse(compose(*pair, encoder(), 1))
        only = [one for one in claims if one.direction is Direction.ONLY]
        assert [one.audio for one in only] == [audio]
        assert same_sound(only[0].what or "", "alarm")
    (louder,) = [one for one in parse(compose(*heard("louder"), encoder(), 2)) if one.what is None][
        :1
    ]
    assert (louder.attribute, louder.change) == (Attribute.LEVEL, 1)


def test_nothing_is_said_to_differ_where_nothing_does() -> None:
    first, second = heard("a little louder")
    for tier in (1, 2, 3):
        text = compose(first, second, encoder(), tier)
        assert text == nothing_differs(tier)
        assert {one.attribute for one in parse(text)} == {Attribute.NOTHING}


def test_the_same_pair_is_told_in_the_same_words_and_more_in_a_higher_tier() -> None:
    first, second = heard("alarm")
    texts = [compose(first, second, encoder(), tier) for tier in (1, 3)]
    assert texts == [compose(first, second, encoder(), tier) for tier in (1, 3)]
    assert len(texts[1]) > len(texts[0])

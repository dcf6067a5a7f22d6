"""Explaining pairs: what is written again, what is dropped, what is never asked, which seconds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from soundpost.audio.scenes import Event, Scene
from soundpost.config import Settings
from soundpost.errors import (
    ExplainerNotFoundError,
    InvalidValueError,
    NonFiniteSamplesError,
    NoSamplesError,
    TooShortError,
)
from soundpost.explain.check import Verdict
from soundpost.explain.difference import (
    DifferenceExplainer,
    Excerpt,
    Explanation,
    FixedWriter,
    load_explainer,
)
from soundpost.explain.excerpts import choose
from soundpost.models.compact import CompactEncoder
from soundpost.models.placeholder import ToneEncoder

FloatArray = NDArray[np.float32]
RATE_HZ = 16_000
RAIN, ALARM = Event("rain", 0.0, 5.0, -34.0), Event("alarm", 1.0, 2.5, -24.0)

TRUE = "An alarm is heard only in audio 2."
FALSE = "A cow is heard only in audio 2."
TURNED = "An alarm is heard only in audio 1."


@lru_cache(maxsize=1)
def encoder() -> CompactEncoder:
    return CompactEncoder.load(threads=1)


@lru_cache(maxsize=1)
def pair() -> tuple[Excerpt, Excerpt]:
    waves = [
        np.asarray(Scene(events, 5.0, RATE_HZ, seed=3).render().wave, np.float32)
        for events in ((RAIN,), (RAIN, ALARM))
    ]
    return Excerpt(waves[0], RATE_HZ), Excerpt(waves[1], RATE_HZ)


def explain(writer: FixedWriter | None, tiers: Sequence[int] = (1,)) -> Explanation:
    return DifferenceExplainer(encoder(), writer).explain(*pair(), tiers)


def tone(seconds: float, hz: float = 440.0, peak: float = 0.1, rate_hz: int = RATE_HZ) -> Excerpt:
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    return Excerpt((peak * np.sin(2 * np.pi * hz * time_s)).astype(np.float32), rate_hz)


# --- writing again ----------------------------------------------------------------------------


def test_a_text_that_the_recordings_bear_out_is_kept_as_it_is() -> None:
    writer = FixedWriter({1: [TRUE]})
    made = explain(writer)
    text = made.tiers[1]
    assert (text.text, text.written_by, text.attempts, text.excluded) == (TRUE, "model", 1, ())
    assert [one.verdict for one in text.claims] == [Verdict.SUPPORTED]
    assert (made.model, made.revision) == ("fixed", "1")
    assert writer.calls == [((1,), ())]
    assert "dB" in made.summary


@pytest.mark.parametrize("wrong", [[FALSE], [FALSE, TURNED]])
def test_a_contradicted_text_is_written_again_without_it(wrong: list[str]) -> None:
    writer = FixedWriter({1: [*wrong, TRUE]})
    text = explain(writer).tiers[1]
    assert (text.text, text.written_by, text.attempts) == (TRUE, "model", len(wrong) + 1)
    assert len(text.excluded) == len(wrong)
    asked = [banned for _, banned in writer.calls]
    assert asked[0] == ()
    assert all(words in asked[-1] for words in text.excluded)


def test_after_two_more_tries_measurements_speak_and_say_so() -> None:
    writer = FixedWriter({1: [FALSE, TURNED, "Only audio 1 holds an alarm.", TRUE]})
    made = explain(writer)
    text = made.tiers[1]
    assert len(writer.calls) == 3
    assert (text.written_by, text.attempts) == ("measurements", 3)
    assert (made.model, made.revision) == (None, None)
    assert "alarm" in text.text
    assert {one.verdict for one in text.claims} == {Verdict.SUPPORTED}
    assert len(text.excluded) == 3


def test_a_name_that_is_heard_nowhere_is_banned_with_its_words() -> None:
    writer = FixedWriter({1: [FALSE, TRUE]})
    explain(writer)
    assert "cow" in writer.calls[1][1]


def test_sentences_at_fault_are_dropped_where_the_rest_stands() -> None:
    both = f"{TRUE} {FALSE}"
    writer = FixedWriter({3: [both, f"{TRUE} {TURNED}", f"{FALSE} {TURNED}"]})
    text = explain(writer, (3,)).tiers[3]
    assert text.text == TRUE
    assert text.written_by == "model"
    assert text.excluded
    assert not text.contradicted


@pytest.mark.parametrize(
    "joined",
    [
        f"{TRUE[:-1]}; a cow is heard only in audio 2.",
        f"{TRUE[:-1]}, while a cow is heard only in audio 1.",
        f"A cow is heard only in audio 1, whereas an alarm is heard only in audio 2. {FALSE}",
    ],
)
def test_of_a_sentence_the_statement_at_fault_alone_is_dropped(joined: str) -> None:
    text = explain(FixedWriter({1: [joined]})).tiers[1]
    assert text.text == TRUE
    assert text.written_by == "model"


def test_of_a_text_that_was_written_again_nothing_unchecked_is_believed() -> None:
    evasive = f"{TRUE} The whole goes on and on."
    assert explain(FixedWriter({1: [evasive]})).tiers[1].text == evasive
    text = explain(FixedWriter({1: [FALSE, evasive]})).tiers[1]
    assert (text.text, text.attempts) == (TRUE, 2)


def test_a_writer_that_says_nothing_or_no_claim_is_not_believed() -> None:
    for empty in ("", "Sounds are wonderful."):
        text = explain(FixedWriter({1: [empty]})).tiers[1]
        assert text.written_by == "measurements"
        assert text.claims


def test_tiers_that_stand_are_not_written_again() -> None:
    writer = FixedWriter({1: [TRUE], 2: [FALSE, TRUE], 3: [TRUE]})
    made = explain(writer, (1, 2, 3))
    assert [tiers for tiers, _ in writer.calls] == [(1, 2, 3), (2,)]
    assert [made.tiers[tier].attempts for tier in (1, 2, 3)] == [1, 2, 1]


def test_nothing_differs_is_contradicted_where_something_does() -> None:
    silent = "No audible difference between the two recordings."
    text = explain(FixedWriter({1: [silent, TRUE]})).tiers[1]
    assert (text.text, text.attempts) == (TRUE, 2)


def test_what_is_measured_beyond_doubt_and_left_out_is_added_and_said() -> None:
    first, second = pair()
    softer = Excerpt(second.wave * np.float32(0.1), RATE_HZ)
    made = DifferenceExplainer(encoder(), FixedWriter({1: [TRUE]})).explain(first, softer, (1,))
    text = made.tiers[1]
    assert text.written_by == "model"
    assert text.added
    assert text.text == " ".join([TRUE, *text.added])
    assert any(word in text.added[0] for word in ("softer", "quieter"))
    assert {one.verdict for one in text.claims} == {Verdict.SUPPORTED}
    # An alarm makes it louder: that follows, and is not said again.
    assert explain(FixedWriter({1: [TRUE]})).tiers[1].added == ()


@pytest.mark.parametrize(("sure", "kept"), [(0.99, True), (0.9, False)])
def test_what_cannot_be_measured_is_kept_where_the_writer_is_sure_of_it(
    sure: float, kept: bool
) -> None:
    vague = f"{TRUE} The rain is faster in audio 2."
    text = explain(FixedWriter({1: [vague]}, sure)).tiers[1]
    doubtful = [one for one in text.claims if one.verdict is Verdict.NOT_MEASURABLE]
    assert bool(doubtful) is kept
    assert text.text == (vague if kept else TRUE)


# --- what is never asked ----------------------------------------------------------------------


def test_identical_and_nearly_identical_recordings_yield_no_difference() -> None:
    first, second = pair()
    nearly = second.wave * np.float32(1.03) + np.float32(1e-5)
    for one, other in ((first, first), (second, Excerpt(nearly, RATE_HZ))):
        writer = FixedWriter({tier: [FALSE] for tier in (1, 2, 3)})
        made = DifferenceExplainer(encoder(), writer).explain(one, other)
        assert writer.calls == []
        assert (made.model, made.revision) == (None, None)
        for text in made.tiers.values():
            assert "no audible difference" in text.text.lower()
            assert (text.written_by, text.attempts) == ("measurements", 0)
            assert [one.verdict for one in text.claims] == [Verdict.SUPPORTED]
        assert "no audible difference" in made.summary


def test_without_a_writer_measurements_speak() -> None:
    made = explain(None, (1, 2, 3))
    assert (made.model, made.revision) == (None, None)
    assert {text.written_by for text in made.tiers.values()} == {"measurements"}
    assert all("alarm" in text.text for text in made.tiers.values())


# --- bad input --------------------------------------------------------------------------------


def test_what_cannot_be_heard_is_refused() -> None:
    explainer = DifferenceExplainer(ToneEncoder(), None)
    broken = tone(1.0)
    broken.wave[3] = np.inf
    for bad, error in (
        (Excerpt(np.zeros(0, np.float32), RATE_HZ), NoSamplesError),
        (broken, NonFiniteSamplesError),
        (Excerpt(np.ones(1, np.float32), 192_000), TooShortError),
    ):
        for one, other in ((bad, tone(1.0)), (tone(1.0), bad)):
            with pytest.raises(error):
                explainer.explain(one, other)


def test_silence_on_one_side_and_on_both() -> None:
    explainer = DifferenceExplainer(encoder(), None)
    silence = Excerpt(np.zeros(5 * RATE_HZ, np.float32), RATE_HZ)
    made = explainer.explain(silence, pair()[1], (1, 3))
    assert not any(text.contradicted for text in made.tiers.values())
    assert "audio 2" in made.tiers[1].text.lower()
    both = explainer.explain(silence, silence, (1,))
    assert "no audible difference" in both.tiers[1].text.lower()


def test_rates_and_lengths_may_differ() -> None:
    explainer = DifferenceExplainer(ToneEncoder(), None)
    same = explainer.explain(tone(4.0), tone(4.0, rate_hz=48_000), (1,))
    assert "no audible difference" in same.tiers[1].text.lower()
    scrap = explainer.explain(tone(0.3), tone(9.0, rate_hz=8_000), (1,))
    assert scrap.compared == ((0.0, 0.3), (0.0, 9.0))
    assert "9.0 s long instead of 0.3 s" in scrap.summary


def test_of_long_recordings_what_is_new_is_compared_and_said_which() -> None:
    rng = np.random.default_rng(0)
    long = Excerpt((0.01 * rng.standard_normal(95 * RATE_HZ)).astype(np.float32), RATE_HZ, 100.0)
    long.wave[62 * RATE_HZ : 66 * RATE_HZ] += tone(4.0).wave
    usual = Excerpt((0.01 * rng.standard_normal(40 * RATE_HZ)).astype(np.float32), RATE_HZ)
    made = DifferenceExplainer(ToneEncoder(), None).explain(usual, long, (1,))
    (_, _), (start_s, end_s) = made.compared
    assert (start_s, end_s) == (160.0, 170.0)
    assert all(end - start <= 10.0 for start, end in made.compared)


@pytest.mark.parametrize("seconds", [10.5, 31.0, 3_600.0])
def test_a_second_is_compared_with_the_second_that_is_nearest_to_it_or_least_like_it(
    seconds: float,
) -> None:
    rate_hz = 1_000
    long = Excerpt(np.zeros(round(seconds * rate_hz), np.float32), rate_hz)
    long.wave[7_000:8_000] = tone(1.0, rate_hz=rate_hz).wave
    one, other = choose(tone(1.0, rate_hz=rate_hz), long)
    assert one.span_s == (0.0, 1.0)
    assert other.duration_s == 1.0


# --- documents and settings -------------------------------------------------------------------


def test_an_explanation_survives_its_document() -> None:
    made = explain(FixedWriter({1: [TRUE], 2: [FALSE]}), (1, 2))
    document = json.loads(json.dumps(made.to_document()))
    again = Explanation.from_document(document)
    assert again.to_document() == document
    assert again.tiers[1].claims[0].claim == made.tiers[1].claims[0].claim
    assert (again.encoder, again.encoder_revision) == ("compact", encoder().spec.revision)
    with pytest.raises(InvalidValueError):
        Explanation.from_document({"tiers": {}})


def test_the_settings_say_who_explains(tmp_path: Path) -> None:
    off = load_explainer(Settings(home=tmp_path, explainer="off"), ToneEncoder())
    assert off.writer is None
    assert (off.name, off.revision) == ("measurements", "1")
    # The shipped network is for the shipped encoder.
    assert load_explainer(Settings(home=tmp_path), ToneEncoder()).writer is None
    with pytest.raises(ExplainerNotFoundError) as caught:
        load_explainer(Settings(home=tmp_path, explainer=str(tmp_path)), ToneEncoder())
    assert "SOUNDPOST_EXPLAINER" in caught.value.remedy

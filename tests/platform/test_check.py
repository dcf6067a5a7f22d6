"""Checking claims: of each attribute the true claim is borne out, and the false one is caught."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from numpy.typing import NDArray

from soundpost.audio.scenes import Event, Scene
from soundpost.errors import InvalidValueError
from soundpost.explain.check import Checked, Verdict, check
from soundpost.explain.claim import Attribute, Claim, Direction
from soundpost.explain.claims import parse
from soundpost.explain.listening import Listening, listen
from soundpost.models.compact import CompactEncoder
from soundpost.models.placeholder import ToneEncoder

FloatArray = NDArray[np.float32]
Pair = tuple[FloatArray, FloatArray]
RATE_HZ = 16_000
SECONDS = 5.0


@lru_cache(maxsize=1)
def encoder() -> CompactEncoder:
    return CompactEncoder.load(threads=1)


# --- pairs that differ in exactly one thing: audio 2 has more of it -------------------------------


def scene(*events: Event, noise_dbfs: float = -65.0) -> FloatArray:
    rendered = Scene(events, SECONDS, RATE_HZ, noise_dbfs=noise_dbfs, seed=7).render()
    return np.asarray(rendered.wave, np.float32)


def knocks(*starts_s: float) -> tuple[Event, ...]:
    one = {"knocks_per_s": 0.5}
    return tuple(Event("knock", start_s, 0.25, -20.0, one) for start_s in starts_s)


def without_treble(wave: FloatArray) -> FloatArray:
    spectrum, hz = np.fft.rfft(wave), np.fft.rfftfreq(len(wave), 1.0 / RATE_HZ)
    spectrum[hz >= 2_000.0] *= 10.0 ** (-15.0 / 20.0)
    return np.fft.irfft(spectrum, len(wave)).astype(np.float32)


def reverberant(wave: FloatArray, rt60_s: float = 1.2) -> FloatArray:
    time_s = np.arange(round(rt60_s * RATE_HZ)) / RATE_HZ
    room = np.random.default_rng(1).standard_normal(len(time_s)) * 10.0 ** (-3.0 * time_s / rt60_s)
    room *= 1.4 / np.sqrt(np.square(room).sum())
    room[0] += 1.0
    length = len(wave) + len(room)
    made = np.fft.irfft(np.fft.rfft(wave, length) * np.fft.rfft(room, length), length)
    return (made[: len(wave)] / 1.7).astype(np.float32)


def noisy(wave: FloatArray) -> FloatArray:
    noise = np.random.default_rng(2).standard_normal(len(wave))
    return (wave + 0.01 * noise).astype(np.float32)


def pair_of(name: str) -> Pair:
    rain, alarm = Event("rain", 0.0, 5.0, -42.0), Event("alarm", 1.0, 2.0, -30.0)
    calm = scene(rain, alarm)
    dogs = [scene(rain, Event("dog", 1.0, 2.0, level)) for level in (-32.0, -20.0)]
    moved = [scene(Event("dog", at_s, 1.5, -22.0)) for at_s in (0.5, 2.8)]
    ticks = [scene(Event("clock", 0.2, 4.6, -24.0, {"ticks_per_s": n})) for n in (2.0, 3.0)]
    beeps = [
        scene(Event("alarm", 0.5, 4.0, -24.0, {"pitch_hz": hz, "beeps_per_s": 2.0}))
        for hz in (900.0, 1_200.0)
    ]
    bright = scene(Event("rain", 0.0, 5.0, -28.0), Event("bird", 1.0, 2.0, -24.0))
    knocking = scene(*knocks(0.5, 1.7, 3.1), noise_dbfs=-75.0)
    return {
        "level": (calm, calm * np.float32(2.0)),
        "sound level": (dogs[0], dogs[1]),
        "time": (moved[0], moved[1]),
        "count": (scene(*knocks(1.0)), scene(*knocks(1.0, 1.9, 2.8))),
        "rate": (ticks[0], ticks[1]),
        "pitch": (beeps[0], beeps[1]),
        "band": (without_treble(bright), bright),
        "reverb": (knocking, reverberant(knocking)),
        "noise": (knocking, noisy(knocking)),
    }[name]


@lru_cache(maxsize=16)
def heard(name: str) -> tuple[Listening, Listening]:
    first, second = listen(encoder(), pair_of(name), RATE_HZ)
    return first, second


def judge(claim: Claim, pair: tuple[Listening, Listening]) -> Checked:
    return check([claim], *pair, encoder())[0]


# --- directions -------------------------------------------------------------------------------

DIFFERENT = [
    ("level", None, Attribute.LEVEL, Direction.LOUDER, Direction.SOFTER),
    ("sound level", "dog", Attribute.LEVEL, Direction.LOUDER, Direction.SOFTER),
    ("time", "dog", Attribute.TIME, Direction.LATER, Direction.EARLIER),
    ("count", "door_wood_knock", Attribute.COUNT, Direction.MORE, Direction.FEWER),
    ("rate", "clock_tick", Attribute.RATE, Direction.FASTER, Direction.SLOWER),
    ("pitch", "alarm", Attribute.PITCH, Direction.HIGHER, Direction.LOWER),
    ("band", None, Attribute.PITCH, Direction.HIGHER, Direction.LOWER),
    ("band", "high", Attribute.BAND, Direction.BOOSTED, Direction.CUT),
    ("reverb", None, Attribute.REVERB, Direction.MORE, Direction.LESS),
    ("noise", None, Attribute.NOISE, Direction.MORE, Direction.LESS),
]


@pytest.mark.parametrize(("name", "what", "attribute", "more", "less"), DIFFERENT)
def test_the_true_direction_is_supported_and_the_other_contradicted(
    name: str, what: str | None, attribute: Attribute, more: Direction, less: Direction
) -> None:
    pair = heard(name)
    for audio, true, false in ((2, more, less), (1, less, more)):
        right = judge(Claim(audio, what, attribute, true), pair)
        wrong = judge(Claim(audio, what, attribute, false), pair)
        assert right.verdict is Verdict.SUPPORTED, right
        assert wrong.verdict is Verdict.CONTRADICTED, wrong
        assert right.measurement == wrong.measurement
        assert right.measurement and right.reason
        # The same seen from the other side.
        turned = judge(Claim(3 - audio, what, attribute, true), (pair[1], pair[0]))
        assert turned.verdict is Verdict.SUPPORTED


@pytest.mark.parametrize(
    ("what", "attribute", "direction"),
    [
        (None, Attribute.LEVEL, Direction.LOUDER),
        ("alarm", Attribute.PITCH, Direction.HIGHER),
        ("low", Attribute.BAND, Direction.CUT),
        (None, Attribute.REVERB, Direction.MORE),
        (None, Attribute.NOISE, Direction.LESS),
    ],
)
def test_what_did_not_change_is_not_said_to(
    what: str | None, attribute: Attribute, direction: Direction
) -> None:
    same = heard("level")[0], heard("level")[0]
    assert judge(Claim(2, what, attribute, direction), same).verdict is Verdict.CONTRADICTED


def test_sameness_is_checked_too() -> None:
    pair = heard("level")
    louder = judge(Claim(2, None, Attribute.LEVEL, Direction.SAME), pair)
    same = judge(Claim(2, None, Attribute.LEVEL, Direction.SAME), (pair[0], pair[0]))
    assert (louder.verdict, same.verdict) == (Verdict.CONTRADICTED, Verdict.SUPPORTED)
    assert louder.measurement["change_db"] == pytest.approx(6.02, abs=0.05)
    assert "dBFS in audio 1" in louder.reason


def test_a_bands_name_must_be_known() -> None:
    claim = Claim(2, "ultrasonic", Attribute.BAND, Direction.CUT)
    assert judge(claim, heard("band")).verdict is Verdict.NOT_MEASURABLE


# --- sounds -----------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def rain_and_siren() -> tuple[Listening, Listening]:
    rain, bell = Event("rain", 0.0, 5.0, -26.0), Event("alarm", 0.5, 4.0, -26.0)
    first, second = listen(encoder(), [scene(rain), scene(bell)], RATE_HZ)
    return first, second


@pytest.mark.parametrize(
    ("claim", "verdict"),
    [
        (Claim(1, "rain", Attribute.EVENT, Direction.ONLY), Verdict.SUPPORTED),
        (Claim(2, "rain", Attribute.EVENT, Direction.ONLY), Verdict.CONTRADICTED),
        (Claim(1, "rain", Attribute.EVENT, Direction.PRESENT), Verdict.SUPPORTED),
        (Claim(2, "rain", Attribute.EVENT, Direction.ABSENT), Verdict.SUPPORTED),
        (Claim(1, "rain", Attribute.EVENT, Direction.ABSENT), Verdict.CONTRADICTED),
        (Claim(2, "alarm", Attribute.EVENT, Direction.ONLY), Verdict.SUPPORTED),
        (Claim(0, "rain", Attribute.EVENT, Direction.PRESENT), Verdict.CONTRADICTED),
        (Claim(1, "cow", Attribute.EVENT, Direction.PRESENT), Verdict.CONTRADICTED),
        (Claim(2, "cow", Attribute.EVENT, Direction.ONLY), Verdict.CONTRADICTED),
        (Claim(0, "cow", Attribute.EVENT, Direction.ABSENT), Verdict.SUPPORTED),
        (Claim(2, "cow", Attribute.LEVEL, Direction.LOUDER), Verdict.CONTRADICTED),
        (Claim(2, "rain", Attribute.LEVEL, Direction.LOUDER), Verdict.NOT_MEASURABLE),
    ],
    ids=lambda value: str(value) if isinstance(value, Verdict) else f"{value.audio} {value.what}",
)
def test_sounds_are_checked_by_what_the_encoder_hears(claim: Claim, verdict: Verdict) -> None:
    checked = judge(claim, rain_and_siren())
    assert checked.verdict is verdict, checked
    assert all(0.0 <= value <= 1.0 for value in checked.measurement.values())


def test_a_sound_in_both_is_not_only_in_one() -> None:
    one = rain_and_siren()[0]
    for audio in (1, 2):
        claim = Claim(audio, "rain", Attribute.EVENT, Direction.ONLY)
        assert judge(claim, (one, one)).verdict is Verdict.CONTRADICTED
    both = Claim(0, "rain", Attribute.EVENT, Direction.PRESENT)
    assert judge(both, (one, one)).verdict is Verdict.SUPPORTED


def test_free_words_are_checked_by_any_encoder_without_tags_in_time() -> None:
    time_s = np.arange(4 * RATE_HZ) / RATE_HZ
    tones = [(0.1 * np.sin(2 * np.pi * hz * time_s)).astype(np.float32) for hz in (440.0, 3_000.0)]
    first, second = listen(ToneEncoder(), tones, RATE_HZ)
    only = Direction.ONLY
    claims = [Claim(audio, "440 hz tone", Attribute.EVENT, only) for audio in (1, 2)]
    verdicts = [one.verdict for one in check(claims, first, second, ToneEncoder())]
    assert verdicts == [Verdict.SUPPORTED, Verdict.CONTRADICTED]


# --- nothing ----------------------------------------------------------------------------------


def test_nothing_differs_only_where_nothing_does() -> None:
    nothing = Claim(0, None, Attribute.NOTHING, Direction.SAME)
    for name in ("level", "time", "band", "noise", "pitch"):
        first, second = heard(name)
        assert judge(nothing, (first, second)).verdict is Verdict.CONTRADICTED
        assert judge(nothing, (second, second)).verdict is Verdict.SUPPORTED


# --- texts and documents ----------------------------------------------------------------------


def test_a_whole_text_is_checked_claim_by_claim() -> None:
    text = "Rain is heard only in audio 1. Audio 2 is softer than audio 1. A cow moos in audio 2."
    claims = parse(text)
    checked = check(claims, *rain_and_siren(), encoder())
    assert [one.claim for one in checked] == list(claims)
    verdicts = {one.claim.what: one.verdict for one in checked}
    assert verdicts["rain"] is Verdict.SUPPORTED
    assert verdicts["cow"] is Verdict.CONTRADICTED


def test_a_checked_claim_survives_its_document() -> None:
    claim = Claim(2, "rain", Attribute.EVENT, Direction.ONLY, "only rain", 3, 12)
    stored = Checked(claim, Verdict.CONTRADICTED, {"heard_here": 0.25}, "why")
    assert Checked.from_document(stored.to_document()) == stored
    with pytest.raises(InvalidValueError):
        Checked.from_document({"audio": 1})


@pytest.mark.parametrize("seconds", [0.3, 0.02])
def test_scraps_and_silence_are_checked_without_numbers_that_are_none(seconds: float) -> None:
    scrap = np.zeros(round(seconds * RATE_HZ), np.float32)
    pair = listen(encoder(), [scrap, heard_wave()], RATE_HZ)
    for attribute in Attribute:
        what = {Attribute.EVENT: "rain", Attribute.BAND: "low"}.get(attribute)
        for direction in Direction:
            checked = judge(Claim(2, what, attribute, direction), (pair[0], pair[1]))
            assert all(np.isfinite(value) for value in checked.measurement.values())
            assert checked.reason


def heard_wave() -> FloatArray:
    return scene(Event("rain", 0.0, 5.0, -26.0))

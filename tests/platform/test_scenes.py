"""Synthetic sounds and scenes: the truth must be true, to the sample and to the decibel."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from soundpost.audio.acoustics import measure
from soundpost.audio.scenes import (
    ACTIVE_RANGE_DB,
    KINDS,
    PEAK_CEILING,
    Event,
    Scene,
    synthesise,
    write_wav,
)
from soundpost.errors import InvalidValueError

FloatArray = NDArray[np.float32]
NAMES = sorted(KINDS)
RATE_HZ = 16_000


@lru_cache(maxsize=128)
def solo(name: str, seed: int = 1, duration_s: float = 5.0, rate_hz: int = RATE_HZ) -> FloatArray:
    return synthesise(name, duration_s, rate_hz, np.random.default_rng(seed))


def quiet_scene(*events: Event, duration_s: float = 4.0, rate_hz: int = RATE_HZ) -> Scene:
    return Scene(events, duration_s, rate_hz, noise_dbfs=None, seed=5)


def active_level_dbfs(wave: FloatArray, rate_hz: int = RATE_HZ) -> float:
    """The definition, spelled out: RMS of the 50 ms frames within 20 dB of the loudest."""
    frame = rate_hz // 20
    frames = [wave[i : i + frame].astype(np.float64) for i in range(0, len(wave), frame)]
    powers = [float(np.mean(f**2)) for f in frames]
    loud = [f for f, p in zip(frames, powers, strict=True) if p >= max(powers) / 100]
    assert ACTIVE_RANGE_DB == 20.0
    return 10 * math.log10(float(np.mean(np.concatenate(loud) ** 2)))


def line_level(wave: FloatArray, frequency_hz: float) -> float:
    """Strength of a spectral line over its surroundings, in dB."""
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)))) ** 2
    bin_hz = RATE_HZ / len(wave)
    place = round(frequency_hz / bin_hz)
    near = spectrum[place - 60 : place + 61]
    return 10 * math.log10(float(spectrum[place - 5 : place + 6].max() / np.median(near)))


# --- kinds


def test_there_are_twenty_kinds_with_four_wordings_each() -> None:
    assert len(KINDS) >= 20
    texts = [text for kind in KINDS.values() for text in kind.texts]
    assert len(texts) == len(set(texts))
    assert all(len(set(kind.texts)) >= 4 for kind in KINDS.values())
    assert all(kind.name == name for name, kind in KINDS.items())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 22_050, 48_000])
def test_a_sound_is_finite_audible_and_as_long_as_asked(name: str, rate_hz: int) -> None:
    wave = solo(name, duration_s=1.3, rate_hz=rate_hz)
    assert wave.dtype == np.float32
    assert len(wave) == round(1.3 * rate_hz)
    assert np.isfinite(wave).all()
    assert float(np.abs(wave).max()) == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("duration_s", [1 / RATE_HZ, 0.003, 0.05])
def test_very_short_sounds_can_be_made(name: str, duration_s: float) -> None:
    wave = solo(name, duration_s=duration_s)
    assert len(wave) == round(duration_s * RATE_HZ)
    assert np.isfinite(wave).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_gives_the_same_bits_and_another_seed_another_sound(name: str) -> None:
    again = synthesise(name, 2.0, RATE_HZ, np.random.default_rng(1))
    assert np.array_equal(solo(name, duration_s=2.0), again)
    assert not np.allclose(solo(name, seed=2, duration_s=2.0), again, atol=1e-3)


def fingerprint(wave: FloatArray) -> NDArray[np.float64]:
    acoustics = measure(wave, RATE_HZ)
    bands = np.maximum(np.subtract(acoustics.third_octave_dbfs, acoustics.level_dbfs), -50) / 10
    return np.concatenate([bands, 4 * np.log10(np.add(acoustics.modulation, 0.02))])


def test_kinds_differ_from_each_other_more_than_seeds_do() -> None:
    first = np.array([fingerprint(solo(name, seed=1)) for name in NAMES])
    second = np.array([fingerprint(solo(name, seed=2)) for name in NAMES])
    distances = np.linalg.norm(first[:, None] - second[None], axis=2)
    found = [NAMES[i] for i in distances.argmin(axis=1)]
    hits = sum(a == b for a, b in zip(NAMES, found, strict=True))
    assert hits >= len(NAMES) - 2, dict(zip(NAMES, found, strict=True))


@pytest.mark.parametrize("speed_hz", [24.0, 31.0, 43.0])
def test_the_speed_of_a_motor_shows_in_its_spectrum(speed_hz: float) -> None:
    rng = np.random.default_rng(4)
    wave = synthesise("motor", 8.0, RATE_HZ, rng, speed_hz=speed_hz, load=0.5)
    assert line_level(wave, speed_hz) > 20.0
    assert line_level(wave, 30 * speed_hz) > 15.0
    assert line_level(wave, 0.77 * speed_hz) < 15.0


def test_load_makes_a_motor_rougher_and_its_slots_louder() -> None:
    light, heavy = (
        synthesise("motor", 8.0, RATE_HZ, np.random.default_rng(4), speed_hz=30.0, load=load)
        for load in (0.0, 1.0)
    )
    idle, loaded = measure(light, RATE_HZ), measure(heavy, RATE_HZ)
    # Thirty slots at thirty turns a second sound in the band around 1 kHz.
    slots_db = [a.third_octave_dbfs[16] - a.third_octave_dbfs[22] for a in (idle, loaded)]
    assert slots_db[1] > slots_db[0] + 2.0
    assert loaded.modulation[1] > 1.5 * idle.modulation[1]


@pytest.mark.parametrize(
    ("name", "parameter", "values"),
    [
        ("clock", "ticks_per_s", (1.0, 3.0)),
        ("cricket", "chirps_per_s", (1.0, 4.0)),
        ("footsteps", "steps_per_s", (1.0, 2.4)),
        ("bell", "strikes_per_s", (0.4, 2.0)),
    ],
)
def test_a_pace_shows_in_the_onsets(name: str, parameter: str, values: tuple[float, float]) -> None:
    slow, fast = (
        measure(
            synthesise(name, 8.0, RATE_HZ, np.random.default_rng(3), **{parameter: value}), RATE_HZ
        ).onsets_per_s
        for value in values
    )
    assert fast > 1.5 * slow


@pytest.mark.parametrize(
    ("name", "parameter", "values"),
    [
        ("alarm", "pitch_hz", (1000.0, 3000.0)),
        ("bell", "pitch_hz", (200.0, 700.0)),
        ("bird", "pitch_hz", (2000.0, 5000.0)),
        ("dog", "pitch_hz", (300.0, 900.0)),
        ("hiss", "pressure", (0.0, 1.0)),
    ],
)
def test_a_pitch_shows_in_the_centroid(
    name: str, parameter: str, values: tuple[float, float]
) -> None:
    low, high = (
        measure(
            synthesise(name, 5.0, RATE_HZ, np.random.default_rng(3), **{parameter: value}), RATE_HZ
        ).centroid_hz
        for value in values
    )
    assert high > 1.05 * low


def test_what_is_not_known_or_not_allowed_is_refused_by_name() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(InvalidValueError, match=r"unicorn.*babble"):
        synthesise("unicorn", 1.0, RATE_HZ, rng)
    with pytest.raises(InvalidValueError, match=r"torque.*speed_hz, load"):
        synthesise("motor", 1.0, RATE_HZ, rng, torque=1.0)
    with pytest.raises(InvalidValueError, match="load=2"):
        synthesise("motor", 1.0, RATE_HZ, rng, load=2.0)
    for duration_s in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InvalidValueError, match="duration_s"):
            synthesise("motor", duration_s, RATE_HZ, rng)
    with pytest.raises(InvalidValueError, match="4000 Hz"):
        synthesise("motor", 1.0, 4_000, rng)


# --- scenes


def test_a_scene_is_the_same_bits_every_time() -> None:
    scene = Scene([Event(name, 0.2 * i, 1.0) for i, name in enumerate(NAMES)], 6.0, RATE_HZ, seed=9)
    first, second = scene.render(), scene.render()
    assert np.array_equal(first.wave, second.wave)
    assert first.truth == second.truth
    other = dataclasses.replace(scene, seed=10).render()
    assert not np.allclose(first.wave, other.wave, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rate_hz", [8_000, 44_100])
def test_an_event_begins_and_ends_at_the_sample_the_truth_names(name: str, rate_hz: int) -> None:
    event = Event(name, 0.123456, 0.7)
    rendered = quiet_scene(event, duration_s=1.5, rate_hz=rate_hz).render()
    truth = rendered.truth["events"][0]
    heard = np.flatnonzero(rendered.wave)
    assert heard[0] == truth["start_sample"] == round(0.123456 * rate_hz)
    assert truth["end_sample"] - truth["start_sample"] == round(0.7 * rate_hz)
    assert heard[-1] < truth["end_sample"]


@pytest.mark.parametrize("name", NAMES)
def test_the_level_is_the_one_asked_for(name: str) -> None:
    rendered = quiet_scene(Event(name, 0.5, 3.0, level_dbfs=-40.0)).render()
    truth = rendered.truth["events"][0]
    assert rendered.truth["gain_db"] == 0.0
    part = rendered.wave[truth["start_sample"] : truth["end_sample"]]
    assert active_level_dbfs(part) == pytest.approx(-40.0, abs=0.1)
    assert truth["level_dbfs"] == -40.0


def test_a_louder_event_is_louder_by_as_much_and_otherwise_the_same() -> None:
    soft = quiet_scene(Event("rain", 0.5, 2.0, level_dbfs=-50.0)).render().wave
    loud = quiet_scene(Event("rain", 0.5, 2.0, level_dbfs=-38.0)).render().wave
    assert loud == pytest.approx(soft * 10 ** (12 / 20), rel=1e-4, abs=1e-8)


@pytest.mark.parametrize("before", [True, False])
def test_adding_an_event_changes_nothing_about_another(before: bool) -> None:
    dog, bell = Event("dog", 0.5, 1.0), Event("bell", 2.0, 1.5)
    alone = quiet_scene(dog).render().wave
    other = quiet_scene(bell).render().wave
    together = quiet_scene(*((bell, dog) if before else (dog, bell))).render().wave
    assert together == pytest.approx(alone + other, abs=1e-7)


def test_changing_a_parameter_keeps_everything_it_does_not_govern() -> None:
    def wave(**params: float) -> tuple[FloatArray, Mapping[str, float]]:
        rendered = quiet_scene(Event("motor", 0.0, 4.0, params=params)).render()
        return rendered.wave, rendered.truth["events"][0]["params"]

    drawn_wave, drawn = wave()
    same_wave, same = wave(**drawn)
    assert same == drawn
    assert np.array_equal(same_wave, drawn_wave)
    _, faster = wave(speed_hz=40.0)
    assert faster == {**drawn, "speed_hz": 40.0}


def test_twins_and_variants_are_not_copies() -> None:
    twin = Event("dog", 0.5, 1.0)
    one = quiet_scene(twin).render().wave
    assert not np.allclose(quiet_scene(twin, twin).render().wave, 2 * one, atol=1e-4)
    varied = quiet_scene(dataclasses.replace(twin, variant=1)).render().wave
    assert not np.allclose(varied, one, atol=1e-4)


def test_the_background_has_its_level_and_fills_the_scene() -> None:
    rendered = Scene([], 3.0, RATE_HZ, noise_dbfs=-45.0).render()
    assert measure(rendered.wave, RATE_HZ).level_dbfs == pytest.approx(-45.0, abs=0.1)
    assert np.count_nonzero(rendered.wave) > 0.999 * len(rendered.wave)
    assert not Scene([], 1.0, RATE_HZ, noise_dbfs=None).render().wave.any()


def test_a_scene_too_loud_is_turned_down_and_says_so() -> None:
    events = [Event("clock", 0.0, 3.0, level_dbfs=-6.0), Event("fan", 1.0, 2.0, level_dbfs=-9.0)]
    loud = Scene(events, 3.0, RATE_HZ, noise_dbfs=-50.0).render()
    assert float(np.abs(loud.wave).max()) == pytest.approx(PEAK_CEILING, abs=1e-5)
    gain_db = loud.truth["gain_db"]
    assert gain_db < -3.0
    assert loud.truth["noise_dbfs"] == pytest.approx(-50.0 + gain_db)
    assert [e["level_dbfs"] for e in loud.truth["events"]] == [-6.0 + gain_db, -9.0 + gain_db]
    soft = [dataclasses.replace(e, level_dbfs=e.level_dbfs - 40.0) for e in events]
    quiet = Scene(soft, 3.0, RATE_HZ, noise_dbfs=-90.0).render()
    assert quiet.truth["gain_db"] == 0.0
    ratio = 10 ** ((40.0 + gain_db) / 20)
    assert loud.wave == pytest.approx(quiet.wave * ratio, rel=1e-3, abs=1e-6)


def test_an_event_is_cut_where_the_scene_ends() -> None:
    rendered = quiet_scene(Event("wind", 3.5, 60.0), duration_s=4.0).render()
    truth = rendered.truth["events"][0]
    assert truth["end_sample"] == len(rendered.wave) == rendered.truth["samples"] == 4 * RATE_HZ
    assert truth["duration_s"] == pytest.approx(0.5)


@pytest.mark.parametrize("onset_s", [-0.1, 4.0, 100.0])
def test_an_event_outside_the_scene_is_refused(onset_s: float) -> None:
    with pytest.raises(InvalidValueError, match="onset_s"):
        quiet_scene(Event("dog", onset_s, 1.0)).render()


def test_the_truth_is_json_and_names_the_drawn_parameters() -> None:
    scene = Scene([Event(name, 0.1 * i, 0.5) for i, name in enumerate(NAMES)], 3.0, RATE_HZ)
    truth = scene.render().truth
    assert json.loads(json.dumps(truth, allow_nan=False)) == truth
    assert [event["kind"] for event in truth["events"]] == NAMES
    for event in truth["events"]:
        assert set(event["params"]) == set(KINDS[event["kind"]].parameters)
        assert 0.0 < event["active_share"] <= 1.0


@settings(max_examples=25)
@given(
    name=st.sampled_from(NAMES),
    rate_hz=st.integers(8_000, 48_000),
    onset_s=st.floats(0.0, 0.9),
    duration_s=st.floats(0.001, 1.5),
    level_dbfs=st.floats(-80.0, 0.0),
    seed=st.integers(0, 1000),
)
def test_any_event_at_any_rate_keeps_its_truth(
    name: str, rate_hz: int, onset_s: float, duration_s: float, level_dbfs: float, seed: int
) -> None:
    event = Event(name, onset_s, duration_s, level_dbfs)
    rendered = Scene([event], 1.0, rate_hz, noise_dbfs=None, seed=seed).render()
    truth = rendered.truth["events"][0]
    assert np.isfinite(rendered.wave).all()
    assert float(np.abs(rendered.wave).max()) <= PEAK_CEILING + 1e-6
    heard = np.flatnonzero(rendered.wave)
    assert heard[0] == truth["start_sample"]
    assert truth["start_sample"] < truth["end_sample"] <= len(rendered.wave)
    assert truth["level_dbfs"] == pytest.approx(level_dbfs + rendered.truth["gain_db"])


# --- files


def test_a_wav_file_holds_the_wave(tmp_path: Path) -> None:
    wave = Scene([Event("bird", 0.1, 0.8)], 1.0, RATE_HZ).render().wave
    write_wav(tmp_path / "a.wav", wave, RATE_HZ)
    read, rate_hz = soundfile.read(tmp_path / "a.wav", dtype="float32")
    assert rate_hz == RATE_HZ
    assert soundfile.info(tmp_path / "a.wav").subtype == "PCM_16"
    assert read == pytest.approx(wave, abs=1 / 32_000)
    write_wav(tmp_path / "b.wav", wave, RATE_HZ, subtype="FLOAT")
    assert np.array_equal(soundfile.read(tmp_path / "b.wav", dtype="float32")[0], wave)


def test_a_wave_beyond_full_scale_is_not_clipped_in_silence(tmp_path: Path) -> None:
    wave = np.array([0.0, 1.2, -0.3], dtype=np.float32)
    with pytest.raises(InvalidValueError, match=r"1\.200"):
        write_wav(tmp_path / "a.wav", wave, RATE_HZ)
    assert not (tmp_path / "a.wav").exists()
    write_wav(tmp_path / "a.wav", wave, RATE_HZ, subtype="FLOAT")

"""Listening to excerpts: windows, batches, time profiles, and what cannot be heard."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from soundpost.errors import NonFiniteSamplesError, NoSamplesError, TooLongError
from soundpost.explain.listening import EXCERPT_S, Listening, listen
from soundpost.explain.profile import (
    FLOOR_DBFS,
    HOP_S,
    decay_db_per_s,
    fine_centres_hz,
    mean_dbfs,
    profile,
    pulse,
)
from soundpost.models.compact import CompactEncoder
from soundpost.models.placeholder import FRAME_HOP_S, ToneEncoder

FloatArray = NDArray[np.float32]
RATE_HZ = 16_000


def tone(seconds: float, hz: float = 440.0, peak: float = 0.1) -> FloatArray:
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return (peak * np.sin(2 * np.pi * hz * time_s)).astype(np.float32)


def clicks(seconds: float, every_s: float) -> FloatArray:
    wave = 1e-4 * np.random.default_rng(0).standard_normal(round(seconds * RATE_HZ))
    for start in np.arange(0.2, seconds - 0.05, every_s):
        at = round(float(start) * RATE_HZ)
        wave[at : at + 320] += 0.3 * np.random.default_rng(1).standard_normal(320)
    return wave.astype(np.float32)


@pytest.fixture(scope="module")
def encoder() -> CompactEncoder:
    return CompactEncoder.load(threads=1)


def hear(wave: FloatArray) -> Listening:
    return listen(ToneEncoder(), [wave], RATE_HZ)[0]


# --- the encoder's part -----------------------------------------------------------------------


def test_a_batch_hears_what_each_alone_hears(encoder: CompactEncoder) -> None:
    waves = [tone(7.0), tone(0.3, 900.0), clicks(5.0, 0.5)]
    together = listen(encoder, waves, RATE_HZ)
    for wave, one in zip(waves, together, strict=True):
        alone = listen(encoder, [wave], RATE_HZ)[0]
        np.testing.assert_allclose(one.frames, alone.frames, atol=1e-4)
        np.testing.assert_allclose(one.embedding, alone.embedding, atol=1e-4)
        assert one.tags is not None and one.tag_frames is not None
        np.testing.assert_allclose(one.tags, one.tag_frames.max(axis=0), atol=1e-5)
        assert one.duration_s == pytest.approx(len(wave) / RATE_HZ)


def test_frames_and_tags_cover_what_there_is_and_no_more(encoder: CompactEncoder) -> None:
    for seconds in (0.3, 2.0, 5.0, 7.0, 10.0):
        one = listen(encoder, [tone(seconds)], RATE_HZ)[0]
        assert one.tag_frames is not None
        assert len(one.frames) * one.frame_hop_s == pytest.approx(seconds, abs=0.2)
        assert len(one.tag_frames) * one.tag_hop_s == pytest.approx(seconds, abs=0.6)
        np.testing.assert_allclose(np.linalg.norm(one.frames, axis=1), 1.0, atol=1e-4)


def test_an_encoder_of_other_windows_and_without_tags_in_time_is_heard_end_to_end() -> None:
    wave = np.concatenate([tone(6.0, 300.0), tone(3.0, 2_000.0)])
    one = hear(wave)
    assert one.frame_hop_s == FRAME_HOP_S
    assert len(one.frames) == 36
    assert one.tag_frames is None and one.tags is not None
    low, high = ToneEncoder().embed_text(["300 hz tone", "2 khz tone"])
    assert (one.frames[:22] @ low > 0.9).all()
    assert (one.frames[25:] @ high > 0.9).all()
    assert np.linalg.norm(one.embedding) == pytest.approx(1.0, abs=1e-5)


def test_other_rates_are_heard_alike() -> None:
    time_s = np.arange(4 * 48_000) / 48_000
    other = (0.1 * np.sin(2 * np.pi * 440.0 * time_s)).astype(np.float32)
    at_48, at_16 = listen(ToneEncoder(), [other], 48_000)[0], hear(tone(4.0))
    assert at_48.embedding @ at_16.embedding > 0.99
    assert at_48.acoustics.level_dbfs == pytest.approx(at_16.acoustics.level_dbfs, abs=0.1)
    assert len(at_48.profile.level_dbfs) == len(at_16.profile.level_dbfs)


def test_what_cannot_be_heard_is_refused() -> None:
    broken = tone(1.0)
    broken[5] = np.nan
    for wave, error in (
        (np.zeros(0, np.float32), NoSamplesError),
        (broken, NonFiniteSamplesError),
        (tone(EXCERPT_S + 1.0), TooLongError),
    ):
        with pytest.raises(error):
            hear(wave)
    assert listen(ToneEncoder(), [], RATE_HZ) == []


# --- the profile ------------------------------------------------------------------------------


def test_levels_over_time_follow_the_sound() -> None:
    wave = np.concatenate([tone(2.0, peak=0.1), tone(2.0, peak=0.01), np.zeros(16_000)])
    measured = profile(wave.astype(np.float32))
    steps = round(1.0 / HOP_S)
    assert len(measured.level_dbfs) == 5 * steps
    assert mean_dbfs(measured.level_dbfs[10:70]) == pytest.approx(-23.0, abs=0.1)
    assert mean_dbfs(measured.level_dbfs[90:150]) == pytest.approx(-43.0, abs=0.1)
    assert measured.level_dbfs[-5:].max() == FLOOR_DBFS


@pytest.mark.parametrize(("hz", "band"), [(100.0, 0), (1_000.0, 1), (5_000.0, 2)])
def test_a_tone_lies_in_its_band_and_at_its_place(hz: float, band: int) -> None:
    measured = profile(tone(2.0, hz))
    assert int(measured.bands_dbfs.mean(axis=0).argmax()) == band
    place = int(measured.fine_dbfs.mean(axis=0).argmax())
    assert fine_centres_hz()[place] == pytest.approx(hz, rel=0.04)


def test_onsets_are_counted_and_their_pulse_is_found() -> None:
    measured = profile(clicks(6.0, 0.5))
    assert len(measured.onsets_s) == 12
    np.testing.assert_allclose(measured.onsets_s, 0.2 + 0.5 * np.arange(12), atol=2 * HOP_S)
    assert measured.pulse_hz == pytest.approx(2.0, rel=0.06)
    assert measured.pulse_strength > 0.8
    assert profile(tone(4.0)).pulse_strength == 0.0
    assert len(profile(tone(4.0)).onsets_s) == 0


def test_a_slow_decay_is_told_from_a_fast_one() -> None:
    time_s = np.arange(round(4.0 / HOP_S)) * HOP_S
    for slope in (20.0, 80.0):
        levels = -20.0 - slope * (time_s % 1.0)
        found = decay_db_per_s(np.maximum(levels, -70.0).astype(np.float32))
        assert found == pytest.approx(slope, rel=0.15)
    assert decay_db_per_s(np.full(100, -20.0, np.float32)) is None


def test_the_noise_floor_is_what_is_left_in_the_pauses() -> None:
    quiet = profile(clicks(5.0, 0.5))
    noisy = profile(
        clicks(5.0, 0.5) + 0.01 * np.random.default_rng(2).standard_normal(80_000).astype("f4")
    )
    assert noisy.noise_floor_dbfs - quiet.noise_floor_dbfs == pytest.approx(40.0, abs=2.0)
    assert noisy.noise_flatness > 0.7


@pytest.mark.parametrize("samples", [1, 100, 4_800, 16_000])
def test_silence_and_scraps_have_a_profile(samples: int) -> None:
    for wave in (np.zeros(samples, np.float32), np.ones(samples, np.float32)):
        measured = profile(wave)
        assert np.isfinite(measured.fine_dbfs).all()
        assert measured.level_dbfs.max() <= 0.0
        assert measured.pulse_strength == 0.0
    assert pulse(np.full(3, -50.0, np.float32)) == (0.0, 0.0)

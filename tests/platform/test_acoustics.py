"""Each acoustic measure against its definition, on signals whose answer is known."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from soundpost.audio.acoustics import (
    AES17_OFFSET_DB,
    LEVEL_FLOOR_DBFS,
    MODULATION_BANDS_HZ,
    THIRD_OCTAVE_CENTRES_HZ,
    Acoustics,
    a_weighting_db,
    measure,
    third_octave_centres_hz,
)
from soundpost.errors import (
    InvalidValueError,
    NonFiniteSamplesError,
    NoSamplesError,
    UnsupportedRateError,
)

FloatArray = NDArray[np.float32]
RATE_HZ = 16_000


def sine(
    frequency_hz: float, amplitude: float = 1.0, rate_hz: int = RATE_HZ, duration_s: float = 5.0
) -> FloatArray:
    times = np.arange(round(duration_s * rate_hz)) / rate_hz
    return (amplitude * np.sin(2 * np.pi * frequency_hz * times)).astype(np.float32)


def noise(rms: float = 0.1, rate_hz: int = RATE_HZ, duration_s: float = 5.0) -> FloatArray:
    rng = np.random.default_rng(7)
    return (rms * rng.standard_normal(round(duration_s * rate_hz))).astype(np.float32)


def numbers(acoustics: Acoustics) -> list[float]:
    found: list[float] = []
    for value in asdict(acoustics).values():
        found.extend(value if isinstance(value, tuple) else [value])
    return found


# --- levels


def test_a_full_scale_sine_reads_minus_3_01_dbfs_and_its_peak_zero() -> None:
    acoustics = measure(sine(997.0), RATE_HZ)
    assert acoustics.level_dbfs == pytest.approx(-3.0103, abs=0.001)
    assert acoustics.level_dbfs + AES17_OFFSET_DB == pytest.approx(0.0, abs=0.001)
    assert acoustics.peak_dbfs == pytest.approx(0.0, abs=0.001)


def test_a_full_scale_square_wave_reads_zero() -> None:
    square = np.sign(sine(100.0, duration_s=1.0) + np.float32(1e-6))
    assert measure(square, RATE_HZ).level_dbfs == pytest.approx(0.0, abs=0.001)


def test_the_level_is_that_of_the_definition_on_noise() -> None:
    wave = noise(0.02)
    expected = 20 * math.log10(float(np.std(wave.astype(np.float64))))
    assert measure(wave, RATE_HZ).level_dbfs == pytest.approx(expected, abs=1e-3)


def test_a_converter_offset_counts_only_in_the_peak() -> None:
    plain, shifted = measure(noise(0.01), RATE_HZ), measure(noise(0.01) + np.float32(0.5), RATE_HZ)
    assert shifted.level_dbfs == pytest.approx(plain.level_dbfs, abs=0.01)
    assert shifted.centroid_hz == pytest.approx(plain.centroid_hz, rel=1e-3)
    assert shifted.peak_dbfs > -6.0


@pytest.mark.parametrize(
    ("frequency_hz", "expected_db"),
    # The rounded table of IEC 61672-1, which has 0.1 dB.
    [(31.62, -39.4), (100.0, -19.1), (501.2, -3.2), (1000.0, 0.0), (3162.0, 1.2), (10000.0, -2.5)],
)
def test_a_weighting_follows_the_standard(frequency_hz: float, expected_db: float) -> None:
    curve_db = float(a_weighting_db(np.array([frequency_hz]))[0])
    assert curve_db == pytest.approx(expected_db, abs=0.06)
    acoustics = measure(sine(frequency_hz, 0.5, rate_hz=48_000), 48_000)
    assert acoustics.a_level_dbfs - acoustics.level_dbfs == pytest.approx(curve_db, abs=0.2)


# --- third octaves


@pytest.mark.parametrize(
    ("rate_hz", "bands"), [(1_000, 13), (8_000, 23), (16_000, 26), (48_000, 30), (384_000, 30)]
)
def test_bands_reach_from_25_hz_to_20_khz_or_half_the_rate(rate_hz: int, bands: int) -> None:
    acoustics = measure(noise(rate_hz=rate_hz, duration_s=0.5), rate_hz)
    assert len(acoustics.third_octave_dbfs) == len(third_octave_centres_hz(rate_hz)) == bands
    assert THIRD_OCTAVE_CENTRES_HZ[0] == pytest.approx(25.119, abs=1e-3)
    assert THIRD_OCTAVE_CENTRES_HZ[-1] == pytest.approx(19952.6, abs=0.1)


@pytest.mark.parametrize("band", range(30))
def test_a_sine_at_a_centre_is_in_that_band_alone(band: int) -> None:
    levels = measure(sine(THIRD_OCTAVE_CENTRES_HZ[band], rate_hz=48_000), 48_000).third_octave_dbfs
    assert levels[band] == pytest.approx(-3.01, abs=0.1)
    others = [level for i, level in enumerate(levels) if i != band]
    assert max(others) < -18.0


def test_white_noise_rises_by_one_db_a_band() -> None:
    levels = measure(noise(duration_s=30.0), RATE_HZ).third_octave_dbfs
    # The last band is cut by half the rate; the lowest hold too few periods to be smooth.
    slope_db = np.polyfit(np.arange(5, 25), levels[5:25], 1)[0]
    assert slope_db == pytest.approx(1.0, abs=0.03)
    density_dbfs = 20 * math.log10(0.1) - 10 * math.log10(RATE_HZ / 2)
    width_hz = 1000.0 * (10**0.05 - 10**-0.05)
    assert levels[16] == pytest.approx(density_dbfs + 10 * math.log10(width_hz), abs=0.2)


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 16_000, 44_100])
def test_band_powers_add_up_to_the_level(rate_hz: int) -> None:
    wave = noise(rate_hz=rate_hz) + sine(440.0, 0.3, rate_hz=rate_hz)
    acoustics = measure(wave, rate_hz)
    total = sum(10 ** (level / 10) for level in acoustics.third_octave_dbfs)
    assert 10 * math.log10(total) == pytest.approx(acoustics.level_dbfs, abs=0.05)


def test_a_strong_hum_does_not_leak_into_high_bands() -> None:
    levels = measure(sine(50.3), RATE_HZ).third_octave_dbfs
    assert max(levels[16:]) < -90.0


# --- spectral shape


def test_the_centroid_of_one_sine_is_its_frequency_and_of_two_their_mean() -> None:
    assert measure(sine(440.0), RATE_HZ).centroid_hz == pytest.approx(440.0, abs=0.5)
    pair = sine(1000.0, 0.4) + sine(3000.0, 0.4)
    assert measure(pair, RATE_HZ).centroid_hz == pytest.approx(2000.0, abs=1.0)


def test_the_centroid_of_white_noise_is_a_quarter_of_the_rate() -> None:
    assert measure(noise(), RATE_HZ).centroid_hz == pytest.approx(4000.0, rel=0.02)


def test_flatness_tells_noise_from_tone() -> None:
    assert measure(sine(1000.0), RATE_HZ).flatness < 1e-6
    # About twenty frames are averaged: exp(digamma(k) - ln k) with k near 18 is 0.972.
    assert measure(noise(), RATE_HZ).flatness == pytest.approx(0.972, abs=0.01)
    half_band = np.convolve(noise(), np.sinc(np.arange(-64, 65) / 2) * np.hanning(129) / 2)
    assert measure(half_band.astype(np.float32), RATE_HZ).flatness < 0.2


# --- modulation


@pytest.mark.parametrize(
    ("modulation_hz", "band"), [(1.0, 0), (4.0, 1), (15.7, 2), (50.0, 3), (100.0, 3)]
)
@pytest.mark.parametrize("carrier", ["tone", "noise"])
def test_modulation_frequency_depth_and_band(modulation_hz: float, band: int, carrier: str) -> None:
    inner = sine(1000.0, 0.3) if carrier == "tone" else noise(0.1)
    acoustics = measure(inner * (1 + sine(modulation_hz, 0.5)), RATE_HZ)
    assert acoustics.modulation_hz == pytest.approx(modulation_hz, abs=0.1)
    assert acoustics.modulation_depth == pytest.approx(0.5, rel=0.08)
    assert int(np.argmax(acoustics.modulation)) == band
    assert acoustics.modulation[band] == pytest.approx(0.5 / math.sqrt(2), rel=0.12)
    assert len(acoustics.modulation) == len(MODULATION_BANDS_HZ)


@pytest.mark.parametrize("carrier_hz", [90.0, 150.0, 300.0, 600.0, 5000.0])
def test_a_steady_tone_is_not_modulated(carrier_hz: float) -> None:
    acoustics = measure(sine(carrier_hz), RATE_HZ)
    assert acoustics.modulation_depth < 0.02
    assert max(acoustics.modulation) < 0.02


# --- onsets


@pytest.mark.parametrize("clicks_per_s", [1, 2, 5, 10, 20])
@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 48_000])
def test_clicks_are_counted(clicks_per_s: int, rate_hz: int) -> None:
    wave = noise(0.001, rate_hz=rate_hz)
    wave[rate_hz // 31 :: rate_hz // clicks_per_s] += 0.5
    assert measure(wave, rate_hz).onsets_per_s == pytest.approx(clicks_per_s, abs=0.21)


def test_clicks_are_heard_through_a_rumble() -> None:
    wave = sine(40.0, 0.9)
    wave[1000 :: RATE_HZ // 4] += 0.3
    assert measure(wave, RATE_HZ).onsets_per_s == pytest.approx(4.0, abs=0.01)


@pytest.mark.parametrize("wave", [sine(30.0), sine(440.0), noise(), np.zeros(RATE_HZ, np.float32)])
def test_steady_sound_has_no_onsets(wave: FloatArray) -> None:
    assert measure(wave, RATE_HZ).onsets_per_s == 0.0


# --- faults


def test_the_share_of_clipped_samples() -> None:
    wave = sine(100.0, 0.5)
    wave[:800] = 1.0
    wave[800:1600] = -1.0
    assert measure(wave, RATE_HZ).clipped_share == pytest.approx(0.02)
    assert measure(sine(100.0, 0.99), RATE_HZ).clipped_share == 0.0


def test_marks_of_the_decoder_replace_the_threshold() -> None:
    marks = np.zeros(5 * RATE_HZ, dtype=np.bool_)
    marks[:40_000] = True
    assert measure(noise(), RATE_HZ, marks).clipped_share == pytest.approx(0.5)


def test_the_share_of_silence() -> None:
    wave = noise(0.1)
    wave[: 2 * RATE_HZ] = 10 ** (-75 / 20) / 0.1 * wave[: 2 * RATE_HZ]
    assert measure(wave, RATE_HZ).silent_share == pytest.approx(0.4)
    assert measure(noise(10 ** (-65 / 20)), RATE_HZ).silent_share == 0.0


def test_digital_silence_is_finite_and_json_ready() -> None:
    acoustics = measure(np.zeros(RATE_HZ, np.float32), RATE_HZ)
    document = json.loads(json.dumps(acoustics.to_document(), allow_nan=False))
    assert document["level_dbfs"] == document["a_level_dbfs"] == LEVEL_FLOOR_DBFS
    assert set(document["third_octave_dbfs"]) == {LEVEL_FLOOR_DBFS}
    assert document["silent_share"] == 1.0
    assert document["onsets_per_s"] == document["modulation_depth"] == 0.0


# --- bad input


@pytest.mark.parametrize("rate_hz", [0, 999, 1_000_000])
def test_rates_out_of_range_are_refused(rate_hz: int) -> None:
    with pytest.raises(UnsupportedRateError, match=str(rate_hz)):
        measure(noise(duration_s=0.1), rate_hz)


def test_unusable_samples_are_refused() -> None:
    with pytest.raises(NoSamplesError):
        measure(np.zeros(0, np.float32), RATE_HZ)
    with pytest.raises(InvalidValueError, match="mono"):
        measure(np.zeros((100, 2), np.float32), RATE_HZ)
    with pytest.raises(InvalidValueError, match="marks"):
        measure(np.zeros(100, np.float32), RATE_HZ, np.zeros(99, np.bool_))
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(NonFiniteSamplesError):
            measure(np.array([0.0, bad, 0.1], np.float32), RATE_HZ)


# --- documents


def test_a_document_gives_the_same_measures_back() -> None:
    acoustics = measure(noise() + sine(440.0, 0.3), RATE_HZ)
    document = json.loads(json.dumps(acoustics.to_document()))
    again = Acoustics.from_document(document)
    assert numbers(again) == pytest.approx(numbers(acoustics), rel=1e-3, abs=0.005)
    assert again.to_document() == document
    assert len(json.dumps(document)) < 800


def test_a_document_without_a_measure_is_refused_by_name() -> None:
    document = measure(noise(), RATE_HZ).to_document()
    del document["flatness"]
    with pytest.raises(InvalidValueError, match="flatness"):
        Acoustics.from_document(document)


# --- properties


RATES = st.sampled_from([1_000, 8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 384_000])
SHORT = st.integers(1, 5_000)


@pytest.mark.parametrize("length", range(5 * 32, 7 * 32 + 1))
def test_any_number_of_samples_past_the_last_frame_is_measured(length: int) -> None:
    wave = np.random.default_rng(length).standard_normal(length).astype(np.float32)
    assert all(math.isfinite(number) for number in numbers(measure(wave, 1_000)))


@settings(max_examples=60)
@given(rate_hz=st.one_of(RATES, st.integers(1_000, 384_000)), length=SHORT, seed=st.integers(0, 99))
def test_any_rate_and_length_gives_finite_numbers(rate_hz: int, length: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    wave = (10.0 ** rng.uniform(-12, 6) * rng.standard_normal(length)).astype(np.float32)
    found = numbers(measure(wave, rate_hz))
    assert all(math.isfinite(number) for number in found)


@settings(max_examples=60)
@given(
    samples=st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=40),
    rate_hz=RATES,
)
def test_any_finite_samples_give_finite_numbers(samples: list[float], rate_hz: int) -> None:
    acoustics = measure(np.array(samples, np.float32), rate_hz)
    assert all(math.isfinite(number) for number in numbers(acoustics))
    assert 0.0 <= acoustics.flatness <= 1.0
    assert 0.0 <= acoustics.centroid_hz <= rate_hz / 2


@settings(max_examples=40)
@given(
    gain_db=st.floats(-60.0, 20.0),
    rate_hz=RATES,
    length=st.integers(200, 20_000),
    seed=st.integers(0, 99),
)
def test_gain_moves_levels_by_itself_and_leaves_the_shape(
    gain_db: float, rate_hz: int, length: int, seed: int
) -> None:
    wave = (0.1 * np.random.default_rng(seed).standard_normal(length)).astype(np.float32)
    before = measure(wave, rate_hz)
    after = measure(wave * np.float32(10 ** (gain_db / 20)), rate_hz)
    for name in ("level_dbfs", "peak_dbfs", "a_level_dbfs"):
        assert getattr(after, name) - getattr(before, name) == pytest.approx(gain_db, abs=1e-3)
    moved = np.subtract(after.third_octave_dbfs, before.third_octave_dbfs)
    audible = np.array(before.third_octave_dbfs) > -100.0
    assert moved[audible] == pytest.approx(gain_db, abs=0.02)
    assert after.centroid_hz == pytest.approx(before.centroid_hz, rel=1e-4)
    assert after.flatness == pytest.approx(before.flatness, rel=1e-3)
    assert after.modulation_depth == pytest.approx(before.modulation_depth, rel=1e-2, abs=1e-4)

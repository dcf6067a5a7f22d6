"""Reading what is compared: which seconds, at which rate, however long the files are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from soundpost.explain.between import Part, explain_parts, read_excerpt
from soundpost.explain.difference import DifferenceExplainer, Excerpt
from soundpost.models.encoder import EncoderSpec
from soundpost.models.placeholder import ToneEncoder

RATE_HZ = 48_000


class WideEncoder(ToneEncoder):
    """A stand-in that hears up to 24 kHz."""

    @property
    def spec(self) -> EncoderSpec:
        return replace(super().spec, sample_rate_hz=RATE_HZ)


class Noting(DifferenceExplainer):
    """Keeps what it is to explain."""

    given: tuple[Excerpt, Excerpt]

    def explain(self, first: Excerpt, second: Excerpt, *_: Any) -> Any:
        self.given = first, second


def write(path: Path, wave: NDArray[np.float64]) -> Part:
    soundfile.write(path, wave, RATE_HZ, subtype="FLOAT")
    return Part(path)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Part, Part]:
    """Ten seconds of a hiss, and seventy of it with a whistle at 12 and at 1 kHz from second 30 on."""
    hiss = 0.01 * np.random.default_rng(0).standard_normal(70 * RATE_HZ)
    time_s = np.arange(10 * RATE_HZ) / RATE_HZ
    short = write(tmp_path / "short.wav", hiss[: 10 * RATE_HZ])
    for pitch_hz in (1_000.0, 12_000.0):
        hiss[30 * RATE_HZ : 40 * RATE_HZ] += 0.1 * np.sin(2 * np.pi * pitch_hz * time_s)
    return short, write(tmp_path / "long.wav", hiss)


def level_at(excerpt: Excerpt, pitch_hz: float) -> float:
    spectrum = np.abs(np.fft.rfft(excerpt.wave)) / len(excerpt.wave)
    return float(spectrum[round(pitch_hz * excerpt.duration_s)])


def test_an_encoder_hears_all_it_can_of_what_is_chosen_of_long_files(
    files: tuple[Part, Part],
) -> None:
    explainer = Noting(WideEncoder(), None)
    explain_parts(None, explainer, *files)
    one, other = explainer.given
    assert (one.rate_hz, other.rate_hz) == (RATE_HZ, RATE_HZ)
    assert (one.span_s, other.span_s) == ((0.0, 10.0), (30.0, 40.0))
    assert level_at(other, 12_000.0) == pytest.approx(level_at(other, 1_000.0), rel=0.05)


def test_what_an_encoder_cannot_hear_is_not_kept_of_long_files(files: tuple[Part, Part]) -> None:
    explainer = Noting(ToneEncoder(), None)
    explain_parts(None, explainer, *files)
    one, other = explainer.given
    assert (one.rate_hz, other.rate_hz) == (RATE_HZ, 16_000)
    assert (one.duration_s, other.duration_s) == (10.0, 70.0)
    assert read_excerpt(files[1], RATE_HZ).rate_hz == RATE_HZ
    assert read_excerpt(replace(files[1], start_s=20.0)).rate_hz == RATE_HZ

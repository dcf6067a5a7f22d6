"""What differs between two windows, against scenes in which one thing was changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from soundpost.audio.acoustics import measure
from soundpost.audio.differences import Side, compare, hertz, sentence
from soundpost.audio.scenes import Event, Scene

RATE_HZ = 16_000


def side(*events: Event, tags: dict[str, float] | None = None, frames: Any = None) -> Side:
    wave = Scene(events, 5.0, RATE_HZ, seed=3).render().wave
    shown = np.zeros((0, 4), np.float32) if frames is None else frames
    return Side(measure(wave, RATE_HZ).to_document(), tags or {}, shown)


FAN = Event("fan", 0.0, 5.0, -35.0)


def test_a_window_does_not_differ_from_itself() -> None:
    found = compare(side(FAN), side(FAN))
    assert found["bands"] == []
    assert set(found["levels_db"].values()) == {0.0}
    assert sentence(found) == "no measured difference"


@pytest.mark.parametrize("change_db", [6.0, -6.0])
def test_a_level_is_measured_and_said(change_db: float) -> None:
    louder = Event("fan", 0.0, 5.0, -35.0 + change_db)
    found = compare(side(louder), side(FAN))
    assert found["levels_db"]["a_level_dbfs"] == pytest.approx(change_db, abs=0.05)
    # Bands in which nothing but the converter is heard change less.
    changes_db = [band["change_db"] / change_db for band in found["bands"]]
    assert max(changes_db) == pytest.approx(1.0, abs=0.02)
    assert len(changes_db) > 20
    assert sentence(found).startswith(f"6.0 dB {'louder' if change_db > 0 else 'quieter'}")


def tone(document: dict[str, Any], band: int, level_dbfs: float) -> Side:
    levels = list(document["third_octave_dbfs"])
    levels[band] = level_dbfs
    return Side({**document, "third_octave_dbfs": levels}, {}, np.zeros((0, 4), np.float32))


def test_neighbouring_bands_are_said_as_one_range() -> None:
    base = side(FAN)
    document = dict(base.acoustics)
    levels = list(document["third_octave_dbfs"])
    for band in (20, 21, 22):
        levels[band] += 9.0
    raised = Side({**document, "third_octave_dbfs": levels}, {}, base.frames)
    found = compare(raised, base)
    assert [round(band["centre_hz"]) for band in found["bands"]] == [2512, 3162, 3981]
    assert sentence(found) == "up to 9 dB more from 2.5 kHz to 4 kHz"


def test_noise_of_the_converter_is_no_difference() -> None:
    base = tone(dict(side(FAN).acoustics), 0, -120.0)
    quieter = tone(dict(side(FAN).acoustics), 0, -150.0)
    assert compare(quieter, base)["bands"] == []


def test_a_lower_sample_rate_is_compared_where_both_hear() -> None:
    base = side(FAN)
    narrow = {**base.acoustics, "third_octave_dbfs": base.acoustics["third_octave_dbfs"][:20]}
    found = compare(Side(narrow, {}, base.frames), base)
    assert found["bands"] == []


def test_tags_that_come_and_go() -> None:
    found = compare(
        side(FAN, tags={"Bell": 0.9, "Fan": 0.5, "Hum": 0.2}),
        side(FAN, tags={"Fan": 0.55, "Rain": 0.6}),
    )
    assert [tag["label"] for tag in found["tags_gained"]] == ["Bell", "Hum"]
    assert found["tags_gained"][0] == {"label": "Bell", "probability": 0.9, "before": 0.0}
    assert [tag["label"] for tag in found["tags_lost"]] == ["Rain"]
    assert sentence(found) == "now sounds like Bell and Hum, less like Rain"


def test_the_seconds_that_the_reference_has_nothing_like() -> None:
    usual, strange = np.eye(4, dtype=np.float32)[:2]
    observed = np.stack([usual, usual, strange, strange, usual])
    found = compare(side(FAN, frames=observed), side(FAN, frames=np.stack([usual] * 5)))
    assert found["timing"] == {"from_s": 2.0, "to_s": 4.0}
    same = compare(side(FAN, frames=observed[:2]), side(FAN, frames=observed[:2]))
    assert same["timing"] == {"from_s": 0.0, "to_s": 2.0}


def test_measures_of_an_older_version_may_be_missing() -> None:
    found = compare(Side({}, {}, np.zeros((0, 4), np.float32)), side(FAN))
    assert found["levels_db"] == {}
    assert found["timing"] is None
    assert sentence(found) == "no measured difference"


def test_knocks_are_a_rhythm() -> None:
    knocks = [Event("knock", 0.3 + 0.5 * number, 0.3, -15.0) for number in range(9)]
    words = sentence(compare(side(FAN, *knocks), side(FAN)))
    assert "sudden rises a second" in words


@pytest.mark.parametrize(
    ("frequency_hz", "written"),
    [(63.1, "63 Hz"), (994.0, "994 Hz"), (1000.0, "1 kHz"), (2512.0, "2.5 kHz")],
)
def test_frequencies_are_written_as_people_say_them(frequency_hz: float, written: str) -> None:
    assert hertz(frequency_hz) == written

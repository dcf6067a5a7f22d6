"""`soundpost drill` at the command line: the table, the plot, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile

from soundpost.monitoring.drill_results import Curve, Trial, summarise
from soundpost_ui.commands.drill import level_range
from soundpost_ui.drill_plot import spark, text_plot

RATE_HZ = 8_000


# Runs the command line; returns its exit code, and what it printed.
Run = Callable[..., Any]


@pytest.fixture
def soundpost(soundpost: Run, tmp_path: Path) -> Run:
    """The command line in an archive with one source, yard."""
    rng = np.random.default_rng(0)
    (tmp_path / "yard").mkdir()
    for number in range(4):
        times_s = np.arange(20 * RATE_HZ) / RATE_HZ
        wave = 0.05 * np.sin(2 * np.pi * 220 * times_s) + 0.01 * rng.normal(size=len(times_s))
        soundfile.write(tmp_path / "yard" / f"{number}.wav", wave, RATE_HZ)
    assert soundpost("ingest", "yard", "--source", "yard").code == 0
    return soundpost


@pytest.mark.slow
def test_a_drill_is_a_table_a_document_and_a_plot(soundpost: Run, tmp_path: Path) -> None:
    assert "no baseline is active" in soundpost("drill", "yard").err
    assert soundpost("baseline", "create", "yard", "--budget", "1h").code == 0
    (tmp_path / "yard" / "3.wav").unlink()
    told = soundpost("drill", "yard", "--copies", "4", "--plot", "drill.svg")
    assert told.code == 0, told.err
    assert "untouched: 0 false alarms" in told.out
    assert "level +6 dB\t" in told.out
    assert "90 % from" in told.out
    assert "of 5 short sounds at the greatest level" in told.out
    assert "left out: recording 4 [file-missing]" in told.out
    drawn = ElementTree.parse(tmp_path / "drill.svg").getroot()
    assert drawn.tag.endswith("svg")
    lines = [e for e in drawn if e.tag.endswith("polyline")]
    assert len(lines) == 2 * 11
    again = soundpost("drill", "yard", "--plot", "drill.svg")
    assert again.code == 2 and "drill.svg" in again.err
    nowhere = soundpost("drill", "yard", "--plot", "nowhere/drill.svg")
    assert nowhere.code == 2 and "no such folder" in nowhere.err
    document = json.loads(soundpost("drill", "yard", "--copies", "2", "--json").out)
    assert document["untouched"]["copies"] == 2
    assert {row["reached"] for row in document["curves"]} <= {"not", "below", "within"}
    assert [row["path"].endswith("3.wav") for row in document["gone"]] in ([True], [])


def curve(caught: tuple[float, float, float]) -> Curve:
    """Ten recordings; the number of those that catch a level is caught x 10."""
    trials = [
        Trial(copy, copy, "tone", "short", level, *((5.0, 1, "fast") if copy < 10 * p else ()))
        for copy in range(10)
        for level, p in zip((-10.0, 0.0, 10.0), caught, strict=True)
    ]
    return summarise(trials, 0)[0][0]


def test_levels_are_said_as_they_are_known() -> None:
    assert level_range(curve((0.0, 0.0, 0.5))) == "not reached"
    assert level_range(curve((1.0, 1.0, 1.0))) == "≤ -10 dB [≤ -10, ≤ -10]"
    assert level_range(curve((0.0, 0.0, 1.0))).startswith("+9 dB [")


def test_the_text_plot_rises_from_left_to_right() -> None:
    lines = text_plot([curve((0.0, 0.5, 1.0))])
    places = [line.index("●") for line in lines[:-2] if "●" in line]
    assert len(places) == 3 and places == sorted(places, reverse=True)
    assert lines[0].startswith("100%") and "+10" in lines[-2]
    assert spark([0.0, 0.5, 1.0]) == "▁▅█"

"""What is said of baselines that lack something."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from soundpost.errors import InvalidValueError
from soundpost.monitoring.budget import calibrate_budget
from soundpost.monitoring.calibration import calibrate
from soundpost.monitoring.novelty import fit
from soundpost.monitoring.observations import Observations
from soundpost.monitoring.quality import QualityFinding, assess

Make = Callable[..., Observations]


def around_the_clock(observed: Observations) -> Observations:
    count = len(observed)
    return replace(observed, starts_s=1.7e9 + 86400.0 * np.arange(count) / count)


def found(observed: Observations, **options: Any) -> dict[str, QualityFinding]:
    findings = assess(observed, fit(observed), "UTC", **options)
    for finding in findings:
        json.dumps(finding.figures)
        assert finding.summary.endswith(".")
        assert finding.remedy.endswith(".")
    return {finding.code: finding for finding in findings}


def test_a_good_baseline_lacks_nothing(make_observations: Make) -> None:
    assert found(around_the_clock(make_observations(480, 24))) == {}


def test_little_is_said_to_be_little(make_observations: Make) -> None:
    findings = found(around_the_clock(make_observations(40, 2)))
    assert findings["few-windows"].figures["windows"] == 40
    assert findings["few-recordings"].figures["needed"] == 5


def test_windows_are_judged_by_what_the_budget_asks(make_observations: Make) -> None:
    observed = around_the_clock(make_observations(110, 11))
    novelty = fit(observed)
    p = calibrate(novelty.leave_one_out().novelty, novelty.folds.unit).held_out()
    budget = calibrate_budget(
        p, observed.durations_s, novelty.folds.unit, observed.starts_s, 365 * 86400.0
    )
    strict = replace(budget, fast_windows=40, holds=False, measured_s=3600.0)
    findings = found(observed, budget=strict)
    assert findings["few-windows"].figures["windows_to_fire"] == 40
    assert findings["budget-not-held"].figures["measured_s"] == 3600.0


def test_a_strange_recording_is_named(make_observations: Make) -> None:
    observed = around_the_clock(make_observations(240, 24))
    strange = around_the_clock(make_observations(240, 24, seed=5, shift=2.0, level_db=20.0))
    one = observed.recording_ids == 20
    mixed = replace(
        observed,
        vectors=np.where(one[:, None], strange.vectors, observed.vectors),
        frames=np.where(one[observed.frame_windows][:, None], strange.frames, observed.frames),
        acoustics=tuple(
            b if there else a
            for a, b, there in zip(observed.acoustics, strange.acoustics, one, strict=True)
        ),
    )
    assert found(mixed)["outliers"].figures["recordings"] == [20]


def test_recordings_that_differ_from_each_other_are_unstable(make_observations: Make) -> None:
    parts = [make_observations(20, 1, seed=s, level_db=2.0 * s) for s in range(12)]
    observed = around_the_clock(make_observations(240, 12))
    levels = replace(observed, acoustics=tuple(d for part in parts for d in part.acoustics))
    assert "unstable" not in found(observed)
    findings = assess(levels, fit(levels, "acoustics"), "UTC")
    assert "unstable" in {finding.code for finding in findings}


def test_missing_hours_are_those_of_the_source(make_observations: Make) -> None:
    observed = make_observations(480, 24)
    day = replace(observed, starts_s=1_700_006_400.0 + 43_200.0 * np.arange(480) / 480)
    finding = found(day)["hours-missing"]
    assert finding.figures["hours"] == list(range(12, 24))
    assert "12-24 h" in finding.summary
    with pytest.raises(InvalidValueError):
        assess(observed, fit(observed), "Nowhere/Land")


def test_other_sample_rates_are_told(make_observations: Make) -> None:
    observed = around_the_clock(make_observations(240, 24))
    narrow = make_observations(240, 24, bands=20)
    mixed = replace(observed, acoustics=observed.acoustics[:200] + narrow.acoustics[200:])
    finding = found(mixed)["mixed-sample-rates"]
    assert finding.figures["bands"] == 20
    assert finding.figures["recordings"] == [30, 31, 32, 33]


def test_halves_that_differ_are_told(make_observations: Make) -> None:
    observed = around_the_clock(make_observations(240, 12))
    early, late = make_observations(240, 12), make_observations(240, 12, seed=3, spread=1.2)
    drifting = replace(
        observed,
        vectors=np.vstack([early.vectors[:150], late.vectors[150:]]),
        frames=np.vstack([early.frames[: 150 * 5], late.frames[150 * 5 :]]),
    )
    novelty = fit(drifting, "windows")
    assert "halves-differ" in {finding.code for finding in assess(drifting, novelty, "UTC")}
    steady = fit(observed, "windows")
    assert "halves-differ" not in {finding.code for finding in assess(observed, steady, "UTC")}

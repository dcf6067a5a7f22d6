"""Evidence: its guarantee by simulation, what it catches, and its state."""

from __future__ import annotations

import json

import numpy as np
import pytest

from soundpost.errors import BrokenCalibrationError, InvalidValueError
from soundpost.monitoring.budget import Budget, calibrate_budget, count_alarms
from soundpost.monitoring.evidence import BETS, DETECTORS, Evidence, Thresholds


def test_the_fast_bet_is_the_even_mixture_of_powers() -> None:
    # Each power k p^(k-1) has a mean of exactly 1 under uniform p-values, so the mixture has too.
    powers = (np.arange(100_000) + 0.5) / 100_000
    for p in (1e-9, 1e-4, 0.03, 0.5, 0.97):
        mixed = (powers * p ** (powers - 1.0)).mean()
        assert BETS["fast"](np.array(p))[0] == pytest.approx(mixed, rel=1e-4)


def test_slow_bets_have_a_mean_of_one_under_uniform_p_values() -> None:
    p = (np.arange(1000) + 0.5) / 1000
    assert BETS["slow"](p).mean(axis=0) == pytest.approx(1.0)


@pytest.mark.parametrize("name", DETECTORS)
def test_bets_fall_as_p_values_grow(name: str) -> None:
    bets = BETS[name](np.linspace(1e-6, 1.0, 1001))
    assert (np.diff(bets, axis=0) <= 1e-9).all()
    assert bets.min() > 0.0


@pytest.mark.parametrize("name", DETECTORS)
def test_the_time_between_false_alarms_is_at_least_the_threshold(name: str) -> None:
    rng = np.random.default_rng(0)
    # Fresh p-values for each step and chain: independent and uniform, as the theorem asks.
    rows = np.arange(4000 * 64).reshape(4000, 64)
    p = 1.0 - rng.random(rows.size)
    alarms = count_alarms(BETS[name](p), np.ones(rows.size), rows, np.array([50.0, 200.0]))
    for count, threshold in zip(alarms.sum(axis=1), (50.0, 200.0), strict=True):
        # Four standard deviations of a count of that size.
        assert count <= rows.size / threshold + 4 * np.sqrt(rows.size / threshold)
        assert count > 0


def test_both_together_keep_the_budget() -> None:
    rng = np.random.default_rng(1)
    evidence, alarms, steps = Evidence(Thresholds.for_budget(300.0)), 0, 20_000
    for number in range(steps):
        if evidence.step(1.0 - rng.random(), 1.0, number):
            alarms += 1
            evidence.resolve()
    assert alarms <= steps / 300 + 4 * np.sqrt(steps / 300)
    assert alarms > 0


def first_alarm(p_values: np.ndarray, budget_s: float = 30 * 86400.0) -> tuple[int, Evidence]:
    evidence = Evidence(Thresholds.for_budget(budget_s))
    for number, p in enumerate(p_values.tolist()):
        if evidence.step(p, 5.0, number):
            return number, evidence
    return -1, evidence


def test_a_short_loud_event_is_caught_by_the_fast_detector() -> None:
    rng = np.random.default_rng(2)
    usual = 1.0 - rng.random(500)
    at, evidence = first_alarm(np.r_[usual, [1e-6, 1e-6, 1e-6], usual[:5]])
    alarm = evidence.alarm()
    assert alarm is not None
    assert at in (501, 502)
    assert alarm.detector == "fast"
    assert alarm.since_window_id >= 495
    assert alarm.strength >= 1.0


def test_a_slow_drift_is_caught_by_the_slow_detector_and_dated() -> None:
    rng = np.random.default_rng(3)
    usual, drifted = 1.0 - rng.random(500), 0.02 + 0.58 * rng.random(400)
    at, evidence = first_alarm(np.r_[usual, drifted])
    alarm = evidence.alarm()
    assert alarm is not None
    assert 500 <= at < 800
    assert alarm.detector == "slow"
    assert abs(alarm.since_window_id - 500) < 60
    assert alarm.windows == at - alarm.since_window_id + 1
    assert alarm.since_s == pytest.approx(5.0 * alarm.windows)


def test_nothing_usual_fires() -> None:
    assert first_alarm(1.0 - np.random.default_rng(4).random(3000))[0] == -1


def test_an_alarm_lasts_while_it_is_strange_and_fades_after() -> None:
    evidence = Evidence(Thresholds.for_budget(86400.0))
    for number in range(200):
        alarm = evidence.step(1e-4, 5.0, number)
    assert alarm is not None
    assert alarm.strength <= 2.0 + 1e-9
    rng = np.random.default_rng(5)
    quiet = [evidence.step(1.0 - rng.random(), 5.0) is None for _ in range(120)]
    assert any(quiet)


def test_resolving_begins_anew() -> None:
    _, evidence = first_alarm(np.full(50, 1e-4))
    evidence.resolve()
    assert evidence.alarm() is None
    assert evidence.strengths() == {"fast": 0.0, "slow": 0.0}


def test_the_state_goes_on_across_recordings() -> None:
    rng = np.random.default_rng(6)
    thresholds = Thresholds(4000.0, 4000.0, (1.1,), (1.0, 1.05, 1.1))
    whole, parts = Evidence(thresholds), Evidence(thresholds)
    for number, p in enumerate((0.3 * rng.random(60) + 1e-3).tolist()):
        document = json.loads(json.dumps(parts.to_document()))
        assert len(json.dumps(document)) < 1000
        parts = Evidence.from_document(document, thresholds)
        assert whole.step(p, 5.0, number) == parts.step(p, 5.0, number)


@pytest.mark.parametrize("document", [{}, {"fast": 3, "slow": {}}, {"fast": {"evidence": ["x"]}}])
def test_a_broken_state_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(BrokenCalibrationError):
        Evidence.from_document(document, Thresholds.for_budget(3600.0))


def test_impossible_values_are_refused() -> None:
    evidence = Evidence(Thresholds.for_budget(3600.0))
    for p, duration_s in ((0.0, 5.0), (1.1, 5.0), (float("nan"), 5.0), (0.5, 0.0)):
        with pytest.raises(InvalidValueError):
            evidence.step(p, duration_s)
    with pytest.raises(InvalidValueError):
        Thresholds.for_budget(0.0)


# --- the budget on sequences that are not independent ---------------------------------------------


def autocorrelated(rng: np.random.Generator, count: int, share: float) -> np.ndarray:
    """Uniform values by the ranks of a moving sum, in the given share of what neighbours share."""
    noise = rng.normal(size=count)
    for at in range(1, count):
        noise[at] = share * noise[at - 1] + np.sqrt(1 - share**2) * noise[at]
    return (1.0 + np.argsort(np.argsort(noise))) / (count + 1.0)


def made(p: np.ndarray, budget_s: float, units: int = 30) -> Budget:
    count = len(p)
    return calibrate_budget(
        p, np.full(count, 5.0), np.arange(count) * units // count, 5.0 * np.arange(count), budget_s
    )


def alarms_per(p: np.ndarray, thresholds: Thresholds) -> float:
    """Seconds between alarms over a sequence."""
    evidence, alarms = Evidence(thresholds), 0
    for value in p.tolist():
        if evidence.step(value, 5.0):
            alarms += 1
            evidence.resolve()
    return 5.0 * len(p) / max(alarms, 0.5)


def test_autocorrelation_is_corrected() -> None:
    rng = np.random.default_rng(0)
    budget = made(autocorrelated(rng, 3000, 0.8), 1800.0)
    fresh = autocorrelated(np.random.default_rng(1), 30_000, 0.8)
    plain = alarms_per(fresh, Thresholds.for_budget(1800.0))
    kept = alarms_per(fresh, budget.thresholds)
    assert plain < 1800.0 / 1.5  # Without a correction the budget does not hold.
    assert kept > 1800.0 / 1.5
    assert budget.plain_s < budget.measured_s
    assert budget.low_s < budget.high_s


def test_independent_p_values_need_little_correction() -> None:
    rng = np.random.default_rng(2)
    budget = made(1.0 - rng.random(3000), 1800.0)
    assert budget.holds
    assert max(budget.thresholds.slow_means) < 1.1
    assert budget.thresholds.fast_s < 20 * Thresholds.for_budget(1800.0).fast_s


def test_a_month_is_extrapolated_from_hours_and_says_so() -> None:
    budget = made(1.0 - np.random.default_rng(3).random(2000), 30 * 86400.0)
    assert budget.extrapolated
    assert budget.reference_s == pytest.approx(10_000.0)
    assert budget.thresholds.fast_s >= 2 * 30 * 86400.0
    assert budget.fast_windows >= 2


def test_one_short_reference_gives_a_budget_all_the_same() -> None:
    budget = made(np.full(8, 1.0), 3600.0, units=2)
    assert np.isfinite(budget.measured_s)
    strange = made(np.full(40, 1e-3), 3600.0, units=2)
    assert np.isfinite(strange.measured_s)


def test_a_budget_survives_being_stored() -> None:
    budget = made(1.0 - np.random.default_rng(4).random(300), 3600.0)
    assert Budget.from_document(json.loads(json.dumps(budget.to_document()))) == budget
    with pytest.raises(BrokenCalibrationError):
        Budget.from_document({"stated_s": 3.0})


def test_thresholds_do_not_leap_with_one_strange_window() -> None:
    """A short loud sound is noticed or not by what it is, not by which half of a reference is known."""
    month_s = 30.0 * 86_400.0
    for seed in range(6):
        p = np.random.default_rng(seed).uniform(size=192)
        p[40] = 1e-6
        thresholds = made(p, month_s, units=8).thresholds
        assert thresholds.fast_s <= 100.0 * Thresholds.for_budget(month_s).fast_s
        evidence = Evidence(thresholds)
        for value in p[:30].tolist():
            assert evidence.step(value, 5.0) is None
        assert evidence.step(1e-12, 5.0) is not None

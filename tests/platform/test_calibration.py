"""p-values against their definition, and whether they are uniform where they should be."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.errors import BaselineTooSmallError, BrokenCalibrationError
from soundpost.monitoring.calibration import Calibration, calibrate
from soundpost.monitoring.tail import fit_tail

UNITS = np.arange(200) // 20


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.integers(-1, 10))
def test_a_p_value_is_the_share_that_is_at_least_as_strange(
    reference: list[int], asked: int
) -> None:
    scores = np.array(reference, np.float64)
    calibration = calibrate(scores, np.arange(len(scores)), tail=False)
    expected = (1 + sum(score >= asked for score in reference)) / (1 + len(reference))
    assert calibration.p_values(np.array([float(asked)]))[0] == pytest.approx(expected)


@pytest.mark.parametrize("tail", [False, True])
def test_p_values_of_exchangeable_scores_are_not_too_small(tail: bool) -> None:
    rng = np.random.default_rng(0)
    below = []
    for _ in range(400):
        calibration = calibrate(rng.normal(size=200), UNITS, tail=tail)
        below.append(calibration.p_values(rng.normal(size=50)))
    drawn = np.concatenate(below)
    for level in (0.5, 0.1, 0.05, 0.01):
        assert (drawn <= level).mean() <= level * 1.1 + 0.001
    assert drawn.mean() == pytest.approx(0.5, abs=0.01)


def test_the_tail_tells_far_from_farther_and_hardly_cries_wolf() -> None:
    rng = np.random.default_rng(1)
    rare, drawn = 0, 0
    for _ in range(200):
        calibration = calibrate(rng.normal(size=500), np.arange(500) // 50, tail=True)
        p = calibration.p_values(rng.normal(size=2000))
        rare, drawn = rare + int((p < 2e-4).sum()), drawn + len(p)
    assert rare / drawn < 3 * 2e-4
    far = calibration.p_values(np.array([4.0, 6.0, 9.0, 50.0]))
    assert (np.diff(far) < 0).all()
    assert far[-1] < 1e-6
    plain = calibrate(calibration.scores, calibration.units, tail=False)
    assert plain.p_values(np.array([50.0]))[0] == pytest.approx(1 / 501)


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=60), st.booleans())
def test_p_values_fall_as_novelty_grows(reference: list[float], tail: bool) -> None:
    scores = np.array(reference)
    calibration = calibrate(scores, np.arange(len(scores)), tail=tail)
    p = calibration.p_values(np.linspace(-300, 300, 101))
    assert (np.diff(p) <= 1e-15).all()
    assert p.min() > 0.0
    assert p.max() <= 1.0


def test_a_recording_is_held_out_of_its_own_calibration() -> None:
    scores = np.r_[np.zeros(50), np.full(10, 5.0)]
    units = np.r_[np.arange(50) // 10, np.full(10, 9)]
    held_out = calibrate(scores, units, tail=False).held_out()
    assert held_out[50:] == pytest.approx(1 / 51)
    assert held_out[:50].min() == 1.0


def test_contexts_have_their_own_normal() -> None:
    rng = np.random.default_rng(0)
    scores = np.r_[rng.normal(size=100), rng.normal(size=100) + 5.0]
    contexts = ["night"] * 100 + ["noon"] * 100
    calibration = calibrate(scores, UNITS, contexts)
    asked = np.array([5.0, 5.0])
    night, noon = calibration.p_values(asked, ["night", "noon"])
    assert night < 0.01
    assert noon > 0.2


def test_a_thin_context_is_compared_with_all() -> None:
    scores = np.arange(120.0)
    contexts = ["day"] * 100 + ["dawn"] * 20
    calibration = calibrate(scores, np.arange(120) // 12, contexts)
    assert calibration.thin_contexts() == ("dawn",)
    p = calibration.p_values(np.array([60.0, 60.0]), ["dawn", "never heard of"])
    assert p == pytest.approx((1 + 60) / 121)


def test_identical_scores_have_no_tail_and_say_one() -> None:
    assert fit_tail(np.ones(100)) is None
    p = calibrate(np.ones(100), np.arange(100)).p_values(np.array([1.0, 2.0]))
    assert p.tolist() == pytest.approx([1.0, 1 / 101])


def test_a_calibration_survives_being_stored() -> None:
    rng = np.random.default_rng(0)
    contexts = ["a"] * 120 + ["b"] * 80
    calibration = calibrate(rng.normal(size=200), UNITS, contexts)
    again = Calibration.from_document(json.loads(json.dumps(calibration.to_document())))
    asked = rng.normal(size=30) * 3
    assert np.array_equal(
        again.p_values(asked, ["b"] * 30), calibration.p_values(asked, ["b"] * 30)
    )
    assert np.array_equal(again.held_out(), calibration.held_out())


@pytest.mark.parametrize("change", [{"scores": "?"}, {"units": None}, {"contexts": "AAAA"}])
def test_a_broken_document_is_refused(change: dict[str, object]) -> None:
    document = calibrate(np.arange(200.0), UNITS).to_document() | change
    with pytest.raises(BrokenCalibrationError):
        Calibration.from_document(document)


def test_nothing_to_calibrate_on_is_an_error() -> None:
    with pytest.raises(BaselineTooSmallError):
        calibrate(np.zeros(0), np.zeros(0, np.int64))

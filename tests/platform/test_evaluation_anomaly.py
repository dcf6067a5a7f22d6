"""The evaluation of watching on tiny inputs, its measures by their definitions."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.evaluation.anomaly import SECTION
from soundpost.evaluation.false_alarms import watch_level
from soundpost.evaluation.flight_scores import (
    STRETCHES,
    Mixtures,
    interval,
    mixtures,
    score_ours,
    score_peers,
)
from soundpost.evaluation.flights import Flights, Noise, noise_level, with_noise
from soundpost.evaluation.metrics import area_under_roc
from soundpost.evaluation.motor import measure_changes
from soundpost.evaluation.observing import Listener, join, recording_means
from soundpost.evaluation.peers import log_mel, stacked
from soundpost.evaluation.retrieval import SECTION as RERANKING
from soundpost.evaluation.scoring_cost import made_up, measure_cost
from soundpost.evaluation.splices import background, detections, splice
from soundpost.evaluation.watching import make_watch
from soundpost.models.placeholder import ToneEncoder

RATE_HZ = 16_000


def tone(frequency_hz: float, seconds: float, seed: int) -> np.ndarray:
    """A tone in noise, which the placeholder encoder tells from others by its pitch."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    wave = 0.05 * np.sin(2 * np.pi * frequency_hz * time_s) + 0.005 * rng.normal(size=len(time_s))
    return wave.astype(np.float32)


@pytest.fixture
def listener(tmp_path: Path) -> Listener:
    return Listener(ToneEncoder(), tmp_path / "cache")


# --- measures -----------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=40))
def test_the_area_is_the_share_of_pairs_in_order(items: list[tuple[int, bool]]) -> None:
    scores = np.array([s for s, _ in items], float)
    positive = np.array([p for _, p in items])
    area = area_under_roc(scores, positive)
    if positive.all() or not positive.any():
        assert np.isnan(area)
        return
    pairs = product(scores[positive], scores[~positive])
    wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs]
    assert area == pytest.approx(np.mean(wins))


def test_the_partial_area_counts_the_first_false_positives_only() -> None:
    rng = np.random.default_rng(0)
    positive = rng.random(20_000) < 0.5
    chance = rng.random(20_000)
    assert area_under_roc(chance, positive, 0.1) == pytest.approx(0.5, abs=0.02)
    assert area_under_roc(positive.astype(float), positive, 0.1) == pytest.approx(1.0)
    # Half of the positives lie above every negative, the others below: hits stay at one half.
    scores = np.r_[np.full(50, 2.0), np.full(50, 0.0), np.full(100, 1.0) - np.arange(100) * 1e-3]
    labels = np.r_[np.ones(100), np.zeros(100)] > 0
    expected = 0.5 * (1 + (0.5 * 0.1 - 0.005) / (0.1 - 0.005))
    assert area_under_roc(scores, labels, 0.1) == pytest.approx(expected)


def test_means_stay_within_a_recording() -> None:
    means, owners = recording_means(np.arange(7.0), np.array([0, 0, 0, 1, 1, 1, 1]), 2)
    assert means.tolist() == [0.5, 3.5, 5.5]
    assert owners.tolist() == [0, 1, 1]
    assert recording_means(np.array([4.0]), np.array([0]), 2)[0].tolist() == [4.0]


# --- material -----------------------------------------------------------------------------------


def test_noise_is_as_loud_as_said_in_every_wave() -> None:
    rng = np.random.default_rng(0)
    quiet, clips = tone(300, 4, 0), [rng.normal(size=8000).astype(np.float32) for _ in range(3)]
    for snr_db in (0.0, -10.0):
        level = noise_level([quiet], snr_db)
        for wave in (quiet, 4 * quiet):
            (mixed,) = with_noise([wave], clips, level, np.random.default_rng(1))
            ratio = np.square(quiet).mean() / np.square(mixed - wave).mean()
            assert 10 * np.log10(ratio) == pytest.approx(snr_db, abs=6.1)
    assert with_noise([quiet], clips, noise_level([quiet], None), rng)[0] is quiet


def test_a_splice_is_as_loud_over_the_background_as_said() -> None:
    under = background(("fan",), 10.0, 0)
    sound = np.r_[np.zeros(8000), np.sin(np.arange(16_000) / 3.0)].astype(np.float32)
    added = splice(under, sound, 10.0, np.random.default_rng(0)) - under
    loud = added[np.abs(added) > 0]
    over = 20 * np.log10(np.sqrt(np.square(loud).mean()) / np.sqrt(np.square(under).mean()))
    assert over == pytest.approx(10.0, abs=0.3)
    assert not np.array_equal(under, background(("fan",), 10.0, 1))


def test_observations_are_kept_between_runs(listener: Listener) -> None:
    waves = [tone(300, 11, 0), tone(500, 3, 1)]
    first, again = listener.observe(waves, 5.0), listener.observe(waves, 5.0)
    assert first.recording_ids.tolist() == [0, 0, 1]
    assert first.frame_windows.tolist() == [0] * 5 + [1] * 5 + [2] * 3
    assert np.array_equal(first.vectors, again.vectors)
    assert first.acoustics == again.acoustics
    assert listener.cache is not None
    assert len(list(listener.cache.glob("*.npz"))) == 2
    joined = join([first, again])
    assert joined.frame_windows.max() == len(joined) - 1


# --- peers and figures --------------------------------------------------------------------------


def test_stacked_frames_are_consecutive() -> None:
    mel = log_mel(tone(400, 1, 0))
    assert mel.shape[1] == 128
    frames = stacked(mel)
    assert frames.shape == (len(mel) - 4, 640)
    assert np.array_equal(frames[3], mel[3:8].ravel())
    assert stacked(mel[:2]).shape == (1, 640)


def flights() -> Flights:
    normal = [tone(400, 21, seed) for seed in range(8)]
    broken = [tone(640, 21, 50 + seed) for seed in range(3)]
    return Flights(normal[::2], normal[1::2], normal[1::2], broken)


def clips() -> Noise:
    rng = np.random.default_rng(5)
    made = [0.05 * rng.normal(size=40_000).astype(np.float32) for _ in range(4)]
    return Noise(made[:2], made[2:])


@pytest.mark.parametrize(("seconds", "window_s"), STRETCHES)
def test_ours_hear_another_tone(listener: Listener, seconds: float, window_s: float) -> None:
    mixed = mixtures(flights(), clips(), 10.0, seed=0)
    for scored in score_ours(listener, mixed, seconds, window_s).values():
        assert len(scored.scores) == len(scored.broken) == len(scored.flights)
        assert scored.area() > 0.9
        low, high = interval(scored, 0.1)
        assert low <= scored.area(0.1) <= high


def test_peers_hear_another_tone() -> None:
    whole = flights()
    mixed = Mixtures(whole.baseline[:2], whole.normal[:2], whole.broken[:2])
    found = score_peers(mixed, epochs=3)
    assert len(found) == len(STRETCHES)
    for (seconds, _), peers in zip(STRETCHES, found, strict=True):
        for scored in peers.values():
            assert len(scored.scores) == 4 * (21 // seconds)
            assert scored.area() > 0.9


def test_watching_flights_counts_alarms_and_delays(listener: Listener) -> None:
    whole = flights()
    normal = [*whole.baseline, *whole.normal]
    for snr_db, rounds in ((None, 1), (10.0, 2)):
        level = watch_level(listener, normal, whole.broken, clips(), snr_db, rounds)
        assert level.changes == 3
        assert level.heard_s > 0
        assert level.low <= level.per_hour <= level.high
        assert all(delay % 5.0 == 0.0 for delay in level.delays_s)


def test_a_loud_new_sound_is_found_and_a_faint_one_is_not(listener: Listener) -> None:
    sounds = [tone(3000, 3, seed) for seed in range(4)]
    found = detections(
        listener, "fan", sounds, levels_db=(-40.0, 30.0), recordings=6, recording_s=60.0
    )
    assert [d.splices for d in found] == [4, 4]
    assert found[0].found == 0
    assert found[1].found == 4
    assert all(delay >= 1 for delay in found[1].delays)


def test_states_of_a_motor_are_told_apart(listener: Listener) -> None:
    states = {
        ("propeller", 20): [tone(300, 2, s) for s in range(10)],
        ("propeller", 40): [tone(700, 2, s + 60) for s in range(4)],
        ("propeller", 30): [tone(500, 2, s + 20) for s in range(10)],
        ("no_propeller", 20): [tone(900, 2, s + 40) for s in range(10)],
    }
    areas = measure_changes(listener, states).areas
    assert len(areas["throttle step of 10 %", "fusion"]) == 2
    assert np.mean(areas["propeller taken off or put on", "fusion"]) > 0.9


def test_a_watch_dates_a_change() -> None:
    reference = made_up(200, 16, 5.0)
    watch = make_watch(reference, 3600.0)
    quiet = np.linspace(0.05, 1.0, 40).tolist()
    assert watch.delay(quiet, [1e-9] * 5, 5.0) in (1, 2, 3)
    assert watch.delay(quiet, [0.9] * 5, 5.0) == 0
    assert watch.alarms([0.9] * 20, 5.0) == []


def test_the_cost_is_measured() -> None:
    cost = measure_cost(ToneEncoder(), windows=100)
    assert min(cost.fit_s, cost.score_s, cost.embed_s, cost.score_alone_s) > 0.0


def test_tables_go_between_their_markers(tmp_path: Path) -> None:
    path = tmp_path / "benchmarks.md"
    path.write_text("# Benchmarks\n\n## Encode\n\n| a |\n", encoding="utf-8")
    SECTION.write(path, ["first"])
    RERANKING.write(path, ["beside"])
    SECTION.write(path, ["second"])
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# Benchmarks\n\n## Encode\n\n| a |\n")
    assert text.count("## Watching") == text.count("## Reranking") == 1
    assert "beside" in text
    assert "second" in text
    assert "first" not in text

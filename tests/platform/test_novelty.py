"""Novelty against brute force, on what is strange, and on references that are hardly any."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from soundpost.audio.acoustics import measure
from soundpost.errors import BaselineTooSmallError, BrokenCalibrationError, InvalidValueError
from soundpost.monitoring.acoustic_distance import acoustic_features, fit_acoustics
from soundpost.monitoring.folds import make_folds
from soundpost.monitoring.neighbours import fit_neighbours
from soundpost.monitoring.novelty import NOVELTY_METHODS, NoveltyOptions, Scores, fit
from soundpost.monitoring.novelty_file import dump, restore
from soundpost.monitoring.observations import Observations

Make = Callable[..., Observations]


def finite(scores: Scores) -> bool:
    return bool(
        np.isfinite(scores.novelty).all()
        and all(np.isfinite(part).all() for part in scores.parts.values())
    )


@pytest.mark.parametrize("k", [1, 3])
def test_neighbours_equal_brute_force(make_observations: Make, k: int) -> None:
    reference, asked = make_observations(60, 4), make_observations(9, seed=1)
    fitted = fit_neighbours(
        reference.vectors, reference.recording_ids, k=k, density_k=2, whitening=0.0
    )
    novelty, nearest = fitted.score(asked.vectors)
    for row, vector in enumerate(asked.vectors.astype(np.float64)):
        ratios = []
        for other, group in zip(reference.vectors, reference.recording_ids, strict=True):
            away = sorted(
                float(np.linalg.norm(other - third))
                for third, third_group in zip(
                    reference.vectors, reference.recording_ids, strict=True
                )
                if third_group != group
            )
            ratios.append(float(np.linalg.norm(vector - other)) / away[1])
        assert novelty[row] == pytest.approx(np.mean(sorted(ratios)[:k]), rel=1e-3)
        assert nearest[row] == int(np.argmin(ratios))


def test_group_distances_equal_their_definition(make_observations: Make) -> None:
    reference, asked = make_observations(200), make_observations(5, seed=1)
    groups = fit_acoustics(reference.acoustics, reference.recording_ids, 0.3).groups
    values = acoustic_features(reference.acoustics).values
    floor = np.r_[np.full(28, 0.5), np.full(values.shape[1] - 28, 0.05)]
    spread = np.maximum(values.std(axis=0), floor)
    standard = (values - values.mean(axis=0)) / spread
    covariance = 0.7 * standard.T @ standard / 200
    np.fill_diagonal(covariance, 1.0)
    assert groups.members.sum(axis=1).tolist() == [3] * 24 + [4, 5, 35]
    found = groups.distances(acoustic_features(asked.acoustics).values)
    for row, one in enumerate(acoustic_features(asked.acoustics).values):
        away = (one - values.mean(axis=0)) / spread
        for group, member in enumerate(groups.members):
            own = covariance[np.ix_(member, member)]
            squared = away[member] @ np.linalg.solve(own, away[member]) / member.sum()
            assert found[row, group] == pytest.approx(0.5 * np.log(squared + 1e-4))


def test_the_rarity_of_a_group_is_that_of_its_share(make_observations: Make) -> None:
    reference, asked = make_observations(600, 12), make_observations(600, 12, seed=1)
    fitted = fit_acoustics(reference.acoustics, reference.recording_ids, 0.2)
    distances = fitted.groups.distances(acoustic_features(asked.acoustics).values)
    rarity = fitted._rarity(distances)
    assert (np.diff(fitted._rarity(np.sort(distances, axis=0)), axis=0) >= -1e-9).all()
    for share in (0.5, 0.1, 0.02):
        assert (rarity > -np.log(share)).mean() == pytest.approx(share, rel=0.3)


def test_one_band_that_changes_is_enough(make_observations: Make) -> None:
    reference, asked = make_observations(200), make_observations(20, seed=1)
    louder = []
    for document in asked.acoustics:
        bands = list(document["third_octave_dbfs"])
        bands[5] += 12.0
        louder.append({**document, "third_octave_dbfs": bands})
    novelty = fit(reference, "acoustics")
    changed = novelty.score(replace(asked, acoustics=tuple(louder))).novelty
    assert changed.min() > np.quantile(novelty.score(asked).novelty, 0.95)


@pytest.mark.parametrize("method", NOVELTY_METHODS)
def test_a_changed_source_is_stranger_than_its_own_new_recordings(
    make_observations: Make, method: str
) -> None:
    novelty = fit(make_observations(), method)
    usual = novelty.score(make_observations(seed=1)).novelty
    changed = novelty.score(make_observations(seed=2, shift=1.5, level_db=12.0)).novelty
    assert np.quantile(changed, 0.1) > np.quantile(usual, 0.9)
    # New recordings of the same source score as the reference did held out.
    held_out = novelty.leave_one_out().novelty
    assert abs(usual.mean() - held_out.mean()) < 0.5 * held_out.std()


@pytest.mark.parametrize("method", NOVELTY_METHODS)
def test_the_order_of_the_reference_makes_no_difference(
    make_observations: Make, method: str
) -> None:
    reference, asked = make_observations(), make_observations(seed=1)
    order = np.random.default_rng(3).permutation(len(reference))
    there, back = fit(reference, method), fit(reference.take(order), method)
    assert np.allclose(there.score(asked).novelty, back.score(asked).novelty, atol=1e-4)
    assert np.allclose(
        there.leave_one_out().novelty[order], back.leave_one_out().novelty, atol=1e-4
    )


def test_a_window_is_not_compared_with_its_own_recording(make_observations: Make) -> None:
    usual, strange = make_observations(60, 5), make_observations(12, 1, seed=1, shift=1.0)
    ids = np.r_[usual.recording_ids, np.full(12, 77)]
    together = Observations(
        window_ids=np.r_[usual.window_ids, strange.window_ids + 500],
        recording_ids=ids,
        starts_s=np.r_[usual.starts_s, strange.starts_s + 4000.0],
        durations_s=np.r_[usual.durations_s, strange.durations_s],
        vectors=np.vstack([usual.vectors, strange.vectors]),
        frames=np.vstack([usual.frames, strange.frames]),
        frame_windows=np.r_[usual.frame_windows, strange.frame_windows + 60],
        acoustics=usual.acoustics + strange.acoustics,
    )
    novelty = fit(together, "windows")
    held_out = novelty.leave_one_out()
    assert held_out.novelty[60:].min() > np.quantile(held_out.novelty[:60], 0.9)
    assert not set(held_out.nearest[60:]) & set(range(60, 72))
    # Fitted on all, the same sound is known.
    assert novelty.score(strange).novelty.mean() < held_out.novelty[60:].mean()


def test_the_strangest_second_is_named(make_observations: Make) -> None:
    asked = make_observations(4, seed=1)
    frames = asked.frames.copy()
    frames[2 * 5 + 3] = -frames[2 * 5 + 3]
    scores = fit(make_observations(), "frames").score(replace(asked, frames=frames))
    assert scores.second[2] == 3
    assert scores.novelty.argmax() == 2


def test_one_recording_is_held_out_in_blocks_with_a_margin(make_observations: Make) -> None:
    folds = make_folds(make_observations(100, 1))
    assert not folds.by_recording
    for number in range(folds.count):
        out, kept = folds.held_out(number), folds.kept(number)
        gap = np.abs(folds.starts_s[out][:, None] - folds.starts_s[kept][None]).min()
        assert gap >= 10.0
    assert finite(fit(make_observations(100, 1)).leave_one_out())


def test_many_recordings_are_held_out_several_at_a_time(make_observations: Make) -> None:
    folds = make_folds(make_observations(400, 80))
    assert folds.count == 10
    for unit in np.unique(folds.unit):
        assert len(np.unique(folds.fold[folds.unit == unit])) == 1


def test_too_few_windows_say_so(make_observations: Make) -> None:
    for count in (1, 7):
        with pytest.raises(BaselineTooSmallError, match=f"{count} windows"):
            fit(make_observations(count, 1))
    with pytest.raises(InvalidValueError, match="methods are"):
        fit(make_observations(), "wishes")


def constant(windows: int, recordings: int, document: dict[str, object]) -> Observations:
    vector = np.zeros((windows, 16), np.float32)
    vector[:, 0] = 1.0
    return Observations(
        np.arange(windows),
        np.arange(windows) * recordings // windows,
        np.arange(windows) * 5.0,
        np.full(windows, 5.0),
        vector,
        vector,
        np.arange(windows),
        (document,) * windows,
    )


@pytest.mark.parametrize("method", NOVELTY_METHODS)
def test_identical_and_silent_windows_give_numbers(make_observations: Make, method: str) -> None:
    silence = measure(np.zeros(80_000, np.float32), 16_000).to_document()
    reference = constant(30, 3, silence)
    novelty = fit(reference, method)
    assert finite(novelty.leave_one_out())
    same = novelty.score(reference)
    assert finite(same)
    other = novelty.score(make_observations(5, dimension=16))
    assert finite(other)
    assert other.novelty.min() > same.novelty.max()


@pytest.mark.parametrize("method", ["fusion", "acoustics"])
def test_lower_sample_rates_are_compared_by_the_bands_they_have(
    make_observations: Make, method: str
) -> None:
    wide, narrow = make_observations(seed=0), make_observations(seed=1, bands=22)
    mixed = fit(wide, method).score(narrow)
    assert finite(mixed)
    usual = fit(wide, method).leave_one_out().parts["acoustics"]
    assert mixed.parts["acoustics"].mean() < 1.3 * usual.mean()
    both = replace(wide, acoustics=wide.acoustics[:60] + narrow.acoustics[60:])
    novelty = fit(both, method)
    assert "22 third octaves" in novelty.notes[0]
    assert finite(novelty.score(wide))
    assert not fit(wide, method).notes


def test_nothing_to_score_gives_nothing(make_observations: Make) -> None:
    observed = make_observations()
    empty = observed.take(np.zeros(0, np.int64))
    assert len(fit(observed).score(empty)) == 0


@pytest.mark.parametrize("method", NOVELTY_METHODS)
def test_a_stored_scorer_scores_the_same(make_observations: Make, method: str) -> None:
    novelty = fit(make_observations(), method, NoveltyOptions(k=2, whitening=1.0))
    again = restore(dump(novelty))
    asked = make_observations(seed=1)
    assert np.array_equal(again.score(asked).novelty, novelty.score(asked).novelty)
    assert np.array_equal(again.leave_one_out().novelty, novelty.leave_one_out().novelty)
    assert np.array_equal(again.folds.unit, novelty.folds.unit)


def test_broken_bytes_are_refused(make_observations: Make) -> None:
    raw = dump(fit(make_observations(), "windows"))
    for broken in (b"", raw[:-7], b"\xff" * 40, json.dumps({}).encode()):
        with pytest.raises(BrokenCalibrationError):
            restore(broken)

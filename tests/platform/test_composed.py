"""Composed scenes: what is heard is what their truth says, and queries are true of nothing else."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soundpost.models.encoder import AudioEncoding
from soundpost.models.placeholder import ToneEncoder
from soundpost.training.composed import (
    ActiveClip,
    Event,
    Layout,
    Plan,
    Pool,
    Scene,
    active,
    confusable,
    distractors,
    draw_plan,
    play,
    render,
)
from soundpost.training.composed_queries import Query, draw_query, relevant_scenes
from soundpost.training.composed_sets import (
    compose_for_measuring,
    compose_for_training,
    embed_scenes,
    part_clips,
    retrieval_set,
)
from soundpost.training.data import load_clips
from soundpost.training.sound_phrases import SOUND_PHRASES, draw_phrase

RATE_HZ = 16_000
PITCHES_HZ = {"dog": 400.0, "siren": 900.0, "rain": 1_700.0, "train": 3_000.0, "cat": 5_000.0}


def tone(frequency_hz: float, seconds: float) -> np.ndarray:
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return (8_000 * np.sin(2 * np.pi * frequency_hz * time_s)).astype(np.int16)


@pytest.fixture(scope="module")
def pool() -> Pool:
    """Two clips a sound, each a tone by which it is told."""
    sounds = dict(enumerate(name for name in PITCHES_HZ for _ in range(2)))
    clips = {row: active(tone(PITCHES_HZ[name], 3.0 + row % 2)) for row, name in sounds.items()}
    return Pool(clips, sounds)


def level_dbfs(wave: np.ndarray, frequency_hz: float) -> float:
    """The level of one tone in a stretch."""
    time_s = np.arange(len(wave)) / RATE_HZ
    heard = np.abs(np.mean(wave * np.exp(-2j * np.pi * frequency_hz * time_s)))
    return float(20 * np.log10(heard + 1e-9))


def query_for(plan: Plan, seed: int) -> Query:
    return draw_query(plan, draw_phrase, np.random.default_rng(seed))


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_a_query_is_true_of_the_scene_that_it_was_drawn_for(pool: Pool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    plan = draw_plan(pool, rng)
    scene = play(plan, pool, rng)
    assert 6.0 <= scene.duration_s <= 15.0
    assert all(0.0 <= event.start_s < event.end_s <= 15.0 for event in scene.events)
    assert draw_query(plan, draw_phrase, rng).true_of(scene)


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_a_scene_sounds_as_its_truth_says(pool: Pool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = play(draw_plan(pool, rng), pool, rng)
    wave = render(scene, pool)
    assert np.array_equal(wave, render(scene, pool))
    assert len(wave) == round(scene.duration_s * RATE_HZ)
    for event in scene.events:
        begin, end = round(event.start_s * RATE_HZ), round(event.end_s * RATE_HZ)
        own = PITCHES_HZ[event.sound]
        heard = level_dbfs(wave[begin + 800 : end - 800], own)
        outside = np.concatenate([wave[: max(0, begin - 800)], wave[end + 800 :]])
        again = sum(other.sound == event.sound for other in scene.events) > 1
        if len(outside) > 4_000 and not again:
            assert heard > level_dbfs(outside, own) + 6.0
        # A unit tone of amplitude sqrt(2) has a mean product of half of that.
        expected = scene.level_dbfs + event.level_db - 3.0
        assert heard == pytest.approx(expected, abs=3.0)


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_no_distractor_answers_a_query_that_names_order_or_loudness(pool: Pool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    plan = draw_plan(pool, rng)
    query = draw_query(plan, draw_phrase, rng)
    named_all = query.sounds == set(plan.sounds)
    exchanged, replaced, _ = distractors(plan, pool, rng)
    again = len(set(plan.sounds)) < len(plan.sounds)
    symmetric = {claim.relation.value for claim in query.claims} <= {"while"}
    if named_all:
        assert not query.true_of(play(replaced, pool, rng))
    if named_all and not symmetric and not again and query.claims:
        assert not query.true_of(play(exchanged, pool, rng))


def scene_of(*events: Event) -> Scene:
    return Scene(Plan(Layout.SEQUENCE, ()), events, 10.0, -20.0, -40.0, 0)


def test_the_truth_of_a_query_is_read_from_events() -> None:
    dog_then_siren = scene_of(Event("dog", 0, 0, 2, 0), Event("siren", 2, 2.5, 5, 0))
    siren_then_dog = scene_of(Event("siren", 2, 0, 2, 0), Event("dog", 0, 2.5, 5, 0))
    both = scene_of(Event("dog", 0, 0, 5, 0), Event("siren", 2, 0.5, 5, -12))
    other = scene_of(Event("dog", 0, 0, 2, 0), Event("rain", 4, 2.5, 5, 0))
    scenes = [dog_then_siren, siren_then_dog, both, other]
    order = [query_for(Plan(Layout.SEQUENCE, ("dog", "siren")), seed) for seed in range(60)]
    found = relevant_scenes([query for query in order if "before" in query.text], scenes)
    assert found
    assert all(rows.tolist() == [0] for rows in found)
    behind = [query_for(Plan(Layout.OVER, ("dog", "siren")), seed) for seed in range(60)]
    wanted = [query for query in behind if "background" in query.text]
    assert wanted
    assert all(rows.tolist() == [2] for rows in relevant_scenes(wanted, scenes))


def test_texts_name_every_sound_and_leave_no_hole() -> None:
    rng = np.random.default_rng(0)
    sounds = Pool({row: ActiveClip(np.ones(16_000, np.float32)) for row in range(56)},
                  dict(enumerate(SOUND_PHRASES)))  # fmt: skip
    texts = {draw_query(draw_plan(sounds, rng), draw_phrase, rng).text for _ in range(3_000)}
    assert len(texts) > 2_900
    assert not [text for text in texts if "{" in text or "  " in text]


def test_a_scene_holds_no_two_sounds_that_nobody_could_tell_apart() -> None:
    rng = np.random.default_rng(0)
    names = dict(enumerate(SOUND_PHRASES))
    sounds = Pool({row: ActiveClip(np.ones(9_000, np.float32)) for row in names}, names)
    for _ in range(500):
        plan = draw_plan(sounds, rng)
        for other in (plan, *distractors(plan, sounds, rng)):
            chosen = sorted(set(other.sounds))
            pairs = [(a, b) for a in chosen for b in chosen if a < b]
            assert not [pair for pair in pairs if confusable(*pair)]


def test_parts_share_no_clip_and_no_recording(tmp_path: Path) -> None:
    columns = ["path", "seconds", "sample_rate", "dataset", "fold", "label", "target", "origin"]
    rows = [
        (f"{fold}-{number}", 5.0, 16_000, "esc50", fold, "dog", 0, origin)
        for fold in (1, 2, 3, 4)
        for number, origin in enumerate((f"own {fold}", "in all folds"))
    ]
    with (tmp_path / "audio.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
    clips = load_clips(tmp_path)
    parts = {part: part_clips(clips, part) for part in ("train", "develop", "test")}
    folds = {part: {clips[row].fold for row in chosen} for part, chosen in parts.items()}
    assert folds == {"train": {1, 2}, "develop": {3}, "test": {4}}
    origins = [{clips[row].origin for row in chosen} for chosen in parts.values()]
    assert "in all folds" in origins[2]
    assert not origins[0] & (origins[1] | origins[2])
    assert not origins[1] & origins[2]


class CountingEncoder(ToneEncoder):
    """Counts the windows that it hears."""

    heard = 0

    def encode_audio(self, waves: np.ndarray, lengths: np.ndarray | None = None) -> AudioEncoding:
        self.heard += len(waves)
        return super().encode_audio(waves, lengths)


def test_what_is_embedded_once_is_not_embedded_again(pool: Pool, tmp_path: Path) -> None:
    encoder = CountingEncoder()
    composed = compose_for_training(pool, families=5, singles=4, seed=3)
    first = embed_scenes(encoder, composed.scenes, pool, tmp_path)
    heard = encoder.heard
    assert heard > len(composed.scenes)
    again = embed_scenes(encoder, composed.scenes, pool, tmp_path)
    assert encoder.heard == heard
    for one, other in zip(first.frames, again.frames, strict=True):
        assert np.array_equal(one, other)
    seconds = [len(frames) for frames in first.frames]
    durations = [scene.duration_s for scene in composed.scenes]
    assert np.abs(np.array(seconds) - np.array(durations)).max() <= 1.0


def test_a_set_has_a_query_for_every_training_scene(pool: Pool, tmp_path: Path) -> None:
    encoder = ToneEncoder()
    composed = compose_for_training(pool, families=4, singles=4, seed=3)
    sounds = embed_scenes(encoder, composed.scenes, pool, tmp_path)
    made = retrieval_set(composed, sounds, encoder)
    assert len(made.texts) == len(made.sounds) == 20
    assert all(row in wanted for row, wanted in enumerate(made.relevant))
    assert made.families is not None
    # Four families of a plan and its distractors, and the four single sounds as a fifth.
    assert np.bincount(made.families).tolist() == [4] * 5
    assert np.linalg.norm(made.sounds.vectors, axis=1) == pytest.approx(1.0, abs=1e-5)


def test_what_is_measured_on_is_the_same_each_time_and_holds_wrong_answers(pool: Pool) -> None:
    words = [(draw_phrase, False), (draw_phrase, True)]
    first = compose_for_measuring(pool, 30, 10, 5, words)
    again = compose_for_measuring(pool, 30, 10, 5, words)
    assert [query.text for query in first.queries] == [query.text for query in again.queries]
    assert first.scenes == again.scenes
    assert (len(first.queries), len(first.scenes)) == (30, 130)
    assert all(0 < len(wanted) < 130 for wanted in first.relevant)

"""Training learns what one vector a sound cannot tell, stops and goes on, and repeats itself."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from soundpost.errors import InvalidValueError
from soundpost.models.cross_attention import CrossAttentionReranker
from soundpost.models.diffatr import DiffAtrReranker
from soundpost.models.joint_reranker import JointReranker
from soundpost.models.placeholder import ToneEncoder
from soundpost.models.reranker import Candidates
from soundpost.models.retrieval_set import RetrievalSet, read_texts
from soundpost.training import diffatr as training
from soundpost.training.diffatr import DiffAtrOptions, train_diffatr
from soundpost.training.ranking import Case, Reading
from soundpost.training.retrieval_batches import BatchSampler, hardest_sounds
from soundpost.training.retrieval_tasks import Task

ENCODER = ToneEncoder()
PITCHES_HZ = (100, 160, 250, 400, 630, 1000, 1600, 2500, 4000, 6300)
SMALL = {"parts": 3, "text_width": 32, "text_layers": 1, "text_heads": 2, "track_width": 24}
OPTIONS = DiffAtrOptions(
    ENCODER.spec,
    contrastive_steps=12,
    joint_steps=8,
    distil_steps=4,
    batch=8,
    extra_sounds=4,
    sizes=SMALL,
)


def orders(seed: int = 0, pitches: tuple[int, ...] = PITCHES_HZ) -> RetrievalSet:
    """Every pitch before every other, three times: of a pair, only order tells which is which."""
    rng = np.random.default_rng(seed)
    pairs = list(itertools.permutations(pitches, 2)) * 3
    events = ENCODER.embed_text([f"{a} hz" for pair in pairs for a in pair]).reshape(-1, 2, 32)
    frames = np.repeat(events, 2, axis=1) + 0.05 * rng.standard_normal((len(pairs), 4, 32))
    frames = (frames / np.linalg.norm(frames, axis=-1, keepdims=True)).astype(np.float32)
    vectors = frames.sum(1) / np.linalg.norm(frames.sum(1), axis=-1, keepdims=True)
    keys = np.arange(len(pairs), dtype=np.int64)
    sounds = Candidates(keys, vectors, frames, np.full(len(pairs), 4))
    asked = list(itertools.permutations(pitches, 2))
    texts = [f"{a} hz before {b} hz" for a, b in asked] + [f"{b} hz after {a} hz" for a, b in asked]
    true = [np.flatnonzero([pair == one for pair in pairs]) for one in asked] * 2
    return RetrievalSet(read_texts(texts, ENCODER), sounds, tuple(true))


def first_is_right(judge: JointReranker, data: RetrievalSet) -> tuple[float, float]:
    """Return R@1 by cosine and by the final score."""
    task = Task("test", data)
    case = Case(task.judged(judge, 64), task.relevant())
    alone, final = (
        case.ranked(reading).recall(1) for reading in (Reading(), Reading(1.0, judge.weight))
    )
    return float(alone.mean()), float(final.mean())


@pytest.mark.parametrize("kind", ["diffatr", "cross_attention"])
def test_it_learns_order_which_similarity_cannot_tell(kind: str, tmp_path: Path) -> None:
    options = replace(
        OPTIONS,
        kind=kind,
        contrastive_steps=100,
        joint_steps=80,
        distil_steps=20,
        rate=3e-3,
        batch=16,
    )
    done = train_diffatr(orders(0), orders(1), options, tmp_path)
    assert np.isfinite(list(done.losses.values())).all()
    if kind == "diffatr":
        judges: list[JointReranker] = [
            DiffAtrReranker.load(tmp_path, ENCODER, steps=steps) for steps in (1, 50)
        ]
    else:
        judges = [CrossAttentionReranker.load(tmp_path, ENCODER)]
    for judge in judges:
        by_cosine, final = first_is_right(judge, orders(2))
        assert by_cosine < 0.7
        assert final > 0.9


@pytest.mark.parametrize("kind", ["diffatr", "cross_attention"])
def test_equal_seeds_give_equal_weights_and_others_do_not(kind: str, tmp_path: Path) -> None:
    options = replace(OPTIONS, kind=kind)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train_diffatr(orders(), None, replace(options, seed=seed), tmp_path / name)
    first, again, other = (load_file(tmp_path / name / "model.safetensors") for name in "abc")
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])
    assert any((value != other[name]).any() for name, value in first.items())


@pytest.mark.parametrize("phase", [0, 1, 2])
def test_a_run_that_was_stopped_goes_on_to_the_same_weights(
    phase: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_SAVE_STEPS", 3)
    train_diffatr(orders(), None, OPTIONS, tmp_path / "whole")
    draw, drawn = BatchSampler.draw, itertools.count()
    last = (0, OPTIONS.contrastive_steps, OPTIONS.contrastive_steps + OPTIONS.joint_steps)[phase]

    def interrupted(self: BatchSampler, *arguments: object) -> object:
        if next(drawn) == last + 3:
            raise KeyboardInterrupt
        return draw(self, *arguments)  # type: ignore[arg-type]  # handed on as they came

    monkeypatch.setattr(BatchSampler, "draw", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_diffatr(orders(), None, OPTIONS, tmp_path / "stopped")
    assert not (tmp_path / "stopped" / "model.safetensors").exists()
    monkeypatch.setattr(BatchSampler, "draw", draw)
    train_diffatr(orders(), None, OPTIONS, tmp_path / "stopped")
    whole, resumed = (
        load_file(tmp_path / name / "model.safetensors") for name in ("whole", "stopped")
    )
    for name, value in whole.items():
        np.testing.assert_array_equal(value, resumed[name])


@pytest.mark.parametrize("losses", ["generation", "contrastive", "both"])
@pytest.mark.parametrize("prediction", ["posterior", "clamped"])
def test_every_ablation_gives_a_reranker(losses: str, prediction: str, tmp_path: Path) -> None:
    options = replace(OPTIONS, losses=losses, prediction=prediction)
    done = train_diffatr(orders(), orders(1), options, tmp_path)
    wanted = {"both": {"contrastive", "joint", "distillation"}, "contrastive": {"contrastive"}}
    assert set(done.losses) == wanted.get(losses, {"generation", "distillation"})
    judge, data = DiffAtrReranker.load(tmp_path, ENCODER), orders(2)
    similar = data.sounds.vectors @ data.texts.vectors[0]
    joint = judge.joint_probability(data.texts.texts[0], similar, data.sounds)
    assert joint.sum() == pytest.approx(1.0, abs=1e-4)
    assert load_file(tmp_path / "model.safetensors")["heads.scale"].dtype == np.float16


def test_options_and_sets_that_cannot_be_are_refused(tmp_path: Path) -> None:
    for change in ({"kind": "magic"}, {"losses": "none"}):
        with pytest.raises(InvalidValueError, match="one of"):
            train_diffatr(orders(), None, replace(OPTIONS, **change), tmp_path)
    wider = replace(ENCODER.spec, token_width=64)
    with pytest.raises(InvalidValueError, match="64"):
        train_diffatr(orders(), None, replace(OPTIONS, encoder=wider), tmp_path)
    data = orders()
    untrue = replace(data, relevant=tuple(rows[:0] for rows in data.relevant))
    with pytest.raises(InvalidValueError, match="no text in it is true"):
        train_diffatr(untrue, None, OPTIONS, tmp_path)


def test_hard_negatives_are_the_most_similar_wrong_sounds() -> None:
    data = orders()
    hard = hardest_sounds(data, 5)
    for row in (0, 7, 100):
        similar = data.texts.vectors[row] @ data.sounds.vectors.T
        similar[data.relevant[row]] = -np.inf
        assert set(hard[row]) == set(np.argsort(-similar)[:5])


def test_batches_hold_no_second_right_answer() -> None:
    data = orders()
    sampler = BatchSampler(data, training.torch.device("cpu"))
    for seed in range(20):
        batch = sampler.draw(np.random.default_rng(seed), 16, 8)
        rows = np.arange(len(batch.own))
        assert batch.relevant[rows, batch.own].all()
        assert (batch.present & batch.relevant).sum() == len(rows)
        assert batch.present_texts.diagonal().all()
        again = sampler.draw(np.random.default_rng(seed), 16, 8)
        assert training.torch.equal(batch.sounds, again.sounds)
    places = [sampler.draw(np.random.default_rng(seed), 4, 8).own[0].item() for seed in range(30)]
    assert len(set(places)) > 4


def test_families_are_drawn_together() -> None:
    data = orders()
    families = np.random.default_rng(0).permutation(np.repeat(np.arange(45), 4))
    families = np.append(families, families)[: len(data.texts)]
    sampler = BatchSampler(replace(data, families=families), training.torch.device("cpu"))
    sizes = np.bincount(families)
    for seed in range(10):
        batch = sampler.draw(np.random.default_rng(seed), 12, 0)
        known = data.texts.tokens[:, : batch.tokens.shape[1]].astype(np.float32)
        read = [
            int(np.flatnonzero((known == states.numpy()).all((1, 2)))[0]) for states in batch.tokens
        ]
        drawn, counts = np.unique(families[read], return_counts=True)
        # All but the last family are there as a whole.
        assert (counts < sizes[drawn]).sum() <= 1

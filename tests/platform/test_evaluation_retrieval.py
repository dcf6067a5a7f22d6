"""The evaluation of reranking on a small scale: its tasks, what is kept, its tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from soundpost.evaluation.retrieval_tables import Row, table
from soundpost.evaluation.shipped_reranker import put as put_into_package
from soundpost.models.diffatr import DiffAtrConfig
from soundpost.models.placeholder import ToneEncoder
from soundpost.models.reranker import Candidates, RerankerSpec
from soundpost.models.retrieval_set import RetrievalSet, TextSet, read_texts
from soundpost.training.composed_sets import join_sets
from soundpost.training.composed_texts import compose_texts, fit_gap, simple_captions
from soundpost.training.ranking import SIMILARITY, Reading
from soundpost.training.retrieval_tasks import Bench, Task


@pytest.fixture(scope="module")
def data() -> RetrievalSet:
    """Ten texts, twelve sounds at random; text i is true of sounds i and 11."""
    rng = np.random.default_rng(0)
    encoder = ToneEncoder()
    texts = read_texts([f"a sound called {name}" for name in "abcdefghij"], encoder)
    vectors = rng.normal(size=(12, encoder.spec.dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    sounds = Candidates(np.arange(12), vectors, vectors[:, None], np.ones(12, np.int64))
    return RetrievalSet(texts, sounds, tuple(np.array([row, 11]) for row in range(10)))


class Oracle:
    """Knows the truth of a set, and counts how often it was asked."""

    def __init__(self, data: RetrievalSet) -> None:
        self.data, self.asked = data, 0
        self.spec = RerankerSpec("oracle", "1", "tone", "1", 4)
        self.weight = 1.0

    def joint_probability(
        self, text: str, similarities: np.ndarray, candidates: Candidates
    ) -> np.ndarray:
        self.asked += 1
        row = self.data.texts.texts.index(text)
        return self._share(np.isin(candidates.keys, self.data.relevant[row]))

    def sound_probability(
        self, text: TextSet, similarities: np.ndarray, candidates: Candidates
    ) -> np.ndarray:
        return self.joint_probability(text.texts[0], similarities, candidates)

    def applies_to(self, text: str) -> bool:
        return True

    def claims_in(self, texts: TextSet) -> np.ndarray:
        return np.ones(len(texts), bool)

    def text_probability(
        self, sound: Candidates, similarities: np.ndarray, texts: TextSet
    ) -> np.ndarray:
        self.asked += 1
        rows = [self.data.texts.texts.index(text) for text in texts.texts]
        return self._share(np.array([sound.keys[0] in self.data.relevant[row] for row in rows]))

    @staticmethod
    def _share(right: np.ndarray) -> np.ndarray:
        return (right + 1e-6) / (right + 1e-6).sum()


@pytest.mark.parametrize("to_texts", [False, True])
def test_who_knows_the_truth_ranks_it_first_in_both_directions(
    data: RetrievalSet, tmp_path: Path, to_texts: bool
) -> None:
    task = Task("all", data, to_texts)
    case = Bench(tmp_path).case(task, Oracle(data), "now", 12)
    assert task.alone().ranked(SIMILARITY).recall(1).mean() < 1.0
    ranked = case.ranked(Reading(1.0, 5.0))
    assert ranked.recall(1).all()
    assert ranked.precision() == pytest.approx(1.0)
    assert len(ranked.hits) == (11 if to_texts else 10)


def test_what_was_judged_is_not_judged_again(data: RetrievalSet, tmp_path: Path) -> None:
    oracle, task = Oracle(data), Task("all", data)
    first = Bench(tmp_path).case(task, oracle, "now", 12)
    asked = oracle.asked
    again = Bench(tmp_path).case(task, oracle, "now", 12)
    assert oracle.asked == asked == 10
    assert np.array_equal(first.judged.probabilities, again.judged.probabilities)
    Bench(tmp_path).case(task, oracle, "otherwise", 12)
    assert oracle.asked == 20


def test_a_table_shows_what_is_gained(data: RetrievalSet, tmp_path: Path) -> None:
    task = Task("all", data)
    reading = Reading(1.0, 5.0)
    ranked = Bench(tmp_path).case(task, Oracle(data), "now", 12).ranked(reading)
    lines = table("all", task.alone(), [Row("oracle", ranked, reading)])
    alone = 100 * task.alone().ranked(SIMILARITY).recall(1).mean()
    assert f"| similarity | {alone:.1f} [" in lines[2]
    assert lines[3].startswith("| oracle | 100.0 [100.0, 100.0] |")
    assert f"{100 - alone:+.1f} [" in lines[3]
    assert lines[3].endswith("| 5, 1 |")


def test_captions_that_tell_a_story_name_no_one_thing() -> None:
    read = [
        "A dog barks.",
        "a dog barks",
        "A dog barks and a cat meows.",
        "Rain",
        "Rain, far away",
        "A very long caption that goes on about many different things",
        "Thunder rumbles in the distance",
    ]
    assert simple_captions(read) == ["a dog barks"]


def test_the_gap_between_frames_and_texts_is_found_again() -> None:
    rng = np.random.default_rng(0)
    texts = rng.normal(size=(4_000, 8)).astype(np.float32)
    rests = 0.1 * rng.normal(size=texts.shape).astype(np.float32)
    frames = 0.4 * texts + rests + np.float32(0.3)
    gap = fit_gap(texts, frames)
    assert gap.gain == pytest.approx(0.4, abs=0.01)
    assert gap.frame_mean - 0.4 * gap.text_mean == pytest.approx(0.3, abs=0.02)
    assert np.linalg.norm(gap.frame(texts[0], rests[0])) == pytest.approx(1.0, abs=1e-5)


def test_scenes_of_captions_hold_what_their_queries_say() -> None:
    rng = np.random.default_rng(0)
    encoder = ToneEncoder()
    captions = [f"a thing called {a}{b}" for a in "abcdefgh" for b in "abcdefgh"]
    texts = encoder.embed_text(captions)
    gap = fit_gap(texts, texts + 0.01 * rng.normal(size=texts.shape).astype(np.float32))
    made = compose_texts(captions, 20, gap, encoder, seed=1)
    assert len(made.texts) == len(made.sounds) == 80
    assert all(row in wanted for row, wanted in enumerate(made.relevant))
    said, ahead = dict(zip(captions, texts, strict=True)), []
    for row, text in enumerate(made.texts.texts):
        named = [caption for caption in captions if caption in text]
        frames = made.sounds.frames[row, : made.sounds.lengths[row]]
        assert np.linalg.norm(frames, axis=1) == pytest.approx(1.0, abs=1e-4)
        assert named
        heard = {name: float((frames @ vector).max()) for name, vector in said.items()}
        others = [heard[name] for name in captions if name not in named]
        ahead.append(max(heard[name] for name in named) - np.mean(others))
    assert np.mean(ahead) > 0.3


def test_sets_that_are_joined_keep_their_truth(data: RetrievalSet) -> None:
    both = join_sets([data, data])
    assert (len(both.texts), len(both.sounds)) == (20, 24)
    assert both.relevant[3].tolist() == [3, 11]
    assert both.relevant[13].tolist() == [15, 23]
    assert np.array_equal(both.sounds.vectors[12:], data.sounds.vectors)
    assert len(np.unique(both.sounds.keys)) == 24


def test_families_stay_apart_when_sets_are_joined(data: RetrievalSet) -> None:
    own = np.arange(len(data.texts)) // 2
    known = replace(data, families=own)
    families = join_sets([known, known]).families
    assert families is not None
    assert families.tolist() == [*own, *(own + own.max() + 1)]
    assert join_sets([known, data]).families is None


def test_what_is_shipped_is_read_as_was_chosen(tmp_path: Path) -> None:
    trained, out = tmp_path / "trained", tmp_path / "out"
    trained.mkdir()
    DiffAtrConfig().save_pretrained(trained)
    (trained / "model.safetensors").write_bytes(b"weights")
    put_into_package(trained, (Reading(16.0, 5.0), Reading(8.0, 2.0)), out)
    config = DiffAtrConfig.from_pretrained(out)
    assert (config.sound_temperature, config.weight) == (16.0, 5.0)
    assert (config.text_temperature, config.text_weight) == (8.0, 2.0)
    assert {path.name for path in out.iterdir()} == {"config.json", "model.safetensors"}

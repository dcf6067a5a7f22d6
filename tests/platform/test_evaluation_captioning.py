"""What captioners are scored by: writers whose captions are known."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from soundpost.errors import DataMissingError
from soundpost.evaluation import captioning, captioning_scores
from soundpost.evaluation.captioning_scores import (
    VARIED,
    CaptionTask,
    MostAlike,
    caption,
    captions_per_s,
    score,
)
from soundpost.evaluation.captioning_tasks import (
    LEAST_CLIPS,
    five_captions,
    groups_of,
    spent,
    unseen,
)
from soundpost.models.caption_condition import Conditions, Style
from soundpost.models.caption_twin import TwinConfig, TwinModel, TwinWriter, twin_of
from soundpost.models.dac import DacConfig, DacDimensions, DacModel, DacSampling, DacWriter
from soundpost.models.encoder import FloatArray
from soundpost.models.text_latents import CaptionVocabulary
from soundpost.training.caption_data import draw_recordings, draw_scenes, heard_in
from soundpost.training.composed import Pool, active

_TEXTS = ("a dog barks in the yard", "heavy rain falls on a roof", "a train passes by quickly")


class KnownWriter:
    """Writes what it was given: of each sound, told apart by its only token, one text or several."""

    def __init__(self, texts: Sequence[str], others: Sequence[str] = ()) -> None:
        self.texts, self.others = texts, others
        self.revision = "known"
        self.seeds: list[int] = []

    def write(self, sounds: Conditions, seeds: Sequence[int], diverse: bool = False) -> list[str]:
        self.seeds += seeds
        rows = sounds.tokens[:, 0].argmax(-1).tolist()
        texts = [self.texts[row] for row in rows]
        if not diverse or not self.others:
            return texts
        return [f"{text} {self.others[s % VARIED]}" for text, s in zip(texts, seeds, strict=True)]


class AxisEncoder:
    """Puts each known text on an axis of its own, all else on the last."""

    def embed_text(self, texts: Sequence[str]) -> FloatArray:
        axes = [_TEXTS.index(text) if text in _TEXTS else 3 for text in texts]
        return np.eye(4, dtype=np.float32)[axes]


def _task(references: Sequence[Sequence[str]]) -> CaptionTask:
    axes = np.eye(4, dtype=np.float32)[:3]
    return CaptionTask(
        name="known",
        tokens=tuple(axis[None] for axis in axes),
        vectors=axes,
        references=tuple(tuple(texts) for texts in references),
        groups=np.arange(3),
        style=Style.RECORDS,
    )


def test_a_writer_of_the_references_is_perfect() -> None:
    task = _task([[text] for text in _TEXTS])
    found = score(task, caption(KnownWriter(_TEXTS), task), AxisEncoder())
    assert found.texts["CIDEr-D"].mean == pytest.approx(10.0)
    assert found.texts["BLEU_4"].mean == pytest.approx(1.0)
    assert found.similarity.mean == pytest.approx(1.0)


def test_a_writer_that_mixes_sounds_up_is_like_none_of_them() -> None:
    task = _task([[text] for text in _TEXTS])
    mixed = KnownWriter((_TEXTS[1], _TEXTS[2], _TEXTS[0]))
    found = score(task, caption(mixed, task), AxisEncoder())
    assert found.texts["BLEU_4"].mean == 0.0
    assert found.similarity.mean == pytest.approx(0.0)


def test_captions_that_differ_are_more_varied_than_one_repeated() -> None:
    task = _task([[text] for text in _TEXTS])
    same = score(task, caption(KnownWriter(_TEXTS), task), AxisEncoder())
    differing = KnownWriter(_TEXTS, ("now", "twice", "again", "far away", "nearby"))
    more = score(task, caption(differing, task), AxisEncoder())
    # Of one caption said five times a fifth of the words is different.
    assert same.distinct_1.mean == pytest.approx(1 / VARIED)
    assert more.distinct_1.mean > same.distinct_1.mean
    assert more.mtld.mean > same.mtld.mean
    # What is asked for once is the same text from both.
    assert more.texts["CIDEr-D"].mean == pytest.approx(same.texts["CIDEr-D"].mean)


def test_a_silent_writer_scores_nothing() -> None:
    task = _task([[text] for text in _TEXTS])
    found = score(task, caption(KnownWriter(("", "", "")), task), AxisEncoder())
    assert found.texts["CIDEr-D"].mean == 0.0
    assert found.texts["BLEU_1"].mean == 0.0
    assert found.distinct_1.mean == 0.0


def test_every_varied_caption_has_a_seed_of_its_own() -> None:
    writer = KnownWriter(_TEXTS)
    caption(writer, _task([[text] for text in _TEXTS]))
    single, varied = writer.seeds[:3], writer.seeds[3:]
    assert len(set(single)) == 3
    assert len(set(varied)) == 3 * VARIED


def test_varied_captions_are_of_the_first_sounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captioning_scores, "VARIED_SOUNDS", 2)
    task = _task([[text] for text in _TEXTS])
    made = caption(KnownWriter(_TEXTS), task)
    assert len(made.captions) == 3
    assert [texts[0] for texts in made.varied] == list(_TEXTS[:2])
    assert score(task, made, AxisEncoder()).varied_similarity.mean == pytest.approx(1.0)


def test_rates_are_of_the_writers_in_turn() -> None:
    task = _task([[text] for text in _TEXTS])
    rates = captions_per_s([KnownWriter(_TEXTS), KnownWriter(_TEXTS)], task)
    assert rates.shape[1] == 2
    assert (rates > 0).all()


def write_captions(path: Path, clips: Sequence[Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["file_name", *(f"caption_{n}" for n in range(1, 6))])
        rows.writerows([f"{number}.wav", *captions] for number, captions in enumerate(clips))


def test_clips_without_all_five_captions_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "val.csv"
    without = ["one", "", "three", "four", "five"]
    write_captions(path, [["one", " two ", "three", "four", "five"], without])
    assert five_captions(path) == [("one", "two", "three", "four", "five")]
    with pytest.raises(DataMissingError):
        five_captions(tmp_path / "missing.csv")


def test_scenes_of_one_origin_are_one_group() -> None:
    """Intervals are over origins: two scenes that begin with one clip are no two pieces of evidence."""
    waves = [np.full(5 * 16_000, 8_000, np.int16) for _ in range(3)]
    pool = Pool({row: active(wave) for row, wave in enumerate(waves)}, {0: "a", 1: "b", 2: "c"})
    scenes = list(draw_scenes(pool, 12, seed=2))
    groups = groups_of(scenes, {0: "x", 1: "x", 2: "y"})
    firsts = [scene.events[0].clip for scene in scenes]
    assert len({*firsts}) == 3
    assert groups.tolist() == [int(clip == 2) for clip in firsts]
    recordings = draw_recordings(pool, 12, seed=2)
    assert [one.heard for one in recordings] == [heard_in(scene) for scene in scenes]


def _tiny_networks() -> tuple[DacWriter, TwinWriter]:
    vocabulary = CaptionVocabulary.of(list(_TEXTS), 100)
    shape = DacDimensions(
        dimension=4,
        vocabulary=len(vocabulary),
        length=8,
        latent=8,
        text_heads=2,
        lower=1,
        width=16,
        layers=1,
        heads=2,
        feedforward=16,
        steps=30,
    )
    torch.manual_seed(0)
    dac = DacModel(DacConfig(asdict(shape)))
    twin = TwinModel(TwinConfig(asdict(twin_of(shape))))
    return (
        DacWriter(dac, vocabulary, "1", DacSampling(steps=3)),
        TwinWriter(twin, vocabulary, "1"),
    )


def test_the_report_has_every_writer_and_every_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    # Whether this machine has METEOR must not matter.
    monkeypatch.setattr(captioning, "missing", lambda: "it is not wanted here")
    monkeypatch.setattr(captioning, "STEPS", (1, 3))
    monkeypatch.setattr(captioning_scores, "REPEATS", 1)
    task = _task([[text] for text in _TEXTS])
    parts = captioning.report([task], *_tiny_networks(), AxisEncoder())
    lines = [line for part in parts for line in part]
    text = "\n".join(lines)
    for name in ("twin", "DAC, 1 step", "DAC, 3 steps", "best of 4, by the encoder"):
        assert sum(line.startswith("|") and name in line for line in lines) >= 2
    marks = next(line for line in lines if line.startswith("| known |"))
    assert marks.count("held") + marks.count("MISSED") == 4
    assert "METEOR: not measured, it is not wanted here." in text


def test_the_one_most_like_the_sound_is_kept() -> None:
    class Draws(KnownWriter):
        def write(
            self, sounds: Conditions, seeds: Sequence[int], diverse: bool = False
        ) -> list[str]:
            return [_TEXTS[seed % 3] for seed in seeds]

    task = _task([[text] for text in _TEXTS])
    chosen = MostAlike(Draws(_TEXTS), AxisEncoder(), 3).write(task.sounds(), [7, 8, 9])
    assert chosen == list(_TEXTS)


def test_clips_with_a_caption_that_was_trained_on_are_left_out() -> None:
    rows = [("A dog barks.", "one"), ("Rain  falls", "two")]
    assert unseen(rows, frozenset()) == rows
    assert unseen(rows, frozenset({"a dog barks"})) == rows[1:]
    assert unseen(rows, frozenset({"rain falls", "one"})) == []


def test_texts_of_which_hardly_a_clip_is_left_are_not_measured_and_said(tmp_path: Path) -> None:
    for name in ("audiocaps", "clotho"):
        path = tmp_path / "text" / name / "val.csv"
        path.parent.mkdir(parents=True)
        rows = [[f"{name} {clip} {place}" for place in range(5)] for clip in range(LEAST_CLIPS + 1)]
        write_captions(path, rows)
    read = frozenset({"audiocaps 0 0", "clotho 0 1", "clotho 1 4"})
    assert spent(tmp_path, frozenset()) == []
    assert [line.split(":")[0] for line in spent(tmp_path, read)] == ["Clotho, as text"]
    assert f"all but {LEAST_CLIPS - 1} have" in spent(tmp_path, read)[0]

"""Captions of windows: the likeliest first, the same for the same sound, and none made up of silence."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from soundpost.config import Settings
from soundpost.errors import (
    BrokenCheckpointError,
    CaptionerMismatchError,
    CaptionerUnavailableError,
    InvalidValueError,
)
from soundpost.explain.caption import (
    NOTHING,
    SILENCE,
    Captioner,
    FixedCaptioner,
    FixedWriter,
    content_seed,
    generate_captions,
    load_captioner,
)
from soundpost.models.caption_condition import Style, conditions
from soundpost.models.caption_twin import TwinConfig, TwinModel, twin_of
from soundpost.models.dac import DacConfig, DacDimensions, DacModel, DacWriter
from soundpost.models.encoder import FloatArray
from soundpost.models.placeholder import ToneEncoder
from soundpost.models.text_latents import CaptionVocabulary
from soundpost.training.dac import save_captioner

ENCODER = ToneEncoder()
VOCABULARY = CaptionVocabulary.of(["100 hz 200 hz 400 hz 800 hz tone then noise and silence"], 50)
SHAPE = DacDimensions(
    dimension=32, vocabulary=len(VOCABULARY), length=6, latent=16, text_heads=2, lower=1,
    width=32, layers=1, heads=2, feedforward=32, steps=10,
)  # fmt: skip


def frames(seed: int = 0, count: int = 20) -> FloatArray:
    drawn = np.random.default_rng(seed).standard_normal((count, 32)).astype(np.float32)
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    out = tmp_path_factory.mktemp("dac")
    return save_captioner(DacModel(DacConfig(asdict(SHAPE))), VOCABULARY, out)


@pytest.fixture
def captioner(folder: Path) -> Captioner:
    return Captioner(DacWriter.load(folder), ENCODER)


def test_one_caption_is_the_likeliest_and_more_come_after_it(captioner: Captioner) -> None:
    (one,) = captioner.caption(frames(), 0.25)
    several = captioner.caption(frames(), 0.25, n=6)
    assert several[0] == one
    assert len({caption.text for caption in several}) == len(several) > 2
    similar = [caption.similarity or 0.0 for caption in several[1:]]
    assert similar == sorted(similar, reverse=True)


def test_the_same_sound_and_seed_give_the_same_captions(captioner: Captioner) -> None:
    first = captioner.caption(frames(), 0.25, n=4)
    assert captioner.caption(frames().copy(), 0.25, n=4) == first
    other = captioner.caption(frames(), 0.25, n=4, seed=1)
    assert other != first
    assert other[0] == first[0]
    assert content_seed(frames(), 0) != content_seed(frames(1), 0)
    # What is kept in half precision is captioned as it was before.
    assert content_seed(frames().astype(np.float16).astype(np.float32), 0) == content_seed(
        frames(), 0
    )


def test_many_windows_are_captioned_as_each_alone(captioner: Captioner) -> None:
    windows = [frames(seed, count) for seed, count in ((0, 20), (1, 3), (2, 60))]
    together = captioner.caption_many(windows, 0.25)
    for window, caption in zip(windows, together, strict=True):
        (alone,) = captioner.caption(window, 0.25)
        assert alone.text == caption.text
        assert alone.similarity == pytest.approx(caption.similarity, abs=1e-5)
    assert captioner.caption_many([], 0.25) == []


def test_similarity_is_the_encoders(captioner: Captioner) -> None:
    (caption,) = captioner.caption(frames(), 0.25)
    mean = frames().sum(axis=0)
    wanted = ENCODER.embed_text([caption.text])[0] @ (mean / np.linalg.norm(mean))
    assert caption.similarity == pytest.approx(float(wanted), abs=1e-5)


def test_the_best_of_several_is_the_most_similar(captioner: Captioner) -> None:
    several = captioner.caption(frames(), 0.25, n=6)
    best = captioner.best_of(frames(), 0.25, tried=6)
    assert best.similarity == max(caption.similarity or -1.0 for caption in several)


def test_nothing_is_made_up_of_silence(captioner: Captioner) -> None:
    (caption,) = captioner.caption(frames(), 0.25, n=3, level_dbfs=-95.0)
    assert (caption.text, caption.similarity) == (SILENCE, None)
    assert captioner.caption(frames(), 0.25, level_dbfs=-40.0)[0].text != SILENCE


@pytest.mark.parametrize("text", ["", "-", "' -"])
def test_what_says_nothing_is_called_unknown(text: str) -> None:
    captioner = FixedCaptioner(ENCODER, text)
    assert captioner.caption(frames(), 0.25)[0].text == NOTHING
    assert captioner.caption_many([frames()], 0.25)[0].text == NOTHING


@pytest.mark.parametrize(
    "broken", [np.zeros((0, 32)), np.zeros((4, 31)), np.zeros(32), np.full((2, 32), np.inf)]
)
def test_frames_that_cannot_be_are_refused(broken: FloatArray, captioner: Captioner) -> None:
    with pytest.raises(InvalidValueError):
        captioner.caption(broken.astype(np.float32), 0.25)


@pytest.mark.parametrize("n", [0, 21])
def test_so_many_captions_are_refused(n: int, captioner: Captioner) -> None:
    with pytest.raises(InvalidValueError, match="captions"):
        captioner.caption(frames(), 0.25, n=n)


def test_captions_are_generated_in_batches() -> None:
    sounds = conditions([frames(seed) for seed in range(5)], [Style.RECORDS] * 5)
    texts = ("a", "b", "c")
    found = generate_captions(FixedWriter(32, texts), sounds, n=3, batch=4)
    assert [len(row) for row in found] == [3] * 5
    assert all(set(row) == set(texts) for row in found)
    assert generate_captions(FixedWriter(32, texts), sounds) == [["a"]] * 5


def test_the_setting_names_a_folder(folder: Path) -> None:
    captioner = load_captioner(Settings(captioner=str(folder)), ENCODER)
    assert captioner.name == "dac"
    assert len(captioner.revision) == 16


def test_the_twin_can_be_named_too(tmp_path: Path) -> None:
    model = TwinModel(TwinConfig(asdict(twin_of(SHAPE))))
    save_captioner(model, VOCABULARY, tmp_path)
    assert load_captioner(Settings(captioner=str(tmp_path)), ENCODER).name == "caption-twin"


def test_none_wanted_none_fitting_and_none_there_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(CaptionerUnavailableError, match="off"):
        load_captioner(Settings(captioner="off"), ENCODER)
    with pytest.raises(CaptionerUnavailableError):
        load_captioner(Settings(captioner="auto"), ENCODER)
    with pytest.raises(CaptionerUnavailableError, match=r"config\.json"):
        load_captioner(Settings(captioner=str(tmp_path)), ENCODER)


def test_one_of_other_vectors_is_refused() -> None:
    with pytest.raises(CaptionerMismatchError, match="for vectors of 16"):
        Captioner(FixedWriter(16), ENCODER)


@pytest.mark.parametrize("config", ["{", "[]", json.dumps({"model_type": "other"})])
def test_broken_configs_are_named(config: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(BrokenCheckpointError):
        load_captioner(Settings(captioner=str(tmp_path)), ENCODER)

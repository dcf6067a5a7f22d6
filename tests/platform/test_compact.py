"""The compact encoder at tiny size: shapes, determinism, lengths, saving and refusing."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from soundpost.audio.features import LogMel, LogMelSpec, mel_filters
from soundpost.errors import BrokenCheckpointError, ModelNotFoundError
from soundpost.models.allocator import keep_freed_memory
from soundpost.models.compact import (
    PATCH_FRAMES,
    CompactConfig,
    CompactEncoder,
    CompactModel,
    patch_starts,
)
from soundpost.models.encoder import AudioTextEncoder
from soundpost.training.text import build_tokenizer

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "dog", "barks", "rain", "falls", "##s"]


def small_model(seed: int = 0) -> CompactModel:
    torch.manual_seed(seed)
    config = CompactConfig(
        dimension=16,
        hidden=24,
        tag_labels=["Dog", "Rain", "Silence"],
        vocabulary=len(WORDS),
        text_embedding=8,
        text_width=12,
        text_layers=1,
        text_heads=2,
        text_feedforward=16,
    )
    model = CompactModel(config)
    for module in model.audio.body.modules():
        # torch's default shrinks a signal through 27 layers to nothing.
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("compact")
    small_model().save_pretrained(path)
    build_tokenizer(WORDS, 64).save(str(path / "tokenizer.json"))
    return path


@pytest.fixture(scope="module")
def encoder(folder: Path) -> CompactEncoder:
    return CompactEncoder.load(folder)


def noise(rows: int, samples: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, samples), dtype=np.float32) * 0.1


def test_follows_the_protocol_and_declares_itself(encoder: CompactEncoder) -> None:
    assert isinstance(encoder, AudioTextEncoder)
    assert encoder.spec.dimension == 16
    assert encoder.spec.sample_rate_hz == 16_000
    assert encoder.spec.tag_labels == ("Dog", "Rain", "Silence")
    assert len(encoder.spec.revision) == 16


def test_vectors_are_unit_and_frames_come_five_a_second(encoder: CompactEncoder) -> None:
    encoding = encoder.encode_audio(noise(3, 80_000))
    assert encoding.embedding.shape == (3, 16)
    assert np.allclose(np.linalg.norm(encoding.embedding, axis=1), 1.0, atol=1e-5)
    assert np.allclose(np.linalg.norm(encoding.frames, axis=2), 1.0, atol=1e-5)
    assert 1.0 / encoding.frame_hop_s >= 5.0
    assert abs(encoding.frames.shape[1] * encoding.frame_hop_s - 5.0) < 0.2
    assert encoding.tags is not None
    assert encoding.tags.shape == (3, 3)
    assert ((encoding.tags >= 0) & (encoding.tags <= 1)).all()


def test_same_sound_gives_the_same_vector_alone_or_in_a_batch(encoder: CompactEncoder) -> None:
    waves = noise(4, 80_000)
    together = encoder.embed_audio(waves)
    assert np.array_equal(together, encoder.embed_audio(waves))
    assert np.allclose(together[2], encoder.embed_audio(waves[2:3])[0], atol=1e-5)


def test_what_lies_past_the_length_is_ignored(encoder: CompactEncoder) -> None:
    waves = noise(2, 80_000)
    lengths = np.array([80_000, 30_000])
    quiet = waves.copy()
    quiet[1, 30_000:] = 0.0
    loud = waves.copy()
    loud[1, 30_000:] = 0.9
    assert np.allclose(
        encoder.embed_audio(quiet, lengths), encoder.embed_audio(loud, lengths), atol=1e-5
    )
    assert not np.allclose(encoder.embed_audio(quiet)[1], encoder.embed_audio(loud)[1], atol=1e-4)


@pytest.mark.parametrize("samples", [1, 399, 400, 15_000, 80_000, 160_000])
def test_any_length_is_encoded(encoder: CompactEncoder, samples: int) -> None:
    encoding = encoder.encode_audio(noise(1, samples))
    assert np.isfinite(encoding.embedding).all()
    assert np.isfinite(encoding.frames).all()


def test_silence_is_finite(encoder: CompactEncoder) -> None:
    assert np.isfinite(encoder.embed_audio(np.zeros((1, 80_000), np.float32))).all()


@given(st.integers(1, 5_000))
def test_patches_cover_every_frame_in_order(frames: int) -> None:
    frames = max(frames, PATCH_FRAMES)
    starts = patch_starts(frames).tolist()
    assert starts[0] == 0
    assert starts[-1] == frames - PATCH_FRAMES
    gaps = np.diff(starts)
    assert (gaps > 0).all()
    assert (gaps <= PATCH_FRAMES).all()


def test_texts_are_unit_distinct_and_free_of_their_neighbours(encoder: CompactEncoder) -> None:
    alone = encoder.embed_text(["a dog barks"])
    batch = encoder.embed_text(["a dog barks", "rain falls and falls and falls"])
    assert np.allclose(np.linalg.norm(batch, axis=1), 1.0, atol=1e-5)
    assert np.allclose(alone[0], batch[0], atol=1e-5)
    assert not np.allclose(batch[0], batch[1], atol=1e-2)
    assert encoder.embed_text([]).shape == (0, 16)


def test_token_states_tell_the_order_of_words(encoder: CompactEncoder) -> None:
    texts = ["dog rain", "rain dog falls"]
    encoding = encoder.encode_text(texts)
    assert np.allclose(encoding.embedding, encoder.embed_text(texts), atol=1e-6)
    assert encoder.spec.token_width == 12
    assert encoding.tokens.shape == (2, 5, 12)
    assert encoding.lengths.tolist() == [4, 5]
    assert not encoding.tokens[0, 4:].any()
    assert not np.allclose(encoding.tokens[0, 1], encoding.tokens[1, 2], atol=1e-2)
    assert np.allclose(encoder.encode_text(texts[:1]).tokens, encoding.tokens[:1, :4], atol=1e-5)
    assert encoder.encode_text([]).tokens.shape == (0, 0, 12)


def test_relevance_is_a_probability_that_grows_with_similarity(encoder: CompactEncoder) -> None:
    texts = encoder.embed_text(["dog", "rain"])
    similarities = np.tile(np.linspace(-1, 1, 9, dtype=np.float32), (2, 1))
    stated = encoder.relevance(texts, similarities)
    assert stated.shape == (2, 9)
    assert ((stated > 0) & (stated < 1)).all()
    assert (np.diff(stated, axis=1) > 0).all()


def test_weights_survive_saving(encoder: CompactEncoder, tmp_path: Path) -> None:
    encoder.model.save_pretrained(tmp_path)
    encoder.tokenizer.save(str(tmp_path / "tokenizer.json"))
    again = CompactEncoder.load(tmp_path)
    waves = noise(1, 40_000)
    assert np.array_equal(encoder.embed_audio(waves), again.embed_audio(waves))
    assert again.spec == encoder.spec


def test_other_weights_are_another_revision(tmp_path: Path, encoder: CompactEncoder) -> None:
    small_model(seed=1).save_pretrained(tmp_path)
    encoder.tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert CompactEncoder.load(tmp_path).spec.revision != encoder.spec.revision


def test_missing_weights_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=str(tmp_path)):
        CompactEncoder.load(tmp_path)


def test_incomplete_weights_are_refused_by_name(folder: Path, tmp_path: Path) -> None:
    state = load_file(folder / "model.safetensors")
    del state["audio.project.weight"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    Tokenizer.from_file(str(folder / "tokenizer.json")).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(BrokenCheckpointError, match=r"audio\.project\.weight"):
        CompactEncoder.load(tmp_path)


def test_log_mel_is_what_its_definition_says() -> None:
    spec = LogMelSpec()
    wave = noise(1, 1_000)[0].astype(np.float64)
    taper = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    expected = []
    for start in range(0, 1_000 - 400 + 1, 160):
        magnitude = np.abs(np.fft.rfft(wave[start : start + 400] * taper, 512))
        expected.append(np.log(magnitude @ mel_filters(spec) + 0.001))
    measured = LogMel(spec)(torch.from_numpy(wave.astype(np.float32))[None])[0].numpy()
    assert measured.shape == (spec.frames(1_000), 64)
    assert np.allclose(measured, np.array(expected), atol=1e-3)


@pytest.mark.parametrize("frequency_hz", [200.0, 1_000.0, 5_000.0])
def test_a_tone_is_loudest_in_its_own_band(frequency_hz: float) -> None:
    time_s = np.arange(16_000) / 16_000
    wave = np.sin(2 * np.pi * frequency_hz * time_s).astype(np.float32)
    mel = LogMel(LogMelSpec())(torch.from_numpy(wave)[None])[0].mean(0)
    edges_mel = np.linspace(1127 * np.log1p(125 / 700), 1127 * np.log1p(7_500 / 700), 66)
    centres_hz = 700 * np.expm1(edges_mel[1:-1] / 1127)
    loudest_hz = centres_hz[int(mel.argmax())]
    assert abs(np.log2(loudest_hz / frequency_hz)) < 0.15


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc only")
def test_glibc_accepts_to_keep_freed_memory() -> None:
    assert keep_freed_memory()

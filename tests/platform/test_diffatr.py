"""DiffATR follows its equations, and judges the same list in the same way whatever else changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch.nn import functional

from soundpost.errors import BrokenCheckpointError, InvalidValueError, ModelNotFoundError
from soundpost.models.cross_attention import (
    CrossAttentionConfig,
    CrossAttentionModel,
    CrossAttentionReranker,
)
from soundpost.models.diffatr import (
    DiffAtrConfig,
    DiffAtrModel,
    DiffAtrReranker,
    PreparedDenoiser,
    TextToAudioDenoiser,
)
from soundpost.models.joint_heads import DiffAtrDimensions, JointHeads, hear, sinusoids
from soundpost.models.joint_reranker import JointReranker
from soundpost.models.placeholder import ToneEncoder
from soundpost.models.reranker import Candidates, Reranker
from soundpost.models.retrieval_set import read_texts

ENCODER = ToneEncoder()
TEXT = "440 hz before noise"
DIMENSIONS = asdict(
    DiffAtrDimensions(32, 32, parts=2, text_width=16, text_layers=1, text_heads=2, track_width=8)
)
BELONGS = {"encoder_name": ENCODER.spec.name, "encoder_revision": ENCODER.spec.revision}


def lively(model: torch.nn.Module) -> None:
    """Give every layer something to say: some begin with nothing."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))


def small_model(**kwargs: object) -> DiffAtrModel:
    torch.manual_seed(0)
    model = DiffAtrModel(DiffAtrConfig(dimensions=DIMENSIONS, **BELONGS, **kwargs))
    lively(model)
    return model


def plain_model() -> CrossAttentionModel:
    torch.manual_seed(0)
    model = CrossAttentionModel(CrossAttentionConfig(dimensions=DIMENSIONS, **BELONGS))
    lively(model)
    return model


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def some_sounds(count: int, seed: int = 0) -> Candidates:
    rng = np.random.default_rng(seed)
    frames = unit(rng.standard_normal((count, 6, 32))).astype(np.float32)
    lengths = rng.integers(1, 7, count)
    frames[np.arange(6) >= lengths[:, None]] = 0.0
    keys = rng.choice(2**62, count, replace=False)
    return Candidates(keys, unit(frames.sum(1)).astype(np.float32), frames, lengths)


def ordered(sounds: Candidates, order: np.ndarray) -> Candidates:
    return Candidates(
        sounds.keys[order], sounds.vectors[order], sounds.frames[order], sounds.lengths[order]
    )


def cosines(sounds: Candidates, text: str = TEXT) -> np.ndarray:
    return np.asarray(sounds.vectors @ ENCODER.embed_text([text])[0])


RERANKERS: dict[str, Callable[[], JointReranker]] = {
    "distilled": lambda: DiffAtrReranker(small_model(), ENCODER, "r"),
    "one step": lambda: DiffAtrReranker(small_model(), ENCODER, "r", distilled=False),
    "fifty steps": lambda: DiffAtrReranker(small_model(), ENCODER, "r", steps=50),
    "some noise": lambda: DiffAtrReranker(small_model(), ENCODER, "r", steps=4, eta=0.5),
    "ddpm": lambda: DiffAtrReranker(small_model(), ENCODER, "r", steps="ddpm"),
    "clamped": lambda: DiffAtrReranker(small_model(prediction="clamped"), ENCODER, "r", steps=10),
    "similarity": lambda: DiffAtrReranker(small_model(scoring="similarity"), ENCODER, "r"),
    "plain": lambda: CrossAttentionReranker(plain_model(), ENCODER, "r"),
}


@pytest.fixture(params=list(RERANKERS))
def reranker(request: pytest.FixtureRequest) -> JointReranker:
    return RERANKERS[request.param]()


def test_the_denoiser_follows_the_equations() -> None:
    denoiser = small_model().text_to_audio
    rng = torch.Generator().manual_seed(3)
    t, v = torch.randn(32, generator=rng), torch.randn(5, 32, generator=rng)
    x, k = torch.randn(5, generator=rng), 17
    a, layer = denoiser.attention, denoiser.embed_step
    tau = layer[2](functional.silu(layer[0](sinusoids(torch.tensor([k]), 32))))[0]
    q = a.query.weight @ (t + tau)
    keys = torch.stack([a.key.weight @ (v_i + tau) for v_i in v])
    values = torch.stack([a.value.weight @ (v_i + tau) for v_i in v])
    w = torch.softmax(torch.stack([q @ key for key in keys]) + x, dim=0)
    c = a.out.weight @ sum(w_i * value for w_i, value in zip(w, values, strict=True))
    p = [
        a.last(torch.relu(a.first(torch.cat([c, v_i])))) + a.gain * w_i + a.known * (t @ v_i)
        for v_i, w_i in zip(v, w, strict=True)
    ]
    present = torch.ones(1, 5, dtype=torch.bool)
    found = denoiser(t[None], v[None], x[None], torch.tensor([k]), present)
    torch.testing.assert_close(found[0], torch.cat(p), atol=1e-4, rtol=1e-4)


def test_what_is_prepared_gives_the_same_p() -> None:
    denoiser = small_model().audio_to_text
    rng = torch.Generator().manual_seed(3)
    query, candidates = torch.randn(2, 32, generator=rng), torch.randn(2, 7, 32, generator=rng)
    x = torch.randn(2, 7, generator=rng)
    present = torch.ones(2, 7, dtype=torch.bool)
    present[0, 3] = False
    lists = PreparedDenoiser(denoiser).on(query, candidates, present)
    for step in (0, 20, 49):
        expected = denoiser(query, candidates, x, torch.tensor([step, step]), present)
        torch.testing.assert_close(lists.p(x, step), expected, atol=1e-4, rtol=1e-4)


def test_the_directions_have_networks_of_their_own() -> None:
    model = small_model()
    assert isinstance(model.text_to_audio, TextToAudioDenoiser)
    there = model.text_to_audio.attention.query.weight
    assert not torch.equal(there, model.audio_to_text.attention.query.weight)


def test_untrained_heads_change_nothing() -> None:
    heads = JointHeads(DiffAtrDimensions(**DIMENSIONS))
    texts, sounds = read_texts([TEXT, "silence"], ENCODER), some_sounds(5)
    view = heads.text(
        torch.from_numpy(texts.vectors),
        torch.from_numpy(texts.tokens.astype(np.float32)),
        torch.from_numpy(texts.lengths),
    )
    heard = hear(*map(torch.from_numpy, (sounds.vectors, sounds.frames, sounds.lengths)))
    similar = torch.from_numpy(texts.vectors @ sounds.vectors.T)
    there, back = heads.both(view, heard, similar)
    torch.testing.assert_close(torch.einsum("bd,bnd->bn", view.vectors, there), similar)
    torch.testing.assert_close(torch.einsum("nd,nbd->nb", heard.vectors, back), similar.T)


def test_it_is_a_reranker_and_its_answers_are_probabilities(reranker: JointReranker) -> None:
    assert isinstance(reranker, Reranker)
    assert reranker.spec.encoder_name == "placeholder:tone"
    assert reranker.spec.dimension == 32
    sounds = some_sounds(20)
    joint = reranker.joint_probability(TEXT, cosines(sounds), sounds)
    assert joint.dtype == np.float32
    assert joint.shape == (20,)
    assert joint.sum() == pytest.approx(1.0, abs=1e-5)
    assert (joint >= 0).all()
    assert np.ptp(joint) > 0
    texts = [TEXT, "silence", "noise before 440 hz", "rain"]
    similar = ENCODER.embed_text(texts) @ sounds.vectors[0]
    said = reranker.text_probability(ordered(sounds, np.array([0])), similar, texts)
    assert said.shape == (4,)
    assert said.sum() == pytest.approx(1.0, abs=1e-5)


def test_scores_belong_to_candidates_whatever_the_order_to_the_bit(
    reranker: JointReranker,
) -> None:
    @settings(max_examples=30)
    @given(st.integers(0, 2**32), st.integers(2, 40))
    def check(seed: int, count: int) -> None:
        sounds = some_sounds(count, seed)
        order = np.random.default_rng(seed).permutation(count)
        here = reranker.joint_probability(TEXT, cosines(sounds), sounds)
        shuffled = ordered(sounds, order)
        there = reranker.joint_probability(TEXT, cosines(sounds)[order], shuffled)
        np.testing.assert_array_equal(here[order], there)
        np.testing.assert_array_equal(
            here, reranker.joint_probability(TEXT, cosines(sounds), sounds)
        )

    check()


def test_texts_are_judged_whatever_their_order_to_the_bit(reranker: JointReranker) -> None:
    texts = np.array([f"{100 * number} hz before noise" for number in range(1, 12)])
    sound = some_sounds(1)
    similar = np.asarray(ENCODER.embed_text(list(texts)) @ sound.vectors[0])
    order = np.random.default_rng(5).permutation(len(texts))
    here = reranker.text_probability(sound, similar, list(texts))
    there = reranker.text_probability(sound, similar[order], list(texts[order]))
    np.testing.assert_array_equal(here[order], there)


def test_padding_and_a_known_encoding_change_nothing(reranker: JointReranker) -> None:
    sounds = some_sounds(9)
    joint = reranker.joint_probability(TEXT, cosines(sounds), sounds)
    padded = replace(sounds, frames=np.pad(sounds.frames, ((0, 0), (0, 3), (0, 0))))
    np.testing.assert_array_equal(joint, reranker.joint_probability(TEXT, cosines(sounds), padded))
    encoding = ENCODER.encode_text([TEXT])
    known = reranker.joint_probability(TEXT, cosines(sounds), sounds, encoding)
    np.testing.assert_allclose(joint, known, atol=1e-3)


def test_a_sound_without_frames_is_judged_by_its_vector(reranker: JointReranker) -> None:
    sounds = some_sounds(4)
    none = replace(sounds, frames=np.zeros((4, 0, 32), np.float32), lengths=np.zeros(4, np.int64))
    one = replace(sounds, frames=sounds.vectors[:, None], lengths=np.ones(4, np.int64))
    similar = cosines(sounds)
    np.testing.assert_array_equal(
        reranker.joint_probability(TEXT, similar, none),
        reranker.joint_probability(TEXT, similar, one),
    )


def test_lists_of_none_and_one(reranker: JointReranker) -> None:
    empty = ordered(some_sounds(3), np.zeros(0, int))
    assert reranker.joint_probability(TEXT, np.zeros(0, np.float32), empty).shape == (0,)
    one = some_sounds(1)
    assert reranker.joint_probability(TEXT, cosines(one), one).tolist() == [1.0]
    assert reranker.text_probability(one, np.zeros(0, np.float32), []).shape == (0,)
    assert reranker.text_probability(one, np.ones(1, np.float32), ["rain"]).tolist() == [1.0]


@pytest.mark.parametrize("text", ["word " * 2_000, "狗在叫 🐕", "\u202eabc", "44\x00hz"])
def test_strange_texts_get_probabilities(reranker: JointReranker, text: str) -> None:
    sounds = some_sounds(5)
    joint = reranker.joint_probability(text, cosines(sounds, text), sounds)
    assert joint.sum() == pytest.approx(1.0, abs=1e-5)


def test_what_cannot_be_judged_is_refused(reranker: JointReranker) -> None:
    sounds = some_sounds(3)
    similar = cosines(sounds)
    for text in ("", " \n"):
        with pytest.raises(InvalidValueError, match="empty text"):
            reranker.joint_probability(text, similar, sounds)
        with pytest.raises(InvalidValueError, match="empty text"):
            reranker.text_probability(some_sounds(1), similar[:2], ["rain", text])
    for field in ("vectors", "frames"):
        broken = getattr(sounds, field).copy()
        broken[1, 0] = np.nan
        with pytest.raises(InvalidValueError, match="not finite"):
            reranker.joint_probability(TEXT, similar, replace(sounds, **{field: broken}))
    with pytest.raises(InvalidValueError, match="not finite"):
        reranker.joint_probability(TEXT, np.array([0.1, np.inf, 0.2], np.float32), sounds)
    with pytest.raises(InvalidValueError, match=r"\(2,\)"):
        reranker.joint_probability(TEXT, similar[:2], sounds)
    narrow = replace(sounds, vectors=sounds.vectors[:, :16], frames=sounds.frames[:, :, :16])
    with pytest.raises(InvalidValueError, match="16"):
        reranker.joint_probability(TEXT, similar, narrow)
    with pytest.raises(InvalidValueError, match="more than once"):
        reranker.joint_probability(TEXT, similar, replace(sounds, keys=np.array([4, 4, 5])))
    with pytest.raises(InvalidValueError, match="3 sounds"):
        reranker.text_probability(sounds, similar, ["rain"])


@pytest.mark.parametrize("steps", [0, 51, -1, "some"])
def test_impossible_steps_are_refused(steps: int | str) -> None:
    with pytest.raises(InvalidValueError, match=str(steps)):
        DiffAtrReranker(small_model(), ENCODER, "r", steps=steps)


def test_a_saved_model_comes_back(tmp_path: Path) -> None:
    small_model(weight=0.4, sound_temperature=2.0).save_pretrained(tmp_path)
    reranker, sounds = DiffAtrReranker.load(tmp_path, ENCODER), some_sounds(6)
    assert reranker.weight == 0.4
    assert len(reranker.spec.revision) == 16
    expected = DiffAtrReranker(small_model(weight=0.4, sound_temperature=2.0), ENCODER, "r")
    np.testing.assert_array_equal(
        reranker.joint_probability(TEXT, cosines(sounds), sounds),
        expected.joint_probability(TEXT, cosines(sounds), sounds),
    )
    plain_model().save_pretrained(tmp_path / "plain")
    assert CrossAttentionReranker.load(tmp_path / "plain", ENCODER).spec.name == "cross_attention"


def test_folders_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"model\.safetensors"):
        DiffAtrReranker.load(tmp_path, ENCODER)
    model = small_model()
    model.config.encoder_revision = "of yore"
    model.save_pretrained(tmp_path / "old")
    with pytest.raises(BrokenCheckpointError, match="of yore"):
        DiffAtrReranker.load(tmp_path / "old", ENCODER)
    small_model().save_pretrained(tmp_path / "torn")
    weights = tmp_path / "torn" / "model.safetensors"
    kept = load_file(weights)
    kept.pop("heads.scale")
    save_file(kept, weights, metadata={"format": "pt"})
    with pytest.raises(BrokenCheckpointError, match=r"heads\.scale"):
        DiffAtrReranker.load(tmp_path / "torn", ENCODER)


@pytest.mark.parametrize(
    ("name", "steps"),
    [("distilled", 1), ("some noise", 4), ("ddpm", 50), ("similarity", None), ("plain", None)],
)
def test_a_reranker_says_how_many_steps_it_takes(name: str, steps: int | None) -> None:
    assert RERANKERS[name]().spec.steps == steps

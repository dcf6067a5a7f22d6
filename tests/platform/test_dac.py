"""DAC and its twin: words to latents and back, noise that belongs to a seed, equal size, equal answers."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from soundpost.errors import BrokenCheckpointError, InvalidValueError, ModelNotFoundError
from soundpost.models.caption_condition import (
    MOST_TOKENS,
    Conditions,
    Style,
    condition_tokens,
    conditions,
)
from soundpost.models.caption_twin import (
    MOST_UNLIKE,
    TwinConfig,
    TwinModel,
    TwinSampling,
    TwinWriter,
    twin_of,
)
from soundpost.models.dac import (
    DacConfig,
    DacDimensions,
    DacModel,
    DacSampling,
    DacWriter,
    seeded_noise,
)
from soundpost.models.diffusion import DdimSampler, cosine_schedule
from soundpost.models.text_latents import BEGIN, END, PAD, UNKNOWN, CaptionVocabulary, id_tensor
from soundpost.training.dac import save_captioner

WORDS = [
    "a",
    "dog",
    "cat",
    "bird",
    "barks",
    "meows",
    "sings",
    "while",
    "then",
    "loudly",
    "in",
    "the",
    "rain",
    ",",
    "softly",
]
VOCABULARY = CaptionVocabulary.of([" ".join(WORDS)], 100)
SHAPE = DacDimensions(
    dimension=16,
    vocabulary=len(VOCABULARY),
    length=8,
    latent=16,
    text_heads=2,
    lower=1,
    width=32,
    layers=2,
    heads=2,
    feedforward=48,
    steps=10,
)


def dac(lengths: str = "predicted", shape: DacDimensions = SHAPE) -> DacModel:
    torch.manual_seed(0)
    return DacModel(DacConfig(asdict(shape), lengths)).eval()


def twin() -> TwinModel:
    torch.manual_seed(0)
    return TwinModel(TwinConfig(asdict(twin_of(SHAPE)))).eval()


def sounds(count: int, seed: int = 0) -> Conditions:
    rng = np.random.default_rng(seed)
    tokens = []
    for _ in range(count):
        frames = rng.standard_normal((int(rng.integers(3, 40)), SHAPE.dimension))
        tokens.append(condition_tokens(frames.astype(np.float32), 0.16))
    return conditions(tokens, [Style.RECORDS] * count)


def test_words_are_read_and_written() -> None:
    (ids,) = VOCABULARY.ids(["A dog barks, then a CAT meows!"])
    assert UNKNOWN not in ids
    assert VOCABULARY.text(ids) == "a dog barks, then a cat meows"
    assert VOCABULARY.ids(["a zebra"])[0][1] == UNKNOWN


def test_repeats_are_collapsed_and_padding_is_stripped() -> None:
    a, dog, barks = VOCABULARY.ids(["a dog barks"])[0]
    (comma,) = VOCABULARY.ids([","])[0]
    ids = [BEGIN, comma, a, a, dog, PAD, dog, barks, END, UNKNOWN, comma, PAD]
    assert VOCABULARY.text(ids) == "a dog barks"
    assert VOCABULARY.text([PAD, PAD]) == ""


def test_a_vocabulary_keeps_the_frequent_words_and_those_that_are_needed() -> None:
    kept = CaptionVocabulary.of(["a a a b b c"], 7, always=["z"])
    assert kept.words[4:] == ["z", "a", "b"]


def test_frames_are_pooled_to_unit_tokens() -> None:
    rng = np.random.default_rng(0)
    frames = rng.standard_normal((63, 16)).astype(np.float32)
    tokens = condition_tokens(frames, 0.16)
    assert tokens.shape == (13, 16)
    np.testing.assert_allclose(np.linalg.norm(tokens, axis=1), 1.0, rtol=1e-5)
    mean = frames[:5].sum(axis=0)
    np.testing.assert_allclose(tokens[0], mean / np.linalg.norm(mean), rtol=1e-4)
    assert condition_tokens(frames[:1], 0.16).shape == (1, 16)
    assert len(condition_tokens(np.tile(frames, (9, 1)), 0.16)) == MOST_TOKENS


def test_no_frames_and_frames_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(InvalidValueError, match="at least one"):
        condition_tokens(np.zeros((0, 16), np.float32), 0.16)
    with pytest.raises(InvalidValueError, match="not finite"):
        condition_tokens(np.full((3, 16), np.nan, np.float32), 0.16)


def test_latents_have_unit_variance_once_fitted_and_do_not_see_the_padding() -> None:
    latents = dac().latents
    ids, lengths = id_tensor([[4, 5, 6], [7, 8, 9, 10, 11, 12]], 8)
    mask = torch.arange(8) < lengths[:, None]
    with torch.no_grad():
        long = latents.encode(ids, mask)
        short = latents.encode(ids[:1, :3], mask[:1, :3])
        torch.testing.assert_close(long[0, :3], short[0], rtol=1e-4, atol=1e-5)
        assert latents.decode(long, mask).shape == (9, len(VOCABULARY))


def test_twins_are_of_equal_size() -> None:
    ratio = twin().size() / dac().size()
    assert abs(ratio - 1) < MOST_UNLIKE
    shape = DacDimensions()
    with torch.device("meta"):
        whole = DacModel(DacConfig(asdict(shape))).size()
        other = TwinModel(TwinConfig(asdict(twin_of(shape)))).size()
    assert abs(other / whole - 1) < MOST_UNLIKE


def test_the_lower_half_of_the_text_space_is_not_counted() -> None:
    more = replace(SHAPE, lower=3)
    assert dac(shape=more).size() == dac().size()
    assert dac(shape=replace(SHAPE, upper=3)).size() > dac().size()


@pytest.mark.parametrize("lengths", ["predicted", "padded"])
@pytest.mark.parametrize("steps", [1, 3])
def test_a_caption_depends_on_its_sound_and_seed_alone(lengths: str, steps: int) -> None:
    writer = DacWriter(dac(lengths), VOCABULARY, "1", DacSampling(steps))
    batch = sounds(5)
    seeds = [3, 1, 4, 1, 5]
    together = writer.write(batch, seeds)
    assert together == writer.write(batch, seeds)
    for row, text in enumerate(together):
        only = torch.tensor([row])
        assert writer.write(batch.rows(only), [seeds[row]]) == [text]


def test_noise_belongs_to_its_seed_and_place() -> None:
    noise = seeded_noise([7, 8], (4, 16), 0)
    torch.testing.assert_close(noise[:1, :2], seeded_noise([7], (2, 16), 0))
    assert (noise[0] != noise[1]).all()
    assert abs(float(seeded_noise(list(range(50)), (8, 16), 0).std()) - 1) < 0.05
    torch.testing.assert_close(seeded_noise([7], (4, 16), 0, 0.5), noise[:1] / 2)


def test_the_likeliest_caption_does_not_depend_on_the_seed() -> None:
    batch = sounds(4)
    for steps in (1, 3):
        writer = DacWriter(dac(), VOCABULARY, "1", DacSampling(steps))
        assert writer.write(batch, [1, 2, 3, 4]) == writer.write(batch, [5, 6, 7, 8])


def test_different_seeds_give_different_captions() -> None:
    batch = sounds(1).repeated(8)
    writer = DacWriter(dac(), VOCABULARY, "1", DacSampling(2))
    assert len(set(writer.write(batch, list(range(8)), diverse=True))) > 4
    words = TwinWriter(twin(), VOCABULARY, "1", TwinSampling(nucleus=1.0))
    assert len(set(words.write(batch, list(range(8)), diverse=True))) > 4
    assert len(set(words.write(batch, list(range(8))))) == 1


def test_no_guidance_is_the_condition_alone() -> None:
    batch, seeds = sounds(4), [1, 2, 3, 4]
    model = dac()
    plain = DacWriter(model, VOCABULARY, "1", DacSampling(2))._denoise
    guided = DacWriter(model, VOCABULARY, "1", DacSampling(2, guidance=1.0))._denoise
    memory, bare = (
        model.reader(batch),
        model.reader(batch, torch.ones(4, dtype=torch.bool)),
    )
    lengths = torch.tensor([3, 4, 5, 6])
    with torch.inference_mode():
        alone, _ = plain(memory, None, lengths, seeds, True)
        none, _ = plain(memory, bare, lengths, seeds, True)
        much, _ = guided(memory, bare, lengths, seeds, True)
    torch.testing.assert_close(alone, none)
    assert not torch.allclose(alone, much, atol=1e-3)


def test_the_prediction_before_is_heard() -> None:
    model = dac()
    memory = model.reader(sounds(2))
    kept, x = model.denoiser.keep(memory), torch.randn(2, 8, SHAPE.latent)
    steps, told = torch.tensor([5, 5]), torch.tensor([8, 5])
    without = model.denoiser(x, torch.zeros_like(x), steps, told, kept)
    assert not torch.allclose(without, model.denoiser(x, x, steps, told, kept), atol=1e-3)


def test_places_past_the_length_do_not_matter() -> None:
    model = dac()
    kept, x = model.denoiser.keep(model.reader(sounds(1))), torch.randn(1, 8, SHAPE.latent)
    other = x.clone()
    other[:, 4:] = 9.0
    steps, told = torch.tensor([5]), torch.tensor([4])
    first, second = (model.denoiser(y, y, steps, told, kept) for y in (x, other))
    torch.testing.assert_close(first[:, :4], second[:, :4])


@pytest.mark.parametrize("lengths", ["predicted", "padded"])
def test_the_canvas_is_as_long_as_the_captions_or_as_all(lengths: str) -> None:
    mask, told = dac(lengths).canvas(torch.tensor([3, 5]))
    if lengths == "predicted":
        assert mask.sum(1).tolist() == [3, 5]
        assert mask.shape == (2, 6)
        assert told.tolist() == [3, 5]
    else:
        assert mask.all()
        assert mask.shape == (2, 8)
        assert told.tolist() == [0, 0]


def test_captions_are_as_long_as_predicted() -> None:
    model = dac()
    with torch.no_grad():
        model.length_head.weight.zero_()
        model.length_head.bias.copy_(torch.eye(9)[5] * 50)
    seen: list[int] = []
    writer = DacWriter(model, VOCABULARY, "1")
    count = writer.vocabulary.text
    writer.vocabulary.text = lambda ids: seen.append(len(list(ids))) or count(ids)  # type: ignore[method-assign, func-returns-value]  # to count what comes
    writer.write(sounds(3), [1, 2, 3])
    writer.write(sounds(3), [1, 2, 3], diverse=True)
    assert seen == [5] * 6


def test_of_several_lengths_the_surest_is_taken() -> None:
    writer = DacWriter(dac(), VOCABULARY, "1", DacSampling(1, candidates=4))
    assert len(writer.write(sounds(3), [1, 2, 3])) == 3
    assert len(writer.write(sounds(3), [1, 2, 3], diverse=True)) == 3


def test_a_word_at_a_time_with_kept_states_is_the_same_as_without() -> None:
    model = twin()
    batch = sounds(3)
    ids = torch.randint(4, len(VOCABULARY), (3, 6))
    ids[:, 0] = BEGIN
    with torch.inference_mode():
        memory = model.reader(batch)
        whole = model(ids, memory)
        past: list[object] = []
        sound = model.keep(memory)
        for place in range(6):
            logits = model.next(ids[:, place], past, sound)  # type: ignore[arg-type]  # it grows
            torch.testing.assert_close(logits, whole[:, place], rtol=1e-4, atol=1e-5)


def test_what_is_finished_leaves_the_batch_and_changes_nothing() -> None:
    writer = TwinWriter(twin(), VOCABULARY, "1", TwinSampling(nucleus=1.0, temperature=2.0))
    batch, seeds = sounds(6).repeated(3), list(range(18))
    together = writer.write(batch, seeds, diverse=True)
    assert len({len(text.split()) for text in together}) > 1
    for row, text in enumerate(together):
        only = torch.tensor([row])
        assert writer.write(batch.rows(only), [seeds[row]], diverse=True) == [text]


def test_the_nucleus_leaves_out_the_unlikely() -> None:
    writer = TwinWriter(twin(), VOCABULARY, "1", TwinSampling(nucleus=0.6))
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log().expand(200, 3)
    drawn = writer._draw(logits, torch.linspace(0, 0.9999, 200))
    assert sorted(set(drawn.tolist())) == [0, 1]
    assert abs(float((drawn == 0).float().mean()) - 0.5 / 0.8) < 0.02


def test_a_schedule_gets_noisier_and_predictions_are_not_cut_without_a_clamp() -> None:
    schedule = cosine_schedule(20)
    noisier = schedule.noisier(0.5)
    assert all(a > b for a, b in zip(schedule.abar, noisier.abar, strict=True))
    np.testing.assert_allclose(schedule.noisier(1.0).abar, schedule.abar)
    far = torch.full((2, 3, 4), 5.0)
    for clamp, wanted in ((None, 5.0), (1.0, 1.0)):
        sampler = DdimSampler(noisier, 4, clamp=clamp)
        found = sampler.sample(lambda x, step: far, lambda draw: torch.zeros(2, 3, 4))
        torch.testing.assert_close(found, torch.full((2, 3, 4), wanted))


def test_noise_is_added_to_latents_by_row() -> None:
    schedule = cosine_schedule(10)
    x_0, noise = torch.ones(2, 3, 4), torch.zeros(2, 3, 4)
    x = schedule.add_noise(x_0, noise, torch.tensor([0, 9]))
    torch.testing.assert_close(x[1], torch.full((3, 4), schedule.abar[9] ** 0.5))


def test_a_saved_captioner_is_read_again(tmp_path: Path) -> None:
    save_captioner(dac().half().float(), VOCABULARY, tmp_path / "dac")
    writer = DacWriter.load(tmp_path / "dac")
    again = DacWriter.load(tmp_path / "dac")
    assert writer.write(sounds(3), [1, 2, 3]) == again.write(sounds(3), [1, 2, 3])
    assert (writer.dimension, writer.revision) == (16, again.revision)
    save_captioner(twin(), VOCABULARY, tmp_path / "twin")
    assert TwinWriter.load(tmp_path / "twin").dimension == 16


@pytest.mark.parametrize("kind", ["dac", "twin"])
def test_broken_folders_are_named(kind: str, tmp_path: Path) -> None:
    load = DacWriter.load if kind == "dac" else TwinWriter.load
    with pytest.raises(ModelNotFoundError, match="safetensors"):
        load(tmp_path)
    save_captioner(dac() if kind == "dac" else twin(), VOCABULARY, tmp_path)
    words = tmp_path / "tokenizer.json"
    good = words.read_text()
    for broken in ("{", "[]", '{"model": {"vocab": {"a": 3}}}'):
        words.write_text(broken)
        with pytest.raises(BrokenCheckpointError, match=r"tokenizer\.json"):
            load(tmp_path)
    fewer = json.loads(good)
    fewer["model"]["vocab"].popitem()
    words.write_text(json.dumps(fewer))
    with pytest.raises(BrokenCheckpointError, match="words in its tokenizer"):
        load(tmp_path)
    words.unlink()
    with pytest.raises(ModelNotFoundError, match=r"tokenizer\.json"):
        load(tmp_path)
    words.write_text(good)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(BrokenCheckpointError):
        load(tmp_path)


def test_dimensions_that_cannot_be_are_refused() -> None:
    with pytest.raises(InvalidValueError, match="multiple"):
        dac(shape=replace(SHAPE, length=7))
    with pytest.raises(InvalidValueError, match="one of"):
        dac("guessed")

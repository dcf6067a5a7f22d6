"""ADIFF: its size, its parts, its switches, and what it writes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from soundpost.errors import BrokenCheckpointError, InvalidValueError, ModelNotFoundError
from soundpost.models.adiff import Adiff, AdiffConfig, AdiffDimensions, new_adiff, pad_prompt
from soundpost.models.adiff_writer import AdiffWriter, BannedPhrases, Written, WrittenToken
from soundpost.models.language_model import (
    LanguageModelDimensions,
    LanguageTokenizer,
    build_language_model,
    save_language_model,
)
from soundpost.training.language import train_tokenizer

TEXTS = ("A dog barks. Dogs bark twice; a hotdog does not.", "It is louder by 6 dB, in audio 2.")
WORDS = 330
SHAPE = AdiffDimensions(
    audio_width=12,
    audio_hidden=10,
    width=16,
    audio_tokens=3,
    prompt_tokens=4,
    text_tokens=2,
    mapper_layers=1,
    mapper_heads=2,
    cross_layers=1,
    cross_heads=2,
    dropout=0.0,
)
PROMPTS = {"1": "A dog", "2": "louder", "3": "audio 2"}


def language_models() -> dict[str, PreTrainedModel]:
    torch.manual_seed(1)
    llama = LlamaConfig(
        vocab_size=WORDS,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        bos_token_id=0,
        eos_token_id=0,
        tie_word_embeddings=False,
    )
    gpt2 = build_language_model(LanguageModelDimensions(16, 2, 2, 64, WORDS))
    return {"gpt2": gpt2, "llama": LlamaForCausalLM(llama)}


@pytest.fixture(scope="module")
def tokenizer() -> LanguageTokenizer:
    return train_tokenizer(TEXTS * 5, WORDS)


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def model(request: pytest.FixtureRequest) -> Adiff:
    language = language_models()[request.param]
    torch.manual_seed(0)
    made = new_adiff(SHAPE, language, PROMPTS)
    with torch.no_grad():
        # Far from uniform, so that rounding decides nothing.
        head = made.language_model.get_output_embeddings()
        assert isinstance(head, nn.Linear)
        head.weight.mul_(20.0)
    return nn.Module.eval(made)


@pytest.fixture(scope="module")
def writer(model: Adiff, tokenizer: LanguageTokenizer) -> AdiffWriter:
    return AdiffWriter(model, tokenizer, "adiff", "test")


def vectors(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    first, second = rng.standard_normal((2, count, SHAPE.audio_width)).astype(np.float32)
    return first, second


def batch(count: int = 2, length: int = 7) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    first, second = (torch.from_numpy(rows) for rows in vectors(count))
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(WORDS, (count, SHAPE.prompt_tokens), generator=generator)
    answers = torch.randint(1, WORDS, (count, length), generator=generator)
    return first, second, prompts, answers, torch.full((count,), length)


def test_the_size_of_the_paper() -> None:
    with torch.device("meta"):
        model = Adiff(AdiffConfig())
    new = sum(p.numel() for part in model.new_parts() for p in part.parameters())
    assert new == 140_500_992
    assert model.config.shape.prefix_tokens == 121
    assert sum(p.numel() for p in model.language_model.parameters()) == 124_439_808


def test_shapes(model: Adiff) -> None:
    first, second, prompts, answers, _ = batch()
    prefix = model.prefix(first, second, prompts)
    assert prefix.shape == (2, 3 + 1 + 3 + 2, 16)
    assert model.logits(prefix, answers).shape == (2, 7, WORDS)
    z = model.projection(first)
    torch.testing.assert_close(z.norm(dim=-1), torch.ones(2))


def test_loss_is_on_the_answer_up_to_its_length_alone(model: Adiff) -> None:
    first, second, prompts, answers, _ = batch()
    lengths = torch.tensor([4, 7])
    loss = model(first, second, prompts, answers, lengths)
    after = answers.clone()
    after[0, 4:] = 1
    torch.testing.assert_close(model(first, second, prompts, after, lengths), loss)
    before = answers.clone()
    before[0, 3] = (before[0, 3] + 1) % WORDS
    assert not torch.isclose(model(first, second, prompts, before, lengths), loss)
    prefix = model.prefix(first, second, prompts)
    logs = model.logits(prefix, answers).log_softmax(-1)
    told = [-logs[row, at, answers[row, at]] for row in (0, 1) for at in range(int(lengths[row]))]
    torch.testing.assert_close(loss, torch.stack(told).mean())


def test_every_token_of_the_prefix_sees_every_other(model: Adiff) -> None:
    first, second, prompts, *_ = batch()
    whole = model.prefix(first, second, prompts)
    moved = model.prefix(first, second + 1.0, prompts)
    assert ((whole - moved).abs().amax(-1) > 1e-6).all()


def test_each_audio_has_its_own_place(model: Adiff) -> None:
    first, second, prompts, *_ = batch()
    there, back = model.prefix(first, second, prompts), model.prefix(second, first, prompts)
    assert not torch.allclose(there, back, atol=1e-4)


def test_contrast_tells_which_of_the_two_has_more() -> None:
    shape = replace(SHAPE, contrast_tokens=2, cross_projection=False)
    model = nn.Module.eval(new_adiff(shape, language_models()["gpt2"], {}))
    assert model.contrast in model.new_parts()
    first, second, prompts, *_ = batch()
    there, back = model.prefix(first, second, prompts), model.prefix(second, first, prompts)
    assert there.shape[1] == shape.prefix_tokens == 11
    assert not torch.allclose(there[:, 7:9], back[:, 7:9], atol=1e-4)
    # Only what differs counts: what both have in common is not in these tokens.
    moved = model.prefix(first + 1.0, second + 1.0, prompts)
    torch.testing.assert_close(moved[:, 7:9], there[:, 7:9])


def test_the_ablations_change_what_is_there() -> None:
    language = language_models()["gpt2"]
    first, second, prompts, *_ = batch()
    bare = new_adiff(replace(SHAPE, cross_projection=False, separator=False), language, {})
    assert len(list(bare.cross.parameters())) == 0
    nn.Module.eval(bare)
    prefix = bare.prefix(first, second, prompts)
    assert prefix.shape[1] == bare.shape.prefix_tokens == 8
    # Nothing crosses: the first audio's tokens know nothing of the second.
    torch.testing.assert_close(prefix[:, :3], bare.prefix(first, second + 1.0, prompts)[:, :3])
    crossed = new_adiff(replace(SHAPE, separator=False), language, {})
    assert len(list(crossed.cross.parameters())) > 0


def test_dimensions_must_fit() -> None:
    with pytest.raises(InvalidValueError, match="heads"):
        replace(SHAPE, cross_heads=3)
    with pytest.raises(InvalidValueError, match="width"):
        new_adiff(replace(SHAPE, width=32), language_models()["gpt2"], {})


def test_prompts_are_padded_and_cut() -> None:
    assert pad_prompt([5], SHAPE, 0) == [5, 0, 0, 0]
    assert pad_prompt([1, 2, 3, 4, 5], SHAPE, 0) == [1, 2, 3, 4]


def test_the_cache_changes_nothing(writer: AdiffWriter) -> None:
    first, second = vectors(1)
    model, tokenizer = writer.model, writer.tokenizer
    asked = pad_prompt(tokenizer.encode(PROMPTS["1"]), SHAPE, tokenizer.end)
    prefix = model.prefix(torch.from_numpy(first), torch.from_numpy(second), torch.tensor([asked]))
    ids: list[int] = []
    while len(ids) < writer.max_tokens:
        answers = torch.tensor([[*ids, 0]])
        token = int(model.logits(prefix, answers)[0, -1].argmax())
        if token == tokenizer.end:
            break
        ids.append(token)
    text = tokenizer.decode(ids)
    written = writer.write(first[0], second[0], [1])[0]
    assert text.startswith(written.text)
    assert len(ids) == writer.max_tokens or written.text == text


def test_one_row_is_written_as_among_others(writer: AdiffWriter) -> None:
    firsts, seconds = vectors(5)
    together = writer.write_many(firsts, seconds, 2)
    alone = [writer.write(a, b, [2])[0] for a, b in zip(firsts, seconds, strict=True)]
    assert [one.text for one in together] == [one.text for one in alone]
    tiers = writer.write(firsts[0], seconds[0], [1, 2, 3], seed=7)
    assert tiers[1].text == writer.write(firsts[0], seconds[0], [2], seed=7)[0].text


def test_the_same_seed_draws_the_same_text(writer: AdiffWriter) -> None:
    first, second = (rows[0] for rows in vectors(1))
    one, again, other = (writer.write(first, second, [1], seed=n)[0] for n in (1, 1, 2))
    assert one == again
    assert one.text != other.text or len(one.text) < 4


def test_tokens_lie_in_the_text_and_have_probabilities(writer: AdiffWriter) -> None:
    first, second = (rows[0] for rows in vectors(1))
    for written in writer.write(first, second, [1, 2, 3], seed=3):
        assert all(0.0 <= token.probability <= 1.0 for token in written.tokens)
        joined = "".join(written.text[token.start : token.end] for token in written.tokens)
        assert joined == written.text


def test_probability_of_words_is_that_of_their_tokens() -> None:
    tokens = (WrittenToken(0, 2, 0.5), WrittenToken(2, 4, 0.125), WrittenToken(4, 6, 1.0))
    written = Written("abcdef", tokens)
    assert written.probability(1, 3) == pytest.approx(0.25)
    assert written.probability(4, 6) == pytest.approx(1.0)
    assert written.probability(6, 9) == 1.0


def test_what_is_banned_is_never_written(writer: AdiffWriter) -> None:
    firsts, seconds = vectors(3)
    for first, second in zip(firsts, seconds, strict=True):
        for seed in (None, 1):
            plain = writer.write(first, second, [1], seed=seed)[0].text
            words = [word for word in plain.split() if word.isascii() and len(word) > 1]
            banned = sorted({*words, plain[:3].strip(), "dog"})
            text = writer.write(first, second, [1], banned=banned, seed=seed)[0].text
            said = " ".join(text.lower().split())
            assert not any(f" {word.lower()}" in f" {said}" for word in banned if word)


@pytest.mark.parametrize(
    ("text", "finished"),
    [("A dog", True), ("DOGS bark", True), ("a hotdog", False), ("A do g", False), ("", False)],
)
def test_a_phrase_counts_from_the_start_of_a_word(
    tokenizer: LanguageTokenizer, text: str, finished: bool
) -> None:
    assert BannedPhrases(["Dog"], tokenizer).finished(tokenizer.encode(text)) is finished


def test_the_last_word_of_a_phrase_is_not_begun(tokenizer: LanguageTokenizer) -> None:
    phrases = BannedPhrases(["a dog  barks"], tokenizer)
    barks = tokenizer.encode(" barks")[0]
    assert barks in phrases.beginnings("Here a dog")
    assert not phrases.beginnings("Here a")
    assert phrases.finished(tokenizer.encode("A\tdog\nbarks"))


def test_no_phrase_bans_nothing(tokenizer: LanguageTokenizer) -> None:
    assert not BannedPhrases(["", "  "], tokenizer)


def test_what_cannot_be_written_about(writer: AdiffWriter) -> None:
    first, second = (rows[0] for rows in vectors(1))
    with pytest.raises(InvalidValueError, match="tier 4"):
        writer.write(first, second, [4])
    with pytest.raises(InvalidValueError, match="shape"):
        writer.write(first[:5], second, [1])
    with pytest.raises(InvalidValueError, match="finite"):
        writer.write(first * np.nan, second, [1])
    assert writer.write(first, second, []) == []


@pytest.fixture
def folder(model: Adiff, tokenizer: LanguageTokenizer, tmp_path: Path) -> Path:
    save_language_model(model, tokenizer, tmp_path / "adiff")
    return tmp_path / "adiff"


def test_saved_it_writes_the_same(folder: Path, writer: AdiffWriter, tmp_path: Path) -> None:
    loaded = AdiffWriter.load(folder)
    assert (loaded.name, loaded.audio_width) == ("adiff", SHAPE.audio_width)
    assert loaded.prompts == PROMPTS
    firsts, seconds = vectors(2)
    again = AdiffWriter.load(Path(shutil.copytree(folder, tmp_path / "copy")), threads=1)
    assert again.revision == loaded.revision
    texts = [one.text for one in loaded.write_many(firsts, seconds, 3)]
    assert texts == [one.text for one in again.write_many(firsts, seconds, 3)]
    torch.testing.assert_close(loaded.model(*batch()), writer.model(*batch()), atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("model.safetensors", b"\0" * 32),
        ("tokenizer.json", b"{}"),
        ("config.json", {"dimensions": {"audio_width": 12, "unheard_of": 1}}),
        ("config.json", {"dimensions": {"width": 32}}),
        ("config.json", {"language_model": {"model_type": "unheard of"}}),
    ],
)
def test_what_is_broken_is_named(
    folder: Path, name: str, change: bytes | dict[str, object]
) -> None:
    path = folder / name
    if isinstance(change, dict):
        change = json.dumps(json.loads(path.read_text()) | change).encode()
    path.unlink()
    path.write_bytes(change)
    with pytest.raises(BrokenCheckpointError):
        AdiffWriter.load(folder)


def test_no_weights(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        AdiffWriter.load(tmp_path)

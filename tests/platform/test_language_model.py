"""Language models: our own from words to weights, those of transformers, and broken ones."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from soundpost.errors import (
    BrokenCheckpointError,
    DataMissingError,
    InvalidValueError,
    ModelNotFoundError,
    OutputExistsError,
)
from soundpost.models.language_model import (
    LanguageModelDimensions,
    LanguageTokenizer,
    build_language_model,
    load_language_model,
    save_language_model,
)
from soundpost.training import language as training
from soundpost.training.adiff_rows import FILES, adiff_rows, is_held_out
from soundpost.training.language import Corpus, LanguageOptions, train_language, train_tokenizer

TEXTS = (
    "A dog barks in audio 1, and not in audio 2.",
    "Audio 2 is louder than audio 1 by 6 dB.",
    "The rain begins earlier in audio 1: at 2.5 s.",
)
TINY = LanguageModelDimensions(width=16, layers=1, heads=2, positions=40, vocabulary=320)
OPTIONS = LanguageOptions(steps=6, rows=2, dimensions=TINY, shares=(1.0, 0.0, 0.0))
ROWS = "taskname,filepath1,filepath2,caption1,caption2,input,answer\n"


@pytest.fixture(scope="module")
def tokenizer() -> LanguageTokenizer:
    return train_tokenizer(TEXTS * 5, TINY.vocabulary)


@pytest.fixture(scope="module")
def folder(tokenizer: LanguageTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("language")
    save_language_model(build_language_model(TINY, tokenizer.end), tokenizer, path)
    return path


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def texts_alone() -> Corpus:
    return Corpus([lambda rng: TEXTS[int(rng.integers(len(TEXTS)))]], [1.0])


@pytest.mark.parametrize("text", [*TEXTS, "", "naïve 日本 \N{DOG FACE}\n"])
def test_any_text_comes_back_from_its_ids(tokenizer: LanguageTokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    spans = tokenizer.spans(ids)
    assert [text[start:end] for start, end in spans if end > start] or not text
    assert all(before[1] == after[0] for before, after in itertools.pairwise(spans))
    assert not spans or spans[-1][1] == len(text)


def test_saved_in_half_precision_it_computes_the_same(folder: Path) -> None:
    language = load_language_model(folder)
    assert language.width == TINY.width
    assert language.model.dtype == torch.float32
    assert load_language_model(str(folder)).revision == language.revision
    ids = torch.tensor([language.tokenizer.encode(TEXTS[0])])
    torch.manual_seed(0)
    built = nn.Module.eval(build_language_model(TINY, language.tokenizer.end))
    with torch.no_grad():
        torch.testing.assert_close(
            language.model(ids).logits, built(ids).logits, atol=2e-3, rtol=2e-2
        )


def test_another_kind_of_model_is_read_too(folder: Path, tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=TINY.vocabulary,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=0,
        eos_token_id=[0, 1],
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    shutil.copyfile(folder / "tokenizer.json", tmp_path / "tokenizer.json")
    language = load_language_model(tmp_path)
    assert isinstance(language.model, LlamaForCausalLM)
    assert (language.width, language.tokenizer.end) == (16, 0)


@pytest.mark.parametrize("name", ["nowhere/at/all", Path("nowhere")])
def test_no_such_folder(name: str | Path) -> None:
    with pytest.raises(ModelNotFoundError):
        load_language_model(name)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", None),
        ("tokenizer.json", b"{}"),
        ("tokenizer.json", b"no json"),
        ("model.safetensors", None),
        ("model.safetensors", b"\0" * 64),
        ("config.json", b"{}"),
        ("config.json", b'{"model_type": "gpt2", "n_embd": 24, "n_head": 2}'),
    ],
)
def test_what_is_broken_is_named(copied: Path, name: str, content: bytes | None) -> None:
    (copied / name).unlink()
    if content is not None:
        (copied / name).write_bytes(content)
    with pytest.raises(BrokenCheckpointError):
        load_language_model(copied)


def test_without_config_it_is_no_model(copied: Path) -> None:
    (copied / "config.json").unlink()
    with pytest.raises(ModelNotFoundError, match=r"config\.json"):
        load_language_model(copied)


@pytest.mark.parametrize("change", [{"eos_token_id": None}])
def test_a_model_that_cannot_end_is_broken(copied: Path, change: dict[str, object]) -> None:
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(BrokenCheckpointError, match="end-of-text"):
        load_language_model(copied)


def test_a_tokenizer_with_too_many_words_is_broken(copied: Path) -> None:
    wide = train_tokenizer([f"word{n} other{n}" for n in range(500)], 400)
    wide.tokenizer.save(str(copied / "tokenizer.json"))
    with pytest.raises(BrokenCheckpointError, match="more words"):
        load_language_model(copied)


def test_rows_are_packed_with_ends_between(tokenizer: LanguageTokenizer) -> None:
    rows = texts_alone().rows(np.random.default_rng(0), tokenizer, 3, 40)
    assert rows.shape == (3, 40)
    told = tokenizer.tokenizer.decode(rows.flatten().tolist(), skip_special_tokens=False)
    between = told.split("<|endoftext|>")
    assert between[0] == ""
    assert set(between[1:-1]) <= set(TEXTS)


def test_training_learns_and_stops_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_SAVE_STEPS", 3)
    monkeypatch.setattr(training, "_TOKENIZER_TEXTS", 100)
    whole = train_language(texts_alone(), OPTIONS, tmp_path / "whole")
    assert whole < np.log(TINY.vocabulary)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    taken = iter(range(4))
    step = training.take_step
    monkeypatch.setattr(
        training, "take_step", lambda *given: stop() if next(taken) == 3 else step(*given)
    )
    with pytest.raises(KeyboardInterrupt):
        train_language(texts_alone(), OPTIONS, tmp_path / "parts")
    monkeypatch.setattr(training, "take_step", step)
    train_language(texts_alone(), OPTIONS, tmp_path / "parts")
    first, second = (load_language_model(tmp_path / name) for name in ("whole", "parts"))
    assert first.revision == second.revision


def test_a_folder_keeps_to_its_options(tmp_path: Path) -> None:
    training.keep_options(tmp_path, "options.json", {"steps": 1})
    training.keep_options(tmp_path, "options.json", {"steps": 1})
    with pytest.raises(OutputExistsError):
        training.keep_options(tmp_path, "options.json", {"steps": 2})


def test_clips_that_are_held_out_are_in_no_training_row(tmp_path: Path) -> None:
    folder = tmp_path / "text" / "adiff"
    folder.mkdir(parents=True)
    lines = [f"c,a/clip{n}.wav,a/clip{n + 1}.wav,one,two,ask, told {n} \n" for n in range(60)]
    for name in FILES:
        (folder / name[0]).write_text(
            ROWS + "".join(lines) + "c,a/x.wav,a/x.wav,one,one,ask,same\n"
        )
    train, test = (adiff_rows(tmp_path, part) for part in ("train", "test"))
    assert len(train) + len(test) == 300
    assert {row.tier for row in train} == {1, 2, 3}
    assert all(not is_held_out(clip) for row in train for clip in (row.clip_1, row.clip_2))
    assert all(is_held_out(row.clip_1) or is_held_out(row.clip_2) for row in test)
    assert 0.05 < len(test) / 300 < 0.4
    assert test[0].answer.startswith("told")


def test_rows_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataMissingError):
        adiff_rows(tmp_path, "train")
    with pytest.raises(InvalidValueError):
        adiff_rows(tmp_path, "validation")

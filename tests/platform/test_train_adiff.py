"""Training ADIFF: what each stage trains, that it learns, stops and goes on, and ships."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from torch import nn

from soundpost.errors import InvalidValueError, ModelNotFoundError, OutputExistsError
from soundpost.explain.lexicon import EVENTS
from soundpost.models.adiff import AdiffDimensions
from soundpost.models.adiff_writer import AdiffWriter
from soundpost.models.language_model import (
    LanguageModel,
    LanguageModelDimensions,
    build_language_model,
    save_language_model,
)
from soundpost.models.placeholder import ToneEncoder
from soundpost.training import adiff as training
from soundpost.training import adiff_batches, adiff_projection
from soundpost.training.adiff import (
    AdiffOptions,
    Course,
    begin_course,
    continue_course,
    ship,
    shipped_shape,
    train_stage,
)
from soundpost.training.adiff_batches import AdiffBatches, CaptionedRows, Shares, cut_to
from soundpost.training.adiff_projection import (
    EDIT_KINDS,
    Disturbance,
    ProjectionOptions,
    teach_projections,
)
from soundpost.training.adiff_rows import AdiffRow
from soundpost.training.adiff_words import PrefixWords, distance
from soundpost.training.language import Corpus, reference_text, take_step, train_tokenizer
from soundpost.training.pair_records import Edit, EditKind, Heard, PairRecord
from soundpost.training.pair_store import PairSet
from soundpost.training.pairs import Pair

DOCS = Path(__file__).parents[2] / "docs"
KEYS = tuple(EVENTS)[:4]
WIDTH, LANGUAGE_WIDTH, WORDS = 24, 32, 500
SIZE = {
    "audio_hidden": 24,
    "audio_tokens": 2,
    "prompt_tokens": 6,
    "text_tokens": 2,
    "contrast_tokens": 2,
    "mapper_layers": 1,
    "mapper_heads": 2,
    "cross_layers": 1,
    "cross_heads": 2,
    "dropout": 0.0,
}
OPTIONS = AdiffOptions(
    steps=4, batch=4, half=False, shares=Shares(texts=0.3), projection_steps=2, reading_steps=2
)


def record_of(first: int, second: int) -> PairRecord:
    """Return that another event stands there in audio 2."""
    heard = [Heard(KEYS[place], 1.0, 3.0, -20.0) for place in (first, second)]
    edits = (Edit(EditKind.REPLACED, KEYS[first], KEYS[second]),) if first != second else ()
    return PairRecord(edits, (heard[0],), (heard[1],), 5.0, 5.0)


def pair_set(width: int = WIDTH) -> PairSet:
    """Return a recording of each event, as different as can be, and pairs of different ones."""
    vectors = np.eye(len(KEYS), width, dtype=np.float16) * 4
    pairs = [Pair(a, b, record_of(a, b)) for a, b in ((0, 1), (0, 2), (1, 3), (2, 3))]
    return PairSet(vectors, pairs)


def captioned() -> CaptionedRows:
    rows = [
        AdiffRow("a", "b", "a dog", "a cat", tier, f"A dog, then {word}")
        for tier, word in ((1, "a cat"), (2, "one cat"), (3, "two cats"))
    ]
    unit = np.eye(3, 8, dtype=np.float32)
    return CaptionedRows(rows, unit, unit[::-1])


@pytest.fixture(scope="module")
def language() -> LanguageModel:
    torch.manual_seed(0)
    records = [pair.record for pair in pair_set().pairs]
    rng = np.random.default_rng(0)
    texts = [reference_text(records, rng) for _ in range(60)]
    tokenizer = train_tokenizer(texts, WORDS)
    sizes = LanguageModelDimensions(LANGUAGE_WIDTH, 1, 2, 200, WORDS)
    return LanguageModel("tiny", "test", build_language_model(sizes, tokenizer.end), tokenizer)


def shape_of(**changed: object) -> AdiffDimensions:
    return shipped_shape(WIDTH, LANGUAGE_WIDTH, **{**SIZE, **changed})


@pytest.fixture
def course(language: LanguageModel) -> Course:
    return begin_course(language, shape_of(), 0)


@pytest.fixture
def batches(language: LanguageModel) -> AdiffBatches:
    return AdiffBatches(pair_set(), captioned(), language.tokenizer, shape_of(), 4)


def weights(course: Course) -> dict[str, NDArray[np.float32]]:
    return {name: p.detach().numpy().copy() for name, p in course.named_parameters()}


@pytest.mark.parametrize("stage", [2, 3])
def test_a_stage_trains_what_it_should(
    course: Course, batches: AdiffBatches, stage: int, tmp_path: Path, language: LanguageModel
) -> None:
    before = weights(course)
    options = replace(OPTIONS, stage=stage, shares=Shares(texts=0.0), reading_steps=0)
    train_stage(course, language.tokenizer, batches, None, options, tmp_path)
    moved = {name for name, old in before.items() if not np.array_equal(weights(course)[name], old)}
    frozen = set(before) - moved
    if stage == 2:
        assert frozen == {name for name in before if name.startswith("adiff.language_model")}
    else:
        assert not frozen


def test_gradient_reaches_everything(course: Course, batches: AdiffBatches) -> None:
    course.begin(3)
    losses = course(batches.of_pairs(2, np.random.default_rng(0)), 1.0, 1.0)
    torch.stack(list(losses.values())).sum().backward()
    without = [name for name, p in course.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


def test_batches_of_pairs_say_what_is_heard(batches: AdiffBatches) -> None:
    for kind in adiff_batches.KINDS:
        batch = batches.of_pairs(kind, np.random.default_rng(kind))
        assert batch.first.shape == (len(batch), WIDTH)
        assert batch.prompts.shape == (len(batch), 6)
        heard = batch.first[:, : len(KEYS)].argmax(1)
        assert torch.equal(batch.heard_1[:, : len(KEYS)].argmax(1), heard)
        assert torch.equal(batch.edits[:, : len(EDIT_KINDS)].sum(1), torch.ones(len(batch)))
        ends = batch.answers[torch.arange(len(batch)), batch.lengths - 1]
        assert torch.equal(ends, torch.zeros(len(batch), dtype=torch.int64))


def test_pairs_come_in_both_orders(batches: AdiffBatches) -> None:
    rng = np.random.default_rng(0)
    seen = {
        (int(a), int(b))
        for _ in range(20)
        for batch in [batches.of_pairs(1, rng)]
        for a, b in zip(batch.first.argmax(1), batch.second.argmax(1), strict=True)
    }
    assert {(0, 1), (1, 0)} <= seen


def test_texts_stand_in_for_audio(batches: AdiffBatches, language: LanguageModel) -> None:
    batch = batches.of_texts(3, np.random.default_rng(0))
    assert torch.equal(batch.first[:, -1], torch.ones(len(batch)))
    assert (batch.first[:, 8:-1] == 0).all()
    torch.testing.assert_close(batch.first[:, :8].norm(dim=1), torch.full((len(batch),), 8**0.5))
    assert (batch.edits == -1).all()
    told = language.tokenizer.decode(batch.answers[0, : batch.lengths[0]].tolist())
    assert told == "A dog, then two cats"


def test_without_texts_there_are_pairs(language: LanguageModel) -> None:
    alone = AdiffBatches(pair_set(), None, language.tokenizer, shape_of(), 4)
    rng = np.random.default_rng(0)
    assert all((alone.draw(rng, Shares(texts=1.0)).edits >= 0).all() for _ in range(5))


def test_shares_are_kept() -> None:
    assert Shares(0.2, (1.0, 1.0, 2.0)).kinds() == pytest.approx([0.2, 0.2, 0.2, 0.4])
    assert Shares(0.0).kinds()[0] == 0.0


def test_answers_are_cut_to_the_room_there_is(batches: AdiffBatches) -> None:
    batch = cut_to(batches.of_pairs(3, np.random.default_rng(0)), 5)
    assert batch.answers.shape[1] == 5
    assert int(batch.lengths.max()) == 5


def test_heads_ignore_what_is_not_known(course: Course, batches: AdiffBatches) -> None:
    course.begin(3)
    losses = course(batches.of_texts(1, np.random.default_rng(0)), 1.0, 1.0)
    assert float(losses["heads"].detach()) == float(losses["words"].detach()) == 0.0
    assert set(course(batches.of_texts(1, np.random.default_rng(0)), 0.0, 0.0)) == {"answer"}


def test_it_learns_its_pairs_by_heart(
    language: LanguageModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def told(record: PairRecord, *_: object) -> str:
        return f"{record.heard_1[0].what} / {record.heard_2[0].what}"

    monkeypatch.setattr(adiff_batches, "reference", told)
    course = begin_course(language, shape_of(), 0)
    batches = AdiffBatches(pair_set(), None, language.tokenizer, course.adiff.shape, 12)
    shares = Shares(captions=0.0, tiers=(1.0, 0.0, 0.0), texts=0.0)
    options = replace(
        OPTIONS, stage=3, steps=250, rate=8e-3, language_rate=8e-3, shares=shares, noise=0.0
    )
    train_stage(course, language.tokenizer, batches, None, options, tmp_path)
    writer = AdiffWriter(course.adiff, language.tokenizer, "adiff", "test")
    pairs = pair_set()
    firsts, seconds = pairs.both(pairs.pairs)
    there, back = writer.write_many(firsts, seconds, 1), writer.write_many(seconds, firsts, 1)
    assert [one.text for one in there] == [told(pair.record) for pair in pairs.pairs]
    assert [one.text for one in back] == [told(pair.record.reversed()) for pair in pairs.pairs]


def stop(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("stage", [2, 3])
def test_it_stops_and_goes_on(
    language: LanguageModel,
    batches: AdiffBatches,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    stage: int,
) -> None:
    monkeypatch.setattr(training, "_SAVE_STEPS", 2)
    options, tokenizer = replace(OPTIONS, stage=stage), language.tokenizer
    shape = shape_of(dropout=0.3)

    def begun() -> Course:
        return begin_course(language, shape, 0)

    whole = train_stage(begun(), tokenizer, batches, batches, options, tmp_path / "whole")
    left = iter(range(9))
    monkeypatch.setattr(
        training, "take_step", lambda *a: stop() if next(left) == 3 else take_step(*a)
    )
    with pytest.raises(KeyboardInterrupt):
        train_stage(begun(), tokenizer, batches, None, options, tmp_path / "parts")
    monkeypatch.setattr(training, "take_step", take_step)
    parts = train_stage(begun(), tokenizer, batches, None, options, tmp_path / "parts")
    first, second = (load_file(one.folder / "model.safetensors") for one in (whole, parts))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert set(whole.develop) == {"develop captions", *(f"develop tier {n}" for n in (1, 2, 3))}


def test_stage_3_goes_on_from_stage_2(
    course: Course, batches: AdiffBatches, language: LanguageModel, tmp_path: Path
) -> None:
    with pytest.raises(ModelNotFoundError, match="stage 2"):
        continue_course(tmp_path)
    tokenizer = language.tokenizer
    done = train_stage(course, tokenizer, batches, None, OPTIONS, tmp_path, ["compact 1"])
    again, words = continue_course(tmp_path)
    for name, value in weights(course).items():
        np.testing.assert_allclose(weights(again)[name], value, atol=1e-3, rtol=1e-3)
    with pytest.raises(OutputExistsError):
        train_stage(again, words, batches, None, replace(OPTIONS, rate=2.0), tmp_path)
    train_stage(again, words, batches, None, replace(OPTIONS, stage=3), tmp_path)
    folder = ship(tmp_path, tmp_path / "shipped")
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    }
    assert "Stage 3: 4 steps" in (folder / "README.md").read_text()
    assert AdiffWriter.load(folder).model.config.encoders == ["compact 1"]
    assert AdiffWriter.load(folder).revision != AdiffWriter.load(done.folder).revision


def test_projections_are_taught_once(
    course: Course, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    contrast, options = course.adiff.contrast, ProjectionOptions(steps=3, batch=4)
    assert contrast is not None
    weights = [one.first.weight for one in (course.adiff.projection, contrast.projection)]
    before = [one.detach().clone() for one in weights]
    teach_projections(course.adiff, pair_set(), Disturbance(), options, tmp_path)
    taught = [one.detach().clone() for one in weights]
    for old, new in zip(before, taught, strict=True):
        assert not torch.equal(old, new)
    monkeypatch.setattr(adiff_projection, "_teach", stop)
    for one in weights:
        nn.init.zeros_(one)
    teach_projections(course.adiff, pair_set(), Disturbance(), options, tmp_path)
    for new, one in zip(taught, weights, strict=True):
        assert torch.equal(one, new)


def test_a_prefix_says_in_words_what_is_heard_and_changed(
    course: Course, language: LanguageModel
) -> None:
    shape = shape_of(audio_tokens=4, contrast_tokens=8)
    write, decode = PrefixWords(language.tokenizer, shape), language.tokenizer.decode
    ids = write(record_of(0, 1), "What differs?")
    assert len(ids) == len(write.unknown()) == shape.prefix_tokens
    first, second = (EVENTS[key].thing for key in KEYS[:2])
    assert decode(ids[:4]).strip() == first
    assert decode(ids[5:9]).strip() == second
    assert decode(ids[9:17]).split() == f"replaced {first} {second}".split()
    assert decode(write(record_of(0, 0), "")[9:17]).strip() == "nothing"


def test_a_prefix_is_as_far_from_its_words_as_it_was_moved(
    course: Course, language: LanguageModel
) -> None:
    adiff, write = course.adiff, PrefixWords(language.tokenizer, course.adiff.shape)
    words = torch.tensor([write(record_of(0, 1), "What?"), write.unknown()])
    said = adiff.words(words.clamp(min=0)).detach()
    assert float(distance(adiff, said, words)) == 0.0
    deviation = float(adiff.words.weight.detach().std())
    assert float(distance(adiff, said + deviation, words)) == pytest.approx(1.0, rel=0.01)
    assert float(distance(adiff, said + 1.0, words[1:].expand(2, -1))) == 0.0


def test_reading_with_dropout_is_taught_by_the_seed(
    course: Course, batches: AdiffBatches, tmp_path: Path
) -> None:
    """Whatever was drawn before: what is taught first may be read from a file."""
    language = course.adiff.language_model
    before = {name: value.clone() for name, value in language.state_dict().items()}
    for part in nn.Module.modules(language):
        if isinstance(part, nn.Dropout):
            part.p = 0.5
    taught = []
    for seed in (1, 2):
        language.load_state_dict(before)
        (tmp_path / str(seed)).mkdir()
        torch.manual_seed(seed)
        training._teach_reading(course, batches, OPTIONS, tmp_path / str(seed))
        nn.Module.eval(language)
        taught.append(float(course.reading(batches.of_pairs(1, np.random.default_rng(0))).detach()))
    assert taught[0] == taught[1]


def test_reading_is_taught_once_and_learnt(
    course: Course, batches: AdiffBatches, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options = replace(OPTIONS, reading_steps=40, reading_rate=1e-2)
    batch = batches.of_pairs(1, np.random.default_rng(0))
    before = float(course.reading(batch).detach())
    training._teach_reading(course, batches, options, tmp_path)
    taught = float(course.reading(batch).detach())
    assert taught < before - 0.5
    monkeypatch.setattr(training, "_read_words", stop)
    for parameter in course.adiff.language_model.parameters():
        nn.init.zeros_(parameter)
    training._teach_reading(course, batches, options, tmp_path)
    assert float(course.reading(batch).detach()) == pytest.approx(taught)


def test_what_was_learnt_is_hidden_now_and_then() -> None:
    rows, learnt = np.ones((400, 3), np.float32), np.array([True, False, True])
    rng = np.random.default_rng(0)
    hidden, other = Disturbance(hidden=0.25, learnt=learnt)(rows, rows, rng)
    assert np.array_equal(hidden, other)
    assert set(hidden[:, 1]) == {1.0}
    assert np.array_equal(hidden[:, 0], hidden[:, 2])
    assert 0.15 < 1.0 - hidden[:, 0].mean() < 0.35
    noisy, other = Disturbance(noise=0.5)(rows, rows, rng)
    assert not np.array_equal(noisy, other)
    assert float((noisy - rows).std()) == pytest.approx(0.5, rel=0.1)


def test_nothing_to_ship(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        ship(tmp_path, tmp_path / "shipped")


def test_options_that_cannot_be(
    course: Course, batches: AdiffBatches, language: LanguageModel, tmp_path: Path
) -> None:
    with pytest.raises(InvalidValueError, match="stage 1"):
        train_stage(course, language.tokenizer, batches, None, replace(OPTIONS, stage=1), tmp_path)
    with pytest.raises(InvalidValueError):
        shipped_shape(WIDTH, LANGUAGE_WIDTH, unheard_of=1)
    with pytest.raises(InvalidValueError, match="--stage"):
        training.main(["--out", str(tmp_path)])


@pytest.fixture
def on_disk(language: LanguageModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return a folder with a language model in it, and let any pairs be those from here."""
    save_language_model(language.model, language.tokenizer, tmp_path / "language")
    monkeypatch.setattr(training, "load_pairs", lambda folder: pair_set())
    monkeypatch.setattr(training, "load_encoder", lambda name: ToneEncoder())
    monkeypatch.setattr(training, "learnt_columns", lambda *sizes: np.arange(WIDTH) < 2)
    monkeypatch.setattr(
        training, "read_config", lambda folder: type("", (), {"encoder": f"compact {folder.name}"})
    )
    return tmp_path


QUICK = ("--projection-steps", "2", "--reading-steps", "2")


def run_command(folder: Path, *more: str) -> None:
    language, out = str(folder / "language"), str(folder / "out")
    common = ["--language", language, "--out", out, "--pairs", "train", "--texts", "0"]
    training.main([*common, "--steps", "2", "--batch", "2", *QUICK, *more])


@pytest.mark.parametrize(
    ("switches", "differs"),
    [
        ([], {}),
        (["--without-cross-projection"], {"cross_projection": False}),
        (["--without-separator"], {"separator": False}),
        (["--without-contrast"], {"contrast_tokens": 0}),
    ],
)
def test_the_command_trains_both_stages(
    on_disk: Path, switches: list[str], differs: dict[str, Any]
) -> None:
    small = json.dumps({name: value for name, value in SIZE.items() if name not in differs})
    run_command(on_disk, "--stage", "2", "--size", small, "--develop", "dev", *switches)
    run_command(on_disk, "--stage", "3", "--full-precision")
    training.main(["--out", str(on_disk / "out"), "--ship", str(on_disk / "shipped")])
    config = AdiffWriter.load(on_disk / "shipped").model.config
    assert config.shape == replace(shape_of(), **differs)
    assert config.encoders == ["compact train"]


def test_the_command_for_the_size_of_the_paper(on_disk: Path) -> None:
    text = (DOCS / "training-explanations.md").read_text(encoding="utf-8")
    told = json.loads(text.partition("--size '")[2].partition("'")[0])
    assert shipped_shape(768, 768, **told) == AdiffDimensions()
    # The same command with smaller numbers.
    sizes = {**told, **SIZE, "mapper_layers": 4, "cross_layers": 4}
    run_command(on_disk, "--stage", "2", "--size", json.dumps(sizes), "--auxiliary", "0")
    assert (on_disk / "out" / "stage2" / "model.safetensors").is_file()


def test_position_captioning_can_be_left_out() -> None:
    given = training._arguments(["--stage", "2", "--without-position-captioning"])
    assert training.options_of(given).shares.captions == 0.0
    given = training._arguments(["--stage", "3"])
    assert training.options_of(given).shares.captions == 0.15


def test_captions_are_embedded_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    encoder = ToneEncoder()
    row = AdiffRow("a", "b", "100 hz", "400 hz", 1, "differs")
    monkeypatch.setattr(training, "adiff_rows", lambda data, part: [row])
    rows = training.read_captions(tmp_path, encoder, tmp_path / "cache")
    np.testing.assert_allclose(rows.first, encoder.embed_text(["100 hz"]), atol=1e-6)
    monkeypatch.setattr(encoder, "embed_text", stop)
    again = training.read_captions(tmp_path, encoder, tmp_path / "cache")
    assert np.array_equal(again.second, rows.second)


def test_corpus_draws_by_shares() -> None:
    texts = Corpus([lambda rng: "a", lambda rng: "b"], [3.0, 1.0])
    drawn = [texts.draw(np.random.default_rng(seed)) for seed in range(400)]
    assert 0.65 < drawn.count("a") / 400 < 0.85


def test_language_model_is_still_while_frozen(course: Course, batches: AdiffBatches) -> None:
    course.begin(2)
    assert not any(p.requires_grad for p in course.adiff.language_model.parameters())
    course.begin(3)
    assert all(p.requires_grad for p in course.adiff.language_model.parameters())

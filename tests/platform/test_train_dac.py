"""Both captioners learn captions by heart, stop and go on, and texts stand in for sounds."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

from soundpost.errors import InvalidValueError, PathNotFoundError
from soundpost.models.caption_condition import Style, conditions
from soundpost.models.caption_twin import TwinWriter
from soundpost.models.dac import DacSampling, DacWriter
from soundpost.models.encoder import FloatArray
from soundpost.models.placeholder import ToneEncoder
from soundpost.models.text_latents import CaptionVocabulary
from soundpost.training import dac as training
from soundpost.training.caption_batches import CaptionBatches, Reworded
from soundpost.training.caption_data import (
    HeardCaptions,
    Recording,
    TextCaptions,
    draw_recordings,
    frames_of,
    gap_of,
    hear,
    load_captions,
    read,
    save_captions,
    texts_of,
    told_in_turn,
)
from soundpost.training.composed import Pool, active
from soundpost.training.dac import CaptionOptions, ship_captioner, train_dac, train_twin
from soundpost.training.pair_records import Heard

ENCODER = ToneEncoder()
CAPTIONS = (
    "a dog barks",
    "a cat meows, then a bird sings",
    "rain falls",
    "people talk while music plays",
    "a car passes by",
    "someone whistles",
    "a bell rings three times in the distance",
    "wind blows hard",
)
SIZES = {
    "length": 10,
    "latent": 24,
    "text_heads": 2,
    "lower": 1,
    "width": 48,
    "layers": 2,
    "heads": 2,
    "feedforward": 96,
    "steps": 20,
}
OPTIONS = CaptionOptions(
    latent_steps=8, twin_steps=8, dac_steps=8, batch=8, taught=0.0, sizes=dict(SIZES)
)


def heard(captions: tuple[str, ...] = CAPTIONS, seed: int = 0) -> HeardCaptions:
    """Each caption's own sound: three random tokens."""
    rng = np.random.default_rng(seed)
    tokens = rng.standard_normal((3 * len(captions), 16)).astype(np.float32)
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    counts = np.full(len(captions), 3)
    return HeardCaptions(tokens.astype(np.float16), counts, tuple((text,) for text in captions))


def test_both_learn_eight_captions_by_heart(tmp_path: Path) -> None:
    source = heard()
    options = replace(
        OPTIONS,
        latent_steps=60,
        twin_steps=70,
        dac_steps=120,
        rate=4e-3,
        noise=0.0,
        dropped=0.05,
        taught=0.5,
    )
    twin = train_twin([source], options, tmp_path)
    folder = train_dac([source], options, tmp_path, twin)
    rng = np.random.default_rng(0)
    sounds = conditions([source.tokens(row, rng) for row in range(8)], [Style.RECORDS] * 8)
    seeds = list(range(8))
    assert TwinWriter.load(twin).write(sounds, seeds) == list(CAPTIONS)
    for steps in (1, 2, 5):
        writer = DacWriter.load(folder, DacSampling(steps))
        assert writer.write(sounds, seeds) == list(CAPTIONS)


@pytest.mark.parametrize("lengths", ["predicted", "padded"])
def test_equal_seeds_give_equal_weights_and_others_do_not(lengths: str, tmp_path: Path) -> None:
    options = replace(OPTIONS, lengths=lengths, latent_steps=4, dac_steps=4)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train_dac([heard()], replace(options, seed=seed), tmp_path / name)
    first, again, other = (load_file(tmp_path / name / "dac/model.safetensors") for name in "abc")
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])
    assert any((value != other[name]).any() for name, value in first.items())


@pytest.mark.parametrize("phase", ["latents", "twin", "dac"])
def test_a_run_that_was_stopped_goes_on_to_the_same_weights(
    phase: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_SAVE_STEPS", 3)
    # A twin of eight steps has nothing to say.
    monkeypatch.setattr(training, "teach", lambda *_: [[text] for text in CAPTIONS])
    options = replace(OPTIONS, taught=0.5)

    def train(out: Path) -> Path:
        return train_dac([heard()], options, out, train_twin([heard()], options, out))

    train(tmp_path / "whole")
    set_rate, calls = training._set_rate, itertools.count()
    before = {"twin": 0, "latents": 8, "dac": 16}[phase]

    def interrupted(*arguments: object) -> None:
        if next(calls) == before + 5:
            raise KeyboardInterrupt
        set_rate(*arguments)  # type: ignore[arg-type]  # handed on as they came

    monkeypatch.setattr(training, "_set_rate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "stopped")
    monkeypatch.setattr(training, "_set_rate", set_rate)
    train(tmp_path / "stopped")
    for name in ("twin", "dac"):
        whole = load_file(tmp_path / "whole" / name / "model.safetensors")
        stopped = load_file(tmp_path / "stopped" / name / "model.safetensors")
        for key, value in whole.items():
            np.testing.assert_array_equal(value, stopped[key])


def test_without_a_twin_nothing_is_taught(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="twin"):
        train_dac([heard()], replace(OPTIONS, taught=0.5), tmp_path)


def test_batches_come_from_their_sources_by_share() -> None:
    people = replace(heard(seed=1), style=Style.PEOPLE)
    reworded = Reworded(heard(), tuple((f"a {text}",) for text in CAPTIONS))
    assert reworded.style is Style.TAUGHT_RECORDS
    vocabulary = CaptionVocabulary.of(CAPTIONS, 100)
    sources = [(heard(), 0.5), (people, 0.3), (reworded, 0.2)]
    batches, rng = CaptionBatches(sources, vocabulary, 12), np.random.default_rng(0)
    drawn = [batches.draw(rng, 20) for _ in range(60)]
    styles = torch.cat([batch.sounds.style for batch in drawn]).numpy()
    shares = np.bincount(styles, minlength=4) / len(styles)
    np.testing.assert_allclose(shares, [0.5, 0.3, 0.2, 0.0], atol=0.08)
    for batch in drawn:
        assert (batch.ids[torch.arange(12) >= batch.lengths[:, None]] == 0).all()
    spread = [int(batch.lengths.max() - batch.lengths.min()) for batch in drawn]
    assert np.median(spread) <= 4


def test_captions_that_do_not_fit_are_left_out() -> None:
    vocabulary = CaptionVocabulary.of(["a dog barks"], 100)
    told = (("a dog barks a dog barks", "a zebra", "a dog"), ("a zebra",), ("dog barks",))
    source = replace(heard(("x", "y", "z")), captions=told)
    batches = CaptionBatches([(source, 1.0)], vocabulary, 4)
    assert [row for row, _ in batches.rows[0]] == [0, 2]
    with pytest.raises(InvalidValueError, match="too long or has an unknown word"):
        CaptionBatches([(source, 1.0)], vocabulary, 1)


def test_a_caption_is_told_in_turn() -> None:
    assert told_in_turn("A dog barks, followed by a bell ringing") == [
        "A dog barks",
        "a bell ringing",
    ]
    assert told_in_turn("rain falls") == ["rain falls"]
    assert told_in_turn("wind, and then rain before a man speaks") == [
        "wind",
        "rain",
        "a man speaks",
    ]


def pool() -> Pool:
    clips, sounds = {}, {}
    for row, pitch_hz in enumerate((100, 400, 1600, 3200)):
        seconds = np.arange(5 * 16_000) / 16_000
        wave: NDArray[np.int16] = (8_000 * np.sin(2 * np.pi * pitch_hz * seconds)).astype(np.int16)
        clips[row], sounds[row] = active(wave), f"{pitch_hz} hz"
    return Pool(clips, sounds)


def pitches(heard: object, rng: np.random.Generator) -> str:
    assert isinstance(heard, tuple)
    return " then ".join(one.what for one in heard)


def test_captions_of_the_validation_clips_are_not_read(tmp_path: Path) -> None:
    """Captioners are measured on them, and on those alike."""
    texts = {
        "audiocaps/train.csv": "file_name,caption\na.wav,A dog barks.\nb.wav,A cat  meows\n",
        "audiocaps/val.csv": "file_name,caption_1\nc.wav,A siren wails\n",
        "clotho/train.csv": "file_name,caption_1\nd.wav,Rain falls.\n",
        "clotho/val.csv": "file_name,caption_1\ne.wav,a cat meows.\n",
        "soundbible/sb_final.json": json.dumps({"data": [{"caption": "A bell."}]}),
    }
    for name, text in texts.items():
        (tmp_path / "text" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "text" / name).write_text(text, encoding="utf-8")
    assert texts_of(tmp_path) == ["A dog barks", "Rain falls", "A bell"]


def test_recordings_are_composed_and_their_record_is_in_order_of_time() -> None:
    made = list(draw_recordings(pool(), 12, seed=3))
    assert 0 < sum(len(recording.heard) == 1 for recording in made) < 12
    for recording in made:
        starts = [one.start_s for one in recording.heard]
        assert starts == sorted(starts)
        assert all(one.end_s <= len(recording.wave) / 16_000 + 0.1 for one in recording.heard)
    again = list(draw_recordings(pool(), 12, seed=3))
    assert [one.heard for one in made] == [one.heard for one in again]


def test_frames_of_long_waves_are_joined_and_end_with_the_wave() -> None:
    waves: list[FloatArray] = [np.ones(int(16_000 * s), np.float32) for s in (0.3, 3.9, 9.0)]
    assert [len(tokens) for tokens in frames_of(ENCODER, waves)] == [1, 5, 11]


def test_texts_stand_in_for_sounds_near_where_these_lie(tmp_path: Path) -> None:
    alone = [
        Recording((Heard(f"{hz} hz", 0.0, 5.0, -20.0),), recording.wave)
        for recording, hz in (
            (one, one.heard[0].what[:-3]) for one in draw_recordings(pool(), 30, 1)
        )
        if len(recording.heard) == 1
    ]
    gap = gap_of(ENCODER, alone, lambda heard, rng: heard[0].what)
    texts = read(ENCODER, ["100 hz", "100 hz then 3200 hz"], gap)
    assert texts.counts.tolist() == [1, 2]
    rng = np.random.default_rng(0)
    drawn = [texts.tokens(1, rng) for _ in range(20)]
    assert {part.shape[1] for part in drawn} == {32}
    many = [part for part in drawn if len(part) > 2]
    low, high = ENCODER.embed_text(["100 hz", "3200 hz"])
    begins = np.mean([part[0] @ low - part[0] @ high for part in many])
    ends = np.mean([part[-1] @ low - part[-1] @ high for part in many])
    assert begins > 0.2 > -0.2 > ends
    save_captions(tmp_path / "texts.npz", texts)
    again = load_captions(tmp_path / "texts.npz")
    assert isinstance(again, TextCaptions)
    assert again.captions == texts.captions
    assert again.gap.gain == pytest.approx(gap.gain)


def test_recordings_are_heard_captioned_and_kept(tmp_path: Path) -> None:
    source = hear(ENCODER, list(draw_recordings(pool(), 6, 0)), pitches, seed=0)
    save_captions(tmp_path / "heard.npz", source)
    again = load_captions(tmp_path / "heard.npz")
    assert again.captions == source.captions
    rng = np.random.default_rng(0)
    for row in range(6):
        np.testing.assert_array_equal(again.tokens(row, rng), source.tokens(row, rng))
    with pytest.raises(PathNotFoundError):
        load_captions(tmp_path / "nothing.npz")


def test_a_gap_needs_single_sounds() -> None:
    with pytest.raises(InvalidValueError, match="needs some"):
        gap_of(ENCODER, [], pitches)


def test_what_is_shipped_has_a_card(tmp_path: Path) -> None:
    folder = train_dac([heard()], replace(OPTIONS, latent_steps=1, dac_steps=1), tmp_path / "run")
    ship_captioner(folder, tmp_path / "shipped", [heard()], OPTIONS)
    card = (tmp_path / "shipped" / "README.md").read_text()
    assert "8 recordings" in card
    assert "CC BY-NC" in card
    assert DacWriter.load(tmp_path / "shipped").dimension == 16
    assert json.loads((tmp_path / "shipped" / "config.json").read_text())["lengths"] == "predicted"

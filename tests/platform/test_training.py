"""Training's parts: examples, losses against their definitions, resuming, what the teacher gives."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from soundpost.config import load_settings
from soundpost.errors import DataMissingError
from soundpost.evaluation.calibration import fit_logistic
from soundpost.models.compact import AudioTower, CompactConfig, CompactModel
from soundpost.training.checkpoint import load_checkpoint, save_checkpoint
from soundpost.training.compact import (
    freeze_body,
    label_loss,
    parameter_groups,
    retrieval_loss,
    scene_texts,
    sentence_encoder,
    targets,
)
from soundpost.training.data import captions, is_held_out, load_clips, load_waves
from soundpost.training.mixing import Example, Mixer
from soundpost.training.ontology import load_ontology
from soundpost.training.phrases import same_sound
from soundpost.training.teacher import Teacher, _as_torch, start_from_teacher
from soundpost.training.wordings import WORDINGS


def mixer() -> Mixer:
    rng = np.random.default_rng(0)
    waves = [
        (rng.standard_normal(n) * 3_000).astype(np.int16) for n in (80_000, 8_000, 200_000, 500)
    ]
    return Mixer(waves, [0, 1, 2, 1], window_s=5.0)


def test_examples_are_the_same_for_the_same_seed_and_whole() -> None:
    first = mixer().batch(40, np.random.default_rng(7))
    again = mixer().batch(40, np.random.default_rng(7))
    for one, other in zip(first, again, strict=True):
        assert np.array_equal(one.wave, other.wave)
        assert one.classes == other.classes
        assert len(one.wave) == 80_000
        assert np.isfinite(one.wave).all()
        assert np.abs(one.wave).max() <= 1.0
        assert sum(one.shares) == pytest.approx(1.0)
    kinds = {(len(example.classes), example.in_sequence) for example in first}
    assert kinds == {(1, False), (2, False), (2, True)}


def test_a_silent_clip_makes_a_finite_example() -> None:
    silent = Mixer([np.zeros(80_000, np.int16), np.zeros(10, np.int16)], [0, 1], window_s=5.0)
    for example in silent.batch(20, np.random.default_rng(0)):
        assert np.isfinite(example.wave).all()


def test_label_loss_is_cross_entropy_where_no_label_is_excused() -> None:
    torch.manual_seed(0)
    audio = functional.normalize(torch.randn(6, 8), dim=1)
    texts = functional.normalize(torch.randn(4, 8), dim=1)
    classes = torch.tensor([0, 1, 2, 3, 1, 0])
    scale = torch.tensor(2.0)
    measured = label_loss(
        audio, texts, torch.eye(4)[classes], torch.eye(4, dtype=torch.bool), scale
    )
    expected = functional.cross_entropy(scale.exp() * audio @ texts.T, classes)
    assert float(measured) == pytest.approx(float(expected), rel=1e-5)


def test_a_label_of_the_same_sound_is_no_negative() -> None:
    audio = torch.eye(3)[:1]
    texts = torch.eye(3)[[0, 0, 1]]
    same = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.bool)
    wanted, scale = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor(5.0)
    strict = label_loss(audio, texts, wanted, torch.eye(3, dtype=torch.bool), scale)
    lenient = label_loss(audio, texts, wanted, same, scale)
    assert float(strict) == pytest.approx(np.log(2), rel=1e-3)
    assert float(lenient) < 1e-3


def test_retrieval_loss_falls_when_the_right_clip_is_nearer() -> None:
    texts, same = torch.eye(2), torch.eye(2, dtype=torch.bool)
    wanted, scale = torch.eye(2), torch.tensor(1.0)
    right = retrieval_loss(torch.eye(2), texts, wanted, same, scale)
    wrong = retrieval_loss(torch.eye(2).flip(0), texts, wanted, same, scale)
    assert float(right) < float(wrong)


def test_scene_texts_name_what_is_there_in_its_order() -> None:
    wave = np.zeros(1, np.float32)
    example = Example(wave, (0, 1), (0.5, 0.5), in_sequence=True)
    labels = ["rooster", "vacuum_cleaner"]
    for seed in range(20):
        text = scene_texts([example], labels, np.random.default_rng(seed))[0]
        positions = [max(text.find(wording) for wording in WORDINGS[label]) for label in labels]
        assert 0 <= positions[0] < positions[1]


def test_targets_hold_the_shares() -> None:
    example = Example(np.zeros(1, np.float32), (2, 0), (0.7, 0.3))
    assert targets([example], 4).tolist() == [[pytest.approx(0.3), 0.0, pytest.approx(0.7), 0.0]]


def test_same_sounds_are_symmetric() -> None:
    matrix = same_sound(list(WORDINGS))
    assert torch.equal(matrix, matrix.T)
    assert matrix.diagonal().all()
    names = list(WORDINGS)
    assert matrix[names.index("dog"), names.index("dog_bark")]
    assert not matrix[names.index("dog"), names.index("cat")]


def _steps(model: nn.Module, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(8, 4, generator=generator)
        loss = ((model(x) - x.sum(1, keepdim=True)) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_interrupted_training_ends_where_the_uninterrupted_one_does(tmp_path: Path) -> None:
    def fresh() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = nn.Linear(4, 1)
        return model, torch.optim.AdamW(model.parameters(), lr=0.1)

    straight, optimizer = fresh()
    _steps(straight, optimizer, 0, 6)
    first, optimizer = fresh()
    _steps(first, optimizer, 0, 3)
    save_checkpoint(tmp_path / "state.safetensors", first, optimizer, 3)
    second, optimizer = fresh()
    assert load_checkpoint(tmp_path / "none.safetensors", second, optimizer) == 0
    assert load_checkpoint(tmp_path / "state.safetensors", second, optimizer) == 3
    _steps(second, optimizer, 3, 6)
    for one, other in zip(straight.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_logistic_fit_recovers_the_curve_that_made_the_data() -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((40_000, 2))
    logits = features @ np.array([2.0, -1.0]) - 3.0
    wanted = rng.random(len(logits)) < 1 / (1 + np.exp(-logits))
    assert fit_logistic(features, wanted) == pytest.approx([2.0, -1.0, -3.0], abs=0.15)


def test_teacher_kernels_are_laid_out_as_torch_wants_them() -> None:
    full = np.arange(2 * 3 * 3 * 4, dtype=np.float32).reshape(2, 3, 3, 4)
    assert _as_torch(full, depthwise=False).shape == (2, 4, 3, 3)
    assert float(_as_torch(full, depthwise=False)[1, 2, 0, 1]) == full[1, 0, 1, 2]
    depthwise = np.arange(9 * 5, dtype=np.float32).reshape(1, 3, 3, 5)
    assert _as_torch(depthwise, depthwise=True).shape == (5, 1, 3, 3)
    assert float(_as_torch(depthwise, depthwise=True)[4, 0, 2, 1]) == depthwise[0, 2, 1, 4]


def test_missing_data_is_said_by_name(tmp_path: Path) -> None:
    for load in (load_clips, captions, load_ontology, Teacher.labels):
        with pytest.raises(DataMissingError, match=str(tmp_path)):
            load(tmp_path)


def test_clips_are_split_by_fold_and_decoded_once(tmp_path: Path) -> None:
    import soundfile

    (tmp_path / "audio" / "esc50").mkdir(parents=True)
    for fold in (1, 4):
        tone = np.sin(np.arange(8_000) * 0.1).astype(np.float32) * 0.5
        soundfile.write(tmp_path / "audio" / "esc50" / f"{fold}.wav", tone, 8_000)
    header = "path,seconds,sample_rate,dataset,fold,label,target,origin,esc10\n"
    rows = "".join(f"esc50/{f}.wav,1.0,8000,esc50,{f},dog,0,{f},True\n" for f in (1, 4))
    (tmp_path / "audio.csv").write_text(header + rows)
    clips = load_clips(tmp_path)
    assert [is_held_out(clip) for clip in clips] == [False, True]
    waves = load_waves(tmp_path, clips, tmp_path / "cache")
    assert [len(wave) for wave in waves] == [16_000, 16_000]
    for file in (tmp_path / "audio" / "esc50").iterdir():
        file.unlink()
    assert np.array_equal(load_waves(tmp_path, clips, tmp_path / "cache")[1], waves[1])


def test_ontology_gives_names_as_they_would_be_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "text" / "audioset"
    folder.mkdir(parents=True)
    entry = {"name": "Dog (wild), Wolf", "description": "A howl at night. Rare; seldom heard here."}
    (folder / "ontology.json").write_text(json.dumps([entry]))
    item = load_ontology(tmp_path)[0]
    assert item.synonyms == ("dog", "wolf")
    assert item.descriptions == ("A howl at night", "seldom heard here")


def test_a_frozen_body_is_trained_by_no_group() -> None:
    model = CompactModel(CompactConfig(tag_labels=("dog", "cat"), vocabulary=50))
    body = {id(parameter) for parameter in model.audio.body.parameters()}
    body |= {id(parameter) for parameter in model.audio.tags.parameters()}

    def trained() -> set[int]:
        groups = [list(group["params"]) for group in parameter_groups(model, 1e-3)]  # type: ignore[call-overload]  # optimizers take such groups
        return {id(parameter) for group in groups for parameter in group}

    assert body <= trained()
    freeze_body(model)
    assert not body & trained()
    assert trained()


def test_a_sentence_encoder_is_the_same_from_its_distilling_and_from_an_encoder(
    tmp_path: Path,
) -> None:
    config = CompactConfig(tag_labels=("dog", "cat"), vocabulary=50)
    model = CompactModel(config)
    for folder, name in (("distilled", "text"), ("encoder", "model")):
        (tmp_path / folder).mkdir()
        prefix = "model." if name == "text" else "text."
        tensors = {prefix + key: value for key, value in model.text.state_dict().items()}
        save_file(tensors | {"step": torch.zeros(1)}, tmp_path / folder / f"{name}.safetensors")
    distilled = sentence_encoder(tmp_path / "distilled")
    again = sentence_encoder(tmp_path / "encoder")
    assert distilled.keys() == again.keys()
    assert all(torch.equal(distilled[name], again[name]) for name in again)
    assert not any(name.startswith(("project", "refine")) for name in again)
    other = CompactModel(config)
    other.text.load_state_dict(again, strict=False)
    ids, mask = torch.arange(1, 7)[None], torch.ones(1, 6, dtype=torch.bool)
    for tower in (model.text, other.text):
        nn.Module.eval(tower)
    assert torch.equal(model.text.sentence(ids, mask), other.text.sentence(ids, mask))


def test_student_begins_with_the_tags_of_its_teacher() -> None:
    pytest.importorskip("ai_edge_litert", reason="the train extra is not installed")
    data = load_settings().data
    if not (data / "yamnet").is_dir():
        pytest.skip(f"no training data at {data}: set SOUNDPOST_DATA")
    teacher = Teacher(data)
    tower = AudioTower(CompactConfig(tag_labels=Teacher.labels(data))).eval()
    start_from_teacher(tower, teacher)
    rng = np.random.default_rng(0)
    # One patch exactly, so that both cut it alike; the teacher computes in 8 bits.
    wave = (rng.standard_normal(95 * 160 + 400) * 0.05).astype(np.float32)
    with torch.inference_mode():
        ours = tower(torch.from_numpy(wave)[None]).patch_logits.sigmoid()[0, 0].numpy()
    assert np.abs(ours - teacher.probabilities(wave)[0]).max() < 0.12

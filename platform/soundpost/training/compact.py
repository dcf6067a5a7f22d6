"""Train the compact encoder: audio into the space of the text tower.

Needs the text tower (python -m soundpost.training.text). Run as:
python -m soundpost.training.compact --out runs/measured            (held-out folds left out)
python -m soundpost.training.compact --out runs/shipped --everything
A quick one for held-out figures, in minutes and without distilling the text tower again:
python -m soundpost.training.compact --text platform/soundpost/models/weights/compact --frozen-body --steps 400
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from soundpost.config import load_settings
from soundpost.models.compact import AudioOutput, AudioTower, CompactConfig, CompactModel
from soundpost.training.checkpoint import load_checkpoint, save_checkpoint
from soundpost.training.data import captions, is_held_out, load_clips, load_waves
from soundpost.training.mixing import Example, Mixer
from soundpost.training.ontology import load_ontology
from soundpost.training.phrases import (
    Bank,
    build_bank,
    label_texts,
    same_sound,
    sentence_vectors,
    tag_texts,
)
from soundpost.training.teacher import Teacher, start_from_teacher
from soundpost.training.text import tokenize
from soundpost.training.wordings import WORDINGS, clip_label

EMA = 0.995
# Captions that serve as wordings of labels, and whose neighbourhoods the text tower keeps.
CAPTIONS = 12_000


@dataclass(frozen=True)
class LossWeights:
    """How much each part of the loss counts."""

    labels: float = 1.0
    retrieval: float = 0.5
    tags: float = 40.0
    names: float = 20.0
    scenes: float = 0.3
    relations: float = 5.0


@dataclass
class Material:
    """Everything a training step draws from."""

    mixer: Mixer
    labels: list[str]
    label_bank: Bank
    tag_bank: Bank
    same: Tensor
    captions: Tensor
    tokenizer: Tokenizer


def initial_model(config: CompactConfig, text: Path, teacher: Teacher) -> CompactModel:
    """Build the model: text tower distilled, audio tower from the teacher, the rest new."""
    model = CompactModel(config)
    model.text.load_state_dict(sentence_encoder(text), strict=False)
    start_from_teacher(model.audio, teacher)
    return model


def sentence_encoder(folder: Path) -> dict[str, Tensor]:
    """Return the distilled text tower of a folder, without what leads into the joint space.

    folder: what soundpost.training.text wrote, or an encoder: its sentence encoder is as it was
    distilled, for training leaves it alone, and knows nothing of any recording.
    """
    distilled = folder / "text.safetensors"
    path, prefix = (
        (distilled, "model.") if distilled.is_file() else (folder / "model.safetensors", "text.")
    )
    state = {n.removeprefix(prefix): t for n, t in load_file(path).items() if n.startswith(prefix)}
    return {
        name: tensor.float()
        for name, tensor in state.items()
        if not name.startswith(("project", "refine"))
    }


def start_projections(model: CompactModel, sentences: Tensor, tags: Bank) -> None:
    """Begin with the main directions of captions as the joint space, and tags at their names."""
    mean = sentences.mean(0)
    _, spread, directions = torch.pca_lowrank(sentences, q=model.config.dimension, niter=4)
    del spread
    with torch.no_grad():
        model.text.project.weight.copy_(directions.T * 1.5)
        model.text.project.bias.copy_(-(directions.T @ mean) * 1.5)
        last = cast(nn.Linear, model.text.refine[2])
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        names = torch.stack([tags.vectors[list(rows)].mean(0) for rows in tags.rows])
        anchors = model.text.into_joint(names)
        model.audio.anchors.weight.copy_((anchors - anchors.mean(0)).T * 0.5)
        model.audio.project.weight.mul_(0.3)


def waves_tensor(examples: Sequence[Example]) -> Tensor:
    """Stack waves [B, N]."""
    return torch.from_numpy(np.stack([example.wave for example in examples]))


def targets(examples: Sequence[Example], classes: int) -> Tensor:
    """Return shares [B, C], each row summing to 1."""
    matrix = torch.zeros(len(examples), classes)
    for row, example in enumerate(examples):
        for label, share in zip(example.classes, example.shares, strict=True):
            matrix[row, label] += share
    return matrix


def label_loss(audio: Tensor, texts: Tensor, wanted: Tensor, same: Tensor, scale: Tensor) -> Tensor:
    """Cross-entropy over one text a class [C, D]; classes of the same sound are no negatives."""
    logits = scale.exp() * audio @ texts.T
    excused = (wanted > 0).float() @ same.float() > 0
    logits = logits.masked_fill(excused & (wanted == 0), float("-inf"))
    logs = functional.log_softmax(logits, dim=1).masked_fill(wanted == 0, 0.0)
    return -(wanted * logs).sum(1).mean()


def retrieval_loss(
    audio: Tensor, texts: Tensor, wanted: Tensor, same: Tensor, scale: Tensor
) -> Tensor:
    """Cross-entropy over the batch for the text of each class that is in it."""
    present = wanted.sum(0) > 0.4
    logits = scale.exp() * texts[present] @ audio.T
    share = wanted.T[present]
    excused = (same.float() @ (wanted.T > 0).float() > 0)[present]
    logits = logits.masked_fill(excused & (share == 0), float("-inf"))
    logs = functional.log_softmax(logits, dim=1).masked_fill(share == 0, 0.0)
    return -((share / share.sum(1, keepdim=True)) * logs).sum(1).mean()


def scene_texts(
    examples: Sequence[Example], labels: Sequence[str], rng: np.random.Generator
) -> list[str]:
    """Say in words what each example holds."""
    together = ("{} and {}", "{} while {}", "{} with {} in the background", "{}, {}")
    after = ("{} then {}", "{} followed by {}", "first {}, then {}")
    texts = []
    for example in examples:
        words = [_wording(labels[label], rng) for label in example.classes]
        forms = after if example.in_sequence else together
        form = forms[int(rng.integers(len(forms)))]
        texts.append(form.format(*words) if len(words) == 2 else words[0])
    return texts


def _wording(label: str, rng: np.random.Generator) -> str:
    wordings = WORDINGS[label]
    return wordings[int(rng.integers(len(wordings)))]


def scene_loss(audio: Tensor, texts: Tensor, wanted: Tensor, same: Tensor, scale: Tensor) -> Tensor:
    """Contrast scenes with their own sentences, both ways; scenes that share a sound are excused."""
    logits = scale.exp() * audio @ texts.T
    present = (wanted > 0).float()
    alike = present @ same.float() @ present.T > 0
    alike.fill_diagonal_(False)
    logits = logits.masked_fill(alike, float("-inf"))
    diagonal = torch.arange(len(audio))
    both = functional.cross_entropy(logits, diagonal) + functional.cross_entropy(logits.T, diagonal)
    return both / 2


class Student:
    """The model in training with its teacher, its average, and the step that improves it."""

    def __init__(self, model: CompactModel, material: Material, weights: LossWeights) -> None:
        self.model, self.material, self.weights = model, material, weights
        self.teacher: AudioTower = copy.deepcopy(model.audio).eval()
        self.average = copy.deepcopy(model).requires_grad_(False)
        # Where a caption lay at the start: its neighbours should stay its neighbours.
        with torch.inference_mode():
            self.reference = model.text.into_joint(material.captions).clone()

    def loss(self, rng: np.random.Generator, batch: int) -> dict[str, Tensor]:
        """Draw a batch and return the weighted parts of its loss."""
        material, model = self.material, self.model
        examples = material.mixer.batch(batch, rng)
        waves, wanted = waves_tensor(examples), targets(examples, len(material.labels))
        output = model.audio(waves)
        heard = self._taught(waves, output)
        texts = model.text.into_joint(material.label_bank.draw(rng))
        names = model.text.into_joint(material.tag_bank.draw(rng))
        scenes = scene_texts(examples, material.labels, rng)
        with torch.inference_mode():
            sentences = model.text.sentence(*tokenize(material.tokenizer, scenes))
        spoken = model.text.into_joint(sentences.clone())
        similar = model.scale.exp() * output.embedding @ names.T + model.bias
        audio, same, scale = output.embedding, material.same, model.scale
        parts = {
            "labels": label_loss(audio, texts, wanted, same, scale),
            "retrieval": retrieval_loss(audio, texts, wanted, same, scale),
            "tags": functional.binary_cross_entropy_with_logits(output.patch_logits, heard),
            "names": functional.binary_cross_entropy_with_logits(similar, heard.amax(1)),
            "scenes": scene_loss(audio, spoken, wanted, same, scale),
            "relations": self._relations(rng),
        }
        return {name: getattr(self.weights, name) * part for name, part in parts.items()}

    def _taught(self, waves: Tensor, output: AudioOutput) -> Tensor:
        """Return the teacher's tag probabilities [B, P, C]; a frozen body is the teacher itself."""
        if not output.patch_logits.requires_grad:
            heard: Tensor = output.patch_logits.sigmoid()
            return heard
        with torch.inference_mode():
            heard = self.teacher(waves).patch_logits.sigmoid()
        return heard.clone()

    def _relations(self, rng: np.random.Generator) -> Tensor:
        rows = torch.from_numpy(rng.integers(len(self.material.captions), size=256))
        now = self.model.text.into_joint(self.material.captions[rows])
        before = self.reference[rows]
        return functional.mse_loss(now @ now.T, before @ before.T)

    def follow(self, step: int) -> None:
        """Move the average towards the model: quickly at first, or it would hold the beginning."""
        keep = min(EMA, (1.0 + step) / (10.0 + step))
        with torch.no_grad():
            now = self.model.state_dict()
            for name, value in self.average.state_dict().items():
                if value.is_floating_point():
                    value.lerp_(now[name], 1.0 - keep)


def mask_spectrogram(rng: np.random.Generator, mel: Tensor) -> Tensor:
    """Hide a band and a stretch of each log-mel [B, T, F] behind its mean (SpecAugment)."""
    mel = mel.clone()
    means = mel.mean(dim=(1, 2))
    for row in range(len(mel)):
        if rng.random() < 0.5:
            low, width = int(rng.integers(56)), int(rng.integers(1, 12))
            mel[row, :, low : low + width] = means[row]
        if rng.random() < 0.5:
            start, length = int(rng.integers(mel.shape[1] - 60)), int(rng.integers(5, 60))
            mel[row, start : start + length] = means[row]
    return mel


def parameter_groups(model: CompactModel, rate: float) -> list[dict[str, object]]:
    """Give the pretrained body a fifth of the rate of the new parts; freeze the sentence encoder."""
    slow, fast = [], []
    for name, parameter in model.named_parameters():
        if name.startswith("text.") and not name.startswith(("text.project", "text.refine")):
            parameter.requires_grad_(False)
        elif not parameter.requires_grad:
            continue
        elif name.startswith(("audio.body", "audio.tags", "audio.anchors")):
            slow.append(parameter)
        else:
            fast.append(parameter)
    return [
        {"params": slow, "lr": rate * 0.2, "base": rate * 0.2},
        {"params": fast, "lr": rate, "base": rate},
    ]


def gather(
    data: Path, cache: Path, model: CompactModel, tokenizer: Tokenizer, keep: NDArray[np.bool_]
) -> Material:
    """Load what training needs; `keep` says which clips may be used."""
    clips = load_clips(data)
    waves = load_waves(data, clips, cache)
    used = [
        index for index in range(len(clips)) if keep[index] and _is_labelled(clips[index].dataset)
    ]
    names = [clip_label(clips[index].dataset, clips[index].label) for index in used]
    labels = [label for label in WORDINGS if label in set(names)]
    mixer = Mixer(
        [waves[index] for index in used],
        [labels.index(name) for name in names],
        model.config.window_s,
    )
    lines = captions(data)
    chosen = np.random.default_rng(0).choice(len(lines), CAPTIONS, replace=False)
    lines = [lines[index] for index in chosen]
    vectors = sentence_vectors(model.text, tokenizer, lines)
    ontology = load_ontology(data)
    texts = label_texts(labels, lines, vectors, model.text, tokenizer, ontology)
    tags = tag_texts(model.config.tag_labels, ontology)
    return Material(
        mixer,
        labels,
        build_bank(model.text, tokenizer, texts),
        build_bank(model.text, tokenizer, tags),
        same_sound(labels),
        vectors,
        tokenizer,
    )


def _is_labelled(dataset: str) -> bool:
    # `samples` are a few clips of many kinds: they are kept for trying the product.
    return dataset != "samples"


def kept_clips(data: Path, everything: bool, development: bool) -> NDArray[np.bool_]:
    """Say which clips are trained on: all; all but the held-out folds; or a further fold less."""
    clips = load_clips(data)
    keep = np.ones(len(clips), bool)
    if not everything:
        keep &= ~np.array([is_held_out(clip) for clip in clips])
    if development:
        keep &= ~np.array([is_held_out(clip, 3, 2) for clip in clips])
    return keep


def freeze_body(model: CompactModel) -> None:
    """Leave the body and its tags as the teacher has them; what stands above them is trained."""
    for part in (model.audio.body, model.audio.tags):
        nn.Module.requires_grad_(part, False)


def train(student: Student, options: argparse.Namespace) -> None:
    """Run the steps that are left, saving often enough to lose little."""
    if options.frozen_body:
        freeze_body(student.model)
    groups = parameter_groups(student.model, options.rate)
    optimizer = torch.optim.AdamW(groups, weight_decay=0.02)
    path = options.out / "training.safetensors"
    done = load_checkpoint(path, nn.ModuleList([student.model, student.average]), optimizer)
    hook_rng = np.random.default_rng([options.seed, 1, done])
    student.model.audio.mel.register_forward_hook(
        lambda module, _, mel: mask_spectrogram(hook_rng, mel) if module.training else mel
    )
    for step in track(range(done, options.steps), "compact encoder"):
        warm = min(1.0, (step + 1) / 100)
        for group in optimizer.param_groups:
            group["lr"] = group["base"] * warm * 0.5 * (1 + np.cos(np.pi * step / options.steps))
        student.model.train()
        parts = student.loss(np.random.default_rng([options.seed, 0, step]), options.batch)
        optimizer.zero_grad()
        total = torch.stack(list(parts.values())).sum()
        total.backward()
        nn.utils.clip_grad_norm_(student.model.parameters(), 5.0)
        optimizer.step()
        student.follow(step)
        if (step + 1) % 50 == 0:
            values = " ".join(
                f"{name} {float(value.detach()):.3f}" for name, value in parts.items()
            )
            sys.stdout.write(f"step {step + 1}: {values}\n")
            sys.stdout.flush()
        if (step + 1) % 200 == 0 or step + 1 == options.steps:
            both = nn.ModuleList([student.model, student.average])
            save_checkpoint(path, both, optimizer, step + 1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, or go on training, and save the averaged model in half precision."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/measured"))
    parser.add_argument("--text", type=Path, default=Path("runs/text"))
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"))
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--everything", action="store_true", help="train on the held-out folds too")
    parser.add_argument("--development", action="store_true", help="hold out one fold more")
    parser.add_argument(
        "--frozen-body",
        action="store_true",
        help="leave the body as the teacher has it: a fraction of the time",
    )
    parser.add_argument("--weights", type=json.loads, default={}, help="loss weights, as JSON")
    options = parser.parse_args(arguments)
    torch.manual_seed(options.seed)
    torch.set_flush_denormal(True)
    data = load_settings().data
    tokenizer = Tokenizer.from_file(str(options.text / "tokenizer.json"))
    config = CompactConfig(tag_labels=Teacher.labels(data), vocabulary=tokenizer.get_vocab_size())
    model = initial_model(config, options.text, Teacher(data))
    keep = kept_clips(data, options.everything, options.development)
    material = gather(data, options.cache, model, tokenizer, keep)
    start_projections(model, material.captions, material.tag_bank)
    student = Student(model, material, LossWeights(**options.weights))
    options.out.mkdir(parents=True, exist_ok=True)
    train(student, options)
    nn.Module.half(student.average).save_pretrained(options.out)
    tokenizer.save(str(options.out / "tokenizer.json"))


if __name__ == "__main__":
    main()

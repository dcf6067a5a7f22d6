"""Train DiffATR (arXiv 2409.10025), or the plain reranker that it is compared with.

Two phases, and a third that makes it fast. 1: the projection heads alone, contrastive, both
directions. 2: a denoiser for each direction learns to generate the one-hot x_0 from noise
(cross-entropy of 100 p), together with the contrastive loss. 3: a one-step predictor of each
denoiser learns what 50 steps of DDIM come to from the same noise (Kullback-Leibler divergence).
At the end a gate learns which texts claim anything at all (`claim_gate`), and temperature and
weight are fitted to lists of the development set.

Every phase is seeded by step, and saved: a run that was stopped goes on where it was, to the same
weights.

[open] in the paper, chosen here: AdamW, rate 1e-3 with warm-up and cosine, heads at 0.3 and
denoisers at twice the rate in phase 2, the map into the joint space at 0.1; 48 texts a batch, in
families of what is easily taken for each other, with 16 more hard negatives by similarity. Losses
"generation" and "contrastive" are ablations that spend the steps of both phases on the one loss.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional

from soundpost.errors import InvalidValueError
from soundpost.models.cross_attention import (
    CrossAttentionConfig,
    CrossAttentionModel,
    CrossAttentionReranker,
)
from soundpost.models.diffatr import (
    SHARPNESS,
    Denoiser,
    DiffAtrConfig,
    DiffAtrModel,
    DiffAtrReranker,
    PreparedDenoiser,
    sampled,
)
from soundpost.models.diffusion import DdimSampler, cosine_schedule
from soundpost.models.encoder import EncoderSpec
from soundpost.models.joint_heads import DiffAtrDimensions, JointHeads, SoundView, TextView, hear
from soundpost.models.joint_reranker import JointReranker
from soundpost.models.pretrained import quietly
from soundpost.models.retrieval_set import RetrievalSet
from soundpost.training.checkpoint import load_checkpoint, save_checkpoint
from soundpost.training.claim_gate import ClaimTexts, fit_gate
from soundpost.training.fit_reading import fit_reading
from soundpost.training.retrieval_batches import Batch, BatchSampler

KINDS = ("diffatr", "cross_attention")
LOSSES = ("both", "generation", "contrastive")
_WARM_UP_STEPS = 50
_REPORT_STEPS = 100
_SAVE_STEPS = 200
_DISTILLED_FROM = 50

Model = DiffAtrModel | CrossAttentionModel


class Loss(Protocol):
    """What a phase trains by."""

    def begin(self) -> None:
        """Prepare the weights for the phase, from what the one before left."""
        ...

    def __call__(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the loss of a batch, noise from the generator, in named parts that are summed."""
        ...


@dataclass(frozen=True)
class DiffAtrOptions:
    """How to train.

    encoder: whose vectors these are. kind: "diffatr" or "cross_attention". losses: "both",
    "generation" or "contrastive". Steps of the three phases; batch: texts a step; extra_sounds:
    hard negatives a step beside the texts' own sounds; rate: the learning rate at its height.
    contrastive_weight: of the contrastive loss in phase 2. noise: the deviation, in each dimension,
    of what is added to the vectors of sounds, so that no clip is known by heart. device: as torch
    names it.
    """

    encoder: EncoderSpec
    kind: str = "diffatr"
    losses: str = "both"
    prediction: str = "posterior"
    contrastive_steps: int = 1000
    joint_steps: int = 500
    distil_steps: int = 100
    batch: int = 48
    extra_sounds: int = 16
    rate: float = 1e-3
    contrastive_weight: float = 0.5
    noise: float = 0.03
    seed: int = 0
    device: str = "cpu"
    sizes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainedReranker:
    """What a training left in its folder, and what it took: seconds a step of each phase."""

    folder: Path
    losses: dict[str, float]
    step_s: dict[str, float]


@dataclass(frozen=True)
class Phase:
    """One part of the recipe: a name, its steps, its loss, and what it trains at what rate."""

    name: str
    steps: int
    loss: Loss
    rates: tuple[tuple[nn.Module, float], ...]
    batch: int


def train_diffatr(
    train: RetrievalSet,
    develop: RetrievalSet | None,
    options: DiffAtrOptions,
    out: Path,
    claims: ClaimTexts | None = None,
) -> TrainedReranker:
    """Train, or go on training, and save weights in half precision with their config in `out`.

    Texts of `train` that are true of no sound still teach what words mean. `claims` teach the gate
    which texts there is anything to judge about; without them it lets all through. Without `develop`
    the temperature and the weight stay 1. Raises InvalidValueError for options and sets that cannot be.
    """
    _check(train, options)
    device = torch.device(options.device)
    torch.manual_seed(options.seed)
    model = new_model(options)
    start_heads(model.heads, train)
    nn.Module.to(model, device)
    sampler = BatchSampler(train, device)
    losses, step_s = {}, {}
    for number, phase in enumerate(phases(model, options)):
        seed = (options.seed, number)
        losses[phase.name], step_s[phase.name] = run_phase(
            phase, model, sampler, options, seed, out / f"{number}-{phase.name}.safetensors"
        )
    nn.Module.to(model, "cpu")
    if claims is not None:
        fit_gate(model.heads.gate, claims, options.seed)
    if develop is not None:
        fit_reading(lambda: reranker_of(model), model.config, develop)
    save_model(model, out)
    return TrainedReranker(out, losses, step_s)


def _check(train: RetrievalSet, options: DiffAtrOptions) -> None:
    for value, allowed in ((options.kind, KINDS), (options.losses, LOSSES)):
        if value not in allowed:
            raise InvalidValueError(value, f"one of {', '.join(allowed)}")
    found = (train.texts.vectors.shape[1], train.texts.tokens.shape[2])
    wanted = (options.encoder.dimension, options.encoder.token_width)
    if found != wanted:
        raise InvalidValueError(f"vectors and tokens of width {found}", f"encoder: {wanted}")


def new_model(options: DiffAtrOptions) -> Model:
    """Build an untrained model for the encoder of the options."""
    spec = options.encoder
    shape = DiffAtrDimensions(spec.dimension, spec.token_width, **options.sizes)
    common = {
        "dimensions": asdict(shape),
        "encoder_name": spec.name,
        "encoder_revision": spec.revision,
    }
    if options.kind == "cross_attention":
        return CrossAttentionModel(CrossAttentionConfig(**common))
    scoring = "similarity" if options.losses == "contrastive" else "joint"
    return DiffAtrModel(DiffAtrConfig(prediction=options.prediction, scoring=scoring, **common))


def reranker_of(model: Model) -> JointReranker:
    """Put a model in memory behind the protocol; only texts already read can be judged."""
    if isinstance(model, CrossAttentionModel):
        return CrossAttentionReranker(model, None, "training")
    return DiffAtrReranker(model, None, "training")


def start_heads(heads: JointHeads, train: RetrievalSet) -> None:
    """Let the heads know from the start where the words lie, and how sounds in general do."""
    texts = train.texts
    rows = np.linspace(0, len(texts) - 1, min(len(texts), 20_000)).astype(np.int64)
    sounds = train.sounds
    heard = sounds.frames[np.arange(sounds.frames.shape[1]) < sounds.lengths[:, None]]
    chosen = np.linspace(0, len(heard) - 1, min(len(heard), 50_000)).astype(np.int64)
    heads.pair.know_background(torch.from_numpy(heard[chosen]))
    heads.text.start_meaning(
        torch.from_numpy(texts.vectors[rows]),
        torch.from_numpy(texts.tokens[rows].astype(np.float32)),
        torch.from_numpy(texts.lengths[rows]),
    )


def phases(model: Model, options: DiffAtrOptions) -> tuple[Phase, ...]:
    """Return the recipe of these options."""
    heads, both = model.heads, options.contrastive_steps + options.joint_steps
    rates, size = head_rates(heads), options.batch
    contrast = Contrast(heads)
    if options.losses == "contrastive":
        return (Phase("contrastive", both, contrast, rates, size),)
    generate: Loss
    judges = ((model.text_to_audio, 2.0), (model.audio_to_text, 2.0))
    generate = Judging(model) if isinstance(model, CrossAttentionModel) else Generation(model)
    if options.losses == "generation":
        recipe: tuple[Phase, ...] = (Phase("generation", both, generate, (*rates, *judges), size),)
    else:
        slow = tuple((module, 0.3 * rate) for module, rate in rates)
        joint = Together(generate, contrast, options.contrastive_weight)
        recipe = (
            Phase("contrastive", options.contrastive_steps, contrast, rates, size),
            Phase("joint", options.joint_steps, joint, (*slow, *judges), size),
        )
    if isinstance(model, CrossAttentionModel):
        return recipe
    pupils = ((model.text_to_audio_once, 0.3), (model.audio_to_text_once, 0.3))
    # Fifty steps of the teacher for each of the pupil's: half the texts are enough.
    distil = Distillation(model)
    return (*recipe, Phase("distillation", options.distil_steps, distil, pupils, size // 2))


def head_rates(heads: JointHeads) -> tuple[tuple[nn.Module, float], ...]:
    """Let the map of words into the joint space move slowly: it knows more than these texts."""
    text = heads.text
    fast = [text.widen, text.layers, text.norm, text.where, heads.pair]
    rest = (*fast, heads.to_sound, heads.to_text, _Alone(heads.scale))
    return (*((module, 1.0) for module in rest), (text.meaning, 0.1))


class _Alone(nn.Module):
    """A parameter as a module, so that it can have a rate."""

    def __init__(self, parameter: nn.Parameter) -> None:
        super().__init__()
        self.parameter = parameter


@dataclass(frozen=True)
class Seen:
    """A batch as the heads see it: queries [B, D], sounds [B, N, D], texts for own sounds [B, B, D]."""

    text: TextView
    sound: SoundView
    sounds: Tensor
    texts: Tensor
    heard: Tensor


def see(heads: JointHeads, batch: Batch) -> Seen:
    """Read and hear a batch, and pair all of it."""
    text = heads.text(batch.vectors, batch.tokens, batch.lengths)
    sound = hear(batch.sounds, batch.frames, batch.seconds)
    sounds, texts = heads.both(text, sound, batch.cosines)
    return Seen(text, sound, sounds, texts[batch.own], sound.vectors[batch.own])


def _diagonal(batch: Batch) -> Tensor:
    return torch.arange(len(batch.own), device=batch.own.device)


class Contrast:
    """Cross-entropy over the similarities of representations, both directions."""

    def __init__(self, heads: JointHeads) -> None:
        self.heads = heads

    def begin(self) -> None:
        """Nothing is to be prepared."""

    def __call__(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the loss of a batch."""
        return {"contrastive": self.of(see(self.heads, batch), batch)}

    def of(self, seen: Seen, batch: Batch) -> Tensor:
        """Return the loss of a batch that was already seen."""
        sounds = self.heads.logits(seen.text.vectors, seen.sounds)
        texts = self.heads.logits(seen.heard, seen.texts)
        absent = float("-inf")
        there = functional.cross_entropy(sounds.masked_fill(~batch.present, absent), batch.own)
        back = functional.cross_entropy(
            texts.masked_fill(~batch.present_texts, absent), _diagonal(batch)
        )
        return there + back


class Generation:
    """Cross-entropy of 100 p against x_0, from x_k at a random step, both directions."""

    def __init__(self, model: DiffAtrModel) -> None:
        self.model, self.heads = model, model.heads
        self.schedule = cosine_schedule(model.config.shape.diffusion_steps)

    def begin(self) -> None:
        """Let the denoisers start from what the heads know."""
        scale = float(self.heads.scale.detach().exp())
        for denoiser in (self.model.text_to_audio, self.model.audio_to_text):
            denoiser.attention.start_as_similarity(scale, SHARPNESS)

    def __call__(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the loss of a batch."""
        return {"generation": self.of(see(self.heads, batch), batch, generator)}

    def of(self, seen: Seen, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the loss of a batch that was already seen."""
        model = self.model
        there = self._direction(
            model.text_to_audio,
            seen.text.vectors,
            seen.sounds,
            batch.present,
            batch.own,
            generator,
        )
        back = self._direction(
            model.audio_to_text,
            seen.heard,
            seen.texts,
            batch.present_texts,
            _diagonal(batch),
            generator,
        )
        return there + back

    def _direction(
        self,
        denoiser: Denoiser,
        query: Tensor,
        candidates: Tensor,
        present: Tensor,
        own: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        x_0 = functional.one_hot(own, candidates.shape[1]).float()
        steps = torch.randint(len(self.schedule), own.shape, generator=generator).to(own.device)
        noise = torch.randn(x_0.shape, generator=generator).to(own.device)
        x = self.schedule.add_noise(x_0, noise, steps)
        p = denoiser(query, candidates, x, steps, present)
        return functional.cross_entropy(SHARPNESS * p, own)


class Judging:
    """The plain reranker's cross-entropy of 100 p, both directions, no noise."""

    def __init__(self, model: CrossAttentionModel) -> None:
        self.model, self.heads = model, model.heads

    def begin(self) -> None:
        """Let both directions start from what the heads know."""
        scale = float(self.heads.scale.detach().exp())
        for attention in (self.model.text_to_audio, self.model.audio_to_text):
            attention.start_as_similarity(scale, SHARPNESS)

    def __call__(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the loss of a batch."""
        return {"generation": self.of(see(self.heads, batch), batch, generator)}

    def of(self, seen: Seen, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the loss of a batch that was already seen."""
        model, text = self.model, seen.text.vectors
        there = model.judge(model.text_to_audio, text, seen.sounds, batch.present)
        back = model.judge(model.audio_to_text, seen.heard, seen.texts, batch.present_texts)
        loss = functional.cross_entropy(SHARPNESS * there, batch.own)
        return loss + functional.cross_entropy(SHARPNESS * back, _diagonal(batch))


class Together:
    """Phase 2: generation and contrast of one look at a batch."""

    def __init__(self, generate: Generation | Judging, contrast: Contrast, weight: float) -> None:
        self.generate, self.contrast, self.weight = generate, contrast, weight

    def begin(self) -> None:
        """Prepare what generates."""
        self.generate.begin()

    def __call__(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return both losses of a batch."""
        seen = see(self.contrast.heads, batch)
        return {
            "generation": self.generate.of(seen, batch, generator),
            "contrastive": self.weight * self.contrast.of(seen, batch),
        }


class Distillation:
    """One step learns where 50 steps of DDIM end, from the same noise; the teacher stands still."""

    def __init__(self, model: DiffAtrModel) -> None:
        self.model = model
        steps = model.config.shape.diffusion_steps
        self.sampler = DdimSampler(cosine_schedule(steps), min(_DISTILLED_FROM, steps))
        self.last = steps - 1

    def begin(self) -> None:
        """Let the pupils start as their teachers."""
        model = self.model
        model.text_to_audio_once.load_state_dict(model.text_to_audio.state_dict())
        model.audio_to_text_once.load_state_dict(model.audio_to_text.state_dict())

    def __call__(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the loss of a batch."""
        model = self.model
        with torch.no_grad():
            seen = see(model.heads, batch)
        there = self._direction(
            model.text_to_audio,
            model.text_to_audio_once,
            seen.text.vectors,
            seen.sounds,
            batch.present,
            generator,
        )
        back = self._direction(
            model.audio_to_text,
            model.audio_to_text_once,
            seen.heard,
            seen.texts,
            batch.present_texts,
            generator,
        )
        return {"distillation": there + back}

    def _direction(
        self,
        teacher: Denoiser,
        pupil: Denoiser,
        query: Tensor,
        candidates: Tensor,
        present: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        noise = torch.randn(present.shape, generator=generator).to(query.device)
        with torch.no_grad():
            lists = PreparedDenoiser(teacher).on(query, candidates, present)
            prediction = self.model.config.prediction
            taught = sampled(lists, self.sampler, lambda draw: noise, prediction)
        last = torch.full((len(query),), self.last, device=query.device)
        p = pupil(query, candidates, noise, last, present)
        told = functional.log_softmax(SHARPNESS * p, dim=1)
        # An absent candidate is certain not to be meant: nothing times minus infinity.
        told = told.masked_fill(~present, 0.0)
        return functional.kl_div(told, taught, reduction="batchmean")


def run_phase(
    phase: Phase,
    model: Model,
    sampler: BatchSampler,
    options: DiffAtrOptions,
    seed: tuple[int, int],
    checkpoint: Path,
) -> tuple[float, float]:
    """Run the steps that are left; return the loss of the last hundred and seconds a step."""
    phase.loss.begin()
    groups = [
        {"params": list(module.parameters()), "lr": rate, "base": options.rate * rate}
        for module, rate in phase.rates
    ]
    trained = [parameter for module, _ in phase.rates for parameter in module.parameters()]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    done = load_checkpoint(checkpoint, model, optimizer)
    recent: list[float] = []
    begun = time.perf_counter()
    for step in track(range(done, phase.steps), f"{options.kind}: {phase.name}"):
        _set_rate(optimizer, step, phase.steps)
        rng = np.random.default_rng([*seed, step])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        batch = sampler.draw(rng, phase.batch, options.extra_sounds)
        parts = phase.loss(blurred(batch, options.noise, generator), generator)
        total = torch.stack(list(parts.values())).sum()
        optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(trained, 5.0)
        optimizer.step()
        recent = [*recent[-_REPORT_STEPS:], float(total.detach())]
        _report(phase, step, parts)
        if (step + 1) % _SAVE_STEPS == 0 or step + 1 == phase.steps:
            save_checkpoint(checkpoint, model, optimizer, step + 1)
    taken_s = (time.perf_counter() - begun) / max(1, phase.steps - done)
    return float(np.mean(recent)) if recent else float("nan"), taken_s


def blurred(batch: Batch, noise: float, generator: torch.Generator) -> Batch:
    """Add noise to the vectors of a batch's sounds, which stay unit."""

    def blur(vectors: Tensor) -> Tensor:
        moved = vectors + noise * torch.randn(vectors.shape, generator=generator).to(vectors.device)
        return functional.normalize(moved, dim=-1)

    return replace(batch, sounds=blur(batch.sounds), frames=blur(batch.frames))


def _set_rate(optimizer: torch.optim.Optimizer, step: int, steps: int) -> None:
    warm = min(1.0, (step + 1) / _WARM_UP_STEPS)
    for group in optimizer.param_groups:
        group["lr"] = group["base"] * warm * 0.5 * (1 + np.cos(np.pi * step / steps))


def _report(phase: Phase, step: int, parts: dict[str, Tensor]) -> None:
    if (step + 1) % _REPORT_STEPS:
        return
    values = " ".join(f"{name} {float(value.detach()):.3f}" for name, value in parts.items())
    sys.stdout.write(f"{phase.name} {step + 1}: {values}\n")
    sys.stdout.flush()


def save_model(model: Model, out: Path) -> None:
    """Write weights in half precision and the config; the model itself stays as it is."""
    state = {name: value.half() for name, value in model.state_dict().items()}
    with quietly():
        model.save_pretrained(out, state_dict=state)

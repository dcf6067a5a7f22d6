"""DAC: captions by diffusion, all words at once (arXiv 2409.09401).

A denoiser sees noisy latents of a caption and, by cross-attention, the sound; beginning with pure
noise, DDIM calls it once or a few times, and the upper half of the text model turns the last
prediction into words. Its parts are those of LaDiC, which DAC is built on: x_0-prediction,
self-conditioning, a condition that is sometimes dropped, guidance.

[open] and chosen here: sizes; a step of attention for every two words (`patch`), which halves the
cost of a step; a head that says how long the caption is, `lengths` "predicted", so that no place is
spent on padding ("padded" has it learnt as words are); and a noisier schedule (`noise_scale`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from soundpost.errors import InvalidValueError
from soundpost.models.caption_condition import ConditionReader, Conditions, Memory
from soundpost.models.caption_layers import Blocks, Kept
from soundpost.models.caption_writer import TrainedWriter, read_captioner
from soundpost.models.diffusion import DdimSampler, SeededNoise, cosine_schedule
from soundpost.models.joint_heads import sinusoids
from soundpost.models.text_latents import CaptionVocabulary, TextLatents

LENGTHS = ("predicted", "padded")
# So many captions are denoised at once.
_TOGETHER = 16


@dataclass(frozen=True)
class DacDimensions:
    """How large the parts are: of the encoder, the text space, and the denoiser.

    length: the most words; a multiple of patch. steps: those of the schedule.
    """

    dimension: int = 256
    vocabulary: int = 3_500
    length: int = 24
    latent: int = 128
    text_heads: int = 4
    lower: int = 2
    upper: int = 1
    width: int = 192
    layers: int = 4
    heads: int = 4
    feedforward: int = 576
    patch: int = 2
    steps: int = 50
    noise_scale: float = 0.5


class DacConfig(PretrainedConfig):
    """Dimensions of DAC, whether it predicts lengths, and how it is best sampled from.

    Saved beside its weights, rebuilds the model.
    """

    model_type = "soundpost_dac"

    def __init__(
        self,
        dimensions: dict[str, Any] | None = None,
        lengths: str = "predicted",
        dropout: float = 0.0,
        sampling: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.dimensions = dimensions or asdict(DacDimensions())
        self.lengths = lengths
        self.sampling = sampling or {}
        self.caption_dropout = dropout
        super().__init__(**kwargs)

    @property
    def shape(self) -> DacDimensions:
        """The dimensions."""
        return DacDimensions(**self.dimensions)


class Denoiser(nn.Module):
    """x_0 [B, L, W], of x_k [B, L, W], the prediction before [B, L, W], the step and the sound.

    lengths [B] says how many places count, 0 that all do and that nothing is known.
    """

    def __init__(self, shape: DacDimensions, dropout: float) -> None:
        super().__init__()
        self.patch = shape.patch
        width, wide = shape.width, shape.patch * shape.latent
        self.inputs = nn.Linear(2 * wide, width)
        self.positions = nn.Embedding(shape.length // shape.patch, width)
        self.remaining = nn.Embedding(shape.length // shape.patch + 1, width)
        self.lengths = nn.Embedding(shape.length + 1, width)
        self.embed_step = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = Blocks(shape.layers, width, shape.heads, shape.feedforward, dropout)
        self.norm = nn.LayerNorm(width)
        self.outputs = nn.Linear(width, wide)

    def keep(self, memory: Memory) -> list[Kept]:
        """Return what every block looks at in the sound: the same at each step."""
        return self.blocks.keep(memory.states, memory.mask)

    def forward(
        self, x: Tensor, guess: Tensor, steps: Tensor, lengths: Tensor, sound: Sequence[Kept]
    ) -> Tensor:
        """Return the prediction of x_0; L must be a multiple of the patch."""
        batch, length, latent = x.shape
        patches = torch.cat([x, guess], dim=-1).reshape(batch, length // self.patch, -1)
        places = torch.arange(patches.shape[1], device=x.device)
        ends = (lengths + self.patch - 1).div(self.patch, rounding_mode="floor")
        left = (ends[:, None] - places).clamp(min=0)
        step = self.embed_step(sinusoids(steps, self.positions.embedding_dim))
        hidden = self.inputs(patches) + self.positions(places) + self.remaining(left)
        hidden = hidden + (step + self.lengths(lengths))[:, None]
        mask = ((left > 0) | (lengths == 0)[:, None])[:, None, None]
        for block, kept in zip(self.blocks, sound, strict=True):
            hidden = block(hidden, mask, kept)
        x_0: Tensor = self.outputs(self.norm(hidden))
        return x_0.reshape(batch, length, latent)


class DacModel(PreTrainedModel):
    """The reader of sounds, the head for the length, the denoiser, and the text space."""

    config: DacConfig
    config_class = DacConfig
    base_model_prefix = "dac"

    def __init__(self, config: DacConfig) -> None:
        super().__init__(config)
        shape = config.shape
        if shape.length % shape.patch or config.lengths not in LENGTHS:
            raise InvalidValueError(
                f"length {shape.length}, patch {shape.patch}, lengths {config.lengths}",
                f"length is a multiple of patch, lengths one of {', '.join(LENGTHS)}",
            )
        self.reader = ConditionReader(shape.dimension, shape.width, shape.heads)
        self.length_head = nn.Linear(shape.width, shape.length + 1)
        self.denoiser = Denoiser(shape, config.caption_dropout)
        self.latents = text_latents(shape)
        self.schedule = cosine_schedule(shape.steps).noisier(shape.noise_scale)
        self.post_init()  # type: ignore[no-untyped-call]  # transformers leaves it untyped

    def _init_weights(self, module: nn.Module) -> None:
        """Keep torch's own initialisation."""

    @property
    def predicts_lengths(self) -> bool:
        """Say whether the length is predicted, not learnt as padding."""
        return bool(self.config.lengths == "predicted")

    def canvas(self, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mask [B, L] of places that count, and lengths [B] as the denoiser is told.

        L is the longest, rounded up to whole patches; where padding is learnt, every place counts.
        """
        shape = self.config.shape
        if not self.predicts_lengths:
            everywhere = torch.ones(len(lengths), shape.length, dtype=torch.bool)
            return everywhere.to(lengths.device), torch.zeros_like(lengths)
        size = -(-int(lengths.max()) // shape.patch) * shape.patch
        return torch.arange(size, device=lengths.device) < lengths[:, None], lengths

    def size(self) -> int:
        """Return how many parameters writing a caption takes; the lower half takes no part."""
        own = sum(parameter.numel() for parameter in self.parameters())
        lower = [*self.latents.lower.parameters(), *self.latents.positions.parameters()]
        return own - sum(parameter.numel() for parameter in lower)


def text_latents(shape: DacDimensions) -> TextLatents:
    """Build the text space of these dimensions, untrained."""
    return TextLatents(
        shape.vocabulary, shape.length, shape.latent, shape.text_heads, shape.lower, shape.upper
    )


@dataclass(frozen=True)
class DacSampling:
    """How captions are drawn.

    steps of DDIM; guidance w: x_0 = (1 + w) with the sound - w without it, 0 takes one pass.
    The likeliest caption has the likeliest length and noise of strength `noise`; of `candidates` of
    the likeliest lengths that is taken whose words are surest. Diverse ones have lengths drawn by
    their probability to the power of 1 / length_temperature, and noise of strength `varied_noise`.
    taught and varied_taught: whether in the twin's wording or in people's.
    """

    steps: int = 1
    guidance: float = 0.0
    taught: bool = True
    noise: float = 0.0
    candidates: int = 1
    varied_taught: bool = True
    varied_noise: float = 1.0
    length_temperature: float = 1.0


class DacWriter(TrainedWriter[DacModel]):
    """DAC behind the captioner's protocol: conditions in, captions out."""

    name = "dac"

    def __init__(
        self,
        model: DacModel,
        vocabulary: CaptionVocabulary,
        revision: str,
        sampling: DacSampling | None = None,
    ) -> None:
        super().__init__(model, vocabulary, revision)
        self.sampling = sampling or DacSampling(**model.config.sampling)

    @classmethod
    def load(cls, folder: Path, sampling: DacSampling | None = None) -> DacWriter:
        """Load a trained folder; without `sampling` as its config says.

        Raises ModelNotFoundError, BrokenCheckpointError.
        """
        return cls(*read_captioner(DacModel, folder), sampling)

    @torch.inference_mode()
    def write(self, sounds: Conditions, seeds: Sequence[int], diverse: bool = False) -> list[str]:
        """Return a caption for each of B sounds; equal seeds give equal captions.

        diverse: draw one of many captions, not the likeliest.
        """
        options = self.sampling
        if options.varied_taught if diverse else options.taught:
            sounds = replace(sounds, style=sounds.style % 2 + 2)
        memory = self.model.reader(sounds)
        lengths, of = self._lengths(memory, seeds, diverse)
        bare = self._bare(sounds) if options.guidance else None
        texts, sure = [""] * len(of), np.zeros(len(of))
        # Captions of about one length go together: less of a canvas is left empty.
        for rows in lengths.argsort(stable=True).split(_TOGETHER):
            owners = of[rows]
            without = None if bare is None else bare.rows(owners)
            its_seeds = [seeds[owner] for owner in owners.tolist()]
            found = self._worded(memory.rows(owners), without, lengths[rows], its_seeds, diverse)
            for row, (text, confidence) in zip(rows.tolist(), found, strict=True):
                texts[row], sure[row] = text, confidence
        best = sure.reshape(-1, options.candidates).argmax(axis=1)
        return [texts[row * options.candidates + place] for row, place in enumerate(best)]

    def _worded(
        self,
        memory: Memory,
        bare: Memory | None,
        lengths: Tensor,
        seeds: Sequence[int],
        diverse: bool,
    ) -> list[tuple[str, float]]:
        """Return captions of given lengths, and how sure they are of their words on average."""
        latents, mask = self._denoise(memory, bare, lengths, seeds, diverse)
        logits = self.model.latents.decode(latents, mask)
        counts = mask.sum(1).tolist()
        texts = [self.vocabulary.text(row.tolist()) for row in logits.argmax(-1).split(counts)]
        if self.sampling.candidates == 1:
            return [(text, 0.0) for text in texts]
        sure = logits.log_softmax(-1).amax(-1).split(counts)
        return [(text, float(row.mean())) for text, row in zip(texts, sure, strict=True)]

    def _lengths(
        self, memory: Memory, seeds: Sequence[int], diverse: bool
    ) -> tuple[Tensor, Tensor]:
        """Return lengths [B * candidates] and to which sound each belongs."""
        count = self.sampling.candidates
        of = torch.arange(len(memory.states)).repeat_interleave(count)
        if not self.model.predicts_lengths:
            return torch.zeros(len(of), dtype=torch.long), of
        logits = self.model.length_head(memory.states[:, 0])
        logits[:, 0] = float("-inf")
        if diverse:
            draws = [np.random.default_rng(seed).random(count) for seed in seeds]
            shares = (logits / self.sampling.length_temperature).softmax(-1).double().cumsum(-1)
            # A draw that rounding puts above the last share belongs to the last.
            places = torch.searchsorted(shares, torch.from_numpy(np.stack(draws)))
            return places.clamp(1, logits.shape[1] - 1).flatten(), of
        return logits.topk(count, dim=-1).indices.flatten(), of

    def _bare(self, sounds: Conditions) -> Memory:
        memory: Memory = self.model.reader(sounds, torch.ones(len(sounds), dtype=torch.bool))
        return memory

    def _denoise(
        self,
        memory: Memory,
        bare: Memory | None,
        lengths: Tensor,
        seeds: Sequence[int],
        diverse: bool,
    ) -> tuple[Tensor, Tensor]:
        """Return latents [B, L, W] and which of them count."""
        model, denoiser, options = self.model, self.model.denoiser, self.sampling
        mask, told = model.canvas(lengths)
        shape = (mask.shape[1], model.config.shape.latent)
        strength = options.varied_noise if diverse else options.noise
        sound = denoiser.keep(memory)
        without = None if bare is None else denoiser.keep(bare)
        guess = torch.zeros(len(mask), *shape)

        def predict(x: Tensor, step: int) -> Tensor:
            nonlocal guess
            steps = torch.full((len(x),), step)
            x_0: Tensor = denoiser(x, guess, steps, told, sound)
            if without is not None:
                other = denoiser(x, guess, steps, told, without)
                x_0 = x_0 + options.guidance * (x_0 - other)
            guess = x_0
            return x_0

        sampler = DdimSampler(model.schedule, options.steps, clamp=None)
        latents = sampler.sample(predict, lambda draw: seeded_noise(seeds, shape, draw, strength))
        return latents, mask


def seeded_noise(
    seeds: Sequence[int], shape: tuple[int, int], draw: int, strength: float = 1.0
) -> Tensor:
    """Return noise [B, L, W] of shape (L, W): a row depends on its seed, a place on no other place."""
    if not strength:
        return torch.zeros(len(seeds), *shape)
    keys: NDArray[np.int64] = np.arange(shape[0] * shape[1], dtype=np.int64)
    noise = torch.stack([SeededNoise(seed, keys)(draw) for seed in seeds])
    return strength * noise.reshape(-1, *shape)

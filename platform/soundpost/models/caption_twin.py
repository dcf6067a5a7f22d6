"""The autoregressive twin of DAC: the same sounds, the same size, the same data; a word at a time.

What DAC is worth is what it gains over this. Blocks are DAC's own, with a causal mask; the width of
the two linear layers in each is chosen so that both have equally many parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel

from soundpost.models.caption_condition import ConditionReader, Conditions, Memory
from soundpost.models.caption_layers import Blocks, Kept, causal_mask
from soundpost.models.caption_writer import TrainedWriter, read_captioner
from soundpost.models.dac import DacConfig, DacDimensions, DacModel
from soundpost.models.text_latents import BEGIN, END, CaptionVocabulary

# The two may differ by so much in their parameters.
MOST_UNLIKE = 0.03


@dataclass(frozen=True)
class TwinDimensions:
    """How large the parts are; length: the most words, not counting the end."""

    dimension: int = 256
    vocabulary: int = 3_500
    length: int = 24
    width: int = 192
    layers: int = 4
    heads: int = 4
    feedforward: int = 576


class TwinConfig(PretrainedConfig):
    """Dimensions of the twin; saved beside its weights, rebuilds it."""

    model_type = "soundpost_caption_twin"

    def __init__(
        self, dimensions: dict[str, Any] | None = None, dropout: float = 0.0, **kwargs: Any
    ) -> None:
        self.dimensions = dimensions or asdict(TwinDimensions())
        self.caption_dropout = dropout
        super().__init__(**kwargs)

    @property
    def shape(self) -> TwinDimensions:
        """The dimensions."""
        return TwinDimensions(**self.dimensions)


class TwinModel(PreTrainedModel):
    """Logits of the next word, of the words before it and the sound."""

    config: TwinConfig
    config_class = TwinConfig
    base_model_prefix = "caption_twin"

    def __init__(self, config: TwinConfig) -> None:
        super().__init__(config)
        shape = config.shape
        width = shape.width
        self.reader = ConditionReader(shape.dimension, width, shape.heads)
        self.words = nn.Embedding(shape.vocabulary, width)
        nn.init.normal_(self.words.weight, std=width**-0.5)
        self.positions = nn.Embedding(shape.length + 1, width)
        self.blocks = Blocks(
            shape.layers, width, shape.heads, shape.feedforward, config.caption_dropout
        )
        self.norm = nn.LayerNorm(width)
        self.bias = nn.Parameter(torch.zeros(shape.vocabulary))
        self.post_init()  # type: ignore[no-untyped-call]  # transformers leaves it untyped

    def _init_weights(self, module: nn.Module) -> None:
        """Keep torch's own initialisation."""

    def forward(self, ids: Tensor, memory: Memory) -> Tensor:
        """Return logits [B, L, V] of what follows each of ids [B, L], the first of them BEGIN."""
        hidden = self._embed(ids, 0)
        mask = causal_mask(ids.shape[1], ids.device)
        for block, kept in zip(self.blocks, self.keep(memory), strict=True):
            hidden = block(hidden, mask, kept)
        return self._logits(hidden)

    def keep(self, memory: Memory) -> list[Kept]:
        """Return what every block looks at in the sound: the same for each word."""
        return self.blocks.keep(memory.states, memory.mask)

    def next(self, ids: Tensor, past: list[Kept], sound: Sequence[Kept]) -> Tensor:
        """Return logits [B, V] after one more word [B]; `past` has what came before, and grows."""
        hidden = self._embed(ids[:, None], past[0].keys.shape[2] if past else 0)
        for number, (block, kept) in enumerate(zip(self.blocks, sound, strict=True)):
            own = block.own_norm(hidden)
            now = block.own.keep(own)
            if number < len(past):
                before = past[number]
                now = Kept(
                    torch.cat([before.keys, now.keys], dim=2),
                    torch.cat([before.values, now.values], dim=2),
                )
                past[number] = now
            else:
                past.append(now)
            hidden = block.rest(hidden, own, now, kept)
        return self._logits(hidden)[:, 0]

    def _embed(self, ids: Tensor, first: int) -> Tensor:
        steps = torch.arange(first, first + ids.shape[1], device=ids.device)
        embedded: Tensor = self.config.shape.width**0.5 * self.words(ids) + self.positions(steps)
        return embedded

    def _logits(self, hidden: Tensor) -> Tensor:
        return functional.linear(self.norm(hidden), self.words.weight, self.bias)

    def size(self) -> int:
        """Return how many parameters writing a caption takes."""
        return sum(parameter.numel() for parameter in self.parameters())


def twin_of(dac: DacDimensions) -> TwinDimensions:
    """Return the twin of a DAC: its width and layers, and the inner width that makes it as large."""
    shape = TwinDimensions(
        dac.dimension, dac.vocabulary, dac.length, dac.width, dac.layers, dac.heads, 1
    )
    with torch.device("meta"):
        wanted = DacModel(DacConfig(asdict(dac))).size()
        least = TwinModel(TwinConfig(asdict(shape))).size()
    each = dac.layers * (2 * dac.width + 1)
    return replace(shape, feedforward=max(1, 1 + round((wanted - least) / each)))


@dataclass(frozen=True)
class TwinSampling:
    """How words are drawn: the likeliest, or where captions are to be diverse from the nucleus."""

    nucleus: float = 0.9
    temperature: float = 1.0


class TwinWriter(TrainedWriter[TwinModel]):
    """The twin behind the captioner's protocol: greedy, or from the nucleus (arXiv 1904.09751)."""

    name = "caption-twin"

    def __init__(
        self,
        model: TwinModel,
        vocabulary: CaptionVocabulary,
        revision: str,
        sampling: TwinSampling | None = None,
    ) -> None:
        super().__init__(model, vocabulary, revision)
        self.sampling = sampling or TwinSampling()

    @classmethod
    def load(cls, folder: Path, sampling: TwinSampling | None = None) -> TwinWriter:
        """Load a trained folder. Raises ModelNotFoundError, BrokenCheckpointError."""
        return cls(*read_captioner(TwinModel, folder), sampling)

    @torch.inference_mode()
    def write(self, sounds: Conditions, seeds: Sequence[int], diverse: bool = False) -> list[str]:
        """Return a caption for each of B sounds; equal seeds give equal captions.

        Sounds whose caption is finished are not computed any further.
        """
        length = self.model.config.shape.length
        draws = _draws(seeds, length) if diverse else None
        sound = self.model.keep(self.model.reader(sounds))
        words: list[list[int]] = [[] for _ in seeds]
        rows, past = torch.arange(len(seeds)), list[Kept]()
        ids = torch.full((len(seeds),), BEGIN)
        for step in range(length):
            logits = self.model.next(ids, past, sound)
            ids = logits.argmax(-1) if draws is None else self._draw(logits, draws[rows, step])
            for row, word in zip(rows.tolist(), ids.tolist(), strict=True):
                words[row].append(word)
            going = (ids != END).nonzero()[:, 0]
            if not len(going):
                break
            if len(going) < len(rows):
                rows, ids = rows[going], ids[going]
                sound = [kept.rows(going) for kept in sound]
                past = [kept.rows(going) for kept in past]
        return [self.vocabulary.text(row) for row in words]

    def _draw(self, logits: Tensor, draws: Tensor) -> Tensor:
        """Draw words [B] from the nucleus of logits [B, V], by uniform numbers [B]."""
        shares, order = (logits / self.sampling.temperature).softmax(-1).sort(descending=True)
        total = shares.cumsum(-1)
        shares = shares.masked_fill(total - shares >= self.sampling.nucleus, 0.0)
        total = shares.cumsum(-1)
        places = torch.searchsorted(total, draws[:, None] * total[:, -1:], right=True)
        last = (shares > 0).sum(-1, keepdim=True) - 1
        return order.gather(1, torch.minimum(places, last))[:, 0]


def _draws(seeds: Sequence[int], length: int) -> Tensor:
    """Return uniform numbers [B, length], a row of them for each seed."""
    rows = [np.random.default_rng(seed).random(length, dtype=np.float32) for seed in seeds]
    return torch.from_numpy(np.stack(rows))

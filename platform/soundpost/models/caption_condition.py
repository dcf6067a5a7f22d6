"""The sound that a caption is written of, as both captioners read it.

Frames of the joint audio-text space, one every 0.8 s, and their mean. A text's vector can stand in
for them (text-only training, arXiv 2309.07372), so the network knows nothing of the encoder but its
dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from soundpost.errors import InvalidValueError
from soundpost.models.caption_layers import Layer
from soundpost.models.encoder import FloatArray

TOKEN_S = 0.8
MOST_TOKENS = 20


class Style(IntEnum):
    """Whose captions the words should be like: those made from records, or those people wrote.

    TAUGHT: as the autoregressive twin words it, which has one wording where people have many.
    """

    RECORDS = 0
    PEOPLE = 1
    TAUGHT_RECORDS = 2
    TAUGHT_PEOPLE = 3

    @property
    def taught(self) -> Style:
        """The twin's wording of this style."""
        return Style(self % 2 + 2)


@dataclass(frozen=True)
class Conditions:
    """B sounds: tokens [B, M, D], present [B, M] true where a token is, style [B]."""

    tokens: Tensor
    present: Tensor
    style: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def rows(self, rows: Tensor | slice) -> Conditions:
        """Return some of the sounds."""
        return Conditions(self.tokens[rows], self.present[rows], self.style[rows])

    def repeated(self, times: int) -> Conditions:
        """Return every sound so many times in a row."""
        return self.rows(torch.arange(len(self)).repeat_interleave(times))

    def styled(self, style: Style) -> Conditions:
        """Return the same sounds, to be worded in a style."""
        return replace(self, style=torch.full_like(self.style, int(style)))


def condition_tokens(frames: FloatArray, frame_hop_s: float) -> FloatArray:
    """Pool frames [T, D] to unit tokens [M, D], 0.8 s each, at most 20: longer sounds more coarsely.

    Raises InvalidValueError for no frames, and for frames that are not finite.
    """
    if frames.ndim != 2 or not len(frames):
        raise InvalidValueError(f"frames of shape {frames.shape}", "at least one frame is needed")
    if not np.isfinite(frames).all():
        raise InvalidValueError("frames that are not finite", "NaN or infinity is no place")
    count = min(max(1, round(len(frames) * frame_hop_s / TOKEN_S)), MOST_TOKENS, len(frames))
    edges = np.linspace(0, len(frames), count + 1).round().astype(np.int64)
    sums = np.add.reduceat(frames.astype(np.float64), edges[:-1], axis=0)
    norms = np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
    return np.asarray(sums / norms, np.float32)


def conditions(tokens: Sequence[FloatArray], styles: Sequence[int]) -> Conditions:
    """Return sounds of several tokens [M_i, D] as a batch."""
    longest = max(len(part) for part in tokens)
    joined = np.zeros((len(tokens), longest, tokens[0].shape[1]), np.float32)
    present = np.zeros((len(tokens), longest), np.bool_)
    for row, part in enumerate(tokens):
        joined[row, : len(part)], present[row, : len(part)] = part, True
    style = torch.tensor([int(style) for style in styles])
    return Conditions(torch.from_numpy(joined), torch.from_numpy(present), style)


@dataclass(frozen=True)
class Memory:
    """What was read: states [B, 1 + M, width], the first of the whole sound; present [B, 1 + M]."""

    states: Tensor
    present: Tensor

    def rows(self, rows: Tensor) -> Memory:
        """Return some of the sounds."""
        return Memory(self.states[rows], self.present[rows])

    @property
    def mask(self) -> Tensor:
        """The mask [B, 1, 1, 1 + M] for attention."""
        return self.present[:, None, None]


class ConditionReader(nn.Module):
    """Conditions to states that captioners attend to: a projection and one layer of a transformer.

    mean [D] is where sounds lie in general: what stands out from it is what there is to say.
    """

    mean: Tensor

    def __init__(self, dimension: int, width: int, heads: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dimension))
        self.gain = dimension**0.5
        self.token, self.whole = nn.Linear(dimension, width), nn.Linear(dimension, width)
        self.positions = nn.Embedding(MOST_TOKENS, width)
        self.styles = nn.Embedding(len(Style), width)
        self.nothing = nn.Parameter(0.02 * torch.randn(width))
        self.layer = Layer(width, heads, 2 * width)
        self.norm = nn.LayerNorm(width)

    def forward(self, sounds: Conditions, dropped: Tensor | None = None) -> Memory:
        """Read sounds; those dropped [B] say nothing but the style."""
        present = sounds.present[..., None].to(sounds.tokens.dtype)
        whole = functional.normalize((sounds.tokens * present).sum(1), dim=-1)
        first = self.whole(self.gain * (whole - self.mean)) + self.styles(sounds.style)
        steps = torch.arange(sounds.tokens.shape[1], device=present.device)
        tokens = self.token(self.gain * (sounds.tokens - self.mean)) + self.positions(steps)
        there = torch.cat([torch.ones_like(sounds.present[:, :1]), sounds.present], dim=1)
        if dropped is not None:
            nothing = self.nothing + self.styles(sounds.style)
            first = torch.where(dropped[:, None], nothing, first)
            there = torch.cat([there[:, :1], there[:, 1:] & ~dropped[:, None]], dim=1)
        states = torch.cat([first[:, None], tokens], dim=1)
        states = self.norm(self.layer(states, there))
        return Memory(states, there)

"""What both captioners are built of: attention whose keys and values can be kept, and a block of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Kept:
    """Keys and values [B, heads, M, width / heads] of what is attended to; mask says where it is.

    mask: [B, 1, 1 or N, M], true where it may be looked at; None where everywhere.
    """

    keys: Tensor
    values: Tensor
    mask: Tensor | None = None

    def rows(self, rows: Tensor) -> Kept:
        """Return those of the rows [R] of a batch."""
        mask = None if self.mask is None else self.mask[rows]
        return Kept(self.keys[rows], self.values[rows], mask)


class Attention(nn.Module):
    """Attention of several heads; what is attended to may be computed once and kept."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def keep(self, states: Tensor, mask: Tensor | None = None) -> Kept:
        """Return keys and values of states [B, M, width]."""
        keys, values = self.key_value(states).chunk(2, dim=-1)
        return Kept(self._split(keys), self._split(values), mask)

    def forward(self, x: Tensor, kept: Kept) -> Tensor:
        """Return what x [B, N, width] finds in what is kept, [B, N, width]."""
        queries = self._split(self.query(x))
        if self.training:
            found = _plain_attention(queries, kept)
        else:
            found = functional.scaled_dot_product_attention(
                queries, kept.keys, kept.values, attn_mask=kept.mask
            )
        gathered: Tensor = self.out(found.transpose(1, 2).flatten(2))
        return gathered

    def _split(self, states: Tensor) -> Tensor:
        split: Tensor = states.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return split


def _plain_attention(queries: Tensor, kept: Kept) -> Tensor:
    """Do what torch's fused attention does; on a CPU its gradient takes several times as long."""
    scores = (queries * queries.shape[-1] ** -0.5) @ kept.keys.transpose(-1, -2)
    if kept.mask is not None:
        scores = scores.masked_fill(~kept.mask, float("-inf"))
    found: Tensor = scores.softmax(dim=-1).to(kept.values.dtype) @ kept.values
    return found


class Block(nn.Module):
    """Pre-norm: attention to one's own sequence, to the sound, and two linear layers."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.own_norm, self.own = nn.LayerNorm(width), Attention(width, heads)
        self.sound_norm, self.sound = nn.LayerNorm(width), Attention(width, heads)
        self.last_norm = nn.LayerNorm(width)
        self.inner, self.outer = nn.Linear(width, feedforward), nn.Linear(feedforward, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None, sound: Kept) -> Tensor:
        """Return x [B, N, width] after the block; mask: which of x may be looked at, as in Kept."""
        own = self.own_norm(x)
        after: Tensor = self.rest(x, own, self.own.keep(own, mask), sound)
        return after

    def rest(self, x: Tensor, own: Tensor, kept: Kept, sound: Kept) -> Tensor:
        """Return x [B, N, width], whose norm is `own`, after looking at kept states and the sound."""
        x = x + self.dropout(self.own(own, kept))
        x = x + self.dropout(self.sound(self.sound_norm(x), sound))
        inner = functional.gelu(self.inner(self.last_norm(x)))
        after: Tensor = x + self.dropout(self.outer(inner))
        return after


def causal_mask(length: int, device: torch.device) -> Tensor:
    """Return [1, 1, L, L]: each place may look at itself and at what lies before."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()[None, None]


class Layer(nn.Module):
    """Pre-norm: attention to one's own sequence and two linear layers."""

    def __init__(self, width: int, heads: int, feedforward: int) -> None:
        super().__init__()
        self.own_norm, self.own = nn.LayerNorm(width), Attention(width, heads)
        self.last_norm = nn.LayerNorm(width)
        self.inner, self.outer = nn.Linear(width, feedforward), nn.Linear(feedforward, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return x [B, N, width] after the layer; mask [B, N] says which of it may be looked at."""
        own = self.own_norm(x)
        x = x + self.own(own, self.own.keep(own, mask[:, None, None]))
        after: Tensor = x + self.outer(functional.gelu(self.inner(self.last_norm(x))))
        return after


class Blocks(nn.ModuleList):
    """Blocks, one after the other."""

    def __init__(
        self, layers: int, width: int, heads: int, feedforward: int, dropout: float
    ) -> None:
        super().__init__(Block(width, heads, feedforward, dropout) for _ in range(layers))

    def __iter__(self) -> Iterator[Block]:
        """Give them as what they are."""
        return cast(Iterator[Block], super().__iter__())

    def keep(self, states: Tensor, mask: Tensor) -> list[Kept]:
        """Return what each looks at in a sound's states [B, M, width]: the same at each call."""
        return [block.sound.keep(states, mask) for block in self]

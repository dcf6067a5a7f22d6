"""Teach ADIFF's projections what recordings hold and how two differ, before any word is learnt.

[open] in the paper, whose encoder vector already says what is heard. Ours also says when and how loud,
and words alone teach a projection of it slowly: linear heads over z learn in two minutes what the
whole network does not in an hour. The heads are thrown away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from soundpost.explain.lexicon import EVENTS
from soundpost.models.adiff import Adiff
from soundpost.training.language import set_rate
from soundpost.training.pair_records import Edit, EditKind, Heard
from soundpost.training.pair_store import PairSet

FloatArray = NDArray[np.float32]

EVENT_KEYS = tuple(EVENTS)
EDIT_KINDS = tuple(EditKind)
_HIDDEN = 512
_WARM_UP_STEPS = 50


@dataclass(frozen=True)
class ProjectionOptions:
    """How to teach the projections; steps 0: not at all.

    batch: pairs a step. disturbance: of the vectors. seed: of everything.
    """

    steps: int = 3000
    batch: int = 128
    rate: float = 1e-3
    weight_decay: float = 0.1
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Disturbance:
    """What is done to audio vectors in training, so that no clip is learnt by heart.

    noise: deviation of what is added to every value. hidden: how often all that the encoder learnt on
    these very clips is zero in both of a pair, the columns [A] of `learnt`: tags and acoustics are
    left then.
    """

    noise: float = 0.0
    hidden: float = 0.0
    learnt: NDArray[np.bool_] | None = None

    def __call__(
        self, first: FloatArray, second: FloatArray, rng: np.random.Generator
    ) -> tuple[FloatArray, FloatArray]:
        """Return the rows [B, A] of both recordings of pairs, disturbed."""
        both = [
            rows + np.float32(self.noise) * rng.standard_normal(rows.shape, np.float32)
            for rows in (first, second)
        ]
        if self.learnt is not None and self.hidden:
            chosen = rng.random(len(first)) < self.hidden
            for rows in both:
                rows[np.ix_(chosen, self.learnt)] = 0.0
        return both[0], both[1]


class ProjectionHeads(nn.Module):
    """Events of each recording, from its z [B, H], and edits, from both and what tells them apart."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = width**0.5
        self.heard = nn.Linear(width, len(EVENT_KEYS))
        self.pair = nn.Sequential(
            nn.Linear(3 * width, _HIDDEN),
            nn.GELU(),
            nn.Dropout(0.2),
            nn.Linear(_HIDDEN, len(EDIT_KINDS) + len(EVENT_KEYS)),
        )

    def forward(
        self, first: Tensor, second: Tensor, apart: Tensor, marks: Sequence[Tensor]
    ) -> Tensor:
        """Return the loss of z of both; marks: heard in each [B, E], edits and what they are of."""
        first, second, apart = first * self.scale, second * self.scale, apart * self.scale
        told = (
            self.heard(first),
            self.heard(second),
            self.pair(torch.cat([first, second, apart], dim=1)),
        )
        losses = [
            functional.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")
            for logits, wanted in zip(told, marks, strict=True)
        ]
        return torch.stack(losses).sum() / len(first)


class Projections(nn.Module):
    """The projections of a network: of one recording, and of what tells two apart."""

    def __init__(self, model: Adiff) -> None:
        super().__init__()
        self.own = model.projection
        self.apart = None if model.contrast is None else model.contrast.projection

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return z [B, H] of two audio vectors [B, A], and of their difference."""
        z_1, z_2 = self.own(first), self.own(second)
        return z_1, z_2, z_2 - z_1 if self.apart is None else self.apart(second - first)


def teach_projections(
    model: Adiff, pairs: PairSet, disturb: Disturbance, options: ProjectionOptions, out: Path
) -> None:
    """Teach a network's projections, or read what was taught before from a file in `out`."""
    projections = Projections(model)
    path = out / f"projections-{options.steps}-{options.seed}.safetensors"
    if not path.is_file():
        _teach(projections, pairs, disturb, options)
        out.mkdir(parents=True, exist_ok=True)
        save_file(projections.state_dict(), path)
    projections.load_state_dict(load_file(path))


def _teach(
    projections: Projections, pairs: PairSet, disturb: Disturbance, options: ProjectionOptions
) -> None:
    torch.manual_seed(options.seed)
    heads = ProjectionHeads(projections.own.first.out_features)
    learning = nn.ModuleList([projections, heads]).train()
    optimizer = torch.optim.AdamW(
        learning.parameters(), lr=options.rate, weight_decay=options.weight_decay, fused=True
    )
    for step in track(range(options.steps), "adiff: projections"):
        set_rate(optimizer, step, options.steps, _WARM_UP_STEPS)
        rng = np.random.default_rng([options.seed, 1, step])
        first, second, marks = _batch(pairs, rng, options.batch, disturb)
        loss = heads(*projections(first, second), marks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _batch(
    pairs: PairSet, rng: np.random.Generator, count: int, disturb: Disturbance
) -> tuple[Tensor, Tensor, list[Tensor]]:
    drawn = pairs.draw(rng, count)
    firsts, seconds = pairs.both(drawn)
    records = [pair.record for pair in drawn]
    turned = rng.random(count) < 0.5
    records = [one.reversed() if turn else one for one, turn in zip(records, turned, strict=True)]
    swapped = turned[:, None]
    rows = (np.where(swapped, seconds, firsts), np.where(swapped, firsts, seconds))
    first, second = (torch.from_numpy(row) for row in disturb(*rows, rng))
    marks = [
        np.stack([events(record.heard_1) for record in records]),
        np.stack([events(record.heard_2) for record in records]),
        np.stack([edited(record.edits) for record in records]),
    ]
    return first, second, [torch.from_numpy(one) for one in marks]


def marks(known: Sequence[object], found: Sequence[object]) -> FloatArray:
    """Return 1 for each of `known` that was found, else 0."""
    return np.array([float(one in found) for one in known], np.float32)


def events(heard: Sequence[Heard]) -> FloatArray:
    """Return which of EVENT_KEYS are heard [E]."""
    return marks(EVENT_KEYS, [one.what for one in heard])


def edited(edits: Sequence[Edit]) -> FloatArray:
    """Return which of EDIT_KINDS there are, and of which of EVENT_KEYS [K + E]."""
    of = [what for edit in edits for what in (edit.what, edit.other)]
    kinds = marks(EDIT_KINDS, [edit.kind for edit in edits])
    return np.concatenate([kinds, marks(EVENT_KEYS, of)])

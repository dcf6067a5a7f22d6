"""Teach a reranker's gate which texts claim order, time or loudness, from texts that are composed.

Their claims are known because they were composed of them. Names of sounds and simple captions are
what the texts speak of, so that words for a sound are not taken for words about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from soundpost.models.claim_gate import ClaimGate
from soundpost.models.encoder import AudioTextEncoder
from soundpost.models.retrieval_set import TextSet, read_texts
from soundpost.training.composed import draw_plan
from soundpost.training.composed_queries import Query, draw_query
from soundpost.training.composed_sets import Phrases
from soundpost.training.composed_texts import text_pool
from soundpost.training.sound_phrases import SOUND_PHRASES, Phrase, draw_phrase

# One text in two hundred that claims nothing may be taken for one that does.
FALSE_CLAIMS = 0.005
_STEPS = 600
_BATCH = 256
_RATE = 3e-3
_HELD_OUT_EVERY = 4
_FEWEST_SOUNDS = 8


@dataclass(frozen=True)
class ClaimTexts:
    """Texts, and which of them claim something: claiming [Q]."""

    texts: TextSet
    claiming: NDArray[np.bool_]


def compose_claim_texts(
    captions: Sequence[str],
    encoder: AudioTextEncoder,
    count: int = 4_000,
    seed: int = 0,
) -> ClaimTexts:
    """Compose `count` texts of the sounds that have phrases, as many of captions that name one thing each.

    Up to `count` captions by themselves are added, as texts that claim nothing.
    """
    rng = np.random.default_rng(seed)
    queries = _queries(list(SOUND_PHRASES), draw_phrase, count, rng)
    if len(captions) >= _FEWEST_SOUNDS:
        queries += _queries(captions, _as_it_is, count, rng)
    alone = rng.permutation(len(captions))[:count]
    texts = [query.text for query in queries] + [captions[row] for row in alone]
    claiming = [bool(query.claims) for query in queries] + [False] * len(alone)
    return ClaimTexts(read_texts(texts, encoder), np.array(claiming))


def _as_it_is(sound: str, rng: np.random.Generator) -> Phrase:
    return Phrase(sound)


def _queries(
    sounds: Sequence[str],
    phrases: Phrases,
    count: int,
    rng: np.random.Generator,
) -> list[Query]:
    pool = text_pool(sounds, rng)
    return [draw_query(draw_plan(pool, rng), phrases, rng) for _ in range(count)]


def fit_gate(gate: ClaimGate, known: ClaimTexts, seed: int = 0) -> None:
    """Train a gate on three quarters of the texts, and set on the rest how sure it has to be."""
    rows = np.arange(len(known.claiming))
    held_out = rows % _HELD_OUT_EVERY == 0
    generator = torch.Generator().manual_seed(seed)
    _train(gate, known, rows[~held_out], generator)
    quiet = rows[held_out & ~known.claiming]
    logits = _logits(gate, known.texts.rows(quiet))
    allowed = float(np.quantile(logits, 1.0 - FALSE_CLAIMS)) if len(quiet) else 0.0
    with torch.no_grad():
        gate.bias.sub_(max(0.0, allowed))


def _train(
    gate: ClaimGate, known: ClaimTexts, rows: NDArray[np.int64], generator: torch.Generator
) -> None:
    wanted = torch.from_numpy(known.claiming.astype(np.float32))
    bound = gate.hidden.shape[1] ** -0.5
    gate.hidden.uniform_(-bound, bound, generator=generator)
    gate.last.uniform_(-0.1, 0.1, generator=generator)
    gate.requires_grad_(True)
    optimizer = torch.optim.AdamW(gate.parameters(), _RATE, weight_decay=0.05)
    for step in range(_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = _RATE * 0.5 * (1 + np.cos(np.pi * step / _STEPS))
        drawn = torch.randint(len(rows), (_BATCH,), generator=generator).numpy()
        batch = rows[drawn]
        logits = _forward(gate, known.texts.rows(batch))
        loss = functional.binary_cross_entropy_with_logits(logits, wanted[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    gate.requires_grad_(False)


def _logits(gate: ClaimGate, texts: TextSet) -> NDArray[np.float32]:
    with torch.no_grad():
        return _forward(gate, texts).numpy()


def _forward(gate: ClaimGate, texts: TextSet) -> torch.Tensor:
    tokens = torch.from_numpy(texts.tokens.astype(np.float32))
    logits: torch.Tensor = gate(tokens, torch.from_numpy(texts.lengths))
    return logits

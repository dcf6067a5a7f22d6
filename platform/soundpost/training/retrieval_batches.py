"""Batches for training a reranker: texts, a sound of each, and what is easily mistaken for it.

Half the point of a reranker is to tell apart what similarity cannot. So a batch is drawn in families
of texts that were made to be taken for each other or, where none are known, in groups of texts whose
sounds are each other's hard negatives; more of these are added that have no text in the batch. What
else a text is true of is never a negative.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from soundpost.errors import InvalidValueError
from soundpost.models.retrieval_set import RetrievalSet

# How many of the most similar wrong sounds of each text are drawn from.
HARD_POOL = 48
_GROUP = 4
# Two in five draws are of the three hardest of 48.
_HARDNESS = 3
_CHUNK = 512


@dataclass(frozen=True)
class Batch:
    """B texts and N sounds. own [B] is the column of each text's sound; columns are in random order.

    vectors [B, D], tokens [B, L, W], lengths [B] of the texts; sounds [N, D], frames [N, S, D],
    seconds [N] of the sounds; cosines [B, N]; relevant [B, N], true where the text is true.
    """

    vectors: Tensor
    tokens: Tensor
    lengths: Tensor
    sounds: Tensor
    frames: Tensor
    seconds: Tensor
    cosines: Tensor
    relevant: Tensor
    own: Tensor

    @property
    def present(self) -> Tensor:
        """Return [B, N], false where another sound than a text's own would also be right."""
        return self.competing(self.relevant, self.own)

    @property
    def present_texts(self) -> Tensor:
        """Return [B, B], for each text's own sound: false where another text says it too."""
        diagonal = torch.arange(len(self.own), device=self.own.device)
        return self.competing(self.relevant[:, self.own].T, diagonal)

    @staticmethod
    def competing(relevant: Tensor, own: Tensor) -> Tensor:
        """Return where a list [B, N] holds the own candidate or a wrong one."""
        present = ~relevant
        present[torch.arange(len(own), device=own.device), own] = True
        return present


class BatchSampler:
    """Draws batches of a RetrievalSet from a generator; knows the hard negatives of every text.

    Raises InvalidValueError where no text is true of any sound.
    """

    def __init__(self, data: RetrievalSet, device: torch.device) -> None:
        self.data, self.device = data, device
        self.rows = np.array([row for row, own in enumerate(data.relevant) if len(own)], np.int64)
        if not self.rows.size:
            raise InvalidValueError("a set to train on", "no text in it is true of any sound")
        self.hard = hardest_sounds(data, HARD_POOL)
        self.families = _families(data, self.rows)
        self.texts_of: list[list[int]] = [[] for _ in range(len(data.sounds))]
        for row, own in enumerate(data.relevant):
            for sound in own:
                self.texts_of[sound].append(row)

    def draw(self, rng: np.random.Generator, texts: int, extra_sounds: int) -> Batch:
        """Draw a batch: positives are drawn anew each time among what a text is true of."""
        rows = self._texts(rng, texts)
        own = [int(rng.choice(self.data.relevant[row])) for row in rows]
        hard = [self._hard(rng, int(rng.choice(rows))) for _ in range(extra_sounds)]
        columns = rng.permutation(np.unique(own + hard))
        place = {int(sound): column for column, sound in enumerate(columns)}
        return self._batch(np.array(rows), columns, np.array([place[sound] for sound in own]))

    def _texts(self, rng: np.random.Generator, count: int) -> list[int]:
        """Draw different texts in groups: one at random, then those it is easily mistaken for."""
        count = min(count, len(self.rows))
        if self.families:
            order = rng.permutation(len(self.families))[:count]
            return [row for number in order for row in self.families[number]][:count]
        chosen: dict[int, None] = {}
        while len(chosen) < count:
            seed = int(rng.choice(self.rows))
            chosen[seed] = None
            for _ in range(_GROUP - 1):
                texts = self.texts_of[self._hard(rng, seed)]
                chosen[int(rng.choice(texts if texts else self.rows))] = None
        return list(chosen)[:count]

    def _hard(self, rng: np.random.Generator, row: int) -> int:
        """Draw a hard negative of a text, the hardest most often."""
        pool = self.hard[row]
        return int(pool[int(len(pool) * rng.random() ** _HARDNESS)])

    def _batch(
        self, rows: NDArray[np.int64], columns: NDArray[np.int64], own: NDArray[np.int64]
    ) -> Batch:
        texts, sounds = self.data.texts, self.data.sounds
        longest = max(1, int(texts.lengths[rows].max()))
        seconds = max(1, int(sounds.lengths[columns].max()))
        vectors = self._tensor(texts.vectors[rows])
        heard = self._tensor(sounds.vectors[columns])
        return Batch(
            vectors=vectors,
            tokens=self._tensor(texts.tokens[rows, :longest].astype(np.float32)),
            lengths=self._tensor(texts.lengths[rows]),
            sounds=heard,
            frames=self._tensor(sounds.frames[columns, :seconds]),
            seconds=self._tensor(sounds.lengths[columns]),
            cosines=vectors @ heard.T,
            relevant=self._tensor(
                np.stack([np.isin(columns, self.data.relevant[row]) for row in rows])
            ),
            own=self._tensor(own),
        )

    def _tensor(self, array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)


def _families(data: RetrievalSet, rows: NDArray[np.int64]) -> list[list[int]]:
    """Return the texts of each family, of those that are true of anything."""
    if data.families is None:
        return []
    order = rows[np.argsort(data.families[rows], kind="stable")]
    ends = np.flatnonzero(np.diff(data.families[order])) + 1
    return [part.tolist() for part in np.split(order, ends)]


def hardest_sounds(data: RetrievalSet, count: int) -> NDArray[np.int64]:
    """Return for each text the sounds [Q, count] most similar to it that it is not true of.

    The hardest come first. Where fewer sounds than `count` are wrong, right ones come behind them.
    """
    vectors, sounds = data.texts.vectors, data.sounds.vectors
    count = min(count, len(sounds))
    hardest = np.zeros((len(vectors), count), np.int64)
    for start in range(0, len(vectors), _CHUNK):
        similar = vectors[start : start + _CHUNK] @ sounds.T
        for row, line in enumerate(similar, start):
            line[data.relevant[row]] = -np.inf
        top = np.argpartition(-similar, count - 1, axis=1)[:, :count]
        inside = np.argsort(-np.take_along_axis(similar, top, 1), axis=1, kind="stable")
        hardest[start : start + _CHUNK] = np.take_along_axis(top, inside, 1)
    return hardest

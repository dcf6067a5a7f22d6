"""What is measured of a second stage: which queries of which candidates, in which direction."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from soundpost.evaluation.ranking import Case, Judge, Judged, by_similarity, judge_all
from soundpost.models.encoder import FloatArray
from soundpost.models.reranker import Candidates, Reranker
from soundpost.models.retrieval_set import RetrievalSet, TextSet

IntArray = NDArray[np.int64]


class TwoWay(Reranker, Protocol):
    """A reranker that judges in both directions, over texts that are encoded already."""

    def sound_probability(
        self, text: TextSet, similarities: FloatArray, candidates: Candidates
    ) -> FloatArray:
        """Return [N] probabilities that a sound is what the one text means."""
        ...

    def text_probability(
        self, sound: Candidates, similarities: FloatArray, texts: TextSet
    ) -> FloatArray:
        """Return [Q] probabilities that a text says the one sound."""
        ...


@dataclass(frozen=True)
class Task:
    """Texts that look for sounds, or sounds that look for texts.

    `queries` are the rows of what looks: for texts at most `most` sounds, drawn from those that a text
    is true of. `groups` says which queries are no independent evidence.
    """

    name: str
    data: RetrievalSet
    to_texts: bool = False
    groups: IntArray | None = None
    most: int = 500

    @property
    def queries(self) -> IntArray:
        """Return the rows of the texts, or of the sounds, that something is found for."""
        if not self.to_texts:
            return np.flatnonzero([len(rows) > 0 for rows in self.data.relevant])
        named = np.unique(np.concatenate(self.data.relevant))
        if len(named) <= self.most:
            return named
        chosen = np.random.default_rng(0).choice(named, self.most, replace=False)
        return np.sort(chosen)

    def relevant(self) -> list[IntArray]:
        """Return what is to be found for each query."""
        if not self.to_texts:
            return [self.data.relevant[row] for row in self.queries]
        texts: dict[int, list[int]] = {}
        for text, sounds in enumerate(self.data.relevant):
            for sound in sounds.tolist():
                texts.setdefault(sound, []).append(text)
        return [np.array(texts[row]) for row in self.queries.tolist()]

    def similarities(self) -> FloatArray:
        """Return cosines [queries, candidates]."""
        cosines = self.data.texts.vectors @ self.data.sounds.vectors.T
        return (cosines.T if self.to_texts else cosines)[self.queries]

    def judge(self, reranker: TwoWay) -> Judge:
        """Return how a reranker judges the candidates of a query."""
        queries, texts, sounds = self.queries, self.data.texts, self.data.sounds

        def to_sounds(query: int, rows: IntArray, best: FloatArray) -> FloatArray:
            asked = texts.rows(queries[query : query + 1])
            return reranker.sound_probability(asked, best, sounds_at(sounds, rows))

        def to_texts(query: int, rows: IntArray, best: FloatArray) -> FloatArray:
            heard = sounds_at(sounds, queries[query : query + 1])
            return reranker.text_probability(heard, best, texts.rows(rows))

        return to_texts if self.to_texts else to_sounds

    def alone(self) -> Case:
        """Return what similarity alone makes of it."""
        return Case(by_similarity(self.similarities()), self.relevant(), self.groups)


def sounds_at(sounds: Candidates, rows: IntArray) -> Candidates:
    """Return the candidates at these rows."""
    lengths = sounds.lengths[rows]
    longest = int(lengths.max(initial=0))
    return Candidates(
        sounds.keys[rows], sounds.vectors[rows], sounds.frames[rows, :longest], lengths
    )


@dataclass(frozen=True)
class Bench:
    """Lets rerankers judge tasks, and keeps what they said below a folder."""

    kept: Path

    def case(self, task: Task, reranker: TwoWay, how: str, length: int) -> Case:
        """Return what a reranker makes of the most similar `length` candidates.

        `how` names what its revision does not tell, such as the number of steps.
        """
        direction = "texts" if task.to_texts else "sounds"
        name = f"{task.name}-{direction}-{reranker.spec.revision}-{how}-{length}"
        path = self.kept / f"{name.replace(' ', '_')}.npz"
        if path.is_file():
            with np.load(path, allow_pickle=False) as found:
                judged = Judged(found["rows"], found["similarities"], found["probabilities"])
        else:
            judged = judge_all(task.similarities(), length, task.judge(reranker))
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, **vars(judged))
        return Case(judged, task.relevant(), task.groups)

"""What is measured of a second stage: which queries of which candidates, in which direction."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from soundpost.models.encoder import FloatArray
from soundpost.models.reranker import Candidates, Reranker
from soundpost.models.retrieval_set import RetrievalSet, TextSet
from soundpost.training.ranking import Case, Judge, Judged, by_similarity, judge_all

IntArray = NDArray[np.int64]

_MOST_SOUNDS = 500


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

    def claims_in(self, texts: TextSet) -> NDArray[np.bool_]:
        """Say which texts [Q] claim what similarity cannot tell."""
        ...


@dataclass(frozen=True)
class Task:
    """Texts that look for sounds, or sounds that look for texts.

    `queries` are the rows of what looks and has an answer: `most` of them, if there are more; by
    default all texts, and 500 sounds. `groups` says which queries are no independent evidence.
    """

    name: str
    data: RetrievalSet
    to_texts: bool = False
    groups: IntArray | None = None
    most: int | None = None

    @property
    def queries(self) -> IntArray:
        """Return the rows of the texts, or of the sounds, that something is found for."""
        if self.to_texts:
            named = np.unique(np.concatenate(self.data.relevant))
        else:
            named = np.flatnonzero([len(rows) > 0 for rows in self.data.relevant])
        most = self.most or (_MOST_SOUNDS if self.to_texts else len(named))
        if len(named) <= most:
            return named
        chosen = np.random.default_rng(0).choice(named, most, replace=False)
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

    def judged(self, reranker: TwoWay, length: int) -> Judged:
        """Let a reranker judge the most similar `length` candidates, where there is something to."""
        judged = judge_all(self.similarities(), length, self.judge(reranker))
        claiming = reranker.claims_in(self.data.texts).astype(np.float32)
        # Many texts beside one sound: as many as claim something, so much does the judgement count.
        own = claiming[judged.rows].mean(axis=1) if self.to_texts else claiming[self.queries]
        return replace(judged, counts=own)

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
                judged = Judged(**found)
        else:
            judged = task.judged(reranker, length)
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, **vars(judged))
        return Case(judged, task.relevant(), task.groups)

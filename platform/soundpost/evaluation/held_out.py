"""What a trained reranker is worth on captioned clips that it never heard, beside similarity alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from soundpost.evaluation.metrics import Estimate, bootstrap
from soundpost.models.joint_reranker import JointReranker
from soundpost.models.retrieval_set import RetrievalSet
from soundpost.training.ranking import Case, Ranked, Reading
from soundpost.training.retrieval_tasks import IntArray, Task

# As many as a search reranks by default.
CANDIDATES = 64
MEASURES = ("R@1", "R@5", "R@10", "mAP@10")


@dataclass(frozen=True)
class Figures:
    """One direction: means of `queries` over `candidates` with intervals, by MEASURES.

    gains: reranked less alone, in pairs.
    """

    direction: str
    queries: int
    candidates: int
    alone: tuple[Estimate, ...]
    reranked: tuple[Estimate, ...]
    gains: tuple[Estimate, ...]


def measure_held_out(
    reranker: JointReranker, data: RetrievalSet, origins: Sequence[str]
) -> tuple[Figures, Figures]:
    """Measure both directions; origins: of each sound, as clips of one are no independent evidence."""
    of_sounds = np.unique(np.array(origins), return_inverse=True)[1].astype(np.int64)
    there = Task("held-out", data)
    back = Task("held-out", data, to_texts=True)
    first = np.array([data.relevant[row][0] for row in there.queries], np.int64)
    return (
        _figures("text to sound", there, reranker, reranker.weight, of_sounds[first]),
        _figures("sound to text", back, reranker, reranker.text_weight, of_sounds[back.queries]),
    )


def _figures(
    direction: str, task: Task, reranker: JointReranker, weight: float, groups: IntArray
) -> Figures:
    case = Case(task.judged(reranker, CANDIDATES), task.relevant(), groups)
    alone, reranked = _values(case.ranked(Reading())), _values(case.ranked(Reading(weight=weight)))
    return Figures(
        direction=direction,
        queries=len(task.queries),
        candidates=task.similarities().shape[1],
        alone=tuple(bootstrap(values, groups) for values in alone),
        reranked=tuple(bootstrap(values, groups) for values in reranked),
        gains=tuple(
            bootstrap(ours - theirs, groups) for ours, theirs in zip(reranked, alone, strict=True)
        ),
    )


def _values(ranked: Ranked) -> tuple[np.ndarray, ...]:
    """The measures of each query, in the order of MEASURES."""
    return (ranked.recall(1), ranked.recall(5), ranked.recall(10), ranked.precision())

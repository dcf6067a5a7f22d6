"""How a reranker's probabilities are read: temperature and weight beside the cosine.

final score = cosine + weight * probability, the probability tempered first. Both are chosen on
lists that were not trained on, by what search is judged by; where nothing beats the cosine alone,
the weight is 0, and so nothing is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
from numpy.typing import NDArray

from soundpost.models.joint_reranker import JointConfig, JointReranker
from soundpost.models.reranker import Candidates
from soundpost.models.retrieval_set import RetrievalSet

TEMPERATURES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
WEIGHTS = (0.0, 0.03, 0.1, 0.2, 0.4, 0.7, 1.0, 2.0, 5.0, 20.0)
LIST_LENGTH = 64
MOST_LISTS = 600

FloatArray = NDArray[np.float32]


def fit_reading(
    reranker: Callable[[], JointReranker], config: JointConfig, develop: RetrievalSet
) -> None:
    """Set temperature and weight of both directions in the config, by the lists of a set."""
    config.sound_temperature, config.text_temperature = 1.0, 1.0
    judge = reranker()
    config.sound_temperature, config.weight = best_reading(*sound_lists(judge, develop))
    config.text_temperature, config.text_weight = best_reading(*text_lists(judge, develop))


def sound_lists(
    judge: JointReranker, data: RetrievalSet
) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
    """Return cosines, probabilities and truth [Q, N] of the sounds most similar to each text."""
    rows = _some([row for row, own in enumerate(data.relevant) if len(own)])
    lists = []
    for row in rows:
        similar = data.sounds.vectors @ data.texts.vectors[row]
        top = np.argsort(-similar, kind="stable")[:LIST_LENGTH]
        text = data.texts.rows(np.array([row]))
        joint = judge.sound_probability(text, similar[top], _sounds(data, top))
        lists.append((similar[top], joint, np.isin(top, data.relevant[row])))
    return _stacked(lists)


def text_lists(
    judge: JointReranker, data: RetrievalSet
) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
    """Return cosines, probabilities and truth [N, Q] of the texts most similar to each sound."""
    texts_of: dict[int, list[int]] = {}
    for row, own in enumerate(data.relevant):
        for sound in own:
            texts_of.setdefault(int(sound), []).append(row)
    lists = []
    for sound in _some(sorted(texts_of)):
        similar = data.texts.vectors @ data.sounds.vectors[sound]
        top = np.argsort(-similar, kind="stable")[:LIST_LENGTH]
        heard = _sounds(data, np.array([sound]))
        joint = judge.text_probability(heard, similar[top], data.texts.rows(top))
        lists.append((similar[top], joint, np.isin(top, texts_of[sound])))
    return _stacked(lists)


def best_reading(
    cosines: FloatArray, joint: FloatArray, truth: NDArray[np.bool_]
) -> tuple[float, float]:
    """Return the temperature and the weight with the best lists; among equals the least weight."""
    logs = np.log(np.maximum(joint, np.finfo(np.float32).tiny)).astype(np.float64)
    best = (quality(cosines, truth), 1.0, 0.0)
    for weight, temperature in product(WEIGHTS[1:], TEMPERATURES):
        powers = np.exp((logs - logs.max(1, keepdims=True)) / temperature)
        scores = cosines + weight * powers / powers.sum(1, keepdims=True)
        found = quality(np.asarray(scores, np.float32), truth)
        if found > best[0] + 1e-9:
            best = (found, temperature, weight)
    return best[1], best[2]


def quality(scores: FloatArray, truth: NDArray[np.bool_]) -> float:
    """Return the mean of R@1 and mean reciprocal rank of lists [Q, N]; a list without truth is 0."""
    order = np.argsort(-scores, axis=1, kind="stable")
    found = np.take_along_axis(truth, order, axis=1)
    reciprocal = np.where(found.any(1), 1.0 / (1 + found.argmax(1)), 0.0)
    return float((found[:, 0].mean() + reciprocal.mean()) / 2)


def _some(rows: list[int]) -> list[int]:
    """Return at most MOST_LISTS of the rows, evenly spread."""
    chosen = np.linspace(0, len(rows) - 1, min(len(rows), MOST_LISTS)).astype(int)
    return [rows[index] for index in chosen]


def _sounds(data: RetrievalSet, rows: NDArray[np.int64]) -> Candidates:
    sounds = data.sounds
    return Candidates(
        sounds.keys[rows], sounds.vectors[rows], sounds.frames[rows], sounds.lengths[rows]
    )


def _stacked(
    lists: list[tuple[FloatArray, FloatArray, NDArray[np.bool_]]],
) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
    cosines, joint, truth = zip(*lists, strict=True)
    return np.stack(cosines), np.stack(joint), np.stack(truth)

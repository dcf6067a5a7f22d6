"""How a reranker's probabilities are read: temperature and weight beside the cosine.

final score = cosine + weight * probability, the probability tempered first. Both are chosen on
lists that were not trained on, by what search is judged by; where nothing beats the cosine alone,
the weight is 0, and so nothing is lost.
"""

from __future__ import annotations

from collections.abc import Callable

from soundpost.models.joint_reranker import JointConfig, JointReranker
from soundpost.models.retrieval_set import RetrievalSet
from soundpost.training.ranking import Case, Reading, choose_reading
from soundpost.training.retrieval_tasks import Task

LIST_LENGTH = 64
MOST_LISTS = 600


def fit_reading(
    reranker: Callable[[], JointReranker], config: JointConfig, develop: RetrievalSet
) -> None:
    """Set temperature and weight of both directions in the config, by the lists of a set."""
    config.sound_temperature, config.text_temperature = 1.0, 1.0
    judge = reranker()
    there, back = (best_reading(judge, develop, to_texts) for to_texts in (False, True))
    config.sound_temperature, config.weight = there.temperature, there.weight
    config.text_temperature, config.text_weight = back.temperature, back.weight


def best_reading(judge: JointReranker, develop: RetrievalSet, to_texts: bool) -> Reading:
    """Return the reading with the best lists of at most MOST_LISTS queries of one direction."""
    task = Task("develop", develop, to_texts, most=MOST_LISTS)
    return choose_reading(Case(task.judged(judge, LIST_LENGTH), task.relevant()), [])

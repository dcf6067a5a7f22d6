"""CIDEr-D: agreement of a text with several references, weighted by how much its words say."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

Words = tuple[str, ...]
ORDERS = (1, 2, 3, 4)
# Standard deviation of the penalty on a difference in length, words.
_SIGMA = 6.0


def ngrams(words: Sequence[str], order: int) -> Counter[Words]:
    """Count the runs of `order` words."""
    return Counter(tuple(words[i : i + order]) for i in range(len(words) - order + 1))


@dataclass(frozen=True)
class _Weighted:
    """A text by the weights of its n-grams, one dictionary and one norm for each order."""

    weights: tuple[dict[Words, float], ...]
    norms: tuple[float, ...]
    length: int


class Cider:
    """CIDEr-D of Vedantam et al., CIDEr: Consensus-based Image Description Evaluation, 2015.

    Runs of 1 to 4 words weigh count * log(N / items whose references hold them), the N items being
    those of `references`. As in the authors' code, and so in what is published, the weights are not
    divided by the length, and words are not stemmed. Ten is a perfect agreement on every order.
    """

    def __init__(self, references: Sequence[Sequence[Sequence[str]]]) -> None:
        self.items = len(references)
        self._holding: Counter[Words] = Counter()
        for texts in references:
            self._holding.update(
                {gram for words in texts for n in ORDERS for gram in ngrams(words, n)}
            )

    def score(self, candidate: Sequence[str], references: Sequence[Sequence[str]]) -> float:
        """Return the score, 0 to 10, of a text in words against references in words."""
        ours = self._weighted(candidate)
        theirs = [self._weighted(words) for words in references]
        agreement = sum(self._agreement(ours, other) for other in theirs)
        return 10.0 * agreement / len(theirs) if theirs else 0.0

    def _weighted(self, words: Sequence[str]) -> _Weighted:
        weights = tuple(
            {gram: count * self._says(gram) for gram, count in ngrams(words, n).items()}
            for n in ORDERS
        )
        norms = tuple(math.sqrt(sum(w * w for w in order.values())) for order in weights)
        return _Weighted(weights, norms, len(words))

    def _says(self, gram: Words) -> float:
        """Inverse document frequency; what no reference holds counts as held by one item."""
        return math.log(self.items) - math.log(max(1, self._holding[gram]))

    @staticmethod
    def _agreement(ours: _Weighted, theirs: _Weighted) -> float:
        """The clipped cosine of both, mean over the orders, times the penalty on length."""
        penalty = math.exp(-((ours.length - theirs.length) ** 2) / (2 * _SIGMA**2))
        total = 0.0
        for mine, other, norm, their_norm in zip(
            ours.weights, theirs.weights, ours.norms, theirs.norms, strict=True
        ):
            # Clipped: a word said more often than in the reference gains nothing.
            dot = sum(
                min(w, other[gram]) * other[gram] for gram, w in mine.items() if gram in other
            )
            total += dot / (norm * their_norm) if norm and their_norm else 0.0
        return penalty * total / len(ORDERS)

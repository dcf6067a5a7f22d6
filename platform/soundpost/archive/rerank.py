"""The second stage of a search: what the index found, put in order by looking at it together.

The index judges every window by itself and knows a query as one vector. A reranker sees each hit as
it goes on in time, beside the others, and says how likely it is the one that is meant:
score = similarity + weight * joint probability. It orders hits and never makes or refuses one. What
it cannot do in time, or not at all, is left to similarity, and the answer says why.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from soundpost.config import Settings
from soundpost.errors import (
    BrokenCheckpointError,
    InvalidValueError,
    ModelError,
    NoRerankerError,
    RerankerMismatchError,
    RerankTimeoutError,
)
from soundpost.models.encoder import EncoderSpec
from soundpost.models.reranker import Candidates, Reranker
from soundpost.store import embeddings
from soundpost.store.embeddings import FRAME_SCALE, IdArray, Surroundings

FloatArray = NDArray[np.float32]
Rerank = Literal["auto", "off"] | int
Answer = TypeVar("Answer")
_WORDS: dict[str, Rerank] = {"auto": "auto", "off": "off"}

MOST_CANDIDATES = 1000
DEFAULT_CANDIDATES = 64
DEFAULT_BUDGET_S = 0.1
# Before and after belongs together in half a minute; an hour of rain is judged around its best.
REACH_S = 10.0


def check_rerank(rerank: Rerank) -> None:
    """Raise InvalidValueError unless it is "auto", "off" or a number of candidates."""
    if rerank == "auto" or rerank == "off":
        return
    counts = isinstance(rerank, int) and not isinstance(rerank, bool)
    if not counts or not 1 <= rerank <= MOST_CANDIDATES:
        raise _refusal(rerank)


def read_rerank(text: str) -> Rerank:
    """Read what was typed. Raises InvalidValueError."""
    word = text.strip().lower()
    if word in _WORDS:
        return _WORDS[word]
    try:
        wanted = int(word)
    except ValueError as error:
        raise _refusal(text) from error
    check_rerank(wanted)
    return wanted


def _refusal(value: object) -> InvalidValueError:
    detail = f"it is 'auto', 'off', or how many hits to rerank: 1 to {MOST_CANDIDATES}"
    return InvalidValueError(f"rerank = {value}", detail)


@dataclass(frozen=True, eq=False)
class TextQuery:
    """What is looked for: a text, its unit vector [D], the encoder of that, and how much to rerank."""

    text: str
    vector: FloatArray
    encoder: EncoderSpec
    rerank: Rerank


@dataclass(frozen=True)
class Proposal:
    """A hit as the index found it: its best window and the cosine of that."""

    embedding_id: int
    similarity: float


@dataclass(frozen=True)
class Reranking:
    """What was done to order the hits of one search.

    applied: whether a reranker ordered them. If it did: which one, how many of the first hits it
    judged, how many of those it had to leave out because their vectors are damaged, in how many
    steps, and the weight of its probability in the score. If not: reason is a stable code ("off",
    "by-example", "nothing-to-order", "no-claim", or that of an error) and detail says it in words.
    took_s: what it cost, also where nothing came of it.
    """

    applied: bool = False
    reranker: str | None = None
    revision: str | None = None
    candidates: int = 0
    left_out: int = 0
    steps: int | None = None
    weight: float | None = None
    took_s: float = 0.0
    reason: str | None = None
    detail: str = ""

    def to_document(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return dict(vars(self))


BY_EXAMPLE = Reranking(reason="by-example", detail="only what is found by words is reranked")
_OFF = Reranking(reason="off", detail="not asked for")
_NOTHING = Reranking(reason="nothing-to-order", detail="nothing relevant was found")
_NO_CLAIM = Reranking(
    reason="no-claim",
    detail="the words claim nothing of order, time or loudness, so similarity orders best",
)
_ALL_DAMAGED = "the vectors of everything found are damaged"


@dataclass(frozen=True)
class Verdict:
    """What was done, and the joint probabilities by embedding id: of all that were judged."""

    reranking: Reranking
    probabilities: Mapping[int, float] = field(default_factory=dict)

    def score(self, proposal: Proposal) -> float:
        """The final score: the similarity alone for what was not judged."""
        probability = self.probabilities.get(proposal.embedding_id, 0.0)
        return proposal.similarity + (self.reranking.weight or 0.0) * probability


class SecondStage:
    """A reranker, or the reason why there is none, and how long it may take.

    Judges in threads of its own, at most `threads` searches at once, so that a reranker that is
    too slow holds up nobody. May be used by many threads; `close` lets go of its own.
    """

    def __init__(
        self,
        reranker: Reranker | ModelError,
        candidates: int = DEFAULT_CANDIDATES,
        budget_s: float = DEFAULT_BUDGET_S,
        threads: int = 1,
    ) -> None:
        self._reranker = reranker
        self._candidates = candidates
        self._budget_s = budget_s
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="rerank")

    @classmethod
    def load(
        cls, settings: Settings, load: Callable[[], Reranker], threads: int = 1
    ) -> SecondStage:
        """Load a reranker; if that fails, keep the reason for those who ask."""
        try:
            reranker: Reranker | ModelError = load()
        except ModelError as error:
            reranker = error
        return cls(reranker, settings.rerank_candidates, settings.rerank_budget_s, threads)

    @property
    def reranker(self) -> Reranker | None:
        """The reranker, if there is one."""
        return None if isinstance(self._reranker, ModelError) else self._reranker

    @property
    def problem(self) -> ModelError | None:
        """Why there is none."""
        return self._reranker if isinstance(self._reranker, ModelError) else None

    def count(self, rerank: Rerank, encoder: EncoderSpec) -> int:
        """How many hits are wanted for judging, 0 where none will be judged."""
        if rerank == "off" or self._misfit(encoder) is not None:
            return 0
        return self._candidates if rerank == "auto" else rerank

    def judge(
        self,
        session: Session,
        query: TextQuery,
        proposals: Sequence[Proposal],
    ) -> Verdict:
        """Judge the first of these hits, as many as `count` says, which come best first.

        Raises nothing of its own but what the store raises: what goes wrong is in the verdict.
        """
        if query.rerank == "off":
            return Verdict(_OFF)
        began = time.perf_counter()
        try:
            verdict = self._judge(session, query, proposals, began)
        except ModelError as error:
            verdict = Verdict(Reranking(reason=error.code, detail=str(error)))
        took_s = round(time.perf_counter() - began, 4)
        return replace(verdict, reranking=replace(verdict.reranking, took_s=took_s))

    def close(self) -> None:
        """Let go of the threads, without waiting for what they do."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _misfit(self, encoder: EncoderSpec) -> ModelError | None:
        if isinstance(self._reranker, ModelError):
            return self._reranker
        return misfit(self._reranker, encoder)

    def _judge(
        self,
        session: Session,
        query: TextQuery,
        proposals: Sequence[Proposal],
        began: float,
    ) -> Verdict:
        problem = self._misfit(query.encoder)
        if problem is not None:
            raise problem
        wanted = proposals[: self.count(query.rerank, query.encoder)]
        if not wanted:
            return Verdict(_NOTHING)
        judge = self._known()
        if not self._within(began, "reading the query", judge.applies_to, query.text):
            return Verdict(_NO_CLAIM)
        candidates = gather(session, [proposal.embedding_id for proposal in wanted])
        left_out = len(wanted) - len(candidates)
        if not len(candidates):
            return Verdict(replace(_NOTHING, left_out=left_out, detail=_ALL_DAMAGED))
        probabilities = self._ask(query, candidates, began)
        by_id = dict(zip(candidates.keys.tolist(), probabilities.tolist(), strict=True))
        return Verdict(self._done(len(candidates), left_out), by_id)

    def _ask(self, query: TextQuery, candidates: Candidates, began: float) -> FloatArray:
        """Ask the reranker for probabilities, and look at what it says."""
        reranker = self._known()
        # Of the stretch that is judged, as in training, not of the best window in it.
        cosines = np.clip(candidates.vectors @ query.vector, -1.0, 1.0)
        judge = reranker.joint_probability
        what = f"{len(candidates)} candidates"
        probabilities = self._within(began, what, judge, query.text, cosines, candidates)
        if probabilities.shape != (len(candidates),) or not np.isfinite(probabilities).all():
            raise BrokenCheckpointError(reranker.spec.name, "it gives no probabilities")
        return probabilities

    def _within(self, began: float, what: str, ask: Callable[..., Answer], *of: Any) -> Answer:
        """Ask in a thread of its own, and wait for as long as is left of the budget."""
        try:
            future = self._pool.submit(ask, *of)
        except RuntimeError as error:
            raise NoRerankerError(None, "it is being closed") from error
        try:
            left_s = self._budget_s - (time.perf_counter() - began)
            return future.result(max(0.0, left_s))
        except TimeoutError as error:
            # What no thread has begun yet is never done.
            future.cancel()
            raise RerankTimeoutError(f"{self._budget_s:g} s", what) from error

    def _done(self, judged: int, left_out: int) -> Reranking:
        reranker = self._known()
        spec = reranker.spec
        return Reranking(
            applied=True,
            reranker=spec.name,
            revision=spec.revision,
            candidates=judged,
            left_out=left_out,
            steps=spec.steps,
            weight=reranker.weight,
        )

    def _known(self) -> Reranker:
        if isinstance(self._reranker, ModelError):
            raise self._reranker
        return self._reranker


NO_SECOND_STAGE = SecondStage(NoRerankerError(None, "this search was given none"))


def misfit(reranker: Reranker, encoder: EncoderSpec) -> RerankerMismatchError | None:
    """Say why a reranker's answers about these vectors would mean nothing, or None."""
    spec = reranker.spec
    made_for = (spec.encoder_name, spec.encoder_revision, spec.dimension)
    if made_for == (encoder.name, encoder.revision, encoder.dimension):
        return None
    return RerankerMismatchError(
        f"{spec.name} {spec.revision[:12]}",
        f"it is for {spec.encoder_name} {spec.encoder_revision[:12]}, "
        f"the encoder is {encoder.name} {encoder.revision[:12]}",
    )


def gather(session: Session, ids: Sequence[int]) -> Candidates:
    """Fetch what a reranker is to see of hits, known by the embedding ids of their best windows.

    N candidates in the order of ids, without those that were deleted and those whose vectors are
    damaged (not finite, or zero). A candidate is what is heard from REACH_S before to REACH_S after
    its best window, as far as the recording goes: vectors [N, D] the mean of its windows, of unit
    norm; frames [N, S, D] one a second, of unit norm as far as they are kept with a byte a value.
    """
    found = embeddings.around(session, ids, REACH_S)
    norms = np.linalg.norm(found.vectors, axis=1)
    sound = np.isfinite(norms) & (norms > 0.0)
    keys = np.unique(found.centres[sound])
    owners = np.searchsorted(keys, found.centres)
    vectors = _means(found.vectors[sound] / norms[sound, None], owners[sound], len(keys))
    frames, lengths = _seconds(found, owners, sound, len(keys))
    wanted = np.asarray(ids, dtype=np.int64)
    order = np.searchsorted(keys, wanted[np.isin(wanted, keys)])
    return Candidates(keys[order], vectors[order], frames[order], lengths[order])


def _means(vectors: FloatArray, owners: IdArray, count: int) -> FloatArray:
    """Add up vectors [R, D], whose owners ascend, to unit sums [count, D]."""
    if not count:
        return np.zeros((0, vectors.shape[1]), dtype=np.float32)
    sums = np.add.reduceat(vectors, np.searchsorted(owners, np.arange(count)), axis=0)
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.asarray(sums / np.maximum(norms, 1e-12), dtype=np.float32)


def _seconds(
    found: Surroundings, owners: IdArray, sound: NDArray[np.bool_], count: int
) -> tuple[FloatArray, IdArray]:
    """Lay the frames of windows on the seconds of their candidates: [count, S, D], lengths [count].

    Where windows overlap a second is that of the earlier one; seconds of no window are closed up.
    """
    rows = np.repeat(np.arange(len(owners)), found.seconds)
    within = np.arange(len(rows)) - (np.cumsum(found.seconds) - found.seconds)[rows]
    second = np.round(found.starts_s).astype(np.int64)[rows] + within
    heard = second >= (found.centre_starts_s - REACH_S)[rows]
    heard &= second < (found.centre_ends_s + REACH_S)[rows]
    chosen = np.flatnonzero(heard & sound[rows])
    # Rows come in the order of time, and the sort is stable.
    chosen = chosen[np.lexsort((second[chosen], owners[rows[chosen]]))]
    owner, second = owners[rows[chosen]], second[chosen]
    is_first = np.ones(len(chosen), dtype=bool)
    is_first[1:] = (np.diff(owner) != 0) | (np.diff(second) != 0)
    owner, chosen = owner[is_first], chosen[is_first]
    lengths = np.bincount(owner, minlength=count).astype(np.int64)
    shape = (count, int(lengths.max(initial=0)), found.vectors.shape[1])
    frames = np.zeros(shape, dtype=np.float32)
    places = np.arange(len(owner)) - (np.cumsum(lengths) - lengths)[owner]
    frames[owner, places] = found.frames[chosen] / np.float32(FRAME_SCALE)
    return frames, lengths

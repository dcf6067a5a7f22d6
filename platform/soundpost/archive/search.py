"""Find the moments that sound like a text or like another sound.

A hit is a stretch of one recording, found by its windows, located to the second by the frames
that are kept of them, and judged by a relevance between 0 and 1. What is not relevant enough is
no hit: no result is better than a wrong one. Where recordings have captions, their words are asked
too; see `caption_search`. A second stage may put the hits of a text in another order; see `rerank`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from soundpost.archive.caption_search import (
    BY_SOUND,
    BY_WORDS,
    NO_WORDS,
    Words,
    cosines_of,
    find_words,
    fuse,
)
from soundpost.archive.frames import locate
from soundpost.archive.index import SearchIndex
from soundpost.archive.rerank import (
    BY_EXAMPLE,
    NO_SECOND_STAGE,
    Proposal,
    Rerank,
    Reranking,
    SecondStage,
    TextQuery,
    Verdict,
    check_rerank,
)
from soundpost.audio.decode import open_audio
from soundpost.audio.windows import cut_windows, resample
from soundpost.errors import (
    EmptyArchiveError,
    InvalidValueError,
    NoSamplesError,
    UnknownWindowError,
)
from soundpost.models.encoder import AudioTextEncoder
from soundpost.store import captions, embeddings, models, recordings, sources
from soundpost.store.caption_search import Filters
from soundpost.store.embeddings import EmbeddingDetail, IdArray, Span
from soundpost.store.session import Store

FloatArray = NDArray[np.float32]
Judge = Callable[[FloatArray], FloatArray]

MIN_SCORE = 0.3
TAGS_A_HIT = 3
LONGEST_QUERY = 1000
# Windows asked for at first, per wanted hit: neighbours merge, so more are needed than hits.
_OVERSAMPLE = 4
# One endless sound may fill any number of windows; so many are looked at, and no more.
_MOST_CANDIDATES = 16_384
# A query by example is the mean of at most this much audio.
LONGEST_EXAMPLE_S = 600.0


@dataclass(frozen=True)
class SearchOptions:
    """How much to find, where, and how relevant it must be.

    after and before select what was heard within [after, before) by the wall clock. rerank: how
    many of the first hits a second stage puts in order ("auto": as many as the settings say).
    """

    k: int = 10
    source: str | None = None
    after: datetime | None = None
    before: datetime | None = None
    min_score: float = MIN_SCORE
    rerank: Rerank = "auto"

    def check(self) -> None:
        """Raise InvalidValueError for values that make no sense."""
        if self.k < 1:
            raise InvalidValueError(f"k = {self.k}", "ask for at least one hit")
        if not 0.0 <= self.min_score <= 1.0:
            raise InvalidValueError(f"min-score = {self.min_score}", "it lies between 0 and 1")
        if self.after and self.before and self.after >= self.before:
            raise InvalidValueError(f"after {self.after}", f"it is not before {self.before}")
        check_rerank(self.rerank)

    @property
    def filtered(self) -> bool:
        """Whether only a part of the archive is asked for."""
        return self.source is not None or self.after is not None or self.before is not None


@dataclass(frozen=True)
class Hit:
    """A stretch of a recording that answers a query.

    start_s, end_s: where it is heard, seconds from the recording's start; peak_s: the second where
    it is clearest. relevance: calibrated, 0 to 1; similarity: the cosine behind it.
    joint_probability: how likely it is the one that is meant, among all that were judged together,
    None if it was not. score: what reranked hits are ordered by, similarity + weight *
    joint_probability; others come after them, by similarity and the words of captions. at: the wall
    clock at peak_s in the source's zone, None if the recording's start is unknown. matched: what
    found it, its sound, the words of a caption, or both. caption: the one with the words, else the
    window's best, if any.
    """

    recording_id: int
    path: str
    source: str
    start_s: float
    end_s: float
    peak_s: float
    at: datetime | None
    relevance: float
    similarity: float
    joint_probability: float | None
    score: float
    tags: tuple[tuple[str, float], ...]
    caption: str | None = None
    matched: tuple[str, ...] = (BY_SOUND,)

    def to_document(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        document = dict(vars(self))
        document["at"] = self.at.isoformat() if self.at else None
        document["tags"] = [{"label": label, "probability": p} for label, p in self.tags]
        document["matched"] = list(self.matched)
        return document


@dataclass(frozen=True)
class SearchResult:
    """What a search found, best first; `nearest` is the best there was if that is nothing.

    searched: how many windows could have been found. rerank: what ordered the hits.
    """

    hits: tuple[Hit, ...]
    nearest: Hit | None
    searched: int
    min_score: float
    rerank: Reranking

    def to_document(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return {
            "hits": [hit.to_document() for hit in self.hits],
            "nearest": self.nearest.to_document() if self.nearest else None,
            "searched": self.searched,
            "min_score": self.min_score,
            "rerank": self.rerank.to_document(),
        }


@dataclass(frozen=True)
class Example:
    """A sound to search by: its unit vector [D], and the recording to leave out, if it is one."""

    vector: FloatArray
    recording_id: int | None = None
    start_s: float = 0.0
    end_s: float = float("inf")


def search_text(
    text: str,
    options: SearchOptions,
    store: Store,
    encoder: AudioTextEncoder,
    index: SearchIndex,
    second_stage: SecondStage = NO_SECOND_STAGE,
) -> SearchResult:
    """Find what sounds like a text, in the order of the second stage where there is one.

    Where windows have captions, what is found by their words is ranked with it. Raises
    InvalidValueError for an empty, overlong or unreadable text and for options out of range,
    UnknownSourceError, EmptyArchiveError.
    """
    options.check()
    query, spec = _checked(text), encoder.spec
    judged = second_stage.count(options.rerank, spec)
    search = _Search(options, store, encoder, index, judged=judged, text=query)
    vector = encoder.embed_text([query])
    return search.run(
        vector[0],
        lambda cosines: encoder.relevance(vector, cosines[None])[0],
        partial(second_stage.judge, query=TextQuery(query, vector[0], spec, options.rerank)),
    )


def _checked(text: str) -> str:
    query = " ".join(text.split())
    if not query:
        raise InvalidValueError("an empty text", "say what to listen for, such as: dog barking")
    if len(query) > LONGEST_QUERY:
        raise InvalidValueError(f"a text of {len(query)} characters", f"at most {LONGEST_QUERY}")
    try:
        query.encode()
    except UnicodeEncodeError as error:
        raise InvalidValueError(ascii(query), "this is not Unicode: send UTF-8") from error
    return query


def search_similar(
    example: Example,
    options: SearchOptions,
    store: Store,
    encoder: AudioTextEncoder,
    index: SearchIndex,
) -> SearchResult:
    """Find what sounds like an example; the example's own stretch is not a hit.

    Between sounds the cosine itself is the relevance (below 0 it is 0): the calibration of an
    encoder is for texts, and so is reranking. Raises like search_text.
    """
    options.check()
    search = _Search(options, store, encoder, index, example)
    return search.run(
        example.vector,
        lambda cosines: np.clip(cosines, 0.0, 1.0),
        lambda session, proposals: Verdict(BY_EXAMPLE),
    )


def example_from_file(
    path: Path,
    encoder: AudioTextEncoder,
    start_s: float = 0.0,
    end_s: float | None = None,
    recording_id: int | None = None,
) -> Example:
    """Embed a stretch of a file, at most ten minutes of it: the mean of its windows.

    Raises an AudioError where it cannot be read, NoSamplesError where nothing lies there.
    """
    spec = encoder.spec
    limit_s = min(end_s if end_s is not None else float("inf"), start_s + LONGEST_EXAMPLE_S)
    total = np.zeros(spec.dimension, dtype=np.float32)
    with open_audio(path, start_s=start_s, end_s=limit_s) as stream:
        rate_hz = stream.info.sample_rate_hz
        for cut in cut_windows(stream, rate_hz, spec.window_s, spec.hop_s):
            wave = resample(cut.samples, rate_hz, spec.sample_rate_hz)
            total += encoder.embed_audio(wave[None])[0]
    norm = float(np.linalg.norm(total))
    if norm == 0.0:
        raise NoSamplesError(path, f"nothing lies at {start_s:g} s")
    return Example(total / norm, recording_id, start_s, end_s if end_s is not None else limit_s)


def example_from_embedding(embedding_id: int, encoder: AudioTextEncoder, store: Store) -> Example:
    """Take the vector of a window that is embedded already.

    Raises UnknownWindowError if there is none, or it is another model's.
    """
    spec = encoder.spec
    with store.reading() as session:
        vector = embeddings.vector_of(session, embedding_id)
        found = embeddings.details(session, [embedding_id])
        model = models.find(session, spec.name, spec.revision)
    if vector is None or not found or model is None or found[0].model_id != model.id:
        raise UnknownWindowError(embedding_id)
    return Example(vector, found[0].recording_id, found[0].start_s, found[0].end_s)


class _Found(NamedTuple):
    """One window that answers a query. A search has thousands of them."""

    relevance: float
    similarity: float
    span: Span


class _Group(NamedTuple):
    """Windows of a recording that overlap or touch: one hit. matched: what found them."""

    windows: Sequence[_Found]
    best: _Found
    matched: tuple[str, ...] = (BY_SOUND,)

    @property
    def ids(self) -> list[int]:
        """The embeddings of its windows."""
        return [item.span.embedding_id for item in self.windows]

    @property
    def proposal(self) -> Proposal:
        """What the second stage is told of it."""
        return Proposal(self.best.span.embedding_id, self.best.similarity)


_RANK = itemgetter(0, 1)


def _order(group: _Group) -> tuple[float, float, int]:
    """Less comes first."""
    best = group.best
    return -best.relevance, -best.similarity, best.span.recording_id


class _SecondStage(Protocol):
    """What may change the order of hits."""

    def __call__(self, session: Session, *, proposals: Sequence[Proposal]) -> Verdict: ...


class _Search:
    """One search: asks the index for more until there are enough hits or none are left.

    judged: how many hits the second stage is going to judge. text: what captions are asked for,
    "" to ask none.
    """

    def __init__(
        self,
        options: SearchOptions,
        store: Store,
        encoder: AudioTextEncoder,
        index: SearchIndex,
        example: Example | None = None,
        judged: int = 0,
        text: str = "",
    ) -> None:
        self._options = options
        self._store = store
        self._encoder = encoder
        self._index = index
        self._example = example
        self._wanted = max(options.k, judged)
        self._text = text

    def run(self, vector: FloatArray, judge: Judge, second: _SecondStage) -> SearchResult:
        """Search with a unit vector [D].

        judge turns cosines [K] into relevances [K]; second judges the hits that came of it.
        """
        options = self._options
        with self._store.reading() as session:
            model_id, allowed = self._allowed(session)
            available = len(self._index) if allowed is None else len(allowed)
            found, groups = self._widen(session, vector, judge, allowed, available)
            words = self._words(session, model_id)
            if words.matches:
                groups = self._fuse(session, vector, judge, found, words)
            verdict = second(session, proposals=[group.proposal for group in groups])
            shown = _reorder(groups, verdict)[: options.k]
            nearest = [_Group(found[:1], found[0])] if found and not groups else []
            hits = _describe(session, [*shown, *nearest], vector, verdict, words)
        return SearchResult(
            hits=tuple(hits[: len(shown)]),
            nearest=hits[-1] if nearest and hits else None,
            searched=available,
            min_score=options.min_score,
            rerank=verdict.reranking,
        )

    def _allowed(self, session: Session) -> tuple[int, IdArray | None]:
        """Return the model that is searched and its embeddings that meet the filters."""
        spec = self._encoder.spec
        model = models.find(session, spec.name, spec.revision)
        if model is None or embeddings.count(session, model.id) == 0:
            raise EmptyArchiveError(None, self._why_empty(session))
        options = self._options
        if options.source is not None:
            sources.by_name(session, options.source)
        if not options.filtered:
            return model.id, None
        return model.id, embeddings.allowed_ids(
            session, model.id, options.source, options.after, options.before
        )

    def _words(self, session: Session, model_id: int) -> Words:
        if not self._text:
            return NO_WORDS
        options = self._options
        filters = Filters(model_id, options.source, options.after, options.before)
        return find_words(session, self._text, self._wanted * _OVERSAMPLE, filters)

    def _fuse(
        self,
        session: Session,
        vector: FloatArray,
        judge: Judge,
        found: Sequence[_Found],
        words: Words,
    ) -> list[_Group]:
        """Join what the index found relevant with what captions say, in one order.

        What words alone found is judged by its sound as well, and shown whatever that says.
        """
        relevant = {item.span.embedding_id: item for item in found if self._is_relevant(item)}
        unheard = [match.embedding_id for match in words.whole]
        unheard = [embedding_id for embedding_id in unheard if embedding_id not in relevant]
        cosines = cosines_of(session, unheard, vector)
        by_words = self._judged(session, cosines, judge)
        groups = [
            group._replace(matched=_matched(group, relevant, words))
            for group in _merge([*relevant.values(), *by_words])
        ]
        return _fused(groups, words)

    def _is_relevant(self, item: _Found) -> bool:
        return item.relevance >= self._options.min_score

    def _why_empty(self, session: Session) -> str:
        there = recordings.count(session, status="embedded")
        if not there:
            return ""
        name = f"{self._encoder.spec.name} {self._encoder.spec.revision[:12]}"
        return f"{there} recordings are there, but none is embedded by {name}: ingest them again"

    def _widen(
        self,
        session: Session,
        vector: FloatArray,
        judge: Judge,
        allowed: IdArray | None,
        available: int,
    ) -> tuple[list[_Found], list[_Group]]:
        """Return what the index found, best first, and the hits that the relevant of it make."""
        wanted = self._wanted * _OVERSAMPLE
        while True:
            count = min(wanted, available, _MOST_CANDIDATES)
            found = self._find(session, vector, judge, allowed, count)
            relevant = [item for item in found if self._is_relevant(item)]
            groups = _merge(relevant)
            enough = len(groups) >= self._wanted or len(relevant) < len(found)
            if enough or count in (available, _MOST_CANDIDATES):
                return found, groups
            wanted *= 4

    def _find(
        self,
        session: Session,
        vector: FloatArray,
        judge: Judge,
        allowed: IdArray | None,
        count: int,
    ) -> list[_Found]:
        if count == 0:
            return []
        neighbours = self._index.search(vector[None], count, allowed)
        pairs = zip(neighbours.ids[0].tolist(), neighbours.scores[0].tolist(), strict=True)
        # A damaged vector has no cosine with anything.
        scores = {embedding_id: score for embedding_id, score in pairs if math.isfinite(score)}
        return sorted(self._judged(session, scores, judge), key=_RANK, reverse=True)

    def _judged(self, session: Session, scores: Mapping[int, float], judge: Judge) -> list[_Found]:
        """Find out where embeddings lie and how relevant their cosines are."""
        spans = embeddings.spans(session, list(scores))
        cosines = np.array([scores[span.embedding_id] for span in spans], dtype=np.float32)
        relevances = judge(cosines) if spans else cosines
        return [
            _Found(relevance, cosine, span)
            for span, cosine, relevance in zip(
                spans, cosines.tolist(), relevances.tolist(), strict=True
            )
            if not self._is_example(span)
        ]

    def _is_example(self, span: Span) -> bool:
        example = self._example
        if example is None or span.recording_id != example.recording_id:
            return False
        return span.start_s < example.end_s and span.end_s > example.start_s


def _merge(found: Sequence[_Found]) -> list[_Group]:
    """Merge the windows of a recording that overlap or touch; best first."""
    ordered = sorted(found, key=lambda item: (item.span.recording_id, item.span.start_s))
    rows: list[list[_Found]] = []
    for item in ordered:
        if rows and _touches(rows[-1][-1].span, item.span):
            rows[-1].append(item)
        else:
            rows.append([item])
    groups = [_Group(row, max(row, key=_RANK)) for row in rows]
    return sorted(groups, key=_order)


def _matched(group: _Group, relevant: Mapping[int, _Found], words: Words) -> tuple[str, ...]:
    by_sound = any(embedding_id in relevant for embedding_id in group.ids)
    by_words = words.place(group.ids) is not None
    return (BY_SOUND,) * by_sound + (BY_WORDS,) * by_words


def _fused(groups: Sequence[_Group], words: Words) -> list[_Group]:
    """Order hits by both rankings; those that are equal in it by their sound."""
    ordered = sorted(groups, key=_order)
    by_id = {group.best.span.embedding_id: group for group in ordered}
    places = {key: words.place(group.ids) for key, group in by_id.items()}
    by_sound = [key for key, group in by_id.items() if BY_SOUND in group.matched]
    said = {key: place for key, place in places.items() if place is not None}
    scores = fuse(by_sound, sorted(said, key=said.__getitem__))
    # Sorting keeps the order of what is equal.
    return [by_id[key] for key in sorted(by_id, key=lambda key: -scores[key])]


def _touches(one: Span, other: Span) -> bool:
    return one.recording_id == other.recording_id and other.start_s <= one.end_s


def _reorder(groups: Sequence[_Group], verdict: Verdict) -> list[_Group]:
    """Put what was judged first, by its final score, and leave the rest as it is behind it."""
    judged = [g for g in groups if g.best.span.embedding_id in verdict.probabilities]
    others = [g for g in groups if g.best.span.embedding_id not in verdict.probabilities]
    by_score = sorted(judged, key=lambda group: (-verdict.score(group.proposal), _order(group)))
    return [*by_score, *others]


def _describe(
    session: Session,
    groups: Sequence[_Group],
    query: FloatArray,
    verdict: Verdict,
    words: Words,
) -> list[Hit]:
    """Fetch what is shown of hits, and only of those; one that was deleted meanwhile is left out."""
    ids = [item.span.embedding_id for group in groups for item in group.windows]
    found = {detail.embedding_id: detail for detail in embeddings.details(session, ids)}
    whole = [g for g in groups if all(item.span.embedding_id in found for item in g.windows)]
    said = _captions(session, whole, found, words)
    return [_hit(group, found, query, verdict, said) for group in whole]


def _captions(
    session: Session,
    groups: Sequence[_Group],
    details: Mapping[int, EmbeddingDetail],
    words: Words,
) -> dict[int, str]:
    """Return the caption to show of each hit that has one, by the embedding of its best window."""
    shown = [details[group.best.span.embedding_id] for group in groups]
    own = (
        captions.best(session, [one.window_id for one in shown], shown[0].model_id) if shown else {}
    )
    said = {one.embedding_id: own[one.window_id] for one in shown if one.window_id in own}
    for group in groups:
        match = words.best_of(group.ids)
        if match is not None:
            said[group.best.span.embedding_id] = match.text
    return said


def _hit(
    group: _Group,
    details: Mapping[int, EmbeddingDetail],
    query: FloatArray,
    verdict: Verdict,
    said: Mapping[int, str],
) -> Hit:
    """Join neighbouring windows: the span of all, everything else of the best."""
    heard = [_stretch(details[item.span.embedding_id], query) for item in group.windows]
    best = group.best
    detail = details[best.span.embedding_id]
    peak_s = min(detail.start_s + locate(detail.frames, query).peak_s, detail.end_s)
    probability = verdict.probabilities.get(detail.embedding_id)
    return Hit(
        recording_id=detail.recording_id,
        path=detail.path,
        source=detail.source,
        start_s=round(min(start_s for start_s, _ in heard), 3),
        end_s=round(max(end_s for _, end_s in heard), 3),
        peak_s=round(peak_s, 3),
        at=_wall_clock(detail, peak_s),
        relevance=round(best.relevance, 4),
        similarity=round(best.similarity, 4),
        joint_probability=None if probability is None else round(probability, 6),
        score=round(verdict.score(group.proposal), 4),
        tags=detail.tags[:TAGS_A_HIT],
        caption=said.get(detail.embedding_id),
        matched=group.matched,
    )


def _stretch(detail: EmbeddingDetail, query: FloatArray) -> tuple[float, float]:
    """Say where in its recording a window's part lies in which the query is heard."""
    place = locate(detail.frames, query)
    return detail.start_s + place.start_s, min(detail.end_s, detail.start_s + place.end_s)


def _wall_clock(detail: EmbeddingDetail, offset_s: float) -> datetime | None:
    if detail.started_at is None:
        return None
    moment = detail.started_at + timedelta(seconds=offset_s)
    return moment.astimezone(ZoneInfo(detail.timezone))

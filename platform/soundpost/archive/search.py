"""Find the moments that sound like a text or like another sound.

A hit is a stretch of one recording, found by its windows, located to the second by the frames
that are kept of them, and judged by a relevance between 0 and 1. What is not relevant enough is
no hit: no result is better than a wrong one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from soundpost.archive.frames import Place, locate
from soundpost.archive.index import SearchIndex
from soundpost.audio.decode import open_audio
from soundpost.audio.windows import cut_windows, resample
from soundpost.errors import (
    EmptyArchiveError,
    InvalidValueError,
    NoSamplesError,
    UnknownWindowError,
)
from soundpost.models.encoder import AudioTextEncoder
from soundpost.store import embeddings, models, recordings, sources
from soundpost.store.embeddings import EmbeddingDetail, IdArray
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

    after and before select what was heard within [after, before) by the wall clock.
    """

    k: int = 10
    source: str | None = None
    after: datetime | None = None
    before: datetime | None = None
    min_score: float = MIN_SCORE

    def check(self) -> None:
        """Raise InvalidValueError for values that make no sense."""
        if self.k < 1:
            raise InvalidValueError(f"k = {self.k}", "ask for at least one hit")
        if not 0.0 <= self.min_score <= 1.0:
            raise InvalidValueError(f"min-score = {self.min_score}", "it lies between 0 and 1")
        if self.after and self.before and self.after >= self.before:
            raise InvalidValueError(f"after {self.after}", f"it is not before {self.before}")

    @property
    def filtered(self) -> bool:
        """Whether only a part of the archive is asked for."""
        return self.source is not None or self.after is not None or self.before is not None


@dataclass(frozen=True)
class Hit:
    """A stretch of a recording that answers a query.

    start_s, end_s: where it is heard, seconds from the recording's start; peak_s: the second where
    it is clearest. relevance: calibrated, 0 to 1; similarity: the cosine behind it. at: the wall
    clock at peak_s in the source's zone, None if the recording's start is unknown.
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
    tags: tuple[tuple[str, float], ...]

    def to_document(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        document = dict(vars(self))
        document["at"] = self.at.isoformat() if self.at else None
        document["tags"] = [{"label": label, "probability": p} for label, p in self.tags]
        return document


@dataclass(frozen=True)
class SearchResult:
    """What a search found, best first; `nearest` is the best there was if that is nothing.

    searched: how many windows could have been found.
    """

    hits: tuple[Hit, ...]
    nearest: Hit | None
    searched: int
    min_score: float

    def to_document(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return {
            "hits": [hit.to_document() for hit in self.hits],
            "nearest": self.nearest.to_document() if self.nearest else None,
            "searched": self.searched,
            "min_score": self.min_score,
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
) -> SearchResult:
    """Find what sounds like a text.

    Raises InvalidValueError for an empty or overlong text and for options out of range,
    UnknownSourceError, EmptyArchiveError.
    """
    query = " ".join(text.split())
    if not query:
        raise InvalidValueError("an empty text", "say what to listen for, such as: dog barking")
    if len(query) > LONGEST_QUERY:
        raise InvalidValueError(f"a text of {len(query)} characters", f"at most {LONGEST_QUERY}")
    search = _Search(options, store, encoder, index)
    vector = encoder.embed_text([query])
    return search.run(vector[0], lambda cosines: encoder.relevance(vector, cosines[None])[0])


def search_similar(
    example: Example,
    options: SearchOptions,
    store: Store,
    encoder: AudioTextEncoder,
    index: SearchIndex,
) -> SearchResult:
    """Find what sounds like an example; the example's own stretch is not a hit.

    Between sounds the cosine itself is the relevance (below 0 it is 0): the calibration of an
    encoder is for texts. Raises like search_text.
    """
    search = _Search(options, store, encoder, index, example)
    return search.run(example.vector, lambda cosines: np.clip(cosines, 0.0, 1.0))


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


@dataclass(frozen=True)
class _Found:
    """One window that answers a query, and where in it."""

    detail: EmbeddingDetail
    similarity: float
    relevance: float
    place: Place

    @property
    def start_s(self) -> float:
        return self.detail.start_s + self.place.start_s

    @property
    def end_s(self) -> float:
        return min(self.detail.end_s, self.detail.start_s + self.place.end_s)


class _Search:
    """One search: asks the index for more until there are enough hits or none are left."""

    def __init__(
        self,
        options: SearchOptions,
        store: Store,
        encoder: AudioTextEncoder,
        index: SearchIndex,
        example: Example | None = None,
    ) -> None:
        options.check()
        self._options = options
        self._store = store
        self._encoder = encoder
        self._index = index
        self._example = example

    def run(self, vector: FloatArray, judge: Judge) -> SearchResult:
        """Search with a unit vector [D]; judge turns cosines [K] into relevances [K]."""
        with self._store.reading() as session:
            allowed = self._allowed(session)
            available = len(self._index) if allowed is None else len(allowed)
            found = self._widen(session, vector, judge, allowed, available)
            hits = _merge([item for item in found if item.relevance >= self._options.min_score])
            nearest = _hit([found[0]]) if found and not hits else None
        wanted = tuple(hits[: self._options.k])
        return SearchResult(wanted, nearest, available, self._options.min_score)

    def _allowed(self, session: Session) -> IdArray | None:
        spec = self._encoder.spec
        model = models.find(session, spec.name, spec.revision)
        if model is None or embeddings.count(session, model.id) == 0:
            raise EmptyArchiveError(None, self._why_empty(session))
        options = self._options
        if options.source is not None:
            sources.by_name(session, options.source)
        if not options.filtered:
            return None
        return embeddings.allowed_ids(
            session, model.id, options.source, options.after, options.before
        )

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
    ) -> list[_Found]:
        wanted = self._options.k * _OVERSAMPLE
        while True:
            count = min(wanted, available, _MOST_CANDIDATES)
            found = self._find(session, vector, judge, allowed, count)
            relevant = [item for item in found if item.relevance >= self._options.min_score]
            enough = len(_merge(relevant)) >= self._options.k or len(relevant) < len(found)
            if enough or count in (available, _MOST_CANDIDATES):
                return found
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
        scores = {embedding_id: score for embedding_id, score in pairs if embedding_id >= 0}
        details = embeddings.details(session, list(scores))
        cosines = np.array([scores[detail.embedding_id] for detail in details], dtype=np.float32)
        relevances = judge(cosines) if details else cosines
        found = [
            _Found(detail, float(cosine), float(relevance), locate(detail.frames, vector))
            for detail, cosine, relevance in zip(details, cosines, relevances, strict=True)
            if not self._is_example(detail)
        ]
        return sorted(found, key=lambda item: (-item.relevance, -item.similarity))

    def _is_example(self, detail: EmbeddingDetail) -> bool:
        example = self._example
        if example is None or detail.recording_id != example.recording_id:
            return False
        return detail.start_s < example.end_s and detail.end_s > example.start_s


def _merge(found: Sequence[_Found]) -> list[Hit]:
    """Merge the windows of a recording that overlap or touch; best hit first."""
    ordered = sorted(found, key=lambda item: (item.detail.recording_id, item.detail.start_s))
    groups: list[list[_Found]] = []
    for item in ordered:
        if groups and _touches(groups[-1][-1].detail, item.detail):
            groups[-1].append(item)
        else:
            groups.append([item])
    hits = [_hit(group) for group in groups]
    return sorted(hits, key=lambda hit: (-hit.relevance, -hit.similarity, hit.recording_id))


def _touches(one: EmbeddingDetail, other: EmbeddingDetail) -> bool:
    return one.recording_id == other.recording_id and other.start_s <= one.end_s


def _hit(group: Sequence[_Found]) -> Hit:
    """Join neighbouring windows: the span of all, everything else of the best."""
    best = max(group, key=lambda item: (item.relevance, item.similarity))
    detail = best.detail
    peak_s = min(detail.start_s + best.place.peak_s, detail.end_s)
    return Hit(
        recording_id=detail.recording_id,
        path=detail.path,
        source=detail.source,
        start_s=round(min(item.start_s for item in group), 3),
        end_s=round(max(item.end_s for item in group), 3),
        peak_s=round(peak_s, 3),
        at=_wall_clock(detail, peak_s),
        relevance=round(best.relevance, 4),
        similarity=round(best.similarity, 4),
        tags=detail.tags[:TAGS_A_HIT],
    )


def _wall_clock(detail: EmbeddingDetail, offset_s: float) -> datetime | None:
    if detail.started_at is None:
        return None
    moment = detail.started_at + timedelta(seconds=offset_s)
    return moment.astimezone(ZoneInfo(detail.timezone))

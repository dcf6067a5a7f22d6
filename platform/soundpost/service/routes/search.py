"""Searching by text, by an example, and by a window that is there already."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from fastapi import APIRouter

from soundpost.archive import search
from soundpost.archive.search import Example, SearchOptions, example_from_embedding
from soundpost.errors import (
    AudioError,
    BusyError,
    EmptyArchiveError,
    FileChangedError,
    FileMissingError,
    MalformedRequestError,
    ModelError,
    NoSamplesError,
    SearchTimeoutError,
    SoundpostError,
    UnknownRecordingError,
    UnknownSourceError,
    UnknownWindowError,
    UploadTooLargeError,
    VectorIndexError,
)
from soundpost.service.admission import check_example, renamed
from soundpost.service.forms import Received, form_body
from soundpost.service.limits import SmallBodyRoute
from soundpost.service.metrics import Metrics, ServiceMetrics
from soundpost.service.parts import Parts, ServiceParts
from soundpost.service.problems import answers
from soundpost.service.routes.recordings import UPLOAD_ERRORS, ReceivedUpload
from soundpost.service.schemas import (
    ExampleQuery,
    SearchFilters,
    SearchResult,
    TextQuery,
    WindowQuery,
)
from soundpost.service.views import show_result
from soundpost.store import recordings

router = APIRouter(prefix="/v1/search", tags=["search"])
# Separate: the forms of examples are not read into memory.
json_router = APIRouter(prefix="/v1/search", tags=["search"], route_class=SmallBodyRoute)

_ERRORS = (
    UnknownSourceError,
    EmptyArchiveError,
    BusyError,
    ModelError,
    VectorIndexError,
    SearchTimeoutError,
)
_BODY_ERRORS = (MalformedRequestError, UploadTooLargeError)


@json_router.post("/text", responses=answers(*_ERRORS, *_BODY_ERRORS))
async def search_text(
    query: TextQuery, parts: ServiceParts, metrics: ServiceMetrics
) -> SearchResult:
    """Find what sounds like a text."""
    options = replace(_options(query), rerank=query.rerank)
    work = partial(
        search.search_text,
        query.text,
        options,
        parts.store,
        parts.encoder,
        parts.index,
        parts.second_stage,
    )
    result = await _run("text", work, query, parts, metrics)
    metrics.observe_reranking(result.rerank)
    return result


@router.post(
    "/audio",
    responses=answers(*_ERRORS, *UPLOAD_ERRORS),
    openapi_extra=form_body(ExampleQuery),
)
async def search_audio(
    received: ReceivedUpload, parts: ServiceParts, metrics: ServiceMetrics
) -> SearchResult:
    """Find what sounds like an example, of which the beginning of the stretch counts."""
    query = received.read_fields(ExampleQuery)
    make = partial(_example_from_upload, received, query, parts)
    work = partial(_search_similar, make, _options(query), parts)
    return await _run("audio", work, query, parts, metrics)


@json_router.post(
    "/window",
    responses=answers(
        *_ERRORS,
        *_BODY_ERRORS,
        UnknownWindowError,
        UnknownRecordingError,
        FileMissingError,
        FileChangedError,
        NoSamplesError,
        AudioError,
    ),
)
async def search_window(
    query: WindowQuery, parts: ServiceParts, metrics: ServiceMetrics
) -> SearchResult:
    """Find what sounds like a window, or like a stretch of a recording; it is no hit itself."""
    make = partial(_example_from_archive, query, parts)
    work = partial(_search_similar, make, _options(query), parts)
    return await _run("window", work, query, parts, metrics)


async def _run(
    kind: str,
    work: Callable[[], search.SearchResult],
    query: SearchFilters,
    parts: Parts,
    metrics: Metrics,
) -> SearchResult:
    """Search in a thread, within the time there is."""
    longest_s = parts.settings.search_timeout_s
    began, outcome = time.perf_counter(), "unexpected"
    try:
        result = await parts.searches.run(work, min(query.timeout_s or longest_s, longest_s))
        outcome = "ok"
    except SoundpostError as error:
        outcome = error.code
        raise
    finally:
        took_s = time.perf_counter() - began
        metrics.observe_search(kind, outcome, took_s)
    return show_result(result, took_s)


def _options(query: SearchFilters) -> SearchOptions:
    options = SearchOptions(
        k=query.k,
        source=query.source,
        after=query.after,
        before=query.before,
        min_score=query.min_score,
    )
    options.check()
    return options


def _search_similar(
    make: Callable[[], Example], options: SearchOptions, parts: Parts
) -> search.SearchResult:
    return search.search_similar(make(), options, parts.store, parts.encoder, parts.index)


def _example_from_upload(received: Received, query: ExampleQuery, parts: Parts) -> Example:
    path = check_example(received)
    end_s = _end_s(query.start_s, query.end_s, parts)
    try:
        return search.example_from_file(path, parts.encoder, query.start_s, end_s)
    except AudioError as error:
        raise renamed(error, received.name) from error


def _example_from_archive(query: WindowQuery, parts: Parts) -> Example:
    if query.recording_id is None:
        return example_from_embedding(query.embedding_id or 0, parts.encoder, parts.store)
    with parts.store.reading() as session:
        recording = recordings.get(session, query.recording_id)
    if recording.sha256 is None:
        raise FileMissingError(recording.id, "this file never became a recording")
    path = parts.objects.open_local(recording)
    end_s = _end_s(query.start_s, query.end_s, parts)
    return search.example_from_file(path, parts.encoder, query.start_s, end_s, recording.id)


def _end_s(start_s: float, end_s: float | None, parts: Parts) -> float:
    longest_s = start_s + parts.settings.example_s
    return longest_s if end_s is None else min(end_s, longest_s)

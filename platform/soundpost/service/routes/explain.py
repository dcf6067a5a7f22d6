"""Explaining how two recordings differ, findings in words, and captions of recordings."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Path, Query

from soundpost.errors import (
    AudioError,
    AudioStoreError,
    BusyError,
    ExplainTimeoutError,
    FileChangedError,
    FileMissingError,
    MalformedRequestError,
    ModelError,
    NoSamplesError,
    TooLongError,
    UnknownFindingError,
    UnknownRecordingError,
    UploadTooLargeError,
)
from soundpost.service.admission import check_example, renamed
from soundpost.service.cursors import read_cursor, write_cursor
from soundpost.service.explain_schemas import (
    Caption,
    ExplainQuery,
    ExplainUpload,
    Explanation,
    Stretch,
)
from soundpost.service.explain_views import show_caption, show_explanation
from soundpost.service.forms import Received, form_body
from soundpost.service.limits import SmallBodyRoute
from soundpost.service.parts import Parts, ServiceParts
from soundpost.service.problems import answers
from soundpost.service.routes.recordings import (
    UPLOAD_ERRORS,
    Cursor,
    ReceivedUpload,
    RecordingId,
)
from soundpost.service.schemas import LARGEST_ID, LARGEST_PAGE, Job, Page
from soundpost.service.views import show_job
from soundpost.service.watch_schemas import Finding
from soundpost.service.watch_views import show_finding
from soundpost.store import captions, explanations, models, recordings

if TYPE_CHECKING:
    from soundpost.explain.between import Part
    from soundpost.explain.difference import Explanation as Made

router = APIRouter(prefix="/v1", tags=["explanations"])
# Separate: the forms of recordings are not read into memory.
json_router = APIRouter(prefix="/v1", tags=["explanations"], route_class=SmallBodyRoute)

FindingId = Annotated[int, Path(ge=1, le=LARGEST_ID)]
Windows = Annotated[
    int,
    Query(ge=1, le=LARGEST_PAGE, description="Windows a page at most; each has several captions."),
]
_ERRORS = (
    UnknownRecordingError,
    FileMissingError,
    FileChangedError,
    NoSamplesError,
    TooLongError,
    AudioError,
    AudioStoreError,
    BusyError,
    ModelError,
    ExplainTimeoutError,
)


@json_router.post(
    "/explain", responses=answers(*_ERRORS, MalformedRequestError, UploadTooLargeError)
)
async def explain(query: ExplainQuery, parts: ServiceParts) -> Explanation:
    """Say how the second stretch differs from the first, with every claim checked."""
    work = partial(_explain_stretches, query, parts)
    return await _run(work, parts)


@router.post(
    "/explain/audio",
    responses=answers(*_ERRORS, *UPLOAD_ERRORS),
    openapi_extra=form_body(ExplainUpload),
)
async def explain_audio(received: ReceivedUpload, parts: ServiceParts) -> Explanation:
    """Say how an upload, which is not kept, differs from a recording that is there."""
    query = received.read_fields(ExplainUpload)
    work = partial(_explain_upload, received, query, parts)
    return await _run(work, parts)


@router.get("/findings/{finding_id}", responses=answers(UnknownFindingError))
def get_finding(finding_id: FindingId, parts: ServiceParts) -> Finding:
    """Look at a finding with its explanation and its claims."""
    with parts.store.reading() as session:
        return show_finding(session, explanations.finding(session, finding_id))


@router.get("/recordings/{recording_id}/captions", responses=answers(UnknownRecordingError))
def list_captions(
    recording_id: RecordingId, parts: ServiceParts, limit: Windows = 100, cursor: Cursor = None
) -> Page[Caption]:
    """List what the windows that the active model embedded sound like, in words.

    Empty until the recording is captioned.
    """
    after_id = read_cursor(cursor, "captions", newest_first=False) or 0
    spec = parts.encoder.spec
    with parts.store.reading() as session:
        recordings.get(session, recording_id)
        model = models.find(session, spec.name, spec.revision)
        if model is None:
            return Page(items=[])
        rows = captions.of_recording(
            session,
            recording_id,
            model_id=model.id,
            after_window_id=after_id,
            windows=limit + 1,
        )
    found = sorted({row.window_id for row in rows})
    items = [show_caption(row) for row in rows if row.window_id in found[:limit]]
    more = len(found) > limit
    return Page(
        items=items, next=write_cursor("captions", found[limit - 1], False) if more else None
    )


@router.post(
    "/recordings/{recording_id}/captions",
    status_code=202,
    responses=answers(UnknownRecordingError),
)
def caption_recording(recording_id: RecordingId, parts: ServiceParts) -> Job:
    """Have a worker put a recording into words; what is in words already is left as it is."""
    with parts.store.session() as session:
        recording = recordings.get(session, recording_id)
        return show_job(parts.queue.caption(session, recording.id, recording.source_id))


async def _run(work: Callable[[], Made], parts: Parts) -> Explanation:
    """Explain in a thread, within the time there is."""
    began = time.perf_counter()
    made = await parts.explanations.run(work, parts.settings.explain_timeout_s)
    return show_explanation(made, time.perf_counter() - began)


def _explain_stretches(query: ExplainQuery, parts: Parts) -> Made:
    from soundpost.explain.between import explain_parts

    first, second = _part(query.first, parts), _part(query.second, parts)
    return explain_parts(parts.store, parts.explainer(), first, second, query.tiers)


def _explain_upload(received: Received, query: ExplainUpload, parts: Parts) -> Made:
    from soundpost.explain.between import Part, explain_parts

    reference = Stretch(
        recording_id=query.recording_id,
        start_s=query.reference_start_s,
        end_s=query.reference_end_s,
    )
    first = _part(reference, parts)
    second = Part(check_example(received), query.start_s, query.end_s, received.name)
    tiers = (query.tier,) if query.tier is not None else (1, 2, 3)
    try:
        return explain_parts(parts.store, parts.explainer(), first, second, tiers)
    except AudioError as error:
        # The path of an upload is no name that its sender knows.
        raise (renamed(error, received.name) if _is_of(error, received) else error) from error


def _is_of(error: AudioError, received: Received) -> bool:
    return str(error.value) == str(received.path)


def _part(stretch: Stretch, parts: Parts) -> Part:
    # Not with the service: it takes seconds to import, and most are never asked to explain.
    from soundpost.explain.between import Part

    with parts.store.reading() as session:
        recording = recordings.get(session, stretch.recording_id)
    if recording.sha256 is None:
        raise FileMissingError(recording.id, "this file never became a recording")
    path = parts.objects.open_local(recording)
    return Part(path, stretch.start_s, stretch.end_s, f"recording {recording.id}")

"""Recordings: upload, list, look at, delete."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from soundpost.errors import (
    AudioError,
    AudioStoreError,
    DecodeError,
    DiskFullError,
    EmptyFileError,
    ImplausibleLengthError,
    InvalidValueError,
    MalformedRequestError,
    NoAudioStreamError,
    NoSamplesError,
    NotAudioError,
    QueueFullError,
    TooLongError,
    TruncatedError,
    UnknownRecordingError,
    UnknownSourceError,
    UnsupportedRateError,
    UploadTooLargeError,
)
from soundpost.service.admission import Admission
from soundpost.service.cursors import read_cursor, write_cursor
from soundpost.service.forms import Received, form_body, receive_file
from soundpost.service.parts import Parts, ServiceParts
from soundpost.service.problems import answers
from soundpost.service.schemas import (
    LARGEST_ID,
    LARGEST_PAGE,
    Moment,
    Name,
    Page,
    Recording,
    Status,
    Uploaded,
    UploadFields,
    Window,
)
from soundpost.service.views import show_job, show_recording, show_window
from soundpost.store import embeddings, models, recordings, sources

router = APIRouter(prefix="/v1/recordings", tags=["recordings"])
log = logging.getLogger(__name__)

RecordingId = Annotated[int, Path(ge=1, le=LARGEST_ID)]
Cursor = Annotated[
    str | None, Query(max_length=64, description="`next` of the page before; same filters, please.")
]
Limit = Annotated[int, Query(ge=1, le=LARGEST_PAGE, description="Items a page at most.")]
NewestFirst = Annotated[bool, Query(description="Newest first instead of oldest first.")]

UPLOAD_ERRORS = (
    MalformedRequestError,
    UploadTooLargeError,
    NotAudioError,
    EmptyFileError,
    NoAudioStreamError,
    NoSamplesError,
    UnsupportedRateError,
    TruncatedError,
    DecodeError,
    ImplausibleLengthError,
    AudioError,
    AudioStoreError,
)


async def received_upload(request: Request, parts: ServiceParts) -> AsyncIterator[Received]:
    """Receive the file of a request; it is gone before the answer is sent."""
    async with receive_file(request, parts.spool, parts.settings.upload_bytes) as received:
        yield received


ReceivedUpload = Annotated[Received, Depends(received_upload, scope="function")]


@router.post(
    "",
    status_code=202,
    responses={
        200: {"model": Uploaded, "description": "This content was there already."},
        **answers(*UPLOAD_ERRORS, TooLongError, QueueFullError, DiskFullError),
    },
    openapi_extra=form_body(UploadFields),
)
def upload(received: ReceivedUpload, parts: ServiceParts, response: Response) -> Uploaded:
    """Take in a recording: it is kept at once, and embedded by a worker soon."""
    admission = Admission(parts, received, received.read_fields(UploadFields))
    recording, job = admission.admit()
    response.headers["Location"] = f"/v1/recordings/{recording.id}"
    response.status_code = 200 if admission.known else 202
    return Uploaded(
        recording=show_recording(recording),
        job=show_job(job) if job is not None else None,
        known=admission.known,
    )


@router.get("", responses=answers(UnknownSourceError))
def list_recordings(
    parts: ServiceParts,
    source: Annotated[Name | None, Query()] = None,
    status: Annotated[Status | None, Query()] = None,
    after: Annotated[Moment | None, Query()] = None,
    before: Annotated[Moment | None, Query()] = None,
    newest_first: NewestFirst = False,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[Recording]:
    """List recordings, and files that could not become one; after and before go by the clock."""
    if after is not None and before is not None and after >= before:
        raise InvalidValueError(after.isoformat(), f"it is not before {before.isoformat()}")
    beyond_id = read_cursor(cursor, "recordings", newest_first)
    with parts.store.reading() as session:
        if source is not None:
            sources.by_name(session, source)
        rows = recordings.find(
            session,
            source=source,
            status=status,
            after=after,
            before=before,
            limit=limit + 1,
            beyond_id=beyond_id,
            newest_first=newest_first,
        )
        items = [show_recording(row) for row in rows[:limit]]
    more = len(rows) > limit
    cursor = write_cursor("recordings", items[-1].id, newest_first) if more else None
    return Page(items=items, next=cursor)


@router.get("/{recording_id}", responses=answers(UnknownRecordingError))
def get_recording(recording_id: RecordingId, parts: ServiceParts) -> Recording:
    """Look at one recording."""
    with parts.store.reading() as session:
        return show_recording(recordings.get(session, recording_id))


@router.delete("/{recording_id}", status_code=204, responses=answers(UnknownRecordingError))
def delete_recording(recording_id: RecordingId, parts: ServiceParts) -> None:
    """Delete a recording with its windows, vectors and copied audio; its own file stays."""
    with parts.store.session() as session:
        # The index reads of it by itself; what it still finds meanwhile has no row to be shown.
        object_key = recordings.remove(session, recording_id)
    if object_key is not None:
        _delete_object(parts, object_key)


@router.get("/{recording_id}/windows", responses=answers(UnknownRecordingError))
def list_windows(
    recording_id: RecordingId, parts: ServiceParts, limit: Limit = 100, cursor: Cursor = None
) -> Page[Window]:
    """List the windows that the active model embedded, with measurements and tags."""
    after_id = read_cursor(cursor, "windows", newest_first=False) or 0
    spec = parts.encoder.spec
    with parts.store.reading() as session:
        recordings.get(session, recording_id)
        model = models.find(session, spec.name, spec.revision)
        if model is None:
            return Page(items=[])
        ids = embeddings.ids_of(
            session, recording_id, model_id=model.id, after_id=after_id, limit=limit + 1
        )
        found = embeddings.details(session, ids[:limit])
    cursor = write_cursor("windows", int(ids[limit - 1]), False) if len(ids) > limit else None
    return Page(items=[show_window(detail) for detail in found], next=cursor)


def _delete_object(parts: Parts, object_key: str) -> None:
    try:
        parts.objects.delete(object_key)
    except AudioStoreError as error:
        # The recording is gone; only its bytes still take room.
        log.warning("object not deleted", extra={"key": object_key, "reason": str(error)})

"""The sound of a recording: its file, clips and spectrograms."""

from __future__ import annotations

from functools import partial
from pathlib import Path as FilePath
from typing import Annotated, Any, BinaryIO, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from soundpost.archive.clips import write_clip
from soundpost.audio.spectrogram import SIDE_RANGE_PX, Picture, draw_spectrogram
from soundpost.errors import (
    AudioError,
    AudioStoreError,
    BusyError,
    FileChangedError,
    FileMissingError,
    InvalidValueError,
    NoSamplesError,
    NotAudioError,
    RangeNotSatisfiableError,
    StretchTimeoutError,
    UnknownRecordingError,
    UnreadableFileError,
)
from soundpost.service.media import AUDIO_TYPES, media_type, send_once, send_ranges
from soundpost.service.parts import Parts, ServiceParts
from soundpost.service.problems import answers
from soundpost.service.schemas import LARGEST_ID, Seconds
from soundpost.store import recordings
from soundpost.store.tables import Recording

router = APIRouter(prefix="/v1/recordings/{recording_id}", tags=["audio"])

RecordingId = Annotated[int, Path(ge=1, le=LARGEST_ID)]
Start = Annotated[Seconds, Query(description="Seconds from the recording's start.")]
End = Annotated[Seconds | None, Query(description="The recording's end, if it is left out.")]
Side = Annotated[int, Query(ge=SIDE_RANGE_PX[0], le=SIDE_RANGE_PX[1], description="Pixels.")]

_CLIP_TYPES = {"wav": "audio/wav", "opus": "audio/ogg"}
_FILE_ERRORS = (
    UnknownRecordingError,
    FileMissingError,
    FileChangedError,
    UnreadableFileError,
    AudioStoreError,
)
_DECODE_ERRORS = (
    *_FILE_ERRORS,
    NoSamplesError,
    NotAudioError,
    AudioError,
    BusyError,
    StretchTimeoutError,
)


def _binary(*kinds: str) -> dict[str, Any]:
    return {kind: {"schema": {"type": "string", "format": "binary"}} for kind in kinds}


@router.get(
    "/audio",
    response_class=StreamingResponse,
    responses={
        200: {"description": "The whole file.", "content": _binary(*AUDIO_TYPES)},
        206: {"description": "The range asked for.", "content": _binary(*AUDIO_TYPES)},
        304: {"description": "It is the one of If-None-Match."},
        **answers(*_FILE_ERRORS, RangeNotSatisfiableError),
    },
)
def get_audio(recording_id: RecordingId, request: Request, parts: ServiceParts) -> Response:
    """Get the file of a recording, byte for byte; its ETag is the SHA-256."""
    recording = _find(parts, recording_id)
    path = parts.objects.open_local(recording)
    etag, kind = recording.sha256 or "", media_type(recording.format)
    return send_ranges(path, request, etag, kind)


@router.get(
    "/clip",
    response_class=StreamingResponse,
    responses={
        200: {"description": "The clip, mono.", "content": _binary(*_CLIP_TYPES.values())},
        **answers(*_DECODE_ERRORS),
    },
)
async def get_clip(
    recording_id: RecordingId,
    parts: ServiceParts,
    start_s: Start = 0.0,
    end_s: End = None,
    format: Annotated[Literal["wav", "opus"], Query()] = "wav",
) -> Response:
    """Cut a stretch: wav is exact to the sample at the recording's rate, opus is for listening."""
    work = partial(_cut, recording_id, parts, start_s, end_s, format)
    timeout_s = parts.settings.stretch_timeout_s
    file, name = await parts.stretches.run(work, timeout_s, discard=lambda made: made[0].close())
    return send_once(file, name, _CLIP_TYPES[format])


@router.get(
    "/spectrogram.png",
    response_class=Response,
    responses={
        200: {"description": "The picture.", "content": _binary("image/png")},
        **answers(*_DECODE_ERRORS),
    },
)
async def get_spectrogram(
    recording_id: RecordingId,
    parts: ServiceParts,
    start_s: Start = 0.0,
    end_s: End = None,
    width: Side = 800,
    height: Side = 256,
    floor_dbfs: Annotated[float, Query(ge=-200, le=100, allow_inf_nan=False)] = -100.0,
    ceiling_dbfs: Annotated[float, Query(ge=-200, le=100, allow_inf_nan=False)] = -10.0,
) -> Response:
    """Draw a stretch: time to the right, frequency upwards on a logarithmic axis, dBFS as light."""
    picture = Picture(width, height, floor_dbfs, ceiling_dbfs)
    work = partial(_draw, recording_id, parts, start_s, end_s, picture)
    png = await parts.stretches.run(work, parts.settings.stretch_timeout_s)
    return Response(png, media_type="image/png", headers={"Cache-Control": "max-age=3600"})


def _cut(
    recording_id: int, parts: Parts, start_s: float, end_s: float | None, suffix: str
) -> tuple[BinaryIO, str]:
    """Return a clip, open and without a name on disk, and the name to send it under."""
    path, end_s = _stretch(recording_id, parts, start_s, end_s)
    with parts.spool.file() as (made, _):
        out = made.with_suffix(f".{suffix}")
        try:
            write_clip(path, out, start_s, end_s)
            name = f"recording-{recording_id}-{start_s:g}-{end_s:g}.{suffix}"
            return out.open("rb", buffering=0), name
        finally:
            out.unlink(missing_ok=True)


def _draw(
    recording_id: int, parts: Parts, start_s: float, end_s: float | None, picture: Picture
) -> bytes:
    picture.check()
    path, end_s = _stretch(recording_id, parts, start_s, end_s)
    return draw_spectrogram(path, start_s, end_s, picture)


def _stretch(
    recording_id: int, parts: Parts, start_s: float, end_s: float | None
) -> tuple[FilePath, float]:
    """Return the file of a recording and where a stretch of it ends."""
    recording = _find(parts, recording_id)
    end_s = _checked_end_s(parts, recording, start_s, end_s)
    return parts.objects.open_local(recording), end_s


def _find(parts: Parts, recording_id: int) -> Recording:
    with parts.store.reading() as session:
        recording = recordings.get(session, recording_id)
    if recording.sha256 is None:
        raise FileMissingError(recording_id, "this file never became a recording")
    return recording


def _checked_end_s(
    parts: Parts, recording: Recording, start_s: float, end_s: float | None
) -> float:
    """Return where a stretch ends. Raises InvalidValueError, NoSamplesError past the end."""
    longest_s = parts.settings.stretch_s
    if end_s is None:
        end_s = recording.duration_s or start_s + longest_s
        if end_s <= start_s:
            raise NoSamplesError(recording.id, f"it has {end_s:g} s, nothing lies at {start_s:g} s")
    if end_s <= start_s:
        raise InvalidValueError(f"{start_s:g} to {end_s:g} s", "end_s must lie after start_s")
    if end_s - start_s > longest_s:
        raise InvalidValueError(f"{end_s - start_s:g} s", f"a stretch has at most {longest_s:g} s")
    return end_s

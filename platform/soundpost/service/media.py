"""Audio going out: whole files and byte ranges (RFC 9110, section 14), in small pieces."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from soundpost.errors import RangeNotSatisfiableError
from soundpost.store.files import reading

_PIECE_BYTES = 256 * 1024
_RANGE = re.compile(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*", re.ASCII)
_TYPES = {
    "wav": "audio/wav",
    "rf64": "audio/wav",
    "flac": "audio/flac",
    "ogg": "audio/ogg",
    "mp3": "audio/mpeg",
    "mp4": "audio/mp4",
    "webm": "audio/webm",
    "aiff": "audio/aiff",
}
UNKNOWN_TYPE = "application/octet-stream"
AUDIO_TYPES = (*sorted(set(_TYPES.values())), UNKNOWN_TYPE)


def media_type(audio_format: str | None) -> str:
    """Return the media type of a recording's format, such as `wav/pcm_16`."""
    return _TYPES.get((audio_format or "").partition("/")[0], UNKNOWN_TYPE)


def send_ranges(path: Path, request: Request, etag: str, kind: str) -> Response:
    """Send a file, or the one range of it that was asked for.

    Several ranges at once, and what is no range, are answered with all of it, as the standard
    allows. Raises RangeNotSatisfiableError, FileMissingError and UnreadableFileError.
    """
    headers = {"ETag": f'"{etag}"', "Accept-Ranges": "bytes", "Cache-Control": "no-cache"}
    if _matches(request.headers.get("if-none-match", ""), etag):
        return Response(status_code=304, headers=headers)
    with reading(path):
        file = path.open("rb", buffering=0)
    size = os.fstat(file.fileno()).st_size
    try:
        part = _asked_range(request, etag, size)
    except RangeNotSatisfiableError:
        file.close()
        raise
    first, end = part or (0, size)
    headers["Content-Length"] = str(end - first)
    if part is not None:
        headers["Content-Range"] = f"bytes {first}-{end - 1}/{size}"
    return _stream(file, first, end, 206 if part else 200, headers, kind)


def send_once(file: BinaryIO, name: str, kind: str) -> Response:
    """Send an open file under a name, and close it."""
    size = os.fstat(file.fileno()).st_size
    headers = {"Content-Length": str(size), "Content-Disposition": f'inline; filename="{name}"'}
    return _stream(file, 0, size, 200, headers, kind)


def _stream(
    file: BinaryIO, first: int, end: int, status: int, headers: dict[str, str], kind: str
) -> Response:
    pieces = _pieces(file, first, end)
    # Also for a receiver who hung up before the first piece was asked for.
    close = BackgroundTask(file.close)
    return StreamingResponse(pieces, status, headers, media_type=kind, background=close)


def _pieces(file: BinaryIO, first: int, end: int) -> Iterator[bytes]:
    with file:
        file.seek(first)
        while first < end and (piece := file.read(min(_PIECE_BYTES, end - first))):
            first += len(piece)
            yield piece


def _matches(header: str, etag: str) -> bool:
    tags = [tag.strip().removeprefix("W/").strip('"') for tag in header.split(",")]
    return etag in tags or tags == ["*"]


def _asked_range(request: Request, etag: str, size: int) -> tuple[int, int] | None:
    """Return (first, end) of the range asked for, None where everything is to be sent."""
    header = request.headers.get("range", "")
    match = _RANGE.fullmatch(header)
    condition = request.headers.get("if-range")
    if match is None or match.groups() == ("", "") or condition not in (None, f'"{etag}"'):
        return None
    first, last = match.groups()
    if not first:
        first_byte, end = max(0, size - int(last)), size
    else:
        first_byte, end = int(first), min(size, int(last) + 1 if last else size)
        if last and int(last) < first_byte:
            return None
    if first_byte >= size or first_byte >= end:
        raise RangeNotSatisfiableError(header, str(size))
    return first_byte, end

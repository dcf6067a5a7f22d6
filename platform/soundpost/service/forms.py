"""Receiving a form with one file: streamed to the spool, hashed on the way, cut off at a limit.

Starlette's own forms spool every file to its end before a route can refuse it.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request

from soundpost.errors import EmptyFileError, MalformedRequestError, UploadTooLargeError
from soundpost.service.schemas import LONGEST_NAME
from soundpost.service.spool import Spool

FILE_FIELD = "file"
_FIELD_BYTES = 4096
_MOST_PARTS = 32
# What a form weighs beside its file.
_FORM_BYTES = 256 * 1024
# Written to disk at once.
_BATCH_BYTES = 1 << 20
# So much more is read and thrown away, so that the sender gets to see why it is refused.
_DRAIN_BYTES = 8 << 20

Fields = TypeVar("Fields", bound=BaseModel)


@dataclass(frozen=True)
class Received:
    """A file as it came in: where it is for now, what it was called, and the other fields."""

    path: Path
    name: str
    size_bytes: int
    sha256: str
    fields: dict[str, str]

    def read_fields(self, kind: type[Fields]) -> Fields:
        """Return the other fields as a schema. Raises RequestValidationError."""
        try:
            return kind.model_validate(self.fields)
        except ValidationError as error:
            faults: list[Any] = [
                {"loc": ("body", *fault["loc"]), "msg": fault["msg"], "type": fault["type"]}
                for fault in error.errors()
            ]
            raise RequestValidationError(faults) from error


@asynccontextmanager
async def receive_file(request: Request, spool: Spool, limit_bytes: int) -> AsyncIterator[Received]:
    """Receive the form of a request; its file is there as long as this context.

    Raises UploadTooLargeError as soon as it is, MalformedRequestError for what is no such form or
    ends early, RequestValidationError for a form without a file, EmptyFileError, and
    AudioStoreError where it cannot be written.
    """
    boundary = _boundary(request)
    _check_announced(request, limit_bytes)
    opened = spool.file()
    path, file = await run_in_threadpool(opened.__enter__)
    try:
        form = _Form(boundary, file, limit_bytes)
        await _feed(request, form)
        yield await run_in_threadpool(form.finish, path)
    finally:
        await run_in_threadpool(opened.__exit__, None, None, None)


async def _feed(request: Request, form: _Form) -> None:
    chunks = request.stream()
    try:
        batch = bytearray()
        async for chunk in chunks:
            batch += chunk
            if len(batch) >= _BATCH_BYTES:
                await run_in_threadpool(form.feed, bytes(batch))
                batch.clear()
        await run_in_threadpool(form.feed, bytes(batch))
    except ClientDisconnect as error:
        raise MalformedRequestError(None, "the sender hung up") from error
    except UploadTooLargeError:
        await _drain(chunks)
        raise


async def _drain(chunks: AsyncIterator[bytes]) -> None:
    left = _DRAIN_BYTES
    try:
        async for chunk in chunks:
            left -= len(chunk)
            if left <= 0:
                return
    except ClientDisconnect:
        return


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise MalformedRequestError(kind.decode("latin-1"), "send a multipart/form-data form")
    return boundary


def _check_announced(request: Request, limit_bytes: int) -> None:
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit_bytes + _FORM_BYTES:
        raise UploadTooLargeError(f"{announced} bytes", f"the limit is {limit_bytes}")


class _Form:
    """The parts of a form as they come in."""

    def __init__(self, boundary: bytes, file: BinaryIO, limit_bytes: int) -> None:
        self._file = file
        self._limit_bytes = limit_bytes
        self._digest = hashlib.sha256()
        self._size_bytes = 0
        self._name: str | None = None
        self._fields: dict[str, bytearray] = {}
        self._header = [bytearray(), bytearray()]
        self._disposition = b""
        self._field: bytearray | None = None
        self._parts = 0
        self._ended = False
        try:
            self._parser = MultipartParser(boundary, self._callbacks())
        except FormParserError as error:
            raise MalformedRequestError(None, str(error)) from error

    def feed(self, data: bytes) -> None:
        """Take some bytes of the body."""
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise MalformedRequestError(None, f"no valid form: {error}") from error

    def finish(self, path: Path) -> Received:
        """Return what came in, once the body is at its end."""
        if not self._ended:
            raise MalformedRequestError(None, "the form ends before its last boundary")
        if self._name is None:
            fault = {"loc": ("body", FILE_FIELD), "msg": "the form has no file", "type": "missing"}
            raise RequestValidationError([fault])
        if self._size_bytes == 0:
            raise EmptyFileError(self._name)
        self._file.flush()
        fields = {name: _text(value) for name, value in self._fields.items()}
        digest = self._digest.hexdigest()
        return Received(path, self._name, self._size_bytes, digest, fields)

    def _callbacks(self) -> Any:
        return {
            "on_part_begin": self._on_part_begin,
            "on_header_begin": self._on_header_begin,
            "on_header_field": lambda data, start, end: self._on_header(0, data[start:end]),
            "on_header_value": lambda data, start, end: self._on_header(1, data[start:end]),
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_end": self._on_end,
        }

    def _on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise MalformedRequestError(f"more than {_MOST_PARTS} fields")
        self._disposition = b""

    def _on_header_begin(self) -> None:
        self._header = [bytearray(), bytearray()]

    def _on_header(self, part: int, data: bytes) -> None:
        self._header[part] += data

    def _on_header_end(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = bytes(value)

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = _text(options.get(b"name", b""))
        if name == FILE_FIELD:
            if self._name is not None:
                raise MalformedRequestError(FILE_FIELD, "send one file")
            self._name = plain_name(_text(options.get(b"filename", b"")))
            self._field = None
            return
        if not name or name in self._fields:
            raise MalformedRequestError(name, "each field has a name and comes once")
        self._field = self._fields[name] = bytearray()

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._field is None:
            self._write(data[start:end])
        elif len(self._field) + end - start > _FIELD_BYTES:
            raise MalformedRequestError(f"a field of more than {_FIELD_BYTES} bytes")
        else:
            self._field += data[start:end]

    def _on_end(self) -> None:
        self._ended = True

    def _write(self, data: bytes) -> None:
        self._size_bytes += len(data)
        if self._size_bytes > self._limit_bytes:
            limit = f"the limit is {self._limit_bytes}"
            raise UploadTooLargeError(f"more than {self._size_bytes} bytes", limit)
        self._digest.update(data)
        self._file.write(data)


def plain_name(name: str) -> str:
    """Return the last part of a file name as text that can be shown; it never names a file here."""
    last = name.replace("\\", "/").rpartition("/")[2]
    shown = "".join(letter if letter.isprintable() else "_" for letter in last).strip()
    return shown[-LONGEST_NAME:] or "unnamed"


def _text(data: bytes | bytearray) -> str:
    return data.decode("utf-8", "replace")


def form_body(fields: type[BaseModel]) -> dict[str, Any]:
    """Describe the body of a route that takes a file and these fields, for OpenAPI."""
    schema = fields.model_json_schema()
    file = {"type": "string", "format": "binary", "description": "The recording."}
    properties = {FILE_FIELD: file, **{name: _plain(p) for name, p in schema["properties"].items()}}
    body = {
        "type": "object",
        "properties": properties,
        "required": [FILE_FIELD],
        "additionalProperties": False,
    }
    content = {"multipart/form-data": {"schema": body}}
    return {"requestBody": {"required": True, "content": content}}


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """A field of a form is left out, where a member of JSON can be null."""
    kinds = [kind for kind in schema.get("anyOf", []) if kind.get("type") != "null"]
    if not kinds:
        return schema
    rest = {key: value for key, value in schema.items() if key not in ("anyOf", "default")}
    return {**rest, **kinds[0]}

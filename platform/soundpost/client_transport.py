"""How the client speaks to the service: asking, asking again, and reading answers and errors."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Self, TypeVar
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from soundpost.errors import (
    InvalidValueError,
    PathNotFoundError,
    ServiceError,
    ServiceTimeoutError,
    ServiceUnreachableError,
    SoundpostError,
    UnreadableFileError,
    error_class,
)
from soundpost.service.schemas import Page, Problem

DEFAULT_URL = "http://127.0.0.1:8780"

_PIECE_BYTES = 256 * 1024
_FIRST_PAUSE_S = 0.1
# These say that no answer came, not that one was bad.
_LOST = (httpx.ConnectError, httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)

Result = TypeVar("Result", bound=BaseModel)


class Transport:
    """Asks one service, and makes results and errors of its answers.

    timeout_s: how long to wait for the next bytes of an answer, None for ever. retries: how often
    a question that changes nothing is asked again where the connection fails. Raises
    InvalidValueError for an address that is none.
    """

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        *,
        timeout_s: float | None = 60.0,
        retries: int = 2,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        _check_address(base_url)
        self._http = httpx.Client(base_url=base_url, timeout=timeout_s, transport=transport)
        self._retries = retries

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def _ask(self, kind: type[Result], method: str, path: str, **parts: Any) -> Result:
        return parse(kind, self._send(method, path, **parts))

    def _list(
        self, kind: type[Result], path: str, params: Mapping[str, Any] | None = None
    ) -> list[Result]:
        response = self._send("GET", path, params=given(params or {}))
        with _understanding(response):
            return TypeAdapter(list[kind]).validate_json(response.content)  # type: ignore[valid-type]  # known at run time

    def _pages(self, kind: type[Result], path: str, params: Mapping[str, Any]) -> Iterator[Result]:
        asked = given(params)
        while True:
            response = self._send("GET", path, params=asked)
            page = parse(Page[kind], response)  # type: ignore[valid-type]  # known at run time
            yield from page.items
            if page.next is None:
                return
            asked["cursor"] = page.next

    def _send(self, method: str, path: str, **parts: Any) -> httpx.Response:
        return checked(self._request(method, path, **parts))

    def _request(self, method: str, path: str, **parts: Any) -> httpx.Response:
        if "json" in parts:
            parts["json"] = _jsonable(parts["json"])
        request = self._http.build_request(method, path, **parts)
        return self._deliver(request, stream=False)

    def _deliver(self, request: httpx.Request, stream: bool) -> httpx.Response:
        """Send a request; one that changes nothing again, where the connection fails."""
        left = self._retries if request.method == "GET" else 0
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return self._http.send(request, stream=stream)
            except httpx.ConnectTimeout as error:
                raise ServiceUnreachableError(str(request.url), str(error)) from error
            except httpx.TimeoutException as error:
                raise ServiceTimeoutError(str(request.url), str(error)) from error
            except _LOST as error:
                if left <= 0:
                    raise ServiceUnreachableError(str(request.url), str(error)) from error
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise ServiceError(str(request.url), str(error)) from error
            left -= 1
            time.sleep(pause_s)
            pause_s *= 2

    def _fetch(
        self,
        path: str,
        params: Mapping[str, Any],
        to: Path | None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes | Path:
        request = self._http.build_request("GET", path, params=given(params), headers=headers)
        response = self._deliver(request, stream=to is not None)
        try:
            if response.is_error:
                response.read()
            checked(response)
            return response.content if to is None else _save(response, to)
        except httpx.HTTPError as error:
            raise ServiceUnreachableError(str(request.url), str(error)) from error
        finally:
            response.close()


def _check_address(base_url: str) -> None:
    try:
        address = urlsplit(base_url)
        sound = address.scheme in ("http", "https") and bool(address.hostname)
        httpx.URL(base_url)
    except (ValueError, httpx.InvalidURL):
        sound = False
    if not sound:
        raise InvalidValueError(base_url, "not an address such as http://host:8780")


def _save(response: httpx.Response, to: Path) -> Path:
    """Write a body to a file, which appears whole or not at all."""
    part = to.with_name(f".{to.name}.part")
    try:
        with part.open("wb") as file:
            for piece in response.iter_bytes(_PIECE_BYTES):
                file.write(piece)
        return part.replace(to)
    finally:
        part.unlink(missing_ok=True)


def _jsonable(values: Mapping[str, Any]) -> Any:
    """Return values as JSON has them: moments as text. Raises InvalidValueError for others."""
    try:
        found = to_jsonable_python(values, by_alias=True)
        json.dumps(found, allow_nan=False)
    except (PydanticSerializationError, TypeError, ValueError) as error:
        raise InvalidValueError(dict(values), str(error)) from error
    return found


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def moment_text(moment: datetime | None) -> str | None:
    """Write a moment as ISO 8601."""
    return None if moment is None else moment.isoformat()


# --- answers ----------------------------------------------------------------------------------


def parse(kind: type[Result], response: httpx.Response) -> Result:
    """Read an answer. Raises ServiceError if it is of another shape."""
    with _understanding(response):
        return kind.model_validate_json(response.content)


@contextmanager
def _understanding(response: httpx.Response) -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        raise ServiceError(str(response.url), f"{error.error_count()} faults in it") from error


def is_problem(response: httpx.Response) -> bool:
    """Whether an answer says that and why something could not be done."""
    kind: str = response.headers.get("content-type", "")
    return kind.startswith("application/problem+json")


def checked(response: httpx.Response) -> httpx.Response:
    """Return an answer that is none of an error. Raises the error it is otherwise."""
    if not response.is_error and not response.is_redirect:
        return response
    if not is_problem(response):
        raise ServiceError(str(response.url), f"status {response.status_code}")
    raise to_error(parse(Problem, response))


def to_error(problem: Problem) -> SoundpostError:
    """Return the error that the service answered with, as its own class where it is known."""
    kind = error_class(problem.code)
    detail = "; ".join(f"{fault.where}: {fault.message}" for fault in problem.faults)
    if kind is None:
        text = ": ".join(filter(None, (problem.title, problem.value, problem.detail)))
        error: SoundpostError = ServiceError(problem.code, text)
    else:
        error = kind(problem.value, detail or problem.detail)
    error.remedy = problem.remedy
    error.add_note(f"request {problem.request_id}")
    return error


@contextmanager
def opened_part(file: str | Path | BinaryIO, name: str | None) -> Iterator[dict[str, Any]]:
    """Give the part of a form that holds a file, which is read as it is sent."""
    if not isinstance(file, (str, Path)):
        yield {"file": (name or _name_of(file), file)}
        return
    path = Path(file)
    try:
        opened = path.open("rb")
    except FileNotFoundError as error:
        raise PathNotFoundError(path) from error
    except OSError as error:
        raise UnreadableFileError(path, error.strerror or str(error)) from error
    with opened:
        yield {"file": (name or path.name, opened)}


def _name_of(file: BinaryIO) -> str:
    name = getattr(file, "name", None)
    return Path(name).name if isinstance(name, str) else "unnamed"

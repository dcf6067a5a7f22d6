"""The typed client of the HTTP service: needs httpx and pydantic, and no part of the platform.

Results are the schemas of the service. Errors are the classes of soundpost.errors, found again by
their code, with the value and the remedy that the service gave.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal, Self, TypeVar, overload
from urllib.parse import quote, urlsplit

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

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
from soundpost.service.schemas import (
    Health,
    Index,
    Job,
    JobState,
    Model,
    Page,
    Problem,
    Readiness,
    Recording,
    SearchResult,
    Source,
    Status,
    Uploaded,
    Window,
)

DEFAULT_URL = "http://127.0.0.1:8780"

_PIECE_BYTES = 256 * 1024
_FIRST_PAUSE_S = 0.1
# These say that no answer came, not that one was bad.
_LOST = (httpx.ConnectError, httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)

Result = TypeVar("Result", bound=BaseModel)
Item = TypeVar("Item")


class Client:
    """Speaks to one service; safe to use from several threads. Close it, or use it in `with`.

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

    # --- recordings ---

    def upload(
        self,
        file: str | Path | BinaryIO,
        *,
        source: str | None = None,
        started_at: datetime | str | None = None,
        timezone: str | None = None,
        name: str | None = None,
    ) -> Uploaded:
        """Send a recording, from its path or from an open file; it is embedded by a worker later.

        A started_at without an offset is local to `timezone`, or else to the source's zone.
        Raises PathNotFoundError, UnreadableFileError, and what the service refuses.
        """
        moment = started_at.isoformat() if isinstance(started_at, datetime) else started_at
        fields = {"source": source, "started_at": moment, "timezone": timezone}
        with _opened(file, name) as part:
            return self._ask(Uploaded, "POST", "/v1/recordings", files=part, data=_given(fields))

    def recordings(
        self,
        *,
        source: str | None = None,
        status: Status | None = None,
        after: datetime | None = None,
        before: datetime | None = None,
        newest_first: bool = False,
        page_size: int = 100,
    ) -> Iterator[Recording]:
        """Go through the recordings that meet every filter, asking for a page at a time."""
        params = {
            "source": source,
            "status": status,
            "after": _moment(after),
            "before": _moment(before),
            "newest_first": newest_first,
            "limit": page_size,
        }
        return self._pages(Recording, "/v1/recordings", params)

    def recording(self, recording_id: int) -> Recording:
        """Look at one recording. Raises UnknownRecordingError."""
        return self._ask(Recording, "GET", f"/v1/recordings/{recording_id}")

    def delete(self, recording_id: int) -> None:
        """Delete a recording with its windows and copied audio. Raises UnknownRecordingError."""
        self._send("DELETE", f"/v1/recordings/{recording_id}")

    def windows(self, recording_id: int, *, page_size: int = 100) -> Iterator[Window]:
        """Go through the windows of a recording. Raises UnknownRecordingError."""
        path = f"/v1/recordings/{recording_id}/windows"
        return self._pages(Window, path, {"limit": page_size})

    # --- sound ---

    @overload
    def audio(
        self, recording_id: int, *, first_byte: int = 0, last_byte: int | None = None
    ) -> bytes: ...
    @overload
    def audio(
        self, recording_id: int, to: Path, *, first_byte: int = 0, last_byte: int | None = None
    ) -> Path: ...
    def audio(
        self,
        recording_id: int,
        to: Path | None = None,
        *,
        first_byte: int = 0,
        last_byte: int | None = None,
    ) -> bytes | Path:
        """Get the file of a recording, or a range of its bytes; into a file if one is named."""
        headers = {}
        if first_byte or last_byte is not None:
            headers["Range"] = f"bytes={first_byte}-{'' if last_byte is None else last_byte}"
        return self._fetch(f"/v1/recordings/{recording_id}/audio", {}, to, headers)

    @overload
    def clip(
        self,
        recording_id: int,
        start_s: float = 0.0,
        end_s: float | None = None,
        format: Literal["wav", "opus"] = "wav",
    ) -> bytes: ...
    @overload
    def clip(
        self,
        recording_id: int,
        start_s: float = 0.0,
        end_s: float | None = None,
        format: Literal["wav", "opus"] = "wav",
        *,
        to: Path,
    ) -> Path: ...
    def clip(
        self,
        recording_id: int,
        start_s: float = 0.0,
        end_s: float | None = None,
        format: Literal["wav", "opus"] = "wav",
        *,
        to: Path | None = None,
    ) -> bytes | Path:
        """Cut a stretch, mono: wav is exact to the sample, opus is for listening."""
        params = {"start_s": start_s, "end_s": end_s, "format": format}
        return self._fetch(f"/v1/recordings/{recording_id}/clip", params, to)

    @overload
    def spectrogram(
        self,
        recording_id: int,
        start_s: float = 0.0,
        end_s: float | None = None,
        *,
        width: int = 800,
        height: int = 256,
        floor_dbfs: float = -100.0,
        ceiling_dbfs: float = -10.0,
    ) -> bytes: ...
    @overload
    def spectrogram(
        self,
        recording_id: int,
        start_s: float = 0.0,
        end_s: float | None = None,
        *,
        width: int = 800,
        height: int = 256,
        floor_dbfs: float = -100.0,
        ceiling_dbfs: float = -10.0,
        to: Path,
    ) -> Path: ...
    def spectrogram(
        self,
        recording_id: int,
        start_s: float = 0.0,
        end_s: float | None = None,
        *,
        width: int = 800,
        height: int = 256,
        floor_dbfs: float = -100.0,
        ceiling_dbfs: float = -10.0,
        to: Path | None = None,
    ) -> bytes | Path:
        """Draw a stretch as PNG, black at floor_dbfs and brightest at ceiling_dbfs."""
        params = {
            "start_s": start_s,
            "end_s": end_s,
            "width": width,
            "height": height,
            "floor_dbfs": floor_dbfs,
            "ceiling_dbfs": ceiling_dbfs,
        }
        return self._fetch(f"/v1/recordings/{recording_id}/spectrogram.png", params, to)

    # --- searching ---

    def search_text(
        self,
        text: str,
        *,
        k: int = 10,
        source: str | None = None,
        after: datetime | None = None,
        before: datetime | None = None,
        min_score: float | None = None,
        timeout_s: float | None = None,
    ) -> SearchResult:
        """Find what sounds like a text.

        Raises EmptyArchiveError, UnknownSourceError, SearchTimeoutError, BusyError.
        """
        filters = _filters(k, source, after, before, min_score, timeout_s)
        return self._ask(SearchResult, "POST", "/v1/search/text", json={"text": text, **filters})

    def search_audio(
        self,
        file: str | Path | BinaryIO,
        *,
        start_s: float = 0.0,
        end_s: float | None = None,
        k: int = 10,
        source: str | None = None,
        after: datetime | None = None,
        before: datetime | None = None,
        min_score: float | None = None,
        timeout_s: float | None = None,
    ) -> SearchResult:
        """Find what sounds like a stretch of a file. Raises like search_text and upload."""
        filters = _filters(k, source, after, before, min_score, timeout_s)
        data = _given({"start_s": start_s, "end_s": end_s, **filters})
        with _opened(file, None) as part:
            return self._ask(SearchResult, "POST", "/v1/search/audio", files=part, data=data)

    def search_window(
        self,
        *,
        embedding_id: int | None = None,
        recording_id: int | None = None,
        start_s: float = 0.0,
        end_s: float | None = None,
        k: int = 10,
        source: str | None = None,
        after: datetime | None = None,
        before: datetime | None = None,
        min_score: float | None = None,
        timeout_s: float | None = None,
    ) -> SearchResult:
        """Find what sounds like an embedded window or like a stretch of a recording.

        Raises like search_text, and UnknownWindowError or UnknownRecordingError.
        """
        filters = _filters(k, source, after, before, min_score, timeout_s)
        place = {"recording_id": recording_id, "start_s": start_s, "end_s": end_s}
        query = {"embedding_id": embedding_id, **place, **filters}
        body = {name: value for name, value in query.items() if value is not None}
        return self._ask(SearchResult, "POST", "/v1/search/window", json=body)

    # --- the rest ---

    def jobs(
        self,
        *,
        state: JobState | None = None,
        kind: str | None = None,
        source: str | None = None,
        newest_first: bool = False,
        page_size: int = 100,
    ) -> Iterator[Job]:
        """Go through the jobs that meet every filter, asking for a page at a time."""
        params = {
            "state": state,
            "kind": kind,
            "source": source,
            "newest_first": newest_first,
            "limit": page_size,
        }
        return self._pages(Job, "/v1/jobs", params)

    def job(self, job_id: int) -> Job:
        """Look at one job. Raises UnknownJobError."""
        return self._ask(Job, "GET", f"/v1/jobs/{job_id}")

    def retry(self, job_id: int) -> Job:
        """Have a failed or cancelled job done again. Raises UnknownJobError and JobStateError."""
        return self._ask(Job, "POST", f"/v1/jobs/{job_id}/retry")

    def cancel(self, job_id: int) -> Job:
        """End a job that is not finished. Raises UnknownJobError and JobStateError."""
        return self._ask(Job, "POST", f"/v1/jobs/{job_id}/cancel")

    def sources(self) -> list[Source]:
        """List the sources, by name."""
        return self._list(Source, "/v1/sources")

    def source(self, name: str) -> Source:
        """Look at one source. Raises UnknownSourceError."""
        return self._ask(Source, "GET", f"/v1/sources/{quote(name, safe='')}")

    def models(self) -> list[Model]:
        """List the models that made vectors, oldest first."""
        return self._list(Model, "/v1/models")

    def index(self) -> Index:
        """Say how much the index holds and how far it is behind."""
        return self._ask(Index, "GET", "/v1/index")

    def health(self) -> Health:
        """Say whether the service is alive."""
        return self._ask(Health, "GET", "/healthz")

    def ready(self) -> Readiness:
        """Say whether the service can do its work, and what it lacks if not."""
        response = self._request("GET", "/readyz")
        if response.status_code == 503 and not _is_problem(response):
            return _parse(Readiness, response)
        return _parse(Readiness, _checked(response))

    def metrics(self) -> str:
        """Return the metrics in the text format of Prometheus."""
        return self._send("GET", "/metrics").text

    # --- asking ---

    def _ask(self, kind: type[Result], method: str, path: str, **parts: Any) -> Result:
        return _parse(kind, self._send(method, path, **parts))

    def _list(self, kind: type[Result], path: str) -> list[Result]:
        response = self._send("GET", path)
        with _understanding(response):
            return TypeAdapter(list[kind]).validate_json(response.content)  # type: ignore[valid-type]  # known at run time

    def _pages(self, kind: type[Result], path: str, params: Mapping[str, Any]) -> Iterator[Result]:
        asked = _given(params)
        while True:
            response = self._send("GET", path, params=asked)
            page = _parse(Page[kind], response)  # type: ignore[valid-type]  # known at run time
            yield from page.items
            if page.next is None:
                return
            asked["cursor"] = page.next

    def _send(self, method: str, path: str, **parts: Any) -> httpx.Response:
        return _checked(self._request(method, path, **parts))

    def _request(self, method: str, path: str, **parts: Any) -> httpx.Response:
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
        request = self._http.build_request("GET", path, params=_given(params), headers=headers)
        response = self._deliver(request, stream=to is not None)
        try:
            if response.is_error:
                response.read()
            _checked(response)
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


@contextmanager
def _opened(file: str | Path | BinaryIO, name: str | None) -> Iterator[dict[str, Any]]:
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


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _filters(
    k: int,
    source: str | None,
    after: datetime | None,
    before: datetime | None,
    min_score: float | None,
    timeout_s: float | None,
) -> dict[str, Any]:
    filters = {"k": k, "source": source, "after": _moment(after), "before": _moment(before)}
    return _given({**filters, "min_score": min_score, "timeout_s": timeout_s})


# --- answers ----------------------------------------------------------------------------------


def _parse(kind: type[Result], response: httpx.Response) -> Result:
    with _understanding(response):
        return kind.model_validate_json(response.content)


@contextmanager
def _understanding(response: httpx.Response) -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        raise ServiceError(str(response.url), f"{error.error_count()} faults in it") from error


def _is_problem(response: httpx.Response) -> bool:
    kind: str = response.headers.get("content-type", "")
    return kind.startswith("application/problem+json")


def _checked(response: httpx.Response) -> httpx.Response:
    """Return an answer that is none of an error. Raises the error it is otherwise."""
    if not response.is_error and not response.is_redirect:
        return response
    if not _is_problem(response):
        raise ServiceError(str(response.url), f"status {response.status_code}")
    raise to_error(_parse(Problem, response))


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

"""The typed client of the HTTP service: needs httpx and pydantic, and no part of the platform.

Results are the schemas of the service. Errors are the classes of soundpost.errors, found again by
their code, with the value and the remedy that the service gave.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal, Unpack, overload
from urllib.parse import quote

from soundpost.client_explaining import ExplainingCalls
from soundpost.client_notifications import NotificationCalls
from soundpost.client_transport import (
    DEFAULT_URL,
    checked,
    given,
    is_problem,
    moment_text,
    opened_part,
    parse,
    to_error,
)
from soundpost.client_watching import SourceFields, WatchingCalls
from soundpost.service.schemas import (
    Health,
    Index,
    Job,
    JobState,
    Model,
    Readiness,
    Recording,
    SearchResult,
    Source,
    Status,
    Uploaded,
    Window,
)

__all__ = ["DEFAULT_URL", "Client", "to_error"]


class Client(WatchingCalls, NotificationCalls, ExplainingCalls):
    """Speaks to one service; safe to use from several threads. Close it, or use it in `with`.

    timeout_s: how long to wait for the next bytes of an answer, None for ever. retries: how often
    a question that changes nothing is asked again where the connection fails. Raises
    InvalidValueError for an address that is none.
    """

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
        with opened_part(file, name) as part:
            return self._ask(Uploaded, "POST", "/v1/recordings", files=part, data=given(fields))

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
            "after": moment_text(after),
            "before": moment_text(before),
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
        rerank: Literal["auto", "off"] | int = "auto",
        timeout_s: float | None = None,
    ) -> SearchResult:
        """Find what sounds like a text.

        rerank: how many of the first hits the service's reranker puts in order; "auto" leaves that
        to the service. The result says what was done. Raises InvalidValueError, EmptyArchiveError, UnknownSourceError, SearchTimeoutError, BusyError.
        """
        filters = _filters(k, source, after, before, min_score, timeout_s)
        query = {"text": text, "rerank": rerank, **filters}
        return self._ask(SearchResult, "POST", "/v1/search/text", json=query)

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
        data = given({"start_s": start_s, "end_s": end_s, **filters})
        with opened_part(file, None) as part:
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
        return self._ask(Source, "GET", _source_path(name))

    def change_source(self, name: str, **changes: Unpack[SourceFields]) -> Source:
        """Change the timezone, the cadence or the tags of a source; what is not named stays.

        cadence_s None: it is estimated from the recordings. tags: all it is to have. Raises
        UnknownSourceError, InvalidValueError.
        """
        return self._ask(Source, "PATCH", _source_path(name), json=changes)

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
        if response.status_code == 503 and not is_problem(response):
            return parse(Readiness, response)
        return parse(Readiness, checked(response))

    def metrics(self) -> str:
        """Return the metrics in the text format of Prometheus."""
        return self._send("GET", "/metrics").text


def _filters(
    k: int,
    source: str | None,
    after: datetime | None,
    before: datetime | None,
    min_score: float | None,
    timeout_s: float | None,
) -> dict[str, Any]:
    filters = {"k": k, "source": source, "after": moment_text(after), "before": moment_text(before)}
    return given({**filters, "min_score": min_score, "timeout_s": timeout_s})


def _source_path(name: str) -> str:
    return f"/v1/sources/{quote(name, safe='')}"

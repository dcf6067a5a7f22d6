"""Problem details (RFC 9457): every error of Soundpost as an answer, and in the description.

The code of an error class decides nothing here: its class does, by the nearest class above it that
has a status.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from soundpost.errors import (
    AudioError,
    AudioStoreError,
    BaselineStateError,
    BrokenCalibrationError,
    BrokerError,
    BusyError,
    ChannelExistsError,
    ChannelRefusedError,
    ChannelUnreachableError,
    DiskFullError,
    EmptyArchiveError,
    ExplainTimeoutError,
    FileChangedError,
    FileMissingError,
    IncidentError,
    IncidentStateError,
    InputError,
    InvalidValueError,
    JobStateError,
    MalformedRequestError,
    MethodNotAllowedError,
    MissingExtraError,
    ModelError,
    MonitoringError,
    NoSuchRouteError,
    NotAudioError,
    NothingToLearnError,
    NotificationStateError,
    NotifyError,
    PathNotFoundError,
    QueueFullError,
    RangeNotSatisfiableError,
    RuleError,
    RuleNameTakenError,
    RuleSettingsError,
    SearchTimeoutError,
    ServiceError,
    SilenceEndedError,
    SoundpostError,
    StoreError,
    StretchTimeoutError,
    UnexpectedError,
    UnknownBaselineError,
    UnknownChannelError,
    UnknownFindingError,
    UnknownIncidentError,
    UnknownJobError,
    UnknownNotificationError,
    UnknownRecordingError,
    UnknownRuleError,
    UnknownSilenceError,
    UnknownSourceError,
    UnknownWindowError,
    UnreadableFileError,
    UploadTooLargeError,
    VectorIndexError,
)
from soundpost.service.schemas import Fault, Problem, to_unicode

MEDIA_TYPE = "application/problem+json"
REQUEST_ID_HEADER = "X-Request-ID"
_LONGEST_VALUE = 300

STATUSES: Mapping[type[SoundpostError], int] = {
    SoundpostError: 500,
    InputError: 422,
    PathNotFoundError: 404,
    UnknownRecordingError: 404,
    UnknownSourceError: 404,
    UnknownWindowError: 404,
    EmptyArchiveError: 409,
    MissingExtraError: 503,
    AudioError: 422,
    NotAudioError: 415,
    FileMissingError: 410,
    FileChangedError: 409,
    UnreadableFileError: 503,
    ModelError: 503,
    RuleError: 422,
    MonitoringError: 422,
    UnknownBaselineError: 404,
    BaselineStateError: 409,
    BrokenCalibrationError: 500,
    UnknownRuleError: 404,
    RuleNameTakenError: 409,
    IncidentError: 422,
    UnknownIncidentError: 404,
    IncidentStateError: 409,
    UnknownSilenceError: 404,
    UnknownFindingError: 404,
    SilenceEndedError: 409,
    UnknownJobError: 404,
    JobStateError: 409,
    QueueFullError: 429,
    BrokerError: 503,
    DiskFullError: 507,
    NotifyError: 500,
    UnknownChannelError: 404,
    ChannelExistsError: 409,
    UnknownNotificationError: 404,
    NotificationStateError: 409,
    ChannelUnreachableError: 502,
    ChannelRefusedError: 502,
    StoreError: 503,
    AudioStoreError: 503,
    VectorIndexError: 503,
    ServiceError: 500,
    BusyError: 503,
    SearchTimeoutError: 504,
    StretchTimeoutError: 504,
    ExplainTimeoutError: 504,
    MalformedRequestError: 400,
    NoSuchRouteError: 404,
    MethodNotAllowedError: 405,
    UploadTooLargeError: 413,
    RangeNotSatisfiableError: 416,
}
_RETRY_AFTER_S = {429: 5, 503: 2}
# Their own remedies speak of the command line.
_REMEDIES: Mapping[type[SoundpostError], str] = {
    InvalidValueError: "See /docs for what is accepted.",
    UnknownRecordingError: "List them: GET /v1/recordings",
    UnknownSourceError: "List them: GET /v1/sources",
    UnknownJobError: "List them: GET /v1/jobs",
    UnknownBaselineError: "List them: GET /v1/baselines",
    BaselineStateError: "See how it stands: GET /v1/baselines/{id}",
    NothingToLearnError: "Bring recordings of this source in first, or choose others.",
    UnknownRuleError: "List them: GET /v1/rules",
    RuleSettingsError: "See docs/rules.md for what this kind of rule takes.",
    UnknownIncidentError: "List them: GET /v1/incidents",
    UnknownFindingError: "See those of an incident: GET /v1/incidents/{id}",
    UnknownSilenceError: "List them: GET /v1/silences",
    SilenceEndedError: "Add another one if it should go on: POST /v1/silences",
    UnknownChannelError: "List them: GET /v1/channels",
    UnknownNotificationError: "List them: GET /v1/notifications",
    EmptyArchiveError: "Bring recordings in first, such as: POST /v1/recordings",
}
_FROM_HTTP: Mapping[int, type[SoundpostError]] = {
    400: MalformedRequestError,
    404: NoSuchRouteError,
    405: MethodNotAllowedError,
    413: UploadTooLargeError,
}


def status_of(kind: type[SoundpostError]) -> int:
    """Return the status that an error of this class is answered with."""
    return next(STATUSES[above] for above in kind.__mro__ if above in STATUSES)


def describe_problem(error: SoundpostError, request: Request) -> Problem:
    """Return the problem details of an error."""
    kind, value = type(error), error.value
    return Problem(
        type=f"urn:soundpost:problem:{kind.code}",
        title=title_of(kind),
        status=status_of(kind),
        detail=error.detail,
        instance=request.url.path,
        code=kind.code,
        value=None if value is None else str(to_unicode(str(value)))[:_LONGEST_VALUE],
        remedy=_REMEDIES.get(kind, error.remedy),
        request_id=request_id_of(request),
    )


def title_of(kind: type[SoundpostError]) -> str:
    """Return what an error is, in one line."""
    return (kind.__doc__ or "").strip().splitlines()[0]


def request_id_of(request: Request) -> str:
    """Return the id of a request, under which the log knows it."""
    return str(request.scope.get("state", {}).get("request_id", ""))


def handle_problems(app: FastAPI) -> None:
    """Answer every error of an application with problem details."""
    app.add_exception_handler(SoundpostError, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(Exception, _answer_unexpected)


def _answer(problem: Problem, headers: Mapping[str, str] | None = None) -> JSONResponse:
    sent = dict(headers or {})
    if problem.request_id:
        sent[REQUEST_ID_HEADER] = problem.request_id
    if (wait_s := _RETRY_AFTER_S.get(problem.status)) is not None:
        sent.setdefault("Retry-After", str(wait_s))
    body = problem.model_dump(mode="json")
    return JSONResponse(body, problem.status, headers=sent, media_type=MEDIA_TYPE)


async def _answer_error(request: Request, error: Exception) -> JSONResponse:
    known = cast(SoundpostError, error)
    headers = {}
    if isinstance(known, RangeNotSatisfiableError):
        headers["Content-Range"] = f"bytes */{known.detail}"
    return _answer(describe_problem(known, request), headers)


async def _answer_invalid(request: Request, error: Exception) -> JSONResponse:
    found = cast(RequestValidationError, error).errors()
    if any(item["type"] == "json_invalid" for item in found):
        return _answer(describe_problem(MalformedRequestError(None, "not JSON"), request))
    faults = [Fault(where=_where(item["loc"]), message=str(item["msg"])) for item in found]
    first = faults[0]
    problem = describe_problem(InvalidValueError(first.where, first.message), request)
    return _answer(problem.model_copy(update={"faults": faults}))


async def _answer_http(request: Request, error: Exception) -> JSONResponse:
    raised = cast(HTTPException, error)
    kind = _FROM_HTTP.get(raised.status_code, UnexpectedError)
    value = request.method if kind is MethodNotAllowedError else None
    problem = describe_problem(kind(value, str(raised.detail)), request)
    return _answer(problem, raised.headers)


async def _answer_unexpected(request: Request, error: Exception) -> JSONResponse:
    # What went wrong is in the log; a stranger has no business with it.
    return _answer(describe_problem(UnexpectedError(), request))


def _where(place: Iterable[object]) -> str:
    return ".".join(str(part) for part in place)


# --- the description --------------------------------------------------------------------------

ALWAYS: tuple[type[SoundpostError], ...] = (InvalidValueError, UnexpectedError, StoreError)
Answers = dict[int | str, dict[str, Any]]


def answers(*kinds: type[SoundpostError]) -> Answers:
    """Describe the errors of a route for its OpenAPI document; some may come from every route."""
    by_status: dict[int, list[type[SoundpostError]]] = {}
    for kind in dict.fromkeys((*kinds, *ALWAYS)):
        by_status.setdefault(status_of(kind), []).append(kind)
    return {status: _describe(status, found) for status, found in sorted(by_status.items())}


def _describe(status: int, kinds: Iterable[type[SoundpostError]]) -> dict[str, Any]:
    lines = [f"`{kind.code}`: {title_of(kind)}" for kind in kinds]
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        "description": f"{HTTPStatus(status).phrase}.\n\n" + "\n\n".join(lines),
        "content": {MEDIA_TYPE: {"schema": schema}},
    }


def add_to_document(document: dict[str, Any]) -> None:
    """Add the schema of problems, with every code there is, to an OpenAPI document."""
    schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(schema.pop("$defs", {}))
    codes = {kind.code: title_of(kind) for kind in every_kind()}
    schema["properties"]["code"]["enum"] = sorted(codes)
    table = [f"`{code}`: {title}" for code, title in sorted(codes.items())]
    schema["properties"]["code"]["description"] = "\n\n".join(table)
    schemas["Problem"] = schema


def every_kind() -> list[type[SoundpostError]]:
    """Return every class of errors."""
    kinds, found = [SoundpostError], []
    while kinds:
        kind = kinds.pop()
        found.append(kind)
        kinds.extend(kind.__subclasses__())
    return found

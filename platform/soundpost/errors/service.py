"""The HTTP service, as itself and its client see it."""

from __future__ import annotations

from soundpost.errors.root import SoundpostError


class ServiceError(SoundpostError):
    """The service gave an answer that is not understood."""

    code = "service"
    remedy = "Check that the address is a Soundpost service of the same version."


class ServiceUnreachableError(ServiceError):
    """The service cannot be reached."""

    code = "service-unreachable"
    remedy = "Check its address, and that it runs."


class ServiceTimeoutError(ServiceError):
    """The service did not answer in time."""

    code = "service-timeout"
    remedy = "Try again, or allow more time."


class UnexpectedError(ServiceError):
    """Something went wrong inside the service."""

    code = "unexpected"
    remedy = "Look the request id up in the service's log, and report what it says."


class BusyError(ServiceError):
    """The service has too much to do."""

    code = "busy"
    remedy = "Try again in a moment."


class SearchTimeoutError(ServiceError):
    """The search took too long."""

    code = "search-timeout"
    remedy = "Narrow it by source or time, try again, or raise SOUNDPOST_SEARCH_TIMEOUT_S."


class StretchTimeoutError(ServiceError):
    """Cutting or drawing the stretch took too long."""

    code = "stretch-timeout"
    remedy = "Ask for a shorter stretch, or one nearer to the recording's start."


class ExplainTimeoutError(ServiceError):
    """The explanation took too long."""

    code = "explain-timeout"
    remedy = "Name shorter stretches or one tier, or raise SOUNDPOST_EXPLAIN_TIMEOUT_S."


class MalformedRequestError(ServiceError):
    """The request cannot be read."""

    code = "malformed-request"
    remedy = "Send it as the interface's description at /docs says."


class NoSuchRouteError(ServiceError):
    """The service has nothing under this address."""

    code = "no-such-route"
    remedy = "See /docs for what there is."


class MethodNotAllowedError(ServiceError):
    """This address does not answer to this method."""

    code = "method-not-allowed"
    remedy = "See /docs for what it answers to."


class UploadTooLargeError(ServiceError):
    """More bytes were sent than are accepted."""

    code = "upload-too-large"
    remedy = "Send a smaller file (FLAC is half of WAV), or raise SOUNDPOST_UPLOAD_BYTES."


class RangeNotSatisfiableError(ServiceError):
    """The file does not reach as far as the range that was asked for."""

    code = "range-not-satisfiable"
    remedy = "Ask for bytes within the size in the Content-Range header."

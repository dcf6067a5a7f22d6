"""Logs as one JSON object a line, each with the id of the request it belongs to."""

from __future__ import annotations

import logging
import re
import sys
import time
import uuid
from collections.abc import Callable
from typing import Any, TextIO

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from soundpost.service.problems import REQUEST_ID_HEADER

# method, route, status, seconds
Observer = Callable[[str, str, int, float], None]

_SANE_ID = re.compile(r"[A-Za-z0-9._~-]{1,64}", re.ASCII)
# Asked every few seconds by machines; they would drown the rest.
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})

log = structlog.stdlib.get_logger("soundpost.service")


_SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.stdlib.ExtraAdder(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
]

# What they say at every start helps nobody; requests are logged by `RequestLog`.
_CHATTY = ("faiss.loader", "uvicorn.error")


def log_through_stdlib() -> None:
    """Hand what is logged with structlog to the standard library, where the handlers are."""
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def json_handler(stream: TextIO) -> logging.Handler:
    """Return a handler that writes every record, ours and the libraries', as a line of JSON."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(default=str),
            ],
        )
    )
    return handler


def configure_logs(stream: TextIO | None = None, level: int = logging.INFO) -> None:
    """Write the logs of this process as JSON to a stream, standard error if none is given."""
    log_through_stdlib()
    root = logging.getLogger()
    root.handlers[:] = [json_handler(stream or sys.stderr)]
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    root.setLevel(level)


class RequestLog:
    """Gives every request its id, and says what became of it, in the log and to an observer."""

    def __init__(self, app: ASGIApp, observe: Observer) -> None:
        self._app = app
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await self._handle(scope, receive, send, request_id)

    async def _handle(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        began, status = time.perf_counter(), 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            status = 500
            log.exception("request failed")
            raise
        finally:
            self._report(scope, status, time.perf_counter() - began)

    def _report(self, scope: Scope, status: int, took_s: float) -> None:
        method, path = str(scope["method"]), str(scope["path"])
        route = str(getattr(scope.get("route"), "path", "none"))
        self._observe(method, route, status, took_s)
        level = logging.DEBUG if path in _QUIET and status < 400 else logging.INFO
        details = {"method": method, "path": path, "status": status, "took_s": round(took_s, 4)}
        log.log(level, "request", **details)


def _request_id(scope: Scope) -> str:
    given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
    return given if _SANE_ID.fullmatch(given) else uuid.uuid4().hex

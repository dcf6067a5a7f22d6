"""The application: its parts, routes, answers and description, put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from soundpost import __version__
from soundpost.archive.index import SearchIndex
from soundpost.archive.rerank import NO_SECOND_STAGE, SecondStage
from soundpost.config import Settings
from soundpost.errors import ExplainTimeoutError, SearchTimeoutError, StretchTimeoutError
from soundpost.jobs import JobQueue
from soundpost.models.encoder import AudioTextEncoder
from soundpost.monitoring.feedback import tell_and_learn
from soundpost.monitoring.incidents import OnChange
from soundpost.service.explaining import LazyExplainer, LoadExplainer
from soundpost.service.lag import LagClock
from soundpost.service.logs import RequestLog, log_through_stdlib
from soundpost.service.metrics import Metrics
from soundpost.service.parts import Parts
from soundpost.service.problems import add_to_document, handle_problems
from soundpost.service.routes import (
    audio,
    baselines,
    channels,
    explain,
    health,
    incidents,
    jobs,
    models,
    notifications,
    recordings,
    rules,
    search,
    silences,
    sources,
)
from soundpost.service.spool import Spool
from soundpost.service.work import WorkPool
from soundpost.store.files import AudioFiles
from soundpost.store.session import Store

if TYPE_CHECKING:
    from soundpost.explain.difference import DifferenceExplainer

# Explained at once: each takes seconds of every core, and searches go on beside it.
_EXPLAINING = 2
_ABOUT = """Search recordings by text and by example, bring recordings in, and see what became of
them. Times are UTC, durations seconds. Errors are problem details (RFC 9457) with a stable `code`,
the offending `value`, the `remedy`, and the `request_id` under which the log knows the request."""


def create_app(
    settings: Settings,
    store: Store,
    index: SearchIndex,
    encoder: AudioTextEncoder,
    queue: JobQueue,
    objects: AudioFiles,
    on_change: OnChange | None = None,
    second_stage: SecondStage = NO_SECOND_STAGE,
    load_explainer: LoadExplainer | None = None,
) -> FastAPI:
    """Make the application. Nothing is opened here: what it is handed is its caller's to close.

    on_change is told of every incident that people change, in the same transaction; without one,
    channels and calibrations are. load_explainer makes what explains differences, at the first
    question; without one, the settings and the encoder decide.
    """
    threads, waiting = settings.search_threads, settings.search_waiting
    parts = Parts(
        settings=settings,
        store=store,
        index=index,
        encoder=encoder,
        queue=queue,
        objects=objects,
        spool=Spool(settings.requests_dir),
        searches=WorkPool("search", threads, waiting, SearchTimeoutError),
        stretches=WorkPool("stretch", threads, waiting, StretchTimeoutError),
        explanations=WorkPool("explain", _EXPLAINING, waiting, ExplainTimeoutError),
        explainer=LazyExplainer(load_explainer or partial(_load_explainer, settings, encoder)),
        lag=LagClock(),
        second_stage=second_stage,
        on_change=on_change or tell_and_learn(queue, settings),
    )
    app = FastAPI(
        title="Soundpost",
        version=__version__,
        description=_ABOUT,
        lifespan=_lifespan,
        generate_unique_id_function=_operation_id,
    )
    app.state.parts = parts
    app.state.metrics = Metrics(parts)
    log_through_stdlib()
    app.add_middleware(RequestLog, observe=app.state.metrics.observe_request)
    handle_problems(app)
    watching = (baselines, incidents, rules, silences, channels, notifications)
    for subject in (recordings, audio, search, explain, sources, jobs, models, *watching, health):
        app.include_router(subject.router)
    app.include_router(search.json_router)
    app.include_router(explain.json_router)
    _complete_document(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    parts: Parts = app.state.parts
    await run_in_threadpool(parts.spool.clear)
    yield
    parts.searches.close()
    parts.stretches.close()
    parts.explanations.close()


def _load_explainer(settings: Settings, encoder: AudioTextEncoder) -> DifferenceExplainer:
    # Its network takes seconds to import, and most services are never asked.
    from soundpost.explain.difference import load_explainer

    return load_explainer(settings, encoder)


def _operation_id(route: APIRoute) -> str:
    return route.name


def _complete_document(app: FastAPI) -> None:
    """Add the schema of problems to the OpenAPI document, which FastAPI makes when it is asked."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            add_to_document(make())
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend it

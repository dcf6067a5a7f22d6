"""What the routes work with: handed to create_app, and found again from a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends
from starlette.requests import Request

from soundpost.archive.index import SearchIndex
from soundpost.archive.rerank import SecondStage
from soundpost.config import Settings
from soundpost.jobs import JobQueue
from soundpost.models.encoder import AudioTextEncoder
from soundpost.monitoring.incidents import OnChange
from soundpost.service.explaining import LazyExplainer
from soundpost.service.lag import LagClock
from soundpost.service.spool import Spool
from soundpost.service.work import WorkPool
from soundpost.store.files import AudioFiles
from soundpost.store.session import Store


@dataclass(frozen=True)
class Parts:
    """The parts of one service."""

    settings: Settings
    store: Store
    index: SearchIndex
    encoder: AudioTextEncoder
    queue: JobQueue
    objects: AudioFiles
    spool: Spool
    searches: WorkPool
    stretches: WorkPool
    explanations: WorkPool
    explainer: LazyExplainer
    lag: LagClock
    second_stage: SecondStage
    on_change: OnChange | None = None


def parts_of(request: Request) -> Parts:
    """Return the parts of the service that a request came to."""
    return cast(Parts, request.app.state.parts)


ServiceParts = Annotated[Parts, Depends(parts_of)]

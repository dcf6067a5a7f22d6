"""Baselines: what is normal for a source, made and chosen by people; the work is done by workers."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from soundpost.errors import (
    BaselineStateError,
    InvalidValueError,
    MalformedRequestError,
    NothingToLearnError,
    UnknownBaselineError,
    UnknownSourceError,
)
from soundpost.monitoring import baselines as making
from soundpost.monitoring import watch
from soundpost.monitoring.baselines import Choice
from soundpost.monitoring.novelty import DEFAULT_METHOD
from soundpost.service import baseline_schemas as schemas
from soundpost.service.baseline_views import show_baseline
from soundpost.service.parts import ServiceParts
from soundpost.service.problems import answers
from soundpost.service.schemas import LARGEST_ID, Name
from soundpost.store import baselines, sources

router = APIRouter(prefix="/v1/baselines", tags=["baselines"])

BaselineId = Annotated[int, Path(ge=1, le=LARGEST_ID)]


@router.get("", responses=answers(UnknownSourceError))
def list_baselines(
    parts: ServiceParts, source: Annotated[Name | None, Query()] = None
) -> list[schemas.Baseline]:
    """List the versions, by source, the newest first."""
    with parts.store.reading() as session:
        wanted = sources.by_name(session, source).id if source is not None else None
        return [show_baseline(session, row) for row in baselines.find(session, source_id=wanted)]


@router.post(
    "",
    status_code=202,
    responses=answers(
        UnknownSourceError, NothingToLearnError, InvalidValueError, MalformedRequestError
    ),
)
def create_baseline(wanted: schemas.NewBaseline, parts: ServiceParts) -> schemas.Baseline:
    """Have a baseline made by a worker; look at it again to see how it went."""
    with parts.store.session() as session:
        place = sources.by_name(session, wanted.source)
        made = making.create(session, place, _choice(wanted), wanted.actor)
        if made.state == "preparing":
            then = "activate" if wanted.activate else ""
            parts.queue.prepare_baseline(session, made.id, then=then)
        return show_baseline(session, made)


def _choice(wanted: schemas.NewBaseline) -> Choice:
    return Choice(
        after=wanted.after,
        before=wanted.before,
        recordings=tuple(wanted.recordings),
        learn_s=wanted.learn_s,
        method=wanted.method or DEFAULT_METHOD,
        contexts=wanted.contexts,
        budget_s=wanted.budget_s,
    )


@router.post(
    "/accept",
    status_code=202,
    responses=answers(
        UnknownSourceError,
        NothingToLearnError,
        InvalidValueError,
        BaselineStateError,
        MalformedRequestError,
    ),
)
def accept_recordings(accepted: schemas.Acceptance, parts: ServiceParts) -> schemas.Baseline:
    """Take recordings as a new normal: a version of the active one and these, used once it is ready."""
    with parts.store.session() as session:
        place = sources.by_name(session, accepted.source)
        made = making.accept(session, place, accepted.recordings, accepted.actor, accepted.reason)
        parts.queue.prepare_baseline(session, made.id, then="activate")
        return show_baseline(session, made)


@router.get("/{baseline_id}", responses=answers(UnknownBaselineError))
def get_baseline(baseline_id: BaselineId, parts: ServiceParts) -> schemas.Baseline:
    """Look at one version."""
    with parts.store.reading() as session:
        return show_baseline(session, baselines.get(session, baseline_id))


@router.post(
    "/{baseline_id}/activate",
    responses=answers(UnknownBaselineError, BaselineStateError, MalformedRequestError),
)
def activate_baseline(
    baseline_id: BaselineId, decision: schemas.Decision, parts: ServiceParts
) -> schemas.Baseline:
    """Watch its source by this version from now on; an older one takes back a later."""
    with parts.store.session() as session:
        used = watch.begin_watching(session, baseline_id, decision.actor, decision.reason)
        return show_baseline(session, used)


@router.post(
    "/{baseline_id}/retire",
    responses=answers(UnknownBaselineError, BaselineStateError, MalformedRequestError),
)
def retire_baseline(
    baseline_id: BaselineId, decision: schemas.Decision, parts: ServiceParts
) -> schemas.Baseline:
    """Stop comparing what its source records with this version."""
    with parts.store.session() as session:
        return show_baseline(
            session, making.retire(session, baseline_id, decision.actor, decision.reason)
        )

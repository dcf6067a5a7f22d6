"""Incidents: list, look at, and say what became of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from soundpost.errors import (
    BaselineStateError,
    IncidentStateError,
    MalformedRequestError,
    NothingToLearnError,
    UnknownIncidentError,
    UnknownSourceError,
)
from soundpost.monitoring import feedback, review
from soundpost.service.baseline_schemas import Baseline
from soundpost.service.baseline_views import show_baseline
from soundpost.service.cursors import read_cursor, write_cursor
from soundpost.service.parts import Parts, ServiceParts
from soundpost.service.problems import answers
from soundpost.service.routes.recordings import Cursor, Limit
from soundpost.service.schemas import LARGEST_ID, Moment, Name, Page
from soundpost.service.watch_schemas import (
    Deed,
    Dismissal,
    Incident,
    IncidentDetail,
    IncidentState,
    Severity,
)
from soundpost.service.watch_views import show_incident, show_incident_detail
from soundpost.store import incidents, sources
from soundpost.store.clock import to_epoch_us
from soundpost.store.tables import utc_now

router = APIRouter(prefix="/v1/incidents", tags=["incidents"])

IncidentId = Annotated[int, Path(ge=1, le=LARGEST_ID)]
NewestFirst = Annotated[bool, Query(description="Newest first, or oldest first.")]
States = Annotated[list[IncidentState] | None, Query(max_length=5)]
Severities = Annotated[list[Severity] | None, Query(max_length=3)]
DEED_ERRORS = (UnknownIncidentError, IncidentStateError, MalformedRequestError)


@router.get("", responses=answers(UnknownSourceError))
def list_incidents(
    parts: ServiceParts,
    state: States = None,
    source: Annotated[Name | None, Query()] = None,
    severity: Severities = None,
    since: Annotated[Moment | None, Query(description="Fired at or after then.")] = None,
    newest_first: NewestFirst = True,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[Incident]:
    """List incidents; those that never held for long enough to open are left out."""
    after_id = read_cursor(cursor, "incidents", newest_first)
    check_moment(since)
    with parts.store.reading() as session:
        rows = incidents.find(
            session,
            states=state,
            source_id=sources.by_name(session, source).id if source is not None else None,
            severities=severity,
            since=since,
            after_id=after_id,
            newest_first=newest_first,
            limit=limit + 1,
        )
        items = [show_incident(row) for row in rows[:limit]]
    more = len(rows) > limit
    return Page(
        items=items, next=write_cursor("incidents", items[-1].id, newest_first) if more else None
    )


@router.get("/{incident_id}", responses=answers(UnknownIncidentError))
def get_incident(incident_id: IncidentId, parts: ServiceParts) -> IncidentDetail:
    """Look at an incident with its rules, the windows that carry it, and its history."""
    with parts.store.reading() as session:
        return show_incident_detail(session, incidents.get(session, incident_id))


@router.post("/{incident_id}/acknowledge", responses=answers(*DEED_ERRORS))
def acknowledge_incident(incident_id: IncidentId, deed: Deed, parts: ServiceParts) -> Incident:
    """Say that somebody looks after an open incident: it no longer escalates."""
    return _act(parts, review.acknowledge, incident_id, deed)


@router.post("/{incident_id}/resolve", responses=answers(*DEED_ERRORS))
def resolve_incident(incident_id: IncidentId, deed: Deed, parts: ServiceParts) -> Incident:
    """Say that an incident is over; if it fires again, another one opens."""
    return _act(parts, review.resolve, incident_id, deed)


@router.post("/{incident_id}/dismiss", responses=answers(*DEED_ERRORS))
def dismiss_incident(incident_id: IncidentId, deed: Dismissal, parts: ServiceParts) -> Incident:
    """Say that an incident was a false alarm; the calibration of its source learns from it."""
    return _act(parts, review.dismiss, incident_id, deed)


@router.post(
    "/{incident_id}/accept",
    status_code=202,
    responses=answers(*DEED_ERRORS, BaselineStateError, NothingToLearnError),
)
def accept_incident(incident_id: IncidentId, deed: Deed, parts: ServiceParts) -> Baseline:
    """Take what it was about as normal: a new version of the baseline, used once it is ready."""
    with parts.store.session() as session:
        made = feedback.accept_incident(
            session,
            parts.queue,
            incident_id,
            deed.actor,
            deed.reason,
            now=utc_now(),
            on_change=parts.on_change,
        )
        return show_baseline(session, made)


@router.post("/{incident_id}/reopen", responses=answers(*DEED_ERRORS))
def reopen_incident(incident_id: IncidentId, deed: Deed, parts: ServiceParts) -> Incident:
    """Take back that an incident was resolved or dismissed."""
    return _act(parts, review.reopen, incident_id, deed)


@router.post("/{incident_id}/notes", responses=answers(UnknownIncidentError, MalformedRequestError))
def note_incident(incident_id: IncidentId, deed: Dismissal, parts: ServiceParts) -> IncidentDetail:
    """Add a remark to the history of an incident; `reason` is its text."""
    with parts.store.session() as session:
        review.note(session, incident_id, deed.actor, deed.reason, now=utc_now())
        return show_incident_detail(session, incidents.get(session, incident_id))


def _act(
    parts: Parts, action: Callable[..., Any], incident_id: int, deed: Deed | Dismissal
) -> Incident:
    with parts.store.session() as session:
        row = action(
            session,
            incident_id,
            deed.actor,
            deed.reason,
            now=utc_now(),
            on_change=parts.on_change,
        )
        return show_incident(row)


def check_moment(*moments: datetime | None) -> None:
    """Raise InvalidValueError for a time in the first or last year of the calendar."""
    for moment in moments:
        if moment is not None:
            to_epoch_us(moment)

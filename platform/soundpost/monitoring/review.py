"""What people do with incidents: acknowledge, resolve, dismiss, reopen, note; and what follows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from soundpost.errors import IncidentStateError, InvalidValueError
from soundpost.monitoring.incidents import ChangeKind, Desk, OnChange
from soundpost.store import audit, incidents
from soundpost.store.tables import Window
from soundpost.store.watch_tables import Finding, Incident, IncidentRule, Rule

LONGEST_REASON = 1000


@dataclass(frozen=True)
class Stretch:
    """A time that a person said was no fault: when a rule fired in a dismissed incident.

    window_ids, recording_ids: those of its findings that are still there.
    """

    incident_id: int
    rule_id: int
    kind: str
    started_at: datetime
    until: datetime
    window_ids: tuple[int, ...]
    recording_ids: tuple[int, ...]


def acknowledge(
    session: Session,
    incident_id: int,
    actor: str,
    reason: str | None = None,
    *,
    now: datetime,
    on_change: OnChange | None = None,
) -> Incident:
    """Say that somebody looks after an open incident: it no longer escalates.

    Raises UnknownIncidentError, and IncidentStateError unless it is open.
    """
    desk, incident = _take(session, incident_id, actor, reason, now, on_change)
    before = _require(incident, "acknowledged", ("open",))
    incident.state, incident.acknowledged_at = "acknowledged", now
    desk.act(incident, "acknowledged", actor, reason, before)
    return incident


def resolve(
    session: Session,
    incident_id: int,
    actor: str,
    reason: str | None = None,
    *,
    now: datetime,
    on_change: OnChange | None = None,
) -> Incident:
    """Say that an incident is over; if it fires again, another one opens.

    A format that differs is accepted by this. Raises UnknownIncidentError, and IncidentStateError
    unless it is open or acknowledged.
    """
    desk, incident = _take(session, incident_id, actor, reason, now, on_change)
    before = _require(incident, "resolved", ("open", "acknowledged"))
    _close(desk, incident, "resolved", actor, reason, before)
    return incident


def dismiss(
    session: Session,
    incident_id: int,
    actor: str,
    reason: str,
    *,
    now: datetime,
    on_change: OnChange | None = None,
) -> Incident:
    """Say that an incident was a false alarm; the calibration of its source learns from it.

    What goes on as it was opens no other incident for a day. A resolved incident can be dismissed
    too. Raises UnknownIncidentError, and IncidentStateError for one that never opened.
    """
    desk, incident = _take(session, incident_id, actor, reason, now, on_change)
    if not reason.strip():
        raise InvalidValueError(reason, "say why it was a false alarm")
    before = _require(incident, "dismissed", ("open", "acknowledged", "resolved"))
    if incident.opened_at is None:
        raise IncidentStateError(incident.id, "it never opened")
    _close(desk, incident, "dismissed", actor, reason, before)
    return incident


def reopen(
    session: Session,
    incident_id: int,
    actor: str,
    reason: str | None = None,
    *,
    now: datetime,
    on_change: OnChange | None = None,
) -> Incident:
    """Take back that an incident was resolved or dismissed: it is open, and ends by itself.

    Raises UnknownIncidentError, and IncidentStateError where another one goes on meanwhile.
    """
    desk, incident = _take(session, incident_id, actor, reason, now, on_change)
    before = _require(incident, "opened", ("resolved", "dismissed"))
    if incident.opened_at is None:
        raise IncidentStateError(incident.id, "it never opened")
    other = next((i for i in desk.incidents.values() if i.family == incident.family), None)
    if other is not None:
        raise IncidentStateError(incident.id, f"incident {other.id} goes on instead")
    incident.state, incident.closed_at, incident.noticed_at = "open", None, now
    incident.acknowledged_at = incident.escalated_at = None
    # As a new one: it is told of unless something holds it back now.
    incident.told_at = incident.suppressed_by = None
    desk.hold(incident)
    desk.settle()
    incident.told_at = None if incident.suppressed_by else now
    desk.act(incident, "opened", actor, reason, before)
    return incident


def note(session: Session, incident_id: int, actor: str, text: str, *, now: datetime) -> None:
    """Add a person's remark to the history of an incident. Raises UnknownIncidentError."""
    incidents.get(session, incident_id)
    _check(actor, text)
    if not text.strip():
        raise InvalidValueError(text, "a note says something")
    audit.note(session, actor, "noted", "incident", incident_id, now=now, reason=text)


def dismissed_stretches(session: Session, source_id: int) -> list[Stretch]:
    """Return when rules fired in dismissed incidents of a source, the oldest incident first."""
    statement = (
        select(IncidentRule, Rule.kind)
        .join(Incident, Incident.id == IncidentRule.incident_id)
        .join(Rule, Rule.id == IncidentRule.rule_id)
        .where(Incident.source_id == source_id, Incident.state == "dismissed")
        .where(IncidentRule.joined_at.is_not(None))
        .order_by(IncidentRule.incident_id, IncidentRule.rule_id)
    )
    return [_stretch(session, part, kind) for part, kind in session.execute(statement)]


def _stretch(session: Session, part: IncidentRule, kind: str) -> Stretch:
    statement = (
        select(Window.id, Window.recording_id)
        .join(Finding, Finding.window_id == Window.id)
        .where(Finding.incident_id == part.incident_id)
        .order_by(Window.id)
    )
    rows = session.execute(statement).all()
    return Stretch(
        incident_id=part.incident_id,
        rule_id=part.rule_id,
        kind=kind,
        started_at=part.first_fired_at,
        until=part.last_fired_at,
        window_ids=tuple(dict.fromkeys(window for window, _ in rows)),
        recording_ids=tuple(dict.fromkeys(recording for _, recording in rows)),
    )


def _take(
    session: Session,
    incident_id: int,
    actor: str,
    reason: str | None,
    now: datetime,
    on_change: OnChange | None,
) -> tuple[Desk, Incident]:
    """Hold the incident's source, then read the incident as it is now."""
    _check(actor, reason)
    known = incidents.get(session, incident_id)
    desk = Desk(session, known.source_id, now, on_change, late=known.late)
    session.refresh(known)
    return desk, known


def _check(actor: str, reason: str | None) -> None:
    audit.check_actor(actor)
    if reason is not None and len(reason) > LONGEST_REASON:
        raise InvalidValueError(f"{len(reason)} characters", f"at most {LONGEST_REASON}")


def _require(incident: Incident, wanted: str, allowed: tuple[str, ...]) -> str:
    if incident.state not in allowed:
        detail = f"it is {incident.state}, and only {' or '.join(allowed)} ones can be {wanted}"
        raise IncidentStateError(incident.id, detail)
    return incident.state


def _close(
    desk: Desk,
    incident: Incident,
    kind: ChangeKind,
    actor: str,
    reason: str | None,
    before: str,
) -> None:
    incident.state = kind
    incident.closed_at = incident.closed_at or desk.now
    desk.act(incident, kind, actor, reason, before)
    if before != "resolved":
        desk.close(incident, accepted=True)

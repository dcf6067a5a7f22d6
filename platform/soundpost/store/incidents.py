"""Incidents as they are read: lists, one with its rules and findings, and counts.

How they change is in `monitoring.incidents`; nothing else writes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal, get_args

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from soundpost.errors import UnknownIncidentError
from soundpost.store.watch_tables import Finding, Incident, IncidentRule, Rule

State = Literal["pending", "open", "acknowledged", "resolved", "dismissed"]
STATES: tuple[State, ...] = get_args(State)
ACTIVE: tuple[State, ...] = ("pending", "open", "acknowledged")


def get(session: Session, incident_id: int) -> Incident:
    """Return an incident. Raises UnknownIncidentError."""
    incident = session.get(Incident, incident_id)
    if incident is None:
        raise UnknownIncidentError(incident_id)
    return incident


def find(
    session: Session,
    *,
    states: Iterable[State] | None = None,
    source_id: int | None = None,
    severities: Iterable[str] | None = None,
    since: datetime | None = None,
    group_key: str | None = None,
    lapsed: bool = False,
    after_id: int | None = None,
    newest_first: bool = True,
    limit: int | None = 100,
) -> list[Incident]:
    """Return the incidents that meet every filter and come after `after_id`.

    since: those that fired last at or after a moment. lapsed: also those that never held for long
    enough to open.
    """
    order = Incident.id.desc() if newest_first else Incident.id
    statement = select(Incident).order_by(order).limit(limit)
    if not lapsed:
        statement = statement.where(
            or_(Incident.opened_at.is_not(None), Incident.state == "pending")
        )
    if after_id is not None:
        beyond = Incident.id < after_id if newest_first else Incident.id > after_id
        statement = statement.where(beyond)
    if states is not None:
        statement = statement.where(Incident.state.in_(list(states)))
    if source_id is not None:
        statement = statement.where(Incident.source_id == source_id)
    if severities is not None:
        statement = statement.where(Incident.severity.in_(list(severities)))
    if since is not None:
        statement = statement.where(Incident.last_fired_at >= since)
    if group_key is not None:
        statement = statement.where(Incident.group_key == group_key)
    return list(session.scalars(statement))


def rules_of(
    session: Session, incident_ids: Sequence[int]
) -> dict[int, list[tuple[IncidentRule, Rule]]]:
    """Return the rules that have a part in each incident, in the order in which they first fired."""
    found: dict[int, list[tuple[IncidentRule, Rule]]] = {key: [] for key in incident_ids}
    statement = (
        select(IncidentRule, Rule)
        .join(Rule, Rule.id == IncidentRule.rule_id)
        .where(IncidentRule.incident_id.in_(list(incident_ids)))
        .order_by(IncidentRule.first_fired_at, IncidentRule.rule_id)
    )
    for part, rule in session.execute(statement):
        found[part.incident_id].append((part, rule))
    return found


def findings_of(session: Session, incident_id: int) -> list[Finding]:
    """Return the windows that carry an incident, in the order in which they were heard."""
    statement = select(Finding).where(Finding.incident_id == incident_id)
    return list(session.scalars(statement.order_by(Finding.heard_at, Finding.id)))


def counts(session: Session) -> dict[tuple[str, str], int]:
    """Return how many incidents there are by (state, severity)."""
    statement = select(Incident.state, Incident.severity, func.count())
    rows = session.execute(statement.group_by(Incident.state, Incident.severity))
    return {(state, severity): number for state, severity, number in rows}

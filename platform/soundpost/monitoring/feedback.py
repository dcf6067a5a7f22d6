"""What people's decisions teach: a false alarm makes such sounds usual, a new normal a new baseline."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from soundpost.config import Settings
from soundpost.errors import NothingToLearnError
from soundpost.jobs import JobQueue
from soundpost.monitoring import baselines as making
from soundpost.monitoring import notify, review
from soundpost.monitoring.incidents import ChangeKind, OnChange
from soundpost.monitoring.watch import OnFindings
from soundpost.store import baselines, incidents, scores
from soundpost.store.tables import Source, Window
from soundpost.store.watch_tables import Baseline, Finding, Incident

NEW_NORMAL = "accepted as a new normal"


def tell_and_learn(queue: JobQueue, settings: Settings | None = None) -> OnChange:
    """Return what is to follow from every change of an incident, in the same transaction.

    Channels are told. A dismissal, or one that is taken back, has the calibration made anew. When
    it opens, what was found so far is explained.
    """

    def on_change(session: Session, incident: Incident, kind: ChangeKind, now: datetime) -> None:
        notify.incident_changed(session, incident, kind, now, settings=settings)
        if kind in ("dismissed", "opened"):
            _learn(session, queue, incident)
        if kind == "opened":
            queue.explain_incident(session, incident.id)

    return on_change


def explain_findings(queue: JobQueue) -> OnFindings:
    """Return what is to follow from new findings: those of an incident that is open are explained.

    One that is pending may come to nothing; its findings are explained when it opens.
    """

    def on_findings(session: Session, incident_id: int, made: Sequence[Finding]) -> None:
        if incidents.get(session, incident_id).state in ("open", "acknowledged"):
            queue.explain_incident(session, incident_id)

    return on_findings


def _learn(session: Session, queue: JobQueue, incident: Incident) -> None:
    session.flush()
    baseline = baselines.active(session, incident.source_id)
    if baseline is None:
        return
    known = int(baseline.summary.get("dismissed_windows", 0))
    if len(scores.dismissed(session, baseline.id).novelty) != known:
        queue.prepare_baseline(session, baseline.id)


def accept_incident(
    session: Session,
    queue: JobQueue,
    incident_id: int,
    actor: str,
    reason: str | None,
    *,
    now: datetime,
    on_change: OnChange | None = None,
) -> Baseline:
    """Take what an incident was about as normal from now on; one that is still open is resolved.

    The new version is prepared by a worker, and used then. Raises UnknownIncidentError,
    BaselineStateError without a baseline in use, and NothingToLearnError if its recordings are gone.
    """
    incident = incidents.get(session, incident_id)
    source = session.get_one(Source, incident.source_id)
    carried = recordings_of(session, incident_id)
    if not carried:
        raise NothingToLearnError(f"incident {incident_id}", "its recordings are gone")
    why = reason or f"incident {incident_id}"
    made = making.accept(session, source, carried, actor, why)
    if incident.state in ("open", "acknowledged"):
        review.resolve(session, incident_id, actor, NEW_NORMAL, now=now, on_change=on_change)
    queue.prepare_baseline(session, made.id, then="activate")
    return made


def recordings_of(session: Session, incident_id: int) -> list[int]:
    """Return the recordings that carry an incident and are still there, by id."""
    statement = select(Window.recording_id).join(Finding, Finding.window_id == Window.id)
    found = statement.where(Finding.incident_id == incident_id).distinct()
    return sorted(session.scalars(found))

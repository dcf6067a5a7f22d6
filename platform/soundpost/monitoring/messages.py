"""Notifications as documents: incidents, their clips and what is said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sqlalchemy import select
from sqlalchemy.orm import Session

from soundpost.monitoring.notification_document import (
    Kind,
    NotificationDocument,
    NotifiedClip,
    NotifiedIncident,
)
from soundpost.monitoring.templates import one_line, render_subject, render_text
from soundpost.store.notification_tables import Channel
from soundpost.store.tables import Window
from soundpost.store.watch_tables import Finding, Incident

# Documents have no use for more; what an incident rests on in full can be looked up.
_MOST_EVIDENCE = 50


@dataclass(frozen=True)
class Envelope:
    """What a notification is, apart from what it is about."""

    key: str
    kind: Kind
    group: str
    sequence: int
    composed_at: datetime


def write_document(
    session: Session,
    envelope: Envelope,
    channel: Channel,
    incidents: Sequence[Incident],
    changes: Mapping[int, Sequence[str]],
    public_url: str,
) -> NotificationDocument:
    """Compose what a channel is told; `changes` by incident id, without one it only goes on."""
    clips = best_clips(session, [incident.id for incident in incidents], public_url)
    notified = [
        describe(incident, changes.get(incident.id, ()), clips.get(incident.id), public_url)
        for incident in incidents
    ]
    kind, group = envelope.kind, envelope.group
    return NotificationDocument(
        **vars(envelope),
        subject=render_subject(kind, group, notified, channel.subject_template),
        text=render_text(kind, group, notified, channel.body_template),
        incidents=notified,
    )


def describe(
    incident: Incident, changes: Sequence[str], clip: NotifiedClip | None, public_url: str
) -> NotifiedIncident:
    """Describe an incident as it is now."""
    zone = _zone(incident.source.timezone)
    opened_at = incident.opened_at or incident.pending_since
    closed_at = incident.closed_at
    return NotifiedIncident.model_validate(
        {
            "id": incident.id,
            "source": one_line(incident.source.name),
            "timezone": incident.source.timezone,
            "state": incident.state,
            "severity": incident.severity,
            "reason": one_line(incident.reason),
            "changes": list(changes),
            "late": incident.late,
            "opened_at": opened_at,
            "opened_at_local": opened_at.astimezone(zone),
            "closed_at": closed_at,
            "closed_at_local": closed_at.astimezone(zone) if closed_at else None,
            "evidence": _evidence(incident.evidence),
            "clip": clip,
            "link": f"{public_url}/incidents/{incident.id}" if public_url else None,
        }
    )


def write_test(channel: Channel, key: str, now: datetime) -> NotificationDocument:
    """Compose what a channel is sent to see whether it works."""
    name = one_line(channel.name)
    return NotificationDocument(
        key=key,
        kind="test",
        group="test",
        sequence=0,
        composed_at=now,
        subject=f"[Soundpost] Test of channel {name}",
        text=f"This is a test of the channel {name}. There is no incident.\n",
        incidents=[],
    )


def best_clips(
    session: Session, incident_ids: Sequence[int], public_url: str
) -> dict[int, NotifiedClip]:
    """Return for each incident that has one the window that carries it most clearly."""
    statement = (
        select(Finding.incident_id, Window.recording_id, Window.start_s, Window.end_s)
        .join(Window, Window.id == Finding.window_id)
        .where(Finding.incident_id.in_(incident_ids))
        .order_by(Finding.incident_id, Finding.p_value.is_(None), Finding.p_value, Finding.id)
    )
    clips: dict[int, NotifiedClip] = {}
    for incident_id, recording_id, start_s, end_s in session.execute(statement):
        if incident_id not in clips:
            stretch = {"start_s": round(start_s, 3), "end_s": round(end_s, 3), "format": "opus"}
            path = f"/v1/recordings/{recording_id}/clip?{urlencode(stretch)}"
            link = f"{public_url}{path}" if public_url else None
            clips[incident_id] = NotifiedClip(
                recording_id=recording_id, start_s=start_s, end_s=end_s, link=link
            )
    return clips


def _evidence(evidence: Mapping[str, Any]) -> dict[str, Any]:
    return dict(list(evidence.items())[:_MOST_EVIDENCE])


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        # A system without its data; UTC is right all the same.
        return ZoneInfo("UTC")

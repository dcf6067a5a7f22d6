"""What a notification says, as a document: the body of webhooks and MQTT messages.

It imports pydantic and nothing heavier. Members are only ever added within a version.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

VERSION: Literal[1] = 1

Kind = Literal["opened", "changed", "repeat", "resolved", "test"]
Change = Literal["opened", "joined", "raised", "escalated", "unsilenced", "resolved", "dismissed"]
Severity = Literal["info", "warning", "critical"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "critical")


class NotifiedClip(BaseModel):
    """The stretch of a recording in which an incident is heard best."""

    model_config = ConfigDict(frozen=True)

    recording_id: int
    start_s: float
    end_s: float
    link: str | None = None


class NotifiedIncident(BaseModel):
    """An incident as it was when the notification was composed.

    changes: what happened since the notification before; empty for one that only goes on.
    *_local: the same moments by the clock of the source. evidence: how sure it is, by method.
    """

    model_config = ConfigDict(frozen=True)

    id: int
    source: str
    timezone: str
    state: Literal["open", "acknowledged", "resolved", "dismissed"]
    severity: Severity
    reason: str
    changes: list[Change] = []
    late: bool = Field(default=False, description="Noticed in a recording that arrived late.")
    opened_at: datetime
    opened_at_local: datetime
    closed_at: datetime | None = None
    closed_at_local: datetime | None = None
    evidence: dict[str, Any] = {}
    clip: NotifiedClip | None = None
    link: str | None = None


class NotificationDocument(BaseModel):
    """A notification: who has seen its key before can leave it.

    sequence grows within a group: what was composed later has a higher one.
    """

    model_config = ConfigDict(frozen=True)

    version: Literal[1] = VERSION
    key: str
    kind: Kind
    group: str
    sequence: int
    composed_at: datetime
    subject: str
    text: str
    incidents: list[NotifiedIncident]

"""Who is told of what, and when."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from sqlalchemy.orm import Session

from soundpost.config import Settings
from soundpost.jobs import JobQueue
from soundpost.store.watch_tables import Incident

Change = Literal[
    "opened", "joined", "raised", "escalated", "acknowledged", "resolved", "dismissed", "told"
]


def incident_changed(
    session: Session,
    incident: Incident,
    change: Change,
    now: datetime,
    *,
    settings: Settings | None = None,
) -> None:
    """Note that an incident changed, for every channel that is to be told of it.

    Nothing is sent here: `tick` composes what is due. An incident that is suppressed tells nobody.
    """


def tick(
    session: Session, queue: JobQueue, now: datetime, *, settings: Settings | None = None
) -> int:
    """Compose the notifications that are due and queue their delivery; return how many."""
    return 0

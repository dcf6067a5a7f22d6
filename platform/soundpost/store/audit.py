"""The audit log: who did what to which thing, when and why. Rows are added and never changed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from soundpost.errors import InvalidValueError
from soundpost.store.tables import utc_now
from soundpost.store.watch_tables import AuditEntry

# Who does what Soundpost does by itself.
SOUNDPOST = "soundpost"
MAX_ACTOR_LENGTH = 200


def note(
    session: Session,
    actor: str,
    action: str,
    subject_kind: str,
    subject_id: int,
    *,
    reason: str | None = None,
    detail: Mapping[str, Any] | None = None,
    now: datetime | None = None,
) -> AuditEntry:
    """Add an entry; actor SOUNDPOST for what happened by itself.

    Raises InvalidValueError for an actor without a name.
    """
    check_actor(actor)
    entry = AuditEntry(
        at=now or utc_now(),
        actor=actor,
        action=action,
        subject_kind=subject_kind,
        subject_id=subject_id,
        reason=reason,
        detail=dict(detail or {}),
    )
    session.add(entry)
    session.flush()
    return entry


def check_actor(actor: str) -> None:
    """Raise InvalidValueError for a name that says nothing."""
    if not actor.strip() or len(actor) > MAX_ACTOR_LENGTH or not actor.isprintable():
        raise InvalidValueError(actor, f"say who does it, in 1 to {MAX_ACTOR_LENGTH} characters")


def history(session: Session, subject_kind: str, subject_id: int) -> list[AuditEntry]:
    """Return everything that was done to a thing, the oldest first."""
    statement = select(AuditEntry).where(
        AuditEntry.subject_kind == subject_kind, AuditEntry.subject_id == subject_id
    )
    return list(session.scalars(statement.order_by(AuditEntry.id)))


def find(
    session: Session,
    *,
    actor: str | None = None,
    action: str | None = None,
    subject_kind: str | None = None,
    after_id: int | None = None,
    newest_first: bool = True,
    limit: int | None = 100,
) -> list[AuditEntry]:
    """Return the entries that meet every filter and come after `after_id`, newest first or not."""
    order = AuditEntry.id.desc() if newest_first else AuditEntry.id
    statement = select(AuditEntry).order_by(order).limit(limit)
    if after_id is not None:
        beyond = AuditEntry.id < after_id if newest_first else AuditEntry.id > after_id
        statement = statement.where(beyond)
    for column, wanted in (
        (AuditEntry.actor, actor),
        (AuditEntry.action, action),
        (AuditEntry.subject_kind, subject_kind),
    ):
        if wanted is not None:
            statement = statement.where(column == wanted)
    return list(session.scalars(statement))

"""The audit log: who did what to which thing, when and why; entries are only ever added."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from soundpost.store.tables import utc_now
from soundpost.store.watch_tables import AuditEntry


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
    """Add an entry; actor "soundpost" for what happened by itself."""
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

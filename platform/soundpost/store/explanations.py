"""Explanations that were made before, by what they were made of; and those of findings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from soundpost.errors import UnknownFindingError
from soundpost.store.explain_tables import StoredExplanation
from soundpost.store.session import insert_new
from soundpost.store.tables import utc_now
from soundpost.store.watch_tables import Finding


def key_of(contents: Sequence[str], models: Sequence[str], tiers: Sequence[int]) -> str:
    """Return the key of an explanation: 64 hexadecimal digits.

    contents: what identifies both excerpts, in their order. models: names with revisions of all
    that has a say in it.
    """
    made_of = {
        "contents": list(contents),
        "models": list(models),
        "tiers": sorted(set(tiers)),
    }
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()


def find(session: Session, key: str) -> dict[str, Any] | None:
    """Return the document of an explanation, None if it has not been made."""
    found = session.get(StoredExplanation, key)
    return dict(found.document) if found is not None else None


def save(
    session: Session, key: str, model: str, revision: str, document: Mapping[str, Any]
) -> None:
    """Keep an explanation; one of the same key that is there already stays as it is."""
    row = insert_new(session, StoredExplanation).values(
        key=key, model=model, revision=revision, document=dict(document), created_at=utc_now()
    )
    session.execute(row.on_conflict_do_nothing())


def remove_old(session: Session, before: datetime) -> int:
    """Delete what was made before a moment; return how many."""
    old = delete(StoredExplanation).where(StoredExplanation.created_at < before)
    return len(session.scalars(old.returning(StoredExplanation.key)).all())


# --- of findings ------------------------------------------------------------------------------


def finding(session: Session, finding_id: int) -> Finding:
    """Return a finding. Raises UnknownFindingError."""
    found = session.get(Finding, finding_id)
    if found is None:
        raise UnknownFindingError(finding_id)
    return found


def explain_finding(
    session: Session,
    finding_id: int,
    document: Mapping[str, Any],
    claims: Sequence[Mapping[str, Any]],
) -> bool:
    """Keep what explains a finding; return False if it was deleted meanwhile."""
    values = {"explanation": dict(document), "claims": [dict(claim) for claim in claims]}
    changed = update(Finding).where(Finding.id == finding_id).values(**values)
    return session.scalar(changed.returning(Finding.id)) is not None


def unexplained(session: Session, incident_id: int) -> list[Finding]:
    """Return the findings of an incident that have a reference and no explanation yet, by id."""
    statement = select(Finding).where(
        Finding.incident_id == incident_id,
        Finding.reference_window_id.is_not(None),
    )
    found = session.scalars(statement.order_by(Finding.id))
    # Not in SQL: a JSON column tells a null of its own from one of SQL, and neither explains.
    return [finding for finding in found if finding.claims is None]

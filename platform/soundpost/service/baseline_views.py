"""Baselines as they are shown."""

from __future__ import annotations

from sqlalchemy.orm import Session

from soundpost.service import baseline_schemas as schemas
from soundpost.store.tables import Source
from soundpost.store.watch_tables import Baseline


def show_baseline(session: Session, row: Baseline) -> schemas.Baseline:
    """Show a baseline."""
    source = session.get_one(Source, row.source_id)
    fields = schemas.Baseline.model_fields.keys() - {"source"}
    return schemas.Baseline.model_validate(
        {"source": source.name, **{name: getattr(row, name) for name in fields}}
    )

"""Scores: how new each window is against a baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from soundpost.errors import InvalidValueError
from soundpost.store.session import insert_new
from soundpost.store.tables import Window
from soundpost.store.watch_tables import Finding, Incident, Score

# What sounds stranger than nine in ten windows of what is normal.
STRANGE_P_VALUE = 0.1


@dataclass(frozen=True)
class NewScore:
    """A window's novelty and p-value under a baseline; parts: by each method alone."""

    window_id: int
    novelty: float
    p_value: float
    context: str
    parts: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Dismissed:
    """Windows [N] that carried incidents which people dismissed as false alarms."""

    novelty: NDArray[np.float64]
    recording_ids: NDArray[np.int64]
    contexts: tuple[str, ...]


def save(session: Session, baseline_id: int, new: Sequence[NewScore]) -> None:
    """Keep the scores of some windows; one that is there already is replaced.

    Raises InvalidValueError for NaN and infinity, which no comparison would ever accept.
    """
    for score in new:
        if not all(map(math.isfinite, (score.novelty, score.p_value, *score.parts.values()))):
            raise InvalidValueError(f"the score of window {score.window_id}", "NaN or infinity")
    rows: list[dict[str, Any]] = [
        {
            "window_id": score.window_id,
            "baseline_id": baseline_id,
            "novelty": score.novelty,
            "p_value": score.p_value,
            "context": score.context,
            "parts": dict(score.parts),
        }
        for score in new
    ]
    if not rows:
        return
    statement = insert_new(session, Score)
    values = {name: statement.excluded[name] for name in ("novelty", "p_value", "context", "parts")}
    upsert = statement.on_conflict_do_update(
        index_elements=["window_id", "baseline_id"], set_=values
    )
    session.connection().execute(upsert, rows)


def of_recording(session: Session, recording_id: int, baseline_id: int) -> list[Score]:
    """Return the scores of a recording's windows, in their order."""
    statement = select(Score).join(Window, Window.id == Score.window_id)
    statement = statement.where(
        Window.recording_id == recording_id, Score.baseline_id == baseline_id
    )
    return list(session.scalars(statement.order_by(Window.start_s)))


def dismissed(session: Session, baseline_id: int) -> Dismissed:
    """Return the strange windows of recordings that carried dismissed incidents, by one baseline."""
    carried = (
        select(Window.recording_id)
        .join(Finding, Finding.window_id == Window.id)
        .join(Incident, Incident.id == Finding.incident_id)
        .where(Incident.state == "dismissed")
    )
    statement = (
        select(Score.window_id, Score.novelty, Score.context, Window.recording_id)
        .join(Window, Window.id == Score.window_id)
        .where(Score.baseline_id == baseline_id, Score.p_value <= STRANGE_P_VALUE)
        .where(Window.recording_id.in_(carried))
        .order_by(Score.window_id)
    )
    rows = session.execute(statement).all()
    return Dismissed(
        np.array([row.novelty for row in rows], dtype=np.float64),
        np.array([row.recording_id for row in rows], dtype=np.int64),
        tuple(row.context for row in rows),
    )

"""Findings: the windows that carry an incident, each beside the reference window nearest to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from soundpost.audio.differences import Side, compare, sentence
from soundpost.monitoring.baselines import Fitted, Scored
from soundpost.monitoring.observations import Observations
from soundpost.store import windows
from soundpost.store.scores import STRANGE_P_VALUE
from soundpost.store.watch_tables import Finding

# People look at a few; a recording of a day has thousands of windows.
FINDINGS_A_RECORDING = 3
FINDINGS_AN_INCIDENT = 30


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a recording's findings are made from; baseline and scored: None where it has none."""

    model_id: int
    observed: Observations
    baseline: Fitted | None
    scored: Scored | None


def record(
    session: Session,
    incident_id: int,
    rule_id: int,
    window_ids: Sequence[int],
    evidence: Evidence,
) -> list[Finding]:
    """Keep the strangest of the windows by which a rule fired; return what is new.

    A window carries an incident once, however many rules fire on it.
    """
    known = set(
        session.scalars(select(Finding.window_id).where(Finding.incident_id == incident_id))
    )
    rows = _strangest(evidence, set(window_ids) - known, usual_too=not known)
    room = FINDINGS_AN_INCIDENT - len(known)
    made = [_finding(session, incident_id, rule_id, row, evidence) for row in rows[: max(0, room)]]
    session.add_all(made)
    session.flush()
    return made


def count(session: Session, incident_id: int) -> int:
    """How many windows are kept with an incident."""
    statement = select(func.count()).where(Finding.incident_id == incident_id)
    return session.scalar(statement) or 0


def _strangest(evidence: Evidence, window_ids: set[int], usual_too: bool) -> list[int]:
    """Rows of windows, the most novel first; in order of time where nothing says how novel.

    Evidence of a change outlasts it: a window that sounds as usual is no finding, unless an
    incident has no other.
    """
    rows = np.flatnonzero(np.isin(evidence.observed.window_ids, sorted(window_ids)))
    if evidence.scored is not None:
        rows = rows[np.argsort(-evidence.scored.novelty[rows], kind="stable")]
        strange = rows[evidence.scored.p_values[rows] <= STRANGE_P_VALUE]
        rows = rows[:1] if usual_too and not len(strange) else strange
    return [int(row) for row in rows[:FINDINGS_A_RECORDING]]


def _finding(
    session: Session, incident_id: int, rule_id: int, row: int, evidence: Evidence
) -> Finding:
    observed, scored, fitted = evidence.observed, evidence.scored, evidence.baseline
    finding = Finding(
        incident_id=incident_id,
        rule_id=rule_id,
        window_id=int(observed.window_ids[row]),
        heard_at=datetime.fromtimestamp(float(observed.starts_s[row]), UTC),
        measurements={"acoustics": dict(observed.acoustics[row])},
    )
    if scored is None or fitted is None:
        return finding
    nearest = int(scored.nearest[row])
    finding.reference_window_id = int(fitted.reference.window_ids[nearest])
    finding.novelty = float(scored.novelty[row])
    finding.p_value = float(scored.p_values[row])
    finding.measurements |= _measured(session, row, nearest, evidence, fitted)
    return finding


def _measured(
    session: Session, row: int, nearest: int, evidence: Evidence, fitted: Fitted
) -> dict[str, Any]:
    here = _side(session, evidence.observed, row, evidence.model_id)
    there = _side(session, fitted.reference, nearest, evidence.model_id)
    differences = compare(here, there)
    return {"differences": differences, "sentence": sentence(differences)}


def _side(session: Session, source: Observations, row: int, model_id: int) -> Side:
    tags = windows.tags_of(session, [int(source.window_ids[row])], model_id)[0]
    return Side(source.acoustics[row], tags, source.frames[source.frame_windows == row])

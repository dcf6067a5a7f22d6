"""Incidents, rules and silences as they are shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from soundpost.service import watch_schemas as schemas
from soundpost.store import audit, incidents, rules, sources
from soundpost.store.tables import Source, Window
from soundpost.store.watch_tables import (
    Finding,
    Incident,
    IncidentRule,
    Rule,
    Silence,
)

_PLAIN_OF_INCIDENT = (
    *("id", "family", "state", "severity", "group_key", "reason", "evidence", "suppressed_by"),
    *("late", "pending_since", "last_fired_at", "opened_at", "told_at", "acknowledged_at"),
    *("escalated_at", "closed_at"),
)
_PLAIN_OF_PART = (
    *("firing", "times", "first_fired_at", "last_fired_at", "joined_at", "reason", "evidence"),
)
_PLAIN_OF_FINDING = (
    *("id", "rule_id", "window_id", "reference_window_id", "heard_at", "novelty", "p_value"),
    *("measurements", "explanation", "claims", "verdict", "reviewer", "note"),
)
_PLAIN_OF_RULE = (
    *("id", "name", "kind", "tag", "severity", "for_s", "keep_firing_s", "cooldown_s"),
    *("escalate_after_s", "enabled", "created_by", "created_at"),
)
_PLAIN_OF_SILENCE = (
    *("id", "kind", "tag", "rule_id", "starts_at", "ends_at", "weekly", "reason", "created_by"),
    "created_at",
)
# Kilobytes that say nothing to anybody.
_HIDDEN_SETTINGS = frozenset({"vector"})


def show_incident(row: Incident) -> schemas.Incident:
    """Show an incident."""
    return schemas.Incident.model_validate(_plain_incident(row))


def show_incident_detail(session: Session, row: Incident) -> schemas.IncidentDetail:
    """Show an incident with all there is of it."""
    parts = incidents.rules_of(session, [row.id])[row.id]
    findings = incidents.findings_of(session, row.id)
    windows = _windows(session, findings)
    return schemas.IncidentDetail.model_validate(
        {
            **_plain_incident(row),
            "rules": [_part(part, rule) for part, rule in parts],
            "findings": [_finding(finding, windows) for finding in findings],
            "history": [
                schemas.AuditEntry.model_validate(vars(entry))
                for entry in audit.history(session, "incident", row.id)
            ],
        }
    )


def show_finding(session: Session, row: Finding) -> schemas.Finding:
    """Show one finding."""
    return schemas.Finding.model_validate(_finding(row, _windows(session, [row])))


def show_rule(session: Session, row: Rule) -> schemas.Rule:
    """Show a rule, and what it waits for."""
    return schemas.Rule.model_validate(
        {
            **_plain(row, _PLAIN_OF_RULE),
            "source": _source_name(session, row.source_id),
            "settings": {k: v for k, v in row.settings.items() if k not in _HIDDEN_SETTINGS},
            "waiting": waiting_of(session, row),
        }
    )


def waiting_of(session: Session, row: Rule) -> list[dict[str, str]]:
    """Return what a rule lacks to work, by source."""
    states = rules.states_of(session, row.id)
    names = {source.id: source.name for source in rules.sources_of(session, row)}
    return [
        {"source": names[source_id], "waiting": str(state.state["waiting"])}
        for source_id, state in sorted(states.items())
        if source_id in names and state.state.get("waiting")
    ]


def show_silence(session: Session, row: Silence) -> schemas.Silence:
    """Show a silence."""
    plain = _plain(row, _PLAIN_OF_SILENCE)
    return schemas.Silence.model_validate({**plain, "source": _source_name(session, row.source_id)})


def _source_name(session: Session, source_id: int | None) -> str | None:
    return None if source_id is None else sources.get(session, source_id).name


def _plain(row: object, members: tuple[str, ...]) -> dict[str, Any]:
    return {member: getattr(row, member) for member in members}


def _plain_incident(row: Incident) -> dict[str, Any]:
    return {**_plain(row, _PLAIN_OF_INCIDENT), "source": row.source.name}


def _part(part: IncidentRule, rule: Rule) -> dict[str, Any]:
    about = {"rule_id": rule.id, "name": rule.name, "kind": rule.kind, "severity": rule.severity}
    return {**about, **_plain(part, _PLAIN_OF_PART)}


def _finding(finding: Finding, windows: Mapping[int, Window]) -> dict[str, Any]:
    window = windows.get(finding.window_id or 0)
    reference = windows.get(finding.reference_window_id or 0)
    return {
        **_plain(finding, _PLAIN_OF_FINDING),
        "recording_id": window.recording_id if window else None,
        "start_s": window.start_s if window else None,
        "end_s": window.end_s if window else None,
        "reference_recording_id": reference.recording_id if reference else None,
    }


def _windows(session: Session, findings: list[Finding]) -> dict[int, Window]:
    wanted = {key for f in findings for key in (f.window_id, f.reference_window_id) if key}
    rows = session.scalars(select(Window).where(Window.id.in_(sorted(wanted))))
    return {row.id: row for row in rows}


def source_names(session: Session) -> dict[int, str]:
    """Return the name of every source by its id."""
    return {row[0]: row[1] for row in session.execute(select(Source.id, Source.name))}

"""Incidents: what becomes of firings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from sqlalchemy.orm import Session

from soundpost.monitoring.rules import Firing
from soundpost.store.watch_tables import Incident

ChangeKind = Literal[
    "opened", "joined", "raised", "escalated", "acknowledged", "resolved", "dismissed", "told"
]
OnChange = Callable[[Session, Incident, ChangeKind, datetime], None]


@dataclass(frozen=True)
class Change:
    """That something of an incident changed. rule_id: whose firing it was, if it was one's."""

    incident_id: int
    kind: ChangeKind
    rule_id: int | None = None


@dataclass(frozen=True)
class Round:
    """What came of hearing a recording, or of a tick, for one source.

    firings: in order of time. looked_at: up to when each rule that was evaluated has heard the
    source, by its id; one that is not among the firings did not hold. late: see `rules.Heard`.
    """

    source_id: int
    firings: Sequence[Firing] = ()
    looked_at: Mapping[int, datetime] = field(default_factory=dict)
    late: bool = False


@dataclass(frozen=True)
class Carried:
    """That a firing belongs to an incident."""

    incident_id: int
    firing: Firing


@dataclass(frozen=True)
class Applied:
    """What a round led to. carried: every firing that is part of an incident, pending ones too."""

    changes: tuple[Change, ...] = ()
    carried: tuple[Carried, ...] = ()


@dataclass(frozen=True)
class Stretch:
    """A time that a person said was no fault: the windows and recordings behind a dismissal."""

    incident_id: int
    rule_id: int
    kind: str
    started_at: datetime
    until: datetime
    window_ids: tuple[int, ...]
    recording_ids: tuple[int, ...]


def apply(
    session: Session, round_: Round, now: datetime, on_change: OnChange | None = None
) -> Applied:
    """Bring the incidents of a source up to date with what its rules said."""
    raise NotImplementedError


def tick(session: Session, now: datetime, on_change: OnChange | None = None) -> list[Change]:
    """Let time pass: resolve what no longer fires, escalate, tell what is silenced no longer."""
    raise NotImplementedError


def dismissed_stretches(session: Session, source_id: int) -> list[Stretch]:
    """Return what people dismissed as a false alarm, oldest first."""
    raise NotImplementedError

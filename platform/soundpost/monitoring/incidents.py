"""Incidents: what becomes of firings, from pending to open, acknowledged, resolved or dismissed.

A source has at most one incident a family (`rules.family_of`) that is not over: rules that fire
together join it. Two clocks decide how long it goes on:

- the time of the recordings: a rule stops once its source was heard for `keep_firing_s` beyond its
  last firing without another one. What was not recorded says nothing, so a gap ends no incident;
- the wall clock, where nothing is heard any more: an incident ends once it was not seen to fire for
  `keep_firing_s`, and for three times the source's cadence.

`for_s` and `cooldown_s` are in the time of the recordings, escalation and silences go by the wall
clock. An incident of late recordings is one of its own, and ends by the wall clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from soundpost.monitoring.rules import (
    INHIBITED_KINDS,
    INHIBITING_KINDS,
    Family,
    Firing,
    family_of,
)
from soundpost.monitoring.silencing import Quiet
from soundpost.store import audit, rules, sources
from soundpost.store.audit import SOUNDPOST
from soundpost.store.incidents import ACTIVE
from soundpost.store.rules import SEVERITIES
from soundpost.store.tables import Source
from soundpost.store.watch_tables import Incident, IncidentRule, Rule

ChangeKind = Literal[
    "opened", "joined", "raised", "escalated", "acknowledged", "resolved", "dismissed", "told"
]
OnChange = Callable[[Session, Incident, ChangeKind, datetime], None]

CADENCES = 3.0
# Where nobody said how often a source is heard, and too few recordings show it.
UNKNOWN_CADENCE_S = 3600.0
# For so long a dismissed incident takes in what goes on as it was; then it is news again.
DISMISSED_FOR = timedelta(days=1)
# Windows end on a grid of their own; a rule that held this close to the end held at the end.
_AT_THE_END = timedelta(seconds=1)


@dataclass(frozen=True)
class Change:
    """That something of an incident changed. rule_id: whose firing it was, if it was one's."""

    incident_id: int
    kind: ChangeKind
    rule_id: int | None = None


@dataclass(frozen=True)
class Round:
    """What came of hearing a recording, or of a tick, for one source.

    firings: where rules held. looked_at: up to when each rule that was evaluated has heard the
    source, by its id; one that is not among the firings did not hold. heard_from: when the
    recording began, None for a tick. late: see `rules.Heard`.
    """

    source_id: int
    firings: Sequence[Firing] = ()
    looked_at: Mapping[int, datetime] = field(default_factory=dict)
    heard_from: datetime | None = None
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


def apply(
    session: Session, round_: Round, now: datetime, on_change: OnChange | None = None
) -> Applied:
    """Bring the incidents of a source up to date with what its rules said.

    It holds the source's row until the transaction ends, so that no two processes open an incident
    for the same thing. `on_change` is called in this transaction, for suppressed incidents too.
    """
    desk = Desk(session, round_.source_id, now, on_change, late=round_.late)
    for firing in sorted(round_.firings, key=desk.order):
        desk.end_before(firing.at, round_)
        desk.take(firing, round_.heard_from)
    if not round_.late:
        desk.end_after(round_)
    desk.settle()
    return Applied(tuple(desk.changes), tuple(desk.carried))


class Desk:
    """The incidents of one source that are not over, late ones or the others, held to be changed."""

    def __init__(
        self,
        session: Session,
        source_id: int,
        now: datetime,
        on_change: OnChange | None = None,
        *,
        late: bool = False,
    ) -> None:
        self.session, self.now, self.late = session, now, late
        self.source: Source = sources.hold(session, source_id)
        self.changes: list[Change] = []
        self.carried: list[Carried] = []
        self._on_change = on_change
        self._quiet = Quiet(session, self.source, now)
        self._inhibiting: set[int] = set()
        self.incidents = self._active()
        self.parts: dict[int, dict[int, IncidentRule]] = {
            incident.id: self._parts_of(incident) for incident in self.incidents.values()
        }
        self._rules: dict[int, Rule | None] = {}

    # --- firings ------------------------------------------------------------------------------

    def order(self, firing: Firing) -> tuple[datetime, bool, int]:
        """By time; at the same time health first, because it inhibits the others."""
        rule = self.rule(firing.rule_id)
        listens = rule is not None and family_of(rule.kind) == "sound"
        return firing.at, listens, firing.rule_id

    def take(self, firing: Firing, heard_from: datetime | None = None) -> None:
        """Let a firing begin an incident, join one or prolong one; see `Round` for heard_from."""
        rule = self.rule(firing.rule_id)
        if rule is None or not rule.enabled:
            return
        incident = self.incidents.get(family_of(rule.kind))
        if incident is None or rule.id not in self.parts[incident.id]:
            if self._is_dismissed(rule, firing):
                return
            if incident is None and self._cools_down(rule, firing):
                self._inhibiting |= {rule.id} if rule.kind in INHIBITING_KINDS else set()
                return
        if self.late and _held_s(firing.at, firing.until) < rule.for_s:
            return
        new = incident is None
        incident = incident or self._begin(rule, firing)
        part = self._prolong(incident, rule, firing, heard_from)
        self.carried.append(Carried(incident.id, firing))
        if part.joined_at is None and _held_s(part.first_fired_at, firing.until) >= rule.for_s:
            part.joined_at = self.now
            self._join(incident, rule, firing, None if new else incident.state)
        elif new:
            self._note(incident, "pending", firing.reason, rule_id=rule.id, before=None)

    def _begin(self, rule: Rule, firing: Firing) -> Incident:
        incident = Incident(
            source_id=self.source.id,
            family=family_of(rule.kind),
            state="pending",
            severity=rule.severity,
            group_key=self._group_key(rule),
            reason=firing.reason,
            evidence={"rule_id": rule.id, **firing.evidence},
            late=self.late,
            pending_since=firing.at,
            last_fired_at=firing.until,
            noticed_at=self.now,
            created_at=self.now,
        )
        self.session.add(incident)
        self.session.flush()
        self.incidents[family_of(rule.kind)] = incident
        self.parts[incident.id] = {}
        return incident

    def _prolong(
        self, incident: Incident, rule: Rule, firing: Firing, heard_from: datetime | None
    ) -> IncidentRule:
        part = self.parts[incident.id].get(rule.id)
        if part is None:
            part = IncidentRule(
                incident_id=incident.id,
                rule_id=rule.id,
                times=0,
                first_fired_at=firing.at,
                last_fired_at=firing.until,
            )
            self.session.add(part)
            self.parts[incident.id][rule.id] = part
        elif part.joined_at is None and _is_broken(part, firing, heard_from):
            part.first_fired_at = firing.at
        part.firing, part.times = True, part.times + 1
        part.last_fired_at = max(part.last_fired_at, firing.until)
        part.reason, part.evidence = firing.reason, dict(firing.evidence)
        incident.last_fired_at = max(incident.last_fired_at, firing.until)
        incident.noticed_at = self.now
        return part

    def _join(self, incident: Incident, rule: Rule, firing: Firing, before: str | None) -> None:
        if incident.state == "pending":
            self._open(incident, rule, firing, before)
            return
        self._suppress(incident)
        self._change(incident, "joined", firing.reason, rule_id=rule.id)
        if SEVERITIES.index(rule.severity) > SEVERITIES.index(incident.severity):
            self._raise(incident, rule, firing)

    def _open(self, incident: Incident, rule: Rule, firing: Firing, before: str | None) -> None:
        incident.state, incident.opened_at = "open", self.now
        incident.severity, incident.reason = rule.severity, firing.reason
        incident.evidence = {"rule_id": rule.id, **firing.evidence}
        self._suppress(incident)
        incident.told_at = None if incident.suppressed_by else self.now
        self._change(incident, "opened", firing.reason, rule_id=rule.id, before=before)

    def _raise(self, incident: Incident, rule: Rule, firing: Firing) -> None:
        # Somebody who acknowledged a warning has not acknowledged that it became critical.
        before, incident.state = incident.state, "open"
        incident.severity, incident.reason = rule.severity, firing.reason
        self._change(incident, "raised", firing.reason, rule_id=rule.id, before=before)

    def _group_key(self, rule: Rule) -> str:
        """The rule's tag, or the source's tag that most sources have, or the source alone."""
        if rule.tag is not None:
            return f"tag:{rule.tag}"
        tags = sources.tags_of(self.session, self.source.id)
        if not tags:
            return f"source:{self.source.name}"
        counts = sources.tag_counts(self.session)
        return f"tag:{min(tags, key=lambda tag: (-counts[tag], tag))}"

    def _is_dismissed(self, rule: Rule, firing: Firing) -> bool:
        """Whether this only goes on that somebody dismissed: then it is noted there."""
        found = self._latest_over(rule)
        if found is None or found[0].state != "dismissed":
            return False
        incident, part = found
        until = (incident.closed_at or incident.last_fired_at) + DISMISSED_FOR
        quiet_s = max(rule.keep_firing_s, CADENCES * self._cadence_s())
        gap_s = _held_s(part.last_fired_at, firing.at)
        if gap_s > quiet_s or self.now > until:
            return False
        part.last_fired_at = max(part.last_fired_at, firing.until)
        part.times += 1
        return True

    def _cools_down(self, rule: Rule, firing: Firing) -> bool:
        found = self._latest_over(rule)
        if found is None or rule.cooldown_s <= 0.0:
            return False
        return _held_s(found[1].last_fired_at, firing.at) < rule.cooldown_s

    def _latest_over(self, rule: Rule) -> tuple[Incident, IncidentRule] | None:
        statement = (
            select(Incident, IncidentRule)
            .join(IncidentRule, IncidentRule.incident_id == Incident.id)
            .where(Incident.source_id == self.source.id, Incident.late.is_(self.late))
            .where(Incident.state.not_in(ACTIVE), Incident.opened_at.is_not(None))
            .where(IncidentRule.rule_id == rule.id, IncidentRule.joined_at.is_not(None))
            .order_by(Incident.id.desc())
            .limit(1)
        )
        row = self.session.execute(statement).one_or_none()
        return None if row is None else (row[0], row[1])

    # --- what ends ----------------------------------------------------------------------------

    def end_before(self, moment: datetime, round_: Round) -> None:
        """End what was quiet for long enough within this recording before a moment of it."""
        if round_.heard_from is None or round_.late:
            return
        for incident in list(self.incidents.values()):
            parts = self._keeping(incident)
            if parts and all(self._quiet_until(part, moment, round_) for part in parts):
                self._resolve(incident, self._stopped(parts))

    def _quiet_until(self, part: IncidentRule, moment: datetime, round_: Round) -> bool:
        rule = self.rule(part.rule_id)
        if rule is None or part.rule_id not in round_.looked_at or round_.heard_from is None:
            return False
        quiet_s = _held_s(max(part.last_fired_at, round_.heard_from), moment)
        return quiet_s > 0.0 and quiet_s >= rule.keep_firing_s

    def end_after(self, round_: Round) -> None:
        """Note which rules no longer hold at the end of a recording, and end what is over."""
        for incident in list(self.incidents.values()):
            for part in self.parts[incident.id].values():
                if (heard := round_.looked_at.get(part.rule_id)) is not None:
                    part.firing = part.last_fired_at >= heard - _AT_THE_END
            self._drop_lapsed(incident)
            parts = self._keeping(incident)
            if all(self._is_over(part, round_) for part in parts):
                self._resolve(incident, self._stopped(parts))

    def _is_over(self, part: IncidentRule, round_: Round) -> bool:
        rule, heard = self.rule(part.rule_id), round_.looked_at.get(part.rule_id)
        if rule is None or heard is None or part.firing:
            return False
        return part.joined_at is None or _held_s(part.last_fired_at, heard) >= rule.keep_firing_s

    def _drop_lapsed(self, incident: Incident) -> None:
        """Forget rules that stopped before they had held for long enough, but for the last one."""
        self.session.flush()
        parts = self.parts[incident.id]
        lapsed = [part for part in parts.values() if part.joined_at is None and not part.firing]
        for part in lapsed[: len(parts) - 1]:
            del parts[part.rule_id]
            self.session.delete(part)
        self.session.flush()

    def _keeping(self, incident: Incident) -> list[IncidentRule]:
        """The parts by which an incident goes on: of a pending one all, else those that joined."""
        parts = self.parts[incident.id].values()
        if incident.state == "pending":
            return list(parts)
        return [part for part in parts if part.joined_at is not None]

    def _stopped(self, parts: Sequence[IncidentRule]) -> str:
        return f"not heard since {max(p.last_fired_at for p in parts):%Y-%m-%d %H:%M:%S} UTC"

    def _resolve(self, incident: Incident, reason: str) -> None:
        before, incident.state, incident.closed_at = incident.state, "resolved", self.now
        if before == "pending":
            self._note(incident, "lapsed", reason, before=before)
        else:
            self._change(incident, "resolved", reason, before=before)
        self.close(incident)

    def close(self, incident: Incident, *, accepted: bool = False) -> None:
        """Take an incident that is over off the desk, and let its rules begin anew.

        accepted: a person closed it, who by that accepts a format that differs.
        """
        for part in self.parts.pop(incident.id).values():
            rule = self.rule(part.rule_id)
            part.firing = False
            if rule is not None and rule.kind in INHIBITED_KINDS and not self.late:
                rules.forget(self.session, rule.id, self.source.id)
            if rule is not None and rule.kind == "format" and accepted:
                self._accept_format(rule)
        self.incidents = {f: i for f, i in self.incidents.items() if i.id != incident.id}
        self.session.flush()

    def _accept_format(self, rule: Rule) -> None:
        state = rules.states(self.session, self.source.id).get(rule.id)
        if state is not None:
            state.state = {**state.state, "accept": True}

    # --- time ---------------------------------------------------------------------------------

    def pass_time(self) -> None:
        """End what nothing was heard of for long, and escalate what nobody acknowledged."""
        for incident in list(self.incidents.values()):
            parts = [part for part in self._keeping(incident) if self._can_fire(part)]
            if not parts:
                self._resolve(incident, "its rules were switched off or removed")
            elif self._is_unheard(incident, parts):
                self._resolve(incident, "nothing was heard of it any more")
        self.settle()
        for incident in self.incidents.values():
            self._escalate(incident)

    def _can_fire(self, part: IncidentRule) -> bool:
        rule = self.rule(part.rule_id)
        return rule is not None and rule.enabled

    def _is_unheard(self, incident: Incident, parts: Sequence[IncidentRule]) -> bool:
        if any(self._quiet.in_maintenance(part.rule_id, self.now) for part in parts):
            return False
        keep_s = max(rule.keep_firing_s for part in parts if (rule := self.rule(part.rule_id)))
        cadence_s = 0.0 if self.late else CADENCES * self._cadence_s()
        return _held_s(incident.noticed_at, self.now) >= max(keep_s, cadence_s)

    def _cadence_s(self) -> float:
        given_s = self.source.cadence_s
        return (
            given_s
            or sources.estimate_cadence_s(self.session, self.source.id)
            or (UNKNOWN_CADENCE_S)
        )

    def _escalate(self, incident: Incident) -> None:
        if incident.state != "open" or incident.suppressed_by or incident.escalated_at is not None:
            return
        asked = [self.rule(part.rule_id) for part in self._keeping(incident)]
        waits_s = [r.escalate_after_s for r in asked if r and r.escalate_after_s is not None]
        since = incident.told_at or incident.opened_at
        if not waits_s or since is None or _held_s(since, self.now) < min(waits_s):
            return
        incident.escalated_at = self.now
        self._change(incident, "escalated", f"not acknowledged for {min(waits_s):.0f} s")

    # --- who is told --------------------------------------------------------------------------

    def settle(self) -> None:
        """Work out anew which incidents nobody is told of; tell of those that go on and now are."""
        for incident in self.incidents.values():
            if incident.state == "pending":
                continue
            was = incident.suppressed_by
            self._suppress(incident)
            if was is None or incident.suppressed_by is not None:
                continue
            incident.told_at = incident.told_at or self.now
            if incident.state == "open":
                self._change(incident, "told", f"no longer held back by {was['kind']} {was['id']}")
            else:
                self._note(incident, "unsuppressed", None)
        self.session.flush()

    def _suppress(self, incident: Incident) -> None:
        was, causes = incident.suppressed_by, self._causes(incident)
        cause = causes[0] if causes and None not in causes else None
        if cause is None and was is not None and not self._holds(incident):
            # It stopped while nobody was told of it: there is nothing to tell any more.
            return
        incident.suppressed_by = cause
        if cause is not None and was is None and incident.told_at is not None:
            self._note(incident, "suppressed", f"{cause['kind']} {cause['id']}")

    def _holds(self, incident: Incident) -> bool:
        return any(p.firing for p in self._keeping(incident))

    def _causes(self, incident: Incident) -> list[dict[str, Any] | None]:
        """Why nobody is told of each rule of an incident; None for a rule that is told of."""
        return [self._cause(part.rule_id) for part in self._keeping(incident)]

    def _cause(self, rule_id: int) -> dict[str, Any] | None:
        silence = self._quiet.silence(rule_id, self.now)
        if silence is not None:
            return {"kind": silence.kind, "id": silence.id}
        rule = self.rule(rule_id)
        if rule is None or rule.kind not in INHIBITED_KINDS:
            return None
        inhibiting = self._inhibitors()
        return {"kind": "rule", "id": min(inhibiting)} if inhibiting else None

    def _inhibitors(self) -> set[int]:
        """Rules by which what is heard of the source cannot be trusted now."""
        health = self.incidents.get("health")
        parts = self.parts[health.id] if health is not None else {}
        firing = {key for key in parts if (r := self.rule(key)) and r.kind in INHIBITING_KINDS}
        return firing | self._inhibiting

    # --- notes --------------------------------------------------------------------------------

    def _change(
        self,
        incident: Incident,
        kind: ChangeKind,
        reason: str | None,
        *,
        actor: str = SOUNDPOST,
        rule_id: int | None = None,
        before: str | None = "",
    ) -> None:
        self._note(incident, kind, reason, actor=actor, rule_id=rule_id, before=before)
        self.changes.append(Change(incident.id, kind, rule_id))
        if self._on_change is not None:
            self._on_change(self.session, incident, kind, self.now)

    def _note(
        self,
        incident: Incident,
        action: str,
        reason: str | None,
        *,
        actor: str = SOUNDPOST,
        rule_id: int | None = None,
        before: str | None = "",
    ) -> None:
        """Write the audit log; before: the state before, None for a new one, "" if it stays."""
        self.session.flush()
        was = incident.state if before == "" else before
        detail: dict[str, Any] = {"from": was, "to": incident.state, "severity": incident.severity}
        if rule_id is not None:
            detail["rule_id"] = rule_id
        audit.note(
            self.session,
            actor,
            action,
            "incident",
            incident.id,
            now=self.now,
            reason=reason,
            detail=detail,
        )

    def act(
        self, incident: Incident, kind: ChangeKind, actor: str, reason: str | None, before: str
    ) -> None:
        """Note what a person did to an incident."""
        self._change(incident, kind, reason, actor=actor, before=before)

    # --- rows ---------------------------------------------------------------------------------

    def rule(self, rule_id: int) -> Rule | None:
        """A rule, None if it was removed."""
        if rule_id not in self._rules:
            self._rules[rule_id] = self.session.get(Rule, rule_id)
        return self._rules[rule_id]

    def hold(self, incident: Incident) -> None:
        """Put an incident on the desk that is not among those that go on."""
        self.incidents[_family(incident)] = incident
        self.parts[incident.id] = self._parts_of(incident)

    def _active(self) -> dict[Family, Incident]:
        statement = select(Incident).where(
            Incident.source_id == self.source.id,
            Incident.late.is_(self.late),
            Incident.state.in_(ACTIVE),
        )
        # What was read before the source's row was held may have changed meanwhile.
        found = self.session.scalars(statement, execution_options={"populate_existing": True})
        return {_family(incident): incident for incident in found}

    def _parts_of(self, incident: Incident) -> dict[int, IncidentRule]:
        statement = select(IncidentRule).where(IncidentRule.incident_id == incident.id)
        found = self.session.scalars(statement, execution_options={"populate_existing": True})
        return {part.rule_id: part for part in found}


def tick(session: Session, now: datetime, on_change: OnChange | None = None) -> list[Change]:
    """Let time pass: resolve what no longer fires, escalate, tell what is silenced no longer.

    All sources are held before anything changes, in the order of their ids: whoever is told of
    changes may hold rows of its own, and nobody may wait for another in a circle.
    """
    found = active_sources(session)
    for source_id in sorted({source_id for source_id, _ in found}):
        sources.hold(session, source_id)
    changes = []
    for source_id, late in sorted(found):
        desk = Desk(session, source_id, now, on_change, late=late)
        desk.pass_time()
        changes += desk.changes
    return changes


def active_sources(session: Session) -> set[tuple[int, bool]]:
    """Return the sources with an incident that goes on, and whether it is a late one."""
    statement = select(Incident.source_id, Incident.late).where(Incident.state.in_(ACTIVE))
    return {(source_id, late) for source_id, late in session.execute(statement)}


def is_distrusted(session: Session, source_id: int) -> bool:
    """Whether an incident that goes on says that what is heard of a source cannot be trusted."""
    statement = (
        select(IncidentRule.rule_id)
        .join(Incident, Incident.id == IncidentRule.incident_id)
        .join(Rule, Rule.id == IncidentRule.rule_id)
        .where(Incident.source_id == source_id, Incident.late.is_(False))
        .where(Incident.state.in_(ACTIVE), Rule.kind.in_(INHIBITING_KINDS))
        .limit(1)
    )
    return session.scalar(statement) is not None


def _family(incident: Incident) -> Family:
    return "health" if incident.family == "health" else "sound"


def _is_broken(part: IncidentRule, firing: Firing, heard_from: datetime | None) -> bool:
    """Whether the source was heard without the rule holding since it held last."""
    if firing.at <= part.last_fired_at + _AT_THE_END:
        return False
    if heard_from is None or not part.firing:
        return not part.firing
    return firing.at > max(part.last_fired_at, heard_from) + _AT_THE_END


def _held_s(since: datetime, until: datetime) -> float:
    return (until - since).total_seconds()

"""Hearing: a recording goes to every rule of its source, and what they say to the incidents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy.orm import Session

from soundpost.errors import RuleSettingsError
from soundpost.monitoring import incidents
from soundpost.monitoring.incidents import Applied, Change, OnChange, Round
from soundpost.monitoring.observations import Observations
from soundpost.monitoring.rule_kinds.registry import IN_ANY_ORDER, TICKING, make_kind
from soundpost.monitoring.rules import (
    INHIBITED_KINDS,
    INHIBITING_KINDS,
    EmbedText,
    Firing,
    Heard,
    State,
    TestFactory,
    Tools,
)
from soundpost.monitoring.silencing import LOOK_BACK, Quiet
from soundpost.store import rules, sources
from soundpost.store.tables import Source
from soundpost.store.watch_tables import Rule, WatchState

# Beside what a kind remembers: what was heard while the source could not be trusted.
_DISTRUSTED = "distrusted"


def hear(
    session: Session,
    heard: Heard,
    make_test: TestFactory,
    on_change: OnChange | None = None,
    *,
    embed_text: EmbedText | None = None,
) -> Applied:
    """Evaluate every rule of the source on a recording, and apply what they say.

    In one transaction: it holds the source's row, reads and keeps each rule's memory, leaves out
    what maintenance windows cover, and lets health rules inhibit the others. A late recording is
    heard with a fresh memory, which is not kept, but by rules that take any order.
    """
    source = sources.hold(session, heard.source_id)
    ear = _Ear(session, source, heard, Tools(make_test, embed_text))
    found = rules.for_source(session, source.id)
    # What says that the source cannot be trusted goes first.
    for rule in sorted(found, key=lambda rule: rule.kind not in INHIBITING_KINDS):
        ear.listen(rule)
    round_ = Round(source.id, ear.firings, ear.looked_at, heard.started_at, heard.late)
    return incidents.apply(session, round_, heard.now, on_change)


class _Ear:
    """One recording on its way through the rules of its source."""

    def __init__(self, session: Session, source: Source, heard: Heard, tools: Tools) -> None:
        self._session, self._source, self._heard, self._tools = session, source, heard, tools
        self._quiet = Quiet(session, source, heard.started_at)
        self._states = rules.states(session, source.id)
        self._distrusted = incidents.is_distrusted(session, source.id)
        self.firings: list[Firing] = []
        self.looked_at: dict[int, datetime] = {}

    def listen(self, rule: Rule) -> None:
        """Evaluate one rule, and keep what it remembers."""
        heard = self._counting(rule)
        if heard is None:
            return
        fresh = heard.late and rule.kind not in IN_ANY_ORDER
        before = {} if fresh else self._memory(rule)
        firings, after = self._evaluate(rule, heard, before)
        if not (heard.late and rule.kind in TICKING):
            self.firings += firings
        self.looked_at[rule.id] = heard.now if rule.kind in TICKING else heard.until
        if rule.kind in INHIBITING_KINDS and firings:
            self._distrusted = True
        if not fresh:
            self._keep(rule, after)

    def _evaluate(self, rule: Rule, heard: Heard, before: State) -> tuple[list[Firing], State]:
        try:
            kind = make_kind(rule.kind, rule.settings, self._tools)
        except RuleSettingsError as error:
            # Written by another version: one such rule must not deafen all the others.
            return [], {**before, "waiting": f"other settings: {error}"}
        return kind.evaluate(heard, before, rule.id)

    def _counting(self, rule: Rule) -> Heard | None:
        """What of the recording counts for a rule; None if nothing does."""
        heard, observations = self._heard, self._heard.observations
        counted = self._quiet.counts(
            rule.id, observations.starts_s, observations.starts_s + observations.durations_s
        )
        if counted.all():
            maintained = len(counted) == 0 and self._quiet.in_maintenance(rule.id, heard.started_at)
            return None if maintained else heard
        return heard.take(counted) if counted.any() else None

    def _memory(self, rule: Rule) -> State:
        row = self._states.get(rule.id)
        state = dict(row.state) if row is not None else {}
        distrusted = state.pop(_DISTRUSTED, False)
        # Evidence gathered through a dead microphone is evidence of nothing.
        return {} if distrusted and not self._distrusted else state

    def _keep(self, rule: Rule, state: State) -> None:
        if self._distrusted and rule.kind in INHIBITED_KINDS:
            state = {**state, _DISTRUSTED: True}
        heard, row = self._heard, self._states.get(rule.id)
        # A clock that is ahead must not make everything after it late.
        until = min(heard.until, heard.now)
        seen = [until] if row is None or row.seen_until is None else [until, row.seen_until]
        rules.remember(
            self._session, rule.id, heard.source_id, state, seen_until=max(seen), now=heard.now
        )


def tick(
    session: Session, now: datetime, make_test: TestFactory, on_change: OnChange | None = None
) -> list[Change]:
    """Let time pass for every source: stalled sources, and everything of `incidents.tick`."""
    changes: list[Change] = []
    ticking = _ticking(session)
    going_on = {source_id for source_id, _ in incidents.active_sources(session)}
    # All before anything changes, as `incidents.tick` says.
    for source_id in sorted(going_on | ticking.keys()):
        sources.hold(session, source_id)
    for source_id, watching in sorted(ticking.items()):
        changes += _tick_source(session, source_id, watching, now, make_test, on_change)
    return changes + incidents.tick(session, now, on_change)


def _ticking(session: Session) -> dict[int, list[Rule]]:
    """The rules that time alone can make fire, by the source's id."""
    found: dict[int, list[Rule]] = {}
    for kind in sorted(TICKING):
        for rule in rules.find(session, kind=kind, enabled=True, limit=None):
            for source in rules.sources_of(session, rule):
                found.setdefault(source.id, []).append(rule)
    return found


def _tick_source(
    session: Session,
    source_id: int,
    watching: list[Rule],
    now: datetime,
    make_test: TestFactory,
    on_change: OnChange | None,
) -> list[Change]:
    source = sources.hold(session, source_id)
    quiet = Quiet(session, source, now - LOOK_BACK)
    states = rules.states(session, source_id)
    heard = _nothing(session, source, now)
    firings: list[Firing] = []
    looked_at: dict[int, datetime] = {}
    for rule in watching:
        maintained = quiet.last_maintained(rule.id, now)
        if maintained == now:
            continue
        row = states.get(rule.id)
        before: Mapping[str, Any] = row.state if row is not None else {}
        kind = make_kind(rule.kind, rule.settings, Tools(make_test))
        found, after = kind.tick(_after(heard, maintained), dict(before), rule.id)
        firings += found
        looked_at[rule.id] = now
        _keep_tick(session, rule, source_id, row, after, now)
    return list(
        incidents.apply(session, Round(source_id, firings, looked_at), now, on_change).changes
    )


def _keep_tick(
    session: Session,
    rule: Rule,
    source_id: int,
    row: WatchState | None,
    state: State,
    now: datetime,
) -> None:
    if row is None or row.state != state:
        seen = row.seen_until if row is not None else None
        rules.remember(session, rule.id, source_id, state, seen_until=seen, now=now)


def _after(heard: Heard, maintained: datetime | None) -> Heard:
    """Count the time without recordings from the end of maintenance."""
    if maintained is None or heard.previous_at is None:
        return heard
    return replace(heard, previous_at=max(heard.previous_at, maintained))


def _nothing(session: Session, source: Source, now: datetime) -> Heard:
    none = np.zeros(0)
    empty = np.zeros((0, 1), dtype=np.float32)
    ids = np.zeros(0, dtype=np.int64)
    return Heard(
        source_id=source.id,
        source_name=source.name,
        timezone=source.timezone,
        recording_id=None,
        started_at=now,
        duration_s=0.0,
        sample_rate_hz=None,
        remarks=(),
        observations=Observations(ids, ids, none, none, empty, empty, ids, ()),
        tags=(),
        p_values=None,
        novelty=None,
        now=now,
        cadence_s=source.cadence_s or sources.estimate_cadence_s(session, source.id),
        previous_at=sources.last_arrival(session, source.id),
    )

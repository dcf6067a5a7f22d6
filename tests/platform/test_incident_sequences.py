"""Incidents under firings, silences and people in any order, on both databases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from hypothesis.strategies import booleans, integers, lists, sampled_from

from soundpost.errors import IncidentStateError
from soundpost.monitoring import review
from soundpost.store import audit, incidents
from soundpost.store.watch_tables import Incident

START = datetime(2026, 11, 21, 12, tzinfo=UTC)
World = Any  # See conftest.


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


RULES = (
    ("loud", "level", {"keep_firing_s": 100.0}),
    ("held", "level", {"for_s": 90.0, "keep_firing_s": 0.0, "severity": "critical"}),
    ("cool", "tag", {"cooldown_s": 200.0, "escalate_after_s": 60.0, "severity": "info"}),
    ("novel", "novelty", {"keep_firing_s": 50.0}),
    ("mic", "microphone", {"keep_firing_s": 50.0}),
)
ACTIONS = (review.acknowledge, review.resolve, review.dismiss, review.reopen)
STEP_S = 60.0
MACHINES = count()
EXAMPLES = 10


class AnythingHappens(RuleBasedStateMachine):
    """Firings, ticks, silences and people in any order."""

    make_world: Callable[[], Any]

    def __init__(self) -> None:
        super().__init__()
        self.world = self.make_world()
        names = f"{next(MACHINES)}-"
        self.world.source_id = self.world.add_source(names + "source")
        self.rules = [
            self.world.add_rule(names + name, kind, **values) for name, kind, values in RULES
        ]
        self.now_s = 0.0
        self.open_silences: list[int] = []

    @rule(
        fired=lists(integers(0, len(RULES) - 1), unique=True),
        begin=sampled_from([0.0, 30.0]),
        length=sampled_from([10.0, 30.0]),
    )
    def hear(self, fired: list[int], begin: float, length: float) -> None:
        start = self.now_s
        self.now_s += STEP_S
        firings = [(self.rules[n], start + begin, start + begin + length) for n in fired]
        self.world.hear(start, start + STEP_S, *firings)

    @rule(fired=integers(0, len(RULES) - 1))
    def hear_late(self, fired: int) -> None:
        self.world.hear(-1000, -900, (self.rules[fired], -1000, -900), late=True, now_s=self.now_s)

    @rule(seconds=sampled_from([1.0, 40.0, 500.0]))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        self.world.tick(self.now_s)

    @rule(action=sampled_from(ACTIONS), which=integers(0, 20))
    def act(self, action: Callable[..., Any], which: int) -> None:
        found = self.mine()
        if not found:
            return
        with suppress(IncidentStateError):
            self.world.act(action, found[which % len(found)].id, self.now_s, "why not")

    @rule(maintenance=booleans())
    def silence(self, maintenance: bool) -> None:
        kind = "maintenance" if maintenance else "silence"
        made = self.world.silence(
            kind=kind,
            source_id=self.world.source_id,
            starts_at=at(self.now_s),
            ends_at=at(self.now_s + 300),
        )
        self.open_silences.append(made)

    def mine(self) -> list[Incident]:
        with self.world.store.reading() as session:
            return incidents.find(session, source_id=self.world.source_id, lapsed=True, limit=None)

    @invariant()
    def one_incident_at_a_time(self) -> None:
        active = [i for i in self.mine() if i.state in incidents.ACTIVE]
        assert max(Counter((i.family, i.late) for i in active).values(), default=0) <= 1
        with self.world.store.reading() as session:
            parts = incidents.rules_of(session, [i.id for i in active])
        held = [(r.id, i.late) for i in active for _, r in parts[i.id]]
        assert len(held) == len(set(held))
        assert all(parts[i.id] for i in active)

    @invariant()
    def every_step_is_on_record(self) -> None:
        with self.world.store.reading() as session:
            for incident in self.mine():
                state = None
                for entry in audit.history(session, "incident", incident.id):
                    assert entry.detail["from"] == state, (entry.action, entry.detail)
                    state = entry.detail["to"]
                assert state == incident.state

    def teardown(self) -> None:
        quiet_until = self.now_s + 1000
        while self.now_s < quiet_until:
            start = self.now_s
            self.now_s += STEP_S
            self.world.hear(start, start + STEP_S, also=tuple(self.rules))
            self.world.tick(self.now_s)
        assert {i.state for i in self.mine()} <= {"resolved", "dismissed"}
        self.one_incident_at_a_time()
        self.every_step_is_on_record()


@pytest.mark.slow
def test_whatever_happens_incidents_are_single_recorded_and_end(
    make_world: Callable[[], Any],
) -> None:
    AnythingHappens.make_world = staticmethod(make_world)
    machine = AnythingHappens.TestCase
    # An example takes a second: shrinking one would take an hour, and the steps are printed.
    machine.settings = settings(
        max_examples=EXAMPLES,
        stateful_step_count=15,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    machine().runTest()


@pytest.fixture(autouse=True)
def no_machine_left() -> Iterator[None]:
    yield
    if "make_world" in vars(AnythingHappens):
        del AnythingHappens.make_world

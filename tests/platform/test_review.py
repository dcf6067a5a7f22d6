"""What people do about incidents: every step with its reason, and what cannot be done."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from soundpost.errors import IncidentStateError, InvalidValueError, UnknownIncidentError
from soundpost.monitoring import review
from soundpost.store import audit
from soundpost.store.watch_tables import Finding

START = datetime(2026, 11, 21, 12, tzinfo=UTC)
World = Any  # See conftest.


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def test_people_and_their_reasons_are_on_record(world: World) -> None:
    loud = world.add_rule("loud")
    world.hear(0, 60, (loud, 0, 60))
    world.act(review.acknowledge, 1, 61, "looking")
    with world.store.session() as session:
        review.note(session, 1, "ben", "bearing?", now=at(62))
    world.act(review.resolve, 1, 63, "oiled")
    with world.store.reading() as session:
        found = [(e.actor, e.action, e.reason) for e in audit.history(session, "incident", 1)]
    assert found == [
        ("soundpost", "opened", "rule 1 held"),
        ("ann", "acknowledged", "looking"),
        ("ben", "noted", "bearing?"),
        ("ann", "resolved", "oiled"),
    ]
    assert world.told == [(1, "opened"), (1, "acknowledged"), (1, "resolved")]


def test_acknowledging_stops_the_escalation(one: World) -> None:
    loud = one.add_rule("loud", escalate_after_s=100.0)
    one.hear(0, 60, (loud, 0, 60))
    one.act(review.acknowledge, 1, 61, None)
    assert one.tick(200) == []
    other = one.add_source("other")
    one.hear(0, 60, (loud, 0, 60), source_id=other)
    assert [c.kind for c in one.tick(170)] == ["escalated"]
    assert one.tick(171) == []


def test_what_cannot_be_done_is_refused(one: World) -> None:
    loud = one.add_rule("loud", for_s=100.0)
    one.hear(0, 60, (loud, 0, 60))
    with pytest.raises(IncidentStateError, match="it is pending"):
        one.act(review.acknowledge, 1, 61, None)
    one.hear(60, 120, (loud, 60, 120))
    one.act(review.resolve, 1, 121, None)
    for action in (review.resolve, review.acknowledge):
        with pytest.raises(IncidentStateError, match="it is resolved"):
            one.act(action, 1, 122, None)
    with pytest.raises(UnknownIncidentError):
        one.act(review.resolve, 99, 122, None)
    with pytest.raises(InvalidValueError):
        one.act(review.dismiss, 1, 122, " ")
    with one.store.session() as session, pytest.raises(InvalidValueError):
        review.resolve(session, 1, "", now=at(1))


def test_a_false_alarm_that_goes_on_is_not_told_again_for_a_day(world: World) -> None:
    loud = world.add_rule("loud", keep_firing_s=100.0)
    world.hear(0, 60, (loud, 0, 60))
    world.act(review.dismiss, 1, 61, "the cleaner")
    for start in range(60, 600, 60):
        assert world.hear(start, start + 60, (loud, start, start + 60)).carried == ()
    # After a break it is news.
    assert [c.kind for c in world.hear(1200, 1260, (loud, 1200, 1260)).changes] == ["opened"]


def test_a_resolved_incident_that_goes_on_opens_again(one: World) -> None:
    loud = one.add_rule("loud")
    one.hear(0, 60, (loud, 0, 60))
    one.act(review.resolve, 1, 61, "fixed")
    assert [c.kind for c in one.hear(60, 120, (loud, 60, 120)).changes] == ["opened"]


def test_what_was_dismissed_in_error_is_taken_back(one: World) -> None:
    loud = one.add_rule("loud")
    one.hear(0, 60, (loud, 0, 60))
    one.act(review.dismiss, 1, 61, "nothing")
    with one.store.reading() as session:
        assert len(review.dismissed_stretches(session, one.source_id)) == 1
    assert one.act(review.reopen, 1, 62, "it was something").state == "open"
    with one.store.reading() as session:
        assert review.dismissed_stretches(session, one.source_id) == []
    one.act(review.resolve, 1, 63, None)
    one.hear(60, 120, (loud, 60, 120))
    with pytest.raises(IncidentStateError, match="incident 2 goes on instead"):
        one.act(review.reopen, 1, 121, None)


def test_what_is_reopened_under_a_silence_is_held_back(one: World) -> None:
    loud = one.add_rule("loud", keep_firing_s=5000.0)
    one.hear(0, 60, (loud, 0, 60))
    one.act(review.resolve, 1, 61, None)
    one.silence()
    one.act(review.reopen, 1, 62, None)
    assert one.actions(1) == ["opened", "resolved", "opened"]
    assert one.only().suppressed_by is not None
    assert one.told == [(1, "opened"), (1, "resolved")]


def test_the_calibration_is_told_what_was_dismissed(world: World) -> None:
    loud, novel = world.add_rule("loud"), world.add_rule("novel", "novelty", for_s=0.0)
    world.hear(0, 60, (loud, 10, 20), (novel, 30, 60))
    world.act(review.dismiss, 1, 61, "the cleaner")
    with world.store.session() as session:
        session.add(Finding(incident_id=1, rule_id=novel, window_id=None))
    with world.store.reading() as session:
        found = review.dismissed_stretches(session, world.source_id)
    assert [(s.kind, s.started_at, s.until) for s in found] == [
        ("level", at(10), at(20)),
        ("novelty", at(30), at(60)),
    ]
    assert found[0].window_ids == ()

"""Incidents on both databases: one for what fires together, every step on record, all of them end."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from soundpost.monitoring import review
from soundpost.store import incidents, rules, silences, sources
from soundpost.store.watch_tables import IncidentRule

START = datetime(2026, 11, 21, 12, tzinfo=UTC)
World = Any  # See conftest.


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


# --- opening and ending -----------------------------------------------------------------------


def test_an_incident_opens_goes_on_and_resolves_by_itself(world: World) -> None:
    loud = world.add_rule("loud", keep_firing_s=120.0)
    assert [c.kind for c in world.hear(0, 60, (loud, 30, 60)).changes] == ["opened"]
    assert world.hear(60, 120, (loud, 60, 120)).changes == ()
    assert world.hear(120, 180).changes == ()
    assert [c.kind for c in world.hear(180, 240).changes] == ["resolved"]
    incident = world.only()
    assert (incident.state, incident.last_fired_at) == ("resolved", at(120))
    assert incident.opened_at == at(60)
    assert incident.closed_at == at(240)
    assert world.told == [(incident.id, "opened"), (incident.id, "resolved")]
    assert world.actions(incident.id) == ["opened", "resolved"]


def test_what_fires_again_soon_is_the_same_incident(one: World) -> None:
    loud = one.add_rule("loud", keep_firing_s=120.0)
    one.hear(0, 60, (loud, 0, 10))
    one.hear(60, 120, (loud, 60, 70))
    one.hear(120, 180)
    one.hear(180, 240, (loud, 181, 190))
    assert [i.state for i in one.all()] == ["open"]
    with one.store.reading() as session:
        ((part, rule_),) = incidents.rules_of(session, [one.only().id])[one.only().id]
        assert (part.times, part.firing, rule_.name) == (3, False, "loud")


def test_a_long_recording_may_hold_several_incidents(one: World) -> None:
    loud = one.add_rule("loud", keep_firing_s=300.0)
    applied = one.hear(0, 86_400, (loud, 3600, 3700), (loud, 3900, 3950), (loud, 72_000, 72_010))
    assert [c.kind for c in applied.changes] == ["opened", "resolved", "opened", "resolved"]
    assert [i.last_fired_at for i in one.all()] == [at(3950), at(72_010)]
    assert Counter(c.incident_id for c in applied.carried) == {1: 2, 2: 1}


def test_a_source_that_is_heard_a_minute_an_hour_keeps_its_incident(one: World) -> None:
    one.add_source("pump-1", 3600.0)
    loud = one.add_rule("loud", keep_firing_s=300.0)
    for hour in range(4):
        one.hear(hour * 3600, hour * 3600 + 60, (loud, hour * 3600 + 30, hour * 3600 + 40))
        one.tick(hour * 3600 + 1800)
    assert one.only().state == "open"
    one.hear(4 * 3600, 4 * 3600 + 60)
    assert one.only().state == "resolved"


def test_an_incident_of_a_source_that_fell_silent_ends_by_the_wall_clock(one: World) -> None:
    one.add_source("pump-1", 600.0)
    loud = one.add_rule("loud", keep_firing_s=300.0)
    one.hear(0, 60, (loud, 0, 60))
    assert one.tick(1000) == []
    assert one.tick(60 + 1799) == []
    assert [c.kind for c in one.tick(60 + 1800)] == ["resolved"]


def test_a_rule_that_must_hold_is_pending_first(world: World) -> None:
    loud = world.add_rule("loud", for_s=100.0)
    assert world.hear(0, 60, (loud, 30, 60)).changes == ()
    assert world.only().state == "pending"
    # The recordings follow each other, and it held from the start of the second to 130 s.
    applied = world.hear(62, 140, (loud, 62, 130))
    assert [c.kind for c in applied.changes] == ["opened"]
    assert world.actions(world.only().id) == ["pending", "opened"]
    assert world.only().pending_since == at(30)


@pytest.mark.parametrize("again_from", [70.0, None])
def test_a_pending_rule_that_breaks_begins_anew(one: World, again_from: float | None) -> None:
    loud = one.add_rule("loud", for_s=60.0)
    one.hear(0, 60, (loud, 30, 60))
    if again_from is None:
        one.hear(60, 120)
        assert one.only().state == "resolved"
        assert one.actions(1) == ["pending", "lapsed"]
        assert one.told == []
    else:
        one.hear(60, 120, (loud, again_from, 120))
        assert one.only().state == "pending"
        one.hear(120, 180, (loud, 120, 135))
        assert one.only().state == "open"


def test_a_cooldown_holds_the_next_incident_back(one: World) -> None:
    loud = one.add_rule("loud", keep_firing_s=10.0, cooldown_s=500.0)
    one.hear(0, 60, (loud, 0, 10))
    one.hear(60, 120, (loud, 60, 70))
    one.hear(480, 540, (loud, 500, 509))
    assert [i.state for i in one.all()] == ["resolved"]
    one.hear(540, 600, (loud, 560, 570))
    assert [i.last_fired_at for i in one.all()] == [at(10), at(570)]


def test_a_switched_off_or_removed_rule_ends_its_incident(world: World) -> None:
    loud, high = world.add_rule("loud"), world.add_rule("mic", "microphone")
    world.hear(0, 60, (loud, 0, 60), (high, 0, 60))
    with world.store.session() as session:
        rules.change(session, loud, "ann", now=at(61), enabled=False)
        rules.remove(session, high, "ann", now=at(61))
    assert [c.kind for c in world.tick(62)] == ["resolved", "resolved"]


# --- together ---------------------------------------------------------------------------------


def test_rules_that_fire_together_join_and_the_gravest_counts(world: World) -> None:
    info = world.add_rule("hum", severity="info")
    grave = world.add_rule("bang", severity="critical")
    world.hear(0, 60, (info, 0, 60))
    applied = world.hear(60, 120, (info, 60, 120), (grave, 90, 100))
    assert [(c.kind, c.rule_id) for c in applied.changes] == [("joined", grave), ("raised", grave)]
    assert (world.only().severity, world.only().reason) == ("critical", f"rule {grave} held")


def test_what_becomes_graver_must_be_acknowledged_again(one: World) -> None:
    info, grave = one.add_rule("hum", severity="info"), one.add_rule("bang", severity="critical")
    one.hear(0, 60, (info, 0, 60))
    one.act(review.acknowledge, 1, 61, "on my way")
    one.hear(60, 120, (info, 60, 120), (grave, 60, 70))
    assert one.only().state == "open"


def test_a_rule_that_must_hold_joins_only_then(one: World) -> None:
    loud, slow = one.add_rule("loud"), one.add_rule("slow", for_s=50.0, severity="critical")
    one.hear(0, 60, (loud, 0, 60), (slow, 40, 60))
    assert one.only().severity == "warning"
    applied = one.hear(60, 120, (loud, 60, 120), (slow, 60, 95))
    assert [c.kind for c in applied.changes] == ["joined", "raised"]


def test_the_health_of_a_source_is_an_incident_of_its_own(one: World) -> None:
    loud, mic = one.add_rule("loud"), one.add_rule("mic", "microphone")
    one.hear(0, 60, (loud, 0, 60), (mic, 0, 60))
    assert {i.family for i in one.all()} == {"sound", "health"}
    assert {kind for _, kind in one.told} == {"opened"}


def test_sources_that_share_a_tag_are_told_of_together(one: World) -> None:
    loud, all_pumps = one.add_rule("loud"), one.add_rule("pumps", tag="north")
    first = one.add_source("a", tags=["hall-1", "pumps"])
    second = one.add_source("b", tags=["attic", "pumps"])
    lonely = one.add_source("c")
    for source_id in (first, second, lonely):
        one.hear(0, 60, (loud, 0, 60), source_id=source_id)
    assert [i.group_key for i in one.all()] == ["tag:pumps", "tag:pumps", "source:c"]
    one.hear(0, 60, (all_pumps, 0, 60))
    assert one.all()[-1].group_key == "tag:north"


# --- nobody is told ---------------------------------------------------------------------------


def test_a_dead_microphone_silences_novelty_but_not_a_level(world: World) -> None:
    mic = world.add_rule("mic", "microphone")
    novel, loud = world.add_rule("novel", "novelty"), world.add_rule("loud")
    world.hear(0, 60, (novel, 0, 60), (mic, 0, 60))
    health, sound = sorted(world.all(), key=lambda i: i.family)
    assert sound.suppressed_by == {"kind": "rule", "id": mic}
    assert world.told == [(health.id, "opened")]
    applied = world.hear(60, 120, (novel, 60, 120), (mic, 60, 120), (loud, 60, 120))
    assert "joined" in [c.kind for c in applied.changes]
    assert (sound.id, "joined") in world.told


def test_novelty_that_outlasts_the_dead_microphone_is_told(one: World) -> None:
    mic, novel = one.add_rule("mic", "microphone"), one.add_rule("novel", "novelty")
    one.hear(0, 60, (novel, 0, 60), (mic, 0, 60))
    for start in range(60, 360, 60):
        one.hear(start, start + 60, (novel, start, start + 60))
    sound = next(i for i in one.all() if i.family == "sound")
    assert sound.suppressed_by is None
    assert one.told[-1] == (sound.id, "told")


def test_novelty_that_ends_with_the_dead_microphone_is_never_told(one: World) -> None:
    mic, novel = (
        one.add_rule("mic", "microphone"),
        one.add_rule("novel", "novelty", keep_firing_s=900.0),
    )
    one.hear(0, 60, (novel, 0, 60), (mic, 0, 60))
    for start in range(60, 1200, 60):
        one.hear(start, start + 60)
        one.tick(start + 70)
    assert {i.state for i in one.all()} == {"resolved"}
    assert {kind for key, kind in one.told if key == 1} == {"opened", "resolved"}
    assert not [kind for key, kind in one.told if key == 2 and kind in ("opened", "told")]


def test_a_silence_holds_back_and_tells_at_its_end_if_it_still_fires(world: World) -> None:
    loud = world.add_rule("loud", escalate_after_s=50.0, keep_firing_s=2000.0)
    silence = world.silence(source_id=world.source_id)
    world.hear(0, 60, (loud, 0, 60))
    assert world.only().suppressed_by == {"kind": "silence", "id": silence}
    assert (world.told, world.tick(900)) == ([], [])
    world.hear(960, 1020, (loud, 960, 1020), now_s=999)
    assert [c.kind for c in world.tick(1000)] == ["told"]
    assert world.only().told_at == at(1000)
    assert [c.kind for c in world.tick(1050)] == ["escalated"]


def test_a_silence_that_outlasts_the_sound_leaves_nothing_to_tell(one: World) -> None:
    loud = one.add_rule("loud", keep_firing_s=5000.0)
    one.silence()
    one.hear(0, 60, (loud, 0, 60))
    one.hear(60, 120)
    assert one.tick(1001) == []
    assert one.told == []


def test_a_silence_put_on_what_is_known_already_and_ended_by_hand(one: World) -> None:
    loud = one.add_rule("loud", keep_firing_s=5000.0)
    one.hear(0, 60, (loud, 0, 60))
    silence = one.silence(rule_id=loud)
    assert one.tick(61) == []
    assert one.only().suppressed_by is not None
    with one.store.session() as session:
        silences.end(session, silence, "ann", now=at(100))
    assert [c.kind for c in one.tick(101)] == ["told"]
    assert one.actions(1) == ["opened", "suppressed", "told"]


@pytest.mark.parametrize(
    ("values", "holds"),
    [
        ({"tag": "pumps"}, True),
        ({"tag": "fans"}, False),
        ({"rule_id": 2}, False),
        ({"ends_at": None, "weekly": {"days": [5], "from": "12:30", "to": "13:30"}}, True),
        ({"ends_at": None, "weekly": {"days": [5], "from": "13:30", "to": "12:30"}}, False),
        ({"ends_at": None, "weekly": {"days": [4], "from": "23:00", "to": "13:30"}}, True),
    ],
)
def test_a_silence_is_for_what_it_names(one: World, values: dict[str, Any], holds: bool) -> None:
    # It is Saturday, and 13:00 in Zurich.
    with one.store.session() as session:
        sources.describe(session, "pump-1", timezone="Europe/Zurich", tags=["pumps"])
    loud, _other = one.add_rule("loud"), one.add_rule("other")
    one.silence(**values)
    one.hear(0, 60, (loud, 0, 60))
    assert (one.only().suppressed_by is not None) == holds


# --- late, and at once ------------------------------------------------------------------------


def test_late_recordings_make_an_incident_of_their_own(world: World) -> None:
    loud = world.add_rule("loud", keep_firing_s=100.0)
    world.hear(1000, 1060, (loud, 1000, 1060))
    applied = world.hear(0, 60, (loud, 0, 60), late=True, now_s=1100)
    assert [c.kind for c in applied.changes] == ["opened"]
    current, late = world.all()
    assert (late.late, late.last_fired_at, current.last_fired_at) == (True, at(60), at(1060))
    assert world.hear(60, 120, (loud, 60, 120), late=True, now_s=1110).changes == ()
    assert [c.kind for c in world.tick(1211)] == ["resolved"]
    assert [i.state for i in world.all()] == ["open", "resolved"]


def test_many_threads_open_one_incident(world: World) -> None:
    loud, quiet = world.add_rule("loud"), world.add_rule("quiet")
    errors: list[Exception] = []
    ready = threading.Barrier(6)

    def work(number: int) -> None:
        ready.wait()
        try:
            for step in range(5):
                rule_id = (loud, quiet)[number % 2]
                if number == 5:
                    world.tick(60 + step)
                else:
                    world.hear(0, 60, (rule_id, 0, 60))
        except Exception as error:  # noqa: BLE001  # shown below, whatever it is
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert world.only().state == "open"
    assert [kind for _, kind in world.told] == ["opened", "joined"]
    with world.store.reading() as session:
        assert sorted(session.scalars(select(IncidentRule.times))) == [10, 15]

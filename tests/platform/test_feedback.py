"""What people decide is learned: false alarms become usual, a new normal becomes a version."""

from __future__ import annotations

from typing import Any

import pytest

from soundpost.errors import BaselineStateError, NothingToLearnError
from soundpost.jobs import BASELINE, JobQueue, NoSender
from soundpost.monitoring import baselines as making
from soundpost.monitoring import feedback, review
from soundpost.monitoring.baselines import Choice
from soundpost.monitoring.reading import observe
from soundpost.monitoring.watch import Watcher, begin_watching
from soundpost.store import baselines, incidents, jobs, recordings, rules, sources
from soundpost.store.rules import NewRule
from soundpost.store.tables import Source, utc_now

QUEUE = JobQueue(NoSender())


@pytest.fixture
def pump(pump_archive: Any) -> Any:
    """A pump that is watched, and that has sounded otherwise for three recordings."""
    archive = pump_archive
    for number in range(12):
        archive.record(number)
    with archive.store.session() as session:
        source = sources.by_name(session, "pump-3")
        archive.baseline_id = making.create(session, source, Choice(budget_s=3600.0), "ann").id
    making.prepare(archive.store, archive.baseline_id)
    with archive.store.session() as session:
        begin_watching(session, archive.baseline_id, "ann")
    archive.strange = [
        archive.record(number, offset=0.6, level_dbfs=-26.0) for number in (20, 21, 22)
    ]
    watcher = Watcher(archive.store, feedback.tell_and_learn(QUEUE))
    for recording_id in archive.strange:
        watcher.warm(archive.source_id)
        with archive.store.session() as session:
            watcher.watch(session, recording_id, utc_now())
    with archive.store.reading() as session:
        (archive.incident,) = incidents.find(session)
    return archive


def asked(archive: Any) -> list[int]:
    """Baselines that are to be prepared."""
    with archive.store.reading() as session:
        found = jobs.find(session, kind=BASELINE, state="queued")
        return [int(job.payload["baseline"]) for job in found]


def mean_p_value(archive: Any, baseline_id: int, number: int) -> float:
    """How usual another recording of the strange kind is."""
    another = archive.record(number, offset=0.6, level_dbfs=-26.0)
    with archive.store.reading() as session:
        fitted = making.load(session, baseline_id)
        return float(fitted.score(observe(session, [another], fitted.model_id)).p_values.mean())


def test_a_false_alarm_makes_such_sounds_usual(pump: Any) -> None:
    before = mean_p_value(pump, pump.baseline_id, 30)
    with pump.store.session() as session:
        on_change = feedback.tell_and_learn(QUEUE)
        review.dismiss(
            session, pump.incident.id, "bob", "a test run", now=utc_now(), on_change=on_change
        )
    assert asked(pump) == [pump.baseline_id]
    made = making.prepare(pump.store, pump.baseline_id)
    assert (made.state, made.summary["dismissed_windows"] > 0) == ("active", True)
    assert mean_p_value(pump, pump.baseline_id, 31) > 3 * before


def test_a_dismissal_that_is_taken_back_is_forgotten(pump: Any) -> None:
    on_change = feedback.tell_and_learn(QUEUE)
    with pump.store.session() as session:
        review.dismiss(
            session, pump.incident.id, "bob", "a test run", now=utc_now(), on_change=on_change
        )
    making.prepare(pump.store, pump.baseline_id)
    with pump.store.session() as session:
        for job in jobs.find(session, kind=BASELINE, state="queued"):
            jobs.cancel(session, job.id)
        review.reopen(
            session, pump.incident.id, "bob", "it was the pump", now=utc_now(), on_change=on_change
        )
    assert asked(pump) == [pump.baseline_id]
    made = making.prepare(pump.store, pump.baseline_id)
    assert made.summary["dismissed_windows"] == 0


def test_an_incident_is_accepted_as_a_new_normal(pump: Any) -> None:
    with pump.store.session() as session:
        made = feedback.accept_incident(
            session, QUEUE, pump.incident.id, "bob", "a new impeller", now=utc_now()
        )
        assert incidents.get(session, pump.incident.id).state == "resolved"
        held = baselines.recording_ids(session, made.id)
    assert asked(pump) == [made.id]
    assert set(pump.strange) <= set(held)
    making.prepare(pump.store, made.id)
    with pump.store.session() as session:
        begin_watching(session, made.id, "bob")
    assert mean_p_value(pump, made.id, 32) > 0.05


def test_what_cannot_be_accepted_says_why(pump: Any) -> None:
    with pump.store.session() as session:
        making.retire(session, pump.baseline_id, "bob")
        with pytest.raises(BaselineStateError):
            feedback.accept_incident(session, QUEUE, pump.incident.id, "bob", None, now=utc_now())
        making.activate(session, pump.baseline_id, "bob")
        for recording_id in pump.strange:
            recordings.remove(session, recording_id)
        with pytest.raises(NothingToLearnError):
            feedback.accept_incident(session, QUEUE, pump.incident.id, "bob", None, now=utc_now())


def test_sources_with_long_and_like_names_get_their_rules(pump: Any) -> None:
    with pump.store.session() as session:
        place = session.get_one(Source, pump.source_id)
        place.name = "a" * 200
        for rule in rules.find(session, source_id=place.id):
            rules.remove(session, rule.id, "ann", now=utc_now())
        rules.add(session, NewRule(f"{'a' * 150}: novelty", "novelty", "ann"), now=utc_now())
        begin_watching(session, pump.baseline_id, "ann")
        names = [rule.name for rule in rules.find(session, source_id=place.id)]
    assert f"{'a' * 150}: microphone" in names

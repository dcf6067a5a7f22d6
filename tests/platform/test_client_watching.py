"""The client's calls about watching, each against a running service."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from soundpost.errors import (
    BaselineStateError,
    ChannelExistsError,
    IncidentStateError,
    InvalidValueError,
    NothingToLearnError,
    NotificationStateError,
    RuleNameTakenError,
    RuleSettingsError,
    SilenceEndedError,
    UnknownBaselineError,
    UnknownChannelError,
    UnknownIncidentError,
    UnknownNotificationError,
    UnknownRuleError,
    UnknownSilenceError,
    UnknownSourceError,
    UnknownWindowError,
)
from soundpost.jobs import JobQueue
from soundpost.monitoring import baselines as making
from soundpost.monitoring import notify
from soundpost.monitoring.incidents import Round, apply
from soundpost.monitoring.rules import Firing
from soundpost.store import jobs, models, notifications, rules, sources
from soundpost.store.rules import NewRule

START = datetime(2026, 11, 21, 12, tzinfo=UTC)
RATE_HZ = 16_000
# Nobody listens on the port of discarding; nothing is sent by these tests but test messages.
HOOK = "http://127.0.0.1:9/hook"


def noise(seed: int, seconds: float = 12.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (0.1 * rng.normal(size=int(seconds * RATE_HZ))).astype(np.float32)


def fill(service: Any, count: int = 1) -> list[int]:
    """Embed recordings of noise by the model that serves."""
    ids = service.fill(**{f"n{seed}": noise(seed) for seed in range(count)})
    with service.store.session() as session:
        (model,) = models.find_all(session)
        models.serve(session, model.id)
    return sorted(ids.values())


def open_incidents(service: Any, count: int) -> None:
    """Let a rule fire for sources that did not exist, an hour apart."""
    with service.store.session() as session:
        new = NewRule("loud", "level", "ann", {"above_dbfs": -40.0})
        rule_id = rules.add(session, new, now=START).id
        for number in range(count):
            source_id = sources.ensure(session, f"pump {number}").id
            at = START + timedelta(hours=number)
            round_ = Round(source_id, [Firing(rule_id, source_id, at, at, "loud")])
            apply(session, round_, at, notify.incident_changed)


# --- baselines and sources --------------------------------------------------------------------


def test_a_baseline_is_made_used_widened_and_retired(service: Any) -> None:
    client = service.client
    ids = fill(service, 4)
    made = client.create_baseline("hall", actor="ann", budget_s=86_400.0)
    assert (made.source, made.version, made.state) == ("hall", 1, "preparing")
    assert [message.kind for message in service.sender.messages] == ["baseline"]
    with pytest.raises(BaselineStateError) as caught:
        client.activate_baseline(made.id, actor="ann")
    assert caught.value.remedy
    making.prepare(service.store, made.id)
    assert client.baseline(made.id).summary["recordings"] == 4
    used = client.activate_baseline(made.id, actor="ann", reason="a good week")
    assert used.state == "active" and used.activated_at is not None
    kinds = [rule.kind for rule in client.rules(source="hall")]
    assert kinds == ["novelty", "microphone", "format"]
    wider = client.accept_recordings("hall", ids[:1], actor="ben", reason="a new bearing")
    assert (wider.version, wider.chosen["accepted"]) == (2, ids[:1])
    assert [row.version for row in client.baselines("hall")] == [2, 1]
    retired = client.retire_baseline(made.id, actor="ann", reason="moved")
    assert retired.state == "retired"


def test_a_baseline_may_be_chosen_by_time_or_learn(service: Any) -> None:
    client = service.client
    fill(service)
    since = datetime(2000, 1, 1, tzinfo=UTC)
    made = client.create_baseline(
        "hall", actor="ann", after=since, method="acoustics", contexts="hours", activate=False
    )
    assert made.chosen["after"] == since.isoformat()
    assert (made.chosen["method"], made.chosen["contexts"]) == ("acoustics", "hours")
    learning = client.create_baseline("hall", actor="ann", learn_s=3600.0)
    assert (learning.state, client.baselines()[0].id) == ("learning", learning.id)


def test_errors_of_baselines_are_classes(service: Any) -> None:
    client = service.client
    with pytest.raises(UnknownSourceError):
        client.create_baseline("nowhere", actor="ann")
    with pytest.raises(UnknownSourceError):
        client.baselines("nowhere")
    fill(service)
    with pytest.raises(NothingToLearnError):
        client.create_baseline("hall", actor="ann", before=datetime(2000, 1, 1, tzinfo=UTC))
    with pytest.raises(InvalidValueError, match="contexts"):
        client.create_baseline("hall", actor="ann", contexts="moon")
    with pytest.raises(InvalidValueError, match="JSON"):
        client.create_baseline("hall", actor="ann", budget_s=float("nan"))
    with pytest.raises(BaselineStateError):
        client.accept_recordings("hall", [1], actor="ann", reason="because")
    for call in (client.activate_baseline, client.retire_baseline):
        with pytest.raises(UnknownBaselineError):
            call(77, actor="ann")
    with pytest.raises(UnknownBaselineError) as caught:
        client.baseline(77)
    assert (caught.value.code, caught.value.value) == ("unknown-baseline", "77")
    assert caught.value.remedy


def test_a_source_is_described(service: Any) -> None:
    client = service.client
    with service.store.session() as session:
        sources.ensure(session, "north/pump 3")
    changed = client.change_source(
        "north/pump 3", timezone="Europe/Berlin", cadence_s=600.0, tags=["pumps", "north"]
    )
    assert (changed.timezone, changed.cadence_s) == ("Europe/Berlin", 600.0)
    assert sorted(changed.tags) == ["north", "pumps"]
    changed = client.change_source("north/pump 3", cadence_s=None)
    assert (changed.timezone, changed.cadence_s) == ("Europe/Berlin", None)
    assert len(client.source("north/pump 3").tags) == 2
    with pytest.raises(UnknownSourceError):
        client.change_source("nowhere", tags=[])
    with pytest.raises(InvalidValueError, match="Moon"):
        client.change_source("north/pump 3", timezone="Moon/Base")


# --- incidents --------------------------------------------------------------------------------


def test_incidents_are_gone_through_page_by_page(service: Any) -> None:
    open_incidents(service, 5)
    client = service.client
    assert [row.id for row in client.incidents(page_size=2)] == [5, 4, 3, 2, 1]
    assert [row.id for row in client.incidents(newest_first=False, page_size=2)] == [1, 2, 3, 4, 5]
    assert [row.source for row in client.incidents(source="pump 2")] == ["pump 2"]
    later = client.incidents(since=START + timedelta(hours=3))
    assert [row.source for row in later] == ["pump 4", "pump 3"]
    client.resolve(2, actor="ann")
    assert [row.id for row in client.incidents(states=["resolved", "dismissed"])] == [2]
    assert list(client.incidents(severities=["critical"])) == []
    with pytest.raises(UnknownSourceError):
        next(client.incidents(source="nowhere"))


def test_an_incident_goes_through_its_life_on_record(service: Any) -> None:
    open_incidents(service, 1)
    client = service.client
    assert client.acknowledge(1, actor="ann", reason="looking").state == "acknowledged"
    assert client.note(1, actor="ben", text="a bearing?").history[-1].action == "noted"
    assert client.dismiss(1, actor="ann", reason="the cleaner").state == "dismissed"
    assert client.reopen(1, actor="ben").state == "open"
    assert client.resolve(1, actor="ben", reason="repaired").state == "resolved"
    shown = client.incident(1)
    assert [(entry.actor, entry.reason) for entry in shown.history] == [
        ("soundpost", "loud"),
        ("ann", "looking"),
        ("ben", "a bearing?"),
        ("ann", "the cleaner"),
        ("ben", None),
        ("ben", "repaired"),
    ]
    assert [(rule.name, rule.times) for rule in shown.rules] == [("loud", 1)]


def test_an_incident_without_recordings_is_no_new_normal(service: Any) -> None:
    open_incidents(service, 1)
    with pytest.raises(NothingToLearnError) as caught:
        service.client.accept(1, actor="ann", reason="new pump")
    assert "incident 1" in str(caught.value) and caught.value.remedy
    with pytest.raises(UnknownIncidentError):
        service.client.accept(7, actor="ann")


def test_errors_of_incidents_are_classes(service: Any) -> None:
    open_incidents(service, 1)
    client = service.client
    client.resolve(1, actor="ann")
    with pytest.raises(IncidentStateError) as caught:
        client.acknowledge(1, actor="ann")
    assert caught.value.code == "incident-state" and caught.value.remedy
    with pytest.raises(InvalidValueError, match="actor"):
        client.reopen(1, actor=" ")
    for ask in (
        lambda: client.incident(7),
        lambda: client.acknowledge(7, actor="ann"),
        lambda: client.resolve(7, actor="ann"),
        lambda: client.reopen(7, actor="ann"),
        lambda: client.dismiss(7, actor="ann", reason="no"),
        lambda: client.note(7, actor="ann", text="no"),
    ):
        with pytest.raises(UnknownIncidentError):
            ask()


# --- rules and silences -----------------------------------------------------------------------


def test_rules_are_made_changed_and_deleted(service: Any) -> None:
    client = service.client
    fill(service)
    quiet = client.create_rule("quiet", "silence", actor="ann", source="hall", severity="info")
    assert (quiet.source, quiet.severity, quiet.created_by) == ("hall", "info", "ann")
    loud = client.create_rule(
        "loud", "level", actor="ann", tag="pumps", settings={"above_dbfs": -20}, escalate_after_s=60
    )
    assert (loud.tag, loud.escalate_after_s) == ("pumps", 60.0)
    changed = client.change_rule(loud.id, actor="ben", name="louder", escalate_after_s=None)
    assert (changed.name, changed.escalate_after_s) == ("louder", None)
    assert changed.settings == loud.settings
    assert client.change_rule(quiet.id, actor="ben", enabled=False).enabled is False
    assert [rule.name for rule in client.rules(page_size=1)] == ["quiet", "louder"]
    assert [rule.name for rule in client.rules(kind="level")] == ["louder"]
    assert [rule.name for rule in client.rules(source="hall", enabled=False)] == ["quiet"]
    client.delete_rule(quiet.id, actor="ann")
    with pytest.raises(UnknownRuleError):
        client.rule(quiet.id)


def test_errors_of_rules_are_classes(service: Any) -> None:
    client = service.client
    client.create_rule("quiet", "silence", actor="ann")
    with pytest.raises(RuleNameTakenError) as caught:
        client.create_rule("quiet", "clock", actor="ann")
    assert caught.value.remedy
    with pytest.raises(RuleSettingsError, match="loud"):
        client.change_rule(1, actor="ann", settings={"loud": 1})
    with pytest.raises(UnknownSourceError):
        client.create_rule("x", "clock", actor="ann", source="nowhere")
    with pytest.raises(UnknownWindowError):
        client.create_rule("x", "exemplar", actor="ann", settings={"embedding_id": 99})
    with pytest.raises(UnknownRuleError):
        client.change_rule(9, actor="ann", enabled=True)
    with pytest.raises(UnknownRuleError):
        client.delete_rule(9, actor="ann")


def test_silences_are_made_listed_and_ended(service: Any) -> None:
    client = service.client
    with service.store.session() as session:
        sources.ensure(session, "pump 0")
    until = datetime(2999, 1, 1, tzinfo=UTC)
    made = client.create_silence(actor="ann", reason="works", source="pump 0", ends_at=until)
    assert (made.kind, made.source, made.ends_at) == ("silence", "pump 0", until)
    weekly = {"days": [5, 6], "from": "22:00", "to": "04:00"}
    nights = client.create_silence(actor="ann", reason="nights", kind="maintenance", weekly=weekly)
    assert (nights.weekly, client.silence(nights.id)) == (weekly, nights)
    assert [row.id for row in client.silences(page_size=1)] == [made.id, nights.id]
    assert [row.id for row in client.silences(source="pump 0")] == [made.id]
    client.end_silence(made.id, actor="ann", reason="done")
    assert [row.kind for row in client.silences()] == ["maintenance"]
    assert len(list(client.silences(ended=True))) == 2


def test_errors_of_silences_are_classes(service: Any) -> None:
    client = service.client
    with pytest.raises(InvalidValueError):
        client.create_silence(actor="ann", reason="for ever")
    until = datetime(2999, 1, 1, tzinfo=UTC)
    with pytest.raises(UnknownRuleError):
        client.create_silence(actor="ann", reason="x", rule_id=8, ends_at=until)
    made = client.create_silence(actor="ann", reason="works", ends_at=until)
    client.end_silence(made.id, actor="ann")
    with pytest.raises(SilenceEndedError) as caught:
        client.end_silence(made.id, actor="ann")
    assert caught.value.remedy
    for ask in (lambda: client.silence(9), lambda: client.end_silence(9, actor="ann")):
        with pytest.raises(UnknownSilenceError):
            ask()


# --- channels and notifications ---------------------------------------------------------------


def test_channels_are_added_changed_tried_and_removed(service: Any) -> None:
    client = service.client
    made = client.add_channel("ops", HOOK, tag="pumps", repeat_s=3600.0, min_severity="warning")
    assert (made.kind, made.tag, made.repeat_s, made.signed) == ("webhook", "pumps", 3600.0, False)
    assert client.channel("ops") == made == client.channels()[0]
    changed = client.change_channel("ops", repeat_s=None, enabled=False)
    assert (changed.repeat_s, changed.enabled, changed.tag) == (None, False, "pumps")
    outcome = client.test_channel("ops")
    assert (outcome.ok, outcome.code) == (False, "channel-unreachable") and outcome.remedy
    client.remove_channel("ops")
    assert client.channels() == []


def test_errors_of_channels_are_classes(service: Any) -> None:
    client = service.client
    client.add_channel("ops", HOOK)
    with pytest.raises(ChannelExistsError) as caught:
        client.add_channel("ops", HOOK)
    assert caught.value.remedy
    with pytest.raises(InvalidValueError, match="ftp"):
        client.add_channel("other", "ftp://example.org")
    with pytest.raises(UnknownSourceError):
        client.change_channel("ops", source="nowhere")
    for call in (
        client.channel,
        client.change_channel,
        client.remove_channel,
        client.test_channel,
    ):
        with pytest.raises(UnknownChannelError):
            call("none")


def test_notifications_are_listed_looked_at_and_retried(service: Any) -> None:
    client = service.client
    client.add_channel("ops", HOOK, group_wait_s=0.0)
    client.add_channel("second", HOOK, group_wait_s=0.0)
    open_incidents(service, 2)
    with service.store.session() as session:
        queue = JobQueue.of(service.settings, service.sender)
        notify.tick(session, queue, START + timedelta(hours=3), settings=service.settings)
    found = list(client.notifications(page_size=1))
    assert {row.channel for row in found} == {"ops", "second"}
    assert [row.id for row in client.notifications(newest_first=True)] == [
        row.id for row in reversed(found)
    ]
    assert {row.channel for row in client.notifications(channel="ops", kind="opened")} == {"ops"}
    with pytest.raises(NotificationStateError) as caught:
        client.retry_notification(found[0].id)
    assert caught.value.remedy
    with service.store.session() as session:
        notifications.get(session, found[0].id).state = "failed"
        job = jobs.latest(session, f"notify:{found[0].id}")
        assert job is not None
        job.state = "failed"
    assert [row.id for row in client.notifications(state="failed")] == [found[0].id]
    assert client.retry_notification(found[0].id).state == "queued"
    full = client.notification(found[0].id)
    assert (full.document.key, full.document.kind) == (full.key, "opened")
    for call in (client.notification, client.retry_notification):
        with pytest.raises(UnknownNotificationError):
            call(99)

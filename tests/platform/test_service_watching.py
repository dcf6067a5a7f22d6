"""Incidents, rules, silences and tags over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import numpy as np
import pytest

from soundpost.monitoring.incidents import Round, apply
from soundpost.monitoring.rules import Firing
from soundpost.store import rules, sources
from soundpost.store.rules import NewRule
from soundpost.store.watch_tables import Finding

START = datetime(2026, 11, 21, 12, tzinfo=UTC)


class Api:
    """The service, spoken to in JSON."""

    def __init__(self, service: Any) -> None:
        self.service = service

    def call(self, method: str, path: str, status: int = 200, **sent: Any) -> Any:
        answer = httpx.request(method, f"{self.service.url}/v1/{path}", **sent, timeout=30)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    def get(self, path: str, **params: Any) -> Any:
        return self.call("GET", path, params=params)

    def post(self, path: str, status: int = 200, **body: Any) -> Any:
        return self.call("POST", path, status, json=body)

    def open_incidents(self, count: int) -> None:
        """Let a rule fire for sources that did not exist."""
        with self.service.store.session() as session:
            new = NewRule("loud", "level", "ann", {"above_dbfs": -40.0})
            rule_id = rules.add(session, new, now=START).id
            for number in range(count):
                source_id = sources.ensure(session, f"pump {number}").id
                at = START + timedelta(hours=number)
                apply(session, Round(source_id, [Firing(rule_id, source_id, at, at, "loud")]), at)


@pytest.fixture
def api(service: Any) -> Api:
    return Api(service)


@pytest.fixture
def lite(sqlite_service: Any) -> Api:
    return Api(sqlite_service)


def test_incidents_are_listed_newest_first_page_by_page(api: Api) -> None:
    api.open_incidents(7)
    seen, cursor = [], None
    while True:
        page = api.get("incidents", limit=3, **({"cursor": cursor} if cursor else {}))
        seen += [item["id"] for item in page["items"]]
        if (cursor := page["next"]) is None:
            break
    assert seen == [7, 6, 5, 4, 3, 2, 1]
    since = (START + timedelta(hours=5)).isoformat()
    assert [i["id"] for i in api.get("incidents", since=since)["items"]] == [7, 6]
    assert [i["id"] for i in api.get("incidents", source="pump 2")["items"]] == [3]
    assert api.get("incidents", state=["resolved", "pending"])["items"] == []
    assert api.call("GET", "incidents", 422, params={"since": "0001-01-01T00:00:00+10:00"})


def test_an_incident_is_acknowledged_and_dismissed_on_record(api: Api) -> None:
    api.open_incidents(1)
    with api.service.store.session() as session:
        session.add(Finding(incident_id=1, rule_id=1, measurements={"sentence": "louder"}))
    acknowledged = api.post("incidents/1/acknowledge", actor="ann", reason="looking")
    assert acknowledged["state"] == "acknowledged"
    api.post("incidents/1/notes", actor="ben", reason="a bearing?")
    assert api.post("incidents/1/dismiss", actor="ann", reason="cleaner")["state"] == "dismissed"
    shown = api.get("incidents/1")
    assert [(e["actor"], e["action"], e["reason"]) for e in shown["history"]] == [
        ("soundpost", "opened", "loud"),
        ("ann", "acknowledged", "looking"),
        ("ben", "noted", "a bearing?"),
        ("ann", "dismissed", "cleaner"),
    ]
    assert [(r["name"], r["times"]) for r in shown["rules"]] == [("loud", 1)]
    assert shown["findings"][0]["measurements"] == {"sentence": "louder"}
    assert api.post("incidents/1/acknowledge", 409, actor="ann")["code"] == "incident-state"
    assert api.post("incidents/1/reopen", actor="ann")["state"] == "open"
    assert api.post("incidents/9/resolve", 404, actor="ann")["code"] == "unknown-incident"
    assert api.post("incidents/1/resolve", 422, actor=" ")["code"] == "invalid-value"


def test_rules_are_made_changed_and_removed(api: Api) -> None:
    api.service.fill(source="yard", noise=np.zeros(16_000, np.float32))
    made = api.post(
        "rules", 201, name="quiet", kind="silence", actor="ann", source="yard", severity="info"
    )
    assert (made["source"], made["severity"], made["waiting"]) == ("yard", "info", [])
    path = f"rules/{made['id']}"
    changed = api.call("PATCH", path, json={"actor": "ann", "enabled": False, "for_s": 5})
    assert (changed["enabled"], changed["for_s"], changed["severity"]) == (False, 5.0, "info")
    wrong = api.call("PATCH", path, 422, json={"actor": "ann", "settings": {"loud": 1}})
    assert (wrong["code"], wrong["value"]) == ("rule-settings", "loud")
    assert api.post("rules", 409, name="quiet", kind="clock", actor="ann")["code"] == (
        "rule-name-taken"
    )
    assert [r["id"] for r in api.get("rules", source="yard", enabled=False)["items"]] == [1]
    api.call("DELETE", path, 204, params={"actor": "ann"})
    assert api.call("GET", path, 404)["code"] == "unknown-rule"


def test_a_text_and_an_example_are_embedded_when_the_rule_is_made(lite: Api) -> None:
    tone = (0.3 * np.sin(np.arange(80_000) * 0.4)).astype(np.float32)
    ids = lite.service.fill(source="yard", tone=tone)
    window = lite.get(f"recordings/{ids['tone']}/windows")["items"][0]["embedding_id"]
    text = {"text": "a choir", "budget_s": 86_400}
    made = lite.post("rules", 201, name="choir", kind="text", actor="ann", settings=text)
    assert set(made["settings"]) == {"text", "budget_s", "model"}
    like = {"embedding_id": window, "name": "that tone"}
    made = lite.post("rules", 201, name="tone", kind="exemplar", actor="ann", settings=like)
    assert set(made["settings"]) == {"name", "model"}
    like["embedding_id"] = 10**6
    assert lite.post("rules", 404, name="x", kind="exemplar", actor="a", settings=like)["code"] == (
        "unknown-window"
    )
    raw = {"text": "a choir", "similarity": 0.4}
    refused = lite.post("rules", 422, name="raw", kind="text", actor="ann", settings=raw)
    assert refused["code"] == "raw-similarity"


def test_silences_begin_are_listed_and_end(api: Api) -> None:
    api.open_incidents(1)
    until = "2999-01-01T00:00:00+00:00"
    made = api.post("silences", 201, actor="ann", reason="works", source="pump 0", ends_at=until)
    assert (made["source"], made["kind"]) == ("pump 0", "silence")
    weekly = {"days": [5, 6], "from": "22:00", "to": "04:00"}
    api.post("silences", 201, actor="ann", reason="nights", kind="maintenance", weekly=weekly)
    assert [s["id"] for s in api.get("silences")["items"]] == [1, 2]
    api.post("silences/1/end", actor="ann")
    assert api.post("silences/1/end", 409, actor="ann")["code"] == "silence-ended"
    assert [s["id"] for s in api.get("silences")["items"]] == [2]
    assert [s["id"] for s in api.get("silences", ended=True)["items"]] == [1, 2]
    assert api.post("silences", 422, actor="ann", reason="for ever")["code"] == "invalid-value"


def test_a_source_is_tagged_and_told_its_cadence(api: Api) -> None:
    api.open_incidents(1)
    given = {"tags": ["pumps", "north"], "cadence_s": 60, "timezone": "Europe/Zurich"}
    changed = api.call("PATCH", "sources/pump 0", json=given)
    assert (changed["tags"], changed["cadence_s"]) == (["north", "pumps"], 60.0)
    changed = api.call("PATCH", "sources/pump 0", json={"cadence_s": None})
    assert (changed["tags"], changed["cadence_s"], changed["timezone"]) == (
        ["north", "pumps"],
        None,
        "Europe/Zurich",
    )
    for wrong in ({"tags": [" "]}, {"cadence_s": 0}, {"timezone": "Mars"}, {"tags": None}):
        assert api.call("PATCH", "sources/pump 0", 422, json=wrong)["code"] == "invalid-value"

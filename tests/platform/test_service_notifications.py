"""Channels and notifications over HTTP, and what is never shown of them."""

from __future__ import annotations

import base64
import io
import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from soundpost.jobs import JobQueue
from soundpost.monitoring import notify
from soundpost.monitoring.notification_document import NotificationDocument
from soundpost.store import channels, jobs, notifications, sources
from soundpost.store.tables import Source, utc_now
from soundpost.store.watch_tables import Incident

URL = "https://ada:hunter22@hook.example.org/T0KEN111?sig=T0KEN222"
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


def free_name(session: Session, source: str) -> str:
    """A source of this name, or one like it: each has one open incident at a time."""
    count = session.scalar(select(func.count()).select_from(Incident)) or 0
    taken = select(Incident.id).join(Source, Source.id == Incident.source_id)
    found = session.scalar(taken.where(Source.name == source).limit(1))
    return source if found is None else f"{source} {count}"


@pytest.fixture
def http(service: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{service.url}/v1", timeout=60) as client:
        yield client


def open_incident(service: Any, source: str = "pump 3", group: str = "pumps") -> int:
    opened_at = utc_now() - timedelta(hours=1)
    with service.store.session() as session:
        row = Incident(
            source_id=sources.ensure(session, free_name(session, source), "Europe/Berlin").id,
            state="open",
            severity="warning",
            group_key=group,
            reason="sounds new",
            evidence={"p_value": 0.0001},
            pending_since=opened_at,
            last_fired_at=opened_at,
            opened_at=opened_at,
        )
        session.add(row)
        session.flush()
        notify.incident_changed(session, row, "opened", opened_at, settings=service.settings)
        return row.id


def compose(service: Any) -> None:
    with service.store.session() as session:
        queue = JobQueue.of(service.settings, service.sender)
        notify.tick(session, queue, utc_now(), settings=service.settings)


def fail(service: Any, state: str = "failed") -> int:
    """Give up the latest notification; return its id."""
    with service.store.session() as session:
        (row,) = notifications.find(session, newest_first=True, limit=1)
        row.state = state
        row.error_code, row.error_detail = "channel-refused", "it answered 404"
        job = jobs.latest(session, f"notify:{row.id}")
        assert job is not None
        job.state = "failed"
        return row.id


def test_a_channel_is_added_changed_and_removed(service: Any, http: httpx.Client) -> None:
    open_incident(service)
    new = {"name": "ops", "url": URL, "secret": SECRET, "source": "pump 3", "repeat_s": 3600}
    made = http.post("/channels", json=new)
    assert made.status_code == 201
    assert made.headers["Location"] == "/v1/channels/ops"
    shown = made.json()
    assert (shown["kind"], shown["signed"], shown["source"]) == ("webhook", True, "pump 3")
    assert shown["address"] == "https://hook.example.org/***"
    assert http.get("/channels/ops").json() == http.get("/channels").json()[0] == shown
    again = http.post("/channels", json=new)
    assert (again.status_code, again.json()["code"]) == (409, "channel-exists")
    changed = http.patch("/channels/ops", json={"tag": "pumps", "repeat_s": None, "enabled": False})
    assert changed.status_code == 200
    assert {**shown, "tag": "pumps", "source": None, "repeat_s": None, "enabled": False} == (
        changed.json()
    )
    assert http.delete("/channels/ops").status_code == 204
    for method in ("GET", "DELETE", "PATCH"):
        gone = http.request(method, "/channels/ops", json={} if method == "PATCH" else None)
        assert (gone.status_code, gone.json()["code"]) == (404, "unknown-channel")


def test_a_new_channel_is_told_of_what_is_open(service: Any, http: httpx.Client) -> None:
    number = open_incident(service)
    http.post("/channels", json={"name": "ops", "url": URL, "group_wait_s": 0})
    compose(service)
    (row,) = http.get("/notifications").json()["items"]
    assert (row["channel"], row["kind"], row["state"]) == ("ops", "opened", "queued")
    assert row["incident_ids"] == [number]
    assert [message.queue for message in service.sender.messages] == ["notify"]


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ({"name": "a b"}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"url": "ftp://example.org/hunter22"}, "ftp"),
        ({"url": "nonsense"}, "URL"),
        ({"secret": "hunter22"}, "signing key"),
        ({"kind": "mqtt"}, "https"),
        ({"min_severity": "grave"}, "min_severity"),
        ({"source": "pump 3", "tag": "pumps"}, "body"),
        ({"subject_template": "{source.__class__}"}, "{source.__class__}"),
        ({"subject_template": "{nonsense}"}, "{nonsense}"),
        ({"body_template": "{source!r}"}, "{source!r}"),
        ({"body_template": "{source:>99999999}"}, "{source:>99999999}"),
        ({"body_template": "{source"}, "{source"),
        ({"body_template": "{}"}, "{}"),
        ({"body_template": "{0}"}, "{0}"),
        ({"group_wait_s": -1}, "group_wait_s"),
        ({"repeat_s": 1}, "repeat_s"),
        ({"settings": {"retain_state": True}}, "retain_state"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_set(
    sqlite_service: Any, change: dict[str, Any], value: str
) -> None:
    url = f"{sqlite_service.url}/v1/channels"
    answer = httpx.post(url, json={"name": "ops", "url": URL, **change}, timeout=60)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-value"), answer.text
    assert value in answer.json()["value"]
    assert "hunter22" not in answer.text
    assert httpx.get(url, timeout=60).json() == []


def test_an_unknown_source_is_named(service: Any, http: httpx.Client) -> None:
    answer = http.post("/channels", json={"name": "ops", "url": URL, "source": "nowhere"})
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown-source")


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """Everything that reaches the handlers of a process, in every detail."""
    written = io.StringIO()
    handler, root = logging.StreamHandler(written), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield written
    root.removeHandler(handler)
    root.setLevel(level)


def test_nothing_secret_is_in_any_answer(
    service: Any, http: httpx.Client, logged: io.StringIO
) -> None:
    open_incident(service)
    addresses = {
        "hook": URL,
        "chat": "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#ops",
        "mail": "mailto://ada:hunter22@127.0.0.1:1/?from=a@example.org&to=T0KEN111@example.org",
        "bus": "mqtt://ada:hunter22@127.0.0.1:1/plant",
    }
    texts = []
    for name, url in addresses.items():
        secret = {"secret": SECRET} if name == "hook" else {}
        texts.append(
            http.post(
                "/channels", json={"name": name, "url": url, "group_wait_s": 0, **secret}
            ).text
        )
    for name in ("mail", "bus"):
        texts.append(http.post(f"/channels/{name}/test").text)
        assert '"ok":false' in texts[-1]
    compose(service)
    fail(service)
    texts += [http.get(path).text for path in ("/channels", "/channels/hook", "/notifications")]
    texts += [http.get(f"/notifications/{number}").text for number in range(1, 5)]
    texts += [httpx.get(f"{service.url}/metrics", timeout=60).text, logged.getvalue()]
    for secret in ("hunter22", "T0KEN", "T1JJ3T3L2", "A1BRTD4JD", "TIiajk", SECRET, SECRET[6:]):
        assert [text for text in texts if secret in text] == []
    with service.store.reading() as session:
        assert channels.by_name(session, "hook").url == URL


def test_notifications_are_listed_looked_at_and_retried(service: Any, http: httpx.Client) -> None:
    http.post("/channels", json={"name": "ops", "url": URL, "group_wait_s": 0})
    http.post("/channels", json={"name": "second", "url": URL, "group_wait_s": 0})
    for number in range(3):
        open_incident(service, group=f"g{number}")
    compose(service)
    failed = fail(service)
    seen, cursor = [], ""
    while cursor is not None:
        page = http.get(f"/notifications?limit=2{cursor and f'&cursor={cursor}'}").json()
        seen += [row["id"] for row in page["items"]]
        cursor = page["next"]
    assert seen == sorted(seen) and len(seen) == 6
    newest = http.get("/notifications?newest_first=true&limit=100").json()["items"]
    assert [row["id"] for row in newest] == seen[::-1]
    assert len(http.get("/notifications?channel=second").json()["items"]) == 3
    assert http.get("/notifications?kind=repeat").json()["items"] == []
    (given_up,) = http.get("/notifications?state=failed").json()["items"]
    assert (given_up["id"], given_up["error_detail"]) == (failed, "it answered 404")
    assert given_up["remedy"]
    full = http.get(f"/notifications/{failed}").json()
    document = NotificationDocument.model_validate(full["document"])
    assert (document.key, document.subject) == (full["key"], full["subject"])
    retried = http.post(f"/notifications/{failed}/retry")
    assert (retried.status_code, retried.json()["state"]) == (200, "queued")
    assert retried.json()["key"] == full["key"]
    for path, status in ((f"{failed}/retry", 409), ("999/retry", 404)):
        assert http.post(f"/notifications/{path}").status_code == status
    assert http.get("/notifications/999").json()["code"] == "unknown-notification"
    http.delete(f"/channels/{given_up['channel']}")
    refused = http.post(f"/notifications/{failed}/retry")
    assert (refused.status_code, refused.json()["code"]) == (409, "notification-state")


def test_a_test_message_arrives_and_says_so(service: Any, http: httpx.Client) -> None:
    bodies: list[bytes] = []

    class Take(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Take)
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    http.post("/channels", json={"name": "ops", "url": url})
    with service.store.session() as session:
        row = channels.by_name(session, "ops")
        row.failures, row.open_until = 9, datetime(2200, 1, 1, tzinfo=UTC)
    assert http.get("/channels/ops").json()["circuit_open"] is True
    assert 'circuit_open{channel="ops"} 1.0' in httpx.get(f"{service.url}/metrics", timeout=60).text
    outcome = http.post("/channels/ops/test").json()
    thread.join(30)
    server.server_close()
    assert (outcome["ok"], outcome["code"]) == (True, None)
    assert NotificationDocument.model_validate_json(bodies[0]).kind == "test"
    # It works, so it is not left alone any more.
    assert http.get("/channels/ops").json()["circuit_open"] is False
    outcome = http.post("/channels/ops/test").json()
    assert (outcome["ok"], outcome["code"]) == (False, "channel-unreachable")
    assert outcome["remedy"]


def test_metrics_count_notifications(service: Any, http: httpx.Client) -> None:
    http.post("/channels", json={"name": "ops", "url": URL, "group_wait_s": 0})
    open_incident(service)
    compose(service)
    text = httpx.get(f"{service.url}/metrics", timeout=60).text
    assert 'soundpost_notifications{state="queued"} 1.0' in text
    assert 'soundpost_channel_circuit_open{channel="ops"} 0.0' in text

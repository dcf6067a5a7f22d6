"""`soundpost channels` and `soundpost notifications`: what is printed, and what never is."""

from __future__ import annotations

import io
import json
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from soundpost.config import Settings
from soundpost.jobs import JobQueue, NoSender
from soundpost.monitoring import notify
from soundpost.store import jobs, notifications, sources
from soundpost.store.session import Store, open_store
from soundpost.store.tables import utc_now
from soundpost.store.watch_tables import Incident

HOOK = "https://ada:hunter22@hook.example.org/T0KEN111"


# Runs the command line; returns its exit code, and what it printed.
Run = Callable[..., Any]


@pytest.fixture
def soundpost(soundpost: Run) -> Run:
    """The command line, which never shows a secret."""

    def run(*args: str) -> Any:
        told = soundpost(*args)
        for text in (told.out, told.err):
            assert "hunter22" not in text and "T0KEN" not in text
        return told

    return run


@pytest.fixture
def store(soundpost: Run, tmp_path: Path) -> Iterator[Store]:
    """The database of the home, with its tables."""
    assert soundpost("channels", "list").code == 0
    opened = open_store(Settings(home=tmp_path / "home").resolved_database_url)
    yield opened
    opened.close()


def give_up_a_notification(store: Store) -> int:
    """Open an incident, compose what is to be said of it, and park it."""
    before = utc_now() - timedelta(hours=1)
    with store.session() as session:
        row = Incident(
            source_id=sources.ensure(session, "pump 3").id,
            state="open",
            severity="warning",
            group_key="pumps",
            reason="sounds new",
            evidence={},
            pending_since=before,
            last_fired_at=before,
            opened_at=before,
        )
        session.add(row)
        session.flush()
        notify.incident_changed(session, row, "opened", before, settings=Settings())
        notify.tick(session, JobQueue(NoSender()), utc_now(), settings=Settings())
        (notification,) = notifications.find(session)
        notification.state = "failed"
        notification.error_code, notification.error_detail = "channel-refused", "it answered 404"
        (job,) = jobs.find(session)
        job.state = "failed"
        return notification.id


def test_a_channel_is_added_listed_turned_off_and_removed(soundpost: Run, store: Store) -> None:
    added = soundpost("channels", "add", "ops", HOOK, "--tag", "pumps", "--min-severity", "warning")
    assert added.out == "Added ops: webhook, https://hook.example.org/***\n"
    assert "soundpost channels test ops" in added.err
    header, row = soundpost("channels", "list").out.splitlines()
    assert header.split("\t")[:3] == ["name", "kind", "state"]
    assert row.split("\t")[:5] == ["ops", "webhook", "on", "tag pumps", "warning"]
    soundpost("channels", "disable", "ops")
    (document,) = json.loads(soundpost("channels", "list", "--json").out)
    assert (document["enabled"], document["tag"], document["signed"]) == (False, "pumps", False)
    soundpost("channels", "enable", "ops")
    again = soundpost("channels", "add", "ops", HOOK)
    assert (again.code, "[channel-exists]" in again.err) == (2, True)
    assert soundpost("channels", "remove", "ops").out == "Removed ops.\n"
    gone = soundpost("channels", "remove", "ops")
    assert (gone.code, "[unknown-channel]" in gone.err) == (2, True)


def test_an_address_is_read_from_standard_input(
    soundpost: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("mqtts://ada:hunter22@broker.example.org/a\n"))
    added = soundpost("channels", "add", "bus", "-", "--retain-state")
    assert added.out == "Added bus: mqtt, mqtts://***@broker.example.org:8883/a\n"
    (document,) = json.loads(soundpost("channels", "list", "--json").out)
    assert document["settings"] == {"retain_state": True}


@pytest.mark.parametrize(
    "args",
    [
        ("ops", "ftp://ada:hunter22@example.org"),
        ("ops", HOOK, "--subject", "{nonsense}"),
        ("ops", HOOK, "--secret", "T0KEN111"),
        ("ops", HOOK, "--retain-state"),
        ("no spaces", HOOK),
    ],
)
def test_a_channel_that_cannot_be_is_refused(
    soundpost: Run, store: Store, args: tuple[str, ...]
) -> None:
    told = soundpost("channels", "add", *args)
    assert (told.code, "[invalid-value]" in told.err) == (2, True)
    assert json.loads(soundpost("channels", "list", "--json").out) == []


def test_a_channel_is_tried_out(soundpost: Run, store: Store) -> None:
    class Take(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Take)
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    soundpost("channels", "add", "ops", f"http://127.0.0.1:{server.server_address[1]}/T0KEN111")
    assert soundpost("channels", "test", "ops").out.startswith("Sent to ops in ")
    thread.join(30)
    server.server_close()
    failed = soundpost("channels", "test", "ops")
    assert (failed.code, "[channel-unreachable]" in failed.err) == (2, True)


def test_what_was_given_up_is_seen_and_sent_again(soundpost: Run, store: Store) -> None:
    assert "No notifications" in soundpost("notifications").err
    soundpost("channels", "add", "ops", HOOK)
    number = give_up_a_notification(store)
    told = soundpost("notifications")
    (_, row) = told.out.splitlines()
    assert row.split("\t")[:3] == [str(number), "ops", "failed"]
    assert "pump 3: sounds new" in row and "404" in row
    assert "notifications retry" in told.err
    (document,) = json.loads(soundpost("notifications", "list", "--json").out)
    assert document["document"]["key"] == document["key"]
    assert soundpost("notifications", "retry", str(number)).out == "Queued 1 notification again.\n"
    assert "\tqueued\t" in soundpost("notifications", "list", "--state", "queued").out
    again = soundpost("notifications", "retry", str(number))
    assert (again.code, "[notification-state]" in again.err) == (2, True)
    with store.reading() as session:
        assert [job.state for job in jobs.find(session)] == ["queued"]

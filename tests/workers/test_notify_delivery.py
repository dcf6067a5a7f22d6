"""Deliveries by job: retried, in order, given up in sight of all, and never lost."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from soundpost.config import Settings
from soundpost.errors import NotificationStateError
from soundpost.jobs import JobQueue, NoSender
from soundpost.monitoring import delivery, notify
from soundpost.store import channels, jobs, notifications, recordings, sources
from soundpost.store.files import AudioFiles
from soundpost.store.notification_tables import Channel, Notification
from soundpost.store.recordings import NewRecording
from soundpost.store.session import Store
from soundpost.store.tables import Source, Window
from soundpost.store.watch_tables import Finding, Incident
from soundpost_workers.notify import Courier, compose, deliver
from soundpost_workers.reconcile import reconcile

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def free_name(session: Session, source: str) -> str:
    """A source of this name, or one like it: each has one open incident at a time."""
    count = session.scalar(select(func.count()).select_from(Incident)) or 0
    taken = select(Incident.id).join(Source, Source.id == Incident.source_id)
    found = session.scalar(taken.where(Source.name == source).limit(1))
    return source if found is None else f"{source} {count}"


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


@dataclass
class Post:
    """A database, a courier and a clock of its own."""

    store: Store
    courier: Courier
    queue: JobQueue = field(default_factory=lambda: JobQueue(NoSender()))
    now: float = 0.0

    def channel(self, url: str, name: str = "ops", kind: str = "webhook", **values: Any) -> None:
        times = {"group_wait_s": 0.0, "group_interval_s": 0.0}
        with self.store.session() as session:
            kept = {"settings": {}, **times, **values}
            row = Channel(name=name, kind=kind, url=url, enabled=True, **kept)
            session.add(row)
            notify.channel_changed(session, row, at(self.now), settings=self.courier.settings)

    def incident(self, group: str = "pumps", source: str = "pump 3") -> int:
        """Open an incident, and compose what is to be said of it."""
        with self.store.session() as session:
            row = Incident(
                source_id=sources.ensure(session, free_name(session, source)).id,
                state="open",
                severity="warning",
                group_key=group,
                reason="sounds new",
                evidence={},
                pending_since=at(self.now),
                last_fired_at=at(self.now),
                opened_at=at(self.now),
            )
            session.add(row)
            session.flush()
            notify.incident_changed(
                session, row, "opened", at(self.now), settings=self.courier.settings
            )
        self.compose()
        return row.id

    def resolve(self, incident_id: int) -> None:
        with self.store.session() as session:
            row = session.get(Incident, incident_id)
            assert row is not None
            row.state, row.closed_at = "resolved", at(self.now)
            notify.incident_changed(
                session, row, "resolved", at(self.now), settings=self.courier.settings
            )
        self.compose()

    def compose(self) -> None:
        compose(self.store, self.queue, self.courier.settings, now=at(self.now))
        # Jobs are due by the real clock; here there is another one.
        with self.store.session() as session:
            for job in jobs.find(session, kind="notify", state="queued", limit=None):
                if job.attempts == 0:
                    job.due_at = min(job.due_at, at(self.now))

    def work(self, wait_s: float = 0.0) -> int:
        """Let time pass, then do every job that is due, once; return how many."""
        self.now += wait_s
        with self.store.reading() as session:
            ids = [job.id for job in jobs.find(session, kind="notify", limit=None)]
        return sum(deliver(self.courier, job_id, now=at(self.now)) for job_id in ids)

    def work_next(self) -> int:
        """Let time pass until a job is due, then do every one that is."""
        with self.store.reading() as session:
            waiting = jobs.find(session, kind="notify", state="queued", limit=None)
        seconds = [(job.due_at - START).total_seconds() for job in waiting]
        self.now = max(self.now, min(seconds, default=self.now))
        return self.work()

    def rows(self) -> list[Notification]:
        with self.store.reading() as session:
            return notifications.find(session, limit=None)

    def states(self) -> list[str]:
        return [row.state for row in self.rows()]

    def breaker(self) -> tuple[int, bool]:
        """Failures in a row, and whether the channel is left alone."""
        with self.store.reading() as session:
            row = channels.by_name(session, "ops")
        return row.failures, delivery.is_open(row, at(self.now))


@pytest.fixture
def post(store: Store, tmp_path: Path) -> Post:
    settings = Settings(
        home=tmp_path / "home",
        lease_s=60.0,
        notify_timeout_s=5.0,
        public_url="https://sound.example.org",
    )
    files = AudioFiles(settings.resolved_objects_url)
    return Post(store, Courier(settings, store, files, "worker 1"))


def test_a_notification_arrives_once_with_everything_in_it(post: Post, webhook_server: Any) -> None:
    post.channel(webhook_server.url)
    number = post.incident()
    assert post.work() == 1
    assert (post.work(100), post.states()) == (0, ["sent"])
    (request,) = webhook_server.received
    assert request.document["incidents"][0]["link"] == (
        f"https://sound.example.org/incidents/{number}"
    )
    assert request.document["key"] == webhook_server.keys[0] == post.rows()[0].key


def test_what_fails_in_passing_is_tried_again_with_the_same_key(
    post: Post, webhook_server: Any
) -> None:
    post.channel(webhook_server.url)
    webhook_server.answers += [500, 503, None]
    post.incident()
    tried_at = []
    while post.states() == ["queued"]:
        post.work_next()
        tried_at.append(post.now)
        webhook_server.over.set()
    assert len(webhook_server.received) == 4
    assert len(set(webhook_server.keys)) == 1
    # Pauses double, with up to half of each taken off.
    pauses = np.diff(tried_at)
    assert list(pauses >= [2.5, 5, 10]) == [True] * 3
    assert list(pauses <= [5, 10, 20]) == [True] * 3
    (row,) = post.rows()
    assert (row.state, row.attempts, row.error_code) == ("sent", 4, None)


def test_what_is_refused_is_parked_at_once_and_can_be_retried(
    post: Post, webhook_server: Any
) -> None:
    post.channel(webhook_server.url)
    webhook_server.answers.append(404)
    post.incident()
    post.work()
    (row,) = post.rows()
    assert (row.state, row.error_code) == ("failed", "channel-refused")
    assert "404" in str(row.error_detail)
    assert post.work(10_000) == 0
    with post.store.session() as session:
        delivery.retry(session, post.queue, row.id, at(post.now))
    with post.store.session() as session, pytest.raises(NotificationStateError):
        delivery.retry(session, post.queue, row.id, at(post.now))
    post.compose()
    post.work()
    assert post.states() == ["sent"]
    assert len(set(webhook_server.keys)) == 1


def test_a_dead_letter_is_sent_by_retrying_its_job_too(post: Post, webhook_server: Any) -> None:
    post.channel(webhook_server.url)
    webhook_server.answers.append(404)
    post.incident()
    post.work()
    with post.store.session() as session:
        (job,) = jobs.find(session, state="failed", kind="notify")
        post.queue.retry(session, job.id)
    post.compose()
    post.work()
    assert post.states() == ["sent"]


def test_retry_after_is_kept_for_the_whole_channel(post: Post, webhook_server: Any) -> None:
    post.channel(webhook_server.url)
    webhook_server.answers.append((429, {"Retry-After": "120"}))
    post.incident("a")
    post.work()
    post.incident("b")
    for _ in range(11):
        post.work(10)
        assert len(webhook_server.received) == 1
    post.work(10)
    post.work(1)
    assert post.states() == ["sent", "sent"]
    assert post.rows()[1].attempts == 1


def test_the_breaker_opens_waits_longer_each_time_and_loses_nothing(
    post: Post, webhook_server: Any
) -> None:
    post.channel(webhook_server.url)
    webhook_server.answers += [503] * 8
    for number in range(4):
        post.incident(f"g{number}")
    tried_at: list[float] = []
    while "queued" in post.states():
        before = len(webhook_server.received)
        post.work_next()
        tried_at += [post.now] * (len(webhook_server.received) - before)
    # Five failures open it; then one tries at a time, after pauses of 30, 60 and 120 s and more.
    assert len(webhook_server.received) >= 9
    assert list(np.round(np.diff(tried_at[4:9]))) == [30, 60, 120, 240]
    assert post.states() == ["sent"] * 4
    assert len(set(webhook_server.keys)) == 4
    assert post.breaker() == (0, False)


def test_the_state_of_the_breaker_is_seen(post: Post, webhook_server: Any) -> None:
    post.channel(webhook_server.url)
    webhook_server.answers += [500] * 5
    for number in range(5):
        post.incident(f"g{number}")
    post.work()
    assert post.breaker() == (5, True)
    with post.store.reading() as session:
        row = channels.by_name(session, "ops")
    assert row.error_code == "channel-unreachable"
    assert row.failed_at == at(0)


def test_a_channel_that_refuses_is_not_left_alone(post: Post, webhook_server: Any) -> None:
    post.channel(webhook_server.url)
    webhook_server.answers += [401] * 7
    for number in range(7):
        post.incident(f"g{number}")
    post.work()
    assert post.states() == ["failed"] * 7
    assert post.breaker() == (0, False)


def test_one_group_is_told_in_order(post: Post, webhook_server: Any) -> None:
    post.channel(webhook_server.url)
    webhook_server.answers.append(500)
    number = post.incident()
    post.work()
    post.resolve(number)
    assert post.work() == 1
    assert len(webhook_server.received) == 1
    while "queued" in post.states():
        post.work_next()
    assert [request.document["kind"] for request in webhook_server.received] == [
        "opened",
        "opened",
        "resolved",
    ]


def test_after_the_last_attempt_it_is_a_dead_letter(post: Post, webhook_server: Any) -> None:
    post.channel(webhook_server.url)
    webhook_server.answers += [500] * 100
    post.incident()
    while post.states() == ["queued"]:
        post.work_next()
    (row,) = post.rows()
    assert (row.state, row.attempts) == ("failed", 20)
    with post.store.reading() as session:
        (job,) = jobs.find(session, kind="notify")
    assert (job.state, job.attempts) == ("failed", 20)


def test_a_worker_lost_at_the_last_attempt_leaves_a_dead_letter_too(
    post: Post, webhook_server: Any
) -> None:
    post.channel(webhook_server.url)
    post.incident()
    with post.store.session() as session:
        (job,) = jobs.find(session, kind="notify")
        job.max_attempts = 1
        session.flush()
        assert jobs.lease(session, job.id, "lost", 60.0, now=at(0)) is not None
    reconcile(post.store, post.queue, post.courier.settings, now=at(61))
    post.now = 61
    post.compose()
    (row,) = post.rows()
    assert (row.state, row.error_code) == ("failed", "worker-lost")


def test_a_removed_channel_leaves_what_was_sent_and_cancels_the_rest(
    post: Post, webhook_server: Any
) -> None:
    post.channel(webhook_server.url)
    post.incident("a")
    post.work()
    post.incident("b")
    with post.store.session() as session:
        row = channels.by_name(session, "ops")
        notifications.cancel_queued(session, row.id)
        session.delete(row)
    post.work()
    assert post.states() == ["sent", "cancelled"]
    assert {row.channel_name for row in post.rows()} == {"ops"}
    with post.store.session() as session, pytest.raises(NotificationStateError):
        delivery.retry(session, post.queue, post.rows()[1].id, at(post.now))


def test_no_secret_reaches_the_database_but_in_its_own_column(
    post: Post, webhook_server: Any
) -> None:
    address = webhook_server.url.replace("//", "//ada:hunter22@") + "/T0KEN111?sig=T0KEN222"
    post.channel(address)
    webhook_server.answers += [500, 404]
    post.incident()
    post.work()
    post.work(60)
    with post.store.reading() as session:
        rows = [channels.by_name(session, "ops"), *notifications.find(session)]
        rows += jobs.find(session, kind="notify")
    texts = [
        str(value)
        for row in rows
        for name, value in vars(row).items()
        if name not in ("url", "secret")
    ]
    found = [text for text in texts if "hunter22" in text or "T0KEN" in text]
    assert found == []
    assert any("404" in text for text in texts)


# --- the other channels -----------------------------------------------------------------------


def add_clip(post: Post, incident_id: int, folder: Path) -> None:
    wave = 0.2 * np.sin(2 * np.pi * 440 * np.arange(16_000 * 20) / 16_000)
    path = folder / "pump.wav"
    soundfile.write(path, wave, 16_000)
    stat = path.stat()
    with post.store.session() as session:
        new = NewRecording(
            source_id=sources.by_name(session, "pump 3").id,
            sha256="0" * 64,
            path=str(path),
            size_bytes=stat.st_size,
            modified_ns=stat.st_mtime_ns,
        )
        recording, _ = recordings.add(session, new)
        window = Window(recording_id=recording.id, start_s=5.0, end_s=15.0, acoustics={})
        session.add(window)
        session.flush()
        session.add(Finding(incident_id=incident_id, window_id=window.id, p_value=0.001))


@pytest.mark.parametrize("is_there", [True, False])
def test_a_mail_comes_with_the_clip_where_there_is_one(
    post: Post, mail_server: Any, tmp_path: Path, is_there: bool
) -> None:
    post.channel(mail_server.url(), kind="apprise", group_wait_s=10.0)
    number = post.incident()
    add_clip(post, number, tmp_path)
    if not is_there:
        (tmp_path / "pump.wav").unlink()
    post.now = 10
    post.compose()
    post.work()
    assert post.states() == ["sent"]
    (mail,) = mail_server.mails
    assert mail["Subject"] == "[Soundpost] New warning: pump 3: sounds new"
    body = mail.get_body(("plain",))
    assert "clip?start_s=5.0&end_s=15.0&format=opus" in body.get_content()
    clips = list(mail.iter_attachments())
    assert len(clips) == is_there
    if is_there:
        sound = tmp_path / "received.opus"
        sound.write_bytes(clips[0].get_content())
        assert soundfile.info(sound).duration == pytest.approx(10.0, abs=0.01)


def test_a_broker_killed_in_between_gets_everything_when_it_is_back(
    post: Post, broker: Any, subscribe: Any
) -> None:
    post.channel(broker.url, kind="mqtt")
    subscribe()
    post.incident("a")
    post.work()
    broker.kill()
    post.incident("b")
    post.work()
    post.incident("c")
    assert post.states() == ["sent", "queued", "queued"]
    broker.start()
    subscribe()
    while "queued" in post.states():
        post.work_next()
    assert post.states() == ["sent"] * 3
    topic = "plant/soundpost/notifications"
    last = time.monotonic() + 30
    while len({said["key"] for said in broker.payloads(topic)}) < 3:
        assert time.monotonic() < last, broker.payloads(topic)
        time.sleep(0.01)


# --- crashes ----------------------------------------------------------------------------------

DELIVER = """
import sys
from pathlib import Path
from soundpost.config import Settings
from soundpost.store.files import AudioFiles
from soundpost.store.session import open_store
from soundpost_workers.notify import Courier, deliver
settings = Settings(home=Path(sys.argv[2]), lease_s=60.0)
store = open_store(sys.argv[1])
files = AudioFiles(settings.resolved_objects_url)
deliver(Courier(settings, store, files, "victim"), int(sys.argv[3]))
"""


def test_a_worker_killed_while_it_delivers_delivers_again_with_the_same_key(
    post: Post, store_url: str, webhook_server: Any, tmp_path: Path
) -> None:
    post.channel(webhook_server.url)
    # It has the message, and its answer never comes.
    webhook_server.answers.append(None)
    post.incident()
    with post.store.reading() as session:
        (job,) = jobs.find(session, kind="notify")
    command = [sys.executable, "-c", DELIVER, store_url, str(tmp_path), str(job.id)]
    victim = subprocess.Popen(command)
    last = time.monotonic() + 60
    while not webhook_server.received:
        assert time.monotonic() < last, "nothing was delivered"
        assert victim.poll() is None, "the worker ended by itself"
        time.sleep(0.01)
    victim.send_signal(signal.SIGKILL)
    victim.wait(30)
    webhook_server.over.set()
    assert post.states() == ["queued"]
    later = datetime.now(UTC) + timedelta(seconds=61)
    assert reconcile(post.store, post.queue, post.courier.settings, now=later).lapsed == 1
    assert deliver(post.courier, job.id, now=later + timedelta(seconds=10))
    assert post.states() == ["sent"]
    assert len(webhook_server.received) == 2
    assert len(set(webhook_server.keys)) == 1


def test_many_workers_deliver_everything_once(post: Post, webhook_server: Any) -> None:
    post.channel(webhook_server.url)
    for number in range(12):
        post.incident(f"g{number}")
    threads = [threading.Thread(target=post.work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert post.states() == ["sent"] * 12
    assert len(webhook_server.keys) == len(set(webhook_server.keys)) == 12


def test_old_notifications_are_removed_and_dead_letters_stay(
    post: Post, webhook_server: Any
) -> None:
    post.channel(webhook_server.url)
    webhook_server.answers += [204, 404]
    post.incident("a")
    post.work()
    post.incident("b")
    post.work()
    assert post.states() == ["sent", "failed"]
    reconcile(post.store, post.queue, post.courier.settings, now=at(31 * 86_400))
    assert post.states() == ["failed"]
    with post.store.reading() as session:
        assert len(session.scalars(select(Channel)).all()) == 1

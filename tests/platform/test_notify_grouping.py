"""Who is told of what, and when, by explicit moments."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from soundpost.config import Settings
from soundpost.jobs import JobQueue, NoSender
from soundpost.monitoring import notify
from soundpost.monitoring.notification_document import NotificationDocument
from soundpost.store import jobs, notifications, sources
from soundpost.store.notification_tables import Channel, Notification, NotificationGroup
from soundpost.store.session import Store, open_store
from soundpost.store.tables import Source
from soundpost.store.watch_tables import Incident, SourceTag
from soundpost_migrations.upgrade import upgrade

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
SETTINGS = Settings(public_url="https://sound.example.org/")
ACTIVE = ("open", "acknowledged")


def free_name(session: Session, source: str) -> str:
    """A source of this name, or one like it: each has one open incident at a time."""
    count = session.scalar(select(func.count()).select_from(Incident)) or 0
    taken = select(Incident.id).join(Source, Source.id == Incident.source_id)
    found = session.scalar(taken.where(Source.name == source).limit(1))
    return source if found is None else f"{source} {count}"


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


@dataclass
class Scene:
    """A database with sources, and hands to open and close incidents with."""

    store: Store
    queue: JobQueue = field(default_factory=lambda: JobQueue(NoSender()))

    def channel(self, name: str = "ops", now: float = -1000.0, **values: Any) -> int:
        with self.store.session() as session:
            kept = {"kind": "webhook", "url": "https://hook.example.org/x", "settings": {}}
            channel = Channel(name=name, **{**kept, "enabled": True, **values})
            session.add(channel)
            notify.channel_changed(session, channel, at(now), settings=SETTINGS)
            return channel.id

    def incident(
        self,
        now: float,
        *,
        source: str = "pump 3",
        group: str = "pumps",
        severity: str = "warning",
        suppressed_by: dict[str, Any] | None = None,
        **values: Any,
    ) -> int:
        with self.store.session() as session:
            row = Incident(
                source_id=sources.ensure(session, free_name(session, source), "Europe/Berlin").id,
                state="open",
                severity=severity,
                group_key=group,
                reason="sounds new",
                evidence={"p_value": 0.0001, "method": "knn"},
                suppressed_by=suppressed_by,
                pending_since=at(now),
                last_fired_at=at(now),
                opened_at=at(now),
                **values,
            )
            session.add(row)
            session.flush()
            notify.incident_changed(session, row, "opened", at(now), settings=SETTINGS)
            return row.id

    def change(self, now: float, incident_id: int, change: notify.Change, **values: Any) -> None:
        states = {"acknowledged": "acknowledged", "resolved": "resolved", "dismissed": "dismissed"}
        with self.store.session() as session:
            row = session.get(Incident, incident_id)
            assert row is not None
            row.state = states.get(change, row.state)
            if change in ("resolved", "dismissed"):
                row.closed_at = at(now)
            for name, value in values.items():
                setattr(row, name, value)
            notify.incident_changed(session, row, change, at(now), settings=SETTINGS)

    def tick(self, now: float) -> list[NotificationDocument]:
        """Tick, and return what was composed, as if it were delivered at once."""
        with self.store.session() as session:
            notify.tick(session, self.queue, at(now), settings=SETTINGS)
            rows = notifications.find(session, state="queued", limit=None)
            for row in rows:
                row.state, row.sent_at = "sent", at(now)
            return [NotificationDocument.model_validate(row.payload) for row in rows]

    def ticks(self, first: int, last: int) -> list[tuple[int, str, list[int]]]:
        """Tick from `first` on until before `last`; return when what was said of which incidents.

        Looked at are the moments that the groups give themselves, the seconds before, and the ends.
        """
        said, second = [], first
        while second < last:
            for document in self.tick(second):
                said.append((second, document.kind, [one.id for one in document.incidents]))
            second = min(self.next_moment(second), max(second + 1, last - 1))
        return said

    def next_moment(self, second: int) -> int:
        with self.store.reading() as session:
            due = session.scalars(select(NotificationGroup.due_at)).all()
        moments = [round((moment - START).total_seconds()) for moment in due if moment is not None]
        later = [one for moment in moments for one in (moment - 1, moment) if one > second]
        return min(later, default=10**9)


@pytest.fixture
def scene(store: Store) -> Scene:
    return Scene(store)


def test_what_opens_together_is_told_together_after_the_group_wait(scene: Scene) -> None:
    scene.channel()
    first = scene.incident(0)
    assert scene.ticks(0, 10) == []
    second = scene.incident(10, source="pump 4")
    other = scene.incident(12, source="gate", group="gates")
    assert scene.ticks(10, 300) == [
        (30, "opened", [first, second]),
        (42, "opened", [other]),
    ]


def test_changes_wait_for_the_group_interval(scene: Scene) -> None:
    scene.channel()
    first = scene.incident(0)
    assert scene.ticks(0, 31) == [(30, "opened", [first])]
    scene.change(40, first, "escalated", severity="critical")
    second = scene.incident(100, source="pump 4")
    assert scene.ticks(31, 600) == [(330, "opened", [first, second])]
    scene.change(600, first, "raised")
    # The interval is over, but what comes with it is still waited for.
    assert scene.ticks(600, 900) == [(630, "changed", [first, second])]
    scene.change(1000, first, "resolved")
    assert scene.ticks(1000, 1500) == [(1030, "changed", [first, second])]
    scene.change(1500, second, "resolved")
    assert scene.ticks(1500, 40_000) == [(1530, "resolved", [second])]


def test_what_goes_on_is_repeated_until_it_is_acknowledged(scene: Scene) -> None:
    scene.channel()
    first = scene.incident(0)
    hour = 3600
    assert scene.ticks(0, 9 * hour) == [
        (30, "opened", [first]),
        (4 * hour + 30, "repeat", [first]),
        (8 * hour + 30, "repeat", [first]),
    ]
    scene.change(9 * hour, first, "acknowledged")
    assert scene.ticks(9 * hour, 40 * hour) == []
    scene.change(40 * hour, first, "resolved")
    assert scene.ticks(40 * hour, 41 * hour) == [(40 * hour + 30, "resolved", [first])]


def test_what_is_over_within_the_group_wait_is_told_once_as_both(scene: Scene) -> None:
    scene.channel()
    first = scene.incident(0)
    scene.change(10, first, "resolved")
    (document,) = scene.tick(30)
    assert document.kind == "resolved"
    assert document.incidents[0].changes == ["opened", "resolved"]
    assert scene.ticks(31, 20_000) == []


def test_what_was_dismissed_before_it_was_told_is_not_told(scene: Scene) -> None:
    scene.channel()
    scene.change(10, scene.incident(0), "dismissed")
    assert scene.ticks(0, 20_000) == []
    told = scene.incident(20_000)
    assert scene.ticks(20_000, 20_100) == [(20_030, "opened", [told])]
    scene.change(20_200, told, "dismissed")
    assert scene.ticks(20_200, 21_000) == [(20_330, "resolved", [told])]


def test_what_is_suppressed_tells_nobody_until_it_is_not(scene: Scene) -> None:
    scene.channel()
    silent = {"kind": "silence", "id": 1}
    first = scene.incident(0, suppressed_by=silent)
    assert scene.ticks(0, 1000) == []
    scene.change(1000, first, "told", suppressed_by=None)
    (document,) = scene.tick(1030)
    assert document.incidents[0].changes == ["opened", "unsilenced"]
    # Silenced while it is known: no repeats, and it ends in silence.
    with scene.store.session() as session:
        row = session.get(Incident, first)
        assert row is not None
        row.suppressed_by = silent
    assert scene.ticks(1031, 40_000) == []
    scene.change(40_000, first, "resolved")
    assert scene.ticks(40_000, 60_000) == []


def test_what_is_suppressed_within_the_group_wait_is_not_told(scene: Scene) -> None:
    scene.channel()
    first = scene.incident(0)
    with scene.store.session() as session:
        row = session.get(Incident, first)
        assert row is not None
        row.suppressed_by = {"kind": "silence", "id": 1}
    assert scene.ticks(0, 100) == []
    scene.change(100, first, "told", suppressed_by=None)
    assert scene.ticks(100, 200) == [(130, "opened", [first])]


def test_a_channel_hears_of_its_own_scope_and_severity_only(scene: Scene) -> None:
    with scene.store.session() as session:
        pump = sources.ensure(session, "pump 3").id
        gate = sources.ensure(session, "gate").id
        session.add(SourceTag(source_id=gate, tag="doors"))
    scene.channel("one", source_id=pump)
    scene.channel("tagged", tag="doors")
    scene.channel("grave", min_severity="critical")
    scene.channel("off", enabled=False)
    scene.incident(0, group="a")
    raised = scene.incident(0, source="gate", group="b")
    scene.tick(30)
    assert told_by_channel(scene) == {"one": ["a"], "tagged": ["b"]}
    scene.change(40, raised, "raised", severity="critical")
    scene.tick(70)
    assert told_by_channel(scene)["grave"] == ["b"]


def told_by_channel(scene: Scene) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    with scene.store.reading() as session:
        for row in notifications.find(session, limit=None):
            found.setdefault(row.channel_name, []).append(row.group_key)
    return found


def test_a_new_channel_is_told_of_what_is_open_and_one_turned_on_again_too(scene: Scene) -> None:
    first = scene.incident(0)
    gone = scene.incident(0, group="gone")
    scene.change(50, gone, "resolved")
    channel_id = scene.channel(now=100)
    assert scene.ticks(100, 200) == [(130, "opened", [first])]
    turn(scene, channel_id, False, 200)
    second = scene.incident(250)
    assert scene.ticks(200, 30_000) == []
    turn(scene, channel_id, True, 30_000)
    assert scene.ticks(30_000, 31_000) == [(30_030, "opened", [first, second])]


def turn(scene: Scene, channel_id: int, on: bool, now: float) -> None:
    with scene.store.session() as session:
        channel = session.get(Channel, channel_id)
        assert channel is not None
        channel.enabled = on
        notify.channel_changed(session, channel, at(now), settings=SETTINGS)


def test_turning_a_channel_off_cancels_what_is_on_its_way(scene: Scene) -> None:
    channel_id = scene.channel()
    scene.incident(0)
    with scene.store.session() as session:
        notify.tick(session, scene.queue, at(30), settings=SETTINGS)
    turn(scene, channel_id, False, 31)
    with scene.store.reading() as session:
        assert [row.state for row in notifications.find(session)] == ["cancelled"]


def test_a_channel_away_is_not_told_the_same_over_and_over(scene: Scene) -> None:
    scene.channel()
    scene.incident(0)
    for second in range(30, 200_000, 7200):
        with scene.store.session() as session:
            notify.tick(session, scene.queue, at(second), settings=SETTINGS)
    with scene.store.reading() as session:
        assert [row.kind for row in notifications.find(session)] == ["opened"]


def test_channels_have_times_of_their_own(scene: Scene) -> None:
    scene.channel("slow")
    scene.channel("quick", group_wait_s=0.0, group_interval_s=5.0, repeat_s=20.0)
    scene.incident(0)
    scene.ticks(0, 29)
    assert told_by_channel(scene) == {"quick": ["pumps", "pumps"]}
    scene.ticks(29, 50)
    assert told_by_channel(scene) == {"quick": ["pumps"] * 3, "slow": ["pumps"]}


def test_every_notification_has_one_job_and_a_key_of_its_own(scene: Scene) -> None:
    scene.channel()
    scene.channel("second")
    for number in range(3):
        scene.incident(number * 1000, group=f"g{number % 2}")
        scene.tick(number * 1000 + 30)
    with scene.store.reading() as session:
        rows = notifications.find(session)
        keys = [job.key for job in jobs.find(session, kind="notify")]
    assert len({row.key for row in rows}) == len(rows) == 6
    assert sorted(keys) == sorted(f"notify:{row.id}" for row in rows)


def test_a_notification_whose_job_is_gone_gets_another(scene: Scene) -> None:
    scene.channel()
    scene.incident(0)
    with scene.store.session() as session:
        notify.tick(session, scene.queue, at(30), settings=SETTINGS)
        (job,) = jobs.find(session, kind="notify")
        session.delete(job)
    with scene.store.session() as session:
        notify.tick(session, scene.queue, at(40), settings=SETTINGS)
        (again,) = jobs.find(session, kind="notify")
        assert again.state == "queued"
        jobs.cancel(session, again.id)
    with scene.store.session() as session:
        notify.tick(session, scene.queue, at(50), settings=SETTINGS)
        assert [row.state for row in notifications.find(session)] == ["cancelled"]


def test_two_processes_that_tick_at_once_compose_everything_once(store_url: str) -> None:
    first, second = open_store(store_url), open_store(store_url)
    scene = Scene(first)
    scene.channel()
    for number in range(20):
        scene.incident(0, group=f"g{number}")

    def tick_often(store: Store) -> None:
        for _ in range(5):
            with store.session() as session:
                notify.tick(session, JobQueue(NoSender()), at(30), settings=SETTINGS)

    threads = [threading.Thread(target=tick_often, args=(one,)) for one in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with first.reading() as session:
        groups = sorted(session.scalars(select(Notification.group_key)))
    assert groups == sorted(f"g{number}" for number in range(20))
    first.close()
    second.close()


# --- any order of things ----------------------------------------------------------------------

ACTIONS = ("open", "escalated", "acknowledged", "resolved", "dismissed", "silence", "told", "tick")
STEPS = st.lists(
    st.tuples(
        st.sampled_from(ACTIONS),
        st.integers(0, 3),
        st.sampled_from([0, 1, 7, 29, 30, 31, 120, 299, 300, 301, 5000, 15_000]),
    ),
    max_size=40,
)


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("property") / "empty.db"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def fresh_scene(empty_database: Path, tmp_path: Path) -> Iterator[Any]:
    """Makes a scene of its own for every example."""
    opened: list[Store] = []

    def make() -> Scene:
        path = tmp_path / f"{len(opened)}.db"
        path.write_bytes(empty_database.read_bytes())
        opened.append(open_store(f"sqlite:///{path}"))
        return Scene(opened[-1])

    yield make
    for store in opened:
        store.close()


@hypothesis_settings(
    max_examples=150,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=STEPS)
def test_any_order_of_changes_tells_what_is_open_and_never_too_often(
    fresh_scene: Any, steps: list[tuple[str, int, int]]
) -> None:
    scene: Scene = fresh_scene()
    scene.channel()
    ids: dict[int, int] = {}
    now, told_at = 0, {"g0": [], "g1": []}  # type: dict[str, list[int]]
    told: list[NotificationDocument] = []

    def look(moment: int) -> None:
        for document in scene.tick(moment):
            told_at[document.group].append(moment)
            told.append(document)

    for action, slot, pause in steps:
        now += pause
        look(now)
        row = state_of(scene, ids.get(slot))
        if action == "open" and (row is None or row.state not in ACTIVE):
            ids[slot] = scene.incident(now, source=f"s{slot}", group=f"g{slot % 2}")
        elif row is None or row.state not in ACTIVE:
            continue
        elif action == "silence":
            silence(scene, row.id)
        elif action == "told" and row.suppressed_by is not None:
            scene.change(now, row.id, "told", suppressed_by=None)
        elif action in ("escalated", "acknowledged", "resolved", "dismissed"):
            scene.change(now, row.id, action)  # type: ignore[arg-type]  # one of the four
    for second in (now, now + 301, now + 602, now + 903):
        look(second)
    check(scene, told, told_at)


def check(scene: Scene, told: list[NotificationDocument], told_at: dict[str, list[int]]) -> None:
    with scene.store.reading() as session:
        rows = list(session.scalars(select(Incident)))
    changes = [(one.id, one.changes) for document in told for one in document.incidents]
    for row in rows:
        news = [words for incident_id, words in changes if incident_id == row.id]
        if row.state in ACTIVE and row.suppressed_by is None:
            assert any("opened" in words for words in news)
        assert sum("opened" in words for words in news) <= 1
        assert sum("resolved" in words or "dismissed" in words for words in news) <= 1
        if row.state == "resolved" and any("opened" in words for words in news):
            over = any("resolved" in words for words in news)
            assert over == (row.suppressed_by is None)
    for moments in told_at.values():
        assert all(after - before >= 300 for before, after in pairwise(moments))


def state_of(scene: Scene, incident_id: int | None) -> Incident | None:
    if incident_id is None:
        return None
    with scene.store.reading() as session:
        return session.get(Incident, incident_id)


def silence(scene: Scene, incident_id: int) -> None:
    with scene.store.session() as session:
        row = session.get(Incident, incident_id)
        assert row is not None
        row.suppressed_by = {"kind": "silence", "id": 1}

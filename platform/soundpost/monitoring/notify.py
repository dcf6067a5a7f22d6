"""Who is told of what, and when: grouping as Prometheus' Alertmanager does it.

Of the first incident of a group a channel is told after the group wait, so that what opens together
is told together; of what changes later not before the group interval is over; and of what goes on
without anybody acknowledging it again after the repeat time. Acknowledging tells nobody and ends
the repeats. What opens and is over again within the group wait is told once, as both; what was
dismissed before it was told is not told at all. An incident that is over while it is suppressed is
over in silence. Everything is in the database: a restart at any moment loses and doubles nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import Select, String, cast, literal, select
from sqlalchemy.orm import Session

from soundpost.config import Settings, load_settings
from soundpost.jobs import NOTIFY, JobQueue, notify_key
from soundpost.monitoring.messages import Envelope, write_document
from soundpost.monitoring.notification_document import SEVERITIES, Kind
from soundpost.store import channels, jobs, notifications
from soundpost.store.notification_tables import Channel, Notification, NotificationGroup
from soundpost.store.tables import Job
from soundpost.store.watch_tables import Incident

Change = Literal[
    "opened", "joined", "raised", "escalated", "acknowledged", "resolved", "dismissed", "told"
]
_CLOSING = ("resolved", "dismissed")
_ACTIVE = ("open", "acknowledged")
# How a change is called to those who are told of it.
_WORDS = {"told": "unsilenced"}
# Groups composed in one transaction: on SQLite nobody else writes meanwhile.
_MOST_GROUPS = 100


@dataclass(frozen=True)
class Timing:
    """When a channel is told: its own times, or those of the installation."""

    wait_s: float
    interval_s: float
    repeat_s: float

    @classmethod
    def of(cls, channel: Channel, settings: Settings) -> Timing:
        """Return the times of a channel."""
        own = (channel.group_wait_s, channel.group_interval_s, channel.repeat_s)
        shared = (
            settings.notify_group_wait_s,
            settings.notify_group_interval_s,
            settings.notify_repeat_s,
        )
        return cls(*(a if a is not None else b for a, b in zip(own, shared, strict=True)))

    def due_at(
        self, pending_at: datetime | None, sent_at: datetime | None, repeats: bool
    ) -> datetime | None:
        """Return when a group is told next; never within the interval after it was told."""
        moments = []
        if pending_at is not None:
            moments.append(pending_at + timedelta(seconds=self.wait_s))
        if repeats and sent_at is not None:
            moments.append(sent_at + timedelta(seconds=self.repeat_s))
        if not moments or sent_at is None:
            return min(moments, default=None)
        return max(min(moments), sent_at + timedelta(seconds=self.interval_s))


def incident_changed(
    session: Session,
    incident: Incident,
    change: Change,
    now: datetime,
    *,
    settings: Settings | None = None,
) -> None:
    """Note that an incident changed, for every channel that is to be told of it.

    Nothing is sent here: `tick` composes what is due. An incident that is suppressed tells nobody.
    """
    if incident.suppressed_by is not None or change == "acknowledged":
        return
    session.flush()
    tags = channels.tags_of(session, incident.source_id)
    for channel in channels.enabled(session):
        if change in _CLOSING:
            _note_closing(session, channel, incident, change, now, settings)
        elif concerns(channel, incident, tags):
            group = notifications.hold_group(session, channel.id, incident.group_key)
            _note(group, Timing.of(channel, settings or load_settings()), incident, change, now)
    session.flush()


def tick(
    session: Session, queue: JobQueue, now: datetime, *, settings: Settings | None = None
) -> int:
    """Compose the notifications that are due and queue their delivery; return how many."""
    chosen = settings or load_settings()
    settle_abandoned(session, queue)
    composed = 0
    for group in notifications.hold_due_groups(session, now, _MOST_GROUPS):
        composed += _compose(session, queue, group, now, chosen)
    session.flush()
    return composed


def channel_changed(
    session: Session, channel: Channel, now: datetime, *, settings: Settings | None = None
) -> None:
    """Bring a channel in step after it was added, changed, turned on or turned off.

    One that is on is told of every open incident that it does not know; one that is off forgets
    what it was told, and what it was still to be told is cancelled.
    """
    session.flush()
    groups = notifications.groups_of(session, channel.id)
    if not channel.enabled:
        notifications.cancel_queued(session, channel.id)
        for group in groups:
            group.pending, group.told = {}, {}
            group.pending_at = group.due_at = None
        session.flush()
        return
    timing = Timing.of(channel, settings or load_settings())
    for group in groups:
        group.due_at = timing.due_at(group.pending_at, group.sent_at, bool(group.told))
    for incident in session.scalars(_open_incidents()):
        if incident.suppressed_by is None and concerns(
            channel, incident, channels.tags_of(session, incident.source_id)
        ):
            group = notifications.hold_group(session, channel.id, incident.group_key)
            if str(incident.id) not in {**group.told, **group.pending}:
                _note(group, timing, incident, "opened", now)
            session.flush()


def concerns(channel: Channel, incident: Incident, tags: Iterable[str]) -> bool:
    """Say whether a channel is told of an incident whose source has these tags."""
    if SEVERITIES.index(incident.severity) < SEVERITIES.index(channel.min_severity):
        return False
    if channel.source_id is not None:
        return channel.source_id == incident.source_id
    return channel.tag is None or channel.tag in tags


def settle_abandoned(session: Session, queue: JobQueue) -> None:
    """Bring notifications in step whose job ended without them: parked, cancelled or lost."""
    for notification in list(session.scalars(_without_job())):
        job = jobs.latest(session, notify_key(notification.id))
        if job is None or job.state == "done":
            queue.notify(session, notification.id)
            continue
        notification.state = "cancelled" if job.state == "cancelled" else "failed"
        notification.error_code = job.error_code
        notification.error_detail = notification.error_detail or _last_line(job.error_detail)
    session.flush()


# --- noting -----------------------------------------------------------------------------------


def _note(
    group: NotificationGroup, timing: Timing, incident: Incident, change: str, now: datetime
) -> None:
    key = str(incident.id)
    changes = list(group.pending.get(key, ()))
    word = _WORDS.get(change, change)
    if word not in changes:
        changes.append(word)
    # Made anew: a change within a document is not noticed.
    group.pending = {**group.pending, key: changes}
    group.pending_at = group.pending_at or now
    due_at = timing.due_at(group.pending_at, group.sent_at, repeats=False)
    # A repeat may be due before; the news then goes with it.
    group.due_at = min(filter(None, (group.due_at, due_at)), default=None)


def _note_closing(
    session: Session,
    channel: Channel,
    incident: Incident,
    change: str,
    now: datetime,
    settings: Settings | None,
) -> None:
    """Note that an incident is over, for a channel that knows of it or is about to."""
    group = notifications.find_group(session, channel.id, incident.group_key)
    if group is not None and str(incident.id) in {**group.told, **group.pending}:
        _note(group, Timing.of(channel, settings or load_settings()), incident, change, now)


# --- composing --------------------------------------------------------------------------------


def _compose(
    session: Session,
    queue: JobQueue,
    group: NotificationGroup,
    now: datetime,
    settings: Settings,
) -> bool:
    """Tell a group that is due, if there is anything to tell; say whether there was."""
    timing = Timing.of(group.channel, settings)
    incidents = _load(session, {*group.told, *group.pending})
    news = _news(group, incidents)
    known = [
        incident
        for incident in incidents
        if incident.state in _ACTIVE and (str(incident.id) in group.told or incident.id in news)
    ]
    shown = [incident for incident in known if incident.suppressed_by is None]
    repeats = any(incident.state == "open" for incident in shown)
    kind = _kind(group, news, shown)
    blocked = False
    if kind is None and repeats and _is_repeat_due(group, timing, now):
        # A channel that is away for days is not told the same over and over when it comes back.
        blocked = notifications.is_queued(session, group.channel_id, group.group_key)
        kind = None if blocked else "repeat"
    group.told = {str(incident.id): incident.severity for incident in known}
    group.pending, group.pending_at = {}, None
    if kind is not None:
        changed = [incident for incident in incidents if incident.id in news]
        going_on = [incident for incident in shown if incident.id not in news]
        _add(session, queue, group, kind, [*changed, *going_on], news, now, settings)
    group.due_at = timing.due_at(None, group.sent_at, repeats)
    if blocked:
        group.due_at = now + timedelta(seconds=max(timing.interval_s, timing.wait_s, 1.0))
    return kind is not None


def _news(group: NotificationGroup, incidents: Sequence[Incident]) -> dict[int, list[str]]:
    """Return what there is to tell of each incident that changed, in the words of documents."""
    news: dict[int, list[str]] = {}
    for incident in incidents:
        key = str(incident.id)
        if key not in group.pending or incident.suppressed_by is not None:
            continue
        if incident.state == "pending" or (incident.state == "dismissed" and key not in group.told):
            continue
        changes = [word for word in group.pending[key] if word not in ("opened", *_CLOSING)]
        first = ["opened"] if key not in group.told else []
        # Its row says whether it is over: a change noted meanwhile may be out of date.
        last = [incident.state] if incident.state in _CLOSING else []
        news[incident.id] = first + changes + last
    return {incident_id: changes for incident_id, changes in news.items() if changes}


def _kind(
    group: NotificationGroup, news: Mapping[int, Sequence[str]], shown: Sequence[Incident]
) -> Kind | None:
    if not news:
        return None
    if not shown:
        return "resolved"
    is_new = any(str(incident_id) not in group.told for incident_id in news)
    return "opened" if is_new else "changed"


def _is_repeat_due(group: NotificationGroup, timing: Timing, now: datetime) -> bool:
    due_at = timing.due_at(None, group.sent_at, repeats=True)
    return due_at is not None and due_at <= now


def _add(
    session: Session,
    queue: JobQueue,
    group: NotificationGroup,
    kind: Kind,
    incidents: Sequence[Incident],
    news: Mapping[int, Sequence[str]],
    now: datetime,
    settings: Settings,
) -> None:
    """Put a notification into the outbox, with the job that delivers it."""
    group.sequence += 1
    group.sent_at = now
    key = f"{group.token}-{group.sequence}"
    envelope = Envelope(key, kind, group.group_key, group.sequence, now)
    public_url = settings.public_url.rstrip("/")
    document = write_document(session, envelope, group.channel, incidents, news, public_url)
    notification = Notification(
        key=key,
        channel_id=group.channel_id,
        channel_name=group.channel.name,
        group_key=group.group_key,
        kind=kind,
        incident_ids=[incident.id for incident in incidents],
        payload=document.model_dump(mode="json"),
        state="queued",
        attempts=0,
        due_at=now,
        created_at=now,
    )
    session.add(notification)
    session.flush()
    queue.notify(session, notification.id)


def _load(session: Session, ids: Iterable[str]) -> list[Incident]:
    """Return incidents as they are now, by id; those that were deleted are left out."""
    statement = select(Incident).where(Incident.id.in_([int(key) for key in ids]))
    return list(session.scalars(statement.order_by(Incident.id)))


def _open_incidents() -> Select[Incident]:
    return select(Incident).where(Incident.state == "open").order_by(Incident.id)


def _without_job() -> Select[Notification]:
    key = literal(f"{NOTIFY}:") + cast(Notification.id, String)
    unfinished = select(Job.id).where(Job.key == key, Job.state.in_(jobs.UNFINISHED))
    return (
        select(Notification)
        .where(Notification.state == "queued", ~unfinished.exists())
        .order_by(Notification.id)
        .limit(_MOST_GROUPS)
        .with_for_update(skip_locked=True)
    )


def _last_line(text: str | None) -> str | None:
    return text.strip().splitlines()[-1] if text and text.strip() else None

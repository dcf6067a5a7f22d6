"""Delivering what was composed: in order, at least once, and not to a channel that is away.

A channel that could not be reached several times in a row is left alone for a time that grows: its
circuit breaker is open. What is to be sent waits meanwhile. Then one notification tries it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from soundpost.errors import (
    ChannelRefusedError,
    ChannelUnreachableError,
    NotificationStateError,
    NotifyError,
)
from soundpost.jobs import JobQueue, notify_key
from soundpost.monitoring.channels.kinds import open_target
from soundpost.monitoring.channels.target import Address, shown_service
from soundpost.monitoring.notification_document import NotificationDocument
from soundpost.store import channels, jobs, notifications
from soundpost.store.notification_tables import Channel, Notification
from soundpost.store.tables import Job

OPEN_AFTER = 5
FIRST_OPEN_S = 30.0
LONGEST_OPEN_S = 900.0
# What waits for an older one of its group is told as soon as that is settled; this is for the rest.
_ORDER_WAIT_S = 30.0
# Beyond the time for one delivery: until then the one that tries an open channel is alone.
_TRIAL_MARGIN_S = 10.0


@dataclass(frozen=True)
class Delivery:
    """A notification that is to be sent now."""

    notification_id: int
    channel_id: int
    channel_name: str
    address: Address = field(repr=False)
    document: NotificationDocument = field(repr=False)
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Wait:
    """A notification that is not to be sent before a moment."""

    until: datetime


def begin(
    session: Session, notification_id: int, now: datetime, timeout_s: float
) -> Delivery | Wait | None:
    """Begin an attempt to deliver; None if there is nothing to be delivered any more."""
    notification = notifications.get(session, notification_id, lock=True)
    if notification.state in ("sent", "cancelled"):
        return None
    channel = None
    if notification.channel_id is not None:
        channel = channels.find(session, notification.channel_id, lock=True)
    if channel is None or not channel.enabled:
        notification.state = "cancelled"
        return None
    if notifications.queued_before(session, notification):
        return Wait(now + timedelta(seconds=_ORDER_WAIT_S))
    if channel.open_until is not None and now < channel.open_until:
        notification.due_at = channel.open_until
        return Wait(channel.open_until)
    if channel.failures >= OPEN_AFTER:
        channel.open_until = now + timedelta(seconds=timeout_s + _TRIAL_MARGIN_S)
    notification.state, notification.due_at = "queued", now
    notification.attempts += 1
    document = NotificationDocument.model_validate(notification.payload)
    return Delivery(
        notification.id, channel.id, channel.name, address_of(channel), document, channel.settings
    )


def note_sent(session: Session, delivery: Delivery, now: datetime) -> None:
    """Note that a notification has arrived; what waits for its channel goes on at once."""
    notification = notifications.get(session, delivery.notification_id, lock=True)
    notification.state, notification.sent_at = "sent", now
    notification.error_code = notification.error_detail = None
    channel = channels.find(session, delivery.channel_id, lock=True)
    if channel is not None:
        note_reached(session, channel, now)


def note_reached(session: Session, channel: Channel, now: datetime) -> None:
    """Note that a channel works."""
    _close_breaker(session, channel, now)
    channel.error_code = channel.error_detail = channel.failed_at = None
    channel.sent_at = now


def note_failed(
    session: Session, delivery: Delivery, error: NotifyError, now: datetime, *, parked: bool
) -> None:
    """Note that an attempt failed; `parked` makes the notification a dead letter."""
    notification = notifications.get(session, delivery.notification_id, lock=True)
    notification.error_code, notification.error_detail = error.code, str(error)
    notification.state = "failed" if parked else "queued"
    due_at = session.scalar(
        select(Job.due_at)
        .where(Job.key == notify_key(notification.id), Job.state == "queued")
        .limit(1)
    )
    notification.due_at = due_at or now
    channel = channels.find(session, delivery.channel_id, lock=True)
    if channel is None:
        return
    channel.error_code, channel.error_detail, channel.failed_at = error.code, str(error), now
    if isinstance(error, ChannelUnreachableError):
        _note_unreachable(channel, error, now)
    else:
        # It answers, and that is all that the breaker is about.
        _close_breaker(session, channel, now)


def open_s(failures: int) -> float:
    """Return how long a channel is left alone after so many failures in a row; 0 at first."""
    if failures < OPEN_AFTER:
        return 0.0
    return min(LONGEST_OPEN_S, FIRST_OPEN_S * 2.0 ** min(failures - OPEN_AFTER, 30))


def retry(session: Session, queue: JobQueue, notification_id: int, now: datetime) -> Notification:
    """Queue a dead letter again, with all its attempts and the same key.

    Raises UnknownNotificationError, and NotificationStateError if it is none or its channel is
    gone or off.
    """
    notification = notifications.get(session, notification_id, lock=True)
    if notification.state not in ("failed", "cancelled"):
        raise NotificationStateError(notification_id, notification.state)
    channel_id = notification.channel_id
    channel = channels.find(session, channel_id) if channel_id is not None else None
    if channel is None or not channel.enabled:
        detail = f"the channel {notification.channel_name} is gone or off"
        raise NotificationStateError(notification_id, detail)
    notification.state, notification.due_at = "queued", now
    session.flush()
    job = jobs.latest(session, notify_key(notification_id))
    if job is not None and job.state in ("failed", "cancelled"):
        queue.retry(session, job.id)
    else:
        queue.notify(session, notification_id)
    return notification


def is_open(channel: Channel, now: datetime) -> bool:
    """Say whether a channel is left alone at the moment."""
    return channel.open_until is not None and now < channel.open_until


def address_of(channel: Channel) -> Address:
    """Return where a channel leads, with its secrets."""
    return Address(channel.kind, channel.url, channel.secret, channel.settings)


def shown_address(channel: Channel) -> str:
    """Return where a channel leads, fit to be shown; Apprise is not loaded for it."""
    if channel.kind == "apprise":
        return shown_service(channel.url)
    try:
        return open_target(address_of(channel)).shown
    # What was accepted once may be unknown to a later library; its list must still be shown.
    except Exception:  # noqa: BLE001  # Nothing of it is needed, and it may quote the address.
        return f"{channel.kind}://***"


def _note_unreachable(channel: Channel, error: ChannelUnreachableError, now: datetime) -> None:
    channel.failures += 1
    pause_s = max(open_s(channel.failures), error.retry_after_s or 0.0)
    channel.open_until = now + timedelta(seconds=pause_s) if pause_s else None


def _close_breaker(session: Session, channel: Channel, now: datetime) -> None:
    channel.failures, channel.open_until = 0, None
    session.flush()
    waiting = notifications.queued_ids(session, channel.id)
    jobs.hasten(session, [notify_key(number) for number in waiting], now)


def is_final(error: NotifyError) -> bool:
    """Say whether another attempt would end the same."""
    return isinstance(error, ChannelRefusedError)

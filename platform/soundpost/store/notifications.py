"""Notifications: the outbox, and what each channel was told of each group."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from sqlalchemy import Select, delete, func, select, update
from sqlalchemy.orm import Session

from soundpost.errors import UnknownNotificationError
from soundpost.store.notification_tables import Channel, Notification, NotificationGroup
from soundpost.store.session import insert_new

State = Literal["queued", "sent", "failed", "cancelled"]


def get(session: Session, notification_id: int, *, lock: bool = False) -> Notification:
    """Return a notification. Raises UnknownNotificationError."""
    statement = select(Notification).where(Notification.id == notification_id)
    if lock:
        statement = statement.with_for_update().execution_options(populate_existing=True)
    found = session.scalar(statement)
    if found is None:
        raise UnknownNotificationError(notification_id)
    return found


def find(
    session: Session,
    *,
    state: State | None = None,
    channel: str | None = None,
    kind: str | None = None,
    after_id: int | None = None,
    newest_first: bool = False,
    limit: int | None = 100,
) -> list[Notification]:
    """Return the notifications that meet every filter and come after `after_id`."""
    order = Notification.id.desc() if newest_first else Notification.id
    statement = select(Notification).order_by(order).limit(limit)
    if after_id is not None:
        beyond = Notification.id < after_id if newest_first else Notification.id > after_id
        statement = statement.where(beyond)
    if state is not None:
        statement = statement.where(Notification.state == state)
    if channel is not None:
        statement = statement.where(Notification.channel_name == channel)
    if kind is not None:
        statement = statement.where(Notification.kind == kind)
    return list(session.scalars(statement))


def counts(session: Session) -> dict[str, int]:
    """Return how many notifications there are by state."""
    statement = select(Notification.state, func.count()).group_by(Notification.state)
    return {row[0]: row[1] for row in session.execute(statement)}


def queued_before(session: Session, notification: Notification) -> bool:
    """Say whether something older of the same channel and group is still to be delivered."""
    statement = select(Notification.id).where(
        Notification.state == "queued",
        Notification.channel_id == notification.channel_id,
        Notification.group_key == notification.group_key,
        Notification.id < notification.id,
    )
    return session.scalar(statement.limit(1)) is not None


def is_queued(session: Session, channel_id: int, group_key: str) -> bool:
    """Say whether something of a channel and group is still to be delivered."""
    statement = select(Notification.id).where(
        Notification.state == "queued",
        Notification.channel_id == channel_id,
        Notification.group_key == group_key,
    )
    return session.scalar(statement.limit(1)) is not None


def queued_ids(session: Session, channel_id: int) -> list[int]:
    """Return what a channel has yet to be told, oldest first."""
    statement = select(Notification.id).where(
        Notification.state == "queued", Notification.channel_id == channel_id
    )
    return list(session.scalars(statement.order_by(Notification.id)))


def remove_settled(session: Session, before: datetime) -> int:
    """Delete what was sent or cancelled and composed before a moment; dead letters stay."""
    old = Notification.state.in_(("sent", "cancelled")) & (Notification.created_at < before)
    return len(session.scalars(delete(Notification).where(old).returning(Notification.id)).all())


def cancel_queued(session: Session, channel_id: int) -> None:
    """Give up what a channel has yet to be told."""
    waiting = (Notification.state == "queued") & (Notification.channel_id == channel_id)
    session.execute(update(Notification).where(waiting).values(state="cancelled"))


# --- groups -----------------------------------------------------------------------------------


def hold_group(session: Session, channel_id: int, group_key: str) -> NotificationGroup:
    """Return the group of a channel, made if it is new, and let nobody else change it meanwhile."""
    values = {"channel_id": channel_id, "group_key": group_key, "token": secrets.token_hex(16)}
    made = insert_new(session, NotificationGroup).values(**values, sequence=0, pending={}, told={})
    session.execute(made.on_conflict_do_nothing())
    statement = select(NotificationGroup).where(
        NotificationGroup.channel_id == channel_id, NotificationGroup.group_key == group_key
    )
    return session.scalars(_held(statement)).one()


def find_group(session: Session, channel_id: int, group_key: str) -> NotificationGroup | None:
    """Return the group of a channel, held, or None if the channel was never to be told of it."""
    statement = select(NotificationGroup).where(
        NotificationGroup.channel_id == channel_id, NotificationGroup.group_key == group_key
    )
    return session.scalar(_held(statement))


def hold_due_groups(session: Session, now: datetime, limit: int) -> list[NotificationGroup]:
    """Return groups that are due, the longest waiting first; those that others hold are left."""
    statement = (
        select(NotificationGroup)
        .join(Channel, Channel.id == NotificationGroup.channel_id)
        .where(NotificationGroup.due_at <= now, Channel.enabled.is_(True))
        .order_by(NotificationGroup.due_at, NotificationGroup.id)
        .limit(limit)
    )
    held = statement.with_for_update(skip_locked=True, of=NotificationGroup)
    return list(session.scalars(held, execution_options={"populate_existing": True}))


def groups_of(session: Session, channel_id: int) -> Sequence[NotificationGroup]:
    """Return the groups of a channel, held."""
    statement = select(NotificationGroup).where(NotificationGroup.channel_id == channel_id)
    return list(session.scalars(_held(statement.order_by(NotificationGroup.id))))


def _held(statement: Select[NotificationGroup]) -> Select[NotificationGroup]:
    locked = statement.with_for_update(of=NotificationGroup)
    return locked.execution_options(populate_existing=True)

"""Notifications: what was said to whom, what is on its way, and what was given up."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from soundpost.errors import NotificationStateError, UnknownNotificationError
from soundpost.monitoring import delivery
from soundpost.service.cursors import read_cursor, write_cursor
from soundpost.service.notification_schemas import (
    ChannelName,
    Notification,
    NotificationInFull,
    NotificationKind,
    NotificationState,
)
from soundpost.service.notification_views import show_in_full, show_notification
from soundpost.service.parts import ServiceParts
from soundpost.service.problems import answers
from soundpost.service.routes.recordings import Cursor, Limit, NewestFirst
from soundpost.service.schemas import LARGEST_ID, Page
from soundpost.store import notifications
from soundpost.store.tables import utc_now

router = APIRouter(prefix="/v1/notifications", tags=["notifications"])

NotificationId = Annotated[int, Path(ge=1, le=LARGEST_ID)]


@router.get("", responses=answers())
def list_notifications(
    parts: ServiceParts,
    state: Annotated[NotificationState | None, Query()] = None,
    channel: Annotated[ChannelName | None, Query()] = None,
    kind: Annotated[NotificationKind | None, Query()] = None,
    newest_first: NewestFirst = False,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[Notification]:
    """List notifications, also those of channels that were removed."""
    after_id = read_cursor(cursor, "notifications", newest_first)
    with parts.store.reading() as session:
        rows = notifications.find(
            session,
            state=state,
            channel=channel,
            kind=kind,
            after_id=after_id,
            newest_first=newest_first,
            limit=limit + 1,
        )
        items = [show_notification(row) for row in rows[:limit]]
    more = len(rows) > limit
    following = write_cursor("notifications", items[-1].id, newest_first) if more else None
    return Page(items=items, next=following)


@router.get("/{notification_id}", responses=answers(UnknownNotificationError))
def get_notification(notification_id: NotificationId, parts: ServiceParts) -> NotificationInFull:
    """Look at one notification, with the document that is sent."""
    with parts.store.reading() as session:
        return show_in_full(notifications.get(session, notification_id))


@router.post(
    "/{notification_id}/retry",
    responses=answers(UnknownNotificationError, NotificationStateError),
)
def retry_notification(notification_id: NotificationId, parts: ServiceParts) -> Notification:
    """Have a notification that failed or was cancelled sent again, with the same key."""
    with parts.store.session() as session:
        row = delivery.retry(session, parts.queue, notification_id, utc_now())
        return show_notification(row)

"""Channels and notifications as they are shown: without anything secret."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from soundpost.archive.summary import remedy_for
from soundpost.monitoring.delivery import is_open, shown_address
from soundpost.monitoring.notification_document import NotificationDocument
from soundpost.service import notification_schemas as schemas
from soundpost.store import sources
from soundpost.store.notification_tables import Channel, Notification


def show_channel(session: Session, row: Channel, now: datetime) -> schemas.Channel:
    """Show a channel."""
    source = sources.get(session, row.source_id).name if row.source_id is not None else None
    return schemas.Channel.model_validate(
        {
            **{name: getattr(row, name) for name in _PLAIN_OF_CHANNEL},
            "address": shown_address(row),
            "signed": row.secret is not None,
            "source": source,
            "circuit_open": is_open(row, now),
        }
    )


_PLAIN_OF_CHANNEL = (
    "name",
    "kind",
    "settings",
    "enabled",
    "min_severity",
    "tag",
    "subject_template",
    "body_template",
    "group_wait_s",
    "group_interval_s",
    "repeat_s",
    "failures",
    "open_until",
    "error_code",
    "error_detail",
    "failed_at",
    "sent_at",
    "created_at",
)


def show_notification(row: Notification) -> schemas.Notification:
    """Show a notification."""
    return schemas.Notification.model_validate(_fields(row))


def show_in_full(row: Notification) -> schemas.NotificationInFull:
    """Show a notification with its document."""
    document = NotificationDocument.model_validate(row.payload)
    return schemas.NotificationInFull.model_validate({**_fields(row), "document": document})


def _fields(row: Notification) -> dict[str, object]:
    return {
        **{name: getattr(row, name) for name in _PLAIN_OF_NOTIFICATION},
        "channel": row.channel_name,
        "group": row.group_key,
        "subject": row.payload.get("subject", ""),
        "remedy": remedy_for(row.error_code) if row.error_code else None,
    }


_PLAIN_OF_NOTIFICATION = (
    "id",
    "key",
    "kind",
    "state",
    "incident_ids",
    "attempts",
    "due_at",
    "created_at",
    "sent_at",
    "error_code",
    "error_detail",
)

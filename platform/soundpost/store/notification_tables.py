"""The SQL tables of notifications: who is told, what they were told last, and what is on its way."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from soundpost.store.tables import BigId, Document, PathText, Table, UtcDateTime, utc_now


class Channel(Table):
    """A way to tell people or machines of incidents: of one source, of those with a tag, or of all.

    `url` and `secret` hold passwords and keys: they are never shown. settings: what only its kind
    knows. Times that are null follow the settings of the installation. failures: how often in a
    row it could not be reached; until open_until nothing is sent, and what is to be sent waits.
    """

    __tablename__ = "channels"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    kind: Mapped[str] = mapped_column(String(16))
    url: Mapped[str] = mapped_column(Text)
    secret: Mapped[str | None] = mapped_column(Text)
    settings: Mapped[dict[str, Any]] = mapped_column(Document, default=dict)
    enabled: Mapped[bool] = mapped_column(default=True)
    min_severity: Mapped[str] = mapped_column(String(16), default="info")
    source_id: Mapped[int | None] = mapped_column(ForeignKey("sources.id"), index=True)
    tag: Mapped[str | None] = mapped_column(String(100))
    subject_template: Mapped[str | None] = mapped_column(Text)
    body_template: Mapped[str | None] = mapped_column(Text)
    group_wait_s: Mapped[float | None] = mapped_column(Float)
    group_interval_s: Mapped[float | None] = mapped_column(Float)
    repeat_s: Mapped[float | None] = mapped_column(Float)
    failures: Mapped[int] = mapped_column(Integer, default=0)
    open_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    error_code: Mapped[str | None] = mapped_column(String(64))
    error_detail: Mapped[str | None] = mapped_column(PathText)
    failed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    sent_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)

    __table_args__ = (
        CheckConstraint("kind IN ('apprise', 'mqtt', 'webhook')", name="kind"),
        CheckConstraint("min_severity IN ('info', 'warning', 'critical')", name="min_severity"),
        CheckConstraint("source_id IS NULL OR tag IS NULL", name="scope"),
    )


class NotificationGroup(Table):
    """What a channel was told of the incidents of one group key, and what it has yet to be told.

    pending: what changed since, incident id to changes; pending_at: since when there is such.
    told: the incidents it knows to go on, id to what it was told of each. sent_at: when it was told
    last, due_at: when it is told next. token and sequence: what idempotency keys are made of.
    """

    __tablename__ = "notification_groups"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    channel_id: Mapped[int] = mapped_column(ForeignKey("channels.id", ondelete="CASCADE"))
    group_key: Mapped[str] = mapped_column(String(300))
    token: Mapped[str] = mapped_column(String(32))
    sequence: Mapped[int] = mapped_column(Integer, default=0)
    pending: Mapped[dict[str, Any]] = mapped_column(Document, default=dict)
    pending_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    told: Mapped[dict[str, Any]] = mapped_column(Document, default=dict)
    sent_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    due_at: Mapped[datetime | None] = mapped_column(UtcDateTime, index=True)

    channel: Mapped[Channel] = relationship(lazy="joined", innerjoin=True, viewonly=True)

    __table_args__ = (UniqueConstraint("channel_id", "group_key"),)


class Notification(Table):
    """A message of the outbox: composed once, delivered at least once, always with the same key.

    kind: opened, changed, repeat, resolved. state: queued, sent, failed (given up: a dead letter),
    cancelled. payload: the document as it is sent. Those of a deleted channel stay to be seen.
    """

    __tablename__ = "notifications"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    key: Mapped[str] = mapped_column(String(64), unique=True)
    channel_id: Mapped[int | None] = mapped_column(ForeignKey("channels.id", ondelete="SET NULL"))
    channel_name: Mapped[str] = mapped_column(String(100))
    group_key: Mapped[str] = mapped_column(String(300))
    kind: Mapped[str] = mapped_column(String(16))
    incident_ids: Mapped[list[int]] = mapped_column(Document, default=list)
    payload: Mapped[dict[str, Any]] = mapped_column(Document, default=dict)
    state: Mapped[str] = mapped_column(String(16), default="queued")
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    due_at: Mapped[datetime] = mapped_column(UtcDateTime)
    error_code: Mapped[str | None] = mapped_column(String(64))
    error_detail: Mapped[str | None] = mapped_column(PathText)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    sent_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    __table_args__ = (
        CheckConstraint("kind IN ('opened', 'changed', 'repeat', 'resolved')", name="kind"),
        CheckConstraint("state IN ('queued', 'sent', 'failed', 'cancelled')", name="state"),
        Index("ix_notifications_state_id", "state", "id"),
        Index("ix_notifications_channel_id_group_key_id", "channel_id", "group_key", "id"),
        # A receiver that knows a key must never see it again with something else.
        {"sqlite_autoincrement": True},
    )

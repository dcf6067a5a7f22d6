"""Channels and notifications over the wire; like `schemas`, for the service and its client.

What a channel is reached with (url, secret) only ever goes in.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from soundpost.monitoring.notification_document import NotificationDocument, Severity
from soundpost.service.schemas import Answer, Name, Query, Shown

ChannelKind = Literal["apprise", "mqtt", "webhook"]
NotificationKind = Literal["opened", "changed", "repeat", "resolved"]
NotificationState = Literal["queued", "sent", "failed", "cancelled"]
ChannelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Tag = Annotated[Name, StringConstraints(max_length=100)]
Template = Annotated[str, StringConstraints(min_length=1, max_length=4000)]
Url = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
Secret = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Wait = Annotated[float, Field(ge=0, le=30 * 86_400, allow_inf_nan=False)]
Repeat = Annotated[float, Field(ge=60, le=30 * 86_400, allow_inf_nan=False)]


class ChannelSettings(Query):
    """What only some kinds of channels know: attach_clip those of Apprise, retain_state MQTT."""

    model_config = ConfigDict(strict=True)

    attach_clip: bool | None = None
    retain_state: bool | None = None


class ChannelChange(Query):
    """What is to be changed of a channel; what is not named stays, null takes back to the default.

    secret: the key that webhooks are signed with, 24 to 64 bytes as base64. Without source and tag
    a channel is told of every source. Templates are texts with fields in braces, see /docs.
    """

    model_config = ConfigDict(strict=True)

    url: Url | None = None
    secret: Secret | None = None
    settings: ChannelSettings | None = None
    enabled: bool | None = None
    min_severity: Severity | None = None
    source: Name | None = None
    tag: Tag | None = None
    subject_template: Template | None = None
    body_template: Template | None = None
    group_wait_s: Wait | None = None
    group_interval_s: Wait | None = None
    repeat_s: Repeat | None = None

    @model_validator(mode="after")
    def check(self) -> ChannelChange:
        """Refuse a channel for a source and a tag at once."""
        if self.source is not None and self.tag is not None:
            raise ValueError("give source or tag")
        return self


class NewChannel(ChannelChange):
    """A channel to be added; without a kind it follows from the URL."""

    name: ChannelName
    url: Url
    kind: ChannelKind | None = None


class Channel(Answer):
    """A way to tell people or machines; `address` is its URL without anything secret.

    circuit_open: it could not be reached several times in a row, and is left alone until
    open_until. error_code: what went wrong last, null since something arrived.
    """

    name: Shown
    kind: ChannelKind
    address: Shown
    signed: bool
    settings: ChannelSettings
    enabled: bool
    min_severity: Severity
    source: Shown | None
    tag: Shown | None
    subject_template: Shown | None
    body_template: Shown | None
    group_wait_s: float | None
    group_interval_s: float | None
    repeat_s: float | None
    failures: int
    circuit_open: bool
    open_until: datetime | None
    error_code: str | None
    error_detail: Shown | None
    failed_at: datetime | None
    sent_at: datetime | None
    created_at: datetime


class ChannelTest(Answer):
    """What became of a test message."""

    ok: bool
    took_s: float
    code: str | None = None
    detail: Shown = ""
    remedy: str = ""


class Notification(Answer):
    """A message to a channel, as the outbox has it; failed ones are given up until retried."""

    id: int
    key: str
    channel: Shown
    group: Shown
    kind: NotificationKind
    state: NotificationState
    subject: Shown
    incident_ids: list[int]
    attempts: int
    due_at: datetime
    created_at: datetime
    sent_at: datetime | None
    error_code: str | None
    error_detail: Shown | None
    remedy: str | None


class NotificationInFull(Notification):
    """A notification with the document that is sent."""

    document: NotificationDocument

"""What the client says of notifications: who is told, and what became of each message."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypedDict, Unpack
from urllib.parse import quote

from soundpost.client_transport import Transport
from soundpost.monitoring.notification_document import Severity
from soundpost.service.notification_schemas import (
    Channel,
    ChannelKind,
    ChannelTest,
    Notification,
    NotificationInFull,
    NotificationKind,
    NotificationState,
)


class ChannelOptions(TypedDict, total=False):
    """attach_clip is for channels of Apprise, retain_state for those of MQTT."""

    attach_clip: bool | None
    retain_state: bool | None


class ChannelFields(TypedDict, total=False):
    """What a channel is made of beside name and URL; None takes back to the default."""

    secret: str | None
    settings: ChannelOptions | None
    enabled: bool | None
    min_severity: Severity | None
    source: str | None
    tag: str | None
    subject_template: str | None
    body_template: str | None
    group_wait_s: float | None
    group_interval_s: float | None
    repeat_s: float | None


class NewChannelFields(ChannelFields, total=False):
    """As ChannelFields; without a kind it follows from the URL."""

    kind: ChannelKind


class ChangedChannelFields(ChannelFields, total=False):
    """As ChannelFields, with another URL."""

    url: str


class NotificationCalls(Transport):
    """The calls about channels and notifications."""

    def channels(self) -> list[Channel]:
        """List the channels, by name; addresses come without what is secret in them."""
        return self._list(Channel, "/v1/channels")

    def channel(self, name: str) -> Channel:
        """Look at one channel. Raises UnknownChannelError."""
        return self._ask(Channel, "GET", _path(name))

    def add_channel(self, name: str, url: str, **fields: Unpack[NewChannelFields]) -> Channel:
        """Add a channel; it is told of what is open already.

        Raises ChannelExistsError, UnknownSourceError, InvalidValueError.
        """
        body = {"name": name, "url": url, **fields}
        return self._ask(Channel, "POST", "/v1/channels", json=body)

    def change_channel(self, name: str, **changes: Unpack[ChangedChannelFields]) -> Channel:
        """Change a channel; what is not named stays.

        Raises UnknownChannelError, UnknownSourceError, InvalidValueError.
        """
        return self._ask(Channel, "PATCH", _path(name), json=changes)

    def remove_channel(self, name: str) -> None:
        """Remove a channel; what it was sent stays to be seen. Raises UnknownChannelError."""
        self._send("DELETE", _path(name))

    def test_channel(self, name: str) -> ChannelTest:
        """Send a test message now, and say what happened. Raises UnknownChannelError."""
        return self._ask(ChannelTest, "POST", f"{_path(name)}/test")

    def notifications(
        self,
        *,
        state: NotificationState | None = None,
        channel: str | None = None,
        kind: NotificationKind | None = None,
        newest_first: bool = False,
        page_size: int = 100,
    ) -> Iterator[Notification]:
        """Go through the notifications that meet every filter, asking for a page at a time."""
        params = {
            "state": state,
            "channel": channel,
            "kind": kind,
            "newest_first": newest_first,
            "limit": page_size,
        }
        return self._pages(Notification, "/v1/notifications", params)

    def notification(self, notification_id: int) -> NotificationInFull:
        """Look at one notification, with the document that is sent.

        Raises UnknownNotificationError.
        """
        return self._ask(NotificationInFull, "GET", f"/v1/notifications/{notification_id}")

    def retry_notification(self, notification_id: int) -> Notification:
        """Have one that failed or was cancelled sent again, with the same key.

        Raises UnknownNotificationError, NotificationStateError.
        """
        return self._ask(Notification, "POST", f"/v1/notifications/{notification_id}/retry")


def _path(name: str) -> str:
    return f"/v1/channels/{quote(name, safe='')}"

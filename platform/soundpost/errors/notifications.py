"""Notifications and the channels that they leave by."""

from __future__ import annotations

from soundpost.errors.root import SoundpostError


class NotifyError(SoundpostError):
    """A notification cannot be handled."""

    code = "notify"


class UnknownChannelError(NotifyError):
    """No channel has this name."""

    code = "unknown-channel"
    remedy = "List the names with: soundpost channels list"


class ChannelExistsError(NotifyError):
    """There is a channel of this name already."""

    code = "channel-exists"
    remedy = "Choose another name, or remove that channel first."


class UnknownNotificationError(NotifyError):
    """No notification has this id."""

    code = "unknown-notification"
    remedy = "List the ids with: soundpost notifications"


class NotificationStateError(NotifyError):
    """The notification is in another state."""

    code = "notification-state"
    remedy = "Only failed and cancelled notifications whose channel is there and on are retried."


class ChannelUnreachableError(NotifyError):
    """The channel cannot be reached at the moment.

    retry_after_s: how long the other side asked to be left alone.
    """

    code = "channel-unreachable"
    remedy = "Check the network and that the other side runs; it is tried again by itself."
    retry_after_s: float | None = None


class ChannelRefusedError(NotifyError):
    """The channel refuses the notification."""

    code = "channel-refused"
    remedy = "Check the channel's address and password, then: soundpost notifications retry ID"

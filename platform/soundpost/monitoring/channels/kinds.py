"""The kinds of channels, and which of them an address belongs to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from soundpost.errors import InvalidValueError
from soundpost.monitoring.channels.mqtt import Mqtt
from soundpost.monitoring.channels.target import Address, Target
from soundpost.monitoring.channels.webhook import Webhook

Kind = Literal["apprise", "mqtt", "webhook"]
LONGEST_URL = 2000


def _open_service(address: Address) -> Target:
    # A second and 35 MB, which whoever only lists channels need not spend.
    from soundpost.monitoring.channels.services import Service

    return Service(address)


_KINDS: Mapping[str, Callable[[Address], Target]] = {
    "apprise": _open_service,
    "mqtt": Mqtt,
    "webhook": Webhook,
}
# What each kind may be told beside its address, and what that is.
_SETTINGS: Mapping[str, Mapping[str, type]] = {
    "apprise": {"attach_clip": bool},
    "mqtt": {"retain_state": bool},
    "webhook": {},
}


def open_target(address: Address) -> Target:
    """Return what sends to an address. Raises InvalidValueError, which quotes no secret."""
    if not address.url or len(address.url) > LONGEST_URL or not address.url.isprintable():
        detail = f"1 to {LONGEST_URL} characters, and none that cannot be seen"
        raise InvalidValueError("the channel's URL", detail)
    if address.secret and address.kind != "webhook":
        raise InvalidValueError("the signing key", "only webhooks are signed")
    check_settings(address.kind, address.settings)
    return _KINDS[address.kind](address)


def check_settings(kind: str, settings: Mapping[str, Any]) -> None:
    """Raise InvalidValueError for a setting that this kind of channel does not have."""
    known = _SETTINGS[kind]
    for name, value in settings.items():
        if name not in known:
            listed = ", ".join(known) or "none"
            raise InvalidValueError(name, f"settings of {kind} channels: {listed}")
        if not isinstance(value, known[name]):
            raise InvalidValueError(f"{name}: {value}", f"it is a {known[name].__name__}")


def infer_kind(url: str) -> Kind:
    """Return the kind that an address belongs to.

    An https address is a webhook, unless it is one of a service that Apprise knows, such as Slack.
    """
    scheme = url.partition("://")[0].lower()
    if scheme in ("mqtt", "mqtts"):
        return "mqtt"
    if scheme not in ("http", "https"):
        return "apprise"
    try:
        _open_service(Address("apprise", url))
    except InvalidValueError:
        return "webhook"
    return "apprise"

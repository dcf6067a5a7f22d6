"""What every way to tell somebody can do, and keeping its secrets out of what is shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

from soundpost.monitoring.notification_document import NotificationDocument

MASK = "***"
MAIL = ("mailto", "mailtos")
# Shorter ones are words of their own, and hiding them would hide what went wrong.
_SHORTEST_SECRET = 4


@dataclass(frozen=True)
class Address:
    """Where a channel leads: url and secret are never shown, settings may be."""

    kind: str
    url: str = field(repr=False)
    secret: str | None = field(default=None, repr=False)
    settings: Mapping[str, Any] = field(default_factory=dict)


class Target(Protocol):
    """A checked address that can be sent to."""

    @property
    def shown(self) -> str:
        """The address, fit to be shown."""
        ...

    @property
    def takes_clip(self) -> bool:
        """Whether a clip can go with a message."""
        ...

    def send(self, document: NotificationDocument, clip: Path | None, timeout_s: float) -> None:
        """Send a message; it has arrived when this returns.

        Raises ChannelUnreachableError where it is worth another try, ChannelRefusedError where not.
        """
        ...


def shown_service(url: str) -> str:
    """Return the kind of service of an Apprise address; the rest may be a token, but mail's host."""
    scheme = url.partition("://")[0].lower()
    try:
        host = urlsplit(url).hostname if scheme in MAIL else None
    except ValueError:
        host = None
    return f"{scheme}://{host}/{MASK}" if host else f"{scheme}://{MASK}"


def secrets_of(address: Address) -> set[str]:
    """Return every part of an address that could be a password, a token or a key."""
    try:
        parts = urlsplit(address.url)
        password, user, place = parts.password, parts.username, parts.netloc.rpartition("@")[0]
    except ValueError:
        return {address.url} | ({address.secret} if address.secret else set())
    found = {address.url, parts.netloc if "@" in parts.netloc else "", place, parts.path}
    found |= {password or "", (user or "") if not password else "", address.secret or ""}
    found |= set(parts.path.split("/"))
    found |= {value for _, value in parse_qsl(parts.query, keep_blank_values=True)}
    if address.kind == "apprise" and not parts.scheme.startswith("mailto"):
        # In many of its addresses the first token stands where a host would be.
        found |= {parts.netloc, user or ""}
    found |= {unquote(text) for text in found}
    return {text for text in found if len(text) >= _SHORTEST_SECRET}


def hide(text: str, secrets: Iterable[str]) -> str:
    """Return text with every secret in it masked, the longest first."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text

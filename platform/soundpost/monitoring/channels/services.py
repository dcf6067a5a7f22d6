"""Mail, chat and push services by Apprise: about a hundred, each with its own kind of address.

Apprise says that a message failed, and why only in its log. The log of each message is read for
codes of SMTP and HTTP, which tell what may pass from what will not; it is shown to nobody unmasked.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from apprise import Apprise, AppriseAsset, AppriseAttachment, NotifyFormat, NotifyType

from soundpost.errors import ChannelRefusedError, ChannelUnreachableError, InvalidValueError
from soundpost.monitoring.channels.hosts import resolve
from soundpost.monitoring.channels.target import MAIL, Address, hide, secrets_of, shown_service
from soundpost.monitoring.notification_document import NotificationDocument
from soundpost.monitoring.templates import lead_of

with warnings.catch_warnings():
    # Its services are loaded at the first address; one of them still asks for an old module.
    warnings.simplefilter("ignore", DeprecationWarning)
    Apprise.instantiate("json://localhost")

# It writes whole addresses to its log, with their passwords.
_log = logging.getLogger("apprise")
_log.propagate = False
_log.addHandler(logging.NullHandler())
# It is only in this detail that it says why a mail was refused.
_log.setLevel(logging.DEBUG)
# It names the paths that Apprise asks for.
logging.getLogger("urllib3.connectionpool").setLevel(logging.INFO)

_ASSET: dict[str, Any] = {
    "app_id": "Soundpost",
    "app_desc": "Soundpost",
    "app_url": "https://localhost/",
    "plugin_paths": [],
    "storage_mode": "memory",
    "async_mode": False,
}
# These send to any host of the address; the others know theirs, or it is a server of one protocol.
_ANY_HOST = ("json", "jsons", "xml", "xmls", "form", "forms")
# These speak to the machine that the worker happens to run on.
_LOCAL = ("dbus", "kde", "qt", "glib", "gnome", "macosx", "windows", "syslog", "ldap", "smpp")
_SMTP_CODE = re.compile(r"\((\d{3}), |refused: (\d{3})\b")
_HTTP_CODE = re.compile(r"error=(\d{3})\b")
_LONGEST_DETAIL = 500
_TYPES = {"info": NotifyType.INFO, "warning": NotifyType.WARNING, "critical": NotifyType.FAILURE}


class Service:
    """A service that Apprise knows. Raises InvalidValueError for an address that it does not."""

    def __init__(self, address: Address) -> None:
        self._url = address.url
        self._secrets = secrets_of(address)
        self._scheme = address.url.partition("://")[0].lower()
        self._services = Apprise(asset=AppriseAsset(**_ASSET))
        if self._scheme in _LOCAL or not self._services.add(address.url):
            shown = f"{self._scheme[:20]}://" if "://" in address.url else "the channel's URL"
            raise InvalidValueError(shown, _NOT_KNOWN)
        (self._service,) = self._services
        self._host, self._port = self._service.host, self._service.port
        if self._scheme in MAIL and "format=" not in address.url:
            self._service.notify_format = NotifyFormat.TEXT

    @property
    def shown(self) -> str:
        """The kind of service, and for mail its host."""
        return shown_service(self._url)

    @property
    def takes_clip(self) -> bool:
        """Whether the service takes files."""
        return bool(self._service.attachment_support)

    def send(self, document: NotificationDocument, clip: Path | None, timeout_s: float) -> None:
        """Hand the message to the service, with the clip where there is one."""
        if self._scheme in _ANY_HOST:
            resolve(str(self._host).strip("[]"), int(self._port or 0))
        severity = lead_of(document.incidents).severity if document.incidents else "info"
        result = self._services.notify(
            body=document.text,
            title=document.subject,
            notify_type=_TYPES[severity],
            body_format=NotifyFormat.TEXT,
            attach=AppriseAttachment(str(clip)) if clip is not None else None,
            timeout=timeout_s,
            log_level=logging.DEBUG,
        )
        if not result:
            raise self._failure(entry for entry in result.logs())

    def _failure(self, entries: Iterable[Any]) -> ChannelUnreachableError | ChannelRefusedError:
        said = [
            entry.message
            for entry in entries
            if entry.level in ("WARNING", "ERROR", "CRITICAL")
            or entry.message.startswith("Socket Exception")
        ]
        text = hide(" ".join(" ".join(said).split()), self._secrets)[:_LONGEST_DETAIL]
        kind = ChannelRefusedError if _is_final(text) else ChannelUnreachableError
        return kind(self.shown, text or "the service gave no reason")


_NOT_KNOWN = (
    "no service has such an address; see https://appriseit.com/services for how each is written"
)


def _is_final(text: str) -> bool:
    """Say whether a reason will be the same at the next attempt."""
    if match := _SMTP_CODE.search(text):
        return (match[1] or match[2]).startswith("5")
    if match := _HTTP_CODE.search(text):
        code = int(match[1])
        return 400 <= code < 500 and code not in (408, 425, 429)
    return False

"""Webhooks: a POST of the document, signed by the scheme of Standard Webhooks.

webhook-id is the notification's key, webhook-timestamp the time of the attempt, webhook-signature
`v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body` (standardwebhooks.com).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

import httpx

from soundpost import __version__
from soundpost.errors import ChannelRefusedError, ChannelUnreachableError, InvalidValueError
from soundpost.monitoring.channels.hosts import resolve
from soundpost.monitoring.channels.target import MASK, Address
from soundpost.monitoring.notification_document import NotificationDocument

_PREFIX = "whsec_"
_KEY_BYTES = (24, 64)
_PORTS = {"http": 80, "https": 443}
# Worth another try: it took too long, came too early, came too often.
_PASSING = (408, 425, 429)
_LONGEST_WAIT_S = 24 * 3600.0
_STEP_S = 10.0


class Webhook:
    """An address that takes a POST. Raises InvalidValueError for one that cannot be sent to."""

    takes_clip = False

    def __init__(self, address: Address) -> None:
        self._parts = _split(address.url)
        self._key = read_key(address.secret) if address.secret else None
        self._host = str(self._parts.hostname)
        self._port = self._parts.port or _PORTS[self._parts.scheme]

    @property
    def shown(self) -> str:
        """The scheme and host; paths are often a secret."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        port = "" if self._port == _PORTS[self._parts.scheme] else f":{self._port}"
        tail = f"/{MASK}" if self._parts.path.strip("/") or self._parts.query else ""
        return f"{self._parts.scheme}://{host}{port}{tail}"

    def send(self, document: NotificationDocument, clip: Path | None, timeout_s: float) -> None:
        """POST the document; any answer of 2xx says that it has arrived."""
        body = document.model_dump_json().encode()
        headers = self._headers(document.key, body)
        error: Exception | None = None
        for ip in resolve(self._host, self._port):
            try:
                self._check(*self._post(ip, body, headers, timeout_s))
            except (httpx.ConnectError, httpx.ConnectTimeout) as failed:
                error = failed
            except (httpx.HTTPError, OSError) as failed:
                raise ChannelUnreachableError(self.shown, _said(failed)) from None
            else:
                return
        raise ChannelUnreachableError(self.shown, _said(error)) from None

    def _post(
        self, ip: str, body: bytes, headers: dict[str, str], timeout_s: float
    ) -> tuple[int, httpx.Headers]:
        """Send to one address, which is the one that was checked; nothing is redirected."""
        host = f"[{ip}]" if ":" in ip else ip
        url = self._parts._replace(netloc=f"{host}:{self._port}", fragment="").geturl()
        step_s = min(_STEP_S, timeout_s)
        extensions = {
            "timeout": httpx.Timeout(step_s).as_dict(),
            # The certificate is checked against the name, not against the address.
            "sni_hostname": self._host,
        }
        request = httpx.Request("POST", url, headers=headers, content=body, extensions=extensions)
        # Not a client: it would follow the environment's proxies, keep cookies and log the URL.
        with httpx.HTTPTransport() as transport:
            response = transport.handle_request(request)
            response.close()
        return response.status_code, response.headers

    def _headers(self, key: str, body: bytes) -> dict[str, str]:
        timestamp = str(int(time.time()))
        headers = {
            "Host": self._parts.netloc.rpartition("@")[2],
            "User-Agent": f"Soundpost/{__version__}",
            "Content-Type": "application/json",
            "Idempotency-Key": key,
            "webhook-id": key,
            "webhook-timestamp": timestamp,
        }
        if self._key is not None:
            headers["webhook-signature"] = sign(self._key, key, timestamp, body)
        if self._parts.username is not None:
            plain = f"{unquote(self._parts.username)}:{unquote(self._parts.password or '')}"
            headers["Authorization"] = "Basic " + base64.b64encode(plain.encode()).decode()
        return headers

    def _check(self, status: int, headers: httpx.Headers) -> None:
        if 200 <= status < 300:
            return
        detail = f"it answered {status} {httpx.codes.get_reason_phrase(status)}".rstrip()
        if status in _PASSING or status >= 500:
            error = ChannelUnreachableError(self.shown, detail)
            error.retry_after_s = read_retry_after(headers.get("Retry-After"), datetime.now(UTC))
            raise error
        if 300 <= status < 400:
            detail += "; redirects are not followed, give the address they lead to"
        raise ChannelRefusedError(self.shown, detail)


def sign(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    """Return the signature of a message, as webhook-signature has it."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    digest = hmac.new(key, signed, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def read_key(secret: str) -> bytes:
    """Read a signing key: 24 to 64 bytes as base64, `whsec_` before it or not.

    Raises InvalidValueError, which does not quote it.
    """
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidValueError("the signing key", "it is not base64") from None
    if not _KEY_BYTES[0] <= len(key) <= _KEY_BYTES[1]:
        wanted = f"it has {len(key)} bytes, not {_KEY_BYTES[0]} to {_KEY_BYTES[1]}"
        detail = f"{wanted}; make one with: openssl rand -base64 32"
        raise InvalidValueError("the signing key", detail)
    return key


def read_retry_after(value: str | None, now: datetime) -> float | None:
    """Return the seconds that a Retry-After header asks for, at most a day; None without one."""
    if value is None:
        return None
    try:
        wait_s = float(value) if value.strip().isdigit() else _until(value, now)
    except (TypeError, ValueError, OverflowError):
        return None
    return min(max(0.0, wait_s), _LONGEST_WAIT_S)


def _until(value: str, now: datetime) -> float:
    moment = parsedate_to_datetime(value)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now.timestamp()


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InvalidValueError("the webhook's URL", "it cannot be read") from None
    if parts.scheme not in _PORTS:
        shown = f"{parts.scheme[:20]}://" if "://" in url else "the URL"
        raise InvalidValueError(shown, "a webhook begins with https:// or http://")
    if not parts.hostname or port == 0 or not url.isascii() or not url.isprintable() or " " in url:
        raise InvalidValueError("the webhook's URL", "it names no host, or has odd characters")
    return parts


def _said(error: Exception | None) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")

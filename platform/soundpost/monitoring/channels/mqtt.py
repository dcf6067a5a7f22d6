"""MQTT: the document as JSON at QoS 1, and what is open at retained topics if that is wanted.

The path of the URL is the first part of the topics: `mqtt://user:password@host/plant/soundpost`
publishes to `plant/soundpost/notifications`. With the setting retain_state every incident that is
open also stays at `plant/soundpost/incidents/ID`, for those who connect later, until it is over.
"""

from __future__ import annotations

import ssl
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from paho.mqtt.client import Client, MQTTMessageInfo
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from soundpost.errors import ChannelRefusedError, ChannelUnreachableError, InvalidValueError
from soundpost.monitoring.channels.hosts import resolve
from soundpost.monitoring.channels.target import MASK, Address
from soundpost.monitoring.notification_document import NotificationDocument

_PORTS = {"mqtt": 1883, "mqtts": 8883}
_TOPIC = "soundpost"
_QOS = 1
_STEP_S = 10.0
# Codes of MQTT 5: the other side is not able now. All others above 127 will not pass by waiting.
_PASSING = (136, 137, 142, 147, 149, 150, 151, 159)
_OLD_BROKER = 132


class Mqtt:
    """A broker. Raises InvalidValueError for an address that cannot be sent to."""

    takes_clip = False

    def __init__(self, address: Address) -> None:
        self._parts = _split(address.url)
        self._topic = unquote(self._parts.path).strip("/") or _TOPIC
        self._retain = bool(address.settings.get("retain_state", False))
        self._host = str(self._parts.hostname)
        self._port = self._parts.port or _PORTS[self._parts.scheme]

    @property
    def shown(self) -> str:
        """The address without user and password; topics are no secret."""
        user = f"{MASK}@" if self._parts.username else ""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{self._parts.scheme}://{user}{host}:{self._port}/{self._topic}"

    def send(self, document: NotificationDocument, clip: Path | None, timeout_s: float) -> None:
        """Publish, and wait until the broker has acknowledged everything."""
        resolve(self._host, self._port)
        last_s = time.monotonic() + timeout_s
        connection = _Connection(self._make(MQTTProtocolVersion.MQTTv5), self.shown, last_s)
        code = connection.open(self._host, self._port)
        if code.value == _OLD_BROKER:
            connection.close()
            connection = _Connection(self._make(MQTTProtocolVersion.MQTTv311), self.shown, last_s)
            code = connection.open(self._host, self._port)
        try:
            self._check(code, "connecting")
            for topic, payload, retain in self._messages(document):
                self._check(connection.publish(topic, payload, retain), topic)
        finally:
            connection.close()

    def _messages(self, document: NotificationDocument) -> list[tuple[str, str, bool]]:
        """The state of incidents first: whoever reacts to the notification finds it there."""
        messages: list[tuple[str, str, bool]] = []
        for incident in document.incidents if self._retain else []:
            topic, is_open = f"{self._topic}/incidents/{incident.id}", incident.closed_at is None
            messages.append((topic, incident.model_dump_json(), is_open))
            if not is_open:
                # An empty message takes away what was retained.
                messages.append((topic, "", True))
        return [*messages, (f"{self._topic}/notifications", document.model_dump_json(), False)]

    def _make(self, version: MQTTProtocolVersion) -> Client:
        client = Client(CallbackAPIVersion.VERSION2, protocol=version, reconnect_on_failure=False)
        client.connect_timeout = _STEP_S
        if self._parts.username:
            password = self._parts.password
            client.username_pw_set(
                unquote(self._parts.username), unquote(password) if password else None
            )
        if self._parts.scheme == "mqtts":
            client.tls_set_context(ssl.create_default_context())
        return client

    def _check(self, code: ReasonCode, doing: str) -> None:
        if not code.is_failure:
            return
        detail = f"the broker answered '{code}' to {doing}"
        if code.value in _PASSING:
            raise ChannelUnreachableError(self.shown, detail)
        raise ChannelRefusedError(self.shown, detail)


class _Connection:
    """One connection, with a thread that reads and writes as long as it is open."""

    def __init__(self, client: Client, shown: str, last_s: float) -> None:
        self._client = client
        self._shown = shown
        self._last_s = last_s
        self._answered = threading.Event()
        self._published: dict[int, ReasonCode] = {}
        self._acknowledged = threading.Condition()
        self._code: ReasonCode | None = None
        self._lost = False
        client.on_connect = self._on_connect
        client.on_publish = self._on_publish
        client.on_disconnect = self._on_disconnect

    def open(self, host: str, port: int) -> ReasonCode:
        """Connect and return the broker's answer."""
        try:
            self._client.connect(host, port, keepalive=30)
        except (OSError, ValueError) as error:
            raise ChannelUnreachableError(self._shown, _said(error)) from None
        self._client.loop_start()
        self._answered.wait(self._left_s())
        if self._code is None:
            raise self._unreachable("no answer to connecting")
        return self._code

    def publish(self, topic: str, payload: str, retain: bool) -> ReasonCode:
        """Publish and wait for the acknowledgement; return it."""
        info: MQTTMessageInfo = self._client.publish(topic, payload, qos=_QOS, retain=retain)
        if info.rc not in (MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_NO_CONN):
            raise self._unreachable(f"publishing failed with {info.rc!r}")
        with self._acknowledged:
            self._acknowledged.wait_for(
                lambda: info.mid in self._published or self._lost, self._left_s()
            )
        if info.mid not in self._published:
            raise self._unreachable("no acknowledgement")
        return self._published[info.mid]

    def close(self) -> None:
        """Say goodbye and end the thread."""
        self._client.disconnect()
        self._client.loop_stop()

    def _left_s(self) -> float:
        return max(0.0, min(_STEP_S, self._last_s - time.monotonic()))

    def _unreachable(self, detail: str) -> ChannelUnreachableError:
        self.close()
        return ChannelUnreachableError(self._shown, detail)

    def _on_connect(
        self, client: Client, data: Any, flags: Any, code: ReasonCode, properties: Any
    ) -> None:
        self._code = code
        self._answered.set()

    def _on_publish(
        self, client: Client, data: Any, mid: int, code: ReasonCode, properties: Any
    ) -> None:
        with self._acknowledged:
            self._published[mid] = code
            self._acknowledged.notify_all()

    def _on_disconnect(
        self, client: Client, data: Any, flags: Any, code: ReasonCode, properties: Any
    ) -> None:
        with self._acknowledged:
            self._lost = True
            self._acknowledged.notify_all()
        self._answered.set()


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InvalidValueError("the broker's URL", "it cannot be read") from None
    if parts.scheme not in _PORTS:
        shown = f"{parts.scheme[:20]}://" if "://" in url else "the URL"
        raise InvalidValueError(shown, "a broker begins with mqtts:// or mqtt://")
    if not parts.hostname or port == 0 or not url.isascii() or not url.isprintable() or " " in url:
        raise InvalidValueError("the broker's URL", "it names no host, or has odd characters")
    if set(unquote(parts.path)) & set("#+\0") or set(url) & set("#?"):
        raise InvalidValueError("the broker's URL", "a topic has no +, # or ?")
    return parts


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")

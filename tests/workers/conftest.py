"""Real servers on this machine that take notifications: HTTP, SMTP and MQTT."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

PATIENCE_S = 30.0


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait until something holds; fail if it does not in half a minute."""
    last = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < last, what
        time.sleep(0.01)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


# --- HTTP -------------------------------------------------------------------------------------


@dataclass
class Received:
    """A request as it came in."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass
class WebhookServer:
    """Answers requests as it is told, one answer each, and 204 after that.

    An answer is a status, a status with headers, or None: no answer until the server ends.
    """

    url: str
    answers: list[int | tuple[int, dict[str, str]] | None] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def keys(self) -> list[str]:
        """The webhook-id of each request."""
        return [request.headers["webhook-id"] for request in self.received]


@pytest.fixture
def webhook_server() -> Iterator[WebhookServer]:
    """A server on a free port."""
    kept = WebhookServer("")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            headers = {name.lower(): value for name, value in self.headers.items()}
            kept.received.append(Received(self.path, headers, self.rfile.read(length)))
            answer = kept.answers.pop(0) if kept.answers else 204
            if answer is None:
                kept.over.wait(PATIENCE_S)
                return
            status, extra = answer if isinstance(answer, tuple) else (answer, {})
            self.send_response(status)
            for name, value in {"Content-Length": "0", **extra}.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    kept.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, name="webhooks")
    thread.start()
    yield kept
    kept.over.set()
    server.shutdown()
    thread.join(PATIENCE_S)
    server.server_close()


# --- SMTP -------------------------------------------------------------------------------------


@dataclass
class MailServer:
    """Takes mails; `refusals` says how it answers to recipients, one answer each."""

    port: int
    refusals: list[str] = field(default_factory=list)
    mails: list[EmailMessage] = field(default_factory=list)

    def url(self, extra: str = "") -> str:
        """The address of a channel that mails to the operators."""
        return (
            f"mailto://127.0.0.1:{self.port}/ops@example.org"
            f"?from=soundpost@example.org&mode=insecure{extra}"
        )

    async def handle_RCPT(  # The name that aiosmtpd calls.
        self, server: Any, session: Any, envelope: Any, address: str, options: Any
    ) -> str:
        """Take or refuse a recipient."""
        if self.refusals:
            return self.refusals.pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(  # The name that aiosmtpd calls.
        self, server: Any, session: Any, envelope: Any
    ) -> str:
        """Keep a mail."""
        mail = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        return "250 OK"


@pytest.fixture
def mail_server() -> Iterator[MailServer]:
    """An SMTP server on a free port."""
    server = MailServer(free_port())
    controller = Controller(server, hostname="127.0.0.1", port=server.port)
    controller.start()
    yield server
    controller.stop()


# --- MQTT -------------------------------------------------------------------------------------


@dataclass
class Broker:
    """A mosquitto of this test, which can be killed and started again on its port."""

    folder: Path
    program: str
    port: int
    process: subprocess.Popen[bytes] | None = None
    messages: list[MQTTMessage] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Its address, with user and password."""
        return f"mqtt://ada:correct-horse@127.0.0.1:{self.port}/plant/soundpost"

    def start(self) -> None:
        """Start it, and wait until it listens."""
        with (self.folder / "mosquitto.log").open("ab") as log:
            command = [self.program, "-c", str(self.folder / "mosquitto.conf")]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(self._listens, f"no broker: {(self.folder / 'mosquitto.log').read_text()}")

    def kill(self) -> None:
        """End it as a power cut would."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE_S)

    def payloads(self, topic: str) -> list[Any]:
        """What a subscriber was sent on a topic, empty messages as None."""
        found = [message.payload for message in self.messages if message.topic == topic]
        return [json.loads(payload) if payload else None for payload in found]

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1.0).close()
        except OSError:
            return False
        return True


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A running broker that wants a password; skip where there is none, fail where CI must."""
    search = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    program, hasher = shutil.which("mosquitto", path=search), shutil.which("mosquitto_passwd")
    if program is None or hasher is None:
        if os.environ.get("CI"):
            pytest.fail("mosquitto is not there, and CI must test MQTT")
        pytest.skip("mosquitto is not there")
    folder = tmp_path / "mosquitto"
    folder.mkdir()
    made = Broker(folder, program, free_port())
    passwords = folder / "passwords"
    for user, password in (("ada", "correct-horse"), ("eve", "may-do-nothing")):
        flags = ["-b"] if passwords.exists() else ["-c", "-b"]
        subprocess.run([hasher, *flags, str(passwords), user, password], check=True)
    access = folder / "access"
    access.write_text("user ada\ntopic readwrite plant/#\n")
    owner = ["user root"] if os.geteuid() == 0 else []
    settings = [
        f"listener {made.port} 127.0.0.1",
        "allow_anonymous false",
        f"password_file {passwords}",
        f"acl_file {access}",
        *owner,
    ]
    (folder / "mosquitto.conf").write_text("\n".join(settings) + "\n")
    made.start()
    yield made
    made.kill()


@pytest.fixture
def subscribe(broker: Broker) -> Iterator[Callable[[], None]]:
    """subscribe(): connect a subscriber to everything; what it gets is in broker.messages."""
    with ExitStack() as stack:

        def connect() -> None:
            client = Client(CallbackAPIVersion.VERSION2)
            client.username_pw_set("ada", "correct-horse")
            ready = threading.Event()
            client.on_connect = lambda *_: client.subscribe("plant/#", qos=1)
            client.on_subscribe = lambda *_: ready.set()
            client.on_message = lambda client, data, message: broker.messages.append(message)
            client.connect("127.0.0.1", broker.port)
            client.loop_start()
            stack.callback(client.loop_stop)
            stack.callback(client.disconnect)
            assert ready.wait(PATIENCE_S), "the subscriber is not connected"

        yield connect

"""Channels against real servers: what arrives, what comes back, and what is never shown."""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import logging
import signal
import socket
import ssl
import subprocess
import threading
import time
import traceback
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from soundpost.errors import (
    ChannelRefusedError,
    ChannelUnreachableError,
    InvalidValueError,
    NotifyError,
)
from soundpost.monitoring.channels import hosts
from soundpost.monitoring.channels.kinds import infer_kind, open_target
from soundpost.monitoring.channels.sending import send
from soundpost.monitoring.channels.target import Address, hide, secrets_of
from soundpost.monitoring.channels.webhook import read_key, read_retry_after, sign
from soundpost.monitoring.notification_document import NotificationDocument, NotifiedIncident

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


def incident(number: int = 7, *, is_open: bool = True) -> NotifiedIncident:
    return NotifiedIncident(
        id=number,
        source="pump 3",
        timezone="UTC",
        state="open" if is_open else "resolved",
        severity="warning",
        reason="sounds new",
        changes=["opened" if is_open else "resolved"],
        opened_at=NOW,
        opened_at_local=NOW,
        closed_at=None if is_open else NOW,
        closed_at_local=None if is_open else NOW,
    )


def document(*incidents: NotifiedIncident, subject: str = "pump 3") -> NotificationDocument:
    return NotificationDocument(
        key="abc-1",
        kind="opened",
        group="pumps",
        sequence=1,
        composed_at=NOW,
        subject=subject,
        text="It sounds new.\n",
        incidents=list(incidents) or [incident()],
    )


def deliver(
    kind: str,
    url: str,
    *,
    said: NotificationDocument | None = None,
    secret: str | None = None,
    timeout_s: float = 10.0,
    clip: Path | None = None,
    **settings: Any,
) -> None:
    address = Address(kind, url, secret, settings)
    send(open_target(address), address, said or document(), clip, timeout_s)


# --- webhooks ---------------------------------------------------------------------------------


def verify(headers: dict[str, str], body: bytes, secret: str) -> bool:
    """The receiver's side, as docs/notifications.md shows it."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    is_recent = abs(time.time() - int(headers["webhook-timestamp"])) < 300
    given = (part.split(",", 1) for part in headers["webhook-signature"].split())
    return is_recent and any(
        version == "v1" and hmac.compare_digest(value, expected) for version, value in given
    )


def test_a_webhook_arrives_signed(webhook_server: Any) -> None:
    deliver("webhook", f"{webhook_server.url}/hook?token=x", secret=SECRET)
    (request,) = webhook_server.received
    assert request.path == "/hook?token=x"
    assert verify(request.headers, request.body, SECRET)
    assert not verify(request.headers, request.body + b" ", SECRET)
    assert not verify({**request.headers, "webhook-id": "other"}, request.body, SECRET)
    assert NotificationDocument.model_validate(request.document) == document()
    assert request.headers["webhook-id"] == request.headers["idempotency-key"] == "abc-1"


def test_the_scheme_of_standard_webhooks_is_met() -> None:
    """The example of the specification's own libraries."""
    key = read_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signature = sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_webhook_without_a_key_is_not_signed_and_with_a_password_says_it(
    webhook_server: Any,
) -> None:
    deliver("webhook", webhook_server.url.replace("//", "//ada:p%40ss@"))
    (request,) = webhook_server.received
    assert "webhook-signature" not in request.headers
    assert request.headers["authorization"] == "Basic " + base64.b64encode(b"ada:p@ss").decode()
    assert request.headers["host"] == webhook_server.url.removeprefix("http://")


@pytest.mark.parametrize("status", [400, 401, 404, 410, 422])
def test_an_answer_that_will_not_change_is_final(webhook_server: Any, status: int) -> None:
    webhook_server.answers.append(status)
    with pytest.raises(ChannelRefusedError, match=str(status)):
        deliver("webhook", webhook_server.url)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_an_answer_that_may_pass_is_not(webhook_server: Any, status: int) -> None:
    webhook_server.answers.append((status, {"Retry-After": "17"}))
    with pytest.raises(ChannelUnreachableError, match=str(status)) as caught:
        deliver("webhook", webhook_server.url)
    assert caught.value.retry_after_s == 17.0


def test_redirects_are_not_followed(webhook_server: Any) -> None:
    webhook_server.answers.append((307, {"Location": f"{webhook_server.url}/other"}))
    with pytest.raises(ChannelRefusedError, match="redirects are not followed"):
        deliver("webhook", webhook_server.url)
    assert len(webhook_server.received) == 1


def test_a_webhook_that_says_nothing_is_left(webhook_server: Any) -> None:
    webhook_server.answers.append(None)
    with pytest.raises(ChannelUnreachableError):
        deliver("webhook", webhook_server.url, timeout_s=0.3)


def test_a_webhook_that_dribbles_is_left_in_time() -> None:
    """Each byte comes within the limit of one step, and the whole never."""
    over = threading.Event()

    class Dribble(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            while not over.wait(0.05):
                self.wfile.write(b"H")
                self.wfile.flush()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Dribble)
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    with pytest.raises(ChannelUnreachableError):
        deliver("webhook", f"http://127.0.0.1:{server.server_address[1]}", timeout_s=0.5)
    over.set()
    thread.join(30)
    server.server_close()


def test_nobody_listens(free_tcp_port: int) -> None:
    with pytest.raises(ChannelUnreachableError, match="refused"):
        deliver("webhook", f"http://localhost:{free_tcp_port}/secret-path")


@pytest.fixture
def free_tcp_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "[fe80::1]",
        "[::ffff:169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
        "[fd00:ec2::254]",
        "100.100.100.200",
        "2852039166",
        "0xa9fea9fe",
        "0.0.0.0",
        "224.0.0.1",
    ],
)
def test_metadata_services_are_not_sent_to(host: str) -> None:
    for kind, scheme in (("webhook", "http"), ("mqtt", "mqtt")):
        with pytest.raises(ChannelRefusedError, match="link-local and metadata"):
            deliver(kind, f"{scheme}://{host}:80/latest")
    # Some of these Apprise does not take for an address at all.
    with pytest.raises((ChannelRefusedError, InvalidValueError), match=r"metadata|no service"):
        deliver("apprise", f"json://{host}:80/latest")


def test_this_machine_and_its_network_are_sent_to() -> None:
    for address in ("127.0.0.1", "::1", "10.1.2.3", "192.168.1.7", "172.16.0.1", "fd12::7"):
        assert hosts.is_allowed(address)


def test_a_certificate_is_checked_against_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = [*made, "-keyout", str(key), "-out", str(certificate), *names]
    subprocess.run(command, check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    class Ok(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Ok)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # A refused handshake.
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    port = server.server_address[1]
    try:
        deliver("webhook", f"https://localhost:{port}")
        with pytest.raises(ChannelUnreachableError, match=r"(?i)certificate"):
            deliver("webhook", f"https://127.0.0.1:{port}")
    finally:
        server.shutdown()
        thread.join(30)
        server.server_close()


def test_retry_after_is_read_in_both_forms() -> None:
    assert read_retry_after("120", NOW) == 120.0
    assert read_retry_after("Sun, 01 Mar 2026 12:01:00 GMT", NOW) == 60.0
    assert read_retry_after("Sun, 01 Mar 2026 11:00:00 GMT", NOW) == 0.0
    assert read_retry_after("99999999999", NOW) == 86_400.0
    for nonsense in (None, "", "soon", "-5", "1e3", "²"):
        assert read_retry_after(nonsense, NOW) is None


# --- mail -------------------------------------------------------------------------------------


def test_a_mail_arrives_with_its_clip(mail_server: Any, tmp_path: Path) -> None:
    clip = tmp_path / "incident-7.opus"
    clip.write_bytes(b"OggS and so on")
    deliver("apprise", mail_server.url(), clip=clip)
    (mail,) = mail_server.mails
    assert (mail["Subject"], mail["To"]) == ("pump 3", "ops@example.org")
    assert mail["From"].endswith("soundpost@example.org")
    body = mail.get_body(("plain",))
    assert body is not None and body.get_content().strip() == "It sounds new."
    (attachment,) = mail.iter_attachments()
    assert attachment.get_filename() == "incident-7.opus"
    assert attachment.get_content() == b"OggS and so on"


def test_a_mail_that_is_put_off_is_tried_again_and_one_that_is_refused_is_not(
    mail_server: Any,
) -> None:
    mail_server.refusals += ["451 greylisted", "550 no such user"]
    with pytest.raises(ChannelUnreachableError, match="greylisted"):
        deliver("apprise", mail_server.url())
    with pytest.raises(ChannelRefusedError, match="no such user"):
        deliver("apprise", mail_server.url())
    deliver("apprise", mail_server.url())
    assert len(mail_server.mails) == 1


def test_a_mail_server_that_is_away_is_tried_again(free_tcp_port: int) -> None:
    with pytest.raises(ChannelUnreachableError, match="refused"):
        deliver("apprise", f"mailto://127.0.0.1:{free_tcp_port}/a@x.org?from=b@x.org&mode=insecure")


def test_a_service_that_refuses_by_http_is_not_tried_again(webhook_server: Any) -> None:
    url = webhook_server.url.replace("http://", "json://")
    webhook_server.answers += [401, 500]
    with pytest.raises(ChannelRefusedError, match="401"):
        deliver("apprise", url)
    with pytest.raises(ChannelUnreachableError, match="500"):
        deliver("apprise", url)


# --- MQTT -------------------------------------------------------------------------------------


def test_a_message_arrives_at_the_broker(broker: Any, subscribe: Any) -> None:
    subscribe()
    deliver("mqtt", broker.url)
    topic = "plant/soundpost/notifications"
    wait_for(lambda: bool(broker.payloads(topic)))
    (said,) = broker.payloads(topic)
    assert NotificationDocument.model_validate(said) == document()
    assert [message.qos for message in broker.messages] == [1]


def test_what_is_open_stays_at_its_topic_until_it_is_over(broker: Any, subscribe: Any) -> None:
    deliver("mqtt", broker.url, said=document(incident(1), incident(2)), retain_state=True)
    over = document(incident(1, is_open=False))
    deliver("mqtt", broker.url, said=over, retain_state=True)
    subscribe()
    wait_for(lambda: bool(broker.payloads("plant/soundpost/incidents/2")))
    (still,) = broker.payloads("plant/soundpost/incidents/2")
    assert still["state"] == "open"
    assert broker.payloads("plant/soundpost/incidents/1") == []
    deliver("mqtt", broker.url, said=document(incident(2, is_open=False)), retain_state=True)
    wait_for(lambda: len(broker.payloads("plant/soundpost/incidents/2")) == 3)
    _, last, nothing = broker.payloads("plant/soundpost/incidents/2")
    assert (last["state"], nothing) == ("resolved", None)


def test_a_broker_that_refuses_says_why(broker: Any) -> None:
    wrong = broker.url.replace("correct-horse", "wrong-password")
    with pytest.raises(ChannelRefusedError, match="Not authorized") as caught:
        deliver("mqtt", wrong)
    assert "wrong-password" not in str(caught.value)
    with pytest.raises(ChannelRefusedError, match="Not authorized"):
        deliver("mqtt", broker.url.replace("ada:correct-horse", "eve:may-do-nothing"))


def test_a_broker_that_is_killed_is_unreachable_until_it_is_back(broker: Any) -> None:
    broker.kill()
    with pytest.raises(ChannelUnreachableError, match="refused"):
        deliver("mqtt", broker.url)
    broker.start()
    deliver("mqtt", broker.url)


def test_a_broker_that_never_answers_is_left(broker: Any) -> None:
    broker.process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(ChannelUnreachableError):
            deliver("mqtt", broker.url, timeout_s=0.5)
    finally:
        broker.process.send_signal(signal.SIGCONT)


def wait_for(condition: Any) -> None:
    last = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < last, "it never came"
        time.sleep(0.01)


# --- what is never shown ----------------------------------------------------------------------

ADDRESSES = [
    ("webhook", "https://ada:hunter22@hook.example.org:8443/T0KEN111/T0KEN222?sig=T0KEN333"),
    ("mqtt", "mqtts://ada:hunter22@broker.example.org/plant"),
    ("apprise", "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#ops"),
    ("apprise", "mailto://ada:hunter22@example.org"),
    ("apprise", "tgram://123456789:AAbbccddeeffgghhiijjkk/12315544/"),
    ("apprise", "ntfy://ada:hunter22@ntfy.example.org/topic-is-a-secret"),
    ("apprise", "json://example.org/T0KEN111?+X-Token=T0KEN444"),
]
SECRETS = ("hunter22", "T0KEN", "T1JJ3T3L2", "A1BRTD4JD", "TIiajk", "AAbbcc", "topic-is-a-secret")


@pytest.mark.parametrize(("kind", "url"), ADDRESSES)
def test_no_secret_is_shown(kind: str, url: str) -> None:
    address = Address(kind, url, SECRET if kind == "webhook" else None)
    target = open_target(address)
    text = f"{url} failed: {url.partition('://')[2]} {url!r} {address.secret}"
    for shown in (target.shown, repr(address), hide(text, secrets_of(address))):
        assert [secret for secret in (*SECRETS, SECRET) if secret in shown] == []


class Leaky:
    """A target whose library quotes everything that it was given."""

    shown = "leaky"
    takes_clip = False

    def __init__(self, error: Exception) -> None:
        self._error = error

    def send(self, said: NotificationDocument, clip: Path | None, timeout_s: float) -> None:
        try:
            raise ValueError("cannot read https://hook.example.org/T0KEN111")
        except ValueError:
            raise self._error  # noqa: B904  # As a library would.


@pytest.mark.parametrize("kind", [RuntimeError, ChannelRefusedError, ChannelUnreachableError])
def test_what_a_library_quotes_is_masked(
    kind: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    url = "https://ada:hunter22@hook.example.org/T0KEN111"
    address = Address("webhook", url, SECRET)
    with pytest.raises(NotifyError) as caught:
        send(Leaky(kind(f"{url} {SECRET}")), address, document(), None, 5.0)
    for text in ("".join(traceback.format_exception(caught.value)), caplog.text):
        assert [secret for secret in (*SECRETS, SECRET) if secret in text] == []


def test_nothing_is_logged_of_an_address(webhook_server: Any) -> None:
    written = io.StringIO()
    handler, root = logging.StreamHandler(written), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        deliver("webhook", f"{webhook_server.url}/T0KEN111", secret=SECRET)
        webhook_server.answers.append(401)
        with pytest.raises(ChannelRefusedError):
            url = webhook_server.url.replace("http", "json")
            deliver("apprise", f"{url}/T0KEN111?+X-Key=T0KEN222")
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    assert len(webhook_server.received) == 2
    assert "httpcore" in written.getvalue() or "connect_tcp" in written.getvalue()
    assert "T0KEN" not in written.getvalue()


@pytest.mark.parametrize(
    ("kind", "url", "secret"),
    [
        ("webhook", "ftp://example.org", None),
        ("webhook", "file:///etc/passwd", None),
        ("webhook", "https://", None),
        ("webhook", "https://example.org/a\r\nX-Evil: yes", None),
        ("webhook", "https://exa mple.org/hunter22", None),
        ("webhook", "https://example.org:99999/hunter22", None),
        ("webhook", "https://example.org", "whsec_hunter22"),
        ("webhook", "https://example.org", "hunter22 is no base64"),
        ("mqtt", "mqtt://ada:hunter22@example.org/a/#", None),
        ("mqtt", "tcp://ada:hunter22@example.org", None),
        ("mqtt", "mqtt://example.org", SECRET),
        ("apprise", "nonsense://ada:hunter22@example.org", None),
        ("apprise", "syslog://", None),
        ("apprise", "hunter22", None),
        ("apprise", "", None),
        ("apprise", "mailto://" + "x" * 3000, None),
    ],
)
def test_an_address_that_cannot_be_sent_to_is_refused_without_quoting_it(
    kind: str, url: str, secret: str | None
) -> None:
    with pytest.raises(InvalidValueError) as caught:
        open_target(Address(kind, url, secret))
    assert "hunter22" not in str(caught.value)


def test_a_setting_that_a_kind_does_not_have_is_refused() -> None:
    for kind, url, settings in (
        ("webhook", "https://example.org", {"retain_state": True}),
        ("mqtt", "mqtt://example.org", {"retain_state": "yes"}),
        ("apprise", "mailto://a:b@example.org", {"colour": "red"}),
    ):
        with pytest.raises(InvalidValueError):
            open_target(Address(kind, url, None, settings))


def test_the_kind_is_seen_from_the_address() -> None:
    slack = "https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
    assert infer_kind("mqtts://broker/x") == "mqtt"
    assert infer_kind("https://example.org/hook") == "webhook"
    assert infer_kind("http://10.0.0.7:8080") == "webhook"
    assert infer_kind(slack) == "apprise"
    assert infer_kind("mailto://a:b@example.org") == "apprise"

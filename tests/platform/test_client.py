"""The client: typed answers, our own errors, and questions asked again only where that is safe."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from soundpost.client import Client
from soundpost.errors import (
    EmptyArchiveError,
    InvalidValueError,
    JobStateError,
    NotAudioError,
    PathNotFoundError,
    ServiceError,
    ServiceTimeoutError,
    ServiceUnreachableError,
    UnknownRecordingError,
    UnreadableFileError,
)

Talk = Callable[[socket.socket, int], None]


def answer(body: bytes, status: str = "200 OK", kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


HEALTHY = answer(json.dumps({"status": "ok", "version": "0.1.0", "later": 1}).encode())


@contextmanager
def peer(talk: Talk) -> Iterator[tuple[str, list[int]]]:
    """A server that treats its connections one after the other as `talk` says, and counts them."""
    count: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def run() -> None:
            while True:
                try:
                    sock, _ = server.accept()
                except OSError:
                    return
                with sock:
                    count.append(1)
                    try:
                        sock.recv(65536)
                        talk(sock, len(count))
                    except OSError:
                        continue

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}", count
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(20)


def hang_up_until(last: int) -> Talk:
    def talk(sock: socket.socket, number: int) -> None:
        if number >= last:
            sock.sendall(HEALTHY)

    return talk


def test_it_imports_with_only_the_bare_install() -> None:
    code = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"numpy", "sqlalchemy", "fastapi", "starlette", "structlog",
                                      "prometheus_client", "python_multipart", "soundfile", "av",
                                      "soxr", "obstore", "torch", "uvicorn", "apprise", "paho",
                                      "celery", "kombu", "alembic", "faiss"}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Refuse())
from soundpost.client import Client
Client("http://127.0.0.1:1").close()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_question_is_asked_again_when_the_connection_fails() -> None:
    with peer(hang_up_until(3)) as (url, count), Client(url) as client:
        assert client.health().version == "0.1.0"
    assert len(count) == 3


def test_it_gives_up_in_the_end_and_says_so() -> None:
    with peer(hang_up_until(9)) as (url, count), Client(url, retries=1) as client:
        with pytest.raises(ServiceUnreachableError) as caught:
            client.health()
        assert url in str(caught.value.value)
    assert len(count) == 2


def test_what_changes_something_is_never_sent_twice() -> None:
    with peer(hang_up_until(9)) as (url, count), Client(url) as client:
        for send in (
            lambda: client.retry(1),
            lambda: client.change_rule(1, actor="ann", enabled=False),
            lambda: client.delete_rule(1, actor="ann"),
            lambda: client.upload(io.BytesIO(b"abc")),
        ):
            before = len(count)
            with pytest.raises((ServiceUnreachableError, ServiceError)):
                send()
            assert len(count) == before + 1


def test_nobody_there_is_a_clear_error() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with Client(f"http://127.0.0.1:{unused.getsockname()[1]}", retries=0) as client:
            with pytest.raises(ServiceUnreachableError) as caught:
                client.sources()
            assert caught.value.remedy


def test_an_answer_that_does_not_come_is_a_timeout() -> None:
    release = threading.Event()

    def talk(sock: socket.socket, number: int) -> None:
        release.wait(30)

    with peer(talk) as (url, count), Client(url, timeout_s=0.1) as client:
        with pytest.raises(ServiceTimeoutError):
            client.health()
        release.set()
    assert len(count) == 1


@pytest.mark.parametrize(
    "reply",
    [
        answer(b"<html>It works!</html>", kind="text/html"),
        answer(b"{}"),
        answer(b"nothing", "502 Bad Gateway", "text/html"),
        answer(b"{}", "400 Bad Request", "application/problem+json"),
        answer(b"", "302 Found"),
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ],
)
def test_an_answer_of_something_else_is_an_error_of_ours(reply: bytes) -> None:
    with client_of(reply) as client, pytest.raises(ServiceError):
        client.health()


@contextmanager
def client_of(reply: bytes) -> Iterator[Client]:
    """A client of a server that says the same to everything."""
    with peer(lambda sock, _: sock.sendall(reply)) as (url, _), Client(url, retries=0) as client:
        yield client


def problem(code: str) -> bytes:
    body = {"type": "urn:x", "title": "Odd", "status": 418, "code": code, "value": "7"}
    more = {"detail": "of a kind", "remedy": "Wait.", "request_id": "r-1", "later": True}
    return answer(json.dumps({**body, **more}).encode(), "418 Odd", "application/problem+json")


def test_an_error_keeps_value_detail_remedy_and_request() -> None:
    with client_of(problem("job-state")) as client, pytest.raises(JobStateError) as caught:
        client.job(7)
    error = caught.value
    assert (error.code, error.value, error.detail) == ("job-state", "7", "of a kind")
    assert error.remedy == "Wait."
    assert str(error) == "The job is in another state: 7 (of a kind)"
    assert error.__notes__ == ["request r-1"]
    assert JobStateError.remedy != "Wait."


def test_a_code_of_a_later_service_is_still_an_error_with_its_remedy() -> None:
    with client_of(problem("from-the-future")) as client, pytest.raises(ServiceError) as caught:
        client.job(7)
    assert caught.value.value == "from-the-future"
    assert caught.value.remedy == "Wait."


def test_a_download_that_breaks_off_leaves_no_file(tmp_path: Path) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\nContent-Length: 1000\r\n\r\n"

    with client_of(head + bytes(10)) as client, pytest.raises(ServiceUnreachableError):
        client.audio(1, tmp_path / "a.wav")
    assert list(tmp_path.iterdir()) == []


def test_an_address_that_is_none_is_refused() -> None:
    for address in ("http://[oops", "ftp://x", "x.example", "", "http://", "http://a:b"):
        with pytest.raises(InvalidValueError):
            Client(address)
    Client("https://[::1]:8780/behind/a/proxy").close()


def test_files_that_cannot_be_sent_are_named(tmp_path: Path) -> None:
    with Client() as client:
        with pytest.raises(PathNotFoundError):
            client.upload(tmp_path / "none.wav")
        with pytest.raises(UnreadableFileError):
            client.search_audio(tmp_path)


def test_errors_of_a_real_service_come_back_as_their_classes(sqlite_service: Any) -> None:
    client = sqlite_service.client
    with pytest.raises(UnknownRecordingError) as caught:
        client.recording(5)
    assert str(caught.value) == "No recording has this id: 5"
    with pytest.raises(EmptyArchiveError):
        client.search_text("a dog")
    with pytest.raises(NotAudioError):
        client.upload(io.BytesIO(b"only words"), name="words.txt")
    with pytest.raises(InvalidValueError) as invalid:
        client.search_text("a dog", k=0)
    assert "k" in str(invalid.value)


def test_a_file_object_is_sent_under_its_own_name(sqlite_service: Any, tmp_path: Path) -> None:
    path = tmp_path / "pond.wav"
    soundfile.write(path, np.ones(8000, np.int16), 8000)
    with path.open("rb") as file:
        assert sqlite_service.client.upload(file).recording.path == "upload:pond.wav"

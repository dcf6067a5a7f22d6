"""Reranking as it is installed: the command line, and the service with its models in a process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from soundpost.client import Client
from soundpost.errors import SoundpostError

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

PATIENCE_S = 120.0
QUERY = "1000 hz before 200 hz"


def until(condition: Callable[[], bool]) -> None:
    last = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < last, "it did not come about"
        time.sleep(0.1)


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_ready(client: Client) -> bool:
    try:
        return client.ready().ready
    except SoundpostError:
        return False


def children_of(process_id: int) -> list[int]:
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process_id)], capture_output=True, text=True, check=False
    )
    return [int(word) for word in listed.stdout.split()]


@pytest.fixture
def archive(soundpost: Any, write_tones: Any, untrained_reranker: Path) -> Any:
    """An archive of tones in both orders, and a reranker of random weights."""
    folder = soundpost.folder / "tones"
    for number, pitch in enumerate((200, 220, 1000, 1040)):
        other = 1000 if pitch < 500 else 200
        write_tones(folder / f"{number}.wav", (pitch, 4), (0, 1), (other, 4))
    soundpost.more.update(
        SOUNDPOST_RERANKER=str(untrained_reranker), SOUNDPOST_RERANK_BUDGET_S="60"
    )
    soundpost("ingest", folder)
    return soundpost


@pytest.fixture
def client(archive: Any) -> Iterator[tuple[Client, subprocess.Popen[str]]]:
    port = free_port()
    process = archive.start("serve", "--port", str(port))
    with Client(f"http://127.0.0.1:{port}") as client:
        until(lambda: is_ready(client))
        yield client, process
    process.terminate()
    out, err = process.communicate(timeout=60)
    print(out, err)  # noqa: T201  # shown where a test fails
    assert "hits are reranked by diffatr" in err


def ranking(document: Any) -> list[Any]:
    return [
        (hit["path"], hit["similarity"], hit["joint_probability"], hit["score"])
        for hit in document["hits"]
    ]


def test_command_line_and_service_rank_alike(archive: Any, client: Any) -> None:
    told = archive("search", QUERY, "--min-score", "0.05", "--json").document
    assert told["rerank"]["applied"], told["rerank"]
    assert told["rerank"]["candidates"] == len(told["hits"]) >= 4
    service, process = client
    found = service.search_text(QUERY, min_score=0.05)
    assert ranking(found.model_dump(mode="json")) == ranking(told)
    off = service.search_text(QUERY, min_score=0.05, rerank="off")
    plain = archive("search", QUERY, "--min-score", "0.05", "--json", "--rerank", "off").document
    assert ranking(off.model_dump(mode="json")) == ranking(plain)
    maps = Path(f"/proc/{process.pid}/maps").read_text()
    assert "libtorch" not in maps, "the service holds a model"


def test_the_service_reranks_again_after_its_models_died(client: Any) -> None:
    service, process = client
    before = service.search_text(QUERY, min_score=0.05)
    assert before.rerank.applied
    # Beside the model there is the one that keeps track of what Python's processes share.
    for child in children_of(process.pid):
        os.kill(child, signal.SIGKILL)
    until(lambda: reranks(service))
    after = service.search_text(QUERY, min_score=0.05)
    assert [hit.score for hit in after.hits] == [hit.score for hit in before.hits]


def reranks(service: Client) -> bool:
    try:
        return bool(service.search_text(QUERY, min_score=0.05).rerank.applied)
    except SoundpostError:
        return False

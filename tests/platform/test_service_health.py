"""What operators see: health, readiness, metrics, logs, request ids, and outages said plainly."""

from __future__ import annotations

import io
import json
import logging
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from soundpost.errors import BrokenCheckpointError, ModelError, StoreError
from soundpost.models.placeholder import ToneEncoder
from soundpost.service.logs import json_handler
from soundpost.store import jobs
from soundpost.store.session import Store, create_engine, open_store


def tone(seconds: float) -> NDArray[np.float32]:
    return (0.3 * np.sin(np.arange(round(seconds * 16_000)) * 0.4)).astype(np.float32)


def scrape(service: Any) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return every sample by its name and labels."""
    families = text_string_to_metric_families(service.client.metrics())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def value(found: dict[Any, float], name: str, **labels: str) -> float:
    return found[name, tuple(sorted(labels.items()))]


def test_a_service_with_everything_is_alive_and_ready(service: Any) -> None:
    assert service.client.health().status == "ok"
    ready = service.client.ready()
    assert ready.ready
    assert [check.name for check in ready.checks] == ["database", "schema", "encoder", "index"]
    assert httpx.get(f"{service.url}/readyz", timeout=60).status_code == 200


class BrokenEncoder(ToneEncoder):
    """Cannot embed anything."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def embed_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Fail."""
        raise self.error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BrokenCheckpointError("compact"), "broken-checkpoint"),
        (ConnectionRefusedError("no encoder"), "unexpected"),
    ],
)
def test_readiness_names_the_encoder_that_fails(
    start_service: Any, sqlite_store: Store, error: Exception, code: str
) -> None:
    service = start_service(sqlite_store, BrokenEncoder(error))
    assert httpx.get(f"{service.url}/readyz", timeout=60).status_code == 503
    ready = service.client.ready()
    (failing,) = [check for check in ready.checks if not check.ok]
    assert (ready.ready, failing.name, failing.code) == (False, "encoder", code)
    assert failing.remedy
    assert service.client.health().status == "ok"


def test_an_encoder_that_fails_is_503_for_those_who_search(
    start_service: Any, sqlite_store: Store
) -> None:
    service = start_service(sqlite_store, BrokenEncoder(BrokenCheckpointError("compact")))
    service.fill(a=tone(5.0))
    with pytest.raises(ModelError) as caught:
        service.client.search_text("1000 hz")
    assert type(caught.value) is BrokenCheckpointError


def test_what_nobody_thought_of_is_a_plain_500(start_service: Any, sqlite_store: Store) -> None:
    service = start_service(sqlite_store, BrokenEncoder(ZeroDivisionError("secret")))
    service.fill(a=tone(5.0))
    answer = httpx.post(
        f"{service.url}/v1/search/text",
        json={"text": "a"},
        headers={"X-Request-ID": "abc"},
        timeout=60,
    )
    assert (answer.status_code, answer.json()["code"]) == (500, "unexpected")
    assert answer.headers["X-Request-ID"] == answer.json()["request_id"] == "abc"
    assert "secret" not in answer.text


@pytest.fixture
def broken(start_service: Any, store_url: str, tmp_path: Path, request: Any) -> Iterator[Any]:
    """A service whose database is taken away: dropped on PostgreSQL, overwritten on SQLite."""
    store = open_store(store_url)
    service = start_service(store)
    service.fill(a=tone(5.0))

    def take_away() -> None:
        if store_url.startswith("sqlite"):
            store.close()
            for path in tmp_path.glob("soundpost.db*"):
                path.unlink()
            (tmp_path / "soundpost.db").write_bytes(b"not a database at all" * 100)
        else:
            database = store_url.partition("@/")[2].partition("?")[0]
            request.getfixturevalue("postgres_server").drop(database)
            # The fixture that made it drops it again.
            request.getfixturevalue("postgres_server").execute(f'CREATE DATABASE "{database}"')
            store.close()

    yield service, take_away
    store.close()


def test_without_its_database_everything_is_503_or_says_so(broken: Any) -> None:
    service, take_away = broken
    take_away()
    ready = service.client.ready()
    assert not ready.ready
    assert "schema" in {check.name for check in ready.checks if not check.ok}
    assert service.client.health().status == "ok"


def test_a_server_that_is_gone_is_503_with_the_remedy(start_service: Any) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        url = f"postgresql://nobody:secret@127.0.0.1:{port}/none"
        service = start_service(Store(create_engine(url)))
        for ask in (
            lambda: list(service.client.recordings()),
            lambda: service.client.search_text("a"),
            lambda: service.client.upload(io.BytesIO(b"x" * 100)),
            service.client.sources,
        ):
            with pytest.raises(StoreError) as caught:
                ask()
            assert "secret" not in str(caught.value)
        answer = httpx.get(f"{service.url}/v1/sources", timeout=60)
        assert (answer.status_code, int(answer.headers["Retry-After"]) > 0) == (503, True)
        failing = {check.name for check in service.client.ready().checks if not check.ok}
        assert failing == {"database", "schema"}
        assert value(scrape(service), "soundpost_database_up") == 0.0


def test_metrics_tell_of_jobs_audio_searches_and_the_index(service: Any) -> None:
    service.fill("hall", a=tone(30.0), b=tone(42.0))
    service.client.search_text("1000 hz")
    with service.store.session() as session:
        made = [
            jobs.add(session, jobs.NewJob("embed", f"k{number}", "embed"))[0].id
            for number in range(3)
        ]
        start = jobs.utc_now()
        for number, job_id in enumerate(made[:2]):
            held = jobs.lease(session, job_id, f"worker-{number}", 3600.0, now=start)
            assert held is not None
            if number == 0:
                jobs.complete(session, held)
                row = jobs.get(session, job_id)
                session.refresh(row)
                row.finished_at = start + timedelta(seconds=4.0)
    found = scrape(service)
    assert value(found, "soundpost_database_up") == 1.0
    for state in ("queued", "running", "done"):
        assert value(found, "soundpost_jobs", kind="embed", state=state) == 1.0
    assert value(found, "soundpost_job_seconds", kind="embed", quantile="0.5") == 4.0
    assert value(found, "soundpost_embedded_audio_hours") == pytest.approx(72 / 3600)
    labels = {"kind": "text", "outcome": "ok"}
    assert value(found, "soundpost_search_seconds_count", **labels) == 1.0
    assert value(found, "soundpost_search_seconds_sum", **labels) > 0.0
    assert value(found, "soundpost_index_vectors") == len(service.index)
    assert value(found, "soundpost_index_lag_embeddings") == 0.0
    assert value(found, "soundpost_worker_running_jobs", worker="worker-1") == 1.0
    assert value(found, "soundpost_worker_running_jobs", worker="worker-0") == 0.0
    seen = "soundpost_worker_last_seen_timestamp_seconds"
    assert value(found, seen, worker="worker-1") >= start.timestamp()
    service.index.remove(service.index.ids()[:3])
    late = scrape(service)
    assert value(late, "soundpost_index_lag_embeddings") == 3.0
    assert value(late, "soundpost_index_lag_seconds") > 0.0


def test_metrics_count_requests_by_route_not_by_address(sqlite_service: Any) -> None:
    for number in (1, 2, 3):
        httpx.get(f"{sqlite_service.url}/v1/recordings/{number}", timeout=60)
    httpx.get(f"{sqlite_service.url}/nothing/here", timeout=60)
    found = scrape(sqlite_service)
    name = "soundpost_http_requests_total"
    route = "/v1/recordings/{recording_id}"
    assert value(found, name, method="GET", route=route, status="404") == 3.0
    assert value(found, name, method="GET", route="none", status="404") == 1.0


def test_a_sane_request_id_is_kept_and_another_replaced(sqlite_service: Any) -> None:
    url = f"{sqlite_service.url}/healthz"
    given = httpx.get(url, headers={"X-Request-ID": "trace-1.a"}, timeout=60)
    assert given.headers["X-Request-ID"] == "trace-1.a"
    for odd in ("", "a b", "x" * 65, 'a"b', "{}"):
        made = httpx.get(url, headers={"X-Request-ID": odd}, timeout=60).headers["X-Request-ID"]
        assert made != odd
        assert len(made) == 32
    missing = httpx.get(
        f"{sqlite_service.url}/v1/jobs/5", headers={"X-Request-ID": "trace-2"}, timeout=60
    )
    assert missing.json()["request_id"] == "trace-2"


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What the service's loggers write, as JSON."""
    stream = io.StringIO()
    handler, logger = json_handler(stream), logging.getLogger("soundpost")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield stream
    logger.removeHandler(handler)
    logger.setLevel(before)


def test_logs_are_json_with_the_request_id(
    start_service: Any, sqlite_store: Store, lines: io.StringIO
) -> None:
    service = start_service(sqlite_store, BrokenEncoder(ZeroDivisionError("inside")))
    service.fill(a=tone(5.0))
    httpx.get(f"{service.url}/v1/jobs/5", headers={"X-Request-ID": "one"}, timeout=60)
    httpx.post(
        f"{service.url}/v1/search/text",
        json={"text": "a"},
        headers={"X-Request-ID": "two"},
        timeout=60,
    )
    found = [json.loads(line) for line in lines.getvalue().splitlines()]
    (request,) = [line for line in found if line.get("request_id") == "one"]
    assert (request["event"], request["path"], request["status"]) == ("request", "/v1/jobs/5", 404)
    assert request["took_s"] >= 0
    failed = [line for line in found if line.get("request_id") == "two"]
    assert [line["level"] for line in failed] == ["error", "info"]
    assert "ZeroDivisionError: inside" in failed[0]["exception"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "no-such-route"),
        ("GET", "/v1/nothing", 404, "no-such-route"),
        ("PUT", "/v1/recordings", 405, "method-not-allowed"),
        ("POST", "/v1/recordings/1", 405, "method-not-allowed"),
        ("GET", "/v1/recordings/1", 404, "unknown-recording"),
        ("GET", "/v1/jobs/1", 404, "unknown-job"),
        ("GET", "/v1/sources/x", 404, "unknown-source"),
    ],
)
def test_every_error_is_a_problem(
    sqlite_service: Any, method: str, path: str, status: int, code: str
) -> None:
    answer = httpx.request(method, f"{sqlite_service.url}{path}", timeout=60)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert problem["type"] == f"urn:soundpost:problem:{code}"
    assert (problem["status"], problem["instance"]) == (status, path)
    assert problem["title"] and problem["remedy"] and problem["request_id"]
    assert ("Allow" in answer.headers) == (status == 405)


def test_the_service_loads_no_model_and_no_torch() -> None:
    code = "import sys, soundpost.service.app; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

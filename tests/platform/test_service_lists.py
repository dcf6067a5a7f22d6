"""Lists, jobs, sources, models and the index over HTTP."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from soundpost.errors import (
    InvalidValueError,
    JobStateError,
    NoSamplesError,
    UnknownJobError,
    UnknownRecordingError,
    UnknownSourceError,
)
from soundpost.jobs import JobQueue, NoSender
from soundpost.store import jobs, recordings, sources
from soundpost.store.recordings import NewRecording
from soundpost.store.session import Store

START = datetime(2026, 3, 1, tzinfo=UTC)


def add_recordings(store: Store, first: int, count: int, source: str = "yard") -> list[int]:
    """Add rows for recordings an hour apart; return their ids."""
    with store.session() as session:
        source_id = sources.ensure(session, source, "Europe/Berlin").id
        return [
            recordings.add(
                session,
                NewRecording(
                    source_id=source_id,
                    sha256=f"{number:064x}",
                    path=f"/archive/{number}.wav",
                    size_bytes=1000,
                    modified_ns=0,
                    started_at=START + timedelta(hours=number),
                    duration_s=60.0,
                    format="wav/pcm_16",
                ),
            )[0].id
            for number in range(first, first + count)
        ]


def tone(seconds: float) -> NDArray[np.float32]:
    return (0.3 * np.sin(np.arange(round(seconds * 16_000)) * 0.4)).astype(np.float32)


@pytest.mark.parametrize("newest_first", [False, True])
def test_pages_neither_double_nor_miss_while_rows_are_added(
    service: Any, newest_first: bool
) -> None:
    known = add_recordings(service.store, 0, 250)
    seen = []
    for row in service.client.recordings(page_size=40, newest_first=newest_first):
        seen.append(row.id)
        if len(seen) in (1, 41, 100):
            add_recordings(service.store, 1000 + len(seen), 3)
    assert len(seen) == len(set(seen))
    assert seen == sorted(seen, reverse=newest_first)
    assert set(known) <= set(seen)
    # What is newer than the first page is behind it in one order and before it in the other.
    assert len(seen) == (250 if newest_first else 259)


def test_pages_go_on_where_the_last_row_was_deleted(sqlite_service: Any) -> None:
    known = add_recordings(sqlite_service.store, 0, 30)
    seen = []
    for row in sqlite_service.client.recordings(page_size=10):
        seen.append(row.id)
        if len(seen) == 10:
            sqlite_service.client.delete(row.id)
    assert seen == known


def test_a_page_that_is_just_full_is_the_last(sqlite_service: Any) -> None:
    add_recordings(sqlite_service.store, 0, 10)
    page = httpx.get(f"{sqlite_service.url}/v1/recordings?limit=10", timeout=60).json()
    assert (len(page["items"]), page["next"]) == (10, None)


def test_filters_narrow_the_list(service: Any) -> None:
    yard = add_recordings(service.store, 0, 5)
    pond = add_recordings(service.store, 10, 5, source="pond")
    with service.store.session() as session:
        recordings.mark_failed(session, pond[0], NoSamplesError("x"))

    def ids(**filters: Any) -> list[int]:
        return [row.id for row in service.client.recordings(page_size=2, **filters)]

    assert ids(source="yard") == yard
    assert ids(status="failed") == pond[:1]
    assert ids(after=START + timedelta(hours=3)) == yard[3:] + pond
    assert ids(before=START + timedelta(hours=1)) == yard[:1]
    assert ids(source="pond", newest_first=True) == pond[::-1]
    with pytest.raises(UnknownSourceError):
        ids(source="nowhere")
    with pytest.raises(InvalidValueError):
        ids(after=START, before=START)


def test_a_failed_recording_says_why_and_what_to_do(service: Any) -> None:
    (known,) = add_recordings(service.store, 0, 1)
    with service.store.session() as session:
        recordings.mark_failed(session, known, NoSamplesError("/archive/0.wav"))
    row = service.client.recording(known)
    assert (row.status, row.error_code) == ("failed", "no-samples")
    assert row.error_detail == "The file has a header but no samples: /archive/0.wav"
    assert row.remedy == NoSamplesError.remedy
    with pytest.raises(UnknownRecordingError):
        service.client.recording(known + 1)


def test_a_name_that_is_not_unicode_can_be_shown(service: Any) -> None:
    with service.store.session() as session:
        source_id = sources.ensure(session, "yard").id
        path = b"/archive/\xff\xfe.wav".decode("utf-8", "surrogateescape")
        new = NewRecording(source_id, "0" * 64, path, 1000, 0)
        known = recordings.add(session, new)[0].id
    assert service.client.recording(known).path == "/archive/??.wav"


@pytest.mark.parametrize("kind", ["recordings", "jobs"])
@pytest.mark.parametrize(
    "plain", ["", "recordings", "recordings>0", "recordings>x", "windows>5", "jobs<5", "💥", "a>1"]
)
def test_a_cursor_that_was_not_given_is_refused(sqlite_service: Any, kind: str, plain: str) -> None:
    cursor = base64.urlsafe_b64encode(plain.encode()).decode()
    answer = httpx.get(f"{sqlite_service.url}/v1/{kind}", params={"cursor": cursor}, timeout=60)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-value")


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "limit=x", "cursor=%00", "status=odd"])
def test_a_list_that_makes_no_sense_is_refused(sqlite_service: Any, query: str) -> None:
    answer = httpx.get(f"{sqlite_service.url}/v1/recordings?{query}", timeout=60)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-value")
    assert answer.json()["faults"] or query.startswith("cursor")


@pytest.mark.parametrize("number", ["0", "-1", "9223372036854775808", "1e3", "x", "1.5"])
def test_an_id_that_can_be_none_is_refused(service: Any, number: str) -> None:
    for kind in ("recordings", "jobs"):
        answer = httpx.get(f"{service.url}/v1/{kind}/{number}", timeout=60)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid-value")


def test_jobs_are_listed_retried_and_cancelled(service: Any) -> None:
    queue = JobQueue(NoSender())
    known = add_recordings(service.store, 0, 3)
    with service.store.session() as session:
        source_id = sources.by_name(session, "yard").id
        made = [queue.embed(session, number, source_id).id for number in known]
    client = service.client
    cancelled = client.cancel(made[0])
    assert (cancelled.state, cancelled.recording_id) == ("cancelled", known[0])
    with pytest.raises(JobStateError) as caught:
        client.cancel(made[0])
    assert caught.value.detail == "cancelled"
    again = client.retry(made[0])
    assert (again.state, again.attempts) == ("queued", 0)
    # The message of a job that is queued again goes out at once.
    assert [message.id for message in service.sender.messages] == [made[0]]
    with pytest.raises(JobStateError):
        client.retry(made[0])
    with pytest.raises(UnknownJobError):
        client.retry(10**6)
    client.cancel(made[2])
    assert [job.id for job in client.jobs(page_size=2)] == made
    assert [job.id for job in client.jobs(state="queued", newest_first=True)] == made[1::-1]
    assert [job.id for job in client.jobs(state="cancelled", kind="embed", source="yard")] == made[
        2:
    ]
    assert list(client.jobs(kind="index")) == []
    assert client.job(made[1]).state == "queued"


def test_a_failed_job_shows_its_traceback_and_remedy(service: Any) -> None:
    (known,) = add_recordings(service.store, 0, 1)
    with service.store.session() as session:
        new = jobs.NewJob("embed", "one", "embed", {"recording": known}, max_attempts=1)
        job_id = jobs.add(session, new)[0].id
    with service.store.session() as session:
        held = jobs.lease(session, job_id, "worker-1", 60.0)
        assert held is not None
        jobs.fail(session, held, NoSamplesError("a.wav"))
    job = service.client.job(job_id)
    assert (job.state, job.error_code, job.worker) == ("failed", "no-samples", "worker-1")
    assert job.error_detail is not None and "NoSamplesError" in job.error_detail
    assert job.remedy == NoSamplesError.remedy


def test_sources_are_counted(service: Any) -> None:
    service.fill("hall", a=tone(5.0), b=tone(7.0))
    add_recordings(service.store, 0, 1, source="by the pond / north")
    found = {source.name: source for source in service.client.sources()}
    assert list(found) == ["by the pond / north", "hall"]
    hall = found["hall"]
    assert (hall.recordings, hall.embedded, hall.duration_s) == (2, 2, 12.0)
    assert service.client.source("by the pond / north") == found["by the pond / north"]
    assert service.client.source("by the pond / north").timezone == "Europe/Berlin"
    with pytest.raises(UnknownSourceError):
        service.client.source("nowhere")


def test_models_and_the_index_say_what_there_is(service: Any) -> None:
    assert service.client.models() == []
    service.fill("hall", a=tone(10.0))
    (model,) = service.client.models()
    assert (model.name, model.active, model.dimension) == ("placeholder:tone", True, 32)
    index = service.client.index()
    assert (index.vectors, index.embeddings, index.behind, index.behind_s) == (
        model.embeddings,
        model.embeddings,
        0,
        0.0,
    )
    assert (index.engine, index.layout, index.model) == ("exact", "flat", model.name)
    service.index.remove(service.index.ids()[:2])
    late = service.client.index()
    assert late.behind == 2
    assert late.behind_s > 0

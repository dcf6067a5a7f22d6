"""Recordings in a bucket: fetched once, copied, known by their URL, whatever happens on the way."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
import soundfile
from moto.server import ThreadedMotoServer
from sqlalchemy import select

from soundpost.archive.discover import Discovery, Selection
from soundpost.archive.ingest import ingest
from soundpost.archive.plan import IngestOptions, Timing
from soundpost.archive.register import register
from soundpost.archive.remote import find_remote, ingest_remote, is_remote
from soundpost.archive.summary import Summary
from soundpost.errors import (
    AudioStoreError,
    InvalidValueError,
    NoAudioFoundError,
    RemoteStoreError,
)
from soundpost.jobs import JobQueue, NoSender
from soundpost.models.placeholder import ToneEncoder
from soundpost.store import models
from soundpost.store.files import AudioFiles
from soundpost.store.session import Store, open_store
from soundpost.store.tables import Recording

RATE_HZ = 8_000
KEYS = ("site/20260315_043000.wav", "site/deep/b c+ü%41.flac", "site/deep/c.WAV", "top.wav")


def sound(seed: int, suffix: str = ".wav", duration_s: float = 1.0) -> bytes:
    """A recording of noise."""
    wave = np.random.default_rng(seed).normal(0, 0.1, round(duration_s * RATE_HZ))
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, RATE_HZ, format=suffix[1:].upper())
    return buffer.getvalue()


class Bucket:
    """A bucket of a real server, as another program fills it."""

    def __init__(self, endpoint: str, name: str) -> None:
        self.name = name
        self.url = f"s3://{name}"
        self._client: Any = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
        self._client.create_bucket(Bucket=name)

    def put(self, key: str, content: bytes) -> None:
        self._client.put_object(Bucket=self.name, Key=key, Body=content)

    def delete(self, key: str) -> None:
        self._client.delete_object(Bucket=self.name, Key=key)

    def listed(self) -> set[str]:
        listed = self._client.list_objects_v2(Bucket=self.name).get("Contents", [])
        return {found["Key"] for found in listed}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(
    endpoint: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Bucket:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    return Bucket(endpoint, f"bucket-{abs(hash(request.node.nodeid)) % 10**12}")


@pytest.fixture
def filled(bucket: Bucket) -> Bucket:
    """Four recordings and two other objects."""
    for number, key in enumerate(KEYS):
        bucket.put(key, sound(number, Path(key).suffix))
    bucket.put("site/notes.txt", b"no sound")
    bucket.put("site/", b"")
    return bucket


@pytest.fixture
def objects(tmp_path: Path) -> AudioFiles:
    return AudioFiles((tmp_path / "objects").as_uri())


class Archive:
    """An archive that ingests, or only registers."""

    def __init__(self, store: Store, objects: AudioFiles, scratch: Path) -> None:
        self.store, self.objects, self.scratch = store, objects, scratch
        self.fetched: list[str] = []
        self.encoder = ToneEncoder()
        with store.session() as session:
            self.model_id = models.ensure(session, self.encoder.spec).id

    def ingest(self, url: str, selection: Selection | None = None, **options: Any) -> Summary:
        chosen = replace(IngestOptions(source="site", copy=True), **options)
        model_id = self.model_id

        def admit(found: Discovery, before: Summary) -> Summary:
            self.fetched += [origin.url for origin in found.origins.values()]
            return ingest(found, chosen, self.store, self.encoder, None, self.objects)

        listing = find_remote(url, selection or Selection())
        timing = chosen.timing
        return ingest_remote(
            listing, "site", self.store, admit, self.scratch, model_id=model_id, timing=timing
        )

    def rows(self) -> dict[str, Recording]:
        with self.store.reading() as session:
            return {row.path: row for row in session.scalars(select(Recording))}


@pytest.fixture
def archive(store: Store, objects: AudioFiles, tmp_path: Path) -> Archive:
    return Archive(store, objects, tmp_path / "scratch")


def test_a_prefix_is_ingested_and_nothing_else(filled: Bucket, archive: Archive) -> None:
    filled.put("site-2/other.wav", sound(9))
    summary = archive.ingest(f"{filled.url}/site/", timing=Timing(from_name=True))
    assert (summary.files, summary.ingested, len(summary.not_audio)) == (3, 3, 1)
    rows = archive.rows()
    assert set(rows) == {f"{filled.url}/{key}" for key in KEYS[:3]}
    assert {row.status for row in rows.values()} == {"embedded"}
    first = rows[f"{filled.url}/{KEYS[0]}"]
    assert first.started_at == datetime(2026, 3, 15, 4, 30, tzinfo=UTC)
    filled.delete(KEYS[0])
    assert archive.objects.open_local(first).read_bytes() == sound(0)
    assert list(archive.scratch.iterdir()) == []


def test_the_same_again_fetches_nothing(filled: Bucket, archive: Archive) -> None:
    archive.ingest(filled.url)
    archive.fetched.clear()
    again = archive.ingest(filled.url)
    assert (again.duplicate, again.ingested, again.files) == (4, 0, 4)
    assert archive.fetched == []
    filled.put("new.wav", sound(7))
    filled.put("top.wav", sound(8, duration_s=1.5))
    more = archive.ingest(filled.url)
    assert (more.duplicate, more.ingested) == (3, 2)
    assert set(archive.fetched) == {f"{filled.url}/new.wav", f"{filled.url}/top.wav"}


def test_a_time_that_is_asked_for_later_is_found_in_the_name(
    filled: Bucket, archive: Archive
) -> None:
    archive.ingest(filled.url)
    summary = archive.ingest(filled.url, timing=Timing(from_name=True))
    assert summary.dated == 1
    assert archive.rows()[f"{filled.url}/{KEYS[0]}"].started_at is not None


@pytest.mark.parametrize(
    ("selection", "keys"),
    [
        (Selection(pattern="*.flac"), {KEYS[1]}),
        (Selection(pattern="deep/*.wav"), {KEYS[2]}),
        (Selection(recursive=False), {KEYS[0]}),
    ],
)
def test_objects_are_selected_like_files(
    filled: Bucket, selection: Selection, keys: set[str]
) -> None:
    listing = find_remote(f"{filled.url}/site", selection)
    assert {found.key for found in listing.objects} == keys


def test_one_object_can_be_named(filled: Bucket, archive: Archive) -> None:
    summary = archive.ingest(f"{filled.url}/{KEYS[1]}")
    assert summary.ingested == 1
    assert set(archive.rows()) == {f"{filled.url}/{KEYS[1]}"}


def test_the_same_content_is_one_recording_wherever_it_is(
    filled: Bucket, archive: Archive, tmp_path: Path
) -> None:
    filled.put("copy.wav", sound(3))
    assert archive.ingest(filled.url).duplicate == 1
    local = tmp_path / "local.wav"
    local.write_bytes(sound(0))
    before = set(archive.rows())
    found = Discovery(files=[local])
    options = IngestOptions(source="site")
    assert ingest(found, options, archive.store, archive.encoder, None).duplicate == 1
    assert set(archive.rows()) == before


def test_broken_objects_are_reported_by_their_url(filled: Bucket, archive: Archive) -> None:
    filled.put("site/empty.wav", b"")
    filled.put("site/text.wav", b"this is no sound at all")
    filled.put("site/cut.wav", sound(5)[:6000])
    filled.put("site/nosamples.wav", sound(5)[:44])
    summary = archive.ingest(filled.url)
    assert summary.ingested == 5
    assert {finding.path for finding in summary.failed} == {
        f"{filled.url}/site/{name}.wav" for name in ("empty", "text", "nosamples")
    }
    assert [finding.path for finding in summary.truncated] == [f"{filled.url}/site/cut.wav"]
    for row in archive.rows().values():
        assert str(archive.scratch) not in f"{row.path} {row.error_detail}"
    for finding in (*summary.failed, *summary.truncated):
        assert str(archive.scratch) not in finding.message


def test_an_object_that_is_gone_meanwhile_is_a_finding(filled: Bucket, archive: Archive) -> None:
    listing = find_remote(filled.url, Selection())
    filled.delete("top.wav")

    def admit(found: Discovery, before: Summary) -> Summary:
        options = IngestOptions(source="site", copy=True)
        return ingest(found, options, archive.store, archive.encoder, None, archive.objects)

    summary = ingest_remote(listing, "site", archive.store, admit, archive.scratch)
    assert summary.ingested == 3
    assert [finding.code for finding in summary.failed] == ["file-missing"]
    assert archive.rows()[f"{filled.url}/top.wav"].error_code == "file-missing"


def test_many_objects_come_in_groups(bucket: Bucket, archive: Archive) -> None:
    for number in range(70):
        bucket.put(f"{number:03d}.wav", sound(number, duration_s=0.1))
    sizes: list[tuple[int, int]] = []

    def admit(found: Discovery, before: Summary) -> Summary:
        sizes.append((len(found.files), before.reached))
        options = IngestOptions(source="site", copy=True)
        queue = JobQueue(NoSender())
        return register(found, options, archive.store, queue, archive.objects)

    listing = find_remote(bucket.url, Selection())
    summary = ingest_remote(listing, "site", archive.store, admit, archive.scratch)
    assert sizes == [(32, 0), (32, 32), (6, 64)]
    assert (summary.queued, summary.files) == (70, 70)


def test_stopped_it_goes_on_where_it_was(bucket: Bucket, archive: Archive) -> None:
    for number in range(40):
        bucket.put(f"{number:03d}.wav", sound(number, duration_s=0.1))
    stop = threading.Event()

    def admit(found: Discovery, before: Summary) -> Summary:
        options = IngestOptions(source="site", copy=True)
        summary = ingest(found, options, archive.store, archive.encoder, None, archive.objects)
        stop.set()
        return summary

    listing = find_remote(bucket.url, Selection())
    summary = ingest_remote(listing, "site", archive.store, admit, archive.scratch, stop=stop)
    assert summary.interrupted
    assert (summary.ingested, summary.files) == (32, 40)
    again = archive.ingest(bucket.url)
    assert (again.duplicate, again.ingested) == (32, 8)
    assert list(archive.scratch.iterdir()) == []


def test_errors_name_the_address_and_the_remedy(
    filled: Bucket, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NoAudioFoundError, match="nothing/here"):
        find_remote(f"{filled.url}/nothing/here", Selection())
    with pytest.raises(NoAudioFoundError, match="matches none of 3"):
        find_remote(f"{filled.url}/site", Selection(pattern="x*"))
    with pytest.raises(RemoteStoreError, match="no-such-bucket"):
        find_remote("s3://no-such-bucket/x", Selection())
    with pytest.raises(InvalidValueError, match="no bucket"):
        find_remote("s3:///x", Selection())


def test_without_room_for_what_is_fetched_it_says_so(
    filled: Bucket, archive: Archive, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    archive.scratch = tmp_path / "file"
    with pytest.raises(AudioStoreError):
        archive.ingest(filled.url)


def test_what_is_remote() -> None:
    assert is_remote("s3://bucket/x") and is_remote("GS://b") and is_remote("az://c/d")
    assert not any(map(is_remote, ["/s3", "s3:bucket", "http://x/y.wav", "folder/s3://x", ""]))


INGEST = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
from test_remote import *
store = open_store({database!r})
archive = Archive(store, AudioFiles({objects!r}), Path({scratch!r}))
print("ready", flush=True)
archive.ingest({url!r})
"""


@pytest.mark.slow
def test_killed_again_and_again_it_ends_complete(
    bucket: Bucket, sqlite_url: str, tmp_path: Path
) -> None:
    for number in range(80):
        bucket.put(f"{number:03d}.wav", sound(number, duration_s=2.0))
    scratch, objects = tmp_path / "scratch", (tmp_path / "objects").as_uri()
    code = INGEST.format(
        tests=str(Path(__file__).parent),
        database=sqlite_url,
        objects=objects,
        scratch=str(scratch),
        url=bucket.url,
    )
    rng = np.random.default_rng(6)
    for _ in range(4):
        process = _start(code)
        time.sleep(float(rng.uniform(0.1, 1.2)))
        process.send_signal(signal.SIGKILL)
        process.wait()
    store = open_store(sqlite_url)
    archive = Archive(store, AudioFiles(objects), scratch)
    summary = archive.ingest(bucket.url)
    rows = archive.rows()
    assert summary.reached == 80
    assert summary.failed == []
    assert set(rows) == {f"{bucket.url}/{key}" for key in bucket.listed()}
    assert {row.status for row in rows.values()} == {"embedded"}
    assert list(scratch.iterdir()) == []
    for row in rows.values():
        number = int(Path(row.path).stem)
        assert archive.objects.open_local(row).read_bytes() == sound(number, duration_s=2.0)
    store.close()


def _start(code: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.stdout.close()
    return process

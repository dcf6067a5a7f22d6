"""Uploads: kept byte for byte, registered once, and refused before they can do harm."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import struct
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from soundpost.errors import (
    DiskFullError,
    EmptyFileError,
    ImplausibleLengthError,
    InvalidValueError,
    MalformedRequestError,
    NoSamplesError,
    NotAudioError,
    QueueFullError,
    SoundpostError,
    TooLongError,
    UploadTooLargeError,
)
from soundpost.jobs import embed_key
from soundpost.service.spool import Spool
from soundpost.store import jobs, recordings
from soundpost.store.session import Store

RATE_HZ = 16_000


def noise(seconds: float, seed: int = 1) -> NDArray[np.int16]:
    rng = np.random.default_rng(seed)
    return rng.integers(-9000, 9000, round(seconds * RATE_HZ), dtype=np.int16)


def wav(seconds: float = 1.0, seed: int = 1) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, noise(seconds, seed), RATE_HZ, format="WAV")
    return file.getvalue()


def as_file(data: bytes) -> io.BytesIO:
    return io.BytesIO(data)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert condition()


def test_an_upload_is_kept_registered_and_queued(service: Any) -> None:
    data = wav()
    sent = service.client.upload(
        as_file(data),
        source="yard",
        started_at="2026-07-15T04:30",
        timezone="Europe/Berlin",
        name="dawn chorus.wav",
    )
    recording, job = sent.recording, sent.job
    assert not sent.known
    assert (recording.status, recording.source, recording.kept) == ("queued", "yard", True)
    assert recording.sha256 == hashlib.sha256(data).hexdigest()
    assert recording.started_at == datetime(2026, 7, 15, 2, 30, tzinfo=UTC)
    assert recording.duration_s == 1.0
    assert recording.path == "upload:dawn chorus.wav"
    assert job is not None
    assert (job.kind, job.state, job.recording_id) == ("embed", "queued", recording.id)
    assert [message.id for message in service.sender.messages] == [job.id]
    assert service.client.audio(recording.id) == data
    assert service.client.recording(recording.id) == recording
    assert service.left_behind() == []


def test_the_same_content_again_is_the_same_recording(service: Any) -> None:
    data = wav()
    first = service.client.upload(as_file(data), source="yard", name="a.wav")
    again = service.client.upload(as_file(data), source="elsewhere", name="b.wav")
    assert again.known
    assert again.recording == first.recording
    assert again.job == first.job
    with service.store.session() as session:
        recordings.mark_embedded(session, first.recording.id)
        jobs.cancel(session, first.job.id)
    assert service.client.upload(as_file(data)).job is None
    assert len(list(service.client.recordings())) == 1


def test_a_known_file_of_the_archive_gets_a_copy_and_keeps_its_place(service: Any) -> None:
    ids = service.fill(tone=(noise(5.0) / 32768).astype(np.float32))
    path = service.folder / "hall" / "tone.wav"
    sent = service.client.upload(path, name="other.wav")
    assert sent.known
    assert sent.recording.id == ids["tone"]
    assert sent.recording.path == str(path)
    assert sent.recording.kept
    path.unlink()
    assert len(service.client.audio(ids["tone"])) == sent.recording.size_bytes


def test_status_codes_and_headers_of_an_upload(sqlite_service: Any) -> None:
    url = f"{sqlite_service.url}/v1/recordings"
    first = httpx.post(url, files={"file": ("a.wav", wav())}, timeout=60)
    assert (first.status_code, first.headers["Location"]) == (202, "/v1/recordings/1")
    again = httpx.post(url, files={"file": ("a.wav", wav())}, timeout=60)
    assert (again.status_code, again.headers["Location"]) == (200, "/v1/recordings/1")


def test_a_local_time_is_in_the_zone_of_its_source(sqlite_service: Any) -> None:
    client = sqlite_service.client
    client.upload(as_file(wav(seed=1)), source="yard", timezone="Asia/Tokyo")
    sent = client.upload(as_file(wav(seed=2)), source="yard", started_at="2026-01-01T09:00")
    assert sent.recording.started_at == datetime(2026, 1, 1, tzinfo=UTC)
    exact = client.upload(as_file(wav(seed=3)), started_at=datetime(2026, 1, 1, tzinfo=UTC))
    assert exact.recording.started_at == datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd", "/etc/passwd", "C:\\temp\\x.wav", "a\x00b.wav", "..", "%2e%2e"]
)
def test_no_name_reaches_the_file_system(sqlite_service: Any, name: str) -> None:
    before = {path for path in sqlite_service.folder.rglob("*") if path.is_file()}
    sent = sqlite_service.client.upload(as_file(wav()), name=name)
    assert sent.recording.path.startswith("upload:")
    assert "/" not in sent.recording.path
    made = {path for path in sqlite_service.folder.rglob("*") if path.is_file()} - before
    objects = {path for path in made if "objects" in path.parts}
    assert [path.name for path in objects] == [sent.recording.sha256]
    assert {path.name for path in made - objects} <= {"soundpost.db-wal", "soundpost.db-shm"}


@pytest.mark.parametrize(
    ("data", "kind", "status"),
    [
        (b"These are only words, and nothing to listen to.\n" * 50, NotAudioError, 415),
        (b"", EmptyFileError, 422),
        (b"GIF89a" + bytes(500), NotAudioError, 415),
        (b'<?xml version="1.0"?><a/>', NotAudioError, 415),
        (wav()[:44], NoSamplesError, 422),
        (b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n", NotAudioError, 415),
    ],
)
def test_what_is_no_recording_is_refused_and_leaves_nothing(
    sqlite_service: Any, data: bytes, kind: type[SoundpostError], status: int
) -> None:
    with pytest.raises(SoundpostError) as caught:
        sqlite_service.client.upload(as_file(data), name="x.wav")
    assert type(caught.value) is kind
    assert caught.value.value == "x.wav"
    answer = httpx.post(
        f"{sqlite_service.url}/v1/recordings", files={"file": ("x.wav", data)}, timeout=60
    )
    assert answer.status_code == status
    assert str(sqlite_service.folder) not in answer.text
    assert sqlite_service.left_behind() == []
    assert list(sqlite_service.client.recordings()) == []
    assert not list(sqlite_service.folder.rglob("objects/*/*/*"))


def test_a_kilobyte_that_claims_two_gigabytes_is_refused(sqlite_service: Any) -> None:
    claim = 2 * 1024**3
    head = b"RIFF" + struct.pack("<I", claim + 36) + b"WAVEfmt "
    head += struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16) + b"data"
    data = (head + struct.pack("<I", claim)).ljust(1024, b"\x01")
    with pytest.raises(ImplausibleLengthError) as caught:
        sqlite_service.client.upload(as_file(data), name="bomb.wav")
    assert "1024 bytes" in caught.value.detail
    assert list(sqlite_service.client.recordings()) == []


def test_a_recording_cut_short_is_still_taken(sqlite_service: Any) -> None:
    data = wav(4.0)
    assert not sqlite_service.client.upload(as_file(data[: len(data) // 2])).known


def silent_flac(seconds: float) -> bytes:
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", 8000, 1, "PCM_16", format="FLAC") as flac:
        for _ in range(round(seconds / 100)):
            flac.write(np.zeros(800_000, np.int16))
    return file.getvalue()


def test_hours_in_a_few_bytes_are_refused(start_service: Any, sqlite_store: Store) -> None:
    limited = start_service(sqlite_store, upload_s=3600.0)
    data = silent_flac(7200)
    assert len(data) < 400_000
    with pytest.raises(TooLongError) as caught:
        limited.client.upload(as_file(data), name="long.flac")
    assert "7200 s" in caught.value.detail


def test_hours_that_no_header_tells_of_are_counted(start_service: Any, sqlite_store: Store) -> None:
    limited = start_service(sqlite_store, upload_s=600.0)
    data = bytearray(silent_flac(1200))
    # A FLAC header may leave the number of samples open: 36 bits, behind 4 + 4 + 13 bytes.
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    with pytest.raises(TooLongError):
        limited.client.upload(as_file(bytes(data)), name="long.flac")


def test_a_header_that_hides_its_length_passes_where_it_is_short(sqlite_service: Any) -> None:
    data = bytearray(silent_flac(100))
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    assert sqlite_service.client.upload(as_file(bytes(data))).recording.format == "flac/flac"


def test_an_upload_over_the_limit_is_cut_off(start_service: Any, sqlite_store: Store) -> None:
    limited = start_service(sqlite_store, upload_bytes=100_000)
    for data in (wav(5.0), wav(60.0)):
        with pytest.raises(UploadTooLargeError) as caught:
            limited.client.upload(as_file(data))
        assert "100000" in caught.value.detail
    assert limited.left_behind() == []
    assert limited.client.upload(as_file(wav(2.0))).job is not None


def test_an_upload_that_does_not_say_its_size_is_cut_off_too(
    start_service: Any, sqlite_store: Store
) -> None:
    limited = start_service(sqlite_store, upload_bytes=100_000)
    seen = []

    def body():
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        for number in range(64):
            seen.append(number)
            yield bytes(64 * 1024)
        yield b"\r\n--x--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = httpx.post(f"{limited.url}/v1/recordings", content=body(), headers=headers, timeout=60)
    assert (answer.status_code, answer.json()["code"]) == (413, "upload-too-large")
    assert limited.left_behind() == []


def test_an_upload_cut_off_in_the_middle_leaves_nothing(sqlite_service: Any) -> None:
    where = urlsplit(sqlite_service.url)
    with socket.create_connection((where.hostname, where.port)) as sock:
        sock.sendall(
            b"POST /v1/recordings HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
            b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        )
        sock.sendall(wav(60.0))
        wait_until(lambda: len(sqlite_service.left_behind()) == 1)
    wait_until(lambda: sqlite_service.left_behind() == [])
    assert list(sqlite_service.client.recordings()) == []


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"--x\r\nContent-Disposition: form-data; name=", "multipart/form-data; boundary=x"),
        (b"nonsense", "multipart/form-data; boundary=x"),
        (b"nonsense", "multipart/form-data"),
        (b"{}", "application/json"),
        (b"", "multipart/form-data; boundary=" + "x" * 5000),
        (
            b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nabc',
            "multipart/form-data; boundary=x",
        ),
    ],
)
def test_what_is_no_form_is_malformed(sqlite_service: Any, content: bytes, kind: str) -> None:
    url = f"{sqlite_service.url}/v1/recordings"
    answer = httpx.post(url, content=content, headers={"Content-Type": kind}, timeout=60)
    assert (answer.status_code, answer.json()["code"]) == (400, MalformedRequestError.code)
    assert sqlite_service.left_behind() == []


@pytest.mark.parametrize(
    "fields",
    [
        {"source": ""},
        {"source": "a\nb"},
        {"source": "x" * 201},
        {"started_at": "yesterday"},
        {"timezone": "Mars/Olympus"},
        {"timezone": "../../../etc/passwd"},
        {"colour": "blue"},
    ],
)
def test_fields_that_make_no_sense_are_refused(sqlite_service: Any, fields: dict[str, str]) -> None:
    url = f"{sqlite_service.url}/v1/recordings"
    answer = httpx.post(url, data=fields, files={"file": ("a.wav", wav())}, timeout=60)
    assert (answer.status_code, answer.json()["code"]) == (422, InvalidValueError.code)
    assert sqlite_service.client.sources() == []


def test_a_form_without_a_file_says_what_is_missing(sqlite_service: Any) -> None:
    answer = httpx.post(
        f"{sqlite_service.url}/v1/recordings", files={"other": ("a", b"1")}, timeout=60
    )
    assert answer.status_code == 422
    assert answer.json()["faults"][0]["where"] == "body.file"


def test_a_full_queue_is_said_before_anything_is_kept(start_service: Any, store: Store) -> None:
    limited = start_service(store, queue_limit=1)
    limited.client.upload(as_file(wav(seed=1)), source="yard")
    with pytest.raises(QueueFullError):
        limited.client.upload(as_file(wav(seed=2)), source="yard")
    assert len(list(limited.folder.rglob("objects/*/*/*"))) == 1
    files = {"file": ("a.wav", wav(seed=2))}
    answer = httpx.post(
        f"{limited.url}/v1/recordings", files=files, data={"source": "yard"}, timeout=60
    )
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) > 0
    assert limited.client.upload(as_file(wav(seed=2)), source="other").job is not None


def test_nothing_is_taken_in_when_the_disk_is_nearly_full(start_service: Any, store: Store) -> None:
    full = start_service(store, disk_reserve_bytes=2**60)
    with pytest.raises(DiskFullError) as caught:
        full.client.upload(as_file(wav()), source="yard")
    assert "Free some space" in caught.value.remedy
    assert full.client.sources() == []
    assert list(full.folder.rglob("objects/*/*/*")) == []


def test_a_failed_recording_sent_again_is_tried_again(sqlite_service: Any) -> None:
    first = sqlite_service.client.upload(as_file(wav()))
    with sqlite_service.store.session() as session:
        held = jobs.lease(session, first.job.id, "w", 60.0)
        jobs.complete(session, held)
        recordings.mark_failed(session, first.recording.id, NoSamplesError("x"))
    again = sqlite_service.client.upload(as_file(wav()))
    assert again.known
    assert again.job is not None and again.job.id != first.job.id
    with sqlite_service.store.reading() as session:
        latest = jobs.latest(session, embed_key(first.recording.id))
    assert latest is not None and latest.id == again.job.id


def test_what_a_killed_service_left_is_removed_at_the_next_start(
    tmp_path: Path, start_service: Any, sqlite_store: Store
) -> None:
    spool = tmp_path / "home" / "requests"
    spool.mkdir(parents=True)
    old, fresh = spool / "in-old.part", spool / "in-fresh.part"
    old.write_bytes(b"1")
    fresh.write_bytes(b"2")
    os.utime(old, (1.0, 1.0))
    running = start_service(sqlite_store)
    assert running.left_behind() == [fresh]


def test_a_file_in_use_is_never_cleared(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "requests")
    with spool.file() as (path, _):
        os.utime(path, (1.0, 1.0))
        assert Spool(tmp_path / "requests").clear() == 0
        assert path.exists()
    assert not path.exists()

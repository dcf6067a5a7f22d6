"""Listening: every sample once, at its time, in whole segments, through cuts, stalls and crashes."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import (
    BaseHTTPRequestHandler,
    ThreadingHTTPServer,
)
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from sqlalchemy import select

from soundpost.archive.discover import Discovery
from soundpost.archive.listen import Admit, Heard, ListenOptions
from soundpost.archive.plan import IngestOptions, Timing
from soundpost.archive.register import register
from soundpost.archive.summary import Summary
from soundpost.audio.live import LiveTarget
from soundpost.jobs import JobQueue, NoSender
from soundpost.store.files import AudioFiles
from soundpost.store.session import Store, open_store
from soundpost.store.tables import Job, Recording

# FFmpeg wants to see 128 KiB of a WAV before it begins: two seconds, at this rate.
RATE_HZ = 32_000
DEADLINE_S = 60.0
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
QUICK = ListenOptions(segment_s=2.0, stall_s=1.0, first_wait_s=0.05, longest_wait_s=0.2)


# Starts a listener in a thread; see conftest.
Listen = Callable[..., Any]


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until something holds; fail if it never does."""
    until = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.02)


def noise(samples: int, seed: int = 1) -> NDArray[np.int16]:
    return np.random.default_rng(seed).integers(-8000, 8000, samples).astype(np.int16)


SIGNAL = noise(200 * RATE_HZ)


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


class FastClock:
    """A host's clock that runs `speed` times as fast as the real one."""

    def __init__(self, speed: float) -> None:
        self.speed = speed
        self._began_s = time.monotonic()

    def __call__(self) -> datetime:
        return NOON + timedelta(seconds=(time.monotonic() - self._began_s) * self.speed)


@dataclass
class Radio:
    """A server that plays SIGNAL as it happens, each connection from where the clock is.

    plan: what each connection does after how many samples: "cut" or "stall"; later ones go on for
    ever. store_s: sound of the past that each begins with.
    """

    clock: Callable[[], datetime]
    speed: float
    plan: list[tuple[str, int]] = field(default_factory=list)
    store_s: float = 0.0
    refused: int = 0
    locked: bool = False
    asked: list[str] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)
    port: int = 0
    closing: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/live.wav"

    def sample_now(self) -> int:
        """The sample that is recorded at this moment."""
        return int((self.clock() - NOON).total_seconds() * RATE_HZ)

    def time_of(self, sample: int) -> datetime:
        return NOON + timedelta(seconds=sample / RATE_HZ)


@contextlib.contextmanager
def on_air(radio: Radio) -> Iterator[Radio]:
    """Serve until the end of the context."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            radio.secrets.append(self.headers.get("Authorization", ""))
            radio.asked.append(self.path)
            if radio.locked and not self.headers.get("Authorization"):
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="radio"')
                self.end_headers()
                return
            if len(radio.asked) <= radio.refused:
                self.send_error(503)
                return
            with contextlib.suppress(ConnectionError):
                _play(radio, self)

        def log_message(self, format: str, *args: Any) -> None:
            """Be quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    radio.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield radio
    finally:
        radio.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


def _play(radio: Radio, handler: BaseHTTPRequestHandler) -> None:
    action, limit = radio.plan.pop(0) if radio.plan else ("play", len(SIGNAL))
    handler.send_response(200)
    handler.send_header("Content-Type", "audio/wav")
    handler.end_headers()
    handler.wfile.write(_endless_wav_header())
    first = at = max(0, radio.sample_now() - int(radio.store_s * RATE_HZ))
    while not radio.closing.is_set() and at - first < limit:
        until = min(radio.sample_now(), first + limit)
        handler.wfile.write(SIGNAL[at:until].tobytes())
        at = until
        time.sleep(0.01)
    if action == "stall":
        radio.closing.wait()


def _endless_wav_header() -> bytes:
    size = 0xFFFFFFFF
    form = struct.pack("<IHHIIHH", 16, 1, 1, RATE_HZ, 2 * RATE_HZ, 2, 16)
    return (
        b"RIFF" + struct.pack("<I", size) + b"WAVEfmt " + form + b"data" + struct.pack("<I", size)
    )


def place_of(samples: NDArray[np.int16]) -> int:
    """Return where in SIGNAL these samples are; they must all be there, in a row."""
    windows = np.flatnonzero(samples[0] == SIGNAL)
    (place,) = [at for at in windows if np.array_equal(SIGNAL[at : at + 50], samples[:50])]
    assert np.array_equal(SIGNAL[place : place + len(samples)], samples)
    return int(place)


def test_segments_join_to_the_signal_sample_by_sample(
    listen: Listen, folder: Path, shelf: Any
) -> None:
    clock = FastClock(1.0)
    with on_air(Radio(clock, 1.0)) as radio:
        listening = listen(radio.url, folder, shelf.admit, clock=clock)
        eventually(lambda: len(shelf.kept) >= 3)
        heard = listening.end()
    ((first, samples),) = shelf.stretches()
    assert heard.segments == len(shelf.kept)
    assert heard.connections == 1
    lengths = [len(piece) for _, piece in shelf.kept]
    assert lengths[:-1] == [2 * RATE_HZ] * (len(lengths) - 1)
    assert abs(first - radio.time_of(place_of(samples))) < timedelta(seconds=0.3)
    assert list(folder.glob("*.flac*")) == []


def test_sound_that_the_server_had_in_store_keeps_its_own_time(
    listen: Listen, folder: Path, shelf: Any
) -> None:
    clock = FastClock(1.0)
    time.sleep(3.0)
    with on_air(Radio(clock, 1.0, store_s=2.5)) as radio:
        listening = listen(radio.url, folder, shelf.admit, clock=clock)
        eventually(lambda: len(shelf.kept) >= 1)
        listening.end()
    first, samples = shelf.stretches()[0]
    assert abs(first - radio.time_of(place_of(samples))) < timedelta(seconds=0.3)


def test_a_cut_stream_is_connected_again_with_its_own_time(
    listen: Listen, folder: Path, shelf: Any, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FastClock(4.0)
    cuts = [("cut", 112_000), ("cut", 12_000), ("cut", 112_000)]
    with on_air(Radio(clock, 4.0, cuts)) as radio, caplog.at_level(logging.WARNING):
        listening = listen(radio.url, folder, shelf.admit, clock=clock)
        eventually(lambda: len(radio.asked) == 4 and len(shelf.kept) >= 6)
        heard = listening.end()
    pieces = shelf.stretches()
    assert heard.connections == 4
    # The second connection was too short to be kept.
    assert len(pieces) == 3
    assert [len(samples) for _, samples in pieces[:2]] == [112_000, 112_000]
    for first, samples in pieces:
        assert abs(first - radio.time_of(place_of(samples))) < timedelta(seconds=1.5)
    lost = [record for record in caplog.records if record.message == "the stream was lost"]
    assert [getattr(record, "code", None) for record in lost] == ["stream"] * 3


def test_a_stalled_stream_is_given_up_and_connected_again(
    listen: Listen, folder: Path, shelf: Any, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FastClock(4.0)
    stalls = [("stall", 304_000)]
    with on_air(Radio(clock, 4.0, stalls)) as radio, caplog.at_level(logging.WARNING):
        listening = listen(radio.url, folder, shelf.admit, clock=clock)
        eventually(lambda: len(radio.asked) == 2 and len(shelf.kept) >= 7)
        listening.end()
    assert "stream-stalled" in {getattr(record, "code", None) for record in caplog.records}
    pieces = shelf.stretches()
    assert len(pieces) == 2
    assert len(pieces[0][1]) == 304_000
    gap = pieces[1][0] - pieces[0][0]
    assert gap > timedelta(seconds=304_000 / RATE_HZ + 4.0 * QUICK.stall_s - 1.5)


def test_a_server_that_is_not_ready_is_asked_again_and_again(
    listen: Listen, folder: Path, shelf: Any, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FastClock(4.0)
    with on_air(Radio(clock, 4.0, refused=3)) as radio, caplog.at_level(logging.INFO):
        listening = listen(radio.url, folder, shelf.admit, clock=clock)
        eventually(lambda: len(shelf.kept) >= 1)
        listening.end()
    waits = [float(record.__dict__["retry_s"]) for record in caplog.records if "lost" in record.msg]
    assert len(waits) == 3
    assert all(
        longest / 2 <= wait <= longest
        for wait, longest in zip(waits, (0.05, 0.1, 0.2), strict=True)
    )


def test_neither_password_nor_token_is_ever_shown(
    listen: Listen,
    folder: Path,
    shelf: Any,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    clock = FastClock(4.0)
    with on_air(Radio(clock, 4.0, [("cut", 40_000)], refused=3, locked=True)) as radio:
        url = radio.url.replace("http://", "http://ear:s3cret@") + "?token=t0ken"
        target = LiveTarget.parse(url)
        with caplog.at_level(logging.DEBUG):
            listening = listen(url, folder, shelf.admit, clock=clock)
            eventually(lambda: len(radio.asked) >= 3)
            listening.end()
    assert any(secret.startswith("Basic ") for secret in radio.secrets)
    assert radio.asked[0].endswith("?token=t0ken")
    printed = capfd.readouterr()
    logged = caplog.text + "".join(str(vars(record)) for record in caplog.records)
    for text in (logged, printed.out, printed.err, repr(target), str(target)):
        assert "s3cret" not in text
        assert "t0ken" not in text
    assert f"127.0.0.1:{radio.port}" in logged


def test_stopped_it_keeps_the_last_part(listen: Listen, folder: Path, shelf: Any) -> None:
    clock = FastClock(4.0)
    options = ListenOptions(segment_s=3600.0)
    with on_air(Radio(clock, 4.0)) as radio:
        listening = listen(radio.url, folder, shelf.admit, options, clock)
        eventually(lambda: any(path.stat().st_size > 160_000 for path in folder.glob("*.part")))
        heard = listening.end()
    ((_, samples),) = shelf.kept
    assert len(samples) >= RATE_HZ
    assert heard.audio_s == len(samples) / RATE_HZ
    place_of(samples)


def test_a_stop_does_not_wait_for_a_server_that_says_nothing(
    listen: Listen, folder: Path, shelf: Any
) -> None:
    options = ListenOptions(stall_s=3600.0)
    with on_air(Radio(FastClock(1.0), 1.0, [("stall", 0)])) as radio:
        listening = listen(radio.url, folder, shelf.admit, options)
        eventually(lambda: len(radio.asked) == 1)
        assert listening.end() == Heard()


def test_a_loss_within_a_stream_moves_what_follows_to_its_time(
    listen: Listen, folder: Path, shelf: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The host's clock jumps by ten seconds, as if so much had been lost."""
    real = FastClock(4.0)
    jump = [timedelta(0)]
    with on_air(Radio(real, 4.0)) as radio, caplog.at_level(logging.WARNING):
        options = ListenOptions(segment_s=5.0, first_wait_s=0.05, drift_s=2.0)
        listening = listen(radio.url, folder, shelf.admit, options, lambda: real() + jump[0])
        eventually(lambda: len(shelf.kept) >= 2)
        jump[0] = timedelta(seconds=10)
        eventually(lambda: "the sample clock drifted" in caplog.messages)
        count = len(shelf.kept)
        eventually(lambda: len(shelf.kept) >= count + 3)
        listening.end()
    pieces = shelf.stretches()
    assert len(pieces) == 2
    (first, early), (second, late) = pieces
    hole_s = (second - first).total_seconds() - len(early) / RATE_HZ
    assert hole_s == pytest.approx(10.0, abs=2.0)
    # Not a sample is missing for it.
    assert place_of(early) + len(early) == place_of(late)


# --- with the archive -------------------------------------------------------------------------


def into(store: Store, objects: AudioFiles) -> Admit:
    """Admit as the command does."""

    def admit(paths: list[Path]) -> Summary:
        options = IngestOptions(source="mic", timing=Timing(from_name=True), copy=True)
        queue = JobQueue(NoSender())
        return register(Discovery(files=paths), options, store, queue, objects, patient=False)

    return admit


def recorded(store: Store, objects: AudioFiles) -> list[tuple[datetime, NDArray[np.int16]]]:
    """Return every recording with its sound; each has exactly one job."""
    with store.reading() as session:
        rows = list(session.scalars(select(Recording).order_by(Recording.started_at)))
        jobs = [job.payload["recording"] for job in session.scalars(select(Job))]
    assert sorted(jobs) == sorted(row.id for row in rows)
    sounds = [soundfile.read(objects.open_local(row), dtype="int16")[0] for row in rows]
    moments = [row.started_at for row in rows if row.started_at is not None]
    return list(zip(moments, sounds, strict=True))


def test_a_recording_is_in_the_object_store_with_its_time(
    listen: Listen, folder: Path, store: Store, tmp_path: Path
) -> None:
    objects = AudioFiles((tmp_path / "objects").as_uri())
    soundfile.write(tmp_path / "in.wav", SIGNAL[: 6 * RATE_HZ], RATE_HZ)
    admit = into(store, objects)
    listen(str(tmp_path / "in.wav"), folder, admit, clock=lambda: NOON).thread.join(DEADLINE_S)
    kept = recorded(store, objects)
    assert [moment for moment, _ in kept] == [NOON, after(2), after(4)]
    assert np.array_equal(np.concatenate([samples for _, samples in kept]), SIGNAL[: 6 * RATE_HZ])
    assert list(folder.glob("*.flac*")) == []


LISTEN = """
import random, sys, threading
from pathlib import Path
from soundpost.archive.listen import Listener
from soundpost.archive.spool import Spool
sys.path[:0] = [{tests!r}]
from test_listen import *
objects = AudioFiles({objects!r})
admit = into(open_store({database!r}), objects)
spool = Spool(Path({folder!r}))
Listener(LiveTarget.parse({url!r}), spool, admit, random.Random(5), QUICK).run(threading.Event())
"""


@pytest.mark.slow
def test_killed_again_and_again_only_the_last_moment_is_lost(
    listen: Listen, folder: Path, sqlite_url: str, tmp_path: Path
) -> None:
    """Each kill may cost what was not yet written of the segment at hand, and nothing before it."""
    objects = (tmp_path / "objects").as_uri()
    rng = np.random.default_rng(4)
    clock = FastClock(1.0)
    with on_air(Radio(clock, 1.0)) as radio:
        settings = {"objects": objects, "url": radio.url, "folder": str(folder)}
        tests = str(Path(__file__).parent)
        code = LISTEN.format(tests=tests, database=sqlite_url, **settings)
        for number in range(4):
            process = _start(code)
            # What was left by the one before is completed before it connects.
            eventually(partial(_is_recording, radio, number, folder))
            time.sleep(float(rng.uniform(0.5, 2.5)))
            process.send_signal(signal.SIGKILL)
            process.wait()
    soundfile.write(tmp_path / "short.wav", SIGNAL[:10], RATE_HZ)
    store = open_store(sqlite_url)
    kept = AudioFiles(objects)
    listen(str(tmp_path / "short.wav"), folder, into(store, kept)).thread.join(DEADLINE_S)
    pieces = recorded(store, kept)
    store.close()
    assert list(folder.glob("*.flac*")) == []
    places = sorted((place_of(samples), len(samples), moment) for moment, samples in pieces)
    joins = [at + length - after_it for (at, length, _), (after_it, _, _) in pairwise(places)]
    # Nothing twice, and no hole but where it was killed.
    assert max(joins) <= 0
    assert len(joins) - joins.count(0) == 3
    late = [moment - radio.time_of(place) for place, _, moment in places]
    assert max(late) - min(late) < timedelta(seconds=0.5)


def _is_recording(radio: Radio, number: int, folder: Path) -> bool:
    return len(radio.asked) > number and any(folder.glob("*.part"))


def _start(code: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, "-c", code], env=environment)

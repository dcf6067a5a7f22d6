"""Listening to files, playlists and cameras, and the folder in which segments wait."""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import partial
from http.server import (
    SimpleHTTPRequestHandler,
    ThreadingHTTPServer,
)
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from soundpost.archive.listen import Heard, ListenOptions
from soundpost.archive.spool import Spool, folder_name, segment_name, started_at
from soundpost.audio.live import LiveFormat, now
from soundpost.errors import (
    InvalidValueError,
    QueueFullError,
    SpoolBusyError,
    SpoolError,
    StoreError,
)

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


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".aiff"])
def test_a_file_is_heard_to_its_end(
    listen: Listen, folder: Path, shelf: Any, tmp_path: Path, suffix: str
) -> None:
    soundfile.write(tmp_path / f"in{suffix}", SIGNAL[: 9 * RATE_HZ // 2], RATE_HZ)
    listening = listen(str(tmp_path / f"in{suffix}"), folder, shelf.admit, clock=lambda: NOON)
    listening.thread.join(DEADLINE_S)
    assert not listening.thread.is_alive()
    # Half a second is too short for a segment.
    assert listening.heard == [Heard(segments=2, audio_s=4.0, connections=1)]
    ((first, samples),) = shelf.stretches()
    assert first == NOON
    assert np.array_equal(samples, SIGNAL[: 4 * RATE_HZ])


@pytest.mark.parametrize("over", ["file", "http"])
def test_a_playlist_is_heard(
    listen: Listen, folder: Path, shelf: Any, tmp_path: Path, over: str
) -> None:
    wave = (8000 * np.sin(np.arange(5 * RATE_HZ) * 2 * np.pi * 440 / RATE_HZ)).astype(np.int16)
    _write_playlist(tmp_path / "live.m3u8", wave)
    assert len(list(tmp_path.glob("*.ts"))) > 1
    with _files_over_http(tmp_path) as address:
        url = f"{address}/live.m3u8" if over == "http" else (tmp_path / "live.m3u8").as_uri()
        listening = listen(url, folder, shelf.admit)
        eventually(lambda: sum(len(samples) for _, samples in shelf.kept) >= 4 * RATE_HZ)
        listening.end()
    samples = np.concatenate([samples for _, samples in shelf.kept])
    spectrum = np.abs(np.fft.rfft(samples[RATE_HZ : 2 * RATE_HZ]))
    assert int(spectrum.argmax()) == 440


@contextlib.contextmanager
def _files_over_http(folder: Path) -> Iterator[str]:
    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Be quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _write_playlist(path: Path, wave: NDArray[np.int16]) -> None:
    options = {"hls_time": "1", "hls_list_size": "0"}
    with av.open(str(path), "w", format="hls", options=options) as container:
        stream = container.add_stream("aac", rate=RATE_HZ, layout="mono")
        for at in range(0, len(wave) - 1023, 1024):
            floats = (wave[None, at : at + 1024] / 32768).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(floats, format="fltp", layout="mono")
            frame.rate, frame.pts, frame.time_base = RATE_HZ, at, Fraction(1, RATE_HZ)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def test_a_camera_is_heard_over_rtsp_sample_by_sample(
    listen: Listen, folder: Path, shelf: Any
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as camera:
        asked: list[str] = []
        server = threading.Thread(target=_be_camera, args=(camera, 6 * RATE_HZ, asked))
        server.start()
        address = f"rtsp://127.0.0.1:{camera.getsockname()[1]}/mic"
        began = now()
        listening = listen(address, folder, shelf.admit)
        eventually(lambda: len(shelf.kept) == 3)
        listening.end()
        server.join(DEADLINE_S)
    ((first, samples),) = shelf.stretches()
    assert asked == ["OPTIONS", "DESCRIBE", "SETUP", "PLAY"]
    assert np.array_equal(samples, SIGNAL[: 6 * RATE_HZ])
    assert abs(first - began) < timedelta(seconds=1)


def _be_camera(camera: socket.socket, samples: int, asked: list[str]) -> None:
    """Answer one client (RFC 2326) and send SIGNAL as it happens, interleaved with the answers."""
    connection, _ = camera.accept()
    with connection, connection.makefile("rb") as requests:
        while not asked or asked[-1] != "PLAY":
            lines = [line.decode().strip() for line in iter(requests.readline, b"\r\n")]
            asked.append(lines[0].split()[0])
            connection.sendall(_rtsp_answer(asked[-1], lines).encode())
        began_s = time.monotonic()
        for number, at in enumerate(range(0, samples, 480)):
            time.sleep(max(0.0, began_s + at / RATE_HZ - time.monotonic()))
            payload = SIGNAL[at : min(samples, at + 480)].astype(">i2").tobytes()
            packet = struct.pack(">BBHII", 0x80, 97, number, at, 1234) + payload
            connection.sendall(b"$\0" + struct.pack(">H", len(packet)) + packet)


def _rtsp_answer(method: str, lines: list[str]) -> str:
    description = (
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=mic\r\nt=0 0\r\nm=audio 0 RTP/AVP 97\r\n"
        f"a=rtpmap:97 L16/{RATE_HZ}/1\r\na=control:track\r\n"
    )
    headers, body = {
        "DESCRIBE": (f"Content-Type: application/sdp\r\nContent-Length: {len(description)}\r\n", 1),
        "SETUP": ("Session: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n", 0),
        "PLAY": ("Session: 1\r\n", 0),
    }.get(method, ("Public: DESCRIBE, SETUP, PLAY\r\n", 0))
    number = next(line for line in lines if line.startswith("CSeq"))
    return f"RTSP/1.0 200 OK\r\n{number}\r\n{headers}\r\n{description * body}"


def test_silence_twice_is_two_recordings(
    listen: Listen, folder: Path, shelf: Any, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "mute.wav", np.zeros(6 * RATE_HZ), RATE_HZ)
    for _ in range(2):
        listen(str(tmp_path / "mute.wav"), folder, shelf.admit).thread.join(DEADLINE_S)
    assert len(shelf.kept) == 6
    assert len(shelf.contents) == 6


@pytest.mark.parametrize("options", [{"segment_s": 0.5}, {"segment_s": 1e6}, {"stall_s": 0.0}])
def test_options_that_make_no_sense_are_refused(
    listen: Listen, options: dict[str, float], folder: Path, shelf: Any
) -> None:
    with pytest.raises(InvalidValueError):
        listen("rtsp://cam/s", folder, shelf.admit, ListenOptions(**options))


# --- the spool --------------------------------------------------------------------------------


def test_names_say_the_time_in_utc_and_sources_have_folders_of_their_own() -> None:
    moment = datetime(2026, 11, 21, 13, 0, 0, 5, tzinfo=UTC)
    assert segment_name(moment) == "20261121T130000.000005Z.flac"
    assert started_at(segment_name(moment)) == moment
    sources = ["a", "A/b", "A%2Fb", "..", ".", "a b", "ü" * 200, "ü" * 199 + "v"]
    names = {folder_name(source) for source in sources}
    assert len(names) == len(sources)
    assert all("/" not in name and name not in {"", ".", ".."} for name in names)
    assert all(len(name.encode()) <= 255 for name in names)


def test_a_spool_has_one_owner(folder: Path) -> None:
    with Spool(folder), pytest.raises(SpoolBusyError):
        Spool(folder).__enter__()
    with Spool(folder):
        pass


def test_a_spool_that_cannot_be_made_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpoolError):
        Spool(tmp_path / "file" / "mic").__enter__()


def test_what_another_run_left_is_completed(
    listen: Listen, folder: Path, shelf: Any, tmp_path: Path
) -> None:
    folder.mkdir(parents=True)
    kind = LiveFormat(RATE_HZ, 1, "PCM_16")
    with Spool(folder) as spool:
        whole = spool.open(NOON, kind, "whole")
        whole.write(SIGNAL[: 2 * RATE_HZ, None])
        assert whole.close(NOON) == folder / "20261121T120000.000000Z.flac"
        short = spool.open(after(9), kind, "short")
        short.write(SIGNAL[:100, None])
        assert short.close(after(9)) is None
    (folder / "20261121T120100.000000Z.flac.part").write_bytes(b"nothing to be read")
    (folder / "20261121T120100.000000Z.flac.recovering").write_bytes(b"half")
    (folder / "somebody's.flac").write_bytes(b"not ours")
    _cut_off(folder / "20261121T120002.000000Z.flac.part")
    soundfile.write(tmp_path / "short.wav", SIGNAL[:10], RATE_HZ)
    listen(str(tmp_path / "short.wav"), folder, shelf.admit).thread.join(DEADLINE_S)
    ((first, samples),) = shelf.stretches()
    assert first == NOON
    assert len(samples) > 4 * RATE_HZ
    assert np.array_equal(samples, SIGNAL[: len(samples)])
    assert {path.name for path in folder.iterdir()} == {".lock", "somebody's.flac"}


def _cut_off(path: Path) -> None:
    """Leave a file as a killed process does: SIGNAL from its third second on, three seconds."""
    code = f"""
import os, soundfile
wave, rate_hz = soundfile.read({str(path) + ".wav"!r}, dtype="int16")
file = soundfile.SoundFile({str(path)!r}, "w", rate_hz, 1, subtype="PCM_16", format="FLAC")
file.write(wave)
os.kill(os.getpid(), 9)
"""
    soundfile.write(str(path) + ".wav", SIGNAL[2 * RATE_HZ : 5 * RATE_HZ], RATE_HZ)
    subprocess.run([sys.executable, "-c", code], check=False)
    Path(str(path) + ".wav").unlink()


@pytest.mark.parametrize("fault", [QueueFullError(3), StoreError("postgresql://db")])
def test_segments_wait_while_the_archive_cannot_take_them(
    listen: Listen, folder: Path, shelf: Any, tmp_path: Path, fault: Exception
) -> None:
    soundfile.write(tmp_path / "in.wav", SIGNAL[: 6 * RATE_HZ], RATE_HZ)
    shelf.faults = [fault] * 50
    listen(str(tmp_path / "in.wav"), folder, shelf.admit).thread.join(DEADLINE_S)
    assert len(list(folder.glob("*.flac"))) == 3
    shelf.faults = []
    listen(str(tmp_path / "in.wav"), folder, shelf.admit).thread.join(DEADLINE_S)
    assert list(folder.glob("*.flac")) == []
    assert len(shelf.kept) == 6


def test_a_segment_that_is_refused_is_kept_for_a_person_and_holds_nothing_up(
    listen: Listen, folder: Path, shelf: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    soundfile.write(tmp_path / "in.wav", SIGNAL[: 4 * RATE_HZ], RATE_HZ)
    shelf.refuse = True
    listen(str(tmp_path / "in.wav"), folder, shelf.admit).thread.join(DEADLINE_S)
    assert len(list(folder.glob("*.flac.refused"))) == 2
    assert caplog.messages.count("a segment was refused") == 2
    shelf.refuse, shelf.faults = False, [ZeroDivisionError()] * 2
    listen(str(tmp_path / "in.wav"), folder, shelf.admit).thread.join(DEADLINE_S)
    listen(str(tmp_path / "in.wav"), folder, shelf.admit).thread.join(DEADLINE_S)
    # An error that nobody foresaw may be another's fault: such a segment gets another chance.
    assert len(list(folder.glob("*.flac.refused"))) == 2
    assert len(shelf.kept) == 4

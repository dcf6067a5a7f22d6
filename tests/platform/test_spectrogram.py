"""Spectrograms show each sound at its time, its pitch and its level, whatever the stretch."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from soundpost.audio.spectrogram import LOWEST_HZ, Picture, draw_spectrogram, to_png
from soundpost.errors import InvalidValueError, NoSamplesError, NotAudioError

RATE_HZ = 16_000


def tone(hz: float, seconds: float, level: float = 0.5) -> NDArray[np.float32]:
    at = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return np.asarray(level * np.sin(2 * np.pi * hz * at), dtype=np.float32)


def write(path: Path, *pieces: NDArray[np.float32]) -> Path:
    soundfile.write(path, np.concatenate(pieces), RATE_HZ, subtype="FLOAT")
    return path


def read_png(png: bytes) -> NDArray[np.uint8]:
    """Return the levels [H, W] of a picture, having checked every checksum."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        name, body = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        (crc,) = struct.unpack(">I", png[at + 8 + length : at + 12 + length])
        assert crc == zlib.crc32(name + body)
        chunks[name] = body
        at += 12 + length
    width, height, depth, kind = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    assert (depth, kind, len(chunks[b"PLTE"])) == (8, 3, 768)
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, width + 1)
    assert not rows[:, 0].any()
    return rows[:, 1:]


def row_of(hz: float, height: int) -> float:
    share = np.log(hz / LOWEST_HZ) / np.log(RATE_HZ / 2 / LOWEST_HZ)
    return float((1 - share) * height)


def test_the_picture_is_read_back_by_another_program() -> None:
    levels = np.arange(64 * 32, dtype=np.uint8).reshape(32, 64)
    with av.open(io.BytesIO(to_png(levels))) as container:
        (frame,) = container.decode(video=0)
    pixels = frame.to_ndarray(format="rgb24")
    assert pixels.shape == (32, 64, 3)
    assert tuple(pixels[0, 0]) == (0, 0, 4)
    assert tuple(pixels[3, 63]) == (252, 255, 164)
    # Brighter is lighter, also in grey.
    grey = pixels[:4].reshape(256, 3) @ np.array([0.299, 0.587, 0.114])
    assert (np.diff(grey) > -1.0).all()


@pytest.mark.parametrize("hz", [200.0, 1000.0, 5000.0])
def test_a_tone_is_a_line_at_its_pitch(tmp_path: Path, hz: float) -> None:
    path = write(tmp_path / "a.wav", tone(hz, 3.0))
    levels = read_png(draw_spectrogram(path, 0.0, 3.0, Picture(width=120, height=200)))
    brightest = levels[:, 60].argmax()
    assert brightest == pytest.approx(row_of(hz, 200), abs=3)


def test_time_runs_to_the_right(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(500, 1.0), tone(500, 2.0, 0.0), tone(4000, 1.0))
    levels = read_png(draw_spectrogram(path, 0.0, 4.0, Picture(width=400, height=128)))
    low, high = round(row_of(500, 128)), round(row_of(4000, 128))
    assert (levels[low - 2 : low + 3, 20:80].max(axis=0) > 200).all()
    assert not levels[:, 120:280].any()
    assert (levels[high - 2 : high + 3, 320:380].max(axis=0) > 200).all()


def test_a_stretch_is_that_part_of_the_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(500, 2.0, 0.0), tone(500, 1.0), tone(500, 2.0, 0.0))
    levels = read_png(draw_spectrogram(path, 2.0, 3.0, Picture(width=50, height=64)))
    assert (levels.max(axis=0) > 200).all()


def test_brightness_is_the_level_in_dbfs(tmp_path: Path) -> None:
    picture = Picture(width=32, height=64, floor_dbfs=-100.0, ceiling_dbfs=0.0)
    for level_dbfs in (-20.0, -50.0, -80.0):
        path = write(tmp_path / "a.wav", tone(1000, 2.0, 10 ** (level_dbfs / 20)))
        levels = read_png(draw_spectrogram(path, 0.0, 2.0, picture))
        assert levels[:, 16].max() / 255 * 100 - 100 == pytest.approx(level_dbfs, abs=1.0)


def test_what_lies_past_the_end_is_black(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(1000, 1.0))
    levels = read_png(draw_spectrogram(path, 0.0, 4.0, Picture(width=100, height=32)))
    assert (levels[:, :24].max(axis=0) > 200).all()
    assert not levels[:, 30:].any()


@pytest.mark.parametrize("seconds", [1 / RATE_HZ, 0.001, 0.05])
def test_a_moment_fills_the_picture_too(tmp_path: Path, seconds: float) -> None:
    picture = Picture(width=300, height=32)
    path = write(tmp_path / "a.wav", tone(1000, 1.0))
    levels = read_png(draw_spectrogram(path, 0.50025, 0.50025 + seconds, picture))
    assert (levels.max(axis=0) > 0).all()


def test_memory_does_not_grow_with_the_stretch(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", *[tone(1000, 60.0)] * 10)

    def peak_bytes(end_s: float) -> int:
        tracemalloc.start()
        draw_spectrogram(path, 0.0, end_s, Picture(width=64, height=64))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert peak_bytes(600.0) < 1.5 * peak_bytes(60.0)


@pytest.mark.parametrize(
    "picture",
    [
        Picture(width=15),
        Picture(width=4097),
        Picture(height=0),
        Picture(floor_dbfs=-10.0, ceiling_dbfs=-10.0),
        Picture(floor_dbfs=float("nan")),
    ],
)
def test_an_impossible_picture_is_refused(tmp_path: Path, picture: Picture) -> None:
    path = write(tmp_path / "a.wav", tone(1000, 1.0))
    with pytest.raises(InvalidValueError):
        draw_spectrogram(path, 0.0, 1.0, picture)


def test_a_stretch_past_the_end_and_a_text_are_errors(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(1000, 1.0))
    with pytest.raises(NoSamplesError):
        draw_spectrogram(path, 5.0, 6.0, Picture())
    (tmp_path / "a.txt").write_text("no sound")
    with pytest.raises(NotAudioError):
        draw_spectrogram(tmp_path / "a.txt", 0.0, 1.0, Picture())

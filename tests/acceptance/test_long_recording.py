"""A recording of ten hours goes in with little memory, and its last second is found."""

from __future__ import annotations

import os
import tempfile
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

RATE_HZ = 1_000
HOURS = 10
MIB = 1024 * 1024


def write_hum(path: Path, hours: float, beep_at_s: float) -> None:
    """Write a quiet hum of 100 Hz with a beep of 400 Hz for the two seconds from `beep_at_s`."""
    time_s = np.arange(60 * RATE_HZ) / RATE_HZ
    minute = np.round(900 * np.sin(2 * np.pi * 100 * time_s)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        for number in range(round(hours * 60)):
            samples = minute
            start_s = beep_at_s - 60 * number
            if 0 <= start_s < 60:
                samples = minute.copy()
                beep = (time_s >= start_s) & (time_s < start_s + 2)
                samples[beep] = np.round(9_000 * np.sin(2 * np.pi * 400 * time_s[beep]))
            file.writeframes(samples.tobytes())


def peak_rss_bytes(soundpost: Any, *args: str | Path) -> int:
    """Run the command and return the most memory that its process had."""
    with tempfile.TemporaryFile() as told:
        actions = [(os.POSIX_SPAWN_DUP2, told.fileno(), 1), (os.POSIX_SPAWN_DUP2, told.fileno(), 2)]
        line = soundpost.line(args)
        child = os.posix_spawn(line[0], line, soundpost.environment(), file_actions=actions)
        _, status, usage = os.wait4(child, 0)
        told.seek(0)
        assert os.waitstatus_to_exitcode(status) == 0, told.read().decode()
    return usage.ru_maxrss * 1024


def test_ten_hours_grow_memory_by_less_than_300_mb(soundpost: Any, tmp_path: Path) -> None:
    short, long = tmp_path / "short.wav", tmp_path / "long.wav"
    write_hum(short, 0.05, beep_at_s=30)
    last_s = HOURS * 3600 - 6
    write_hum(long, HOURS, beep_at_s=last_s)
    few = peak_rss_bytes(soundpost, "ingest", short)
    many = peak_rss_bytes(soundpost, "ingest", long)
    assert many - few < 300 * MIB
    hits = soundpost("search", "400 hz tone", "--json").document["hits"]
    assert {Path(hit["path"]).name for hit in hits[:2]} == {"short.wav", "long.wav"}
    (hit,) = [hit for hit in hits if hit["path"] == str(long)]
    assert abs(hit["peak_s"] - last_s) <= 1.5

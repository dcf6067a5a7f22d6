"""The installed command, run in real processes.

SOUNDPOST_TEST_COMMAND names the command to test; by default it is the one beside this Python.
"""

from __future__ import annotations

import json
import os
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

RATE_HZ = 8_000


@dataclass
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """What it printed as JSON."""
        return json.loads(self.out)


@dataclass
class Command:
    """`soundpost` with a home of its own and the stand-in encoder."""

    home: Path
    folder: Path
    more: dict[str, str] = field(default_factory=dict)
    before: list[str] = field(default_factory=list)

    def __call__(self, *args: str | Path, code: int | None = 0) -> Outcome:
        """Run to the end; `code` is the exit code it must have."""
        done = subprocess.run(
            self.line(args),
            env=self.environment(),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert code is None or done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return Outcome(done.returncode, done.stdout, done.stderr)

    def start(self, *args: str | Path) -> subprocess.Popen[str]:
        """Start it and return the running process."""
        return subprocess.Popen(
            self.line(args),
            env=self.environment(),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def line(self, args: Sequence[str | Path]) -> list[str]:
        """The command line."""
        default = str(Path(sys.executable).with_name("soundpost"))
        command = os.environ.get("SOUNDPOST_TEST_COMMAND")
        return [*self.before, *(shlex.split(command) if command else [default]), *map(str, args)]

    def environment(self) -> dict[str, str]:
        """The environment without this machine's settings."""
        kept = {key: value for key, value in os.environ.items() if "SOUNDPOST" not in key}
        own = {
            "SOUNDPOST_HOME": str(self.home),
            "SOUNDPOST_ENCODER": "placeholder:tone",
            "SOUNDPOST_DATA": str(self.home / "no-data"),
        }
        return {**kept, "PYTHONWARNINGS": "default", **own, **self.more}

    def windows(self) -> int:
        """How many windows are committed so far."""
        try:
            database = sqlite3.connect(f"file:{self.home / 'soundpost.db'}?mode=ro", uri=True)
            with closing(database):
                return int(database.execute("SELECT count(*) FROM windows").fetchone()[0])
        except sqlite3.OperationalError:
            return 0

    def content(self) -> list[Any]:
        """Everything in the database that a person could find out, without ids and write times."""
        with closing(sqlite3.connect(self.home / "soundpost.db")) as database:
            database.row_factory = sqlite3.Row
            rows = database.execute(_RECORDINGS).fetchall()
            return [(*tuple(row)[1:], _windows(database, row["id"])) for row in rows]


_RECORDINGS = """
    SELECT r.id, r.path, r.sha256, r.status, r.truncated, r.error_code, r.error_detail, r.remarks,
           r.duration_s, r.sample_rate_hz, r.channels, r.format, r.started_at, s.name
    FROM recordings r JOIN sources s ON s.id = r.source_id ORDER BY r.path, r.sha256
"""
_WINDOWS = """
    SELECT w.id, w.start_s, w.end_s, w.acoustics, e.vector, e.frames
    FROM windows w LEFT JOIN embeddings e ON e.window_id = w.id
    WHERE w.recording_id = ? ORDER BY w.start_s
"""
_TAGS = "SELECT label, round(probability, 4) FROM tags WHERE window_id = ? ORDER BY label"


def _windows(database: sqlite3.Connection, recording_id: int) -> list[Any]:
    return [
        (
            *tuple(row)[1:4],
            # Batches differ between runs, and with them the last bits of a vector.
            np.frombuffer(row["vector"], "<f4").round(4).tolist(),
            row["frames"],
            [tuple(tag) for tag in database.execute(_TAGS, (row["id"],))],
        )
        for row in database.execute(_WINDOWS, (recording_id,))
    ]


@pytest.fixture
def soundpost(tmp_path: Path) -> Command:
    """The command, in a folder of its own."""
    folder = tmp_path / "work"
    folder.mkdir()
    return Command(tmp_path / "home", folder)


@pytest.fixture
def write_tones() -> Callable[..., Path]:
    """Return the function that writes a file of sines."""
    return _write_tones


def _write_tones(path: Path, *parts: tuple[float, float], rate_hz: int = RATE_HZ) -> Path:
    """Write sines one after the other: (pitch in Hz, seconds)."""
    wave = [
        0.3 * np.sin(2 * np.pi * hz * np.arange(round(length_s * rate_hz)) / rate_hz)
        for hz, length_s in parts
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.concatenate(wave), rate_hz, subtype="PCM_16")
    return path

"""A full disk: a clear error, nothing half-written, and it goes on when there is space again.

Each test works on a small file system of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytestmark = pytest.mark.acceptance

SIZE_MB = 24
RATE_HZ = 16_000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An empty file system of a few megabytes."""
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "tmpfs", str(mount)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        message = f"no file system can be mounted here: {done.stderr.strip()}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    yield mount
    subprocess.run(["umount", "--lazy", str(mount)], check=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty recordings of five seconds."""
    root = tmp_path / "audio"
    root.mkdir()
    rng = np.random.default_rng(0)
    for number in range(20):
        wave = 0.1 * rng.standard_normal(5 * RATE_HZ)
        soundfile.write(root / f"{number:02}.wav", wave, RATE_HZ, subtype="PCM_16")
    return root


@dataclass
class Archive:
    """The command line over an archive on the small disk."""

    home: Path

    def run(self, *arguments: str, reserve_bytes: int = 0) -> subprocess.CompletedProcess[str]:
        env = os.environ | {
            "SOUNDPOST_HOME": str(self.home),
            "SOUNDPOST_ENCODER": "placeholder:tone",
            "SOUNDPOST_DISK_RESERVE_BYTES": str(reserve_bytes),
        }
        command = [sys.executable, "-m", "soundpost_ui", *arguments]
        return subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=120, check=False
        )

    def index_checks(self, *arguments: str) -> list[tuple[str, str]]:
        """Level and message of what the doctor says of the index."""
        done = self.run("doctor", "--json", *arguments)
        if not done.stdout:
            return [("error", done.stderr)]
        checks = json.loads(done.stdout)
        return [(item["level"], item["message"]) for item in checks if item["name"] == "index"]

    def statuses(self) -> list[str]:
        listed = json.loads(self.run("recordings", "--json", "--limit", "0").stdout)
        return [row["status"] for row in listed["recordings"]]


@pytest.fixture
def archive(disk: Path) -> Archive:
    made = Archive(disk / "home")
    assert made.run("doctor").returncode in (0, 1)
    return made


def fill(disk: Path, leave_bytes: int) -> Path:
    """Take the space of a disk but for a little."""
    status = os.statvfs(disk)
    ballast = disk / "ballast"
    free = status.f_bavail * status.f_frsize
    ballast.write_bytes(b"\0" * max(0, free - leave_bytes))
    return ballast


def leftovers(home: Path) -> list[Path]:
    """What was begun and not finished."""
    return [
        path for path in home.rglob("*") if path.suffix in (".part", ".tmp") or "#" in path.name
    ]


def test_copies_stop_where_the_disk_is_full_and_go_on_later(
    disk: Path, archive: Archive, folder: Path
) -> None:
    ballast = fill(disk, 700_000)
    done = archive.run("ingest", str(folder), "--copy")
    assert done.returncode == 2
    assert "remedy" in done.stderr
    assert "Traceback" not in done.stderr
    assert leftovers(archive.home) == []
    ballast.unlink()
    assert archive.run("ingest", str(folder), "--copy").returncode == 0
    assert archive.statuses() == ["embedded"] * 20


def test_a_database_that_cannot_grow_is_an_error_and_stays_whole(
    disk: Path, archive: Archive, folder: Path
) -> None:
    ballast = fill(disk, 90_000)
    done = archive.run("ingest", str(folder))
    assert done.returncode == 2
    assert "[store]" in done.stderr
    ballast.unlink()
    assert archive.run("ingest", str(folder)).returncode == 0
    assert archive.statuses() == ["embedded"] * 20


def test_a_snapshot_that_finds_no_room_leaves_the_old_one_in_use(
    disk: Path, archive: Archive, folder: Path
) -> None:
    assert archive.run("ingest", str(folder)).returncode == 0
    ballast = fill(disk, 4_096)
    failed = archive.index_checks("--rebuild-index")
    assert any("[index]" in text or level == "error" for level, text in failed)
    assert leftovers(archive.home) == []
    ballast.unlink()
    assert {level for level, _ in archive.index_checks("--rebuild-index")} == {"ok"}
    assert archive.run("search", "440 Hz").returncode == 0


def test_nothing_new_is_taken_in_when_the_reserve_is_reached(
    disk: Path, archive: Archive, folder: Path
) -> None:
    done = archive.run("ingest", str(folder), "--queue", reserve_bytes=10**9)
    assert done.returncode == 2
    assert "[disk-full]" in done.stderr
    assert archive.statuses() == []
    assert archive.run("ingest", str(folder), "--queue").returncode == 0
    assert archive.statuses() == ["queued"] * 20

"""Killed at any moment, the same command ends in the same rows as if nothing had happened."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

KILLS = 10
EVERY = ("--commit-every", "8", "--time-from-name")


@pytest.fixture
def archive(soundpost: Any, write_tones: Callable[..., Path]) -> Path:
    """Twenty-five short recordings, one of a minute and a half, and two that are broken."""
    folder: Path = soundpost.folder / "archive"
    for number in range(25):
        write_tones(folder / f"20260315_0430{number:02d}.wav", (100 + 30 * number, 2.0))
    write_tones(folder / "long.wav", *((150 + 10 * step, 3.0) for step in range(30)))
    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("no sound")
    return folder


def test_killed_ten_times_it_ends_in_the_rows_of_one_quiet_run(
    soundpost: Any, archive: Path
) -> None:
    quiet = replace(soundpost, home=soundpost.home.with_name("quiet"))
    began = time.monotonic()
    quiet("ingest", archive, *EVERY)
    length_s = time.monotonic() - began
    expected = quiet.content()
    rng = np.random.default_rng(7)
    kills = 0
    while kills < KILLS:
        if _killed(soundpost, archive, after_s=length_s * float(rng.uniform(0.2, 0.95))):
            kills += 1
        else:
            # It got to the end between two kills: look at it, and start from nothing.
            assert soundpost.content() == expected
            shutil.rmtree(soundpost.home)
    soundpost("ingest", archive, *EVERY)
    assert soundpost.content() == expected
    assert soundpost("doctor", "--files", code=None).code == 0


def _killed(soundpost: Any, archive: Path, after_s: float) -> bool:
    process = soundpost.start("ingest", archive, *EVERY)
    try:
        process.communicate(timeout=after_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return True
    assert process.returncode == 0
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_says_how_to_go_on(
    soundpost: Any, archive: Path, write_tones: Callable[..., Path], number: signal.Signals
) -> None:
    write_tones(archive / "endless.wav", *((150 + 2 * step, 5.0) for step in range(360)))
    process = soundpost.start("ingest", archive, "--commit-every", "8")
    while process.poll() is None and soundpost.windows() < 16:
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "Interrupted" in out and "same command" in out
    (archive / "endless.wav").unlink()
    assert soundpost("ingest", archive, "--json").document["interrupted"] is False

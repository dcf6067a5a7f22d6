"""Listening while the disk is nearly full: what is kept stays, and it goes on by itself."""

from __future__ import annotations

import logging
import random
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from soundpost.archive.listen import Listener, ListenOptions
from soundpost.archive.spool import Spool
from soundpost.archive.summary import Summary
from soundpost.audio.live import LiveTarget
from soundpost.jobs import JobQueue, NoSender

RATE_HZ = 16_000


def test_no_segment_begins_on_a_full_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sound = np.random.default_rng(0).integers(-9000, 9000, 4 * RATE_HZ).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", sound, RATE_HZ)
    heard: list[np.ndarray] = []

    def admit(paths: list[Path]) -> Summary:
        heard.extend(soundfile.read(path, dtype="int16")[0] for path in paths)
        return Summary(files=1, queued=1)

    full = JobQueue(NoSender(), folder=tmp_path, reserve_bytes=2**62)
    roomy = JobQueue(NoSender(), folder=tmp_path)
    queues = iter([full, full])
    spool = Spool(tmp_path / "spool", lambda: next(queues, roomy).check_disk())
    target = LiveTarget.parse(str(tmp_path / "a.wav"))
    options = ListenOptions(segment_s=2.0, first_wait_s=0.01)
    with caplog.at_level(logging.WARNING):
        result = Listener(target, spool, admit, random.Random(0), options).run(threading.Event())
    assert result.audio_s == 4.0
    assert np.array_equal(np.concatenate(heard), sound)
    assert [record.__dict__["code"] for record in caplog.records] == ["disk-full"] * 2

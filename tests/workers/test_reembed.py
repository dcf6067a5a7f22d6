"""A model switch: the old space serves until the new one holds everything."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
import soundfile

from soundpost.archive.discover import Selection, find_files
from soundpost.archive.plan import IngestOptions
from soundpost.archive.register import register
from soundpost.config import Settings
from soundpost.jobs import JobQueue, NoSender
from soundpost.models.encoder import EncoderSpec
from soundpost.models.placeholder import ToneEncoder
from soundpost.store import jobs, models
from soundpost.store.files import AudioFiles
from soundpost.store.session import Store
from soundpost_workers.embed import Tools, embed
from soundpost_workers.reembed import reembed

RATE_HZ = 16_000


class NewerTone(ToneEncoder):
    """The stand-in with other weights, as far as anyone can tell."""

    @cached_property
    def spec(self) -> EncoderSpec:  # type: ignore[override]  # fixed for this encoder
        return replace(ToneEncoder().spec, revision="newer")


@pytest.fixture
def tools(store: Store, tmp_path: Path) -> Tools:
    """A worker whose archive of six recordings is embedded."""
    for number in range(6):
        time_s = np.arange(2 * RATE_HZ) / RATE_HZ
        wave = 0.3 * np.sin(2 * np.pi * (200 + 50 * number) * time_s)
        soundfile.write(tmp_path / f"{number}.wav", wave, RATE_HZ, subtype="PCM_16")
    settings = Settings(home=tmp_path / "home", embed_together_s=3.0)
    files = AudioFiles(settings.resolved_objects_url)
    made = Tools(settings, store, files, ToneEncoder(), JobQueue(NoSender()), "worker")
    found = find_files([tmp_path], Selection(recursive=False))
    register(found, IngestOptions(), store, made.queue)
    drain(made)
    return made


def drain(tools: Tools, rounds: int = 20) -> None:
    for _ in range(rounds):
        with tools.store.reading() as session:
            waiting = jobs.find(session, state="queued", kind="embed")
        if not waiting:
            return
        embed(tools, waiting[0].id, threading.Event())


def serving(store: Store) -> str:
    with store.reading() as session:
        model = models.serving(session)
        assert model is not None
        return model.revision


def ask(tools: Tools) -> int:
    with tools.store.session() as session:
        job_id = tools.queue.reembed(session).id
    return reembed(tools, job_id)


def test_the_old_space_serves_until_the_new_one_is_complete(tools: Tools) -> None:
    old = ToneEncoder().spec.revision
    newer = replace(tools, encoder=NewerTone())
    assert ask(tools) == 0
    assert ask(newer) == 6
    assert serving(tools.store) == old
    # Three seconds at once, and recordings of two: not all of them in one round.
    with tools.store.reading() as session:
        first = jobs.find(session, state="queued", kind="embed")[0]
    newer = replace(newer, settings=newer.settings.model_copy(update={"embed_together_s": 0.1}))
    drain(newer, rounds=0)
    assert serving(tools.store) == old
    embed(newer, first.id, threading.Event())
    drain(newer)
    assert serving(tools.store) == "newer"
    with tools.store.reading() as session:
        new_id = models.find_all(session)[-1].id
        assert models.coverage(session, new_id).embedded == 6


def test_a_worker_left_over_from_before_does_not_switch_back(tools: Tools, tmp_path: Path) -> None:
    newer = replace(tools, encoder=NewerTone())
    ask(newer)
    drain(newer)
    soundfile.write(tmp_path / "late.wav", np.full(2 * RATE_HZ, 0.1), RATE_HZ)
    found = find_files([tmp_path / "late.wav"], Selection())
    register(found, IngestOptions(), tools.store, tools.queue)
    drain(tools)
    assert serving(tools.store) == "newer"


def test_asking_again_adds_nothing_that_is_asked_for_already(tools: Tools) -> None:
    newer = replace(tools, encoder=NewerTone())
    ask(newer)
    ask(newer)
    with tools.store.reading() as session:
        queued = jobs.find(session, state="queued", kind="embed")
    assert len(queued) == len({job.key for job in queued}) == 6
    assert {job.priority for job in queued} == {jobs.BACKFILL}


def test_a_full_queue_puts_the_rest_off(tools: Tools) -> None:
    newer = replace(tools, encoder=NewerTone(), queue=JobQueue(NoSender(), limit=2))
    assert ask(newer) == 0
    with tools.store.reading() as session:
        (job,) = jobs.find(session, state="queued", kind="reembed")
        assert job.error_code == "queue-full"
        assert job.attempts == 1

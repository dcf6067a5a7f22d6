"""Watching by job: once for each recording, in the order of time, whatever messages do."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from soundpost.archive.discover import Selection, find_files
from soundpost.archive.ingest import ingest
from soundpost.archive.plan import IngestOptions
from soundpost.archive.register import register
from soundpost.config import Settings
from soundpost.errors import UnknownSourceError
from soundpost.jobs import JobQueue, NoSender
from soundpost.models.placeholder import ToneEncoder
from soundpost.monitoring import baselines as making
from soundpost.monitoring import channel_setup
from soundpost.monitoring.baselines import Choice
from soundpost.monitoring.channel_setup import ChannelPlan
from soundpost.monitoring.notify import incident_changed
from soundpost.monitoring.watch import Watched, Watcher, begin_watching
from soundpost.store import baselines, incidents, jobs, recordings, rules, scores, sources
from soundpost.store.files import AudioFiles
from soundpost.store.rules import NewRule
from soundpost.store.session import Store
from soundpost.store.tables import Job, Recording, utc_now
from soundpost_workers.embed import Tools, embed
from soundpost_workers.notify import Courier
from soundpost_workers.watch import WatchTools, prepare_baseline, tick, watch
from soundpost_workers.watch_here import Noticed, Outcome, watch_here

BUDGET_S = 3600.0


def make_tools(store: Store, home: Path, name: str = "worker") -> WatchTools:
    settings = Settings(home=home, lease_s=30.0)
    queue = JobQueue(NoSender())
    return WatchTools(settings, store, queue, Watcher(store, incident_changed), name)


@pytest.fixture
def tools(pump_archive: Any, tmp_path: Path) -> WatchTools:
    return make_tools(pump_archive.store, tmp_path)


@pytest.fixture
def pump(pump_archive: Any) -> Any:
    """A pump with a baseline of eight recordings in use."""
    for number in range(8):
        pump_archive.record(number)
    with pump_archive.store.session() as session:
        source = sources.by_name(session, "pump-3")
        made = making.create(session, source, Choice(budget_s=BUDGET_S), "ann")
    making.prepare(pump_archive.store, made.id)
    with pump_archive.store.session() as session:
        begin_watching(session, made.id, "ann")
    pump_archive.baseline_id = made.id
    return pump_archive


def ask(tools: WatchTools, *recording_ids: int) -> list[int]:
    """Ask for recordings to be watched, as those who embed them do; return the jobs."""
    asked = []
    for recording_id in recording_ids:
        with tools.store.session() as session:
            job = tools.queue.watch_embedded(session, recording_id)
            asked += [job.id] if job is not None else []
    return asked


def listening(tools: WatchTools) -> tuple[WatchTools, list[Watched]]:
    heard: list[Watched] = []
    return replace(tools, on_watched=heard.append), heard


def states(tools: WatchTools, ids: list[int]) -> list[str]:
    with tools.store.reading() as session:
        return [session.get_one(Job, number).state for number in ids]


# --- once, and in order -----------------------------------------------------------------------


def test_a_recording_is_watched_once_however_often_it_is_asked_for(
    pump: Any, tools: WatchTools
) -> None:
    tools, heard = listening(tools)
    recording = pump.record(20)
    (asked,) = ask(tools, recording)
    assert ask(tools, recording) == []
    assert [watch(tools, asked) for _ in range(3)] == [1, 0, 0]
    assert ask(tools, recording) == []
    assert [(one.recording_id, one.windows, one.scored) for one in heard] == [(recording, 12, True)]
    with tools.store.reading() as session:
        found = scores.of_recording(session, recording, pump.baseline_id)
    assert len(found) == 12
    assert all(0.0 < score.p_value <= 1.0 for score in found)


def test_earlier_recordings_go_first_whatever_the_order_of_the_messages(
    pump: Any, tools: WatchTools
) -> None:
    tools, heard = listening(tools)
    numbers = list(range(20, 28))
    random.Random(3).shuffle(numbers)
    made = {number: pump.record(number) for number in numbers}
    asked = ask(tools, *made.values())
    random.Random(4).shuffle(asked)
    for job_id in asked * 2:
        watch(tools, job_id)
    assert [one.recording_id for one in heard] == [made[number] for number in sorted(made)]
    assert set(states(tools, asked)) == {"done"}


def test_two_workers_at_once_watch_each_recording_once(
    pump: Any, tools: WatchTools, tmp_path: Path
) -> None:
    made = [pump.record(number) for number in range(20, 32)]
    asked = ask(tools, *made)
    heard: list[Watched] = []
    ready = threading.Barrier(2)

    def work(name: str, order: list[int]) -> None:
        mine = replace(make_tools(tools.store, tmp_path, name), on_watched=heard.append)
        ready.wait(30)
        for job_id in order * 2:
            watch(mine, job_id)

    with ThreadPoolExecutor(2) as pool:
        working = [pool.submit(work, "one", asked), pool.submit(work, "two", asked[::-1])]
        for done in working:
            done.result(120)
    # What one worker put off for an earlier one of the other's is still there to be done.
    for job_id in asked:
        watch(replace(tools, on_watched=heard.append), job_id)
    assert sorted(one.recording_id for one in heard) == made
    assert set(states(tools, asked)) == {"done"}
    with tools.store.reading() as session:
        assert [len(scores.of_recording(session, n, pump.baseline_id)) for n in made] == [12] * 12


def test_a_job_of_a_deleted_recording_ends(pump: Any, tools: WatchTools) -> None:
    tools, heard = listening(tools)
    recording = pump.record(20)
    (asked,) = ask(tools, recording)
    with tools.store.session() as session:
        recordings.remove(session, recording)
    watch(tools, asked)
    assert states(tools, [asked]) == ["done"]
    assert [(one.windows, one.scored) for one in heard] == [(0, False)]


def test_an_earlier_recording_that_is_being_embedded_is_waited_for(
    pump: Any, tools: WatchTools
) -> None:
    tools, heard = listening(tools)
    earlier, later = pump.arrive(20), pump.record(21)
    (asked,) = ask(tools, later)
    watch(tools, asked)
    assert (heard, states(tools, [asked])) == ([], ["queued"])
    pump.embed(earlier)
    ask(tools, earlier)
    watch(tools, asked)
    assert [one.recording_id for one in heard] == [earlier, later]


def test_an_earlier_recording_is_not_waited_for_for_ever(pump: Any, tools: WatchTools) -> None:
    tools, heard = listening(tools)
    stuck, later = pump.arrive(20), pump.record(21)
    (asked,) = ask(tools, later)
    with tools.store.session() as session:
        for recording_id in (stuck, later):
            recording = session.get_one(Recording, recording_id)
            recording.created_at = utc_now() - timedelta(minutes=5)
    watch(tools, asked)
    assert [one.recording_id for one in heard] == [later]


def test_a_recording_embedded_anew_by_another_model_is_not_watched_again(
    pump: Any, tools: WatchTools
) -> None:
    recording = pump.record(20)
    (asked,) = ask(tools, recording)
    watch(tools, asked)
    with tools.store.session() as session:
        jobs.remove_finished(session, utc_now() + timedelta(days=1))
    pump.model_id = pump.add_model("2")
    pump.embed(recording)
    assert ask(tools, recording) == []


# --- baselines in the background --------------------------------------------------------------


def baseline_jobs(tools: WatchTools) -> list[int]:
    with tools.store.reading() as session:
        return [job.id for job in jobs.find(session, kind="baseline", state="queued")]


def test_the_baseline_follows_a_new_model(pump: Any, tools: WatchTools) -> None:
    before = pump.model_id
    known = [recording.id for recording in all_recordings(tools)]
    pump.model_id = pump.add_model("2")
    for recording_id in known:
        pump.embed(recording_id)
    for _ in range(3):
        tick(tools, utc_now())
    (asked,) = baseline_jobs(tools)
    assert prepare_baseline(tools, asked)
    with tools.store.reading() as session:
        active = baselines.active(session, pump.source_id)
        assert active is not None
        assert (active.model_id, active.version) == (pump.model_id, 2)
        assert baselines.recording_ids(session, active.id) == known
    assert before != pump.model_id
    tick(tools, utc_now())
    assert baseline_jobs(tools) == []
    tools, heard = listening(tools)
    (job_id,) = ask(tools, pump.record(20))
    watch(tools, job_id)
    assert heard[0].scored


def all_recordings(tools: WatchTools) -> list[Recording]:
    with tools.store.reading() as session:
        return recordings.find(session, limit=None)


def test_a_baseline_that_learns_is_used_when_its_time_is_over(
    pump_archive: Any, tools: WatchTools
) -> None:
    with tools.store.session() as session:
        source = sources.by_name(session, "pump-3")
        made = making.create(session, source, Choice(learn_s=3600.0, budget_s=BUDGET_S), "ann")
        made.created_at = pump_archive.noon
        made.learn_until = pump_archive.noon + timedelta(hours=1)
    for number in range(8):
        pump_archive.record(number)
    tick(tools, pump_archive.noon + timedelta(minutes=59))
    assert baseline_jobs(tools) == []
    for _ in range(2):
        tick(tools, pump_archive.noon + timedelta(minutes=61))
    (asked,) = baseline_jobs(tools)
    prepare_baseline(tools, asked)
    with tools.store.reading() as session:
        active = baselines.active(session, pump_archive.source_id)
        assert active is not None and active.id == made.id
        heard_by = rules.for_source(session, pump_archive.source_id)
        assert {rule.kind for rule in heard_by} == {"novelty", "microphone", "format"}


def test_a_baseline_that_learned_nothing_says_so(pump_archive: Any, tools: WatchTools) -> None:
    with tools.store.session() as session:
        source = sources.by_name(session, "pump-3")
        made = making.create(session, source, Choice(learn_s=60.0), "ann")
    tick(tools, utc_now() + timedelta(minutes=2))
    assert baseline_jobs(tools) == []
    with tools.store.reading() as session:
        failed = baselines.get(session, made.id)
        assert (failed.state, failed.error_code) == ("failed", "nothing-to-learn")


# --- every way into the archive ---------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "audio"
    root.mkdir()
    for number in range(3):
        time_s = np.arange(10 * 16_000) / 16_000
        soundfile.write(root / f"{number}.wav", 0.3 * np.sin(1000 * (1 + number) * time_s), 16_000)
    return root


def waiting(store: Store) -> list[int]:
    with store.reading() as session:
        found = jobs.find(session, kind="watch", limit=None)
        return sorted(int(job.payload["recording"]) for job in found)


def by_ingest(store: Store, folder: Path, home: Path) -> None:
    options, queue = IngestOptions(source="yard"), JobQueue(NoSender())
    found = find_files([folder], Selection())
    assert not ingest(found, options, store, ToneEncoder(), None, queue=queue).failed


def by_worker(store: Store, folder: Path, home: Path) -> None:
    settings, queue = Settings(home=home), JobQueue(NoSender())
    files = AudioFiles(settings.resolved_objects_url)
    found = find_files([folder], Selection())
    register(found, IngestOptions(source="yard"), store, queue, files)
    with store.reading() as session:
        asked = jobs.find(session, kind="embed", state="queued")
    for job in asked:
        tools = Tools(settings, store, files, ToneEncoder(), queue, "worker")
        embed(tools, job.id, threading.Event())


@pytest.mark.parametrize("way", [by_ingest, by_worker])
def test_what_is_embedded_is_watched_if_its_source_is(
    store: Store, folder: Path, tmp_path: Path, way: Callable[[Store, Path, Path], None]
) -> None:
    (folder / "2.wav").rename(tmp_path / "2.wav")
    way(store, folder, tmp_path)
    assert waiting(store) == []
    with store.session() as session:
        source_id = sources.by_name(session, "yard").id
        new = NewRule("loud", "level", "ann", {"above_dbfs": -60.0}, source_id)
        rules.add(session, new, now=utc_now())
    (tmp_path / "2.wav").rename(folder / "2.wav")
    for _ in range(2):
        way(store, folder, tmp_path)
    with store.reading() as session:
        newest = max(row.id for row in recordings.find(session, limit=None))
    assert waiting(store) == [newest]


def test_a_full_queue_does_not_keep_a_recording_from_being_watched(
    pump: Any, tools: WatchTools
) -> None:
    small = replace(tools, queue=JobQueue(NoSender(), limit=1))
    assert len(ask(small, pump.record(20), pump.record(21), pump.record(22))) == 3


# --- here and now -----------------------------------------------------------------------------


def look(tools: WatchTools, source: str | None = None) -> tuple[list[Noticed], Outcome]:
    noticed: list[Noticed] = []
    files = AudioFiles(tools.settings.resolved_objects_url)
    courier = Courier(tools.settings, tools.store, files, tools.worker)
    return noticed, watch_here(tools, courier, source, noticed.append)


def test_what_waits_is_watched_here_and_people_are_told(
    pump: Any, tools: WatchTools, webhook_server: Any
) -> None:
    plan = ChannelPlan(name="ops", kind=None, url=webhook_server.url, group_wait_s=0.0)
    with tools.store.session() as session:
        channel_setup.add(session, plan, utc_now(), tools.settings)
    usual = [pump.record(number) for number in (20, 21)]
    strange = pump.record(22, offset=1.0, level_dbfs=-15.0)
    ask(tools, strange, *usual)
    noticed, outcome = look(tools)
    assert [one.recording_id for one in noticed] == [*usual, strange]
    assert all(one.scored and one.source == "pump-3" for one in noticed)
    assert noticed[-1].began_at == pump.noon + timedelta(minutes=22)
    (opened,) = [change for one in noticed for change in one.changes if change.kind == "opened"]
    assert opened in noticed[-1].changes and opened.reason
    assert (outcome.watched, outcome.delivered, outcome.waiting) == (3, 1, ())
    assert [request.document["kind"] for request in webhook_server.received] == ["opened"]
    assert look(tools)[1].watched == 0
    assert len(webhook_server.received) == 1


def test_only_one_source_is_watched_if_one_is_named(pump: Any, tools: WatchTools) -> None:
    ask(tools, pump.record(20))
    with tools.store.session() as session:
        sources.ensure(session, "fan")
    assert look(tools, "fan")[1].watched == 0
    assert look(tools, "pump-3")[1].watched == 1
    with pytest.raises(UnknownSourceError):
        look(tools, "nowhere")


def test_baselines_that_wait_are_prepared_first(pump_archive: Any, tools: WatchTools) -> None:
    for number in range(8):
        pump_archive.record(number)
    with tools.store.session() as session:
        source = sources.by_name(session, "pump-3")
        made = making.create(session, source, Choice(budget_s=BUDGET_S), "ann")
        tools.queue.prepare_baseline(session, made.id, then="activate")
        tools.queue.watch(session, 8, source.id)
    noticed, outcome = look(tools)
    assert [(one.version, one.state) for one in outcome.prepared] == [(1, "active")]
    assert [(one.recording_id, one.scored) for one in noticed] == [(8, True)]


def test_what_cannot_be_done_yet_is_named(pump: Any, tools: WatchTools) -> None:
    pump.arrive(20)
    (asked,) = ask(tools, pump.record(21))
    _, outcome = look(tools)
    assert outcome.watched == 0
    assert [(job.job_id, job.kind, job.error_code) for job in outcome.waiting] == [
        (asked, "watch", None)
    ]


def test_an_incident_ends_when_the_usual_sound_is_back(pump: Any, tools: WatchTools) -> None:
    ask(tools, *(pump.record(number, offset=1.0, level_dbfs=-15.0) for number in (20, 21)))
    look(tools)
    ask(tools, *(pump.record(number) for number in range(22, 40)))
    noticed, outcome = look(tools)
    kinds = [change.kind for one in noticed for change in one.changes]
    kinds += [change.kind for change in outcome.passed]
    assert kinds == ["resolved"]
    with tools.store.reading() as session:
        assert [row.state for row in incidents.find(session)] == ["resolved"]


def test_what_was_said_of_nothing_is_nothing(store: Store, tmp_path: Path) -> None:
    noticed, outcome = look(make_tools(store, tmp_path))
    assert (noticed, outcome) == ([], Outcome(0, (), (), 0, ()))

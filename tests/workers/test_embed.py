"""Embedding by job ends in the rows of a direct ingest, whatever happens on the way."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sqlalchemy import select

from soundpost.archive.discover import Discovery, Selection, find_files
from soundpost.archive.ingest import ingest
from soundpost.archive.plan import IngestOptions, Timing
from soundpost.archive.register import register
from soundpost.config import Settings
from soundpost.errors import QueueFullError
from soundpost.jobs import JobQueue, NoSender
from soundpost.models.encoder import AudioEncoding, FloatArray
from soundpost.models.placeholder import ToneEncoder
from soundpost.store import jobs, recordings
from soundpost.store.files import AudioFiles
from soundpost.store.jobs import ToSend
from soundpost.store.session import Store, open_store
from soundpost.store.tables import Embedding, Recording, Window, utc_now
from soundpost_migrations.upgrade import upgrade
from soundpost_workers.embed import Tools, embed
from soundpost_workers.lease import Renewal
from soundpost_workers.reconcile import reconcile

RATE_HZ = 16_000


class Sent:
    """A sender that keeps what it was given."""

    def __init__(self) -> None:
        self.ids: list[int] = []

    def send(self, message: ToSend) -> None:
        self.ids.append(message.id)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve recordings of 1 to 12 seconds, and a file that is none."""
    root = tmp_path / "audio"
    root.mkdir()
    for number in range(12):
        time_s = np.arange((number + 1) * RATE_HZ) / RATE_HZ
        wave = 0.3 * np.sin(2 * np.pi * (200 + 50 * number) * time_s)
        soundfile.write(root / f"{number:02}.wav", wave, RATE_HZ, subtype="PCM_16")
    (root / "text.wav").write_text("this is no audio")
    return root


@pytest.fixture
def tools(store: Store, tmp_path: Path) -> Tools:
    """A worker with the stand-in encoder."""
    settings = Settings(home=tmp_path / "home", embed_together_s=20.0, batch_size=4, lease_s=30.0)
    files = AudioFiles(settings.resolved_objects_url)
    return Tools(settings, store, files, ToneEncoder(), JobQueue(NoSender()), "worker 1")


def admit(tools: Tools, found: Discovery, sent: Sent | None = None, **values: object) -> list[int]:
    """Register files and return the ids of their jobs."""
    options = replace(IngestOptions(), **values)  # type: ignore[arg-type]  # any option
    register(found, options, tools.store, JobQueue(sent or Sent()), tools.files)
    with tools.store.reading() as session:
        return [job.id for job in jobs.find(session, limit=None)]


def everything(store: Store) -> list[tuple[object, ...]]:
    """Every vector with the file and the second it belongs to."""
    statement = (
        select(Recording.path, Window.start_s, Window.end_s, Embedding.vector, Recording.status)
        .join(Window, Window.recording_id == Recording.id)
        .join(Embedding, Embedding.window_id == Window.id)
        .order_by(Recording.path, Window.start_s)
    )
    with store.reading() as session:
        return [tuple(row) for row in session.execute(statement)]


def states(store: Store) -> dict[tuple[str, str], int]:
    """How many embedding jobs there are by state."""
    with store.reading() as session:
        counts = jobs.counts(session)
    return {key: count for key, count in counts.items() if key[0] == "embed"}


def test_jobs_end_in_the_rows_of_a_direct_ingest(
    tools: Tools, folder: Path, tmp_path: Path
) -> None:
    ids = admit(tools, find_files([folder], Selection()))
    for job_id in ids:
        embed(tools, job_id, threading.Event())
    url = f"sqlite:///{tmp_path / 'direct.db'}"
    upgrade(url)
    direct = open_store(url)
    ingest(find_files([folder], Selection()), IngestOptions(), direct, tools.encoder, None)
    assert len(ids) == 12
    assert everything(tools.store) == everything(direct)
    assert states(tools.store) == {("embed", "done"): 12}
    direct.close()


def test_one_message_drains_what_waits_and_the_others_find_nothing(
    tools: Tools, folder: Path
) -> None:
    sent = Sent()
    ids = admit(tools, find_files([folder], Selection()), sent)
    assert sorted(sent.ids) == ids
    first = embed(tools, ids[0], threading.Event())
    # Eight at a time until twenty seconds are there: 1 + ... + 8 s are enough.
    assert first == 8
    assert embed(tools, ids[0], threading.Event()) == 4
    assert embed(tools, ids[5], threading.Event()) == 0


@pytest.mark.parametrize("order", [1, -1])
def test_every_message_twice_and_in_any_order_changes_nothing(
    tools: Tools, folder: Path, order: int
) -> None:
    ids = admit(tools, find_files([folder], Selection()))
    for job_id in [*ids, *ids][::order]:
        embed(tools, job_id, threading.Event())
    assert states(tools.store) == {("embed", "done"): 12}
    rows = everything(tools.store)
    assert len(rows) == len({row[:2] for row in rows})
    assert len({row[0] for row in rows}) == 12


def test_a_message_of_a_job_that_is_gone_is_no_error(tools: Tools) -> None:
    assert embed(tools, 4711, threading.Event()) == 0


def test_a_recording_deleted_before_its_turn_ends_its_job(tools: Tools, folder: Path) -> None:
    ids = admit(tools, find_files([folder / "00.wav"], Selection()))
    with tools.store.session() as session:
        recordings.remove(session, recordings.find(session)[0].id)
    assert embed(tools, ids[0], threading.Event()) == 1
    assert states(tools.store) == {("embed", "done"): 1}


def test_a_file_that_is_away_is_tried_again_and_parked_at_last(tools: Tools, folder: Path) -> None:
    ids = admit(tools, find_files([folder / "00.wav"], Selection()))
    (folder / "00.wav").rename(folder / "away")
    for attempt in range(1, 6):
        embed(tools, ids[0], threading.Event())
        with tools.store.session() as session:
            job = jobs.get(session, ids[0])
            assert (job.attempts, job.error_code) == (attempt, "file-missing")
            assert job.state == ("failed" if attempt == 5 else "queued")
            job.due_at = utc_now()
    with tools.store.session() as session:
        assert recordings.find(session, status="failed")[0].error_code == "file-missing"
        jobs.retry(session, ids[0])
    (folder / "away").rename(folder / "00.wav")
    embed(tools, ids[0], threading.Event())
    assert states(tools.store) == {("embed", "done"): 1}
    assert {row[-1] for row in everything(tools.store)} == {"embedded"}


def test_a_copied_recording_needs_its_file_no_more(tools: Tools, folder: Path) -> None:
    ids = admit(tools, find_files([folder / "00.wav"], Selection()), copy=True)
    (folder / "00.wav").unlink()
    embed(tools, ids[0], threading.Event())
    assert states(tools.store) == {("embed", "done"): 1}


class Poisoned:
    """An encoder that ends the batch in which a loud window comes."""

    def __init__(self) -> None:
        self.inner = ToneEncoder()
        self.spec = self.inner.spec

    def encode_audio(
        self, waves: FloatArray, lengths: np.typing.NDArray[np.int64] | None = None
    ) -> AudioEncoding:
        if np.abs(waves).max() > 0.9:
            raise MemoryError("too loud")
        return self.inner.encode_audio(waves, lengths)

    def embed_text(self, texts: list[str]) -> FloatArray:
        return self.inner.embed_text(texts)

    def relevance(self, queries: FloatArray, similarity: FloatArray) -> FloatArray:
        return self.inner.relevance(queries, similarity)


def test_a_poison_recording_is_parked_and_its_neighbours_are_not_held_up(
    tools: Tools, folder: Path
) -> None:
    loud = np.sin(np.arange(RATE_HZ) / 3).astype(np.float32)
    soundfile.write(folder / "05-poison.wav", loud, RATE_HZ, subtype="PCM_16")
    poisoned = replace(tools, encoder=Poisoned())
    ids = admit(poisoned, find_files([folder], Selection()))
    for _ in range(6):
        for job_id in ids:
            embed(poisoned, job_id, threading.Event())
        with tools.store.session() as session:
            for job in jobs.find(session, state="queued", kind="embed", limit=None):
                job.due_at = utc_now()
    with tools.store.reading() as session:
        (parked,) = jobs.find(session, state="failed")
        recording = recordings.get(session, parked.payload["recording"])
        assert recording.path.endswith("05-poison.wav")
        assert parked.attempts == parked.max_attempts
        assert "MemoryError: too loud" in (parked.error_detail or "")
    assert states(tools.store) == {("embed", "done"): 12, ("embed", "failed"): 1}


def test_a_worker_told_to_stop_gives_back_what_it_has_not_done(tools: Tools, folder: Path) -> None:
    ids = admit(tools, find_files([folder], Selection()))
    stop = threading.Event()
    stop.set()
    assert embed(tools, ids[0], stop) == 0
    with tools.store.reading() as session:
        assert {(job.state, job.attempts) for job in jobs.find(session)} == {("queued", 0)}


def test_a_worker_lost_after_some_windows_leaves_none_twice(tools: Tools, folder: Path) -> None:
    ids = admit(tools, find_files([folder / "11.wav"], Selection()))

    class Dying(Poisoned):
        """Gives one window, then ends."""

        calls = 0

        def encode_audio(
            self, waves: FloatArray, lengths: np.typing.NDArray[np.int64] | None = None
        ) -> AudioEncoding:
            self.calls += 1
            if self.calls > 1:
                raise KeyboardInterrupt
            return self.inner.encode_audio(waves, lengths)

    single = replace(tools, settings=tools.settings.model_copy(update={"batch_size": 1}))
    with pytest.raises(KeyboardInterrupt):
        embed(replace(single, encoder=Dying()), ids[0], threading.Event())
    later = utc_now() + timedelta(hours=1)
    with tools.store.session() as session:
        assert jobs.release_lapsed(session, now=later) == ids
        jobs.get(session, ids[0]).due_at = utc_now()
    embed(tools, ids[0], threading.Event())
    starts_s = [row[1] for row in everything(tools.store)]
    assert starts_s == sorted(set(starts_s))
    assert starts_s[-1] + tools.encoder.spec.window_s >= 12.0
    assert states(tools.store) == {("embed", "done"): 1}


def test_the_reconciler_sends_what_nobody_was_told_of_and_frees_what_lapsed(
    tools: Tools, folder: Path
) -> None:
    ids = admit(tools, find_files([folder], Selection()))
    sent = Sent()
    now = utc_now()
    assert reconcile(tools.store, JobQueue(sent), tools.settings, now=now).sent == 0
    late = now + timedelta(seconds=tools.settings.resend_s + 5)
    assert reconcile(tools.store, JobQueue(sent), tools.settings, now=late).sent == len(ids)
    assert sorted(sent.ids) == ids
    with tools.store.session() as session:
        jobs.lease(session, ids[0], "lost", 1.0)
    done = reconcile(tools.store, JobQueue(sent), tools.settings, now=late + timedelta(hours=1))
    assert done.lapsed == 1


def test_a_renewed_lease_is_kept_and_a_cancelled_one_is_noticed(tools: Tools, folder: Path) -> None:
    ids = admit(tools, find_files([folder / "00.wav"], Selection()))
    with tools.store.session() as session:
        leased = jobs.lease(session, ids[0], "me", 0.3)
    assert leased is not None
    with Renewal(tools.store, lambda: [leased], 0.3) as renewal:
        waited = threading.Event()
        waited.wait(1.0)
        with tools.store.session() as session:
            assert jobs.release_lapsed(session) == []
            jobs.cancel(session, ids[0])
        assert renewal.lost.wait(10.0)


def test_a_full_queue_is_waited_for_or_said(tools: Tools, folder: Path) -> None:
    queue = JobQueue(NoSender(), limit=3)
    found = find_files([folder], Selection())
    with pytest.raises(QueueFullError):
        options = IngestOptions(source="elsewhere")
        register(Discovery(found.files[4:]), options, tools.store, queue, patient=False)
    stop = threading.Event()
    few = Discovery(found.files[:3])
    assert register(few, IngestOptions(), tools.store, queue, stop=stop).queued == 3
    waiting = threading.Thread(
        target=lambda: register(
            Discovery(found.files[3:4]), IngestOptions(), tools.store, queue, stop=stop
        )
    )
    waiting.start()
    assert waiting.is_alive()
    while waiting.is_alive():
        embed(tools, 1, threading.Event())
        waiting.join(0.1)
    with tools.store.reading() as session:
        archived = recordings.find(session, source="archive")
    assert [Path(row.path).name for row in archived] == ["00.wav", "01.wav", "02.wav", "03.wav"]


@pytest.fixture
def named(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "no time.wav"
    soundfile.write(path, np.full(RATE_HZ, 0.1), RATE_HZ)
    yield path


def test_what_is_to_be_said_of_a_file_travels_with_its_job(tools: Tools, named: Path) -> None:
    ids = admit(tools, find_files([named], Selection()), timing=Timing(from_name=True))
    embed(tools, ids[0], threading.Event())
    with tools.store.reading() as session:
        remarks = recordings.find(session)[0].remarks
    assert [remark["code"] for remark in remarks] == ["no-time-in-name"]

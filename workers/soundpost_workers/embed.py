"""Embedding by job: several waiting recordings share the encoder's batches.

A recording's rows and the end of its job are written in one transaction. Whatever ends this
process, its jobs lapse and are done again, and what was written is not written twice.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from sqlalchemy.orm import Session

from soundpost.archive.embed import Embedder
from soundpost.archive.plan import IngestOptions
from soundpost.archive.prepare import Job, PreparedEnd
from soundpost.archive.relay import Feed, Flag, Stopwatch
from soundpost.archive.summary import Summary
from soundpost.archive.writer import Writer
from soundpost.audio.recording import Remark
from soundpost.config import Settings
from soundpost.errors import (
    AudioError,
    AudioStoreError,
    FileMissingError,
    NoSamplesError,
    SoundpostError,
    StoreError,
    UnknownRecordingError,
    UnreadableFileError,
)
from soundpost.jobs import EMBED, JobQueue
from soundpost.models.encoder import AudioTextEncoder
from soundpost.store import jobs, models, recordings, windows
from soundpost.store.files import AudioFiles
from soundpost.store.jobs import Leased
from soundpost.store.session import Store
from soundpost.store.tables import Recording
from soundpost_workers.lease import Renewal

# Looked at together; how many are taken goes by their length.
_TAKEN_AT_ONCE = 8
_MOST_TOGETHER = 128
# A disk that is not mounted, a server that is away: another time it may work.
_PASSING = (FileMissingError, UnreadableFileError, AudioStoreError)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tools:
    """What a worker embeds with; the encoder is loaded once a process."""

    settings: Settings
    store: Store
    files: AudioFiles
    encoder: AudioTextEncoder
    queue: JobQueue
    worker: str


@dataclass
class _Batch:
    """The jobs of one round by the recording they are about, without those that are settled."""

    held: dict[int, Leased] = field(default_factory=dict)
    audio_s: float = 0.0

    def unsettled(self) -> list[Leased]:
        """The jobs that are still this worker's to do."""
        return list(self.held.values())


def embed(tools: Tools, job_id: int, stop: Flag) -> int:
    """Do the most urgent embedding jobs, then the one that was asked for; return how many.

    One that was tried before is done alone: it may be what ended its worker.
    """
    done = _round(tools, _take_waiting(tools), stop)
    with tools.store.session() as session:
        asked = jobs.lease(session, job_id, tools.worker, tools.settings.lease_s)
    return done + (_round(tools, [asked], stop) if asked is not None else 0)


def _take_waiting(tools: Tools) -> list[Leased]:
    """Lease untried jobs until they hold enough audio to keep the encoder busy for a while."""
    taken: list[Leased] = []
    audio_s, settings = 0.0, tools.settings
    while audio_s < settings.embed_together_s and len(taken) < _MOST_TOGETHER:
        with tools.store.session() as session:
            more = jobs.lease_more(session, EMBED, tools.worker, settings.lease_s, _TAKEN_AT_ONCE)
            audio_s += sum(_duration_s(session, job) for job in more)
        taken += more
        if len(more) < _TAKEN_AT_ONCE:
            break
    return taken


def _duration_s(session: Session, job: Leased) -> float:
    row = session.get(Recording, job.payload["recording"])
    return (row.duration_s or 0.0) if row is not None else 0.0


def _round(tools: Tools, held: Sequence[Leased], stop: Flag) -> int:
    """Embed the recordings of some jobs; return how many of them are settled."""
    if not held:
        return 0
    batch = _Batch({int(job.payload["recording"]): job for job in held})
    try:
        with Renewal(tools.store, batch.unsettled, tools.settings.lease_s) as renewal:
            _embed_all(tools, batch, _Either(stop, renewal.lost))
    except StoreError:
        # The database is away or full, and no job is to blame.
        _give_back(tools, batch)
        raise
    # Whatever it is, it is kept with each job, which is then tried again by itself.
    except Exception as error:
        log.exception("embedding failed")
        _fail_all(tools, batch, error)
    left = batch.unsettled()
    _give_back(tools, batch)
    return len(held) - len(left)


def _give_back(tools: Tools, batch: _Batch) -> None:
    left = batch.unsettled()
    if not left:
        return
    try:
        with tools.store.session() as session:
            jobs.give_back(session, left)
    except StoreError as error:
        log.warning("jobs are left to lapse: %s", error)


class _Either:
    """Set as soon as one of several flags is."""

    def __init__(self, *flags: Flag) -> None:
        self._flags = flags

    def is_set(self) -> bool:
        """Whether one of them is set."""
        return any(flag.is_set() for flag in self._flags)


def _embed_all(tools: Tools, batch: _Batch, stop: Flag) -> None:
    settings, stopwatch, summary = tools.settings, Stopwatch(), Summary()
    with tools.store.session() as session:
        model_id = models.ensure(session, tools.encoder.spec).id
    feed: Feed[Job] = Feed(len(batch.held))
    for leased in batch.unsettled():
        job = _prepare(tools, batch, leased, model_id)
        if job is not None:
            feed.put(job)
    feed.end()
    options = IngestOptions(batch_size=settings.batch_size, threads=settings.threads // 2)
    settled = partial(_settle, tools, batch)
    writing = threading.Lock()
    with Writer(tools.store, None, model_id, summary, stopwatch, writing, settled) as writer:
        Embedder(tools.encoder, writer, options, stopwatch).run(feed, stop, lambda: None)
    log.info("embedded %d recordings, %.1f s of audio", summary.ingested, summary.audio_s)
    with tools.store.session() as session:
        if _is_newer(session, model_id) and models.switch_if_complete(session, model_id):
            log.info("searches are made with %s from now on", tools.encoder.spec.name)
        tools.queue.index(session, model_id)


def _is_newer(session: Session, model_id: int) -> bool:
    """Whether a model came after the serving one: a worker left over must not switch back."""
    serving = models.serving(session)
    return serving is None or serving.id < model_id


def _prepare(tools: Tools, batch: _Batch, leased: Leased, model_id: int) -> Job | None:
    """Find the audio of a job; where there is none, settle it and return None."""
    recording_id = int(leased.payload["recording"])
    try:
        with tools.store.reading() as session:
            recording = recordings.get(session, recording_id)
            done = windows.last_complete(session, recording_id, model_id)
        path = tools.files.open_local(recording)
    except UnknownRecordingError:
        # Deleted meanwhile, which is what someone wanted.
        _end(tools, batch, leased, None)
        return None
    except (AudioError, AudioStoreError) as error:
        _end(tools, batch, leased, error)
        return None
    return Job(recording_id, path, done, _notes(leased))


def _notes(leased: Leased) -> tuple[Remark, ...]:
    return tuple(Remark(**note) for note in leased.payload.get("notes", ()))


def _settle(tools: Tools, batch: _Batch, session: Session, end: PreparedEnd) -> None:
    """Take part in the transaction that completes a recording: its job ends with it."""
    leased = batch.held.get(end.recording_id)
    if leased is None:
        return
    if end.windows:
        jobs.complete(session, leased)
        tools.queue.watch_embedded(session, end.recording_id)
        tools.queue.caption_embedded(session, end.recording_id)
    else:
        jobs.fail(session, leased, end.fault or NoSamplesError(end.path), final=True)
    batch.held.pop(end.recording_id, None)


def _end(tools: Tools, batch: _Batch, leased: Leased, error: SoundpostError | None) -> None:
    recording_id = int(leased.payload["recording"])
    with tools.store.session() as session:
        if error is None:
            jobs.complete(session, leased)
        else:
            final = not isinstance(error, _PASSING)
            if jobs.fail(session, leased, error, final=final) == "failed":
                recordings.mark_failed(session, recording_id, error)
    batch.held.pop(recording_id, None)


def _fail_all(tools: Tools, batch: _Batch, error: Exception) -> None:
    with tools.store.session() as session:
        for leased in batch.unsettled():
            jobs.fail(session, leased, error)
    batch.held.clear()

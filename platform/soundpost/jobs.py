"""Asking for work: a row in the caller's transaction, a message after its commit.

This module loads no model and knows no broker: a message names a task and carries the job's id.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Protocol

from sqlalchemy.orm import Session

from soundpost.audio.recording import Remark
from soundpost.config import Settings
from soundpost.errors import DiskFullError, SoundpostError
from soundpost.store import baselines, explanations, jobs, rules, windows
from soundpost.store.jobs import BACKFILL, LIVE, NewJob, ToSend
from soundpost.store.session import after_commit
from soundpost.store.tables import Job, Recording, utc_now
from soundpost.store.watch_tables import Incident

__all__ = ["BACKFILL", "LIVE", "JobQueue", "NoSender", "Sender"]

EMBED, INDEX, WATCH, EXPLAIN = "embed", "index", "watch", "explain"
NOTIFY, HOUSEKEEPING = "notify", "housekeeping"
QUEUES = (EMBED, INDEX, WATCH, EXPLAIN, NOTIFY, HOUSEKEEPING)
RECONCILE_TASK = "soundpost.reconcile"
COMPOSE_TASK = "soundpost.compose"
# A kind of its own in the queue of embedding: only a worker with a model can tell what it lacks.
REEMBED = "reembed"
# Of the queue of watching: what is normal has to be worked out before anything is compared with it.
BASELINE = "baseline"
# Of the queue of explaining: both put what was heard into words, and neither is in a hurry.
CAPTION = "caption"
TICK_TASK = "soundpost.tick"

# Many recordings end within such a time, and one look is enough for all of them.
INDEX_PAUSE_S = 5.0
# With the pauses between them more than an hour, without those that a circuit breaker adds.
NOTIFY_ATTEMPTS = 20

log = logging.getLogger(__name__)


def task_name(kind: str) -> str:
    """The name of the task that does jobs of a kind."""
    return f"soundpost.{kind}"


def embed_key(recording_id: int) -> str:
    """The key of the jobs that embed a recording."""
    return f"{EMBED}:{recording_id}"


def watch_key(recording_id: int) -> str:
    """The key of the jobs that watch a recording."""
    return f"{WATCH}:{recording_id}"


def explain_key(finding_id: int) -> str:
    """The key of the jobs that explain a finding."""
    return f"{EXPLAIN}:{finding_id}"


def caption_key(recording_id: int) -> str:
    """The key of the jobs that put a recording into words."""
    return f"{CAPTION}:{recording_id}"


def notify_key(notification_id: int) -> str:
    """The key of the jobs that deliver a notification."""
    return f"{NOTIFY}:{notification_id}"


class Sender(Protocol):
    """Hands messages to a broker."""

    def send(self, message: ToSend) -> None:
        """Send a message. Raises BrokerError where the broker is out of reach."""
        ...


class NoSender:
    """Sends nothing: the reconciler of a worker finds the rows by itself."""

    def send(self, message: ToSend) -> None:
        """Leave it."""


class JobQueue:
    """Adds jobs in the caller's transaction and sends their messages after it."""

    def __init__(
        self,
        sender: Sender,
        limit: int = 100_000,
        *,
        folder: Path | None = None,
        reserve_bytes: int = 0,
        captions: bool = False,
    ) -> None:
        self._sender = sender
        self._captions = captions
        self._limit = limit
        self._folder = folder
        self._reserve_bytes = reserve_bytes

    @classmethod
    def of(cls, settings: Settings, sender: Sender) -> JobQueue:
        """Make the queue of these settings: its limit, the space it leaves, whether it captions."""
        return cls(
            sender,
            settings.queue_limit,
            folder=settings.home,
            reserve_bytes=settings.disk_reserve_bytes,
            captions=settings.captions == "on",
        )

    def add(self, session: Session, new: NewJob) -> Job:
        """Add a job unless the same work is unfinished already.

        Raises QueueFullError if its source has as many unfinished ones as it may.
        """
        if new.source_id is not None:
            self.check_room(session, new.source_id)
        return self._add(session, new)

    def _add(self, session: Session, new: NewJob) -> Job:
        job, is_new = jobs.add(session, new)
        if is_new and job.due_at <= utc_now():
            self._send_after_commit(session, job)
        return job

    def _send_after_commit(self, session: Session, job: Job) -> None:
        if isinstance(self._sender, NoSender):
            # Not noted as sent: the reconciler sends it at its next pass.
            return
        job.sent_at = utc_now()
        message = ToSend(job.id, job.kind, job.queue, job.priority)
        after_commit(session, partial(self.send, message))

    def check_disk(self) -> None:
        """Raise DiskFullError if less is free than must stay free: nothing new is taken in then."""
        if self._folder is None:
            return
        # The folder itself may not have been made yet.
        there = next(folder for folder in (self._folder, *self._folder.parents) if folder.exists())
        free_bytes = shutil.disk_usage(there).free
        if free_bytes < self._reserve_bytes:
            kept = f"{free_bytes / 1e6:,.0f} MB free, {self._reserve_bytes / 1e6:,.0f} MB are kept"
            raise DiskFullError(self._folder, kept)

    def check_room(self, session: Session, source_id: int, room: int = 1) -> None:
        """Raise QueueFullError unless a source may have `room` more unfinished jobs.

        A source without any always has room, however small the limit.
        """
        jobs.check_room(session, source_id, max(1, self._limit - room + 1))

    def embed(
        self,
        session: Session,
        recording_id: int,
        source_id: int,
        *,
        notes: Sequence[Remark] = (),
        priority: int = LIVE,
        due_at: datetime | None = None,
    ) -> Job:
        """Ask for the windows of a recording; notes are kept with its remarks."""
        payload = {"recording": recording_id, "notes": [note.to_document() for note in notes]}
        new = NewJob(
            EMBED, embed_key(recording_id), EMBED, payload, source_id, priority, due_at=due_at
        )
        return self.add(session, new)

    def index(self, session: Session, model_id: int) -> Job:
        """Ask for a look at whether a model's index is to be sealed, in a moment."""
        due_at = utc_now() + timedelta(seconds=INDEX_PAUSE_S)
        key, payload = f"{INDEX}:{model_id}", {"model": model_id}
        return self.add(session, NewJob(INDEX, key, INDEX, payload, due_at=due_at))

    def reembed(self, session: Session) -> Job:
        """Ask a worker to look for recordings that its model has not embedded yet."""
        new = NewJob(REEMBED, REEMBED, EMBED, priority=BACKFILL, max_attempts=20)
        return self.add(session, new)

    def watch(
        self, session: Session, recording_id: int, source_id: int, *, priority: int = LIVE
    ) -> Job:
        """Ask for the rules of its source to look at an embedded recording."""
        payload = {"recording": recording_id}
        new = NewJob(WATCH, watch_key(recording_id), WATCH, payload, source_id, priority)
        # It is in the archive already: a full queue is no reason not to hear it.
        return self._add(session, new)

    def watch_if_watched(
        self, session: Session, recording_id: int, source_id: int, *, priority: int = LIVE
    ) -> Job | None:
        """Ask for a recording to be watched if its source has a baseline in use, or rules."""
        watched = baselines.active(session, source_id) or rules.for_source(session, source_id)
        return self.watch(session, recording_id, source_id, priority=priority) if watched else None

    def watch_embedded(self, session: Session, recording_id: int) -> Job | None:
        """Ask for a recording to be watched, in the transaction that completes it.

        Whoever embedded it, it is watched once: not when another model embeds it anew, and not
        when two processes complete it.
        """
        recording = session.get(Recording, recording_id)
        if recording is None or len(windows.models_of(session, recording_id)) != 1:
            return None
        if jobs.latest(session, watch_key(recording_id)) is not None:
            return None
        return self.watch_if_watched(session, recording_id, recording.source_id)

    def explain_incident(self, session: Session, incident_id: int) -> list[Job]:
        """Ask for the findings of an incident to be explained that nobody was asked about yet.

        A finding without a reference has nothing that it could differ from.
        """
        source_id = session.get_one(Incident, incident_id).source_id
        waiting = [
            finding.id
            for finding in explanations.unexplained(session, incident_id)
            if jobs.latest(session, explain_key(finding.id)) is None
        ]
        return [self.explain(session, finding_id, source_id) for finding_id in waiting]

    def explain(self, session: Session, finding_id: int, source_id: int) -> Job:
        """Ask for a finding to be explained."""
        payload = {"finding": finding_id}
        new = NewJob(EXPLAIN, explain_key(finding_id), EXPLAIN, payload, source_id)
        # It was found already: a full queue is no reason not to say what it is.
        return self._add(session, new)

    def caption_embedded(self, session: Session, recording_id: int) -> Job | None:
        """Ask for a recording to be put into words once it is embedded, if the settings say so."""
        recording = session.get(Recording, recording_id)
        if not self._captions or recording is None:
            return None
        return self.caption(session, recording_id, recording.source_id)

    def caption(self, session: Session, recording_id: int, source_id: int) -> Job:
        """Ask for what an embedded recording sounds like, in words; behind explanations."""
        payload = {"recording": recording_id}
        new = NewJob(CAPTION, caption_key(recording_id), EXPLAIN, payload, source_id, BACKFILL)
        return self._add(session, new)

    def prepare_baseline(self, session: Session, baseline_id: int, *, then: str = "") -> Job:
        """Ask for a baseline to be prepared; `then` "activate" makes it the one that is used."""
        payload = {"baseline": baseline_id, "then": then}
        return self.add(session, NewJob(BASELINE, f"{BASELINE}:{baseline_id}", WATCH, payload))

    def notify(self, session: Session, notification_id: int) -> Job:
        """Ask for the delivery of a notification; many attempts, as the other side may be away."""
        key, payload = notify_key(notification_id), {"notification": notification_id}
        return self.add(session, NewJob(NOTIFY, key, NOTIFY, payload, max_attempts=NOTIFY_ATTEMPTS))

    def retry(self, session: Session, job_id: int) -> Job:
        """Queue a failed or cancelled job again. Raises UnknownJobError and JobStateError."""
        job = jobs.retry(session, job_id)
        self._send_after_commit(session, job)
        return job

    def send(self, message: ToSend) -> None:
        """Send a message; a lost one is sent again by the reconciler, so its loss is only noted."""
        try:
            self._sender.send(message)
        except SoundpostError as error:
            log.warning("message not sent", extra={"job": message.id, "reason": str(error)})

"""Notifications by job: composing what is due, and delivering what was composed."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from soundpost.archive.clips import write_clip
from soundpost.config import Settings
from soundpost.errors import NotifyError, SoundpostError
from soundpost.jobs import JobQueue
from soundpost.monitoring import delivery, notify
from soundpost.monitoring.channels.sending import open_stored, send
from soundpost.monitoring.delivery import Delivery, Wait
from soundpost.monitoring.templates import lead_of
from soundpost.store import jobs, recordings
from soundpost.store.files import AudioFiles
from soundpost.store.jobs import Leased
from soundpost.store.session import Store
from soundpost.store.tables import utc_now
from soundpost_workers.leased import Postponed, do_leased

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Courier:
    """What deliveries are made with."""

    settings: Settings
    store: Store
    files: AudioFiles
    worker: str


def compose(
    store: Store, queue: JobQueue, settings: Settings, *, now: datetime | None = None
) -> int:
    """Compose what is due; several processes may do so at once. Returns how many."""
    with store.session() as session:
        return notify.tick(session, queue, now or utc_now(), settings=settings)


def deliver(courier: Courier, job_id: int, *, now: datetime | None = None) -> bool:
    """Do a job that delivers a notification; return False if it is not this worker's to do."""
    work = partial(_deliver, courier, now)
    return do_leased(courier.store, courier.settings, job_id, courier.worker, work, now=now)


def _deliver(courier: Courier, now: datetime | None, held: Leased) -> None:
    timeout_s = courier.settings.notify_timeout_s
    with courier.store.session() as session:
        notification_id = int(held.payload["notification"])
        begun = delivery.begin(session, notification_id, now or utc_now(), timeout_s)
    if isinstance(begun, Wait):
        raise Postponed(begun.until)
    if begun is not None:
        _attempt(courier, held, begun, now)


def _attempt(courier: Courier, held: Leased, begun: Delivery, now: datetime | None) -> None:
    """Send, and note what became of it together with the job."""
    facts = {"notification": begun.notification_id, "channel": begun.channel_name}
    try:
        _send(courier, begun)
    except NotifyError as error:
        log.warning("notification not delivered: %s", error, extra=facts)
        _note_failure(courier.store, held, begun, error, now or utc_now())
        return
    log.info("notification delivered", extra=facts)
    with courier.store.session() as session:
        # Also if the job was taken away meanwhile: it has arrived.
        delivery.note_sent(session, begun, now or utc_now())
        jobs.complete(session, held)


def _note_failure(
    store: Store, held: Leased, begun: Delivery, error: NotifyError, now: datetime
) -> None:
    final = delivery.is_final(error)
    wait_s = getattr(error, "retry_after_s", None) or 0.0
    with store.session() as session:
        state = jobs.fail(session, held, error, final=final, wait_s=wait_s, now=now)
        if state is not None:
            delivery.note_failed(session, begun, error, now, parked=state == "failed")


def _send(courier: Courier, begun: Delivery) -> None:
    target = open_stored(begun.address)
    timeout_s = courier.settings.notify_timeout_s
    with _clip(courier, begun, target.takes_clip) as clip:
        send(target, begun.address, begun.document, clip, timeout_s)


@contextmanager
def _clip(courier: Courier, begun: Delivery, takes_clip: bool) -> Iterator[Path | None]:
    """Give the clip of the incident that speaks for all; None where there is none to send."""
    document = begun.document
    wanted = takes_clip and begun.settings.get("attach_clip", True) and document.kind != "resolved"
    clip = lead_of(document.incidents).clip if wanted and document.incidents else None
    if clip is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="soundpost-clip-") as folder:
        out = Path(folder) / f"incident-{lead_of(document.incidents).id}.opus"
        try:
            with courier.store.reading() as session:
                recording = recordings.get(session, clip.recording_id)
            write_clip(courier.files.open_local(recording), out, clip.start_s, clip.end_s)
        except SoundpostError as error:
            # Better without it than not at all.
            log.warning("notification goes without its clip: %s", error)
        yield out if out.exists() else None

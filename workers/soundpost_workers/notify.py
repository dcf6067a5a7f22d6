"""Notifications by job: composing what is due, and delivering what was composed."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from soundpost.archive.clips import write_clip
from soundpost.config import Settings
from soundpost.errors import NotifyError, SoundpostError, StoreError
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
from soundpost_workers.lease import Renewal

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
    store, lease_s = courier.store, courier.settings.lease_s
    with store.session() as session:
        held = jobs.lease(session, job_id, courier.worker, lease_s, now=now)
    if held is None:
        return False
    with Renewal(store, lambda: [held], lease_s):
        try:
            begun = _begin(courier, held, now or utc_now())
            if isinstance(begun, Delivery):
                _attempt(courier, held, begun, now)
        except StoreError:
            # The database is away or full, and the notification is not to blame.
            with suppress(StoreError), store.session() as session:
                jobs.give_back(session, [held])
            raise
        # Whatever it is, it is kept with the job, which is then tried again.
        except Exception as error:
            log.exception("delivering failed")
            with store.session() as session:
                jobs.fail(session, held, error, now=now)
    return True


def _begin(courier: Courier, held: Leased, now: datetime) -> Delivery | Wait | None:
    timeout_s = courier.settings.notify_timeout_s
    with courier.store.session() as session:
        begun = delivery.begin(session, int(held.payload["notification"]), now, timeout_s)
        if isinstance(begun, Wait):
            jobs.postpone(session, held, begun.until)
        elif begun is None:
            jobs.complete(session, held)
    return begun


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

"""Looking after jobs: what lost its worker is queued again, what lost its message is sent again."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from soundpost.config import Settings
from soundpost.jobs import JobQueue
from soundpost.store import explanations, jobs, notifications
from soundpost.store.session import Store
from soundpost.store.tables import utc_now

# Finished jobs and notifications are kept for people to look at, explanations to be given again.
KEPT = timedelta(days=30)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reconciled:
    """What a pass did: jobs whose worker was lost, messages sent, old jobs removed."""

    lapsed: int
    sent: int
    removed: int


def reconcile(
    store: Store, queue: JobQueue, settings: Settings, *, now: datetime | None = None
) -> Reconciled:
    """Bring jobs and messages in step; several processes may do so at once."""
    moment = now or utc_now()
    with store.session() as session:
        lapsed = jobs.release_lapsed(session, now=moment)
        due = jobs.take_unsent(session, settings.resend_s, now=moment)
        removed = jobs.remove_finished(session, moment - KEPT)
        notifications.remove_settled(session, moment - KEPT)
        explanations.remove_old(session, moment - KEPT)
    # After the commit: a worker that is quick must find the rows as they are now.
    for message in due:
        queue.send(message)
    if lapsed:
        log.warning("jobs of lost workers are tried again: %s", lapsed)
    return Reconciled(len(lapsed), len(due), removed)

"""Doing one job under its lease, whatever it is."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

from soundpost.config import Settings
from soundpost.errors import StoreError
from soundpost.store import jobs
from soundpost.store.jobs import Leased
from soundpost.store.session import Store
from soundpost_workers.lease import Renewal

log = logging.getLogger(__name__)


class Postponed(Exception):  # No error: what the job needs is not there yet.
    """Ends a job's work undone; it is due again at a moment, and no attempt is counted."""

    def __init__(self, due_at: datetime) -> None:
        self.due_at = due_at
        super().__init__(due_at)


def do_leased(
    store: Store,
    settings: Settings,
    job_id: int,
    worker: str,
    work: Callable[[Leased], object],
    *,
    final: tuple[type[Exception], ...] = (),
    now: datetime | None = None,
) -> bool:
    """Lease a job, do its work, and note how it ended; return False if it is not this worker's.

    The work may note it by itself, in one transaction with its result; nothing is added then.
    What the work raises is kept with the job, which is tried again later; errors of the classes in
    `final` park it at once. A StoreError is raised: the job is not to blame, and is given back.
    """
    with store.session() as session:
        leased = jobs.lease(session, job_id, worker, settings.lease_s, now=now)
    if leased is None:
        return False
    with Renewal(store, lambda: [leased], settings.lease_s):
        try:
            work(leased)
        except Postponed as later:
            with store.session() as session:
                jobs.postpone(session, leased, later.due_at)
            return True
        except StoreError:
            with suppress(StoreError), store.session() as session:
                jobs.give_back(session, [leased])
            raise
        # Whatever it is, it is kept with the job.
        except Exception as error:
            log.exception("a job of the kind %s failed", leased.kind)
            with store.session() as session:
                jobs.fail(session, leased, error, final=isinstance(error, final), now=now)
            return True
    with store.session() as session:
        jobs.complete(session, leased)
    return True

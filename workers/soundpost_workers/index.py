"""Sealing the index by job."""

from __future__ import annotations

import logging
from contextlib import suppress

from soundpost.config import Settings
from soundpost.errors import StoreError
from soundpost.store import jobs
from soundpost.store.session import Store
from soundpost_indexer.builder import build_pass
from soundpost_workers.lease import Renewal

log = logging.getLogger(__name__)


def build(store: Store, settings: Settings, job_id: int, worker: str) -> bool:
    """Do a job that asks for a look at an index; return False if it is not this worker's to do."""
    with store.session() as session:
        leased = jobs.lease(session, job_id, worker, settings.lease_s)
    if leased is None:
        return False
    with Renewal(store, lambda: [leased], settings.lease_s):
        try:
            done = build_pass(settings, store, int(leased.payload["model"]))
        except StoreError:
            # The database is away or full, and the job is not to blame.
            with suppress(StoreError), store.session() as session:
                jobs.give_back(session, [leased])
            raise
        # Whatever it is, it is kept with the job, which is then tried again.
        except Exception as error:
            log.exception("building the index failed")
            with store.session() as session:
                jobs.fail(session, leased, error)
            return True
    log.info("index %s", done.outcome)
    with store.session() as session:
        jobs.complete(session, leased)
    return True

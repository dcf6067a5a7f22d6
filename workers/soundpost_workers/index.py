"""Sealing the index by job."""

from __future__ import annotations

import logging

from soundpost.config import Settings
from soundpost.store.jobs import Leased
from soundpost.store.session import Store
from soundpost_indexer.builder import build_pass
from soundpost_workers.leased import do_leased

log = logging.getLogger(__name__)


def build(store: Store, settings: Settings, job_id: int, worker: str) -> bool:
    """Do a job that asks for a look at an index; return False if it is not this worker's to do."""

    def work(leased: Leased) -> None:
        done = build_pass(settings, store, int(leased.payload["model"]))
        log.info("index %s", done.outcome)

    return do_leased(store, settings, job_id, worker, work)

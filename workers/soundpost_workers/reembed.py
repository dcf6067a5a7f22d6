"""A new model's space, filled in the background: the old one serves until it is complete."""

from __future__ import annotations

import logging

from soundpost.errors import QueueFullError
from soundpost.jobs import BACKFILL
from soundpost.store import jobs, models, recordings
from soundpost_workers.embed import Tools

_GROUP = 500

log = logging.getLogger(__name__)


def reembed(tools: Tools, job_id: int) -> int:
    """Do the job that asks for what this worker's model lacks; return how many were asked for.

    They come behind everything that is new. Where the queue is full the rest is asked for later.
    """
    with tools.store.session() as session:
        leased = jobs.lease(session, job_id, tools.worker, tools.settings.lease_s)
    if leased is None:
        return 0
    try:
        asked = _ask_for_missing(tools)
    except QueueFullError as error:
        with tools.store.session() as session:
            jobs.fail(session, leased, error)
        return 0
    with tools.store.session() as session:
        jobs.complete(session, leased)
    if asked:
        log.info("%d recordings are embedded anew with %s", asked, tools.encoder.spec.name)
    return asked


def _ask_for_missing(tools: Tools) -> int:
    asked, after_id = 0, 0
    while True:
        with tools.store.session() as session:
            model_id = models.ensure(session, tools.encoder.spec).id
            if models.switch_if_complete(session, model_id):
                return asked
            missing = models.missing(session, model_id, after_id, _GROUP)
            for recording_id in missing:
                source_id = recordings.get(session, recording_id).source_id
                tools.queue.embed(session, recording_id, source_id, priority=BACKFILL)
        asked += len(missing)
        if len(missing) < _GROUP:
            return asked
        after_id = missing[-1]

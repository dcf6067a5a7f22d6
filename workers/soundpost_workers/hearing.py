"""A worker that hears nothing any more starts itself anew.

When its broker comes back after a loss, a Celery worker can go on without ever receiving another
message (celery/celery issues 8030, 9054 and 10302). It cannot tell, but the table of jobs can:
messages were sent, this worker is idle, and nothing arrives.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

import billiard
from celery.worker import state

from soundpost.errors import StoreError
from soundpost.jobs import BASELINE, CAPTION, EMBED, EXPLAIN, INDEX, NOTIFY, REEMBED, WATCH
from soundpost.store import jobs
from soundpost.store.session import open_store

# Those that this version has tasks for: a message of another kind is heard, and leads to nothing.
_KINDS = (EMBED, REEMBED, INDEX, WATCH, BASELINE, EXPLAIN, CAPTION, NOTIFY)

log = logging.getLogger(__name__)


class Hearing:
    """Looks every waited_s / 2 seconds whether sent messages go unheard while the worker is idle.

    `deaf` is called, in a thread, after two looks in a row that found the same.
    """

    def __init__(
        self,
        database_url: str,
        queues: Sequence[str],
        waited_s: float,
        idle: Callable[[], bool],
        deaf: Callable[[], None],
    ) -> None:
        self._database_url = database_url
        self._queues = queues
        self._waited_s = waited_s
        self._idle = idle
        self._deaf = deaf
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="hearing", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._over.set()

    def _watch(self) -> None:
        before = False
        while not self._over.wait(self._waited_s / 2):
            now = self._idle() and self._unheard()
            if now and before and not self._over.is_set():
                self._deaf()
                return
            before = now

    def _unheard(self) -> bool:
        # Opened for the moment: a process that is forked meanwhile must not share a connection.
        try:
            store = open_store(self._database_url)
        except StoreError:
            return False
        try:
            with store.reading() as session:
                return jobs.unheard(session, _KINDS, self._queues, self._waited_s) > 0
        except StoreError:
            return False
        finally:
            store.close()


def is_idle() -> bool:
    """Whether this worker has no task in hand."""
    return not state.active_requests and not state.reserved_requests


def start_anew() -> None:
    """Replace this worker by a fresh one of the same command line."""
    log.warning("messages are sent and none arrives: starting anew")
    for child in billiard.active_children():
        with suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
    os.execv(sys.executable, sys.orig_argv)

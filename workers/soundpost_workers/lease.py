"""Keeping leases alive while the work goes on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from soundpost.errors import StoreError
from soundpost.store import jobs
from soundpost.store.jobs import Leased
from soundpost.store.session import Store

log = logging.getLogger(__name__)


class Renewal:
    """Renews leases in a thread; `lost` is set when none of them is this worker's any more.

    `held` says which jobs are still to be done. Use it as a context manager around the work.
    """

    def __init__(self, store: Store, held: Callable[[], Sequence[Leased]], lease_s: float) -> None:
        self.lost = threading.Event()
        self._store = store
        self._held = held
        self._lease_s = lease_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="renew leases", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    def _renew(self) -> None:
        # Three tries within a lease, so that one that fails is no loss.
        while not self._over.wait(self._lease_s / 3):
            held = self._held()
            try:
                with self._store.session() as session:
                    mine = jobs.renew(session, held, self._lease_s)
            except StoreError as error:
                log.warning("leases not renewed: %s", error)
                continue
            if held and not mine and self._held():
                log.warning("jobs taken away: %s", [job.id for job in held])
                self.lost.set()
                return

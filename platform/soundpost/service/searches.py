"""Searches in threads of their own, with an end in time.

A search that takes too long is answered, not stopped: nothing can stop a thread. It keeps its
place until it is done, so that a service that is too slow says so instead of piling up work.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from soundpost.errors import BusyError, SearchTimeoutError

Result = TypeVar("Result")


class SearchPool:
    """Runs at most `threads` searches at once; at most `waiting` others wait their turn."""

    def __init__(self, threads: int, waiting: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="search")
        self._places = threading.BoundedSemaphore(threads + waiting)

    async def run(self, work: Callable[[], Result], timeout_s: float) -> Result:
        """Return what work returns.

        Raises BusyError where too many wait already, SearchTimeoutError after timeout_s.
        """
        future = self._submit(work)
        waiting = asyncio.wrap_future(future)
        done, _ = await asyncio.wait({waiting}, timeout=timeout_s)
        if not done:
            waiting.cancel()
            raise SearchTimeoutError(f"{timeout_s:g} s")
        return waiting.result()

    def close(self) -> None:
        """Take no more searches, and let go of those that did not begin."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _submit(self, work: Callable[[], Result]) -> Future[Result]:
        if not self._places.acquire(blocking=False):
            raise BusyError(None, "too many searches are waiting")
        try:
            future = self._pool.submit(work)
        except RuntimeError as error:
            self._places.release()
            raise BusyError(None, "the service is being stopped") from error
        future.add_done_callback(self._leave)
        return future

    def _leave(self, _: Future[Any]) -> None:
        self._places.release()

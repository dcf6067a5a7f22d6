"""Work in threads of its own, with an end in time: searches, clips, pictures.

What takes too long is answered, not stopped: nothing can stop a thread. It keeps its place until it
is done, so that a service that is too slow says so instead of piling up work.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar

from soundpost.errors import BusyError, ServiceError

Result = TypeVar("Result")


class WorkPool:
    """Does at most `threads` things at once; at most `waiting` others wait their turn.

    too_long: the error after the time that is given.
    """

    def __init__(self, name: str, threads: int, waiting: int, too_long: type[ServiceError]) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._places = threading.BoundedSemaphore(threads + waiting)
        self._too_long = too_long

    async def run(
        self,
        work: Callable[[], Result],
        timeout_s: float,
        discard: Callable[[Result], object] | None = None,
    ) -> Result:
        """Return what work returns; a result that comes too late is given to `discard`.

        Raises BusyError where too many wait already, and after timeout_s the error for that.
        """
        future = self._submit(work)
        waiting = asyncio.wrap_future(future)
        done, _ = await asyncio.wait({waiting}, timeout=timeout_s)
        if done:
            return waiting.result()
        waiting.cancel()
        if discard is not None:
            future.add_done_callback(partial(_discard, discard))
        raise self._too_long(f"{timeout_s:g} s")

    def close(self) -> None:
        """Take no more work, and let go of what did not begin."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _submit(self, work: Callable[[], Result]) -> Future[Result]:
        if not self._places.acquire(blocking=False):
            raise BusyError(None, "too many others are waiting")
        try:
            # In the request's context, so that logs name it.
            future = self._pool.submit(copy_context().run, work)
        except RuntimeError as error:
            self._places.release()
            raise BusyError(None, "the service is being stopped") from error
        future.add_done_callback(self._leave)
        return future

    def _leave(self, _: Future[Any]) -> None:
        self._places.release()


def _discard(discard: Callable[[Result], object], late: Future[Result]) -> None:
    if not late.cancelled() and late.exception() is None:
        discard(late.result())

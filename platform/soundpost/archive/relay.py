"""Work of several threads, handed to one consumer in order, with bounded memory."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")


class Flag(Protocol):
    """What can be asked whether to stop: an event of threads or of processes, or several."""

    def is_set(self) -> bool:
        """Whether to stop."""
        ...


class StoppedError(Exception):
    """The consumer has gone: a producer should end. Never leaves the threads of a relay."""


class Relay(Generic[T]):
    """Takes items of numbered producers and gives them out in the order of the numbers.

    At most `capacity` items wait, whoever made them; the producer whose turn it is may add
    `capacity` more, so that producers ahead of it can never keep it from going on.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: dict[int, deque[T]] = defaultdict(deque)
        self._closed: set[int] = set()
        self._turn = 0
        self._waiting = 0
        self._stopped = False
        self._changed = threading.Condition()

    def put(self, number: int, item: T) -> None:
        """Add an item of a producer; waits for room. Raises StoppedError after `stop`."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._has_room(number))
            if self._stopped:
                raise StoppedError
            self._items[number].append(item)
            self._waiting += 1
            self._changed.notify_all()

    def close(self, number: int) -> None:
        """Say that a producer has given everything."""
        with self._changed:
            self._closed.add(number)
            self._changed.notify_all()

    def take(self, patience_s: float) -> T | None:
        """Return the next item of the producer whose turn it is, or None.

        None means that nothing came within `patience_s`, or, if `turn` has changed, that the
        producer is closed and the next one has its turn.
        """
        with self._changed:
            self._changed.wait_for(self._can_go_on, patience_s)
            if self._items[self._turn]:
                item = self._items[self._turn].popleft()
                self._waiting -= 1
                self._changed.notify_all()
                return item
            if self._turn in self._closed:
                self._pass_on()
            return None

    @property
    def turn(self) -> int:
        """The number of the producer whose items are given out."""
        with self._changed:
            return self._turn

    def stop(self) -> None:
        """Let every producer end at its next item."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _has_room(self, number: int) -> bool:
        if number == self._turn and len(self._items[number]) < self._capacity:
            return True
        return self._waiting < self._capacity

    def _can_go_on(self) -> bool:
        return bool(self._items[self._turn]) or self._turn in self._closed

    def _pass_on(self) -> None:
        del self._items[self._turn]
        self._closed.discard(self._turn)
        self._turn += 1
        self._changed.notify_all()


class Feed(Generic[T]):
    """A bounded queue with an end: one thread puts, another gets and can tell nothing from over."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: deque[T] = deque()
        self._ended = False
        self._stopped = False
        self._changed = threading.Condition()

    def put(self, item: T) -> None:
        """Add an item; waits for room. Raises StoppedError after `stop`."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or len(self._items) < self._capacity)
            if self._stopped:
                raise StoppedError
            self._items.append(item)
            self._changed.notify_all()

    def get(self, patience_s: float) -> T | None:
        """Return the next item, or None if none came within `patience_s` or it is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._ended, patience_s)
            if not self._items:
                return None
            self._changed.notify_all()
            return self._items.popleft()

    def end(self) -> None:
        """Say that nothing more will be put."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Let the other side end at its next item."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    @property
    def over(self) -> bool:
        """Whether nothing is left and nothing will come."""
        with self._changed:
            return self._ended and not self._items


class Stopwatch:
    """Adds up the seconds that each stage takes, over all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time within as part of a stage."""
        began = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - began
            with self._lock:
                self._seconds[name] = self._seconds.get(name, 0.0) + spent

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each stage so far."""
        with self._lock:
            return dict(self._seconds)

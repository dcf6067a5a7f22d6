"""How an ingest looks while it runs: a bar at a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from soundpost_ui import terminal

if TYPE_CHECKING:
    from soundpost.archive.summary import Progress as IngestProgress

Report = Callable[["IngestProgress"], None]

_LINE_EVERY_S = 15.0


@contextmanager
def showing_progress(quiet: bool = False) -> Iterator[Report]:
    """Give a callback that shows an ingest's progress on stderr; `quiet` shows nothing."""
    if quiet:
        yield lambda progress: None
    elif sys.stderr.isatty():
        with _bar() as (bar, task):
            yield lambda progress: _move(bar, task, progress)
    else:
        yield _Lines()


@contextmanager
def showing_share(what: str) -> Iterator[Callable[[int, int], None]]:
    """Give a callback that shows how many of how many are done, on stderr."""
    if sys.stderr.isatty():
        with _bar() as (bar, task):
            yield lambda done, total: bar.update(
                task,  # type: ignore[arg-type]  # rich's TaskID is an int
                total=total,
                completed=done,
                description=f"{done:,}/{total:,} {what}",
            )
    else:
        yield _ShareLines(what)


def describe(progress: IngestProgress) -> str:
    """Say how far, how fast and how much longer, in one line."""
    done_h, total_h = progress.audio_done_s / 3600, progress.audio_total_s / 3600
    parts = [
        f"{progress.files_done:,}/{progress.files_total:,} files",
        f"{done_h:.2f}/{total_h:.2f} h",
        f"{progress.audio_hours_per_second:.2g} h/s",
    ]
    if progress.remaining_s is not None:
        parts.append(f"{terminal.clock(progress.remaining_s)} left")
    if progress.failed:
        parts.append(f"{progress.failed:,} failed")
    return " · ".join(parts)


@contextmanager
def _bar() -> Iterator[tuple[Progress, int]]:
    columns = (BarColumn(bar_width=24), TaskProgressColumn(), TextColumn("{task.description}"))
    console = Console(file=sys.stderr, highlight=False)
    with Progress(*columns, console=console, transient=True) as bar:
        yield bar, bar.add_task("looking at the files", total=None)


def _move(bar: Progress, task: int, progress: IngestProgress) -> None:
    share = _share(progress)
    bar.update(task, total=1.0, completed=share, description=describe(progress))  # type: ignore[arg-type]


def _share(progress: IngestProgress) -> float:
    """Audio tells best how far it is; where there is none to embed, the files do."""
    if progress.audio_total_s > 0:
        return progress.audio_done_s / progress.audio_total_s
    return progress.files_done / max(1, progress.files_total)


class _Lines:
    """Prints a line now and then, for logs."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, progress: IngestProgress) -> None:
        if time.monotonic() - self._last >= _LINE_EVERY_S:
            self._last = time.monotonic()
            terminal.hint(describe(progress))


class _ShareLines:
    """Prints a line now and then, of how many are done."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() - self._last >= _LINE_EVERY_S:
            self._last = time.monotonic()
            terminal.hint(f"{done:,}/{total:,} {self._what}")

"""A folder that is watched: every audio file that has stopped growing is admitted, once.

Nothing is remembered between runs and nothing needs to be: at the start everything that is there
is offered, and the archive knows by content what it has. The same happens from time to time and
when the folder comes back, so that an event that the system lost costs only a delay.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from watchfiles import Change, watch
from watchfiles.main import FileChange

from soundpost.archive.discover import Discovery, Selection, find_files, in_trash
from soundpost.archive.summary import Summary
from soundpost.errors import (
    FileMissingError,
    FolderLostError,
    InputError,
    SoundpostError,
    UnreadableFileError,
)

# Takes files that have settled, and says what became of each.
Admit = Callable[[list[Path]], Summary]
# Size in bytes and time of the last change in nanoseconds.
FileState = tuple[int, int]

SETTLE_S = 2.0
RESCAN_S = 300.0
_GROUP = 256
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 30.0
_LONGEST_TICK_S, _SHORTEST_TICK_S = 0.5, 0.05
_DEBOUNCE_MS = 400
_SHORTEST_POLL_S = 0.3
_MOUNTS = Path("/proc/self/mountinfo")
# Other machines change what is on them, and nobody tells this kernel.
_NETWORK_TYPES = frozenset(
    {"9p", "afs", "ceph", "cifs", "davfs", "ncpfs", "nfs", "nfs4", "smb3", "smbfs", "virtiofs"}
)
# What may be different at the next look although the file is the same.
_PASSING = frozenset({UnreadableFileError.code, FileMissingError.code})

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Waiting:
    """A file as it was when it last changed."""

    state: FileState
    since_s: float


class FolderWatcher:
    """Watches a folder with all its subfolders and hands on files that have stopped growing.

    A file has settled when its size and time stayed the same for settle_s. `admit` gets the
    settled files, sorted; what is wrong with one of them is in its summary, and what it raises
    (a full queue, a database out of reach) makes the files wait, except InputError, which ends
    the run. force_polling: look at the whole tree again and again, for shares whose changes are
    not announced; None decides by the kind of file system. Everything is looked through again
    every rescan_s.
    """

    def __init__(
        self,
        folder: Path,
        admit: Admit,
        *,
        settle_s: float = SETTLE_S,
        force_polling: bool | None = None,
        rescan_s: float = RESCAN_S,
    ) -> None:
        # Not resolve(): links keep their own names, as where files are found.
        self._folder = Path(os.path.abspath(folder))  # noqa: PTH100
        self._admit = admit
        self._settle_s = settle_s
        self._force_polling = force_polling
        self._rescan_s = rescan_s
        self._selection = Selection()
        self._waiting: dict[Path, _Waiting] = {}
        self._taken: dict[Path, FileState] = {}
        self._unreadable: set[Path] = set()
        self._put_off = _Backoff()
        self._retry_at_s = 0.0

    def run(self, stop: threading.Event) -> None:
        """Watch until told to stop; a folder that is not there is waited for.

        Raises InputError if `admit` does.
        """
        absence = _Backoff()
        while not stop.is_set():
            try:
                for _ in self._ticks(stop):
                    absence.reset()
            # watchfiles gives its own kind of RuntimeError for what the system refuses later on.
            except (FolderLostError, OSError, RuntimeError) as error:
                self._report_absence(error, absence.next_s)
                stop.wait(absence.advance())

    def _ticks(self, stop: threading.Event) -> Iterator[None]:
        """Do everything there is to do, again and again; yields after each round."""
        identity = _identity(self._folder)
        polling = self._polls()
        rescan_at_s = 0.0
        # The first look round comes after the watch began: nothing falls between the two.
        for changes in self._changes(polling, stop):
            if _identity(self._folder) != identity or _is_deleted(self._folder, changes):
                raise FolderLostError(self._folder, "another one is in its place")
            if time.monotonic() >= rescan_at_s:
                self._rescan()
                rescan_at_s = time.monotonic() + self._rescan_s
            for change, name in changes:
                self._look_at(change, Path(name))
            self._take_settled(stop)
            yield

    def _changes(self, polling: bool, stop: threading.Event) -> Iterator[set[FileChange]]:
        tick_s = min(_LONGEST_TICK_S, max(_SHORTEST_TICK_S, self._settle_s / 4))
        return watch(
            self._folder,
            watch_filter=None,
            debounce=_DEBOUNCE_MS,
            stop_event=stop,
            rust_timeout=round(tick_s * 1000),
            yield_on_timeout=True,
            force_polling=polling,
            poll_delay_ms=round(max(_SHORTEST_POLL_S, self._settle_s / 2) * 1000),
            ignore_permission_denied=True,
        )

    def _polls(self) -> bool:
        if self._force_polling is None:
            return on_network_share(self._folder)
        return self._force_polling

    def _report_absence(self, error: Exception, wait_s: float) -> None:
        known = {"folder": str(self._folder), "reason": str(error), "retry_s": wait_s}
        if isinstance(error, FolderLostError) or not self._folder.is_dir():
            log.warning(
                "the folder is gone, waiting for it", extra={**known, "code": FolderLostError.code}
            )
        elif self._polls():
            log.warning("the folder cannot be watched", extra=known)
        else:
            # The system has too few watches left, for example.
            log.warning("the folder cannot be watched, polling it", extra=known)
            self._force_polling = True

    # --- what is there ---

    def _rescan(self) -> None:
        found = self._discover(self._folder)
        present = set(found.files)
        for path in [path for path in self._taken if path not in present]:
            del self._taken[path]
        for path in found.files:
            self._consider(path)
        for folder in set(found.unreadable) - self._unreadable:
            log.warning("a folder cannot be listed", extra={"folder": str(folder)})
        self._unreadable = set(found.unreadable)

    def _discover(self, folder: Path) -> Discovery:
        try:
            return find_files([folder], self._selection)
        except InputError:
            # Nothing is there yet, or it is gone again.
            return Discovery()

    def _look_at(self, change: Change, path: Path) -> None:
        """Find out what is under a path now: several changes of it may come in any order."""
        if not path.is_relative_to(self._folder) or in_trash(path.relative_to(self._folder)):
            return
        if self._selection.is_audio(path.name):
            self._consider(path)
        elif change is Change.added and path.is_dir():
            # Files may have been in it before it was watched.
            for inner in self._discover(path).files:
                self._consider(inner)

    def _consider(self, path: Path) -> None:
        """Let a file wait, from now on if it is new or has changed."""
        state = _state_of(path)
        if state is None or self._taken.get(path) == state:
            self._waiting.pop(path, None)
            return
        known = self._waiting.get(path)
        if known is None or known.state != state:
            self._waiting[path] = _Waiting(state, time.monotonic())

    # --- what has settled ---

    def _take_settled(self, stop: threading.Event) -> None:
        for path in list(self._waiting):
            self._consider(path)
        if time.monotonic() < self._retry_at_s:
            return
        settled = sorted(path for path, seen in self._waiting.items() if self._is_settled(seen))
        for group in _groups(settled):
            if stop.is_set() or not self._take(group):
                return

    def _is_settled(self, seen: _Waiting) -> bool:
        return time.monotonic() - seen.since_s >= self._settle_s

    def _take(self, paths: list[Path]) -> bool:
        """Admit files; return False if they and all others have to wait."""
        try:
            summary = self._admit(paths)
        except InputError:
            raise
        except SoundpostError as error:
            self._wait_for(error)
            return False
        # One file must never stop the watch, whatever it does to what reads it.
        except Exception as error:  # noqa: BLE001
            return self._narrow_down(paths, error)
        self._put_off.reset()
        self._note_taken(paths, summary)
        return not summary.interrupted

    def _narrow_down(self, paths: list[Path], error: Exception) -> bool:
        """Find the file at fault by trying each alone."""
        if len(paths) > 1:
            return all(self._take([path]) for path in paths)
        log.error("a file failed", extra={"path": str(paths[0])}, exc_info=error)
        self._mark(paths[0])
        return True

    def _wait_for(self, error: SoundpostError) -> None:
        known = {"code": error.code, "reason": str(error), "remedy": error.remedy}
        wait_s = self._put_off.advance()
        self._retry_at_s = time.monotonic() + wait_s
        log.warning("files have to wait", extra={**known, "retry_s": wait_s})

    def _note_taken(self, paths: list[Path], summary: Summary) -> None:
        for finding in summary.failed:
            known = {"path": finding.path, "code": finding.code, "remedy": finding.remedy}
            log.warning("a file was not taken", extra={**known, "reason": finding.message})
        if summary.interrupted:
            return
        passing = {finding.path for finding in summary.failed if finding.code in _PASSING}
        for path in paths:
            if str(path) in passing:
                # The next look round meets it again.
                self._waiting.pop(path, None)
            else:
                self._mark(path)

    def _mark(self, path: Path) -> None:
        """Remember a file as it was when it had settled: any change since counts as new."""
        self._taken[path] = self._waiting.pop(path).state


class _Backoff:
    """Waits that double up to a limit."""

    def __init__(self) -> None:
        self.next_s = _FIRST_WAIT_S

    def advance(self) -> float:
        """Return how long to wait now."""
        wait_s = self.next_s
        self.next_s = min(_LONGEST_WAIT_S, 2 * wait_s)
        return wait_s

    def reset(self) -> None:
        """Begin with the shortest wait again."""
        self.next_s = _FIRST_WAIT_S


def on_network_share(folder: Path) -> bool:
    """Tell whether other machines can change a folder without this one being told."""
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        real = folder.resolve()
    except OSError:
        return False
    mounts = [_mount_of(line) for line in lines]
    around = [(point, kind) for point, kind in mounts if real.is_relative_to(point)]
    # Of two at the same place the later one hides the other.
    _, kind = max(reversed(around), key=lambda mount: len(mount[0].parts), default=(real, ""))
    return kind in _NETWORK_TYPES or kind.startswith("fuse.")


def _mount_of(line: str) -> tuple[PurePath, str]:
    """Return the mount point and file system type of a line of mountinfo (proc(5))."""
    before, _, after = line.partition(" - ")
    point = before.split(" ")[4]
    for escape, character in ((r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\")):
        point = point.replace(escape, character)
    return PurePath(point), after.split(" ")[0]


def _identity(folder: Path) -> tuple[int, int]:
    """Tell a folder from one mounted over it. Raises FolderLostError if there is none."""
    try:
        state = folder.stat()
    except OSError as error:
        raise FolderLostError(folder, error.strerror or str(error)) from error
    if not stat.S_ISDIR(state.st_mode):
        raise FolderLostError(folder, "it is not a folder")
    return state.st_dev, state.st_ino


def _is_deleted(folder: Path, changes: set[FileChange]) -> bool:
    return (Change.deleted, str(folder)) in changes


def _state_of(path: Path) -> FileState | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_size, state.st_mtime_ns


def _groups(paths: Sequence[Path]) -> Iterator[list[Path]]:
    for start in range(0, len(paths), _GROUP):
        yield list(paths[start : start + _GROUP])

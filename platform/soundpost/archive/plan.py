"""What an ingest was asked for, and how much of it there is."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from pathlib import Path

from soundpost.archive.discover import Origin
from soundpost.archive.recorder_names import Moment, moment_from_name
from soundpost.audio.recording import Remark
from soundpost.errors import InvalidValueError

DEFAULT_SOURCE = "archive"
NO_TIME = "no-time-in-name"


@dataclass(frozen=True)
class Timing:
    """How to know when recordings began: one moment, or from their names in a zone, or not."""

    started_at: Moment | None = None
    from_name: bool = False
    zone: tzinfo = UTC

    def moment(self, path: Path) -> Moment | None:
        """Return when the recording of this file began, as far as that is known."""
        if self.started_at is not None:
            return self.started_at
        return moment_from_name(path.name, self.zone) if self.from_name else None

    def remarks(self, path: Path) -> tuple[Remark, ...]:
        """Return what must be said about the time of this file."""
        moment = self.moment(path)
        if moment is not None and moment.remark is not None:
            return (Remark(*moment.remark),)
        if moment is None and self.from_name:
            return (Remark(NO_TIME, "its name holds no date and time"),)
        return ()


@dataclass(frozen=True)
class IngestOptions:
    """What an ingest may be told.

    timezone is the one a new source gets, and where none is stated in a name or time. threads
    prepare audio beside the encoder; 0 takes half the cores, but two. A transaction holds at most
    chunk_windows windows and is committed after chunk_s seconds at the latest.
    """

    source: str = DEFAULT_SOURCE
    timezone: str | None = None
    timing: Timing = field(default_factory=Timing)
    copy: bool = False
    batch_size: int = 16
    threads: int = 0
    chunk_windows: int = 512
    chunk_s: float = 10.0

    def check(self, files: int) -> None:
        """Raise InvalidValueError for options that contradict each other or the files."""
        if self.timing.started_at is not None and self.timing.from_name:
            raise InvalidValueError("--started-at with --time-from-name", "give one of them")
        if self.timing.started_at is not None and files > 1:
            detail = f"it is the start of one recording, and there are {files} files"
            raise InvalidValueError("--started-at", detail)


@dataclass(frozen=True)
class Plan:
    """The rows that an ingest writes under, and its options.

    Without a model nothing is embedded here, and what any model has embedded counts as done.
    """

    source_id: int
    model_id: int | None
    hop_s: float
    timing: Timing
    origins: Mapping[Path, Origin] = field(default_factory=dict)


class Workload:
    """An estimate of the audio to embed: what is known, carried on to the files not yet examined.

    Bytes carry it, because they are known of every file at once.
    """

    def __init__(self, paths: list[Path]) -> None:
        self._lock = threading.Lock()
        self._total_bytes = sum(map(_size, paths))
        self._seen_bytes = 0
        self._seen_s = 0.0
        self.examined_files = 0

    def examined(self, size_bytes: int, to_do_s: float) -> None:
        """Note a file: its size, and how much of its audio is to be embedded."""
        with self._lock:
            self.examined_files += 1
            self._seen_bytes += size_bytes
            self._seen_s += to_do_s

    def total_s(self) -> float:
        """Return the expected seconds of audio to embed."""
        with self._lock:
            if self._seen_bytes <= 0:
                return self._seen_s
            return self._seen_s * max(1.0, self._total_bytes / self._seen_bytes)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0

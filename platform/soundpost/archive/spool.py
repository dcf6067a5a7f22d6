"""The folder in which a live recording waits for the archive: whole segments named by their time.

A segment is written under a temporary name and renamed when it is whole; it goes when the archive
has it. So whatever is there at the start is the rest of an earlier run and is completed.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self
from urllib.parse import quote

import av
import soundfile
from av.error import FFmpegError

from soundpost.audio.live import LiveFormat, Samples, to_integers
from soundpost.errors import SpoolBusyError, SpoolError

SUFFIX = ".flac"
PART_SUFFIX = ".flac.part"
# Where what the archive refused is kept, for a person to look at.
REFUSED_SUFFIX = ".flac.refused"
# The rest before an interruption is worth a recording only from here on.
SHORTEST_REST_S = 1.0
_RECOVERING_SUFFIX = ".flac.recovering"
_NAME_FORMAT = "%Y%m%dT%H%M%S.%fZ"
_LONGEST_FOLDER_NAME = 150

log = logging.getLogger(__name__)


def folder_name(source: str) -> str:
    """Return a name for the folder of a source; different sources have different ones."""
    quoted = quote(source, safe=" ").replace(".", "%2E")
    if len(quoted) <= _LONGEST_FOLDER_NAME:
        return quoted
    return f"{quoted[:_LONGEST_FOLDER_NAME]}-{hashlib.sha256(source.encode()).hexdigest()[:16]}"


def segment_name(started_at: datetime) -> str:
    """Name a segment by its first sample, as 20261121T120000.000000Z.flac."""
    return started_at.astimezone(UTC).strftime(_NAME_FORMAT) + SUFFIX


def started_at(name: str) -> datetime:
    """Return the time in the name of a segment, whole or not. Raises ValueError if it has none."""
    return datetime.strptime(name.partition(SUFFIX)[0], _NAME_FORMAT).replace(tzinfo=UTC)


def _is_ours(path: Path) -> bool:
    try:
        started_at(path.name)
    except ValueError:
        return False
    return True


class Spool:
    """The segments of one source. Use it as a context manager: one process at a time may.

    check_room is asked before a segment begins, and raises DiskFullError where none may.
    Entering it completes what an earlier run left behind, and raises SpoolBusyError, or SpoolError
    where the folder cannot be used.
    """

    def __init__(self, folder: Path, check_room: Callable[[], None] | None = None) -> None:
        self.folder = folder
        self._check_room = check_room
        self._lock: int | None = None

    def __enter__(self) -> Self:
        with _spooling(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.folder / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.__exit__()
            raise SpoolBusyError(self.folder) from error
        with _spooling(self.folder):
            self._recover()
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def segments(self) -> list[Path]:
        """Return the whole segments, oldest first. Raises SpoolError."""
        with _spooling(self.folder):
            return sorted(filter(_is_ours, self.folder.glob(f"*{SUFFIX}")))

    def open(self, about: datetime, kind: LiveFormat, comment: str) -> SegmentWriter:
        """Begin a segment that starts about then. Raises SpoolError and DiskFullError."""
        if self._check_room is not None:
            self._check_room()
        path = self.folder / segment_name(about).replace(SUFFIX, PART_SUFFIX)
        return SegmentWriter(path, kind, comment)

    def _recover(self) -> None:
        for path in self.folder.glob(f"*{_RECOVERING_SUFFIX}"):
            path.unlink()
        for path in sorted(filter(_is_ours, self.folder.glob(f"*{PART_SUFFIX}"))):
            recovered = self._rewritten(path)
            known = {"file": path.name, "kept_as": recovered.name if recovered else None}
            log.info("an unfinished segment was found", extra=known)
            path.unlink()

    def _rewritten(self, part: Path) -> Path | None:
        """Write the readable beginning of an unfinished segment as a whole one."""
        writer: SegmentWriter | None = None
        moment = started_at(part.name)
        target = part.with_name(segment_name(moment).replace(SUFFIX, _RECOVERING_SUFFIX))
        comment = f"recovered from {part.name}"
        for samples, kind in _readable(part):
            writer = writer or SegmentWriter(target, kind, comment)
            writer.write(samples)
        return writer.close(moment) if writer else None


class SegmentWriter:
    """Writes one segment under its temporary name. Raises SpoolError where that fails."""

    def __init__(self, path: Path, kind: LiveFormat, comment: str) -> None:
        self.samples = 0
        self.format = kind
        self._path = path
        with _spooling(path):
            self._file = soundfile.SoundFile(
                path,
                "w",
                samplerate=kind.sample_rate_hz,
                channels=kind.channels,
                subtype=kind.subtype,
                format="FLAC",
            )
            # Two minutes of digital silence are two recordings: their bytes have to differ.
            self._file.comment = comment

    def write(self, samples: Samples) -> None:
        """Append samples [N, channels]."""
        with _spooling(self._path):
            self._file.write(samples)
        self.samples += len(samples)

    def close(self, moment: datetime, shortest_s: float = SHORTEST_REST_S) -> Path | None:
        """Complete the segment under the time of its first sample.

        It appears whole or not at all; one that is too short goes, and None is returned.
        """
        with _spooling(self._path):
            self._file.close()
            if self.samples < shortest_s * self.format.sample_rate_hz:
                self._path.unlink()
                return None
            _to_disk(self._path)
            target = self._free_name(moment)
            self._path.rename(target)
            _to_disk(target.parent)
        return target

    def discard(self) -> None:
        """Give the segment up: it could not be written."""
        try:
            with _spooling(self._path):
                self._file.close()
                self._path.unlink(missing_ok=True)
        except SpoolError as error:
            log.warning("a segment was lost", extra={"code": error.code, "reason": str(error)})

    def _free_name(self, moment: datetime) -> Path:
        # After a step of the host's clock a time may come twice.
        while (target := self._path.with_name(segment_name(moment))).exists():
            moment += timedelta(microseconds=1)
        return target


def _readable(path: Path) -> Iterator[tuple[Samples, LiveFormat]]:
    """Yield the samples of a FLAC file that was cut off, as far as they go."""
    try:
        with av.open(str(path), mode="r", options={"protocol_whitelist": "file"}) as container:
            stream = container.streams.audio[0]
            for frame in container.decode(stream):
                samples = to_integers(frame, deep=True)
                subtype = "PCM_16" if samples.itemsize == 2 else "PCM_24"
                yield samples, LiveFormat(frame.sample_rate, samples.shape[1], subtype)
    except (FFmpegError, IndexError):
        # That is where it was cut off.
        return


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _spooling(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SpoolError(path, error.strerror or str(error)) from error
    except soundfile.SoundFileError as error:
        raise SpoolError(path, str(error)) from error

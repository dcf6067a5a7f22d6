"""Decoding any recording as a stream of mono blocks, in bounded memory.

PCM and FLAC go through libsndfile, which seeks in them exactly; everything else goes through
FFmpeg. Channels become one by their plain mean: FFmpeg's own downmix is 3 dB louder and can pass
full scale.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self

import numpy as np

from soundpost.audio import containers
from soundpost.audio.blocks import BlockMaker
from soundpost.audio.ffmpeg_reader import FfmpegReader
from soundpost.audio.recording import (
    MAX_RATE_HZ,
    MIN_RATE_HZ,
    AudioInfo,
    Block,
    Damage,
    FloatArray,
    Remark,
)
from soundpost.audio.sndfile_reader import SndfileReader
from soundpost.audio.windows import resample
from soundpost.errors import (
    AudioError,
    BrokenLinkError,
    EmptyFileError,
    FileMissingError,
    InvalidValueError,
    NotAFileError,
    TruncatedError,
    UnreadableFileError,
    UnsupportedRateError,
)

__all__ = [
    "AUDIO_SUFFIXES",
    "AudioInfo",
    "AudioStream",
    "Block",
    "Remark",
    "claimed_bytes",
    "open_audio",
    "probe",
    "read_audio",
]

_PCM = frozenset({".aif", ".aifc", ".aiff", ".au", ".caf", ".rf64", ".snd", ".voc", ".w64"})
_LOSSLESS = frozenset({".ape", ".flac", ".tta", ".wav", ".wave", ".wv"})
_LOSSY = frozenset({".aac", ".ac3", ".amr", ".eac3", ".m4a", ".m4b", ".mka", ".mp2", ".mp3"})
_OGG = frozenset({".oga", ".ogg", ".ogv", ".opus", ".spx"})
_VIDEO = frozenset({".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts"})
_WINDOWS_MEDIA = frozenset({".asf", ".wma", ".wmv"})
# Should a pipe take the place of a file just checked, opening it still returns at once.
_READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
AUDIO_SUFFIXES: frozenset[str] = (
    _PCM | _LOSSLESS | _LOSSY | _OGG | _VIDEO | _WINDOWS_MEDIA | {".webm"}
)


class Reader(Protocol):
    """What decodes one file; positions are samples from its beginning."""

    info: AudioInfo
    full_scale: float
    damage: list[Damage]
    gaps: list[Damage]

    def chunks(self, start: int, end: int | None) -> Iterator[FloatArray]:
        """Yield [N, channels] from `start` to `end`; at the file's end complete `damage`."""
        ...

    def close(self) -> None:
        """Release the decoder."""
        ...


class AudioStream:
    """The blocks of one recording, once through, at its own sample rate.

    After iteration `samples_read` counts what was yielded, `fault` is a TruncatedError if the
    stretch was cut or damaged (what could be decoded was yielded), and `remarks` are the findings.
    Close it, or use it as a context manager.
    """

    def __init__(
        self, path: Path, reader: Reader, resources: ExitStack, blocks: BlockMaker, unfinished: bool
    ) -> None:
        self.info = reader.info
        self.fault: AudioError | None = None
        self.remarks: tuple[Remark, ...] = ()
        self._path = path
        self._reader = reader
        self._resources = resources
        self._maker = blocks
        self._unfinished = unfinished
        self._blocks = blocks.blocks(reader.chunks(blocks.start, blocks.end))

    @property
    def samples_read(self) -> int:
        """How many mono samples were yielded so far."""
        return self._maker.samples_made

    def __iter__(self) -> Iterator[Block]:
        yield from self._blocks
        self._finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the decoder and the file."""
        self._blocks.close()
        self._resources.close()

    def _finish(self) -> None:
        self.fault = self._find_fault()
        remarks = self._maker.remarks()
        if self._reader.gaps:
            remarks.append(Remark("gap", self._say(self._reader.gaps)))
        if self._unfinished:
            remarks.append(Remark("unfinished-header", "its length was read from the file's size"))
        self.remarks = tuple(remarks)

    def _find_fault(self) -> AudioError | None:
        """Only what lies in the stretch that was read counts."""
        start, end = self._maker.start, self._maker.end
        inside = [
            damage
            for damage in self._reader.damage
            if (damage.ends or damage.at_sample >= start)
            and (end is None or damage.at_sample < end)
        ]
        return TruncatedError(self._path, self._say(inside)) if inside else None

    def _say(self, places: list[Damage]) -> str:
        first = places[0]
        more = f", and {len(places) - 1} more" if len(places) > 1 else ""
        return f"at {first.at_sample / self.info.sample_rate_hz:.3f} s: {first.text}{more}"


def open_audio(
    path: Path, *, start_s: float = 0.0, end_s: float | None = None, block_s: float = 10.0
) -> AudioStream:
    """Open a recording as a stream of blocks of block_s seconds.

    start_s and end_s are rounded to the nearest sample. Raises a subclass of AudioError where
    nothing can be decoded, and InvalidValueError for an impossible stretch.
    """
    _check_stretch(start_s, end_s, block_s)
    with ExitStack() as stack:
        file, size = _open_file(path)
        stack.enter_context(file)
        promise = _inspect(file, path, size)
        reader: Reader = SndfileReader.open(file, path, promise) or FfmpegReader(
            file, path, promise
        )
        stack.callback(reader.close)
        rate_hz = reader.info.sample_rate_hz
        if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
            raise UnsupportedRateError(path, f"{rate_hz} Hz")
        blocks = BlockMaker(
            start=_to_samples(start_s, rate_hz),
            end=None if end_s is None else _to_samples(end_s, rate_hz),
            length=max(1, _to_samples(block_s, rate_hz)),
            full_scale=reader.full_scale,
        )
        reader.info = _plausible(reader.info, size)
        return AudioStream(path, reader, stack.pop_all(), blocks, promise.unfinished)


def probe(path: Path) -> AudioInfo:
    """Describe a recording, having decoded its first frame. Raises a subclass of AudioError."""
    with open_audio(path) as stream:
        return stream.info


def claimed_bytes(path: Path) -> int | None:
    """Return how many bytes a file's header promises, where it has less, as far as that is known.

    Raises a subclass of AudioError where it cannot be read.
    """
    file, size = _open_file(path)
    with file:
        return _inspect(file, path, size).promised_bytes


def read_audio(
    path: Path,
    *,
    start_s: float = 0.0,
    end_s: float | None = None,
    sample_rate_hz: int | None = None,
) -> tuple[FloatArray, int]:
    """Read a short stretch as mono [N] with its rate, resampled if sample_rate_hz is given.

    A damaged recording gives what could be decoded; the fault is raised when that is nothing.
    Raises a subclass of AudioError, and InvalidValueError if start_s is behind the end.
    """
    with open_audio(path, start_s=start_s, end_s=end_s) as stream:
        pieces = [block.samples for block in stream]
        rate_hz = stream.info.sample_rate_hz
    if not pieces:
        raise stream.fault or InvalidValueError(start_s, "the recording ends before this second")
    samples = np.concatenate(pieces)
    if sample_rate_hz is None or sample_rate_hz == rate_hz:
        return samples, rate_hz
    return resample(samples, rate_hz, sample_rate_hz), sample_rate_hz


def _check_stretch(start_s: float, end_s: float | None, block_s: float) -> None:
    if not 0 <= start_s < float("inf"):
        raise InvalidValueError(start_s, "a start in seconds is zero or more")
    if end_s is not None and not start_s < end_s < float("inf"):
        raise InvalidValueError(end_s, f"the end must lie behind the start, {start_s} s")
    if not 0 < block_s < float("inf"):
        raise InvalidValueError(block_s, "a block takes more than zero seconds")


def _to_samples(seconds: float, rate_hz: int) -> int:
    return round(Fraction(seconds) * rate_hz)


def _plausible(info: AudioInfo, size: int) -> AudioInfo:
    """Forget a duration of less than one bit a second: the header is damaged."""
    if info.duration_s is None or info.duration_s <= 8 * size:
        return info
    return replace(info, duration_s=None)


def _inspect(file: BinaryIO, path: Path, size: int) -> containers.Promise:
    try:
        return containers.inspect(file, size)
    except OSError as error:
        raise UnreadableFileError(path, error.strerror or str(error)) from error


def _open_file(path: Path) -> tuple[BinaryIO, int]:
    """Open a regular file that holds something, and return it with its size in bytes."""
    try:
        # The kind is asked first: opening a device can act on it, and a pipe would block.
        _check_kind(path, path.stat())
        file = os.fdopen(os.open(path, _READ_FLAGS), "rb", buffering=0)
    except (OSError, ValueError) as error:
        raise _explain(path, error) from error
    status = os.fstat(file.fileno())
    try:
        _check_kind(path, status)
    except AudioError:
        file.close()
        raise
    return file, status.st_size


def _check_kind(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise NotAFileError(path)
    if status.st_size == 0:
        raise EmptyFileError(path)


def _explain(path: Path, error: OSError | ValueError) -> AudioError:
    code = error.errno if isinstance(error, OSError) else None
    if code == errno.ELOOP or (code == errno.ENOENT and path.is_symlink()):
        return BrokenLinkError(path)
    if code in (errno.ENOENT, errno.ENOTDIR):
        return FileMissingError(path)
    detail = error.strerror if isinstance(error, OSError) else str(error)
    return UnreadableFileError(path, detail or type(error).__name__)

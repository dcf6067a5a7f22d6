"""Reading PCM and FLAC through libsndfile, which seeks in them exactly to the sample."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import soundfile

from soundpost.audio.containers import Promise
from soundpost.audio.ffmpeg_reader import FfmpegReader
from soundpost.audio.recording import AudioInfo, Damage, FloatArray
from soundpost.errors import AudioError, NoSamplesError

_logger = logging.getLogger(__name__)

# The largest positive code of each sample format; what reaches it is at full scale. Floats that
# went through 16 bits peak just below one.
_FULL_SCALE = MappingProxyType(
    {
        "PCM_U8": 127 / 128,
        "PCM_S8": 127 / 128,
        "PCM_16": 32767 / 32768,
        "PCM_24": 1 - 2.0**-23,
        "PCM_32": 1 - 2.0**-23,
        "ULAW": 32124 / 32768,
        "ALAW": 32256 / 32768,
        "FLOAT": 0.9999,
        "DOUBLE": 0.9999,
    }
)
_MAGICS = (b"RIFF", b"RIFX", b"RF64", b"FORM", b".snd", b"caff", b"riff", b"fLaC")
_CHUNK_VALUES = 1 << 19
# What libsndfile says of a FLAC stream whose header does not count its samples.
_UNKNOWN_FRAMES = (1 << 63) - 1


class SndfileReader:
    """Frames of one open file, as float32 in [-1, 1] with every channel."""

    def __init__(
        self, file: BinaryIO, path: Path, promise: Promise, handle: Any, info: AudioInfo
    ) -> None:
        self._file = file
        self._path = path
        self._promise = promise
        self._handle = handle
        self.info = info
        self.full_scale: float = _FULL_SCALE[handle.subtype]
        self.damage: list[Damage] = []
        self.gaps: list[Damage] = []

    @classmethod
    def open(cls, file: BinaryIO, path: Path, promise: Promise) -> SndfileReader | None:
        """Open the file, or return None where FFmpeg has to do it."""
        if not _is_sample_exact(file, promise):
            return None
        try:
            handle = soundfile.SoundFile(file.fileno(), closefd=False)
        except soundfile.LibsndfileError as error:
            _logger.debug("libsndfile does not read %s: %s", path, error)
            return None
        if handle.frames == 0:
            handle.close()
            raise NoSamplesError(path, promise.missing or "")
        if handle.subtype not in _FULL_SCALE or not _gives_samples(handle):
            handle.close()
            return None
        return cls(file, path, promise, handle, _describe(handle))

    def chunks(self, start: int, end: int | None) -> Iterator[FloatArray]:
        """Yield [N, channels] from sample `start` to `end`, or to where the file ends."""
        position = start
        try:
            if start < self._handle.frames:
                self._handle.seek(start)
                for chunk in self._read(start, end):
                    position += len(chunk)
                    yield chunk
        except soundfile.LibsndfileError:
            # libsndfile gives up at the first damaged frame; FFmpeg finds the next whole one.
            yield from self._resume(position, end)
            return
        if end is None or position < end:
            self._check_end(min(position, self._handle.frames))

    def close(self) -> None:
        """Release the decoder; the file stays open."""
        self._handle.close()

    def _read(self, start: int, end: int | None) -> Iterator[FloatArray]:
        step = max(1, _CHUNK_VALUES // self.info.channels)
        position = start
        while end is None or position < end:
            count = step if end is None else min(step, end - position)
            chunk: FloatArray = self._handle.read(count, dtype="float32", always_2d=True)
            if not len(chunk):
                return
            position += len(chunk)
            yield chunk

    def _resume(self, position: int, end: int | None) -> Iterator[FloatArray]:
        try:
            rest = FfmpegReader(self._file, self._path, self._promise)
        except AudioError as error:
            self.damage.append(Damage(position, str(error), ends=True))
            return
        rest.damage, rest.gaps = self.damage, self.gaps
        try:
            yield from rest.chunks(position, end)
        finally:
            rest.close()

    def _check_end(self, position: int) -> None:
        if self._promise.missing:
            self.damage.append(Damage(position, self._promise.missing, ends=True))
        elif position < self._handle.frames:
            promised_s = self._handle.frames / self.info.sample_rate_hz
            text = f"its header promises {promised_s:.3f} s"
            self.damage.append(Damage(position, text, ends=True))


def _is_sample_exact(file: BinaryIO, promise: Promise) -> bool:
    file.seek(0)
    head = file.read(4)
    file.seek(0)
    return head in _MAGICS and not promise.unfinished


def _gives_samples(handle: Any) -> bool:
    try:
        return handle.frames != _UNKNOWN_FRAMES and len(handle.read(1)) == 1 and handle.seek(0) == 0
    except soundfile.LibsndfileError:
        return False


def _describe(handle: Any) -> AudioInfo:
    return AudioInfo(
        sample_rate_hz=handle.samplerate,
        channels=handle.channels,
        duration_s=handle.frames / handle.samplerate if handle.samplerate else None,
        format=f"{handle.format}/{handle.subtype}".lower(),
    )

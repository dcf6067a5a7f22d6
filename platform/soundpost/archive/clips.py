"""Stretches of recordings: how a person names one, and how it becomes a file of its own."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from soundpost.audio.decode import AudioStream, open_audio
from soundpost.errors import InvalidValueError, NoSamplesError, OutputExistsError

# 24 bits hold every sample of 8, 16 and 24 bit recordings and of their mono mix exactly.
_FORMATS = {".wav": "WAV", ".flac": "FLAC", ".aiff": "AIFF", ".aif": "AIFF"}
_SUBTYPE = "PCM_24"
_OPUS = ".opus"
_OPUS_RATE_HZ = 48_000
_TIME = r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d+)?)"
_RANGE = re.compile(rf"(?:{_TIME})?-(?:{_TIME})?")
_RECORDING = re.compile(r"#?(\d+)")


@dataclass(frozen=True)
class Stretch:
    """A part of a file or recording: seconds from its start; no end means to its end.

    `name` is a path, or the id of a recording as a person wrote it.
    """

    name: str
    start_s: float = 0.0
    end_s: float | None = None

    @property
    def recording_id(self) -> int | None:
        """The id if the name is one (`12` or `#12`) and no file is called that."""
        match = _RECORDING.fullmatch(self.name)
        return int(match[1]) if match and not os.path.lexists(self.name) else None


@dataclass(frozen=True)
class Clip:
    """What was written: samples at sample_rate_hz, mono."""

    path: Path
    samples: int
    sample_rate_hz: int

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.samples / self.sample_rate_hz


def parse_stretch(text: str) -> Stretch:
    """Read `NAME` or `NAME@START-END`; times as seconds, m:ss or h:mm:ss, either may be missing.

    A file whose own name ends like that is taken whole. Raises InvalidValueError.
    """
    name, mark, tail = text.rpartition("@")
    if not mark or os.path.lexists(text):
        return Stretch(text)
    match = _RANGE.fullmatch(tail.strip())
    if not match or not name:
        raise InvalidValueError(text, "write a part as NAME@START-END, such as rain.wav@1:05-1:12")
    start_s = _seconds(*match.group(1, 2, 3)) or 0.0
    end_s = _seconds(*match.group(4, 5, 6))
    if end_s is not None and end_s <= start_s:
        raise InvalidValueError(text, "the end must lie after the start")
    return Stretch(name, start_s, end_s)


def write_clip(
    source: Path, out: Path, start_s: float = 0.0, end_s: float | None = None, force: bool = False
) -> Clip:
    """Write a stretch of an audio file, mono, exact to the sample at the file's own rate.

    Opus, for listening, is lossy and always has 48 kHz. The clip appears whole or not at all. Raises OutputExistsError, InvalidValueError for a suffix
    that cannot be written, an AudioError where the source cannot be read, NoSamplesError where
    the stretch lies past its end.
    """
    suffix = out.suffix.lower()
    if suffix not in _FORMATS and suffix != _OPUS:
        raise InvalidValueError(out, f"clips are written as {', '.join([*_FORMATS, _OPUS])}")
    if out.exists() and not force:
        raise OutputExistsError(out)
    with _replacing(out) as partial, open_audio(source, start_s=start_s, end_s=end_s) as stream:
        if suffix == _OPUS:
            samples = _copy_as_opus(stream, partial)
        else:
            samples = _copy(stream, partial, _FORMATS[suffix])
        if samples == 0:
            raise NoSamplesError(source, f"nothing lies at {start_s:g} s")
        return Clip(out, samples, stream.info.sample_rate_hz)


def _copy(stream: AudioStream, path: Path, container: str) -> int:
    samples = 0
    rate_hz = stream.info.sample_rate_hz
    with soundfile.SoundFile(path, "w", rate_hz, 1, _SUBTYPE, format=container) as target:
        for block in stream:
            target.write(block.samples)
            samples += len(block.samples)
    return samples


def _copy_as_opus(stream: AudioStream, path: Path) -> int:
    """Encode a stretch block by block; return its samples at its own rate."""
    rate_hz = stream.info.sample_rate_hz
    resampler = soxr.ResampleStream(rate_hz, _OPUS_RATE_HZ, 1, dtype="float32")
    samples = 0
    with soundfile.SoundFile(path, "w", _OPUS_RATE_HZ, 1, "OPUS", format="OGG") as target:
        for block in stream:
            _write(target, resampler.resample_chunk(block.samples))
            samples += len(block.samples)
        _write(target, resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    return samples


def _write(target: soundfile.SoundFile, samples: NDArray[np.float32]) -> None:
    # libsndfile's Ogg encoders overflow their stack on long pieces.
    for first in range(0, len(samples), _OPUS_RATE_HZ):
        target.write(samples[first : first + _OPUS_RATE_HZ])


@contextmanager
def _replacing(out: Path) -> Iterator[Path]:
    """Give a temporary path beside `out` that takes its place if all goes well."""
    try:
        handle, name = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name[:40]}-")
    except OSError as error:
        raise InvalidValueError(out, f"cannot be written: {error.strerror}") from error
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        # mkstemp makes it private; a clip is as open as any file this user writes.
        partial.chmod(0o666 & ~_umask())
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _seconds(hours: str | None, minutes: str | None, seconds: str | None) -> float | None:
    if seconds is None:
        return None
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds)

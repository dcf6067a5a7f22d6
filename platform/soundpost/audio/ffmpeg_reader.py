"""Reading everything that FFmpeg knows, through PyAV: packets to frames on one sample clock.

Nothing is sought: a codec's state depends on what came before, so a stretch is decoded from the
start of the file and discarded up to where it begins. That makes every piece identical to the
same piece of the whole. Encoder delay is removed by FFmpeg (edit lists, Opus pre-skip, LAME tags).
"""

from __future__ import annotations

import errno
from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream as AvStream
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from numpy.typing import NDArray

from soundpost.audio.containers import Promise
from soundpost.audio.recording import MAX_RATE_HZ, AudioInfo, Damage, FloatArray
from soundpost.errors import (
    AudioError,
    DecodeError,
    NoAudioStreamError,
    NoSamplesError,
    NotAudioError,
    TruncatedError,
    UnreadableFileError,
)

_BUFFER_BYTES = 1 << 17
_CHUNK_VALUES = 1 << 17
# Scale and full-scale threshold by sample format. 24-bit codecs deliver their samples in 32 bits.
_FORMATS = MappingProxyType(
    {
        "u8": (128.0, 127 / 128),
        "s16": (32768.0, 32767 / 32768),
        "s32": (2147483648.0, 1 - 2.0**-23),
        "flt": (1.0, 0.9999),
        "dbl": (1.0, 0.9999),
    }
)
# Clocks of a few containers jitter by some packets; a hole without a decoding error is longer.
_JITTER_S = 0.1
_MOST_SILENCE_S = 600
# An AAC frame with SBR: the most a codec adds at the end of a recording.
_PADDING_SAMPLES = 4096
_VORBIS_BLOCK_SAMPLES = 512
_MAX_DEMUX_ERRORS = 20
# How many frames behind a fault even a small hole in the clock is taken for a loss.
_ALERT_FRAMES = 3
_MAX_NOTES = 100
# Containers whose clock runs without holes: a jump is lost data there, and not a pause.
_GAPLESS = frozenset({"ogg", "flac", "mp3", "wav", "aac", "mpegts"})
_EXACT_CLOCKS = frozenset({"flac", "mpegts"})
# The encoder's delay, and the coarse clock of Matroska.
_MATROSKA_SLACK_S = 0.25
_MP3_FRAME_SAMPLES = 1152


class _Bytes:
    """An open file as FFmpeg's custom input: its name, and so its extension, stays unknown.

    A damaged header can ask for any offset; refusing it is FFmpeg's to handle.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.failure: OSError | None = None

    def read(self, count: int) -> bytes:
        try:
            return self._file.read(count)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOVERFLOW):
                self.failure = error
            return b""

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self._file.seek(offset, whence)
        except (OSError, OverflowError, ValueError):
            return -1

    def tell(self) -> int:
        return self._file.tell()


class _Pipe(_Bytes):
    """The same, once through: without it the WAV demuxer hunts for chunks behind the samples."""

    def seekable(self) -> bool:
        return False


class FfmpegReader:
    """Frames of the best audio track of one open file, float32 with every channel."""

    def __init__(self, file: BinaryIO, path: Path, promise: Promise) -> None:
        """Open and decode the first frame.

        Raises NotAudioError, NoAudioStreamError, NoSamplesError, TruncatedError, DecodeError or
        UnreadableFileError.
        """
        file.seek(0)
        self._path = path
        self._promise = promise
        self._bytes = _Pipe(file) if promise.unfinished else _Bytes(file)
        self.damage: list[Damage] = []
        self.gaps: list[Damage] = []
        self._position = 0
        self._alert = 0
        self._filled = 0
        self._container = self._open()
        try:
            self._stream = self._choose_stream()
            self._frames = self._decode()
            self._first = self._first_frame()
            self.info = self._describe()
        except BaseException:
            self._container.close()
            raise
        self.full_scale: float = _FORMATS[_packed_name(self._first)][1]

    def chunks(self, start: int, end: int | None) -> Iterator[FloatArray]:
        """Yield [N, channels] from sample `start` to `end`, or to where the file ends."""
        yield from _join(self._between(start, end))
        if end is None or self._position < end:
            self._check_end()

    def close(self) -> None:
        """Release the decoder; the file stays open."""
        self._frames.close()
        self._container.close()

    def _between(self, start: int, end: int | None) -> Iterator[FloatArray]:
        for piece, at in self._trimmed():
            kept = piece[max(0, start - at) : None if end is None else max(0, end - at)]
            if len(kept):
                yield kept
            if end is not None and at + len(piece) >= end:
                return

    # --- opening ---

    def _open(self) -> InputContainer:
        # A file may name others (playlists); none of them is opened.
        options = {"protocol_whitelist": "none"}
        if self._promise.unfinished:
            options["ignore_length"] = "1"
        try:
            return av.open(
                self._bytes,
                mode="r",
                options=options,
                metadata_errors="replace",
                buffer_size=_BUFFER_BYTES,
            )
        except FFmpegError as error:
            raise self._refusal(error) from error

    def _refusal(self, error: FFmpegError) -> AudioError:
        if self._bytes.failure:
            return UnreadableFileError(self._path, str(self._bytes.failure))
        if self._promise.missing:
            return TruncatedError(self._path, self._promise.missing)
        if self._promise.known:
            return DecodeError(self._path, error.strerror or type(error).__name__)
        return NotAudioError(self._path)

    def _choose_stream(self) -> AvStream:
        stream = self._container.streams.best("audio")
        if stream is None and not self._shows_video():
            raise NotAudioError(self._path, f"it holds {self._container.format.long_name}")
        if not isinstance(stream, AvStream):
            raise NoAudioStreamError(self._path)
        if stream.codec_context is None:
            raise DecodeError(self._path, "its codec is not known")
        for other in self._container.streams:
            if other.index != stream.index:
                other.discard = av.stream.Discard.all
        return stream

    def _shows_video(self) -> bool:
        name = self._container.format.name
        return bool(self._container.streams.video) and not name.endswith(("_pipe", "image2"))

    def _first_frame(self) -> AudioFrame:
        for frame in self._frames:
            if frame.samples and frame.sample_rate:
                self._forgive_lead_in()
                return frame
        if self._bytes.failure:
            raise UnreadableFileError(self._path, str(self._bytes.failure))
        if self._promise.missing:
            raise TruncatedError(self._path, self._promise.missing)
        if self.damage:
            raise DecodeError(self._path, self.damage[0].text)
        raise NoSamplesError(self._path)

    def _forgive_lead_in(self) -> None:
        """A recording cut out of a stream begins amid a frame; nothing of it is lost."""
        if self._container.format.name in ("mp3", "aac", "ac3", "eac3", "mpegts"):
            self.damage.clear()

    def _describe(self) -> AudioInfo:
        if _packed_name(self._first) not in _FORMATS:
            raise DecodeError(self._path, f"sample format {self._first.format.name}")
        codec = self._stream.codec_context.codec.canonical_name
        return AudioInfo(
            sample_rate_hz=self._first.sample_rate,
            channels=self._first.layout.nb_channels,
            duration_s=self._duration_s(self._first.sample_rate),
            format=f"{_short_name(self._container.format.name, self._stream)}/{codec}",
        )

    def _duration_s(self, rate_hz: int) -> float | None:
        if self._promise.samples and 0 < rate_hz <= MAX_RATE_HZ:
            return self._promise.samples / rate_hz
        ticks, base = self._stream.duration, self._stream.time_base
        if ticks and ticks > 0 and base:
            return float(ticks * base)
        whole = self._container.duration
        return whole / av.time_base if whole and whole > 0 else None

    # --- packets and frames ---

    def _decode(self) -> Generator[AudioFrame]:
        for packet in self._packets():
            try:
                yield from self._stream.codec_context.decode(packet)
            except av.error.EOFError:
                return
            except FFmpegError:
                self._note("damaged")

    def _packets(self) -> Iterator[Packet[AvStream] | None]:
        """Demux, going on behind a damaged place as long as there is something behind it."""
        for _ in range(_MAX_DEMUX_ERRORS):
            try:
                for packet in self._container.demux(self._stream):
                    if packet.is_corrupt and packet.size and not self._promise.unfinished:
                        self._note("damaged")
                    yield packet
                return
            except FFmpegError:
                self._note("the container is damaged")
            except IndexError:
                # PyAV trips over tracks that appear while it reads, after the last packet.
                break
        yield None

    def _note(self, text: str) -> None:
        self._alert = _ALERT_FRAMES
        if len(self.damage) < _MAX_NOTES:
            self.damage.append(Damage(self._position, text))

    # --- the sample clock ---

    def _paced(self) -> Iterator[FloatArray]:
        """Yield frames [N, channels]; silence stands for what was lost, so that times stay true."""
        tick_s = self._tick_s()
        expected: float | None = None
        for frame in self._all_frames():
            if frame.sample_rate != self.info.sample_rate_hz or _packed_name(frame) not in _FORMATS:
                self._note(f"a stretch at {frame.sample_rate} Hz is left out")
                continue
            pts = expected if frame.pts is None else frame.pts
            if pts is not None and expected is not None and pts > expected:
                yield from self._fill((pts - expected) * tick_s, tick_s)
            self._alert = max(0, self._alert - 1)
            yield _to_float(frame)
            expected = None if pts is None else pts + frame.samples / frame.sample_rate / tick_s

    def _tick_s(self) -> float:
        """The step of the frames' clock, in seconds."""
        return float(self._first.time_base or self._stream.time_base or Fraction(1, 1000))

    def _all_frames(self) -> Iterator[AudioFrame]:
        yield self._first
        yield from self._frames

    def _fill(self, gap_s: float, tick_s: float) -> Iterator[FloatArray]:
        exact = self._alert > 0 or self._container.format.name in _EXACT_CLOCKS
        least = max(0.002, 1.5 * tick_s) if exact else _JITTER_S
        if gap_s < least:
            return
        missing = round(gap_s * self.info.sample_rate_hz)
        if missing > self._longest_gap():
            self._note(f"the clock jumps by {gap_s:.1f} s")
            return
        self._filled += missing
        self._note_gap(missing)
        step = max(1, _CHUNK_VALUES // self.info.channels)
        for offset in range(0, missing, step):
            yield np.zeros((min(step, missing - offset), self.info.channels), np.float32)

    def _longest_gap(self) -> int:
        """No gap reaches past the duration that the headers give, and headers can be absurd."""
        rate_hz = self.info.sample_rate_hz
        allowed = _MOST_SILENCE_S * rate_hz - self._filled
        if self.info.duration_s is None:
            return allowed
        return min(allowed, round((self.info.duration_s + 1) * rate_hz) - self._position)

    def _note_gap(self, missing: int) -> None:
        text = f"{missing / self.info.sample_rate_hz:.3f} s are missing"
        if self._container.format.name in _GAPLESS or self._alert:
            self._note(text)
        elif len(self.gaps) < _MAX_NOTES:
            self.gaps.append(Damage(self._position, text))

    def _trimmed(self) -> Iterator[tuple[FloatArray, int]]:
        """Yield (frames, position), without the padding behind the end that MP4 and Ogg state."""
        limit = self._padding_starts()
        held: list[FloatArray] = []
        for piece in self._paced():
            held.append(piece)
            if limit is not None and self._position + len(piece) > limit:
                if sum(map(len, held)) <= _PADDING_SAMPLES:
                    continue
                # More than padding: the header does not know the end.
                limit = None
            yield from map(self._advance, held)
            held = []
        if limit is not None:
            yield from map(self._advance, self._end_at(limit, held))

    def _end_at(self, limit: int, held: list[FloatArray]) -> Iterator[FloatArray]:
        for piece in held:
            kept = piece[: max(0, limit - self._position)]
            if len(kept):
                yield kept
        # FFmpeg can lose the last short block of Vorbis, which the container counts.
        lost = limit - self._position
        if self._stream.codec_context.name == "vorbis" and 0 < lost <= _VORBIS_BLOCK_SAMPLES:
            yield np.zeros((lost, self.info.channels), np.float32)

    def _advance(self, piece: FloatArray) -> tuple[FloatArray, int]:
        at = self._position
        self._position += len(piece)
        return piece, at

    def _padding_starts(self) -> int | None:
        name = self._container.format.name
        if ("mp4" not in name and name != "ogg") or not self._stream.duration:
            return None
        base = self._stream.time_base or Fraction(0)
        return round(self._stream.duration * base * self.info.sample_rate_hz) or None

    # --- the end ---

    def _check_end(self) -> None:
        rate_hz = self.info.sample_rate_hz
        promised_s, slack_s = self._promised_s()
        if self._bytes.failure:
            self._note_end(f"reading failed: {self._bytes.failure}")
        elif self._promise.missing:
            self._note_end(self._promise.missing)
        elif self._position / rate_hz < promised_s - slack_s:
            self._note_end(f"its header promises {promised_s:.3f} s")
        elif self.damage and self.damage[-1].at_sample == self._position:
            self._note_end(self.damage.pop().text)

    def _note_end(self, text: str) -> None:
        self.damage.append(Damage(self._position, text, ends=True))

    def _promised_s(self) -> tuple[float, float]:
        """The duration where the format states it reliably, and how far off it may be."""
        name = self._container.format.name
        duration_s = self.info.duration_s or 0.0
        if name == "flac":
            return duration_s, 0.0
        if name == "mp3" and self._promise.samples:
            return duration_s, _MP3_FRAME_SAMPLES / self.info.sample_rate_hz
        if "matroska" in name and len(self._container.streams) == 1:
            return duration_s, _MATROSKA_SLACK_S
        return 0.0, 0.0


def _join(pieces: Iterator[FloatArray]) -> Iterator[FloatArray]:
    """Gather the short frames of codecs to chunks worth the cost of handling each."""
    batch: list[FloatArray] = []
    values = 0
    for piece in pieces:
        if batch and batch[0].shape[1] != piece.shape[1]:
            yield np.concatenate(batch)
            batch, values = [], 0
        batch.append(piece)
        values += piece.size
        if values >= _CHUNK_VALUES:
            yield np.concatenate(batch)
            batch, values = [], 0
    if batch:
        yield np.concatenate(batch)


def _packed_name(frame: AudioFrame) -> str:
    return frame.format.name.removesuffix("p")


def _to_float(frame: AudioFrame) -> FloatArray:
    """Return [N, channels] in [-1, 1]."""
    samples: NDArray[Any] = frame.to_ndarray()
    channels = frame.layout.nb_channels
    samples = samples.T if frame.format.is_planar else samples.reshape(-1, channels)
    if samples.dtype == np.float32:
        return samples
    scale, _ = _FORMATS[_packed_name(frame)]
    centred = samples.astype(np.float64) - (128.0 if samples.dtype == np.uint8 else 0.0)
    return (centred / scale).astype(np.float32)


def _short_name(names: str, stream: AvStream) -> str:
    """The container in one word; FFmpeg lists every name of a demuxer."""
    if names == "matroska,webm":
        return "webm" if stream.codec_context.name in ("opus", "vorbis") else "matroska"
    return "mp4" if "mp4" in names else names.split(",")[0]

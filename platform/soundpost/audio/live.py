"""Sound as it happens: streams and capture devices through FFmpeg, and the time of their samples.

What is connected to may hold a password, and so may every message of FFmpeg that names it: only
`LiveTarget.shown` is ever put into an error or a log.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast
from urllib.parse import urlsplit, urlunsplit

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import ExitError, FFmpegError
from numpy.typing import NDArray

from soundpost.errors import InvalidValueError, StreamError, StreamStalledError

# [N, channels], int16 for 16 bits and int32 for 24, the way soundfile writes both without loss.
Samples = NDArray[np.int16] | NDArray[np.int32]
Clock = Callable[[], datetime]

_NETWORK = "http,https,httpproxy,tcp,tls,crypto,data"
_PROTOCOLS = MappingProxyType(
    {
        "http": _NETWORK,
        "https": _NETWORK,
        "rtsp": "rtsp,rtp,tcp,tls,http,https",
        "rtsps": "rtsp,rtp,tcp,tls,http,https",
        # A playlist may be a local file and name segments elsewhere; never the other way round.
        "file": f"file,{_NETWORK}",
    }
)
_DEVICES = ("alsa", "avfoundation", "dshow", "jack", "oss", "pulse")
# Chunks between the connection and its consumer: some seconds of sound.
_WAITING = 256
_TICK_S = 0.2
# How long FFmpeg has to notice a stall by itself before its thread is given up.
_GRACE_S = 1.0
# Opening reads ahead to find out what a stream is, some seconds of it.
_OPENING_S = 10.0
_MOST_DAMAGED = 50
_END_SLACK_S = 0.5
# Streams in files (HLS) come in bursts of up to ten seconds; only the end of one is punctual.
_JUDGED_OVER = timedelta(seconds=15)


def now() -> datetime:
    """The host's clock."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class LiveTarget:
    """What to listen to: `address` is for FFmpeg only, `shown` is for people."""

    address: str = field(repr=False)
    shown: str
    format: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    is_local_file: bool = False

    @classmethod
    def parse(cls, text: str) -> LiveTarget:
        """Read a URL (rtsp, http, https, file), a file, or a device such as alsa:hw:1.

        Raises InvalidValueError for anything else.
        """
        kind, colon, rest = text.partition(":")
        kind = kind.lower()
        if colon and kind in _DEVICES:
            return cls._device(text, kind, rest)
        if kind in _PROTOCOLS and _has_a_place(text, kind):
            return cls._stream(text, kind)
        if "://" not in text and Path(text).is_file():
            return cls._stream(Path(text).resolve().as_uri(), "file")
        detail = "give a URL (rtsp, http, https or file) or a device such as alsa:default"
        raise InvalidValueError(_without_secrets(text), detail)

    @classmethod
    def _device(cls, text: str, kind: str, name: str) -> LiveTarget:
        if kind not in av.formats_available:
            known = ", ".join(device for device in _DEVICES if device in av.formats_available)
            raise InvalidValueError(text, f"this FFmpeg knows these kinds of devices: {known}")
        return cls(name or "default", text, kind)

    @classmethod
    def _stream(cls, url: str, scheme: str) -> LiveTarget:
        options = {"protocol_whitelist": _PROTOCOLS[scheme]}
        if scheme.startswith("rtsp"):
            # Over UDP packets are lost, and with them the count of samples.
            options["rtsp_transport"] = "tcp"
        shown = _without_secrets(url)
        return cls(url, shown, options=options, is_local_file=scheme == "file")


@dataclass(frozen=True)
class LiveFormat:
    """What a stream delivers; subtype is libsndfile's name of the depth: PCM_16 or PCM_24."""

    sample_rate_hz: int
    channels: int
    subtype: str


@dataclass(frozen=True, eq=False)
class Chunk:
    """Samples [N, channels], and when the last of them was here."""

    samples: Samples
    format: LiveFormat
    arrived_at: datetime


class LiveStream:
    """One connection, read by a thread of its own from the moment it is made.

    stall_s: how long nothing may come, beside the time that it takes to open. The thread ends with the connection, after `close` as soon
    as FFmpeg lets go of it. recorded: it has an end that is known, so it is a file and not live;
    connected_at: when it was open. Both are known from the first chunk on.
    """

    def __init__(self, target: LiveTarget, stall_s: float, clock: Clock = now) -> None:
        self.recorded = False
        self.connected_at = clock()
        self._target = target
        self._stall_s = stall_s
        self._clock = clock
        self._decoded_s = 0.0
        self._closed = threading.Event()
        self._items: queue.Queue[Chunk | StreamError | None] = queue.Queue(_WAITING)
        # A daemon: a device that hangs must not keep the process from ending.
        threading.Thread(target=self._read, name="live", daemon=True).start()

    def chunks(self, stop: threading.Event) -> Iterator[Chunk]:
        """Yield what comes until told to stop, or until the end of a recorded source.

        Raises StreamError when a stream cannot be opened, breaks or ends, StreamStalledError when
        nothing comes any more.
        """
        limit_s = time.monotonic() + self._stall_s + _OPENING_S + _GRACE_S
        while not stop.is_set():
            try:
                item = self._items.get(timeout=_TICK_S)
            except queue.Empty:
                if time.monotonic() > limit_s:
                    raise self._stalled() from None
                continue
            if item is None:
                return
            if isinstance(item, StreamError):
                raise item
            yield item
            limit_s = time.monotonic() + self._stall_s + _GRACE_S

    def close(self) -> None:
        """Let go of the connection, without waiting for it."""
        self._closed.set()

    def _read(self) -> None:
        """Deliver chunks and then how it ended: an error, or None after a recorded source."""
        ending: StreamError | None
        try:
            ending = self._deliver()
        except ExitError:
            ending = self._stalled()
        except FFmpegError as error:
            # Not its text and not itself as the cause: both hold the address with its password.
            ending = StreamError(self._target.shown, error.strerror or type(error).__name__)
        # Whatever it is, the consumer must learn of it, or it would wait.
        except Exception as error:  # noqa: BLE001
            ending = StreamError(self._target.shown, type(error).__name__)
        self._put(ending)

    def _deliver(self) -> StreamError | None:
        began_s = time.monotonic()
        with self._open() as container:
            if time.monotonic() - began_s >= self._stall_s + _OPENING_S:
                # What it read before it gave up is there, but nobody knows since when.
                return self._stalled()
            stream = container.streams.best("audio")
            if not isinstance(stream, AudioStream):
                return StreamError(self._target.shown, "it has no sound")
            for other in container.streams:
                if other.index != stream.index:
                    other.discard = av.stream.Discard.all
            duration_s = _known_duration_s(container)
            self.recorded = self._target.is_local_file or duration_s is not None
            self.connected_at = self._clock()
            for frame in self._frames(container, stream):
                if not self._put(_chunk(frame, stream, self._clock())):
                    return None
                self._decoded_s += frame.samples / frame.sample_rate
        if self._target.is_local_file or (
            duration_s is not None and self._decoded_s >= duration_s - _END_SLACK_S
        ):
            return None
        return StreamError(self._target.shown, "the other side ended it")

    def _open(self) -> InputContainer:
        return av.open(
            self._target.address,
            mode="r",
            format=self._target.format,
            options=dict(self._target.options),
            metadata_errors="replace",
            timeout=(self._stall_s + _OPENING_S, self._stall_s),
        )

    def _frames(self, container: InputContainer, stream: AudioStream) -> Iterator[AudioFrame]:
        damaged = 0
        for packet in container.demux(stream):
            try:
                frames = stream.codec_context.decode(packet)
            except av.error.EOFError:
                return
            except av.error.InvalidDataError:
                # A few are normal where one joins amid a frame, and after losses.
                damaged += 1
                if damaged > _MOST_DAMAGED:
                    raise
                continue
            for frame in frames:
                damaged = 0
                if frame.samples and frame.sample_rate:
                    yield frame

    def _put(self, item: Chunk | StreamError | None) -> bool:
        """Hand an item on, or return False when nobody wants it any more."""
        while not self._closed.is_set():
            try:
                self._items.put(item, timeout=_TICK_S)
            except queue.Full:
                continue
            return True
        return False

    def _stalled(self) -> StreamStalledError:
        return StreamStalledError(self._target.shown, f"nothing came for {self._stall_s:g} s")


class SampleClock:
    """The wall-clock time of samples: a moment for the first one, then counted.

    No sample arrives before it was recorded. So at first the first sample is taken to be as late
    as the earliest arrival allows, which finds the true time also where a server begins with
    sound that it had in store; `fix` ends that. With `follow` false nothing is learned from
    arrivals: a file comes as fast as it can be read.
    """

    def __init__(self, first_at: datetime, rate_hz: int, *, follow: bool = True) -> None:
        self._first_at = first_at
        self._rate_hz = rate_hz
        self._follow = follow
        self._count = 0
        self._base = 0
        self._is_fixed = False
        self._lags = _LeastLag()

    @property
    def drift_s(self) -> float:
        """How far the host's clock and the count have drifted apart, by the least delayed arrival.

        Positive: samples come later than they should, so some were lost or their clock is slow.
        It is 0 until there is enough to judge by.
        """
        return self._lags.least_s

    def add(self, samples: int, arrived_at: datetime) -> None:
        """Count samples, of which the last arrived at a moment."""
        is_first = self._count == 0
        self._count += samples
        if not self._follow:
            return
        lag = arrived_at - self.at(self._count)
        if is_first or (lag < timedelta(0) and not self._is_fixed):
            self._first_at += lag
            self._lags = _LeastLag()
        else:
            self._lags.add(arrived_at, lag)

    def at(self, sample: int) -> datetime:
        """Return the time of a sample, counted from the first one."""
        past = sample - self._base
        microseconds = (past * 1_000_000 + self._rate_hz // 2) // self._rate_hz
        return self._first_at + timedelta(microseconds=microseconds)

    def fix(self) -> None:
        """Stop looking for an earlier first moment."""
        self._is_fixed = True

    def correct(self, from_sample: int) -> None:
        """Move the time of a sample and of all that follow by the drift, which is 0 then."""
        self._first_at = self.at(from_sample) + timedelta(seconds=self.drift_s)
        self._base = from_sample
        self._lags = _LeastLag()


class _LeastLag:
    """The least lag among the last arrivals: the others waited for the network or the host."""

    def __init__(self) -> None:
        self._since: datetime | None = None
        self._until: datetime | None = None
        # Only those that are less than all later ones.
        self._kept: deque[tuple[datetime, timedelta]] = deque()

    def add(self, arrived_at: datetime, lag: timedelta) -> None:
        """Note an arrival."""
        self._since = self._since or arrived_at
        self._until = arrived_at
        while self._kept and self._kept[-1][1] >= lag:
            self._kept.pop()
        self._kept.append((arrived_at, lag))
        while arrived_at - self._kept[0][0] > _JUDGED_OVER:
            self._kept.popleft()

    @property
    def least_s(self) -> float:
        """The least lag in seconds, 0 until there were arrivals for long enough."""
        if self._since is None or self._until is None or self._until - self._since < _JUDGED_OVER:
            return 0.0
        return self._kept[0][1].total_seconds()


def _known_duration_s(container: InputContainer) -> float | None:
    """Return the duration of a source that is a file of known size; None for what is live."""
    if container.size <= 0 or not container.duration or container.duration <= 0:
        return None
    return container.duration / av.time_base


def _chunk(frame: AudioFrame, stream: AudioStream, arrived_at: datetime) -> Chunk:
    samples = to_integers(frame, deep=stream.codec_context.codec.lossless)
    subtype = "PCM_16" if samples.dtype == np.int16 else "PCM_24"
    return Chunk(samples, LiveFormat(frame.sample_rate, samples.shape[1], subtype), arrived_at)


def to_integers(frame: AudioFrame, *, deep: bool) -> Samples:
    """Return [N, channels]: int16 as it is, int32 for 24 bits in the upper ones.

    deep: floating point becomes 24 bits instead of 16; what a lossy codec gives has no more.
    """
    raw: NDArray[Any] = frame.to_ndarray()
    samples: NDArray[Any] = (
        raw.T if frame.format.is_planar else raw.reshape(-1, frame.layout.nb_channels)
    )
    if samples.dtype == np.uint8:
        centred: NDArray[np.int16] = (samples.astype(np.int16) - np.int16(128)) * np.int16(256)
        return centred
    if samples.dtype in (np.int16, np.int32):
        return cast(Samples, samples)
    bits = 24 if deep else 16
    scaled = np.nan_to_num(np.rint(samples.astype(np.float64) * 2.0 ** (bits - 1)))
    whole: NDArray[np.float64] = np.clip(scaled, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    if not deep:
        return whole.astype(np.int16)
    shifted: NDArray[np.int32] = whole.astype(np.int32) * np.int32(256)
    return shifted


def _has_a_place(url: str, scheme: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return bool(parts.path if scheme == "file" else parts.hostname)


def _without_secrets(url: str) -> str:
    """Write an address without what may be a secret: user, password, query and fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an address that cannot be read"
    host = parts.netloc.rpartition("@")[2]
    user = "***@" if "@" in parts.netloc else ""
    query = "***" if parts.query else ""
    return urlunsplit((parts.scheme, user + host, parts.path, query, ""))

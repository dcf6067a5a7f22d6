"""From files to windows that an encoder can take, by threads that run while it computes.

Each recording is decoded as a stream, cut into windows, measured at its own sample rate and
brought to the encoder's. Windows arrive in the order of the jobs, whichever thread made them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from soundpost.archive.relay import Feed, Relay, StoppedError, Stopwatch
from soundpost.audio.acoustics import measure
from soundpost.audio.decode import AudioStream, Remark, open_audio
from soundpost.audio.windows import WindowCut, cut_windows, resample
from soundpost.errors import AudioError, DecodeError, TooShortError, about
from soundpost.models.encoder import EncoderSpec

FloatArray = NDArray[np.float32]

# Shorter than this no measure has a meaning, and most encoders not a single frame. Coded files
# often end a few samples late: that is no reason for a second window of nearly the same sound.
SHORTEST_S = 0.05
# How long nothing may happen before the consumer gets a word in.
_PATIENCE_S = 0.25


@dataclass(frozen=True)
class Job:
    """A recording to embed; `skip` windows of it are in the database already.

    notes: what is to be said of it beside what decoding finds. name: what it is called in errors
    if that is not its path.
    """

    recording_id: int
    path: Path
    skip: int = 0
    notes: tuple[Remark, ...] = ()
    name: str = ""


@dataclass(frozen=True)
class PreparedWindow:
    """A window ready to encode: wave [N] at the encoder's rate, place in the recording, measures."""

    recording_id: int
    index: int
    start_s: float
    end_s: float
    wave: FloatArray
    acoustics: dict[str, Any]


@dataclass(frozen=True)
class PreparedEnd:
    """The end of a recording: what was read of it, what was found, and why it ended early if so.

    `fault` with `windows` of 0 means that nothing of the recording could be used.
    """

    recording_id: int
    path: Path
    duration_s: float
    windows: int
    remarks: tuple[Remark, ...]
    fault: AudioError | None
    name: str = ""


Prepared = PreparedWindow | PreparedEnd


class Preparation:
    """Prepares the windows of jobs in background threads; iterate over it in one thread.

    At most about `capacity` windows wait for the consumer, however many recordings they are of.
    Use it as a context manager: leaving it ends the threads.
    """

    def __init__(
        self,
        jobs: Feed[Job],
        spec: EncoderSpec,
        stopwatch: Stopwatch,
        threads: int,
        capacity: int,
    ) -> None:
        self._jobs = jobs
        self._spec = spec
        self._stopwatch = stopwatch
        self._relay: Relay[Prepared] = Relay(capacity)
        self._ahead = capacity + threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="prepare")
        self._running: deque[Future[None]] = deque()
        self._started = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._relay.stop()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __iter__(self) -> Iterator[Prepared | None]:
        """Yield the windows of each job, then its end, in the order of the jobs.

        None comes when nothing is ready for a moment, so that the consumer can look around.
        """
        while self._top_up() or self._running or not self._jobs.over:
            if not self._running:
                yield None
                continue
            item = self._relay.take(_PATIENCE_S)
            if item is None and self._relay.turn > self._started - len(self._running):
                self._running.popleft().result()
            else:
                yield item

    def _top_up(self) -> bool:
        """Start the jobs that are there; wait for one only if nothing else is to be done."""
        while len(self._running) < self._ahead:
            job = self._jobs.get(0.0 if self._running else _PATIENCE_S)
            if job is None:
                return False
            self._running.append(self._pool.submit(self._run, self._started, job))
            self._started += 1
        return True

    def _run(self, number: int, job: Job) -> None:
        try:
            for item in _prepare(job, self._spec, self._stopwatch):
                self._relay.put(number, item)
        except StoppedError:
            return
        finally:
            self._relay.close(number)


def _prepare(job: Job, spec: EncoderSpec, stopwatch: Stopwatch) -> Iterator[Prepared]:
    """Yield the windows of one recording and then its end, whatever happens on the way."""
    reader = _Reader(job, spec, stopwatch)
    fault: AudioError | None = None
    try:
        yield from reader.windows()
        fault = reader.fault()
    except StoppedError:
        raise
    except AudioError as error:
        fault = error
    # One file must never stop a batch, and decoders meet broken ones with errors of any kind.
    except Exception as error:  # noqa: BLE001
        fault = DecodeError(job.path, f"{type(error).__name__}: {error}")
        fault.__cause__ = error
    yield reader.end(fault)


class _Reader:
    """Reads one recording and remembers how far it got."""

    def __init__(self, job: Job, spec: EncoderSpec, stopwatch: Stopwatch) -> None:
        self._job = job
        self._spec = spec
        self._stopwatch = stopwatch
        self._stream: AudioStream | None = None
        self._windows = 0

    def windows(self) -> Iterator[PreparedWindow]:
        """Yield the windows that are not in the database yet."""
        with open_audio(self._job.path) as stream:
            self._stream = stream
            cuts = cut_windows(
                stream, stream.info.sample_rate_hz, self._spec.window_s, self._spec.hop_s
            )
            for cut in worth_hearing(iter(lambda: self._next(cuts), None)):
                # A resumed recording is decoded from its start: so its windows, remarks and
                # duration are those of an uninterrupted one, and decoding is the cheap part.
                prepared = None if cut.index < self._job.skip else self._prepared(cut)
                self._windows += 1
                if prepared is not None:
                    yield prepared

    def fault(self) -> AudioError | None:
        """Return why the stream ended early, if it did."""
        return self._stream.fault if self._stream else None

    def end(self, fault: AudioError | None) -> PreparedEnd:
        """Return the end of this recording."""
        samples = self._stream.samples_read if self._stream else 0
        rate_hz = self._stream.info.sample_rate_hz if self._stream else 1
        remarks = tuple(self._stream.remarks) if self._stream else ()
        job = self._job
        name = job.name or str(job.path)
        if fault is not None and name != str(job.path):
            fault = about(fault, name)
        length_s, notes = samples / rate_hz, remarks + job.notes
        return PreparedEnd(job.recording_id, job.path, length_s, self._windows, notes, fault, name)

    def _next(self, cuts: Iterator[WindowCut]) -> WindowCut | None:
        with self._stopwatch.stage("decode"):
            cut = next(cuts, None)
        if cut is not None and cut.index == 0 and cut.end_s < SHORTEST_S:
            raise TooShortError(self._job.path, f"{cut.end_s * 1000:.0f} ms")
        return cut

    def _prepared(self, cut: WindowCut) -> PreparedWindow:
        return prepare_window(cut, self._job.recording_id, self._spec, self._stopwatch)


def worth_hearing(cuts: Iterable[WindowCut]) -> Iterator[WindowCut]:
    """Leave out a last window that brings next to nothing; see SHORTEST_S."""
    until_s = 0.0
    for cut in cuts:
        if cut.index > 0 and cut.end_s - until_s < SHORTEST_S:
            continue
        until_s = cut.end_s
        yield cut


def prepare_window(
    cut: WindowCut, recording_id: int, spec: EncoderSpec, stopwatch: Stopwatch
) -> PreparedWindow:
    """Measure a window at its own rate and bring it to the encoder's."""
    with stopwatch.stage("acoustics"):
        acoustics = measure(cut.samples, cut.sample_rate_hz, cut.clipped).to_document()
    with stopwatch.stage("resample"):
        wave = resample(cut.samples, cut.sample_rate_hz, spec.sample_rate_hz)
    return PreparedWindow(recording_id, cut.index, cut.start_s, cut.end_s, wave, acoustics)

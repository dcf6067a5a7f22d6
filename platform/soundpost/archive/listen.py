"""Listening to a stream or device for as long as it takes: segments into the archive, gap by gap.

Two things go on at the same time: sound becomes segments in the spool, and segments become
recordings. So a database that is away for an hour costs nothing but room.
"""

from __future__ import annotations

import logging
import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from soundpost.archive.prepare import SHORTEST_S
from soundpost.archive.spool import (
    REFUSED_SUFFIX,
    SHORTEST_REST_S,
    SUFFIX,
    SegmentWriter,
    Spool,
)
from soundpost.archive.summary import Finding, Summary
from soundpost.audio.live import Chunk, Clock, LiveFormat, LiveStream, LiveTarget, SampleClock, now
from soundpost.errors import (
    DiskFullError,
    FileMissingError,
    InvalidValueError,
    SoundpostError,
    SpoolError,
    StreamError,
    UnreadableFileError,
)

# Takes segments, named by their time, and says what became of each. It must not wait for room.
Admit = Callable[[list[Path]], Summary]

_LOOK_AROUND_S = 5.0
# So many times the tolerated drift ends a segment at once.
_JUMP = 4.0
# What comes at once when a connection is made was recorded before, and says since when.
_HELD = timedelta(seconds=0.5)
_MOST_HELD_S = 60.0
_MOST_ATTEMPTS = 3
# What may be different at the next attempt.
_PASSING = frozenset({UnreadableFileError.code, FileMissingError.code})

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ListenOptions:
    """How to listen; all times in seconds.

    segment_s: length of a recording. stall_s: how long a stream may be silent on the wire.
    drift_s: how far the samples may run away from the host's clock before their times follow it.
    Between attempts to connect it waits from first_wait_s on, twice as long each time, up to
    longest_wait_s.
    """

    segment_s: float = 60.0
    stall_s: float = 15.0
    drift_s: float = 0.5
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0

    def check(self) -> None:
        """Raise InvalidValueError for what makes no sense."""
        if not 1.0 <= self.segment_s <= 86_400.0:
            raise InvalidValueError(f"{self.segment_s:g} s", "a segment has 1 to 86400 s")
        if not 0.1 <= self.stall_s <= 3600.0:
            raise InvalidValueError(f"{self.stall_s:g} s", "a stall is noticed after 0.1 to 3600 s")


@dataclass
class Heard:
    """What listening brought: whole segments, their length, and how often it was connected."""

    segments: int = 0
    audio_s: float = 0.0
    connections: int = 0


class Listener:
    """Turns one stream or device into recordings. `rng` gives the jitter of its waits."""

    def __init__(
        self,
        target: LiveTarget,
        spool: Spool,
        admit: Admit,
        rng: random.Random,
        options: ListenOptions | None = None,
        clock: Clock = now,
    ) -> None:
        self._target = target
        self._spool = spool
        self._options = options or ListenOptions()
        self._options.check()
        self._clock = clock
        self._admission = _Admission(spool, admit, _Backoff(self._options, rng))
        self._backoff = _Backoff(self._options, rng)
        self._heard = Heard()

    def run(self, stop: threading.Event) -> Heard:
        """Listen until told to stop, or until the end of a source that has one.

        What the spool holds is admitted first. Raises SpoolBusyError or SpoolError where the spool
        cannot be used at the start.
        """
        done = threading.Event()
        with self._spool:
            admission = threading.Thread(target=self._admission.run, args=(done,), name="admit")
            admission.start()
            try:
                while not stop.is_set() and not self._listen_once(stop):
                    stop.wait(self._backoff.advance())
            finally:
                done.set()
                admission.join()
            self._admission.finish()
        return self._heard

    def _listen_once(self, stop: threading.Event) -> bool:
        """Listen to one connection; return whether its source came to its end."""
        stream = LiveStream(self._target, self._options.stall_s, self._clock)
        recorder = _Recorder(stream, self._spool, self._options, self._heard, self._admission.wake)
        try:
            for chunk in stream.chunks(stop):
                if recorder.total_s == 0.0:
                    self._note_connection(chunk)
                recorder.take(chunk)
                if recorder.total_s >= min(self._options.segment_s, 10.0):
                    self._backoff.reset()
            recorder.finish()
        except (StreamError, SpoolError, DiskFullError) as error:
            self._note_loss(error)
            recorder.rescue()
            return False
        finally:
            stream.close()
        return True

    def _note_connection(self, chunk: Chunk) -> None:
        self._heard.connections += 1
        kind = chunk.format
        known = {"stream": self._target.shown, "rate_hz": kind.sample_rate_hz}
        log.info("listening", extra={**known, "channels": kind.channels})

    def _note_loss(self, error: SoundpostError) -> None:
        known = {"stream": self._target.shown, "code": error.code, "reason": str(error)}
        known["remedy"] = error.remedy
        log.warning("the stream was lost", extra={**known, "retry_s": self._backoff.next_s})


class _Recorder:
    """Cuts the chunks of one connection into segments that join without a gap."""

    def __init__(
        self,
        stream: LiveStream,
        spool: Spool,
        options: ListenOptions,
        heard: Heard,
        wake: Callable[[], None],
    ) -> None:
        self.total_s = 0.0
        self._stream = stream
        self._spool = spool
        self._options = options
        self._heard = heard
        self._wake = wake
        self._writer: SegmentWriter | None = None
        self._clock: SampleClock | None = None
        self._format: LiveFormat | None = None
        self._count = 0
        self._begun = 0
        self._numbers = 0
        self._held: list[Chunk] = []

    def take(self, chunk: Chunk) -> None:
        """Take a chunk; the first ones are held until their time is known."""
        self.total_s += len(chunk.samples) / chunk.format.sample_rate_hz
        if self._clock is not None and chunk.format != self._format:
            self._write_held()
            self._complete(SHORTEST_S)
            self._clock = None
        clock = self._clock or self._begin_clock(chunk)
        clock.add(len(chunk.samples), chunk.arrived_at)
        if self._is_to_hold(chunk):
            self._held.append(chunk)
            return
        self._write_held()
        if abs(clock.drift_s) > _JUMP * self._options.drift_s and self._is_worth_keeping():
            # Too far to wait for the end of the segment: something was lost.
            self._complete(SHORTEST_S)
        self._write(clock, chunk)

    def _is_worth_keeping(self) -> bool:
        """Whether the segment that is being written is long enough to be completed as it is."""
        writer = self._writer
        return writer is None or writer.samples >= SHORTEST_S * writer.format.sample_rate_hz

    def _is_to_hold(self, chunk: Chunk) -> bool:
        if self._stream.recorded or self._count > 0 or self.total_s > _MOST_HELD_S:
            return False
        return not self._held or chunk.arrived_at - self._held[0].arrived_at < _HELD

    def _write_held(self) -> None:
        held, self._held = self._held, []
        for chunk in held:
            if self._clock is not None:
                self._write(self._clock, chunk)

    def _write(self, clock: SampleClock, chunk: Chunk) -> None:
        """Write a chunk, into as many segments as it reaches."""
        length = round(self._options.segment_s * chunk.format.sample_rate_hz)
        at = 0
        while at < len(chunk.samples):
            writer = self._writer or self._begin(clock, chunk)
            piece = chunk.samples[at : at + length - writer.samples]
            writer.write(piece)
            at += len(piece)
            self._count += len(piece)
            if writer.samples == length:
                self._complete(SHORTEST_S)

    def finish(self) -> None:
        """Complete the last segment, if there is one that is not very short."""
        self._write_held()
        self._complete(SHORTEST_REST_S)

    def _complete(self, shortest_s: float) -> None:
        writer, clock = self._writer, self._clock
        if writer is None or clock is None:
            return
        clock.fix()
        self._writer = None
        if writer.close(clock.at(self._begun), shortest_s) is not None:
            self._heard.segments += 1
            self._heard.audio_s += writer.samples / writer.format.sample_rate_hz
            self._wake()
        if abs(clock.drift_s) > self._options.drift_s:
            log.warning("the sample clock drifted", extra={"drift_s": round(clock.drift_s, 3)})
            clock.correct(self._count)

    def rescue(self) -> None:
        """Keep what can be kept after an error."""
        writer = self._writer
        try:
            self.finish()
        except (SpoolError, DiskFullError) as error:
            log.warning("a segment was lost", extra={"code": error.code, "reason": str(error)})
            if writer is not None:
                writer.discard()

    def _begin_clock(self, chunk: Chunk) -> SampleClock:
        first_at = self._stream.connected_at
        follow = not self._stream.recorded
        self._count = 0
        self._format = chunk.format
        self._clock = SampleClock(first_at, chunk.format.sample_rate_hz, follow=follow)
        return self._clock

    def _begin(self, clock: SampleClock, chunk: Chunk) -> SegmentWriter:
        self._begun = self._count
        self._numbers += 1
        connected_at: datetime = self._stream.connected_at
        comment = f"segment {self._numbers} of the connection at {connected_at.isoformat()}"
        self._writer = self._spool.open(clock.at(self._begun), chunk.format, comment)
        return self._writer


class _Admission:
    """Brings segments from the spool into the archive, and removes those that are there."""

    def __init__(self, spool: Spool, admit: Admit, backoff: _Backoff) -> None:
        self._spool = spool
        self._admit = admit
        self._backoff = backoff
        self._news = threading.Event()
        self._attempts: Counter[Path] = Counter()

    def wake(self) -> None:
        """Say that there is a new segment."""
        self._news.set()

    def run(self, done: threading.Event) -> None:
        """Admit what comes until `done`; whatever stands in the way is waited for."""
        while not done.is_set():
            self._news.clear()
            if self._admit_all(done):
                self._backoff.reset()
                _wait_for_either(self._news, done, _LOOK_AROUND_S)
            else:
                done.wait(self._backoff.advance())

    def finish(self) -> None:
        """Admit what is left; what cannot be stays for the next run."""
        if not self._admit_all(threading.Event()):
            left = len(self._spool.segments())
            log.warning("segments wait for the next run", extra={"segments": left})

    def _admit_all(self, done: threading.Event) -> bool:
        """Admit the segments one by one; return whether all that could be are in."""
        try:
            for path in self._spool.segments():
                if done.is_set():
                    return True
                self._admit_one(path)
        except SoundpostError as error:
            known = {"code": error.code, "reason": str(error), "remedy": error.remedy}
            log.warning("segments have to wait", extra={**known, "retry_s": self._backoff.next_s})
            return False
        return True

    def _admit_one(self, path: Path) -> None:
        try:
            summary = self._admit([path])
        except SoundpostError:
            raise
        # One segment must never hold up the others, whatever it does to what reads it.
        except Exception as error:
            log.error("a segment failed", extra={"path": str(path)}, exc_info=error)
            self._attempts[path] += 1
            if self._attempts[path] >= _MOST_ATTEMPTS:
                self._set_aside(path)
            return
        if summary.failed:
            self._refuse(path, summary.failed[0])
        elif not summary.interrupted:
            path.unlink(missing_ok=True)

    def _refuse(self, path: Path, finding: Finding) -> None:
        known = {"path": str(path), "code": finding.code, "reason": finding.message}
        log.warning("a segment was refused", extra={**known, "remedy": finding.remedy})
        if finding.code not in _PASSING:
            self._set_aside(path)

    def _set_aside(self, path: Path) -> None:
        del self._attempts[path]
        path.rename(path.with_name(path.name.removesuffix(SUFFIX) + REFUSED_SUFFIX))


class _Backoff:
    """Waits that double up to a limit, each with jitter."""

    def __init__(self, options: ListenOptions, rng: random.Random) -> None:
        self._options = options
        self._rng = rng
        self._turn = 0
        self.next_s = self._draw()

    def advance(self) -> float:
        """Return how long to wait now."""
        wait_s = self.next_s
        self._turn += 1
        self.next_s = self._draw()
        return wait_s

    def reset(self) -> None:
        """Begin with the shortest wait again."""
        if self._turn:
            self._turn = 0
            self.next_s = self._draw()

    def _draw(self) -> float:
        longest_s = self._options.longest_wait_s
        # Past sixty doublings a float overflows long before anyone waits that long.
        wait_s = min(longest_s, self._options.first_wait_s * 2.0 ** min(self._turn, 60))
        return wait_s * self._rng.uniform(0.5, 1.0)


def _wait_for_either(news: threading.Event, done: threading.Event, timeout_s: float) -> None:
    step_s = 0.2
    for _ in range(round(timeout_s / step_s)):
        if done.is_set() or news.wait(step_s):
            return

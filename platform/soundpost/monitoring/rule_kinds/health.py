"""Rules that look after the source itself: microphone, stalled, format, clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from soundpost.audio.acoustics import LEVEL_FLOOR_DBFS, THIRD_OCTAVE_CENTRES_HZ
from soundpost.monitoring.rule_kinds.runs import Run, find_runs
from soundpost.monitoring.rule_kinds.settings import DAY_S, SettingsReader
from soundpost.monitoring.rules import Firing, Heard, State, Tools

DoubleArray = NDArray[np.float64]
NO_CADENCE = "a cadence: five recordings, or one given with soundpost sources"
# A microphone's own noise fills the bands from here; what is left of a broken one does not.
_HIGH_HZ: Final = 1000.0
# What is lowest in fewer windows than this says little: an hour of windows of ten seconds.
_LEARNT_WINDOWS: Final = 360
# Recordings whose place in time is remembered.
_KNOWN_STRETCHES: Final = 50
# Recorders whose clock was never set begin to count here or before.
_EARLIEST: Final = datetime(2000, 1, 2, tzinfo=UTC)


@dataclass(frozen=True)
class Microphone:
    """A microphone that is driven too hard, dead, or hears only part of the spectrum.

    clipped_share: of samples at full scale. dead_dbfs: at or below it nothing but constant samples
    or the converter's noise is left. collapse_db: how far the bands from 1 kHz on must fall below
    everything heard of this source so far, while the lower ones do not. duration_s: for how long.
    """

    clipped_share: float
    dead_dbfs: float
    collapse_db: float
    duration_s: float

    @classmethod
    def read(cls, document: Mapping[str, Any], tools: Tools) -> Microphone:
        """Read the settings. Raises RuleSettingsError."""
        reader = SettingsReader("microphone", document)
        settings = cls(
            clipped_share=reader.number("clipped_share", 0.01, 0.0, 1.0),
            dead_dbfs=reader.number("dead_dbfs", -100.0, LEVEL_FLOOR_DBFS, 0.0),
            collapse_db=reader.number("collapse_db", 20.0, 3.0, 200.0),
            duration_s=reader.number("duration_s", 10.0, 0.0, DAY_S),
        )
        reader.close()
        return settings

    def tick(self, heard: Heard, state: State, rule_id: int) -> tuple[list[Firing], State]:
        """Time alone says nothing of a microphone."""
        return [], state

    def evaluate(self, heard: Heard, state: State, rule_id: int) -> tuple[list[Firing], State]:
        """Fire for each fault that lasts for long enough."""
        documents = heard.observations.acoustics
        levels = np.array([float(a["level_dbfs"]) for a in documents])
        clipped = np.array([float(a["clipped_share"]) for a in documents])
        low, high = _band_levels_dbfs(documents)
        dead = levels <= self.dead_dbfs
        collapsed = self._collapsed(low, high, dead, state.get("lowest"))
        faults = {
            "clipped": (clipped > self.clipped_share, clipped),
            "dead": (dead, -levels),
            "collapsed": (collapsed, -high),
        }
        new: State = {"lowest": _lowest(low, high, ~(dead | collapsed), state.get("lowest"))}
        firings = []
        for fault, (holds, figures) in faults.items():
            before = Run.from_document(state.get(fault))
            runs, at_end = find_runs(heard.observations, holds, figures, before)
            if at_end is not None:
                new[fault] = at_end.to_document()
            firings += [
                self._firing(heard, rule_id, fault, run)
                for run in runs
                if run.duration_s >= self.duration_s
            ]
        return sorted(firings, key=lambda firing: firing.at), new

    def _collapsed(
        self,
        low: DoubleArray,
        high: DoubleArray,
        dead: NDArray[np.bool_],
        lowest: dict[str, float] | None,
    ) -> NDArray[np.bool_]:
        if not lowest or lowest["windows"] < _LEARNT_WINDOWS:
            return np.zeros(len(low), dtype=bool)
        fallen: NDArray[np.bool_] = (high < lowest["high_dbfs"] - self.collapse_db) & ~dead
        return fallen & (low >= lowest["low_dbfs"] - self.collapse_db / 2)

    def _firing(self, heard: Heard, rule_id: int, fault: str, run: Run) -> Firing:
        lasts = f"for {run.duration_s:.0f} s"
        sentences = {
            "clipped": f"clipped: up to {100 * run.strongest:.1f} % of samples at full scale {lasts}",
            "dead": f"dead: {-run.strongest:.0f} dBFS, no more than constant samples, {lasts}",
            "collapsed": f"hears nothing from 1 kHz on: {-run.strongest:.0f} dBFS {lasts}",
        }
        return Firing(
            rule_id=rule_id,
            source_id=heard.source_id,
            at=run.since,
            until=run.until,
            reason=f"microphone {sentences[fault]}",
            evidence={"fault": fault, "figure": run.strongest, "duration_s": run.duration_s},
            window_ids=run.window_ids,
            weights=run.weights,
        )


@dataclass(frozen=True)
class Stalled:
    """No recording for several times as long as the source usually takes.

    cadences: how many times. shortest_s: but at least so long. It stops only when two recordings
    came in a row as usual, so that a source that comes and goes is one incident.
    """

    cadences: float
    shortest_s: float

    @classmethod
    def read(cls, document: Mapping[str, Any], tools: Tools) -> Stalled:
        """Read the settings. Raises RuleSettingsError."""
        reader = SettingsReader("stalled", document)
        settings = cls(
            cadences=reader.number("cadences", 3.0, 1.1, 1000.0),
            shortest_s=reader.number("shortest_s", 60.0, 0.0, 366 * DAY_S),
        )
        reader.close()
        return settings

    def evaluate(self, heard: Heard, state: State, rule_id: int) -> tuple[list[Firing], State]:
        """Hear again of a source; one recording in time ends what was stalled."""
        limit_s = self._limit_s(heard)
        if not state.get("stalled"):
            return [], {} if limit_s is not None else {"waiting": NO_CADENCE}
        if heard.previous_at is None or limit_s is None:
            return [], {}
        gap_s = (heard.now - heard.previous_at).total_seconds()
        if gap_s <= limit_s:
            return [], {}
        reason = f"heard again after {gap_s:.0f} s, not yet as usual"
        return [self._firing(heard, rule_id, heard.now, reason, gap_s)], {"stalled": True}

    def tick(self, heard: Heard, state: State, rule_id: int) -> tuple[list[Firing], State]:
        """Fire while nothing comes, and until what comes is regular again."""
        limit_s = self._limit_s(heard)
        if limit_s is None or heard.previous_at is None:
            return [], {"waiting": NO_CADENCE}
        silent_s = (heard.now - heard.previous_at).total_seconds()
        if silent_s > limit_s:
            reason = f"no recording for {silent_s:.0f} s, one comes every {heard.cadence_s:.0f} s"
            since = heard.previous_at + timedelta(seconds=limit_s)
            return [self._firing(heard, rule_id, since, reason, silent_s)], {"stalled": True}
        if state.get("stalled"):
            reason = f"heard again {silent_s:.0f} s ago, not yet as usual"
            return [self._firing(heard, rule_id, heard.now, reason, silent_s)], {"stalled": True}
        return [], {}

    def _limit_s(self, heard: Heard) -> float | None:
        if heard.cadence_s is None:
            return None
        return max(self.cadences * heard.cadence_s, self.shortest_s)

    def _firing(
        self, heard: Heard, rule_id: int, since: datetime, reason: str, silent_s: float
    ) -> Firing:
        evidence = {"silent_s": silent_s, "cadence_s": heard.cadence_s}
        return Firing(rule_id, heard.source_id, since, heard.now, reason, evidence)


@dataclass(frozen=True)
class Format:
    """The sample rate or the number of channels is not what it was.

    Until a person resolves or dismisses the incident, which accepts it, or it is as before, novelty
    tells nobody: it would only hear the recorder.
    """

    @classmethod
    def read(cls, document: Mapping[str, Any], tools: Tools) -> Format:
        """Read the settings: there are none. Raises RuleSettingsError."""
        SettingsReader("format", document).close()
        return cls()

    def tick(self, heard: Heard, state: State, rule_id: int) -> tuple[list[Firing], State]:
        """Time changes no format."""
        return [], state

    def evaluate(self, heard: Heard, state: State, rule_id: int) -> tuple[list[Firing], State]:
        """Fire while the format differs from the accepted one."""
        now = [heard.sample_rate_hz, heard.channels]
        accepted = state.get("accepted") or now
        if state.get("accept"):
            accepted = state.get("differs") or accepted
        # What is not known of one of them is no difference.
        accepted = [known or new for known, new in zip(accepted, now, strict=True)]
        differs = [new or known for known, new in zip(accepted, now, strict=True)]
        if differs == accepted:
            return [], {"accepted": accepted}
        reason = f"{_format_text(differs)}; before, it was {_format_text(accepted)}"
        evidence = {"sample_rate_hz": differs[0], "channels": differs[1], "before": accepted}
        firing = Firing(rule_id, heard.source_id, heard.started_at, heard.until, reason, evidence)
        return [firing], {"accepted": accepted, "differs": differs}


@dataclass(frozen=True)
class Clock:
    """A recorder whose clock is wrong: it is in the future, was never set, or jumped back.

    Recordings that only come out of order are no fault. Two that overlap are: a microphone hears
    nothing twice. tolerance_s: by how much a clock may be off.
    """

    tolerance_s: float

    @classmethod
    def read(cls, document: Mapping[str, Any], tools: Tools) -> Clock:
        """Read the settings. Raises RuleSettingsError."""
        reader = SettingsReader("clock", document)
        settings = cls(tolerance_s=reader.number("tolerance_s", 60.0, 0.0, DAY_S))
        reader.close()
        return settings

    def tick(self, heard: Heard, state: State, rule_id: int) -> tuple[list[Firing], State]:
        """Nothing was heard, so no clock was seen."""
        return [], state

    def evaluate(self, heard: Heard, state: State, rule_id: int) -> tuple[list[Firing], State]:
        """Fire where the start of a recording cannot be true; its memory takes any order."""
        known = [tuple(stretch) for stretch in state.get("stretches", ())]
        found = self._fault(heard, known)
        if found is not None:
            reason, evidence = found
            firing = Firing(
                rule_id, heard.source_id, heard.started_at, heard.until, reason, evidence
            )
            return [firing], state
        stretch = (heard.recording_id, heard.started_at.timestamp(), heard.until.timestamp())
        kept = [s for s in known if s[0] != heard.recording_id] + [stretch]
        return [], {"stretches": [list(s) for s in kept[-_KNOWN_STRETCHES:]]}

    def _fault(
        self, heard: Heard, known: list[tuple[Any, ...]]
    ) -> tuple[str, dict[str, Any]] | None:
        starts = f"{heard.started_at:%Y-%m-%d %H:%M:%S} UTC"
        ahead_s = (heard.started_at - heard.now).total_seconds()
        if ahead_s > self.tolerance_s:
            return f"clock: starts at {starts}, {ahead_s:.0f} s ahead", {"ahead_s": ahead_s}
        if heard.started_at < _EARLIEST:
            return f"clock: starts at {starts}; it was never set", {"started_at": starts}
        begin_s, end_s = heard.started_at.timestamp(), heard.until.timestamp()
        for recording_id, since_s, until_s in known:
            overlap_s = min(end_s, until_s) - max(begin_s, since_s)
            if recording_id != heard.recording_id and overlap_s > self.tolerance_s:
                reason = (
                    f"clock: jumped back; overlaps recording {recording_id} by {overlap_s:.0f} s"
                )
                return reason, {"overlap_s": overlap_s, "recording_id": recording_id}
        return None


def _band_levels_dbfs(documents: tuple[Mapping[str, Any], ...]) -> tuple[DoubleArray, DoubleArray]:
    """Levels [N] of the third octaves below 1 kHz together, and of those from there on."""
    split = THIRD_OCTAVE_CENTRES_HZ.index(_HIGH_HZ)
    bands = [np.array(a["third_octave_dbfs"], dtype=np.float64) for a in documents]
    return (
        np.array([_sum_dbfs(levels[:split]) for levels in bands]),
        np.array([_sum_dbfs(levels[split:]) for levels in bands]),
    )


def _sum_dbfs(levels_dbfs: DoubleArray) -> float:
    power = float(np.sum(10.0 ** (levels_dbfs / 10.0)))
    return max(10.0 * float(np.log10(power)), LEVEL_FLOOR_DBFS) if power > 0 else LEVEL_FLOOR_DBFS


def _lowest(
    low: DoubleArray,
    high: DoubleArray,
    sound: NDArray[np.bool_],
    before: dict[str, float] | None,
) -> dict[str, float]:
    """The lowest levels of a working microphone so far, and on how many windows that rests."""
    before = before or {"low_dbfs": 0.0, "high_dbfs": 0.0, "windows": 0}
    return {
        "low_dbfs": min([before["low_dbfs"], *low[sound].tolist()]),
        "high_dbfs": min([before["high_dbfs"], *high[sound].tolist()]),
        "windows": before["windows"] + int(sound.sum()),
    }


def _format_text(rate_and_channels: list[int | None]) -> str:
    rate_hz, channels = rate_and_channels
    return f"{rate_hz or 0} Hz, {channels or 1} channel{'s' if (channels or 1) > 1 else ''}"

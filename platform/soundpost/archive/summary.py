"""What an ingest did, file by file where it matters: counts, failures, findings, times."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from soundpost.archive.discover import Discovery
from soundpost.errors import SoundpostError, error_class

# Remarks are findings, not errors, but each deserves a word on what to do.
_REMARK_ADVICE = {
    "channels-cancel": "Check the wiring or polarity of one channel; the mono mix loses sound.",
    "gap": "Check the recorder's card; what lies around the gap is kept in its place.",
    "unfinished-header": "The recorder did not close the file; nothing of the sound is missing.",
    "clipped": "Lower the recorder's gain; levels of such windows are too low to compare.",
    "silent": "Check the microphone and its cable; there is nothing in it to find.",
    "non-finite-samples": "The faulty samples were replaced by silence; export the file again.",
    "no-time-in-name": "Give --started-at if its wall-clock time matters.",
    "time-from-short-name": "Give --started-at if the name ends in a counter.",
    "ambiguous-local-time": "Let the recorder name files in UTC to avoid the doubled hour.",
    "nonexistent-local-time": "Let the recorder name files in UTC to avoid the missing hour.",
}


def remedy_for(code: str) -> str:
    """Return what can be done about an error or a remark with this code; empty if unknown."""
    kind = error_class(code)
    return _REMARK_ADVICE.get(code) or (kind.remedy if kind else "")


@dataclass(frozen=True)
class Finding:
    """One thing to know about one file: a failure, a truncation or a remark."""

    path: str
    code: str
    message: str
    remedy: str
    recording_id: int | None = None

    @classmethod
    def from_error(
        cls, path: str, error: SoundpostError, recording_id: int | None = None
    ) -> Finding:
        """Describe an error that belongs to a file."""
        return cls(path, error.code, str(error), error.remedy, recording_id)

    def to_document(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return dict(vars(self))


@dataclass(frozen=True)
class Progress:
    """How far an ingest is. Durations are of audio; the total is estimated until all is probed."""

    files_done: int
    files_total: int
    audio_done_s: float
    audio_total_s: float
    failed: int
    elapsed_s: float

    def after(self, before: Summary, files_total: int) -> Progress:
        """Return how far everything is, of which this is a part that follows others.

        The length of what is still to come is carried on by the number of files.
        """
        seen = before.reached + self.files_total
        length_s = (before.audio_s + self.audio_total_s) * files_total / max(1, seen)
        return Progress(
            files_done=before.reached + self.files_done,
            files_total=files_total,
            audio_done_s=before.audio_s + self.audio_done_s,
            audio_total_s=max(length_s, before.audio_s + self.audio_done_s),
            failed=len(before.failed) + self.failed,
            elapsed_s=before.wall_s + self.elapsed_s,
        )

    @property
    def audio_hours_per_second(self) -> float:
        """Hours of audio embedded a second so far."""
        return self.audio_done_s / 3600 / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def remaining_s(self) -> float | None:
        """Expected seconds to the end, or None before anything can be said."""
        if self.audio_done_s <= 0 or self.audio_total_s <= 0:
            return None
        left = max(0.0, self.audio_total_s - self.audio_done_s)
        return left * self.elapsed_s / self.audio_done_s


_COUNTS = (
    *("files", "ingested", "queued", "duplicate", "moved", "dated", "left_out", "windows"),
    *("failed", "truncated", "remarked", "not_audio", "audio_s", "wall_s"),
)


@dataclass
class Summary:
    """The outcome of an ingest.

    ingested, queued, duplicate, moved and the failures add up to the files that were reached;
    what is queued is embedded by workers later. `dated`
    counts recordings that were there already and now got the time they began. stages: seconds of
    each stage, added over threads; encoder_s and wall_s are wall-clock.
    """

    files: int = 0
    ingested: int = 0
    queued: int = 0
    duplicate: int = 0
    moved: int = 0
    dated: int = 0
    failed: list[Finding] = field(default_factory=list)
    truncated: list[Finding] = field(default_factory=list)
    remarked: list[Finding] = field(default_factory=list)
    not_audio: list[Path] = field(default_factory=list)
    left_out: int = 0
    windows: int = 0
    audio_s: float = 0.0
    wall_s: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)
    interrupted: bool = False

    @classmethod
    def of(cls, found: Discovery) -> Summary:
        """Begin with what was found."""
        return cls(
            files=len(found.files) + len(found.unreadable),
            not_audio=found.not_audio,
            left_out=len(found.left_out),
        )

    def add(self, other: Summary) -> None:
        """Add what another run did."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for stage, spent_s in other.stages.items():
            self.stages[stage] = self.stages.get(stage, 0.0) + spent_s
        self.interrupted |= other.interrupted

    @property
    def reached(self) -> int:
        """How many files have an outcome."""
        return self.ingested + self.queued + self.duplicate + self.moved + len(self.failed)

    @property
    def only_failures(self) -> bool:
        """Whether there was something to do and all of it failed."""
        return bool(self.failed) and self.reached == len(self.failed)

    @property
    def outside_encoder_share(self) -> float:
        """Share of the wall-clock time in which the encoder was not computing, 0 to 1."""
        if self.wall_s <= 0:
            return 0.0
        return max(0.0, 1.0 - self.stages.get("encode", 0.0) / self.wall_s)

    def to_document(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return {
            "files": self.files,
            "ingested": self.ingested,
            "queued": self.queued,
            "duplicate": self.duplicate,
            "moved": self.moved,
            "dated": self.dated,
            "failed": [finding.to_document() for finding in self.failed],
            "truncated": [finding.to_document() for finding in self.truncated],
            "remarked": [finding.to_document() for finding in self.remarked],
            "not_audio": [str(path) for path in self.not_audio],
            "left_out": self.left_out,
            "windows": self.windows,
            "audio_s": round(self.audio_s, 3),
            "wall_s": round(self.wall_s, 3),
            "stages_s": {name: round(spent, 3) for name, spent in self.stages.items()},
            "outside_encoder_share": round(self.outside_encoder_share, 4),
            "interrupted": self.interrupted,
        }

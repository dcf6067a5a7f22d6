"""Copies of reference recordings for a drill: which stretches, read where, changed from when on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from soundpost.audio.changes import EVENT_S, a_level_dbfs
from soundpost.audio.decode import read_audio
from soundpost.errors import InvalidValueError, NoSamplesError, SoundpostError
from soundpost.monitoring.observations import DoubleArray, FloatArray
from soundpost.monitoring.reading import began_at
from soundpost.store.files import AudioFiles
from soundpost.store.tables import Recording

# A change begins within this part of a copy.
_ONSET = (0.25, 0.4)


@dataclass(frozen=True)
class Excerpt:
    """A stretch of a recording, in seconds from its beginning."""

    recording: Recording
    start_s: float
    end_s: float


@dataclass(frozen=True, eq=False)
class Piece:
    """What was read of one recording. began_s: seconds since 1970 (UTC) at wave[0]."""

    recording_id: int
    began_s: float
    wave: FloatArray
    rate_hz: int

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.wave) / self.rate_hz


@dataclass(frozen=True, eq=False)
class Copy:
    """Pieces heard one after the other; a change begins at a sample of one of them.

    background_dbfs: A-weighted level of the active part, mean power over the pieces.
    """

    pieces: Sequence[Piece]
    onset_piece: int
    onset: int
    background_dbfs: float

    @property
    def recording_id(self) -> int:
        """The first recording in it."""
        return self.pieces[0].recording_id

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return sum(piece.duration_s for piece in self.pieces)

    @property
    def onset_s(self) -> float:
        """Where the change begins, in seconds of the copy."""
        before_s = sum(piece.duration_s for piece in self.pieces[: self.onset_piece])
        return before_s + self.onset / self.pieces[self.onset_piece].rate_hz


@dataclass(frozen=True)
class Gone:
    """A reference recording whose audio cannot be read any more, and why."""

    recording_id: int
    path: str
    code: str
    detail: str


def group_recordings(recordings: Sequence[Recording], groups: int) -> list[list[Recording]]:
    """Cut recordings into groups in a row in time, about equally many in each."""
    ordered = sorted(recordings, key=lambda row: (began_at(row.started_at, row.created_at), row.id))
    number = np.arange(len(ordered)) * groups // len(ordered)
    return [
        [row for row, own in zip(ordered, number, strict=True) if own == group]
        for group in range(groups)
    ]


def plan_copies(
    recordings: Sequence[Recording], copy_s: float, rng: np.random.Generator
) -> list[tuple[Excerpt, ...]]:
    """Return stretches of about copy_s seconds that do not overlap, in the order of their use.

    Short recordings are put in a row; of long ones every recording gives one stretch before any
    gives a second.
    """
    rounds: list[tuple[int, float, tuple[Excerpt, ...]]] = []
    row: list[Excerpt] = []
    for recording in recordings:
        length_s = recording.duration_s or 0.0
        if length_s >= copy_s:
            stretches = _stretches(recording, length_s, copy_s, rng)
            rounds += [(turn, rng.random(), (one,)) for turn, one in enumerate(stretches)]
            continue
        row.append(Excerpt(recording, 0.0, length_s))
        if _length_s(row) >= copy_s:
            rounds.append((0, rng.random(), tuple(row)))
            row = []
    # What is left over at the end is short; it is better than nothing.
    if row and (not rounds or _length_s(row) >= copy_s / 2.0):
        rounds.append((1, rng.random(), tuple(row)))
    return [excerpts for _, _, excerpts in sorted(rounds, key=lambda item: item[:2])]


def _length_s(excerpts: Sequence[Excerpt]) -> float:
    return sum(excerpt.end_s - excerpt.start_s for excerpt in excerpts)


def _stretches(
    recording: Recording, length_s: float, copy_s: float, rng: np.random.Generator
) -> list[Excerpt]:
    count = int(length_s // copy_s)
    first_s = float(rng.uniform(0.0, length_s - count * copy_s))
    starts_s = first_s + copy_s * rng.permutation(count)
    return [Excerpt(recording, start, start + copy_s) for start in starts_s.tolist()]


class CopyReader:
    """Reads planned copies; `gone` gathers the recordings that could not be read."""

    def __init__(self, files: AudioFiles) -> None:
        self.gone: dict[int, Gone] = {}
        self._files = files

    def copies(
        self, planned: Sequence[tuple[Excerpt, ...]], wanted: int, rng: np.random.Generator
    ) -> Iterator[Copy]:
        """Yield as many copies as wanted, as long as there are stretches that can be read."""
        made = 0
        for excerpts in planned:
            if made >= wanted:
                return
            pieces = [piece for one in excerpts if (piece := self._read(one)) is not None]
            share = float(rng.uniform(*_ONSET))
            if pieces:
                made += 1
                yield _copy(pieces, share)

    def _read(self, excerpt: Excerpt) -> Piece | None:
        recording = excerpt.recording
        if recording.id in self.gone:
            return None
        try:
            path = self._files.open_local(recording)
            wave, rate_hz = read_audio(path, start_s=excerpt.start_s, end_s=excerpt.end_s)
            if not len(wave):
                raise NoSamplesError(path, f"nothing lies at {excerpt.start_s:g} s")
        except SoundpostError as error:
            self.gone[recording.id] = Gone(recording.id, recording.path, error.code, str(error))
            return None
        began = began_at(recording.started_at, recording.created_at).timestamp()
        return Piece(recording.id, began + excerpt.start_s, wave, rate_hz)


def _copy(pieces: Sequence[Piece], share: float) -> Copy:
    levels: DoubleArray = np.array([a_level_dbfs(p.wave, p.rate_hz) for p in pieces])
    lengths_s = np.array([piece.duration_s for piece in pieces])
    power = float(np.average(10.0 ** (levels / 10.0), weights=lengths_s))
    number, onset = _place(pieces, share * float(lengths_s.sum()))
    return Copy(pieces, number, onset, 10.0 * float(np.log10(power)))


def _place(pieces: Sequence[Piece], at_s: float) -> tuple[int, int]:
    """Find the piece and sample of a second, so early that a short sound has room behind it."""
    for number, piece in enumerate(pieces):
        if at_s < piece.duration_s:
            latest = max(0, len(piece.wave) - round(EVENT_S * piece.rate_hz))
            return number, min(round(at_s * piece.rate_hz), latest)
        at_s -= piece.duration_s
    raise InvalidValueError(at_s, "a change begins within its copy")

"""What is known of a pair of recordings: what differs between them, and what is heard in each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from soundpost.errors import InvalidValueError

BANDS = ("low", "middle", "high")
# The one measured difference that is a ratio, audio 2 over audio 1.
CENTROID_RATIO = "centroid_ratio"
KINDS_OF_PAIR = ("edited", "different", "motor", "synthetic", "identical")


class EditKind(StrEnum):
    """What was done to audio 1 to make audio 2."""

    ADDED = "added"
    REMOVED = "removed"
    REPLACED = "replaced"
    LOUDER = "louder"
    SOFTER = "softer"
    EARLIER = "earlier"
    LATER = "later"
    MORE = "more"
    FEWER = "fewer"
    FASTER = "faster"
    SLOWER = "slower"
    HIGHER = "higher"
    LOWER = "lower"
    BAND_CUT = "band cut"
    BAND_BOOST = "band boost"
    REVERB_MORE = "reverb more"
    REVERB_LESS = "reverb less"
    NOISE_MORE = "noise more"
    NOISE_LESS = "noise less"

    @property
    def opposite(self) -> EditKind:
        """What undoes it."""
        return _OPPOSITES[self]


_PAIRED = (
    (EditKind.ADDED, EditKind.REMOVED),
    (EditKind.REPLACED, EditKind.REPLACED),
    (EditKind.LOUDER, EditKind.SOFTER),
    (EditKind.EARLIER, EditKind.LATER),
    (EditKind.MORE, EditKind.FEWER),
    (EditKind.FASTER, EditKind.SLOWER),
    (EditKind.HIGHER, EditKind.LOWER),
    (EditKind.BAND_CUT, EditKind.BAND_BOOST),
    (EditKind.REVERB_MORE, EditKind.REVERB_LESS),
    (EditKind.NOISE_MORE, EditKind.NOISE_LESS),
)
_OPPOSITES = dict(_PAIRED) | {second: first for first, second in _PAIRED}


@dataclass(frozen=True)
class Edit:
    """One difference, always from audio 1 to audio 2.

    what: key of the event, name of the band for BAND_*, or None for the whole recording. other: what
    stands there in audio 2 (REPLACED). amount: never negative, the kind says which way; in `unit`:
    "dB" (levels and bands), "s" (times), "times" (more or fewer by so many), "ratio" (of speeds),
    "semitones", "s RT60", "dB SNR" (of the noise that is more or less), "% throttle".
    """

    kind: EditKind
    what: str | None = None
    other: str | None = None
    amount: float | None = None
    unit: str = ""

    def reversed(self) -> Edit:
        """Return the same difference from audio 2 to audio 1."""
        what, other = self.what, self.other
        if self.kind is EditKind.REPLACED:
            what, other = other, what
        return replace(self, kind=self.kind.opposite, what=what, other=other)


@dataclass(frozen=True)
class Heard:
    """An event of a recording: when (from its beginning to the end of its last repetition), how loud.

    level_db: dBFS of its louder tenths of a second, as it was mixed in. background: it goes on below
    the others all the time.
    """

    what: str
    start_s: float
    end_s: float
    level_db: float
    count: int = 1
    background: bool = False


@dataclass(frozen=True)
class PairRecord:
    """All that differs between two recordings, and what is heard in them.

    edits: none where nothing audible changed; more than two only where the scenes are different
    ones. rendered: measured differences, audio 2 minus audio 1: what follows physically. seed and
    places: the group that the pair is from, and which two of its recordings.
    """

    edits: tuple[Edit, ...]
    heard_1: tuple[Heard, ...]
    heard_2: tuple[Heard, ...]
    duration_1_s: float
    duration_2_s: float
    rendered: dict[str, float] = field(default_factory=dict)
    origins: tuple[str, ...] = ()
    seed: int = 0
    kind: str = "edited"
    places: tuple[int, int] = (0, 1)

    def reversed(self) -> PairRecord:
        """Return the record of the same two recordings in the other order."""
        return replace(
            self,
            edits=tuple(edit.reversed() for edit in self.edits),
            heard_1=self.heard_2,
            heard_2=self.heard_1,
            duration_1_s=self.duration_2_s,
            duration_2_s=self.duration_1_s,
            rendered={name: _undone(name, value) for name, value in self.rendered.items()},
            places=self.places[::-1],
        )

    def to_document(self) -> dict[str, Any]:
        """Return the record as JSON-ready values."""
        return asdict(self) | {
            "edits": [_lean(edit) for edit in self.edits],
            "heard_1": [_lean(heard) for heard in self.heard_1],
            "heard_2": [_lean(heard) for heard in self.heard_2],
            "origins": list(self.origins),
            "places": list(self.places),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> PairRecord:
        """Rebuild what `to_document` wrote. Raises InvalidValueError for what is no such document."""
        try:
            return cls(
                edits=edits_of(document["edits"]),
                heard_1=heard_of(document["heard_1"]),
                heard_2=heard_of(document["heard_2"]),
                duration_1_s=float(document["duration_1_s"]),
                duration_2_s=float(document["duration_2_s"]),
                rendered={name: float(value) for name, value in document["rendered"].items()},
                origins=tuple(document["origins"]),
                seed=int(document["seed"]),
                kind=str(document["kind"]),
                places=(int(document["places"][0]), int(document["places"][1])),
            )
        except KeyError as error:
            raise InvalidValueError(error.args[0], "missing from a pair's record") from error


def only_of_one(edits: Sequence[Edit]) -> tuple[Edit, ...]:
    """Leave out of the edits of different scenes what comes and goes: both hold such a sound."""
    gone = {edit.what for edit in edits if edit.kind in (EditKind.REMOVED, EditKind.REPLACED)}
    come = {edit.what for edit in edits if edit.kind is EditKind.ADDED}
    come |= {edit.other for edit in edits if edit.kind is EditKind.REPLACED}
    both = gone & come
    return tuple(edit for edit in edits if edit.what not in both)


def _undone(name: str, value: float) -> float:
    return 1.0 / value if name == CENTROID_RATIO else -value + 0.0


def edits_of(rows: Sequence[Mapping[str, Any]]) -> tuple[Edit, ...]:
    """Return edits from their JSON."""
    return tuple(Edit(**{**row, "kind": EditKind(row["kind"])}) for row in rows)


def heard_of(rows: Sequence[Mapping[str, Any]]) -> tuple[Heard, ...]:
    """Return heard events from their JSON."""
    return tuple(Heard(**row) for row in rows)


def lean(rows: Sequence[Edit | Heard]) -> list[dict[str, Any]]:
    """Return edits or heard events as JSON-ready values, without what is as usual."""
    return [_lean(row) for row in rows]


def _lean(row: Edit | Heard) -> dict[str, Any]:
    usual = {"other": None, "amount": None, "unit": "", "count": 1, "background": False}
    values = asdict(row)
    return {
        name: str(value) if name == "kind" else value
        for name, value in values.items()
        if name not in usual or value != usual[name]
    }

"""From novelty to p-values: how often the source's own normal sound is at least as strange.

Leave-one-recording-out conformal p-values: each score of the reference was made without its own
recording, as a new recording's will be (conformal prediction: Vovk et al., Algorithmic Learning in
a Random World, 2005; with held-out groups: Barber et al., jackknife+, 2021). They are uniform, or
greater, as long as new recordings are exchangeable with those of the reference.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np

from soundpost.errors import BaselineTooSmallError, BrokenCalibrationError
from soundpost.monitoring.contexts import ALL
from soundpost.monitoring.observations import DoubleArray, IdArray
from soundpost.monitoring.tail import Tail, fit_tail

MIN_CONTEXT_WINDOWS: Final = 50
SMALLEST_P: Final = 1e-12
_VERSION = 1
# Scores nearer to each other than this differ by the rounding of sums, and by nothing else.
_DECIMALS: Final = 6


@dataclass(frozen=True, eq=False)
class _Reference:
    """Held-out scores of one context, rounded and ascending, and their tail."""

    scores: DoubleArray
    tail: Tail | None

    def p_values(self, novelty: DoubleArray) -> DoubleArray:
        count, novelty = len(self.scores), np.round(novelty, _DECIMALS)
        at_least = count - np.searchsorted(self.scores, novelty, side="left")
        p = np.asarray((1.0 + at_least) / (1.0 + count), np.float64)
        if self.tail is not None:
            beyond = novelty > self.scores[-1]
            ratio = self.tail.survival(novelty) / np.maximum(
                self.tail.survival(self.scores[-1:]), 1e-300
            )
            p[beyond] *= np.minimum(ratio[beyond], 1.0)
        return np.asarray(np.clip(p, SMALLEST_P, 1.0))


@dataclass(frozen=True, eq=False)
class Calibration:
    """Held-out scores of the reference by context.

    scores: [N] of all windows. units: [N] which recording or block each belongs to. contexts: [N]
    names. tail: whether scores beyond the greatest are told apart by a fitted tail; without it no
    p-value is below 1 / (N + 1).
    """

    scores: DoubleArray
    units: IdArray
    contexts: tuple[str, ...]
    tail: bool

    def p_values(self, novelty: DoubleArray, contexts: Sequence[str] = ()) -> DoubleArray:
        """Return p-values [N] in (0, 1] of novelty [N], falling in it; contexts: [N] names.

        A context with fewer than 50 reference windows, or an unknown one, is compared with all.
        """
        names = np.array(contexts if len(contexts) else [ALL] * len(novelty))
        found = np.ones(len(novelty))
        for name in np.unique(names).tolist():
            rows = names == name
            found[rows] = self._references.get(name, self._references[""]).p_values(novelty[rows])
        return found

    def held_out(self) -> DoubleArray:
        """Return the p-values [N] of the reference, each compared with other recordings only."""
        found = np.ones(len(self.scores))
        names = np.array(self.contexts)
        for unit in np.unique(self.units):
            own = self.units == unit
            for name in np.unique(names[own]):
                rows = own & (names == name)
                found[rows] = self._reference(~own, names == name).p_values(self.scores[rows])
        return found

    def thin_contexts(self) -> tuple[str, ...]:
        """Return the contexts that have too few windows to stand alone."""
        names, counts = np.unique(np.array(self.contexts), return_counts=True)
        few = names[counts < MIN_CONTEXT_WINDOWS].tolist()
        return tuple(few) if len(names) > 1 else ()

    @cached_property
    def _references(self) -> dict[str, _Reference]:
        """What each context is compared with; under "" what the others are."""
        known, used = np.array(self.contexts), np.ones(len(self.scores), np.bool_)
        names = np.unique(known).tolist()
        return {"": self._reference(used, used)} | {
            name: self._reference(used, known == name) for name in names
        }

    def _reference(self, used: np.ndarray, inside: np.ndarray) -> _Reference:
        own = self.scores[used & inside]
        enough = own if len(own) >= MIN_CONTEXT_WINDOWS else self.scores[used]
        scores = np.sort(np.round(enough, _DECIMALS))
        return _Reference(scores, fit_tail(scores) if self.tail else None)

    def to_document(self) -> dict[str, Any]:
        """Return what rebuilds it, JSON-ready: arrays as base64 of little-endian numbers."""
        names = sorted(set(self.contexts))
        codes = np.array([names.index(name) for name in self.contexts], np.int64)
        return {
            "version": _VERSION,
            "tail": self.tail,
            "names": names,
            "scores": pack(self.scores),
            "units": pack(self.units),
            "contexts": pack(codes),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Calibration:
        """Rebuild what `to_document` wrote. Raises BrokenCalibrationError."""
        try:
            names = document["names"]
            codes = unpack(document["contexts"], np.int64)
            return cls(
                scores=unpack(document["scores"], np.float64),
                units=unpack(document["units"], np.int64),
                contexts=tuple(names[code] for code in codes.tolist()),
                tail=bool(document["tail"]),
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise BrokenCalibrationError("calibration", str(error)) from error


def calibrate(
    scores: DoubleArray, units: IdArray, contexts: Sequence[str] = (), *, tail: bool = True
) -> Calibration:
    """Calibrate on held-out scores [N] of units [N] (recordings or blocks), in contexts [N].

    Raises BaselineTooSmallError without any score.
    """
    if not len(scores):
        raise BaselineTooSmallError("0 windows", "there is nothing to calibrate on")
    names = tuple(contexts) if len(contexts) else (ALL,) * len(scores)
    return Calibration(scores, units, names, tail)


def pack(values: np.ndarray) -> str:
    """Return an array [N] as base64 of its little-endian bytes."""
    return base64.b64encode(values.astype(values.dtype.newbyteorder("<")).tobytes()).decode()


def unpack(text: str, kind: type[np.generic]) -> Any:
    """Return the array [N] that `pack` wrote; raises ValueError for anything else."""
    raw = base64.b64decode(text, validate=True)
    return np.frombuffer(raw, np.dtype(kind).newbyteorder("<")).astype(kind)

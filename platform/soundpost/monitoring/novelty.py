"""How unlike the reference a window sounds: by its vector, its seconds, its acoustics, or all three.

No method is trained on a source: each compares with what the reference holds. Every method has the
same shape, and `fusion` is the mean of the others, each standardised on held-out recordings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

import numpy as np

from soundpost.errors import InvalidValueError
from soundpost.monitoring.acoustic_distance import AcousticDistance, fit_acoustics
from soundpost.monitoring.folds import Folds, make_folds
from soundpost.monitoring.neighbours import Neighbours, fit_neighbours
from soundpost.monitoring.observations import DoubleArray, IdArray, Observations

PARTS: Final = ("windows", "frames", "acoustics")
NOVELTY_METHODS: Final = ("fusion", *PARTS)
DEFAULT_METHOD: Final = "fusion"
# Scores that hardly vary in the reference would make any difference a great one.
_SMALLEST_SPREAD = 0.02


@dataclass(frozen=True)
class NoveltyOptions:
    """What the parts are made with; the defaults were chosen by measurement on development data.

    k: neighbours averaged. density_k: which neighbour gives the local scale, 0 for none.
    whitening: see `neighbours`. loudest_seconds: how many of a window's most novel seconds count.
    shrinkage: of the covariance of the acoustics. weights: of the parts in the fusion.
    """

    k: int = 1
    density_k: int = 4
    whitening: float = 0.0
    loudest_seconds: int = 5
    shrinkage: float = 0.2
    weights: Mapping[str, float] = field(
        default_factory=lambda: {"windows": 0.0, "frames": 1.0, "acoustics": 1.0}
    )
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Scores:
    """What scoring says of N windows.

    novelty: [N], greater is stranger, in the units of the method. parts: [N] each, before any
    standardising (of vectors, 1 is about as far as the reference is from itself). nearest: [N] the reference
    row that each window is nearest to. second: [N] the second from the window's start that is
    strangest, 0 where seconds were not compared.
    """

    novelty: DoubleArray
    parts: dict[str, DoubleArray]
    nearest: IdArray
    second: IdArray

    def __len__(self) -> int:
        return len(self.novelty)


@dataclass(frozen=True, eq=False)
class Standard:
    """Mean and spread of the logarithm of a part's scores on held-out reference windows."""

    mean: float
    spread: float

    def apply(self, scores: DoubleArray) -> DoubleArray:
        """Return scores [N] in standard deviations above what is usual."""
        logarithms: DoubleArray = np.log(np.maximum(scores, 1e-6))
        return (logarithms - self.mean) / self.spread


class Part(Protocol):
    """One way to compare: fitted on a reference, scores windows."""

    def score(self, observed: Observations) -> tuple[DoubleArray, IdArray, IdArray]:
        """Return novelty, nearest reference row and strangest second, [N] each."""
        ...


@dataclass(frozen=True, eq=False)
class WindowPart:
    """Compares the vectors of windows."""

    neighbours: Neighbours

    def score(self, observed: Observations) -> tuple[DoubleArray, IdArray, IdArray]:
        """Return novelty, nearest reference row and zeros, [N] each."""
        novelty, nearest = self.neighbours.score(observed.vectors)
        return novelty, nearest, np.zeros(len(observed), np.int64)


@dataclass(frozen=True, eq=False)
class FramePart:
    """Compares every second of a window. owners: [F] reference window of each reference frame."""

    neighbours: Neighbours
    owners: IdArray
    loudest_seconds: int

    def score(self, observed: Observations) -> tuple[DoubleArray, IdArray, IdArray]:
        """Return the mean of the strangest seconds, nearest reference row and strangest second."""
        novelty, nearest = self.neighbours.score(observed.frames)
        table, place = _by_window(novelty, observed.frame_windows, len(observed))
        few = min(self.loudest_seconds, table.shape[1])
        top = -np.sort(-table, axis=1)[:, :few]
        heard = np.isfinite(top)
        mean = np.where(heard, top, 0.0).sum(axis=1) / heard.sum(axis=1)
        second = table.argmax(axis=1)
        row = place[np.arange(len(table)), second]
        return mean, self.owners[nearest[row]], second


@dataclass(frozen=True, eq=False)
class AcousticPart:
    """Compares acoustic measures."""

    distance: AcousticDistance

    def score(self, observed: Observations) -> tuple[DoubleArray, IdArray, IdArray]:
        """Return novelty, nearest reference row and zeros, [N] each."""
        novelty, nearest = self.distance.score(observed.acoustics)
        return novelty, nearest, np.zeros(len(observed), np.int64)


@dataclass(frozen=True, eq=False)
class Novelty:
    """A fitted scorer. held_out: the reference's own scores, each window without its recording."""

    method: str
    parts: dict[str, Part]
    standards: dict[str, Standard]
    weights: Mapping[str, float]
    held_out: Scores
    folds: Folds
    notes: tuple[str, ...] = ()

    def score(self, observed: Observations) -> Scores:
        """Score windows; an empty observation gives empty scores."""
        return _fuse(_raw(self.parts, observed), self.standards, self.weights)

    def leave_one_out(self) -> Scores:
        """Return the scores of the reference, each window compared with other recordings only.

        Of a single recording, blocks of time are held out instead, with a margin.
        """
        return self.held_out


def fit(
    reference: Observations,
    method: str = DEFAULT_METHOD,
    options: NoveltyOptions | None = None,
) -> Novelty:
    """Fit a method of NOVELTY_METHODS on a reference, and score the reference held out.

    Raises InvalidValueError for another method, BaselineTooSmallError.
    """
    if method not in NOVELTY_METHODS:
        raise InvalidValueError(method, f"methods are {', '.join(NOVELTY_METHODS)}")
    options = options or NoveltyOptions()
    names = [p for p in PARTS if method == p or (method == "fusion" and options.weights[p] > 0)]
    folds = make_folds(reference)
    raw = _held_out(reference, folds, names, options)
    standards = {name: _standard(raw.parts[name]) for name in names}
    weights = {name: options.weights[name] if method == "fusion" else 1.0 for name in names}
    return Novelty(
        method=method,
        parts=_fit_parts(reference, folds.unit, names, options),
        standards=standards,
        weights=weights,
        held_out=_fuse(raw, standards, weights),
        folds=folds,
        notes=_notes(reference),
    )


def _fit_parts(
    reference: Observations, units: IdArray, names: list[str], options: NoveltyOptions
) -> dict[str, Part]:
    parts: dict[str, Part] = {}
    if "windows" in names:
        parts["windows"] = WindowPart(_neighbours(reference.vectors, units, options))
    if "frames" in names:
        owners = reference.frame_windows
        neighbours = _neighbours(reference.frames, units[owners], options)
        parts["frames"] = FramePart(neighbours, owners, options.loudest_seconds)
    if "acoustics" in names:
        parts["acoustics"] = AcousticPart(
            fit_acoustics(reference.acoustics, units, options.shrinkage)
        )
    return parts


def _neighbours(vectors: np.ndarray, groups: IdArray, options: NoveltyOptions) -> Neighbours:
    return fit_neighbours(
        vectors,
        groups,
        k=options.k,
        density_k=options.density_k,
        whitening=options.whitening,
        seed=options.seed,
    )


def _held_out(
    reference: Observations, folds: Folds, names: list[str], options: NoveltyOptions
) -> Scores:
    """Score each fold of the reference by parts fitted on what the fold keeps."""
    count = len(reference)
    parts = {name: np.zeros(count) for name in names}
    nearest, second = np.zeros(count, np.int64), np.zeros(count, np.int64)
    for number in range(folds.count):
        out, kept = np.flatnonzero(folds.held_out(number)), np.flatnonzero(folds.kept(number))
        fitted = _fit_parts(reference.take(kept), folds.unit[kept], names, options)
        scores = _raw(fitted, reference.take(out))
        for name in names:
            parts[name][out] = scores.parts[name]
        nearest[out], second[out] = kept[scores.nearest], scores.second
    return Scores(np.zeros(count), parts, nearest, second)


def _raw(parts: Mapping[str, Part], observed: Observations) -> Scores:
    """Score by each part; rows and seconds are those of the finest part that compares vectors."""
    count = len(observed)
    scores = Scores(np.zeros(count), {}, np.zeros(count, np.int64), np.zeros(count, np.int64))
    if count == 0:
        return replace(scores, parts={name: np.zeros(0) for name in parts})
    for name in reversed(PARTS):
        if name in parts:
            scores.parts[name], nearest, second = parts[name].score(observed)
            second = scores.second if name == "windows" else second
            scores = replace(scores, nearest=nearest, second=second)
    return scores


def _fuse(raw: Scores, standards: Mapping[str, Standard], weights: Mapping[str, float]) -> Scores:
    total = sum(weights.values())
    fused = np.zeros(len(raw))
    for name, standard in standards.items():
        fused += weights[name] / total * standard.apply(raw.parts[name])
    return replace(raw, novelty=fused)


def _standard(scores: DoubleArray) -> Standard:
    logarithms = np.log(np.maximum(scores, 1e-6))
    return Standard(float(logarithms.mean()), max(float(logarithms.std()), _SMALLEST_SPREAD))


def _by_window(values: DoubleArray, owners: IdArray, count: int) -> tuple[DoubleArray, IdArray]:
    """Lay values [F] out by window [N, S], -inf where there is none; also their places [N, S]."""
    order = np.argsort(owners, kind="stable")
    sizes = np.bincount(owners, minlength=count)
    if count and sizes.min() == 0:
        raise InvalidValueError(int(sizes.argmin()), "a window without seconds to compare")
    column = np.arange(len(values)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    table = np.full((count, int(sizes.max(initial=0))), -np.inf)
    place = np.zeros(table.shape, np.int64)
    table[owners[order], column] = values[order]
    place[owners[order], column] = order
    return table, place


def _notes(reference: Observations) -> tuple[str, ...]:
    counts = {len(document["third_octave_dbfs"]) for document in reference.acoustics}
    if len(counts) == 1:
        return ()
    return (
        f"Recordings of {len(counts)} sample rates: only the {min(counts)} third octaves"
        + " that all of them have are compared.",
    )

"""Contexts: what is normal at night or under load need not be normal at noon or idle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from soundpost.errors import BrokenCalibrationError, InvalidValueError
from soundpost.monitoring.acoustic_distance import acoustic_features
from soundpost.monitoring.observations import DoubleArray, IdArray, Observations

CONTEXT_KINDS: Final = ("none", "hours", "states")
ALL: Final = "all"
_MAX_STATES = 6
_RESTARTS = 4
_ROUNDS = 50
# Beyond this many windows more do not move a centre.
_CLUSTERED = 2000
# Mean silhouette below which there are no states, only a spread.
_CLEAR_STATES = 0.35
_SILHOUETTE_SAMPLE = 500
_SMALLEST_STATE = 0.05


@dataclass(frozen=True, eq=False)
class Contexts:
    """How windows are sorted into contexts.

    kind: one of CONTEXT_KINDS. timezone, block_h: of hours. bands, mean, spread, centres [K, P]: of
    states, in standardised acoustic features.
    """

    kind: str
    timezone: str = "UTC"
    block_h: int = 6
    bands: int = 0
    mean: DoubleArray | None = None
    spread: DoubleArray | None = None
    centres: DoubleArray | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All contexts, in order."""
        if self.kind == "hours":
            return tuple(_block_name(hour, self.block_h) for hour in range(0, 24, self.block_h))
        if self.kind == "states" and self.centres is not None:
            return tuple(f"state {number + 1}" for number in range(len(self.centres)))
        return (ALL,)

    def assign(self, observed: Observations) -> tuple[str, ...]:
        """Return the context of each window [N]."""
        if self.kind == "hours":
            return _hours(observed.starts_s, _zone(self.timezone), self.block_h)
        if self.kind == "states" and len(observed):
            return tuple(self.names[state] for state in self._states(observed))
        return (ALL,) * len(observed)

    def to_document(self) -> dict[str, Any]:
        """Return what rebuilds it, JSON-ready."""
        arrays = {"mean": self.mean, "spread": self.spread, "centres": self.centres}
        return {
            "kind": self.kind,
            "timezone": self.timezone,
            "block_h": self.block_h,
            "bands": self.bands,
            **{name: None if a is None else a.tolist() for name, a in arrays.items()},
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Contexts:
        """Rebuild what `to_document` wrote. Raises BrokenCalibrationError."""
        try:
            arrays: dict[str, Any] = {
                name: None if document[name] is None else np.array(document[name], np.float64)
                for name in ("mean", "spread", "centres")
            }
            scalars: dict[str, Any] = {
                name: document[name] for name in ("kind", "timezone", "block_h", "bands")
            }
            return cls(**scalars, **arrays)
        except (KeyError, TypeError, ValueError) as error:
            raise BrokenCalibrationError("contexts", str(error)) from error

    def _states(self, observed: Observations) -> IdArray:
        assert self.mean is not None and self.spread is not None and self.centres is not None
        features = acoustic_features(observed.acoustics, self.bands)
        shape = len(self.mean) - self.bands
        used = np.r_[0 : features.bands, self.bands : self.bands + shape]
        points = (features.values - self.mean[used]) / self.spread[used]
        return _nearest(points, self.centres[:, used])


def no_contexts() -> Contexts:
    """Return one context for all windows."""
    return Contexts("none")


def hour_contexts(timezone: str, block_h: int = 6) -> Contexts:
    """Return contexts by the hour of day in a timezone, in blocks that divide 24.

    Raises InvalidValueError for a timezone or a block that cannot be.
    """
    _zone(timezone)
    if block_h < 1 or 24 % block_h:
        raise InvalidValueError(block_h, "blocks of hours divide the day: 1, 2, 3, 4, 6, 8, 12, 24")
    return Contexts("hours", timezone, block_h)


def state_contexts(reference: Observations, seed: int = 0) -> Contexts:
    """Find operating states by k-means on standardised acoustic features.

    The number of states is the one with the greatest mean silhouette (Rousseeuw 1987), from 2 to 6,
    if that is at least 0.35 and no state holds less than a twentieth of the windows; else there is
    one context for all.
    """
    features = acoustic_features(reference.acoustics)
    mean = features.values.mean(axis=0)
    spread = np.maximum(features.values.std(axis=0), 0.5)
    points = (features.values - mean) / spread
    rng = np.random.default_rng(seed)
    if len(points) > _CLUSTERED:
        points = points[np.sort(rng.choice(len(points), _CLUSTERED, replace=False))]
    centres = _best_states(points, rng)
    if centres is None:
        return no_contexts()
    return Contexts("states", bands=features.bands, mean=mean, spread=spread, centres=centres)


def _best_states(points: DoubleArray, rng: np.random.Generator) -> DoubleArray | None:
    best, best_centres = _CLEAR_STATES, None
    for states in range(2, min(_MAX_STATES, len(points) // 2) + 1):
        centres = _k_means(points, states, rng)
        label = _nearest(points, centres)
        share = np.bincount(label, minlength=states) / len(points)
        clear = _silhouette(points, label, rng) if share.min() >= _SMALLEST_STATE else -1.0
        if clear > best:
            best, best_centres = clear, centres
    if best_centres is None:
        return None
    # Named from quiet to loud, so that a name means the same in every fit.
    order = np.argsort(best_centres.sum(axis=1), kind="stable")
    return np.asarray(best_centres[order])


def _k_means(points: DoubleArray, states: int, rng: np.random.Generator) -> DoubleArray:
    """Lloyd's algorithm from k-means++ starts (Arthur and Vassilvitskii 2007); the best of a few."""
    runs = [_lloyd(points, _plus_plus(points, states, rng)) for _ in range(_RESTARTS)]
    left = [float(_squared(points, centres).min(axis=1).sum()) for centres in runs]
    return runs[int(np.argmin(left))]


def _plus_plus(points: DoubleArray, states: int, rng: np.random.Generator) -> DoubleArray:
    chosen = [points[rng.integers(len(points))]]
    while len(chosen) < states:
        far = _squared(points, np.array(chosen)).min(axis=1)
        total = far.sum()
        chance = far / total if total > 0.0 else np.full(len(points), 1.0 / len(points))
        chosen.append(points[rng.choice(len(points), p=chance)])
    return np.array(chosen)


def _lloyd(points: DoubleArray, centres: DoubleArray) -> DoubleArray:
    for _ in range(_ROUNDS):
        label = _nearest(points, centres)
        moved = np.array(
            [
                points[label == s].mean(axis=0) if (label == s).any() else c
                for s, c in enumerate(centres)
            ]
        )
        if np.allclose(moved, centres):
            break
        centres = moved
    return centres


def _silhouette(points: DoubleArray, label: IdArray, rng: np.random.Generator) -> float:
    if len(points) > _SILHOUETTE_SAMPLE:
        rows = rng.choice(len(points), _SILHOUETTE_SAMPLE, replace=False)
        points, label = points[rows], label[rows]
    distance = np.sqrt(_squared(points, points))
    states = np.unique(label)
    member = label[:, None] == states[None]
    sums, sizes = distance @ member, member.sum(axis=0)
    own = member.argmax(axis=1)
    at = np.arange(len(points))
    inside = sums[at, own] / np.maximum(sizes[own] - 1, 1)
    means = sums / sizes
    means[at, own] = np.inf
    outside = means.min(axis=1)
    if not np.isfinite(outside).all():
        return -1.0
    return float(((outside - inside) / np.maximum(np.maximum(outside, inside), 1e-12)).mean())


def _squared(left: DoubleArray, right: DoubleArray) -> DoubleArray:
    squares = np.square(left).sum(axis=1)[:, None] + np.square(right).sum(axis=1)[None]
    return np.asarray(np.maximum(squares - 2.0 * left @ right.T, 0.0))


def _nearest(points: DoubleArray, centres: DoubleArray) -> IdArray:
    nearest: IdArray = _squared(points, centres).argmin(axis=1)
    return nearest


def _zone(timezone: str) -> ZoneInfo:
    try:
        return ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise InvalidValueError(timezone, "not a timezone such as Europe/Berlin") from error


def local_hours(starts_s: DoubleArray, timezone: str) -> IdArray:
    """Return the hour of day [N] at instants [N] (seconds since 1970) in a timezone."""
    zone = _zone(timezone)
    return np.array([_hour(s, zone) for s in starts_s.tolist()], np.int64)


def _hour(start_s: float, zone: ZoneInfo) -> int:
    return datetime.fromtimestamp(start_s, UTC).astimezone(zone).hour


def _hours(starts_s: DoubleArray, zone: ZoneInfo, block_h: int) -> tuple[str, ...]:
    return tuple(
        _block_name(_hour(s, zone) // block_h * block_h, block_h) for s in starts_s.tolist()
    )


def _block_name(hour: int, block_h: int) -> str:
    return f"{hour:02d}-{hour + block_h:02d} h"

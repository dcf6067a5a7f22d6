"""What watching sees of recordings: windows as arrays, whatever they were read from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soundpost.errors import InvalidValueError

FloatArray = NDArray[np.float32]
DoubleArray = NDArray[np.float64]
IdArray = NDArray[np.int64]

# Windows that end together still take some time.
_SHORTEST_STEP_S = 1e-3


@dataclass(frozen=True, eq=False)
class Observations:
    """N windows of one source under one model, ordered by time.

    window_ids, recording_ids: [N]. starts_s: [N] seconds since 1970 (UTC) at which each window
    begins. durations_s: [N]. vectors: [N, D] unit norm. frames: [F, D] unit norm, one a second;
    frame_windows: [F] the row of the window that each belongs to. acoustics: one document a window,
    as `audio.acoustics` writes them.
    """

    window_ids: IdArray
    recording_ids: IdArray
    starts_s: DoubleArray
    durations_s: DoubleArray
    vectors: FloatArray
    frames: FloatArray
    frame_windows: IdArray
    acoustics: tuple[Mapping[str, Any], ...]

    def __post_init__(self) -> None:
        count = len(self.window_ids)
        lengths = (self.recording_ids, self.starts_s, self.durations_s, self.vectors)
        if any(len(values) != count for values in (*lengths, self.acoustics)):
            raise InvalidValueError(count, "observations need one value of each kind a window")
        if len(self.frames) != len(self.frame_windows):
            raise InvalidValueError(len(self.frames), "every frame belongs to a window")

    def __len__(self) -> int:
        return len(self.window_ids)

    def steps_s(self) -> DoubleArray:
        """Return how much audio each window [N] brings that the one before it did not."""
        ends_s = self.starts_s + self.durations_s
        before_s = np.concatenate([[-np.inf], ends_s[:-1]])
        steps_s = ends_s - np.maximum(self.starts_s, before_s)
        return np.asarray(np.maximum(steps_s, _SHORTEST_STEP_S), dtype=np.float64)

    def take(self, rows: IdArray | NDArray[np.bool_]) -> Observations:
        """Return some windows [M]: ascending rows, or a mask [N]."""
        chosen = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows.astype(np.int64)
        new_row = np.full(len(self), -1, dtype=np.int64)
        new_row[chosen] = np.arange(len(chosen))
        kept = new_row[self.frame_windows] >= 0
        return Observations(
            window_ids=self.window_ids[chosen],
            recording_ids=self.recording_ids[chosen],
            starts_s=self.starts_s[chosen],
            durations_s=self.durations_s[chosen],
            vectors=self.vectors[chosen],
            frames=self.frames[kept],
            frame_windows=new_row[self.frame_windows[kept]],
            acoustics=tuple(self.acoustics[row] for row in chosen),
        )

"""What a window keeps of the encoder's frames: one vector a second, small enough to store.

Searching asks them where in a window the sound is that made it a hit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from soundpost.store.embeddings import FRAME_SCALE, quantise_frames

FloatArray = NDArray[np.float32]

# Below this spread of cosines no second stands out, and the whole window is the place.
_FLAT_SPREAD = 0.02


@dataclass(frozen=True)
class Place:
    """Where in a window a query is heard: whole seconds from the window's start."""

    start_s: int
    end_s: int
    peak_s: int


def pool_frames(frames: FloatArray, frame_hop_s: float, duration_s: float) -> NDArray[np.int8]:
    """Pool frames [T, D], unit norm, to one vector a second: int8 [ceil(duration_s), D].

    Each is the mean of the frames whose middle lies in that second, brought back to unit norm and
    times 127. A second without a frame of its own takes the nearest one.
    """
    seconds = max(1, int(np.ceil(duration_s - 1e-9)))
    middles = np.asarray((np.arange(len(frames)) + 0.5) * frame_hop_s, dtype=np.float64)
    valid = max(1, int(np.searchsorted(middles, duration_s)))
    owner = np.minimum(middles[:valid].astype(np.int64), seconds - 1)
    rows = [_second(frames[:valid], owner, middles[:valid], second) for second in range(seconds)]
    pooled = np.stack(rows)
    norms = np.linalg.norm(pooled, axis=1, keepdims=True)
    return quantise_frames(pooled / np.maximum(norms, 1e-12))


def _second(
    frames: FloatArray, owner: NDArray[np.int64], middles: NDArray[np.float64], second: int
) -> FloatArray:
    own = owner == second
    if own.any():
        mean: FloatArray = frames[own].mean(axis=0)
        return mean
    nearest: FloatArray = frames[np.abs(middles - (second + 0.5)).argmin()]
    return nearest


def locate(frames: NDArray[np.int8], query: FloatArray) -> Place:
    """Find where a query [D] is heard in stored frames [S, D], one a second.

    The peak is the second with the greatest cosine; the stretch around it reaches as far as the
    cosine stays above the middle between the window's least and greatest.
    """
    cosines = frames.astype(np.float32) @ query / FRAME_SCALE
    peak = int(cosines.argmax())
    if len(cosines) == 1 or float(np.ptp(cosines)) < _FLAT_SPREAD:
        return Place(0, len(cosines), peak)
    loud = cosines >= (cosines.min() + cosines.max()) / 2
    start, end = peak, peak + 1
    while start > 0 and loud[start - 1]:
        start -= 1
    while end < len(cosines) and loud[end]:
        end += 1
    return Place(start, end, peak)

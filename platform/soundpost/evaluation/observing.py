"""Waves to observations as the archive would store them, without a database, kept between runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from soundpost.archive.frames import pool_frames
from soundpost.audio.acoustics import measure
from soundpost.models.encoder import AudioTextEncoder
from soundpost.monitoring.observations import Observations
from soundpost.store.embeddings import FRAME_SCALE

FloatArray = NDArray[np.float32]

_BATCH = 16
# Recordings of an evaluation follow each other with this much time between their beginnings.
RECORDING_EVERY_S = 3600.0


@dataclass(frozen=True)
class Listener:
    """Encodes waves in windows of `window_s`, as ingest does; cache: a folder, or None."""

    encoder: AudioTextEncoder
    cache: Path | None

    def observe(self, waves: Sequence[FloatArray], window_s: float) -> Observations:
        """Return the whole windows of waves [N] at the encoder's rate, one recording each.

        A rest shorter than a window is left out; a wave shorter than a window is one window.
        """
        parts = [self._recording(wave, window_s, number) for number, wave in enumerate(waves)]
        return join(parts)

    def _recording(self, wave: FloatArray, window_s: float, number: int) -> Observations:
        key = hashlib.sha256(wave.tobytes()).hexdigest()
        key = hashlib.sha256(f"{self.encoder.spec.revision} {window_s} {key}".encode()).hexdigest()
        path = self.cache / f"{key}.npz" if self.cache else None
        if path is None or not path.is_file():
            found = self._encode(cut(wave, window_s, self.encoder.spec.sample_rate_hz))
            if path is None:
                return _observations(number, window_s, **found)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                np.savez(file, allow_pickle=False, **found)
        with np.load(path, allow_pickle=False) as stored:
            return _observations(number, window_s, **stored)

    def _encode(self, windows: FloatArray) -> dict[str, np.ndarray]:
        rate_hz = self.encoder.spec.sample_rate_hz
        seconds = windows.shape[1] / rate_hz
        vectors, frames = [], []
        for start in range(0, len(windows), _BATCH):
            made = self.encoder.encode_audio(windows[start : start + _BATCH])
            vectors.append(made.embedding)
            frames += [pool_frames(one, made.frame_hop_s, seconds) for one in made.frames]
        documents = [measure(window, rate_hz).to_document() for window in windows]
        return {
            "vectors": np.concatenate(vectors),
            "frames": np.stack(frames),
            "acoustics": np.array(json.dumps(documents)),
        }


def cut(wave: FloatArray, window_s: float, rate_hz: int) -> FloatArray:
    """Return the whole windows [W, N] of a wave, or the wave itself where it is shorter."""
    length = min(round(window_s * rate_hz), len(wave))
    count = len(wave) // length
    return wave[: count * length].reshape(count, length)


def join(parts: Sequence[Observations]) -> Observations:
    """Join observations of different recordings in the order given."""
    offsets = np.cumsum([0, *(len(part) for part in parts)])[:-1].tolist()
    return Observations(
        window_ids=np.arange(sum(len(part) for part in parts)),
        recording_ids=np.concatenate([part.recording_ids for part in parts]),
        starts_s=np.concatenate([part.starts_s for part in parts]),
        durations_s=np.concatenate([part.durations_s for part in parts]),
        vectors=np.concatenate([part.vectors for part in parts]),
        frames=np.concatenate([part.frames for part in parts]),
        frame_windows=np.concatenate(
            [part.frame_windows + offset for part, offset in zip(parts, offsets, strict=True)]
        ),
        acoustics=tuple(document for part in parts for document in part.acoustics),
    )


def recording_means(
    values: NDArray[np.float64], recordings: NDArray[np.int64], windows: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Average values [N] over `windows` in a row of a recording; also the recording of each mean.

    Windows left over at a recording's end are left out, unless it is shorter than that.
    """
    means, owners = [], []
    for number in np.unique(recordings).tolist():
        own = values[recordings == number]
        few = min(windows, len(own))
        whole = own[: len(own) // few * few].reshape(-1, few).mean(axis=1)
        means.append(whole)
        owners.append(np.full(len(whole), number))
    return np.concatenate(means), np.concatenate(owners)


Observe = Callable[[Sequence[FloatArray], float], Observations]


def _observations(
    number: int, window_s: float, vectors: np.ndarray, frames: np.ndarray, acoustics: np.ndarray
) -> Observations:
    count, seconds = frames.shape[:2]
    flat = frames.reshape(count * seconds, -1).astype(np.float32) / FRAME_SCALE
    norms = np.linalg.norm(flat, axis=1, keepdims=True)
    return Observations(
        window_ids=np.arange(count),
        recording_ids=np.full(count, number),
        starts_s=number * RECORDING_EVERY_S + window_s * np.arange(count, dtype=np.float64),
        durations_s=np.full(count, window_s),
        vectors=vectors,
        frames=flat / np.maximum(norms, 1e-12),
        frame_windows=np.repeat(np.arange(count), seconds),
        acoustics=tuple(json.loads(str(acoustics))),
    )

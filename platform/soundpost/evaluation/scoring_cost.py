"""What novelty costs beside embedding, in one run on one thread, in seconds of its core."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from soundpost.audio.acoustics import measure
from soundpost.models.encoder import AudioTextEncoder
from soundpost.monitoring.novelty import fit
from soundpost.monitoring.observations import Observations

REFERENCE_WINDOWS = 10_000
_RECORDINGS = 50
_BATCH = 8


@dataclass(frozen=True)
class Cost:
    """fit_s: of the whole baseline. score_s, embed_s: of one window of a batch; alone: of one."""

    fit_s: float
    score_s: float
    embed_s: float
    score_alone_s: float
    embed_alone_s: float


def measure_cost(encoder: AudioTextEncoder, windows: int = REFERENCE_WINDOWS) -> Cost:
    """Fit `windows` windows of noise around as many vectors, and score beside the encoder."""
    reference = made_up(windows, encoder.spec.dimension, encoder.spec.window_s)
    began = time.process_time()
    novelty = fit(reference)
    fit_s = time.process_time() - began
    few, one = reference.take(np.arange(_BATCH)), reference.take(np.arange(1))
    length = round(encoder.spec.window_s * encoder.spec.sample_rate_hz)
    waves = np.random.default_rng(0).normal(size=(_BATCH, length)).astype(np.float32) * 0.1
    return Cost(
        fit_s=fit_s,
        score_s=_best_s(lambda: novelty.score(few)) / _BATCH,
        embed_s=_best_s(lambda: encoder.encode_audio(waves)) / _BATCH,
        score_alone_s=_best_s(lambda: novelty.score(one)),
        embed_alone_s=_best_s(lambda: encoder.encode_audio(waves[:1])),
    )


def made_up(windows: int, dimension: int, window_s: float) -> Observations:
    """Return windows of a source that never was: what is timed does not depend on the values."""
    rng = np.random.default_rng(0)
    seconds = int(np.ceil(window_s))
    rows = np.arange(windows)
    wave = rng.normal(size=(64, 8000)).astype(np.float32) * 0.1
    documents = [measure(one, 16_000).to_document() for one in wave]
    return Observations(
        window_ids=rows,
        recording_ids=rows * _RECORDINGS // windows,
        starts_s=window_s * rows.astype(np.float64),
        durations_s=np.full(windows, window_s),
        vectors=_unit(rng.normal(size=(windows, dimension))),
        frames=_unit(rng.normal(size=(windows * seconds, dimension))),
        frame_windows=np.repeat(rows, seconds),
        acoustics=tuple(documents[row % len(documents)] for row in rows.tolist()),
    )


def _unit(vectors: np.ndarray) -> np.ndarray:
    unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit.astype(np.float32)


def _best_s(work: Callable[[], object], repeats: int = 15) -> float:
    """The shortest of several runs, after one that does not count: the least disturbed."""
    work()
    taken = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return min(taken)

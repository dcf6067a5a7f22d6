"""The vector `a` that the difference network reads of a recording (ADIFF, arXiv 2502.04476).

In the paper `a` is the pooled output of the audio encoder alone, 768 wide. One pooled vector says
what is heard, but hardly when, how loud or how bright, and those are most of the differences that
are to be named. Ours therefore goes on: D of the encoder, C of its tags. In this order:

    embedding    D          times sqrt(D), so that a value is of order one
    tags         C          log odds, clipped to -9..6, over 4
    frames       10 x D     the encoder's frames, mean of each second, times sqrt(D); zero past the end
    third octave 26         levels in dBFS: (level + 60) / 20
                 26         the same against the level of the whole: difference / 20
    shape        12         the measures of `soundpost.audio.acoustics`, on fixed scales
    profile      8          noise floor and whiteness, decay, pulse, onsets, duration
    levels       40         A-weighted level of each quarter of a second: (level + 60) / 20
    bands        20 x 3     levels of low, middle and high in each half of a second, the same way
    rises        40         how many sudden rises begin in each quarter of a second
    valid        10         how much of each second there is, 0 to 1
    text         1          1 where this is a text in place of a recording, all but the embedding zero

Levels are clipped to -100..0 dBFS. Every value is finite and small, for silence too.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from soundpost.audio.acoustics import Acoustics
from soundpost.explain.listening import EXCERPT_S, Listening
from soundpost.explain.profile import HOP_S, Profile

FloatArray = NDArray[np.float32]

SLOTS: Final = round(EXCERPT_S)
LEVEL_SLOTS: Final = 4 * SLOTS
BAND_SLOTS: Final = 2 * SLOTS
THIRD_OCTAVES: Final = 26
_SHAPE, _PROFILE = 12, 8
_ACOUSTIC_WIDTH: Final = (
    2 * THIRD_OCTAVES + _SHAPE + _PROFILE + 2 * LEVEL_SLOTS + 3 * BAND_SLOTS + SLOTS + 1
)
_LEAST_LOG_ODDS, _MOST_LOG_ODDS = -9.0, 6.0


def width(dimension: int, tags: int) -> int:
    """Return how wide `a` is over an encoder of `dimension` with so many tags."""
    return dimension + tags + SLOTS * dimension + _ACOUSTIC_WIDTH


def learnt_columns(dimension: int, tags: int) -> NDArray[np.bool_]:
    """Return which values [A] are the encoder's own embedding and frames: all but tags and acoustics."""
    columns = np.zeros(width(dimension, tags), np.bool_)
    columns[:dimension] = True
    columns[dimension + tags : dimension + tags + SLOTS * dimension] = True
    return columns


def audio_vector(listening: Listening) -> FloatArray:
    """Return `a` [A] of a recording; the layout is the module's docstring."""
    scale = np.float32(np.sqrt(len(listening.embedding)))
    parts = [
        listening.embedding * scale,
        _tags(listening),
        _slots(listening).reshape(-1) * scale,
        _third_octaves(listening.acoustics),
        _shape(listening.acoustics),
        _profile(listening.profile, listening.duration_s),
        _levels(listening.profile.a_level_dbfs, LEVEL_SLOTS),
        _levels(listening.profile.bands_dbfs, BAND_SLOTS).reshape(-1),
        _rises(listening.profile),
        np.clip(listening.duration_s - np.arange(SLOTS), 0.0, 1.0),
        np.zeros(1),
    ]
    return np.concatenate(parts).astype(np.float32)


def text_vector(embedding: FloatArray, tags: int) -> FloatArray:
    """Return `a` [A] with a text's unit vector [D] where the recording's stands, and the flag."""
    vector = np.zeros(width(len(embedding), tags), np.float32)
    vector[: len(embedding)] = embedding * np.sqrt(len(embedding))
    vector[-1] = 1.0
    return vector


def _tags(listening: Listening) -> FloatArray:
    if listening.tags is None:
        return np.zeros(len(listening.tag_labels), np.float32)
    p = np.clip(listening.tags.astype(np.float64), 1e-6, 1.0 - 1e-6)
    log_odds = np.clip(np.log(p) - np.log1p(-p), _LEAST_LOG_ODDS, _MOST_LOG_ODDS)
    return np.asarray(log_odds / 4.0, np.float32)


def _slots(listening: Listening) -> FloatArray:
    """Mean [SLOTS, D] of the frames whose middle lies in each second."""
    frames = listening.frames
    middles = (np.arange(len(frames)) + 0.5) * listening.frame_hop_s
    owner = np.minimum(middles.astype(np.int64), SLOTS - 1)
    slots = np.zeros((SLOTS, frames.shape[1]), np.float32)
    np.add.at(slots, owner, frames)
    counts = np.bincount(owner, minlength=SLOTS)
    return np.asarray(slots / np.maximum(counts, 1)[:, None], np.float32)


def _third_octaves(acoustics: Acoustics) -> FloatArray:
    levels = np.full(THIRD_OCTAVES, -100.0)
    given = acoustics.third_octave_dbfs[:THIRD_OCTAVES]
    levels[: len(given)] = given
    whole = max(acoustics.level_dbfs, -100.0)
    relative = np.maximum(np.maximum(levels, -100.0) - whole, -60.0)
    return np.concatenate([_scaled(levels), relative.astype(np.float32) / 20.0])


def _shape(acoustics: Acoustics) -> FloatArray:
    levels = (acoustics.level_dbfs, acoustics.peak_dbfs, acoustics.a_level_dbfs)
    return np.array(
        [
            *_scaled(np.array(levels)),
            np.log2(max(acoustics.centroid_hz, 50.0) / 1_000.0),
            acoustics.flatness * 4.0,
            *(min(index, 4.0) for index in acoustics.modulation),
            np.log2(max(acoustics.modulation_hz, 0.25) / 4.0) / 2.0,
            min(acoustics.modulation_depth, 4.0),
            acoustics.silent_share,
        ],
        np.float32,
    )


def _profile(profile: Profile, duration_s: float) -> FloatArray:
    decay = profile.decay_db_per_s
    return np.array(
        [
            *_scaled(np.array([profile.noise_floor_dbfs])),
            profile.noise_flatness * 2.0,
            0.0 if decay is None else np.log2(np.clip(decay, 5.0, 500.0) / 50.0),
            decay is not None,
            np.log2(max(profile.pulse_hz, 0.25) / 2.0) if profile.pulse_strength else 0.0,
            profile.pulse_strength,
            min(len(profile.onsets_s) / max(duration_s, 1.0), 6.0) / 2.0,
            duration_s / EXCERPT_S,
        ],
        np.float32,
    )


def _levels(levels_dbfs: FloatArray, slots: int) -> FloatArray:
    """Level of the mean power in each of `slots` of levels [T] or [T, 3]; the floor past the end."""
    steps = round(EXCERPT_S / slots / HOP_S)
    padded = np.zeros((slots * steps, *levels_dbfs.shape[1:]))
    given = levels_dbfs[: slots * steps].astype(np.float64)
    padded[: len(given)] = 10.0 ** (given / 10.0)
    counts = np.clip(len(given) - steps * np.arange(slots), 1, steps)
    sums = padded.reshape(slots, steps, -1).sum(axis=1) / counts[:, None]
    levels = 10.0 * np.log10(np.maximum(sums, 1e-10))
    return _scaled(levels).reshape(slots, *levels_dbfs.shape[1:])


def _rises(profile: Profile) -> FloatArray:
    slots = np.minimum(profile.onsets_s * (LEVEL_SLOTS / EXCERPT_S), LEVEL_SLOTS - 1)
    counts = np.bincount(slots.astype(np.int64), minlength=LEVEL_SLOTS)
    return counts.astype(np.float32)


def _scaled(levels_dbfs: NDArray[np.float64]) -> FloatArray:
    return np.asarray((np.clip(levels_dbfs, -100.0, 0.0) + 60.0) / 20.0, np.float32)

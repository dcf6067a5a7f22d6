"""What differs between a window and the reference window nearest to it, in figures and in words.

Nothing here is guessed: each figure is a difference of two measurements that are stored with the
windows, and is left out where one of them is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from soundpost.audio.acoustics import THIRD_OCTAVE_CENTRES_HZ

FloatArray = NDArray[np.float32]

# About what people notice side by side; smaller ones are not worth a word.
BAND_CHANGE_DB: Final = 3.0
LEVEL_CHANGE_DB: Final = 1.0
TAG_CHANGE: Final = 0.15
RATIO_CHANGE: Final = 1.15
MODULATION_DEPTH: Final = 0.1
_LEVELS = ("level_dbfs", "a_level_dbfs", "peak_dbfs")
_MEASURES = ("centroid_hz", "flatness", "modulation_hz", "modulation_depth", "onsets_per_s")
# Levels below this differ by noise of the converter alone.
_QUIET_DBFS: Final = -90.0


@dataclass(frozen=True, eq=False)
class Side:
    """One of the two windows: acoustics as stored, tags label to probability, frames [S, D]."""

    acoustics: Mapping[str, Any]
    tags: Mapping[str, float]
    frames: FloatArray


def compare(observed: Side, reference: Side) -> dict[str, Any]:
    """Return what differs, as a document: levels, bands, tags gained and lost, shape, timing.

    Levels are differences in dB, observed minus reference; other measures are given as pairs
    [reference, observed] in their own units. bands: those that changed by `BAND_CHANGE_DB` or more.
    timing: the seconds of the observed window that are farthest from the reference.
    """
    return {
        "levels_db": _level_changes(observed.acoustics, reference.acoustics),
        "bands": _band_changes(observed.acoustics, reference.acoustics),
        "measures": _pairs(observed.acoustics, reference.acoustics),
        "tags_gained": _gained(observed.tags, reference.tags),
        "tags_lost": _gained(reference.tags, observed.tags),
        "timing": _timing(observed.frames, reference.frames),
    }


def _level_changes(observed: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, float]:
    both = [name for name in _LEVELS if name in observed and name in reference]
    return {name: _change_db(observed[name], reference[name]) for name in both}


def _change_db(observed_dbfs: float, reference_dbfs: float) -> float:
    change_db = max(observed_dbfs, _QUIET_DBFS) - max(reference_dbfs, _QUIET_DBFS)
    return round(change_db, 2) + 0.0


def _band_changes(
    observed: Mapping[str, Any], reference: Mapping[str, Any]
) -> list[dict[str, float]]:
    """Bands that both have; a lower sample rate has fewer."""
    levels = zip(
        THIRD_OCTAVE_CENTRES_HZ,
        observed.get("third_octave_dbfs", ()),
        reference.get("third_octave_dbfs", ()),
        strict=False,
    )
    changes = [(centre_hz, _change_db(new, old)) for centre_hz, new, old in levels]
    return [
        {"centre_hz": round(centre_hz, 1), "change_db": change_db}
        for centre_hz, change_db in changes
        if abs(change_db) >= BAND_CHANGE_DB
    ]


def _pairs(observed: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, list[float]]:
    both = [name for name in _MEASURES if name in observed and name in reference]
    return {name: [float(reference[name]), float(observed[name])] for name in both}


def _gained(observed: Mapping[str, float], reference: Mapping[str, float]) -> list[dict[str, Any]]:
    rises = {label: value - reference.get(label, 0.0) for label, value in observed.items()}
    labels = sorted(
        (label for label in rises if rises[label] >= TAG_CHANGE), key=lambda l: -rises[l]
    )
    return [
        {
            "label": label,
            "probability": round(observed[label], 3),
            "before": round(reference.get(label, 0.0), 3),
        }
        for label in labels
    ]


def _timing(observed: FloatArray, reference: FloatArray) -> dict[str, float] | None:
    """Where in the observed window the seconds are that the reference has nothing like."""
    if not len(observed) or not len(reference):
        return None
    distance = 1.0 - (observed @ reference.T).max(axis=1)
    far = distance >= (float(distance.min()) + float(distance.max())) / 2.0
    if len(distance) == 1 or float(np.ptp(distance)) < 0.02:
        return {"from_s": 0.0, "to_s": float(len(distance))}
    seconds = np.flatnonzero(far)
    return {"from_s": float(seconds[0]), "to_s": float(seconds[-1] + 1)}


# --- in words ---------------------------------------------------------------------------------


def sentence(differences: Mapping[str, Any]) -> str:
    """Say the most telling differences in one line; "no measured difference" where there is none."""
    parts = words(differences)
    return ", ".join(parts[:5]) if parts else "no measured difference"


def words(differences: Mapping[str, Any]) -> list[str]:
    """Return the differences that are worth a word, the most telling first."""
    parts = [*_level_words(differences), *_band_words(differences), *_tag_words(differences)]
    return [*parts, *_pitch_words(differences), *_rhythm_words(differences)]


def _level_words(differences: Mapping[str, Any]) -> list[str]:
    change_db = differences.get("levels_db", {}).get("a_level_dbfs")
    if change_db is None or abs(change_db) < LEVEL_CHANGE_DB:
        return []
    return [f"{abs(change_db):.1f} dB {'louder' if change_db > 0 else 'quieter'} (A-weighted)"]


def _band_words(differences: Mapping[str, Any]) -> list[str]:
    """The widest run of neighbouring bands that rose, and of those that fell."""
    bands = differences.get("bands", [])
    said = []
    for sign, verb in ((1.0, "more"), (-1.0, "less")):
        run = _strongest_run([band for band in bands if sign * band["change_db"] > 0])
        if run:
            most_db = max(abs(band["change_db"]) for band in run)
            said.append(f"up to {most_db:.0f} dB {verb} {_band_range(run)}")
    return said


def _strongest_run(bands: Sequence[Mapping[str, float]]) -> list[Mapping[str, float]]:
    runs: list[list[Mapping[str, float]]] = []
    for band in bands:
        # Neighbours of a third of an octave are a factor of 1.26 apart.
        if runs and band["centre_hz"] < 1.4 * runs[-1][-1]["centre_hz"]:
            runs[-1].append(band)
        else:
            runs.append([band])
    return max(runs, key=lambda run: sum(abs(band["change_db"]) for band in run), default=[])


def _band_range(run: Sequence[Mapping[str, float]]) -> str:
    low, high = hertz(run[0]["centre_hz"]), hertz(run[-1]["centre_hz"])
    return f"at {low}" if low == high else f"from {low} to {high}"


def hertz(frequency_hz: float) -> str:
    """Write a frequency as people say it: 63 Hz, 2.5 kHz."""
    return f"{frequency_hz:.0f} Hz" if frequency_hz < 995.0 else f"{frequency_hz / 1e3:.2g} kHz"


def _tag_words(differences: Mapping[str, Any]) -> list[str]:
    gained = [tag["label"] for tag in differences.get("tags_gained", [])[:2]]
    lost = [tag["label"] for tag in differences.get("tags_lost", [])[:2]]
    said = [f"now sounds like {' and '.join(gained)}"] if gained else []
    return said + ([f"less like {' and '.join(lost)}"] if lost else [])


def _pitch_words(differences: Mapping[str, Any]) -> list[str]:
    old_hz, new_hz = differences.get("measures", {}).get("centroid_hz", (0.0, 0.0))
    if min(old_hz, new_hz) <= 0.0 or max(old_hz, new_hz) / min(old_hz, new_hz) < RATIO_CHANGE:
        return []
    return [f"{'brighter' if new_hz > old_hz else 'darker'} ({hertz(old_hz)} to {hertz(new_hz)})"]


def _rhythm_words(differences: Mapping[str, Any]) -> list[str]:
    measures = differences.get("measures", {})
    said = []
    old, new = measures.get("onsets_per_s", (0.0, 0.0))
    if abs(new - old) >= 1.0:
        said.append(f"{new:.1f} sudden rises a second instead of {old:.1f}")
    old_hz, new_hz = measures.get("modulation_hz", (0.0, 0.0))
    depth = max(measures.get("modulation_depth", (0.0, 0.0)))
    changed = max(old_hz, new_hz) > RATIO_CHANGE * min(old_hz, new_hz) > 0.0
    if changed and depth >= MODULATION_DEPTH:
        said.append(f"pulsing at {new_hz:.1f} Hz instead of {old_hz:.1f} Hz")
    return said

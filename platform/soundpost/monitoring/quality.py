"""Is a baseline good enough, and if not, what to record next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from soundpost.monitoring.budget import Budget
from soundpost.monitoring.contexts import local_hours
from soundpost.monitoring.novelty import Novelty
from soundpost.monitoring.observations import DoubleArray, Observations

FEWEST_WINDOWS: Final = 100
FEWEST_RECORDINGS: Final = 5
# Strangest windows in a row that the fast detector may need before it fires.
_MOST_WINDOWS_TO_FIRE = 12
# Share of the spread of scores that lies between recordings, above which they differ.
_UNSTABLE_SHARE = 0.2
_NEVER = 10_000
_HALVES_GAP = 1.0
# A recording this many robust deviations above the others does not belong to them.
_OUTLYING = 4.0
_OUTLIER_STEPS = 0.5
# Below this a recorder delivers zeros, and no room is that quiet.
_NO_SOUND_DBFS = -100.0
_SILENT_SHARE = 0.5
_SAME = 1e-6


@dataclass(frozen=True)
class QualityFinding:
    """One thing that a baseline lacks.

    code: stable. summary: what was found. remedy: what to record next, one sentence. figures: what
    it was judged by, JSON-ready.
    """

    code: str
    summary: str
    remedy: str
    figures: Mapping[str, Any]


def assess(
    reference: Observations,
    novelty: Novelty,
    timezone: str,
    budget: Budget | None = None,
) -> list[QualityFinding]:
    """Return what a baseline lacks, the gravest first; nothing where it is good enough.

    Codes: silent, identical, few-windows, few-recordings, budget-not-held, outliers, unstable, halves-differ,
    hours-missing, mixed-sample-rates. Raises InvalidValueError for an unknown timezone.
    """
    scores = novelty.leave_one_out().novelty
    found = [
        _silent(reference) or _identical(reference, scores),
        _windows(reference, budget),
        _recordings(reference),
        _budget(budget),
        _outliers(reference, scores),
        _unstable(reference, scores),
        _halves(reference, scores),
        _hours(reference, timezone),
        _rates(reference),
    ]
    return [finding for finding in found if finding is not None]


def _silent(reference: Observations) -> QualityFinding | None:
    quiet = [document["level_dbfs"] <= _NO_SOUND_DBFS for document in reference.acoustics]
    share = float(np.mean(quiet))
    if share < _SILENT_SHARE:
        return None
    return QualityFinding(
        "silent",
        f"{share:.0%} of the windows hold no sound at all: anything that is heard would be new.",
        "Check microphone, cable and recorder, then record the normal sound again.",
        {"share": round(share, 3)},
    )


def _identical(reference: Observations, scores: DoubleArray) -> QualityFinding | None:
    if float(np.ptp(scores)) > _SAME or float(np.ptp(reference.vectors, axis=0).max()) > _SAME:
        return None
    return QualityFinding(
        "identical",
        f"All {len(reference)} windows are the same: any real difference would be new.",
        "Check that the recorder does not repeat itself, then record the normal sound again.",
        {"windows": len(reference)},
    )


def _windows(reference: Observations, budget: Budget | None) -> QualityFinding | None:
    needed = budget.fast_windows if budget else 0
    if len(reference) >= FEWEST_WINDOWS and needed <= _MOST_WINDOWS_TO_FIRE:
        return None
    smallest = 1.0 / (len(reference) + 1)
    waits = f"; as strange as that, a sound must last {needed} windows" if needed else ""
    if needed > _NEVER:
        waits = "; as strange as that, a sound is not noticed however long it lasts"
    return QualityFinding(
        "few-windows",
        f"{len(reference)} windows cannot show anything rarer than 1 in {len(reference) + 1}{waits}.",
        "Record more of the normal sound, at least "
        + f"{max(FEWEST_WINDOWS, 2 * len(reference))} windows in all.",
        {"windows": len(reference), "smallest_p": smallest, "windows_to_fire": needed},
    )


def _recordings(reference: Observations) -> QualityFinding | None:
    count = len(np.unique(reference.recording_ids))
    if count >= FEWEST_RECORDINGS:
        return None
    return QualityFinding(
        "few-recordings",
        f"{count} recordings do not show how much the sound differs from one to the next.",
        f"Record at least {FEWEST_RECORDINGS - count} more at other times.",
        {"recordings": count, "needed": FEWEST_RECORDINGS},
    )


def _budget(budget: Budget | None) -> QualityFinding | None:
    if budget is None or budget.holds:
        return None
    return QualityFinding(
        "budget-not-held",
        f"False alarms are expected every {budget.measured_s / 3600:.1f} h, not every "
        + f"{budget.stated_s / 3600:.1f} h: the normal sound changes on its own.",
        "Record more of the times at which it changes, or ask for a shorter time between alarms.",
        {"stated_s": budget.stated_s, "measured_s": budget.measured_s},
    )


def _outliers(reference: Observations, scores: DoubleArray) -> QualityFinding | None:
    ids, medians = _by_recording(reference, scores)
    if len(ids) < 3:
        return None
    centre = float(np.median(medians))
    spread = 1.4826 * float(np.median(np.abs(medians - centre)))
    limit = centre + max(_OUTLYING * spread, _OUTLIER_STEPS * float(scores.std()), 1e-9)
    strange = ids[medians > limit].tolist()
    if not strange:
        return None
    names = ", ".join(str(number) for number in strange)
    return QualityFinding(
        "outliers",
        f"{len(strange)} of {len(ids)} recordings sound unlike the others: {names}.",
        "Listen to them; leave them out, or record more like them if they are normal.",
        {"recordings": strange, "median_novelty": medians[medians > limit].round(3).tolist()},
    )


def _unstable(reference: Observations, scores: DoubleArray) -> QualityFinding | None:
    total = float(scores.var())
    ids, member = np.unique(reference.recording_ids, return_inverse=True)
    if len(ids) < 2 or total <= 1e-12:
        return None
    sizes = np.bincount(member)
    means = np.bincount(member, weights=scores) / sizes
    share = float(np.average(np.square(means - scores.mean()), weights=sizes)) / total
    # What chance alone puts between recordings of this length.
    share = max(0.0, (share - (len(ids) - 1) / len(scores)))
    if share < _UNSTABLE_SHARE:
        return None
    return QualityFinding(
        "unstable",
        f"{share:.0%} of what varies lies between recordings, not within them.",
        "Record several more at other times, until new ones bring nothing new.",
        {"between_recordings": round(share, 3), "recordings": len(ids)},
    )


def _halves(reference: Observations, scores: DoubleArray) -> QualityFinding | None:
    order = np.argsort(reference.starts_s, kind="stable")
    first, last = scores[order[: len(order) // 2]], scores[order[len(order) // 2 :]]
    spread = float(np.sqrt((first.var() + last.var()) / 2.0))
    gap = abs(float(first.mean() - last.mean())) / max(spread, 1e-6)
    if gap < _HALVES_GAP or spread <= 1e-6:
        return None
    return QualityFinding(
        "halves-differ",
        f"The earlier and the later half differ by {gap:.1f} standard deviations of novelty.",
        "Record for longer, or leave out the time before the sound settled.",
        {"standard_deviations": round(gap, 3)},
    )


def _hours(reference: Observations, timezone: str) -> QualityFinding | None:
    heard = set(local_hours(reference.starts_s, timezone).tolist())
    missing = [hour for hour in range(24) if hour not in heard]
    if not missing:
        return None
    return QualityFinding(
        "hours-missing",
        f"Nothing was recorded at {_spans(missing)} ({timezone}).",
        f"Record some minutes at {_spans(missing)}, or watch at the other hours only.",
        {"hours": missing, "timezone": timezone},
    )


def _rates(reference: Observations) -> QualityFinding | None:
    bands = [len(document["third_octave_dbfs"]) for document in reference.acoustics]
    if len(set(bands)) == 1:
        return None
    low = np.array(bands) < max(bands)
    ids = np.unique(reference.recording_ids[low]).tolist()
    return QualityFinding(
        "mixed-sample-rates",
        f"Recordings of different sample rates: only {min(bands)} of {max(bands)} third octaves"
        + " can be compared.",
        "Record everything at the higher sample rate.",
        {"bands": min(bands), "most_bands": max(bands), "recordings": ids},
    )


def _by_recording(reference: Observations, scores: DoubleArray) -> tuple[np.ndarray, DoubleArray]:
    """Recording ids [R] and the median score of each [R]."""
    ids = np.unique(reference.recording_ids)
    medians = [float(np.median(scores[reference.recording_ids == number])) for number in ids]
    return ids, np.array(medians)


def _spans(hours: list[int]) -> str:
    """Hours as spans: [0, 1, 2, 7] is "0-3 h, 7-8 h"."""
    spans: list[list[int]] = []
    for hour in hours:
        if spans and spans[-1][1] == hour:
            spans[-1][1] = hour + 1
        else:
            spans.append([hour, hour + 1])
    return ", ".join(f"{start}-{end} h" for start, end in spans)

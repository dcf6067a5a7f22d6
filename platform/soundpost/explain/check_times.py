"""Checking when, how often, how fast and how high a sound is."""

from __future__ import annotations

from typing import Final

import numpy as np

from soundpost.explain.claims import Claim
from soundpost.explain.compared import Comparison
from soundpost.explain.judging import Limits, named, not_measurable
from soundpost.explain.verdict import Checked, Verdict

# Frames place a beginning within about a third of a second.
TIME_S: Final = Limits(clear=0.4, least=-0.3, same=0.4)
# Repetitions counted by their peaks, and how long they sound in all as log2 of the ratio.
COUNT: Final = Limits(clear=1.0, least=-0.5, same=0.5)
ACTIVE: Final = Limits(clear=0.25, least=0.0, same=0.2)
# log2 of the ratio of pulses a second: 0.15 is a tenth faster.
RATE: Final = Limits(clear=0.15, least=-0.15, same=0.08)
SEMITONES: Final = Limits(clear=0.75, least=-0.75, same=0.75)
# Octaves between the mean frequencies of whole recordings: 0.1 is 7 % higher.
BRIGHTNESS: Final = Limits(clear=0.1, least=0.0, same=0.05)
# Spectra that fit so well without a shift have not moved.
UNMOVED_LIKENESS: Final = 0.98
# What turns faster is higher: their pace is too quick to be counted.
TURNING: Final = frozenset(
    {"motor", "fan", "engine", "drone", "helicopter", "drilling", "chainsaw"}
)


def check_time(claim: Claim, compared: Comparison) -> Checked:
    """Check when a sound begins, from the beginning of its recording."""
    starts = compared.starts_s(claim.what)
    if starts is None:
        return not_measurable(claim, f"the beginning of {named(claim.what)} is not clear")
    first, second = starts
    measurement = {"start_1_s": first, "start_2_s": second}
    reason = (
        f"{named(claim.what)} begins {first:.1f} s into audio 1 and {second:.1f} s into audio 2"
    )
    return Checked(claim, TIME_S.verdict(second - first, claim.change), measurement, reason)


def check_count(claim: Claim, compared: Comparison) -> Checked:
    """Check how often a sound is heard: peaks counted, and how long it sounds in all."""
    (first, second), longer = compared.counts(claim.what)
    measurement = {"count_1": first, "count_2": second, "duration_ratio": float(2.0**longer)}
    reason = (
        f"{named(claim.what)} is counted {first} times in audio 1 and {second} times in audio 2"
    )
    by_count = COUNT.verdict(second - first, claim.change)
    by_length = ACTIVE.verdict(longer, claim.change)
    return Checked(claim, _agreed(by_count, by_length), measurement, reason)


def _agreed(first: Verdict, second: Verdict) -> Verdict:
    """Support where one of two witnesses does and the other does not speak against it; contradict
    only where both do."""
    if Verdict.SUPPORTED in (first, second) and Verdict.CONTRADICTED not in (first, second):
        return Verdict.SUPPORTED
    both = first is second is Verdict.CONTRADICTED
    return Verdict.CONTRADICTED if both else Verdict.NOT_MEASURABLE


def check_rate(claim: Claim, compared: Comparison) -> Checked:
    """Check how fast a sound goes: its pulses a second, or its pitch where it turns."""
    rates = compared.rates_hz(claim.what)
    if claim.what in TURNING:
        return _check_turning(claim, compared)
    if rates is None:
        return not_measurable(claim, f"{named(claim.what)} has no clear pulse")
    first, second = rates
    verdict = RATE.verdict(float(np.log2(second / first)), claim.change)
    reason = (
        f"{named(claim.what)} pulses {first:.1f} times a second in audio 1, {second:.1f} in audio 2"
    )
    return Checked(claim, verdict, {"rate_1_hz": first, "rate_2_hz": second}, reason)


def _check_turning(claim: Claim, compared: Comparison) -> Checked:
    shift = compared.pitch(claim.what)
    measurement = {"shift_semitones": shift.semitones, "likeness": shift.likeness}
    if shift.semitones == 0.0:
        return not_measurable(
            claim, f"the pitch of {named(claim.what)} does not move", **measurement
        )
    reason = f"the pitch of {named(claim.what)} moves by {shift.semitones:+.1f} semitones"
    return Checked(claim, SEMITONES.verdict(shift.semitones, claim.change), measurement, reason)


def check_pitch(claim: Claim, compared: Comparison) -> Checked:
    """Check by how many semitones the spectrum of a sound moved, or how bright the whole is."""
    if claim.what is None:
        return _check_brightness(claim, compared)
    shift = compared.pitch(claim.what)
    measurement = {"shift_semitones": shift.semitones, "likeness": shift.likeness}
    reason = f"the spectrum of {named(claim.what)} moves by {shift.semitones:+.1f} semitones"
    if shift.semitones != 0.0:
        return Checked(claim, SEMITONES.verdict(shift.semitones, claim.change), measurement, reason)
    if shift.likeness < UNMOVED_LIKENESS:
        return not_measurable(claim, f"no shift of {named(claim.what)} fits", **measurement)
    verdict = Verdict.SUPPORTED if claim.change == 0 else Verdict.CONTRADICTED
    return Checked(claim, verdict, measurement, reason)


def _check_brightness(claim: Claim, compared: Comparison) -> Checked:
    """A filter or another sound makes the whole brighter, and nothing of it higher."""
    first, second = compared.centroids_hz()
    measurement = {"centroid_1_hz": first, "centroid_2_hz": second}
    reason = f"the mean frequency is {first:.0f} Hz in audio 1 and {second:.0f} Hz in audio 2"
    verdict = BRIGHTNESS.verdict(float(np.log2(second / first)), claim.change)
    return Checked(claim, verdict, measurement, reason)

"""Checking claims against the recordings they speak of.

Events are checked against what the frozen encoder hears, everything else against measurements of
the two recordings. A claim that is wrong beyond doubt is contradicted; what lies between is not
measurable, and nothing is held against it. The limits were set on pairs of the training and
development folds whose difference is known (`python -m soundpost.evaluation.claim_checking`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from soundpost.explain.check_events import check_event, doubted, unheard
from soundpost.explain.check_sounds import check_band, check_level, check_noise, check_reverb
from soundpost.explain.check_times import check_count, check_pitch, check_rate, check_time
from soundpost.explain.claims import Attribute, Claim
from soundpost.explain.compared import Comparison
from soundpost.explain.ear import ear_of
from soundpost.explain.listening import Listening
from soundpost.explain.nothing import check_nothing
from soundpost.explain.verdict import Checked, Verdict
from soundpost.models.encoder import AudioTextEncoder

__all__ = ["Checked", "Verdict", "check", "check_one"]

_CHECKERS: Mapping[Attribute, Callable[[Claim, Comparison], Checked]] = {
    Attribute.EVENT: check_event,
    Attribute.LEVEL: check_level,
    Attribute.BAND: check_band,
    Attribute.REVERB: check_reverb,
    Attribute.NOISE: check_noise,
    Attribute.TIME: check_time,
    Attribute.COUNT: check_count,
    Attribute.RATE: check_rate,
    Attribute.PITCH: check_pitch,
    Attribute.NOTHING: check_nothing,
}
# Of these a sound must be heard before anything can be measured of it.
_OF_SOUNDS = frozenset(
    {Attribute.LEVEL, Attribute.TIME, Attribute.COUNT, Attribute.RATE, Attribute.PITCH}
)


def check(
    claims: Iterable[Claim], first: Listening, second: Listening, encoder: AudioTextEncoder
) -> tuple[Checked, ...]:
    """Check claims on audio 1 and audio 2, in the order given."""
    compared = Comparison(first, second, ear_of(encoder))
    return tuple(check_one(claim, compared) for claim in claims)


def check_one(claim: Claim, compared: Comparison) -> Checked:
    """Check one claim."""
    if claim.attribute not in _OF_SOUNDS or claim.what is None:
        return _CHECKERS[claim.attribute](claim, compared)
    missing = unheard(claim, compared)
    return missing if missing is not None else _check_sound(claim, compared)


def _check_sound(claim: Claim, compared: Comparison) -> Checked:
    """Check what is claimed of a sound: where it may be another one, nothing supports the claim."""
    found = _CHECKERS[claim.attribute](claim, compared)
    doubt = doubted(claim, compared)
    if found.verdict is Verdict.SUPPORTED and doubt:
        return replace(found, verdict=Verdict.NOT_MEASURABLE, reason=doubt)
    return found

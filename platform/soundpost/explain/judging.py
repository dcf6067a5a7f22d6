"""Turning a measured change into a verdict on a claim of a direction."""

from __future__ import annotations

from dataclasses import dataclass

from soundpost.explain.claims import Claim
from soundpost.explain.lexicon import event_of
from soundpost.explain.verdict import Checked, Verdict


@dataclass(frozen=True)
class Limits:
    """From `clear` on a change in the direction of a claim supports it, below `least` it speaks
    against it. A claim of sameness is supported below `same`, and contradicted from `clear` on.
    """

    clear: float
    least: float
    same: float

    def verdict(self, change: float, sign: int) -> Verdict:
        """Judge a change, audio 2 minus audio 1, by the sign that a claim gives it."""
        if sign == 0:
            return _between(-abs(change), -self.same, -self.clear)
        return _between(sign * change, self.clear, self.least)


def _between(value: float, clear: float, least: float) -> Verdict:
    if value >= clear:
        return Verdict.SUPPORTED
    return Verdict.CONTRADICTED if value < least else Verdict.NOT_MEASURABLE


def named(what: str | None) -> str:
    """Say what a claim speaks of: "the dog", "the whole"."""
    if what is None:
        return "the whole"
    event = event_of(what)
    return event.the_thing if event else f"the {what}"


def not_measurable(claim: Claim, reason: str, **measurement: float) -> Checked:
    """Return a claim that cannot be checked, with the reason."""
    return Checked(claim, Verdict.NOT_MEASURABLE, measurement, reason)

"""Checking that a sound is heard where a claim says so."""

from __future__ import annotations

from typing import Final

import numpy as np

from soundpost.explain.claims import Claim, Direction
from soundpost.explain.compared import Comparison
from soundpost.explain.judging import named
from soundpost.explain.lexicon import event_of
from soundpost.explain.verdict import Checked, Verdict

# Probabilities of `ear.Ear`. On the development folds 93 % of the sounds that are there lie above
# HEARD, 1 % below UNHEARD; of those that are not there 2 % and 87 %.
HEARD: Final = 0.5
UNHEARD: Final = 0.06
# Of a sound that neither the lexicon nor AudioSet knows the words alone must be far off.
UNHEARD_UNKNOWN: Final = 0.02
# "Only here" is right where the sound is so much less likely there, in log odds ...
CLEAR_DROP: Final = 2.0
# ... and wrong where it is as likely as here, within so much.
NO_DROP: Final = 0.5


def check_event(claim: Claim, compared: Comparison) -> Checked:
    """Check where a sound is heard: ONLY, PRESENT, ABSENT of audio 1 or 2, or of both (0)."""
    what = claim.what or ""
    here, there = _here_and_there(claim, compared.heard(what))
    measurement = {"heard_here": here, "heard_there": there}
    verdict = _VERDICTS.get(claim.direction, _same)(what, here, there, claim.audio)
    return Checked(claim, verdict, measurement, _reason(claim, here, there))


def unheard(claim: Claim, compared: Comparison) -> Checked | None:
    """Contradict a claim on a sound that is in neither recording, or hardly in one; else None."""
    what = claim.what or ""
    first, second = compared.heard(what)
    measurement = {"heard_1": first, "heard_2": second}
    limit = _absent_below(what)
    if max(first, second) < limit:
        reason = f"{named(what)} is heard in neither recording"
        return Checked(claim, Verdict.CONTRADICTED, measurement, reason)
    if min(first, second) < limit:
        where = "audio 1" if first < second else "audio 2"
        reason = f"{named(what)} is not heard in {where}, so nothing of it can be compared"
        return Checked(claim, Verdict.NOT_MEASURABLE, measurement, reason)
    return None


def _here_and_there(claim: Claim, heard: tuple[float, float]) -> tuple[float, float]:
    """Return probabilities in the claim's audio and the other; of both the worse comes first."""
    if claim.audio == 0:
        return min(heard), max(heard)
    return heard if claim.audio == 1 else heard[::-1]


def _absent_below(what: str) -> float:
    return UNHEARD if event_of(what) else UNHEARD_UNKNOWN


def _present(what: str, here: float, there: float, audio: int) -> Verdict:
    if here >= HEARD:
        return Verdict.SUPPORTED
    return Verdict.CONTRADICTED if here < _absent_below(what) else Verdict.NOT_MEASURABLE


def _absent(what: str, here: float, there: float, audio: int) -> Verdict:
    # Said of both, the one in which it is most likely decides.
    heard = there if audio == 0 else here
    if heard < _absent_below(what):
        return Verdict.SUPPORTED
    return Verdict.CONTRADICTED if heard >= HEARD else Verdict.NOT_MEASURABLE


def _only(what: str, here: float, there: float, audio: int) -> Verdict:
    drop = _log_odds(here) - _log_odds(there)
    if here < _absent_below(what):
        return Verdict.CONTRADICTED
    if here >= HEARD and there < HEARD and drop >= CLEAR_DROP:
        return Verdict.SUPPORTED
    if drop < 0.0 or (min(here, there) >= HEARD and drop < NO_DROP):
        return Verdict.CONTRADICTED
    return Verdict.NOT_MEASURABLE


def _same(what: str, here: float, there: float, audio: int) -> Verdict:
    return _present(what, min(here, there), max(here, there), 0)


_VERDICTS = {
    Direction.PRESENT: _present,
    Direction.ABSENT: _absent,
    Direction.ONLY: _only,
}


def _log_odds(probability: float) -> float:
    p = min(max(probability, 1e-6), 1.0 - 1e-6)
    return float(np.log(p) - np.log1p(-p))


def _reason(claim: Claim, here: float, there: float) -> str:
    if claim.audio == 0:
        return f"{named(claim.what)} is heard with a probability of at least {here:.2f} in both"
    other = 3 - claim.audio
    where = f"{here:.2f} in audio {claim.audio}, of {there:.2f} in audio {other}"
    return f"{named(claim.what)} is heard with a probability of {where}"

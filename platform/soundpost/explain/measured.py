"""What the measurements alone say of two recordings: a summary in numbers, and texts of claims.

The summary always stands beside what a model wrote. The texts take its place where it was wrong:
every claim in them was measured and is clear by a margin, so they say less. When and how a single
sound differs is not among them: that takes knowing which one it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np

from soundpost.audio.differences import Side, compare, words
from soundpost.explain.check import check, check_one
from soundpost.explain.check_events import only_score
from soundpost.explain.claim import direction_of
from soundpost.explain.claims import Attribute, Claim, Direction, parse
from soundpost.explain.compared import Comparison, falls_db, noise_change_db
from soundpost.explain.ear import ear_of
from soundpost.explain.lexicon import EVENTS
from soundpost.explain.listening import Listening
from soundpost.explain.nothing import alike
from soundpost.explain.phrasing import AUDIO_NAMES, place, sentence
from soundpost.explain.phrasing import compare as comparing
from soundpost.explain.profile import BAND_NAMES
from soundpost.explain.verdict import Verdict
from soundpost.models.encoder import AudioTextEncoder

__all__ = ["alike", "compose", "left_out", "measurements", "nothing_differs", "summary"]

# How many differences a tier tells of.
DIFFERENCES: Final = {1: 2, 2: 4, 3: 6}
# Composed claims are clear by these: twice and more what a claim of a model needs.
# Of the sounds of the lexicon the one that is likeliest in one recording alone: from these log odds on
# it is the right one in four of five pairs of the development folds, the second in one of two.
SURELY_ONLY: Final = 5.0
LEVEL_DB: Final = 2.0
BAND_DB: Final = 6.0
NOISE_DB: Final = 6.0
FALL_DB: Final = 5.0
# At most so many differences are added to what a model wrote.
MOST_ADDED: Final = 2
_EITHER_WAY: Final = 0
# Wordings are drawn, but always the same ones: the same sound is explained in the same words.
_SEED: Final = 6
_NOTHING: Final = {
    1: "No audible difference between the two recordings.",
    2: "There is no audible difference between the two recordings: they have the same sounds at "
    "the same time.",
    3: "There is no audible difference between the two recordings. They have the same sounds at "
    "the same time, and what little differs in level is too small to be heard.",
}
_NOTHING_CLEAR: Final = "Nothing that differs is clear enough to be named."


# --- the summary ----------------------------------------------------------------------------------


def summary(first: Listening, second: Listening) -> str:
    """Say in one sentence, in numbers with units, how audio 2 differs from audio 1."""
    if alike(first, second):
        return "Measured on audio 2 against audio 1: no audible difference."
    parts = [*words(_compared(first, second)), *_floor_words(first, second)]
    parts += _duration_words(first, second)
    said = ", ".join(parts) if parts else "no measured difference"
    return f"Measured on audio 2 against audio 1: {said}."


def measurements(first: Listening, second: Listening) -> dict[str, Any]:
    """Return the measured differences as a document, audio 2 minus audio 1."""
    falls, noise_db = falls_db(first, second), noise_change_db(first, second)
    return _compared(first, second) | {
        "noise_floor_db": None if noise_db is None else round(noise_db, 2),
        "fall_db": None if falls is None else [round(fall, 2) for fall in falls],
        "durations_s": [round(first.duration_s, 3), round(second.duration_s, 3)],
    }


def _compared(first: Listening, second: Listening) -> dict[str, Any]:
    return compare(_side(second), _side(first))


def _side(one: Listening) -> Side:
    tags = {} if one.tags is None else dict(zip(one.tag_labels, one.tags.tolist(), strict=True))
    step = max(round(1.0 / one.frame_hop_s), 1)
    seconds = [one.frames[at : at + step].mean(axis=0) for at in range(0, len(one.frames), step)]
    return Side(one.acoustics.to_document(), tags, np.asarray(seconds, np.float32))


def _floor_words(first: Listening, second: Listening) -> Iterator[str]:
    change_db = noise_change_db(first, second) or 0.0
    if abs(change_db) >= NOISE_DB / 2.0:
        yield f"noise floor {abs(change_db):.0f} dB {'higher' if change_db > 0 else 'lower'}"
    falls = falls_db(first, second)
    if falls is not None and abs(falls[1] - falls[0]) >= FALL_DB / 2.0:
        yield (
            f"levels fall by {falls[1]:.0f} dB within 0.4 s of loud moments "
            f"instead of by {falls[0]:.0f} dB"
        )


def _duration_words(first: Listening, second: Listening) -> Iterator[str]:
    if abs(first.duration_s - second.duration_s) >= 0.1:
        yield f"{second.duration_s:.1f} s long instead of {first.duration_s:.1f} s"


# --- texts of measured claims ---------------------------------------------------------------------


def nothing_differs(tier: int) -> str:
    """Say that nothing can be told apart."""
    return _NOTHING[tier]


def compose(first: Listening, second: Listening, encoder: AudioTextEncoder, tier: int) -> str:
    """Write what surely differs; every claim in the text is measured and supported."""
    if alike(first, second):
        return nothing_differs(tier)
    comparison = Comparison(first, second, ear_of(encoder))
    claims = [*_only(comparison), *_of_whole(comparison)]
    said = _said(claims, comparison, encoder)[: DIFFERENCES[tier]]
    return " ".join(said or [_NOTHING_CLEAR])


def left_out(
    told: Iterable[Claim], first: Listening, second: Listening, encoder: AudioTextEncoder
) -> list[str]:
    """Return sentences on how the recordings as wholes surely differ, of which nothing was told.

    Not what follows from what was told: a sound that is added makes it louder.
    """
    told = list(told)
    known = {(claim.attribute, claim.what) for claim in told}
    if Attribute.NOTHING in {attribute for attribute, _ in known}:
        return []
    comparison = Comparison(first, second, ear_of(encoder))
    new = [
        one
        for one in _of_whole(comparison)
        if (one.attribute, one.what) not in known and not _follows(one, told)
    ]
    return _said(new, comparison, encoder)[:MOST_ADDED]


def _follows(one: Claim, told: Iterable[Claim]) -> bool:
    """Say whether a change of level, of all or of a band, may follow from what was told."""
    if one.attribute not in (Attribute.LEVEL, Attribute.BAND):
        return False
    return any(_raises(claim) in (one.change, _EITHER_WAY) for claim in told)


def _raises(claim: Claim) -> int | None:
    """Return which way a told difference moves the level of audio 2; None for not at all."""
    if claim.attribute is Attribute.EVENT and claim.direction is Direction.ONLY:
        return 1 if claim.audio == 2 else -1
    if claim.attribute in (Attribute.PITCH, Attribute.RATE):
        return _EITHER_WAY
    return claim.change if claim.attribute in (Attribute.LEVEL, Attribute.COUNT) else None


def _said(claims: Iterable[Claim], comparison: Comparison, encoder: AudioTextEncoder) -> list[str]:
    """Put claims into sentences, and keep those whose claims are supported as they are read."""
    rng = np.random.default_rng(_SEED)
    texts = [
        sentence(_worded(one, rng))
        for one in claims
        if check_one(one, comparison).verdict is Verdict.SUPPORTED
    ]
    return [text for text in texts if _stands(text, *comparison.both, encoder)]


def _stands(text: str, first: Listening, second: Listening, encoder: AudioTextEncoder) -> bool:
    """Say whether a sentence is read as claims that are all supported."""
    checked = check(parse(text), first, second, encoder)
    return bool(checked) and all(one.verdict is Verdict.SUPPORTED for one in checked)


def _worded(claim: Claim, rng: np.random.Generator) -> str:
    if claim.attribute is Attribute.EVENT:
        return place(claim.what or "", claim.direction, claim.audio, AUDIO_NAMES, rng)
    what, attribute, direction = claim.what, claim.attribute, claim.direction
    return comparing(what, attribute, direction, claim.audio, AUDIO_NAMES, rng)


def _only(comparison: Comparison) -> Iterator[Claim]:
    """Claim of each audio the sound that is most surely in it alone, if one is."""
    for one in comparison.both:
        comparison.ear.prepare(one, EVENTS)
    for audio in (1, 2):
        scores = {what: only_score(comparison, what, audio) for what in EVENTS}
        best = max(scores, key=lambda what: scores[what])
        if scores[best] >= SURELY_ONLY:
            yield Claim(audio, best, Attribute.EVENT, Direction.ONLY)


def _of_whole(comparison: Comparison) -> Iterator[Claim]:
    first, second = comparison.levels_dbfs(None)
    yield from _directed(None, Attribute.LEVEL, second - first, LEVEL_DB)
    noise_db = noise_change_db(*comparison.both) or 0.0
    yield from _directed(None, Attribute.NOISE, noise_db, NOISE_DB)
    for name in BAND_NAMES:
        rise_db, relative_db = comparison.band_db(name)
        clear_db = min(rise_db, relative_db, key=abs) if rise_db * relative_db > 0.0 else 0.0
        yield from _directed(name, Attribute.BAND, clear_db, BAND_DB)
    falls = comparison.falls_db()
    # Noise and other sounds fill pauses too: only where nothing else changed is it the room.
    if falls is not None and abs(noise_db) < NOISE_DB / 2.0:
        yield from _directed(None, Attribute.REVERB, falls[0] - falls[1], FALL_DB)


def _directed(
    what: str | None, attribute: Attribute, change: float, least: float
) -> Iterator[Claim]:
    """Claim of audio 2 what a change says, if it is large enough."""
    if abs(change) >= least:
        yield Claim(2, what, attribute, direction_of(attribute, 1 if change > 0 else -1))

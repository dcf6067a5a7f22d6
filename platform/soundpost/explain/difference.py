"""Explaining how two recordings differ, in words of which each is checked.

A model writes three tiers (ADIFF, arXiv 2502.04476). What it claims is checked against the two
recordings; a text with a contradicted claim is written again without it, at most twice. Then the
clauses that are at fault are dropped where the rest stands on its own, and where it does not,
the text is composed of measurements alone. Where the recordings as wholes differ beyond doubt and
the model left that out, a sentence is added, and the explanation says which. Recordings that cannot
be told apart are never shown to the model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final

from soundpost.audio.windows import resample
from soundpost.config import Settings
from soundpost.errors import ExplainerMismatchError, ExplainerNotFoundError
from soundpost.explain.audio_vector import audio_vector, width
from soundpost.explain.check import check
from soundpost.explain.check_events import UNHEARD
from soundpost.explain.claims import Attribute, Claim, parse
from soundpost.explain.ear import ear_of
from soundpost.explain.excerpts import Excerpt, check_excerpt, choose
from soundpost.explain.explanation import BY_MEASUREMENTS, BY_MODEL, Explanation, TierText
from soundpost.explain.lexicon import event_of
from soundpost.explain.listening import Listening, listen
from soundpost.explain.measured import (
    alike,
    compose,
    left_out,
    measurements,
    nothing_differs,
    summary,
)
from soundpost.explain.phrasing import sentence
from soundpost.explain.verdict import Checked, Verdict
from soundpost.explain.writing import DifferenceWriter, FixedWriter, WrittenText
from soundpost.models.encoder import AudioTextEncoder
from soundpost.models.shipped import SHIPPED_ADIFF

if TYPE_CHECKING:
    from soundpost.models.adiff_writer import AdiffWriter

__all__ = [
    "DifferenceExplainer",
    "DifferenceWriter",
    "Excerpt",
    "Explanation",
    "FixedWriter",
    "TierText",
    "load_explainer",
]

TIERS: Final = (1, 2, 3)
MOST_ATTEMPTS: Final = 3
# What cannot be measured is kept only where the writer itself was so sure of it: the geometric mean of
# the probabilities of its tokens. On development pairs nine of ten such claims were false below .4, and
# still four of five above.
LEAST_SURE: Final = 0.95
# What stands for the model where measurements alone speak.
MEASURED_NAME: Final = "measurements"
MEASURED_REVISION: Final = "1"

# A quote of fewer words is a name, which may be right in another place.
_TELLING_WORDS: Final = 3
_CLAUSE_END = re.compile(r"[.!?;,](?=\s|$)")
# Where one statement ends and the next begins, with what joins them.
_STATEMENT_END = re.compile(
    r"(?:[.!?;]|,?(?=\s+(?:while|whereas|although)\s))(?:\s+(?:while|whereas|although))?(?:\s+|$)"
)


class DifferenceExplainer:
    """Explains with one encoder, and a writer or (None) measurements alone."""

    def __init__(self, encoder: AudioTextEncoder, writer: DifferenceWriter | None) -> None:
        self.encoder = encoder
        self.writer = writer

    @property
    def name(self) -> str:
        """What writes."""
        return MEASURED_NAME if self.writer is None else self.writer.name

    @property
    def revision(self) -> str:
        """Which one exactly."""
        return MEASURED_REVISION if self.writer is None else self.writer.revision

    def explain(self, first: Excerpt, second: Excerpt, tiers: Sequence[int] = TIERS) -> Explanation:
        """Say how the second recording differs from the first; of long ones a stretch of each.

        Raises NoSamplesError, TooShortError, NonFiniteSamplesError.
        """
        for one in (first, second):
            check_excerpt(one)
        one, other = choose(first, second)
        heard = self._listen(one, other)
        spec = self.encoder.spec
        texts = self._told(heard, tiers)
        by_model = any(text.written_by == BY_MODEL for text in texts.values())
        return Explanation(
            tiers=texts,
            summary=summary(*heard),
            compared=(one.span_s, other.span_s),
            model=self.name if by_model else None,
            revision=self.revision if by_model else None,
            encoder=spec.name,
            encoder_revision=spec.revision,
            measurements=measurements(*heard),
        )

    def _listen(self, first: Excerpt, second: Excerpt) -> tuple[Listening, Listening]:
        rate_hz = max(first.rate_hz, second.rate_hz)
        waves = [resample(one.wave, one.rate_hz, rate_hz) for one in (first, second)]
        heard = listen(self.encoder, waves, rate_hz)
        return heard[0], heard[1]

    def _told(
        self, heard: tuple[Listening, Listening], tiers: Sequence[int]
    ) -> dict[int, TierText]:
        if alike(*heard):
            return {tier: self._measured(heard, nothing_differs(tier)) for tier in tiers}
        if self.writer is None:
            return {tier: self._composed(heard, tier) for tier in tiers}
        return _Drafting(self.encoder, self.writer, heard, tiers).texts()

    def _composed(self, heard: tuple[Listening, Listening], tier: int) -> TierText:
        return self._measured(heard, compose(*heard, self.encoder, tier))

    def _measured(self, heard: tuple[Listening, Listening], text: str) -> TierText:
        return TierText(text, check(parse(text), *heard, self.encoder), BY_MEASUREMENTS)


@dataclass
class _Draft:
    """One text of a tier with its claims, and those of them that cannot be kept."""

    text: str
    claims: tuple[Checked, ...]
    wrong: tuple[Checked, ...]

    @property
    def stands(self) -> bool:
        """Whether it says something, and nothing that is wrong."""
        return bool(self.claims) and not self.wrong


@dataclass
class _Tier:
    """What was written for a tier so far, and what may not be written again."""

    tier: int
    drafts: list[_Draft] = field(default_factory=list)
    excluded: list[str] = field(default_factory=list)


class _Drafting:
    """Has the tiers of one pair written, checked and written again."""

    def __init__(
        self,
        encoder: AudioTextEncoder,
        writer: DifferenceWriter,
        heard: tuple[Listening, Listening],
        tiers: Sequence[int],
    ) -> None:
        self._encoder, self._writer, self._heard = encoder, writer, heard
        self._first, self._second = (audio_vector(one) for one in heard)
        self._tiers = [_Tier(tier) for tier in tiers]
        self._banned: dict[str, None] = {}

    def texts(self) -> dict[int, TierText]:
        """Return the text of each tier."""
        for _ in range(MOST_ATTEMPTS):
            open_tiers = [one for one in self._tiers if not one.drafts or not one.drafts[-1].stands]
            if not open_tiers:
                break
            self._write(open_tiers)
        return {one.tier: self._best(one) for one in self._tiers}

    def _write(self, tiers: Sequence[_Tier]) -> None:
        numbers = [one.tier for one in tiers]
        banned = tuple(self._banned)
        written = self._writer.write(self._first, self._second, numbers, banned=banned)
        for one, text in zip(tiers, written, strict=True):
            draft = self._checked(text)
            one.drafts.append(draft)
            one.excluded += [_clause(draft.text, claim.claim) for claim in draft.wrong]
            phrases = (self._phrases(claim, draft.text) for claim in draft.wrong)
            self._banned |= dict.fromkeys(chain.from_iterable(phrases))

    def _checked(self, written: WrittenText) -> _Draft:
        claims = check(parse(written.text), *self._heard, self._encoder)
        wrong = tuple(one for one in claims if self._is_wrong(one, written))
        return _Draft(written.text, claims, wrong)

    def _is_wrong(self, one: Checked, written: WrittenText) -> bool:
        if one.verdict is Verdict.CONTRADICTED:
            return True
        unsure = written.probability(one.claim.start, one.claim.end) < LEAST_SURE
        return unsure and one.verdict is Verdict.NOT_MEASURABLE

    def _phrases(self, wrong: Checked, text: str) -> Iterator[str]:
        """What must not be written again: the words, and the name of a sound that is not there."""
        yield _clause(text, wrong.claim)
        event = event_of(wrong.claim.what or "")
        if wrong.claim.attribute is Attribute.EVENT and event is not None:
            ear = ear_of(self._encoder)
            if max(ear.probability(one, event.key) for one in self._heard) < UNHEARD:
                yield event.thing

    def _best(self, one: _Tier) -> TierText:
        last = one.drafts[-1]
        rests = [rest for draft in one.drafts if (rest := self._rest(draft)) is not None]
        # Kept from a phrase, a network finds others that say the same and are not understood: of a text
        # that was written again nothing is believed but what was checked.
        whole = last.stands and len(one.drafts) == 1
        kept = last if whole else max(rests, key=_supported, default=None)
        excluded, attempts = tuple(dict.fromkeys(one.excluded)), len(one.drafts)
        if kept is not None:
            return self._completed(kept, attempts, excluded)
        text = compose(*self._heard, self._encoder, one.tier)
        claims = check(parse(text), *self._heard, self._encoder)
        return TierText(text, claims, BY_MEASUREMENTS, attempts, excluded)

    def _completed(self, kept: _Draft, attempts: int, excluded: tuple[str, ...]) -> TierText:
        """Add what is measured beyond doubt and was left out; what was written stays as it is."""
        told = [one.claim for one in kept.claims]
        added = tuple(left_out(told, *self._heard, self._encoder))
        text = " ".join([kept.text, *added])
        claims = check(parse(text), *self._heard, self._encoder) if added else kept.claims
        return TierText(text, claims, BY_MODEL, attempts, excluded, added)

    def _rest(self, draft: _Draft) -> _Draft | None:
        """Return the statements of a draft that claim something and nothing wrong; None without any."""
        kept = [
            sentence(text)
            for start, text in _statements(draft.text)
            if _within(start, text, draft.claims) and not _within(start, text, draft.wrong)
        ]
        text = " ".join(kept)
        claims = check(parse(text), *self._heard, self._encoder)
        # A statement may say something else when it stands alone; then it is left out, too.
        if any(one.verdict is not Verdict.SUPPORTED for one in claims):
            return None
        rest = _Draft(text, claims, ())
        return rest if _supported(rest) else None


def _within(start: int, text: str, claims: Sequence[Checked]) -> bool:
    """Say whether any claim lies in a statement that starts there."""
    return any(start <= one.claim.start < start + len(text) for one in claims)


def _clause(text: str, claim: Claim) -> str:
    """Return the words of a claim up to the end of their clause: in which audio, than in which.

    Where the quote is but a name, from the beginning of the clause.
    """
    end = _CLAUSE_END.search(text, claim.end)
    stop = end.start() if end else len(text)
    begun = [match.end() for match in _CLAUSE_END.finditer(text, 0, claim.start)]
    named = len(claim.quote.split()) < _TELLING_WORDS
    start = begun[-1] if named and begun else 0 if named else claim.start
    return text[start:stop].strip()


def _supported(draft: _Draft) -> int:
    """Count the differences in a text that the recordings bear out."""
    return sum(
        one.verdict is Verdict.SUPPORTED and one.claim.direction.value not in ("present", "same")
        for one in draft.claims
    )


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Yield each statement of a text, without what ends it, with where it starts."""
    start = 0
    for end in _STATEMENT_END.finditer(text):
        if text[start : end.start()].strip():
            yield start, text[start : end.start()]
        start = end.end()
    if text[start:].strip():
        yield start, text[start:]


# --- loading --------------------------------------------------------------------------------------


def load_explainer(settings: Settings, encoder: AudioTextEncoder) -> DifferenceExplainer:
    """Load what the settings name as explainer, over an encoder.

    "auto" is the shipped network where it fits the encoder, else measurements alone; "off" is these;
    anything else is a folder. Raises ExplainerNotFoundError for a folder without one,
    ExplainerMismatchError for one that does not fit, BrokenCheckpointError for one that is broken.
    """
    if settings.explainer == "off":
        return DifferenceExplainer(encoder, None)
    if settings.explainer == "auto":
        return DifferenceExplainer(encoder, _shipped(encoder))
    folder = Path(settings.explainer)
    if not (folder / "model.safetensors").is_file():
        raise ExplainerNotFoundError(settings.explainer, "no folder with a model.safetensors")
    writer = _load(folder)
    if not _fits(writer, encoder):
        raise ExplainerMismatchError(settings.explainer, _misfit(writer, encoder))
    return DifferenceExplainer(encoder, writer)


def _shipped(encoder: AudioTextEncoder) -> AdiffWriter | None:
    if not (SHIPPED_ADIFF / "model.safetensors").is_file():
        return None
    writer = _load(SHIPPED_ADIFF)
    return writer if _fits(writer, encoder) else None


def _load(folder: Path) -> AdiffWriter:
    from soundpost.models.adiff_writer import AdiffWriter

    return AdiffWriter.load(folder)


def _fits(writer: AdiffWriter, encoder: AudioTextEncoder) -> bool:
    return writer.audio_width == _width(encoder)


def _misfit(writer: AdiffWriter, encoder: AudioTextEncoder) -> str:
    taken, given = writer.audio_width, _width(encoder)
    return f"it takes vectors of {taken}, the encoder {encoder.spec.name} gives {given}"


def _width(encoder: AudioTextEncoder) -> int:
    return width(encoder.spec.dimension, len(encoder.spec.tag_labels))

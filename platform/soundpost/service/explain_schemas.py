"""What goes over the wire of explanations and captions: seconds from the start of a recording."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from soundpost.service.schemas import Answer, Id, Query, Seconds, Shown, check_stretch

Tier = Literal[1, 2, 3]
Tiers = Annotated[list[Tier], Field(min_length=1, max_length=3)]


class Stretch(Query):
    """A part of a recording; no end: to its end."""

    recording_id: Id
    start_s: Seconds = 0.0
    end_s: Seconds | None = None

    @model_validator(mode="after")
    def check(self) -> Stretch:
        """Refuse a stretch that ends before it begins."""
        check_stretch(self.start_s, self.end_s)
        return self


class ExplainQuery(Query):
    """Two stretches; the second is told apart from the first."""

    first: Stretch
    second: Stretch
    tiers: Tiers = Field(default=[1, 2, 3])


class ExplainUpload(Query):
    """The fields that go with an uploaded recording, which is told apart from a stored one.

    recording_id, reference_start_s, reference_end_s: the stored one, audio 1. start_s, end_s: a
    stretch of the upload, audio 2. tier: one of the three, all without.
    """

    recording_id: Id
    reference_start_s: Seconds = 0.0
    reference_end_s: Seconds | None = None
    start_s: Seconds = 0.0
    end_s: Seconds | None = None
    tier: Annotated[int, Field(ge=1, le=3)] | None = None

    @model_validator(mode="after")
    def check(self) -> ExplainUpload:
        """Refuse stretches that end before they begin."""
        check_stretch(self.start_s, self.end_s)
        check_stretch(self.reference_start_s, self.reference_end_s)
        return self


class Claim(Answer):
    """Something a text claims, and what the recordings say to it.

    audio: 1, 2, or 0 for both. what: a sound, a band, or null for the whole. quote: its words, from
    character `start` to `end` of the text. measurement: numbers, units in their names.
    """

    audio: int
    what: Shown | None
    attribute: str
    direction: str
    quote: Shown
    start: int
    end: int
    verdict: Literal["supported", "contradicted", "not measurable"]
    measurement: dict[str, float]
    reason: Shown


class TierText(Answer):
    """One text: its tier, its claims, and who wrote it: the model, or measurements alone.

    excluded: what the model wrote and was taken back. added: the sentences at the end of the text
    that the model had left out, as they are measured.
    """

    tier: int
    text: Shown
    claims: list[Claim]
    written_by: str
    attempts: int
    excluded: list[Shown]
    added: list[Shown] = Field(default_factory=list)


class Explanation(Answer):
    """How the second recording differs from the first, in words whose claims were checked.

    summary: what was measured, in plain words. compared: the seconds of each that were heard.
    model, revision: what wrote the texts, null where measurements did.
    """

    tiers: list[TierText]
    summary: Shown
    measurements: dict[str, Any]
    compared: list[list[float]]
    model: Shown | None
    revision: str | None
    took_s: float


class Caption(Answer):
    """What a window sounds like; place 1 is the best of its wordings.

    similarity: the cosine of text and window in the encoder's space, null for silence.
    """

    start_s: float
    end_s: float
    place: int
    text: Shown
    similarity: float | None
    captioner: Shown
    revision: str
    created_at: datetime

"""What an explanation is: texts with checked claims, what was measured, what was compared, by whom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from soundpost.errors import InvalidValueError
from soundpost.explain.verdict import Checked, Verdict

BY_MODEL: Final = "model"
BY_MEASUREMENTS: Final = "measurements"


@dataclass(frozen=True)
class TierText:
    """The text of one tier.

    written_by: "model", or "measurements" where it was composed of these. attempts: how many texts
    the model wrote for it. excluded: what of them was taken back, as the recordings say otherwise,
    or as it cannot be measured and the model was not sure of it. added: the sentences at its end
    that were added to the model's, as they are measured.
    """

    text: str
    claims: tuple[Checked, ...]
    written_by: str = BY_MODEL
    attempts: int = 0
    excluded: tuple[str, ...] = ()
    added: tuple[str, ...] = ()

    @property
    def contradicted(self) -> bool:
        """Whether one of its claims is."""
        return any(claim.verdict is Verdict.CONTRADICTED for claim in self.claims)

    def to_document(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return {
            "text": self.text,
            "claims": [claim.to_document() for claim in self.claims],
            "written_by": self.written_by,
            "attempts": self.attempts,
            "excluded": list(self.excluded),
            "added": list(self.added),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> TierText:
        """Rebuild what `to_document` wrote."""
        return cls(
            text=str(document["text"]),
            claims=tuple(Checked.from_document(row) for row in document["claims"]),
            written_by=str(document["written_by"]),
            attempts=int(document["attempts"]),
            excluded=tuple(str(quote) for quote in document["excluded"]),
            added=tuple(str(text) for text in document.get("added", ())),
        )


@dataclass(frozen=True)
class Explanation:
    """How audio 2 differs from audio 1.

    tiers: 1 concise, 2 one extended sentence, 3 a paragraph. summary: what was measured, in plain
    words, and measurements in numbers. compared: from which second to which each was heard. model,
    revision: of the network that wrote one of the texts, None where measurements alone speak; encoder
    and encoder_revision: of the encoder that heard both.
    """

    tiers: dict[int, TierText]
    summary: str
    compared: tuple[tuple[float, float], tuple[float, float]]
    model: str | None
    revision: str | None
    encoder: str
    encoder_revision: str
    measurements: dict[str, Any] = field(default_factory=dict)

    def to_document(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return {
            "tiers": {str(tier): text.to_document() for tier, text in self.tiers.items()},
            "summary": self.summary,
            "measurements": self.measurements,
            "compared": [[round(second, 3) for second in span] for span in self.compared],
            "model": self.model,
            "revision": self.revision,
            "encoder": self.encoder,
            "encoder_revision": self.encoder_revision,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Explanation:
        """Rebuild what `to_document` wrote. Raises InvalidValueError for what is no such document."""
        try:
            first, second = ((float(a), float(b)) for a, b in document["compared"])
            return cls(
                tiers={
                    int(tier): TierText.from_document(text)
                    for tier, text in document["tiers"].items()
                },
                summary=str(document["summary"]),
                compared=(first, second),
                model=document["model"],
                revision=document["revision"],
                encoder=str(document["encoder"]),
                encoder_revision=str(document["encoder_revision"]),
                measurements=dict(document["measurements"]),
            )
        except KeyError as error:
            raise InvalidValueError(error.args[0], "missing from an explanation") from error

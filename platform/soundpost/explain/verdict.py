"""What checking a claim gives: a verdict, the measurement behind it, and the reason in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from soundpost.errors import InvalidValueError
from soundpost.explain.claims import Attribute, Claim, Direction


class Verdict(StrEnum):
    """What the recordings say to a claim."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    NOT_MEASURABLE = "not measurable"


@dataclass(frozen=True)
class Checked:
    """A claim with its verdict. measurement: numbers by name, units in the names."""

    claim: Claim
    verdict: Verdict
    measurement: dict[str, float] = field(default_factory=dict)
    reason: str = ""

    def to_document(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        rounded = {name: float(f"{value:.4g}") for name, value in self.measurement.items()}
        return asdict(self.claim) | {
            "attribute": str(self.claim.attribute),
            "direction": str(self.claim.direction),
            "verdict": str(self.verdict),
            "measurement": rounded,
            "reason": self.reason,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Checked:
        """Rebuild what `to_document` wrote. Raises InvalidValueError for what is no such document."""
        try:
            claim = Claim(
                audio=int(document["audio"]),
                what=document["what"],
                attribute=Attribute(document["attribute"]),
                direction=Direction(document["direction"]),
                quote=str(document["quote"]),
                start=int(document["start"]),
                end=int(document["end"]),
            )
            measurement = {name: float(value) for name, value in document["measurement"].items()}
            verdict = Verdict(document["verdict"])
        except KeyError as error:
            raise InvalidValueError(error.args[0], "missing from a checked claim") from error
        return cls(claim, verdict, measurement, str(document.get("reason", "")))

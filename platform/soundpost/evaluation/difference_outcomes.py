"""What was told of held-out pairs, kept as lines of JSON: scoring needs no model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from soundpost.evaluation.held_out_pairs import HeldOutPair
from soundpost.explain.claims import parse
from soundpost.explain.verdict import Checked, Verdict
from soundpost.training.pair_records import PairRecord

# The text of the network as it is; after its claims were checked, as the product has it; and what
# measurements alone say.
UNCHECKED, CHECKED, MEASURED = "unchecked", "checked", "measurements alone"
METHODS = (UNCHECKED, CHECKED, MEASURED)


class Way(NamedTuple):
    """How a pair was told: by which method, in which tier, and whether as (B, A)."""

    method: str
    tier: int
    swapped: bool = False


@dataclass(frozen=True)
class Told:
    """A text, its claims with verdicts, and how it came about.

    written_by: "model" or "measurements". attempts: how many texts the model wrote, none where it was
    not asked, as the recordings cannot be told apart.
    """

    text: str
    claims: tuple[Checked, ...]
    written_by: str = "model"
    attempts: int = 1

    @property
    def fell_back(self) -> bool:
        """Whether nothing that the model wrote was kept."""
        return self.written_by != "model" and self.attempts > 0

    def to_document(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return {
            "text": self.text,
            "claims": [claim.to_document() for claim in self.claims],
            "written_by": self.written_by,
            "attempts": self.attempts,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Told:
        """Rebuild what `to_document` wrote."""
        claims = tuple(Checked.from_document(row) for row in document["claims"])
        return cls(document["text"], claims, document["written_by"], int(document["attempts"]))


def as_told(text: str) -> Told:
    """Return a text with its claims, none of which was checked."""
    return Told(text, tuple(Checked(claim, Verdict.NOT_MEASURABLE) for claim in parse(text)))


@dataclass(frozen=True)
class Outcome:
    """A pair, and what was told of it. summary: the acoustics in plain words."""

    pair: HeldOutPair
    told: Mapping[Way, Told]
    summary: str = ""

    def to_document(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return {
            "record": self.pair.record.to_document(),
            "slot": self.pair.slot,
            "origin": self.pair.origin,
            "summary": self.summary,
            "told": [[*way, told.to_document()] for way, told in self.told.items()],
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Outcome:
        """Rebuild what `to_document` wrote."""
        record = PairRecord.from_document(document["record"])
        told = {
            Way(str(method), int(tier), bool(swapped)): Told.from_document(row)
            for method, tier, swapped, row in document["told"]
        }
        pair = HeldOutPair(record, document["slot"], document["origin"])
        return cls(pair, told, document["summary"])


def read_chunk(path: Path) -> list[Outcome] | None:
    """Return the outcomes that a file holds, None where there is none yet."""
    if not path.is_file():
        return None
    lines = path.read_text(encoding="utf-8").splitlines()
    return [Outcome.from_document(json.loads(line)) for line in lines]


def write_chunk(path: Path, outcomes: Iterable[Outcome]) -> None:
    """Write outcomes to a file, each on a line, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    lines = [json.dumps(outcome.to_document(), ensure_ascii=False) for outcome in outcomes]
    partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    partial.replace(path)

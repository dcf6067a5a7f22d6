"""The AudioSet ontology as words: names, synonyms and descriptions of 632 sound classes."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from soundpost.errors import DataMissingError


@dataclass(frozen=True)
class SoundClass:
    """One class: `name` as published, `descriptions` as phrases that could be asked for."""

    name: str
    descriptions: tuple[str, ...]

    @property
    def synonyms(self) -> tuple[str, ...]:
        """The parts of a name such as 'Laughter' or 'Fart' or 'Bicycle bell', in lower case."""
        without_notes = re.sub(r"\s*\(.*?\)", "", self.name)
        parts = [part.strip().lower() for part in without_notes.split(",")]
        return tuple(dict.fromkeys(part for part in parts if part))


def load_ontology(data: Path) -> list[SoundClass]:
    """Read the ontology. Raises DataMissingError."""
    path = data / "text" / "audioset" / "ontology.json"
    if not path.is_file():
        raise DataMissingError(path)
    entries = json.loads(path.read_text(encoding="utf-8"))
    return [SoundClass(entry["name"], _sentences(entry["description"])) for entry in entries]


def _sentences(description: str) -> tuple[str, ...]:
    sentences = re.split(r"(?<=[.;])\s+", description.strip())
    return tuple(sentence.rstrip(".;") for sentence in sentences if len(sentence) > 12)[:3]

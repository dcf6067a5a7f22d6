"""The difference explanations published with ADIFF (arXiv 2502.04476), and which are held out.

A tenth of the clips, by a hash of their names, is held out: rows about any of them are "test", all
others "train", so that no explanation of a held-out clip is ever trained on. Captions are: those of
all clips are among the texts that the encoder and the language model have read.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from soundpost.errors import DataMissingError, InvalidValueError

PARTS = ("train", "test")
_HELD_OUT = 10
FILES = (
    ("acd_val_adiff_fewwords_answer.csv", 1),
    ("acd_val_adiff_sentence_answer.csv", 2),
    ("acd_val_adiff_detail_answer.csv", 3),
    ("cld_validation_adiff_fewwords_answer.csv", 1),
    ("cld_validation_adiff_sentence_answer.csv", 2),
)


@dataclass(frozen=True)
class AdiffRow:
    """Two clips by name and caption, and what differs between them in the words of a tier."""

    clip_1: str
    clip_2: str
    caption_1: str
    caption_2: str
    tier: int
    answer: str


def adiff_rows(data: Path, part: str) -> list[AdiffRow]:
    """Return the rows of "train" or "test", in a fixed order; pairs of a clip with itself left out.

    Raises DataMissingError and InvalidValueError.
    """
    if part not in PARTS:
        raise InvalidValueError(part, f"one of {', '.join(PARTS)}")
    rows = [row for name, tier in FILES for row in _read(data / "text" / "adiff" / name, tier)]
    held_out = part == "test"
    return [
        row
        for row in rows
        if row.clip_1 != row.clip_2
        and held_out == (is_held_out(row.clip_1) or is_held_out(row.clip_2))
    ]


def is_held_out(clip: str) -> bool:
    """Say whether a clip of this name is kept for measuring."""
    name = clip.replace("\\", "/").rpartition("/")[2]
    return int.from_bytes(sha256(name.encode()).digest()[:8], "big") % _HELD_OUT == 0


def _read(path: Path, tier: int) -> list[AdiffRow]:
    if not path.is_file():
        raise DataMissingError(path)
    with path.open(newline="", encoding="utf-8") as lines:
        return [
            AdiffRow(
                row["filepath1"],
                row["filepath2"],
                row["caption1"].strip(),
                row["caption2"].strip(),
                tier,
                row["answer"].strip(),
            )
            for row in csv.DictReader(lines)
        ]

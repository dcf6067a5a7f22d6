"""The held-out tenth of the published explanations: captions in place of the recordings.

Published scores of the paper, of models hundreds of times as large and with the recordings, are in
`PUBLISHED` for orientation; what is measured here hears nothing, and only part of the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from soundpost.evaluation.difference_tables import TEXT_COLUMNS, markdown, text_cells
from soundpost.evaluation.meteor import Meteor, missing
from soundpost.models.adiff_writer import AdiffWriter
from soundpost.models.encoder import AudioTextEncoder
from soundpost.training.adiff_rows import AdiffRow, adiff_rows

FloatArray = NDArray[np.float32]

# BLEU_4 of ADIFF on recordings (arXiv 2502.04476), by dataset and tier.
PUBLISHED = {
    ("ACD", 1): 0.1476,
    ("ACD", 2): 0.2343,
    ("ACD", 3): 0.1691,
    ("CLD", 1): 0.1525,
    ("CLD", 2): 0.2450,
    ("CLD", 3): 0.1708,
}
_SEED = 11


@dataclass(frozen=True)
class TextSet:
    """Rows of one dataset and tier."""

    dataset: str
    tier: int
    rows: tuple[AdiffRow, ...]

    @property
    def groups(self) -> NDArray[np.int64]:
        """The number of each row's first clip."""
        return np.unique([row.clip_1 for row in self.rows], return_inverse=True)[1].astype(np.int64)


def text_sets(data: Path, most: int) -> list[TextSet]:
    """Return the held-out rows by dataset and tier, at most so many of each, drawn."""
    rows = adiff_rows(data, "test")
    sets = []
    for dataset, tier in PUBLISHED:
        found = [row for row in rows if row.tier == tier and dataset_of(row) == dataset]
        rng = np.random.default_rng([_SEED, tier])
        chosen = sorted(rng.permutation(len(found))[:most].tolist())
        if chosen:
            sets.append(TextSet(dataset, tier, tuple(found[place] for place in chosen)))
    return sets


def dataset_of(row: AdiffRow) -> str:
    """Return which of the published sets a row is of."""
    return "ACD" if row.clip_1.startswith("AudioCaps") else "CLD"


def write_texts(writer: AdiffWriter, encoder: AudioTextEncoder, texts: TextSet) -> list[str]:
    """Write about every row, the captions standing in for the recordings."""
    firsts, seconds = (
        _as_audio(encoder.embed_text(captions), writer.audio_width)
        for captions in (
            [row.caption_1 for row in texts.rows],
            [row.caption_2 for row in texts.rows],
        )
    )
    return [written.text for written in writer.write_many(firsts, seconds, texts.tier)]


def _as_audio(vectors: FloatArray, width: int) -> FloatArray:
    """Return audio vectors [N, A] of texts [N, D], as `explain.audio_vector.text_vector` lays out."""
    dimension = vectors.shape[1]
    rows = np.zeros((len(vectors), width), np.float32)
    rows[:, :dimension] = vectors * np.sqrt(dimension)
    rows[:, -1] = 1.0
    return rows


def lines(writer: AdiffWriter, encoder: AudioTextEncoder, sets: Sequence[TextSet]) -> list[str]:
    """Return the table of what is written of captions alone."""
    told = [(texts, write_texts(writer, encoder, texts)) for texts in sets]
    if missing():
        rows = _rows(told, None)
    else:
        with Meteor() as meteor:
            rows = _rows(told, meteor)
    header = ["captions in place of recordings", "texts", *TEXT_COLUMNS, "published BLEU_4"]
    note = (
        "One reference each. No explanation of one of the two clips was trained on; the encoder and the "
        "language model have read its captions, as all others. The published figures are of the full-size model on the recordings "
        "themselves (and of the test part): for orientation."
    )
    title = "### Published explanations, as text"
    return [title, "", note, "", *markdown(header, rows)]


def _rows(told: Sequence[tuple[TextSet, list[str]]], meteor: Meteor | None) -> list[list[str]]:
    rows = []
    for texts, written in told:
        answers = [[row.answer] for row in texts.rows]
        cells = text_cells(written, answers, texts.groups, meteor)
        name, published = (texts.dataset, texts.tier), PUBLISHED[texts.dataset, texts.tier]
        rows.append(["{}, tier {}".format(*name), str(len(answers)), *cells, f"{published:.3f}"])
    return rows

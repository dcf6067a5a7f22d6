"""A writer of explanations that remembers: texts are written in batches, once, and kept on disk."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from soundpost.models.adiff_writer import AdiffWriter, Written, WrittenToken

FloatArray = NDArray[np.float32]


class WrittenBefore:
    """Writes as `writer` does; what `kept` holds of the same vectors and wishes is not redone.

    kept: a folder, of which every process writes a file of its own; None for memory alone.
    """

    def __init__(self, writer: AdiffWriter, kept: Path | None = None) -> None:
        self.writer = writer
        self.name, self.revision = writer.name, writer.revision
        self._own = kept / f"{time.time_ns()}-{os.getpid()}.jsonl" if kept else None
        self._known: dict[str, Written] = {}
        for path in sorted(kept.glob("*.jsonl")) if kept else ():
            self._known |= _read(path)

    @property
    def audio_width(self) -> int:
        """How wide the audio vectors are that it takes."""
        return self.writer.audio_width

    def prepare(self, firsts: FloatArray, seconds: FloatArray, tier: int) -> None:
        """Write the likeliest text of a tier for each pair of rows of [B, A], all at once."""
        keys = [_key(a, b, tier, (), None) for a, b in zip(firsts, seconds, strict=True)]
        rows = [row for row, key in enumerate(keys) if key not in self._known]
        if rows:
            written = self.writer.write_many(firsts[rows], seconds[rows], tier)
            self._keep(zip([keys[row] for row in rows], written, strict=True))

    def write(
        self,
        first: FloatArray,
        second: FloatArray,
        tiers: Sequence[int],
        *,
        banned: Sequence[str] = (),
        seed: int | None = None,
    ) -> list[Written]:
        """Write as AdiffWriter.write does, what is not known."""
        keys = [_key(first, second, tier, banned, seed) for tier in tiers]
        new = [tier for tier, key in zip(tiers, keys, strict=True) if key not in self._known]
        if new:
            written = self.writer.write(first, second, new, banned=banned, seed=seed)
            made = [_key(first, second, tier, banned, seed) for tier in new]
            self._keep(zip(made, written, strict=True))
        return [self._known[key] for key in keys]

    def _keep(self, written: Iterable[tuple[str, Written]]) -> None:
        made = dict(written)
        self._known |= made
        if self._own is None:
            return
        self._own.parent.mkdir(parents=True, exist_ok=True)
        with self._own.open("a", encoding="utf-8") as file:
            for key, one in made.items():
                file.write(json.dumps([key, one.text, one.tokens], ensure_ascii=False) + "\n")


def _read(path: Path) -> dict[str, Written]:
    """Return the texts of a file; a last line that was cut short is left out."""
    found = {}
    for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
        key, text, tokens = json.loads(line)
        found[key] = Written(text, tuple(WrittenToken(*token) for token in tokens))
    return found


def _key(
    first: FloatArray, second: FloatArray, tier: int, banned: Sequence[str], seed: int | None
) -> str:
    digest = hashlib.sha256()
    for vector in (first, second):
        digest.update(np.ascontiguousarray(vector, np.float32).tobytes())
    digest.update(json.dumps([tier, list(banned), seed]).encode())
    return digest.hexdigest()[:32]

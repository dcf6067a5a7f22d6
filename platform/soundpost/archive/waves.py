"""Waves that are no recordings, heard as ingest hears recordings: the same windows, the same rows.

Nothing is stored. Windows that were heard before, sample for sample, are not encoded again: copies
of one recording that differ in a second cost a second.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from soundpost.archive.embed import encode_windows
from soundpost.archive.prepare import prepare_window, worth_hearing
from soundpost.archive.relay import Stopwatch
from soundpost.audio.recording import Block
from soundpost.audio.windows import WindowCut, cut_windows
from soundpost.models.encoder import AudioTextEncoder
from soundpost.store.windows import WindowRow

FloatArray = NDArray[np.float32]

# Windows in memory: some copies' worth.
_REMEMBERED = 2_000


class WaveEmbedder:
    """Turns mono waves [N] at their own rate into rows, as if each were a recording."""

    def __init__(self, encoder: AudioTextEncoder, batch_size: int = 16) -> None:
        self.windows_encoded = 0
        self._encoder = encoder
        self._batch_size = batch_size
        self._stopwatch = Stopwatch()
        self._known: dict[bytes, WindowRow] = {}

    def __call__(self, waves: Sequence[tuple[FloatArray, int]]) -> list[list[WindowRow]]:
        """Return the rows of each (wave [N], rate in Hz); an empty wave has none."""
        cuts = [[(_key(cut), cut) for cut in self._cut(*wave)] for wave in waves]
        new = {key: cut for row in cuts for key, cut in row if key not in self._known}
        self._encode(new)
        found = [[self._placed(key, cut) for key, cut in row] for row in cuts]
        while len(self._known) > _REMEMBERED:
            self._known.pop(next(iter(self._known)))
        return found

    def _cut(self, wave: FloatArray, rate_hz: int) -> Iterator[WindowCut]:
        spec = self._encoder.spec
        # Channels were mixed before, so full scale is all that is left to tell clipping by.
        block = Block(0, wave, np.abs(wave) >= 1.0)
        blocks = [block] if len(wave) else []
        return worth_hearing(cut_windows(blocks, rate_hz, spec.window_s, spec.hop_s))

    def _encode(self, new: dict[bytes, WindowCut]) -> None:
        keys = list(new)
        for first in range(0, len(keys), self._batch_size):
            batch = keys[first : first + self._batch_size]
            windows = [
                prepare_window(new[key], 0, self._encoder.spec, self._stopwatch) for key in batch
            ]
            rows = encode_windows(self._encoder, windows, self._stopwatch)
            self._known.update(zip(batch, rows, strict=True))
        self.windows_encoded += len(keys)

    def _placed(self, key: bytes, cut: WindowCut) -> WindowRow:
        return replace(self._known[key], start_s=cut.start_s, end_s=cut.end_s)


def _key(cut: WindowCut) -> bytes:
    digest = hashlib.sha256(f"{cut.sample_rate_hz} {len(cut.samples)} ".encode())
    digest.update(np.ascontiguousarray(cut.samples).tobytes())
    digest.update(cut.clipped.tobytes())
    return digest.digest()

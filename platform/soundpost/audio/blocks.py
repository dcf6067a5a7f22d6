"""From decoded channels to mono blocks, with the findings on the way."""

from __future__ import annotations

from collections.abc import Generator, Iterable

import numpy as np

from soundpost.audio.recording import Block, BoolArray, FloatArray, Remark

# Float files may be scaled like integers; what lies beyond 32 bits is no sample, and its square
# would leave float32.
_LARGEST_SAMPLE = float(1 << 32)
# A normalised recording touches full scale now and then; a clipped one stays there.
_CLIPPED_SHARE = 1e-4
# One step of 16 bits, the dither of digital silence: -90 dBFS.
_SILENT_PEAK = 1 / 32768


class BlockMaker:
    """Mixes chunks [N, channels] down to blocks of `length` samples, and watches them.

    start, end: the stretch in samples from the file's beginning. full_scale: the level that counts
    as clipped.
    """

    def __init__(self, *, start: int, end: int | None, length: int, full_scale: float) -> None:
        self.start = start
        self.end = end
        self.samples_made = 0
        self._length = length
        self._full_scale = full_scale
        self._peak = 0.0
        self._mono_peak = 0.0
        self._clipped = 0
        self._replaced = 0

    def blocks(self, chunks: Iterable[FloatArray]) -> Generator[Block]:
        """Yield blocks of equal length, the last one shorter."""
        parts: list[tuple[FloatArray, BoolArray]] = []
        held = 0
        for mono, clipped in map(self._mix, chunks):
            at = 0
            while at < len(mono):
                piece = slice(at, at + self._length - held)
                parts.append((mono[piece], clipped[piece]))
                held += len(parts[-1][0])
                at += len(parts[-1][0])
                if held == self._length:
                    yield self._join(parts)
                    parts, held = [], 0
        if parts:
            yield self._join(parts)

    def remarks(self) -> list[Remark]:
        """What was noticed in everything that was made into blocks."""
        made = self.samples_made
        found = []
        if self._replaced:
            found.append(Remark("non-finite-samples", f"{self._replaced} samples replaced by 0"))
        if made and self._clipped / made >= _CLIPPED_SHARE:
            found.append(Remark("clipped", f"{self._clipped / made:.2%} of the samples"))
        if made and self._peak <= _SILENT_PEAK:
            found.append(Remark("silent", f"peak {_to_dbfs(self._peak)}"))
        elif made and self._mono_peak <= _SILENT_PEAK:
            found.append(Remark("channels-cancel", "the mean of the channels is silent"))
        return found

    def _join(self, parts: list[tuple[FloatArray, BoolArray]]) -> Block:
        block = Block(
            start_sample=self.start + self.samples_made,
            samples=np.concatenate([mono for mono, _ in parts]),
            clipped=np.concatenate([clipped for _, clipped in parts]),
        )
        self.samples_made += len(block.samples)
        self._clipped += int(np.count_nonzero(block.clipped))
        return block

    def _mix(self, chunk: FloatArray) -> tuple[FloatArray, BoolArray]:
        mono, level = _mean_and_level(chunk)
        # A NaN anywhere makes the maximum NaN, which no comparison accepts.
        if not level.max(initial=0.0) <= _LARGEST_SAMPLE:
            mono, level = _mean_and_level(self._repair(chunk))
        self._peak = max(self._peak, float(level.max(initial=0.0)))
        self._mono_peak = max(self._mono_peak, float(np.abs(mono).max(initial=0.0)))
        return mono, level >= self._full_scale

    def _repair(self, chunk: FloatArray) -> FloatArray:
        good = np.abs(chunk) <= _LARGEST_SAMPLE
        self._replaced += int(good.size - np.count_nonzero(good))
        return np.where(good, chunk, np.float32(0.0))


def _mean_and_level(chunk: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the mean over channels [N] and the largest magnitude of any channel [N].

    Channel by channel, because a reduction over the short axis is many times slower.
    """
    channels = chunk.shape[1]
    total = chunk[:, 0].copy()
    level = np.abs(total)
    for channel in range(1, channels):
        total += chunk[:, channel]
        np.maximum(level, np.abs(chunk[:, channel]), out=level)
    return total / np.float32(channels), level


def _to_dbfs(peak: float) -> str:
    return f"{20 * np.log10(peak):.1f} dBFS" if peak > 0 else "-inf dBFS"

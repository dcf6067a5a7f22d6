"""From jobs to rows: prepared by other threads, encoded in batches here, written by the writer.

Windows of several recordings share a batch, so that many short files embed as fast as one long one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from os import cpu_count

import numpy as np

from soundpost.archive.frames import pool_frames
from soundpost.archive.plan import IngestOptions
from soundpost.archive.prepare import Job, Preparation, Prepared, PreparedEnd, PreparedWindow
from soundpost.archive.relay import Feed, Flag, Stopwatch
from soundpost.archive.writer import Encoded, Writer
from soundpost.models.encoder import AudioEncoding, AudioTextEncoder
from soundpost.store.windows import WindowRow

TAG_FLOOR = 0.1
TAGS_A_WINDOW = 10


@dataclass
class _Batch:
    """Windows for the encoder, with the ends of recordings where they fall between them."""

    items: list[Prepared] = field(default_factory=list)
    windows: int = 0

    def add(self, item: Prepared) -> None:
        self.items.append(item)
        self.windows += isinstance(item, PreparedWindow)


class Embedder:
    """Embeds recordings; `audio_done_s` counts the seconds of audio that were encoded."""

    def __init__(
        self,
        encoder: AudioTextEncoder,
        writer: Writer,
        options: IngestOptions,
        stopwatch: Stopwatch,
    ) -> None:
        self.audio_done_s = 0.0
        self._encoder = encoder
        self._writer = writer
        self._options = options
        self._stopwatch = stopwatch

    def run(self, jobs: Feed[Job], stop: Flag, after_each: Callable[[], None]) -> None:
        """Embed jobs until they are over, or until told to stop; what is encoded is handed on."""
        size = self._options.batch_size
        # Half of the cores, but two at least: behind a single one the encoder waits for every file
        # that is slow to decode.
        threads = self._options.threads or max(2, (cpu_count() or 1) // 2)
        batch = _Batch()
        with Preparation(jobs, self._encoder.spec, self._stopwatch, threads, 2 * size) as prepared:
            for item in prepared:
                if stop.is_set():
                    break
                if item is not None:
                    batch.add(item)
                if batch.windows >= size:
                    self._embed(batch)
                    batch = _Batch()
                self._writer.write_if_due(self._options.chunk_windows, self._options.chunk_s)
                after_each()
        self._embed(batch)

    def _embed(self, batch: _Batch) -> None:
        windows = [item for item in batch.items if isinstance(item, PreparedWindow)]
        rows = iter(encode_windows(self._encoder, windows, self._stopwatch))
        for item in batch.items:
            if isinstance(item, PreparedEnd):
                self._writer.end(item)
            else:
                self._writer.add(Encoded(item.recording_id, next(rows)))
                self.audio_done_s += self._new_audio_s(item)

    def _new_audio_s(self, window: PreparedWindow) -> float:
        length_s = window.end_s - window.start_s
        return length_s if window.index == 0 else min(length_s, self._encoder.spec.hop_s)


def encode_windows(
    encoder: AudioTextEncoder, windows: Sequence[PreparedWindow], stopwatch: Stopwatch
) -> list[WindowRow]:
    """Encode prepared windows as one batch, to rows as they are stored, in their order."""
    if not windows:
        return []
    spec = encoder.spec
    length = round(spec.window_s * spec.sample_rate_hz)
    waves = np.zeros((len(windows), length), dtype=np.float32)
    lengths = np.array([min(length, len(window.wave)) for window in windows], dtype=np.int64)
    for wave, window, valid in zip(waves, windows, lengths, strict=True):
        wave[:valid] = window.wave[:valid]
    with stopwatch.stage("encode"):
        encoding = encoder.encode_audio(waves, lengths)
    return [_row(encoding, row, window, spec.tag_labels) for row, window in enumerate(windows)]


def _row(
    encoding: AudioEncoding, row: int, window: PreparedWindow, labels: Sequence[str]
) -> WindowRow:
    duration_s = window.end_s - window.start_s
    return WindowRow(
        start_s=window.start_s,
        end_s=window.end_s,
        acoustics=window.acoustics,
        vector=encoding.embedding[row],
        frames=pool_frames(encoding.frames[row], encoding.frame_hop_s, duration_s),
        tags=_tags(encoding, row, labels),
    )


def _tags(encoding: AudioEncoding, row: int, labels: Sequence[str]) -> list[tuple[str, float]]:
    if encoding.tags is None or not labels:
        return []
    order = np.argsort(-encoding.tags[row], kind="stable")[:TAGS_A_WINDOW]
    likely = [(labels[column], float(encoding.tags[row, column])) for column in order]
    return [(label, probability) for label, probability in likely if probability >= TAG_FLOOR]

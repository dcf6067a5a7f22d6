"""Tell pairs of waves in every way that is compared: as written, as checked, by measurements alone."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import soundpost.explain
from soundpost.evaluation.difference_outcomes import (
    CHECKED,
    MEASURED,
    UNCHECKED,
    Told,
    Way,
    as_told,
)
from soundpost.evaluation.written_before import WrittenBefore
from soundpost.explain.audio_vector import audio_vector
from soundpost.explain.check import check
from soundpost.explain.claims import parse
from soundpost.explain.difference import DifferenceExplainer, Excerpt
from soundpost.explain.listening import Listening, listen
from soundpost.explain.measured import compose
from soundpost.models.adiff_writer import AdiffWriter
from soundpost.models.encoder import AudioEncoding, AudioTextEncoder, EncoderSpec, TextEncoding
from soundpost.training.data import SAMPLE_RATE_HZ

FloatArray = NDArray[np.float32]
Waves = tuple[FloatArray, FloatArray]

# Pairs are told the other way round in this tier alone.
_TURNED_TIER = 1
_KEPT_WINDOWS = 256


class Teller:
    """Tells pairs with one encoder and one network; kept: a folder for what the network wrote."""

    def __init__(
        self, encoder: AudioTextEncoder, network: AdiffWriter, kept: Path | None = None
    ) -> None:
        self.network = network
        self.encoder: AudioTextEncoder = HeardBefore(encoder)
        models = f"{encoder.spec.revision[:12]}-{network.revision[:12]}"
        self.revision = f"{models}-{code_of(Path(soundpost.explain.__file__))}"
        self.writer = WrittenBefore(network, kept / models if kept else None)
        self.explainer = DifferenceExplainer(self.encoder, self.writer)

    def tell(
        self, pairs: Sequence[Waves], tiers: Sequence[Sequence[int]]
    ) -> list[tuple[dict[Way, Told], str]]:
        """Tell pairs of waves [N] at 16 kHz, each in its tiers; return texts and a summary of each."""
        heard = listen(self.encoder, [wave for pair in pairs for wave in pair], SAMPLE_RATE_HZ)
        both = list(zip(heard[::2], heard[1::2], strict=True))
        self._write(both, tiers)
        return [
            self._tell(waves, listenings, wanted)
            for waves, listenings, wanted in zip(pairs, both, tiers, strict=True)
        ]

    def _write(
        self, pairs: Sequence[tuple[Listening, Listening]], tiers: Sequence[Sequence[int]]
    ) -> None:
        """Have the network write in batches what is asked for below."""
        firsts, seconds = (
            np.stack([audio_vector(pair[place]) for pair in pairs]) for place in (0, 1)
        )
        for tier in sorted({tier for wanted in tiers for tier in wanted}):
            rows = [row for row, wanted in enumerate(tiers) if tier in wanted]
            self.writer.prepare(firsts[rows], seconds[rows], tier)
        self.writer.prepare(seconds, firsts, _TURNED_TIER)

    def _tell(
        self, waves: Waves, heard: tuple[Listening, Listening], tiers: Sequence[int]
    ) -> tuple[dict[Way, Told], str]:
        told: dict[Way, Told] = {}
        # Turned round first: the summary is that of the pair as it is.
        for turned in (True, False):
            wanted = (_TURNED_TIER,) if turned else tuple(tiers)
            pair = heard[::-1] if turned else heard
            told |= self._without_checks(pair, wanted, turned)
            explanation = self.explainer.explain(
                *_excerpts(waves[::-1] if turned else waves), wanted
            )
            for tier, one in explanation.tiers.items():
                claims, by = tuple(one.claims), str(one.written_by)
                told[Way(CHECKED, tier, turned)] = Told(one.text, claims, by, one.attempts)
        return told, explanation.summary

    def _without_checks(
        self, heard: tuple[Listening, Listening], tiers: Sequence[int], turned: bool
    ) -> dict[Way, Told]:
        """Tell a pair by the network alone, its claims judged but kept, and by measurements alone."""
        told: dict[Way, Told] = {}
        first, second = (audio_vector(one) for one in heard)
        written = self.writer.write(first, second, tiers)
        for tier, one in zip(tiers, written, strict=True):
            claims = tuple(check(parse(one.text), *heard, self.encoder))
            told[Way(UNCHECKED, tier, turned)] = Told(one.text, claims)
            told[Way(MEASURED, tier, turned)] = as_told(compose(*heard, self.encoder, tier))
        return told


def time_tiers(
    teller: Teller, pairs: Sequence[Waves], tiers: Sequence[int]
) -> dict[int, list[float]]:
    """Return the seconds that each pair takes in each tier alone, with nothing known beforehand."""
    encoder = teller.encoder.encoder if isinstance(teller.encoder, HeardBefore) else teller.encoder
    explainer = DifferenceExplainer(encoder, teller.network)
    # The first time takes longest: it is nobody's wait in a running service.
    explainer.explain(*_excerpts(pairs[0]), tuple(tiers))
    took: dict[int, list[float]] = {tier: [] for tier in tiers}
    for waves in pairs:
        for tier in tiers:
            began = time.perf_counter()
            explainer.explain(*_excerpts(waves), (tier,))
            took[tier].append(time.perf_counter() - began)
    return took


def _excerpts(waves: Waves) -> tuple[Excerpt, Excerpt]:
    first, second = (Excerpt(wave, SAMPLE_RATE_HZ, 0.0) for wave in waves)
    return first, second


def code_of(beside: Path, pattern: str = "*.py") -> str:
    """Name the code of files beside one, so that what other code made is not taken for its own."""
    digest = hashlib.sha256()
    for path in sorted(beside.parent.glob(pattern)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


class HeardBefore:
    """An encoder that remembers the last windows it encoded: a pair is heard several times here.

    Equal windows give equal vectors, whatever they were encoded beside.
    """

    def __init__(self, encoder: AudioTextEncoder) -> None:
        self.encoder = encoder
        self._known: OrderedDict[bytes, AudioEncoding] = OrderedDict()

    @property
    def spec(self) -> EncoderSpec:
        """That of the encoder."""
        return self.encoder.spec

    def encode_audio(
        self, waves: FloatArray, lengths: NDArray[np.int64] | None = None
    ) -> AudioEncoding:
        """Encode mono windows [B, N], those that are not known in one batch."""
        sizes = np.full(len(waves), waves.shape[1], np.int64) if lengths is None else lengths
        keys = [
            hashlib.sha256(f"{waves.shape[1]} {size}".encode() + wave.tobytes()).digest()
            for wave, size in zip(waves, sizes.tolist(), strict=True)
        ]
        new = {key: row for row, key in enumerate(keys) if key not in self._known}
        if new:
            rows = list(new.values())
            made = self.encoder.encode_audio(waves[rows], sizes[rows])
            self._known |= {key: _row(made, place) for place, key in enumerate(new)}
        found = _joined([self._known[key] for key in keys])
        while len(self._known) > _KEPT_WINDOWS:
            self._known.popitem(last=False)
        return found

    def embed_audio(
        self, waves: FloatArray, lengths: NDArray[np.int64] | None = None
    ) -> FloatArray:
        """Embed mono windows [B, N] to unit vectors [B, D]."""
        return self.encode_audio(waves, lengths).embedding

    def embed_text(self, texts: Sequence[str]) -> FloatArray:
        """Embed texts as the encoder does."""
        return self.encoder.embed_text(texts)

    def encode_text(self, texts: Sequence[str]) -> TextEncoding:
        """Encode texts as the encoder does."""
        return self.encoder.encode_text(texts)

    def relevance(self, text_vectors: FloatArray, similarities: FloatArray) -> FloatArray:
        """Calibrate as the encoder does."""
        return self.encoder.relevance(text_vectors, similarities)


def _row(made: AudioEncoding, row: int) -> AudioEncoding:
    return replace(
        made,
        embedding=made.embedding[row : row + 1].copy(),
        frames=made.frames[row : row + 1].copy(),
        tags=None if made.tags is None else made.tags[row : row + 1].copy(),
        tag_frames=None if made.tag_frames is None else made.tag_frames[row : row + 1].copy(),
    )


def _joined(rows: Sequence[AudioEncoding]) -> AudioEncoding:
    tags = [row.tags for row in rows if row.tags is not None]
    tag_frames = [row.tag_frames for row in rows if row.tag_frames is not None]
    return replace(
        rows[0],
        embedding=np.concatenate([row.embedding for row in rows]),
        frames=np.concatenate([row.frames for row in rows]),
        tags=np.concatenate(tags) if tags else None,
        tag_frames=np.concatenate(tag_frames) if tag_frames else None,
    )

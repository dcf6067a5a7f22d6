"""The encoder protocol: audio and text in one unit-norm space, with frames and tags.

Everything above (search, monitoring, explanation) knows only this. Two encoders implement it:
`compact` (ours, shipped) and `clap` (any CLAP checkpoint of transformers).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class EncoderSpec:
    """What an encoder is: enough to make its `models` row and to cut its windows.

    `revision` names the exact weights; two encoders with equal revision give equal vectors.
    `token_width` is how wide the states are that `encode_text` gives of each token of a text.
    """

    name: str
    revision: str
    dimension: int
    sample_rate_hz: int
    window_s: float
    hop_s: float
    tag_labels: tuple[str, ...] = ()
    token_width: int = 0


@dataclass(frozen=True)
class AudioEncoding:
    """What an encoder says of a batch of windows.

    embedding: [B, D] unit norm. frames: [B, T, D] unit norm, in the same space, `frame_hop_s`
    apart from the window's start. tags: [B, C] probabilities, C = len(spec.tag_labels), or None.
    tag_frames: [B, P, C] the same in each of P stretches, `tag_hop_s` from one to the next, where
    the encoder looks so closely; zero past a row's length.
    """

    embedding: FloatArray
    frames: FloatArray
    frame_hop_s: float
    tags: FloatArray | None
    tag_frames: FloatArray | None = None
    tag_hop_s: float = 0.0


@dataclass(frozen=True)
class TextEncoding:
    """What an encoder says of a batch of texts.

    embedding: [B, D] unit norm, as `embed_text` gives it. tokens: [B, L, W], W = spec.token_width,
    the text tower's states before they are pooled, zero past lengths [B]: they still tell "A before
    B" from "B before A", which the pooled vector hardly does.
    """

    embedding: FloatArray
    tokens: FloatArray
    lengths: NDArray[np.int64]


@runtime_checkable
class AudioTextEncoder(Protocol):
    """Embeds audio and text into one space of unit vectors."""

    @property
    def spec(self) -> EncoderSpec:
        """Name, revision, dimension, sample rate, window length and tag labels."""
        ...

    def encode_audio(
        self, waves: FloatArray, lengths: NDArray[np.int64] | None = None
    ) -> AudioEncoding:
        """Encode mono windows [B, N] at spec.sample_rate_hz; lengths [B] are the valid samples.

        What lies past a row's length is ignored, so short recordings can share a batch.
        """
        ...

    def embed_audio(
        self, waves: FloatArray, lengths: NDArray[np.int64] | None = None
    ) -> FloatArray:
        """Embed mono windows [B, N] to unit vectors [B, D]."""
        ...

    def embed_text(self, texts: Sequence[str]) -> FloatArray:
        """Embed texts to unit vectors [len(texts), D]."""
        ...

    def encode_text(self, texts: Sequence[str]) -> TextEncoding:
        """Embed texts and keep the states of their tokens."""
        ...

    def relevance(self, text_vectors: FloatArray, similarities: FloatArray) -> FloatArray:
        """Turn cosines [Q, K] of queries [Q, D] into calibrated probabilities of relevance [Q, K]."""
        ...

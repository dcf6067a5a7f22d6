"""Captions of a window: what is heard, in one sentence, written all at once by DAC.

The captioner reads the encoder's frames, so an archive that keeps them needs no audio. Equal frames
give equal captions, whatever else is captioned beside them. It says nothing of what cannot be heard:
a window below the level of silence is called that, and no network is asked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from soundpost.config import Settings
from soundpost.errors import (
    BrokenCheckpointError,
    CaptionerMismatchError,
    CaptionerUnavailableError,
    InvalidValueError,
)
from soundpost.models.caption_condition import Conditions, Style, condition_tokens, conditions
from soundpost.models.encoder import AudioTextEncoder, FloatArray
from soundpost.models.shipped import SHIPPED_CAPTIONER

SILENCE = "silence"
# Where a network says nothing at all.
NOTHING = "an unknown sound"
# 16-bit recordings of nothing at all lie below this.
SILENCE_DBFS = -80.0
# Most captions of one window.
MOST_CAPTIONS = 20
_BATCH = 32
_CONFIG = "config.json"


@dataclass(frozen=True)
class Caption:
    """A caption and its cosine with the sound in the encoder's space, None where nobody asked."""

    text: str
    similarity: float | None = None


class CaptionWriter(Protocol):
    """A network that captions conditions: `models.dac.DacWriter` or its autoregressive twin."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def revision(self) -> str:
        """Names the exact weights."""
        ...

    @property
    def dimension(self) -> int:
        """The width of the encoder's space."""
        ...

    def write(self, sounds: Conditions, seeds: Sequence[int], diverse: bool = False) -> list[str]:
        """Return a caption for each of B sounds; equal seeds give equal captions."""
        ...


def generate_captions(
    writer: CaptionWriter, sounds: Conditions, *, n: int = 1, seed: int = 0, batch: int = _BATCH
) -> list[list[str]]:
    """Return n captions for each of B sounds: one is the likeliest, several are drawn."""
    seeds = [seed * 1_000_003 + number for number in range(len(sounds) * n)]
    repeated = sounds.repeated(n)
    texts: list[str] = []
    for start in range(0, len(seeds), batch):
        part = slice(start, start + batch)
        texts += writer.write(repeated.rows(part), seeds[part], diverse=n > 1)
    return [texts[row * n : (row + 1) * n] for row in range(len(sounds))]


class Captioner:
    """Captions windows of one encoder; similarity is what that encoder says of text and sound."""

    def __init__(
        self, writer: CaptionWriter, encoder: AudioTextEncoder, style: Style = Style.RECORDS
    ) -> None:
        if writer.dimension != encoder.spec.dimension:
            raise CaptionerMismatchError(
                writer.name, f"for vectors of {writer.dimension}, not {encoder.spec.dimension}"
            )
        self.writer, self.encoder, self.style = writer, encoder, style

    @property
    def name(self) -> str:
        """What the model is called."""
        return self.writer.name

    @property
    def revision(self) -> str:
        """Names the exact weights."""
        return self.writer.revision

    def caption(
        self,
        frames: FloatArray,
        frame_hop_s: float,
        n: int = 1,
        seed: int = 0,
        *,
        level_dbfs: float | None = None,
    ) -> list[Caption]:
        """Return n captions of a window of frames [T, D]: the likeliest, then others, drawn.

        The others come by their similarity; there are fewer where some come out the same.
        level_dbfs: the window's level where it is known. Raises InvalidValueError for frames that
        cannot be, and for an n that is not 1 to 20.
        """
        if not 1 <= n <= MOST_CAPTIONS:
            raise InvalidValueError(f"{n} captions", f"from 1 to {MOST_CAPTIONS} are possible")
        if level_dbfs is not None and level_dbfs < SILENCE_DBFS:
            return [Caption(SILENCE)]
        likeliest = self._written(frames, frame_hop_s, 1, seed, diverse=False)
        if n == 1:
            return likeliest
        others = self._written(frames, frame_hop_s, n - 1, seed, diverse=True)
        return likeliest + [other for other in others if other.text != likeliest[0].text]

    def best_of(self, frames: FloatArray, frame_hop_s: float, tried: int, seed: int = 0) -> Caption:
        """Return of `tried` captions the one that the encoder finds most like the sound."""
        found = self.caption(frames, frame_hop_s, tried, seed)
        return max(found, key=lambda caption: caption.similarity or -1.0)

    def caption_many(
        self, windows: Sequence[FloatArray], frame_hop_s: float, seed: int = 0
    ) -> list[Caption]:
        """Return one caption for each window of frames [T_i, D]: many at once take less time."""
        self._check(windows)
        texts: list[str] = []
        for start in range(0, len(windows), _BATCH):
            part = windows[start : start + _BATCH]
            sounds = self._sounds(part, frame_hop_s)
            seeds = [content_seed(frames, seed) for frames in part]
            texts += [_said(text) for text in self.writer.write(sounds, seeds)]
        if not texts:
            return []
        similar = np.einsum("nd,nd->n", self.encoder.embed_text(texts), _wholes(windows))
        return [Caption(t, float(s)) for t, s in zip(texts, similar, strict=True)]

    def _written(
        self, frames: FloatArray, frame_hop_s: float, count: int, seed: int, *, diverse: bool
    ) -> list[Caption]:
        """Write some captions; return those that differ, the one most like the sound first."""
        self._check([frames])
        sounds = self._sounds([frames], frame_hop_s).repeated(count)
        first = content_seed(frames, seed)
        drawn = self.writer.write(sounds, [first + k for k in range(count)], diverse=diverse)
        texts = list(dict.fromkeys(_said(text) for text in drawn))
        similar = self.encoder.embed_text(texts) @ _wholes([frames])[0]
        ranked = sorted(zip(texts, similar.tolist(), strict=True), key=lambda pair: -pair[1])
        return [Caption(text, float(similarity)) for text, similarity in ranked]

    def _check(self, windows: Sequence[FloatArray]) -> None:
        wanted = self.encoder.spec.dimension
        for frames in windows:
            if frames.ndim != 2 or frames.shape[1] != wanted:
                raise InvalidValueError(
                    f"frames of shape {frames.shape}", f"each is of width {wanted}"
                )

    def _sounds(self, windows: Sequence[FloatArray], frame_hop_s: float) -> Conditions:
        tokens = [condition_tokens(frames, frame_hop_s) for frames in windows]
        return conditions(tokens, [self.style] * len(windows))


def _said(text: str) -> str:
    """Return a text if there is a word in it: signs alone say nothing."""
    return text if any(character.isalnum() for character in text) else NOTHING


def content_seed(frames: FloatArray, seed: int) -> int:
    """Return a seed that depends on the frames, as far as half precision keeps them, and `seed`."""
    content = np.ascontiguousarray(frames, np.float16).tobytes()
    digest = hashlib.sha256(seed.to_bytes(8, "big", signed=True) + content).digest()
    # 48 bits, so that seeds counted on from it stay whole numbers everywhere.
    return int.from_bytes(digest[:6], "big")


def _wholes(windows: Sequence[FloatArray]) -> FloatArray:
    """Return the mean direction [N, D] of the frames of each window."""
    sums = np.stack([frames.sum(axis=0) for frames in windows])
    norms = np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
    return np.asarray(sums / norms, np.float32)


def load_captioner(settings: Settings, encoder: AudioTextEncoder) -> Captioner:
    """Load the captioner that the settings name, for what this encoder hears.

    "auto" is the shipped one where its vectors are as wide as the encoder's and of its space, "off"
    none, anything else a folder with a trained one. It has captioned something before it is returned.

    Raises CaptionerUnavailableError where none is wanted or fits, CaptionerMismatchError for one of
    other vectors, BrokenCheckpointError and ModelNotFoundError for one that cannot be read.
    """
    writer = _writer(_folder(settings.captioner, encoder))
    captioner = Captioner(writer, encoder)
    captioner.caption(np.eye(2, encoder.spec.dimension, dtype=np.float32), 1.0)
    return captioner


def _folder(name: str, encoder: AudioTextEncoder) -> Path:
    if name == "off":
        raise CaptionerUnavailableError(None, "SOUNDPOST_CAPTIONER is 'off'")
    folder = SHIPPED_CAPTIONER if name == "auto" else Path(name)
    if not (folder / _CONFIG).is_file():
        raise CaptionerUnavailableError(name, f"no {_CONFIG} in {folder.name}")
    if name == "auto" and encoder.spec.name != "compact":
        raise CaptionerUnavailableError(
            encoder.spec.name, "the shipped one captions what the compact encoder hears"
        )
    return folder


def _writer(folder: Path) -> CaptionWriter:
    try:
        kind = json.loads((folder / _CONFIG).read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise BrokenCheckpointError(folder, f"{_CONFIG}: {error}") from error
    # transformers takes seconds to import, and a service without a captioner does without.
    from soundpost.models.caption_twin import TwinWriter
    from soundpost.models.dac import DacWriter

    if kind == "soundpost_dac":
        return DacWriter.load(folder)
    if kind == "soundpost_caption_twin":
        return TwinWriter.load(folder)
    raise BrokenCheckpointError(folder, f"of kind {kind}, no captioner")


@dataclass(frozen=True)
class FixedWriter:
    """A shipped stand-in for a network: it says the same of everything, without computing."""

    dimension: int = 32
    texts: tuple[str, ...] = ("a sound is heard", "something sounds", "there is a sound")
    name: str = "fixed"
    revision: str = "1"

    def write(self, sounds: Conditions, seeds: Sequence[int], diverse: bool = False) -> list[str]:
        """Return the first text, or where they are to be diverse one by each seed."""
        return [self.texts[seed % len(self.texts) if diverse else 0] for seed in seeds]


class FixedCaptioner(Captioner):
    """A captioner for tests of everything above: fixed texts, any encoder."""

    def __init__(self, encoder: AudioTextEncoder, *texts: str) -> None:
        writer = FixedWriter(encoder.spec.dimension)
        super().__init__(FixedWriter(writer.dimension, texts or writer.texts), encoder)

"""Texts, sounds and which is true of which: what rerankers are trained and judged on.

Everything is vectors already, so neither the audio nor an encoder is needed any more.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from soundpost.errors import InvalidValueError, PathNotFoundError
from soundpost.models.encoder import AudioTextEncoder, FloatArray
from soundpost.models.reranker import Candidates

_TEXT_BATCH = 256


@dataclass(frozen=True)
class TextSet:
    """Q texts as an encoder says them.

    vectors [Q, D]: float32, unit norm. tokens [Q, L, W]: float16 or float32, zero past lengths [Q].
    Raises InvalidValueError where the shapes do not agree.
    """

    texts: tuple[str, ...]
    vectors: FloatArray
    tokens: NDArray[np.floating[Any]]
    lengths: NDArray[np.int64]

    def __post_init__(self) -> None:
        _check_rows(
            "texts", len(self.texts), (self.vectors, 2), (self.tokens, 3), (self.lengths, 1)
        )

    def __len__(self) -> int:
        return len(self.texts)

    def rows(self, wanted: NDArray[np.int64]) -> TextSet:
        """Return the texts at these row numbers, in their order."""
        return TextSet(
            tuple(self.texts[row] for row in wanted),
            self.vectors[wanted],
            self.tokens[wanted],
            self.lengths[wanted],
        )


@dataclass(frozen=True)
class RetrievalSet:
    """Texts and sounds; `relevant` holds for each text the row numbers of its sounds, ascending.

    families [Q], where they are known: texts of one number were made to be taken for each other.
    Raises InvalidValueError for a row number that no sound has, and where shapes do not agree.
    """

    texts: TextSet
    sounds: Candidates
    relevant: tuple[NDArray[np.int64], ...]
    families: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        sounds = self.sounds
        _check_rows(
            "sounds", len(sounds), (sounds.vectors, 2), (sounds.frames, 3), (sounds.lengths, 1)
        )
        if len(self.relevant) != len(self.texts):
            detail = f"there are {len(self.texts)} texts"
            raise InvalidValueError(f"{len(self.relevant)} lists of relevant sounds", detail)
        if self.families is not None:
            _check_rows("texts", len(self.texts), (self.families, 1))
        for rows in self.relevant:
            if rows.size and not 0 <= rows.min() <= rows.max() < len(sounds):
                detail = f"rows go from 0 to {len(sounds) - 1}"
                raise InvalidValueError(f"relevant sounds {rows.tolist()}", detail)

    def of_texts(self, wanted: NDArray[np.int64]) -> RetrievalSet:
        """Return the same sounds asked for with the texts at these row numbers alone."""
        relevant = tuple(self.relevant[row] for row in wanted)
        families = None if self.families is None else self.families[wanted]
        return RetrievalSet(self.texts.rows(wanted), self.sounds, relevant, families)


def read_texts(texts: Sequence[str], encoder: AudioTextEncoder) -> TextSet:
    """Encode texts; the states of their tokens are kept in half precision."""
    parts = [
        encoder.encode_text(texts[start : start + _TEXT_BATCH])
        for start in range(0, len(texts), _TEXT_BATCH)
    ] or [encoder.encode_text([])]
    lengths = np.concatenate([part.lengths for part in parts])
    width = encoder.spec.token_width
    tokens = np.zeros((len(texts), max(lengths, default=0), width), np.float16)
    start = 0
    for part in parts:
        rows, length = part.tokens.shape[:2]
        tokens[start : start + rows, :length] = part.tokens
        start += rows
    vectors = np.concatenate([part.embedding for part in parts])
    return TextSet(tuple(texts), vectors, tokens, lengths)


def save_retrieval_set(path: Path, data: RetrievalSet) -> None:
    """Write a set to one .npz, whole or not at all; frames and tokens in half precision."""
    flat = np.concatenate([np.zeros(0, np.int64), *data.relevant]).astype(np.int64)
    arrays = {
        "texts": np.frombuffer(json.dumps(list(data.texts.texts)).encode(), np.uint8),
        "text_vectors": data.texts.vectors,
        "text_tokens": data.texts.tokens.astype(np.float16),
        "text_lengths": data.texts.lengths,
        "keys": data.sounds.keys,
        "vectors": data.sounds.vectors,
        "frames": data.sounds.frames.astype(np.float16),
        "lengths": data.sounds.lengths,
        "relevant": flat,
        "relevant_counts": np.array([len(rows) for rows in data.relevant], np.int64),
    }
    if data.families is not None:
        arrays["families"] = data.families
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, **arrays)  # type: ignore[arg-type]  # numpy types only its own keyword
    partial.replace(path)


def load_retrieval_set(path: Path) -> RetrievalSet:
    """Read what `save_retrieval_set` wrote.

    Raises PathNotFoundError, and InvalidValueError for a file that is no such set.
    """
    if not path.is_file():
        raise PathNotFoundError(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return _from_arrays(arrays)
    except (BadZipFile, KeyError, ValueError, OSError) as error:
        raise InvalidValueError(path, f"no retrieval set: {error}") from error


def _from_arrays(arrays: dict[str, NDArray[Any]]) -> RetrievalSet:
    texts = TextSet(
        tuple(json.loads(arrays["texts"].tobytes())),
        arrays["text_vectors"],
        arrays["text_tokens"],
        arrays["text_lengths"],
    )
    frames = arrays["frames"].astype(np.float32)
    sounds = Candidates(arrays["keys"], arrays["vectors"], frames, arrays["lengths"])
    ends = np.cumsum(arrays["relevant_counts"])
    relevant = tuple(np.split(arrays["relevant"], ends[:-1])) if len(ends) else ()
    return RetrievalSet(texts, sounds, relevant, arrays.get("families"))


def _check_rows(what: str, rows: int, *arrays: tuple[NDArray[Any], int]) -> None:
    """Check that every array has as many rows as there are, and its number of axes."""
    shapes = [array.shape for array, _ in arrays]
    fits = all(array.ndim == axes and len(array) == rows for array, axes in arrays)
    if not fits:
        raise InvalidValueError(f"{rows} {what} with arrays of shapes {shapes}")

"""Captions as continuous latents and back: the space in which DAC denoises.

[parent: LaDiC] x_0 is the token-level states of the lower half of a frozen text model, standardised;
the upper half and a head turn them back into words. [open] and chosen here: which text model. It is a
small one of our own, trained on captions alone to restore them from masked words and noisy states;
the upper half therefore mends latents that are not quite right, by what stands around them.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from torch import Tensor, nn
from torch.nn import functional

from soundpost.errors import BrokenCheckpointError, ModelNotFoundError
from soundpost.models.caption_layers import Layer

PAD, UNKNOWN, BEGIN, END = 0, 1, 2, 3
_SPECIAL = ("[PAD]", "[UNK]", "[BOS]", "[EOS]")
_WORD = r"[\w'-]+|,"
_TOKENIZER = "tokenizer.json"


class CaptionVocabulary:
    """The words of captions: lower-case, a comma counts as one, nothing else is read."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        vocabulary = tokenizer.get_vocab()
        self.words = sorted(vocabulary, key=vocabulary.__getitem__)

    @classmethod
    def of(
        cls, captions: Iterable[str], most: int, always: Iterable[str] = ()
    ) -> CaptionVocabulary:
        """Keep the most frequent words of captions, and all of those in `always`."""
        needed = dict.fromkeys(word for text in always for word in words_of(text))
        counts = Counter(word for text in captions for word in words_of(text))
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        kept = list(dict.fromkeys([*_SPECIAL, *needed, *ranked]))[: max(most, len(needed) + 4)]
        ids = {word: index for index, word in enumerate(kept)}
        return cls(_tokenizer(ids))

    @classmethod
    def load(cls, folder: Path) -> CaptionVocabulary:
        """Read what `save` wrote. Raises ModelNotFoundError, BrokenCheckpointError."""
        path = folder / _TOKENIZER
        if not path.is_file():
            raise ModelNotFoundError(folder, f"{_TOKENIZER} is missing")
        try:
            ids = json.loads(path.read_text(encoding="utf-8"))["model"]["vocab"]
        except (ValueError, KeyError, TypeError) as cause:
            raise BrokenCheckpointError(folder, f"{_TOKENIZER}: {cause!r}") from cause
        if not isinstance(ids, dict) or sorted(ids.values()) != list(range(len(ids))):
            raise BrokenCheckpointError(folder, f"{_TOKENIZER}: its words are not numbered")
        return cls(_tokenizer(ids))

    def save(self, folder: Path) -> None:
        """Write tokenizer.json."""
        self.tokenizer.save(str(folder / _TOKENIZER))

    def __len__(self) -> int:
        return len(self.words)

    def ids(self, captions: Sequence[str]) -> list[list[int]]:
        """Return the ids of captions, without a beginning or an end."""
        return [encoding.ids for encoding in self.tokenizer.encode_batch(list(captions))]

    def text(self, ids: Iterable[int]) -> str:
        """Return ids as a caption: repeats are collapsed, what is no word is left out."""
        kept: list[str] = []
        for index in ids:
            if index > END and self.words[index] != (kept[-1] if kept else ","):
                kept.append(self.words[index])
        return " ".join(kept).replace(" ,", ",").strip(" ,")


def _tokenizer(ids: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=_SPECIAL[UNKNOWN]))
    tokenizer.normalizer = normalizers.Lowercase()
    # All but words is a separator.
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_WORD), "removed", invert=True)
    return tokenizer


def words_of(caption: str) -> list[str]:
    """Return the words of a caption as the vocabulary counts them."""
    return re.findall(_WORD, caption.lower())


def id_tensor(rows: Sequence[Sequence[int]], length: int) -> tuple[Tensor, Tensor]:
    """Return ids [B, length], padded, and lengths [B]."""
    ids = torch.full((len(rows), length), PAD)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row, dtype=torch.long)
    return ids, torch.tensor([len(row) for row in rows])


class TextLatents(nn.Module):
    """Ids [B, L] to latents [B, L, W] of unit variance in each dimension, and these to logits."""

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, vocabulary: int, length: int, width: int, heads: int, lower: int, upper: int
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.words.weight, std=width**-0.5)
        self.positions = nn.Embedding(length, width)
        self.lower = _layers(width, heads, lower)
        self.upper = _layers(width, heads, upper)
        self.norm = nn.LayerNorm(width)
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))

    def encode(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return latents of ids, true in mask [B, L] where they count."""
        return (self.raw(ids, mask) - self.mean) / self.deviation

    def raw(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return states [B, L, W] of unit variance in each token, not yet in each dimension."""
        steps = torch.arange(ids.shape[1], device=ids.device)
        width = self.words.embedding_dim
        x = width**0.5 * self.words(ids) + self.positions(steps)
        for layer in self.lower:
            x = layer(x, mask)
        return functional.layer_norm(x, (width,))

    def decode(self, latents: Tensor, mask: Tensor) -> Tensor:
        """Return logits [P, V] of the P places of latents that count by mask [B, L]."""
        return self.read(latents * self.deviation + self.mean, mask)

    def read(self, states: Tensor, mask: Tensor) -> Tensor:
        """Return logits [P, V] of the P places that count, one row of the batch after the other.

        states: as `raw` gives them, noisy ones too.
        """
        x = states
        for layer in self.upper:
            x = layer(x, mask)
        logits: Tensor = functional.linear(self.norm(x[mask]), self.words.weight, self.bias)
        return logits


def _layers(width: int, heads: int, count: int) -> nn.ModuleList:
    return nn.ModuleList(Layer(width, heads, 4 * width) for _ in range(count))

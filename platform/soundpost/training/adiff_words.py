"""What ADIFF's prefix is to say, in words: its language model learns to read these first.

[open] in the paper, whose language model is GPT-2. A small one that was never given a prefix takes
thousands of steps to read one, while everything in front of it changes. So it first learns to answer from
a prefix that is made of its own word vectors: the sounds of audio 1, those of audio 2, the edits, and
the prompt, each in its place of V. Then V is drawn towards that prefix, besides learning from the answers.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from soundpost.explain.lexicon import EVENTS
from soundpost.models.adiff import Adiff, AdiffDimensions
from soundpost.models.language_model import LanguageTokenizer
from soundpost.training.pair_records import Edit, Heard, PairRecord

# Where nothing is known of what a prefix should say.
UNKNOWN = -1
_NOTHING = " nothing"


class PrefixWords:
    """Ids of words in the places of V; the rest of a place is filled with end-of-text."""

    def __init__(self, tokenizer: LanguageTokenizer, shape: AdiffDimensions) -> None:
        self.tokenizer, self.shape = tokenizer, shape
        self._known: dict[str, list[int]] = {}

    def __call__(self, record: PairRecord, prompt: str) -> list[int]:
        """Return the ids [P] of a pair and what is asked of it."""
        shape = self.shape
        return [
            *self._filled(_sounds(record.heard_1), shape.audio_tokens),
            *([self.tokenizer.end] if shape.separator else []),
            *self._filled(_sounds(record.heard_2), shape.audio_tokens),
            *self._filled(_edits(record.edits), shape.contrast_tokens),
            *self._filled(prompt, shape.text_tokens),
        ]

    def unknown(self) -> list[int]:
        """Return as many ids where nothing is known."""
        return [UNKNOWN] * self.shape.prefix_tokens

    def _filled(self, text: str, places: int) -> list[int]:
        if text not in self._known:
            self._known[text] = self.tokenizer.encode(text)
        ids = self._known[text][:places]
        return ids + [self.tokenizer.end] * (places - len(ids))


def _sounds(heard: Sequence[Heard]) -> str:
    """Name sounds, the loudest first."""
    ordered = sorted(heard, key=lambda one: -one.level_db)
    return "".join(f" {_name(one.what)}" for one in ordered) or _NOTHING


def _edits(edits: Sequence[Edit]) -> str:
    """Name edits: the kind, and what is edited."""
    named = (
        [str(edit.kind), *(_name(what) for what in (edit.what, edit.other) if what)]
        for edit in edits
    )
    return "".join(f" {word}" for words in named for word in words) or _NOTHING


def _name(what: str) -> str:
    return EVENTS[what].thing if what in EVENTS else what


def distance(adiff: Adiff, prefix: Tensor, words: Tensor) -> Tensor:
    """Return the squared distance of V [B, P, W] to words [B, P], in variances of all word vectors."""
    known = words[:, 0] != UNKNOWN
    if not bool(known.any()):
        return prefix.new_zeros(())
    wanted = adiff.words(words[known]).detach().float()
    variance = adiff.words.weight.detach().float().var()
    squared: Tensor = (prefix[known].float() - wanted).square().mean() / variance
    return squared

"""Write explanations with a trained ADIFF: greedy or by nucleus, with a cache of keys and values.

Each row of a batch is written on its own: its text does not depend on what else is in the batch,
up to rounding.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from soundpost.errors import BrokenCheckpointError, InvalidValueError, ModelNotFoundError
from soundpost.models.adiff import Adiff, pad_prompt
from soundpost.models.allocator import keep_freed_memory
from soundpost.models.compact import revision_of
from soundpost.models.language_model import LanguageTokenizer, read_tokenizer
from soundpost.models.pretrained import read_pretrained
from soundpost.models.shipped import SHIPPED_ADIFF

FloatArray = NDArray[np.float32]

TIERS = (1, 2, 3)
MAX_TOKENS = 300
NUCLEUS = 0.9
_BATCH = 64
# A word whose first token is shorter than this says too little to be kept from beginning.
_TELLING_START = 3


class WrittenToken(NamedTuple):
    """Where a token lies in its text, in characters, and how probable it was to the model."""

    start: int
    end: int
    probability: float


@dataclass(frozen=True)
class Written:
    """A text and its tokens."""

    text: str
    tokens: tuple[WrittenToken, ...]

    def probability(self, start: int, end: int) -> float:
        """Return the geometric mean of the tokens that reach into text[start:end]; 1 for none."""
        inside = [token for token in self.tokens if token.start < end and token.end > start]
        logs = [np.log(max(token.probability, 1e-9)) for token in inside]
        return float(np.exp(np.mean(logs))) if logs else 1.0


class BannedPhrases:
    """Phrases that must not be written, whatever their case, from the start of a word on.

    "dog" bans "Dog" and "dogs", not "hotdog". A banned phrase is kept from being finished; where its
    last word has a telling first token, already that is kept from being begun.
    """

    def __init__(self, phrases: Sequence[str], tokenizer: LanguageTokenizer) -> None:
        self.tokenizer = tokenizer
        cleaned = [" ".join(phrase.lower().split()) for phrase in phrases]
        self.phrases = [phrase for phrase in dict.fromkeys(cleaned) if phrase]
        spaced = [re.escape(phrase).replace(r"\ ", r"\s+") for phrase in self.phrases]
        self._whole = re.compile(rf"(?<!\w)(?:{'|'.join(spaced)})", re.IGNORECASE)
        self._starts = [(phrase.rpartition(" ")[0], self._first(phrase)) for phrase in self.phrases]

    def __bool__(self) -> bool:
        return bool(self.phrases)

    def _first(self, phrase: str) -> tuple[int, ...]:
        """Return the ids of the tokens that the last word of a phrase begins with."""
        word = phrase.rpartition(" ")[2]
        found: dict[int, None] = {}
        for text in (word, f" {word}", word.capitalize(), f" {word.capitalize()}"):
            first = self.tokenizer.encode(text)[0]
            if len(self.tokenizer.decode([first]).strip()) >= min(_TELLING_START, len(word)):
                found[first] = None
        return tuple(found)

    def beginnings(self, text: str) -> list[int]:
        """Return the ids that would begin the last word of a phrase after a text."""
        said = text.lower().rstrip()
        return [
            token
            for before, tokens in self._starts
            if not before or re.search(rf"(?<!\w){re.escape(before)}$", said)
            for token in tokens
        ]

    def finished(self, ids: Sequence[int]) -> bool:
        """Say whether a phrase is in the text of ids."""
        # All of it anew: a token may be half of a character that the one before began.
        return bool(self._whole.search(self.tokenizer.decode(ids)))


@dataclass
class _Row:
    """One text while it is written; the generator is for drawing, None takes the likeliest."""

    banned: BannedPhrases
    generator: torch.Generator | None
    ids: list[int] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    ended: bool = False

    def choose(self, logits: Tensor, tokenizer: LanguageTokenizer) -> int:
        """Take the next token of logits [vocabulary] and keep it."""
        probabilities = logits.softmax(-1)
        token = self._allowed(probabilities, tokenizer)
        self.ended = token == tokenizer.end
        if not self.ended:
            self.ids.append(token)
            self.probabilities.append(float(probabilities[token]))
        return token

    def _allowed(self, probabilities: Tensor, tokenizer: LanguageTokenizer) -> int:
        if not self.banned:
            return _draw(probabilities, self.generator)
        text, left = tokenizer.decode(self.ids), probabilities.clone()
        left[self.banned.beginnings(text)] = 0.0
        while float(left.max()) > 0.0:
            token = _draw(left, self.generator)
            if token == tokenizer.end or not self.banned.finished([*self.ids, token]):
                return token
            left[token] = 0.0
        return tokenizer.end


def _draw(probabilities: Tensor, generator: torch.Generator | None) -> int:
    """Return the likeliest token, or one drawn from the smallest set that NUCLEUS is in."""
    if generator is None:
        return int(probabilities.argmax())
    ordered, tokens = probabilities.sort(descending=True)
    before = ordered.cumsum(0) - ordered
    kept = ordered.where(before < NUCLEUS * ordered.sum(), 0.0).cumsum(0)
    place = torch.searchsorted(kept, torch.rand(1, generator=generator) * kept[-1])
    return int(tokens[min(int(place), len(tokens) - 1)])


class AdiffWriter:
    """A trained ADIFF that writes."""

    def __init__(
        self, model: Adiff, tokenizer: LanguageTokenizer, name: str, revision: str
    ) -> None:
        self.model, self.tokenizer, self.name, self.revision = model, tokenizer, name, revision
        nn.Module.eval(model)
        self.prompts = model.config.prompts
        positions = getattr(model.language_model.config, "max_position_embeddings", None)
        room = (positions or MAX_TOKENS + model.shape.prefix_tokens) - model.shape.prefix_tokens
        self.max_tokens = min(MAX_TOKENS, room)

    @classmethod
    def load(cls, folder: Path | None = None, threads: int = 0) -> AdiffWriter:
        """Load a trained folder, None for the weights shipped with us; 0 leaves torch's threads.

        Raises ModelNotFoundError where there are no weights, BrokenCheckpointError where they,
        the tokenizer and the prompts do not fit.
        """
        folder = folder or SHIPPED_ADIFF
        weights = folder / "model.safetensors"
        if not weights.is_file():
            raise ModelNotFoundError(folder, "model.safetensors is missing")
        if threads:
            torch.set_num_threads(threads)
        keep_freed_memory()
        model = read_adiff(folder)
        tokenizer = read_tokenizer(folder, folder, model.end)
        if len(tokenizer) > model.words.num_embeddings:
            raise BrokenCheckpointError(folder, "its tokenizer has more words than its weights")
        return cls(model, tokenizer, "adiff", revision_of(weights))

    @property
    def audio_width(self) -> int:
        """How wide the audio vectors are that it takes."""
        return self.model.shape.audio_width

    def write(
        self,
        first: FloatArray,
        second: FloatArray,
        tiers: Sequence[int],
        *,
        banned: Sequence[str] = (),
        seed: int | None = None,
    ) -> list[Written]:
        """Write what differs between audio vectors [A] and [A], a text for each of the tiers.

        banned: phrases that must not be in the texts. seed: None takes the likeliest token each
        time, else they are drawn. Raises InvalidValueError for vectors and tiers that cannot be.
        """
        prompts = [self._prompt(tier) for tier in tiers]
        firsts, seconds = (np.tile(vector, (len(tiers), 1)) for vector in (first, second))
        # By the tier's number, so that one asked for alone comes out as among others.
        seeds = [None if seed is None else seed * 8 + tier for tier in tiers]
        return self.answer(firsts, seconds, prompts, banned=banned, seeds=seeds)

    def write_many(self, firsts: FloatArray, seconds: FloatArray, tier: int) -> list[Written]:
        """Write a text of one tier for each pair of rows of [B, A] and [B, A], the likeliest."""
        return self.answer(firsts, seconds, [self._prompt(tier)] * len(firsts))

    def _prompt(self, tier: int) -> str:
        prompt = self.prompts.get(str(tier))
        if prompt is None:
            raise InvalidValueError(f"tier {tier}", f"there are {', '.join(self.prompts)}")
        return prompt

    def answer(
        self,
        firsts: FloatArray,
        seconds: FloatArray,
        prompts: Sequence[str],
        *,
        banned: Sequence[str] = (),
        seeds: Sequence[int | None] | None = None,
    ) -> list[Written]:
        """Answer a prompt of its own about each pair of rows of [B, A] and [B, A]."""
        phrases = BannedPhrases(banned, self.tokenizer)
        vectors = [self._checked(rows, len(prompts)) for rows in (firsts, seconds)]
        rows = [_Row(phrases, _generator(seed)) for seed in seeds or [None] * len(prompts)]
        for start in range(0, len(rows), _BATCH):
            part = slice(start, start + _BATCH)
            self._fill(rows[part], vectors[0][part], vectors[1][part], prompts[part])
        return [self._written(row) for row in rows]

    def _checked(self, rows: FloatArray, count: int) -> Tensor:
        if rows.shape != (count, self.audio_width):
            wanted = f"expected [{count}, {self.audio_width}]"
            raise InvalidValueError(f"audio vectors of shape {list(rows.shape)}", wanted)
        if not np.isfinite(rows).all():
            raise InvalidValueError("audio vectors that are not finite", "NaN says nothing")
        return torch.from_numpy(np.ascontiguousarray(rows, np.float32))

    @torch.inference_mode()
    def _fill(
        self, rows: list[_Row], firsts: Tensor, seconds: Tensor, prompts: Sequence[str]
    ) -> None:
        """Write the rows of one batch to their ends."""
        asked = [
            pad_prompt(ids, self.model.shape, self.tokenizer.end)
            for ids in self.tokenizer.encode_all(prompts)
        ]
        prefix = self.model.prefix(firsts, seconds, torch.tensor(asked))
        outputs = self._next(inputs_embeds=prefix, logits_to_keep=1)
        live = rows
        for _ in range(self.max_tokens):
            logits = outputs.logits[:, -1].float()
            chosen = [row.choose(logits[place], self.tokenizer) for place, row in enumerate(live)]
            going = [place for place, row in enumerate(live) if not row.ended]
            if not going:
                return
            cache = outputs.past_key_values
            if len(going) < len(live):
                cache.batch_select_indices(torch.tensor(going))
                live = [live[place] for place in going]
            ids = torch.tensor([[chosen[place]] for place in going])
            outputs = self._next(input_ids=ids, past_key_values=cache)

    def _next(self, **inputs: Any) -> Any:
        return self.model.language_model(use_cache=True, **inputs)

    def _written(self, row: _Row) -> Written:
        text = self.tokenizer.decode(row.ids)
        if not row.ended:
            text = _whole_sentences(text)
        spans = self.tokenizer.spans(row.ids)
        tokens = [
            WrittenToken(start, end, probability)
            for (start, end), probability in zip(spans, row.probabilities, strict=True)
        ]
        return Written(text, tuple(token for token in tokens if token.start < len(text)))


def _whole_sentences(text: str) -> str:
    """Cut a text that did not come to its end after its last whole sentence, if it has one."""
    ends = [mark.end() for mark in re.finditer(r"[.!?](?=\s|$)", text)]
    return text[: ends[-1]] if ends else text


def read_adiff(folder: Path) -> Adiff:
    """Read the network of a trained folder. Raises BrokenCheckpointError."""
    try:
        model = read_pretrained(Adiff, folder, folder)
    except (TypeError, KeyError, InvalidValueError) as cause:
        raise BrokenCheckpointError(folder, f"config.json: {cause}") from cause
    # Weights lie in the mapped file as they come; matrix products round by how memory is aligned.
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()
    return model


def _generator(seed: int | None) -> torch.Generator | None:
    return None if seed is None else torch.Generator().manual_seed(seed)

"""Causal language models: our own small one, and any of transformers, by folder or hub name.

Our own is a GPT-2 with byte-level words of its own, learned by `soundpost.training.language`. A
folder holds config.json, model.safetensors (half precision) and tokenizer.json; weights as pickles
are refused. GPT-2 base is `openai-community/gpt2`: 124M parameters, 768 wide, about 550 MB.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from httpx2 import HTTPError
from huggingface_hub import snapshot_download
from tokenizers import Tokenizer
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, PreTrainedModel

from soundpost.errors import BrokenCheckpointError, InvalidValueError, ModelNotFoundError
from soundpost.models.compact import revision_of
from soundpost.models.pretrained import first_line, quietly, read_pretrained

END = "<|endoftext|>"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_FILES = ["config.json", "tokenizer.json", "*.safetensors", "*.safetensors.index.json"]


@dataclass(frozen=True)
class LanguageModelDimensions:
    """The size of a language model of our own; positions: the longest text with its prefix."""

    width: int = 192
    layers: int = 4
    heads: int = 3
    positions: int = 336
    vocabulary: int = 4096


class LanguageTokenizer:
    """Text to token ids and back; `end` is the id that ends a text."""

    def __init__(self, tokenizer: Tokenizer, end: int) -> None:
        self.tokenizer, self.end = tokenizer, end

    def __len__(self) -> int:
        return self.tokenizer.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without anything put before or after it."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """Do as `encode` does for many."""
        encodings = self.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids; what is no whole character yet is U+FFFD."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)

    def spans(self, ids: Sequence[int]) -> list[tuple[int, int]]:
        """Return where each token lies in `decode(ids)`, in characters; parts of one share its end."""
        ends = [len(self.decode(ids[: index + 1])) for index in range(len(ids))]
        return list(zip([0, *ends], ends, strict=False))


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model in float32, with its tokenizer."""

    name: str
    revision: str
    model: PreTrainedModel
    tokenizer: LanguageTokenizer

    @property
    def width(self) -> int:
        """How wide the vectors are that it reads."""
        return word_vectors(self.model).embedding_dim


def build_language_model(dimensions: LanguageModelDimensions, end: int = 0) -> GPT2LMHeadModel:
    """Return an untrained GPT-2 of this size; `end` is the id of its end-of-text token."""
    config = GPT2Config(
        vocab_size=dimensions.vocabulary,
        n_positions=dimensions.positions,
        n_embd=dimensions.width,
        n_layer=dimensions.layers,
        n_head=dimensions.heads,
        # The same function as gelu_new, in one pass.
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=end,
        eos_token_id=end,
    )
    # torch's fused attention is the slower one on CPUs at this length, by a third of a step.
    config._attn_implementation = "eager"
    return GPT2LMHeadModel(config)


def word_vectors(model: PreTrainedModel) -> nn.Embedding:
    """Return a language model's embedding of words. Raises InvalidValueError where it has none."""
    words = model.get_input_embeddings()
    if not isinstance(words, nn.Embedding):
        raise InvalidValueError(
            type(words).__name__, "a language model reads words by an embedding"
        )
    return words


def load_language_model(name: str | Path) -> LanguageModel:
    """Load a causal language model from a folder, or from the hub (downloaded once).

    Raises ModelNotFoundError where there is none, BrokenCheckpointError where it cannot be used:
    no tokenizer.json, no weights as safetensors, weights that do not fit, no end-of-text token.
    """
    folder = find_language_model(name)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise BrokenCheckpointError(name, "it has no weights as safetensors")
    model = read_pretrained(cast(type[PreTrainedModel], AutoModelForCausalLM), name, folder)
    tokenizer = read_tokenizer(name, folder, model.config.eos_token_id)
    if len(tokenizer) > word_vectors(model).num_embeddings:
        raise BrokenCheckpointError(name, "its tokenizer has more words than its weights")
    return LanguageModel(str(name), revision_of(weights[0]), model, tokenizer)


def read_tokenizer(name: str | Path, folder: Path, end: Any) -> LanguageTokenizer:
    """Read tokenizer.json of a folder. `end` as configs have it: an id, several, or none."""
    ids = [end] if isinstance(end, int) else list(end or ())
    if not ids:
        raise BrokenCheckpointError(name, "its config names no end-of-text token")
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise BrokenCheckpointError(name, "tokenizer.json is missing")
    try:
        return LanguageTokenizer(Tokenizer.from_str(path.read_text(encoding="utf-8")), ids[0])
    except Exception as cause:  # The binding raises no narrower one.
        raise BrokenCheckpointError(name, f"tokenizer.json: {first_line(cause)}") from cause


def find_language_model(name: str | Path) -> Path:
    """Return the folder of a language model. Raises ModelNotFoundError."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelNotFoundError(name, "the folder has no config.json")
        return folder
    if isinstance(name, Path) or not _HUB_NAME.fullmatch(name):
        raise ModelNotFoundError(name, "no such folder")
    try:
        with quietly():
            return Path(snapshot_download(name, allow_patterns=_FILES))
    except (OSError, ValueError, HTTPError) as cause:
        raise ModelNotFoundError(name, first_line(cause)) from cause


def save_language_model(model: PreTrainedModel, tokenizer: LanguageTokenizer, folder: Path) -> None:
    """Write weights in half precision, config and tokenizer; the model itself stays as it is."""
    save_half(model, folder)
    tokenizer.tokenizer.save(str(folder / "tokenizer.json"))


def save_half(model: PreTrainedModel, folder: Path) -> None:
    """Write weights in half precision and the config, leaving the model as it is."""
    with quietly():
        # A copy keeps tied weights tied, and so saved once.
        nn.Module.half(copy.deepcopy(model)).save_pretrained(folder)

"""What every reranker of ours does around its network: read, check, order, and say a probability.

Candidates are sorted by their keys before anything is calculated, and the answer is put back in the
order in which they came: sums over a list are rounded in one order only, so scores do not depend on
the order of arrival, to the bit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from soundpost.errors import BrokenCheckpointError, InvalidValueError, ModelNotFoundError
from soundpost.models.compact import revision_of
from soundpost.models.diffusion import SeededNoise, seed_of
from soundpost.models.encoder import AudioTextEncoder, FloatArray, TextEncoding
from soundpost.models.joint_heads import DiffAtrDimensions, JointHeads, SoundView, TextView, hear
from soundpost.models.pretrained import read_pretrained
from soundpost.models.reranker import Candidates, RerankerSpec
from soundpost.models.retrieval_set import TextSet, read_texts

Model = TypeVar("Model", bound=PreTrainedModel)


class JointConfig(PretrainedConfig):
    """Dimensions, the encoder, and how the answers are read; saved beside the weights.

    temperatures: probabilities are taken to the power of its inverse and brought back to a sum of 1.
    weight and text_weight: how much the probability counts beside the cosine, text to audio and
    audio to text. All three are fitted to lists that were not trained on.
    """

    def __init__(
        self,
        dimensions: dict[str, int] | None = None,
        encoder_name: str = "",
        encoder_revision: str = "",
        sound_temperature: float = 1.0,
        weight: float = 1.0,
        text_temperature: float = 1.0,
        text_weight: float = 1.0,
        **kwargs: Any,
    ) -> None:
        self.dimensions = dimensions or asdict(DiffAtrDimensions(256, 384))
        self.encoder_name = encoder_name
        self.encoder_revision = encoder_revision
        self.sound_temperature = sound_temperature
        self.weight = weight
        self.text_temperature = text_temperature
        self.text_weight = text_weight
        super().__init__(**kwargs)

    @property
    def shape(self) -> DiffAtrDimensions:
        """The dimensions as what they are."""
        return DiffAtrDimensions(**self.dimensions)


def read_reranker(kind: type[Model], folder: Path, encoder: AudioTextEncoder) -> tuple[Model, str]:
    """Read a trained folder for the encoder it was trained over; return model and revision.

    Raises ModelNotFoundError, or BrokenCheckpointError where weights or encoder do not fit.
    """
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise ModelNotFoundError(folder, "model.safetensors is missing")
    model = read_pretrained(kind, folder, folder)
    # Weights lie in the mapped file as they come; matrix products round by how memory is aligned.
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()
    config, spec = model.config, encoder.spec
    trained = (config.encoder_name, config.encoder_revision)
    if trained != (spec.name, spec.revision):
        ours = f"{spec.name} {spec.revision}"
        detail = f"trained over the encoder {trained[0]} {trained[1]}, not {ours}"
        raise BrokenCheckpointError(folder, detail)
    return model, revision_of(weights)


class JointReranker(ABC):
    """The reranker protocol around heads and a network that judges a list.

    Without an encoder it judges only texts that were already read.
    """

    def __init__(
        self,
        name: str,
        model: PreTrainedModel,
        heads: JointHeads,
        encoder: AudioTextEncoder | None,
        revision: str,
        steps: int | None = None,
    ) -> None:
        self.model, self.heads, self.encoder = model, heads, encoder
        nn.Module.eval(model)
        self.config = cast(JointConfig, model.config)
        self._spec = RerankerSpec(
            name=name,
            revision=revision,
            encoder_name=self.config.encoder_name,
            encoder_revision=self.config.encoder_revision,
            dimension=self.config.shape.dimension,
            steps=steps,
        )

    @property
    def spec(self) -> RerankerSpec:
        """Name and revision, and the encoder it belongs to."""
        return self._spec

    @property
    def weight(self) -> float:
        """How much the probability of a sound counts beside its cosine."""
        return self.config.weight

    @property
    def text_weight(self) -> float:
        """How much the probability of a text counts beside its cosine."""
        return self.config.text_weight

    def applies_to(self, text: str, encoding: TextEncoding | None = None) -> bool:
        """Say whether a text claims what similarity cannot tell: order, time or loudness.

        encoding: as for `joint_probability`. Raises InvalidValueError for an empty text.
        """
        _check_text(text)
        return bool(self.claims_in(self._read([text], encoding))[0])

    @torch.inference_mode()
    def claims_in(self, texts: TextSet) -> NDArray[np.bool_]:
        """Say which texts [Q] claim something of the kind."""
        tokens = torch.from_numpy(texts.tokens.astype(np.float32))
        logits = self.heads.gate(tokens, torch.from_numpy(texts.lengths))
        return np.asarray((logits > 0).numpy())

    def joint_probability(
        self,
        text: str,
        similarities: FloatArray,
        candidates: Candidates,
        encoding: TextEncoding | None = None,
    ) -> FloatArray:
        """Return [N] probabilities, together 1, that a candidate is the one that a text means.

        encoding: what the encoder says of the text, where the caller already asked for it; reading
        a text takes longer than judging a hundred candidates. Raises InvalidValueError for an empty
        text, for vectors that are not finite or of another width, and for a key that comes twice.
        """
        _check_text(text)
        check_candidates(candidates, similarities, self._spec.dimension)
        if len(candidates) < 2:
            return np.ones(len(candidates), np.float32)
        return self.sound_probability(self._read([text], encoding), similarities, candidates)

    @torch.inference_mode()
    def sound_probability(
        self, text: TextSet, similarities: FloatArray, candidates: Candidates
    ) -> FloatArray:
        """Do as `joint_probability` does, unchecked, for a TextSet of the one text."""
        order = np.argsort(candidates.keys, kind="stable")
        cosines = torch.from_numpy(similarities.astype(np.float32)[order])[None]
        view, sounds = self._text_view(text), self._sound_view(candidates, order)
        seen = self.heads.sounds_for(view, sounds, cosines)[0]
        noise = SeededNoise(seed_of(text.texts[0]), candidates.keys[order])
        sample = self._probability(view.vectors[0], seen, noise, of_texts=False)
        return _answer(sample, order, self.config.sound_temperature)

    def text_probability(
        self, sound: Candidates, similarities: FloatArray, texts: Sequence[str] | TextSet
    ) -> FloatArray:
        """Return [Q] probabilities, together 1, that a text is the one that says a sound.

        sound: one row. similarities [Q] are the cosines of the first stage. Raises
        InvalidValueError for more than one sound, an empty text, and what is not finite.
        """
        if len(sound) != 1:
            raise InvalidValueError(f"{len(sound)} sounds", "texts are judged for one at a time")
        plain = texts.texts if isinstance(texts, TextSet) else tuple(texts)
        for text in plain:
            _check_text(text)
        check_candidates(sound, np.zeros(1, np.float32), self._spec.dimension)
        _check_similarities(similarities, len(plain))
        if len(plain) < 2:
            return np.ones(len(plain), np.float32)
        read = texts if isinstance(texts, TextSet) else self._read(plain, None)
        return self._judge_texts(sound, similarities, read)

    @torch.inference_mode()
    def _judge_texts(
        self, sound: Candidates, similarities: FloatArray, texts: TextSet
    ) -> FloatArray:
        seeds = np.array([seed_of(text) for text in texts.texts], np.uint64).view(np.int64)
        order = np.argsort(seeds, kind="stable")
        cosines = torch.from_numpy(similarities.astype(np.float32)[order])[:, None]
        view, heard = self._text_view(texts.rows(order)), self._sound_view(sound, np.zeros(1, int))
        seen = self.heads.texts_for(view, heard, cosines)[0]
        noise = SeededNoise(int(sound.keys[0]), seeds[order])
        sample = self._probability(heard.vectors[0], seen, noise, of_texts=True)
        return _answer(sample, order, self.config.text_temperature)

    def _read(self, texts: Sequence[str], encoding: TextEncoding | None) -> TextSet:
        if encoding is not None:
            return TextSet(tuple(texts), encoding.embedding, encoding.tokens, encoding.lengths)
        if self.encoder is None:
            raise InvalidValueError("a text", "there is no encoder here to read it")
        return read_texts(texts, self.encoder)

    def _text_view(self, texts: TextSet) -> TextView:
        longest = max(1, int(texts.lengths.max(initial=0)))
        tokens = torch.from_numpy(texts.tokens[:, :longest].astype(np.float32))
        view: TextView = self.heads.text(
            torch.from_numpy(texts.vectors), tokens, torch.from_numpy(texts.lengths)
        )
        return view

    def _sound_view(self, sounds: Candidates, order: NDArray[np.int64]) -> SoundView:
        longest = int(sounds.lengths.max(initial=0))
        return hear(
            torch.from_numpy(sounds.vectors[order]),
            torch.from_numpy(sounds.frames[order, :longest]),
            torch.from_numpy(sounds.lengths[order]),
        )

    @abstractmethod
    def _probability(
        self, query: Tensor, candidates: Tensor, noise: SeededNoise, of_texts: bool
    ) -> Tensor:
        """Return probabilities [N] for one query [D] and candidates [N, D], seen by it."""


def _check_text(text: str) -> None:
    if not text.strip():
        raise InvalidValueError("an empty text", "say what is to be heard")


def check_candidates(candidates: Candidates, similarities: FloatArray, dimension: int) -> None:
    """Raise InvalidValueError for candidates that cannot be judged."""
    _check_similarities(similarities, len(candidates))
    widths = {candidates.vectors.shape[-1], candidates.frames.shape[-1]}
    if widths != {dimension}:
        raise InvalidValueError(f"vectors of width {sorted(widths)}", f"expected {dimension}")
    if not (np.isfinite(candidates.vectors).all() and np.isfinite(candidates.frames).all()):
        raise InvalidValueError("vectors that are not finite", "NaN or infinity is no place")
    keys, counts = np.unique(candidates.keys, return_counts=True)
    if (counts > 1).any():
        raise InvalidValueError(f"candidate {keys[counts > 1][0]}", "it comes more than once")


def _check_similarities(similarities: FloatArray, count: int) -> None:
    if similarities.shape != (count,):
        detail = f"there are {count} candidates"
        raise InvalidValueError(f"similarities of shape {similarities.shape}", detail)
    if not np.isfinite(similarities).all():
        raise InvalidValueError("similarities that are not finite", "NaN or infinity is no cosine")


def _answer(sample: Tensor, order: NDArray[np.int64], temperature: float) -> FloatArray:
    """Temper probabilities [N] and put them back in the order of arrival."""
    logs = sample.clamp(min=torch.finfo(torch.float32).tiny).log()
    tempered = torch.softmax(logs / temperature, dim=0).numpy()
    answer = np.empty(len(order), np.float32)
    answer[order] = tempered
    return answer

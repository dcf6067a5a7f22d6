"""What writing captions takes beside the network, for both captioners: its words and its revision."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Generic

from torch import nn

from soundpost.errors import BrokenCheckpointError, ModelNotFoundError
from soundpost.models.caption_condition import Conditions
from soundpost.models.compact import revision_of
from soundpost.models.pretrained import Model, read_pretrained
from soundpost.models.text_latents import CaptionVocabulary


class TrainedWriter(ABC, Generic[Model]):
    """A trained network behind the captioner's protocol: conditions in, captions out."""

    name: ClassVar[str]

    def __init__(self, model: Model, vocabulary: CaptionVocabulary, revision: str) -> None:
        self.model = model
        nn.Module.eval(model)
        self.vocabulary = vocabulary
        self.revision = revision

    @property
    def dimension(self) -> int:
        """The width of the encoder's space."""
        return int(self.model.config.shape.dimension)

    @abstractmethod
    def write(self, sounds: Conditions, seeds: Sequence[int], diverse: bool = False) -> list[str]:
        """Return a caption for each of B sounds; equal seeds give equal captions."""


def read_captioner(kind: type[Model], folder: Path) -> tuple[Model, CaptionVocabulary, str]:
    """Read a trained folder; return network, words and revision.

    Raises ModelNotFoundError, or BrokenCheckpointError where weights or words do not fit.
    """
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise ModelNotFoundError(folder, "model.safetensors is missing")
    model = read_pretrained(kind, folder, folder)
    # Weights lie in the mapped file as they come; matrix products round by how memory is aligned.
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()
    vocabulary = CaptionVocabulary.load(folder)
    if len(vocabulary) != model.config.shape.vocabulary:
        raise BrokenCheckpointError(folder, f"{len(vocabulary)} words in its tokenizer")
    return model, vocabulary, revision_of(weights)

"""The plain alternative to DiffATR: the same heads and the same attention over the list, no diffusion.

It is trained with the plain cross-entropy of 100 p against the true candidate. Of equal size, but
for the embedding of the step, which it does not need: what DiffATR gains over it is what diffusion
gains.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from soundpost.models.diffatr import SHARPNESS
from soundpost.models.diffusion import SeededNoise
from soundpost.models.encoder import AudioTextEncoder
from soundpost.models.joint_heads import JointHeads, ListAttention
from soundpost.models.joint_reranker import JointConfig, JointReranker, read_reranker


class CrossAttentionConfig(JointConfig):
    """Dimensions of the plain reranker and the encoder it belongs to."""

    model_type = "soundpost_cross_attention"

    # Without one of its own, transformers would give it one that knows none of JointConfig's.
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)


class CrossAttentionModel(PreTrainedModel):
    """Heads and one attention over the list for each direction."""

    config: CrossAttentionConfig
    config_class = CrossAttentionConfig
    base_model_prefix = "cross_attention"

    def __init__(self, config: CrossAttentionConfig) -> None:
        super().__init__(config)
        self.heads = JointHeads(config.shape)
        self.text_to_audio = ListAttention(config.shape.dimension)
        self.audio_to_text = ListAttention(config.shape.dimension)
        self.post_init()  # type: ignore[no-untyped-call]  # transformers leaves it untyped

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Keep torch's own initialisation."""

    def judge(
        self, attention: ListAttention, query: Tensor, candidates: Tensor, present: Tensor
    ) -> Tensor:
        """Return p [B, N] of queries [B, D] and candidates [B, N, D]: there is no step, no noise."""
        no_step, no_noise = torch.zeros_like(query), torch.zeros_like(candidates[..., 0])
        return attention.judge(query, candidates, present, no_step, no_noise)


class CrossAttentionReranker(JointReranker):
    """The plain reranker behind the reranker protocol: one pass, no noise."""

    model: CrossAttentionModel

    def __init__(
        self, model: CrossAttentionModel, encoder: AudioTextEncoder | None, revision: str
    ) -> None:
        super().__init__("cross_attention", model, model.heads, encoder, revision)

    @classmethod
    def load(cls, folder: Path, encoder: AudioTextEncoder) -> CrossAttentionReranker:
        """Load a trained folder.

        Raises ModelNotFoundError, BrokenCheckpointError (also where it was trained over another
        encoder).
        """
        model, revision = read_reranker(CrossAttentionModel, folder, encoder)
        return cls(model, encoder, revision)

    def _probability(
        self, query: Tensor, candidates: Tensor, noise: SeededNoise, of_texts: bool
    ) -> Tensor:
        """Judge one query [D] and its candidates [N, D]."""
        attention = self.model.audio_to_text if of_texts else self.model.text_to_audio
        present = torch.ones(1, len(candidates), dtype=torch.bool)
        p = self.model.judge(attention, query[None], candidates[None], present)
        return torch.softmax(SHARPNESS * p[0], dim=0)

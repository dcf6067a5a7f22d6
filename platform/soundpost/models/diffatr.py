"""DiffATR: the joint probability of a query and its candidates, by denoising (arXiv 2409.10025).

A denoiser sees the query, the candidates and a noisy x_k in R^N, and says which candidate the
query means; beginning with pure noise, a sampler calls it a number of times. Each direction, text
to audio and audio to text, has a denoiser of its own, and each of these a one-step predictor
distilled from 50 steps of DDIM. See the model card beside its weights.

[open] and chosen here: what the denoiser is taken to predict. Trained with the cross-entropy of
100 p against the one-hot x_0, softmax(100 p) is its belief in each candidate and so the mean of x_0;
`prediction` "posterior" hands that to the sampler, and its last prediction is the probability.
"clamped" hands over p itself, cut to [-1, 1], as published, and takes softmax(100 p) at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from soundpost.errors import InvalidValueError
from soundpost.models.diffusion import DdimSampler, DdpmSampler, Noise, SeededNoise, cosine_schedule
from soundpost.models.encoder import AudioTextEncoder
from soundpost.models.joint_heads import DiffAtrDimensions, JointHeads, ListAttention, sinusoids
from soundpost.models.joint_reranker import JointConfig, JointReranker, read_reranker

__all__ = [
    "AudioToTextDenoiser",
    "Denoiser",
    "DiffAtrConfig",
    "DiffAtrDimensions",
    "DiffAtrModel",
    "DiffAtrReranker",
    "PreparedDenoiser",
    "PreparedList",
    "TextToAudioDenoiser",
]

# p is told apart by a hundredth.
SHARPNESS = 100.0
PREDICTIONS = ("posterior", "clamped")
SHIPPED_RERANKER = Path(__file__).parent / "weights" / "diffatr"


class DiffAtrConfig(JointConfig):
    """Dimensions of DiffATR, the encoder it belongs to, and how its answers are read.

    `prediction` is "posterior" or "clamped"; `scoring` "joint", or "similarity" for heads that were
    trained without a denoiser.
    """

    model_type = "soundpost_diffatr"

    def __init__(
        self, prediction: str = "posterior", scoring: str = "joint", **kwargs: Any
    ) -> None:
        self.prediction = prediction
        self.scoring = scoring
        super().__init__(**kwargs)


class Denoiser(PreTrainedModel):
    """p [B, N] that predicts x_0, of queries [B, D], candidates [B, N, D], x_k [B, N] and k [B].

    tau = W_b SiLU(W_a PE[k]), then the equations of ListAttention.
    """

    config: DiffAtrConfig
    config_class = DiffAtrConfig
    base_model_prefix = "denoiser"

    def __init__(self, config: DiffAtrConfig) -> None:
        super().__init__(config)
        width = config.shape.dimension
        self.attention = ListAttention(width)
        self.embed_step = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.post_init()  # type: ignore[no-untyped-call]  # transformers leaves it untyped

    def _init_weights(self, module: nn.Module) -> None:
        """Keep torch's own initialisation."""

    def tau(self, steps: Tensor) -> Tensor:
        """Return the embedding [B, D] of steps [B]."""
        embedding = sinusoids(steps, self.attention.query.in_features)
        tau: Tensor = self.embed_step(embedding)
        return tau

    def forward(
        self, query: Tensor, candidates: Tensor, x: Tensor, steps: Tensor, present: Tensor
    ) -> Tensor:
        """Return p [B, N], -inf where a candidate is not present [B, N]."""
        return self.attention.judge(query, candidates, present, self.tau(steps), x)


class TextToAudioDenoiser(Denoiser):
    """Which sound a text means: the query is a text, the candidates are sounds."""


class AudioToTextDenoiser(Denoiser):
    """Which text a sound means: the query is a sound, the candidates are texts."""


class DiffAtrModel(PreTrainedModel):
    """Heads, a denoiser for each direction, and the one-step predictors distilled from them."""

    config: DiffAtrConfig
    config_class = DiffAtrConfig
    base_model_prefix = "diffatr"

    def __init__(self, config: DiffAtrConfig) -> None:
        super().__init__(config)
        self.heads = JointHeads(config.shape)
        self.text_to_audio = TextToAudioDenoiser(config)
        self.audio_to_text = AudioToTextDenoiser(config)
        self.text_to_audio_once = TextToAudioDenoiser(config)
        self.audio_to_text_once = AudioToTextDenoiser(config)
        self.post_init()  # type: ignore[no-untyped-call]  # transformers leaves it untyped

    def _init_weights(self, module: nn.Module) -> None:
        """Keep torch's own initialisation."""


class PreparedDenoiser:
    """A denoiser as fast as it gets for the many steps on one list: what needs no x is ready.

    Of a step there is left: a softmax over the list, one weighted sum of the candidates, and the
    last layers of the MLP. Same numbers as Denoiser, up to rounding.
    """

    @torch.no_grad()
    def __init__(self, denoiser: Denoiser) -> None:
        attention = denoiser.attention
        steps = denoiser.config.shape.diffusion_steps
        tau = denoiser.tau(torch.arange(steps, device=attention.query.weight.device))
        of_context, of_candidate = attention.first.weight.chunk(2, dim=1)
        telling = of_context @ attention.out.weight @ attention.value.weight
        self.asking = attention.query.weight.T @ attention.key.weight
        self.asking_steps = tau @ self.asking
        self.telling = telling.T.contiguous()
        self.telling_steps = tau @ self.telling
        self.of_candidate = of_candidate.T.contiguous()
        self.bias = attention.first.bias.detach()
        self.last = attention.last.weight[0].detach()
        self.gain = attention.gain.detach()
        self.last_bias = attention.last.bias.detach()
        self.known = attention.known.detach()

    def on(self, query: Tensor, candidates: Tensor, present: Tensor | None = None) -> PreparedList:
        """Prepare B lists: queries [B, D], candidates [B, N, D], present [B, N]."""
        similar = torch.einsum("bd,bnd->bn", query @ self.asking, candidates)
        if present is not None:
            similar = similar.masked_fill(~present, float("-inf"))
        by_step = candidates @ self.asking_steps.T
        hidden = candidates @ self.of_candidate + self.bias
        known = self.known * torch.einsum("bd,bnd->bn", query, candidates) + self.last_bias
        return PreparedList(self, candidates, similar, by_step, hidden, known)


@dataclass(frozen=True)
class PreparedList:
    """B lists of candidates [B, N, D] with everything that does not depend on x.

    similar [B, N] and by_step [B, N, K] make the attention weights, hidden [B, N, 2 D] is what the
    MLP's first layer has from the candidates, known [B, N] what p has from the heads alone.
    """

    denoiser: PreparedDenoiser
    candidates: Tensor
    similar: Tensor
    by_step: Tensor
    hidden: Tensor
    known: Tensor

    def p(self, x: Tensor, step: int) -> Tensor:
        """Return p [B, N] for x [B, N] at a step; -inf where not present."""
        logits = self.similar + self.by_step[..., step] + x
        w = torch.softmax(logits, dim=1)
        context = (w[:, None] @ self.candidates)[:, 0] @ self.denoiser.telling
        context = context + self.denoiser.telling_steps[step]
        hidden = torch.relu_(self.hidden + context[:, None])
        p = hidden @ self.denoiser.last + self.denoiser.gain * w + self.known
        return p.masked_fill(logits == float("-inf"), float("-inf"))


class DiffAtrReranker(JointReranker):
    """DiffATR behind the reranker protocol.

    steps: 1 takes the distilled predictor (`distilled` False: one step of the denoiser itself);
    more takes that many steps of DDIM with `eta`; "ddpm" all steps of DDPM.
    """

    model: DiffAtrModel

    def __init__(
        self,
        model: DiffAtrModel,
        encoder: AudioTextEncoder | None,
        revision: str,
        steps: int | str = 1,
        eta: float = 0.0,
        distilled: bool = True,
    ) -> None:
        total = model.config.shape.diffusion_steps
        taken = steps if isinstance(steps, int) else total
        # The heads alone take no step.
        told = None if model.config.scoring == "similarity" else taken
        super().__init__("diffatr", model, model.heads, encoder, revision, told)
        self.once = steps == 1 and distilled
        self.sampler = _sampler(total, steps, eta)
        pairs = (
            (model.text_to_audio_once, model.audio_to_text_once)
            if self.once
            else (model.text_to_audio, model.audio_to_text)
        )
        self._sounds, self._texts = (PreparedDenoiser(denoiser) for denoiser in pairs)

    @classmethod
    def load(
        cls,
        folder: Path | None,
        encoder: AudioTextEncoder,
        steps: int | str = 1,
        eta: float = 0.0,
        distilled: bool = True,
    ) -> DiffAtrReranker:
        """Load a trained folder, None for the weights shipped with us.

        Raises ModelNotFoundError, BrokenCheckpointError (also where it was trained over another
        encoder), and InvalidValueError for the number of steps.
        """
        model, revision = read_reranker(DiffAtrModel, folder or SHIPPED_RERANKER, encoder)
        return cls(model, encoder, revision, steps, eta, distilled)

    def _probability(
        self, query: Tensor, candidates: Tensor, noise: SeededNoise, of_texts: bool
    ) -> Tensor:
        """Sample x_0 [N] for one query [D] and its candidates [N, D]."""
        if self.model.config.scoring == "similarity":
            return self.heads.logits(query[None], candidates[None])[0].softmax(0)
        denoiser = self._texts if of_texts else self._sounds
        ready = denoiser.on(query[None], candidates[None])
        prediction = "posterior" if self.once else self.model.config.prediction
        return sampled(ready, self.sampler, lambda draw: noise(draw)[None], prediction)[0]


def sampled(
    lists: PreparedList, sampler: DdimSampler | DdpmSampler, noise: Noise, prediction: str
) -> Tensor:
    """Sample probabilities [B, N] of lists from noise [B, N]."""
    posterior = prediction == "posterior"

    def predict(x: Tensor, step: int) -> Tensor:
        p = lists.p(x, step)
        return torch.softmax(SHARPNESS * p, dim=1) if posterior else p

    sample = sampler.sample(predict, noise)
    if posterior:
        return sample
    absent = lists.similar == float("-inf")
    return torch.softmax((SHARPNESS * sample).masked_fill(absent, float("-inf")), dim=1)


def _sampler(total: int, steps: int | str, eta: float) -> DdimSampler | DdpmSampler:
    schedule = cosine_schedule(total)
    if steps == "ddpm":
        return DdpmSampler(schedule)
    if not isinstance(steps, int):
        raise InvalidValueError(steps, "a number of steps, or 'ddpm'")
    schedule.spread(steps)
    return DdimSampler(schedule, steps, eta)

"""ADIFF: what differs between two recordings, in words (arXiv 2502.04476).

Over any encoder (its vectors a [A]) and any causal language model of transformers. With k tokens
for each audio, W the width of the language model, and Block pre-norm with queries, keys and values
without bias and an MLP W -> 2 W -> W with ReLU:

    e1 = W1 a    e2 = Dropout(W2 GELU(e1))    z = LayerNorm(e1 + e2) / norm      both audios alike
    prefix i = last k of Blocks([reshape(W_i z_i, k x W) ; k learned constants]) own weights each
    text     = last of Blocks([wte(prompt, padded) ; learned constants])
    U = [prefix 1 ; separator ; prefix 2 ; text]      separator: wte of the end-of-text token
    V = Blocks(U)                    cross-projection: bidirectional, no mask, no positions
    language model input = [V ; wte(answer)], loss on the answer alone

Ours has one thing more, between prefix 2 and text: `contrast_tokens` of reshape(W_d z_d), z_d a projection
like the above, with its own weights, of a_2 - a_1. Blocks begin by averaging, and take very long to find
out that one recording has to be taken from the other; and what differs a little in `a` hardly differs
in z. Of development pairs, two layers over z_1, z_2 and z_2 - z_1 name .51 of the kinds of edit, with z_d
beside them .75: times, pitches and bands are hardly named without. The paper has none,
`contrast_tokens` 0.

The full size (768 wide encoder, GPT-2 base) has 140.5M new parameters. [open] in the paper and
chosen here: dropout 0.5 in the projection as in its parent Pengi, no norm after the last block, and
how it begins: small weights, so that V has the size of the language model's own word vectors.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from soundpost.errors import InvalidValueError
from soundpost.models.language_model import word_vectors

# What cross-entropy leaves out.
IGNORED = -100
# A new weight's deviation is the first over the root of its fan-in, the second times that where it is
# added to what passes by. With torch's own, the tokens of V are all alike at first, and it takes
# twice the steps until the audios are told apart.
_DEVIATION, _ADDED = 0.4, 0.3


@dataclass(frozen=True)
class AdiffDimensions:
    """Dimensions of ADIFF; the defaults are those of the paper.

    audio_width: of the encoder's vector a; audio_hidden: of z; width: of the language model;
    audio_tokens: of each audio's prefix, and constants; prompt_tokens: the prompt is padded or cut
    to so many; text_tokens: of its prefix; contrast_tokens: of the difference of both audios.
    separator, cross_projection: False leaves them out, for the ablations. dropout: of the
    projection; block_dropout: of attention and MLP.
    """

    audio_width: int = 768
    audio_hidden: int = 1024
    width: int = 768
    audio_tokens: int = 40
    prompt_tokens: int = 40
    text_tokens: int = 40
    contrast_tokens: int = 0
    mapper_layers: int = 4
    mapper_heads: int = 8
    cross_layers: int = 4
    cross_heads: int = 4
    mlp_ratio: float = 2.0
    dropout: float = 0.5
    block_dropout: float = 0.0
    separator: bool = True
    cross_projection: bool = True

    def __post_init__(self) -> None:
        for heads in (self.mapper_heads, self.cross_heads):
            if self.width % heads:
                raise InvalidValueError(f"{heads} heads", f"the width is {self.width}")

    @property
    def prefix_tokens(self) -> int:
        """How many tokens come before the answer: 121 in the paper."""
        audio = 2 * self.audio_tokens + int(self.separator)
        return audio + self.contrast_tokens + self.text_tokens


class AdiffConfig(PretrainedConfig):
    """Dimensions, the language model's own config, and the prompts that it was trained on.

    prompts: by tier "1", "2", "3", what AdiffWriter asks with. encoders: names and revisions of
    what it was trained over.
    """

    model_type = "soundpost_adiff"

    def __init__(
        self,
        dimensions: dict[str, Any] | None = None,
        language_model: dict[str, Any] | None = None,
        prompts: dict[str, str] | None = None,
        encoders: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        self.dimensions = dimensions or asdict(AdiffDimensions())
        self.language_model = language_model or {"model_type": "gpt2"}
        self.prompts = prompts or {}
        self.encoders = encoders or []
        super().__init__(**kwargs)

    @property
    def shape(self) -> AdiffDimensions:
        """The dimensions as what they are."""
        return AdiffDimensions(**self.dimensions)

    @property
    def language_config(self) -> PretrainedConfig:
        """The config of the language model."""
        values = {name: value for name, value in self.language_model.items() if name != "dtype"}
        config: PretrainedConfig = AutoConfig.for_model(values.pop("model_type"), **values)
        if config.model_type == "gpt2":
            # torch's fused attention is the slower one on CPUs at this length.
            config._attn_implementation = "eager"
        return config


class AudioProjection(nn.Module):
    """z [B, H], unit, of audio vectors a [B, A]."""

    def __init__(self, shape: AdiffDimensions) -> None:
        super().__init__()
        self.first = nn.Linear(shape.audio_width, shape.audio_hidden, bias=False)
        self.second = nn.Linear(shape.audio_hidden, shape.audio_hidden, bias=False)
        self.dropout = nn.Dropout(shape.dropout)
        self.norm = nn.LayerNorm(shape.audio_hidden)

    def forward(self, a: Tensor) -> Tensor:
        """Project."""
        first = self.first(a)
        second = self.dropout(self.second(functional.gelu(first)))
        return functional.normalize(self.norm(first + second), dim=-1)


class Block(nn.Module):
    """One pre-norm layer over [B, T, W], every token seeing every other."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, dropout: float) -> None:
        super().__init__()
        hidden = round(width * mlp_ratio)
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.project = nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Let the tokens attend, then think."""
        x = x + self._attend(self.norm_1(x))
        hidden = self.dropout(functional.relu(self.widen(self.norm_2(x))))
        thought: Tensor = x + self.dropout(self.narrow(hidden))
        return thought

    def _attend(self, x: Tensor) -> Tensor:
        key, value = (self._split(part) for part in self.key_value(x).chunk(2, dim=-1))
        query = self._split(self.query(x)) * (x.shape[-1] // self.heads) ** -0.5
        weights = self.dropout((query @ key.transpose(-1, -2)).softmax(-1))
        projected: Tensor = self.project((weights @ value).transpose(1, 2).flatten(2))
        return projected

    def _split(self, x: Tensor) -> Tensor:
        parts: Tensor = x.unflatten(-1, (self.heads, -1))
        return parts.transpose(1, 2)


def blocks(shape: AdiffDimensions, layers: int, heads: int) -> nn.Sequential:
    """Return so many blocks in a row."""
    return nn.Sequential(
        *(Block(shape.width, heads, shape.mlp_ratio, shape.block_dropout) for _ in range(layers))
    )


class Mapper(nn.Module):
    """A prefix [B, constants, W] of tokens [B, T, W]: what learned constants gather from them."""

    def __init__(self, shape: AdiffDimensions, constants: int) -> None:
        super().__init__()
        self.constants = nn.Parameter(torch.randn(constants, shape.width))
        self.blocks = blocks(shape, shape.mapper_layers, shape.mapper_heads)

    def forward(self, tokens: Tensor) -> Tensor:
        """Gather."""
        constants = self.constants.expand(len(tokens), -1, -1)
        mapped: Tensor = self.blocks(torch.cat([tokens, constants], dim=1))
        return mapped[:, tokens.shape[1] :]


class AudioMapper(nn.Module):
    """The prefix [B, k, W] of one of the audios, of its z [B, H]."""

    def __init__(self, shape: AdiffDimensions) -> None:
        super().__init__()
        self.spread = nn.Linear(shape.audio_hidden, shape.audio_tokens * shape.width)
        self.mapper = Mapper(shape, shape.audio_tokens)
        self.width = shape.width

    def forward(self, z: Tensor) -> Tensor:
        """Map."""
        mapped: Tensor = self.mapper(self.spread(z).unflatten(-1, (-1, self.width)))
        return mapped


class Contrast(nn.Module):
    """Tokens [B, k, W] of what one audio vector [B, A] has that the other has not."""

    def __init__(self, shape: AdiffDimensions) -> None:
        super().__init__()
        self.projection = AudioProjection(shape)
        self.spread = nn.Linear(shape.audio_hidden, shape.contrast_tokens * shape.width)
        self.width = shape.width

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Contrast."""
        spread: Tensor = self.spread(self.projection(second - first))
        tokens: Tensor = spread.unflatten(-1, (-1, self.width))
        return tokens


class Adiff(PreTrainedModel):
    """The network: two audio vectors and a prompt to a prefix, and the language model that reads it."""

    config: AdiffConfig
    config_class = AdiffConfig
    base_model_prefix = "adiff"
    _supports_sdpa = True

    def __init__(self, config: AdiffConfig) -> None:
        super().__init__(config)
        shape = config.shape
        self.shape = shape
        self.projection = AudioProjection(shape)
        self.audio_1, self.audio_2 = AudioMapper(shape), AudioMapper(shape)
        self.contrast = Contrast(shape) if shape.contrast_tokens else None
        self.text = Mapper(shape, shape.text_tokens)
        self.cross = (
            blocks(shape, shape.cross_layers, shape.cross_heads)
            if shape.cross_projection
            else nn.Sequential()
        )
        self.language_model: PreTrainedModel = AutoModelForCausalLM.from_config(
            config.language_config
        )
        self.post_init()  # type: ignore[no-untyped-call]  # transformers leaves it untyped

    def _init_weights(self, module: nn.Module) -> None:
        """Keep torch's own initialisation."""

    @property
    def end(self) -> int:
        """The id of the end-of-text token: separator, padding of prompts, and end of answers."""
        end = self.language_model.config.eos_token_id
        return int(end if isinstance(end, int) else end[0])

    @property
    def words(self) -> nn.Embedding:
        """The word vectors of the language model."""
        return word_vectors(self.language_model)

    def new_parts(self) -> list[nn.Module]:
        """Everything that the language model does not bring along."""
        parts = [self.projection, self.audio_1, self.audio_2, self.text, self.cross]
        return parts if self.contrast is None else [*parts, self.contrast]

    @torch.no_grad()
    def start_new_parts(self) -> None:
        """Draw the weights and constants of the new parts, at the size of the word vectors."""
        deviation = self.words.weight.float().std()
        for mapper in (self.audio_1.mapper, self.audio_2.mapper, self.text):
            mapper.constants.mul_(deviation / mapper.constants.std())
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear) and not name.startswith("language_model"):
                added = _ADDED if name.endswith(("project", "narrow")) else 1.0
                nn.init.normal_(module.weight, std=added * _DEVIATION * module.in_features**-0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def prefix(self, first: Tensor, second: Tensor, prompts: Tensor) -> Tensor:
        """Return V [B, P, W] of audio vectors [B, A] and prompts [B, prompt_tokens], padded."""
        spoken = self.text(self.words(prompts))
        separator = self.words.weight[self.end].expand(len(first), 1, -1)
        z_1, z_2 = self.projection(first), self.projection(second)
        parts = [
            self.audio_1(z_1),
            *([separator] if self.shape.separator else []),
            self.audio_2(z_2),
            *([] if self.contrast is None else [self.contrast(first, second)]),
            spoken,
        ]
        crossed: Tensor = self.cross(torch.cat(parts, dim=1))
        return crossed

    def logits(self, prefix: Tensor, answers: Tensor) -> Tensor:
        """Return [B, L, vocabulary]: what is expected at each place of answers [B, L]."""
        told = self.words(answers[:, :-1])
        outputs = self.language_model(
            inputs_embeds=torch.cat([prefix, told.to(prefix.dtype)], dim=1),
            logits_to_keep=answers.shape[1],
            use_cache=False,
        )
        logits: Tensor = outputs.logits
        return logits

    def forward(
        self, first: Tensor, second: Tensor, prompts: Tensor, answers: Tensor, lengths: Tensor
    ) -> Tensor:
        """Return the loss a token of answers [B, L], each valid up to its length [B]."""
        return self.loss(self.prefix(first, second, prompts), answers, lengths)

    def loss(self, prefix: Tensor, answers: Tensor, lengths: Tensor) -> Tensor:
        """Do as `forward` does, of V [B, P, W]."""
        there = torch.arange(answers.shape[1], device=answers.device) < lengths[:, None]
        wanted = answers.masked_fill(~there, IGNORED)
        logits = self.logits(prefix, answers)
        return functional.cross_entropy(
            logits.float().flatten(0, 1), wanted.flatten(), ignore_index=IGNORED
        )


def new_adiff(
    shape: AdiffDimensions, language_model: PreTrainedModel, prompts: dict[str, str]
) -> Adiff:
    """Return an untrained ADIFF around a copy of a language model's weights.

    Raises InvalidValueError where the widths do not fit.
    """
    width = word_vectors(language_model).embedding_dim
    if width != shape.width:
        raise InvalidValueError(f"a width of {shape.width}", f"the language model's is {width}")
    config = AdiffConfig(
        dimensions=asdict(shape), language_model=language_model.config.to_dict(), prompts=prompts
    )
    model = Adiff(config)
    model.language_model.load_state_dict(language_model.state_dict())
    model.start_new_parts()
    return model


def pad_prompt(ids: list[int], shape: AdiffDimensions, end: int) -> list[int]:
    """Cut or pad the ids of a prompt to prompt_tokens."""
    cut = ids[: shape.prompt_tokens]
    return cut + [end] * (shape.prompt_tokens - len(cut))

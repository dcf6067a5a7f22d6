"""What rerankers see of a text and of a sound: projection heads over an encoder's vectors.

A sound is not one vector but a sequence of them, one a second, and a text one state a token. The
heads meet where the encoder put both: a text gives a few vectors of the joint space, each the
meaning of a part of it (attention over its tokens), and each of these is followed through the
seconds of a sound. What is read from the tracks is how strongly a part is heard, when, and what
comes before and after it; as the tracks hold similarities alone, order is told for words that no
training text had. DiffusionRet, the parent of DiffATR (arXiv 2409.10025), lets the text attend to
the frames of a candidate in the same place.

[open] in the paper, chosen here: number of parts, width of the tracks' network, and that the heads
start as the encoder's own similarity, so that untrained they change nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

# Cosines times this are told apart by exponentials: the smooth maximum over the seconds so far.
_SHARPNESS = 10.0
_FEATURES = 3


@dataclass(frozen=True)
class DiffAtrDimensions:
    """Everything that fixes the shapes of a reranker.

    dimension D and token_width W are the encoder's. parts: vectors read from a text beside its own;
    text_width, text_layers and text_heads: the transformer that finds them; track_width: the
    network that reads their tracks; diffusion_steps K.
    """

    dimension: int
    token_width: int
    parts: int = 6
    text_width: int = 128
    text_layers: int = 2
    text_heads: int = 4
    track_width: int = 64
    diffusion_steps: int = 50


@dataclass(frozen=True)
class TextView:
    """B texts: vectors [B, D] and parts [B, 1 + parts, D], all unit; context [B, text_width]."""

    vectors: Tensor
    parts: Tensor
    context: Tensor


@dataclass(frozen=True)
class SoundView:
    """N sounds: vectors [N, D] unit; frames [N, S, D], valid where mask [N, S] is true."""

    vectors: Tensor
    frames: Tensor
    mask: Tensor


class TextHead(nn.Module):
    """Text vector [B, D] and token states [B, L, W] to a view."""

    def __init__(self, dimensions: DiffAtrDimensions) -> None:
        super().__init__()
        width = dimensions.text_width
        self.widen = nn.Linear(dimensions.token_width, width)
        layer = nn.TransformerEncoderLayer(
            width, dimensions.text_heads, 2 * width, 0.0, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(
            layer, dimensions.text_layers, enable_nested_tensor=False
        )
        self.norm = nn.LayerNorm(width)
        self.where = nn.Linear(width, dimensions.parts)
        self.meaning = nn.Linear(dimensions.token_width, dimensions.dimension)
        self.residual = _silent(nn.Linear(width, dimensions.dimension))

    def forward(self, vectors: Tensor, tokens: Tensor, lengths: Tensor) -> TextView:
        """Read B texts; tokens past lengths [B] do not count."""
        mask = _valid(lengths.clamp(min=1), tokens.shape[1])
        states = self.widen(functional.layer_norm(tokens, tokens.shape[-1:]))
        states = self.norm(self.layers(states, src_key_padding_mask=~mask))
        share = mask[..., None] / mask.sum(1)[:, None, None]
        context = (states * share).sum(1)
        where = self.where(states).masked_fill(~mask[..., None], float("-inf")).softmax(1)
        pooled = functional.normalize(where.transpose(1, 2) @ tokens, dim=-1)
        parts = functional.normalize(self.meaning(pooled), dim=-1)
        return TextView(
            functional.normalize(vectors + self.residual(context), dim=-1),
            torch.cat([vectors[:, None], parts], dim=1),
            context,
        )

    @torch.no_grad()
    def start_meaning(self, vectors: Tensor, tokens: Tensor, lengths: Tensor) -> None:
        """Begin with the linear map (ridge regression) from mean token states to text vectors."""
        mask = _valid(lengths.clamp(min=1), tokens.shape[1])
        mean = (tokens * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        mean = functional.normalize(mean, dim=-1).double()
        inputs = torch.cat([mean, torch.ones_like(mean[:, :1])], dim=1)
        square = inputs.T @ inputs
        ridge = 1e-3 * square.diagonal().mean() * torch.eye(len(square), dtype=square.dtype)
        solved = torch.linalg.solve(square + ridge, inputs.T @ vectors.double())
        self.meaning.weight.copy_(solved[:-1].T)
        self.meaning.bias.copy_(solved[-1])


class SoundHead(nn.Module):
    """Vector [N, D] and frames [N, S, D] to a view: what is heard, and early or late."""

    def __init__(self, dimensions: DiffAtrDimensions) -> None:
        super().__init__()
        self.early = _silent(nn.Linear(dimensions.dimension, dimensions.dimension, bias=False))
        self.late = _silent(nn.Linear(dimensions.dimension, dimensions.dimension, bias=False))

    def forward(self, vectors: Tensor, frames: Tensor, lengths: Tensor) -> SoundView:
        """Hear N sounds; one without frames is taken as one frame, its vector."""
        if not frames.shape[1]:
            frames = vectors[:, None]
        nothing = (lengths < 1)[:, None]
        frames = torch.cat([torch.where(nothing, vectors, frames[:, 0])[:, None], frames[:, 1:]], 1)
        mask = _valid(lengths.clamp(min=1), frames.shape[1])
        share = mask.to(frames.dtype) / mask.sum(1, keepdim=True)
        late = share * _places(mask)
        heard = self.early(_pooled(share - late, frames)) + self.late(_pooled(late, frames))
        return SoundView(functional.normalize(vectors + heard, dim=-1), frames, mask)


class PairHead(nn.Module):
    """Follow the parts of texts through sounds: B texts and N sounds to summaries [B, N, H]."""

    def __init__(self, dimensions: DiffAtrDimensions) -> None:
        super().__init__()
        width, parts = dimensions.track_width, 1 + dimensions.parts
        self.tracks = nn.Linear(_FEATURES * parts, width)
        self.place = nn.Linear(2, width, bias=False)
        self.asked = nn.Linear(dimensions.text_width, width, bias=False)
        self.second = nn.Linear(width, width)
        self.asked_again = nn.Linear(dimensions.text_width, width, bias=False)
        self.summary = nn.Linear(2 * width + 1, width)

    def forward(self, text: TextView, sound: SoundView, cosines: Tensor) -> Tensor:
        """Summarise each pair; cosines [B, N] are the first stage's."""
        place = torch.stack([_places(sound.mask), 1 / sound.mask.sum(1)[:, None] * sound.mask], -1)
        hidden = self.tracks(tracks(text.parts, sound)) + self.place(place)
        hidden = torch.relu(hidden + self.asked(text.context)[:, None, None])
        hidden = torch.relu(self.second(hidden) + self.asked_again(text.context)[:, None, None])
        # ReLU leaves nothing below 0, so silence past the end never is the maximum.
        hidden = hidden * sound.mask[..., None]
        mean = hidden.sum(2) / sound.mask.sum(1)[:, None]
        pooled = torch.cat([mean, hidden.amax(2), cosines[..., None]], dim=-1)
        return torch.relu(self.summary(pooled))


def tracks(parts: Tensor, sound: SoundView) -> Tensor:
    """Follow parts [B, M, D] through sounds: [B, N, S, 3 M].

    How much a part is heard now, most of all before now, and most of all after now; the latter two
    as smooth maxima that start from 0.
    """
    now = torch.einsum("bmd,nsd->bnsm", parts, sound.frames)
    strength = torch.exp(_SHARPNESS * now) * sound.mask[..., None]
    until = strength.cumsum(2)
    before = torch.log1p(until - strength) / _SHARPNESS
    after = torch.log1p((until[:, :, -1:] - until).clamp(min=0.0)) / _SHARPNESS
    return torch.cat([4.0 * now, before.clamp(min=0.0) * 4.0, 4.0 * after], dim=-1)


class JointHeads(nn.Module):
    """All heads, and the similarity of representations in both directions.

    Candidates are seen with the query's eyes: a sound among sounds is v + E_a h, a text among texts
    t + E_t h, where h is the pair's summary. Similarity is the dot product with the query.
    """

    def __init__(self, dimensions: DiffAtrDimensions) -> None:
        super().__init__()
        self.text = TextHead(dimensions)
        self.sound = SoundHead(dimensions)
        self.pair = PairHead(dimensions)
        self.to_sound = _silent(nn.Linear(dimensions.track_width, dimensions.dimension, bias=False))
        self.to_text = _silent(nn.Linear(dimensions.track_width, dimensions.dimension, bias=False))
        self.scale = nn.Parameter(torch.tensor(math.log(20.0)))

    def sounds_for(self, text: TextView, sound: SoundView, cosines: Tensor) -> Tensor:
        """Return sounds as each text sees them, [B, N, D]."""
        seen: Tensor = sound.vectors + self.to_sound(self.pair(text, sound, cosines))
        return seen

    def texts_for(self, text: TextView, sound: SoundView, cosines: Tensor) -> Tensor:
        """Return texts as each sound sees them, [N, B, D]; cosines stay [B, N]."""
        summary = self.pair(text, sound, cosines).transpose(0, 1)
        seen: Tensor = text.vectors + self.to_text(summary)
        return seen

    def both(self, text: TextView, sound: SoundView, cosines: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `sounds_for` and `texts_for` do, each pair summarised once."""
        summary = self.pair(text, sound, cosines)
        sounds = sound.vectors + self.to_sound(summary)
        return sounds, text.vectors + self.to_text(summary.transpose(0, 1))

    def logits(self, query: Tensor, candidates: Tensor) -> Tensor:
        """Return similarities [B, N] of queries [B, D] and [B, N, D], as sharp as was learned."""
        return self.scale.exp() * torch.einsum("bd,bnd->bn", query, candidates)


class ListAttention(nn.Module):
    """A query reads a whole list of candidates and judges each of them.

    With query t, candidates v_i, and where a denoiser uses it the step's tau and the noisy x:
    q = W_q(t + tau), K_i = W_k(v_i + tau), V_i = W_v(v_i + tau), w = softmax(q . K_i + x_i),
    c = W_o sum w_i V_i, p_i = MLP([c ; v_i]) + w_i. Equivariant to the order of the candidates.

    Calculated so that keys and values need never be made: q . K_i = (W_k^T q) . v_i and a constant
    that softmax drops; sum w_i V_i = W_v(sum w_i v_i + tau).

    [open] W_q and W_k start as multiples of the identity, so that w starts as the softmax of the
    heads' similarities.
    """

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.query = nn.Linear(dimension, dimension, bias=False)
        self.key = nn.Linear(dimension, dimension, bias=False)
        self.value = nn.Linear(dimension, dimension, bias=False)
        self.out = nn.Linear(dimension, dimension, bias=False)
        self.first = nn.Linear(2 * dimension, 2 * dimension)
        self.last = nn.Linear(2 * dimension, 1)

    @torch.no_grad()
    def start_as_similarity(self, scale: float) -> None:
        """Let attention begin as the softmax of `scale` times the similarity."""
        for layer in (self.query, self.key):
            layer.weight.mul_(0.1).add_(math.sqrt(scale) * torch.eye(len(layer.weight)))
        self.last.weight.mul_(0.1)

    def judge(
        self, query: Tensor, candidates: Tensor, present: Tensor, tau: Tensor, x: Tensor
    ) -> Tensor:
        """Return p [B, N], -inf where not present [B, N], of queries [B, D], lists [B, N, D].

        tau [B, D] and x [B, N] are the denoiser's; zeros without one.
        """
        asked = self.query(query + tau) @ self.key.weight
        logits = torch.einsum("bd,bnd->bn", asked, candidates) + x
        w = logits.masked_fill(~present, float("-inf")).softmax(1)
        context = self.out(self.value(torch.einsum("bn,bnd->bd", w, candidates) + tau))
        of_context, of_candidate = self.first.weight.chunk(2, dim=1)
        hidden = candidates @ of_candidate.T + (context @ of_context.T + self.first.bias)[:, None]
        p: Tensor = self.last(torch.relu(hidden))[..., 0] + w
        return p.masked_fill(~present, float("-inf"))


def _silent(layer: nn.Linear) -> nn.Linear:
    """Let a layer begin with nothing to say."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _valid(lengths: Tensor, size: int) -> Tensor:
    """Return a mask [B, size], true below lengths [B]."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def _places(mask: Tensor) -> Tensor:
    """Return where in its sound each frame lies, 0 to 1, as [N, S]."""
    steps = torch.arange(mask.shape[1], device=mask.device) + 0.5
    return (steps / mask.sum(1, keepdim=True)) * mask


def _pooled(weights: Tensor, frames: Tensor) -> Tensor:
    """Sum frames [N, S, D] with weights [N, S]."""
    return (weights[:, None] @ frames)[:, 0]

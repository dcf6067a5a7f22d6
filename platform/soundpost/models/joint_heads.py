"""What rerankers see of a text and of a sound: projection heads over an encoder's vectors.

A sound is not one vector but a sequence of them, one a second, and a text one state a token. The
heads meet where the encoder put both: a text gives a few vectors of the joint space, each the
meaning of a part of it (attention over its tokens), and each of these is followed through the
seconds of a sound. What is read from the tracks is how strongly a part is heard, when, and what
comes before and after it; as the tracks hold similarities alone, order is told for words that no
training text had. DiffusionRet, the parent of DiffATR (arXiv 2409.10025), lets the text attend to
the frames of a candidate in the same place.

[open] in the paper, chosen here: number of parts and width of the tracks' network; that query and
candidate themselves stay the encoder's vectors and only what is read from the tracks is added, for
heads that may move the vectors learn the clips of the training set by heart (docs/experiments.md);
and that they start as the encoder's own similarity, so that untrained they change nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from soundpost.models.claim_gate import ClaimGate

# Tracks are read in standard scores; those beyond this say nothing more, and would overflow.
_HIGHEST_SCORE = 20.0
_TRACK_SCALE = 0.3
_FIRST_GAIN = 0.02
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

    def forward(self, vectors: Tensor, tokens: Tensor, lengths: Tensor) -> TextView:
        """Read B texts; tokens past lengths [B] do not count."""
        mask = _valid(lengths.clamp(min=1), tokens.shape[1])
        states = self.widen(functional.layer_norm(tokens, tokens.shape[-1:]))
        # Most text towers have told their states where they stand, but not all.
        states = states + sinusoids(
            torch.arange(tokens.shape[1], device=tokens.device), states.shape[2]
        )
        states = self.norm(self.layers(states, src_key_padding_mask=~mask))
        share = mask[..., None] / mask.sum(1)[:, None, None]
        context = (states * share).sum(1)
        where = self.where(states).masked_fill(~mask[..., None], float("-inf")).softmax(1)
        pooled = functional.normalize(where.transpose(1, 2) @ tokens, dim=-1)
        parts = functional.normalize(self.meaning(pooled), dim=-1)
        return TextView(vectors, torch.cat([vectors[:, None], parts], dim=1), context)

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


def hear(vectors: Tensor, frames: Tensor, lengths: Tensor) -> SoundView:
    """View N sounds of vectors [N, D], frames [N, S, D]; one without frames has one, its vector."""
    if not frames.shape[1]:
        frames = vectors[:, None]
    nothing = lengths < 1
    if nothing.any():
        first = torch.where(nothing[:, None], vectors, frames[:, 0])
        frames = torch.cat([first[:, None], frames[:, 1:]], dim=1)
    return SoundView(vectors, frames, _valid(lengths.clamp(min=1), frames.shape[1]))


class PairHead(nn.Module):
    """Follow the parts of texts through sounds: B texts and N sounds to summaries [B, N, H]."""

    centre: Tensor
    spread: Tensor

    def __init__(self, dimensions: DiffAtrDimensions) -> None:
        super().__init__()
        width, parts = dimensions.track_width, 1 + dimensions.parts
        self.tracks = nn.Linear(_FEATURES * parts, width)
        self.place = nn.Linear(2, width, bias=False)
        self.asked = nn.Linear(dimensions.text_width, width, bias=False)
        self.second = nn.Linear(width, width)
        self.asked_again = nn.Linear(dimensions.text_width, width, bias=False)
        self.summary = nn.Linear(2 * width + 1, width)
        size = dimensions.dimension
        self.register_buffer("centre", torch.zeros(size))
        self.register_buffer("spread", torch.eye(size) / math.sqrt(size))

    @torch.no_grad()
    def know_background(self, frames: Tensor) -> None:
        """Learn from frames [F, D] of sound in general how similar any sound is to a text."""
        self.centre.copy_(frames.mean(0))
        values, directions = torch.linalg.eigh(torch.cov(frames.T.double()))
        # Where no sound ever lies, the least difference must not count as a great one.
        self.spread.copy_(directions * values.clamp(min=0.1 * float(values.mean())).sqrt())

    def forward(self, text: TextView, sound: SoundView, cosines: Tensor) -> Tensor:
        """Summarise each pair; cosines [B, N] are the first stage's."""
        place = torch.stack([_places(sound.mask), 1 / sound.mask.sum(1)[:, None] * sound.mask], -1)
        hidden = self.tracks(tracks(text.parts, sound, self.centre, self.spread)) + self.place(
            place
        )
        hidden = torch.relu(hidden + self.asked(text.context)[:, None, None])
        hidden = torch.relu(self.second(hidden) + self.asked_again(text.context)[:, None, None])
        # ReLU leaves nothing below 0, so silence past the end never is the maximum.
        hidden = hidden * sound.mask[..., None]
        mean = hidden.sum(2) / sound.mask.sum(1)[:, None]
        pooled = torch.cat([mean, hidden.amax(2), cosines[..., None]], dim=-1)
        return torch.relu(self.summary(pooled))


def tracks(parts: Tensor, sound: SoundView, centre: Tensor, spread: Tensor) -> Tensor:
    """Follow parts [B, M, D] through sounds: [B, N, S, 3 M].

    How much a part is heard now, most of all before now, and most of all after now; the latter two
    as smooth maxima that start from 0. All in standard scores: by how many deviations a frame is
    more similar to the part than frames in general (centre [D], spread [D, D] their covariance's
    root), as a cosine that is much for one word is little for another.
    """
    deviation = (parts @ spread).norm(dim=-1).clamp(min=1e-4)
    now = torch.einsum("bmd,nsd->bnsm", parts / deviation[..., None], sound.frames)
    now = (now - ((parts @ centre) / deviation)[:, None, None]).clamp(max=_HIGHEST_SCORE)
    strength = torch.exp(now) * sound.mask[..., None]
    until = strength.cumsum(2)
    before = torch.log1p((until - strength).clamp(min=0.0))
    after = torch.log1p((until[:, :, -1:] - until).clamp(min=0.0))
    return _TRACK_SCALE * torch.cat([now, before, after], dim=-1)


class JointHeads(nn.Module):
    """All heads, and the similarity of representations in both directions.

    Candidates are seen with the query's eyes: a sound among sounds is v + E_a h, a text among texts
    t + E_t h, where h is the pair's summary. Similarity is the dot product with the query. The gate
    says which texts there is anything to judge about.
    """

    def __init__(self, dimensions: DiffAtrDimensions) -> None:
        super().__init__()
        self.text = TextHead(dimensions)
        self.pair = PairHead(dimensions)
        self.to_sound = _silent(nn.Linear(dimensions.track_width, dimensions.dimension, bias=False))
        self.to_text = _silent(nn.Linear(dimensions.track_width, dimensions.dimension, bias=False))
        self.scale = nn.Parameter(torch.tensor(math.log(20.0)))
        self.gate = ClaimGate(dimensions.token_width)

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
    c = W_o sum w_i V_i, p_i = MLP([c ; v_i]) + w_i + s t . v_i. Equivariant to the order of the
    candidates.

    Calculated so that keys and values need never be made: q . K_i = (W_k^T q) . v_i and a constant
    that softmax drops; sum w_i V_i = W_v(sum w_i v_i + tau).

    [open] Where this is not the paper's: the term s t . v_i hands on what the heads know, with a
    learned s, so that a list is judged from there on and not anew (docs/experiments.md). And
    p_i = MLP + g w_i with a learned g that starts small, where the paper has g = 1: x stands in w,
    so in 100 p its noise would count 100 w-fold and drown what is known. W_q and W_k start as
    multiples of the identity, so that w starts as the softmax of the heads' similarities.
    """

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.query = nn.Linear(dimension, dimension, bias=False)
        self.key = nn.Linear(dimension, dimension, bias=False)
        self.value = nn.Linear(dimension, dimension, bias=False)
        self.out = nn.Linear(dimension, dimension, bias=False)
        self.first = nn.Linear(2 * dimension, 2 * dimension)
        self.last = nn.Linear(2 * dimension, 1)
        self.gain = nn.Parameter(torch.tensor(_FIRST_GAIN))
        self.known = nn.Parameter(torch.tensor(0.0))

    @torch.no_grad()
    def start_as_similarity(self, scale: float, sharpness: float) -> None:
        """Let `sharpness` times p begin as `scale` times the similarity, and attention as its softmax."""
        for layer in (self.query, self.key):
            identity = torch.eye(len(layer.weight), device=layer.weight.device)
            layer.weight.copy_(math.sqrt(scale) * identity)
        _silent(self.last)
        self.known.fill_(scale / sharpness)

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
        known = self.known * torch.einsum("bd,bnd->bn", query, candidates)
        p: Tensor = self.last(torch.relu(hidden))[..., 0] + self.gain * w + known
        return p.masked_fill(~present, float("-inf"))


def sinusoids(numbers: Tensor, width: int) -> Tensor:
    """Return sinusoidal encodings [B, width] of numbers [B] (Vaswani et al. 2017)."""
    half = (width + 1) // 2
    rates = torch.exp(-math.log(10_000.0) * torch.arange(half, device=numbers.device) / half)
    angles = numbers[:, None].float() * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)[:, :width]


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

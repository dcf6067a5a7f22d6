"""The compact encoder: a small audio tower and a small text tower in one space, shipped with us.

Audio tower: log-mel in patches of 0.96 s, thirteen depthwise-separable convolutions (MobileNet,
arXiv 1704.04861), a tag head on each patch, tokens of 160 ms from two depths of the network,
attention pooling over tokens (multiple-instance learning, Ilse et al., arXiv 1802.04712), and a
path from tag logits straight into the joint space, so that classes without training clips keep a
meaning. Text tower: a three-layer transformer distilled from MiniLM. See the model card beside its weights.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel

from soundpost.audio.features import LogMel, LogMelSpec
from soundpost.errors import ModelNotFoundError
from soundpost.models.allocator import keep_freed_memory
from soundpost.models.encoder import AudioEncoding, EncoderSpec, FloatArray, TextEncoding
from soundpost.models.pretrained import read_pretrained

# (channels out, stride); a patch of 96 frames is 6 steps long before the last stride, 3 after it.
BODY = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *(((512, 1),) * 5),
    (1024, 2),
    (1024, 1),
)
FINE_BLOCKS = 11
STEM_CHANNELS = 32
PATCH_FRAMES = 96
FRAMES_PER_TOKEN = 16
PATCH_HOP_TOKENS = 5
SHIPPED_WEIGHTS = Path(__file__).parent / "weights" / "compact"


class CompactConfig(PretrainedConfig):
    """Dimensions of the compact encoder; saved beside its weights, rebuilds the model."""

    model_type = "soundpost_compact"

    def __init__(
        self,
        dimension: int = 256,
        hidden: int = 512,
        attention_heads: int = 4,
        tag_labels: list[str] | None = None,
        mel: dict[str, Any] | None = None,
        window_s: float = 5.0,
        hop_s: float = 5.0,
        vocabulary: int = 30_522,
        text_embedding: int = 128,
        text_width: int = 384,
        text_layers: int = 3,
        text_heads: int = 12,
        text_feedforward: int = 1_536,
        text_positions: int = 64,
        **kwargs: Any,
    ) -> None:
        self.dimension = dimension
        self.hidden = hidden
        self.attention_heads = attention_heads
        self.tag_labels = tag_labels or []
        self.mel = mel or LogMelSpec().to_dict()
        self.window_s = window_s
        self.hop_s = hop_s
        self.vocabulary = vocabulary
        self.text_embedding = text_embedding
        self.text_width = text_width
        self.text_layers = text_layers
        self.text_heads = text_heads
        self.text_feedforward = text_feedforward
        self.text_positions = text_positions
        super().__init__(**kwargs)


@dataclass(frozen=True)
class AudioOutput:
    """What the audio tower gives for a batch of B windows of T tokens in P patches.

    embedding [B, D] unit norm; frames [B, T, D] unit norm; tokens [B, T, 1536] for language
    models; patch_logits [B, P, C]; patch_mask [B, P] and token_mask [B, T], true where valid;
    token_hop_s seconds from one token to the next.
    """

    embedding: Tensor
    frames: Tensor
    tokens: Tensor
    patch_logits: Tensor
    patch_mask: Tensor
    token_mask: Tensor
    token_hop_s: float

    def tag_probabilities(self) -> Tensor:
        """Return [B, C]: how surely a class is heard somewhere in the window (best patch)."""
        return self.patch_probabilities().amax(dim=1)

    def patch_probabilities(self) -> Tensor:
        """Return [B, P, C]: how surely a class is heard in each patch, none past the end."""
        logits = self.patch_logits.masked_fill(~self.patch_mask[..., None], -30.0)
        return torch.sigmoid(logits)


class SeparableConv(nn.Module):
    """A depthwise 3 x 3 and a pointwise convolution, each with a ReLU6."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        even = stride == 1
        self.depthwise = nn.Conv2d(inputs, inputs, 3, stride, int(even), groups=inputs)
        self.pointwise = nn.Conv2d(inputs, outputs, 1)
        # With stride 2 all padding lies behind, as the teacher's convolutions have it.
        self.behind = (0, 0, 0, 0) if even else (0, 1, 0, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, inputs, T, F] to [B, outputs, T / stride, F / stride]."""
        if any(self.behind):
            x = functional.pad(x, self.behind)
        x = functional.relu6(self.depthwise(x), inplace=True)
        return functional.relu6(self.pointwise(x), inplace=True)


class AudioBody(nn.Module):
    """Patches of log-mel to features: patches see nothing of each other."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, STEM_CHANNELS, 3, stride=2)
        widths = [STEM_CHANNELS, *(outputs for outputs, _ in BODY)]
        self.blocks = nn.ModuleList(
            SeparableConv(inputs, outputs, stride)
            for inputs, (outputs, stride) in zip(widths, BODY, strict=False)
        )
        self.fine_width, self.coarse_width = widths[FINE_BLOCKS], widths[-1]

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Map [N, 96, 64] to fine features [N, 6, 512] and coarse ones [N, 3, 1024]."""
        x = patches[:, None].contiguous(memory_format=torch.channels_last)
        x = functional.relu6(self.stem(functional.pad(x, (0, 1, 0, 1))), inplace=True)
        for block in self.blocks[:FINE_BLOCKS]:
            x = block(x)
        fine = x.mean(dim=3).transpose(1, 2)
        for block in self.blocks[FINE_BLOCKS:]:
            x = block(x)
        return fine, x.mean(dim=3).transpose(1, 2)


class AudioTower(nn.Module):
    """Waves [B, N] to embeddings, frames, tokens and tags."""

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        self.mel = LogMel(LogMelSpec(**config.mel))
        self.body = AudioBody()
        tags, coarse = len(config.tag_labels), self.body.coarse_width
        self.token_width = coarse + self.body.fine_width
        self.tags = nn.Linear(coarse, tags)
        self.hidden = nn.Linear(self.token_width + tags, config.hidden)
        self.project = nn.Linear(config.hidden, config.dimension)
        self.anchors = nn.Linear(tags, config.dimension, bias=False)
        self.attention = nn.Linear(config.hidden, config.attention_heads)
        self.dropout = nn.Dropout(0.1)

    def forward(self, waves: Tensor, lengths: Tensor | None = None) -> AudioOutput:
        """Encode waves [B, N] of `lengths` [B] valid samples (all of N if None)."""
        mel, valid_frames = self._front_end(waves, lengths)
        starts = patch_starts(mel.shape[1]).to(mel.device)
        steps = torch.arange(PATCH_FRAMES, device=mel.device)
        patches = mel[:, starts[:, None] + steps]
        batch, count = patches.shape[:2]
        fine, coarse = self.body(patches.flatten(0, 1))
        logits = self.tags(coarse.mean(dim=1)).unflatten(0, (batch, count))
        tokens = torch.cat([coarse.repeat_interleave(2, dim=1), fine], dim=-1)
        tokens = _in_order(tokens.unflatten(0, (batch, count)))
        inner = FRAMES_PER_TOKEN * torch.arange(6, device=mel.device)
        begin = _in_order((starts[:, None] + inner)[None, ..., None])
        mask = begin[..., 0] < valid_frames[:, None]
        frames, weights = self._frames(tokens, _in_order(_per_token(logits)), mask)
        pooled = torch.einsum("bth,btd->bd", weights, frames) / weights.shape[-1]
        return AudioOutput(
            embedding=functional.normalize(pooled, dim=-1),
            frames=functional.normalize(frames, dim=-1),
            tokens=tokens,
            patch_logits=logits,
            patch_mask=_patch_mask(starts, valid_frames),
            token_mask=mask,
            token_hop_s=self._token_hop_s(starts),
        )

    def _front_end(self, waves: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return mel [B, T, 64], T at least one patch, silent past the valid frames [B]."""
        mel = self.mel(waves)
        spec = self.mel.spec
        if lengths is None:
            lengths = torch.full((len(waves),), waves.shape[-1], device=waves.device)
        valid = 1 + (lengths - spec.frame_samples).clamp(min=0) // spec.hop_samples
        silence = math.log(spec.log_offset)
        short = max(0, PATCH_FRAMES - mel.shape[1])
        mel = functional.pad(mel, (0, 0, 0, short), value=silence)
        past = torch.arange(mel.shape[1], device=waves.device) >= valid[:, None]
        return mel.masked_fill(past[..., None], silence), valid

    def _frames(self, tokens: Tensor, logits: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return frames in the joint space [B, T, D], not yet unit, and weights [B, T, heads]."""
        hidden = functional.gelu(self.hidden(torch.cat([tokens, 0.2 * logits], dim=-1)))
        hidden = self.dropout(hidden)
        # A class counts from a few per cent on, whatever the other 500 say.
        evidence = functional.softplus(logits + 3.0)
        frames = self.project(hidden) + self.anchors(evidence)
        scores = self.attention(hidden).masked_fill(~mask[..., None], float("-inf"))
        return frames, scores.softmax(dim=1)

    def _token_hop_s(self, starts: Tensor) -> float:
        spec = self.mel.spec
        hop_frames = float(FRAMES_PER_TOKEN)
        if len(starts) > 1:
            hop_frames = float(starts[-1]) / (len(starts) - 1) / PATCH_HOP_TOKENS
        return hop_frames * spec.hop_samples / spec.sample_rate_hz


def patch_starts(frames: int) -> Tensor:
    """Return the first frame of each patch: evenly spread, about 0.8 s apart, none left out."""
    room = frames - PATCH_FRAMES
    hop = PATCH_HOP_TOKENS * FRAMES_PER_TOKEN
    count = 1 + math.ceil(room / (hop + FRAMES_PER_TOKEN // 4))
    return torch.linspace(0, room, count).round().long()


def _in_order(tokens: Tensor) -> Tensor:
    """Lay tokens [B, P, 6, W] end to end: five of each patch, for the sixth begins the next."""
    last = tokens[:, -1, PATCH_HOP_TOKENS:]
    return torch.cat([tokens[:, :, :PATCH_HOP_TOKENS].flatten(1, 2), last], dim=1)


def _per_token(logits: Tensor) -> Tensor:
    """Repeat patch logits [B, P, C] for each of a patch's tokens, as a view."""
    return logits[:, :, None].expand(-1, -1, PATCH_FRAMES // FRAMES_PER_TOKEN, -1)


def _patch_mask(starts: Tensor, valid_frames: Tensor) -> Tensor:
    """Say which patches [B, P] hold at least half a patch of sound; the first always counts."""
    mask = starts[None] + PATCH_FRAMES // 2 <= valid_frames[:, None]
    mask[:, 0] = True
    return mask


class TextTower(nn.Module):
    """Token ids [B, L] to unit vectors [B, D]; the sentence vector [B, width] on the way."""

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        width = config.text_width
        self.words = nn.Embedding(config.vocabulary, config.text_embedding)
        self.widen = nn.Linear(config.text_embedding, width, bias=False)
        self.positions = nn.Embedding(config.text_positions, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        layer = nn.TransformerEncoderLayer(
            width, config.text_heads, config.text_feedforward, 0.1, "gelu", 1e-12, True
        )
        self.layers = nn.TransformerEncoder(layer, config.text_layers, enable_nested_tensor=False)
        self.project = nn.Linear(width, config.dimension)
        self.refine = nn.Sequential(
            nn.Linear(width, config.hidden), nn.GELU(), nn.Linear(config.hidden, config.dimension)
        )

    def states(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return token states [B, L, width] of ids [B, L], mask [B, L] true where valid."""
        steps = torch.arange(ids.shape[1], device=ids.device)
        x = self.norm(self.widen(self.words(ids)) + self.positions(steps))
        states: Tensor = self.layers(x, src_key_padding_mask=~mask)
        return states

    def pool(self, states: Tensor, mask: Tensor) -> Tensor:
        """Return unit sentence vectors [B, width] of token states [B, L, width]."""
        weight = mask[..., None].to(states.dtype)
        return functional.normalize((states * weight).sum(1) / weight.sum(1), dim=-1)

    def sentence(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return unit sentence vectors [B, width] of ids [B, L], mask [B, L] true where valid."""
        return self.pool(self.states(ids, mask), mask)

    def into_joint(self, sentences: Tensor) -> Tensor:
        """Map sentence vectors [B, width] to unit vectors [B, D] of the joint space."""
        return functional.normalize(self.project(sentences) + self.refine(sentences), dim=-1)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return unit vectors [B, D]."""
        return self.into_joint(self.sentence(ids, mask))


class CompactModel(PreTrainedModel):
    """Both towers, the temperature between them, and the calibration of their cosine.

    `calibration` holds (slope of z, slope of cosine, offset); `background_mean` [D] and
    `background_covariance` [D, D] describe audio in general, so that z says how far a similarity
    stands out for this very query.
    """

    config: CompactConfig
    config_class = CompactConfig
    calibration: Tensor
    background_mean: Tensor
    background_covariance: Tensor
    base_model_prefix = "compact"

    def __init__(self, config: CompactConfig) -> None:
        super().__init__(config)
        self.audio = AudioTower(config)
        self.text = TextTower(config)
        self.scale = nn.Parameter(torch.tensor(2.6))
        self.bias = nn.Parameter(torch.tensor(-6.0))
        dimension = config.dimension
        self.register_buffer("calibration", torch.tensor([1.0, 0.0, -3.0]))
        self.register_buffer("background_mean", torch.zeros(dimension))
        self.register_buffer("background_covariance", torch.eye(dimension) / dimension)
        self.post_init()  # type: ignore[no-untyped-call]  # transformers leaves it untyped

    def _init_weights(self, module: nn.Module) -> None:
        """Keep torch's own initialisation; the front end is computed, never saved."""
        if isinstance(module, LogMel):
            module.reset_parameters()


class CompactEncoder:
    """The compact model behind the encoder protocol: numpy in, numpy out."""

    def __init__(self, model: CompactModel, tokenizer: Tokenizer, revision: str) -> None:
        self.model: CompactModel = model.eval()  # type: ignore[no-untyped-call]  # as above
        self.tokenizer = tokenizer
        config = model.config
        self._spec = EncoderSpec(
            name="compact",
            revision=revision,
            dimension=config.dimension,
            sample_rate_hz=config.mel["sample_rate_hz"],
            window_s=config.window_s,
            hop_s=config.hop_s,
            tag_labels=tuple(config.tag_labels),
            token_width=config.text_width,
        )

    @classmethod
    def load(
        cls, folder: Path | None = None, device: str = "cpu", threads: int = 0
    ) -> CompactEncoder:
        """Load the shipped weights, or those in `folder`.

        `threads` limits torch's compute threads (0 leaves them). Raises ModelNotFoundError where
        there are no weights, BrokenCheckpointError where they do not fit.
        """
        folder = folder or SHIPPED_WEIGHTS
        weights, words = folder / "model.safetensors", folder / "tokenizer.json"
        if not weights.is_file() or not words.is_file():
            raise ModelNotFoundError(folder, "model.safetensors or tokenizer.json is missing")
        if threads:
            torch.set_num_threads(threads)
        keep_freed_memory()
        model = read_pretrained(CompactModel, folder, folder)
        nn.Module.to(model, device)
        # A third faster than re-ordering the kernels at every call.
        for kernel in model.audio.body.parameters():
            if kernel.dim() == 4:
                kernel.data = kernel.data.contiguous(memory_format=torch.channels_last)
        return cls(model, Tokenizer.from_file(str(words)), revision_of(weights))

    @property
    def spec(self) -> EncoderSpec:
        """Name, revision, dimension, sample rate, window length and tag labels."""
        return self._spec

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return torch.device(self.model.scale.device)

    def encode_audio(
        self, waves: FloatArray, lengths: NDArray[np.int64] | None = None
    ) -> AudioEncoding:
        """Encode mono windows [B, N] at 16 kHz; lengths [B] are the valid samples."""
        output = self.listen(waves, lengths)
        return AudioEncoding(
            embedding=_to_numpy(output.embedding),
            frames=_to_numpy(output.frames),
            frame_hop_s=output.token_hop_s,
            tags=_to_numpy(output.tag_probabilities()),
            tag_frames=_to_numpy(output.patch_probabilities()),
            tag_hop_s=PATCH_HOP_TOKENS * output.token_hop_s,
        )

    def listen(self, waves: FloatArray, lengths: NDArray[np.int64] | None = None) -> AudioOutput:
        """Return everything the audio tower gives, tokens for language models included."""
        valid = None if lengths is None else torch.from_numpy(lengths).to(self.device)
        with torch.inference_mode():
            output: AudioOutput = self.model.audio(torch.from_numpy(waves).to(self.device), valid)
        return output

    def embed_audio(
        self, waves: FloatArray, lengths: NDArray[np.int64] | None = None
    ) -> FloatArray:
        """Embed mono windows [B, N] to unit vectors [B, D]."""
        return self.encode_audio(waves, lengths).embedding

    def embed_text(self, texts: Sequence[str]) -> FloatArray:
        """Embed texts to unit vectors [len(texts), D]."""
        if not texts:
            return np.zeros((0, self._spec.dimension), np.float32)
        with torch.inference_mode():
            return _to_numpy(self.model.text(*self._tokens(texts)))

    def encode_text(self, texts: Sequence[str]) -> TextEncoding:
        """Embed texts and keep the transformer's states [B, L, text_width] of their tokens."""
        if not texts:
            nothing = np.zeros((0, 0, self._spec.token_width), np.float32)
            return TextEncoding(self.embed_text(texts), nothing, np.zeros(0, np.int64))
        ids, mask = self._tokens(texts)
        tower = self.model.text
        with torch.inference_mode():
            states = tower.states(ids, mask)
            embedding = tower.into_joint(tower.pool(states, mask))
        return TextEncoding(
            embedding=_to_numpy(embedding),
            tokens=_to_numpy(states * mask[..., None]),
            lengths=mask.sum(1).cpu().numpy(),
        )

    def relevance(self, text_vectors: FloatArray, similarities: FloatArray) -> FloatArray:
        """Turn cosines [Q, K] of queries [Q, D] into calibrated probabilities [Q, K]."""
        by_z, by_cosine, offset = (float(value) for value in self.model.calibration)
        z = self.standard_scores(text_vectors, similarities)
        logits = by_z * z + by_cosine * similarities + offset
        return np.asarray(1.0 / (1.0 + np.exp(-logits)), np.float32)

    def _tokens(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return ids [B, L] and mask [B, L], true where a token is."""
        encodings = self.tokenizer.encode_batch(list(texts))
        ids = torch.tensor([encoding.ids for encoding in encodings], device=self.device)
        mask = torch.tensor([encoding.attention_mask for encoding in encodings], device=self.device)
        return ids, mask.bool()

    def standard_scores(self, text_vectors: FloatArray, similarities: FloatArray) -> FloatArray:
        """Say by how many standard deviations cosines [Q, K] stand out from audio in general."""
        mean = _to_numpy(self.model.background_mean)
        covariance = _to_numpy(self.model.background_covariance)
        expected = text_vectors @ mean
        variance = ((text_vectors @ covariance) * text_vectors).sum(axis=1)
        deviation = np.sqrt(np.maximum(variance, 1e-8))
        return np.asarray((similarities - expected[:, None]) / deviation[:, None], np.float32)


def revision_of(weights: Path) -> str:
    """Return a name for these exact weights: the start of the file's SHA-256."""
    with weights.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _to_numpy(tensor: Tensor) -> FloatArray:
    return np.asarray(tensor.float().cpu().numpy(), np.float32)

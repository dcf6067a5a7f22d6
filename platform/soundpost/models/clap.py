"""The CLAP encoder: any checkpoint of `transformers.ClapModel` behind our protocol.

CLAP (Wu et al. 2023, arXiv 2211.06687) joins an HTSAT audio tower (arXiv 2202.00874) and a
RoBERTa text tower. Windows reach it at most as long as the model's own input, so none of the
random crops of `ClapFeatureExtractor` ever happens: the same window always gives the same vector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import ClapFeatureExtractor, ClapModel

from soundpost.errors import BrokenCheckpointError, InvalidValueError
from soundpost.models.clap_checkpoint import Checkpoint, non_finite_weight, read_checkpoint
from soundpost.models.encoder import AudioEncoding, EncoderSpec, FloatArray, TextEncoding

_FLOOR = 1e-10
_TEXT_BATCH = 64
# Sounds and texts this close are one vector for every practical purpose. Working checkpoints
# stay far below on the probes of the self-check.
_SAME_TEXT = 0.99
_SAME_AUDIO = 0.999
_REPEATABLE = 1e-4
_PROBE_TEXTS = (
    "a dog barks",
    "rain falls on a roof",
    "a violin plays a melody",
    "an engine idles",
    "people are talking in a crowded room",
)


class ClapMel(nn.Module):
    """Log-mel front end of a CLAP checkpoint, as `ClapFeatureExtractor` computes it but batched.

    waves [B, N] -> [B, 1 + N // hop, mels] in dB: Hann window, power spectrum, the extractor's mel
    filters (HTK for fusion checkpoints, Slaney otherwise), 10 log10 with a floor at 1e-10.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, extractor: ClapFeatureExtractor) -> None:
        super().__init__()
        fusion = extractor.truncation == "fusion"
        filters = extractor.mel_filters if fusion else extractor.mel_filters_slaney
        self.fft_size = int(extractor.fft_window_size)
        self.hop_samples = int(extractor.hop_length)
        self.register_buffer("window", torch.hann_window(self.fft_size))
        self.register_buffer("filters", torch.from_numpy(filters).float())

    def forward(self, waves: Tensor) -> Tensor:
        """Return the log-mel spectrogram in dB."""
        spectrum = torch.stft(
            waves,
            self.fft_size,
            self.hop_samples,
            window=self.window,
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )
        power = spectrum.real.square() + spectrum.imag.square()
        return 10.0 * torch.log10((power.transpose(1, 2) @ self.filters).clamp_min(_FLOOR))


class ClapEncoder:
    """Embeds audio and text with a CLAP checkpoint; has no tags.

    Frames: HTSAT's last hidden states [B, C, F, T], averaged over frequency, projected by the
    same layers as the clip and normalised. T is 32 for the published checkpoints, one frame each
    312.5 ms of a 10 s window.
    """

    def __init__(self, checkpoint: Checkpoint, device: str = "cpu") -> None:
        self._checkpoint = checkpoint
        self._device = torch.device(device)
        self._model = checkpoint.model
        nn.Module.to(self._model, self._device)
        self._mel = ClapMel(checkpoint.extractor).to(self._device)
        self._channels = 4 if checkpoint.audio_config.enable_fusion else 1
        window_s = float(checkpoint.extractor.max_length_s)
        self._spec = EncoderSpec(
            name=checkpoint.name,
            revision=checkpoint.revision,
            dimension=int(self._model.config.projection_dim),
            sample_rate_hz=int(checkpoint.extractor.sampling_rate),
            window_s=window_s,
            hop_s=window_s,
            token_width=checkpoint.text_config.hidden_size,
        )

    @classmethod
    def load(cls, name: str, device: str = "cpu", threads: int = 0) -> ClapEncoder:
        """Load a folder or hub name and check it. `threads` 0 leaves torch's own choice.

        Raises ModelNotFoundError, or BrokenCheckpointError naming the check that failed.
        """
        if threads > 0:
            torch.set_num_threads(threads)
        checkpoint = read_checkpoint(name)
        _check_shapes(checkpoint)
        encoder = cls(checkpoint, device)
        check_encoder(encoder)
        return encoder

    @property
    def spec(self) -> EncoderSpec:
        """What the checkpoint declares, with a hash of its files as the revision."""
        return self._spec

    @property
    def model(self) -> ClapModel:
        """The underlying `ClapModel`."""
        return self._model

    @property
    def window_samples(self) -> int:
        """The longest window the model takes, in samples."""
        return round(self._spec.window_s * self._spec.sample_rate_hz)

    @torch.inference_mode()
    def encode_audio(
        self, waves: FloatArray, lengths: NDArray[np.int64] | None = None
    ) -> AudioEncoding:
        """Encode mono windows [B, N] at spec.sample_rate_hz, N at most one window.

        Short rows are repeated to fill the window, as in training; their frames repeat with them.
        """
        mel = self._mel(self._filled(waves, lengths))
        # A fusion checkpoint takes four views of a long clip. A window is not longer than the
        # model's input, so the four are the same and the local branch stays off.
        features = mel[:, None].expand(-1, self._channels, -1, -1)
        not_longer = torch.zeros(len(mel), 1, dtype=torch.bool, device=self._device)
        output = self._model.get_audio_features(features, is_longer=not_longer)
        frames = self._model.audio_projection(output.last_hidden_state.mean(2).transpose(1, 2))
        return AudioEncoding(
            embedding=_numpy(output.pooler_output),
            frames=_numpy(nn.functional.normalize(frames, dim=-1)),
            frame_hop_s=self._spec.window_s / frames.shape[1],
            tags=None,
        )

    def embed_audio(
        self, waves: FloatArray, lengths: NDArray[np.int64] | None = None
    ) -> FloatArray:
        """Embed mono windows [B, N] to unit vectors [B, D]."""
        return self.encode_audio(waves, lengths).embedding

    def embed_text(self, texts: Sequence[str]) -> FloatArray:
        """Embed texts to unit vectors [len(texts), D]; what passes the model's length is cut."""
        return self.encode_text(texts).embedding

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str]) -> TextEncoding:
        """Embed texts and keep the text tower's last hidden states [B, L, W] of their tokens."""
        batches = [texts[i : i + _TEXT_BATCH] for i in range(0, len(texts), _TEXT_BATCH)]
        parts = [self._encode_text_batch(list(batch)) for batch in batches]
        longest = max((part.tokens.shape[1] for part in parts), default=0)
        dimension, width = self._spec.dimension, self._spec.token_width
        empty = TextEncoding(
            np.zeros((0, dimension), np.float32),
            np.zeros((0, longest, width), np.float32),
            np.zeros(0, np.int64),
        )
        parts = [empty, *parts]
        return TextEncoding(
            embedding=np.concatenate([part.embedding for part in parts]),
            tokens=np.concatenate([_padded(part.tokens, longest) for part in parts]),
            lengths=np.concatenate([part.lengths for part in parts]),
        )

    def relevance(self, text_vectors: FloatArray, similarities: FloatArray) -> FloatArray:
        """Apply the checkpoint's logistic (calibration.json, or the default) to cosines [Q, K]."""
        curve = self._checkpoint.calibration
        logits = curve.slope * np.asarray(similarities, dtype=np.float64) + curve.offset
        return np.asarray(1.0 / (1.0 + np.exp(-logits)), dtype=np.float32)

    def _encode_text_batch(self, texts: list[str]) -> TextEncoding:
        tokenizer = self._checkpoint.tokenizer
        tokens = tokenizer(
            texts,
            padding=True,
            truncation=True,
            max_length=self._checkpoint.text_tokens,
            return_tensors="pt",
        ).to(self._device)
        mask = tokens["attention_mask"]
        output = self._model.get_text_features(input_ids=tokens["input_ids"], attention_mask=mask)
        return TextEncoding(
            embedding=_numpy(output.pooler_output),
            tokens=_numpy(output.last_hidden_state * mask[..., None]),
            lengths=mask.sum(1).cpu().numpy(),
        )

    def _filled(self, waves: FloatArray, lengths: NDArray[np.int64] | None) -> Tensor:
        """Cut each row to its length and fill it to one whole window: [B, window_samples]."""
        if waves.ndim != 2 or waves.shape[1] > self.window_samples:
            detail = f"expected [B, N] with N up to {self.window_samples} samples"
            raise InvalidValueError(f"audio of shape {waves.shape}", detail)
        valid = np.full(len(waves), waves.shape[1]) if lengths is None else lengths
        padding = str(self._checkpoint.extractor.padding)
        filled = np.zeros((len(waves), self.window_samples), dtype=np.float32)
        for row, wave, length in zip(filled, waves, valid, strict=True):
            _fill(row, wave[:length], padding)
        return torch.from_numpy(filled).to(self._device)


def _fill(row: FloatArray, wave: FloatArray, padding: str) -> None:
    """Write a wave into a row of zeros, repeated as the checkpoint was trained.

    "repeatpad" repeats it whole as often as it fits, "repeat" also cuts a last one to fill the
    rest, "pad" writes it once.
    """
    if wave.size == 0:
        return
    times = {"repeatpad": row.size // wave.size, "repeat": -(-row.size // wave.size)}
    repeated = np.tile(wave, times.get(padding, 1))[: row.size]
    row[: repeated.size] = repeated


def _padded(tokens: FloatArray, length: int) -> FloatArray:
    """Fill tokens [B, L, W] with zeros to [B, length, W]."""
    return np.pad(tokens, ((0, 0), (0, length - tokens.shape[1]), (0, 0)))


def _numpy(tensor: Tensor) -> FloatArray:
    return np.asarray(tensor.float().cpu().numpy(), dtype=np.float32)


def check_encoder(encoder: ClapEncoder) -> None:
    """Refuse a checkpoint that would load but give wrong or useless vectors.

    Raises BrokenCheckpointError with the checkpoint's name, the check and what it found.
    """
    for name, check in _CHECKS:
        fault = check(encoder)
        if fault is not None:
            raise BrokenCheckpointError(encoder.spec.name, f"{name}: {fault}")


def _check_shapes(checkpoint: Checkpoint) -> None:
    """Refuse a feature extractor that does not fit the audio tower."""
    extractor, config = checkpoint.extractor, checkpoint.audio_config
    if extractor.sampling_rate <= 0 or extractor.max_length_s <= 0 or extractor.hop_length <= 0:
        raise BrokenCheckpointError(checkpoint.name, "sample rate: the window is empty")
    if extractor.feature_size != config.num_mel_bins:
        detail = f"{extractor.feature_size} made, {config.num_mel_bins} taken by the model"
        raise BrokenCheckpointError(checkpoint.name, f"mel bands: {detail}")
    frames = extractor.max_length_s * extractor.sampling_rate // extractor.hop_length + 1
    taken = config.spec_size * (config.spec_size // config.num_mel_bins)
    if frames > taken:
        detail = f"a window at {extractor.sampling_rate} Hz makes {frames}, the model takes {taken}"
        raise BrokenCheckpointError(checkpoint.name, f"mel frames: {detail}")


def _weights_are_numbers(encoder: ClapEncoder) -> str | None:
    tensor = non_finite_weight(encoder.model)
    return None if tensor is None else f"{tensor} holds NaN or infinity"


def _outputs_are_as_declared(encoder: ClapEncoder) -> str | None:
    audio = encoder.encode_audio(_probe_waves(encoder)[:1])
    text = encoder.embed_text(_PROBE_TEXTS[:1])
    for name, vectors in (("audio", audio.embedding), ("frame", audio.frames[0]), ("text", text)):
        if vectors.shape[-1] != encoder.spec.dimension:
            return f"{name} vectors have {vectors.shape[-1]}, not {encoder.spec.dimension}"
        norms = np.linalg.norm(vectors, axis=-1)
        if not np.allclose(norms, 1.0, atol=1e-3):
            return f"{name} vectors have norm {float(norms[0]):.3g}, not 1"
    return None


def _texts_differ(encoder: ClapEncoder) -> str | None:
    cosine, first, second = _closest_pair(encoder.embed_text(_PROBE_TEXTS))
    if cosine < _SAME_TEXT:
        return None
    pair = f"{_PROBE_TEXTS[first]!r} and {_PROBE_TEXTS[second]!r}"
    return f"{pair} have cosine {cosine:.4f}, so the text tower has collapsed"


def _sounds_differ(encoder: ClapEncoder) -> str | None:
    cosine, _, _ = _closest_pair(encoder.embed_audio(_probe_waves(encoder)))
    if cosine < _SAME_AUDIO:
        return None
    return f"unlike sounds have cosine {cosine:.4f}, so the audio tower has collapsed"


def _audio_is_repeatable(encoder: ClapEncoder) -> str | None:
    waves = _probe_waves(encoder)
    difference = np.abs(encoder.embed_audio(waves)[:1] - encoder.embed_audio(waves[:1])).max()
    if difference < _REPEATABLE:
        return None
    return f"the same sound gave vectors that differ by {float(difference):.2g}"


def _closest_pair(vectors: FloatArray) -> tuple[float, int, int]:
    cosines = vectors @ vectors.T - 2.0 * np.eye(len(vectors), dtype=np.float32)
    first, second = np.unravel_index(int(np.argmax(cosines)), cosines.shape)
    return float(cosines[first, second]), int(first), int(second)


def _probe_waves(encoder: ClapEncoder) -> FloatArray:
    """Return a tone, noise and clicks [3, window]: as unlike as sounds can be."""
    samples, rate_hz = encoder.window_samples, encoder.spec.sample_rate_hz
    waves = np.zeros((3, samples), dtype=np.float32)
    waves[0] = 0.3 * np.sin(2 * np.pi * 440.0 * np.arange(samples) / rate_hz)
    waves[1] = 0.1 * np.random.default_rng(0).standard_normal(samples)
    waves[2, :: rate_hz // 2] = 0.9
    return waves


_CHECKS: tuple[tuple[str, Callable[[ClapEncoder], str | None]], ...] = (
    ("finite weights", _weights_are_numbers),
    ("declared shape", _outputs_are_as_declared),
    ("distinct texts", _texts_differ),
    ("distinct sounds", _sounds_differ),
    ("repeatable audio", _audio_is_repeatable),
)

"""Log-mel front end of the compact encoder, as one small torch module.

The numbers (16 kHz, 25 ms frames every 10 ms, 64 mel bands from 125 to 7500 Hz, log of magnitude
plus 0.001) are those of the AudioSet tagger that the encoder learns from, so that both hear the
same thing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


@dataclass(frozen=True)
class LogMelSpec:
    """Dimensions of a log-mel spectrogram."""

    sample_rate_hz: int = 16_000
    frame_samples: int = 400
    hop_samples: int = 160
    fft_samples: int = 512
    bands: int = 64
    low_hz: float = 125.0
    high_hz: float = 7_500.0
    log_offset: float = 0.001

    def frames(self, samples: int) -> int:
        """Return how many whole frames fit into `samples` (at least one, by padding)."""
        return 1 + max(0, samples - self.frame_samples) // self.hop_samples

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, for a model's configuration file."""
        return asdict(self)


def hz_to_mel(frequency_hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert to mel by O'Shaughnessy's formula, 1127 ln(1 + f / 700)."""
    return 1127.0 * np.log1p(frequency_hz / 700.0)


def mel_filters(spec: LogMelSpec) -> NDArray[np.float32]:
    """Return triangular filters [fft_samples / 2 + 1, bands], linear in mel, peak 1."""
    bins_hz = np.linspace(0.0, spec.sample_rate_hz / 2, spec.fft_samples // 2 + 1)
    bins_mel = hz_to_mel(bins_hz)
    low, high = hz_to_mel(np.array([spec.low_hz, spec.high_hz]))
    edges = np.linspace(low, high, spec.bands + 2)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    rising = (bins_mel[:, None] - lower) / (centre - lower)
    falling = (upper - bins_mel[:, None]) / (upper - centre)
    filters = np.maximum(0.0, np.minimum(rising, falling))
    filters[0] = 0.0  # the mean of a recording is not a sound
    return np.asarray(filters, np.float32)


class LogMel(nn.Module):
    """Waves [B, N] to log-mel frames [B, T, bands]; frames are not centred, nothing is padded."""

    filters: Tensor
    taper: Tensor

    def __init__(self, spec: LogMelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("taper", torch.empty(spec.frame_samples), persistent=False)
        shape = (spec.fft_samples // 2 + 1, spec.bands)
        self.register_buffer("filters", torch.empty(shape), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Compute taper and filters; a loader that builds models without memory calls it again."""
        if not self.taper.is_meta:
            self.taper.copy_(torch.hann_window(self.spec.frame_samples, periodic=True))
            self.filters.copy_(torch.from_numpy(mel_filters(self.spec)))

    def forward(self, waves: Tensor) -> Tensor:
        """Return log(mel magnitude + offset) [B, T, bands]; waves [B, N] in [-1, 1]."""
        short = self.spec.frame_samples - waves.shape[-1]
        if short > 0:
            waves = nn.functional.pad(waves, (0, short))
        frames = waves.unfold(-1, self.spec.frame_samples, self.spec.hop_samples) * self.taper
        magnitude = torch.fft.rfft(frames, n=self.spec.fft_samples).abs()
        return torch.log(magnitude @ self.filters + self.spec.log_offset)

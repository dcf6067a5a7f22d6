"""Two ways to hear anomalies that others use, to stand beside ours in the same run.

- An autoencoder on log-mel frames, the baseline of DCASE task 2 (Koizumi et al. 2020): 128 mel
  bands of 64 ms every 32 ms, five frames stacked, layers 128-128-128-128-8-128-128-128-128, trained
  on the baseline's sound alone; the score is the mean squared reconstruction error.
- The Mahalanobis distance of the mean and the spread over time of the same log-mel bands.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from soundpost.audio.features import LogMelSpec, mel_filters

FloatArray = NDArray[np.float32]
DoubleArray = NDArray[np.float64]

BANDS = 128
STACKED = 5
_FFT = 1024
_HOP = 512
_BATCH = 512
_SPEC = LogMelSpec(
    frame_samples=_FFT, hop_samples=_HOP, fft_samples=_FFT, bands=BANDS, low_hz=20.0, high_hz=8000.0
)


def log_mel(wave: FloatArray) -> FloatArray:
    """Return log-mel power [T, 128] in dB of a wave [N] at 16 kHz."""
    padded = np.pad(wave, (0, max(0, _FFT - len(wave))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FFT)[::_HOP]
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(_FFT).astype(np.float32))))
    return np.asarray(10.0 * np.log10(power @ mel_filters(_SPEC) + 1e-10), np.float32)


def stacked(mel: FloatArray) -> FloatArray:
    """Return five frames in a row as one vector: [T, 128] to [T - 4, 640]."""
    if len(mel) < STACKED:
        mel = np.pad(mel, ((0, STACKED - len(mel)), (0, 0)), mode="edge")
    view = np.lib.stride_tricks.sliding_window_view(mel, STACKED, axis=0)
    return np.ascontiguousarray(view.transpose(0, 2, 1).reshape(len(view), -1))


class Autoencoder(nn.Module):
    """Frames [B, 640] to their reconstruction [B, 640]."""

    def __init__(self, inputs: int = BANDS * STACKED, width: int = 128, neck: int = 8) -> None:
        super().__init__()
        sizes = [inputs, *([width] * 4), neck, *([width] * 4)]
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(width, inputs))

    def forward(self, frames: Tensor) -> Tensor:
        """Return the reconstruction [B, 640]."""
        made: Tensor = self.layers(frames)
        return made


@dataclass(frozen=True, eq=False)
class AutoencoderPeer:
    """A trained autoencoder."""

    model: Autoencoder
    mean: float
    spread: float

    def score(self, windows: FloatArray) -> DoubleArray:
        """Return the mean squared reconstruction error [W] of windows [W, N]."""
        return np.array([self._one(window) for window in windows])

    def _one(self, window: FloatArray) -> float:
        frames = torch.from_numpy((stacked(log_mel(window)) - self.mean) / self.spread)
        with torch.inference_mode():
            return float(((self.model(frames) - frames) ** 2).mean())


def train_autoencoder(
    windows: FloatArray, epochs: int = 50, seed: int = 0, learning_rate: float = 1e-3
) -> AutoencoderPeer:
    """Train on windows [W, N] of normal sound with Adam, in batches of 512 frames."""
    torch.manual_seed(seed)
    frames = np.concatenate([stacked(log_mel(window)) for window in windows])
    mean, spread = float(frames.mean()), float(frames.std()) + 1e-6
    data = torch.from_numpy((frames - mean) / spread)
    model = Autoencoder()
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    generator = torch.Generator().manual_seed(seed)
    model.train()
    for _ in range(epochs):
        order = torch.randperm(len(data), generator=generator)
        for batch in order.split(_BATCH):
            if len(batch) < 2:  # A batch norm needs two.
                continue
            optimizer.zero_grad(set_to_none=True)
            loss = ((model(data[batch]) - data[batch]) ** 2).mean()
            loss.backward()
            optimizer.step()
    return AutoencoderPeer(model.eval(), mean, spread)


@dataclass(frozen=True, eq=False)
class MelMahalanobisPeer:
    """Mean and inverse covariance of mel statistics."""

    centre: DoubleArray
    precision: DoubleArray

    def score(self, windows: FloatArray) -> DoubleArray:
        """Return the squared distance [W] of windows [W, N]."""
        away = mel_statistics(windows) - self.centre
        return np.asarray(np.einsum("wi,ij,wj->w", away, self.precision, away))


def mel_statistics(windows: FloatArray) -> DoubleArray:
    """Return mean and spread over time of each log-mel band [W, 256] of windows [W, N]."""
    mels = [log_mel(window) for window in windows]
    rows = [np.r_[mel.mean(axis=0), mel.std(axis=0)] for mel in mels]
    return np.array(rows, np.float64)


def fit_mel_mahalanobis(windows: FloatArray, shrinkage: float = 0.1) -> MelMahalanobisPeer:
    """Fit on windows [W, N] of normal sound; shrinkage towards the diagonal of the covariance."""
    statistics = mel_statistics(windows)
    centre = statistics.mean(axis=0)
    covariance = np.cov(statistics - centre, rowvar=False, bias=True)
    diagonal = np.diag(np.diag(covariance) + 1e-3)
    shrunk = (1.0 - shrinkage) * covariance + shrinkage * diagonal
    return MelMahalanobisPeer(centre, np.asarray(np.linalg.inv(shrunk), np.float64))

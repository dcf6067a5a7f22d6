"""Listening to a recording once: all that is known of it before a word is said.

The encoder hears it in windows of its own length, laid end to end; acoustics and time profile are
measured at 16 kHz for every encoder and every recording, so that two are always comparable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from soundpost.audio import acoustics
from soundpost.audio.windows import resample
from soundpost.errors import NonFiniteSamplesError, NoSamplesError, TooLongError
from soundpost.explain.profile import RATE_HZ, Profile, profile
from soundpost.models.encoder import AudioEncoding, AudioTextEncoder, EncoderSpec

FloatArray = NDArray[np.float32]

# As much as one explanation speaks of.
EXCERPT_S = 10.0
# Windows that the encoder takes at once: more does not make it faster, but takes memory.
_BATCH = 32


@dataclass(frozen=True, eq=False)
class Listening:
    """What was heard in one recording of at most `EXCERPT_S`.

    embedding: [D] unit norm. frames: [T, D] unit norm, `frame_hop_s` apart. tags: [C] probability
    of each of `tag_labels` anywhere, and tag_frames: [P, C] in each `tag_hop_s`; None where the
    encoder has none.
    """

    duration_s: float
    embedding: FloatArray
    frames: FloatArray
    frame_hop_s: float
    tag_labels: tuple[str, ...]
    tags: FloatArray | None
    tag_frames: FloatArray | None
    tag_hop_s: float
    acoustics: acoustics.Acoustics
    profile: Profile


def listen(encoder: AudioTextEncoder, waves: Sequence[FloatArray], rate_hz: int) -> list[Listening]:
    """Listen to mono waves [N] of at most `EXCERPT_S` at `rate_hz`.

    Raises NoSamplesError, NonFiniteSamplesError, TooLongError for one that cannot be heard.
    """
    checked = [_checked(wave, rate_hz) for wave in waves]
    spec = encoder.spec
    pieces = [_windows(resample(wave, rate_hz, spec.sample_rate_hz), spec) for wave in checked]
    heard = _encode(encoder, [piece for row in pieces for piece in row])
    listenings, first = [], 0
    for wave, row in zip(checked, pieces, strict=True):
        windows = heard[first : first + len(row)]
        listenings.append(_listening(wave, rate_hz, windows, spec))
        first += len(row)
    return listenings


def _checked(wave: FloatArray, rate_hz: int) -> FloatArray:
    wave = np.asarray(wave, np.float32)
    if not wave.size:
        raise NoSamplesError(None, "nothing can be heard in an empty recording")
    if not np.isfinite(wave).all():
        raise NonFiniteSamplesError(None, "replace them before listening")
    # One sample more may come of rounding.
    if len(wave) > EXCERPT_S * rate_hz + 1:
        raise TooLongError(f"{len(wave) / rate_hz:.1f} s", f"at most {EXCERPT_S} s are heard")
    return wave


@dataclass(frozen=True, eq=False)
class _Window:
    """What the encoder said of one window: only what lies inside of its valid seconds."""

    seconds: float
    embedding: FloatArray
    frames: FloatArray
    tags: FloatArray | None
    tag_frames: FloatArray | None
    frame_hop_s: float
    tag_hop_s: float


def _windows(wave: FloatArray, spec: EncoderSpec) -> list[FloatArray]:
    """Cut a wave [N] into windows end to end; a last one below a tenth is left out."""
    length = round(spec.window_s * spec.sample_rate_hz)
    cuts = [wave[start : start + length] for start in range(0, len(wave), length)]
    return cuts[:-1] if len(cuts) > 1 and len(cuts[-1]) < length / 10 else cuts


def _encode(encoder: AudioTextEncoder, pieces: Sequence[FloatArray]) -> list[_Window]:
    spec = encoder.spec
    length = round(spec.window_s * spec.sample_rate_hz)
    windows: list[_Window] = []
    for first in range(0, len(pieces), _BATCH):
        batch = pieces[first : first + _BATCH]
        waves = np.zeros((len(batch), length), np.float32)
        for row, piece in zip(waves, batch, strict=True):
            row[: len(piece)] = piece
        lengths = np.array([len(piece) for piece in batch], np.int64)
        encoding = encoder.encode_audio(waves, lengths)
        seconds = lengths / spec.sample_rate_hz
        windows += [_window(encoding, row, float(s), spec) for row, s in enumerate(seconds)]
    return windows


def _window(encoding: AudioEncoding, row: int, seconds: float, spec: EncoderSpec) -> _Window:
    """Take one row of a batch without what lies behind its end.

    Steps share the window evenly: the last may be a little longer than the encoder says.
    """
    frames = encoding.frames[row]
    tag_frames = None if encoding.tag_frames is None else encoding.tag_frames[row]
    frame_hop_s = spec.window_s / max(len(frames), 1)
    tag_hop_s = 0.0 if tag_frames is None else spec.window_s / len(tag_frames)
    return _Window(
        seconds=seconds,
        embedding=encoding.embedding[row],
        frames=frames[: _steps(seconds, frame_hop_s, len(frames))],
        tags=None if encoding.tags is None else encoding.tags[row],
        tag_frames=None
        if tag_frames is None
        else tag_frames[: _steps(seconds, tag_hop_s, len(tag_frames))],
        frame_hop_s=frame_hop_s,
        tag_hop_s=tag_hop_s,
    )


def _steps(seconds: float, hop_s: float, most: int) -> int:
    return min(max(round(seconds / hop_s), 1), most)


def _listening(
    wave: FloatArray, rate_hz: int, windows: Sequence[_Window], spec: EncoderSpec
) -> Listening:
    at_16_khz = resample(wave, rate_hz, RATE_HZ)
    at_16_khz = at_16_khz if len(at_16_khz) else np.zeros(1, np.float32)
    shares = np.array([window.seconds for window in windows])
    mean = np.average([window.embedding for window in windows], axis=0, weights=shares)
    tags = [window.tags for window in windows if window.tags is not None]
    tag_frames = [window.tag_frames for window in windows if window.tag_frames is not None]
    return Listening(
        duration_s=len(wave) / rate_hz,
        embedding=np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-9), np.float32),
        frames=np.concatenate([window.frames for window in windows]),
        frame_hop_s=windows[0].frame_hop_s,
        tag_labels=spec.tag_labels,
        tags=np.max(tags, axis=0) if tags else None,
        tag_frames=np.concatenate(tag_frames) if tag_frames else None,
        tag_hop_s=windows[0].tag_hop_s,
        acoustics=acoustics.measure(at_16_khz, RATE_HZ),
        profile=profile(at_16_khz),
    )

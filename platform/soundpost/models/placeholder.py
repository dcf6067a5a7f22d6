"""A shipped stand-in for an encoder: it hears pitch, noise and silence, and needs no torch.

It exists for tests of everything above the encoder and for demonstrations without a model. It is
deterministic, exact enough to find "440 hz tone" among recordings of tones, and knows nothing
else about sound.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from soundpost.errors import InvalidValueError
from soundpost.models.encoder import AudioEncoding, EncoderSpec, FloatArray, TextEncoding

SAMPLE_RATE_HZ = 16_000
WINDOW_S = 4.0
HOP_S = 2.0
FRAME_HOP_S = 0.25
DIMENSION = 32
TAGS = ("tone", "noise", "silence")

LOWEST_HZ = 50.0
HIGHEST_HZ = 8_000.0
SILENCE_DBFS = -80.0

# The space: pitch bands, one axis for noise, one for silence, and a corner that no sound reaches,
# so that a text this encoder does not understand is orthogonal to every recording.
_BANDS = 22
_NOISE_AXIS = 22
_SILENCE_AXIS = 23
_UNKNOWN = slice(24, DIMENSION)

_FFT = 1024
_BAND_WIDTH_OCTAVES = 0.2
_PEAK_OVER_MEDIAN = 4.0
_RELEVANCE_SLOPE = 20.0
_RELEVANCE_MIDPOINT = 0.6

_FREQUENCY = re.compile(r"(\d+(?:\.\d+)?)\s*(k?)hz\b")
_TOKEN = re.compile(r"\d+(?:\.\d+)?\s*k?hz\b|\S+")
_NOISE_WORDS = re.compile(r"\bnois[ey]\b")
_SILENCE_WORDS = re.compile(r"\b(silence|silent)\b")


class ToneEncoder:
    """Embed audio by the pitch it holds, and texts such as "440 hz tone", "noise", "silence".

    D = 32, 16 kHz, 4 s windows every 2 s, four frames a second, tags tone, noise and silence.
    """

    @property
    def spec(self) -> EncoderSpec:
        """The constant description of this encoder."""
        return EncoderSpec(
            name="placeholder:tone",
            revision="1",
            dimension=DIMENSION,
            sample_rate_hz=SAMPLE_RATE_HZ,
            window_s=WINDOW_S,
            hop_s=HOP_S,
            tag_labels=TAGS,
            token_width=DIMENSION,
        )

    def encode_audio(
        self, waves: FloatArray, lengths: NDArray[np.int64] | None = None
    ) -> AudioEncoding:
        """Encode mono windows [B, N] at 16 kHz; frames past a row's length are silence."""
        rows = _valid_rows(waves, lengths)
        heard = [_listen(row) for row in rows]
        frame_count = -(-waves.shape[1] // _FRAME_SAMPLES)
        return AudioEncoding(
            embedding=np.stack([vector for vector, _ in heard]) if heard else _empty(DIMENSION),
            frames=_stack([_frames(row, frame_count) for row in rows], (frame_count, DIMENSION)),
            frame_hop_s=FRAME_HOP_S,
            tags=np.stack([tags for _, tags in heard]) if heard else _empty(len(TAGS)),
        )

    def embed_audio(
        self, waves: FloatArray, lengths: NDArray[np.int64] | None = None
    ) -> FloatArray:
        """Embed mono windows [B, N] to unit vectors [B, 32]."""
        return _stack([_listen(row)[0] for row in _valid_rows(waves, lengths)], (DIMENSION,))

    def embed_text(self, texts: Sequence[str]) -> FloatArray:
        """Embed texts to unit vectors [len(texts), 32]; unknown ones are orthogonal to audio."""
        return _stack([_read(text) for text in texts], (DIMENSION,))

    def encode_text(self, texts: Sequence[str]) -> TextEncoding:
        """Embed texts, and each word or frequency of them as if it stood alone: [B, L, 32]."""
        words = [_TOKEN.findall(text.casefold()) or [""] for text in texts]
        lengths = np.array([len(row) for row in words], dtype=np.int64)
        tokens = np.zeros((len(texts), max(lengths, default=0), DIMENSION), dtype=np.float32)
        for row, own in zip(tokens, words, strict=True):
            row[: len(own)] = [_read(word) for word in own]
        return TextEncoding(self.embed_text(texts), tokens, lengths)

    def relevance(self, text_vectors: FloatArray, similarities: FloatArray) -> FloatArray:
        """Logistic of the cosines [Q, K]: one half at 0.6, about 0.4 octaves off pitch."""
        logits = _RELEVANCE_SLOPE * (np.asarray(similarities) - _RELEVANCE_MIDPOINT)
        return np.asarray(1.0 / (1.0 + np.exp(-logits)), dtype=np.float32)


_FRAME_SAMPLES = round(FRAME_HOP_S * SAMPLE_RATE_HZ)
_BINS_HZ = np.asarray(np.fft.rfftfreq(_FFT, 1.0 / SAMPLE_RATE_HZ), dtype=np.float64)
_AUDIBLE = _BINS_HZ >= LOWEST_HZ
_HANN = np.hanning(_FFT)
_CENTRES_OCTAVES = np.linspace(np.log2(LOWEST_HZ), np.log2(HIGHEST_HZ), _BANDS)


def _spread(frequencies_hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much power at frequencies [F] counts in each band [_BANDS, F]: Gaussian in log frequency."""
    octaves = np.log2(np.clip(frequencies_hz, LOWEST_HZ, HIGHEST_HZ))
    distance = (_CENTRES_OCTAVES[:, None] - octaves[None, :]) / _BAND_WIDTH_OCTAVES
    return np.asarray(np.exp(-0.5 * distance**2))


# Of the bins of every spectrum; four are heard in each second of audio.
_SPREAD_OF_BINS = _spread(_BINS_HZ[_AUDIBLE])


def _empty(width: int) -> FloatArray:
    return np.zeros((0, width), dtype=np.float32)


def _stack(rows: Sequence[FloatArray], shape: tuple[int, ...]) -> FloatArray:
    return np.stack(rows) if rows else np.zeros((0, *shape), dtype=np.float32)


def _valid_rows(waves: FloatArray, lengths: NDArray[np.int64] | None) -> list[FloatArray]:
    if waves.ndim != 2:
        raise InvalidValueError(f"audio of shape {waves.shape}", "expected [B, N]")
    if lengths is None:
        return list(waves)
    return [wave[:length] for wave, length in zip(waves, lengths, strict=True)]


def _frames(wave: FloatArray, count: int) -> FloatArray:
    starts = [index * _FRAME_SAMPLES for index in range(count)]
    return _stack([_listen(wave[s : s + _FRAME_SAMPLES])[0] for s in starts], (DIMENSION,))


def _listen(wave: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the unit vector and the tag probabilities of one wave of any length."""
    if _level_dbfs(wave) < SILENCE_DBFS:
        return _axis(_SILENCE_AXIS), np.array([0.0, 0.0, 1.0], dtype=np.float32)
    power = _power_spectrum(wave)
    # Flatness (geometric over arithmetic mean) of a tone in white noise is about the noise's
    # share of the power, so it divides the vector between pitch and noise. Rounding may pass one.
    noise = min(1.0, float(np.exp(np.mean(np.log(power))) / np.mean(power)))
    peaks = np.where(power > _PEAK_OVER_MEDIAN * np.median(power), power, 0.0)
    vector = np.sqrt(1.0 - noise) * _pitch_vector(_SPREAD_OF_BINS, peaks)
    vector[_NOISE_AXIS] = np.sqrt(noise)
    return _unit(vector), np.array([1.0 - noise, noise, 0.0], dtype=np.float32)


def _level_dbfs(wave: FloatArray) -> float:
    mean_square = float(np.mean(np.square(wave, dtype=np.float64))) if wave.size else 0.0
    return 10.0 * float(np.log10(max(mean_square, 1e-20)))


def _power_spectrum(wave: FloatArray) -> NDArray[np.float64]:
    """Average the Hann periodograms of half-overlapping stretches (Welch 1967), audible bins."""
    padded = wave.astype(np.float64)
    if wave.size < _FFT:
        padded = np.pad(padded, (0, _FFT - wave.size))
    stretches = np.lib.stride_tricks.sliding_window_view(padded, _FFT)[:: _FFT // 2]
    spectra = np.abs(np.fft.rfft(stretches * _HANN, axis=-1)) ** 2
    return np.asarray(np.maximum(spectra.mean(axis=0)[_AUDIBLE], 1e-12))


def _pitch_vector(spread: NDArray[np.float64], power: NDArray[np.float64]) -> NDArray[np.float64]:
    """Spread power [F] over the bands by spread [_BANDS, F]; unit norm, or zero without power."""
    vector = np.zeros(DIMENSION)
    vector[:_BANDS] = np.sqrt(spread @ power)
    norm = np.linalg.norm(vector)
    return vector / norm if norm > 0 else vector


def _read(text: str) -> FloatArray:
    """Embed one text."""
    words = text.casefold()
    frequencies_hz = [
        float(number) * (1000.0 if kilo else 1.0) for number, kilo in _FREQUENCY.findall(words)
    ]
    if frequencies_hz:
        spread = _spread(np.array(frequencies_hz))
        return _unit(_pitch_vector(spread, np.ones(len(frequencies_hz))))
    if _NOISE_WORDS.search(words):
        return _axis(_NOISE_AXIS)
    if _SILENCE_WORDS.search(words):
        return _axis(_SILENCE_AXIS)
    return _unknown(words)


def _unknown(words: str) -> FloatArray:
    digest = hashlib.sha256(" ".join(words.split()).encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    vector = np.zeros(DIMENSION)
    vector[_UNKNOWN] = rng.standard_normal(DIMENSION - _UNKNOWN.start)
    return _unit(vector)


def _axis(index: int) -> FloatArray:
    vector = np.zeros(DIMENSION, dtype=np.float32)
    vector[index] = 1.0
    return vector


def _unit(vector: NDArray[np.float64]) -> FloatArray:
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)

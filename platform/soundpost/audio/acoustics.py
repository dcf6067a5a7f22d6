"""Acoustic measures of one window: levels, bands, spectral shape, modulation, onsets, faults.

Conventions
- 0 dBFS is the RMS of a full-scale square wave: a level is 20 log10(RMS) and a full-scale sine
  reads -3.01 dBFS, so that peak minus level is the crest factor. AES17 calls the sine 0 dBFS: add
  `AES17_OFFSET_DB` to a level to read it that way.
- The mean of the window (the converter's offset) is removed before everything but the peak.
- No level is below `LEVEL_FLOOR_DBFS`, so digital silence is a number too.

One averaged power spectrum serves every spectral measure: half-second frames, half overlapping,
under a sine window, whose squares add up to one: each sample weighs the same, none is lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from soundpost.errors import (
    InvalidValueError,
    NonFiniteSamplesError,
    NoSamplesError,
    UnsupportedRateError,
)

FloatArray = NDArray[np.float32]
DoubleArray = NDArray[np.float64]

LEVEL_FLOOR_DBFS: Final = -200.0
AES17_OFFSET_DB: Final = 10.0 * float(np.log10(2.0))
SILENCE_DBFS: Final = -70.0
SILENCE_FRAME_S: Final = 0.05
FULL_SCALE: Final = 1.0 - 2.0**-15
LOWEST_RATE_HZ: Final = 1_000
HIGHEST_RATE_HZ: Final = 768_000

# Exact base-10 centres of IEC 61260-1: 1000 * 10^(k/10), nominally 25 Hz to 20 kHz.
THIRD_OCTAVE_CENTRES_HZ: Final = tuple(1000.0 * 10.0 ** (k / 10.0) for k in range(-16, 14))
MODULATION_BANDS_HZ: Final = ((0.5, 2.0), (2.0, 8.0), (8.0, 32.0), (32.0, 128.0))

_SPECTRUM_FRAME_S: Final = 0.5
_FRAMES_A_TRANSFORM: Final = 4
_EDGE_TAPER_S: Final = 0.01
_FLATNESS_FLOOR: Final = 1e-12
_ENVELOPE_RATE_HZ: Final = 512
_ENVELOPE_KERNEL_S: Final = 0.0078
_ENVELOPE_MIN_FRAMES: Final = 8
_ONSET_FRAME_S: Final = 0.01
_ONSET_FRAME_SAMPLES: Final = 32
_ONSET_RISE_DB: Final = 6.0
_ONSET_RANGE: Final = 1e-6


@dataclass(frozen=True)
class Acoustics:
    """What was measured on one window; see the module for the conventions.

    level_dbfs: RMS level. peak_dbfs: largest absolute sample. a_level_dbfs: A-weighted RMS level.
    third_octave_dbfs: levels of the bands at `THIRD_OCTAVE_CENTRES_HZ` below half the rate.
    centroid_hz: mean frequency of the power spectrum. flatness: geometric over arithmetic mean of
    the power spectrum, 0 (tone) to 1 (white). modulation: RMS of the envelope in each of
    `MODULATION_BANDS_HZ` over its mean. modulation_hz, modulation_depth: the strongest line of the
    envelope, and its amplitude over the envelope's mean (1 for a fully modulated tone, more for
    pulses). onsets_per_s: sudden rises by 6 dB or more. clipped_share: samples at full scale.
    silent_share: part of the window in 50 ms frames below `SILENCE_DBFS`.
    """

    level_dbfs: float
    peak_dbfs: float
    a_level_dbfs: float
    third_octave_dbfs: tuple[float, ...]
    centroid_hz: float
    flatness: float
    modulation: tuple[float, ...]
    modulation_hz: float
    modulation_depth: float
    onsets_per_s: float
    clipped_share: float
    silent_share: float

    def to_document(self) -> dict[str, Any]:
        """Return the measures as JSON-ready numbers: levels to 0.01 dB, the rest to four digits."""
        return {
            field.name: _rounded(field.name, getattr(self, field.name)) for field in fields(self)
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Acoustics:
        """Rebuild what `to_document` wrote; unknown keys of later versions are ignored.

        Raises InvalidValueError when a measure is missing.
        """
        try:
            values: dict[str, Any] = {f.name: _thawed(document[f.name]) for f in fields(cls)}
        except KeyError as error:
            raise InvalidValueError(error.args[0], "missing from an acoustics document") from error
        return cls(**values)


def measure(
    samples: FloatArray, sample_rate_hz: int, clipped: NDArray[np.bool_] | None = None
) -> Acoustics:
    """Measure a mono window [N] in full-scale units; clipped [N] marks samples known to be clipped.

    Without `clipped`, samples at full scale of 16 bits or above count. Any N >= 1 and any rate
    from 1 to 768 kHz. Raises UnsupportedRateError, NoSamplesError, NonFiniteSamplesError, or
    InvalidValueError for an array that is not mono.
    """
    raw, peak = _checked(samples, sample_rate_hz)
    scale = peak if peak > 10.0 ** (LEVEL_FLOOR_DBFS / 20.0) else 1.0
    # Everything is measured on a wave of peak 1, which makes it exact at any recording gain.
    wave = raw / np.float32(scale)
    wave -= np.float32(wave.mean(dtype=np.float64))
    squares = wave * wave
    power = float(squares.mean(dtype=np.float64))
    gain_db = 20.0 * float(np.log10(scale))
    spectrum = _power_spectrum(wave, power, sample_rate_hz)
    tables = _spectral_tables(sample_rate_hz)
    weighted = float(spectrum @ tables.a_weights)
    modulation = _modulation(squares, sample_rate_hz)
    return Acoustics(
        level_dbfs=_level(power, gain_db),
        peak_dbfs=_level(peak * peak, 0.0),
        a_level_dbfs=_level(weighted, gain_db),
        third_octave_dbfs=tuple(_level(p, gain_db) for p in _band_powers(spectrum, tables)),
        centroid_hz=_centroid(spectrum, tables.frequencies_hz),
        flatness=_flatness(spectrum),
        modulation=modulation.indices,
        modulation_hz=modulation.frequency_hz,
        modulation_depth=modulation.depth,
        onsets_per_s=_onsets_per_s(wave, squares, sample_rate_hz),
        clipped_share=_clipped_share(raw, clipped),
        silent_share=_silent_share(squares, sample_rate_hz, gain_db),
    )


def a_weighting_db(frequency_hz: DoubleArray) -> DoubleArray:
    """The A-weighting of frequencies in Hz, in dB; 0 dB at 1 kHz, -inf at 0 Hz (IEC 61672-1)."""
    with np.errstate(divide="ignore"):
        weights: DoubleArray = 10.0 * np.log10(_a_weights(frequency_hz))
    return weights


def third_octave_centres_hz(sample_rate_hz: int) -> tuple[float, ...]:
    """Centres of the bands that `measure` reports at a sample rate, in Hz."""
    return tuple(c for c in THIRD_OCTAVE_CENTRES_HZ if c < sample_rate_hz / 2)


# --- input --------------------------------------------------------------------------------------


def _checked(samples: FloatArray, sample_rate_hz: int) -> tuple[FloatArray, float]:
    """The samples as float32 and their peak, or an error that says what is wrong with them."""
    if not LOWEST_RATE_HZ <= sample_rate_hz <= HIGHEST_RATE_HZ:
        raise UnsupportedRateError(f"{sample_rate_hz} Hz")
    wave: FloatArray = np.asarray(samples, dtype=np.float32)
    if wave.ndim != 1:
        raise InvalidValueError(f"shape {wave.shape}", "acoustics are measured on mono samples [N]")
    if wave.size == 0:
        raise NoSamplesError(None, "an empty window cannot be measured")
    peak = float(np.maximum(wave.max(), -wave.min()))
    if not np.isfinite(peak):
        raise NonFiniteSamplesError(None, "replace them before measuring")
    return wave, peak


def _level(power: float, gain_db: float) -> float:
    """Mean square to dBFS, raised by a gain in dB, never below the floor."""
    if power <= 0.0:
        return LEVEL_FLOOR_DBFS
    return max(10.0 * float(np.log10(power)) + gain_db, LEVEL_FLOOR_DBFS)


# --- spectrum -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _SpectralTables:
    """What depends on the sample rate alone; K bins without 0 Hz, B third-octave bands."""

    frame: int
    window: FloatArray
    taper: FloatArray
    frequencies_hz: FloatArray
    a_weights: FloatArray
    edge_bins: DoubleArray


@lru_cache(maxsize=32)
def _spectral_tables(sample_rate_hz: int) -> _SpectralTables:
    """Frame length, windows, weights and band edges (in bins) of a sample rate."""
    frame = _fast_length(round(_SPECTRUM_FRAME_S * sample_rate_hz))
    resolution_hz = sample_rate_hz / frame
    frequencies = np.arange(1.0, frame // 2 + 1) * resolution_hz
    taper = max(round(_EDGE_TAPER_S * sample_rate_hz), 1)
    centres = np.array(third_octave_centres_hz(sample_rate_hz))
    edges = np.append(centres * 10.0**-0.05, centres[-1] * 10.0**0.05)
    return _SpectralTables(
        frame=frame,
        window=np.sin(np.pi * (np.arange(frame) + 0.5) / frame).astype(np.float32),
        taper=np.sin(np.pi / 2 * (np.arange(taper) + 0.5) / taper).astype(np.float32) ** 2,
        frequencies_hz=frequencies.astype(np.float32),
        a_weights=_a_weights(frequencies).astype(np.float32),
        edge_bins=edges / resolution_hz - 0.5,
    )


def _fast_length(samples: int) -> int:
    """The smallest multiple of four at or above a length with no prime factor above 5."""
    length = -(-samples // 4) * 4
    while not _is_smooth(length):
        length += 4
    return length


def _is_smooth(number: int) -> bool:
    for factor in (2, 3, 5):
        while number % factor == 0:
            number //= factor
    return number == 1


def _a_weights(frequency_hz: DoubleArray) -> DoubleArray:
    """A-weighting as a factor of power, from the poles of IEC 61672-1 annex E."""
    return _a_response(frequency_hz) / _a_response(np.array(1000.0))


def _a_response(frequency_hz: DoubleArray) -> DoubleArray:
    f2 = np.square(frequency_hz)
    low, high = np.square(20.598997), np.square(12194.217)
    middle = (f2 + np.square(107.65265)) * (f2 + np.square(737.86223))
    response: DoubleArray = (high * f2 * f2) ** 2 / ((f2 + low) ** 2 * middle * (f2 + high) ** 2)
    return response


def _power_spectrum(wave: FloatArray, power: float, sample_rate_hz: int) -> FloatArray:
    """Power of each bin above 0 Hz [K]; the bins add up to `power`.

    10 ms at either end are faded, or the cut would leak a strong hum into every band.
    """
    tables = _spectral_tables(sample_rate_hz)
    half = tables.frame // 2
    padded = np.zeros((-(-len(wave) // half) + 2) * half, dtype=np.float32)
    padded[half : half + len(wave)] = wave
    _fade_ends(padded[half : half + len(wave)], tables.taper)
    frames = sliding_window_view(padded, tables.frame)[::half]
    total = np.zeros(half + 1, dtype=np.float32)
    # A few frames at a time: one transform a call pays for its plan anew, and all at once fall out
    # of the cache.
    for start in range(0, len(frames), _FRAMES_A_TRANSFORM):
        windowed = frames[start : start + _FRAMES_A_TRANSFORM] * tables.window
        for bins in np.fft.rfft(windowed):
            total += np.square(bins.real) + np.square(bins.imag)
    spectrum: FloatArray = total[1:]
    spectrum[-1] /= 2.0  # the bin at half the rate has no mirror image
    found = float(spectrum.sum(dtype=np.float64))
    return spectrum * np.float32(power / found) if found > 0.0 else spectrum


def _fade_ends(wave: FloatArray, taper: FloatArray) -> None:
    """Fade both ends in place, each over at most half of the wave."""
    length = min(len(taper), len(wave) // 2)
    wave[:length] *= taper[:length]
    wave[len(wave) - length :] *= taper[:length][::-1]


def _band_powers(spectrum: FloatArray, tables: _SpectralTables) -> list[float]:
    """Powers of the third-octave bands [B]; a bin across an edge is shared in proportion."""
    whole = np.clip(tables.edge_bins.astype(np.int64), 0, len(spectrum) - 1)
    share = np.clip(tables.edge_bins - whole, 0.0, 1.0) * spectrum[whole]
    # reduceat sums the whole bins between consecutive edges, but gives one bin where there is none.
    sums = np.add.reduceat(spectrum, whole, dtype=np.float64)[:-1]
    sums[whole[1:] == whole[:-1]] = 0.0
    powers: list[float] = np.maximum(sums - share[:-1] + share[1:], 0.0).tolist()
    return powers


def _centroid(spectrum: FloatArray, frequencies_hz: FloatArray) -> float:
    """Mean frequency weighted by power, in Hz; 0 for silence."""
    total = float(spectrum.sum(dtype=np.float64))
    return float(spectrum @ frequencies_hz) / total if total > 0.0 else 0.0


def _flatness(spectrum: FloatArray) -> float:
    """Geometric over arithmetic mean of the power spectrum; 0 for silence."""
    mean = float(spectrum.mean(dtype=np.float64))
    if mean <= 0.0:
        return 0.0
    ratio = np.maximum(spectrum / np.float32(mean), np.float32(_FLATNESS_FLOOR))
    return min(float(np.exp(np.log(ratio).mean(dtype=np.float64))), 1.0)


# --- modulation ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Modulation:
    """RMS index of each band, and the strongest line."""

    indices: tuple[float, ...]
    frequency_hz: float
    depth: float


_UNMODULATED: Final = _Modulation((0.0,) * len(MODULATION_BANDS_HZ), 0.0, 0.0)


@dataclass(frozen=True)
class _EnvelopeKernel:
    """A Blackman low-pass at the wave's rate, cut into steps of one envelope sample.

    hop: wave samples an envelope sample. steps: [hop, S]. rate_hz: of the envelope.
    """

    hop: int
    steps: FloatArray
    rate_hz: float

    def response(self, frequency_hz: DoubleArray) -> DoubleArray:
        """What the low-pass leaves of a modulation frequency, as a factor of amplitude."""
        kernel = self.steps.T.reshape(-1).astype(np.float64)
        times = np.arange(kernel.size) / (self.rate_hz * self.hop)
        centred = times - times @ kernel / kernel.sum()
        factors: DoubleArray = np.cos(2 * np.pi * np.outer(frequency_hz, centred)) @ kernel
        return factors


@lru_cache(maxsize=32)
def _envelope_kernel(sample_rate_hz: int) -> _EnvelopeKernel:
    hop = max(sample_rate_hz // _ENVELOPE_RATE_HZ, 1)
    taps = max(round(_ENVELOPE_KERNEL_S * sample_rate_hz), 3)
    kernel = np.zeros(-(-taps // hop) * hop)
    kernel[:taps] = np.blackman(taps + 2)[1:-1]
    steps = (kernel / kernel.sum()).reshape(-1, hop).T
    return _EnvelopeKernel(hop, np.ascontiguousarray(steps, np.float32), sample_rate_hz / hop)


@dataclass(frozen=True)
class _ModulationTables:
    """What depends on the number of envelope samples E; F envelope bins without 0 Hz."""

    window: FloatArray
    length: int
    frequencies_hz: DoubleArray
    compensation: DoubleArray
    shares: DoubleArray
    first: int
    last: int


@lru_cache(maxsize=32)
def _modulation_tables(samples: int, sample_rate_hz: int) -> _ModulationTables:
    """Windows, frequencies and band shares; lines below two periods a window are not searched."""
    kernel = _envelope_kernel(sample_rate_hz)
    length = _fast_length(2 * samples)
    resolution_hz = kernel.rate_hz / length
    low_hz, high_hz = MODULATION_BANDS_HZ[0][0], MODULATION_BANDS_HZ[-1][1]
    count = min(int(high_hz / resolution_hz) + 2, length // 2)
    frequencies = np.arange(1.0, count + 1) * resolution_hz
    lowest_hz = max(low_hz, 2.0 * kernel.rate_hz / samples)
    bounds = np.array(MODULATION_BANDS_HZ)[:, :, None] / resolution_hz
    bins = np.arange(1, count + 1)
    overlap = np.minimum(bounds[:, 1], bins + 0.5) - np.maximum(bounds[:, 0], bins - 0.5)
    return _ModulationTables(
        window=np.hanning(samples + 2)[1:-1].astype(np.float32),
        length=length,
        frequencies_hz=frequencies,
        compensation=1.0 / kernel.response(frequencies),
        shares=np.clip(overlap, 0.0, 1.0),
        first=int(np.searchsorted(frequencies, lowest_hz)),
        last=int(np.searchsorted(frequencies, high_hz, side="right")),
    )


def _modulation(squares: FloatArray, sample_rate_hz: int) -> _Modulation:
    """The modulation spectrum's summary; a carrier below 64 Hz shows at twice its own frequency."""
    envelope = _envelope(squares, _envelope_kernel(sample_rate_hz))
    if len(envelope) < _ENVELOPE_MIN_FRAMES or not envelope.any():
        return _UNMODULATED
    tables = _modulation_tables(len(envelope), sample_rate_hz)
    weight = float(tables.window.sum())
    mean = float(envelope @ tables.window) / weight
    windowed = (envelope / np.float32(mean) - np.float32(1.0)) * tables.window
    bins = np.abs(np.fft.rfft(windowed, tables.length)[1 : len(tables.frequencies_hz) + 1])
    bins = bins * tables.compensation
    norm = 2.0 / (tables.length * float(tables.window @ tables.window))
    indices = np.sqrt(tables.shares @ np.square(bins) * norm)
    frequency_hz, depth = _strongest(bins * (2.0 / weight), tables)
    return _Modulation(tuple(indices.tolist()), frequency_hz, depth)


def _envelope(squares: FloatArray, kernel: _EnvelopeKernel) -> FloatArray:
    """Low-passed squares, taken every hop, as an amplitude [E]; only where the kernel fits."""
    count = len(squares) // kernel.hop
    spans = kernel.steps.shape[1]
    if count < spans:
        return np.zeros(0, dtype=np.float32)
    partial = squares[: count * kernel.hop].reshape(count, kernel.hop) @ kernel.steps
    power = np.zeros(count - spans + 1, dtype=np.float32)
    for span in range(spans):
        power += partial[span : span + len(power), span]
    return np.sqrt(power)


def _strongest(depths: DoubleArray, tables: _ModulationTables) -> tuple[float, float]:
    """Frequency in Hz and depth of the highest line, refined by a parabola through its log."""
    searched = depths[tables.first : tables.last]
    if searched.size == 0 or searched.max() <= 1e-9:
        return 0.0, 0.0
    top = tables.first + int(searched.argmax())
    if not 0 < top < len(depths) - 1 or depths[top - 1 : top + 2].min() <= 0.0:
        return float(tables.frequencies_hz[top]), float(depths[top])
    left, middle, right = np.log(depths[top - 1 : top + 2])
    bend = left - 2.0 * middle + right
    offset = float(np.clip(0.5 * (left - right) / bend, -0.5, 0.5)) if bend < 0.0 else 0.0
    step_hz = float(tables.frequencies_hz[0])
    depth = float(np.exp(middle - 0.25 * (left - right) * offset))
    return float(tables.frequencies_hz[top]) + offset * step_hz, depth


# --- time ---------------------------------------------------------------------------------------


def _onsets_per_s(wave: FloatArray, squares: FloatArray, sample_rate_hz: int) -> float:
    """Rises of 6 dB or more within 20 ms over the 20 ms before, counted once in 30 ms, per second.

    Looked for in the wave and in its derivative, which hears a click through a rumble. What is
    more than 60 dB below the loudest frame does not count.
    """
    frame = max(round(_ONSET_FRAME_S * sample_rate_hz), _ONSET_FRAME_SAMPLES)
    if len(squares) < 5 * frame:
        return 0.0
    slope, count = np.diff(wave), len(squares) // frame
    steep = _rises_db(np.square(slope, out=slope), frame, count)
    rises = np.maximum(_rises_db(squares, frame, count), steep)
    sudden = rises >= _ONSET_RISE_DB
    fresh = sudden.copy()
    for lag in (1, 2, 3):
        fresh[lag:] &= ~sudden[:-lag]
    return int(np.count_nonzero(fresh)) * sample_rate_hz / len(squares)


def _rises_db(squares: FloatArray, frame: int, count: int) -> FloatArray:
    """How far each of `count` frames stands above the louder of those two and three before it."""
    # The derivative is one sample short: the last frame may be too, and counts as it is.
    whole = min(count, len(squares) // frame)
    energy = np.zeros(count, dtype=np.float32)
    energy[:whole] = _frame_sums(squares[: whole * frame], frame)
    energy[whole:] = squares[whole * frame :].sum() if count > whole else 0.0
    loudest = float(energy.max())
    if loudest <= 0.0:
        return np.zeros(count - 3, dtype=np.float32)
    levels = 10.0 * np.log10(np.maximum(energy / np.float32(loudest), np.float32(_ONSET_RANGE)))
    rises: FloatArray = levels[3:] - np.maximum(levels[1:-2], levels[:-3])
    return rises


def _frame_sums(squares: FloatArray, frame: int) -> FloatArray:
    """Sums over consecutive whole frames."""
    count = len(squares) // frame
    sums: FloatArray = squares[: count * frame].reshape(count, frame) @ np.ones(frame, np.float32)
    return sums


def _clipped_share(samples: FloatArray, clipped: NDArray[np.bool_] | None) -> float:
    marked = np.abs(samples) >= FULL_SCALE if clipped is None else clipped
    if len(marked) != len(samples):
        raise InvalidValueError(f"{len(marked)} marks", f"expected one for each of {len(samples)}")
    return int(np.count_nonzero(marked)) / len(samples)


def _silent_share(squares: FloatArray, sample_rate_hz: int, gain_db: float) -> float:
    """Part of the samples in frames below the silence level; a last short frame counts as such."""
    frame = round(SILENCE_FRAME_S * sample_rate_hz)
    limit = 10.0 ** ((SILENCE_DBFS - gain_db) / 10.0)
    sums = _frame_sums(squares, frame)
    silent = int(np.count_nonzero(sums < limit * frame)) * frame
    rest = squares[len(sums) * frame :]
    silent += len(rest) if rest.size and float(rest.mean()) < limit else 0
    return silent / len(squares)


# --- documents ----------------------------------------------------------------------------------


def _rounded(name: str, value: float | tuple[float, ...]) -> float | list[float]:
    if isinstance(value, tuple):
        return [_rounded_number(name, v) for v in value]
    return _rounded_number(name, value)


def _rounded_number(name: str, value: float) -> float:
    """0.01 for levels, four significant digits for the rest; never minus zero."""
    return (round(value, 2) if name.endswith("_dbfs") else float(f"{value:.4g}")) + 0.0


def _thawed(value: Any) -> float | tuple[float, ...]:
    return tuple(float(v) for v in value) if isinstance(value, list | tuple) else float(value)

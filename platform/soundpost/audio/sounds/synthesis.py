"""Building blocks of synthetic sound: noise, oscillators, modes, grains, moving filters, rooms.

Waves are float32 [N]. Whatever lies above half the sample rate is left out, never folded down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from soundpost.audio.sounds.kind import FloatArray, Take

DoubleArray = NDArray[np.float64]
Response = Callable[[DoubleArray], DoubleArray]

_TABLE = 2048


def fast_length(samples: int) -> int:
    """The next length that is a power of two, or three or five times one."""
    power = 1 << max(samples - 1, 1).bit_length()
    return min(n for n in (power, power // 4 * 3, power // 8 * 5) if n >= samples)


def _bins_hz(length: int, rate_hz: int) -> DoubleArray:
    return np.fft.rfftfreq(length, 1 / rate_hz).astype(np.float64)


# --- responses: functions from frequency in Hz to amplitude ---------------------------------------


def band(low_hz: float, high_hz: float, order: float = 2.0) -> Response:
    """A Butterworth-like band pass; `order` 1 falls by 6 dB an octave."""

    def response(frequency_hz: DoubleArray) -> DoubleArray:
        f = np.maximum(frequency_hz, 1e-3)
        rise = 1.0 + (low_hz / f) ** (2 * order) if low_hz > 0 else 1.0
        fall = 1.0 + (f / high_hz) ** (2 * order)
        result: DoubleArray = 1.0 / np.sqrt(rise * fall)
        return result

    return response


def tilt(db_per_octave: float, reference_hz: float = 1000.0) -> Response:
    """A straight slope, 0 dB at the reference; level below 20 Hz."""

    def response(frequency_hz: DoubleArray) -> DoubleArray:
        octaves = np.log2(np.maximum(frequency_hz, 20.0) / reference_hz)
        result: DoubleArray = 10.0 ** (db_per_octave * octaves / 20.0)
        return result

    return response


def resonances(peaks: Sequence[tuple[float, float, float]], floor: float = 0.0) -> Response:
    """A sum of resonances (centre in Hz, bandwidth in Hz, gain) over a floor."""

    def response(frequency_hz: DoubleArray) -> DoubleArray:
        total = np.full_like(frequency_hz, floor)
        for centre_hz, width_hz, gain in peaks:
            total += gain / (1.0 + ((frequency_hz - centre_hz) / (width_hz / 2)) ** 2)
        return total

    return response


def both(*responses: Response) -> Response:
    """One filter after the other."""

    def response(frequency_hz: DoubleArray) -> DoubleArray:
        product = np.ones_like(frequency_hz)
        for one in responses:
            product = product * one(frequency_hz)
        return product

    return response


# --- noise and control ----------------------------------------------------------------------------


def noise(take: Take, response: Response) -> FloatArray:
    """Gaussian noise [N] of RMS 1 with a given amplitude response."""
    length = fast_length(take.samples)
    count = length // 2 + 1
    gains = response(_bins_hz(length, take.rate_hz)).astype(np.float32)
    gains[0] = 0.0
    parts = take.rng.standard_normal((2, count), dtype=np.float32) * gains
    wave = np.fft.irfft(parts[0] + 1j * parts[1], length)[: take.samples]
    return unit(wave.astype(np.float32))


def filtered(wave: FloatArray, rate_hz: int, response: Response) -> FloatArray:
    """Apply a zero-phase amplitude response; a quarter second of padding holds its tail."""
    length = fast_length(len(wave) + rate_hz // 4)
    gains = response(_bins_hz(length, rate_hz)).astype(np.float32)
    result = np.fft.irfft(np.fft.rfft(wave, length) * gains, length)[: len(wave)]
    return result.astype(np.float32)


def unit(wave: FloatArray) -> FloatArray:
    """Scale to RMS 1; silence stays silence."""
    rms = float(np.sqrt(np.mean(np.square(wave), dtype=np.float64)))
    return wave / np.float32(rms) if rms > 0.0 else wave


def wander(take: Take, changes_per_s: float) -> FloatArray:
    """A smooth random course [N]: mean 0, spread about 1, turning some times a second."""
    count = int(take.duration_s * changes_per_s) + 4
    points = take.rng.standard_normal(count)
    # Points between the points, bent by a cosine, keep corners out of pitch and loudness.
    place = take.rng.uniform() + np.arange(take.samples) * (changes_per_s / take.rate_hz)
    left = place.astype(np.int64)
    bend = 0.5 - 0.5 * np.cos(np.pi * (place - left))
    course = points[left] + (points[left + 1] - points[left]) * bend
    return np.asarray(course, dtype=np.float32)


def curve(take: Take, points: Sequence[tuple[float, float]]) -> FloatArray:
    """A course [N] through (share of the duration, value) points, straight between them."""
    places, values = zip(*points, strict=True)
    share = np.linspace(0.0, 1.0, take.samples)
    return np.asarray(np.interp(share, places, values), dtype=np.float32)


def decay(take: Take, rt60_s: float, attack_s: float = 0.001) -> FloatArray:
    """An envelope [N]: a fast rise, then an exponential fall of 60 dB in rt60_s."""
    times = take.times_s()
    rise = np.minimum((times + 0.5 / take.rate_hz) / max(attack_s, 1e-6), 1.0)
    return np.asarray(rise * 10.0 ** (-3.0 * times / rt60_s), dtype=np.float32)


# --- oscillators ----------------------------------------------------------------------------------


def phase(take: Take, frequency_hz: float | FloatArray | DoubleArray) -> DoubleArray:
    """Running phase in cycles [N] of a constant or moving frequency, starting anywhere."""
    start = take.rng.uniform()
    if isinstance(frequency_hz, float | int):
        return start + np.arange(float(take.samples)) * (frequency_hz / take.rate_hz)
    return start + np.cumsum(np.asarray(frequency_hz, np.float64)) / take.rate_hz


def sine(cycles: DoubleArray) -> FloatArray:
    """A sine of phase in cycles."""
    return np.sin(2 * np.pi * (cycles % 1.0)).astype(np.float32)


def harmonics(take: Take, cycles: DoubleArray, amplitudes: Sequence[float]) -> FloatArray:
    """A periodic wave [N] of harmonics 1, 2, ... with random phases, from a table of one period."""
    fastest = float(np.max(np.diff(cycles), initial=1e-6))
    highest = min(len(amplitudes), int(0.49 / fastest), _TABLE // 4)
    bins = np.zeros(_TABLE // 2 + 1, dtype=np.complex128)
    turns = take.rng.uniform(0, 2 * np.pi, len(amplitudes))
    bins[1 : highest + 1] = np.asarray(amplitudes[:highest]) * np.exp(1j * turns[:highest])
    table = np.fft.irfft(bins) * (_TABLE / 2)
    place = (cycles % 1.0) * _TABLE
    left = place.astype(np.int64) % _TABLE
    right = (left + 1) % _TABLE
    share = place - np.floor(place)
    return (table[left] + (table[right] - table[left]) * share).astype(np.float32)


def modes(
    take: Take, frequencies_hz: Iterable[float], rt60_s: Iterable[float], gains: Iterable[float]
) -> FloatArray:
    """A struck body [N]: decaying sines, each with its decay time."""
    times = take.times_s()
    total = np.zeros(take.samples)
    for frequency_hz, fall_s, gain in zip(frequencies_hz, rt60_s, gains, strict=True):
        turn = take.rng.uniform(0, 2 * np.pi)
        if frequency_hz >= 0.48 * take.rate_hz:
            continue
        used = min(take.samples, int(1.2 * fall_s * take.rate_hz) + 1)
        t = times[:used]
        total[:used] += (
            gain * 10.0 ** (-3.0 * t / fall_s) * np.sin(2 * np.pi * frequency_hz * t + turn)
        )
    return total.astype(np.float32)


# --- placing --------------------------------------------------------------------------------------


def add(wave: FloatArray, start: int, grain: FloatArray, gain: float = 1.0) -> None:
    """Add a grain into a wave in place; what hangs over either end is cut."""
    first, end = max(start, 0), min(start + len(grain), len(wave))
    if first < end:
        wave[first:end] += np.float32(gain) * grain[first - start : end - start]


def beats(take: Take, interval_s: float, jitter: float = 0.0) -> DoubleArray:
    """Times in seconds from 0, an interval apart, each interval varied by a share `jitter`."""
    count = int(take.duration_s / interval_s * (1 + 2 * jitter)) + 2
    steps = interval_s * (1.0 + jitter * np.clip(take.rng.standard_normal(count), -2, 2))
    times = np.concatenate([[0.0], np.cumsum(np.maximum(steps, 0.1 * interval_s))])
    result: DoubleArray = times[times < take.duration_s]
    return result


def impulses(take: Take, times_s: DoubleArray, gains: DoubleArray) -> FloatArray:
    """A train of single samples [N], shared between neighbours for times between samples."""
    place = times_s * take.rate_hz
    left = place.astype(np.int64)
    inside = left < take.samples - 1
    left, share, gains = left[inside], (place - left)[inside], gains[inside]
    train = np.bincount(left, gains * (1 - share), take.samples)
    train += np.bincount(left + 1, gains * share, take.samples)
    return train.astype(np.float32)


def sprinkle(take: Take, grains: Sequence[FloatArray], rate_per_s: float) -> FloatArray:
    """Scatter grains at random over a take, `rate_per_s` in all, of very unequal loudness."""
    total = take.silence()
    for grain in grains:
        count = take.rng.poisson(rate_per_s * take.duration_s / len(grains))
        times = take.rng.uniform(0, take.duration_s, count)
        total += convolved(impulses(take, times, take.rng.lognormal(0, 0.8, count)), grain)
    return total


# --- filters over time ----------------------------------------------------------------------------


def convolved(wave: FloatArray, kernel: FloatArray) -> FloatArray:
    """Causal convolution, cut to the wave's length; by blocks, so that buffers stay small."""
    length = fast_length(max(4 * len(kernel), 8192))
    step = length - len(kernel) + 1
    spectrum = np.fft.rfft(kernel.astype(np.float32), length)
    result = np.zeros(len(wave) + length, dtype=np.float32)
    for start in range(0, len(wave), step):
        block = np.fft.rfft(wave[start : start + step], length)
        result[start : start + length] += np.fft.irfft(block * spectrum, length)
    return result[: len(wave)]


def moving_filter(
    wave: FloatArray, rate_hz: int, response_at: Callable[[float], Response], hop_s: float = 0.01
) -> FloatArray:
    """Filter with a response that depends on time in seconds, from frame to frame."""
    hop = max(round(hop_s * rate_hz), 16)
    window = np.sin(np.pi * (np.arange(2 * hop) + 0.5) / (2 * hop)).astype(np.float32)
    frequencies = _bins_hz(2 * hop, rate_hz)
    padded = np.zeros(len(wave) + 3 * hop, dtype=np.float32)
    padded[hop : hop + len(wave)] = wave
    result = np.zeros_like(padded)
    for start in range(0, len(wave) + hop, hop):
        gains = response_at(start / rate_hz)(frequencies).astype(np.float32)
        frame = np.fft.rfft(padded[start : start + 2 * hop] * window) * gains
        result[start : start + 2 * hop] += np.fft.irfft(frame, 2 * hop).astype(np.float32) * window
    return result[hop : hop + len(wave)]


def room(take: Take, wave: FloatArray, rt60_s: float, wet: float) -> FloatArray:
    """Add a room: a few early reflections and a tail whose highs die first.

    wet: RMS of what the room adds, relative to the direct sound of a steady noise.
    """
    tail = take.part(min(rt60_s, 3.0) * 0.8)
    late = noise(tail, band(100.0, 3500.0, 0.5)) * decay(tail, rt60_s, 0.012)
    late += 0.7 * noise(tail, band(1500.0, 9000.0, 0.5)) * decay(tail, 0.5 * rt60_s, 0.012)
    for _ in range(6):
        place = int(take.rng.uniform(0.004, 0.04) * take.rate_hz)
        if place < len(late):
            late[place] += take.rng.choice([-1.0, 1.0]) * take.rng.uniform(1.0, 3.0)
    late *= np.float32(wet / max(float(np.sqrt(np.square(late).sum())), 1e-9))
    return wave + convolved(wave, late)

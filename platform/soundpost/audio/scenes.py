"""Scenes: synthetic sounds placed in time at stated levels, with their exact ground truth.

A scene is its seed: the same scene gives the same samples, bit for bit, run to run on one machine.
Each event draws from a generator of its own, made from the scene's seed and the event's kind, onset
and variant. So it sounds the same when others are added or its level changes, and a changed
parameter starts from the same draws: two scenes can differ in exactly one thing.

Levels are RMS against a full-scale square wave, as in `soundpost.audio.acoustics`, over the active
part of an event: its 50 ms frames within 20 dB of the loudest. A knock is not made louder by
the pauses around it, and for a steady sound it is the plain RMS.

Nothing clips in silence: a scene whose peak would pass `PEAK_CEILING` is turned down as a whole,
and the truth says by how much (`gain_db`); the levels in the truth are those in the wave.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import soundfile
from numpy.typing import NDArray

from soundpost.audio.sounds import KINDS
from soundpost.audio.sounds.kind import SoundKind, Take
from soundpost.audio.sounds.synthesis import band, both, noise, tilt
from soundpost.errors import InvalidValueError

FloatArray = NDArray[np.float32]

__all__ = [
    "KINDS",
    "Event",
    "RenderedScene",
    "Scene",
    "SoundKind",
    "active_rms",
    "synthesise",
    "write_wav",
]

LOWEST_RATE_HZ: Final = 8_000
HIGHEST_RATE_HZ: Final = 192_000
PEAK_CEILING: Final = 0.999
ACTIVE_FRAME_S: Final = 0.05
ACTIVE_RANGE_DB: Final = 20.0

_FADE_IN_S: Final = 0.002
_FADE_OUT_S: Final = 0.02
_SOLO_PEAK: Final = 0.5


@dataclass(frozen=True)
class Event:
    """A sound in a scene: which, when, how loud, and what is set rather than drawn.

    level_dbfs: RMS of the active part. params: parameters of the kind, in its units. variant:
    another number makes another sound of the same kind at the same place.
    """

    kind: str
    onset_s: float
    duration_s: float
    level_dbfs: float = -26.0
    params: Mapping[str, float] = field(default_factory=dict)
    variant: int = 0


@dataclass(frozen=True)
class RenderedScene:
    """The wave [N] of a scene and its truth, which is JSON-ready."""

    wave: FloatArray
    truth: dict[str, Any]


@dataclass(frozen=True)
class Scene:
    """Events over a background noise. noise_dbfs: RMS of the noise, None for none."""

    events: Sequence[Event]
    duration_s: float
    sample_rate_hz: int = 32_000
    noise_dbfs: float | None = -60.0
    seed: int = 0

    def render(self) -> RenderedScene:
        """Make the wave and its truth.

        The truth holds sample_rate_hz, duration_s, samples, seed, noise_dbfs, gain_db, and for each
        event, in the order given: kind, start_sample, end_sample (one past the last), onset_s,
        duration_s, level_dbfs, active_share, variant and params, the drawn ones included. An event
        is cut where the scene ends. Raises InvalidValueError for one that cannot be placed.
        """
        samples = _samples(self.duration_s, self.sample_rate_hz)
        mix = self._background(samples)
        truths = [self._place(mix, event, twin) for event, twin in _numbered(self.events)]
        peak = float(np.abs(mix).max())
        gain = min(PEAK_CEILING / peak, 1.0) if peak > 0.0 else 1.0
        return RenderedScene((mix * gain).astype(np.float32), self._truth(samples, gain, truths))

    def _background(self, samples: int) -> NDArray[np.float64]:
        mix = np.zeros(samples)
        if self.noise_dbfs is not None:
            take = Take(samples, self.sample_rate_hz, _generator(self.seed, "background"))
            hush = noise(take, both(band(20.0, 12_000.0, 1.0), tilt(-3.0)))
            mix += 10.0 ** (self.noise_dbfs / 20.0) * hush
        return mix

    def _place(self, mix: NDArray[np.float64], event: Event, twin: int) -> dict[str, Any]:
        """Add an event to the mix in place and return its truth, before the scene's gain."""
        rate_hz = self.sample_rate_hz
        start = round(event.onset_s * rate_hz)
        if not 0 <= start < len(mix):
            text = f"a scene of {self.duration_s} s has no place for the {event.kind}"
            raise InvalidValueError(f"onset_s={event.onset_s}", text)
        rng = _generator(self.seed, f"{event.kind} {start} {event.variant} {twin}")
        length = _samples(event.duration_s, rate_hz)
        wave, params = _sound(_kind(event.kind), Take(length, rate_hz, rng), event.params)
        wave = _edged(wave[: len(mix) - start], rate_hz)
        rms, share = active_rms(wave, rate_hz)
        mix[start : start + len(wave)] += wave * (10.0 ** (event.level_dbfs / 20.0) / rms)
        return {
            "kind": event.kind,
            "start_sample": start,
            "end_sample": start + len(wave),
            "onset_s": start / rate_hz,
            "duration_s": len(wave) / rate_hz,
            "level_dbfs": event.level_dbfs,
            "active_share": share,
            "variant": event.variant,
            "params": params,
        }

    def _truth(self, samples: int, gain: float, events: list[dict[str, Any]]) -> dict[str, Any]:
        gain_db = 20.0 * float(np.log10(gain))
        noise_dbfs = None if self.noise_dbfs is None else self.noise_dbfs + gain_db
        for event in events:
            event["level_dbfs"] += gain_db
        return {
            "sample_rate_hz": self.sample_rate_hz,
            "duration_s": samples / self.sample_rate_hz,
            "samples": samples,
            "seed": self.seed,
            "noise_dbfs": noise_dbfs,
            "gain_db": gain_db,
            "events": events,
        }


def synthesise(
    kind: str | SoundKind,
    duration_s: float,
    sample_rate_hz: int,
    rng: np.random.Generator,
    **params: float,
) -> FloatArray:
    """Make one sound alone [N], with its peak at half of full scale; what is not given is drawn.

    Raises InvalidValueError for an unknown kind, an unknown parameter, or a value out of range.
    """
    take = Take(_samples(duration_s, sample_rate_hz), sample_rate_hz, rng)
    wave, _ = _sound(_kind(kind), take, params)
    wave = _edged(wave, sample_rate_hz)
    return wave * np.float32(_SOLO_PEAK / float(np.abs(wave).max()))


def write_wav(
    path: Path, wave: FloatArray, sample_rate_hz: int, *, subtype: str = "PCM_16"
) -> None:
    """Write a mono wave [N] as a WAV file, in 16 bits unless another libsndfile subtype is named.

    Raises InvalidValueError when samples beyond full scale would clip.
    """
    peak = float(np.abs(wave).max(initial=0.0))
    if peak > 1.0 and subtype.startswith("PCM"):
        raise InvalidValueError(f"peak {peak:.3f}", f"a {subtype} file ends at 1.0: scale it down")
    soundfile.write(str(path), wave, sample_rate_hz, subtype=subtype, format="WAV")


def _kind(kind: str | SoundKind) -> SoundKind:
    if isinstance(kind, SoundKind):
        return kind
    if kind not in KINDS:
        raise InvalidValueError(kind, f"the sound kinds are {', '.join(sorted(KINDS))}")
    return KINDS[kind]


def _samples(duration_s: float, sample_rate_hz: int) -> int:
    """Duration as a number of samples, at least one."""
    if not LOWEST_RATE_HZ <= sample_rate_hz <= HIGHEST_RATE_HZ:
        text = f"sounds are made at {LOWEST_RATE_HZ} to {HIGHEST_RATE_HZ} Hz"
        raise InvalidValueError(f"{sample_rate_hz} Hz", text)
    samples = round(duration_s * sample_rate_hz) if np.isfinite(duration_s) else 0
    if samples < 1:
        raise InvalidValueError(f"duration_s={duration_s}", "must be longer than one sample")
    return samples


def _numbered(events: Sequence[Event]) -> list[tuple[Event, int]]:
    """Each event with how many of the same kind, onset and variant came before it."""
    seen: dict[tuple[str, float, int], int] = {}
    numbered = []
    for event in events:
        key = (event.kind, event.onset_s, event.variant)
        numbered.append((event, seen.get(key, 0)))
        seen[key] = seen.get(key, 0) + 1
    return numbered


def _generator(seed: int, name: str) -> np.random.Generator:
    """A generator of its own for each named thing in a scene."""
    digest = hashlib.sha256(name.encode()).digest()
    words = np.frombuffer(digest[:16], dtype="<u4").tolist()
    return np.random.default_rng(np.random.SeedSequence([seed, *words]))


def _sound(
    kind: SoundKind, take: Take, given: Mapping[str, float]
) -> tuple[FloatArray, dict[str, float]]:
    params = kind.resolve(given, take.rng)
    return kind.synth(take, **params), params


def _edged(wave: FloatArray, sample_rate_hz: int) -> FloatArray:
    """Fade both ends, so that neither clicks, and let the sound begin at its very first sample."""
    wave = wave.astype(np.float32)
    for edge, fade_s in ((wave, _FADE_IN_S), (wave[::-1], _FADE_OUT_S)):
        length = min(round(fade_s * sample_rate_hz), len(wave) // 2)
        edge[:length] *= np.sin(np.pi / 2 * (np.arange(length) + 0.5) / max(length, 1)) ** 2
    least = np.float32(1e-6) * max(float(np.abs(wave).max()), 1e-6)
    if abs(wave[0]) < least:
        wave[0] = least
    return wave


def active_rms(wave: FloatArray, sample_rate_hz: int) -> tuple[float, float]:
    """Return the RMS of the active part of a wave [N], and its share of the whole; see the module."""
    frame = min(max(round(ACTIVE_FRAME_S * sample_rate_hz), 1), len(wave))
    starts = np.arange(0, len(wave), frame)
    energy = np.add.reduceat(np.square(wave, dtype=np.float64), starts)
    lengths = np.diff(np.append(starts, len(wave)))
    power = energy / lengths
    active = power >= power.max() * 10.0 ** (-ACTIVE_RANGE_DB / 10.0)
    count = int(lengths[active].sum())
    return float(np.sqrt(energy[active].sum() / count)), count / len(wave)

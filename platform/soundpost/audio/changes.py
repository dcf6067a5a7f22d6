"""Known changes to a recording: a sound that is added, and faults of machine and microphone.

Every change leaves what lies before its beginning bit for bit as it was. Levels of added sounds are
A-weighted and of the active part (see `audio.scenes`), in dB over the background. What passes full
scale clips, as a recorder clips.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from soundpost.audio.acoustics import LEVEL_FLOOR_DBFS, a_weighting_db
from soundpost.audio.scenes import (
    HIGHEST_RATE_HZ,
    KINDS,
    LOWEST_RATE_HZ,
    SoundKind,
    active_rms,
    synthesise,
)
from soundpost.audio.sounds.kind import Parameter, Take
from soundpost.audio.sounds.synthesis import Response, band, filtered
from soundpost.audio.windows import resample

FloatArray = NDArray[np.float32]
Treat = Callable[[FloatArray, int, int], FloatArray]

EVENT_S: Final = 1.5
LOW_PASS_HZ: Final = 2_000.0
HIGH_PASS_HZ: Final = 500.0
MISSING_S: Final = 10.0
_FADE_S = 0.01


def _tone(take: Take, *, pitch_hz: float) -> FloatArray:
    return np.sin(2.0 * np.pi * pitch_hz * take.times_s()).astype(np.float32)


TONE: Final = SoundKind(
    "tone",
    ("a steady tone", "a whistle"),
    _tone,
    {"pitch_hz": Parameter("Hz", (700.0, 3_000.0), (20.0, 20_000.0), "pitch")},
)


@dataclass(frozen=True)
class Sound:
    """A sound that is added: for EVENT_S, or from a moment on (lasting)."""

    name: str
    kind: SoundKind
    lasting: bool

    @property
    def length_s(self) -> float | None:
        """How long it is heard; None: to the end."""
        return None if self.lasting else EVENT_S


@dataclass(frozen=True)
class Treatment:
    """A change of everything from a moment on; treat: (wave [N], rate in Hz, from sample) -> [M].

    length_s: how long it lasts; None: to the end, in later recordings too.
    """

    name: str
    treat: Treat
    length_s: float | None = None


SOUNDS: Final[Sequence[Sound]] = (
    *(
        Sound(name, kind, lasting=False)
        for name, kind in (
            ("knock", KINDS["knock"]),
            ("glass", KINDS["glass"]),
            ("tone", TONE),
            ("engine", KINDS["engine"]),
            ("hiss", KINDS["hiss"]),
        )
    ),
    *(
        Sound(name, kind, lasting=True)
        for name, kind in (
            ("knocking", KINDS["bearing"]),
            ("tone", TONE),
            ("engine", KINDS["engine"]),
            ("hiss", KINDS["hiss"]),
        )
    ),
)


def a_level_dbfs(wave: FloatArray, rate_hz: int) -> float:
    """Return the A-weighted level of the active part of a wave [N], as `audio.scenes` defines it."""
    rms, _ = active_rms(filtered(wave, rate_hz, _a_weighting), rate_hz)
    return max(20.0 * float(np.log10(max(rms, 1e-12))), LEVEL_FLOOR_DBFS)


def _a_weighting(frequency_hz: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(10.0 ** (a_weighting_db(frequency_hz) / 20.0))


def make_sound(kind: SoundKind, samples: int, rate_hz: int, seed: Sequence[int]) -> FloatArray:
    """Make a sound [samples] at any rate, with an A-weighted level of 0 dBFS; a seed is a sound."""
    made_hz = min(max(rate_hz, LOWEST_RATE_HZ), HIGHEST_RATE_HZ)
    rng = np.random.default_rng(list(seed))
    wave = resample(synthesise(kind, samples / rate_hz, made_hz, rng), made_hz, rate_hz)
    wave = np.pad(wave[:samples], (0, max(0, samples - len(wave))))
    return wave * np.float32(10.0 ** (-a_level_dbfs(wave, rate_hz) / 20.0))


def add_sound(wave: FloatArray, sound: FloatArray, at: int, level_dbfs: float) -> FloatArray:
    """Add a sound of `make_sound` to a wave [N] at a sample, at an A-weighted level."""
    mixed = wave.copy()
    part = sound[: len(wave) - at]
    mixed[at : at + len(part)] += np.float32(10.0 ** (level_dbfs / 20.0)) * part
    return np.clip(mixed, -1.0, 1.0)


def clips(wave: FloatArray) -> bool:
    """Whether a wave reaches full scale."""
    return bool(len(wave)) and float(np.abs(wave).max()) >= 1.0


# --- treatments -------------------------------------------------------------------------------


def _joined(wave: FloatArray, rate_hz: int, at: int, after: FloatArray) -> FloatArray:
    """What was before, then what is after [M], with a short crossfade if something was before."""
    fade = min(round(_FADE_S * rate_hz), len(after), len(wave) - at) if at else 0
    rise = np.linspace(0.0, 1.0, fade, dtype=np.float32)
    joined = np.concatenate([wave[:at], after])
    joined[at : at + fade] = wave[at : at + fade] * (1.0 - rise) + after[:fade] * rise
    return np.asarray(np.clip(joined, -1.0, 1.0))


def _filter(response: Callable[[int], Response]) -> Treat:
    def treat(wave: FloatArray, rate_hz: int, at: int) -> FloatArray:
        return _joined(wave, rate_hz, at, filtered(wave, rate_hz, response(rate_hz))[at:])

    return treat


def _gain(gain_db: float) -> Treat:
    def treat(wave: FloatArray, rate_hz: int, at: int) -> FloatArray:
        gain = np.float32(10.0 ** (gain_db / 20.0))
        return _joined(wave, rate_hz, at, wave[at:] * gain)

    return treat


def _speed(percent: float) -> Treat:
    def treat(wave: FloatArray, rate_hz: int, at: int) -> FloatArray:
        # Played at its old rate, what was resampled to a lower one is faster, and higher.
        after = resample(wave[at:], rate_hz, round(rate_hz / (1.0 + percent / 100.0)))
        return _joined(wave, rate_hz, at, after[: len(wave) - at])

    return treat


def _missing(wave: FloatArray, rate_hz: int, at: int) -> FloatArray:
    silent = wave.copy()
    silent[at : at + round(MISSING_S * rate_hz)] = 0.0
    return silent


TREATMENTS: Final[Sequence[Treatment]] = (
    Treatment(
        f"low-pass {LOW_PASS_HZ:.0f} Hz",
        _filter(lambda rate_hz: band(0.0, min(LOW_PASS_HZ, rate_hz / 8.0))),
    ),
    Treatment(f"high-pass {HIGH_PASS_HZ:.0f} Hz", _filter(lambda _: band(HIGH_PASS_HZ, np.inf))),
    *(Treatment(f"level {gain:+.0f} dB", _gain(gain)) for gain in (6.0, -6.0)),
    # Not slower by more: the top of the band that this empties would be what is noticed.
    *(Treatment(f"speed {p:+.0f} %", _speed(p)) for p in (3.0, 6.0, 12.0, -3.0, -6.0)),
    Treatment(f"silence for {MISSING_S:.0f} s", _missing, MISSING_S),
)

"""Weather and water: rain, wind, stream, thunder."""

from __future__ import annotations

import numpy as np

from soundpost.audio.sounds.kind import FloatArray, Parameter, SoundKind, Take
from soundpost.audio.sounds.synthesis import (
    Response,
    add,
    band,
    beats,
    both,
    curve,
    decay,
    modes,
    moving_filter,
    noise,
    phase,
    resonances,
    room,
    sine,
    sprinkle,
    tilt,
    unit,
    wander,
)


def rain(take: Take, *, drops_per_s: float) -> FloatArray:
    """Rain: a wash of far drops, and near ones on hard ground, on leaves and in puddles."""
    wash = noise(take, both(band(350.0, 12000.0, 1.0), tilt(-1.5)))
    near = unit(sprinkle(take, [_drop(take) for _ in range(8)], drops_per_s))
    shower = 1.0 + 0.08 * wander(take, 0.4)
    falling: FloatArray = (wash + 0.55 * near) * shower
    return falling


def _drop(take: Take) -> FloatArray:
    """One drop: a tap of noise, and now and then the ring of a bubble."""
    part = take.part(0.018)
    tap = noise(part, band(1200.0, 9000.0)) * decay(part, take.rng.uniform(0.004, 0.012), 0.0003)
    pitch_hz = take.rng.uniform(1500.0, 5000.0)
    return tap + take.rng.uniform(0.0, 0.8) * modes(part, [pitch_hz], [0.012], [1.0])


def wind(take: Take, *, gusts_per_s: float) -> FloatArray:
    """Wind: low noise that swells and buffets; its pitch and highs rise with a gust."""
    swell = 0.12 * wander(take, gusts_per_s) + 0.11 * wander(take, 20 * gusts_per_s)
    strength: FloatArray = np.clip(0.5 + swell, 0.05, 1.3)
    howl_hz = 150.0 + 400.0 * strength

    def response_at(time_s: float) -> Response:
        place = min(int(time_s * take.rate_hz), take.samples - 1)
        centre_hz, force = float(howl_hz[place]), float(strength[place])
        low = (centre_hz, 0.13 * centre_hz, 0.4 * force)
        return resonances([low, (2.1 * centre_hz, 0.2 * centre_hz, 0.16 * force)], 0.67)

    body = noise(take, both(band(150.0, 800.0, 1.0), tilt(-7.4)))
    rustle = noise(take, band(900.0, 6000.0, 1.0))
    howling = moving_filter(body, take.rate_hz, response_at, 0.04)
    gusty: FloatArray = howling * strength**1.5 + 0.014 * rustle * strength**3
    return gusty


def stream(take: Take, *, bubbles_per_s: float) -> FloatArray:
    """A brook: bubbles that rise in pitch as they close, over soft broad noise."""
    bubbles = unit(sprinkle(take, [_bubble(take) for _ in range(24)], bubbles_per_s))
    rush = noise(take, both(band(350.0, 2200.0, 1.0), tilt(-1.5)))
    flow = 1.0 + 0.08 * wander(take, 3.0)
    return room(take, (bubbles + 1.15 * rush) * flow, 0.3, 0.12)


def _bubble(take: Take) -> FloatArray:
    """A resonant bubble: the smaller the higher and shorter, rising a little as it closes."""
    pitch_hz = float(np.exp(take.rng.uniform(np.log(650.0), np.log(4000.0))))
    part = take.part(min(36.0 / pitch_hz, 0.12) * take.rng.uniform(0.7, 1.4))
    rising = pitch_hz * curve(part, [(0.0, 1.0), (1.0, 1.0 + take.rng.uniform(0.04, 0.15))])
    loudness = np.float32((pitch_hz / 600.0) ** 0.5)
    ring: FloatArray = sine(phase(part, rising)) * decay(part, part.duration_s, 0.002) * loudness
    return ring


def thunder(take: Take, *, distance_km: float) -> FloatArray:
    """Thunder: a crack, then claps that roll on for seconds, duller the farther the lightning."""
    total = take.silence()
    for time_s in beats(take, 6.0, 0.2):
        for clap in range(9):
            lag_s = float(take.rng.gamma(0.84, 2.0)) if clap else 0.0
            part = take.part(take.rng.uniform(1.3, 3.9))
            highest_hz = 240.0 / np.sqrt(1.0 + distance_km) * np.exp(-0.06 * lag_s)
            roll = noise(part, both(band(25.0, highest_hz, 1.0), tilt(-6.0)))
            roll *= decay(part, 0.7 * part.duration_s, 0.011 * (1.0 + 2.0 * lag_s))
            loudness = np.exp(-0.09 * lag_s) * take.rng.uniform(0.5, 1.0)
            rough = 1.0 + 0.6 * wander(part, 5.7)
            add(total, int((time_s + lag_s) * take.rate_hz), roll * rough, loudness)
    storm = noise(take, both(band(40.0, 2500.0, 1.0), tilt(-3.0)))
    return room(take, total + 0.014 * storm, 2.2, 0.65)


WEATHER = (
    SoundKind(
        "rain",
        ("rain falling", "heavy rain", "raindrops on the ground", "a downpour"),
        rain,
        {"drops_per_s": Parameter("1/s", (150.0, 900.0), (1.0, 5000.0), "near drops a second")},
    ),
    SoundKind(
        "wind",
        ("wind blowing", "strong gusts of wind", "howling wind", "a windy day outside"),
        wind,
        {"gusts_per_s": Parameter("1/s", (1.4, 2.4), (0.05, 5.0), "swells a second")},
    ),
    SoundKind(
        "stream",
        (
            "a stream of running water",
            "a babbling brook",
            "water flowing over stones",
            "a small river trickling",
        ),
        stream,
        {"bubbles_per_s": Parameter("1/s", (400.0, 700.0), (1.0, 2000.0), "bubbles a second")},
    ),
    SoundKind(
        "thunder",
        (
            "thunder rolling",
            "a thunderstorm",
            "a clap of thunder",
            "rumbling thunder in the distance",
        ),
        thunder,
        {"distance_km": Parameter("km", (0.5, 3.0), (0.1, 20.0), "how far the lightning is")},
    ),
)

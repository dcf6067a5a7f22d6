"""Impacts: footsteps, knocking, glass breaking."""

from __future__ import annotations

import numpy as np

from soundpost.audio.sounds.kind import FloatArray, Parameter, SoundKind, Take
from soundpost.audio.sounds.synthesis import (
    add,
    band,
    beats,
    both,
    decay,
    modes,
    noise,
    room,
    tilt,
    wander,
)


def footsteps(take: Take, *, steps_per_s: float) -> FloatArray:
    """Walking on gravel or grit: the heel's crunch and soft thud, then the rolling sole."""
    total = take.silence()
    thud_hz = take.rng.uniform(80.0, 110.0)
    for time_s in beats(take, 1 / steps_per_s, 0.04):
        loudness = take.rng.uniform(0.7, 1.1)
        part = take.part(0.144)
        thud = modes(part, np.array([1.0, 1.9, 3.3]) * thud_hz, [0.07, 0.05, 0.04], [1.0, 0.7, 0.4])
        heel = _crunch(take, 0.12, (60.0, 1000.0), 0.01)
        add(total, int(time_s * take.rate_hz), heel + 0.15 * thud, loudness)
        sole_s = time_s + take.rng.uniform(0.075, 0.105)
        sole = _crunch(take, 0.24, (1000.0, 1800.0), 0.03)
        add(total, int(sole_s * take.rate_hz), sole, 0.33 * loudness)
    air = noise(take, both(band(60.0, 3000.0, 1.0), tilt(-3.0)))
    return room(take, total + 0.005 * air, 0.65, 0.08)


def _crunch(
    take: Take, length_s: float, edges_hz: tuple[float, float], attack_s: float
) -> FloatArray:
    """Noise in grains that give way one after the other under a shoe."""
    part = take.part(1.2 * length_s)
    grains: FloatArray = np.exp(0.8 * (wander(part, 55.0) - 0.5))
    body = noise(part, both(band(*edges_hz, 1.0), tilt(-2.3)))
    crunch: FloatArray = body * grains * decay(part, length_s, attack_s)
    return crunch


def knock(take: Take, *, knocks_per_s: float) -> FloatArray:
    """Knuckles on a wooden door: groups of three or four, a panel that booms and a dry tap."""
    total = take.silence()
    panel_hz = take.rng.uniform(85.0, 125.0)
    time_s = 0.0
    while time_s < take.duration_s:
        for _ in range(int(take.rng.integers(3, 6))):
            add(
                total, int(time_s * take.rate_hz), _tap(take, panel_hz), take.rng.uniform(0.75, 1.0)
            )
            time_s += take.rng.uniform(0.92, 1.08) / knocks_per_s
        time_s += take.rng.uniform(0.6, 1.2)
    air = noise(take, both(band(60.0, 3000.0, 1.0), tilt(-3.0)))
    return room(take, total + 0.002 * air, 0.22, 0.32)


def _tap(take: Take, panel_hz: float) -> FloatArray:
    part = take.part(0.15)
    ratios = np.array([0.6, 1.0, 1.63, 2.35, 3.4, 4.9, 7.1, 10.3]) * take.rng.uniform(0.96, 1.04)
    falls_s = np.array([0.1, 0.09, 0.07, 0.055, 0.045, 0.035, 0.025, 0.02]) * 1.35
    body = modes(part, panel_hz * ratios, falls_s, [0.5, 0.8, 0.8, 0.8, 0.8, 0.7, 0.6, 0.4])
    skin = noise(part, both(band(500.0, 2600.0), tilt(-2.7)))
    return body + 0.03 * skin * decay(part, 0.016, 0.0005)


def glass(take: Take, *, shards: float) -> FloatArray:
    """A pane that breaks: the blow, the burst, and shards that ring as they land and bounce."""
    total = take.silence()
    for time_s in beats(take, 1.9, 0.2):
        burst = take.part(0.5)
        crash = noise(burst, band(620.0, 14000.0, 1.0)) * decay(burst, 0.217, 0.001)
        crash += 0.18 * noise(burst, band(200.0, 1500.0)) * decay(burst, 0.05, 0.001)
        add(total, int(time_s * take.rate_hz), crash, 3.7)
        for _ in range(round(shards)):
            lag_s = take.rng.gamma(2.17, 0.41)
            loudness = 0.28 * np.exp(-0.41 * lag_s) * take.rng.lognormal(0, 0.6)
            add(total, int((time_s + lag_s) * take.rate_hz), _shard(take), loudness)
    return room(take, total, 0.8, 0.32)


def _shard(take: Take) -> FloatArray:
    """One piece: a few high, inharmonic modes that ring briefly."""
    pitch_hz = float(np.exp(take.rng.uniform(np.log(3000.0), np.log(6700.0))))
    ratios = np.array([1.0, *np.sort(take.rng.uniform(1.2, 3.6, 4))])
    falls_s = 0.05 * take.rng.uniform(0.4, 2.0) / np.sqrt(ratios)
    return modes(take.part(0.12), pitch_hz * ratios, falls_s, [1.0, 0.8, 0.6, 0.5, 0.3])


IMPACTS = (
    SoundKind(
        "footsteps",
        (
            "footsteps",
            "someone walking on gravel",
            "a person's steps",
            "walking along a path",
        ),
        footsteps,
        {"steps_per_s": Parameter("1/s", (1.9, 2.4), (0.3, 6.0), "steps a second")},
    ),
    SoundKind(
        "knock",
        ("knocking on a door", "someone knocks", "a few raps on wood", "a knock at the door"),
        knock,
        {"knocks_per_s": Parameter("1/s", (3.4, 4.6), (0.5, 12.0), "pace of the knocks")},
    ),
    SoundKind(
        "glass",
        ("glass breaking", "a window shattering", "smashing glass", "a bottle breaks into pieces"),
        glass,
        {"shards": Parameter("1", (60.0, 100.0), (1.0, 400.0), "pieces that ring, rounded")},
    ),
)

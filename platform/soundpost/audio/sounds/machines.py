"""Machines: fan, pump, motor, bearing, leak, engine, traffic."""

from __future__ import annotations

import numpy as np

from soundpost.audio.sounds.kind import FloatArray, Parameter, SoundKind, Take
from soundpost.audio.sounds.synthesis import (
    add,
    band,
    beats,
    both,
    convolved,
    curve,
    decay,
    harmonics,
    impulses,
    modes,
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

_LINE_HZ = 50.0


def fan(take: Take, *, speed_hz: float, blades: float) -> FloatArray:
    """Air noise that each blade modulates, the tones of the blade passing, and a motor's hum."""
    turn = phase(take, speed_hz * (1.0 + 0.002 * wander(take, 0.5)).astype(np.float64))
    passing = harmonics(take, turn * round(blades), [1.0, 0.6, 0.35, 0.2, 0.12, 0.07])
    duct = resonances([(400.0, 280.0, 7.0)], 1.0)
    air = noise(take, both(band(185.0, 2000.0, 1.0), tilt(-1.0), duct))
    wash = air * (1.0 + 0.36 * passing + 0.03 * sine(turn))
    hum = harmonics(take, phase(take, 2 * _LINE_HZ), [k**-0.3 for k in range(1, 20)])
    whine = harmonics(take, turn * 24, [1.0, 0.5, 0.3, 0.15])
    return room(take, wash + 0.22 * passing + 0.28 * hum + 0.06 * whine, 0.4, 0.7)


def pump(take: Take, *, stroke_hz: float) -> FloatArray:
    """A water pump: a rush that each stroke swells, gurgling, a soft thump and its motor's hum."""
    pace = phase(take, stroke_hz * (1.0 + 0.01 * wander(take, 0.7)).astype(np.float64))
    push = np.maximum(sine(pace), 0.0)
    hum = harmonics(take, phase(take, 1.95 * _LINE_HZ), [k**-0.5 for k in range(1, 12)])
    pipe = resonances([(400.0, 280.0, 5.3)], 1.0)
    rush = noise(take, both(band(480.0, 2200.0, 1.0), tilt(0.5), pipe)) * (0.96 + 0.14 * push)
    bubbles = [_gurgle(take) for _ in range(16)]
    gurgling = unit(sprinkle(take, bubbles, 45.0)) * push
    grain = take.part(0.2)
    thump = modes(grain, [48, 91, 158, 302], [0.2, 0.15, 0.1, 0.06], [1.0, 0.8, 0.6, 0.4])
    times = beats(take, 1 / stroke_hz, 0.01)
    thumps = convolved(impulses(take, times, np.ones(len(times))), thump)
    whine = harmonics(take, phase(take, 1395.0 * (1.0 - 0.01 * push)), [1.0, 0.5, 0.25, 0.12])
    total = (
        0.031 * whine
        + 0.065 * hum * (1.0 + 0.04 * push)
        + 0.115 * rush
        + 0.093 * gurgling
        + 0.05 * thumps
    )
    return room(take, total, 0.4, 0.22)


def _gurgle(take: Take) -> FloatArray:
    """One bubble in the pipe, rising in pitch."""
    pitch_hz = float(np.exp(take.rng.uniform(np.log(460.0), np.log(1230.0))))
    part = take.part(30.0 / pitch_hz)
    rising = pitch_hz * curve(part, [(0.0, 1.0), (1.0, 1.3)])
    return sine(phase(part, rising)) * decay(part, part.duration_s, 0.002)


def motor(take: Take, *, speed_hz: float, load: float) -> FloatArray:
    """An induction motor: shaft harmonics, magnetic hum beating with slip, slot tones, cooling air.

    Load raises the slip (0.5 to 5 % of the line), the slot tones, the hum and its roughness.
    """
    wobble = 0.0015 * (1.0 + load) * wander(take, 1.0)
    shaft = phase(take, speed_hz * (1.0 + wobble).astype(np.float64))
    turning = harmonics(take, shaft, [0.8**k for k in range(12)])
    slip_hz = _LINE_HZ * (0.005 + 0.045 * load)
    beat = 1.0 + (0.05 + 0.3 * load) * sine(phase(take, 2 * slip_hz))
    hum = harmonics(take, phase(take, 2 * _LINE_HZ), [k**-0.2 for k in range(1, 12)]) * beat
    slots = harmonics(take, shaft * 30, [0.5**k for k in range(6)]) * (1.0 + 0.1 * load * turning)
    air = noise(take, both(band(170.0, 5500.0, 1.0), tilt(-1.0)))
    electric = (0.07 + 0.05 * load) * hum + (0.2 + 0.2 * load) * slots
    return room(take, 0.06 * turning + electric + 0.145 * air, 0.4, 0.42)


def bearing(take: Take, *, speed_hz: float, severity: float) -> FloatArray:
    """A worn bearing: the outer race's knocks ring the housing, loudest in the load zone."""
    times = beats(take, 1 / (3.58 * speed_hz), 0.004)
    zone = 1.0 + 0.25 * np.cos(2 * np.pi * speed_hz * times)
    gains = zone * take.rng.lognormal(0, 0.12, len(times))
    grain = take.part(0.05)
    falls_s = np.array([0.019, 0.014, 0.01, 0.0063])
    ring = modes(grain, [2450, 4500, 6600, 9400], falls_s, [1.0, 0.9, 0.6, 0.3])
    ring += noise(grain, band(1200.0, 9800.0)) * decay(grain, 0.0063, 0.0002)
    knocks = unit(convolved(impulses(take, times, gains), ring))
    running = harmonics(take, phase(take, float(speed_hz)), [1, 0.6, 0.4, 0.3, 0.2, 0.15, 0.1, 0.1])
    air = noise(take, both(band(100.0, 4000.0, 1.0), tilt(-3.3)))
    return room(take, 0.06 * running + 0.6 * air + (0.3 + severity) * knocks, 0.35, 0.4)


def hiss(take: Take, *, pressure: float) -> FloatArray:
    """Gas from a small hole: high noise that barely flutters, with a faint whistle."""
    jet = noise(take, both(band(1200.0 + 2500.0 * pressure, 14000.0, 1.5), tilt(1.0)))
    flutter = 1.0 + 0.06 * wander(take, 12.0) + 0.05 * wander(take, 2.0)
    whistle_hz = 3200.0 + 3000.0 * pressure
    whistle = noise(take, resonances([(whistle_hz, 500.0, 1.0), (1.6 * whistle_hz, 900.0, 0.6)]))
    return room(take, (jet + 0.15 * whistle) * flutter, 0.25, 0.15)


def engine(take: Take, *, speed_hz: float) -> FloatArray:
    """A four-cylinder engine: two uneven firings a turn through an exhaust, and intake air."""
    drift = 0.2 * np.tanh(wander(take, 0.4)) + 0.015 * wander(take, 3.0)
    pace = phase(take, speed_hz * (1.0 + drift).astype(np.float64))
    firing = np.flatnonzero(np.diff(np.floor(pace * 2))) / take.rate_hz
    uneven = np.resize(1.0 + 0.2 * take.rng.standard_normal(4), len(firing))
    gains = np.maximum(uneven + 0.15 * take.rng.standard_normal(len(firing)), 0.1)
    times = np.maximum(firing + 0.0012 * take.rng.standard_normal(len(firing)), 0.0)
    shots = impulses(take, times, gains)
    exhaust = unit(convolved(shots, _exhaust_pipe(take)))
    burst = convolved(shots, decay(take.part(0.06), 0.06, 0.002))
    burning = unit(noise(take, both(band(80.0, 1000.0, 1.0), tilt(-3.0))) * burst)
    intake = noise(take, both(band(60.0, 1500.0, 1.0), tilt(-3.0)))
    return room(take, 1.5 * exhaust + 0.4 * burning + 0.3 * intake, 0.4, 0.9)


def _exhaust_pipe(take: Take) -> FloatArray:
    """How the exhaust rings after one firing."""
    frequencies_hz = np.array([46.0, 88.0, 135.0, 190.0, 265.0, 410.0, 640.0])
    falls_s = [0.1, 0.08, 0.07, 0.06, 0.04, 0.03, 0.03]
    return modes(take.part(0.14), frequencies_hz, falls_s, [0.6, 0.8, 0.8, 0.8, 0.8, 0.6, 0.4])


def traffic(take: Take, *, cars_per_min: float) -> FloatArray:
    """A road: cars that come and go, tyres and engine, over the rumble of those far away."""
    far = noise(take, both(band(40.0, 1900.0, 1.0), tilt(-7.0)))
    total = 0.16 * far * (1.0 + 0.15 * wander(take, 0.3))
    for time_s in beats(take, 60.0 / cars_per_min, 0.35):
        _pass_by(take, total, time_s)
    return room(take, total, 1.0, 0.3)


def _pass_by(take: Take, total: FloatArray, start_s: float) -> None:
    """One car: it falls in pitch as it passes, and its highs are heard only near by."""
    width_s = 0.45 * take.rng.uniform(0.7, 1.4)
    part = take.part(7 * width_s)
    offset = (part.times_s() - 3.5 * width_s) / width_s
    near = (1.0 / (1.0 + offset**2)).astype(np.float32)
    edge = np.minimum(1.0, (3.5 - np.abs(offset)) / 0.8).astype(np.float32)
    road = resonances([(900.0, 900.0, 1.45)], 0.7)
    tyres = noise(part, both(band(60.0, 1600.0, 1.0), road, tilt(-4.5)))
    highs = noise(part, both(band(2000.0, 6000.0, 1.0), tilt(-3.0)))
    falling_hz = take.rng.uniform(80, 125) * (1.0 - 0.03 * np.tanh(offset))
    drone = harmonics(part, phase(part, falling_hz), [0.5**k for k in range(16)])
    car = near * (tyres + 1.6 * drone) + 0.04 * near**2 * highs
    start = int((start_s - 0.6 * width_s) * take.rate_hz)
    add(total, start, car * edge, take.rng.uniform(0.6, 1.4))


_SPEED = ((0.5, 200.0), "turns of the shaft a second")

MACHINES = (
    SoundKind(
        "fan",
        (
            "a fan blowing air",
            "the whirr of a ventilator",
            "an electric fan running",
            "air conditioning unit humming",
        ),
        fan,
        {
            "speed_hz": Parameter("Hz", (28.0, 42.0), *_SPEED),
            "blades": Parameter("1", (6.6, 9.4), (2.0, 24.0), "number of blades, rounded"),
        },
    ),
    SoundKind(
        "pump",
        (
            "a water pump working",
            "a pump with steady strokes",
            "pumping machinery",
            "water being pumped through a pipe",
        ),
        pump,
        {"stroke_hz": Parameter("Hz", (2.0, 3.6), (0.2, 20.0), "strokes a second")},
    ),
    SoundKind(
        "motor",
        (
            "an electric motor running",
            "the hum and whine of a motor",
            "a humming electric machine",
            "an induction motor under load",
        ),
        motor,
        {
            "speed_hz": Parameter("Hz", (24.0, 45.0), *_SPEED),
            "load": Parameter("1", (0.1, 0.9), (0.0, 1.0), "share of the rated load"),
        },
    ),
    SoundKind(
        "bearing",
        (
            "a worn bearing knocking",
            "rattling machine with a damaged bearing",
            "metallic clatter from a rotating machine",
            "a faulty ball bearing",
        ),
        bearing,
        {
            "speed_hz": Parameter("Hz", (2.4, 4.5), *_SPEED),
            "severity": Parameter("1", (0.4, 1.0), (0.0, 1.0), "how far the damage has gone"),
        },
    ),
    SoundKind(
        "hiss",
        (
            "gas hissing from a leak",
            "air escaping under pressure",
            "a steady hiss",
            "steam leaking from a pipe",
        ),
        hiss,
        {"pressure": Parameter("1", (0.2, 0.9), (0.0, 1.0), "raises the pitch of the jet")},
    ),
    SoundKind(
        "engine",
        (
            "an engine running",
            "a car engine idling",
            "the rumble of a combustion engine",
            "a motor vehicle's engine",
        ),
        engine,
        {
            "speed_hz": Parameter(
                "Hz", (22.0, 34.0), (5.0, 120.0), "turns of the crankshaft a second"
            )
        },
    ),
    SoundKind(
        "traffic",
        (
            "cars passing on a road",
            "traffic noise",
            "a busy street with vehicles",
            "vehicles driving by",
        ),
        traffic,
        {"cars_per_min": Parameter("1/min", (35.0, 60.0), (1.0, 120.0), "cars that pass")},
    ),
)

"""Signals: alarm, siren, bell, clock."""

from __future__ import annotations

import numpy as np

from soundpost.audio.sounds.kind import FloatArray, Parameter, SoundKind, Take
from soundpost.audio.sounds.synthesis import (
    add,
    band,
    beats,
    both,
    decay,
    filtered,
    harmonics,
    modes,
    noise,
    phase,
    resonances,
    room,
    tilt,
    wander,
)


def alarm(take: Take, *, pitch_hz: float, beeps_per_s: float) -> FloatArray:
    """A piezo sounder: groups of three beeps and a rest, as a smoke detector gives them."""
    tone = harmonics(take, phase(take, float(pitch_hz)), [1.0, 0.1, 0.35, 0.05, 0.12])
    beep = np.floor(take.times_s() * beeps_per_s).astype(np.int64)
    within = take.times_s() * beeps_per_s - beep
    gate = ((within < 0.55) & (beep % 4 < 3)).astype(np.float32)
    width = max(int(0.004 * take.rate_hz), 1)
    smooth = np.convolve(gate, np.ones(width, np.float32) / width)[: take.samples]
    return room(take, tone * smooth.astype(np.float32), 0.5, 0.35)


def siren(take: Take, *, sweeps_per_s: float) -> FloatArray:
    """An emergency siren: a rich tone that rises fast and falls slowly, across a street."""
    sweep = (phase(take, float(sweeps_per_s)) % 1.0).astype(np.float64)
    rising = np.where(sweep < 0.4, sweep / 0.4, (1.0 - sweep) / 0.6)
    pitch_hz = 560.0 * 2.6 ** (0.5 - 0.5 * np.cos(np.pi * rising))
    horn = harmonics(
        take, phase(take, pitch_hz), [1.0, 0.7, 0.55, 0.35, 0.28, 0.2, 0.14, 0.1, 0.07]
    )
    horn = filtered(
        horn, take.rate_hz, resonances([(1100.0, 900.0, 1.0), (2600.0, 1500.0, 0.6)], 0.15)
    )
    street = noise(take, band(40.0, 900.0, 1.0))
    return room(take, horn * (1.0 + 0.15 * wander(take, 1.0)) + 0.02 * street, 1.4, 0.5)


# Partials of a minor-third church bell over its strike note, with how long each rings.
_PARTIALS = (0.5, 1.0, 1.19, 1.5, 2.0, 2.52, 2.66, 3.01, 4.02, 5.2, 6.5)
_RINGS_S = (18.0, 10.0, 10.0, 7.0, 7.0, 3.6, 3.2, 3.0, 2.0, 1.4, 1.0)
_GAINS = (0.3, 0.7, 0.95, 0.6, 2.5, 1.2, 1.1, 2.1, 2.2, 1.8, 1.4)


def bell(take: Take, *, pitch_hz: float, strikes_per_s: float) -> FloatArray:
    """A church bell: strikes of one set of slightly split partials and the clapper's knock."""
    total = take.silence()
    pitches_hz = np.multiply(_PARTIALS, pitch_hz)
    split = 1.0 + take.rng.uniform(0.0005, 0.002, len(_PARTIALS))
    part = take.part(min(9.0, take.duration_s))
    ring = modes(part, pitches_hz, _RINGS_S, _GAINS)
    ring += 0.6 * modes(part, pitches_hz * split, _RINGS_S, _GAINS)
    knock = take.part(0.3)
    for time_s in beats(take, 1 / strikes_per_s, 0.05):
        place, force = int(time_s * take.rate_hz), take.rng.uniform(0.8, 1.0)
        add(total, place, ring, force)
        clap = noise(knock, band(1000.0, 6000.0)) * decay(knock, 0.15, 0.0005)
        add(total, place, clap, 1.7 * force)
    air = noise(take, both(band(60.0, 3000.0, 1.0), tilt(-3.0)))
    return room(take, total + 0.012 * air, 2.8, 0.7)


def clock(take: Take, *, ticks_per_s: float) -> FloatArray:
    """A wall clock: tick and tock, each a few small clicks of the escapement in a wooden case."""
    total = take.silence()
    part = take.part(0.08)
    for index, time_s in enumerate(beats(take, 1 / ticks_per_s, 0.004)):
        pitch = 1.0 if index % 2 else 0.82
        for lag_s, gain in ((0.0, 0.5), (0.008, 1.0), (0.021, 0.4), (0.03, 0.2)):
            ring = modes(
                part,
                np.array([420, 900, 1500, 2600, 4300]) * pitch,
                [0.05, 0.04, 0.03, 0.02, 0.015],
                [0.4, 0.5, 0.6, 0.6, 0.5],
            )
            ring += 1.2 * noise(part, band(900.0, 4500.0, 1.0)) * decay(part, 0.02, 0.0003)
            add(
                total,
                int((time_s + lag_s) * take.rate_hz),
                ring,
                gain * take.rng.uniform(0.85, 1.15),
            )
    room_noise = noise(take, both(band(60.0, 4000.0, 1.0), tilt(-3.0)))
    return room(take, total + 0.01 * room_noise, 0.35, 0.3)


SIGNALS = (
    SoundKind(
        "alarm",
        (
            "an alarm beeping",
            "a smoke detector going off",
            "electronic warning beeps",
            "a fire alarm",
        ),
        alarm,
        {
            "pitch_hz": Parameter("Hz", (2800.0, 3400.0), (300.0, 8000.0), "tone of the sounder"),
            "beeps_per_s": Parameter("1/s", (1.6, 2.6), (0.2, 10.0), "pace of the beeps"),
        },
    ),
    SoundKind(
        "siren",
        (
            "an emergency siren wailing",
            "an ambulance siren",
            "a police car with its siren on",
            "fire engine siren",
        ),
        siren,
        {"sweeps_per_s": Parameter("1/s", (0.2, 0.5), (0.05, 6.0), "rises and falls a second")},
    ),
    SoundKind(
        "bell",
        (
            "a church bell ringing",
            "bells tolling",
            "a large bell being struck",
            "the toll of a bell tower",
        ),
        bell,
        {
            "pitch_hz": Parameter("Hz", (420.0, 660.0), (80.0, 3000.0), "strike note"),
            "strikes_per_s": Parameter("1/s", (0.45, 0.85), (0.05, 5.0), "strikes a second"),
        },
    ),
    SoundKind(
        "clock",
        (
            "a clock ticking",
            "tick tock of a wall clock",
            "the ticking of an old timepiece",
            "steady mechanical ticks",
        ),
        clock,
        {"ticks_per_s": Parameter("1/s", (1.0, 3.0), (0.2, 12.0), "ticks a second")},
    ),
)

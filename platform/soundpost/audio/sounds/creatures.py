"""Creatures: bird, dog, cricket, people talking."""

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
    filtered,
    harmonics,
    moving_filter,
    noise,
    phase,
    resonances,
    room,
    sine,
    tilt,
    unit,
    wander,
)


def bird(take: Take, *, pitch_hz: float) -> FloatArray:
    """Song: phrases of sweeps, trills and whistles, each phrase repeating its notes."""
    total = take.silence()
    time_s = 0.0
    while time_s < take.duration_s:
        time_s = _phrase(take, total, time_s, pitch_hz) + take.rng.uniform(0.25, 0.9)
    leaves = noise(take, band(500.0, 6000.0, 1.0))
    return room(take, total + 0.004 * leaves, 0.8, 0.3)


def _phrase(take: Take, total: FloatArray, time_s: float, pitch_hz: float) -> float:
    """Repeat one note a few times from time_s on; return when the phrase ends."""
    centre_hz = pitch_hz * float(take.rng.uniform(0.75, 1.35))
    span = take.rng.uniform(-0.35, 0.35)
    length_s = take.rng.uniform(0.05, 0.18)
    trill = take.rng.uniform(0.0, 0.06) if take.rng.uniform() < 0.5 else 0.0
    for _ in range(int(take.rng.integers(2, 8))):
        note = take.part(length_s)
        course = curve(note, [(0, 1 - span), (0.5, 1 + 0.4 * span), (1, 1 + span)])
        course = course * (1 + trill * sine(phase(note, 38.0)))
        tone = harmonics(note, phase(note, centre_hz * course), [1.0, 0.12, 0.04])
        shape = curve(note, [(0, 0.02), (0.15, 1), (0.7, 0.8), (1, 0)])
        add(total, int(time_s * take.rate_hz), tone * shape, take.rng.uniform(0.7, 1.0))
        time_s += length_s * take.rng.uniform(1.2, 1.5)
    return time_s


def dog(take: Take, *, pitch_hz: float) -> FloatArray:
    """Barks: a rough harmonic burst whose pitch jumps up and falls, through an open mouth."""
    total = take.silence()
    time_s = 0.0
    while time_s < take.duration_s:
        for _ in range(int(take.rng.integers(1, 4))):
            add(
                total,
                int(time_s * take.rate_hz),
                _bark(take, pitch_hz),
                take.rng.uniform(0.75, 1.0),
            )
            time_s += take.rng.uniform(0.36, 0.56)
        time_s += take.rng.uniform(0.18, 0.6)
    air = noise(take, both(band(60.0, 3000.0, 1.0), tilt(-3.0)))
    return room(take, total + 0.001 * air, 0.7, 0.2)


def _bark(take: Take, pitch_hz: float) -> FloatArray:
    part = take.part(0.13 * take.rng.uniform(0.85, 1.15))
    peak = float(take.rng.uniform(0.92, 1.1)) * pitch_hz
    course = peak * curve(part, [(0, 0.41), (0.18, 1.0), (0.45, 0.92), (1, 0.37)])
    course = course * (1 + 0.03 * wander(part, 60.0))
    voice = harmonics(part, phase(part, course), [k**-1.13 for k in range(1, 26)])
    rough = voice * (1 + 0.35 * wander(part, 120.0)) + 0.18 * noise(part, band(400.0, 5000.0, 1.0))
    # A dog with a lower voice is a larger one, with a longer muzzle.
    size = (pitch_hz / 730.0) ** 0.4 * take.rng.uniform(0.95, 1.05)
    formants = [(1000, 390, 1.0), (1900, 500, 1.42), (2950, 780, 0.43), (4720, 1000, 0.21)]
    mouth = resonances([(hz * size, width_hz, gain) for hz, width_hz, gain in formants], 0.02)
    shape = curve(part, [(0, 0.01), (0.08, 0.7), (0.22, 1.0), (0.5, 0.36), (0.8, 0.09), (1, 0)])
    return unit(filtered(rough, take.rate_hz, mouth)) * shape


def cricket(take: Take, *, pitch_hz: float, chirps_per_s: float) -> FloatArray:
    """Crickets: chirps of a few wing strokes on one clear note, and others far away."""
    total = take.silence()
    for loudness in (1.0, 0.06, 0.03):
        near = loudness == 1.0
        note_hz = pitch_hz * (1.0 if near else float(take.rng.uniform(0.97, 1.03)))
        pace = chirps_per_s * (1.0 if near else float(take.rng.uniform(0.8, 1.2)))
        flutter = note_hz * (1.0 + 0.018 * wander(take, 20.0)).astype(np.float64)
        note = harmonics(take, phase(take, flutter), [1.0, 0.2])
        total += np.float32(loudness) * note * _wing_strokes(take, pace)
    night = noise(take, both(band(300.0, 9000.0, 1.0), tilt(-2.0)))
    return room(take, total + 0.003 * night, 0.5, 0.45)


def _wing_strokes(take: Take, chirps_per_s: float) -> FloatArray:
    """Loudness [N] of one cricket: groups of five or six strokes, 28 ms apart."""
    gate = take.silence()
    strokes = int(take.rng.integers(5, 7))
    pulse = take.part(0.007)
    shape = np.sin(np.pi * (np.arange(pulse.samples) + 0.5) / pulse.samples).astype(np.float32)
    for time_s in beats(take, 1 / chirps_per_s, 0.03):
        for stroke in range(strokes):
            place = int((time_s + 0.028 * stroke) * take.rate_hz)
            add(gate, place, shape, 0.85 + 0.15 * stroke / strokes)
    return gate


# First three formants of vowels, in Hz, of an adult's voice between man and woman.
_VOWELS = (
    (730, 1300, 2550),
    (300, 2300, 3000),
    (320, 850, 2350),
    (550, 1850, 2550),
    (580, 900, 2450),
    (480, 1400, 2450),
    (650, 1750, 2500),
)


def babble(take: Take, *, talkers: float) -> FloatArray:
    """People talking: each a glottal pulse through moving vowels, syllables, breath and pauses."""
    total = take.silence()
    for index in range(round(talkers)):
        nearness = 1.0 if index == 0 else float(take.rng.uniform(0.15, 0.6))
        total += np.float32(nearness) * unit(_talker(take))
    return room(take, total, 0.5, 0.3)


def _talker(take: Take) -> FloatArray:
    """One voice: sentences of syllables at four to five a second."""
    pitch_hz = float(take.rng.choice([take.rng.uniform(95, 135), take.rng.uniform(175, 235)]))
    size = 0.93 if pitch_hz < 150 else 1.08
    syllables = _syllables(take)
    melody = 0.25 * wander(take, 1.1) + 0.12 * wander(take, 5.0) + 0.012 * wander(take, 70.0)
    melody = pitch_hz * 2.0 ** (melody - 0.2)
    pulses = harmonics(
        take, phase(take, melody.astype(np.float64)), [k**-1.1 for k in range(1, 60)]
    )
    voiced = take.silence()
    hissed = take.silence()
    for start_s, length_s, _ in syllables:
        part = take.part(length_s)
        shape = curve(part, [(0, 0), (0.2, 0.5), (0.35, 1), (0.75, 0.8), (1, 0)])
        add(voiced, int(start_s * take.rate_hz), shape, take.rng.uniform(0.6, 1.0))
        _consonant(take, hissed, start_s)
    starts = np.array([s for s, _, _ in syllables])
    vowels = np.array([v for _, _, v in syllables], dtype=np.float64)

    def response_at(time_s: float) -> Response:
        formants = [np.interp(time_s, starts + 0.09, vowels[:, k]) * size for k in range(3)]
        widths, gains = (90, 120, 180), (1.0, 0.7, 0.35)
        peaks = [(f, w, g) for f, w, g in zip(formants, widths, gains, strict=True)]
        return resonances([*peaks, (3500 * size, 300, 0.15), (4500 * size, 400, 0.08)], 0.01)

    breath = 0.05 * noise(take, band(1000.0, 6000.0, 1.0))
    return moving_filter((pulses + breath) * voiced, take.rate_hz, response_at) + hissed


def _syllables(take: Take) -> list[tuple[float, float, tuple[int, int, int]]]:
    """Start, length and vowel of the syllables; a pause after every few."""
    found: list[tuple[float, float, tuple[int, int, int]]] = []
    time_s, left = 0.0, int(take.rng.integers(4, 12))
    while time_s < take.duration_s or len(found) < 2:
        length_s = float(take.rng.uniform(0.13, 0.26))
        vowel = _VOWELS[int(take.rng.integers(len(_VOWELS)))]
        found.append((time_s, length_s, vowel))
        left -= 1
        time_s += length_s * 0.95
        if left == 0:
            time_s += float(take.rng.uniform(0.2, 0.6))
            left = int(take.rng.integers(4, 12))
    return found


def _consonant(take: Take, hissed: FloatArray, start_s: float) -> None:
    """A short noise before a vowel: s, sh, f or a stop, or nothing."""
    low_hz, high_hz, length_s, gain = (
        (4000.0, 8500.0, 0.09, 0.035),
        (2000.0, 6000.0, 0.09, 0.035),
        (1500.0, 8000.0, 0.07, 0.015),
        (1000.0, 5000.0, 0.02, 0.06),
        (1000.0, 5000.0, 0.02, 0.0),
        (1000.0, 5000.0, 0.02, 0.0),
    )[int(take.rng.integers(6))]
    part = take.part(length_s)
    sound = noise(part, band(low_hz, high_hz)) * curve(part, [(0, 0), (0.4, 1), (1, 0)])
    add(hissed, max(int((start_s - 0.7 * length_s) * take.rate_hz), 0), sound, gain)


CREATURES = (
    SoundKind(
        "bird",
        ("birds singing", "a bird chirping", "birdsong in the morning", "tweeting and warbling"),
        bird,
        {"pitch_hz": Parameter("Hz", (3200.0, 4800.0), (800.0, 9000.0), "middle of the song")},
    ),
    SoundKind(
        "dog",
        ("a dog barking", "barking", "a hound that barks", "the woof of a dog"),
        dog,
        {"pitch_hz": Parameter("Hz", (640.0, 820.0), (120.0, 2000.0), "highest pitch of a bark")},
    ),
    SoundKind(
        "cricket",
        ("crickets chirping", "insects at night", "a cricket in the grass", "the chirr of insects"),
        cricket,
        {
            "pitch_hz": Parameter("Hz", (4400.0, 5000.0), (2000.0, 9000.0), "note of the wings"),
            "chirps_per_s": Parameter("1/s", (2.0, 3.0), (0.2, 10.0), "chirps a second"),
        },
    ),
    SoundKind(
        "babble",
        ("people talking", "a crowd chatting", "conversation in a room", "voices speaking at once"),
        babble,
        {"talkers": Parameter("1", (1.0, 3.4), (1.0, 12.0), "number of voices, rounded")},
    ),
)

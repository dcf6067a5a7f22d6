"""Scenes of two or three labelled clips, whose truth is known: what is in them, when, how loud.

A plan says which sounds and how they lie; a scene is a plan played with certain clips. Everything
comes from explicit seeds, so a scene is never stored: `render` makes its wave again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from soundpost.explain.sound_words import CONFUSABLE
from soundpost.training.data import SAMPLE_RATE_HZ, Clip

FloatArray = NDArray[np.float32]

SHORTEST_SCENE_S, LONGEST_SCENE_S = 6.0, 15.0
# By so much a sound in the background, or a quiet one, lies below the others.
QUIETER_DB = (10.0, 16.0)
# Sounds as loud as each other differ by at most this; in between nothing is said of loudness.
ALIKE_DB = 2.0

# Two datasets' names for one sound.
SAME_NAME = {"dog_bark": "dog", "engine_idling": "engine"}


class Layout(StrEnum):
    """How the sounds of a scene lie to each other."""

    SINGLE = "single"
    SEQUENCE = "sequence"
    TOGETHER = "together"
    OVER = "over"
    SEQUENCE_OVER = "sequence over"


@dataclass(frozen=True)
class Plan:
    """Which sounds, in order, and how they lie.

    OVER: the first before the second, which is quieter and goes on throughout. SEQUENCE_OVER: the
    last goes on throughout below the others. `quiet` is the place of a quiet sound in a sequence.
    """

    layout: Layout
    sounds: tuple[str, ...]
    quiet: int | None = None


@dataclass(frozen=True)
class Event:
    """One sound of a scene: which clip plays from when to when, and how loud.

    level_db: relative to the scene's usual level. offset_s: where in the clip's own sound it begins.
    """

    sound: str
    clip: int
    start_s: float
    end_s: float
    level_db: float
    offset_s: float = 0.0

    @property
    def duration_s(self) -> float:
        """How long it plays."""
        return self.end_s - self.start_s


@dataclass(frozen=True)
class Scene:
    """A plan played with certain clips; `level_dbfs` and `noise_db` are those of the recording."""

    plan: Plan
    events: tuple[Event, ...]
    duration_s: float
    level_dbfs: float
    noise_db: float
    seed: int


@dataclass(frozen=True)
class ActiveClip:
    """A clip without the silence at both ends: wave [N] at unit loudness."""

    wave: FloatArray

    @property
    def seconds(self) -> float:
        """How long the sound is."""
        return len(self.wave) / SAMPLE_RATE_HZ


def sound_of(clip: Clip) -> str:
    """Return the name of a clip's sound, one for both datasets."""
    return SAME_NAME.get(clip.label, clip.label)


def active(wave: NDArray[np.int16]) -> ActiveClip:
    """Cut the silence at both ends of a wave [N] and bring it to unit loudness.

    Loudness is the RMS of the louder tenths of a second, so that one click counts as loud.
    """
    samples = np.asarray(wave, np.float32) * np.float32(2.0**-15)
    block = SAMPLE_RATE_HZ // 20
    whole = samples[: max(1, len(samples) // block) * block]
    rms = np.sqrt(np.square(whole.reshape(-1, min(block, len(whole)))).mean(axis=1))
    heard = np.flatnonzero(rms >= max(float(rms.max()) * 0.02, 1e-5))
    if len(heard):
        samples = samples[heard[0] * block : (heard[-1] + 1) * block]
        rms = rms[heard[0] : heard[-1] + 1]
    loudness = float(np.quantile(rms, 0.9)) + 1e-5
    return ActiveClip(samples / np.float32(loudness))


class Pool:
    """The clips that scenes are made of, by sound."""

    def __init__(self, clips: Mapping[int, ActiveClip], sounds: Mapping[int, str]) -> None:
        self.clips = clips
        self.members: dict[str, list[int]] = {}
        for number in sorted(clips):
            self.members.setdefault(sounds[number], []).append(number)
        self.sounds = sorted(self.members)

    def draw(self, sound: str, rng: np.random.Generator) -> int:
        """Draw a clip of a sound."""
        return int(rng.choice(self.members[sound]))


def draw_plan(pool: Pool, rng: np.random.Generator, layout: Layout | None = None) -> Plan:
    """Draw a plan: every sound equally often, sequences in more than half of the plans."""
    layout = layout or Layout(
        rng.choice(["sequence", "together", "over", "sequence over"], p=[0.5, 0.1, 0.25, 0.15])
    )
    if layout is Layout.SINGLE:
        return Plan(layout, (str(rng.choice(pool.sounds)),))
    three = layout is Layout.SEQUENCE_OVER or (layout is Layout.SEQUENCE and rng.random() < 0.45)
    sounds = _distinct(pool.sounds, 3 if three else 2, rng)
    if layout is not Layout.SEQUENCE:
        return Plan(layout, sounds)
    if three and rng.random() < 0.25:
        sounds = (sounds[0], sounds[1], sounds[0])
    quiet = int(rng.integers(2)) if len(sounds) == 2 and rng.random() < 0.25 else None
    return Plan(layout, sounds, quiet)


def confusable(first: str, second: str) -> bool:
    """Say whether two sounds are too alike to stand beside each other in a scene."""
    return first == second or any(first in group and second in group for group in CONFUSABLE)


def _distinct(sounds: Sequence[str], count: int, rng: np.random.Generator) -> tuple[str, ...]:
    chosen: list[str] = []
    while len(chosen) < count:
        sound = str(rng.choice(sounds))
        if not any(confusable(sound, other) for other in chosen):
            chosen.append(sound)
    return tuple(chosen)


def distractors(plan: Plan, pool: Pool, rng: np.random.Generator) -> list[Plan]:
    """Return plans that a query for `plan` must not be content with.

    The same sounds in another order or with their loudness exchanged, with one of them replaced,
    and lying to each other in another way.
    """
    if plan.layout is Layout.SINGLE:
        return []
    return [_exchanged(plan), _replaced(plan, pool, rng), _laid_otherwise(plan)]


def _exchanged(plan: Plan) -> Plan:
    first, second, *rest = plan.sounds
    if plan.layout is Layout.TOGETHER:
        return Plan(Layout.SEQUENCE, plan.sounds)
    if plan.layout is Layout.SEQUENCE and rest and rest[0] == first:
        return replace(plan, sounds=(second, first, second))
    if plan.layout is Layout.SEQUENCE:
        quiet = None if plan.quiet is None else 1 - plan.quiet
        return replace(plan, sounds=plan.sounds[::-1], quiet=quiet)
    return replace(plan, sounds=(second, first, *rest))


def _replaced(plan: Plan, pool: Pool, rng: np.random.Generator) -> Plan:
    old = str(rng.choice(list(plan.sounds)))
    others = [sound for sound in plan.sounds if sound != old]
    allowed = [
        sound
        for sound in pool.sounds
        if not any(confusable(sound, other) for other in (*others, old))
    ]
    new = str(rng.choice(allowed))
    return replace(plan, sounds=tuple(new if sound == old else sound for sound in plan.sounds))


def _laid_otherwise(plan: Plan) -> Plan:
    first, second = plan.sounds[:2]
    match plan.layout:
        case Layout.SEQUENCE if plan.quiet is not None:
            return replace(plan, quiet=1 - plan.quiet)
        case Layout.SEQUENCE:
            return Plan(Layout.TOGETHER, (first, second))
        case Layout.SEQUENCE_OVER:
            return Plan(Layout.SEQUENCE, (plan.sounds[2], second, first))
        case _:
            return Plan(Layout.SEQUENCE, (second, first))


def play(plan: Plan, pool: Pool, rng: np.random.Generator) -> Scene:
    """Choose clips, times and levels for a plan."""
    clips = [pool.draw(sound, rng) for sound in plan.sounds]
    if plan.layout in (Layout.SEQUENCE, Layout.SINGLE):
        events = _in_turn(plan.sounds, clips, plan.quiet, pool, rng)
    elif plan.layout is Layout.TOGETHER:
        events = _together(plan.sounds, clips, rng)
    else:
        events = _in_turn(plan.sounds[:-1], clips[:-1], None, pool, rng)
    heard_s = max(event.end_s for event in events)
    least_s = 1.0 if plan.layout is Layout.SINGLE else SHORTEST_SCENE_S
    duration_s = min(max(least_s, heard_s + rng.uniform(0.0, 1.0)), LONGEST_SCENE_S)
    early_s = rng.uniform(0.0, duration_s - heard_s) if duration_s > heard_s else 0.0
    events = [_later(event, early_s) for event in events]
    if plan.layout in (Layout.OVER, Layout.SEQUENCE_OVER):
        level_db = -float(rng.uniform(*QUIETER_DB))
        events.append(Event(plan.sounds[-1], clips[-1], 0.0, duration_s, level_db))
    return Scene(
        plan=plan,
        events=tuple(events),
        duration_s=round(duration_s, 2),
        level_dbfs=float(rng.uniform(-34.0, -14.0)),
        noise_db=float(rng.uniform(-50.0, -30.0)),
        seed=int(rng.integers(2**31)),
    )


def _later(event: Event, by_s: float) -> Event:
    return replace(event, start_s=event.start_s + by_s, end_s=event.end_s + by_s)


def _in_turn(
    sounds: Sequence[str],
    clips: Sequence[int],
    quiet: int | None,
    pool: Pool,
    rng: np.random.Generator,
) -> list[Event]:
    at_s, events = 0.0, []
    longest_s = 4.8 if len(sounds) < 3 else 4.2
    for place, (sound, clip) in enumerate(zip(sounds, clips, strict=True)):
        seconds = pool.clips[clip].seconds
        lasts_s = min(seconds, float(rng.uniform(2.5, longest_s)))
        offset_s = float(rng.uniform(0.0, min(seconds - lasts_s, 0.5)))
        level_db = float(rng.uniform(-ALIKE_DB, ALIKE_DB)) / 2.0
        if quiet == place:
            level_db = -float(rng.uniform(*QUIETER_DB))
        events.append(Event(sound, clip, at_s, at_s + lasts_s, level_db, offset_s))
        at_s += lasts_s + float(rng.uniform(0.1, 0.8))
    return events


def _together(sounds: Sequence[str], clips: Sequence[int], rng: np.random.Generator) -> list[Event]:
    lasts_s = float(rng.uniform(5.0, 8.0))
    levels_db = rng.uniform(-ALIKE_DB, ALIKE_DB, len(sounds)) / 2.0
    return [
        Event(sound, clip, 0.0, lasts_s, float(level_db))
        for sound, clip, level_db in zip(sounds, clips, levels_db, strict=True)
    ]


def render(scene: Scene, pool: Pool) -> FloatArray:
    """Return the wave [N] of a scene at 16 kHz: its events over a little noise."""
    rng = np.random.default_rng(scene.seed)
    wave = rng.standard_normal(round(scene.duration_s * SAMPLE_RATE_HZ), dtype=np.float32)
    wave *= np.float32(10.0 ** (scene.noise_db / 20.0))
    for event in scene.events:
        start = round(event.start_s * SAMPLE_RATE_HZ)
        length = min(round(event.duration_s * SAMPLE_RATE_HZ), len(wave) - start)
        part = _faded(_lasting(pool.clips[event.clip].wave, event.offset_s, length))
        wave[start : start + length] += part * np.float32(10.0 ** (event.level_db / 20.0))
    gain = np.float32(10.0 ** (scene.level_dbfs / 20.0))
    return np.asarray(np.clip(wave * gain, -1.0, 1.0), np.float32)


def _lasting(wave: FloatArray, offset_s: float, length: int) -> FloatArray:
    """Return `length` samples of a sound, from its beginning again where it ends."""
    start = round(offset_s * SAMPLE_RATE_HZ)
    if length <= len(wave) - start:
        return wave[start : start + length]
    return np.asarray(np.resize(wave, length), np.float32)


def _faded(wave: FloatArray) -> FloatArray:
    """Fade 10 ms at both ends, so that a cut is no click."""
    ramp = np.linspace(0.0, 1.0, min(SAMPLE_RATE_HZ // 100, len(wave) // 2), dtype=np.float32)
    faded = wave.copy()
    if len(ramp):
        faded[: len(ramp)] *= ramp
        faded[-len(ramp) :] *= ramp[::-1]
    return faded

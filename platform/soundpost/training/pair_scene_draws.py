"""Drawing scenes that can be edited: labelled clips, synthetic machines, one motor.

Every draw is from a generator that the caller gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from soundpost.explain.lexicon import EVENTS as WORDED
from soundpost.explain.lexicon import event_of_kind
from soundpost.training.data import SAMPLE_RATE_HZ
from soundpost.training.pair_edits import first_burst, rms
from soundpost.training.pair_scenes import MADE_KINDS, PairScene, Part, Source, Stage, alike

Rng = np.random.Generator

# How long recordings are: windows of the product are this long, and so are as many of the scenes.
USUAL_S, USUAL_SHARE = 5.0, 0.4
DURATION_S = (5.0, 10.0)
SCENE_DBFS = (-40.0, -18.0)
NOISE_DB = (-50.0, -32.0)
BACKGROUND_DB = (-16.0, -8.0)
FOREGROUND_DB = (-3.0, 3.0)

# Most that a short event is heard.
MOST_COUNT = 4

CONTINUOUS = frozenset(
    {
        "rain", "wind", "sea_waves", "crackling_fire", "crickets", "insects", "engine", "train",
        "helicopter", "airplane", "vacuum_cleaner", "washing_machine", "air_conditioner",
        "chirping_birds", "children_playing", "street_music", "pouring_water", "chainsaw",
    }
)  # fmt: skip
COUNTABLE = (
    "dog", "rooster", "hen", "cat", "crow", "frog", "sheep", "pig", "door_wood_knock", "sneezing",
    "coughing", "glass_breaking", "gun_shot", "car_horn", "can_opening", "mouse_click",
    "door_wood_creaks", "fireworks", "water_drops", "laughing", "speech",
)  # fmt: skip
# Synthetic sounds: machines that run all the time, faults and weather that go on, single events.
MACHINES = ("pump", "fan", "motor", "engine")
FAULTS = ("bearing", "hiss", "tone", "knock", "alarm")
LASTING = ("bearing", "hiss", "tone", "rain", "wind", "stream", "traffic")
EVENTS = (
    "alarm", "bell", "bird", "clock", "dog", "siren", "footsteps", "knock", "glass", "tone",
    "hiss", "thunder", "cricket",
)  # fmt: skip
_TRIES = 8


def draw_scene(stage: Stage, rng: Rng, avoid: Sequence[str] = ()) -> PairScene:
    """Draw a scene of labelled clips, every sound equally often, all of it to be heard."""
    for _ in range(_TRIES):
        scene = _empty(rng)
        count = int(rng.choice([1, 2, 3], p=[0.35, 0.45, 0.2]))
        for number in range(count):
            countable = number == 0 and rng.random() < 0.4
            scene = with_clip(stage, scene, rng, avoid, countable=countable)
        if rng.random() < 0.35:
            scene = _with_background(stage, scene, rng, avoid)
        if scene.parts and stage.heard(scene):
            return scene
    return replace(scene, parts=scene.parts[:1])


def draw_machine_scene(stage: Stage, rng: Rng, avoid: Sequence[str] = ()) -> PairScene:
    """Draw a scene of a synthetic machine that runs all the time, perhaps with another sound.

    Machines are alike: where they are to be avoided, it is something else that goes on.
    """
    for _ in range(_TRIES):
        scene = _empty(rng)
        named = named_kinds(LASTING if avoid else MACHINES)
        what = new_sound(sorted(named), scene, rng, avoid)
        if what is None:
            break
        machine = made_part(named[what], 0.0, scene.duration_s, 0.0, rng, True)
        scene = replace(scene, parts=(machine,))
        if rng.random() < 0.5:
            scene = with_made(stage, scene, rng, avoid) or scene
        if stage.heard(scene):
            return scene
    return draw_scene(stage, rng, avoid)


def draw_motor_scene(stage: Stage, rng: Rng) -> PairScene:
    """Draw a scene of the motor at one of its states."""
    scene = _empty(rng, longest_s=6.0)
    states = sorted(stage.pool.motor)
    row = int(rng.choice(stage.pool.motor[states[int(rng.integers(len(states)))]]))
    scale = 1.0 / max(rms(stage.wave(row)), 1e-6)
    part = Part("motor", Source(clip=row), 0.0, scene.duration_s, 0.0, scale=scale, throughout=True)
    return replace(scene, parts=(part,))


def _empty(rng: Rng, longest_s: float = DURATION_S[1]) -> PairScene:
    usual = rng.random() < USUAL_SHARE
    duration_s = USUAL_S if usual else round(float(rng.uniform(DURATION_S[0], longest_s)), 1)
    return PairScene(
        parts=(),
        duration_s=duration_s,
        level_dbfs=round(float(rng.uniform(*SCENE_DBFS)), 2),
        noise_db=round(float(rng.uniform(*NOISE_DB)), 2),
        noise_seed=int(rng.integers(2**31)),
    )


def new_sound(
    sounds: Sequence[str], scene: PairScene, rng: Rng, avoid: Sequence[str]
) -> str | None:
    present = [part.what for part in scene.parts] + list(avoid)
    free = [sound for sound in sounds if not any(alike(sound, other) for other in present)]
    return str(rng.choice(free)) if free else None


def with_clip(
    stage: Stage, scene: PairScene, rng: Rng, avoid: Sequence[str] = (), *, countable: bool = False
) -> PairScene:
    """Add one event to a scene where it lies beside the others; the scene itself if there is none."""
    members = stage.pool.sounds.members
    names = [name for name in COUNTABLE if name in members] if countable else list(members)
    what = new_sound(names, scene, rng, avoid)
    if what is None:
        return scene
    part = _counted(stage, what, scene, rng) if countable else clip_part(stage, what, scene, rng)
    return replace(scene, parts=(*scene.parts, part)) if part else scene


def clip_part(stage: Stage, what: str, scene: PairScene, rng: Rng) -> Part:
    row = stage.pool.sounds.draw(what, rng)
    seconds = len(stage.wave(row)) / SAMPLE_RATE_HZ
    longest_s = scene.duration_s if what in CONTINUOUS else min(3.5, 0.7 * scene.duration_s)
    lasts_s = round(min(seconds, float(rng.uniform(1.2, longest_s))), 2)
    offset_s = round(float(rng.uniform(0.0, min(seconds - lasts_s, 0.5))), 2)
    level_db = round(float(rng.uniform(*FOREGROUND_DB)), 1)
    part = Part(what, Source(clip=row), 0.0, lasts_s, level_db, offset_s)
    return replace(part, start_s=_free_start(part, scene, rng))


def _counted(stage: Stage, what: str, scene: PairScene, rng: Rng) -> Part | None:
    """A single short sound, heard once or several times."""
    for _ in range(_TRIES):
        row = stage.pool.sounds.draw(what, rng)
        burst = first_burst(stage.wave(row))
        if burst is not None:
            break
    else:
        return None
    offset_s, lasts_s = burst[0] / SAMPLE_RATE_HZ, (burst[1] - burst[0]) / SAMPLE_RATE_HZ
    every_s = round(lasts_s + float(rng.uniform(0.2, 0.5)), 2)
    most = min(MOST_COUNT, 1 + int((scene.duration_s - lasts_s - 0.3) / every_s))
    count = 1 if rng.random() < 0.5 or most < 2 else int(rng.integers(2, most + 1))
    level_db = round(float(rng.uniform(*FOREGROUND_DB)), 1)
    part = Part(what, Source(clip=row), 0.0, lasts_s, level_db, offset_s, count, every_s)
    # More of them must fit behind.
    latest_s = max(scene.duration_s - (most - 1) * every_s - lasts_s, 0.0)
    return replace(part, start_s=round(float(rng.uniform(0.0, latest_s)), 2))


def _free_start(part: Part, scene: PairScene, rng: Rng) -> float:
    """Return a start among twelve where a part overlaps the other events least."""
    length_s = part.end_s - part.start_s
    starts = rng.uniform(0.0, max(scene.duration_s - length_s, 0.0), 12)
    others = [(p.start_s, p.end_s) for p in scene.parts if not (p.background or p.throughout)]
    overlaps = [
        sum(max(0.0, min(start + length_s, end) - max(start, first)) for first, end in others)
        for start in starts
    ]
    return round(float(starts[int(np.argmin(overlaps))]), 2)


def _with_background(
    stage: Stage, scene: PairScene, rng: Rng, avoid: Sequence[str] = ()
) -> PairScene:
    names = [name for name in sorted(CONTINUOUS) if name in stage.pool.sounds.members]
    what = new_sound(names, scene, rng, avoid)
    if what is None:
        return scene
    source = Source(clip=stage.pool.sounds.draw(what, rng))
    level_db = round(float(rng.uniform(*BACKGROUND_DB)), 1)
    part = Part(what, source, 0.0, scene.duration_s, level_db, background=True, throughout=True)
    return replace(scene, parts=(*scene.parts, part))


def made_part(
    kind: str, start_s: float, lasts_s: float, level_db: float, rng: Rng, throughout: bool
) -> Part:
    resolved = MADE_KINDS[kind].resolve({}, rng)
    params = tuple(sorted((name, float(f"{value:.4g}")) for name, value in resolved.items()))
    source = Source(kind=kind, seed=int(rng.integers(2**31)), params=params)
    what = event_of_kind(kind)
    return Part(what, source, start_s, lasts_s, level_db, throughout=throughout)


def named_kinds(kinds: Sequence[str]) -> dict[str, str]:
    """Kinds by the key of their sound; what nobody has words for is left out."""
    return {event_of_kind(kind): kind for kind in kinds if event_of_kind(kind) in WORDED}


def with_made(
    stage: Stage, scene: PairScene, rng: Rng, avoid: Sequence[str] = ()
) -> PairScene | None:
    """Add a synthetic sound that goes on, or an event; None where no other could be told apart."""
    kinds = (FAULTS, LASTING, EVENTS)[int(rng.choice(3, p=[0.5, 0.2, 0.3]))]
    named = named_kinds(kinds)
    what = new_sound(sorted(named), scene, rng, avoid)
    if what is None:
        return None
    kind = named[what]
    lasting = kind in LASTING and kinds is not EVENTS
    level_db = round(float(rng.uniform(-8.0, 2.0)), 1)
    lasts_s = scene.duration_s if lasting else round(float(rng.uniform(1.2, 3.0)), 2)
    part = made_part(kind, 0.0, lasts_s, level_db, rng, lasting)
    if not lasting:
        part = replace(part, start_s=_free_start(part, scene, rng))
    return replace(scene, parts=(*scene.parts, part))

"""Drawing edits of a scene that are plain to hear.

Every draw is from a generator that the caller gives. An edit that would not be plain by the floors
below is not made: the draw returns None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from soundpost.training.data import SAMPLE_RATE_HZ
from soundpost.training.pair_edits import NOISE_COLOURS, block_powers, rms, turning_hz
from soundpost.training.pair_records import BANDS, Edit, EditKind
from soundpost.training.pair_scene_draws import (
    CONTINUOUS,
    EVENTS,
    LASTING,
    MACHINES,
    MOST_COUNT,
    Rng,
    clip_part,
    made_part,
    named_kinds,
    new_sound,
    with_clip,
    with_made,
)
from soundpost.training.pair_scenes import (
    MADE_KINDS,
    AddedNoise,
    PairScene,
    Part,
    Room,
    Source,
    Stage,
    State,
    alike,
)

# What an edit amounts to.
WHOLE_GAIN_DB = (3.0, 15.0)
EVENT_GAIN_DB = (6.0, 15.0)
LEAST_SHIFT_S = 1.0
RATES = (1.25, 1.8)
SEMITONES = (3.0, 8.0)
BAND_DB = (9.0, 20.0)
RT60_S = (0.6, 2.0)
SNR_DB = (0.0, 15.0)
# A motor without its propeller is told by its level only from this on.
LEAST_PROPELLER_DB = 3.0
# At another throttle the line of its turning moves by so much, and not by what is another line.
LEAST_TURNING_RATIO, MOST_TURNING_RATIO = 1.1, 2.5

# A band counts where its louder state is no more than this below the whole recording.
BAND_FLOOR_DB = {"low": -6.0, "middle": -12.0, "high": -15.0}
# A room counts where it raises so much of a recording by so much.
ROOM_RISE_DB, ROOM_SHARE = 4.0, 0.15
# Noise counts where it raises the quietest tenth by so much.
NOISE_RISE_DB = 6.0

# Nobody hears noise go faster or its pitch move.
NOISE_LIKE = frozenset(
    {
        "rain", "wind", "sea_waves", "crackling_fire", "vacuum_cleaner", "air_conditioner",
        "pouring_water", "toilet_flush", "thunderstorm", "airplane", "clapping", "breathing",
        "brushing_teeth", "fireworks", "gun_shot", "can_opening", "washing_machine", "water_drops",
    }
)  # fmt: skip
RHYTHMIC = frozenset(
    {
        "dog", "rooster", "hen", "cow", "frog", "cat", "crow", "sheep", "pig", "crickets",
        "footsteps", "clock_tick", "clock_alarm", "door_wood_knock", "mouse_click",
        "keyboard_typing", "laughing", "crying_baby", "siren", "jackhammer", "hand_saw", "snoring",
        "street_music", "chirping_birds", "church_bells", "helicopter", "train",
    }
)  # fmt: skip
# Parameters that are a pace, and those that are a pitch; a speed of turning is both.
PACES = (
    "stroke_hz", "beeps_per_s", "sweeps_per_s", "strikes_per_s", "ticks_per_s", "chirps_per_s",
    "steps_per_s", "knocks_per_s", "speed_hz",
)  # fmt: skip
TURNING = ("fan", "motor", "engine")


@dataclass(frozen=True)
class Drawn:
    """A scene that differs from another by edits."""

    scene: PairScene
    edits: tuple[Edit, ...]


Draw = Callable[[Stage, PairScene, Rng], Drawn | None]


# --- edits of one event -------------------------------------------------------------------------


def add_event(stage: Stage, scene: PairScene, rng: Rng) -> Drawn | None:
    """Add an event that is not there."""
    synthetic = bool(scene.parts) and scene.parts[0].source.clip is None
    made = with_made(stage, scene, rng) if synthetic else with_clip(stage, scene, rng)
    if made is None or len(made.parts) == len(scene.parts):
        return None
    return _checked(stage, made, Edit(EditKind.ADDED, made.parts[-1].what))


def remove_event(stage: Stage, scene: PairScene, rng: Rng) -> Drawn | None:
    """Take an event away; what is left may be no more than the noise of the room."""
    part = _one_of(scene.parts, rng)
    if part is None:
        return None
    left = tuple(other for other in scene.parts if other is not part)
    return Drawn(replace(scene, parts=left), (Edit(EditKind.REMOVED, part.what),))


def replace_event(stage: Stage, scene: PairScene, rng: Rng) -> Drawn | None:
    """Put another event in the place of one, as loud."""
    part = _one_of(_foreground(scene), rng)
    if part is None or part.what == "motor":
        return None
    without = tuple(other for other in scene.parts if other is not part)
    avoid = (part.what,)
    empty = replace(scene, parts=without)
    if part.source.clip is None:
        kinds = MACHINES + LASTING if part.throughout else EVENTS
        named = named_kinds(kinds)
        what = new_sound(sorted(named), empty, rng, avoid)
        if what is None:
            return None
        new = made_part(
            named[what], part.start_s, part.lasts_s, part.level_db, rng, part.throughout
        )
    else:
        what = new_sound(stage.pool.sounds.sounds, empty, rng, avoid)
        if what is None:
            return None
        new = clip_part(stage, what, empty, rng)
        start_s = min(part.start_s, max(scene.duration_s - new.lasts_s, 0.0))
        new = replace(new, start_s=start_s, level_db=part.level_db)
    edit = Edit(EditKind.REPLACED, part.what, new.what)
    return _checked(stage, replace(empty, parts=(*without, new)), edit)


def level_event(stage: Stage, scene: PairScene, rng: Rng) -> Drawn | None:
    """Make one event louder or softer than the others."""
    part = _one_of(_foreground(scene), rng)
    if part is None or len(scene.parts) < 2:
        return None
    gain_db = _signed(rng, EVENT_GAIN_DB, 1)
    kind = EditKind.LOUDER if gain_db > 0 else EditKind.SOFTER
    made = _swap(scene, part, replace(part, level_db=round(part.level_db + gain_db, 1)))
    return _checked(stage, made, Edit(kind, part.what, amount=abs(gain_db), unit="dB"))


def move_event(stage: Stage, scene: PairScene, rng: Rng) -> Drawn | None:
    """Let an event happen earlier or later."""
    part = _one_of([p for p in _foreground(scene) if not p.throughout], rng)
    if part is None:
        return None
    latest_s = scene.duration_s - (part.end_s - part.start_s)
    starts = rng.uniform(0.0, max(latest_s, 0.0), 12).round(2)
    starts = starts[np.abs(starts - part.start_s) >= LEAST_SHIFT_S]
    if not len(starts):
        return None
    shift_s = round(float(starts[0]) - part.start_s, 2)
    kind = EditKind.LATER if shift_s > 0 else EditKind.EARLIER
    made = _swap(scene, part, replace(part, start_s=float(starts[0])))
    return _checked(stage, made, Edit(kind, part.what, amount=abs(shift_s), unit="s"))


def count_event(stage: Stage, scene: PairScene, rng: Rng) -> Drawn | None:
    """Let a short event be heard more or fewer times."""
    part = _one_of([p for p in scene.parts if p.every_s > 0.0], rng)
    if part is None:
        return None
    room = int((scene.duration_s - part.start_s - part.lasts_s) / part.every_s + 1e-6)
    counts = [n for n in range(1, min(MOST_COUNT, 1 + room) + 1) if n != part.count]
    if not counts:
        return None
    count = int(rng.choice(counts))
    more = count - part.count
    kind = EditKind.MORE if more > 0 else EditKind.FEWER
    made = _swap(scene, part, replace(part, count=count))
    return _checked(stage, made, Edit(kind, part.what, amount=float(abs(more)), unit="times"))


def pace_event(stage: Stage, scene: PairScene, rng: Rng) -> Drawn | None:
    """Let an event go faster or slower: its repetitions, its machine, or all of it."""
    fitting = [p for p in _foreground(scene) if _has_pace(p)]
    part = _one_of(fitting, rng)
    if part is None:
        return None
    ratio = round(float(rng.uniform(*RATES)), 2)
    faster = rng.random() < 0.5
    rate = ratio if faster else 1.0 / ratio
    made = _paced(part, rate)
    if made is None or made.end_s > scene.duration_s:
        return None
    kind = EditKind.FASTER if faster else EditKind.SLOWER
    edits = [Edit(kind, part.what, amount=ratio, unit="ratio")]
    if part.source.kind in TURNING:
        edits.append(Edit(_pitch_kind(faster), part.what, amount=ratio, unit="ratio"))
    return _checked(stage, _swap(scene, part, made), *edits)


def _has_pace(part: Part) -> bool:
    if part.source.clip is None:
        return any(name in PACES for name, _ in part.source.params)
    if part.count > 1:
        return part.count > 2
    return part.what in RHYTHMIC and part.lasts_s >= 1.5 and part.scale is None


def _paced(part: Part, rate: float) -> Part | None:
    if part.source.clip is None:
        return _with_params(part, PACES, rate)
    if part.count > 1:
        every_s = round(part.every_s / rate, 3)
        return replace(part, every_s=every_s) if every_s >= part.lasts_s + 0.05 else None
    return replace(part, rate=rate)


def _with_params(part: Part, names: Sequence[str], factor: float) -> Part | None:
    """Multiply parameters of a synthetic sound; None where it cannot be set so."""
    params = []
    for name, value in part.source.params:
        changed = float(f"{value * factor:.4g}") if name in names else value
        low, high = MADE_KINDS[part.source.kind].parameters[name].allowed
        if not low <= changed <= high:
            return None
        params.append((name, changed))
    return replace(part, source=replace(part.source, params=tuple(params)))


def pitch_event(stage: Stage, scene: PairScene, rng: Rng) -> Drawn | None:
    """Let an event sound higher or lower."""
    part = _one_of([p for p in _foreground(scene) if _has_pitch(p)], rng)
    if part is None:
        return None
    semitones = _signed(rng, SEMITONES, 1)
    if part.source.clip is None:
        made = _with_params(part, ("pitch_hz",), 2.0 ** (semitones / 12.0))
    else:
        made = replace(part, semitones=semitones)
    if made is None:
        return None
    edit = Edit(_pitch_kind(semitones > 0), part.what, amount=abs(semitones), unit="semitones")
    return _checked(stage, _swap(scene, part, made), edit)


def _has_pitch(part: Part) -> bool:
    if part.source.clip is None:
        return any(name == "pitch_hz" for name, _ in part.source.params)
    return part.what not in NOISE_LIKE and part.scale is None


def _pitch_kind(higher: bool) -> EditKind:
    return EditKind.HIGHER if higher else EditKind.LOWER


# --- edits of the whole recording ---------------------------------------------------------------


def level_whole(stage: Stage, scene: PairScene, rng: Rng) -> Drawn | None:
    """Turn the whole recording up or down."""
    gain_db = _signed(rng, WHOLE_GAIN_DB, 1)
    kind = EditKind.LOUDER if gain_db > 0 else EditKind.SOFTER
    made = replace(scene, gain_db=scene.gain_db + gain_db)
    return Drawn(made, (Edit(kind, amount=abs(gain_db), unit="dB"),))


def band_whole(stage: Stage, scene: PairScene, rng: Rng) -> Drawn | None:
    """Cut or boost a band that matters."""
    gain_db = _signed(rng, BAND_DB, 1)
    kind = EditKind.BAND_BOOST if gain_db > 0 else EditKind.BAND_CUT
    for name in rng.permutation(BANDS):
        made = replace(scene, band=(str(name), gain_db))
        louder = stage.render(made if gain_db > 0 else scene)
        if _band_share_db(louder, str(name)) >= BAND_FLOOR_DB[str(name)]:
            return Drawn(made, (Edit(kind, str(name), amount=abs(gain_db), unit="dB"),))
    return None


def _band_share_db(wave: np.ndarray[tuple[int], np.dtype[np.float32]], name: str) -> float:
    """Level of a band relative to the whole of a wave [N], from every second of it."""
    frame = SAMPLE_RATE_HZ // 4
    frames = wave[: len(wave) // frame * frame].reshape(-1, frame)
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(frame).astype(np.float32)))).sum(0)
    edges = {"low": (8, 75), "middle": (75, 500), "high": (500, len(power))}[name]
    share = float(power[slice(*edges)].sum() / max(float(power.sum()), 1e-20))
    return 10.0 * float(np.log10(max(share, 1e-10)))


def reverberate(stage: Stage, scene: PairScene, rng: Rng) -> Drawn | None:
    """Play it in a room that is heard."""
    if all(part.throughout or part.what in CONTINUOUS for part in scene.parts):
        return None
    rt60_s = round(float(rng.uniform(*RT60_S)), 2)
    made = replace(scene, room=Room(rt60_s, int(rng.integers(2**31))))
    before, after = (10.0 * np.log10(block_powers(stage.render(s)) + 1e-12) for s in (scene, made))
    if float(np.mean(after - before >= ROOM_RISE_DB)) < ROOM_SHARE:
        return None
    return Drawn(made, (Edit(EditKind.REVERB_MORE, amount=rt60_s, unit="s RT60"),))


def add_noise(stage: Stage, scene: PairScene, rng: Rng) -> Drawn | None:
    """Add noise that is heard where the recording is quiet."""
    before = np.quantile(block_powers(stage.render(scene)), 0.1)
    for highest_db in (SNR_DB[1], sum(SNR_DB) / 2.0):
        snr_db = round(float(rng.uniform(SNR_DB[0], highest_db)), 1)
        colour = str(rng.choice(list(NOISE_COLOURS)))
        made = replace(scene, noise=AddedNoise(colour, snr_db, int(rng.integers(2**31))))
        after = np.quantile(block_powers(stage.render(made)), 0.1)
        if after >= before * 10.0 ** (NOISE_RISE_DB / 10.0):
            return Drawn(made, (Edit(EditKind.NOISE_MORE, amount=snr_db, unit="dB SNR"),))
    return None


# --- the motor ----------------------------------------------------------------------------------


def throttle_motor(stage: Stage, scene: PairScene, rng: Rng) -> Drawn | None:
    """Let the motor turn at another throttle, as loud, where the line of its turning moves too."""
    part, state = _motor_of(stage, scene)
    others = [s for s in stage.pool.motor if s[0] == state[0] and s[1] != state[1]]
    if part is None or not others:
        return None
    new = sorted(others)[int(rng.integers(len(others)))]
    row = int(rng.choice(stage.pool.motor[new]))
    step = new[1] - state[1]
    ratio = turning_hz(stage.wave(row)) / turning_hz(stage.wave(int(part.source.clip or 0)))
    higher = ratio if step > 0 else 1.0 / ratio
    if not LEAST_TURNING_RATIO <= higher <= MOST_TURNING_RATIO:
        return None
    made = replace(part, source=Source(clip=row), scale=1.0 / max(rms(stage.wave(row)), 1e-6))
    pace = EditKind.FASTER if step > 0 else EditKind.SLOWER
    edits = (
        Edit(pace, "motor", amount=float(abs(step)), unit="% throttle"),
        Edit(_pitch_kind(step > 0), "motor", amount=round(higher, 2), unit="ratio"),
    )
    return Drawn(_swap(scene, part, made), edits)


def propeller_motor(stage: Stage, scene: PairScene, rng: Rng) -> Drawn | None:
    """Take the propeller off or put it on, at the recordings' own levels."""
    part, state = _motor_of(stage, scene)
    others = [s for s in stage.pool.motor if s[0] != state[0] and s[1] == state[1]]
    if part is None or not others:
        return None
    row = int(rng.choice(stage.pool.motor[others[0]]))
    before, after = rms(stage.wave(int(part.source.clip or 0))), rms(stage.wave(row))
    gain_db = 20.0 * float(np.log10(max(after, 1e-9) / max(before, 1e-9)))
    if abs(gain_db) < LEAST_PROPELLER_DB:
        return None
    kind = EditKind.LOUDER if gain_db > 0 else EditKind.SOFTER
    made = replace(part, source=Source(clip=row))
    edit = Edit(kind, amount=round(abs(gain_db), 1), unit="dB")
    return Drawn(_swap(scene, part, made), (edit,))


def _motor_of(stage: Stage, scene: PairScene) -> tuple[Part | None, State]:
    states = {row: state for state, rows in stage.pool.motor.items() for row in rows}
    for part in scene.parts:
        if part.source.clip in states:
            return part, states[part.source.clip]
    return None, ("", 0)


# --- choosing -----------------------------------------------------------------------------------

EVENT_DRAWS: dict[str, Draw] = {
    "add": add_event,
    "remove": remove_event,
    "replace": replace_event,
    "level of one": level_event,
    "time": move_event,
    "count": count_event,
    "pace": pace_event,
    "pitch": pitch_event,
}
WHOLE_DRAWS: dict[str, Draw] = {
    "level": level_whole,
    "band": band_whole,
    "room": reverberate,
    "noise": add_noise,
}
MOTOR_DRAWS: dict[str, Draw] = {
    "throttle": throttle_motor,
    "other throttle": throttle_motor,
    "propeller": propeller_motor,
    "add": add_event,
    **WHOLE_DRAWS,
}
CLIP_DRAWS = EVENT_DRAWS | WHOLE_DRAWS


def draw_two(stage: Stage, scene: PairScene, rng: Rng) -> Drawn | None:
    """Make two edits, one after the other, that do not touch the same thing."""
    first = CLIP_DRAWS[str(rng.choice(list(EVENT_DRAWS)))](stage, scene, rng)
    if first is None:
        return None
    second = CLIP_DRAWS[str(rng.choice(list(CLIP_DRAWS)))](stage, first.scene, rng)
    if second is None or not together(first.edits, second.edits):
        return None
    if any(edit.unit == "dB SNR" and (edit.amount or 0.0) < 6.0 for edit in second.edits):
        return None
    return Drawn(second.scene, first.edits + second.edits)


def together(first: Sequence[Edit], second: Sequence[Edit]) -> bool:
    """Say whether two edits can be told apart: of different events, or one of the whole."""
    if len(first) != 1 or len(second) != 1:
        return False
    one, other = first[0], second[0]
    whole = [edit.what is None or edit.what in BANDS for edit in (one, other)]
    levels = {EditKind.LOUDER, EditKind.SOFTER}
    if all(whole) or (any(whole) and one.kind in levels and other.kind in levels):
        return False
    if any(whole):
        return True
    names = [[name for name in (edit.what, edit.other) if name] for edit in (one, other)]
    return not any(alike(mine, theirs) for mine in names[0] for theirs in names[1])


def _checked(stage: Stage, scene: PairScene, *edits: Edit) -> Drawn | None:
    return Drawn(scene, edits) if stage.heard(scene) else None


def _foreground(scene: PairScene) -> list[Part]:
    return [part for part in scene.parts if not part.background]


def _one_of(parts: Sequence[Part], rng: Rng) -> Part | None:
    return parts[int(rng.integers(len(parts)))] if parts else None


def _swap(scene: PairScene, old: Part, new: Part) -> PairScene:
    return replace(scene, parts=tuple(new if part is old else part for part in scene.parts))


def _signed(rng: Rng, span: tuple[float, float], digits: int) -> float:
    sign = 1.0 if rng.random() < 0.5 else -1.0
    return sign * round(float(rng.uniform(*span)), digits)

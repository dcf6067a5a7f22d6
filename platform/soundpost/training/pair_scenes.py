"""Scenes that can be edited: parts with their times and levels, and what is done to the whole.

A scene is a description; `Stage` makes its wave. Two scenes that differ in one field differ in
exactly that, as every random number comes from a seed of its own.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from soundpost.audio.changes import TONE
from soundpost.audio.scenes import KINDS, SoundKind, synthesise
from soundpost.errors import InvalidValueError
from soundpost.explain import lexicon
from soundpost.training.composed import ActiveClip, Pool, active, confusable, sound_of
from soundpost.training.data import SAMPLE_RATE_HZ, Clip, is_held_out, load_clips, load_waves
from soundpost.training.pair_edits import (
    banded,
    block_powers,
    coloured_noise,
    faded,
    lasting,
    loudness,
    reverberant,
    room_response,
    shifted,
    stretched,
)

FloatArray = NDArray[np.float32]
State = tuple[str, int]

SPLITS = ("train", "dev", "test", "everything")
DEV_FOLDS = (3, 2)
LABELLED = ("esc50", "urbansound8k")
SPOKEN = ("fsdd", "speech_commands")
_USED = (*LABELLED, *SPOKEN, "motor")
# Throttles of the motor in percent that only `test` hears, and every so manieth recording of the
# others that only `dev` hears.
MOTOR_TEST_THROTTLES = (20, 50)
MOTOR_DEV_EVERY = 4
MOTOR_RANGE_DB = 30.0
# Speakers fall into the splits by their names; of FSDD origins are single takes of six speakers, who
# are therefore in all of them.
_SPEAKER_PARTS = ("test", "dev", "train", "train", "train")

# A part is heard where it is no more than this below all others together ...
HEARD_FLOOR_DB = -12.0
# ... in so much of its active part: in the foreground, and in the background.
HEARD_SHARE, HEARD_SHARE_BACKGROUND = 0.6, 0.25
_ACTIVE_RANGE_DB = 20.0
_KEPT_CLIPS = 64

MADE_KINDS: Mapping[str, SoundKind] = {**KINDS, TONE.name: TONE}


@cache
def alike(first: str, second: str) -> bool:
    """Say whether nobody could tell two sounds apart in one scene."""
    return confusable(first, second) or lexicon.alike(first, second)


@dataclass(frozen=True)
class Source:
    """Where a part's sound comes from: a clip's row, or a synthetic kind with seed and parameters."""

    clip: int | None = None
    kind: str = ""
    seed: int = 0
    params: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Part:
    """One event of a scene.

    lasts_s: of one repetition at its own speed. level_db: of the active part, relative to the scene's
    level. offset_s: where in the sound it begins. count: repetitions, each `every_s` after the one
    before. rate: how many times as fast. scale: a fixed factor instead of a level, for recordings
    whose own levels are to be kept. throughout: it goes on all the time.
    """

    what: str
    source: Source
    start_s: float
    lasts_s: float
    level_db: float
    offset_s: float = 0.0
    count: int = 1
    every_s: float = 0.0
    rate: float = 1.0
    semitones: float = 0.0
    scale: float | None = None
    background: bool = False
    throughout: bool = False

    @property
    def end_s(self) -> float:
        """When the last repetition ends."""
        return self.start_s + (self.count - 1) * self.every_s + self.lasts_s / self.rate


@dataclass(frozen=True)
class AddedNoise:
    """Noise over the whole recording, `snr_db` below the active part of what was there."""

    colour: str
    snr_db: float
    seed: int


@dataclass(frozen=True)
class Room:
    """A room that the whole recording was played in."""

    rt60_s: float
    seed: int


@dataclass(frozen=True)
class PairScene:
    """Parts over a little noise, then what is done to the whole: room, band, noise, gain in turn.

    noise_db: relative to the scene's level. band: its name and gain in dB.
    """

    parts: tuple[Part, ...]
    duration_s: float
    level_dbfs: float
    noise_db: float
    noise_seed: int
    room: Room | None = None
    band: tuple[str, float] | None = None
    noise: AddedNoise | None = None
    gain_db: float = 0.0

    @property
    def samples(self) -> int:
        """Length in samples."""
        return round(self.duration_s * SAMPLE_RATE_HZ)


class ActiveClips(Mapping[int, ActiveClip]):
    """Clips without the silence at their ends, made when asked for; the last ones are kept."""

    def __init__(self, waves: Mapping[int, NDArray[np.int16]]) -> None:
        self._waves = waves
        self._kept: OrderedDict[int, ActiveClip] = OrderedDict()

    def __getitem__(self, row: int) -> ActiveClip:
        if row in self._kept:
            self._kept.move_to_end(row)
            return self._kept[row]
        self._kept[row] = active(self._waves[row])
        if len(self._kept) > _KEPT_CLIPS:
            self._kept.popitem(last=False)
        return self._kept[row]

    def __iter__(self) -> Iterator[int]:
        return iter(self._waves)

    def __len__(self) -> int:
        return len(self._waves)


@dataclass(frozen=True, eq=False)
class PairPool:
    """What a split's pairs are made of.

    sounds: labelled clips. motor: waves of one motor at its own levels, by (label, throttle in
    percent). origins: the recording that each row was cut from.
    """

    split: str
    sounds: Pool
    motor: Mapping[State, tuple[int, ...]]
    motor_waves: Mapping[int, FloatArray]
    origins: Mapping[int, str]


def in_split(clip: Clip, split: str) -> bool:
    """Say whether a clip may be heard in a split; "everything" is `train` and `dev`."""
    if clip.dataset == "motor":
        part = _motor_part(clip)
    elif clip.dataset in SPOKEN:
        part = _SPEAKER_PARTS[zlib.crc32(clip.origin.encode()) % len(_SPEAKER_PARTS)]
    elif is_held_out(clip):
        part = "test"
    else:
        part = "dev" if is_held_out(clip, *DEV_FOLDS) else "train"
    return part == split or (split == "everything" and part != "test")


def motor_state(clip: Clip) -> State:
    """Return propeller label and throttle in percent of a recording of the motor."""
    return clip.label, int(clip.path.split("pct_")[0].rsplit("_", 1)[1])


def _motor_part(clip: Clip) -> str:
    if motor_state(clip)[1] in MOTOR_TEST_THROTTLES:
        return "test"
    number = int(Path(clip.path).stem.rsplit("_", 1)[1])
    return "dev" if number % MOTOR_DEV_EVERY == 0 else "train"


def split_rows(clips: Sequence[Clip], split: str) -> list[int]:
    """Return the rows of a split's clips; what shares an origin with a later split is left out.

    Raises InvalidValueError for an unknown split.
    """
    if split not in SPLITS:
        raise InvalidValueError(split, f"the splits are {', '.join(SPLITS)}")
    later = {"train": ("dev", "test"), "dev": ("test",), "everything": ("test",), "test": ()}[split]
    taken = {
        _origin(clip)
        for clip in clips
        if clip.dataset in _USED and any(in_split(clip, other) for other in later)
    }
    return [
        row
        for row, clip in enumerate(clips)
        if clip.dataset in _USED and in_split(clip, split) and _origin(clip) not in taken
    ]


def _origin(clip: Clip) -> str:
    # The motor is one; what must not be shared is the recording.
    return clip.path if clip.dataset == "motor" else f"{clip.dataset}/{clip.origin}"


def load_pair_pool(data: Path, cache: Path, split: str) -> PairPool:
    """Load what a split's pairs are made of. Raises DataMissingError, InvalidValueError."""
    clips = load_clips(data)
    return pair_pool(clips, load_waves(data, clips, cache), split)


def pair_pool(clips: Sequence[Clip], waves: Sequence[NDArray[np.int16]], split: str) -> PairPool:
    """Return what a split's pairs are made of, from all clips and their waves."""
    rows = split_rows(clips, split)
    labelled = [row for row in rows if clips[row].dataset != "motor"]
    motor: dict[State, tuple[int, ...]] = {}
    for row in rows:
        if clips[row].dataset == "motor" and _is_steady(waves[row]):
            state = motor_state(clips[row])
            motor[state] = (*motor.get(state, ()), row)
    sounds = Pool(
        ActiveClips({row: waves[row] for row in labelled}),
        {row: sound_of(clips[row]) for row in labelled},
    )
    motor_waves = {
        row: np.asarray(waves[row], np.float32) * np.float32(2.0**-15)
        for members in motor.values()
        for row in members
    }
    return PairPool(split, sounds, motor, motor_waves, {row: _origin(clips[row]) for row in rows})


def _is_steady(wave: NDArray[np.int16]) -> bool:
    """Say whether the motor runs all through a recording: the first of a state begin with silence."""
    powers = block_powers(np.asarray(wave, np.float32))
    return bool(powers.max() <= powers.min() * 10.0 ** (MOTOR_RANGE_DB / 10.0))


class Stage:
    """Makes the waves of scenes; what several scenes of a group share is made once."""

    def __init__(self, pool: PairPool) -> None:
        self.pool = pool
        self._sounds: dict[tuple[object, ...], FloatArray] = {}
        self._placed: dict[tuple[Part, int], NDArray[np.float64]] = {}
        self._waves: dict[PairScene, FloatArray] = {}
        self._dry: dict[tuple[object, ...], FloatArray] = {}

    def render(self, scene: PairScene) -> FloatArray:
        """Return the wave [N] of a scene; it may pass full scale."""
        if scene not in self._waves:
            self._waves[scene] = self._render(scene)
        return self._waves[scene]

    def _render(self, scene: PairScene) -> FloatArray:
        wave = self._mixed(scene)
        if scene.room:
            rng = np.random.default_rng(scene.room.seed)
            wave = reverberant(wave, room_response(scene.room.rt60_s, rng))
        if scene.band:
            wave = banded(wave, *scene.band)
        if scene.noise:
            rng = np.random.default_rng(scene.noise.seed)
            hush = coloured_noise(scene.noise.colour, len(wave), rng)
            wave = wave + hush * np.float32(loudness(wave) * _factor(-scene.noise.snr_db))
        return wave * np.float32(_factor(scene.level_dbfs + scene.gain_db))

    def _mixed(self, scene: PairScene) -> FloatArray:
        key = (scene.parts, scene.samples, scene.noise_db, scene.noise_seed)
        if key not in self._dry:
            rng = np.random.default_rng(scene.noise_seed)
            wave = rng.standard_normal(scene.samples, dtype=np.float32)
            wave *= np.float32(_factor(scene.noise_db))
            for part in scene.parts:
                start = round(part.start_s * SAMPLE_RATE_HZ)
                sound = self.sound(part, scene.samples)[: scene.samples - start]
                wave[start : start + len(sound)] += sound * np.float32(_factor(part.level_db))
            self._dry[key] = wave
        return self._dry[key]

    def sound(self, part: Part, samples: int) -> FloatArray:
        """Return the sound [M] of a part at level 0 dB, all its repetitions, not placed."""
        key = (
            part.source, part.lasts_s, part.offset_s, part.count, part.every_s, part.rate,
            part.semitones, part.scale, part.throughout, samples if part.throughout else 0,
        )  # fmt: skip
        if key not in self._sounds:
            self._sounds[key] = self._made(part, samples)
        return self._sounds[key]

    def _made(self, part: Part, samples: int) -> FloatArray:
        one = self._one(part, samples)
        if part.rate != 1.0:
            one = stretched(one, 1.0 / part.rate)
        if part.semitones:
            one = shifted(one, part.semitones)
        one = faded(one)
        scale = part.scale or 1.0 / max(loudness(one), 1e-6)
        one = one * np.float32(scale)
        if part.count == 1:
            return one
        step = round(part.every_s * SAMPLE_RATE_HZ)
        total = np.zeros(step * (part.count - 1) + len(one), np.float32)
        for number in range(part.count):
            total[number * step : number * step + len(one)] += one
        return total

    def _one(self, part: Part, samples: int) -> FloatArray:
        length = samples if part.throughout else round(part.lasts_s * SAMPLE_RATE_HZ)
        source = part.source
        if source.clip is None:
            rng = np.random.default_rng(source.seed)
            kind = MADE_KINDS[source.kind]
            seconds = length / SAMPLE_RATE_HZ
            return synthesise(kind, seconds, SAMPLE_RATE_HZ, rng, **dict(source.params))
        wave = self.wave(source.clip)
        start = min(round(part.offset_s * SAMPLE_RATE_HZ), max(len(wave) - length, 0))
        return lasting(wave[start:], length)

    def wave(self, row: int) -> FloatArray:
        """Return the wave [N] of a clip."""
        if row in self.pool.motor_waves:
            return self.pool.motor_waves[row]
        return self.pool.sounds.clips[row].wave

    def powers(self, part: Part, scene: PairScene) -> NDArray[np.float64]:
        """Return the power of a part in each 50 ms of its scene [B], relative to the scene's level."""
        key = (part, scene.samples)
        if key not in self._placed:
            start = round(part.start_s * SAMPLE_RATE_HZ)
            placed = np.zeros(scene.samples, np.float32)
            sound = self.sound(part, scene.samples)[: scene.samples - start]
            placed[start : start + len(sound)] = sound * np.float32(_factor(part.level_db))
            self._placed[key] = block_powers(placed)
        return self._placed[key]

    def heard(self, scene: PairScene) -> bool:
        """Say whether every part of a scene stands out enough to be heard."""
        powers = np.stack([self.powers(part, scene) for part in scene.parts] or [np.zeros(1)])
        total = powers.sum(axis=0) + _factor(scene.noise_db) ** 2
        for part, own in zip(scene.parts, powers, strict=False):
            loud = own >= max(own.max() * _factor(-_ACTIVE_RANGE_DB) ** 2, 1e-9)
            clear = own >= (total - own) * _factor(HEARD_FLOOR_DB) ** 2
            share = (clear & loud).sum() / max(loud.sum(), 1)
            if share < (HEARD_SHARE_BACKGROUND if part.background else HEARD_SHARE):
                return False
        return True


def _factor(level_db: float) -> float:
    return float(10.0 ** (level_db / 20.0))

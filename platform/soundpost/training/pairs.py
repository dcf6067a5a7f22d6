"""Pairs of recordings whose difference is known exactly, in groups around one scene.

A group is its pool and its seed: nothing of it needs to be stored, `make_group` makes it again. No
recording is brought to a level of its own, so that the records say exactly what was done; a group
that would pass full scale is turned down as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from soundpost.audio.acoustics import Acoustics, measure, third_octave_centres_hz
from soundpost.training.data import SAMPLE_RATE_HZ
from soundpost.training.pair_draws import (
    CLIP_DRAWS,
    MOTOR_DRAWS,
    Drawn,
    draw_two,
    together,
)
from soundpost.training.pair_edits import BAND_EDGES_HZ, loudness
from soundpost.training.pair_records import (
    BANDS,
    CENTROID_RATIO,
    Edit,
    EditKind,
    Heard,
    PairRecord,
    only_of_one,
)
from soundpost.training.pair_scene_draws import (
    draw_machine_scene,
    draw_motor_scene,
    draw_scene,
)
from soundpost.training.pair_scenes import (
    SPLITS,
    PairPool,
    PairScene,
    Part,
    Stage,
    load_pair_pool,
    pair_pool,
)

__all__ = [
    "BANDS",
    "SPLITS",
    "Edit",
    "EditKind",
    "Group",
    "Heard",
    "Pair",
    "PairPool",
    "PairRecord",
    "load_pair_pool",
    "make_group",
    "pair_pool",
    "render_pair",
]

FloatArray = NDArray[np.float32]

# Of the groups: labelled clips, synthetic machines, the motor.
FAMILIES = ("edited", "synthetic", "motor")
FAMILY_SHARES = (0.75, 0.15, 0.10)
EDITED = 4
OTHER_SHARE, AGAIN_SHARE, TWO_SHARE = 0.5, 0.5, 0.35
MOST_COMPOSED = 4
# Edits that few scenes allow are tried so much sooner than the others.
RARE = {"count": 4.0, "pace": 3.0, "room": 4.0, "noise": 3.0, "level of one": 2.5, "pitch": 1.5}
PEAK_CEILING = 0.97
# An edit of the whole is said where so much of its gain is measured, whatever else was done.
BORNE_OUT_SHARE = 0.4


@dataclass(frozen=True)
class Pair:
    """Two recordings, by their places among a group's or a set's, and what differs."""

    first: int
    second: int
    record: PairRecord


@dataclass(frozen=True, eq=False)
class Group:
    """Recordings [N] at 16 kHz around one scene, what is heard in each, and the pairs among them."""

    seed: int
    recordings: tuple[FloatArray, ...]
    heard: tuple[tuple[Heard, ...], ...]
    origins: tuple[tuple[str, ...], ...]
    pairs: tuple[Pair, ...]

    def measured(self, acoustics: Sequence[Acoustics]) -> Group:
        """Return the group with what was measured on its recordings in the records.

        Pairs where one edit undoes what another one says are left out: turned up, but softer as the
        loudest event is gone.
        """
        pairs = []
        for pair in self.pairs:
            found = rendered(acoustics[pair.first], acoustics[pair.second])
            record = replace(pair.record, rendered=found)
            if is_borne_out(record):
                pairs.append(replace(pair, record=record))
        return replace(self, pairs=tuple(pairs))


def is_borne_out(record: PairRecord) -> bool:
    """Say whether what was measured on both recordings bears out all that is said of the whole."""
    return all(_is_borne_out(edit, record.rendered) for edit in record.edits)


def _is_borne_out(edit: Edit, found: dict[str, float]) -> bool:
    """Say whether the level or the band of an edit of the whole moved its way, and far enough."""
    if edit.kind in (EditKind.LOUDER, EditKind.SOFTER) and edit.what is None:
        moved_db = min(found["level_db"], found["a_level_db"], key=abs)
        up = edit.kind is EditKind.LOUDER
    elif edit.kind in (EditKind.BAND_BOOST, EditKind.BAND_CUT):
        moved_db, up = found[f"{edit.what}_db"], edit.kind is EditKind.BAND_BOOST
    else:
        return True
    return (moved_db if up else -moved_db) >= BORNE_OUT_SHARE * (edit.amount or 0.0)


def make_group(pool: PairPool, seed: int, *, measured: bool = True) -> Group:
    """Make the group of a pool and a seed; without `measured` the records lack `rendered`."""
    group = _Maker(pool, seed).group()
    if not measured:
        return group
    return group.measured([measure(wave, SAMPLE_RATE_HZ) for wave in group.recordings])


def render_pair(pool: PairPool, record: PairRecord) -> tuple[FloatArray, FloatArray]:
    """Make the two waves of a pair again."""
    recordings = make_group(pool, record.seed, measured=False).recordings
    return recordings[record.places[0]], recordings[record.places[1]]


class _Maker:
    """Makes one group."""

    def __init__(self, pool: PairPool, seed: int) -> None:
        self.seed = seed
        self.rng = np.random.default_rng([SPLITS.index(pool.split), seed])
        self.stage = Stage(pool)
        families = FAMILIES if pool.motor else FAMILIES[:2]
        shares = np.array(FAMILY_SHARES[: len(families)])
        self.family = str(self.rng.choice(families, p=shares / shares.sum()))

    def group(self) -> Group:
        base = self._scene()
        drawn = [Drawn(base, ()), *self._edited(base)]
        if self.rng.random() < AGAIN_SHARE:
            again = replace(base, noise_seed=int(self.rng.integers(2**31)))
            drawn.append(Drawn(again, ()))
        scenes = [one.scene for one in drawn]
        if self.rng.random() < OTHER_SHARE:
            scenes.append(self._scene([part.what for part in base.parts]))
        waves = [self.stage.render(scene) for scene in scenes]
        peak = max(float(np.abs(wave).max()) for wave in waves)
        gain = min(PEAK_CEILING / max(peak, 1e-9), 1.0)
        gain_db = 20.0 * float(np.log10(gain))
        heard = tuple(self._heard(scene, gain_db) for scene in scenes)
        return Group(
            self.seed,
            tuple(wave * np.float32(gain) for wave in waves),
            heard,
            tuple(self._origins(scene) for scene in scenes),
            tuple(self._pairs(drawn, scenes, heard)),
        )

    def _scene(self, avoid: Sequence[str] = ()) -> PairScene:
        if self.family == "synthetic":
            return draw_machine_scene(self.stage, self.rng, avoid)
        if self.family == "motor" and not avoid:
            return draw_motor_scene(self.stage, self.rng)
        return draw_scene(self.stage, self.rng, avoid)

    def _edited(self, base: PairScene) -> list[Drawn]:
        """Draw edited versions of a scene, of as many kinds."""
        draws = MOTOR_DRAWS if self.family == "motor" else CLIP_DRAWS
        made: list[Drawn] = []
        if self.family != "motor" and self.rng.random() < TWO_SHARE:
            two = draw_two(self.stage, base, self.rng)
            made += [two] if two else []
        # The rare ones first: not every scene has something to count, or a pitch.
        for name in self._order(list(draws)):
            drawn = draws[name](self.stage, base, self.rng) if len(made) < EDITED else None
            if drawn is not None:
                made.append(drawn)
        return made

    def _order(self, names: list[str]) -> list[str]:
        weights = np.array([RARE.get(name, 1.0) for name in names])
        keys = self.rng.random(len(names)) ** (1.0 / weights)
        return [names[place] for place in np.argsort(-keys)]

    def _heard(self, scene: PairScene, gain_db: float) -> tuple[Heard, ...]:
        parts = sorted(scene.parts, key=lambda part: part.start_s)
        return tuple(self._heard_part(part, scene, gain_db) for part in parts)

    def _heard_part(self, part: Part, scene: PairScene, gain_db: float) -> Heard:
        level_db = part.level_db
        if part.scale is not None:
            sound = self.stage.sound(part, scene.samples)
            level_db += 20.0 * float(np.log10(max(loudness(sound), 1e-9)))
        return Heard(
            what=part.what,
            start_s=round(part.start_s, 2),
            end_s=round(min(scene.duration_s, part.end_s), 2),
            level_db=round(level_db + scene.level_dbfs + scene.gain_db + gain_db, 1),
            count=part.count,
            background=part.background,
        )

    def _origins(self, scene: PairScene) -> tuple[str, ...]:
        found: dict[str, None] = {}
        for part in scene.parts:
            source = part.source
            made = f"synthetic/{source.kind}/{source.seed}"
            found[made if source.clip is None else self.stage.pool.origins[source.clip]] = None
        return tuple(found)

    # --- pairs ----------------------------------------------------------------------------------

    def _pairs(
        self,
        drawn: Sequence[Drawn],
        scenes: Sequence[PairScene],
        heard: Sequence[tuple[Heard, ...]],
    ) -> list[Pair]:
        self._scenes, self._heards = scenes, heard
        pairs: list[Pair] = []
        for place, one in enumerate(drawn):
            kind = self.family if one.edits else "identical"
            pairs += self._both_ways(0, place, one.edits, kind)
        for first, second in self._composed(drawn):
            composed = (drawn[first].edits[0].reversed(), drawn[second].edits[0])
            pairs += self._both_ways(first, second, composed, self.family)
        for other in range(len(drawn), len(scenes)):
            for place in (0, int(self.rng.integers(1, len(drawn))) if len(drawn) > 1 else 0):
                edits = _difference(heard[place], heard[other])
                # Of another dog in another place nothing can be told that the record knows.
                if edits:
                    pairs += self._both_ways(place, other, edits, "different")
        # Where the second of two draws fell on the base, the pair is there already.
        return list({(pair.first, pair.second): pair for pair in pairs}.values())

    def _composed(self, drawn: Sequence[Drawn]) -> list[tuple[int, int]]:
        possible = [
            (first, second)
            for first, second in permutations(range(1, len(drawn)), 2)
            if first < second and together(drawn[first].edits, drawn[second].edits)
        ]
        order = self.rng.permutation(len(possible))[:MOST_COMPOSED]
        return [possible[place] for place in order]

    def _both_ways(self, first: int, second: int, edits: tuple[Edit, ...], kind: str) -> list[Pair]:
        origins = {
            origin for place in (first, second) for origin in self._origins(self._scenes[place])
        }
        record = PairRecord(
            edits=edits,
            heard_1=self._heards[first],
            heard_2=self._heards[second],
            duration_1_s=self._scenes[first].duration_s,
            duration_2_s=self._scenes[second].duration_s,
            origins=tuple(sorted(origins)),
            seed=self.seed,
            kind=kind,
            places=(first, second),
        )
        pair = Pair(first, second, record)
        if first == second:
            return [pair]
        return [pair, Pair(second, first, record.reversed())]


def _difference(first: Sequence[Heard], second: Sequence[Heard]) -> tuple[Edit, ...]:
    """Return what differs between two scenes: the sounds that only one of them has."""
    if len(first) == 1 and len(second) == 1:
        return only_of_one([Edit(EditKind.REPLACED, first[0].what, second[0].what)])
    removed = [Edit(EditKind.REMOVED, one.what) for one in first]
    return only_of_one([*removed, *(Edit(EditKind.ADDED, one.what) for one in second)])


# --- what follows physically --------------------------------------------------------------------


def rendered(first: Acoustics, second: Acoustics) -> dict[str, float]:
    """Return measured differences, audio 2 minus audio 1, but centroid_ratio: 2 over 1.

    level_db, a_level_db; low_db, middle_db, high_db: of the bands; onsets_per_s.
    """
    before, after = _summary(first), _summary(second)
    differences = {name: round(after[name] - before[name], 2) + 0.0 for name in before}
    ratio = max(second.centroid_hz, 1.0) / max(first.centroid_hz, 1.0)
    return differences | {CENTROID_RATIO: float(f"{ratio:.4g}")}


def _summary(acoustics: Acoustics) -> dict[str, float]:
    powers = 10.0 ** (np.array(acoustics.third_octave_dbfs) / 10.0)
    centres = np.array(third_octave_centres_hz(SAMPLE_RATE_HZ))[: len(powers)]
    bands = {
        f"{name}_db": 10.0
        * float(np.log10(powers[(centres >= low_hz) & (centres < high_hz)].sum() + 1e-12))
        for name, (low_hz, high_hz) in BAND_EDGES_HZ.items()
    }
    return {
        "level_db": acoustics.level_dbfs,
        "a_level_db": acoustics.a_level_dbfs,
        **bands,
        "onsets_per_s": acoustics.onsets_per_s,
    }

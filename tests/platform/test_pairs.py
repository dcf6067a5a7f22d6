"""Pairs of recordings: what their records say was done is what is measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from soundpost.audio.acoustics import measure
from soundpost.errors import DataMissingError, InvalidValueError
from soundpost.training import pair_draws
from soundpost.training.data import Clip
from soundpost.training.pair_draws import Drawn, together
from soundpost.training.pair_edits import (
    banded,
    coloured_noise,
    first_burst,
    lasting,
    loudness,
    reverberant,
    rms,
    room_response,
    shifted,
    stretched,
)
from soundpost.training.pair_records import CENTROID_RATIO, Edit, EditKind, Heard, PairRecord
from soundpost.training.pair_scene_draws import draw_scene
from soundpost.training.pair_scenes import (
    AddedNoise,
    PairPool,
    PairScene,
    Part,
    Room,
    Source,
    Stage,
    load_pair_pool,
    pair_pool,
    split_rows,
)
from soundpost.training.pairs import Group, make_group, render_pair

RATE_HZ = 16_000
FloatArray = NDArray[np.float32]
# The last two are of the motor.
SEEDS = (*range(12), 18, 26)
# A sound of each sort: short ones to count, rhythmic ones, pitched ones, noise that goes on.
LABELS = {
    "dog": "bursts",
    "door_wood_knock": "bursts",
    "cat": "tone",
    "siren": "tone",
    "crying_baby": "bursts",
    "rain": "noise",
    "street_music": "tone",
    "coughing": "bursts",
}


def _tone(pitch_hz: float, seconds: float) -> FloatArray:
    times = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return (0.2 * np.sin(2.0 * np.pi * pitch_hz * times)).astype(np.float32)


def _sound(sort: str, number: int, seconds: float = 4.0) -> NDArray[np.int16]:
    rng = np.random.default_rng(number)
    wave = 0.2 * rng.standard_normal(round(seconds * RATE_HZ)).astype(np.float32)
    if sort == "tone":
        wave = _tone(300.0 + 37.0 * number, seconds)
    if sort == "bursts":
        phase = (np.arange(len(wave)) / RATE_HZ) % 1.0
        wave[phase > 0.3] = 0.0
    return np.asarray(np.clip(wave, -1.0, 1.0) * 32_767.0, np.int16)


def clips_and_waves() -> tuple[list[Clip], list[NDArray[np.int16]]]:
    """Two clips of every label in each fold, and the motor."""
    clips, waves = [], []
    for place, (label, sort) in enumerate(LABELS.items()):
        for fold in (1, 2, 3, 4):
            for take in range(2):
                number = 10 * place + 2 * fold + take
                name = f"esc50/{fold}-{number}-A-0.opus"
                clips.append(Clip(name, 4.0, "esc50", fold, label, f"{fold}-{number}"))
                waves.append(_sound(sort, number))
    for label in ("propeller", "no_propeller"):
        for throttle in (20, 30, 50, 60):
            for take in range(3):
                name = f"motor/motor_m1_{label}_{throttle}pct_{take:03d}.opus"
                clips.append(Clip(name, 2.0, "motor", None, label, "m1"))
                turning = _tone(100.0 + 2.5 * throttle + take, 2.0) * 20_000.0
                waves.append((turning / (4.0 if label == "propeller" else 1.0)).astype(np.int16))
    return clips, waves


@pytest.fixture(scope="module")
def pool() -> PairPool:
    return pair_pool(*clips_and_waves(), "train")


@pytest.fixture(scope="module")
def groups(pool: PairPool) -> list[Group]:
    return [make_group(pool, seed) for seed in SEEDS]


def _peak_hz(wave: FloatArray) -> float:
    power = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
    return float(np.argmax(power)) * RATE_HZ / len(wave)


def _level_db(wave: FloatArray) -> float:
    return 20.0 * float(np.log10(rms(wave)))


# --- signal processing --------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0.6, 1.3, 1.8])
def test_stretching_keeps_pitch_and_level(factor: float) -> None:
    wave = _tone(440.0, 2.0)
    made = stretched(wave, factor)
    assert len(made) == round(len(wave) * factor)
    inner = made[RATE_HZ // 4 : -RATE_HZ // 4]
    assert _peak_hz(inner) == pytest.approx(440.0, abs=2.0)
    assert _level_db(inner) == pytest.approx(_level_db(wave), abs=0.2)


@pytest.mark.parametrize("factor", [0.7, 1.5])
def test_stretching_moves_beats_apart(factor: float) -> None:
    wave = np.zeros(2 * RATE_HZ, np.float32)
    for start_s in (0.5, 1.0):
        start = round(start_s * RATE_HZ)
        wave[start : start + 800] = _tone(1_000.0, 0.05)
    made = np.abs(stretched(wave, factor))
    half = round(0.75 * factor * RATE_HZ)
    gap = (half + int(np.argmax(made[half:])) - int(np.argmax(made[:half]))) / RATE_HZ
    assert gap == pytest.approx(0.5 * factor, abs=0.05)


@pytest.mark.parametrize("semitones", [-8.0, -3.0, 5.0])
def test_shifting_moves_the_pitch_alone(semitones: float) -> None:
    wave = _tone(600.0, 2.0)
    made = shifted(wave, semitones)
    assert len(made) == len(wave)
    assert _peak_hz(made) == pytest.approx(600.0 * 2.0 ** (semitones / 12.0), rel=0.005)


@pytest.mark.parametrize(
    ("name", "inside_hz", "outside_hz"),
    [("low", 150.0, 1_000.0), ("middle", 800.0, 100.0), ("high", 4_000.0, 1_000.0)],
)
@pytest.mark.parametrize("gain_db", [-15.0, 12.0])
def test_a_band_moves_by_its_gain_and_nothing_else(
    name: str, inside_hz: float, outside_hz: float, gain_db: float
) -> None:
    for pitch_hz, moved_db in ((inside_hz, gain_db), (outside_hz, 0.0)):
        wave = _tone(pitch_hz, 2.0)
        inner = slice(RATE_HZ // 2, -RATE_HZ // 2)
        moved = _level_db(banded(wave, name, gain_db)[inner]) - _level_db(wave[inner])
        assert moved == pytest.approx(moved_db, abs=0.2)


@pytest.mark.parametrize("rt60_s", [0.6, 1.5])
def test_a_room_decays_as_it_says_and_keeps_the_level(rt60_s: float) -> None:
    response = room_response(rt60_s, np.random.default_rng(1))
    energy = np.cumsum(np.square(response[1:], dtype=np.float64)[::-1])[::-1]
    decay_db = 10.0 * np.log10(energy / energy[0])
    first, last = np.argmax(decay_db < -5.0), np.argmax(decay_db < -25.0)
    assert 3.0 * (last - first) / RATE_HZ == pytest.approx(rt60_s, rel=0.1)
    wave = _sound("bursts", 1).astype(np.float32) / 32_768.0
    assert rms(reverberant(wave, response)) == pytest.approx(rms(wave), rel=1e-3)


@pytest.mark.parametrize("colour", ["white", "pink"])
def test_noise_has_unit_level_and_its_colour(colour: str) -> None:
    wave = coloured_noise(colour, 4 * RATE_HZ, np.random.default_rng(2))
    assert rms(wave) == pytest.approx(1.0, rel=0.02)
    levels = measure(wave / 10.0, RATE_HZ).third_octave_dbfs
    # A third of an octave is as loud as any other in pink noise, and 1 dB louder in white.
    assert levels[20] - levels[10] == pytest.approx(10.0 if colour == "white" else 0.0, abs=1.5)


def test_the_first_of_several_bursts_is_found() -> None:
    wave = np.zeros(3 * RATE_HZ, np.float32)
    wave[RATE_HZ // 2 : RATE_HZ] = 0.5
    wave[2 * RATE_HZ : 2 * RATE_HZ + 800] = 0.5
    burst = first_burst(wave)
    assert burst is not None
    assert burst[0] <= RATE_HZ // 2 and RATE_HZ <= burst[1] <= RATE_HZ + 1_600
    assert first_burst(np.ones(3 * RATE_HZ, np.float32)) is None
    assert first_burst(np.zeros(0, np.float32)) is None


def test_a_sound_that_goes_on_is_joined_without_a_step() -> None:
    wave = coloured_noise("pink", RATE_HZ, np.random.default_rng(3))
    made = lasting(wave, 3 * RATE_HZ + 17)
    assert len(made) == 3 * RATE_HZ + 17
    assert np.abs(np.diff(made)).max() <= 2.0 * np.abs(np.diff(wave)).max()
    np.testing.assert_array_equal(lasting(wave, 100), wave[:100])


# --- edits of a scene ---------------------------------------------------------------------------


def _scene(*parts: Part) -> PairScene:
    return PairScene(parts, 6.0, -30.0, -60.0, 5)


def _part(pool: PairPool, what: str, start_s: float = 1.0, **fields: object) -> Part:
    row = pool.sounds.members[what][0]
    part = Part(what, Source(clip=row), start_s, 1.0, 0.0)
    return replace(part, **fields)  # type: ignore[arg-type]  # fields of a part, by name


def _drawn(name: str, stage: Stage, scene: PairScene, kind: EditKind) -> Drawn:
    for seed in range(60):
        drawn = pair_draws.CLIP_DRAWS[name](stage, scene, np.random.default_rng(seed))
        if drawn is not None and drawn.edits[0].kind is kind:
            return drawn
    raise LookupError(name)


@pytest.mark.parametrize("kind", [EditKind.LOUDER, EditKind.SOFTER])
def test_a_whole_recording_is_louder_by_what_is_said(pool: PairPool, kind: EditKind) -> None:
    stage, scene = Stage(pool), _scene(_part(pool, "dog"))
    drawn = _drawn("level", stage, scene, kind)
    change_db = _level_db(stage.render(drawn.scene)) - _level_db(stage.render(scene))
    amount_db = drawn.edits[0].amount or 0.0
    assert 3.0 <= amount_db <= 15.0
    assert abs(change_db) == pytest.approx(amount_db, abs=0.01)
    assert (change_db > 0) == (kind is EditKind.LOUDER)


@pytest.mark.parametrize("kind", [EditKind.LOUDER, EditKind.SOFTER])
def test_one_event_is_louder_and_the_rest_is_as_before(pool: PairPool, kind: EditKind) -> None:
    stage = Stage(pool)
    scene = _scene(_part(pool, "cat", 0.5), _part(pool, "rain", 3.5))
    drawn = _drawn("level of one", stage, scene, kind)
    before, after = stage.render(scene), stage.render(drawn.scene)
    part = next(p for p in scene.parts if p.what == drawn.edits[0].what)
    inside = slice(round(part.start_s * RATE_HZ) + 400, round(part.end_s * RATE_HZ) - 400)
    change_db = _level_db(after[inside]) - _level_db(before[inside])
    assert abs(change_db) == pytest.approx(drawn.edits[0].amount, abs=0.2)
    start, end = round(part.start_s * RATE_HZ), round(part.end_s * RATE_HZ) + 1
    np.testing.assert_array_equal(before[:start], after[:start])
    np.testing.assert_array_equal(before[end:], after[end:])


@pytest.mark.parametrize("kind", [EditKind.EARLIER, EditKind.LATER])
def test_an_event_moves_by_what_is_said(pool: PairPool, kind: EditKind) -> None:
    stage, scene = Stage(pool), _scene(_part(pool, "cat", 2.4))
    drawn = _drawn("time", stage, scene, kind)
    starts = [
        int(np.argmax(np.abs(stage.render(one)) > 0.003)) / RATE_HZ for one in (scene, drawn.scene)
    ]
    amount_s = drawn.edits[0].amount or 0.0
    assert amount_s >= 1.0
    expected_s = amount_s if kind is EditKind.LATER else -amount_s
    assert starts[1] - starts[0] == pytest.approx(expected_s, abs=0.02)


@pytest.mark.parametrize(("count", "kind"), [(1, EditKind.MORE), (3, EditKind.FEWER)])
def test_an_event_is_heard_more_or_fewer_times(pool: PairPool, count: int, kind: EditKind) -> None:
    stage = Stage(pool)
    part = _part(pool, "dog", 0.5, lasts_s=0.25, count=count, every_s=0.8)
    scene = _scene(part)
    drawn = _drawn("count", stage, scene, kind)
    power = np.square(stage.render(drawn.scene)).reshape(-1, 400).mean(axis=1)
    loud = np.r_[False, power > 0.05 * power.max()]
    sign = 1 if kind is EditKind.MORE else -1
    assert np.count_nonzero(loud[1:] & ~loud[:-1]) == count + sign * (drawn.edits[0].amount or 0)


@pytest.mark.parametrize("kind", [EditKind.FASTER, EditKind.SLOWER])
def test_an_event_goes_faster_at_the_same_pitch(pool: PairPool, kind: EditKind) -> None:
    stage = Stage(pool)
    scene = _scene(_part(pool, "siren", 0.2, lasts_s=2.0))
    drawn = _drawn("pace", stage, scene, kind)
    seconds = [
        np.count_nonzero(np.abs(stage.render(one)) > 0.005) / RATE_HZ
        for one in (scene, drawn.scene)
    ]
    ratio = drawn.edits[0].amount or 0.0
    expected = 1.0 / ratio if kind is EditKind.FASTER else ratio
    assert seconds[1] / seconds[0] == pytest.approx(expected, rel=0.05)
    peaks = [_peak_hz(stage.render(one)) for one in (scene, drawn.scene)]
    assert peaks[1] == pytest.approx(peaks[0], rel=0.01)


@pytest.mark.parametrize("kind", [EditKind.FASTER, EditKind.SLOWER])
def test_repetitions_come_faster(pool: PairPool, kind: EditKind) -> None:
    stage = Stage(pool)
    scene = _scene(_part(pool, "dog", 0.2, lasts_s=0.25, count=3, every_s=0.8))
    made = _drawn("pace", stage, scene, kind)
    ratio = made.edits[0].amount or 0.0
    expected_s = 0.8 / ratio if kind is EditKind.FASTER else 0.8 * ratio
    assert made.scene.parts[0].every_s == pytest.approx(expected_s, abs=0.01)


@pytest.mark.parametrize("kind", [EditKind.HIGHER, EditKind.LOWER])
def test_an_event_is_higher_by_semitones(pool: PairPool, kind: EditKind) -> None:
    stage = Stage(pool)
    scene = _scene(_part(pool, "cat", 0.5, lasts_s=2.0))
    drawn = _drawn("pitch", stage, scene, kind)
    peaks = [_peak_hz(stage.render(one)) for one in (scene, drawn.scene)]
    semitones = 12.0 * np.log2(peaks[1] / peaks[0])
    assert abs(semitones) == pytest.approx(drawn.edits[0].amount, abs=0.15)
    assert (semitones > 0) == (kind is EditKind.HIGHER)


def test_a_synthetic_machine_turns_faster_by_the_ratio(pool: PairPool) -> None:
    stage = Stage(pool)
    pump = Part("pump", Source(kind="pump", seed=3, params=(("stroke_hz", 2.5),)), 0.0, 6.0, 0.0)
    scene = _scene(replace(pump, throughout=True))
    drawn = _drawn("pace", stage, scene, EditKind.FASTER)
    ((_, stroke_hz),) = drawn.scene.parts[0].source.params
    assert stroke_hz / 2.5 == pytest.approx(drawn.edits[0].amount, rel=0.01)
    assert len(drawn.edits) == 1


def test_noise_is_added_at_the_ratio_that_is_said(pool: PairPool) -> None:
    stage, scene = Stage(pool), _scene(_part(pool, "cat", 0.0, lasts_s=6.0))
    scene = replace(scene, noise_db=-80.0)
    noisy = replace(scene, noise=AddedNoise("white", 8.0, 4))
    hush = stage.render(noisy) - stage.render(scene)
    ratio_db = 20.0 * np.log10(loudness(stage.render(scene)) / rms(hush))
    assert ratio_db == pytest.approx(8.0, abs=0.2)


def test_two_edits_of_the_whole_are_made_in_turn(pool: PairPool) -> None:
    stage, scene = Stage(pool), _scene(_part(pool, "dog", 0.5))
    quiet = replace(scene, room=Room(0.8, 1), band=("high", -12.0))
    loud = replace(quiet, gain_db=6.0)
    np.testing.assert_allclose(stage.render(loud), stage.render(quiet) * 10.0**0.3, rtol=1e-4)


def test_what_others_drown_is_not_heard(pool: PairPool) -> None:
    stage = Stage(pool)
    rain = _part(pool, "rain", 0.0, lasts_s=6.0)
    assert stage.heard(_scene(rain, _part(pool, "dog", 2.0)))
    assert not stage.heard(_scene(rain, _part(pool, "dog", 2.0, level_db=-18.0)))


def test_a_room_needs_a_sound_that_ends(pool: PairPool) -> None:
    scene = _scene(_part(pool, "rain", 0.0, lasts_s=6.0))
    assert pair_draws.reverberate(Stage(pool), scene, np.random.default_rng(0)) is None


def test_edits_of_one_thing_do_not_go_together() -> None:
    louder, later = Edit(EditKind.LOUDER, "dog"), Edit(EditKind.LATER, "dog")
    assert not together([louder], [later])
    assert together([louder], [Edit(EditKind.LATER, "rain")])
    assert not together([louder], [Edit(EditKind.SOFTER)])
    assert together([later], [Edit(EditKind.SOFTER)])
    assert not together([Edit(EditKind.NOISE_MORE)], [Edit(EditKind.BAND_CUT, "low")])
    assert not together([Edit(EditKind.ADDED, "rooster")], [Edit(EditKind.REPLACED, "dog", "hen")])


# --- groups -------------------------------------------------------------------------------------


def _pairs(groups: list[Group]) -> list[tuple[Group, PairRecord]]:
    return [(group, pair.record) for group in groups for pair in group.pairs]


def test_nothing_passes_full_scale_and_scenes_are_five_to_ten_seconds(groups: list[Group]) -> None:
    for group in groups:
        for wave in group.recordings:
            assert wave.dtype == np.float32
            assert np.isfinite(wave).all() and 0.0 < np.abs(wave).max() < 1.0
            assert 5 * RATE_HZ <= len(wave) <= 10 * RATE_HZ


def test_reversing_twice_is_the_same_record(groups: list[Group]) -> None:
    for _, record in _pairs(groups):
        twice = record.reversed().reversed()
        assert replace(twice, rendered={}) == replace(record, rendered={})
        assert twice.rendered == pytest.approx(record.rendered)


def test_documents_round_trip(groups: list[Group]) -> None:
    for _, record in _pairs(groups):
        assert PairRecord.from_document(record.to_document()) == record
    with pytest.raises(InvalidValueError):
        PairRecord.from_document({"edits": []})


def test_every_pair_is_there_both_ways(groups: list[Group]) -> None:
    for group in groups:
        records = {(pair.first, pair.second): pair.record for pair in group.pairs}
        assert len(records) == len(group.pairs)
        for (first, second), record in records.items():
            other = records[second, first]
            assert other.edits == record.reversed().edits
            assert record.places == (first, second)


def test_records_fit_what_is_heard(groups: list[Group]) -> None:
    for _, record in _pairs(groups):
        if record.kind == "different" or len(record.edits) != 1:
            continue
        edit = record.edits[0]
        heard = [{one.what: one for one in side} for side in (record.heard_1, record.heard_2)]
        match edit.kind:
            case EditKind.ADDED:
                assert edit.what in heard[1] and edit.what not in heard[0]
            case EditKind.REPLACED:
                assert edit.what in heard[0] and edit.other in heard[1]
            case EditKind.MORE:
                assert (
                    heard[1][str(edit.what)].count - heard[0][str(edit.what)].count == edit.amount
                )
            case EditKind.LATER:
                moved_s = heard[1][str(edit.what)].start_s - heard[0][str(edit.what)].start_s
                assert moved_s == pytest.approx(edit.amount, abs=0.011)
            case _:
                assert set(heard[0]) >= set(heard[1]) or edit.kind is EditKind.REMOVED


def test_measured_differences_follow_the_record(groups: list[Group]) -> None:
    seen: set[EditKind] = set()
    for _, record in _pairs(groups):
        if len(record.edits) == 1 and record.kind == "edited":
            edit = record.edits[0]
            if edit.kind is EditKind.LOUDER and edit.what is None:
                assert record.rendered["level_db"] == pytest.approx(edit.amount, abs=0.2)
                assert record.rendered[CENTROID_RATIO] == pytest.approx(1.0, abs=0.01)
                seen.add(edit.kind)
            if edit.kind is EditKind.BAND_BOOST:
                # Less where what is in the band lies at its edge.
                assert record.rendered[f"{edit.what}_db"] >= 0.4 * (edit.amount or 0.0)
                seen.add(edit.kind)
        if not record.edits:
            assert abs(record.rendered["level_db"]) < 0.3
    assert len(seen) == 2


def test_nothing_is_said_of_the_whole_that_another_edit_undoes(pool: PairPool) -> None:
    group = make_group(pool, 0, measured=False)
    loud, soft = (measure(gain * group.recordings[0], RATE_HZ) for gain in (1.0, 0.1))
    turned_up = (Edit(EditKind.LOUDER, amount=8.0, unit="dB"), Edit(EditKind.REMOVED, "dog"))
    pair = replace(group.pairs[0], record=replace(group.pairs[0].record, edits=turned_up))
    group = replace(group, pairs=(replace(pair, first=0, second=1),))
    assert not group.measured([loud, soft]).pairs
    assert group.measured([soft, loud]).pairs


def test_groups_hold_every_kind_of_pair(groups: list[Group]) -> None:
    records = [record for _, record in _pairs(groups)]
    assert {record.kind for record in records} == {
        "edited", "different", "motor", "synthetic", "identical",
    }  # fmt: skip
    kinds = {edit.kind for record in records for edit in record.edits}
    assert set(EditKind) - kinds <= {EditKind.REVERB_MORE, EditKind.REVERB_LESS}
    assert any(len(record.edits) == 2 and record.kind == "edited" for record in records)


def test_different_scenes_share_no_sound(groups: list[Group]) -> None:
    for _, record in _pairs(groups):
        if record.kind == "different":
            names = [{one.what for one in side} for side in (record.heard_1, record.heard_2)]
            assert not names[0] & names[1]
            gone = {edit.what for edit in record.edits if edit.kind is not EditKind.ADDED}
            assert gone == names[0]


def test_a_sound_of_both_scenes_is_no_difference(pool: PairPool) -> None:
    # In this group the sound that was put in the place of another is one of the other scene, too.
    records = [pair.record for pair in make_group(pool, 37, measured=False).pairs]
    shared = 0
    for record in (one for one in records if one.kind == "different"):
        first, second = ({one.what for one in side} for side in (record.heard_1, record.heard_2))
        shared += len(first & second)
        assert {edit.what for edit in record.edits} == first ^ second
    assert shared


def test_a_group_is_its_seed(pool: PairPool, groups: list[Group]) -> None:
    again = make_group(pool, 3)
    assert again.pairs == groups[3].pairs
    for first, second in zip(again.recordings, groups[3].recordings, strict=True):
        np.testing.assert_array_equal(first, second)
    waves = render_pair(pool, again.pairs[-1].record)
    np.testing.assert_array_equal(waves[0], again.recordings[again.pairs[-1].first])
    np.testing.assert_array_equal(waves[1], again.recordings[again.pairs[-1].second])


def test_the_motor_says_its_throttle(groups: list[Group]) -> None:
    edits = [e for _, record in _pairs(groups) if record.kind == "motor" for e in record.edits]
    throttle = [edit for edit in edits if edit.unit == "% throttle"]
    assert throttle and {edit.what for edit in throttle} == {"motor"}
    assert {edit.amount for edit in throttle} == {30.0}
    higher = [edit for edit in edits if edit.unit == "ratio"]
    assert all(edit.amount == pytest.approx(250.0 / 175.0, abs=0.05) for edit in higher)


# --- splits -------------------------------------------------------------------------------------


def test_no_origin_is_in_two_splits() -> None:
    clips, waves = clips_and_waves()
    # A recording that was cut into clips of two folds.
    clips[2] = replace(clips[2], origin="shared")
    clips[6] = replace(clips[6], origin="shared")
    origins = [set(pair_pool(clips, waves, split).origins.values()) for split in _SPLITS]
    assert all(origins)
    for first in range(3):
        for second in range(first):
            assert not origins[first] & origins[second]
    everything = set(pair_pool(clips, waves, "everything").origins.values())
    assert origins[0] | origins[1] <= everything
    assert not everything & origins[2]


_SPLITS = ("train", "dev", "test")


def test_splits_are_by_fold() -> None:
    clips, _ = clips_and_waves()
    for split, folds in (("train", {1, 2}), ("dev", {3}), ("test", {4})):
        rows = split_rows(clips, split)
        assert {clips[row].fold for row in rows if clips[row].dataset == "esc50"} == folds
    with pytest.raises(InvalidValueError):
        split_rows(clips, "validation")


def test_missing_data_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataMissingError):
        load_pair_pool(tmp_path, tmp_path / "cache", "train")


def test_scenes_avoid_what_cannot_be_told_apart(pool: PairPool) -> None:
    for seed in range(10):
        scene = draw_scene(Stage(pool), np.random.default_rng(seed), avoid=["dog", "rain"])
        assert not {part.what for part in scene.parts} & {"dog", "rain"}


def test_heard_events_keep_their_order(groups: list[Group]) -> None:
    for group in groups:
        for heard in group.heard:
            starts = [one.start_s for one in heard]
            assert starts == sorted(starts)
            assert all(isinstance(one, Heard) and one.end_s > one.start_s for one in heard)

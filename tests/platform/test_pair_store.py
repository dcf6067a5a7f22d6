"""Pairs on disk: what is read is what was made, and what was cut short goes on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from soundpost.audio.acoustics import Acoustics, measure
from soundpost.errors import InvalidValueError, PairsMissingError
from soundpost.models.placeholder import ToneEncoder
from soundpost.training import pair_store
from soundpost.training.data import Clip
from soundpost.training.pair_records import Edit, EditKind, PairRecord, lean
from soundpost.training.pair_scenes import PairPool, pair_pool
from soundpost.training.pair_store import (
    PairSet,
    SetConfig,
    join,
    listen_with,
    load_pairs,
    make_set,
    open_set,
    read_config,
)
from soundpost.training.pairs import Pair, make_group

RATE_HZ = 16_000
FloatArray = NDArray[np.float32]


class Ear:
    """Hears the first and the last sample and the level; counts what it heard."""

    def __init__(self) -> None:
        self.heard = 0

    def __call__(self, waves: Sequence[FloatArray]) -> tuple[FloatArray, list[Acoustics]]:
        self.heard += len(waves)
        acoustics = [measure(wave, RATE_HZ) for wave in waves]
        vectors = [
            [wave[0], wave[-1], one.level_dbfs] for wave, one in zip(waves, acoustics, strict=True)
        ]
        return np.array(vectors, np.float32), acoustics


@pytest.fixture(scope="module")
def pool() -> PairPool:
    clips, waves = [], []
    for number, label in enumerate(("dog", "rain", "cat", "siren", "coughing", "glass_breaking")):
        wave = np.random.default_rng(number).standard_normal(3 * RATE_HZ) * 4_000.0
        if number % 2:
            wave[np.arange(len(wave)) % RATE_HZ > RATE_HZ // 4] = 0.0
        clips.append(Clip(f"esc50/{number}.opus", 3.0, "esc50", 1, label, str(number)))
        waves.append(wave.astype(np.int16))
    return pair_pool(clips, waves, "train")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_store, "CHUNK_GROUPS", 2)


CONFIG = SetConfig("train", "ear 1", groups=5, first_group=3)


def test_a_set_holds_the_groups_that_were_made(pool: PairPool, tmp_path: Path) -> None:
    assert make_set(tmp_path, CONFIG, pool, Ear())
    kept = load_pairs(tmp_path)
    groups = [make_group(pool, seed) for seed in range(3, 8)]
    waves = [wave for group in groups for wave in group.recordings]
    levels = [measure(wave, RATE_HZ).level_dbfs for wave in waves]
    np.testing.assert_allclose(kept.vectors[:, 2], levels, rtol=1e-3)
    assert [pair.record for pair in kept.pairs] == [
        pair.record for group in groups for pair in group.pairs
    ]
    first = len(groups[0].recordings)
    later = [pair for pair in kept.pairs if pair.record.seed == 4]
    assert all(pair.first == first + pair.record.places[0] for pair in later)
    assert read_config(tmp_path) == CONFIG


def test_a_set_that_was_cut_short_goes_on(pool: PairPool, tmp_path: Path) -> None:
    ear = Ear()
    assert not make_set(tmp_path / "cut", CONFIG, pool, ear, most_chunks=2)
    with pytest.raises(PairsMissingError):
        load_pairs(tmp_path / "cut")
    # What was killed while it was being written is made anew.
    (tmp_path / "cut" / "chunks" / "000007.partial").write_bytes(b"PK")
    before = ear.heard
    assert make_set(tmp_path / "cut", CONFIG, pool, ear)
    assert ear.heard - before == len(make_group(pool, 7, measured=False).recordings)
    make_set(tmp_path / "whole", CONFIG, pool, Ear())
    for name in ("vectors.npy", "pairs.jsonl", "recordings.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_folder_of_another_set_is_left_alone(tmp_path: Path) -> None:
    open_set(tmp_path, CONFIG)
    with pytest.raises(InvalidValueError):
        open_set(tmp_path, replace(CONFIG, encoder="ear 2"))
    assert read_config(tmp_path) == CONFIG


def test_a_folder_without_a_set_is_said(tmp_path: Path) -> None:
    for read in (load_pairs, read_config):
        with pytest.raises(PairsMissingError):
            read(tmp_path)


def test_sets_are_joined_by_row(pool: PairPool, tmp_path: Path) -> None:
    make_set(tmp_path, replace(CONFIG, groups=2), pool, Ear())
    one = load_pairs(tmp_path)
    both = join([one, one])
    assert len(both.vectors) == 2 * len(one.vectors)
    last = both.pairs[-1]
    assert last.record == one.pairs[-1].record
    np.testing.assert_array_equal(both.vectors[last.first], one.vectors[one.pairs[-1].first])
    assert join([one]) is one


def test_sounds_of_both_scenes_are_left_out_of_older_sets(pool: PairPool, tmp_path: Path) -> None:
    make_set(tmp_path, replace(CONFIG, groups=2), pool, Ear())
    dog, gone = Edit(EditKind.ADDED, "dog"), Edit(EditKind.REMOVED, "dog")
    rain, cat = Edit(EditKind.ADDED, "rain"), Edit(EditKind.REMOVED, "cat")
    told = [(dog, gone, rain), (dog, gone), (Edit(EditKind.REPLACED, "dog", "dog"),), (cat, rain)]
    rows = [
        {"first": 0, "second": 1, "kind": "different", "edits": lean(edits), "rendered": {}}
        for edits in told
    ]
    rows.append({**rows[1], "kind": "edited"})
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "pairs.jsonl").write_text(lines, encoding="utf-8")
    kept = [pair.record.edits for pair in load_pairs(tmp_path).pairs]
    assert kept == [(rain,), (cat, rain), (dog, gone)]


def _pair(*kinds: EditKind, kind: str = "edited") -> Pair:
    whats = ("dog", "rain")
    edits = tuple(Edit(one, what) for one, what in zip(kinds, whats, strict=False))
    return Pair(0, 1, PairRecord(edits, (), (), 5.0, 5.0, kind=kind))


def test_kinds_are_drawn_equally_often() -> None:
    pairs = [_pair(EditKind.ADDED)] * 500 + [_pair(EditKind.MORE)] * 3
    pairs += [_pair(), _pair(EditKind.ADDED, EditKind.LATER)] * 5
    pairs += [_pair(EditKind.REPLACED, kind="different")]
    drawn = PairSet(np.zeros((2, 3), np.float16), pairs).draw(np.random.default_rng(1), 4_000)
    share = {
        name: sum(pair.record.edits == other.record.edits for pair in drawn) / len(drawn)
        for name, other in (("more", pairs[500]), ("none", pairs[503]), ("two", pairs[504]))
    }
    assert share["more"] == pytest.approx(0.35, abs=0.03)
    assert share["none"] == pytest.approx(0.08, abs=0.02)
    assert share["two"] == pytest.approx(0.12, abs=0.02)
    assert sum(pair.record.kind == "different" for pair in drawn) / 4_000 == pytest.approx(
        0.10, abs=0.02
    )


def test_vectors_of_pairs_are_given_as_two_batches() -> None:
    one = PairSet(np.arange(6, dtype=np.float16).reshape(2, 3), [_pair()])
    first, second = one.both(one.pairs)
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, [[0, 1, 2]])
    np.testing.assert_array_equal(second, [[3, 4, 5]])


def test_an_encoder_hears_recordings(pool: PairPool) -> None:
    waves = make_group(pool, 0, measured=False).recordings
    vectors, acoustics = listen_with(ToneEncoder())(waves)
    assert len(vectors) == len(acoustics) == len(waves)
    assert np.isfinite(vectors.astype(np.float16)).all()

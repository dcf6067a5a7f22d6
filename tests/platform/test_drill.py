"""The drill: known changes in copies of a reference, on tones and the stand-in encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sqlalchemy import select

from soundpost.archive.discover import Selection, find_files
from soundpost.archive.ingest import ingest
from soundpost.archive.plan import IngestOptions
from soundpost.archive.waves import WaveEmbedder
from soundpost.audio.changes import (
    SOUNDS,
    TONE,
    TREATMENTS,
    Sound,
    a_level_dbfs,
    add_sound,
    make_sound,
)
from soundpost.audio.decode import read_audio
from soundpost.errors import (
    BaselineModelError,
    BaselineStateError,
    BaselineTooSmallError,
    InvalidValueError,
    ReferenceAudioGoneError,
)
from soundpost.models.encoder import EncoderSpec
from soundpost.models.placeholder import ToneEncoder
from soundpost.monitoring import baselines as watching
from soundpost.monitoring.baselines import Choice
from soundpost.monitoring.drill import DrillOptions, drill
from soundpost.monitoring.drill_results import (
    Drilled,
    Trial,
    caught_from,
    isotonic,
    summarise,
)
from soundpost.monitoring.watch import begin_watching
from soundpost.store import models, sources, windows
from soundpost.store.files import AudioFiles
from soundpost.store.session import Store
from soundpost.store.tables import Recording, Table
from soundpost_indexer.exact import ExactIndex

RATE_HZ = 8_000
FEW = DrillOptions(
    copies=4,
    copy_s=24.0,
    levels_db=(-20.0, 0.0, 20.0),
    budget_s=3600.0,
    sounds=(Sound("tone", TONE, lasting=False), Sound("tone", TONE, lasting=True)),
    treatments=TREATMENTS[:1],
)


def hum(seconds: float, seed: int, pitch_hz: float = 220.0) -> NDArray[np.float32]:
    """A steady tone in noise, a little different each time."""
    rng = np.random.default_rng(seed)
    times_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    beat = 1.0 + 0.1 * np.sin(2 * np.pi * rng.uniform(0.1, 0.4) * times_s + rng.uniform(0, 6))
    wave = 0.05 * beat * np.sin(2 * np.pi * pitch_hz * times_s)
    return (wave + 0.01 * rng.normal(size=len(times_s))).astype(np.float32)


@dataclass
class Yard:
    """A source of humming recordings, watched by a baseline of all of them."""

    store: Store
    folder: Path
    files: AudioFiles

    def record(self, count: int, seconds: float) -> None:
        audio = self.folder / "audio"
        audio.mkdir(exist_ok=True)
        for number in range(count):
            wave = hum(seconds, number)
            soundfile.write(audio / f"{number:02d}.wav", wave, RATE_HZ, subtype="PCM_16")
        found = find_files([audio], Selection())
        index = ExactIndex(32)
        options = IngestOptions(source="yard")
        assert not ingest(found, options, self.store, ToneEncoder(), index).failed

    def watch(self) -> None:
        with self.store.session() as session:
            models.serve(session, models.ensure(session, ToneEncoder().spec).id)
            source = sources.by_name(session, "yard")
            made = watching.create(session, source, Choice(budget_s=3600.0), "tester")
        watching.prepare(self.store, made.id)
        with self.store.session() as session:
            begin_watching(session, made.id, "tester")

    def drill(self, options: DrillOptions = FEW, **more: Any) -> Drilled:
        embed = WaveEmbedder(ToneEncoder())
        spec = more.pop("spec", ToneEncoder().spec)
        return drill(self.store, self.files, "yard", embed, spec, options, **more)

    def rows(self) -> dict[str, list[str]]:
        """Every row of every table, as text."""
        with self.store.reading() as session:
            return {
                table.name: sorted(str(tuple(row)) for row in session.execute(select(table)))
                for table in Table.metadata.sorted_tables
            }


@pytest.fixture
def empty_yard(store: Store, tmp_path: Path) -> Yard:
    return Yard(store, tmp_path, AudioFiles(str(tmp_path / "objects")))


@pytest.fixture
def yard(sqlite_store: Store, tmp_path: Path) -> Yard:
    made = Yard(sqlite_store, tmp_path, AudioFiles(str(tmp_path / "objects")))
    made.record(8, 30.0)
    made.watch()
    return made


def test_a_loud_tone_is_noticed_and_the_untouched_copy_is_not(yard: Yard) -> None:
    reported: list[tuple[int, int]] = []
    drilled = yard.drill(report=lambda done, total: reported.append((done, total)))
    assert drilled.untouched.copies == 4
    assert drilled.untouched.alarmed == 0
    tone = next(curve for curve in drilled.curves if curve.kind == "lasting")
    assert tone.shares[-1] == 1.0
    assert tone.delays is not None and 0.0 < tone.delays.median_s <= 24.0
    assert tone.delays.low_s <= tone.delays.median_s <= tone.delays.high_s
    assert len(drilled.trials) == 4 * FEW.trials_a_copy
    assert reported[0] == (0, 28) and reported[-1] == (28, 28)
    assert {trial.detector for trial in drilled.trials} <= {"fast", "slow", None}


@pytest.mark.slow
def test_a_drill_says_the_same_again_and_another_seed_something_else(yard: Yard) -> None:
    first, again = yard.drill(), yard.drill()
    assert first == again
    other = yard.drill(replace(FEW, seed=5))
    assert [t.delay_s for t in other.trials] != [t.delay_s for t in first.trials]


def test_no_table_changes(empty_yard: Yard) -> None:
    empty_yard.record(6, 20.0)
    empty_yard.watch()
    before = empty_yard.rows()
    assert before["windows"] and before["baselines"] and before["rules"]
    empty_yard.drill(replace(FEW, copies=2, copy_s=20.0))
    assert empty_yard.rows() == before


def test_what_nobody_can_hear_is_noticed_no_more_often_than_nothing(yard: Yard) -> None:
    inaudible = replace(FEW, levels_db=(-60.0,), treatments=(), budget_s=20.0)
    drilled = yard.drill(inaudible)
    for curve in drilled.curves:
        assert curve.shares[0] <= drilled.untouched.share


def test_the_judge_has_not_heard_what_it_judges(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: list[set[int]] = []
    refit = watching.refit

    def noting(baseline: Any, timezone: str, reference: Any, dismissed: Any) -> Any:
        known.append(set(reference.recording_ids.tolist()))
        return refit(baseline, timezone, reference, dismissed)

    monkeypatch.setattr(watching, "refit", noting)
    drilled = yard.drill(replace(FEW, copies=8, sounds=FEW.sounds[:1], treatments=()))
    tested = [{t.recording_id for t in drilled.trials if t.copy < 4}]
    tested.append({t.recording_id for t in drilled.trials if t.copy >= 4})
    assert len(known) == 2
    for heard, judged in zip(known, tested, strict=True):
        assert judged and not heard & judged


def test_short_recordings_are_heard_in_a_row(empty_yard: Yard) -> None:
    empty_yard.record(12, 6.0)
    empty_yard.watch()
    drilled = empty_yard.drill(replace(FEW, copies=2))
    assert drilled.copy_s == pytest.approx(24.0)
    assert drilled.tested == 8
    lasting = next(curve for curve in drilled.curves if curve.kind == "lasting")
    assert lasting.shares[-1] == 1.0


def test_missing_audio_is_named_and_the_others_go_on(yard: Yard) -> None:
    (yard.folder / "audio" / "00.wav").unlink()
    (yard.folder / "audio" / "05.wav").write_bytes(b"another content")
    drilled = yard.drill(replace(FEW, copies=8))
    assert sorted(Path(one.path).name for one in drilled.gone) == ["00.wav", "05.wav"]
    assert {one.code for one in drilled.gone} == {"file-missing", "file-changed"}
    assert drilled.untouched.copies == 6
    for path in (yard.folder / "audio").iterdir():
        path.unlink()
    with pytest.raises(ReferenceAudioGoneError, match=r"00\.wav"):
        yard.drill()


def test_what_cannot_be_drilled_says_why(empty_yard: Yard) -> None:
    empty_yard.record(3, 30.0)
    with pytest.raises(BaselineStateError, match="no baseline is active"):
        empty_yard.drill()
    empty_yard.watch()
    with pytest.raises(BaselineTooSmallError, match="3 recordings"):
        empty_yard.drill()
    other: EncoderSpec = replace(ToneEncoder().spec, revision="2")
    with pytest.raises(BaselineModelError):
        empty_yard.drill(spec=other)
    for wrong in ({"copies": 0}, {"groups": 1}, {"copy_s": 1.0}, {"budget_s": 0.0}, {"seed": -1}):
        with pytest.raises(InvalidValueError):
            DrillOptions(**wrong)  # type: ignore[arg-type]  # any field


def test_a_wave_is_heard_as_ingest_hears_a_recording(yard: Yard) -> None:
    path = yard.folder / "audio" / "03.wav"
    (rows,) = WaveEmbedder(ToneEncoder())([read_audio(path)])
    with yard.store.reading() as session:
        key = session.scalars(select(Recording.id).where(Recording.path == str(path))).one()
        stored = windows.heard(session, [key], max(windows.models_of(session, key)))
    assert len(rows) == len(stored) > 10
    for row, kept in zip(rows, stored, strict=True):
        assert (row.start_s, row.end_s) == (kept.start_s, kept.end_s)
        assert dict(row.acoustics) == dict(kept.acoustics)
        assert row.frames.tobytes() == kept.frames
        assert np.allclose(row.vector, np.frombuffer(kept.vector, "<f4"), atol=1e-6)


def test_a_window_heard_before_is_not_encoded_again() -> None:
    embed = WaveEmbedder(ToneEncoder())
    wave = hum(20.0, 1)
    embed([(wave, RATE_HZ)])
    before = embed.windows_encoded
    changed = wave.copy()
    changed[-RATE_HZ:] = 0.0
    embed([(wave, RATE_HZ), (changed, RATE_HZ)])
    assert embed.windows_encoded == before + 1
    assert embed([(wave[:0], RATE_HZ)]) == [[]]


# --- changes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("sound", SOUNDS, ids=lambda sound: f"{sound.name}-{sound.lasting}")
@pytest.mark.parametrize("rate_hz", [4_000, 8_000, 44_100])
def test_a_sound_has_the_level_that_was_asked_for(sound: Sound, rate_hz: int) -> None:
    made = make_sound(sound.kind, 2 * rate_hz, rate_hz, [1, 2])
    assert a_level_dbfs(made, rate_hz) == pytest.approx(0.0, abs=0.1)
    silence = np.zeros(5 * rate_hz, np.float32)
    mixed = add_sound(silence, made, rate_hz, -40.0)
    assert a_level_dbfs(mixed, rate_hz) == pytest.approx(-40.0, abs=0.6)
    assert not mixed[:rate_hz].any() and mixed[rate_hz:].any()


@pytest.mark.parametrize("treatment", TREATMENTS, ids=lambda treatment: treatment.name)
def test_a_treatment_leaves_what_was_before(treatment: Any) -> None:
    rng = np.random.default_rng(3)
    wave = (0.1 * rng.normal(size=20 * RATE_HZ)).astype(np.float32)
    at = 7 * RATE_HZ
    changed = treatment.treat(wave, RATE_HZ, at)
    assert np.array_equal(changed[:at], wave[:at])
    count = min(len(changed), len(wave))
    assert not np.array_equal(changed[at:count], wave[at:count])
    assert len(changed) <= len(wave)


def test_treatments_do_what_they_say() -> None:
    by_name = {treatment.name: treatment.treat for treatment in TREATMENTS}
    wave = hum(8.0, 0, 1_000.0)
    louder = by_name["level +6 dB"](wave, RATE_HZ, 0)
    assert a_level_dbfs(louder, RATE_HZ) - a_level_dbfs(wave, RATE_HZ) == pytest.approx(6, abs=0.01)
    assert _pitch_hz(by_name["speed +12 %"](wave, RATE_HZ, 0)) == pytest.approx(1_120, abs=2)
    assert _pitch_hz(by_name["speed -6 %"](wave, RATE_HZ, 0)) == pytest.approx(940, abs=2)
    assert not by_name["silence for 10 s"](wave, RATE_HZ, 0).any()
    low = hum(8.0, 0, 100.0)
    assert np.std(by_name["high-pass 500 Hz"](low, RATE_HZ, 0)) < 0.5 * np.std(low)
    high = hum(8.0, 0, 3_000.0)
    assert np.std(by_name["low-pass 2000 Hz"](high, RATE_HZ, 0)) < 0.5 * np.std(high)


def _pitch_hz(wave: NDArray[np.float32]) -> float:
    power = np.abs(np.fft.rfft(wave)) ** 2
    return float(power.argmax() * RATE_HZ / len(wave))


# --- results ----------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=12))
def test_louder_is_never_less_detected_in_the_fit(counts: list[tuple[int, int]]) -> None:
    tried = np.array([float(max(a, b)) for a, b in counts])
    shares = np.array([float(a) for a, _ in counts]) / tried
    fitted = isotonic(shares, tried)
    assert (np.diff(fitted) >= -1e-12).all()
    assert fitted @ tried == pytest.approx(shares @ tried)
    # Against the definition: max over beginnings, min over ends, of the means between.
    means = [
        max(
            min(
                np.average(shares[i : j + 1], weights=tried[i : j + 1])
                for j in range(k, len(shares))
            )
            for i in range(k + 1)
        )
        for k in range(len(shares))
    ]
    assert fitted == pytest.approx(np.array(means))


def test_the_level_of_ninety_percent() -> None:
    levels = (-10.0, 0.0, 10.0)
    assert caught_from(levels, np.array([0.0, 0.5, 1.0])) == pytest.approx(8.0)
    assert caught_from(levels, np.array([0.0, 0.9, 1.0])) == pytest.approx(0.0)
    assert caught_from(levels, np.array([0.0, 0.5, 0.8])) == float("inf")
    assert caught_from(levels, np.array([0.95, 1.0, 1.0])) == float("-inf")


def trials(caught: Sequence[float], kind: str = "short") -> list[Trial]:
    """Ten recordings; the number of those that catch a level is caught x 10."""
    return [
        Trial(copy, copy, "tone", kind, level_db, *((5.0, 1, "fast") if copy < 10 * p else ()))
        for copy in range(10)
        for level_db, p in zip((-10.0, 0.0, 10.0), caught, strict=True)
    ]


def test_the_interval_holds_the_level_and_says_where_it_ends() -> None:
    curves, changes = summarise([*trials((0.0, 0.5, 1.0)), *trials((0, 0, 0.4), "lasting")], 0)
    tone, together, lasting, _ = curves
    assert (tone.shares, tone.level_db) == ((0.0, 0.5, 1.0), pytest.approx(8.0))
    assert tone.low_db <= tone.level_db <= tone.high_db and tone.low_db < tone.high_db
    assert together.together and together.trials == 30
    assert lasting.level_db == lasting.high_db == float("inf")
    assert changes == []

"""Baselines: from recordings to p-values, versions kept, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from soundpost.errors import (
    BaselineStateError,
    BaselineTooSmallError,
    InvalidValueError,
    NothingToLearnError,
)
from soundpost.monitoring import baselines as watching
from soundpost.monitoring.baselines import Choice, FittedBaselines
from soundpost.monitoring.reading import observe
from soundpost.store import baselines, models, recordings, sources, windows
from soundpost.store.recordings import NewRecording
from soundpost.store.session import Store
from soundpost.store.windows import WindowRow

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
DIMENSION = 16
WINDOWS = 12


def acoustics(level_dbfs: float, rng: np.random.Generator) -> dict[str, object]:
    return {
        "level_dbfs": level_dbfs,
        "peak_dbfs": level_dbfs + 12.0,
        "a_level_dbfs": level_dbfs - 2.0,
        "third_octave_dbfs": (level_dbfs - 15.0 + rng.normal(0, 1, 26)).tolist(),
        "centroid_hz": 1000.0 + rng.normal(0, 30),
        "flatness": 0.2 + rng.normal(0, 0.01),
        "modulation": [0.1, 0.1, 0.1, 0.1],
        "modulation_hz": 2.0,
        "modulation_depth": 0.1,
        "onsets_per_s": 0.5,
        "clipped_share": 0.0,
        "silent_share": 0.0,
    }


class Archive:
    """A source whose windows lie around a centre in the space of a model."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.rng = np.random.default_rng(7)
        self.centre = np.eye(DIMENSION)[0]
        with store.session() as session:
            model = models.EncoderModel(
                name="test",
                revision="1",
                dimension=DIMENSION,
                sample_rate_hz=16_000,
                window_s=5.0,
                hop_s=5.0,
            )
            session.add(model)
            session.flush()
            models.serve(session, model.id)
            self.model_id = model.id
            self.source_id = sources.ensure(session, "pump-3").id

    def record(self, number: int, offset: float = 0.0, level_dbfs: float = -30.0) -> int:
        """Add an embedded recording; offset: how far its windows lie off the centre."""
        with self.store.session() as session:
            new = NewRecording(
                self.source_id,
                f"{number:064x}",
                f"/{number}.wav",
                1,
                1,
                started_at=NOON + timedelta(minutes=number),
                duration_s=5.0 * WINDOWS,
                sample_rate_hz=16_000,
            )
            recording, _ = recordings.add(session, new)
            rows = [self._window(5.0 * row, offset, level_dbfs) for row in range(WINDOWS)]
            windows.add_batch(session, recording.id, self.model_id, rows)
            recordings.mark_embedded(session, recording.id, duration_s=5.0 * WINDOWS)
            return recording.id

    def _window(self, start_s: float, offset: float, level_dbfs: float) -> WindowRow:
        frames = self.centre + offset * np.eye(DIMENSION)[1]
        frames = frames + self.rng.normal(0, 0.05, (5, DIMENSION))
        frames /= np.linalg.norm(frames, axis=1, keepdims=True)
        mean = frames.mean(axis=0)
        return WindowRow(
            start_s,
            start_s + 5.0,
            acoustics(level_dbfs + self.rng.normal(0, 0.5), self.rng),
            (mean / np.linalg.norm(mean)).astype(np.float32),
            np.rint(frames * 127).astype(np.int8),
            [("machine", 0.8)],
        )


@pytest.fixture
def archive(store: Store) -> Archive:
    return Archive(store)


def make(archive: Archive, choice: Choice | None = None) -> int:
    with archive.store.session() as session:
        source = sources.by_name(session, "pump-3")
        made = watching.create(session, source, choice or Choice(), "tester")
    watching.prepare(archive.store, made.id)
    return made.id


def p_values(archive: Archive, baseline_id: int, recording_id: int) -> np.ndarray:
    with archive.store.reading() as session:
        fitted = watching.load(session, baseline_id)
        return fitted.score(observe(session, [recording_id], archive.model_id)).p_values


def test_what_is_new_has_small_p_values_and_what_is_usual_has_not(archive: Archive) -> None:
    for number in range(8):
        archive.record(number)
    baseline_id = make(archive)
    usual, strange = archive.record(20), archive.record(21, offset=1.0, level_dbfs=-20.0)
    assert p_values(archive, baseline_id, strange).max() < 0.03
    assert p_values(archive, baseline_id, usual).mean() > 0.2


def test_versions_are_kept_and_one_is_active(archive: Archive) -> None:
    for number in range(6):
        archive.record(number)
    first = make(archive)
    with archive.store.session() as session:
        watching.activate(session, first, "tester")
    strange = archive.record(9, offset=1.0)
    before = p_values(archive, first, strange).max()
    with archive.store.session() as session:
        source = sources.by_name(session, "pump-3")
        second = watching.accept(session, source, [strange], "tester", "new bearing").id
    watching.prepare(archive.store, second)
    with archive.store.session() as session:
        watching.activate(session, second, "tester")
        states = [row.state for row in baselines.find(session, source_id=archive.source_id)]
        assert states == ["active", "retired"]
        assert baselines.get(session, second).parent_id == first
        assert strange in baselines.recording_ids(session, second)
    again = archive.record(10, offset=1.0)
    assert p_values(archive, second, again).mean() > before
    with archive.store.session() as session:
        watching.activate(session, first, "tester", "the bearing was the fault")
        active = baselines.active(session, archive.source_id)
        assert active is not None and active.version == 1


def test_a_deleted_recording_is_out_of_the_baseline(archive: Archive) -> None:
    made = [archive.record(number) for number in range(6)]
    baseline_id = make(archive)
    with archive.store.reading() as session:
        known = FittedBaselines()
        before = known.of(session, baselines.get(session, baseline_id))
        assert known.of(session, baselines.get(session, baseline_id)) is before
    with archive.store.session() as session:
        recordings.remove(session, made[0])
    with archive.store.reading() as session:
        after = known.of(session, baselines.get(session, baseline_id))
    assert made[0] in before.reference.recording_ids
    assert made[0] not in after.reference.recording_ids


def test_a_learning_baseline_takes_what_arrives(archive: Archive) -> None:
    archive.record(0)
    with archive.store.session() as session:
        source = sources.by_name(session, "pump-3")
        made = watching.create(session, source, Choice(learn_s=3600.0), "tester")
        assert made.state == "learning" and made.learn_until is not None
        made.created_at = NOON + timedelta(minutes=1)
        made.learn_until = NOON + timedelta(minutes=30)
    arrived = [archive.record(number) for number in range(1, 8)]
    late = archive.record(40)
    with archive.store.session() as session:
        assert baselines.learning(session, NOON + timedelta(minutes=29)) == []
        (due,) = baselines.learning(session, NOON + timedelta(minutes=31))
        watching.end_learning(session, due)
    watching.prepare(archive.store, made.id)
    with archive.store.reading() as session:
        assert baselines.recording_ids(session, made.id) == arrived
        assert baselines.get(session, made.id).state == "ready"
        assert late not in baselines.recording_ids(session, made.id)


def test_what_cannot_be_a_baseline_is_refused(archive: Archive) -> None:
    with archive.store.session() as session:
        source = sources.by_name(session, "pump-3")
        with pytest.raises(NothingToLearnError):
            watching.create(session, source, Choice(), "tester")
        with pytest.raises(InvalidValueError, match=r"\[99\]"):
            watching.create(session, source, Choice(recordings=(99,)), "tester")
        with pytest.raises(BaselineStateError):
            watching.accept(session, source, [1], "tester", "because")
    with pytest.raises(InvalidValueError, match="magic"):
        Choice(method="magic")
    with pytest.raises(InvalidValueError):
        Choice(learn_s=60.0, recordings=(1,))


def test_one_window_is_too_little_and_says_so(archive: Archive) -> None:
    with archive.store.session() as session:
        new = NewRecording(archive.source_id, "f" * 64, "/f.wav", 1, 1, started_at=NOON)
        recording, _ = recordings.add(session, new)
        row = archive._window(0.0, 0.0, -30.0)
        windows.add_batch(session, recording.id, archive.model_id, [row])
        recordings.mark_embedded(session, recording.id, duration_s=5.0)
        made = watching.create(session, sources.by_name(session, "pump-3"), Choice(), "tester")
    with pytest.raises(BaselineTooSmallError) as raised:
        watching.prepare(archive.store, made.id)
    with archive.store.reading() as session:
        baseline = baselines.get(session, made.id)
    assert baseline.state == "failed"
    assert baseline.error_code == raised.value.code
    with archive.store.session() as session, pytest.raises(BaselineStateError):
        watching.activate(session, made.id, "tester")

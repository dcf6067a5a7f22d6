"""Baselines: from recordings to p-values, versions kept, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

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
from soundpost.store import baselines, recordings, sources, windows
from soundpost.store.recordings import NewRecording

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


@pytest.fixture
def archive(pump_archive: Any) -> Any:
    return pump_archive


def make(archive: Any, choice: Choice | None = None) -> int:
    with archive.store.session() as session:
        source = sources.by_name(session, "pump-3")
        made = watching.create(session, source, choice or Choice(), "tester")
    watching.prepare(archive.store, made.id)
    return made.id


def p_values(archive: Any, baseline_id: int, recording_id: int) -> np.ndarray:
    with archive.store.reading() as session:
        fitted = watching.load(session, baseline_id)
        return fitted.score(observe(session, [recording_id], archive.model_id)).p_values


def test_what_is_new_has_small_p_values_and_what_is_usual_has_not(archive: Any) -> None:
    for number in range(8):
        archive.record(number)
    baseline_id = make(archive)
    usual, strange = archive.record(20), archive.record(21, offset=1.0, level_dbfs=-20.0)
    assert p_values(archive, baseline_id, strange).max() < 0.03
    assert p_values(archive, baseline_id, usual).mean() > 0.2


def test_versions_are_kept_and_one_is_active(archive: Any) -> None:
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


def test_a_deleted_recording_is_out_of_the_baseline(archive: Any) -> None:
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


def test_a_learning_baseline_takes_what_arrives(archive: Any) -> None:
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


def test_what_cannot_be_a_baseline_is_refused(archive: Any) -> None:
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


def test_one_window_is_too_little_and_says_so(archive: Any) -> None:
    with archive.store.session() as session:
        new = NewRecording(archive.source_id, "f" * 64, "/f.wav", 1, 1, started_at=NOON)
        recording, _ = recordings.add(session, new)
        row = archive.window(0.0)
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

"""Bad input to watching: each has an answer that says what is wrong, and nothing stops the rest."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from soundpost.errors import (
    BaselineTooSmallError,
    InvalidValueError,
    NothingToLearnError,
    SoundpostError,
)
from soundpost.monitoring import baselines as making
from soundpost.monitoring.acoustic_distance import acoustic_features, fit_acoustics
from soundpost.monitoring.baselines import Choice
from soundpost.monitoring.reading import observe
from soundpost.monitoring.watch import Watched, Watcher, begin_watching
from soundpost.store import baselines, incidents, recordings, rules, scores, sources
from soundpost.store.rules import NewRule
from soundpost.store.scores import NewScore
from soundpost.store.tables import Recording
from soundpost.store.watch_tables import Baseline
from soundpost.store.windows import WindowRow

NOW = datetime(2026, 11, 1, 18, tzinfo=UTC)
BUDGET_S = 3600.0


class Watch:
    """An archive with what watches it; time goes on by a minute for each recording."""

    def __init__(self, archive: Any) -> None:
        self.archive = archive
        self.store = archive.store
        self.watcher = Watcher(self.store)
        self.clock = (NOW + timedelta(minutes=minute) for minute in itertools.count())

    def create(self, **choice: Any) -> Baseline:
        """Make a baseline, and use it."""
        with self.store.session() as session:
            source = sources.by_name(session, "pump-3")
            made = making.create(session, source, Choice(budget_s=BUDGET_S, **choice), "ann")
        made = making.prepare(self.store, made.id)
        with self.store.session() as session:
            return begin_watching(session, made.id, "ann")

    def add_rule(self, kind: str, **settings: Any) -> None:
        with self.store.session() as session:
            new = NewRule(kind, kind, "ann", settings, self.archive.source_id)
            rules.add(session, new, now=NOW)

    def hear(self, recording_id: int) -> Watched:
        self.watcher.warm(self.archive.source_id)
        with self.store.session() as session:
            return self.watcher.watch(session, recording_id, next(self.clock))

    def p_values(self, recording_id: int) -> list[float]:
        """Watch a recording and return its p-values, which are kept and are numbers."""
        assert self.hear(recording_id).scored
        with self.store.reading() as session:
            active = baselines.active(session, self.archive.source_id)
            assert active is not None
            found = scores.of_recording(session, recording_id, active.id)
        assert found
        for score in found:
            numbers = (score.novelty, score.p_value, *score.parts.values())
            assert all(map(math.isfinite, numbers))
        return [score.p_value for score in found]

    def opened(self) -> list[tuple[str, str, bool]]:
        """Family, reason and lateness of the incidents that opened, the oldest first."""
        with self.store.reading() as session:
            found = incidents.find(session, newest_first=False)
        return [(row.family, row.reason, row.late) for row in found]

    def codes(self, baseline: Baseline) -> list[str]:
        return [finding["code"] for finding in baseline.quality]


@pytest.fixture
def watch(pump_archive: Any) -> Watch:
    return Watch(pump_archive)


@pytest.fixture
def lite(lite_pump_archive: Any) -> Watch:
    return Watch(lite_pump_archive)


def repeated(row: WindowRow, count: int = 12) -> list[WindowRow]:
    return [replace(row, start_s=5.0 * at, end_s=5.0 * at + 5.0) for at in range(count)]


def silence(archive: Any) -> WindowRow:
    """A window of zeros, as the encoder and the measuring of acoustics give it."""
    row = archive.window(0.0)
    quiet = {"level_dbfs": -120.0, "peak_dbfs": -120.0, "a_level_dbfs": -120.0}
    zeros = dict.fromkeys(("centroid_hz", "flatness", "onsets_per_s"), 0.0)
    bands = {"third_octave_dbfs": [-120.0] * 26, "modulation": [0.0] * 4, "silent_share": 1.0}
    vector = np.eye(archive.dimension, dtype=np.float32)[3]
    return replace(
        row,
        acoustics={**row.acoustics, **quiet, **zeros, **bands},
        vector=vector,
        frames=np.rint(127 * np.tile(vector, (5, 1))).astype(np.int8),
    )


# --- baselines that cannot say what is normal -------------------------------------------------


@pytest.mark.parametrize("contexts", ["none", "hours", "states"])
def test_a_baseline_of_one_window_is_refused_and_says_how_many_it_needs(
    watch: Watch, contexts: str
) -> None:
    watch.archive.record(0, rows=[watch.archive.window(0.0)])
    with pytest.raises(BaselineTooSmallError, match="at least 8 windows") as caught:
        watch.create(contexts=contexts)
    assert caught.value.remedy
    with watch.store.reading() as session:
        (failed,) = baselines.find(session)
    assert (failed.state, failed.error_code) == ("failed", caught.value.code)


@pytest.mark.parametrize("contexts", ["none", "hours", "states"])
@pytest.mark.parametrize("method", ["fusion", "windows", "frames", "acoustics"])
def test_a_baseline_of_identical_windows_says_so_and_knows_them_again(
    lite: Watch, method: str, contexts: str
) -> None:
    row = lite.archive.window(0.0)
    for number in range(8):
        lite.archive.record(number, rows=repeated(row))
    made = lite.create(method=method, contexts=contexts)
    assert lite.codes(made)[0] == "identical"
    assert lite.p_values(lite.archive.record(20, rows=repeated(row, 12))) == [1.0] * 12
    assert lite.p_values(lite.archive.record(21, rows=repeated(row, 1))) == [1.0]
    assert lite.opened() == []
    strange = lite.archive.record(22, offset=1.0, level_dbfs=-10.0)
    assert max(lite.p_values(strange)) < 0.02


def test_a_baseline_of_silence_says_so_and_any_sound_is_new(watch: Watch) -> None:
    row = silence(watch.archive)
    for number in range(8):
        watch.archive.record(number, rows=repeated(row))
    made = watch.create()
    assert watch.codes(made)[0] == "silent"
    assert "microphone" in made.quality[0]["remedy"]
    assert watch.p_values(watch.archive.record(20, rows=repeated(row))) == [1.0] * 12
    assert max(watch.p_values(watch.archive.record(21))) < 0.02


def test_a_baseline_of_very_short_recordings_can_be_used(lite: Watch) -> None:
    for number in range(10):
        lite.archive.record(number, rows=[lite.archive.window(0.0, length_s=0.1)])
    made = lite.create()
    assert "few-windows" in lite.codes(made)
    numbers = [made.summary["budget"][name] for name in ("measured_s", "low_s", "high_s")]
    assert all(map(math.isfinite, numbers))
    assert len(lite.p_values(lite.archive.record(20))) == 12


def test_a_very_short_recording_is_scored(watch: Watch) -> None:
    usual(watch)
    short = watch.archive.record(20, rows=[watch.archive.window(0.0, length_s=0.1)])
    (p_value,) = watch.p_values(short)
    assert p_value > 0.0
    assert watch.opened() == []


def usual(watch: Watch, **choice: Any) -> Baseline:
    for number in range(8):
        watch.archive.record(number)
    return watch.create(**choice)


# --- recordings that go away ------------------------------------------------------------------


@pytest.mark.parametrize("left", [0, 1])
def test_a_baseline_whose_recordings_were_deleted_says_so_and_other_rules_go_on(
    watch: Watch, left: int
) -> None:
    watch.archive.windows = 6
    made = usual(watch)
    watch.add_rule("level", above_dbfs=-20.0)
    with watch.store.session() as session:
        for recording_id in baselines.recording_ids(session, made.id)[left:]:
            recordings.remove(session, recording_id)
    # A process that was there before, and one that starts now.
    for number, watcher in ((20, watch.watcher), (21, Watcher(watch.store))):
        watch.watcher = watcher
        loud = watch.archive.record(number, level_dbfs=-5.0)
        assert not watch.hear(loud).scored
    assert [family for family, _, _ in watch.opened()] == ["sound"]
    with watch.store.reading() as session:
        active = baselines.get(session, made.id)
        waiting = [row.state.get("waiting") for row in rules.states(session, 1).values()]
    assert (active.state, active.error_code) == ("active", "nothing-to-learn")
    assert "an active baseline of this source" in waiting


def test_a_baseline_whose_recordings_go_before_it_is_prepared_fails(watch: Watch) -> None:
    made = [watch.archive.record(number) for number in range(8)]
    with watch.store.session() as session:
        source = sources.by_name(session, "pump-3")
        baseline = making.create(session, source, Choice(), "ann")
        for recording_id in made:
            recordings.remove(session, recording_id)
    with pytest.raises(NothingToLearnError, match="gone"):
        making.prepare(watch.store, baseline.id)
    with watch.store.reading() as session:
        assert baselines.get(session, baseline.id).state == "failed"


# --- sample rates -----------------------------------------------------------------------------


def test_a_baseline_of_two_sample_rates_says_so(lite: Watch) -> None:
    for number in range(8):
        bands = 26 if number % 2 else 18
        rows = [lite.archive.window(5.0 * at, bands=bands) for at in range(12)]
        lite.archive.record(number, rows=rows)
    made = lite.create()
    assert "mixed-sample-rates" in lite.codes(made)
    assert len(lite.p_values(lite.archive.record(20))) == 12


@pytest.mark.parametrize("bands", [0, 1, 18, 30])
def test_a_sample_rate_that_changes_is_compared_by_what_there_is(lite: Watch, bands: int) -> None:
    usual(lite)
    rows = [lite.archive.window(5.0 * at, bands=bands) for at in range(12)]
    assert np.mean(lite.p_values(lite.archive.record(20, rows=rows))) > 0.05


def test_a_sample_rate_that_changes_is_told_and_novelty_is_not(watch: Watch) -> None:
    usual(watch)
    watch.hear(watch.archive.record(20))
    changed = watch.archive.arrive(21, sample_rate_hz=8_000)
    watch.archive.embed(changed, offset=1.0, level_dbfs=-10.0)
    watch.hear(changed)
    with watch.store.reading() as session:
        found = {row.family: row for row in incidents.find(session)}
    assert "8000 Hz" in found["health"].reason and "16000 Hz" in found["health"].reason
    assert found["health"].suppressed_by is None
    assert found["sound"].suppressed_by is not None


# --- clocks -----------------------------------------------------------------------------------


def test_a_recording_from_the_future_is_told_and_makes_no_later_one_late(watch: Watch) -> None:
    usual(watch)
    watch.add_rule("clock")
    ahead = watch.archive.record(20, started_at=datetime(2200, 1, 1, tzinfo=UTC))
    assert watch.hear(ahead).scored
    ((family, reason, late),) = watch.opened()
    assert (family, late) == ("health", False)
    assert "2200-01-01" in reason and "ahead" in reason
    strange = watch.archive.record(21, offset=1.0, level_dbfs=-10.0, started_at=NOW)
    watch.hear(strange)
    assert [late for family, _, late in watch.opened() if family == "sound"] == [False]


@pytest.mark.parametrize(
    "started_at", [datetime(9998, 12, 31, 23, 59, 59, tzinfo=UTC), datetime(2, 1, 1, tzinfo=UTC)]
)
def test_the_ends_of_the_calendar_are_watched_too(lite: Watch, started_at: datetime) -> None:
    usual(lite)
    lite.add_rule("clock")
    lite.p_values(lite.archive.record(20, started_at=started_at))
    ((family, reason, _),) = lite.opened()
    assert family == "health" and reason.startswith("clock: starts at")


@pytest.mark.parametrize("year", [1, 9999])
def test_a_time_that_no_zone_can_show_is_refused(lite: Watch, year: int) -> None:
    with pytest.raises(InvalidValueError, match="year is out of range") as caught:
        lite.archive.record(0, started_at=datetime(year, 6, 1, tzinfo=UTC))
    assert caught.value.remedy


def test_a_clock_that_jumps_back_is_told(watch: Watch) -> None:
    usual(watch)
    watch.add_rule("clock", tolerance_s=10.0)
    for number, minute in ((20, 0), (21, 1), (22, 2)):
        watch.hear(watch.archive.record(number, started_at=at(watch, minute)))
    assert watch.opened() == []
    # A second recording of a time that was heard already.
    watch.hear(watch.archive.record(23, started_at=at(watch, 1)))
    ((family, reason, _),) = watch.opened()
    assert family == "health" and "jumped back" in reason


def test_a_clock_that_jumps_forwards_and_back_leaves_what_is_heard_in_time(watch: Watch) -> None:
    usual(watch)
    for number, minute in ((20, 0), (21, 100_000), (22, 1), (23, 2)):
        assert watch.hear(watch.archive.record(number, started_at=at(watch, minute))).scored
    strange = watch.archive.record(24, offset=1.0, level_dbfs=-10.0, started_at=at(watch, 3))
    watch.hear(strange)
    assert [family for family, _, _ in watch.opened()] == ["sound"]


def at(watch: Watch, minute: int) -> datetime:
    moment: datetime = watch.archive.noon + timedelta(hours=2, minutes=minute)
    return moment


def test_recordings_out_of_order_and_late_are_heard_and_said_to_be_late(watch: Watch) -> None:
    usual(watch)
    for number in (30, 31, 32):
        watch.hear(watch.archive.record(number))
    assert watch.hear(watch.archive.record(20)).scored
    assert watch.opened() == []
    before = memory(watch)
    watch.hear(watch.archive.record(21, offset=1.0, level_dbfs=-10.0))
    assert [(family, late) for family, _, late in watch.opened()] == [("sound", True)]
    # What was heard of an earlier time is no evidence of what sounds now.
    assert memory(watch) == before


def memory(watch: Watch) -> dict[int, Any]:
    with watch.store.reading() as session:
        found = rules.states(session, watch.archive.source_id)
        names = {rule.id: rule.kind for rule in rules.find(session, limit=None)}
    return {key: row.state for key, row in found.items() if names[key] == "novelty"}


def test_recordings_without_a_start_count_from_when_they_arrived(watch: Watch) -> None:
    made = [watch.archive.record(number, without_start=True) for number in range(8)]
    with watch.store.session() as session:
        for number, recording_id in enumerate(made):
            recording = session.get_one(Recording, recording_id)
            recording.created_at = watch.archive.noon + timedelta(minutes=number)
    noon = watch.archive.noon
    chosen = watch.create(after=noon + timedelta(minutes=2), before=noon + timedelta(minutes=7))
    with watch.store.reading() as session:
        assert baselines.recording_ids(session, chosen.id) == made[2:7]
        observed = observe(session, made[2:3], watch.archive.model_id)
    assert observed.starts_s[0] == (noon + timedelta(minutes=2)).timestamp()
    assert len(watch.p_values(watch.archive.record(20, without_start=True))) == 12


# --- what is no number ------------------------------------------------------------------------

NO_NUMBERS = [math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("wrong", NO_NUMBERS)
@pytest.mark.parametrize("place", ["level_dbfs", "third_octave_dbfs", "modulation", "vector"])
def test_what_is_no_number_does_not_reach_the_database(
    lite: Watch, place: str, wrong: float
) -> None:
    row = lite.archive.window(0.0)
    values: Any = row.vector.copy() if place == "vector" else row.acoustics[place]
    if isinstance(values, float):
        values = wrong
    else:
        values[1] = wrong
    bad = (
        replace(row, vector=values)
        if place == "vector"
        else replace(row, acoustics={**row.acoustics, place: values})
    )
    with pytest.raises(InvalidValueError, match=r"at 0\.0 s"):
        lite.archive.record(0, rows=[bad])
    with lite.store.reading() as session:
        assert observe(session, [1], lite.archive.model_id).window_ids.tolist() == []


@pytest.mark.parametrize("wrong", NO_NUMBERS[:2])
def test_what_is_no_number_does_not_reach_a_score(lite: Watch, wrong: float) -> None:
    good = [lite.archive.acoustics(-30.0) for _ in range(20)]
    distance = fit_acoustics(good, np.arange(20) // 4, 0.2)
    for name in ("level_dbfs", "flatness"):
        bad = {**good[0], name: wrong}
        for use in uses(distance, [bad]):
            with pytest.raises(InvalidValueError, match="NaN or infinity"):
                use()


def uses(distance: Any, documents: list[Any]) -> list[Callable[[], object]]:
    return [lambda: distance.score(documents), lambda: acoustic_features(documents)]


@pytest.mark.parametrize("wrong", NO_NUMBERS)
@pytest.mark.parametrize("member", ["novelty", "p_value", "parts"])
def test_a_score_that_is_no_number_is_not_kept(lite: Watch, member: str, wrong: float) -> None:
    made = usual(lite)
    score = NewScore(window_id=1, novelty=1.0, p_value=0.5, context="all", parts={"frames": 1.0})
    bad = replace(score, **{member: {"frames": wrong} if member == "parts" else wrong})
    with lite.store.session() as session, pytest.raises(SoundpostError, match="window 1"):
        scores.save(session, made.id, [score, bad])
    with lite.store.reading() as session:
        assert scores.of_recording(session, 1, made.id) == []

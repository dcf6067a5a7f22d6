"""Rules from recording to incident: each kind on what it is for, and on what it must not mind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from soundpost.errors import (
    InvalidValueError,
    RawSimilarityError,
    RuleNameTakenError,
    RuleSettingsError,
)
from soundpost.monitoring import hearing, review
from soundpost.monitoring.calibration import calibrate
from soundpost.monitoring.evidence import Evidence, Thresholds
from soundpost.monitoring.observations import Observations
from soundpost.monitoring.rule_kinds.listening import write_vector
from soundpost.monitoring.rule_kinds.registry import KINDS, check_rule
from soundpost.monitoring.rules import Heard, Reference, SequentialTest
from soundpost.monitoring.yardsticks import Yardstick
from soundpost.store import incidents, rules, silences, sources
from soundpost.store.recordings import NewRecording
from soundpost.store.recordings import add as add_recording
from soundpost.store.rules import NewRule
from soundpost.store.session import Store
from soundpost.store.silences import NewSilence
from soundpost.store.watch_tables import Incident

START = datetime(2026, 11, 21, 12, tzinfo=UTC)
WINDOW_S = 10.0
MODEL = "tone@1"
LOUDEST = {"level_dbfs": -40.0, "a_level_dbfs": -45.0, "clipped_share": 0.0}
BANDS = [-60.0] * 30
DIMENSION = 16


def make_test(budget_s: float, document: Mapping[str, Any] | None) -> SequentialTest:
    thresholds = Thresholds.for_budget(budget_s)
    return Evidence.from_document(document, thresholds) if document else Evidence(thresholds)


@dataclass(frozen=True)
class Normal:
    """A baseline whose windows point in random directions."""

    vectors: NDArray[np.float32]
    model: str = MODEL
    version: int = 1

    @property
    def frames(self) -> NDArray[np.float32]:
        return self.vectors

    @property
    def frame_windows(self) -> NDArray[np.int64]:
        return np.arange(len(self.vectors))

    def yardstick(self, scores: NDArray[np.float64]) -> Yardstick:
        """As if every ten windows were a recording."""
        return yardstick_of(scores.tobytes())


# A baseline keeps it too: its budget is seconds of work, and the same for every recording heard.
@lru_cache
def yardstick_of(scores: bytes) -> Yardstick:
    held = np.frombuffer(scores)
    count = len(held)
    calibration = calibrate(held, np.arange(count) // 10)
    return Yardstick(calibration, np.full(count, WINDOW_S), WINDOW_S * np.arange(count))


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float32]:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20261121)


class Ear:
    """A source of one minute recordings without a gap, and what becomes of them."""

    def __init__(self, store: Store) -> None:
        self.store, self.count = store, 0
        self.told: list[str] = []
        with store.session() as session:
            self.source_id = sources.ensure(session, "pump").id
            sources.describe(session, "pump", cadence_s=60.0)

    def watch(self, kind: str, name: str = "", **settings: Any) -> int:
        return self.add(NewRule(name or kind, kind, "ann", settings))

    def watch_for(self, kind: str, settings: dict[str, Any]) -> int:
        return self.add(NewRule(kind, kind, "ann", settings))

    def add(self, new: NewRule) -> int:
        check_rule(new.kind, new.settings, new.for_s)
        with self.store.session() as session:
            return rules.add(session, new, now=START).id

    def hear(self, *windows: Mapping[str, Any], **known: Any) -> list[str]:
        """Hear the next minute: six windows, or those given; return what was told."""
        number = self.count = self.count + 1
        heard = self.recording(number, windows or ({},) * 6, **known)
        with self.store.session() as session:
            before = len(self.told)
            hearing.hear(session, heard, make_test, self.note)
        return self.told[before:]

    def recording(self, number: int, windows: Any, **known: Any) -> Heard:
        started_at = known.pop("started_at", START + timedelta(minutes=number))
        count = len(windows)
        vectors = known.pop("vectors", np.eye(1, DIMENSION, dtype=np.float32).repeat(count, 0))
        acoustics = tuple({**LOUDEST, "third_octave_dbfs": BANDS, **w} for w in windows)
        ids = np.arange(count) + 1000 * number
        observations = Observations(
            window_ids=ids,
            recording_ids=np.full(count, number),
            starts_s=started_at.timestamp() + WINDOW_S * np.arange(count),
            durations_s=np.full(count, WINDOW_S),
            vectors=vectors,
            frames=vectors,
            frame_windows=np.arange(count),
            acoustics=acoustics,
        )
        values: dict[str, Any] = {
            "now": started_at + timedelta(minutes=1),
            "tags": ({},) * count,
            "p_values": None,
            "sample_rate_hz": 48_000,
            "channels": 1,
            "model": MODEL,
            **known,
        }
        return Heard(
            source_id=self.source_id,
            source_name="pump",
            timezone="UTC",
            recording_id=number,
            started_at=started_at,
            duration_s=WINDOW_S * count,
            remarks=(),
            observations=observations,
            novelty=values["p_values"],
            **values,
        )

    def tick(self, minutes: float) -> list[str]:
        with self.store.session() as session:
            before = len(self.told)
            hearing.tick(session, START + timedelta(minutes=minutes), make_test, self.note)
        return self.told[before:]

    def note(self, session: Any, incident: Incident, kind: str, now: datetime) -> None:
        if incident.suppressed_by is None:
            self.told.append(f"{kind}: {incident.reason}")

    def all(self) -> list[Incident]:
        with self.store.reading() as session:
            return incidents.find(session, newest_first=False)

    def waiting(self, rule_id: int) -> str:
        with self.store.reading() as session:
            return str(rules.states_of(session, rule_id)[self.source_id].state.get("waiting"))


@pytest.fixture
def ear(sqlite_store: Store) -> Ear:
    return Ear(sqlite_store)


# --- settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "settings", "named"),
    [
        ("level", {}, "above_dbfs"),
        ("level", {"above_dbfs": -40, "below_dbfs": -50}, "give one"),
        ("level", {"above_dbfs": "loud"}, "'loud'"),
        ("level", {"above_dbfs": float("nan")}, "nan"),
        ("level", {"above_dbfs": 10**400}, "above_dbfs"),
        ("level", {"above_dbfs": -40, "duration": 3}, "duration"),
        ("level", {"above_dbfs": -40, "measure": "band"}, "centre_hz"),
        ("level", {"above_dbfs": -40, "measure": "band", "centre_hz": 110}, "100 Hz"),
        ("tag", {"above": 0.5}, "label"),
        ("tag", {"label": "Rain", "windows": 1.5}, "whole"),
        ("novelty", {"budget_s": 0}, "budget_s"),
        ("text", {}, "text"),
        ("exemplar", {"name": "a"}, "vector"),
        ("exemplar", {"vector": "!", "model": "m"}, "base64"),
        ("exemplar", {"vector": "AAAAAA==", "model": "m"}, "length 1"),
        ("stalled", {"cadences": 1}, "cadences"),
        ("format", {"rate": 1}, "rate"),
        ("smell", {}, "smell"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(
    kind: str, settings: dict[str, Any], named: str
) -> None:
    with pytest.raises(RuleSettingsError, match=named):
        check_rule(kind, settings)


def test_a_threshold_on_a_similarity_is_refused_with_what_takes_its_place() -> None:
    with pytest.raises(RawSimilarityError, match=r"min_similarity=0\.4") as refused:
        check_rule("text", {"text": "glass breaking", "min_similarity": 0.4})
    assert "budget_s" in refused.value.remedy


def test_a_rule_with_a_budget_need_not_hold() -> None:
    with pytest.raises(RuleSettingsError, match="for_s"):
        check_rule("novelty", {}, 10.0)


def test_rules_are_kept_by_name_scope_and_time(store: Store) -> None:
    with store.session() as session:
        pump, fan = sources.ensure(session, "pump").id, sources.ensure(session, "fan").id
        sources.describe(session, "pump", tags=["north"])
        for number, values in enumerate([{}, {"source_id": fan}, {"tag": "north"}]):
            rules.add(session, NewRule(f"r{number}", "format", "ann", **values), now=START)
        assert [r.name for r in rules.for_source(session, pump)] == ["r0", "r2"]
        assert [r.name for r in rules.for_source(session, fan)] == ["r0", "r1"]
        assert [s.name for s in rules.sources_of(session, rules.by_name(session, "r2"))] == ["pump"]
        with pytest.raises(RuleNameTakenError):
            rules.add(session, NewRule("r0", "format", "ann"), now=START)
        with pytest.raises(RuleNameTakenError):
            rules.change(session, 1, "ann", now=START, name="r1")
        with pytest.raises(InvalidValueError):
            rules.change(session, 1, "ann", now=START, for_s=-1.0)
        assert [r.id for r in rules.find(session, after_id=1, newest_first=False)] == [2, 3]
        rules.remove(session, 3, "ann", now=START)
        assert rules.count(session) == 2


# --- levels, tags -----------------------------------------------------------------------------


def test_a_level_counts_over_the_end_of_a_recording(ear: Ear) -> None:
    ear.watch("level", above_dbfs=-40.0, duration_s=35.0)
    loud, calm = {"a_level_dbfs": -31.2}, {}
    assert ear.hear(calm, calm, calm, calm, loud, loud) == []
    assert ear.hear(loud, {"a_level_dbfs": -28.8}, calm, calm, calm, calm) == [
        "opened: A-weighted level up to -28.8 dBFS, above -40.0 dBFS for 40 s"
    ]


def test_a_gap_breaks_a_level(ear: Ear) -> None:
    ear.watch("level", above_dbfs=-40.0, duration_s=35.0)
    loud, calm = {"a_level_dbfs": -31.2}, {}
    ear.hear(calm, calm, calm, calm, loud, loud)
    ear.count += 1
    assert ear.hear(loud, loud, calm, calm, calm, calm) == []


def test_a_band_below_a_level(ear: Ear) -> None:
    ear.watch("level", measure="band", centre_hz=100.0, below_dbfs=-65.0)
    bands = list(BANDS)
    bands[6] = -70.0
    assert ear.hear() == []
    assert ear.hear({"third_octave_dbfs": bands}) == [
        "opened: level at 100 Hz down to -70.0 dBFS, below -65.0 dBFS for 10 s"
    ]


def test_a_band_that_the_rate_does_not_reach_is_waited_for(ear: Ear) -> None:
    rule_id = ear.watch("level", measure="band", centre_hz=16_000.0, above_dbfs=-65.0)
    ear.hear({"third_octave_dbfs": BANDS[:20]})
    assert "half the rate" in ear.waiting(rule_id)


def test_a_tag_in_enough_windows(ear: Ear) -> None:
    ear.watch("tag", label="Rain", above=0.5, windows=3)
    assert ear.hear({}, {}, {}, tags=({"Rain": 0.9}, {}, {"Rain": 0.9})) == []
    assert ear.hear({}, {}, {}, tags=({"Rain": 0.6},) * 3)[0].startswith("opened: Rain with")


def test_silence_for_a_time(ear: Ear) -> None:
    ear.watch("silence", duration_s=90.0)
    silent = {"level_dbfs": -200.0}
    assert ear.hear(*[silent] * 6) == []
    assert ear.hear(*[silent] * 6) == ["opened: digital silence, below -70.0 dBFS for 120 s"]


# --- budgets ----------------------------------------------------------------------------------


def test_novelty_fires_on_what_the_budget_allows_and_ends_with_it(ear: Ear) -> None:
    ear.watch("novelty", budget_s=86_400.0)
    rng = np.random.default_rng(1)
    for _ in range(20):
        assert ear.hear(p_values=rng.uniform(0.01, 1.0, 6)) == []
    told = ear.hear(p_values=np.full(6, 0.001))
    assert [text.split(",")[0] for text in told] == ["opened: sounds unlike its baseline"]
    for _ in range(40):
        told += ear.hear(p_values=rng.uniform(0.3, 1.0, 6))
    assert [text.partition(":")[0] for text in told] == ["opened", "resolved"]


def test_novelty_waits_for_a_baseline(ear: Ear) -> None:
    rule_id = ear.watch("novelty")
    assert ear.hear() == []
    assert ear.waiting(rule_id) == "an active baseline of this source"


def text_reference(rng: np.random.Generator, count: int = 2000) -> Normal:
    return Normal(unit(rng.normal(size=(count, DIMENSION))))


@pytest.mark.parametrize("kind", ["text", "exemplar"])
def test_what_is_rarer_than_the_baseline_brings_is_told(
    ear: Ear, rng: np.random.Generator, kind: str
) -> None:
    wanted, reference = unit(rng.normal(size=DIMENSION)), text_reference(rng)
    words = {"text": "glass breaking"} if kind == "text" else {"name": "clip 7"}
    by = {"budget_s": 86_400.0, "vector": write_vector(wanted), "model": MODEL}
    ear.watch_for(kind, {**by, **words})
    for _ in range(30):
        usual = unit(rng.normal(size=(6, DIMENSION)))
        assert ear.hear(vectors=usual, reference=reference) == []
    told = ear.hear(vectors=np.tile(wanted, (6, 1)), reference=reference)
    assert told[0].startswith(
        "opened: heard 'glass breaking' (p" if kind == "text" else "opened: sounds like clip 7 (p"
    )


def test_a_source_that_always_sounds_like_the_text_is_no_news(
    ear: Ear, rng: np.random.Generator
) -> None:
    wanted = unit(rng.normal(size=DIMENSION))
    near = unit(wanted + 0.1 * rng.normal(size=(500, DIMENSION)))
    ear.watch("text", text="hum", budget_s=86_400.0, vector=write_vector(wanted), model=MODEL)
    for _ in range(30):
        usual = unit(wanted + 0.1 * rng.normal(size=(6, DIMENSION)))
        assert ear.hear(vectors=usual, reference=Normal(near)) == []


def test_an_example_of_another_model_is_waited_for(ear: Ear, rng: np.random.Generator) -> None:
    wanted = write_vector(unit(rng.normal(size=DIMENSION)))
    rule_id = ear.watch("exemplar", vector=wanted, model="other@9")
    reference: Reference = replace(text_reference(rng, 10), model=MODEL)
    assert ear.hear(reference=reference) == []
    assert "other@9" in ear.waiting(rule_id)


# --- health -----------------------------------------------------------------------------------


def test_a_clipped_and_a_dead_microphone(ear: Ear) -> None:
    ear.watch("microphone")
    assert ear.hear({"clipped_share": 0.2}, {"clipped_share": 0.1}) == [
        "opened: microphone clipped: up to 20.0 % of samples at full scale for 20 s"
    ]
    for _ in range(6):
        ear.hear()
    dead = {"level_dbfs": -200.0, "third_octave_dbfs": [-200.0] * 30}
    assert "microphone dead: -200 dBFS" in ear.hear(dead, dead)[0]


def test_a_microphone_that_lost_its_highs_but_not_a_machine_that_stopped(ear: Ear) -> None:
    ear.watch("microphone")
    for _ in range(61):
        ear.hear()
    muffled = BANDS[:16] + [-120.0] * 14
    stopped = [-90.0] * 30
    assert ear.hear(*[{"third_octave_dbfs": stopped}] * 6) == []
    assert "hears nothing from 1 kHz on" in ear.hear(*[{"third_octave_dbfs": muffled}] * 6)[0]


def test_a_changed_format_inhibits_novelty_until_it_is_accepted(ear: Ear) -> None:
    ear.watch("format")
    ear.watch("novelty", budget_s=86_400.0)
    ear.hear(p_values=np.full(6, 0.5))
    strange = {"p_values": np.full(6, 0.001), "sample_rate_hz": 16_000}
    assert ear.hear(**strange) == [
        "opened: 16000 Hz, 1 channel; before, it was 48000 Hz, 1 channel"
    ]
    assert ear.hear(**strange) == []
    health = next(i for i in ear.all() if i.family == "health")
    with ear.store.session() as session:
        review.resolve(session, health.id, "ann", "new recorder", now=START + timedelta(minutes=4))
    assert ear.hear(p_values=np.full(6, 0.5), sample_rate_hz=16_000) == []
    # Evidence of the time in which it was not trusted is gone.
    assert ear.hear({}, p_values=np.full(1, 0.01), sample_rate_hz=16_000) == []


def arrive(ear: Ear, minutes: float) -> None:
    """Take a recording in, as far as the archive knows of it."""
    with ear.store.session() as session:
        sha256 = f"{minutes:064.3f}"
        row, _ = add_recording(session, NewRecording(ear.source_id, sha256, sha256, 1, 0))
        row.created_at = START + timedelta(minutes=minutes)


def test_a_stalled_source_is_one_incident_however_it_comes_and_goes(ear: Ear) -> None:
    ear.watch("stalled", cadences=3.0)
    arrive(ear, 0)
    assert ear.tick(3) == []
    assert ear.tick(4) == ["opened: no recording for 240 s, one comes every 60 s"]
    for late in (5, 10, 15):
        arrive(ear, late)
        ear.hear(
            previous_at=START + timedelta(minutes=late - 5), now=START + timedelta(minutes=late)
        )
        assert ear.tick(late + 1) == []
        assert ear.tick(late + 4) == []
    arrive(ear, 20)
    for minute in range(20, 40):
        arrive(ear, minute + 0.5)
        ear.hear(
            previous_at=START + timedelta(minutes=minute - 0.5),
            now=START + timedelta(minutes=minute + 0.5),
        )
        ear.tick(minute + 1)
    assert [text.partition(":")[0] for text in ear.told] == ["opened", "resolved"]


def test_a_source_of_unknown_cadence_is_not_stalled(ear: Ear) -> None:
    with ear.store.session() as session:
        sources.describe(session, "pump", no_cadence=True)
    rule_id = ear.watch("stalled")
    arrive(ear, 0)
    assert ear.tick(10_000) == []
    assert "cadence" in ear.waiting(rule_id)


def test_the_cadence_is_that_of_the_time_not_of_the_recordings(ear: Ear) -> None:
    for day in range(4):
        for number in range(50):
            arrive(ear, day * 1440 + number / 60)
    with ear.store.reading() as session:
        cadence_s = sources.estimate_cadence_s(session, ear.source_id)
    assert cadence_s == pytest.approx(86_400, rel=0.01)


def test_maintenance_is_no_time_in_which_a_source_stalls(ear: Ear) -> None:
    ear.watch("stalled")
    arrive(ear, 0)
    until = START + timedelta(minutes=30)
    with ear.store.session() as session:
        new = NewSilence("maintenance", START, until, "works", "ann")
        silences.add(session, new, now=START)
    assert [ear.tick(minutes) for minutes in (10, 29, 32)] == [[], [], []]
    assert len(ear.tick(34)) == 1


def test_clocks(ear: Ear) -> None:
    ear.watch("clock")
    assert ear.hear() == []
    ahead = {"started_at": START + timedelta(days=9), "now": START + timedelta(minutes=3)}
    assert "ahead" in ear.hear(**ahead)[0]
    with ear.store.reading() as session:
        seen = rules.seen_until(session, ear.source_id)
    assert seen == START + timedelta(minutes=3)
    # Out of order is no fault, to hear the same minute twice is.
    assert ear.hear(started_at=START - timedelta(hours=2), late=True) == []
    double = START + timedelta(minutes=1, seconds=10)
    ear.watch("clock", "strict clock", tolerance_s=5.0)
    ear.hear(started_at=START + timedelta(minutes=1), late=True)
    ear.hear(started_at=double, late=True, now=START + timedelta(hours=1))
    assert "jumped back" in ear.all()[-1].reason


# --- order, maintenance -----------------------------------------------------------------------


def test_a_late_recording_does_not_move_what_a_rule_remembers(ear: Ear) -> None:
    ear.watch("level", above_dbfs=-40.0, duration_s=35.0)
    loud, calm = {"a_level_dbfs": -31.2}, {}
    ear.hear(calm, calm, calm, calm, loud, loud)
    ear.hear(*[calm] * 6, late=True, started_at=START - timedelta(days=1))
    ear.count = 1
    assert len(ear.hear(loud, loud, calm, calm, calm, calm)) == 1


def test_what_is_heard_in_maintenance_does_not_count(ear: Ear) -> None:
    ear.watch("level", above_dbfs=-40.0)
    begin, end = START + timedelta(seconds=60), START + timedelta(seconds=100)
    with ear.store.session() as session:
        new = NewSilence("maintenance", begin, end, "works", "ann", source_id=ear.source_id)
        silences.add(session, new, now=START)
    loud, calm = {"a_level_dbfs": -31.2}, {}
    assert ear.hear(loud, loud, loud, loud, calm, calm) == []
    assert ear.hear(loud, calm, calm, calm, calm, calm) != []


def test_every_kind_is_heard_and_ticked_with_nothing_to_hear(ear: Ear) -> None:
    given: dict[str, dict[str, Any]] = {
        "level": {"above_dbfs": -1.0},
        "tag": {"label": "Rain"},
        "text": {"text": "rain"},
        "exemplar": {"vector": write_vector(unit(np.ones(DIMENSION))), "model": MODEL},
    }
    for kind in KINDS:
        ear.watch(kind, **given.get(kind, {}))
    reference = Normal(unit(np.ones((3, DIMENSION))))
    empty = np.zeros((0, DIMENSION), dtype=np.float32)
    heard = ear.recording(1, (), vectors=empty, p_values=np.zeros(0), reference=reference)
    with ear.store.session() as session:
        hearing.hear(session, heard, make_test)
    ear.hear(reference=reference, p_values=np.full(6, 0.5))
    assert ear.tick(1) == []
    assert ear.told == []

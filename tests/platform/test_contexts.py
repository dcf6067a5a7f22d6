"""Contexts by hour and by operating state."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from soundpost.errors import BrokenCalibrationError, InvalidValueError
from soundpost.monitoring.contexts import (
    Contexts,
    hour_contexts,
    local_hours,
    no_contexts,
    state_contexts,
)
from soundpost.monitoring.observations import Observations

Make = Callable[..., Observations]


def test_without_contexts_all_is_one(make_observations: Make) -> None:
    assert set(no_contexts().assign(make_observations(5))) == {"all"}


def test_hours_are_those_of_the_source(make_observations: Make) -> None:
    observed = make_observations(2)
    # 23:30 and 00:30 in Berlin, in winter and in summer.
    winter = datetime(2026, 1, 10, 22, 30, tzinfo=UTC).timestamp()
    summer = datetime(2026, 7, 10, 22, 30, tzinfo=UTC).timestamp()
    observed = replace(observed, starts_s=np.array([winter, summer]))
    assert hour_contexts("Europe/Berlin", 6).assign(observed) == ("18-24 h", "00-06 h")
    assert local_hours(observed.starts_s, "Europe/Berlin").tolist() == [23, 0]


def test_impossible_hours_are_refused() -> None:
    with pytest.raises(InvalidValueError, match="Mars"):
        hour_contexts("Mars/Olympus")
    with pytest.raises(InvalidValueError, match="divide the day"):
        hour_contexts("UTC", 5)


def two_states(make_observations: Make, seed: int) -> tuple[Observations, np.ndarray]:
    idle, load = make_observations(80, seed=seed), make_observations(40, seed=seed + 1, level_db=15)
    both = replace(make_observations(120, seed=seed), acoustics=idle.acoustics + load.acoustics)
    return both, np.r_[np.zeros(80), np.ones(40)]


def test_operating_states_are_found_and_kept(make_observations: Make) -> None:
    observed, _ = two_states(make_observations, 0)
    contexts = state_contexts(observed)
    assert contexts.names == ("state 1", "state 2")
    new, truth = two_states(make_observations, 7)
    found = np.array([contexts.names.index(name) for name in contexts.assign(new)])
    assert (found == truth).mean() > 0.98
    assert state_contexts(observed).assign(new) == contexts.assign(new)


def test_one_state_is_not_cut_in_two(make_observations: Make) -> None:
    assert state_contexts(make_observations(150)).names == ("all",)


def test_states_stand_a_lower_sample_rate(make_observations: Make) -> None:
    contexts = state_contexts(two_states(make_observations, 0)[0])
    loud = make_observations(10, seed=5, level_db=15, bands=20)
    assert set(contexts.assign(loud)) == {"state 2"}


def test_contexts_survive_being_stored(make_observations: Make) -> None:
    observed, _ = two_states(make_observations, 0)
    for contexts in (state_contexts(observed), hour_contexts("Asia/Tokyo", 4), no_contexts()):
        again = Contexts.from_document(json.loads(json.dumps(contexts.to_document())))
        assert again.assign(observed) == contexts.assign(observed)
    with pytest.raises(BrokenCalibrationError):
        Contexts.from_document({"kind": "hours"})

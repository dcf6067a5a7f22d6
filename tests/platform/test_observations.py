"""What watching sees of recordings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from soundpost.errors import InvalidValueError
from soundpost.monitoring.observations import Observations

Make = Callable[..., Observations]


def test_a_part_of_the_windows_keeps_their_own_frames(make_observations: Make) -> None:
    observed = make_observations(20)
    rows = np.array([3, 7, 11])
    some = observed.take(rows)
    assert some.window_ids.tolist() == observed.window_ids[rows].tolist()
    assert some.acoustics == tuple(observed.acoustics[row] for row in rows)
    for row, was in enumerate(rows):
        own = some.frames[some.frame_windows == row]
        assert np.array_equal(own, observed.frames[observed.frame_windows == was])


def test_a_mask_takes_the_same_as_its_rows(make_observations: Make) -> None:
    observed = make_observations(20)
    mask = np.zeros(20, np.bool_)
    mask[[3, 7]] = True
    by_mask, by_rows = observed.take(mask), observed.take(np.array([3, 7]))
    assert np.array_equal(by_mask.frames, by_rows.frames)
    assert np.array_equal(by_mask.starts_s, by_rows.starts_s)


def test_values_that_do_not_fit_together_are_refused(make_observations: Make) -> None:
    observed = make_observations(5)
    with pytest.raises(InvalidValueError):
        replace(observed, durations_s=observed.durations_s[:4])
    with pytest.raises(InvalidValueError):
        replace(observed, frame_windows=observed.frame_windows[:4])

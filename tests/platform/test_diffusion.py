"""The schedule follows its formula, samplers end at the truth, and noise belongs to its candidate."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from soundpost.errors import InvalidValueError
from soundpost.models.diffusion import (
    DdimSampler,
    DdpmSampler,
    SeededNoise,
    cosine_schedule,
    seed_of,
)

KEYS = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=40, unique=True)
SAMPLERS = st.one_of(
    st.builds(DdimSampler, st.just(cosine_schedule()), st.integers(1, 50), st.floats(0.0, 1.0)),
    st.just(DdpmSampler(cosine_schedule())),
)


def one_hot(size: int, place: int) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(place), size).float()


def test_the_schedule_is_the_cosine_of_the_paper() -> None:
    schedule = cosine_schedule(50)

    def kept(share: float) -> float:
        return math.cos((share + 0.008) / 1.008 * math.pi / 2) ** 2

    expected = [kept((step + 1) / 50) / kept(0.0) for step in range(49)]
    np.testing.assert_allclose(schedule.abar[:49], expected, rtol=1e-9)
    assert schedule.abar[49] == pytest.approx(expected[48] * 0.001)
    assert (np.diff(schedule.abar) < 0).all()


def test_noise_is_added_by_the_schedule() -> None:
    schedule = cosine_schedule(50)
    x_0, noise = torch.eye(3), torch.full((3, 3), 2.0)
    x = schedule.add_noise(x_0, noise, torch.tensor([0, 20, 49]))
    for row, step in enumerate((0, 20, 49)):
        kept = schedule.abar[step]
        wanted = math.sqrt(kept) * x_0[row] + math.sqrt(1 - kept) * noise[row]
        torch.testing.assert_close(x[row], wanted)


@given(st.integers(1, 50))
def test_steps_are_spread_from_the_last_to_the_first(count: int) -> None:
    steps = cosine_schedule(50).spread(count)
    assert len(steps) == count
    assert steps[0] == 49
    assert count == 1 or steps[-1] == 0
    assert all(before > after for before, after in pairwise(steps))


@pytest.mark.parametrize("count", [0, 51, -1])
def test_impossible_numbers_of_steps_are_refused(count: int) -> None:
    with pytest.raises(InvalidValueError, match=str(count)):
        cosine_schedule(50).spread(count)


@given(KEYS, SAMPLERS, st.integers(0, 1000))
def test_whoever_knows_the_truth_ends_at_it(
    keys: list[int], sampler: DdimSampler | DdpmSampler, place: int
) -> None:
    truth = one_hot(len(keys), place % len(keys))
    sample = sampler.sample(lambda x, step: truth, SeededNoise(3, np.array(keys)))
    torch.testing.assert_close(sample, truth)


@given(st.integers(2, 50))
def test_an_exact_prediction_keeps_the_path_that_the_schedule_describes(steps: int) -> None:
    schedule, truth = cosine_schedule(50), one_hot(4, 1)
    noise = SeededNoise(1, np.arange(4))
    seen: list[tuple[Tensor, int]] = []

    def predict(x: Tensor, step: int) -> Tensor:
        seen.append((x, step))
        return truth

    DdimSampler(schedule, steps).sample(predict, noise)
    direction = (seen[0][0] - math.sqrt(schedule.abar[49]) * truth) / math.sqrt(
        1 - schedule.abar[49]
    )
    for x, step in seen[1:]:
        kept = schedule.abar[step]
        torch.testing.assert_close(
            x, math.sqrt(kept) * truth + math.sqrt(1 - kept) * direction, atol=1e-4, rtol=1e-4
        )


def shrinking(x: Tensor, step: int) -> Tensor:
    return torch.tanh(x * 0.7 + 0.01 * step)


def test_ddim_with_all_noise_and_all_steps_is_ddpm() -> None:
    noise = SeededNoise(9, np.arange(30))
    full = DdimSampler(cosine_schedule(), 50, eta=1.0).sample(shrinking, noise)
    torch.testing.assert_close(
        full, DdpmSampler(cosine_schedule()).sample(shrinking, noise), atol=1e-4, rtol=1e-4
    )


@given(KEYS, SAMPLERS, st.integers(0, 2**32))
def test_a_sample_belongs_to_its_key_to_the_bit(
    keys: list[int], sampler: DdimSampler | DdpmSampler, seed: int
) -> None:
    order = np.random.default_rng(seed).permutation(len(keys))
    here = sampler.sample(shrinking, SeededNoise(5, np.array(keys)))
    there = sampler.sample(shrinking, SeededNoise(5, np.array(keys)[order]))
    assert torch.equal(here[torch.from_numpy(order)], there)
    assert torch.equal(here, sampler.sample(shrinking, SeededNoise(5, np.array(keys))))


def test_predictions_are_clamped() -> None:
    sample = DdimSampler(cosine_schedule(), 5).sample(
        lambda x, step: x * 1e6, SeededNoise(0, np.arange(9))
    )
    assert sample.abs().max() <= 1.0


def test_noise_is_normal_and_its_draws_queries_and_keys_are_strangers() -> None:
    keys = np.arange(20_000)
    noise = SeededNoise(seed_of("rain"), keys)
    draws = torch.stack(
        [noise(0), noise(1), SeededNoise(seed_of("Rain"), keys)(0), noise(0).roll(1)]
    )
    np.testing.assert_allclose(draws.mean(1), 0.0, atol=0.03)
    np.testing.assert_allclose(torch.corrcoef(draws), np.eye(4), atol=0.03)
    share = (draws[0].abs() < 1.0).float().mean()
    assert share == pytest.approx(0.6827, abs=0.01)


@pytest.mark.parametrize("text", ["", "狗 🐕", "\ud800", "a" * 10_000])
def test_every_text_seeds_noise(text: str) -> None:
    assert torch.isfinite(SeededNoise(seed_of(text), np.array([-1, 0, 2**63 - 1]))(0)).all()

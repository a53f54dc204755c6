"""Cooling and acceptance by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elicitor.search.schedule import temperature, threshold
from elicitor.search_settings import IcmConfig


def test_temperature_by_hand():
    config = IcmConfig()
    assert temperature(1, config) == 10.0
    assert temperature(100, config) == pytest.approx(10 / (1 + 0.99 * 4.605170186))
    assert temperature(10**9, IcmConfig(beta=1000)) == 0.01


@given(st.integers(1, 10**6))
def test_temperature_never_rises(iteration):
    config = IcmConfig()
    assert temperature(iteration + 1, config) <= temperature(iteration, config)


@pytest.mark.parametrize("change", [-1.0, -3.0, 0.0])
def test_acceptance_has_the_metropolis_rate(change):
    rng = np.random.default_rng(0)
    rate = np.mean([change > threshold(2.0, rng) for _ in range(20_000)])
    assert rate == pytest.approx(math.exp(change / 2.0), abs=0.01)


def test_rises_are_always_taken_and_deep_falls_never_overflow():
    rng = np.random.default_rng(0)
    assert all(threshold(0.01, rng) < 1e-9 for _ in range(100))
    assert not any(threshold(0.01, rng) < -1e9 for _ in range(100))
    assert all(threshold(0.01, rng) < 1e9 for _ in range(100))


def test_a_decision_takes_one_draw():
    """Whatever the change is: a rounding difference in scores never shifts the stream of draws."""
    left, right = np.random.default_rng(1), np.random.default_rng(1)
    threshold(1.0, left)
    right.random()
    assert left.random() == right.random()

"""Cooling and acceptance, shared by every annealed search (Wen et al. 2025, algorithm 1)."""

from __future__ import annotations

import math

import numpy as np

from elicitor.config import IcmConfig


def temperature(iteration: int, config: IcmConfig) -> float:
    """T = max(T_min, T_0 / (1 + beta * ln(iteration))).

    Args:
        iteration: Number of the iteration, from 1.
        config: T_0, T_min and beta.

    Returns:
        The temperature, in units of utility.
    """
    return max(config.min_temperature, config.initial_temperature / (1 + config.beta * math.log(iteration)))


def accepts(change: float, temperature: float, rng: np.random.Generator) -> bool:
    """Metropolis acceptance: always when utility rises, else with probability exp(change / temperature).

    Args:
        change: U(D') - U(D).
        temperature: Positive.
        rng: Draws one number whatever the change is, so that the stream of draws does not depend on scores' noise.

    Returns:
        Whether the proposal is taken.
    """
    draw = rng.random()
    return change > 0 or draw < math.exp(change / temperature)

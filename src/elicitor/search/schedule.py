"""Cooling and acceptance, shared by every annealed search (Wen et al. 2025, algorithm 1)."""

from __future__ import annotations

import math

import numpy as np

from elicitor.search_settings import IcmConfig


def temperature(iteration: int, config: IcmConfig) -> float:
    """T = max(T_min, T_0 / (1 + beta * ln(iteration))).

    Args:
        iteration: Number of the iteration, from 1.
        config: T_0, T_min and beta.

    Returns:
        The temperature, in units of utility.
    """
    return max(config.min_temperature, config.initial_temperature / (1 + config.beta * math.log(iteration)))


def threshold(temperature: float, rng: np.random.Generator) -> float:
    """The change of utility above which Metropolis acceptance takes a proposal.

    A change is taken with probability min(1, exp(change / temperature)): it must exceed temperature times the log of a
    uniform number.

    Args:
        temperature: Positive.
        rng: Draws one number whatever the change is, so that the stream of draws does not depend on scores' noise.

    Returns:
        U(D') - U(D) to exceed; negative.
    """
    draw = rng.random()
    return temperature * math.log(draw) if draw else -math.inf

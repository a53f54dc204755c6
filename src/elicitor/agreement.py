"""How far runs found the same labels: the share on which they agree, and what chance does not explain of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from elicitor.metrics import Estimate, estimate_of, group_index, group_weights

Labels = NDArray[np.int64]
"""Shape (items,): label indices that a run found."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement of pairs of runs on the same items.

    Attributes:
        share: Share of the items with one label, mean over pairs.
        kappa: Cohen's kappa, mean over pairs: 0 is what the runs' class shares give by chance.
        kappas: Kappa of each pair.
    """

    share: Estimate
    kappa: Estimate
    kappas: tuple[float, ...]


def agreement(
    pairs: Sequence[tuple[Labels, Labels]], groups: Sequence[str], *, rng: np.random.Generator, resamples: int = 2000
) -> Agreement:
    """Compare pairs of runs (Cohen 1960), with bootstrap intervals clustered on groups.

    The intervals cover which items were drawn, not which runs: pairs that share a run are not independent. Where all items
    agree, or none does, that of the share is Wilson's (see `elicitor.metrics.mean`), and that of kappa is made of it.

    Args:
        pairs: Runs that are compared, at least one pair.
        groups: Group of each item.
        rng: Draws the resamples.
        resamples: Bootstrap resamples.

    Returns:
        The agreement; ``seeds`` of its estimates counts the pairs.

    Raises:
        ValueError: If there are no items, or the shapes differ.
    """
    index = group_index(np.stack([left == right for left, right in pairs]), groups)
    whole = np.ones((1, len(index)))
    weights = np.concatenate([whole, group_weights(index, rng=rng, resamples=resamples)])
    shares, expected = np.stack([_shares(left, right, weights) for left, right in pairs], axis=2)
    kappas = beyond_chance(shares, expected)
    share = estimate_of(shares[0], shares[1:].mean(axis=1), index, bounds=(0, 1))
    kappa = estimate_of(kappas[0], kappas[1:].mean(axis=1), index)
    if share.lower is not None and share.value in (0.0, 1.0):
        ends = (np.full(len(pairs), end) for end in (share.lower, share.upper))
        lower, upper = (float(beyond_chance(end, expected[0]).mean()) for end in ends)
        kappa = replace(kappa, lower=lower, upper=upper)
    return Agreement(share, kappa, tuple(kappas[0].tolist()))


def beyond_chance(share: NDArray[np.float64], expected: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cohen's kappa: (share - expected) / (1 - expected); 0 where both gave one and the same label to all.

    Args:
        share: Share of items with one label, any shape.
        expected: Share expected of the class shares by chance, same shape.

    Returns:
        Same shape, at most 1. Two runs that collapsed alike agree by their shares alone.
    """
    room = 1 - expected
    return np.divide(share - expected, room, out=np.zeros_like(share), where=room > 1e-12)


def _shares(left: Labels, right: Labels, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Observed and expected agreement of two runs under each row of item weights, shape (2, rows)."""
    items = weights.sum(axis=1)
    both = [(weights @ (left == label)) * (weights @ (right == label)) for label in np.unique(left)]
    # Counts are divided last, so that full agreement is exactly 1.
    return np.stack([weights @ (left == right) / items, np.sum(both, axis=0) / items**2])

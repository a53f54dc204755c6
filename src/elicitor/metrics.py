"""Figures with intervals: accuracy and gap recovered, by bootstrap over groups and seeds.

Claims of one question are not independent, so whole groups are resampled; seeds are resampled as well, so that an
interval covers both which items were drawn and which demonstrations were.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Correct = NDArray[np.bool_]
"""Shape (seeds, items): whether each item was answered correctly under each seed."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its 95% interval.

    Attributes:
        value: Point estimate.
        lower: Lower end, None when the data cannot give an interval (fewer than two groups, or an undefined ratio).
        upper: Upper end; None likewise, and where a ratio has no bound above.
        n: Items.
        groups: Groups among them.
        seeds: Seeds averaged over.
    """

    value: float | None
    lower: float | None
    upper: float | None
    n: int
    groups: int
    seeds: int

    def __str__(self) -> str:
        """``0.81 [0.74, 0.88]``."""
        if self.value is None:
            return "undefined"
        if self.lower is None and self.upper is None:
            return f"{self.value:.3f} [no interval]"
        lower, upper = ("unbounded" if end is None else f"{end:.3f}" for end in (self.lower, self.upper))
        return f"{self.value:.3f} [{lower}, {upper}]"


def accuracy(correct: Correct, groups: Sequence[str], *, rng: np.random.Generator, resamples: int = 2000) -> Estimate:
    """Share of correct answers, averaged over seeds, with a bootstrap interval clustered on groups.

    Args:
        correct: Shape (seeds, items).
        groups: Group of each item.
        rng: Draws the resamples.
        resamples: Bootstrap resamples.

    Returns:
        The accuracy in [0, 1] with its percentile interval.

    Raises:
        ValueError: If there are no items, or the shapes differ.
    """
    index = _group_index(correct, groups)
    n_groups = int(index.max()) + 1
    draws = _resampled_means([correct], index, rng=rng, resamples=resamples)[0]
    lower, upper = np.quantile(draws, [0.025, 0.975]) if n_groups > 1 else (None, None)
    return Estimate(
        value=float(correct.mean()),
        lower=None if lower is None else float(lower),
        upper=None if upper is None else float(upper),
        n=correct.shape[1],
        groups=n_groups,
        seeds=correct.shape[0],
    )


def gap_recovered(
    method: Correct,
    zero_shot: Correct,
    golden: Correct,
    groups: Sequence[str],
    *,
    rng: np.random.Generator,
    resamples: int = 2000,
) -> Estimate:
    """(method - zero-shot) / (golden - zero-shot), all three on the same resampled items.

    The ratio means nothing where golden labels are not better than none; it is undefined when the lower end of the
    interval of golden - zero-shot is not above 0.

    Args:
        method: Shape (seeds, items).
        zero_shot: Shape (seeds, items); its seeds may differ in number.
        golden: Shape (seeds, items).
        groups: Group of each item.
        rng: Draws the resamples.
        resamples: Bootstrap resamples.

    Returns:
        1 means as good as gold, 0 as zero-shot; value None when undefined.

    Raises:
        ValueError: If there are no items, or the shapes differ.
    """
    index = _group_index(method, groups)
    found, zero, gold = _resampled_means([method, zero_shot, golden], index, rng=rng, resamples=resamples)
    n_groups = int(index.max()) + 1
    gap = gold - zero
    defined = n_groups > 1 and float(np.quantile(gap, 0.025)) > 0
    value = lower = upper = None
    if defined:
        value = float((method.mean() - zero_shot.mean()) / (golden.mean() - zero_shot.mean()))
        # A resample whose gap is not positive (at most 2.5% are) has a ratio beyond any bound, or 0 where nothing was gained.
        gained = found - zero
        ratio = np.where(gained == 0, 0.0, np.copysign(np.inf, gained))
        np.divide(gained, gap, out=ratio, where=gap > 0)
        ends = np.quantile(ratio, [0.025, 0.975], method="nearest")
        lower, upper = (float(end) if np.isfinite(end) else None for end in ends)
    return Estimate(value, lower, upper, n=method.shape[1], groups=n_groups, seeds=method.shape[0])


def _group_index(correct: Correct, groups: Sequence[str]) -> NDArray[np.int64]:
    if correct.ndim != 2 or correct.size == 0 or correct.shape[1] != len(groups):
        raise ValueError(
            f"got correct of shape {correct.shape} and {len(groups)} groups; need (seeds, items), not empty"
        )
    return np.unique(np.asarray(groups), return_inverse=True)[1].astype(np.int64)


def _resampled_means(
    tables: Sequence[Correct], index: NDArray[np.int64], *, rng: np.random.Generator, resamples: int
) -> list[NDArray[np.float64]]:
    """Mean of each table over the same resampled groups, and over its own resampled seeds; shape (resamples,) each."""
    n_groups = int(index.max()) + 1
    sizes = np.bincount(index, minlength=n_groups)
    drawn = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=resamples)
    means = []
    for table in tables:
        sums = np.stack([np.bincount(index, weights=row, minlength=n_groups) for row in table])
        by_seed = (drawn @ sums.T) / (drawn @ sizes)[:, None]
        seeds = rng.integers(len(table), size=(resamples, len(table)))
        means.append(np.take_along_axis(by_seed, seeds, axis=1).mean(axis=1))
    return means

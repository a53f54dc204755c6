"""Figures with intervals: accuracy, AUROC, calibration error, differences and gap recovered.

Claims of one question are not independent, so whole groups are resampled; seeds are resampled as well, so that an
interval covers both which items were drawn and which demonstrations were. With few seeds a plain bootstrap would show too
little of their spread (it divides by k where k - 1 is due), so deviations of resampled seeds are widened by that much
(within the bounds that a share, or a difference of shares, has).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elicitor.wilson import wilson

Correct = NDArray[np.bool_]
"""Shape (seeds, items): whether each item was answered correctly under each seed."""
Scores = NDArray[np.float64]
"""Shape (seeds, items)."""


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
        seed_sd: Standard deviation of the figure over seeds, None with one seed or where it is not an average.
    """

    value: float | None
    lower: float | None
    upper: float | None
    n: int
    groups: int
    seeds: int
    seed_sd: float | None = None

    def __str__(self) -> str:
        """``0.81 [0.74, 0.88]``."""
        if self.value is None:
            return "undefined"
        if self.lower is None and self.upper is None:
            return f"{self.value:.3f} [no interval]"
        lower, upper = ("unbounded" if end is None else f"{end:.3f}" for end in (self.lower, self.upper))
        return f"{self.value:.3f} [{lower}, {upper}]"


FEW_GROUPS = 20
"""Groups below which a cluster bootstrap's intervals cannot be trusted (Cameron, Gelbach and Miller 2008)."""


def few_groups_note(groups: Sequence[str]) -> list[str]:
    """What a reader of intervals must know where there are few groups; empty otherwise.

    Args:
        groups: Group of each item.

    Returns:
        At most one sentence.
    """
    n = len(set(groups))
    few = f"only {n} groups of test examples: a bootstrap over so few gives intervals that are too narrow"
    return [few] if n < FEW_GROUPS else []


def accuracy(correct: Correct, groups: Sequence[str], *, rng: np.random.Generator, resamples: int = 2000) -> Estimate:
    """Share of correct answers, averaged over seeds, with a bootstrap interval clustered on groups.

    Where all groups are alike, as where all answers are right, the interval is Wilson's (see `wilson`), with the groups as
    observations.

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
    return mean(correct, groups, rng=rng, resamples=resamples, bounds=(0, 1))


def mean(
    values: Scores | Correct,
    groups: Sequence[str],
    *,
    rng: np.random.Generator,
    resamples: int = 2000,
    bounds: tuple[float, float] | None = None,
) -> Estimate:
    """Mean of numbers, such as rewards or their paired differences, with a bootstrap interval clustered on groups.

    Args:
        values: Shape (seeds, items).
        groups: Group of each item.
        rng: Draws the resamples.
        resamples: Bootstrap resamples.
        bounds: Least and greatest value there can be. Where no resample differs from another, the interval reaches as far
            towards each as Wilson's (see `wilson`) does for none of so many groups; without bounds it has no width.

    Returns:
        The mean with its percentile interval.

    Raises:
        ValueError: If there are no items, or the shapes differ.
    """
    index = group_index(values, groups)
    draws = _resampled_means([values], index, rng=rng, resamples=resamples)[0]
    return estimate_of(values.mean(axis=1), draws, index, bounds=bounds)


def auroc(
    scores: Scores,
    truth: NDArray[np.bool_],
    groups: Sequence[str],
    *,
    rng: np.random.Generator,
    resamples: int = 500,
) -> Estimate:
    """Area under the ROC curve: how often a positive item scores above a negative one, ties counted half.

    Args:
        scores: Shape (seeds, items): any number that grows with the belief in the positive label.
        truth: Shape (items,): whether each item is positive.
        groups: Group of each item.
        rng: Draws the resamples.
        resamples: Bootstrap resamples.

    Returns:
        The area in [0, 1], averaged over seeds; value None where all items are of one kind.

    Raises:
        ValueError: If there are no items, or the shapes differ.
    """
    index = group_index(scores, groups)
    weights = group_weights(index, rng=rng, resamples=resamples)
    whole = np.ones((1, len(index)))
    values = np.stack([_weighted_auroc(row, truth, whole)[0] for row in scores])
    if np.isnan(values).any():
        return Estimate(None, None, None, n=len(index), groups=int(index.max()) + 1, seeds=len(scores))
    draws = _over_seeds(np.stack([_weighted_auroc(row, truth, weights) for row in scores], axis=1), rng=rng)
    # A resample of one kind alone has no area; it says nothing about the spread of those that have one.
    return estimate_of(values, draws[~np.isnan(draws)], index, bounds=(0, 1))


def calibration_error(
    probabilities: NDArray[np.float64],
    truth: NDArray[np.int64],
    groups: Sequence[str],
    *,
    rng: np.random.Generator,
    bins: int = 10,
    resamples: int = 500,
) -> Estimate:
    """Expected calibration error: mean gap between the confidence in the answer and how often such answers are right.

    Answers are put into bins of equal width by their confidence (Guo et al. 2017, equation 3). With few items it is biased
    upwards, and so is its interval: even a perfectly calibrated model has gaps by chance.

    Args:
        probabilities: Shape (seeds, items, labels), each row summing to 1.
        truth: Shape (items,): index of the true label.
        groups: Group of each item.
        rng: Draws the resamples.
        bins: Number of bins.
        resamples: Bootstrap resamples.

    Returns:
        The error in [0, 1], averaged over seeds.

    Raises:
        ValueError: If there are no items, or the shapes differ.
    """
    confidence = probabilities.max(axis=2)
    index = group_index(confidence, groups)
    gaps = confidence - (probabilities.argmax(axis=2) == truth)
    places = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    weights = np.concatenate([np.ones((1, len(index))), group_weights(index, rng=rng, resamples=resamples)])
    errors = np.zeros((len(weights), len(confidence)))
    for seed, (row, place) in enumerate(zip(gaps, places, strict=True)):
        for k in range(bins):
            errors[:, seed] += np.abs(weights @ np.where(place == k, row, 0.0))
    errors /= weights.sum(axis=1, keepdims=True)
    return estimate_of(errors[0], np.clip(_over_seeds(errors[1:], rng=rng), 0, 1), index)


@dataclass(frozen=True, slots=True)
class Difference:
    """How two methods differ on the same items.

    Attributes:
        estimate: Accuracy of the first less that of the second.
        p_value: Two-sided, by the same bootstrap: how surprising the difference would be if there were none, and no less
            than that so many groups fall to one side by chance. None where there is no interval.
    """

    estimate: Estimate
    p_value: float | None


def difference(
    first: Correct, second: Correct, groups: Sequence[str], *, rng: np.random.Generator, resamples: int = 2000
) -> Difference:
    """Paired comparison of two methods: accuracies on the same items under the same seeds, by cluster bootstrap.

    Where all groups are alike, as where no item differs, the interval is as in `mean`, between -1 and 1.

    Args:
        first: Shape (seeds, items).
        second: Shape (seeds, items); the same seeds in the same order, or either has a single one.
        groups: Group of each item.
        rng: Draws the resamples.
        resamples: Bootstrap resamples.

    Returns:
        The difference with its interval and p-value.

    Raises:
        ValueError: If there are no items, or the shapes differ.
    """
    gained = first.astype(np.float64) - second.astype(np.float64)
    index = group_index(gained, groups)
    draws = _resampled_means([gained], index, rng=rng, resamples=resamples)[0]
    estimate = estimate_of(gained.mean(axis=1), draws, index, bounds=(-1, 1))
    if estimate.lower is None or estimate.value is None:
        return Difference(estimate, None)
    # Under no difference the draws would lie around 0 as they now lie around the estimate.
    beyond = np.abs(draws - estimate.value) >= abs(estimate.value) - 1e-12
    by_chance = 2 * 0.5**estimate.groups
    return Difference(estimate, min(1.0, max(by_chance, float((beyond.sum() + 1) / (resamples + 1)))))


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
    interval of golden - zero-shot is not above 0. Where no resample differs from another the interval is as in `difference`.

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
    index = group_index(method, groups)
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
        if ends[0] == ends[1]:
            # As where no item of the method and of golden differs: what `difference` says then, in shares of the gap.
            reach = wilson(0.0, n=n_groups)[1] / float(golden.mean() - zero_shot.mean())
            ends = np.array([value - reach, value + reach])
        lower, upper = (float(end) if np.isfinite(end) else None for end in ends)
    return Estimate(value, lower, upper, n=method.shape[1], groups=n_groups, seeds=method.shape[0])


def group_index(table: NDArray[Any], groups: Sequence[str]) -> NDArray[np.int64]:
    """Number of each item's group, from 0 on; shape (items,).

    Args:
        table: Shape (seeds, items).
        groups: Group of each item.

    Raises:
        ValueError: If there are no items, or the shapes differ.
    """
    if table.ndim != 2 or table.size == 0 or table.shape[1] != len(groups):
        raise ValueError(f"got a table of shape {table.shape} and {len(groups)} groups; need (seeds, items), not empty")
    return np.unique(np.asarray(groups), return_inverse=True)[1].astype(np.int64)


def estimate_of(
    by_seed: NDArray[np.float64],
    draws: NDArray[np.float64],
    index: NDArray[np.int64],
    *,
    bounds: tuple[float, float] | None = None,
) -> Estimate:
    """Mean over seeds with a percentile interval from the draws; none where there is one group alone.

    Args:
        by_seed: Shape (seeds,): the figure under each seed.
        draws: Shape (resamples,): the figure in each resample of groups (and of seeds, if it is to cover them).
        index: Shape (items,): number of each item's group; see `group_index`.
        bounds: Least and greatest value there can be; see `mean`.
    """
    n_groups, value = int(index.max()) + 1, float(by_seed.mean())
    ends: list[float | None] = [None, None]
    if n_groups > 1 and len(draws):
        ends = np.quantile(draws if bounds is None else np.clip(draws, *bounds), [0.025, 0.975]).tolist()
        if bounds is not None and np.ptp(draws) < 1e-12:
            # No resample differs from another, which does not make four answers of four certain.
            reach = wilson(0.0, n=n_groups)[1]
            ends = [value - reach * (value - bounds[0]), value + reach * (bounds[1] - value)]
    return Estimate(
        value=value,
        lower=ends[0],
        upper=ends[1],
        n=len(index),
        groups=n_groups,
        seeds=len(by_seed),
        seed_sd=float(by_seed.std(ddof=1)) if len(by_seed) > 1 else None,
    )


def _drawn_groups(n_groups: int, *, rng: np.random.Generator, resamples: int) -> NDArray[np.int64]:
    """How often each group is in each resample, shape (resamples, groups)."""
    return rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=resamples).astype(np.int64)


def group_weights(index: NDArray[np.int64], *, rng: np.random.Generator, resamples: int) -> NDArray[np.float64]:
    """How often each item is in each resample of whole groups.

    Args:
        index: Shape (items,): number of each item's group; see `group_index`.
        rng: Draws the resamples.
        resamples: How many.

    Returns:
        Shape (resamples, items).
    """
    return _drawn_groups(int(index.max()) + 1, rng=rng, resamples=resamples)[:, index].astype(np.float64)


def _over_seeds(by_seed: NDArray[np.float64], *, rng: np.random.Generator) -> NDArray[np.float64]:
    """Means over resampled seeds, shape (resamples,), of figures of shape (resamples, seeds)."""
    k = by_seed.shape[1]
    if k == 1:
        return by_seed[:, 0]
    centre = by_seed.mean(axis=1)
    drawn = np.take_along_axis(by_seed, rng.integers(k, size=by_seed.shape), axis=1).mean(axis=1)
    return np.asarray(centre + np.sqrt(k / (k - 1)) * (drawn - centre))


def _resampled_means(
    tables: Sequence[NDArray[Any]], index: NDArray[np.int64], *, rng: np.random.Generator, resamples: int
) -> list[NDArray[np.float64]]:
    """Mean of each table over the same resampled groups, and over its own resampled seeds; shape (resamples,) each."""
    n_groups = int(index.max()) + 1
    sizes = np.bincount(index, minlength=n_groups)
    drawn = _drawn_groups(n_groups, rng=rng, resamples=resamples)
    means = []
    for table in tables:
        sums = np.stack([np.bincount(index, weights=row, minlength=n_groups) for row in table])
        means.append(_over_seeds((drawn @ sums.T) / (drawn @ sizes)[:, None], rng=rng))
    return means


def _weighted_auroc(
    scores: NDArray[np.float64], truth: NDArray[np.bool_], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """AUROC under each row of item weights, shape (resamples,); NaN where one kind has no weight."""
    _, level = np.unique(scores, return_inverse=True)
    n_levels = int(level.max()) + 1
    at_level = np.eye(n_levels)[level]
    positive, negative = (weights * truth) @ at_level, (weights * ~truth) @ at_level
    below = np.cumsum(negative, axis=1) - negative
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    won = (positive * (below + negative / 2)).sum(axis=1)
    return np.asarray(np.divide(won, pairs, out=np.full(len(weights), np.nan), where=pairs > 0))

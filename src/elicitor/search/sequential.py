"""A change of utility estimated from some of its terms, and when that is enough to decide (Korattikara et al. 2014).

U(D') - U(D) of a proposal is a mean over all labelled examples of how much better the others now predict them. Terms of a
random sample are read, then as many again, until a t-test says on which side of the acceptance threshold the change lies; with
all of them read it is exact. Pure functions of label distributions: `elicitor.search.icm` reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from elicitor.config import ObjectiveConfig
from elicitor.objective import Array, normalize, offset_of, predictability


@dataclass(frozen=True, slots=True)
class Terms:
    """What has been read of one proposal.

    Attributes:
        before: Shape (read, labels): distributions of other examples given all labels but their own, normalised.
        after: The same with the proposal among the labels.
        labels: Label of each of those examples.
        others: Labelled examples besides the one proposed for; those read are a random sample of them.
        proposed: Shape (labels,): distribution of the example proposed for. Its own label is not in its context.
        label_before: Its label before, None if it had none.
        label_after: The label proposed.
    """

    before: Array
    after: Array
    labels: tuple[int, ...]
    others: int
    proposed: Array
    label_before: int | None
    label_after: int

    @property
    def read(self) -> int:
        """Terms read."""
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class Change:
    """An estimate of alpha * (P(D') - P(D)).

    Attributes:
        value: The estimate; exact if every term was read.
        error: Its standard error; 0 if every term was read.
    """

    value: float
    error: float


def change(terms: Terms, config: ObjectiveConfig) -> Change:
    """Estimate how much a proposal adds to utility, inconsistency left out.

    The error is the jackknife's over the terms read, calibration included, with the correction for a sample out of a finite
    number.

    Args:
        terms: What has been read; at least one other example.
        config: Settings of the objective.

    Returns:
        The estimate.
    """
    kept = range(terms.read)
    value = _value(terms, list(kept), config)
    if terms.read == terms.others:
        return Change(value, 0.0)
    if terms.read < 2:
        return Change(value, float("inf"))
    without = np.asarray([_value(terms, [k for k in kept if k != out], config) for out in kept])
    left = 1 - terms.read / terms.others
    variance = (terms.read - 1) / terms.read * float(((without - without.mean()) ** 2).sum()) * left
    return Change(value, float(np.sqrt(variance)))


def is_decided(estimate: Change, threshold: float, *, read: int, level: float) -> bool:
    """Whether the terms read tell on which side of a threshold the change lies.

    Args:
        estimate: The change.
        threshold: What it is compared with.
        read: Terms read.
        level: Probability of an error of one such test that is put up with, at the threshold itself.

    Returns:
        True if the t-test with one less degrees of freedom than terms rejects the threshold.
    """
    from scipy.special import stdtr  # takes longer to import than all else that a search needs

    if estimate.error == 0:
        return True
    return bool(stdtr(max(1, read - 1), -abs(estimate.value - threshold) / estimate.error) < level)


def _value(terms: Terms, kept: Sequence[int], config: ObjectiveConfig) -> float:
    """The change alpha * (P(D') - P(D)) as if the terms kept stood for all others."""
    weights = [terms.others / len(kept)] * len(kept)
    labels = [terms.labels[k] for k in kept]
    after = _predictability(
        [*terms.after[list(kept)], terms.proposed], [*labels, terms.label_after], [*weights, 1.0], config
    )
    if terms.label_before is None:
        before = _predictability(list(terms.before[list(kept)]), labels, weights, config)
    else:
        rows = [*terms.before[list(kept)], terms.proposed]
        before = _predictability(rows, [*labels, terms.label_before], [*weights, 1.0], config)
    return config.alpha * (after - before)


def _predictability(
    rows: list[Array], labels: Sequence[int], weights: Sequence[float], config: ObjectiveConfig
) -> float:
    stacked = np.stack(rows)
    calibrated = normalize(stacked - offset_of(stacked, config, weights=weights))
    return predictability(calibrated, labels, config, weights=weights)

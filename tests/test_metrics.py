"""Intervals against hand-worked cases and an independent bootstrap."""

import numpy as np
import pytest
from scipy import stats

from elicitor.metrics import accuracy, gap_recovered


def rng():
    return np.random.default_rng(0)


def test_accuracy_is_the_mean_over_seeds_and_items():
    correct = np.array([[True, True, False, True], [True, False, False, True]])
    estimate = accuracy(correct, ["a", "b", "c", "d"], rng=rng())
    assert estimate.value == pytest.approx(5 / 8)
    assert (estimate.n, estimate.groups, estimate.seeds) == (4, 4, 2)
    assert estimate.lower <= estimate.value <= estimate.upper


def test_interval_agrees_with_scipy_where_every_item_is_its_own_group():
    correct = rng().random((1, 200)) < 0.7
    ours = accuracy(correct, [str(i) for i in range(200)], rng=rng(), resamples=20_000)
    theirs = stats.bootstrap(
        (correct[0].astype(float),), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert ours.lower == pytest.approx(theirs.low, abs=0.01)
    assert ours.upper == pytest.approx(theirs.high, abs=0.01)


def test_groups_of_equal_answers_widen_the_interval_as_if_only_groups_counted():
    groups = np.repeat(np.arange(40), 5)
    correct = (rng().random(40) < 0.6)[groups][None]
    clustered = accuracy(correct, [str(g) for g in groups], rng=rng(), resamples=20_000)
    one_each = accuracy(correct[:, ::5], [str(g) for g in range(40)], rng=rng(), resamples=20_000)
    naive = accuracy(correct, [str(i) for i in range(200)], rng=rng(), resamples=20_000)
    assert clustered.upper - clustered.lower == pytest.approx(one_each.upper - one_each.lower, abs=0.02)
    assert clustered.upper - clustered.lower > 1.8 * (naive.upper - naive.lower)


def test_spread_over_seeds_widens_the_interval():
    same = np.tile(np.arange(100) % 2 == 0, (3, 1))
    spread = np.stack([np.ones(100, bool), np.arange(100) % 2 == 0, np.zeros(100, bool)])
    groups = [str(i) for i in range(100)]
    narrow, wide = accuracy(same, groups, rng=rng()), accuracy(spread, groups, rng=rng())
    assert narrow.value == wide.value == 0.5
    assert wide.upper - wide.lower > 2 * (narrow.upper - narrow.lower)


def test_one_group_has_no_interval():
    estimate = accuracy(np.array([[True, False]]), ["q", "q"], rng=rng())
    assert (estimate.value, estimate.lower, estimate.upper) == (0.5, None, None)
    assert "no interval" in str(estimate)


def test_gap_recovered_by_hand():
    groups = [str(i) for i in range(100)]
    zero = (np.arange(100) < 50)[None]
    golden = (np.arange(100) < 90)[None]
    method = (np.arange(100) < 80)[None]
    estimate = gap_recovered(method, zero, golden, groups, rng=rng())
    assert estimate.value == pytest.approx(0.75)
    assert estimate.lower < 0.75 < estimate.upper
    # Paired resampling: with the same items right, the ratio varies far less than an unpaired one would.
    assert estimate.upper - estimate.lower < 0.4


@pytest.mark.parametrize("golden_right", [50, 40, 53])
def test_gap_recovered_is_undefined_where_golden_is_not_clearly_better(golden_right):
    groups = [str(i) for i in range(100)]
    zero = (np.arange(100)[::-1] < 50)[None]
    golden = (np.arange(100) < golden_right)[None]
    estimate = gap_recovered(zero, zero, golden, groups, rng=rng())
    assert estimate.value is None
    assert str(estimate) == "undefined"


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"\(1, 2\) and 3 groups"):
        accuracy(np.ones((1, 2), bool), ["a", "b", "c"], rng=rng())

"""Figures and intervals against hand-worked cases, scipy and scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sklearn_metrics

from elicitor.metrics import accuracy, auroc, calibration_error, difference, few_groups_note, gap_recovered, mean
from elicitor.wilson import wilson


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


@pytest.mark.parametrize(("right", "share"), [(90, 1), (50, 0)])
def test_a_gap_recovered_on_every_item_alike_is_no_certainty(right, share):
    groups = [str(i) for i in range(100)]
    zero, golden, method = ((np.arange(100) < count)[None] for count in (50, 90, right))
    estimate = gap_recovered(method, zero, golden, groups, rng=rng())
    apart = difference(method, golden if share else zero, groups, rng=rng()).estimate
    assert estimate.value == share
    assert apart.upper > 0
    assert estimate.upper == pytest.approx(share + apart.upper / 0.4)
    assert estimate.lower == pytest.approx(share - apart.upper / 0.4)


@pytest.mark.parametrize("golden_right", [50, 40, 53])
def test_gap_recovered_is_undefined_where_golden_is_not_clearly_better(golden_right):
    groups = [str(i) for i in range(100)]
    zero = (np.arange(100)[::-1] < 50)[None]
    golden = (np.arange(100) < golden_right)[None]
    estimate = gap_recovered(zero, zero, golden, groups, rng=rng())
    assert estimate.value is None
    assert str(estimate) == "undefined"


def test_few_seeds_show_their_whole_spread():
    """With items all alike only seeds vary: the variance of the mean of k seeds is s^2 / k with k - 1 in s^2."""
    shares = [0.5, 0.6, 0.9]
    correct = np.stack([np.arange(1000) < 1000 * share for share in shares])
    groups = ["a"] * 500 + ["b"] * 500
    even = np.stack([np.r_[row[::2], row[1::2]] for row in correct])
    estimate = accuracy(even, groups, rng=rng(), resamples=40_000)
    assert estimate.seed_sd == pytest.approx(np.std(shares, ddof=1))
    standard_error = np.std(shares, ddof=1) / np.sqrt(3)
    half = (estimate.upper - estimate.lower) / 2
    # Three seeds have few distinct resamples, so the interval is a step function near 1.96 standard errors.
    assert 1.5 * standard_error < half < 2.4 * standard_error


def test_no_interval_leaves_the_range_of_a_share():
    correct = np.ones((3, 40), bool)
    correct[0, :8] = False
    estimate = accuracy(correct, [str(i) for i in range(40)], rng=rng())
    assert 0 <= estimate.lower < estimate.value < estimate.upper == 1.0


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_auroc_is_that_of_scikit_learn(pairs):
    scores = np.asarray([[float(score) for score, _ in pairs]])
    truth = np.asarray([positive for _, positive in pairs])
    estimate = auroc(scores, truth, [str(i) for i in range(len(pairs))], rng=rng(), resamples=20)
    if truth.all() or not truth.any():
        assert estimate.value is None
    else:
        assert estimate.value == pytest.approx(sklearn_metrics.roc_auc_score(truth, scores[0]))
        assert estimate.lower <= estimate.upper


def test_auroc_interval_covers_what_resampling_with_scikit_learn_covers():
    truth = np.arange(120) % 2 == 0
    scores = (truth + rng().normal(0, 1.2, 120))[None]
    estimate = auroc(scores, truth, [str(i) for i in range(120)], rng=rng(), resamples=2000)
    draw = np.random.default_rng(5)
    areas = []
    for _ in range(2000):
        items = draw.integers(120, size=120)
        areas.append(sklearn_metrics.roc_auc_score(truth[items], scores[0][items]))
    assert [estimate.lower, estimate.upper] == pytest.approx(np.quantile(areas, [0.025, 0.975]), abs=0.02)


def test_calibration_error_by_hand():
    """Two bins: four answers at 0.9 of which three are right, six at 0.6 of which three are."""
    probabilities = np.asarray([[0.1, 0.9]] * 4 + [[0.6, 0.4]] * 6)[None]
    truth = np.asarray([1, 1, 1, 0, 0, 0, 0, 1, 1, 1])
    estimate = calibration_error(probabilities, truth, [str(i) for i in range(10)], rng=rng())
    assert estimate.value == pytest.approx(0.4 * 0.15 + 0.6 * 0.1)
    assert 0 <= estimate.lower <= estimate.upper <= 1


def test_a_calibrated_model_has_little_error_and_an_overconfident_one_much():
    draw = rng()
    confidence = draw.uniform(0.5, 1.0, 20_000)
    truth = (draw.random(20_000) > confidence).astype(int)
    honest = np.stack([confidence, 1 - confidence], axis=1)[None]
    boast = np.tile([[0.99, 0.01]], (20_000, 1))[None]
    groups = [str(i) for i in range(20_000)]
    assert calibration_error(honest, truth, groups, rng=draw, resamples=2).value < 0.02
    assert calibration_error(boast, truth, groups, rng=draw, resamples=2).value == pytest.approx(
        0.99 - confidence.mean(), abs=0.01
    )


def test_a_paired_difference_agrees_with_the_paired_test_of_scipy():
    draw = rng()
    second = draw.random((1, 300)) < 0.6
    first = second ^ (draw.random((1, 300)) < np.where(second, 0.05, 0.25))
    groups = [str(i) for i in range(300)]
    ours = difference(first, second, groups, rng=rng(), resamples=20_000)
    theirs = stats.ttest_rel(first[0].astype(float), second[0].astype(float))
    interval = theirs.confidence_interval()
    assert ours.estimate.value == pytest.approx(first.mean() - second.mean())
    assert [ours.estimate.lower, ours.estimate.upper] == pytest.approx([interval.low, interval.high], abs=0.01)
    assert ours.p_value < 0.005
    assert theirs.pvalue < 0.005
    alike = difference(second, second[:, ::-1], groups, rng=rng())
    expected = stats.ttest_rel(second[0].astype(float), second[0, ::-1].astype(float)).pvalue
    assert alike.p_value == pytest.approx(expected, abs=0.05)


def test_equal_methods_do_not_differ_and_one_seed_is_compared_with_each_of_several():
    correct = rng().random((3, 50)) < 0.7
    groups = [str(i) for i in range(50)]
    same = difference(correct, correct, groups, rng=rng())
    assert (same.estimate.value, same.p_value) == (0.0, 1.0)
    against_one = difference(correct, correct[:1], groups, rng=rng())
    assert against_one.estimate.value == pytest.approx(correct.mean() - correct[0].mean())
    assert against_one.estimate.seeds == 3
    assert difference(correct[:, :2], correct[:1, :2], ["q", "q"], rng=rng()).p_value is None


def test_answers_that_are_all_alike_still_have_an_interval():
    """A bootstrap of four right answers of four has no width. Wilson's for 4 of 4 begins at 4 / (4 + 1.96^2) = 0.510."""
    groups = ["a", "a", "b", "b", "c", "c", "d", "d"]
    right = accuracy(np.ones((2, 8), bool), groups, rng=rng())
    assert (right.value, right.upper) == (1.0, 1.0)
    assert right.lower == pytest.approx(4 / (4 + 1.959964**2))
    wrong = accuracy(np.zeros((1, 8), bool), groups, rng=rng())
    assert (wrong.value, wrong.lower) == (0.0, 0.0)
    assert wrong.upper == pytest.approx(1 - right.lower)
    same = difference(np.ones((2, 8), bool), np.ones((1, 8), bool), groups, rng=rng())
    assert same.p_value == 1.0
    assert (same.estimate.lower, same.estimate.upper) == pytest.approx((right.lower - 1, 1 - right.lower))
    assert accuracy(np.ones((1, 2), bool), ["a", "a"], rng=rng()).lower is None


def test_a_difference_that_all_items_share_is_not_by_chance():
    """Every group gains, so no resample is without a gain: p is as small as the number of resamples allows."""
    first, second = np.ones((1, 40), bool), np.zeros((1, 40), bool)
    first[0, 0] = False
    assert difference(first, second, [str(i) for i in range(40)], rng=rng()).p_value == pytest.approx(1 / 2001)


def test_no_interval_of_a_difference_goes_beyond_all_right_less_all_wrong():
    """Two seeds that differ much: widening their spread would end at 1.2."""
    first = np.asarray([[True, True, True, True], [False, False, False, False]])
    wrong = np.zeros((1, 4), bool)
    estimate = difference(first, wrong, ["a", "b", "c", "d"], rng=rng()).estimate
    assert (estimate.value, estimate.upper) == (0.5, 1.0)
    turned = difference(wrong, first, ["a", "b", "c", "d"], rng=rng()).estimate
    assert (turned.value, turned.lower) == (-0.5, -1.0)


def test_what_no_resample_can_vary_is_not_certain():
    """As `accuracy` has it where all is right: 1.92 / 2 groups make Wilson's reach 3.84 / 5.84 = 0.658."""
    groups = ["a", "b"]
    sure = difference(np.ones((1, 2), bool), np.zeros((1, 2), bool), groups, rng=rng())
    assert str(sure.estimate) == "1.000 [-0.315, 1.000]"
    # Both of two fall to one side of a fair coin half of the time.
    assert sure.p_value == 0.5
    halves = np.asarray([[True, False, False, True]])
    assert str(accuracy(halves, ["a", "a", "b", "b"], rng=rng())) == "0.500 [0.171, 0.829]"
    assert str(mean(np.ones((1, 2)), groups, rng=rng(), bounds=(0, 1))) == "1.000 [0.342, 1.000]"
    assert str(mean(np.full((1, 2), 3.0), groups, rng=rng())) == "3.000 [3.000, 3.000]"
    ranked = auroc(np.asarray([[1.0, 2, 3, 4]]), np.asarray([False, False, True, True]), list("abcd"), rng=rng())
    assert (ranked.value, round(ranked.lower, 3), ranked.upper) == (1.0, 0.51, 1.0)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"\(1, 2\) and 3 groups"):
        accuracy(np.ones((1, 2), bool), ["a", "b", "c"], rng=rng())


def test_few_groups_are_pointed_out():
    assert few_groups_note([str(k) for k in range(20)] * 3) == []
    (note,) = few_groups_note(["a", "b", "a"])
    assert note.startswith("only 2 groups")


def test_wilsons_interval_by_hand_and_beside_scipy():
    # 8 of 10: (0.8 + 1.92 / 10) / (1 + 3.84 / 10) = 0.7168, -+ 1.96 / 1.384 * sqrt(0.016 + 0.0096) = 0.2266.
    lower, upper = wilson(0.8, n=10)
    assert (round(lower, 3), round(upper, 3)) == (0.490, 0.943)
    for hits, n in ((0, 7), (7, 7), (3, 40), (1, 1)):
        theirs = stats.binomtest(hits, n).proportion_ci(method="wilson")
        assert wilson(hits / n, n=n) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert wilson(0.0, n=5)[0] == 0.0
    assert wilson(1.0, n=5)[1] == 1.0

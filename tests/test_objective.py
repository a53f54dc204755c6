import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from elicitor.config import ObjectiveConfig
from elicitor.data import Assignment
from elicitor.objective import batch_offset, log_odds, normalize, predictability

rows = arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(2, 4)), elements=st.floats(-30, 0))


@given(rows)
def test_normalised_rows_sum_to_one_and_keep_their_order(values):
    got = normalize(values)
    np.testing.assert_allclose(np.exp(got).sum(axis=1), 1)
    np.testing.assert_allclose(got - got[:, :1], values - values[:, :1], atol=1e-9)


def test_log_odds_by_hand():
    shares = np.asarray([[0.9, 0.1], [0.2, 0.8]])
    np.testing.assert_allclose(log_odds(np.log(shares)), [[math.log(9), -math.log(9)], [-math.log(4), math.log(4)]])
    np.testing.assert_allclose(log_odds(np.log([0.5, 0.3, 0.2])), np.log([1, 3 / 7, 2 / 8]))


def test_predictability_by_hand():
    shares = normalize(np.log([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]))
    labels = [0, 1, 1]
    odds = [math.log(9), math.log(4), math.log(4 / 6)]
    logs = [math.log(0.9), math.log(0.8), math.log(0.4)]

    def value(**settings):
        return predictability(shares, labels, ObjectiveConfig(**settings))

    assert value() == pytest.approx(sum(odds) / 3)
    assert value(reduce="sum") == pytest.approx(sum(odds))
    assert value(score="log_prob") == pytest.approx(sum(logs) / 3)
    assert value(score="log_prob", reduce="sum") == pytest.approx(sum(logs))
    assert predictability(np.zeros((0, 2)), [], ObjectiveConfig()) == 0


def test_under_the_printed_sum_every_example_lowers_utility():
    """The trap of the printed formula: a label of probability 0.9 is accepted with exp(alpha * log 0.9 / T)."""
    printed = ObjectiveConfig(score="log_prob", reduce="sum")
    confident = normalize(np.log([[0.9, 0.1]] * 101))
    gained = predictability(confident, [0] * 101, printed) - predictability(confident[:100], [0] * 100, printed)
    assert gained == pytest.approx(math.log(0.9))
    temperature = 10 / (1 + 0.99 * math.log(100))
    assert math.exp(50 * gained / temperature) == pytest.approx(0.053, abs=0.002)
    default = ObjectiveConfig()
    assert predictability(confident, [0] * 101, default) >= predictability(confident[:100], [0] * 100, default) - 1e-12


@given(rows)
def test_calibration_takes_out_what_all_rows_share(values):
    shares = normalize(values)
    offset = batch_offset(shares)
    np.testing.assert_allclose((shares - offset).mean(axis=0), 0, atol=1e-9)
    biased = normalize(shares + np.linspace(0, 5, values.shape[1]))
    np.testing.assert_allclose(normalize(biased - batch_offset(biased)), normalize(shares - offset), atol=1e-7)


def test_a_class_prior_moves_the_balance_by_its_log_odds():
    shares = normalize(np.log([[0.7, 0.3], [0.4, 0.6]]))
    even = shares - batch_offset(shares)
    skewed = shares - batch_offset(shares, (0.2, 0.8))
    difference = (skewed[:, 1] - skewed[:, 0]) - (even[:, 1] - even[:, 0])
    np.testing.assert_allclose(difference, math.log(0.8 / 0.2))


def test_utility_is_alpha_p_less_i(problem):
    made = problem(n=6, alpha=30.0, group_size=2, constraint="negation")
    rng = np.random.default_rng(0)
    assignment = Assignment((0, 0, 1, 0, None, None))
    utility = made.utility(assignment, rng=rng)
    assert utility.inconsistency == 1
    assert utility.positions == (0, 1, 2, 3)
    terms = log_odds(utility.log_probs)[range(4), [0, 0, 1, 0]]
    assert utility.predictability == pytest.approx(terms.mean())
    assert utility.total == pytest.approx(30 * terms.mean() - 1)


def test_a_label_is_never_among_its_own_demonstrations(problem):
    """Changing one label must leave that example's own conditional as it was."""
    made = problem(n=8, plan="in_order")
    rng = np.random.default_rng(0)
    before = made.utility(Assignment((0, 1) * 4), rng=rng)
    after = made.utility(Assignment((1, 1, 0, 1, 0, 1, 0, 1)), rng=rng)
    np.testing.assert_array_equal(after.log_probs[0], before.log_probs[0])
    assert (after.log_probs[1:] != before.log_probs[1:]).any()


def test_adding_labels_keeps_the_order_and_costs_n_demonstrations(problem):
    made = problem(n=40)
    rng = np.random.default_rng(0)
    assignment = Assignment((0,) * 30 + (None,) * 10)
    first = made.utility(assignment, rng=rng)
    grown = made.utility(assignment.with_labels({33: 1}), rng=rng, after=first)
    assert (grown.order.base, grown.order.tail) == (first.order.base, (33,))
    spent = made.meter.cost
    again = made.utility(assignment.with_labels({34: 1}), rng=rng, after=first)
    step = made.meter.cost - spent
    longest = max(made.encoder.longest_demonstration(i) for i in range(40))
    assert step.tokens_computed <= 32 * 2 * longest
    assert again.order.tail == (34,)
    fresh = made.utility(assignment.with_labels({34: 1, 0: 1}), rng=rng, after=first)
    assert fresh.order.tail == ()


def test_utilities_that_are_compared_share_their_order(problem):
    made = problem(n=12)
    rng = np.random.default_rng(0)
    assignment = Assignment((0, 1) * 6)
    utility = made.utility(assignment, rng=rng)
    current = made.comparable(utility, assignment, last=[3], rng=rng)
    flipped = made.utility(assignment.with_labels({3: 0}), rng=rng, after=current)
    assert current.order == flipped.order
    assert current.order.tail == (3,)
    # The flipped example's own context holds none of its labels, so its distribution is the very same.
    np.testing.assert_array_equal(flipped.log_probs[3], current.log_probs[3])
    assert made.comparable(current, assignment, last=[3], rng=rng) is current


def test_a_new_order_of_the_same_labels_is_not_held_against_other_plans(problem):
    made = problem(n=12)
    rng = np.random.default_rng(0)
    assignment = Assignment((0, 1) * 6)
    utility = made.utility(assignment, rng=rng)
    before = made.meter.in_order_tokens, made.meter.naive_tokens
    assert made.comparable(utility, assignment, last=[3], rng=rng) is not utility
    assert (made.meter.in_order_tokens, made.meter.naive_tokens) == before
    longest = max(made.encoder.longest_demonstration(i) for i in range(12))
    assert made.meter.naive_tokens <= 12 * 12 * longest
    assert made.meter.evaluations == 2


def test_without_room_to_keep_anything_orders_are_fresh(problem):
    made = problem(n=12, reusable=0)
    rng = np.random.default_rng(0)
    assignment = Assignment((0,) * 11 + (None,))
    first = made.utility(assignment, rng=rng)
    assert made.comparable(first, assignment, last=[3], rng=rng) is first
    grown = made.utility(assignment.with_labels({11: 0}), rng=rng, after=first)
    assert grown.order.tail == ()

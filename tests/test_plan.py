import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elicitor.errors import ConfigError
from elicitor.plan import Context, TreeOrder, folds, in_order, make_plan, sampled, tree_order

ids = st.lists(st.integers(0, 10_000), unique=True, max_size=40)
seeds = st.integers(0, 2**32 - 1)


def rng(seed=0):
    return np.random.default_rng(seed)


def encoded(contexts):
    """Demonstrations that are computed when every prefix shared with an earlier context is computed once."""
    return len(
        {context.demonstrations[:end] for context in contexts for end in range(1, len(context.demonstrations) + 1)}
    )


@given(ids, seeds)
def test_tree_contexts_hold_exactly_the_others(positions, seed):
    contexts = make_plan("tree", positions, rng(seed))
    assert sorted(context.target for context in contexts) == sorted(positions)
    for context in contexts:
        assert sorted((*context.demonstrations, context.target)) == sorted(positions)


@given(ids, seeds, st.integers(2, 9))
def test_folds_leave_out_the_fold_and_nothing_else(positions, seed, n_folds):
    contexts = folds(positions, rng(seed), n_folds=n_folds)
    assert sorted(context.target for context in contexts) == sorted(positions)
    prefixes = {context.demonstrations for context in contexts}
    assert len(prefixes) <= n_folds
    for prefix in prefixes:
        fold = [context.target for context in contexts if context.demonstrations == prefix]
        assert sorted((*prefix, *fold)) == sorted(positions)


@given(ids, seeds, st.integers(1, 9))
def test_sampled_contexts_are_short_and_never_hold_their_target(positions, seed, most):
    contexts = sampled(positions, rng(seed), max_demonstrations=most)
    assert [context.target for context in contexts] == positions
    for context in contexts:
        assert len(set(context.demonstrations)) == len(context.demonstrations) == min(most, len(positions) - 1)
        assert context.target not in context.demonstrations
        assert set(context.demonstrations) <= set(positions)


def test_in_order_keeps_the_order():
    assert in_order([7, 3, 5]) == [Context(5, (7, 3)), Context(3, (7, 5)), Context(7, (3, 5))]


@given(ids)
def test_in_order_cost(positions):
    n = len(positions)
    # A context of the i-th of n shares the i before it, and encodes the n - 1 - i after it; the last one all before it.
    assert encoded(in_order(positions)) == (n - 1 + (n - 1) * n // 2 if n > 1 else 0)


@pytest.mark.parametrize("power", range(1, 9))
def test_tree_encodes_n_log_n_demonstrations(power):
    n = 2**power
    assert encoded(make_plan("tree", range(n), rng())) == n * power


@given(st.integers(1, 70))
def test_tree_cost_is_the_recurrence_for_any_size(n):
    def cost(size):
        return 0 if size < 2 else size + cost(size // 2) + cost(size - size // 2)

    assert encoded(make_plan("tree", range(n), rng())) == cost(n) <= n * math.ceil(math.log2(n))


@pytest.mark.parametrize("kind", ["tree", "in_order", "folds", "sampled"])
def test_plans_are_deterministic_under_a_seed_and_vary_with_it(kind):
    positions = list(range(20))
    assert make_plan(kind, positions, rng(1)) == make_plan(kind, positions, rng(1))
    assert (make_plan(kind, positions, rng(1)) == make_plan(kind, positions, rng(2))) is (kind == "in_order")


@given(ids, st.lists(st.integers(20_000, 30_000), unique=True, max_size=6), seeds)
def test_a_tail_stands_in_every_context_but_its_own(base, tail, seed):
    order = TreeOrder(tree_order(base, rng(seed)).base, tuple(tail))
    contexts = order.contexts()
    everyone = sorted((*base, *tail))
    assert sorted(context.target for context in contexts) == everyone
    for context in contexts:
        assert sorted((*context.demonstrations, context.target)) == everyone
        assert [i for i in context.demonstrations if i in tail] == [i for i in tail if i != context.target]
        assert context.demonstrations[-1:] == tuple(i for i in tail if i != context.target)[-1:] or not tail[1:]


@given(st.lists(st.integers(0, 10_000), unique=True, min_size=1, max_size=30), seeds)
def test_joining_the_tail_only_lengthens_contexts(base, seed):
    order = tree_order(base, rng(seed))
    grown = TreeOrder(order.base, (20_000,))
    before = {context.target: context.demonstrations for context in order.contexts()}
    for context in grown.contexts():
        if context.target != 20_000:
            assert context.demonstrations == (*before[context.target], 20_000)
        else:
            assert context.demonstrations == order.spine
    # One demonstration for each old context, and the last step of the spine, which the proposal had computed.
    assert encoded(grown.contexts()) - encoded(order.contexts()) <= len(base) + 1


def test_options_out_of_range_are_refused():
    with pytest.raises(ConfigError, match=r"plan\.folds"):
        folds([1, 2], rng(), n_folds=1)
    with pytest.raises(ConfigError, match=r"plan\.max_demonstrations"):
        sampled([1, 2], rng(), max_demonstrations=0)
    with pytest.raises(ConfigError, match="tree, in_order, folds or sampled"):
        make_plan("spiral", [1, 2], rng())

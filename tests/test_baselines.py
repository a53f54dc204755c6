import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elicitor.baselines import check_conditions, demonstration_labels
from elicitor.errors import ConfigError


def labels(condition, found, golden, *, n_labels=2, seed=0):
    rng = np.random.default_rng(seed)
    return demonstration_labels(condition, found=found, golden=golden, n_labels=n_labels, rng=rng)


def test_each_condition_by_hand():
    found, golden = {3: 0, 1: 1, 2: 1}, {3: 0, 1: 0, 2: 1}
    assert labels("zero_shot", found, golden) == {}
    assert list(labels("found", found, golden).items()) == [(3, 0), (1, 1), (2, 1)]
    assert list(labels("golden", found, golden).items()) == [(3, 0), (1, 0), (2, 1)]


@given(st.integers(2, 4), st.integers(1, 30), st.integers(0, 5))
def test_random_labels_are_dealt_equally(n_labels, n, seed):
    dealt = labels("random", dict.fromkeys(range(n), 0), {}, n_labels=n_labels, seed=seed)
    counts = np.bincount(list(dealt.values()), minlength=n_labels)
    assert list(dealt) == list(range(n))
    assert counts.max() - counts.min() <= 1


@given(st.integers(2, 4), st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=30), st.data())
def test_noised_gold_is_as_wrong_as_the_found_labels(n_labels, pairs, data):
    found = {i: pair[0] for i, pair in enumerate(pairs)}
    golden = {i: pair[1] for i, pair in enumerate(pairs)}
    noised = labels("noised_gold", found, golden, n_labels=n_labels, seed=data.draw(st.integers(0, 9)))
    assert list(noised) == list(golden)
    assert set(noised.values()) <= set(range(n_labels))
    wrong = sum(found[i] != golden[i] for i in golden)
    assert sum(noised[i] != golden[i] for i in golden) == wrong


def test_noise_falls_elsewhere_under_another_seed():
    found, golden = {i: int(i < 10) for i in range(40)}, dict.fromkeys(range(40), 0)
    drawn = {tuple(labels("noised_gold", found, golden, seed=seed).values()) for seed in range(5)}
    assert len(drawn) == 5


def test_conditions_are_checked_and_ordered():
    assert check_conditions(["golden", "noised_gold", "zero_shot"]) == ("zero_shot", "noised_gold", "golden")
    with pytest.raises(
        ConfigError, match=r"unknown condition 'gold'; choose from zero_shot, random, found, noised_gold"
    ):
        check_conditions(["gold"])
    with pytest.raises(ConfigError, match="unknown condition none"):
        check_conditions([])

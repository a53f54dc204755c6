import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from elicitor.agreement import agreement


def of(*pairs, groups=None, seed=0):
    pairs = [tuple(map(np.asarray, pair)) for pair in pairs]
    groups = groups or list(map(str, range(len(pairs[0][0]))))
    return agreement(pairs, groups, rng=np.random.default_rng(seed))


def test_kappa_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    pairs = [tuple(rng.integers(3, size=(2, 30))) for _ in range(20)]
    found = of(*pairs)
    wanted = [cohen_kappa_score(left, right) for left, right in pairs]
    assert found.kappas == pytest.approx(wanted)
    assert found.kappa.value == pytest.approx(np.mean(wanted))
    assert found.share.value == pytest.approx(np.mean([left == right for left, right in pairs]))
    assert (found.share.n, found.share.groups, found.share.seeds) == (30, 30, 20)


def test_by_hand():
    # Three of four agree; shares of the label 1 are 1/2 and 3/4, so chance gives 3/8 + 1/8.
    found = of(([1, 1, 0, 0], [1, 1, 1, 0]))
    assert found.share.value == 0.75
    assert found.kappa.value == pytest.approx((0.75 - 0.5) / 0.5)


def test_intervals_cover_the_agreement_of_the_population():
    rng = np.random.default_rng(1)
    covered = np.zeros(2)
    for trial in range(200):
        left = rng.integers(2, size=60)
        right = np.where(rng.random(60) < 0.2, 1 - left, left)
        found = of((left, right), seed=trial)
        # Of fair labels that are turned with probability 0.2, 0.8 agree, and kappa is 0.8 * 2 - 1.
        covered += [found.share.lower <= 0.8 <= found.share.upper, found.kappa.lower <= 0.6 <= found.kappa.upper]
    assert (covered >= 180).all()


def test_groups_are_resampled_whole():
    rng = np.random.default_rng(2)
    left = np.repeat(rng.integers(2, size=20), 10)
    right = np.where(np.repeat(rng.random(20) < 0.3, 10), 1 - left, left)
    alone, together = of((left, right)), of((left, right), groups=[str(i // 10) for i in range(200)])
    assert together.share.upper - together.share.lower > 2 * (alone.share.upper - alone.share.lower)
    assert together.kappa.upper - together.kappa.lower > 2 * (alone.kappa.upper - alone.kappa.lower)


def test_full_agreement_on_few_items_is_not_certain():
    labels = [0, 1] * 5
    found = of((labels, labels))
    assert (found.share.value, found.kappa.value) == (1.0, 1.0)
    # Wilson's lower end for ten of ten, 10 / (10 + 1.96^2); half of the agreement is by chance.
    assert found.share.lower == pytest.approx(10 / (10 + 1.959964**2))
    assert found.kappa.lower == pytest.approx(2 * found.share.lower - 1)
    assert (found.share.upper, found.kappa.upper) == (1.0, 1.0)


def test_runs_of_one_label_agree_by_their_shares_alone():
    found = of(([1] * 10, [1] * 10))
    assert found.share.value == 1.0
    assert (found.kappa.value, found.kappa.lower, found.kappa.upper) == (0.0, 0.0, 0.0)


def test_one_group_has_no_interval():
    found = of(([0, 1, 1], [0, 1, 0]), groups=["a"] * 3)
    assert (found.share.lower, found.kappa.lower) == (None, None)

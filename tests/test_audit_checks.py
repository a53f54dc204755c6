"""Figures and thresholds of the checks, by hand."""

import numpy as np
import pytest

from elicitor.audit_checks import (
    Asked,
    check_agreement,
    check_class_balance,
    check_context,
    check_margins,
    check_orientation,
)

NAMES = ("no", "yes")


def asked(log_odds, *, found=2.0, constant=0.0, exchanged=0.5):
    """What a model says whose log-odds of yes are given, one row an order."""
    odds = np.atleast_2d(np.asarray(log_odds, dtype=float))
    rows = np.stack([-np.logaddexp(0, odds), -np.logaddexp(0, -odds)], axis=2)
    return Asked(rows, [found] * len(odds), {"no": constant, "yes": constant}, {"no and yes": exchanged}, rows[0])


@pytest.mark.parametrize(
    ("ones", "expected"),
    [(50, "ok"), (78, "ok"), (80, "look"), (94, "look"), (95, "failed"), (100, "failed"), (3, "failed")],
)
def test_class_balance_by_share(ones, expected):
    labels = (np.arange(100) < ones).astype(int)
    check = check_class_balance(labels, asked(np.zeros(100)), NAMES, class_prior=None)
    assert check.verdict == expected


def test_a_constant_labelling_that_is_more_predictable_deserves_a_look():
    labels = np.arange(100) % 2
    check = check_class_balance(labels, asked(np.zeros(100), found=1.0, constant=1.5), NAMES, class_prior=None)
    assert check.verdict == "look"
    few = check_class_balance(labels[:10], asked(np.zeros(10)), NAMES, class_prior=None)
    assert few.verdict == "look"
    assert "10 examples are few" in few.advice


@pytest.mark.parametrize(("exchanged", "expected"), [(0.5, "ok"), (1.98, "look"), (2.02, "look"), (2.2, "failed")])
def test_orientation_by_predictability(exchanged, expected):
    labels = np.arange(10) % 2
    assert check_orientation(labels, asked(np.zeros(10), exchanged=exchanged), NAMES).verdict == expected


def test_margins_by_hand():
    labels = np.asarray([1, 1, 0, 0])
    check = check_margins(labels, asked([3.0, 0.2, -1.5, 2.0]))
    assert check.figures["near_ties"] == 0.25
    assert check.figures["contradicted"] == 0.25
    assert check.figures["median"] == pytest.approx((0.2 + 1.5) / 2)
    assert check.figures["histogram"] == {
        "-inf to -4": 0, "-4 to -2": 0, "-2 to -1": 1, "-1 to -0.5": 0, "-0.5 to 0": 0, "0 to 0.5": 1, "0.5 to 1": 0,
        "1 to 2": 1, "2 to 4": 1, "4 to inf": 0,
    }  # fmt: skip
    assert check.verdict == "look"


def test_context_by_hand():
    labels = np.asarray([1, 1, 0, 0])
    orders = [[3.0, 0.2, -1.5, -2.0], [3.0, -0.2, -1.5, -2.0], [3.0, 0.2, -1.5, -2.0]]
    check = check_context(labels, asked(orders))
    # One of four examples differs in two of the three pairs of orders; 11 of 12 answers are the label.
    assert check.figures["flips"] == pytest.approx(0.25 * 2 / 3)
    assert check.figures["found_label_again"] == pytest.approx(11 / 12)
    assert check.figures["sd_of_log_odds"] == pytest.approx(np.std([0.2, -0.2, 0.2]) / 4)


def compared(what, labels, *others):
    groups = list(map(str, range(len(labels))))
    others = [other.tolist() for other in others]
    return check_agreement(what, labels, others, groups=groups, rng=np.random.default_rng(0))


def test_two_runs_that_collapsed_alike_do_not_agree_beyond_chance():
    labels = np.ones(50, int)
    check = compared("seeds", labels, labels)
    assert (check.figures["agreement"], check.figures["kappa"], check.verdict) == (1.0, 0.0, "failed")


def test_models_are_compared_with_the_run_and_not_with_one_another():
    labels = np.arange(40) % 2
    check = compared("models", labels, labels, 1 - labels)
    assert check.figures["kappas"] == [1.0, -1.0]
    assert compared("seeds", labels).verdict == "not done"

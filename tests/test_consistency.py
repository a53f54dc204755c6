from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elicitor import consistency
from elicitor.consistency import Constraints
from elicitor.data import Assignment, Dataset, Example, LabelSpace
from elicitor.errors import TaskError

BINARY = LabelSpace(("False", "True"), (" False", " True"), positive=1)
KINDS = ("at_most_one", "equivalent", "exactly_one", "asymmetric", "negation")


def dataset(members, space=BINARY):
    """Examples from (group, key) pairs."""
    examples = tuple(Example(str(i), {}, group, key, "here") for i, (group, key) in enumerate(members))
    return Dataset(examples, space, "here", "print")


def constraints(members, *kinds, space=BINARY):
    return Constraints.from_dataset(dataset(members, space), kinds)


def brute_force(kind, members, labels):
    """Violations, straight from the table in the module's docstring."""
    count = 0
    for i, (left_group, left) in enumerate(members):
        for j, (right_group, right) in enumerate(members[:i]):
            if left_group != right_group or None in (left, right, labels[i], labels[j]):
                continue
            if kind in ("at_most_one", "exactly_one"):
                count += left != right and labels[i] == labels[j] == 1
            elif kind == "equivalent":
                count += left == right and labels[i] != labels[j]
            else:
                count += (left == right) != (labels[i] == labels[j])
    if kind == "exactly_one":
        for group in {group for group, _ in members}:
            held = [labels[i] for i, (g, key) in enumerate(members) if g == group and key is not None]
            count += bool(held) and None not in held and 1 not in held
    return count


member = st.tuples(st.sampled_from("gh"), st.sampled_from(["1", "2", "3", None]))


@given(st.lists(member, max_size=6), st.sampled_from(KINDS), st.data())
def test_counts_agree_with_the_definition(members, kind, data):
    label = st.sampled_from([0, 1, None])
    labels = tuple(data.draw(st.lists(label, min_size=len(members), max_size=len(members))))
    built = constraints(members, kind)
    assert built.count(Assignment(labels)) == brute_force(kind, members, labels)
    assert len(built.violated(Assignment(labels))) == built.count(Assignment(labels))


@given(st.lists(st.sampled_from(["1", "2", None]), min_size=1, max_size=5), st.sampled_from(KINDS))
def test_options_are_the_exact_enumeration(keys, kind):
    members = [("g", key) for key in keys]
    built = constraints(members, kind)
    expected = [
        dict(enumerate(labels))
        for labels in product((0, 1), repeat=len(keys))
        if brute_force(kind, members, labels) == 0
    ]
    assert built.options(range(len(keys)), Assignment.empty(len(keys)), among_only=False) == expected


def test_two_different_answers_may_both_be_false():
    built = constraints([("g", "27"), ("g", "28")], "at_most_one")
    held = Assignment((1, 1))
    assert built.count(held) == 1
    assert built.options((0, 1), held, among_only=True) == [{0: 0, 1: 0}, {0: 0, 1: 1}, {0: 1, 1: 0}]


def test_an_order_swap_leaves_two_options_and_a_pair_with_a_third_member_fewer():
    built = constraints([("g", "ab"), ("g", "ba"), ("g", "ab")], "asymmetric")
    held = Assignment((1, 1, 1))
    assert built.count(held) == 2
    assert built.options((0, 1), held, among_only=True) == [{0: 0, 1: 1}, {0: 1, 1: 0}]
    assert built.options((0, 1), held, among_only=False) == [{0: 1, 1: 0}]


def test_kinds_add_up_and_what_both_say_counts_once():
    members = [("g", "27"), ("g", "27"), ("g", "28")]
    built = constraints(members, "at_most_one", "equivalent")
    assert {(c.relation, c.members) for c in built.all} == {
        ("equal", (0, 1)),
        ("not_both", (0, 2)),
        ("not_both", (1, 2)),
    }
    assert built.count(Assignment((1, 0, 1))) == 2
    both = constraints(members, "asymmetric", "negation")
    assert len(both.all) == 3


def test_equivalence_works_for_many_labels():
    space = LabelSpace(("a", "b", "c"), (" a", " b", " c"), positive=0)
    built = constraints([("g", "x"), ("g", "x")], "equivalent", space=space)
    assert built.options((0, 1), Assignment((0, 1)), among_only=True) == [{0: 0, 1: 0}, {0: 1, 1: 1}, {0: 2, 1: 2}]


def test_unlabelled_members_of_started_groups_weigh_a_hundred():
    built = constraints([("g", "1"), ("g", "2"), ("h", "1"), ("h", "2")], "at_most_one")
    weights = built.proposal_weights(Assignment((1, None, None, None)), group_weight=100)
    np.testing.assert_array_equal(weights, [1, 100, 1, 1])


def test_a_group_too_large_to_enumerate_is_an_error(monkeypatch):
    monkeypatch.setattr(consistency, "MAX_OPTIONS", 7)
    built = constraints([("g", "1"), ("g", "2"), ("g", "3")], "at_most_one")
    with pytest.raises(TaskError, match="more than 7 consistent labellings"):
        constraints([("g", None)] * 4, "equivalent").options(range(4), Assignment.empty(4), among_only=False)
    assert len(built.options(range(3), Assignment.empty(3), among_only=False)) == 4

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elicitor import consistency
from elicitor.consistency import Constraint, Constraints
from elicitor.data import Assignment, Dataset, Example, LabelSpace
from elicitor.errors import TaskError
from elicitor.search_settings import IcmConfig

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
            count += len(held) > 1 and None not in held and 1 not in held
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


@pytest.mark.parametrize(
    ("kind", "different", "equal"),
    [
        # Violations under the labels 00, 01, 10, 11 of a pair with different keys, and with equal ones.
        ("at_most_one", [0, 0, 0, 1], [0, 0, 0, 0]),
        ("equivalent", [0, 0, 0, 0], [0, 1, 1, 0]),
        ("exactly_one", [1, 0, 0, 1], [1, 0, 0, 0]),
        ("asymmetric", [1, 0, 0, 1], [0, 1, 1, 0]),
        ("negation", [1, 0, 0, 1], [0, 1, 1, 0]),
    ],
)
@pytest.mark.parametrize("positive", [0, 1])
def test_truth_tables_of_a_pair(kind, different, equal, positive):
    space = LabelSpace(("a", "b"), (" a", " b"), positive=positive)
    for keys, expected in (("pq", different), ("pp", equal)):
        built = constraints([("g", key) for key in keys], kind, space=space)
        pairs = list(product((1 - positive, positive), repeat=2))
        assert [built.count(Assignment(pair)) for pair in pairs] == expected
        legal = [dict(enumerate(pair)) for pair, count in zip(pairs, expected, strict=True) if count == 0]
        options = built.options((0, 1), Assignment.empty(2), among_only=True)
        assert sorted(options, key=lambda o: sorted(o.items())) == sorted(legal, key=lambda o: sorted(o.items()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("members", [[("g", "p"), ("h", "p")], [("g", "p"), ("h", "q")], [("g", None), ("g", "p")]])
def test_nothing_binds_across_groups_or_without_a_key(kind, members):
    built = constraints(members, kind)
    assert not [c for c in built.all if c.relation != "some"]
    assert built.count(Assignment((1, 1))) == 0


def holds(relation, held, positive):
    """What the table says, of members that all have a label."""
    if relation == "not_both":
        return held.count(positive) < 2
    if relation == "some":
        return positive in held
    return (len(set(held)) == 1) is (relation == "equal")


def relations(members, kinds):
    """Everything the kinds say, straight from the table: each thing once."""
    said = set()
    for j, (group, right) in enumerate(members):
        for i, (other, left) in enumerate(members[:j]):
            if group != other or None in (left, right):
                continue
            for kind in kinds:
                if kind in ("at_most_one", "exactly_one") and left != right:
                    said.add(("not_both", (i, j)))
                if kind in ("asymmetric", "negation"):
                    said.add(("equal" if left == right else "opposite", (i, j)))
                if kind == "equivalent" and left == right:
                    said.add(("equal", (i, j)))
    if "exactly_one" in kinds:
        for name in {group for group, _ in members}:
            keyed = tuple(i for i, (group, key) in enumerate(members) if group == name and key is not None)
            said |= {("some", keyed)} if len(keyed) > 1 else set()
    return said


kinds_of_two = st.lists(st.sampled_from(KINDS), unique=True, max_size=3)
kinds_of_three = st.lists(st.sampled_from(["at_most_one", "equivalent", "exactly_one"]), unique=True, max_size=3)


@given(st.lists(member, min_size=1, max_size=6), st.sampled_from([2, 3]), st.booleans(), st.data())
def test_several_kinds_agree_with_a_brute_force(members, n_labels, among_only, data):
    n = len(members)
    names = ("a", "b", "c")[:n_labels]
    positive = data.draw(st.integers(0, n_labels - 1))
    kinds = data.draw(kinds_of_two if n_labels == 2 else kinds_of_three)
    built = constraints(members, *kinds, space=LabelSpace(names, names, positive))
    said = relations(members, kinds)
    assert {(c.relation, c.members) for c in built.all} == said
    assert len(built.all) == len(said)

    def violated(labels, watched):
        full = [(r, m, [labels[i] for i in m]) for r, m in watched if None not in [labels[i] for i in m]]
        return {(r, m) for r, m, held in full if not holds(r, held, positive)}

    label = st.sampled_from([None, *range(n_labels)])
    labels = data.draw(st.lists(label, min_size=n, max_size=n))
    assignment = Assignment(tuple(labels))
    assert built.count(assignment) == len(violated(labels, said))
    assert {(c.relation, c.members) for c in built.violated(assignment)} == violated(labels, said)

    chosen = sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=1)))
    watched = {(r, m) for r, m in said if (set(m) <= set(chosen) if among_only else set(m) & set(chosen))}
    expected = []
    for option in product(range(n_labels), repeat=len(chosen)):
        change = dict(zip(chosen, option, strict=True))
        if not violated([change.get(i, held) for i, held in enumerate(labels)], watched):
            expected.append(change)
    assert built.options(chosen, assignment, among_only=among_only) == expected
    assert assignment.labels == tuple(labels)


@pytest.mark.parametrize("relation", ["not_both", "equal", "opposite", "some"])
def test_nothing_is_violated_while_a_member_has_no_label(relation):
    constraint = Constraint(relation, (0, 2), positive=1)
    for labels in product((None, 0, 1), repeat=3):
        if None in (labels[0], labels[2]):
            assert not constraint.violated(labels)
    assert [constraint.violated((a, None, b)) for a, b in product((0, 1), repeat=2)].count(True) in (1, 2)


def test_three_that_all_oppose_each_other_have_no_labelling():
    built = constraints([("g", "p"), ("g", "q"), ("g", "r")], "negation")
    assert built.options((0, 1, 2), Assignment.empty(3), among_only=True) == []
    assert built.options((1,), Assignment((0, None, 1)), among_only=False) == []
    assert built.options((1,), Assignment((0, None, 1)), among_only=True) == [{1: 0}, {1: 1}]


def test_of_four_answers_exactly_one_or_at_most_one_is_right():
    members = [("g", key) for key in "pqrs"]
    one = [{i: int(i == right) for i in range(4)} for right in (3, 2, 1, 0)]
    none = [dict.fromkeys(range(4), 0)]
    empty = Assignment.empty(4)
    assert constraints(members, "exactly_one").options(range(4), empty, among_only=False) == one
    assert constraints(members, "at_most_one").options(range(4), empty, among_only=False) == none + one


def test_options_are_in_the_order_of_the_members_asked_for():
    built = constraints([("g", "p"), ("g", "q")], "asymmetric")
    assert [list(option.items()) for option in built.options((1, 0), Assignment.empty(2), among_only=True)] == [
        [(1, 0), (0, 1)],
        [(1, 1), (0, 0)],
    ]


def test_an_only_answer_need_not_be_the_right_one():
    assert constraints([("g", "p"), ("h", "q"), ("h", None)], "exactly_one").all == ()


def test_pairs_of_one_group_that_nothing_ties_together_are_components_of_their_own():
    pairs = constraints([("g", str(k // 2)) for k in range(40)], "equivalent")
    assert [pairs.component(k) for k in range(40)] == [k // 2 * 2 for k in range(40)]
    # Answers with other keys do: each pair of them is bound.
    assert {constraints([("g", str(k // 2)) for k in range(6)], "at_most_one").component(k) for k in range(6)} == {0}


def test_components_are_groups_that_a_constraint_touches():
    built = constraints([("g", "p"), ("h", "p"), ("g", "p"), ("h", "q"), ("g", None), ("i", "p")], "equivalent")
    assert built.component(0) == built.component(2) is not None
    assert [built.component(i) for i in (1, 3, 4, 5)] == [None] * 4
    both = constraints([("g", "p"), ("h", "p"), ("g", "p"), ("h", "p")], "equivalent")
    assert both.component(1) == both.component(3) != both.component(0)


def test_the_weight_of_the_paper_is_the_default():
    assert IcmConfig().group_weight == 100


@given(st.lists(st.tuples(st.sampled_from("ghi"), st.sampled_from([None, 0, 1])), min_size=1, max_size=8))
def test_only_unlabelled_members_beside_labelled_ones_weigh_more(examples):
    groups, labels = zip(*examples, strict=True)
    started = {group for group, label in examples if label is not None}
    built = constraints([(group, "same") for group in groups], "equivalent")
    weights = built.proposal_weights(Assignment(labels), group_weight=100)
    assert weights.tolist() == [100 if label is None and group in started else 1 for group, label in examples]

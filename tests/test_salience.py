import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from elicitor.data import Dataset, Example
from elicitor.salience import best_predictor, trivial_features
from elicitor.tasks import load_task

NAMES = ("no", "yes")


def rng(seed=0):
    return np.random.default_rng(seed)


def alone(n):
    return [str(i) for i in range(n)]


def data(task, rows):
    examples = [
        Example(f"e{i}{fields.pop('id', '')}", fields, fields.pop("g", f"g{i}"), None, "")
        for i, fields in enumerate(rows)
    ]
    return Dataset(tuple(examples), task.label_space, "here", "print")


# SciPy's exact p-value, which is not looked at, fails for some ties.
@pytest.mark.filterwarnings("ignore:ks_2samp. Exact calculation unsuccessful:RuntimeWarning")
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=30))
@example([(0, False)] * 5 + [(0, True)] * 4 + [(1, True)])
def test_the_distance_is_that_of_scipy(pairs):
    values = np.asarray([float(value) for value, _ in pairs])
    labels = np.asarray([int(label) for _, label in pairs])
    found = best_predictor({"it": values}, labels, NAMES, alone(len(pairs)), rng=rng(), permutations=5)
    if len(set(labels)) == 1:
        assert found is None
    else:
        distance = stats.ks_2samp(values[labels == 1], values[labels == 0]).statistic
        assert found.balanced_accuracy == pytest.approx((1 + distance) / 2)
        assert 0 < found.p_value <= 1


def test_the_best_of_all_features_is_named_and_chance_is_allowed_for():
    draw = rng(1)
    labels = draw.integers(2, size=60)
    features = {f"noise {k}": draw.normal(size=60) for k in range(30)}
    by_chance = best_predictor(features, labels, NAMES, alone(60), rng=rng())
    assert by_chance.balanced_accuracy > 0.65
    assert by_chance.p_value > 0.05
    telling = best_predictor(
        features | {"telling": labels + draw.normal(0, 0.3, 60)}, labels, NAMES, alone(60), rng=rng()
    )
    assert (telling.feature, telling.label) == ("telling", "yes")
    assert telling.p_value == pytest.approx(1 / 1001)


def test_p_values_are_not_small_where_there_is_nothing_to_find():
    """Distances have ties, which make the values a little too large, never too small."""
    p_values = []
    for seed in range(200):
        draw = rng(seed)
        features = {f"noise {k}": draw.normal(size=30) for k in range(3)}
        labels = draw.permutation(np.arange(30) % 2)
        p_values.append(best_predictor(features, labels, NAMES, alone(30), rng=draw, permutations=99).p_value)
    assert 0 < np.mean(np.asarray(p_values) <= 0.05) < 0.09
    assert 0.45 < np.mean(p_values) < 0.65


def test_members_of_a_group_do_not_count_as_independent():
    """Ten groups of twenty: a feature of groups that agrees with labels of groups is no more than ten examples would be."""
    groups = np.repeat(np.arange(8), 20)
    labels, feature = (groups % 2), (groups % 2).astype(float)
    feature[groups == 0] = 1.0
    clustered = best_predictor({"it": feature}, labels, NAMES, [str(g) for g in groups], rng=rng())
    naive = best_predictor({"it": feature}, labels, NAMES, alone(160), rng=rng())
    assert naive.p_value < 0.01 < 0.05 < clustered.p_value


def test_features_of_texts_by_hand():
    task = load_task({"template": "{question} {answer}", "labels": ["no", "yes"]})
    rows = [
        {"question": "Is it Paris?", "answer": "It is NOT 12, no.", "g": "a"},
        {"question": "Why", "answer": "why why\nwhy", "g": "a"},
    ]
    features = trivial_features(data(task, rows), task, columns={"year": ["1999", None], "source": ["web", "book"]})
    found = {name: values.tolist() for name, values in features.items() if name != "year"}
    assert found["characters of answer"] == [17, 11]
    assert found["words of answer"] == [5, 3]
    assert found["lines of answer"] == [0, 1]
    assert found["punctuation marks of answer"] == [2, 0]
    assert found["question marks of question"] == [1, 0]
    assert found["digits of answer"] == [2, 0]
    assert found["negations of answer"] == [2, 0]
    assert found["share of capitals of answer"] == [pytest.approx(4 / 9), 0]
    assert found["words of answer that question has"] == [pytest.approx(2 / 5), 1]
    assert found["place in the file"] == found["place in the group"] == [0, 1]
    assert found["source = web"] == [1, 0]


def test_pairs_are_measured_by_their_difference_and_their_order():
    task = load_task("preference")
    both = {"question": "q", "choice": "long one", "choice_2": "short"}
    turned = {"question": "q", "choice": "short", "choice_2": "long one"}
    features = trivial_features(data(task, [{**both, "id": "/ab", "g": "p"}, {**turned, "id": "/ba", "g": "p"}]), task)
    assert features["characters: choice less choice_2"].tolist() == [3, -3]
    assert features["order of the pair"].tolist() == [0, 1]
    assert "characters of choice" not in features


def test_a_missing_number_is_not_taken_for_another():
    task = load_task("sentiment")
    features = trivial_features(data(task, [{"text": "a"}, {"text": "b"}]), task, columns={"year": ["1999", None]})
    assert features["year = 1999"].tolist() == [1, 0]

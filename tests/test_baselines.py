import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elicitor.backends.fake import FakeBackend
from elicitor.baselines import (
    BOOTSTRAPS,
    assistant_preamble,
    bootstrapped_labels,
    chat_request,
    check_conditions,
    check_votes,
    noised_gold,
    one_vote_each,
    random_labels,
)
from elicitor.errors import ConfigError


def rng(seed=0):
    return np.random.default_rng(seed)


@given(st.integers(2, 4), st.integers(1, 30), st.integers(0, 5))
def test_random_labels_are_dealt_equally(n_labels, n, seed):
    dealt = random_labels(range(n), n_labels=n_labels, rng=rng(seed))
    counts = np.bincount(list(dealt.values()), minlength=n_labels)
    assert list(dealt) == list(range(n))
    assert counts.max() - counts.min() <= 1


@given(st.integers(2, 4), st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=30), st.data())
def test_noised_gold_is_as_wrong_as_the_found_labels(n_labels, pairs, data):
    found = {i: pair[0] for i, pair in enumerate(pairs)}
    golden = {i: pair[1] for i, pair in enumerate(pairs)}
    noised = noised_gold(golden, found, n_labels=n_labels, rng=rng(data.draw(st.integers(0, 9))))
    assert list(noised) == list(golden)
    assert set(noised.values()) <= set(range(n_labels))
    wrong = sum(found[i] != golden[i] for i in golden)
    assert sum(noised[i] != golden[i] for i in golden) == wrong


def test_noise_falls_elsewhere_under_another_seed():
    found, golden = {i: int(i < 10) for i in range(40)}, dict.fromkeys(range(40), 0)
    drawn = {tuple(noised_gold(golden, found, n_labels=2, rng=rng(seed)).values()) for seed in range(5)}
    assert len(drawn) == 5


def test_every_annotator_has_an_equal_say():
    votes = {0: (1, 1, 1, 0), 1: (0,), 2: (1, 0)}
    drawn = [one_vote_each(votes, rng=rng(seed)) for seed in range(2000)]
    assert np.mean([labels[0] for labels in drawn]) == pytest.approx(0.75, abs=0.04)
    assert {labels[1] for labels in drawn} == {0}
    assert np.mean([labels[2] for labels in drawn]) == pytest.approx(0.5, abs=0.04)


def test_demonstrations_without_votes_are_refused():
    assert list(check_votes({0: (1,), 1: (0,), 2: ()}, [1, 0])) == [1, 0]
    with pytest.raises(ConfigError, match="1 of 2 demonstrations have no human votes"):
        check_votes({0: (1,), 2: ()}, [0, 2])


def test_bootstraps_differ_in_consistency_and_filter(problem):
    made = problem(n=24, group_size=2, constraint="negation", fake=FakeBackend(prior=0.3, noise=3.0))
    labels = {name: bootstrapped_labels(made, variant, rounds=5, rng=rng()) for name, variant in BOOTSTRAPS.items()}
    assert [len(found) for found in labels.values()] == [24, 24, 12, 12]

    def violated(found):
        return sum(found.get(i) == found.get(i + 1) is not None for i in range(0, 24, 2))

    assert violated(labels["bootstrap_consistent"]) == 0 == violated(labels["bootstrap_consistent_confident"])
    assert violated(labels["bootstrap"]) > 0


def test_conditions_are_checked_and_ordered():
    assert check_conditions(["golden", "noised_gold", "zero_shot"]) == ("zero_shot", "noised_gold", "golden")
    with pytest.raises(ConfigError, match=r"unknown condition 'gold'; choose from zero_shot, zero_shot_assistant"):
        check_conditions(["gold"])
    with pytest.raises(ConfigError, match="unknown condition none"):
        check_conditions([])


def test_text_of_a_query_is_never_read_as_a_template():
    text = chat_request("Is {labels} {query} right?", [" no", " yes", " maybe"])
    assert text.startswith("Is {labels} {query} right?\n\n")
    assert text.endswith("one of these and nothing else: no, yes or maybe.")
    assert assistant_preamble([" False", " True"]).endswith("The only words you may add are False or True.\n\n")

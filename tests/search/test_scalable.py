from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from elicitor.backends.base import Cost
from elicitor.backends.fake import FakeBackend, concept_label
from elicitor.consistency import Constraint, Constraints
from elicitor.data import Assignment
from elicitor.errors import DataError
from elicitor.search import finish
from elicitor.search.repair import most_confident
from elicitor.search.scalable import Scalable, Tuned, deal_folds
from elicitor.search.state import SearchState
from elicitor.search_settings import ScalableConfig

WEAK = FakeBackend(prior=0.3, noise=1.0)


def truth(problem):
    return [concept_label(f"{example.fields['text']}:", 2) for example in problem.dataset.examples]


@pytest.fixture
def tuner():
    """Makes models whose knowledge is as good as the labels that they were tuned on, and keeps those."""

    def make(problem, calls):
        @contextmanager
        def tune(labels):
            calls.append(dict(labels))
            right = np.mean([truth(problem)[i] == y for i, y in labels.items()])
            yield Tuned(FakeBackend(prior=6 * (right - 0.5), noise=1.0), Cost(0, 1000, 0, 1.0))

        return tune

    return make


@pytest.fixture
def scalable(tuner):
    def make(problem, calls=None, **settings):
        return Scalable(ScalableConfig(**settings), tuner(problem, [] if calls is None else calls))

    return make


def test_models_tuned_on_weak_labels_label_the_rest_better(problem, scalable, run_search, agreement):
    made = problem(n=80, fake=WEAK)
    search = scalable(made, rounds=3)
    started, _ = search.start(made, rng=np.random.default_rng(0))
    state, _ = run_search(search, made)
    assert 0.5 < agreement(made, started.assignment) < 0.9
    assert agreement(made, state.assignment) > agreement(made, started.assignment) + 0.1


def test_no_label_of_a_group_teaches_the_model_that_judges_it(problem, scalable, run_search):
    made, calls = problem(n=30, group_size=3), []
    run_search(scalable(made, calls, folds=4), made)
    held_out = [set(range(30)) - set(labels) for labels in calls]
    assert sorted(i for fold in held_out for i in fold) == list(range(30))
    groups = made.dataset.group_numbers()
    for fold, labels in zip(held_out, calls, strict=True):
        assert not {groups[i] for i in fold} & {groups[i] for i in labels}
        assert len(fold) in (6, 9)


def test_a_label_of_a_fold_is_what_its_own_model_says(problem, scalable, run_search):
    made, calls = problem(n=20, fake=WEAK), []
    state, events = run_search(scalable(made, calls, folds=2), made)
    (second,) = [set(range(20)) - set(calls[1])]
    right = np.mean([truth(made)[i] == y for i, y in calls[1].items()])
    model = FakeBackend(prior=6 * (right - 0.5), noise=1.0)
    said = model.score([made.encoder.prompt_with([], i) for i in sorted(second)]).log_probs
    assert [state.assignment[i] for i in sorted(second)] == said.argmax(axis=1).tolist()
    rows = dict(zip(state.utility.positions, state.utility.log_probs, strict=True))
    np.testing.assert_allclose([rows[i] for i in sorted(second)], said, atol=1e-12)
    assert [event.kind for event in events] == ["started", "relabelled", "relabelled"]
    assert [event.tokens_computed >= 1000 for event in events] == [False, True, True]
    assert made.meter.cost.prompts == 40


def test_groups_end_consistent_and_calibration_is_over_the_fold(problem, scalable, run_search):
    made = problem(n=24, group_size=2, constraint="negation", calibration="batch", fake=FakeBackend(bias=5.0))
    state, _ = run_search(scalable(made, start="random", rounds=2), made)
    assert made.constraints.count(state.assignment) == 0
    assert 4 < sum(state.assignment.labels) < 20


def test_it_ends_when_nothing_changes_or_the_rounds_are_spent(problem, scalable, run_search):
    made = problem(n=20, fake=FakeBackend(prior=9.0))
    state, _ = run_search(scalable(made, rounds=9), made)
    assert (state.finished, state.iteration) == ("nothing changed for a full pass", 4)
    made = problem(n=40, fake=WEAK)
    state, events = run_search(scalable(made, folds=5), made)
    assert (state.finished, state.iteration, len(events)) == ("round budget spent", 5, 6)
    assert scalable(made, folds=5).budget(made) == 5


def test_nothing_is_claimed_of_random_labels(problem, scalable):
    made = problem(n=20)
    state, event = scalable(made, start="random").start(made, rng=np.random.default_rng(0))
    assert (state.utility.predictability, event.utility) == (0.0, 0.0)
    assert sum(state.assignment.labels) == 10


def test_given_labels_come_first(problem, scalable):
    made = replace(problem(n=20), start_labels={3: 0, 4: 0, 5: 1})
    state, _ = scalable(made).start(made, rng=np.random.default_rng(0))
    assert [state.assignment[i] for i in (3, 4, 5)] == [0, 0, 1]
    assert not state.assignment.unlabelled


@pytest.mark.parametrize("stop", [1, 4, 6])
def test_a_state_written_down_goes_on_as_if_it_had_not_been(problem, scalable, run_search, stop):
    made = problem(n=30, fake=WEAK)
    search = scalable(made, rounds=2)
    whole, _ = run_search(search, made)
    rng = np.random.default_rng(0)
    state, _ = search.start(made, rng=rng)
    for _ in range(stop):
        state, _ = search.step(made, SearchState.from_json(state.to_json()), rng=rng)
    while state.finished is None:
        state, _ = search.step(made, state, rng=rng)
    assert state.assignment == whole.assignment
    _, found, events = finish(made, state, batch=0, rng=rng)
    assert not events
    rows = np.exp(state.utility.calibrated())
    assert [item.confidence for item in found] == pytest.approx(
        [row[y] for row, y in zip(rows, state.utility.labels, strict=True)]
    )


def test_folds_are_dealt_evenly_from_groups_of_any_size(problem):
    folds = deal_folds(problem(n=20, group_size=7).dataset, 8, rng=np.random.default_rng(1))
    assert sorted(map(len, folds)) == [6, 7, 7]
    with pytest.raises(DataError, match="one group"):
        deal_folds(problem(n=4, group_size=4).dataset, 2, rng=np.random.default_rng(0))


def test_a_group_is_bent_to_its_most_confident_label():
    """Two say yes at 0.9 and 0.8, one no at 0.95, and all must agree: the sum says yes, the surest says no."""
    agree = Constraints([Constraint("equal", (0, 1, 2), positive=1)], groups=[(0, 1, 2)], n_labels=2)
    rows = {i: np.log([1 - p, p]) for i, p in enumerate((0.9, 0.8, 0.05))}
    empty = Assignment.empty(3)
    assert most_confident(agree, empty, rows).labels == (1, 1, 1)
    assert most_confident(agree, empty, rows, keep_surest=True).labels == (0, 0, 0)

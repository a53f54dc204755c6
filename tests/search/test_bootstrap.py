import numpy as np
import pytest

from elicitor.backends.fake import FakeBackend
from elicitor.search.bootstrap import Bootstrap
from elicitor.search_settings import BootstrapConfig


@pytest.fixture
def search(run_search):
    def run(problem, *, seed=0, **settings):
        return run_search(Bootstrap(BootstrapConfig(**settings)), problem, seed=seed)

    return run


def test_a_weak_zero_shot_start_is_amplified(problem, search, agreement):
    made = problem(n=60, fake=FakeBackend(prior=0.3, noise=1.0))
    started, _ = Bootstrap(BootstrapConfig()).start(made, rng=np.random.default_rng(0))
    state, _ = search(made)
    assert 0.5 < agreement(made, started.assignment) < 0.95
    assert agreement(made, state.assignment) > agreement(made, started.assignment)


def test_rounds_end_when_nothing_changes_or_the_budget_is_spent(problem, search):
    state, _ = search(problem(n=20), rounds=20)
    assert state.iteration < 20
    state, events = search(problem(n=40, fake=FakeBackend(prior=0.3, noise=1.0)), rounds=1)
    assert (state.iteration, state.finished) == (1, "round budget spent")
    assert len(events) == 2


def test_every_example_is_labelled_and_groups_are_consistent(problem, search):
    made = problem(n=20, group_size=2, constraint="negation")
    state, _ = search(made, start="random")
    assert not state.assignment.unlabelled
    assert made.constraints.count(state.assignment) == 0


def test_a_biased_model_collapses_without_calibration_and_not_with_it(problem, search, agreement):
    world = {"bias": 6.0, "prior": 1.0, "gain": 2.0}
    raw = problem(n=30, fake=FakeBackend(**world))
    calibrated = problem(n=30, calibration="batch", fake=FakeBackend(**world))
    assert set(search(raw)[0].assignment.labels) == {1}
    labels = search(calibrated)[0].assignment
    assert set(labels.labels) == {0, 1}
    assert agreement(calibrated, labels) > 0.9


def test_a_round_that_lowers_utility_is_not_kept_and_is_the_last(problem, search):
    endings = set()
    for seed in range(6):
        state, events = search(problem(n=16, fake=FakeBackend(gain=1, prior=0, noise=3)), seed=seed, rounds=30)
        kept = [event for event in events if event.accepted]
        assert state.utility.total == max(event.utility for event in kept) == kept[-1].utility
        assert [event.accepted for event in events[:-1]] == [True] * (len(events) - 1)
        assert events[-1].accepted is (state.finished != "utility fell")
        endings.add(state.finished)
    assert "utility fell" in endings


def test_a_confidence_filter_keeps_the_surest_share_and_helps_where_some_are_beyond_knowing(problem, search, agreement):
    made = problem(n=60, fake=FakeBackend(prior=0.8, gain=0.5, noise=2.0))
    whole, _ = search(made)
    state, events = search(made, keep=0.5)
    assert len(state.assignment.labelled) == 30
    assert all(event.n_labelled == 30 for event in events)
    assert agreement(made, state.assignment) > agreement(made, whole.assignment)


def test_a_filter_leaves_no_example_out_for_good(problem, search):
    """Every round asks about all examples, so what was unsure once may serve later."""
    made = problem(n=40, fake=FakeBackend(prior=0.2, noise=2.0))
    _, events = search(made, keep=0.5, rounds=10)
    came_back = {name for event in events[1:] for name, label in event.labels.items() if label is not None}
    assert came_back

import dataclasses

import numpy as np
import pytest

from elicitor.backends.fake import FakeBackend
from elicitor.data import Assignment
from elicitor.search import finish
from elicitor.search.icm import STALL_WINDOW, Icm
from elicitor.search.repair import most_confident, repair
from elicitor.search.state import SearchState
from elicitor.search_settings import IcmConfig


@pytest.fixture
def search(run_search):
    def run(problem, *, seed=0, **settings):
        return run_search(Icm(IcmConfig(**settings)), problem, seed=seed)

    return run


def test_the_hidden_concept_is_found_whole_or_whole_upside_down(problem, search, agreement):
    """Labels of either sign are coherent; nothing in between is."""
    found = [agreement(made, search(made, seed=seed)[0].assignment) for seed in range(6) for made in [problem(n=24)]]
    assert all(share > 0.9 or share < 0.1 for share in found)


def test_what_the_model_knows_beforehand_breaks_the_symmetry(problem, search, agreement):
    shares = [
        agreement(made, search(made, seed=seed)[0].assignment)
        for seed in range(4)
        for made in [problem(n=24, fake=FakeBackend(prior=3.0))]
    ]
    assert min(shares) > 0.9


def test_a_model_that_knows_nothing_gives_no_accuracy(problem, search, agreement):
    made = [problem(n=24, fake=FakeBackend(prior=0, gain=0, noise=1)) for _ in range(6)]
    shares = [agreement(one, search(one, seed=seed)[0].assignment) for seed, one in enumerate(made)]
    assert 0.3 < np.mean(shares) < 0.7


def test_seeds_are_balanced_and_as_many_as_asked(problem):
    state, _ = Icm(IcmConfig(num_seed_examples=7)).start(problem(n=30), rng=np.random.default_rng(0))
    labels = [state.assignment[i] for i in state.assignment.labelled]
    assert sorted([labels.count(0), labels.count(1)]) == [3, 4]


def test_random_label_counts_do_not_depend_on_the_seed_but_places_do(problem):
    places = {
        Icm(IcmConfig()).start(problem(n=30), rng=np.random.default_rng(s))[0].assignment.labels for s in range(5)
    }
    assert len(places) == 5


def test_the_budget_ends_the_search(problem, search):
    state, events = search(problem(n=20), iterations=5)
    assert (state.iteration, state.finished) == (5, "iteration budget spent")
    assert len(events) == 6
    default = Icm(IcmConfig()).budget(problem(n=20))
    assert default == 60


def test_a_full_pass_without_change_ends_the_search(problem, search):
    state, events = search(problem(n=10), iterations=1000)
    assert state.finished == "nothing changed for a full pass"
    changed = [event.iteration for event in events if event.kind == "proposed" and event.labels and event.accepted]
    assert state.iteration == max(changed) + 10


def test_proposals_for_labelled_examples_that_agree_cost_nothing(problem, search):
    _, events = search(problem(n=12))
    quiet = [e for e in events if e.kind == "proposed" and e.utility_proposed is None]
    assert quiet
    assert all(event.tokens_computed == 0 for event in quiet)


def test_rejected_proposals_leave_no_trace(problem):
    made = problem(n=16, fake=FakeBackend(gain=1, prior=0, noise=3))
    rng = np.random.default_rng(3)
    icm = Icm(IcmConfig(initial_temperature=1e-6, min_temperature=1e-6))
    state, _ = icm.start(made, rng=rng)
    rejected = 0
    for _ in range(60):
        before = dataclasses.replace(state)
        state, (event, *_) = icm.step(made, state, rng=rng)
        if event.utility_proposed is not None and not event.accepted:
            rejected += 1
            assert state.assignment == before.assignment
            assert state.utility.labels == before.utility.labels
    assert rejected > 0


def test_at_no_temperature_utility_only_rises_between_new_orders(problem, search):
    made = problem(n=16, reusable=0)
    _, events = search(made, initial_temperature=1e-6, min_temperature=1e-6)
    accepted = [e for e in events if e.kind == "proposed" and e.accepted and e.labels]
    before = [events[events.index(e) - 1].utility for e in accepted]
    assert all(e.utility > u for e, u in zip(accepted, before, strict=True))


def test_stalled_growth_is_reported_once_with_what_to_change(problem, search):
    made = problem(n=60, reduce="sum", score="log_prob", fake=FakeBackend(gain=0.2, prior=0.1))
    state, events = search(made, initial_temperature=0.01)
    warnings = [event for event in events if event.kind == "warned"]
    assert len(warnings) == 1
    assert "growth has stalled" in warnings[0].message
    assert "objective.reduce=mean" in warnings[0].message
    assert len(state.assignment.unlabelled) > 10
    assert warnings[0].iteration >= STALL_WINDOW


def test_a_search_that_ends_with_much_left_says_so(problem, search):
    made = problem(n=14, reduce="sum", score="log_prob")
    state, events = search(made, initial_temperature=1e-6, min_temperature=1e-6)
    assert state.finished == "nothing changed for a full pass"
    assert len(state.verdicts) < STALL_WINDOW
    (warning,) = [event for event in events if event.kind == "warned"]
    assert f"{len(state.assignment.unlabelled)} examples have none" in warning.message


def test_filling_calibrates_over_everything(problem, search, agreement):
    """A model biased towards one label fills both, although the labelled batch alone would say otherwise."""
    made = problem(n=40, calibration="batch", fake=FakeBackend(bias=5.0, prior=2.0))
    state, _ = search(made, iterations=1)
    final, _, _ = finish(made, state, batch=0, rng=np.random.default_rng(0))
    assert agreement(made, final.assignment) > 0.8


def test_healthy_growth_is_not_reported(problem, search):
    _, events = search(problem(n=40))
    assert not [event for event in events if event.kind == "warned"]


def test_what_is_left_is_filled_by_the_final_context(problem, search):
    made = problem(n=30)
    rng = np.random.default_rng(0)
    state, _ = search(made, iterations=6)
    left = state.assignment.unlabelled
    final, found, events = finish(made, state, batch=0, rng=rng)
    assert [item.id for item in found] == [example.id for example in made.dataset.examples]
    assert tuple(i for i, item in enumerate(found) if item.filled) == left
    assert events[0].kind == "filled"
    assert not final.assignment.unlabelled
    assert all(0 <= item.confidence <= 1 for item in found)
    predicted = made.predict(left, state.assignment, rng=rng, after=state.utility).argmax(axis=1)
    assert [final.assignment[i] for i in left] == predicted.tolist()


def test_states_survive_json_to_the_bit(problem, search):
    state, _ = search(problem(n=12), iterations=7)
    again = SearchState.from_json(state.to_json())
    assert again.assignment == state.assignment
    assert again.utility.total == state.utility.total
    assert again.utility.order == state.utility.order
    assert (again.utility.log_probs == state.utility.log_probs).all()


@pytest.mark.parametrize("constraint", ["negation", "at_most_one", "exactly_one"])
def test_searches_end_consistent(problem, constraint, search):
    made = problem(n=20, group_size=2, constraint=constraint, alpha=1.0)
    state, _ = search(made)
    _, found, _ = finish(made, state, batch=0, rng=np.random.default_rng(0))
    assert len(found) == 20
    assert state.utility.inconsistency == made.constraints.count(state.assignment)
    assert state.utility.inconsistency <= 1


class Scripted:
    """A problem whose utility of each assignment is written down."""

    def __init__(self, constraints, utilities):
        self.constraints, self._utilities, self.asked = constraints, utilities, []

    def utility(self, assignment, *, rng, after=None):
        self.asked.append(assignment.labels)
        return dataclasses.make_dataclass("Scored", ["total"])(self._utilities[assignment.labels])


def repaired(problem, utilities, labels):
    scripted = Scripted(problem.constraints, utilities)
    rng = np.random.default_rng(0)
    start = scripted.utility(Assignment(labels), rng=rng)
    got = repair(scripted, Assignment(labels), start, rounds=10, rng=rng)
    return got[0].labels, got[1].total, got[2], scripted.asked[1:]


def test_repair_takes_the_best_option_both_false_included(problem):
    made = problem(n=2, group_size=2, constraint="at_most_one")
    utilities = {(1, 1): 0.0, (0, 0): 3.0, (0, 1): 1.0, (1, 0): 2.0}
    assert repaired(made, utilities, (1, 1)) == ((0, 0), 3.0, 3, [(0, 0), (0, 1), (1, 0)])


def test_repair_leaves_a_contradiction_that_pays(problem):
    made = problem(n=2, group_size=2, constraint="at_most_one")
    utilities = {(1, 1): 5.0, (0, 0): 3.0, (0, 1): 1.0, (1, 0): 2.0}
    assert repaired(made, utilities, (1, 1))[:3] == ((1, 1), 5.0, 3)


def test_repair_by_confidence_maximises_the_groups_joint_probability(problem):
    made = problem(n=3, group_size=3, constraint="at_most_one")
    rows = {0: np.log([0.3, 0.7]), 1: np.log([0.2, 0.8]), 2: np.log([0.6, 0.4])}
    # 1 alone: 0.3 * 0.8 * 0.6 = 0.144; 0 alone: 0.7 * 0.2 * 0.6 = 0.084; none: 0.036; 2 alone: 0.024.
    assert most_confident(made.constraints, Assignment.empty(3), rows).labels == (0, 1, 0)
    # With 0 held positive from before, nothing else may be.
    kept = most_confident(made.constraints, Assignment((1, None, None)), {1: rows[1], 2: rows[2]})
    assert kept.labels == (1, 0, 0)

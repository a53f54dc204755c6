import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elicitor.backends.fake import FakeBackend
from elicitor.config import PlanConfig
from elicitor.consistency import Constraints
from elicitor.data import Assignment, Dataset, Example, LabelSpace
from elicitor.search.events import replay
from elicitor.search.gibbs import Gibbs, block_contexts, block_size, deal_blocks, draw, sweep_temperature, units
from elicitor.search.state import SearchState
from elicitor.search_settings import GibbsConfig


@pytest.fixture
def search(run_search):
    def run(problem, *, seed=0, **options):
        return run_search(Gibbs(GibbsConfig(**options)), problem, seed=seed)

    return run


def test_random_seeds_grow_into_the_hidden_concept(problem, search, agreement):
    found = []
    for seed in range(4):
        made = problem(n=40, calibration="batch", fake=FakeBackend(prior=0.3))
        state, _ = search(made, seed=seed)
        assert not state.assignment.unlabelled
        found.append(agreement(made, state.assignment))
    # Either way round the labels are coherent; what the world knows without being shown anything tips the scale.
    assert all(share > 0.9 or share < 0.1 for share in found)
    assert np.mean(found) > 0.7


def test_events_rebuild_the_labels_and_count_every_token(problem, search):
    made = problem(n=20)
    state, events = search(made)
    *_, (_, held) = replay([event.to_json() for event in events])
    names = made.dataset.label_space.labels
    assert held == {e.id: names[y] for e, y in zip(made.dataset.examples, state.assignment.labels, strict=True)}
    assert sum(event.tokens_computed for event in events) == made.meter.cost.tokens_computed
    assert events[-1].kind == "voted"


def test_groups_are_drawn_as_a_whole_and_stay_consistent(problem, search):
    made = problem(n=24, group_size=3, constraint="exactly_one")
    state, events = search(made, seed=3)
    assert made.constraints.count(state.assignment) == 0
    labelled_at_random = events[0].inconsistency
    assert all(event.inconsistency <= labelled_at_random for event in events[1:])
    assert events[-1].inconsistency == 0


def test_the_end_is_an_exact_utility_and_votes_are_confidence(problem, search):
    made = problem(n=12)
    state, _ = search(made, sweeps=4, burn_in=1, initial_temperature=3.0, min_temperature=3.0)
    again = made.utility(state.assignment, rng=np.random.default_rng(9))
    assert state.utility.order is not None
    assert state.utility.positions == tuple(range(12))
    assert state.utility.total == pytest.approx(again.total, rel=0.2)
    votes = np.asarray(state.sweep.votes)
    assert (votes.sum(axis=1) == 3).all()
    winner = np.asarray(state.assignment.labels)
    assert (votes[np.arange(12), winner] == votes.max(axis=1)).all()
    assert votes.max(axis=1).min() < 3, "at this temperature some label should have changed"


def test_thinning_counts_every_other_sweep(problem, search):
    hot = {"initial_temperature": 5.0, "min_temperature": 5.0}
    state, _ = search(problem(n=12), sweeps=6, burn_in=1, thinning=2, **hot)
    assert {sum(votes) for votes in state.sweep.votes} == {3}


def test_it_ends_early_when_a_voting_sweep_changes_nothing(problem, search):
    state, _ = search(problem(n=16, fake=FakeBackend(prior=6.0)), sweeps=50)
    assert state.finished == "nothing changed for a full sweep"
    assert state.sweep.number < 10


def test_a_resumed_search_draws_the_same(problem, run_search):
    whole, _ = run_search(Gibbs(GibbsConfig()), problem(n=14), seed=5)
    made, search = problem(n=14), Gibbs(GibbsConfig())
    rng = np.random.default_rng(5)
    state, _ = search.start(made, rng=rng)
    while state.finished is None:
        state, _ = search.step(made, state, rng=rng)
        state = SearchState.from_json(json.loads(json.dumps(state.to_json())))
        made = problem(n=14)
    assert state.assignment == whole.assignment
    assert state.sweep == whole.sweep
    assert state.utility.total == whole.utility.total


def test_every_query_sees_all_others_once_and_never_its_own_unit(problem):
    made = problem(n=15, group_size=3, constraint="at_most_one")
    rng = np.random.default_rng(0)
    seen = []
    for block in deal_blocks(made, GibbsConfig(block_size=4), rng=rng):
        assert len(block) in (3, 6)
        for unit, contexts in block_contexts(made, block, range(15), rng=rng):
            seen += unit
            for context in contexts:
                assert sorted((*context.demonstrations, *unit)) == list(range(15))
    assert sorted(seen) == list(range(15))


def test_what_stands_outside_a_block_is_computed_once(problem, search):
    """n^2 / b demonstrations outside of blocks and about b / 2 for each example within, not n for each."""
    made = problem(n=32)
    _, events = search(made, sweeps=2, burn_in=1, block_size=8)
    sweep = [event for event in events if event.kind == "resampled"][4:]
    size = len("text 10: yes\n\n")
    for event in sweep:
        demonstrations = event.tokens_computed / size
        assert demonstrations <= 24 + (7 + 7 + 6 + 5 + 4 + 3 + 2 + 1) + 8
        assert event.tokens_reused / size > 8 * 24 * 0.8


def test_a_context_never_holds_more_than_the_plan_allows(problem):
    made = replace(problem(n=30), plan=PlanConfig(kind="sampled", max_demonstrations=5))
    for block in deal_blocks(made, GibbsConfig(block_size=8), rng=np.random.default_rng(0)):
        for _, contexts in block_contexts(made, block, range(30), rng=np.random.default_rng(1)):
            assert all(len(context.demonstrations) == 5 for context in contexts)


@given(st.integers(1, 2000))
def test_the_default_block_is_near_the_cheapest(n):
    def demonstrations(b):
        return n * n / b + n * b / 2

    size = block_size(GibbsConfig(), n)
    assert 1 <= size <= max(1, n) or n == 1
    assert demonstrations(size) <= 1.1 * min(demonstrations(b) for b in range(1, n + 1))


def test_temperature_falls_over_the_burn_in_and_stays():
    config = GibbsConfig(sweeps=5, burn_in=2, initial_temperature=4.0, min_temperature=1.0)
    assert [sweep_temperature(k, config) for k in range(1, 6)] == pytest.approx([4, 2, 1, 1, 1])
    assert sweep_temperature(1, GibbsConfig(burn_in=0)) == 0.1


def test_a_unit_is_drawn_by_the_product_of_its_labels(problem):
    """Asymmetric pair: (0, 1) weighs 0.9 * 0.6, (1, 0) weighs 0.1 * 0.4; at temperature 1 that is 0.931 to 0.069."""
    made = problem(n=2, group_size=2, constraint="negation")
    (unit,) = units(made.constraints, range(2))
    log_probs = np.log([[0.9, 0.1], [0.4, 0.6]])
    rng = np.random.default_rng(0)
    drawn = [draw(made.constraints, unit, log_probs, Assignment.empty(2), 1.0, rng=rng) for _ in range(4000)]
    assert {tuple(option.values()) for option in drawn} == {(0, 1), (1, 0)}
    share = np.mean([option[0] == 0 for option in drawn])
    expected = 0.54 / 0.58
    assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / 4000)
    cold = [draw(made.constraints, unit, log_probs, Assignment.empty(2), 0.01, rng=rng)[0] for _ in range(50)]
    assert cold == [0] * 50


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 20), st.integers(1, 3), st.integers(0, 1000))
def test_blocks_hold_every_example_once_and_whole_units(n, group_size, seed):
    examples = tuple(Example(str(i), {"text": str(i)}, str(i // group_size), str(i), "here") for i in range(n))
    dataset = Dataset(examples, LabelSpace(("no", "yes"), (" no", " yes"), 1), "here", "")
    constraints = Constraints.from_dataset(dataset, ("at_most_one",))
    blocks = deal_blocks(
        SimpleNamespace(constraints=constraints, dataset=dataset), GibbsConfig(), rng=np.random.default_rng(seed)
    )
    assert sorted(i for block in blocks for i in block) == list(range(n))
    for block in blocks:
        for unit in units(constraints, block):
            assert set(unit) == {i for i in range(n) if i // group_size == unit[0] // group_size}

import json

import numpy as np
import pytest

from elicitor.backends.fake import FakeBackend
from elicitor.config import build_config
from elicitor.data import Assignment
from elicitor.errors import ConfigError
from elicitor.search.icm import Icm
from elicitor.search.judging import asked_about, exactly, fresh_order, on_a_sample
from elicitor.search.state import SearchState
from elicitor.search_settings import IcmConfig

SAMPLED = {"utility": "sampled", "block_size": 4}


@pytest.fixture
def labelled(problem):
    """A problem of 24 examples, 20 of them labelled by lot, under an order whose tail holds a block of three."""

    def make(**options):
        made = problem(n=24, **options)
        rng = np.random.default_rng(3)
        held = Assignment(tuple(int(y) for y in rng.integers(2, size=20)) + (None,) * 4)
        order = fresh_order(held, (1, 2, 22), rng=rng)
        rows = dict(zip(range(20), made.utility(held, rng=rng).log_probs, strict=True))
        return made, held, made.last_read(held, rows, order=order)

    return make


def judge(problem, held, current, picked, label, **settings):
    config = IcmConfig(**{**SAMPLED, **settings})
    row = problem.ask([asked_about(current.order, picked)], held)[0]
    options = {"config": config, "heat": 0.01, "rng": np.random.default_rng(0)}
    return on_a_sample(problem, current, held, picked, label, row, **options)


@pytest.mark.parametrize(("picked", "label"), [(22, 0), (22, 1), (1, 1), (2, 1)])
def test_undecided_samples_end_in_the_exact_change(labelled, picked, label):
    """At a level that nothing passes all terms are read, and the estimate is U under that order."""
    made, held, current = labelled()
    judged = judge(made, held, current, picked, label, test_level=1e-300)
    candidate = held.with_labels({picked: label})
    before = made._evaluate(held, current.order, rng=np.random.default_rng(0), is_new=False)
    after = made._evaluate(candidate, judged.utility.order, rng=np.random.default_rng(0), is_new=False)
    assert judged.terms_read is None
    assert judged.utility.total == pytest.approx(after.total, abs=1e-9)
    assert judged.current.total == pytest.approx(before.total, abs=1e-9)
    assert judged.accepted == (after.total > before.total)


def test_a_clear_case_is_decided_by_a_part(labelled):
    made, held, current = labelled(fake=FakeBackend(gain=2.0, noise=0.1))
    judged = judge(made, held, current, 22, 0, test_level=0.4)
    assert judged.terms_read is not None
    assert 4 <= judged.terms_read < judged.terms == 20


def test_a_sample_is_read_for_less_than_everything(labelled):
    made, held, current = labelled(fake=FakeBackend(gain=2.0, noise=0.1))
    made.backend.forget()
    spent = made.meter.cost.prompts
    judged = judge(made, held, current, 22, 0, test_level=0.4)
    assert made.meter.cost.prompts - spent == 1 + 2 * judged.terms_read


def test_a_checked_decision_is_the_exact_one(labelled):
    made, held, current = labelled(fake=FakeBackend(gain=2.0, noise=0.1))
    for picked, label in [(22, 0), (22, 1), (1, 0), (2, 1)]:
        if held[picked] == label:
            continue
        checked = judge(made, held, current, picked, label, test_level=0.4, check=1.0)
        exact = judge(made, held, current, picked, label, test_level=1e-300)
        assert checked.accepted == exact.accepted
        assert checked.agrees in (None, True, False)
        assert (checked.agrees is None) == (checked.terms_read is None)


def test_a_block_stands_last_and_nothing_is_lost():
    held = Assignment((0, 1, None, 1, 0))
    order = fresh_order(held, (3, 2, 0), rng=np.random.default_rng(0))
    assert sorted(order.base) == [1, 4]
    assert order.tail == (3, 0)
    assert asked_about(order, 2).demonstrations == order.spine
    assert set(asked_about(order, 3).demonstrations) == {0, 1, 4}


def test_exact_judgement_takes_a_rise(labelled):
    made, held, _ = labelled(fake=FakeBackend(gain=2.0, noise=0.0))
    rng = np.random.default_rng(0)
    current = made.utility(held, rng=rng)
    outcomes = []
    for label in (0, 1):
        candidate = held.with_labels({22: label})
        outcomes.append(exactly(made, current, held, candidate, 22, config=IcmConfig(), heat=0.01, rng=rng))
    for outcome in outcomes:
        assert outcome.accepted == (outcome.utility.total > outcome.current.total)


def test_sampled_search_finds_the_concept(problem, run_search, agreement):
    found = []
    for seed in range(6):
        made = problem(n=24)
        state, _ = run_search(Icm(IcmConfig(**SAMPLED)), made, seed=seed)
        assert state.finished
        found.append(agreement(made, state.assignment))
    assert all(share > 0.9 or share < 0.1 for share in found)


def test_the_last_utility_of_a_sampled_search_is_exact(problem, run_search):
    made = problem(n=16)
    state, _ = run_search(Icm(IcmConfig(**SAMPLED)), made)
    again = made._evaluate(state.assignment, state.utility.order, rng=np.random.default_rng(0), is_new=False)
    assert state.utility.total == pytest.approx(again.total, abs=1e-9)


def test_proposals_that_contradict_are_judged_exactly(problem, run_search):
    made = problem(n=16, group_size=2, constraint="asymmetric")
    _, events = run_search(Icm(IcmConfig(**SAMPLED)), made)
    repaired = [event for event in events if event.kind == "proposed" and event.options_tried]
    assert repaired
    assert all(event.terms is None for event in repaired)


@pytest.mark.parametrize("stop", [1, 3, 8, 15])
def test_a_state_written_down_goes_on_as_if_it_had_not_been(problem, run_search, stop):
    search = Icm(IcmConfig(**SAMPLED))
    whole, _ = run_search(search, problem(n=16))
    made, rng = problem(n=16), np.random.default_rng(0)
    state, _ = search.start(made, rng=rng)
    for _ in range(stop):
        state, _ = search.step(made, state, rng=rng)
    state = SearchState.from_json(json.loads(json.dumps(state.to_json())))
    made = problem(n=16)
    while state.finished is None:
        state, _ = search.step(made, state, rng=rng)
    assert state.to_json() == whole.to_json()


def test_a_sampled_search_needs_the_tree():
    with pytest.raises(ConfigError, match=r"icm\.utility sampled needs plan\.kind tree, got in_order"):
        build_config(flags={"data": "x", "task": "sentiment", "icm.utility": "sampled", "plan.kind": "in_order"})

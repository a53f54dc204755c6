import json
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elicitor.backends.base import Scores
from elicitor.backends.fake import FakeBackend
from elicitor.objective import normalize
from elicitor.search.ensemble import Ensemble, deal_folds
from elicitor.search.events import replay
from elicitor.search.state import SearchState
from elicitor.search_settings import EnsembleConfig


@pytest.fixture
def search(run_search):
    def run(problem, *, seed=0, **options):
        return run_search(Ensemble(EnsembleConfig(**options)), problem, seed=seed)

    return run


class Recorder(FakeBackend):
    """Keeps every answer that it gives, with the prompts."""

    def score(self, prompts, *, keep=False, on_progress=None) -> Scores:
        scores = super().score(prompts, keep=keep, on_progress=on_progress)
        self.__dict__.setdefault("answers", []).append(([self.read(p) for p in prompts], normalize(scores.log_probs)))
        return scores

    def read(self, prompt):
        return self.tokenizer.decode([token for segment in prompt.segments for token in segment])


def queried(text):
    return int(text.rsplit("text ", 1)[1].removesuffix(":"))


@pytest.mark.parametrize("calibration", ["none", "batch"])
def test_labels_answer_the_average_of_all_readings_each_calibrated_in_its_fold(problem, calibration):
    backend = Recorder(prior=0.2, noise=3.0, bias=1.0)
    made = problem(n=10, calibration=calibration, fake=backend)
    search = Ensemble(EnsembleConfig(rounds=3))
    rng = np.random.default_rng(4)
    state, _ = search.start(made, rng=rng)
    readings = {i: [] for i in range(10)}
    for _ in range(6):
        # The last step evaluates U(D) after its fold.
        fold, held = state.sweep.blocks[0], state.assignment
        before = len(backend.answers)
        state, _ = search.step(made, state, rng=rng)
        texts, rows = backend.answers[before]
        assert [queried(text) for text in texts] == list(fold)
        # Behind the labels of all others, and of them alone.
        for text in texts:
            shown = {int(i): label == "yes" for i, label in re.findall(r"text (\d+): *(no|yes)", text)}
            assert shown == {i: held[i] == 1 for i in range(10) if i not in fold}
        log_p = rows
        if calibration == "batch":
            log_p = normalize(rows - rows.mean(axis=0))
        for i, row in zip(fold, log_p, strict=True):
            readings[i].append(row)
        if state.finished:
            break
        means = np.stack(
            [np.mean(readings[i], axis=0) if readings[i] else state.utility.log_probs[i] for i in range(10)]
        )
        np.testing.assert_allclose(state.utility.log_probs, means, atol=1e-9)
        if calibration == "batch":
            assert state.assignment.labels == tuple((means - made.offset(means)).argmax(axis=1))
        else:
            assert state.assignment.labels == tuple(means.argmax(axis=1))
    assert sum(map(len, readings.values())) >= 20


def test_averages_settle_where_last_answers_swing(problem, search, agreement):
    """In a world whose readings are noisy, and in which an even number of rounds may undo itself."""
    found = {}
    for rounds in (1, 8):
        shares = []
        for seed in range(5):
            made = problem(n=40, calibration="batch", fake=FakeBackend(prior=0.4, gain=1.5, noise=2.0))
            state, _ = search(made, seed=seed, rounds=rounds)
            shares.append(agreement(made, state.assignment))
        found[rounds] = np.mean(shares)
    assert found[8] > found[1]
    assert found[8] > 0.85


def test_events_rebuild_the_labels_and_count_every_token(problem, search):
    made = problem(n=20, fake=FakeBackend(prior=0.3, noise=1.0))
    state, events = search(made)
    *_, (_, held) = replay([event.to_json() for event in events])
    names = made.dataset.label_space.labels
    assert held == {e.id: names[y] for e, y in zip(made.dataset.examples, state.assignment.labels, strict=True)}
    assert sum(event.tokens_computed for event in events) == made.meter.cost.tokens_computed
    assert [event.kind for event in events] == ["started", *["relabelled"] * state.iteration, "evaluated"]


def test_the_end_is_an_exact_utility(problem, search):
    made = problem(n=12, fake=FakeBackend(noise=0.0))
    state, events = search(made)
    again = made.utility(state.assignment, rng=np.random.default_rng(9))
    assert state.utility.total == events[-1].utility == pytest.approx(again.total)
    assert made.meter.evaluations == 2


def test_it_stops_after_a_round_that_changes_nothing_or_when_rounds_are_spent(problem, search):
    state, _ = search(problem(n=20, fake=FakeBackend(noise=0.0)), rounds=20)
    assert state.finished == "nothing changed for a full round"
    assert state.iteration < 40
    assert state.iteration % 2 == 0
    state, _ = search(problem(n=30, fake=FakeBackend(prior=0, gain=0.3, noise=3.0)), rounds=2)
    assert (state.finished, state.iteration) == ("round budget spent", 4)


def test_logic_holds_from_the_first_labels_on_though_folds_cut_through_groups(problem, search):
    for constraint, size in (("negation", 2), ("exactly_one", 3)):
        made = problem(n=24, group_size=size, constraint=constraint, fake=FakeBackend(prior=0.3, noise=2.0))
        state, events = search(made, folds=3)
        assert [event.inconsistency for event in events] == [0] * len(events)
        assert made.constraints.count(state.assignment) == 0


def test_given_labels_stand_until_their_example_is_read(problem):
    made = problem(n=16, fake=FakeBackend(prior=3.0, noise=0.0))
    told = Ensemble(EnsembleConfig(rounds=1))
    plain, _ = told.start(made, rng=np.random.default_rng(0))
    wrong = {i: 1 - plain.assignment[i] for i in range(0, 16, 2)}
    made = replace(made, start_labels=wrong)
    state, _ = told.start(made, rng=np.random.default_rng(0))
    assert all(state.assignment[i] == y for i, y in wrong.items())
    unread = set(state.sweep.blocks[1])
    state, _ = told.step(made, state, rng=np.random.default_rng(0))
    assert all(state.assignment[i] == y for i, y in wrong.items() if i in unread)


@pytest.mark.parametrize("start", ["zero_shot", "random"])
def test_stopping_between_any_two_steps_changes_nothing(problem, start):
    made = problem(n=14, calibration="batch", fake=FakeBackend(prior=0.3, noise=2.0))
    search = Ensemble(EnsembleConfig(start=start, rounds=3))
    ends = []
    for stops in (False, True):
        rng = np.random.default_rng(5)
        state, _ = search.start(made, rng=rng)
        while not state.finished:
            if stops:
                state = SearchState.from_json(json.loads(json.dumps(state.to_json())))
            state, _ = search.step(made, state, rng=rng)
        ends.append(state.to_json())
    assert ends[0] == ends[1]


@given(n=st.integers(2, 40), folds=st.integers(2, 9), seed=st.integers(0, 99))
def test_folds_share_out_all_positions_evenly(n, folds, seed):
    dealt = deal_folds(n, folds, rng=np.random.default_rng(seed))
    assert sorted(i for fold in dealt for i in fold) == list(range(n))
    sizes = [len(fold) for fold in dealt]
    assert len(sizes) == min(folds, n)
    assert max(sizes) - min(sizes) <= 1

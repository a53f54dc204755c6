"""Fixtures for tests of searches."""

import numpy as np
import pytest

from elicitor.backends.fake import concept_label


@pytest.fixture
def run_search():
    """Runs a search to its end; the final state and all events."""

    def run(search, problem, *, seed=0):
        rng = np.random.default_rng(seed)
        state, started = search.start(problem, rng=rng)
        events = [started]
        while state.finished is None:
            state, more = search.step(problem, state, rng=rng)
            events += more
        return state, events

    return run


@pytest.fixture
def agreement():
    """Share of the labelled examples whose label is the hidden concept's."""

    def share(problem, assignment):
        truth = [concept_label(f"{example.fields['text']}:", 2) for example in problem.dataset.examples]
        return np.mean([assignment[i] == truth[i] for i in assignment.labelled])

    return share

"""Bootstrapped few-shot labelling: relabel everything from everything else, again and again (Shrivastava et al. 2026).

A baseline and a start point for the other searches: one round costs one evaluation of U(D). With ``keep`` below 1 only the
labels that the model is surest of serve as demonstrations (self-training with a confidence filter).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from elicitor.data import Assignment
from elicitor.objective import Array, Problem, normalize
from elicitor.search.events import AnyEvent, Event
from elicitor.search.first_labels import label_everything
from elicitor.search.repair import most_confident
from elicitor.search.state import SearchState, changes, event_fields, relabelling_event
from elicitor.search_settings import BootstrapConfig


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Rounds of relabelling; `step` is one round.

    Attributes:
        config: Start and number of rounds.
        batch: Number of the batch, written into events.
    """

    config: BootstrapConfig
    batch: int = 0

    def start(self, problem: Problem, *, rng: np.random.Generator) -> tuple[SearchState, Event]:
        """Label every example zero-shot or at random, consistent within each group.

        Args:
            problem: What to label.
            rng: Source of every draw.

        Returns:
            The first state and the event that describes it.
        """
        spent = problem.meter.cost
        empty = Assignment.empty(len(problem.dataset))
        labelled, log_probs = label_everything(problem, self.config.start, rng=rng)
        assignment = self._surest(labelled, dict(enumerate(log_probs)))
        state = SearchState(assignment=assignment, utility=problem.utility(assignment, rng=rng))
        return state, relabelling_event(problem, empty, state, kind="started", batch=self.batch, spent_before=spent)

    def budget(self, problem: Problem) -> int:
        """Rounds at most."""
        return self.config.rounds

    def step(
        self, problem: Problem, state: SearchState, *, rng: np.random.Generator
    ) -> tuple[SearchState, list[AnyEvent]]:
        """Give every example the label that all the others predict, then make each group consistent by confidence.

        A round that lowers U is not kept and is the last: from there on labels wander without becoming more coherent.

        Args:
            problem: What to label.
            state: Where the search stands, not finished.
            rng: Orders the demonstrations.

        Returns:
            The next state and what happened.
        """
        spent = problem.meter.cost
        rows = dict(zip(state.utility.positions, state.utility.calibrated(), strict=True))
        left_out = state.assignment.unlabelled
        if left_out:
            log_probs = problem.predict(left_out, state.assignment, rng=rng, after=state.utility)
            rows |= zip(left_out, normalize(log_probs - state.utility.offset), strict=True)
        assignment = self._surest(most_confident(problem.constraints, state.assignment, rows), rows)
        changed = assignment != state.assignment
        utility = problem.utility(assignment, rng=rng) if changed else state.utility
        kept = utility.total >= state.utility.total
        after = replace(
            state,
            assignment=assignment if kept else state.assignment,
            utility=utility if kept else state.utility,
            iteration=state.iteration + 1,
            unchanged=0 if changed and kept else state.unchanged + 1,
        )
        event = Event(
            kind="relabelled",
            labels=changes(problem, state.assignment, assignment),
            accepted=kept,
            **event_fields(problem, after, batch=self.batch, spent_before=spent),
        )
        if not changed:
            after = after.finish("nothing changed for a full pass")
        elif not kept:
            after = after.finish("utility fell")
        elif after.iteration >= self.config.rounds:
            after = after.finish("round budget spent")
        return after, [event]

    def _surest(self, assignment: Assignment, rows: Mapping[int, Array]) -> Assignment:
        """The assignment without the labels of lowest log-probability; of equal ones the first examples stay."""
        sure = {i: float(row[y]) for i, row in rows.items() if (y := assignment[i]) is not None}
        dropped = sorted(sure, key=lambda i: (-sure[i], i))[n_kept(len(rows), self.config.keep) :]
        return assignment.with_labels(dict.fromkeys(dropped))


def n_kept(n: int, share: float) -> int:
    """How many of n examples keep their labels where a share is kept: two at least, so that one can predict the other."""
    return max(min(2, n), math.ceil(share * n))

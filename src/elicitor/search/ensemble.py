"""Labels on which an ensemble of contexts agrees: every example answers the average of all that it has been told.

A round deals the examples into folds by lot. Each fold is read behind the labels of all others, which share one prefix, and its
examples take the label that is likeliest on the average of their readings, those of earlier rounds included. Between examples
this is fictitious play (Brown 1951): a best response to the mix of labels that the others have held, where `bootstrap` answers
their last labels alone, and swings. The objective is that of Wen et al. (2025, section 2.2): at rest each label is the one that
the others predict. docs/lab-log.md has what averages, folds and rounds are worth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from elicitor.data import Assignment
from elicitor.objective import Problem, normalize
from elicitor.search.events import AnyEvent, Event
from elicitor.search.first_labels import start_from_everything
from elicitor.search.repair import most_confident
from elicitor.search.state import SearchState, Sweep, event_fields, relabelling_event
from elicitor.search_settings import EnsembleConfig


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Rounds of folds; `step` reads one fold.

    Between steps the state's utility is put together from each example's average reading.

    Attributes:
        config: Start, rounds and folds.
        batch: Number of the batch, written into events.
    """

    config: EnsembleConfig
    batch: int = 0

    def start(self, problem: Problem, *, rng: np.random.Generator) -> tuple[SearchState, Event]:
        """Label every example zero-shot, at random, or as a user gave them; none of this enters an average.

        Args:
            problem: What to label.
            rng: Source of every draw.

        Returns:
            The first state and the event that describes it. After random labels P(D) is zero: nothing has been read yet.
        """
        spent = problem.meter.cost
        empty = Assignment.empty(len(problem.dataset))
        assignment, utility = start_from_everything(problem, self.config.start, rng=rng)
        state = SearchState(
            assignment=assignment,
            utility=utility,
            sweep=self._deal(problem, 1, rng=rng),
        )
        return state, relabelling_event(problem, empty, state, kind="started", batch=self.batch, spent_before=spent)

    def budget(self, problem: Problem) -> int:
        """Folds at most, all rounds."""
        return self.config.rounds * min(self.config.folds, len(problem.dataset))

    def step(
        self, problem: Problem, state: SearchState, *, rng: np.random.Generator
    ) -> tuple[SearchState, list[AnyEvent]]:
        """Read one fold behind the others, relabel by the averages, and close the round if it was the last fold.

        Args:
            problem: What to label.
            state: Where the search stands, not finished.
            rng: Deals folds and orders demonstrations.

        Returns:
            The next state and what happened.
        """
        spent = problem.meter.cost
        sweep = state.sweep
        assert sweep is not None  # `start` makes one, and every step keeps it
        fold, *rest = sweep.blocks
        read = problem.predict(fold, state.assignment.with_labels(dict.fromkeys(fold)), rng=rng)
        # What leans one way behind one context leans the other way behind the next: each is calibrated by itself.
        read = normalize(read - problem.offset(read))
        averages = state.utility.log_probs.copy()
        averages[list(fold)] += (read - averages[list(fold)]) / sweep.number
        held = problem.last_read(state.assignment, dict(enumerate(averages)))
        # Labels that a user gave, or drawn by lot, stay until they have been read.
        unread = {i for block in rest for i in block} if sweep.number == 1 else set()
        rows = {i: row for i, row in enumerate(held.calibrated()) if i not in unread}
        assignment = most_confident(problem.constraints, state.assignment, rows)
        changed = assignment != state.assignment
        after = replace(
            state,
            assignment=assignment,
            utility=problem.last_read(assignment, dict(enumerate(averages))),
            iteration=state.iteration + 1,
            unchanged=0 if changed else state.unchanged + 1,
            sweep=replace(sweep, blocks=tuple(rest), changed=sweep.changed or changed),
        )
        event = relabelling_event(
            problem, state.assignment, after, kind="relabelled", batch=self.batch, spent_before=spent
        )
        if rest:
            return after, [event]
        after, events = self._close_round(problem, after, rng=rng)
        return after, [event, *events]

    def _close_round(
        self, problem: Problem, state: SearchState, *, rng: np.random.Generator
    ) -> tuple[SearchState, list[AnyEvent]]:
        """Begin the next round, or end with the exact utility of the labels."""
        sweep = state.sweep
        assert sweep is not None  # `start` makes one, and every step keeps it
        if sweep.changed and sweep.number < self.config.rounds:
            return replace(state, sweep=self._deal(problem, sweep.number + 1, rng=rng)), []
        spent = problem.meter.cost
        reason = "round budget spent" if sweep.changed else "nothing changed for a full round"
        after = replace(state, utility=problem.utility(state.assignment, rng=rng)).finish(reason)
        fields = event_fields(problem, after, batch=self.batch, spent_before=spent)
        return after, [Event(kind="evaluated", labels={}, accepted=True, **fields)]

    def _deal(self, problem: Problem, number: int, *, rng: np.random.Generator) -> Sweep:
        return Sweep(number, deal_folds(len(problem.dataset), self.config.folds, rng=rng), changed=False, votes=())


def deal_folds(n: int, folds: int, *, rng: np.random.Generator) -> tuple[tuple[int, ...], ...]:
    """Deal the first ``n`` positions into at most so many folds of equal size, by lot."""
    return tuple(tuple(sorted(part.tolist())) for part in np.array_split(rng.permutation(n), min(folds, n)))

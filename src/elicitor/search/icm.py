"""Internal Coherence Maximization by annealed search (Wen et al. 2025, algorithms 1 and 2).

Read `Icm.start`, then `Icm.step`: one iteration picks an example, asks the model which label all the others predict for
it, repairs what that contradicts, and keeps the result if utility rises or the temperature allows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from elicitor.config import IcmConfig
from elicitor.data import Assignment
from elicitor.objective import Problem, normalize
from elicitor.search.events import AnyEvent, Event, Proposal, Warned
from elicitor.search.first_labels import first_labels
from elicitor.search.repair import repair
from elicitor.search.schedule import accepts, temperature
from elicitor.search.state import SearchState, changes, event_fields, relabelling_event

STALL_WINDOW = 20
"""First labels over which the share of acceptances is watched."""
STALL_SHARE = 0.1
"""Growth counts as stalled when fewer than this share of the window was accepted, or more than this share of the examples is
left without a label when nothing changes any more."""


@dataclass(frozen=True, slots=True)
class Icm:
    """The paper's search; `step` is one iteration.

    Attributes:
        config: Seeds, cooling, budget.
        batch: Number of the batch, written into events.
    """

    config: IcmConfig
    batch: int = 0

    def start(self, problem: Problem, *, rng: np.random.Generator) -> tuple[SearchState, Event]:
        """Give K random examples a label each and repair what they contradict.

        The labels are balanced and random (the paper), the model's zero-shot answers, or those that a user gave.

        Args:
            problem: What to label.
            rng: Source of every draw.

        Returns:
            The first state and the event that describes it.
        """
        spent = problem.meter.cost
        n = len(problem.dataset)
        empty = Assignment.empty(n)
        assignment = empty.with_labels(first_labels(problem, self.config, rng=rng))
        utility = problem.utility(assignment, rng=rng)
        assignment, utility, _ = repair(problem, assignment, utility, rounds=self.config.repair_rounds, rng=rng)
        state = SearchState(assignment=assignment, utility=utility)
        return state, relabelling_event(problem, empty, state, kind="started", batch=self.batch, spent_before=spent)

    def budget(self, problem: Problem) -> int:
        """Iterations at most: as configured, or three for each example."""
        return self.config.iterations or 3 * len(problem.dataset)

    def step(
        self, problem: Problem, state: SearchState, *, rng: np.random.Generator
    ) -> tuple[SearchState, list[AnyEvent]]:
        """Run one iteration.

        The label that an already labelled example's peers predict was read when U(D) was last evaluated, so proposing
        for it costs nothing; an unlabelled example costs one prompt.

        Args:
            problem: What to label.
            state: Where the search stands, not finished.
            rng: Source of every draw.

        Returns:
            The next state and what happened.
        """
        spent = problem.meter.cost
        iteration = state.iteration + 1
        heat = temperature(iteration, self.config)
        weights = problem.constraints.proposal_weights(state.assignment, group_weight=self.config.group_weight)
        picked = int(rng.choice(len(problem.dataset), p=weights / weights.sum()))
        before = state.assignment[picked]
        proposed = self._predicted_label(problem, state, picked, rng=rng)

        current = utility = state.utility
        assignment, options_tried, accepted = state.assignment, 0, False
        if proposed != before:
            candidate = assignment.with_labels({picked: proposed})
            in_question = {picked}.union(*(c.members for c in problem.constraints.violated(candidate)))
            current = problem.comparable(current, assignment, last=sorted(in_question), rng=rng)
            utility = problem.utility(candidate, rng=rng, after=current)
            assignment, utility, options_tried = repair(
                problem, candidate, utility, rounds=self.config.repair_rounds, rng=rng, after=current
            )
            accepted = accepts(utility.total - current.total, heat, rng)
        changed = accepted and assignment != state.assignment

        after = replace(
            state,
            assignment=assignment if changed else state.assignment,
            utility=utility if changed else current,
            iteration=iteration,
            unchanged=0 if changed else state.unchanged + 1,
            verdicts=(*state.verdicts, accepted)[-STALL_WINDOW:] if before is None else state.verdicts,
        )
        names = problem.dataset.label_space.labels
        event = Proposal(
            kind="proposed",
            example=problem.dataset.examples[picked].id,
            label_before=None if before is None else names[before],
            label_proposed=names[proposed],
            labels=changes(problem, state.assignment, assignment),
            accepted=accepted,
            utility_proposed=utility.total if proposed != before else None,
            temperature=heat,
            options_tried=options_tried,
            **event_fields(problem, after, batch=self.batch, spent_before=spent),
        )
        after = self._judge_end(problem, after)
        after, warnings = self._watch_growth(problem, after)
        return after, [event, *warnings]

    def _predicted_label(self, problem: Problem, state: SearchState, picked: int, *, rng: np.random.Generator) -> int:
        if state.assignment[picked] is None:
            log_probs = problem.predict([picked], state.assignment, rng=rng, after=state.utility)[0]
        else:
            log_probs = state.utility.log_probs[state.utility.positions.index(picked)]
        return int(np.argmax(normalize(log_probs - state.utility.offset)))

    def _judge_end(self, problem: Problem, state: SearchState) -> SearchState:
        if state.unchanged >= len(problem.dataset):
            return state.finish("nothing changed for a full pass")
        if state.iteration >= self.budget(problem):
            return state.finish("iteration budget spent")
        return state

    def _watch_growth(self, problem: Problem, state: SearchState) -> tuple[SearchState, list[AnyEvent]]:
        window, left = state.verdicts, len(state.assignment.unlabelled)
        slow = len(window) == STALL_WINDOW and sum(window) < STALL_SHARE * len(window)
        over = state.unchanged >= len(problem.dataset) and left > STALL_SHARE * len(problem.dataset)
        if state.warned or not (slow or over):
            return state, []
        message = (
            f"growth has stalled: {sum(window)} of the last {len(window)} first labels were accepted and "
            f"{left} examples have none; "
        )
        if problem.objective.reduce == "sum":
            message += "set objective.reduce=mean: under sum every added example lowers the utility"
        else:
            message += "raise icm.initial_temperature, lower objective.alpha or set objective.calibration=batch"
        return replace(state, warned=True), [Warned(batch=self.batch, iteration=state.iteration, message=message)]

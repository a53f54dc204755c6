"""Internal Coherence Maximization by annealed search (Wen et al. 2025, algorithms 1 and 2).

Read `Icm.start`, then `Icm.step`: one iteration picks an example, asks the model which label all the others predict for
it, repairs what that contradicts, and keeps the result if utility rises or the temperature allows. With ``utility="sampled"``
examples are picked in blocks, everything outside a block is encoded once while its members are proposed for, and a random
part of the terms of U decides where it can; `elicitor.search.judging` is where both ways of judging are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from elicitor.data import Assignment
from elicitor.objective import Array, Problem, normalize
from elicitor.search.events import AnyEvent, Event, Proposal, Warned
from elicitor.search.first_labels import first_labels
from elicitor.search.judging import Judged, asked_about, exactly, fresh_order, on_a_sample
from elicitor.search.repair import repair
from elicitor.search.schedule import temperature
from elicitor.search.state import SearchState, Sweep, changes, event_fields, relabelling_event
from elicitor.search_settings import IcmConfig

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
        picked, state = self._pick(problem, state, rng=rng)
        before = state.assignment[picked]
        row = self._row(problem, state, picked, rng=rng)
        proposed = int(np.argmax(normalize(row - state.utility.offset)))
        judged = self._judge(problem, state, picked, proposed, row, heat=heat, rng=rng)
        changed = judged is not None and judged.accepted and judged.assignment != state.assignment
        utility = state.utility if judged is None else judged.utility if changed else judged.current

        after = replace(
            state,
            assignment=judged.assignment if judged and changed else state.assignment,
            utility=utility,
            iteration=iteration,
            unchanged=0 if changed else state.unchanged + 1,
            verdicts=(*state.verdicts, bool(judged and judged.accepted))[-STALL_WINDOW:]
            if before is None
            else state.verdicts,
        )
        names = problem.dataset.label_space.labels
        event = Proposal(
            kind="proposed",
            example=problem.dataset.examples[picked].id,
            label_before=None if before is None else names[before],
            label_proposed=names[proposed],
            labels=changes(problem, state.assignment, judged.assignment if judged else state.assignment),
            accepted=judged is not None and judged.accepted,
            utility_proposed=judged.utility.total if judged else None,
            temperature=heat,
            options_tried=judged.options_tried if judged else 0,
            terms_read=judged.terms_read if judged else None,
            terms=judged.terms if judged else None,
            agrees=judged.agrees if judged else None,
            **event_fields(problem, after, batch=self.batch, spent_before=spent),
        )
        after = self._judge_end(problem, after)
        if after.finished and self.config.utility == "sampled":
            after = replace(after, utility=problem.utility(after.assignment, rng=rng, after=after.utility))
        after, warnings = self._watch_growth(problem, after)
        return after, [event, *warnings]

    def _pick(self, problem: Problem, state: SearchState, *, rng: np.random.Generator) -> tuple[int, SearchState]:
        """The next example to propose for: by lot, or the next of a block that is drawn by the same lot."""
        weights = problem.constraints.proposal_weights(state.assignment, group_weight=self.config.group_weight)
        shares = weights / weights.sum()
        if self.config.utility == "exact":
            return int(rng.choice(len(problem.dataset), p=shares)), state
        order = state.utility.order
        if state.sweep is None or not state.sweep.blocks:
            order = None
            size = min(self.config.block_size, int(np.count_nonzero(shares)))
            drawn = rng.choice(len(problem.dataset), size=size, replace=False, p=shares)
            number = state.sweep.number + 1 if state.sweep else 1
            state = replace(state, sweep=Sweep(number, (tuple(drawn.tolist()),), changed=False, votes=()))
        assert state.sweep is not None  # made above
        ((picked, *rest),) = state.sweep.blocks
        # A proposal that was judged exactly has left another order behind.
        if order is None or {picked, *rest} & set(order.base):
            order = fresh_order(state.assignment, (picked, *rest), rng=rng)
        sweep = replace(state.sweep, blocks=(tuple(rest),) if rest else ())
        return picked, replace(state, sweep=sweep, utility=replace(state.utility, order=order))

    def _row(self, problem: Problem, state: SearchState, picked: int, *, rng: np.random.Generator) -> Array:
        """Distribution of an example given all labels but its own, shape (labels,)."""
        utility = state.utility
        if self.config.utility == "sampled" and utility.order is not None:
            return np.asarray(problem.ask([asked_about(utility.order, picked)], state.assignment)[0])
        if state.assignment[picked] is None:
            return np.asarray(problem.predict([picked], state.assignment, rng=rng, after=utility)[0])
        return np.asarray(utility.log_probs[utility.positions.index(picked)])

    def _judge(
        self,
        problem: Problem,
        state: SearchState,
        picked: int,
        proposed: int,
        row: Array,
        *,
        heat: float,
        rng: np.random.Generator,
    ) -> Judged | None:
        """What comes of a proposal; None where it is the label held."""
        held = state.assignment
        if proposed == held[picked]:
            return None
        options: Any = {"config": self.config, "heat": heat, "rng": rng}
        candidate = held.with_labels({picked: proposed})
        if self.config.utility == "exact":
            return exactly(problem, state.utility, held, candidate, picked, **options)
        others = [i for i in held.labelled if i != picked]
        if others and not problem.constraints.violated(candidate):
            return on_a_sample(problem, state.utility, held, picked, proposed, row, **options)
        current = problem.utility(held, rng=rng, after=state.utility)
        return exactly(problem, current, held, candidate, picked, **options)

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

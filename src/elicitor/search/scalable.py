"""Fold-wise fine-tuning and relabelling: ICM for more examples than a context holds (Wen et al. 2025, version 2, Alg. 3 and 4).

A model fine-tuned on all folds but one relabels that one zero-shot, group by group; then the next fold. So no label of an
example, nor of its group, has taught the model that judges it, and cost grows with the data alone. This is leave-one-out
prediction at the grain of folds, with weights in place of demonstrations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import numpy as np

from elicitor.backends.base import Backend, Cost
from elicitor.data import Assignment, Dataset
from elicitor.errors import DataError
from elicitor.objective import Problem, normalize
from elicitor.plan import Context
from elicitor.search.events import AnyEvent, Event
from elicitor.search.first_labels import start_from_everything
from elicitor.search.repair import most_confident
from elicitor.search.state import SearchState, Sweep, relabelling_event
from elicitor.search_settings import ScalableConfig


@dataclass(frozen=True, slots=True)
class Tuned:
    """A model fine-tuned on labels.

    Attributes:
        backend: The model.
        cost: Tokens and seconds of its training.
    """

    backend: Backend
    cost: Cost


Tune = Callable[[Mapping[int, int]], AbstractContextManager[Tuned]]
"""Fine-tunes the pretrained model on labels by position; the result lives as long as the context."""


@dataclass(frozen=True, slots=True)
class Scalable:
    """Rounds of folds; `step` relabels one fold.

    Attributes:
        config: Start, folds and rounds.
        tune: Fine-tunes the model.
        batch: Number of the batch, written into events.
    """

    config: ScalableConfig
    tune: Tune
    batch: int = 0

    def start(self, problem: Problem, *, rng: np.random.Generator) -> tuple[SearchState, Event]:
        """Label every example zero-shot, at random, or as a user gave them, and deal the first folds.

        Args:
            problem: What to label.
            rng: Source of every draw.

        Returns:
            The first state and the event that describes it. After random labels P(D) is zero: nothing has been read yet.

        Raises:
            DataError: If all examples are of one group.
        """
        spent = problem.meter.cost
        empty = Assignment.empty(len(problem.dataset))
        assignment, utility = start_from_everything(problem, self.config.start, rng=rng)
        state = SearchState(
            assignment=assignment,
            utility=utility,
            sweep=self._deal(problem.dataset, 1, rng=rng),
        )
        return state, relabelling_event(problem, empty, state, kind="started", batch=self.batch, spent_before=spent)

    def budget(self, problem: Problem) -> int:
        """Folds at most, all rounds."""
        return self.config.rounds * min(self.config.folds, len(problem.dataset.groups()))

    def step(
        self, problem: Problem, state: SearchState, *, rng: np.random.Generator
    ) -> tuple[SearchState, list[AnyEvent]]:
        """Fine-tune on all other folds, relabel this one zero-shot, then bend each of its groups to its most confident label.

        Calibration, where it is asked for, is over the fold: every fold is read by a model of its own.

        Args:
            problem: What to label.
            state: Where the search stands, not finished.
            rng: Deals the folds of the next round.

        Returns:
            The next state and what happened.
        """
        spent = problem.meter.cost
        sweep = state.sweep
        assert sweep is not None  # `start` makes one, and every step keeps it
        fold, *rest = sweep.blocks
        held_out = set(fold)
        known = {i: y for i, y in enumerate(state.assignment.labels) if y is not None and i not in held_out}
        with self.tune(known) as tuned:
            problem.meter.cost += tuned.cost
            contexts = [Context(i, ()) for i in fold]
            empty = Assignment.empty(len(problem.dataset))
            log_probs = replace(problem, backend=tuned.backend).ask(contexts, empty, keep=False)
        rows = dict(zip(fold, normalize(log_probs - problem.offset(log_probs)), strict=True))
        assignment = most_confident(problem.constraints, state.assignment, rows, keep_surest=True)
        changed = assignment != state.assignment
        read = dict(zip(state.utility.positions, state.utility.log_probs, strict=True)) | rows
        after = replace(
            state,
            assignment=assignment,
            utility=problem.last_read(assignment, read),
            iteration=state.iteration + 1,
            unchanged=0 if changed else state.unchanged + 1,
            sweep=replace(sweep, blocks=tuple(rest), changed=sweep.changed or changed),
        )
        event = relabelling_event(
            problem, state.assignment, after, kind="relabelled", batch=self.batch, spent_before=spent
        )
        if not rest:
            if not (sweep.changed or changed):
                after = after.finish("nothing changed for a full pass")
            elif sweep.number >= self.config.rounds:
                after = after.finish("round budget spent")
            else:
                after = replace(after, sweep=self._deal(problem.dataset, sweep.number + 1, rng=rng))
        return after, [event]

    def _deal(self, dataset: Dataset, number: int, *, rng: np.random.Generator) -> Sweep:
        return Sweep(number, deal_folds(dataset, self.config.folds, rng=rng), changed=False, votes=())


def check_groups(dataset: Dataset) -> Sequence[tuple[int, ...]]:
    """The groups of a data set that can be dealt into folds.

    Args:
        dataset: The examples.

    Raises:
        DataError: If all examples are of one group.
    """
    groups = dataset.groups()
    if len(groups) < 2:
        raise DataError(
            f"all {len(dataset)} examples are of one group, so none of it can be learnt from the rest",
            fix="use another search, or give each question a group_id of its own",
        )
    return groups


def deal_folds(dataset: Dataset, folds: int, *, rng: np.random.Generator) -> tuple[tuple[int, ...], ...]:
    """Deal whole groups into folds of about equal size, by lot.

    Args:
        dataset: The examples.
        folds: Folds at most; no more than there are groups.
        rng: Deals.

    Returns:
        Positions of each fold, ascending.

    Raises:
        DataError: See `check_groups`.
    """
    groups = check_groups(dataset)
    dealt: list[list[int]] = [[] for _ in range(min(folds, len(groups)))]
    # Large groups first, each into the smallest fold, so that folds differ by a group at most; chance decides among equals.
    order = sorted(rng.permutation(len(groups)).tolist(), key=lambda number: -len(groups[number]))
    for number in order:
        min(dealt, key=len).extend(groups[number])
    return tuple(tuple(sorted(fold)) for fold in dealt)

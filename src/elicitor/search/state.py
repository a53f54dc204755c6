"""Where a search stands: enough to go on from it as if it had never stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from elicitor.backends.base import Cost
from elicitor.data import Assignment
from elicitor.objective import Problem, Utility
from elicitor.plan import TreeOrder
from elicitor.search.events import Event


@dataclass(frozen=True, slots=True)
class Sweep:
    """Where a search that goes block by block stands between two of them.

    Attributes:
        number: Sweep in work, from 1.
        blocks: Positions of the blocks that are left of it, each whole groups.
        changed: Whether a label has changed in this sweep.
        votes: Under `gibbs`, how often each label was held at the end of a sweep that votes, by position.
    """

    number: int
    blocks: tuple[tuple[int, ...], ...]
    changed: bool
    votes: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class SearchState:
    """State between two steps of any search.

    Attributes:
        assignment: Labels held.
        utility: U of ``assignment``, as evaluated when it was accepted; under `gibbs` and `ensemble`, until the search is
            over, and `scalable` put together from each example's last or average reading.
        iteration: Iterations (or rounds) done.
        unchanged: Iterations since a label last changed.
        verdicts: Newest outcomes of first labels: whether each proposal for an unlabelled example was accepted.
        warned: Whether stalled growth has been reported.
        finished: Why the search is over, or None while it goes on.
        sweep: Further state of `gibbs`, `ensemble` and `scalable`.
    """

    assignment: Assignment
    utility: Utility
    iteration: int = 0
    unchanged: int = 0
    verdicts: tuple[bool, ...] = ()
    warned: bool = False
    finished: str | None = None
    sweep: Sweep | None = None

    def to_json(self) -> dict[str, Any]:
        """The state as JSON values; floats keep every bit."""
        utility = self.utility
        return {
            "labels": list(self.assignment.labels),
            "utility": {
                "total": utility.total,
                "predictability": utility.predictability,
                "inconsistency": utility.inconsistency,
                "positions": list(utility.positions),
                "log_probs": utility.log_probs.tolist(),
                "offset": utility.offset.tolist(),
                "labels": list(utility.labels),
                "order": None if utility.order is None else asdict(utility.order),
            },
            "iteration": self.iteration,
            "unchanged": self.unchanged,
            "verdicts": list(self.verdicts),
            "warned": self.warned,
            "finished": self.finished,
            "sweep": None if self.sweep is None else asdict(self.sweep),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> SearchState:
        """Rebuild a state from `to_json`."""
        utility = values["utility"]
        order, sweep = utility["order"], values["sweep"]
        offset = np.asarray(utility["offset"], dtype=np.float64)
        log_probs = np.asarray(utility["log_probs"], dtype=np.float64).reshape(-1, len(offset))
        return cls(
            assignment=Assignment(tuple(values["labels"])),
            utility=Utility(
                total=utility["total"],
                predictability=utility["predictability"],
                inconsistency=utility["inconsistency"],
                positions=tuple(utility["positions"]),
                log_probs=log_probs,
                offset=offset,
                labels=tuple(utility["labels"]),
                order=order and TreeOrder(tuple(order["base"]), tuple(order["tail"])),
            ),
            iteration=values["iteration"],
            unchanged=values["unchanged"],
            verdicts=tuple(values["verdicts"]),
            warned=values["warned"],
            finished=values["finished"],
            sweep=sweep
            and Sweep(
                number=sweep["number"],
                blocks=tuple(map(tuple, sweep["blocks"])),
                changed=sweep["changed"],
                votes=tuple(map(tuple, sweep["votes"])),
            ),
        )

    def finish(self, reason: str) -> SearchState:
        """The same state, marked as over."""
        return replace(self, finished=reason)


def changes(problem: Problem, before: Assignment, after: Assignment) -> dict[str, str | None]:
    """Labels that differ between two assignments, by example id and label name."""
    names = problem.dataset.label_space.labels
    return {
        example.id: None if new is None else names[new]
        for example, old, new in zip(problem.dataset.examples, before.labels, after.labels, strict=True)
        if old != new
    }


def event_fields(problem: Problem, state: SearchState, *, batch: int, spent_before: Cost) -> dict[str, Any]:
    """The fields that every `Event` shares, read from the state after it and the cost before it."""
    spent = problem.meter.cost - spent_before
    return {
        "batch": batch,
        "iteration": state.iteration,
        "n_labelled": len(state.assignment.labelled),
        "utility": state.utility.total,
        "predictability": state.utility.predictability,
        "inconsistency": state.utility.inconsistency,
        "tokens_computed": spent.tokens_computed,
        "tokens_reused": spent.tokens_reused,
        "seconds": spent.seconds,
    }


def relabelling_event(
    problem: Problem, before: Assignment, state: SearchState, *, kind: Any, batch: int, spent_before: Cost
) -> Event:
    """An event that takes the assignment from ``before`` to the state's."""
    return Event(
        kind=kind,
        labels=changes(problem, before, state.assignment),
        accepted=True,
        **event_fields(problem, state, batch=batch, spent_before=spent_before),
    )

"""Searches for coherent labels. Nothing here knows files, torch or gold labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from elicitor.config import RunConfig
from elicitor.objective import Problem, log_odds, normalize
from elicitor.search.bootstrap import Bootstrap
from elicitor.search.ensemble import Ensemble
from elicitor.search.events import AnyEvent, Event
from elicitor.search.gibbs import Gibbs
from elicitor.search.icm import Icm
from elicitor.search.repair import most_confident
from elicitor.search.scalable import Scalable, Tune
from elicitor.search.state import SearchState, relabelling_event


class Search(Protocol):
    """A search: a start, then steps until the state says it is finished."""

    def start(self, problem: Problem, *, rng: np.random.Generator) -> tuple[SearchState, Event]:
        """First state, and the event that describes it."""
        ...

    def step(
        self, problem: Problem, state: SearchState, *, rng: np.random.Generator
    ) -> tuple[SearchState, list[AnyEvent]]:
        """Next state, and what happened."""
        ...

    def budget(self, problem: Problem) -> int:
        """Steps at most."""
        ...


def make_search(config: RunConfig, *, batch: int, tune: Tune) -> Search:
    """The search that the settings name; ``tune`` fine-tunes the model, for a search that does."""
    match config.search:
        case "icm":
            return Icm(config.icm, batch)
        case "gibbs":
            return Gibbs(config.gibbs, batch)
        case "bootstrap":
            return Bootstrap(config.bootstrap, batch)
        case "ensemble":
            return Ensemble(config.ensemble, batch)
        case "scalable":
            return Scalable(config.scalable, tune, batch)


@dataclass(frozen=True, slots=True)
class FoundLabel:
    """One line of ``labels.jsonl``.

    Attributes:
        id: Example id.
        label: Label name.
        confidence: Probability of the label over the label set, given every other labelled example, in [0, 1]; under `gibbs`
            the share of votes for it, under `scalable` given the model tuned on the other folds.
        log_odds: Log-odds of the label against all others, in nats.
        group_id: Group of the example.
        filled: True if the search ended without a label and it was given by argmax in the final context.
        batch: Number of the batch it was searched in.
    """

    id: str
    label: str
    confidence: float
    log_odds: float
    group_id: str
    filled: bool
    batch: int


def finish(
    problem: Problem, state: SearchState, *, batch: int, rng: np.random.Generator
) -> tuple[SearchState, list[FoundLabel], list[AnyEvent]]:
    """Label what the search left unlabelled, and read every label's confidence.

    Args:
        problem: What was labelled.
        state: Finished state.
        batch: Number of the batch.
        rng: Orders the demonstrations.

    Returns:
        The state with every example labelled, one label an example in the order of the data set, and the event of the
        filling if there was any.
    """
    spent = problem.meter.cost
    missing = state.assignment.unlabelled
    events: list[AnyEvent] = []
    if missing:
        log_probs = problem.predict(missing, state.assignment, rng=rng, after=state.utility)
        # The batch that calibration speaks of is now everything: what was labelled and what is being filled in.
        offset = problem.offset(np.concatenate([state.utility.log_probs, log_probs]))
        predicted = normalize(log_probs - offset)
        assignment = most_confident(problem.constraints, state.assignment, dict(zip(missing, predicted, strict=True)))
        full = replace(state, assignment=assignment, utility=problem.utility(assignment, rng=rng))
        events.append(
            relabelling_event(problem, state.assignment, full, kind="filled", batch=batch, spent_before=spent)
        )
        state = full
    log_probs = state.utility.calibrated()
    names = problem.dataset.label_space.labels
    found = []
    for position, example in enumerate(problem.dataset.examples):
        label = state.assignment[position]
        assert label is not None  # every position was either searched or filled above
        row = log_probs[position]
        votes = state.sweep.votes[position] if state.sweep and state.sweep.votes else None
        found.append(
            FoundLabel(
                id=example.id,
                label=names[label],
                confidence=votes[label] / sum(votes) if votes else float(np.exp(row[label])),
                log_odds=float(log_odds(row)[label]),
                group_id=example.group_id,
                filled=position in missing,
                batch=batch,
            )
        )
    return state, found, events

"""The search of one batch, from where it stands to its labels: the unit that is resumed, retried and sent elsewhere.

A `BatchJob` holds everything but the model, a `BatchResult` everything that is written about the batch. Neither knows the
run folder, so it makes no difference in which process, or on which machine, a batch is searched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from elicitor.backends.base import Backend, Cost, Progress
from elicitor.config import RunConfig
from elicitor.consistency import Constraints
from elicitor.data import Dataset
from elicitor.errors import DataError
from elicitor.objective import Meter, Problem
from elicitor.prompts import PromptEncoder
from elicitor.scoring_check import check_mass, check_scoring
from elicitor.search import finish, make_search
from elicitor.search.events import AnyEvent
from elicitor.search.scalable import Tuned
from elicitor.search.state import SearchState
from elicitor.tasks import Task


@dataclass(frozen=True, slots=True)
class Moment:
    """Where the search of a batch stands, as JSON values.

    Attributes:
        state: The search's state, or None before the batch has begun.
        rng: State of the batch's generator.
        meter: Cost of the batch so far.
    """

    state: dict[str, Any] | None = None
    rng: dict[str, Any] | None = None
    meter: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class BatchJob:
    """One batch to search, the model apart.

    Attributes:
        config: Resolved settings of the run.
        task: What is asked of each example.
        batch: Number of the batch in the run.
        dataset: Its examples.
        start_labels: Label index by example id that the search may start with; ids of other batches are passed over.
        begun: Where an earlier process left it.
        run: Number of the run, where several are searched together.
    """

    config: RunConfig
    task: Task
    batch: int
    dataset: Dataset
    start_labels: Mapping[str, int]
    begun: Moment = Moment()
    run: int = 0

    def problem(self, backend: Backend, *, meter: Meter, on_progress: Progress | None = None) -> Problem:
        """The labelling problem of this batch."""
        examples = self.dataset.examples
        return Problem(
            dataset=self.dataset,
            encoder=PromptEncoder(backend.tokenizer, self.task, self.dataset),
            constraints=Constraints.from_dataset(self.dataset, self.task.constraint if self.config.consistency else ()),
            backend=backend,
            objective=self.config.objective,
            plan=self.config.plan,
            meter=meter,
            on_progress=on_progress,
            start_labels={i: self.start_labels[e.id] for i, e in enumerate(examples) if e.id in self.start_labels},
        )

    def generator(self) -> np.random.Generator:
        """Source of the batch's random choices; batches do not depend on one another."""
        return np.random.default_rng([self.config.seed, self.batch])


@dataclass(frozen=True, slots=True)
class BatchStep:
    """One step of a batch's search.

    Attributes:
        state: Where the search stands.
        events: What happened.
        budget: Steps at most.
        moment: What going on from here takes.
    """

    state: SearchState
    events: list[AnyEvent]
    budget: int
    moment: Moment


@dataclass(frozen=True, slots=True)
class BatchResult:
    """A finished batch.

    Attributes:
        batch: Its number.
        last: The last step, which nobody has been told of: every example is labelled.
        labels: Lines of ``labels.jsonl``, in the order of the data.
        metrics: What ``metrics.json`` says of the batch, its cost apart.
        run: Number of its run, as in the job.
    """

    batch: int
    last: BatchStep
    labels: list[dict[str, Any]]
    metrics: dict[str, Any]
    run: int = 0

    @property
    def meter(self) -> Meter:
        """What the batch has cost."""
        return meter_from_json(self.last.moment.meter)


def search_batch(
    job: BatchJob,
    backend: Backend,
    *,
    on_step: Callable[[BatchStep], None],
    on_progress: Progress | None = None,
) -> BatchResult:
    """Search one batch from where it stands to its labels.

    Args:
        job: The batch.
        backend: The model. What it kept for other batches is dropped: cost must not depend on what was done before.
        on_step: Called after each step, the last one left out, whose events are in the result.
        on_progress: Called after each forward pass with its tokens.

    Returns:
        The finished batch.

    Raises:
        ElicitorError: If a context does not fit or the model fails.
    """
    backend.forget()
    meter = meter_from_json(job.begun.meter)
    problem = job.problem(backend, meter=meter, on_progress=on_progress)
    search = make_search(job.config, batch=job.batch, tune=lambda labels: _tuned(job, labels, on_progress))
    rng = job.generator()

    def step_of(state: SearchState, events: list[AnyEvent]) -> BatchStep:
        moment = Moment(state.to_json(), dict(rng.bit_generator.state), asdict(meter))
        return BatchStep(state, events, search.budget(problem), moment)

    if job.begun.state is None or job.begun.rng is None:
        checked = check_scoring(problem, batch=job.batch)
        state, started = search.start(problem, rng=rng)
        checked += check_mass(meter, since=0, batch=job.batch, iteration=state.iteration)
        on_step(step_of(state, [started, *checked]))
    else:
        try:
            state = SearchState.from_json(job.begun.state)
            rng.bit_generator.state = job.begun.rng
        except (AttributeError, LookupError, OverflowError, TypeError, ValueError) as error:
            raise DataError(
                "the checkpoint holds no state of this search", fix="search again in another --output-dir"
            ) from error
    while state.finished is None:
        since = meter.cost.prompts
        state, events = search.step(problem, state, rng=rng)
        events += check_mass(meter, since=since, batch=job.batch, iteration=state.iteration)
        on_step(step_of(state, events))
    since = meter.cost.prompts
    final, found, events = finish(problem, state, batch=job.batch, rng=rng)
    events += check_mass(meter, since=since, batch=job.batch, iteration=state.iteration, at_end=True)
    return BatchResult(
        batch=job.batch,
        last=step_of(final, events),
        labels=[asdict(item) for item in found],
        metrics={
            "batch": job.batch,
            "finished": state.finished,
            "iterations": state.iteration,
            "searched": len(state.assignment.labelled),
            "filled": len(state.assignment.unlabelled),
            "utility": final.utility.total,
            "predictability": final.utility.predictability,
            "inconsistency": final.utility.inconsistency,
        },
        run=job.run,
    )


def _tuned(job: BatchJob, labels: Mapping[int, int], on_progress: Progress | None) -> AbstractContextManager[Tuned]:
    # Only one search trains, and what trains takes seconds to import.
    from elicitor.train.fine_tuned import fine_tuned

    return fine_tuned(job, labels, on_progress=on_progress)


def meter_from_json(values: Mapping[str, Any] | None) -> Meter:
    """Rebuild a meter from its JSON values; an empty one from none."""
    return Meter(**{**values, "cost": Cost(**values["cost"])}) if values else Meter()

"""What a run reads before it has a model: settings, task, examples and the labels that a search may start with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from elicitor.batch_search import BatchJob, Moment
from elicitor.batching import Batches, fit_batches
from elicitor.checkpoint import Checkpoint
from elicitor.config import RunConfig
from elicitor.consistency import check_enumerable
from elicitor.data import Dataset, cell_text, load_dataset
from elicitor.errors import ConfigError, DataError
from elicitor.manifest import REVIEW_OF, Supervision
from elicitor.prompts import Sizes
from elicitor.readers import iter_rows as iter_data_rows
from elicitor.search.scalable import check_groups
from elicitor.tasks import Task, load_task, resolve_task
from elicitor.tracking import tracker_names


@dataclass(frozen=True, slots=True)
class Inputs:
    """A run's inputs, the model apart, loaded and checked.

    Attributes:
        config: Resolved settings.
        task: What is asked of each example.
        dataset: Unlabelled examples, in a temporary file.
        start_labels: Label index by example id that the search may start with, from the file that the settings name.
        supervision: How many those are and where they come from, for the manifest.
    """

    config: RunConfig
    task: Task
    dataset: Dataset
    start_labels: Mapping[str, int]
    supervision: Supervision = "none"

    def batches(self, sizes: Sizes, *, max_context_tokens: int) -> Batches:
        """Which examples are searched together: all that are trained on, or `elicitor.batching.fit_batches`.

        Args:
            sizes: Lengths of prompts, in tokens.
            max_context_tokens: Tokens that the model's window holds.

        Returns:
            Positions of each batch.

        Raises:
            ContextOverflowError: If an example or a group does not fit the window, or the policy forbids smaller batches.
            DataError: If search ``scalable`` finds all examples in one group.
        """
        config = self.config
        if config.search == "scalable":
            check_groups(self.dataset)
            return (tuple(range(len(self.dataset))),)
        return fit_batches(
            self.dataset,
            sizes,
            batch_size=config.batch_size,
            max_context_tokens=max_context_tokens,
            policy=config.context_policy,
            max_demonstrations=config.plan.max_demonstrations if config.plan.kind == "sampled" else None,
            rng=np.random.default_rng(config.seed),
        )

    def job(self, batch: int, positions: Sequence[int], *, checkpoint: Checkpoint | None = None) -> BatchJob:
        """One batch to search, from where the checkpoint left it.

        Args:
            batch: Its number.
            positions: Its examples.
            checkpoint: State of the run, if it goes on; taken where it is about this batch.

        Returns:
            What a search of the batch needs but the model.
        """
        begun = Moment()
        if checkpoint and checkpoint.batch == batch:
            begun = Moment(checkpoint.state, checkpoint.rng, checkpoint.meter)
        return BatchJob(self.config, self.task, batch, self.dataset.subset(positions), self.start_labels, begun)


def task_of(config: RunConfig) -> Task:
    """The task of a run, with the verbalizers that its settings name.

    Args:
        config: Settings of the run.

    Returns:
        The task.

    Raises:
        TaskError: If the task is unknown or the verbalizers do not fit its labels.
    """
    return load_task(config.task).with_verbalizers(config.verbalizers)


def read_inputs(config: RunConfig) -> Inputs:
    """Load and check everything a run needs but the model.

    Args:
        config: Settings of the run; ``task`` may still be a name or a file.

    Returns:
        The inputs, with the task's declaration in their settings.

    Raises:
        ElicitorError: If settings, data or task cannot be used.
    """
    config = config.model_copy(update={"task": resolve_task(config.task)})
    if config.search == "scalable":
        from elicitor.train.fine_tuned import scalable_settings

        scalable_settings(config)
    tracker_names(config.report_to)
    task = task_of(config)
    dataset = load_dataset(config.data, task, limit=config.limit, in_memory=False)
    prior = config.objective.class_prior
    if prior is not None and len(prior) != len(dataset.label_space):
        raise ConfigError(
            f"objective.class_prior has {len(prior)} shares for {len(dataset.label_space)} labels",
            fix=f"give one share for each of {', '.join(dataset.label_space.labels)}",
        )
    check_enumerable(dataset, task.constraint if config.consistency else ())
    labels, supervision = _start_labels(config, dataset)
    return Inputs(config, task, dataset, labels, supervision)


def _start_labels(config: RunConfig, dataset: Dataset) -> tuple[dict[str, int], Supervision]:
    """Labels that the settings give the search to start with, by example id, and their source; other ids are refused."""
    if config.start_labels is None:
        return {}, "none"
    known = {example.id for example in dataset.examples}
    labels: dict[str, int] = {}
    reviewed = None
    for row in iter_data_rows(config.start_labels):
        name, label = cell_text(row, "id", needed_by="start_labels"), row.values.get("label")
        if name not in known:
            raise DataError(f"{row.location}: id {name!r} is not in {dataset.source}", fix="give ids of the data")
        if name in labels:
            raise DataError(f"{row.location}: id {name!r} has a label already", fix="give each example one label")
        # Names of labels may be numbers or truth values in JSON.
        if str(label) not in dataset.label_space.labels:
            raise DataError(
                f"{row.location} column 'label': {label!r} is none of {', '.join(dataset.label_space.labels)}",
                fix="write one of the task's labels",
            )
        labels[name] = dataset.label_space.index(str(label))
        reviewed = row.values.get(REVIEW_OF)
    return labels, {"labels": len(labels), "file": config.start_labels, REVIEW_OF: reviewed}

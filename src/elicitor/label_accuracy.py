"""Found labels against gold, at the end of a search and along its way. Read by evaluation alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from elicitor.data import Dataset
from elicitor.files import iter_rows
from elicitor.labelling import Run
from elicitor.metrics import Estimate, accuracy
from elicitor.runs import EVENTS
from elicitor.search.events import replay
from elicitor.shapes import EventRow
from elicitor.tasks import Task


@dataclass(frozen=True, slots=True)
class LabelAccuracy:
    """Agreement of the found labels with gold.

    Attributes:
        estimate: At the end of the runs, over the examples that have gold.
        curves: For each run (iteration, labelled examples, accuracy) after each change of the assignment, over those
            labelled then.
    """

    estimate: Estimate
    curves: list[list[tuple[int, int, float]]]


def label_accuracy(
    runs: Sequence[Run],
    train: Dataset,
    found: Sequence[Mapping[int, int]],
    golden: Mapping[int, int],
    task: Task,
    *,
    rng: np.random.Generator,
) -> LabelAccuracy:
    """Compare found labels with gold.

    Args:
        runs: The runs, one a seed.
        train: What they labelled.
        found: Found label by position, of each run.
        golden: Gold label by position, where there is one; at least one.
        task: Says which examples move together.
        rng: Draws the resamples.

    Returns:
        The agreement, with its way over the iterations of each run.
    """
    positions = sorted(golden)
    correct = np.asarray([[labels[i] == golden[i] for i in positions] for labels in found])
    clusters = [task.cluster(train.examples[i]) for i in positions]
    names = train.label_space.labels
    truth = {train.examples[i].id: names[golden[i]] for i in positions}
    return LabelAccuracy(
        estimate=accuracy(correct, clusters, rng=rng), curves=[_accuracy_curve(run.path, truth) for run in runs]
    )


def _accuracy_curve(folder: Path, truth: Mapping[str, str]) -> list[tuple[int, int, float]]:
    curve = []
    for event, held in replay(iter_rows(folder / EVENTS, shape=EventRow)):
        known = held.keys() & truth.keys()
        if event["accepted"] and event["labels"] and known:
            share = sum(held[k] == truth[k] for k in known) / len(known)
            curve.append((event["iteration"], len(held), share))
    return curve

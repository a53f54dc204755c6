"""Where a search begins: labels of the first few examples, shared by the searches that grow from them."""

from __future__ import annotations

import numpy as np

from elicitor.config import StartConfig
from elicitor.data import Assignment
from elicitor.objective import Problem, normalize


def first_labels(problem: Problem, config: StartConfig, *, rng: np.random.Generator) -> dict[int, int]:
    """Label the first K examples: balanced and random (the paper), zero-shot, or as a user gave them.

    Args:
        problem: What to label.
        config: Number of first examples, and where their labels come from.
        rng: Draws examples and labels.

    Returns:
        Label by position; which positions they are does not depend on where their labels come from.
    """
    n_labels = len(problem.dataset.label_space)
    order = [int(i) for i in rng.permutation(len(problem.dataset))]
    if problem.start_labels:
        given = [i for i in order if i in problem.start_labels]
        return {i: problem.start_labels[i] for i in given[: config.num_seed_examples]}
    seeds = order[: config.num_seed_examples]
    # Equal counts of each label, so that no label starts with the majority; which example gets which is random.
    labels = rng.permutation(np.arange(len(seeds)) % n_labels)
    if config.start == "zero_shot":
        log_probs = problem.predict(seeds, Assignment.empty(len(problem.dataset)), rng=rng)
        labels = normalize(log_probs - problem.offset(log_probs)).argmax(axis=1)
    return {i: int(y) for i, y in zip(seeds, labels, strict=True)}

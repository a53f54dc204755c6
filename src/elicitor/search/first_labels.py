"""Where a search begins: labels of the first few examples, shared by the searches that grow from them."""

from __future__ import annotations

from typing import Literal

import numpy as np

from elicitor.data import Assignment
from elicitor.objective import Array, Problem, Utility, batch_offset, normalize
from elicitor.search.repair import most_confident
from elicitor.search_settings import StartConfig


def first_count(problem: Problem, config: StartConfig) -> int:
    """Number of examples that `first_labels` labels."""
    if not problem.start_labels:
        return min(config.num_seed_examples, len(problem.dataset))
    given = len(problem.start_labels)
    return given if config.all_start_labels else min(config.num_seed_examples, given)


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
        return {i: problem.start_labels[i] for i in given[: first_count(problem, config)]}
    seeds = order[: first_count(problem, config)]
    # Equal counts of each label, so that no label starts with the majority; which example gets which is random.
    labels = rng.permutation(np.arange(len(seeds)) % n_labels)
    if config.start == "zero_shot":
        log_probs = problem.predict(seeds, Assignment.empty(len(problem.dataset)), rng=rng)
        labels = normalize(log_probs - problem.offset(log_probs)).argmax(axis=1)
    return {i: int(y) for i, y in zip(seeds, labels, strict=True)}


def start_from_everything(
    problem: Problem, start: Literal["zero_shot", "random"], *, rng: np.random.Generator
) -> tuple[Assignment, Utility]:
    """Label every example, those apart zero-shot or at random for which a user gave a label.

    Args:
        problem: What to label.
        start: Where the other labels come from.
        rng: Draws labels.

    Returns:
        The labels, and U as far as it is known from their zero-shot distributions; after random labels P(D) is zero, because
        nothing has been read yet.
    """
    labelled, log_probs = label_everything(problem, start, rng=rng)
    assignment = labelled.with_labels(problem.start_labels)
    if start == "random":
        log_probs = normalize(np.zeros_like(log_probs))
    return assignment, problem.last_read(assignment, dict(enumerate(log_probs)))


def label_everything(
    problem: Problem, start: Literal["zero_shot", "random"], *, rng: np.random.Generator
) -> tuple[Assignment, Array]:
    """Label every example zero-shot or at random, consistent within each group.

    Args:
        problem: What to label.
        start: Where the labels come from.
        rng: Draws labels.

    Returns:
        The labels, and the distributions that they are read from, shape (examples, labels), calibrated and normalised;
        those of random labels say no more than which one was drawn.
    """
    n = len(problem.dataset)
    n_labels = len(problem.dataset.label_space)
    empty = Assignment.empty(n)
    if start == "zero_shot":
        log_probs = problem.predict(range(n), empty, rng=rng)
        if problem.objective.calibration == "batch":
            log_probs = normalize(log_probs - batch_offset(log_probs, problem.objective.class_prior))
    else:
        # One label far above the rest, by lot: the repair then bends as few of the drawn labels as logic demands.
        drawn = rng.permutation(np.arange(n) % n_labels)
        log_probs = normalize(10.0 * np.eye(n_labels)[drawn])
    return most_confident(problem.constraints, empty, dict(enumerate(log_probs))), log_probs

"""Tokens of the prompts that a search may ask, before it has any labels: those that stand in are dealt in turn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from elicitor.backends.base import Prompt
from elicitor.backends.trie import token_cost, unshared_tokens
from elicitor.data import Assignment
from elicitor.objective import Problem
from elicitor.plan import Context, make_plan


def evaluation_tokens(problem: Problem, sizes: Sequence[int], *, rng: np.random.Generator) -> np.ndarray:
    """Prompt tokens of one U(D) of each size, counted on the first examples; shape (sizes, 2), see `both_counts`."""
    return np.asarray([both_counts(plan_prompts(problem, size, rng=rng)) for size in sizes])


def rest_tokens(problem: Problem, known: int) -> np.ndarray:
    """Prompt tokens of asking about every other example behind the first ones; shape (2,), see `both_counts`."""
    spine, labelled = tuple(range(known)), first_labelled(problem, known)
    rest = range(known, len(problem.dataset))
    return both_counts([problem.encoder.prompt(Context(i, spine), labelled) for i in rest])


def both_counts(prompts: Sequence[Prompt]) -> np.ndarray:
    """Tokens computed with every prefix shared, and with none; shape (2,)."""
    return np.asarray([token_cost(prompts).tokens_computed, unshared_tokens(prompts)])


def plan_prompts(problem: Problem, size: int, *, rng: np.random.Generator) -> list[Prompt]:
    """Prompts of one U(D) of the first examples."""
    plan = problem.plan
    options = {"n_folds": plan.folds, "max_demonstrations": plan.max_demonstrations}
    assignment = first_labelled(problem, size)
    return [problem.encoder.prompt(c, assignment) for c in make_plan(plan.kind, range(size), rng, **options)]


def proposal_tokens(problem: Problem, sizes: Sequence[int]) -> list[int]:
    """Prompt tokens of asking about one example after each number of demonstrations."""
    shots = [min(s, problem.plan.max_demonstrations) if problem.plan.kind == "sampled" else s for s in sizes]
    last = len(problem.dataset) - 1
    return [
        len(problem.encoder.prompt(Context(last, tuple(range(min(shot, last)))), first_labelled(problem, last)))
        for shot in shots
    ]


def first_labelled(problem: Problem, size: int) -> Assignment:
    """Labels in turn for so many of the first examples."""
    empty = Assignment.empty(len(problem.dataset))
    n_labels = len(problem.dataset.label_space)
    return empty.with_labels({i: i % n_labels for i in range(size)})

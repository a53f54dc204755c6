"""Context plans: which demonstrations stand before which query, and in which order.

A plan is a pure function of example positions and a generator; it knows neither labels nor tokens nor models. Contexts
come out in depth-first order, so that a backend (or an inference server's prefix cache) that keeps one growing prefix
reuses all that neighbours share. Mutual predictability fixes *which* demonstrations a context holds, never their order
(Wen et al. 2025, equation 1); the tree uses that freedom.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from elicitor.errors import ConfigError

PlanKind = Literal["tree", "in_order", "folds", "sampled"]


@dataclass(frozen=True, slots=True)
class Context:
    """One query and what stands before it.

    Attributes:
        target: Position of the example that is asked about.
        demonstrations: Positions of the labelled examples before it, in reading order, never holding ``target``.
    """

    target: int
    demonstrations: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TreeOrder:
    """An order of the labelled examples that fixes all leave-one-out contexts, and can grow without changing them.

    `contexts` divides and conquers the ``base``: ``visit(prefix, S)`` appends one half of S to the prefix and visits the
    other half, and the other way round, until one example is left. Encoding each shared prefix once costs
    ``n * log2(n)`` demonstrations and ``n`` queries when n is a power of two, against ``n * (n - 1)`` without sharing.
    The ``tail`` stands at the end of every context. So an example that joins the tail lengthens contexts that a backend
    may still hold instead of making new ones: ``n`` demonstrations and ``n`` queries.

    Attributes:
        base: Positions that are split into halves.
        tail: Positions that joined later, in the order in which they did.
    """

    base: tuple[int, ...]
    tail: tuple[int, ...] = ()

    @property
    def spine(self) -> tuple[int, ...]:
        """All positions, in the order that shares most with the last contexts: what stands before a new example."""
        return self.base + self.tail

    def contexts(self) -> list[Context]:
        """One context for each position, in depth-first order; every query sees exactly the others."""
        contexts: list[Context] = []

        def visit(prefix: tuple[int, ...], rest: tuple[int, ...]) -> None:
            if len(rest) == 1:
                contexts.append(Context(rest[0], prefix + self.tail))
                return
            half = len(rest) // 2
            first, second = rest[:half], rest[half:]
            visit(prefix + second, first)
            visit(prefix + first, second)

        if self.base:
            visit((), self.base)
        for k, target in enumerate(self.tail):
            contexts.append(Context(target, self.base + self.tail[:k] + self.tail[k + 1 :]))
        return contexts


def tree_order(ids: Sequence[int], rng: np.random.Generator) -> TreeOrder:
    """A fresh order of the examples: shuffled, so that order bias averages out over evaluations.

    Args:
        ids: Positions of the labelled examples, each once.
        rng: Shuffles them.

    Returns:
        An order without a tail.
    """
    return TreeOrder(_shuffled(ids, rng))


def in_order(ids: Sequence[int]) -> list[Context]:
    """Leave-one-out contexts in the order given, as in the paper's release: about n^2 / 2 demonstrations.

    Args:
        ids: Positions of the labelled examples, each once.

    Returns:
        One context for each example; the last examples come first, so that prefixes grow shorter, never longer.
    """
    return [Context(ids[i], (*ids[:i], *ids[i + 1 :])) for i in reversed(range(len(ids)))]


def folds(ids: Sequence[int], rng: np.random.Generator, *, n_folds: int) -> list[Context]:
    """Leave-fold-out contexts: members of a fold share one prefix that holds everything outside the fold.

    Args:
        ids: Positions of the labelled examples, each once.
        rng: Shuffles the examples before they are dealt into folds.
        n_folds: Number of folds, at least 2; at most one fold an example is made.

    Returns:
        One context for each example.

    Raises:
        ConfigError: If ``n_folds`` is below 2.
    """
    if n_folds < 2:
        raise ConfigError(f"plan 'folds' got {n_folds} folds", fix="set plan.folds to 2 or more")
    order = _shuffled(ids, rng)
    parts = [order[k::n_folds] for k in range(min(n_folds, len(order)))]
    return [
        Context(target, tuple(i for other in parts if other is not part for i in other))
        for part in parts
        for target in part
    ]


def sampled(ids: Sequence[int], rng: np.random.Generator, *, max_demonstrations: int) -> list[Context]:
    """Contexts of at most ``max_demonstrations`` others, drawn without replacement for each query.

    Args:
        ids: Positions of the labelled examples, each once.
        rng: Draws the demonstrations and their order.
        max_demonstrations: Upper bound on a context's demonstrations, at least 1.

    Returns:
        One context for each example, in the order given.

    Raises:
        ConfigError: If ``max_demonstrations`` is below 1.
    """
    if max_demonstrations < 1:
        raise ConfigError(
            f"plan 'sampled' got {max_demonstrations} demonstrations", fix="set plan.max_demonstrations to 1 or more"
        )
    contexts = []
    for i, target in enumerate(ids):
        others = _shuffled((*ids[:i], *ids[i + 1 :]), rng)
        contexts.append(Context(target, others[:max_demonstrations]))
    return contexts


def make_plan(
    kind: PlanKind, ids: Sequence[int], rng: np.random.Generator, *, n_folds: int = 8, max_demonstrations: int = 32
) -> list[Context]:
    """Contexts of the chosen kind, one for each example.

    Args:
        kind: Which plan.
        ids: Positions of the labelled examples, each once.
        rng: Source of every random order and draw.
        n_folds: For ``folds``.
        max_demonstrations: For ``sampled``.

    Returns:
        One context for each of ``ids``, in the order in which they are cheapest to score.

    Raises:
        ConfigError: If the kind is unknown or its option is out of range.
    """
    match kind:
        case "tree":
            return tree_order(ids, rng).contexts()
        case "in_order":
            return in_order(ids)
        case "folds":
            return folds(ids, rng, n_folds=n_folds)
        case "sampled":
            return sampled(ids, rng, max_demonstrations=max_demonstrations)
        case _:
            raise ConfigError(f"unknown plan {kind!r}", fix="use tree, in_order, folds or sampled")


def _shuffled(ids: Sequence[int], rng: np.random.Generator) -> tuple[int, ...]:
    return tuple(int(ids[k]) for k in rng.permutation(len(ids)))

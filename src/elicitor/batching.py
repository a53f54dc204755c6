"""Which examples are searched together: whole groups, as many as fit the model's window.

Knows lengths and group numbers alone, so that a data set larger than memory can be divided.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from elicitor.data import Dataset
from elicitor.errors import ContextOverflowError
from elicitor.prompts import Sizes

ContextPolicy = Literal["batch", "error"]
Batches = tuple[tuple[int, ...], ...]
"""Positions of each batch, ascending."""
Numbers = NDArray[np.int64]


class _Groups:
    """Positions of each group, as one array that is cut into pieces.

    Args:
        numbers: Shape (examples,): number of each example's group.
    """

    def __init__(self, numbers: Numbers) -> None:
        self.positions = np.argsort(numbers, kind="stable")
        self.ends = np.cumsum(np.bincount(numbers))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, group: int) -> Numbers:
        return self.positions[self.ends[group - 1] if group else 0 : self.ends[group]]


def fit_batches(
    dataset: Dataset,
    sizes: Sizes,
    *,
    batch_size: int,
    max_context_tokens: int,
    policy: ContextPolicy,
    max_demonstrations: int | None,
    rng: np.random.Generator,
) -> Batches:
    """Divide a data set into batches of whole groups whose contexts fit the model's window.

    Args:
        dataset: The examples.
        sizes: Their lengths; see `elicitor.prompts.PromptEncoder.sizes`.
        batch_size: Examples of a batch, at most; a larger group is a batch of its own.
        max_context_tokens: The model's window.
        policy: ``batch`` makes smaller batches where the window asks for it, ``error`` raises.
        max_demonstrations: Demonstrations in a context, when the plan bounds them.
        rng: Deals groups into batches, if there is more than one batch.

    Returns:
        Positions of each batch, ascending.

    Raises:
        ContextOverflowError: If an example does not fit the window even behind one demonstration, if a group does not, or
            if ``policy`` is ``error`` and smaller batches would be needed.
    """
    demonstration = sizes.queries + sizes.longest_candidate + sizes.separator
    room = max_context_tokens - sizes.start - sizes.longest_candidate
    _refuse_long_example(dataset, sizes.queries, demonstration, room=room, window=max_context_tokens)
    token_budget: float = np.inf
    if max_demonstrations is None:
        # A context holds the others' demonstrations, the target's query and a label: all but the target's separator.
        token_budget = max_context_tokens - sizes.start + sizes.separator
    else:
        # Contexts hold the longest demonstrations at worst, so their size does not depend on the batch.
        worst = np.sort(demonstration)[::-1][:max_demonstrations].sum() + sizes.queries.max()
        if worst > room:
            raise ContextOverflowError(
                f"{max_demonstrations} demonstrations and a query can take {worst} tokens, the model's context leaves {room}",
                fix="set plan.max_demonstrations lower",
            )
    if len(demonstration) <= batch_size and demonstration.sum() <= token_budget:
        return (tuple(range(len(demonstration))),)
    groups = _Groups(dataset.group_numbers())
    _refuse_large_group(dataset, groups, demonstration, token_budget)
    dealt = rng.permutation(len(groups))
    batches = _pack(groups, dealt, demonstration, batch_size=batch_size, token_budget=token_budget)
    if policy == "error" and batches != _pack(groups, dealt, demonstration, batch_size=batch_size, token_budget=np.inf):
        raise ContextOverflowError(
            f"batches of {batch_size} examples do not fit the {max_context_tokens} tokens of the model's context",
            fix="set batch_size lower, context_policy=batch, or plan.kind=sampled",
        )
    return _level(groups, batches, demonstration, batch_size=batch_size, token_budget=token_budget)


def _pack(
    groups: _Groups, dealt: Numbers, demonstration: Numbers, *, batch_size: int, token_budget: float
) -> list[list[int]]:
    """Groups of each batch, put in one after the other; a group that does not fit the last batch begins a new one."""
    batches: list[list[int]] = []
    size = used = 0
    for group in dealt.tolist():
        members = groups[group]
        tokens = int(demonstration[members].sum())
        if batches and size + len(members) <= batch_size and used + tokens <= token_budget:
            batches[-1].append(group)
            size, used = size + len(members), used + tokens
        else:
            batches.append([group])
            size, used = len(members), tokens
    return batches


def _level(
    groups: _Groups, batches: list[list[int]], demonstration: Numbers, *, batch_size: int, token_budget: float
) -> Batches:
    """Positions of each batch, the last two made as even as whole groups and the window allow.

    What is left for the last batch may be a single example, with no others to predict its label.
    """
    *full, last = batches
    if full:
        pair = [*full.pop(), *last]
        sizes = np.cumsum([len(groups[group]) for group in pair])
        tokens = np.cumsum([demonstration[groups[group]].sum() for group in pair])
        larger, longer = (np.maximum(sums, sums[-1] - sums)[:-1] for sums in (sizes, tokens))
        # A group larger than a batch is one of its own, and then no cut is within the bounds.
        within = (larger <= batch_size) & (longer <= token_budget)
        cut = int(np.argmin(np.where(within, larger, np.inf))) + 1 if within.any() else len(pair) - len(last)
        batches = [*full, pair[:cut], pair[cut:]]
    return tuple(tuple(sorted(i for group in batch for i in groups[group].tolist())) for batch in batches)


def _refuse_long_example(dataset: Dataset, queries: Numbers, demonstration: Numbers, *, room: int, window: int) -> None:
    """Every query must fit behind the shortest demonstration of another example."""
    shortest = np.argsort(demonstration, kind="stable")[:2]
    beside = np.full(len(queries), demonstration[shortest[0]])
    beside[shortest[0]] = demonstration[shortest[1]] if len(shortest) > 1 else 0
    too_long = np.flatnonzero(queries + beside > room)
    if len(too_long):
        first = int(too_long[0])
        example = dataset.examples[first]
        needed = window - room + queries[first] + beside[first]
        raise ContextOverflowError(
            f"{example.location}: example {example.id!r} needs {needed} tokens with the "
            f"shortest demonstration, the model's context holds {window}",
            fix="shorten or drop the example, or use a model with a longer context",
        )


def _refuse_large_group(dataset: Dataset, groups: _Groups, demonstration: Numbers, token_budget: float) -> None:
    starts = np.concatenate([[0], groups.ends[:-1]])
    tokens = np.add.reduceat(demonstration[groups.positions], starts)
    too_large = np.flatnonzero(tokens > token_budget)
    if len(too_large):
        first = dataset.examples[int(groups[int(too_large[0])][0])]
        raise ContextOverflowError(
            f"{first.location}: group {first.group_id!r} takes {tokens[too_large[0]]} tokens, the model's context leaves "
            f"{token_budget:.0f} for demonstrations",
            fix="split the group, set plan.kind=sampled, or use a model with a longer context",
        )

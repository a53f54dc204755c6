"""Examples as token segments, and how many of them fit a context.

Token-boundary rule: body, verbalizer and separator are tokenised one by one and their ids concatenated. A query is a body,
so it tokenises exactly as the body inside a demonstration does, and the label's tokens asked for after a query are exactly
those that follow a body in a demonstration. Nothing is ever truncated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from elicitor.backends.base import BatchTokenizer, Prompt, TokenIds, Tokenizer
from elicitor.data import Assignment, Dataset
from elicitor.errors import ContextOverflowError, LabelTokenError
from elicitor.plan import Context
from elicitor.tasks import Task

ContextPolicy = Literal["batch", "error"]


class PromptEncoder:
    """Turns positions of a data set into token segments; equal segments are the same object.

    Args:
        tokenizer: The model's tokenizer.
        task: Template, labels and separator.
        dataset: The examples.

    Raises:
        LabelTokenError: If verbalizers cannot be told apart by their tokens.
    """

    def __init__(self, tokenizer: Tokenizer, task: Task, dataset: Dataset) -> None:
        self.dataset = dataset
        self._tokenizer = tokenizer
        self._task = task
        verbalizers = task.label_space.verbalizers
        self.candidates = tuple(encode_after_word(tokenizer, verbalizer) for verbalizer in verbalizers)
        check_distinct(self.candidates, verbalizers)
        self.separator = encode_after_word(tokenizer, task.separator) if task.separator else ()
        self.start: TokenIds = (*tokenizer.start_ids, *(tokenizer.encode(task.preamble) if task.preamble else ()))
        self._queries: dict[int, TokenIds] = {}
        self._demonstrations: dict[tuple[int, int], TokenIds] = {}
        if isinstance(tokenizer, BatchTokenizer):
            tokenizer.encode_all([task.render(example) for example in dataset.examples])

    def query(self, position: int) -> TokenIds:
        """Tokens of an example up to where its label begins."""
        if position not in self._queries:
            self._queries[position] = self._tokenizer.encode(self._task.render(self.dataset.examples[position]))
        return self._queries[position]

    def demonstration(self, position: int, label: int) -> TokenIds:
        """Tokens of an example with a label and the separator."""
        key = (position, label)
        if key not in self._demonstrations:
            self._demonstrations[key] = (*self.query(position), *self.candidates[label], *self.separator)
        return self._demonstrations[key]

    def prompt(self, context: Context, assignment: Assignment) -> Prompt:
        """The prompt of a context, its demonstrations labelled by an assignment.

        Raises:
            ValueError: If a demonstration has no label.
        """
        segments = []
        for position in context.demonstrations:
            label = assignment[position]
            if label is None:
                raise ValueError(f"demonstration {position} has no label")
            segments.append(self.demonstration(position, label))
        return self.prompt_with(segments, context.target)

    def prompt_with(self, demonstrations: Sequence[TokenIds], position: int) -> Prompt:
        """The prompt of an example after demonstrations of any data set."""
        start = (self.start,) if self.start else ()
        return Prompt((*start, *demonstrations, self.query(position)), self.candidates)

    def longest_demonstration(self, position: int) -> int:
        """Tokens of an example's demonstration under its longest label."""
        return len(self.query(position)) + self.longest_candidate + len(self.separator)

    @property
    def longest_candidate(self) -> int:
        """Tokens of the longest verbalizer."""
        return max(map(len, self.candidates))


def encode_after_word(tokenizer: Tokenizer, text: str) -> TokenIds:
    """Tokens of a text that follows a word, such as a verbalizer or a separator.

    Tokenizers of the SentencePiece kind put a blank of their own before any text that they are given; after a word they
    would not. So the text is tokenised behind a letter, which is taken off again where it stands as tokens of its own.

    Args:
        tokenizer: The model's tokenizer.
        text: Text, not empty.

    Returns:
        Its tokens.
    """
    anchor = tokenizer.encode("x")
    whole = tokenizer.encode("x" + text)
    if whole[: len(anchor)] == anchor and len(whole) > len(anchor):
        return whole[len(anchor) :]
    return tokenizer.encode(text)


def fit_batches(
    encoder: PromptEncoder,
    *,
    batch_size: int,
    max_context_tokens: int,
    policy: ContextPolicy,
    max_demonstrations: int | None,
    rng: np.random.Generator,
) -> tuple[tuple[int, ...], ...]:
    """Divide a data set into batches of whole groups whose contexts fit the model's window.

    Args:
        encoder: The data set's encoder.
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
    positions = range(len(encoder.dataset))
    demonstration = [encoder.longest_demonstration(i) for i in positions]
    longest_query = max(len(encoder.query(i)) for i in positions)
    room = max_context_tokens - len(encoder.start) - encoder.longest_candidate
    shortest = sorted(positions, key=demonstration.__getitem__)[:2]
    for i in positions:
        needed = len(encoder.query(i)) + sum(demonstration[j] for j in [j for j in shortest if j != i][:1])
        if needed > room:
            example = encoder.dataset.examples[i]
            raise ContextOverflowError(
                f"{example.location}: example {example.id!r} needs {max_context_tokens - room + needed} tokens with the "
                f"shortest demonstration, the model's context holds {max_context_tokens}",
                fix="shorten or drop the example, or use a model with a longer context",
            )
    if max_demonstrations is not None:
        # Contexts hold the longest demonstrations at worst, so their size does not depend on the batch.
        worst = sum(sorted(demonstration, reverse=True)[:max_demonstrations]) + longest_query
        if worst > room:
            raise ContextOverflowError(
                f"{max_demonstrations} demonstrations and a query can take {worst} tokens, the model's context leaves {room}",
                fix="set plan.max_demonstrations lower",
            )
        token_budget = float("inf")
    else:
        # A context holds the others' demonstrations, the target's query and a label: all but the target's separator.
        token_budget = max_context_tokens - len(encoder.start) + len(encoder.separator)
    groups = list(encoder.dataset.groups())
    if len(positions) <= batch_size and sum(demonstration) <= token_budget:
        return (tuple(positions),)
    _refuse_large_group(encoder, groups, demonstration, token_budget)
    dealt = [groups[g] for g in rng.permutation(len(groups))]
    batches = _pack(dealt, demonstration, batch_size=batch_size, token_budget=token_budget)
    if policy == "error" and batches != _pack(dealt, demonstration, batch_size=batch_size, token_budget=float("inf")):
        raise ContextOverflowError(
            f"batches of {batch_size} examples do not fit the {max_context_tokens} tokens of the model's context",
            fix="set batch_size lower, context_policy=batch, or plan.kind=sampled",
        )
    return tuple(tuple(sorted(batch)) for batch in batches)


def _pack(
    groups: Sequence[Sequence[int]], demonstration: Sequence[int], *, batch_size: int, token_budget: float
) -> list[list[int]]:
    """Put groups into batches one after the other; a group that does not fit the last batch begins a new one."""
    batches: list[list[int]] = []
    used = 0
    for members in groups:
        tokens = sum(demonstration[i] for i in members)
        if batches and len(batches[-1]) + len(members) <= batch_size and used + tokens <= token_budget:
            batches[-1].extend(members)
            used += tokens
        else:
            batches.append(list(members))
            used = tokens
    return batches


def _refuse_large_group(
    encoder: PromptEncoder, groups: Sequence[Sequence[int]], demonstration: Sequence[int], token_budget: float
) -> None:
    for members in groups:
        tokens = sum(demonstration[i] for i in members)
        if tokens > token_budget:
            first = encoder.dataset.examples[members[0]]
            raise ContextOverflowError(
                f"{first.location}: group {first.group_id!r} takes {tokens} tokens, the model's context leaves "
                f"{token_budget:.0f} for demonstrations",
                fix="split the group, set plan.kind=sampled, or use a model with a longer context",
            )


def check_distinct(candidates: Sequence[TokenIds], verbalizers: Sequence[str]) -> None:
    """Refuse verbalizers whose probabilities overlap because the tokens of one begin those of another.

    Args:
        candidates: Tokens of each verbalizer.
        verbalizers: Their texts, for the error.

    Raises:
        LabelTokenError: If two cannot be told apart, or one has no tokens.
    """
    for i, left in enumerate(candidates):
        if not left:
            raise LabelTokenError(f"verbalizer {verbalizers[i]!r} has no tokens", fix="choose a text that is not empty")
        for j, right in enumerate(candidates):
            if i != j and right[: len(left)] == left:
                raise LabelTokenError(
                    f"the tokens of verbalizer {verbalizers[i]!r} begin those of {verbalizers[j]!r}, so their "
                    "probabilities overlap",
                    fix="choose verbalizers of which none begins another",
                )

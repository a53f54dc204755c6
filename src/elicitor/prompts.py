"""Examples as token segments.

Token-boundary rule: body, verbalizer and separator are tokenised one by one and their ids concatenated. A query is a body,
so it tokenises exactly as the body inside a demonstration does, and the label's tokens asked for after a query are exactly
those that follow a body in a demonstration. Nothing is ever truncated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elicitor.backends.base import BatchTokenizer, Part, PartsTokenizer, Prompt, TokenIds, Tokenizer
from elicitor.data import Assignment, Dataset, Example
from elicitor.errors import LabelTokenError
from elicitor.plan import Context
from elicitor.tasks import Task


@dataclass(frozen=True, slots=True)
class Sizes:
    """Lengths of a data set's segments, in tokens: all that decides how many examples fit a context.

    Attributes:
        start: What every prompt begins with.
        separator: What ends a demonstration.
        longest_candidate: The longest verbalizer.
        queries: Shape (examples,): each example up to where its label begins.
    """

    start: int
    separator: int
    longest_candidate: int
    queries: NDArray[np.int64]


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
            self._queries[position] = self._encode(self.dataset.examples[position])
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

    def sizes(self) -> Sizes:
        """Lengths of all segments; the examples are read one at a time and nothing of them is kept."""
        lengths = (len(self._encode(example)) for example in self.dataset.examples)
        return Sizes(len(self.start), len(self.separator), self.longest_candidate, np.fromiter(lengths, np.int64))

    def _encode(self, example: Example) -> TokenIds:
        return encode_parts(self._tokenizer, self._task.parts(example))

    def longest_demonstration(self, position: int) -> int:
        """Tokens of an example's demonstration under its longest label."""
        return len(self.query(position)) + self.longest_candidate + len(self.separator)

    @property
    def longest_candidate(self) -> int:
        """Tokens of the longest verbalizer."""
        return max(map(len, self.candidates))


def encode_parts(tokenizer: Tokenizer, parts: Sequence[Part]) -> TokenIds:
    """Tokens of a text, with no control token where it is data."""
    if isinstance(tokenizer, PartsTokenizer):
        return tokenizer.encode_parts(parts)
    return tokenizer.encode("".join(part.text for part in parts))


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

"""Rows to train on: the very tokens that a backend scores, and the order in which they are seen. Knows no torch.

Token-boundary rule: a row is the zero-shot prompt of `elicitor.prompts.PromptEncoder` and behind it the label's tokens, which
are those that a backend asks for after it. So a classifier is trained on exactly what it will be asked.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from elicitor.backends.base import TokenIds
from elicitor.data import LabelSpace
from elicitor.errors import ConfigError, ContextOverflowError
from elicitor.prompts import PromptEncoder

_POOL = 16
"""Batches that are sorted by length together: enough to waste little padding, few enough to keep the order random."""


@dataclass(frozen=True, slots=True)
class Row:
    """One example to train on.

    Attributes:
        prompt: Tokens up to where the label begins.
        completion: Tokens of the label, the only ones in the loss.
        label: Index of the label.
    """

    prompt: TokenIds
    completion: TokenIds
    label: int

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.prompt) + len(self.completion)


def make_rows(encoder: PromptEncoder, labels: Mapping[int, int], *, max_tokens: int) -> list[Row]:
    """Prompt-completion rows of labelled examples.

    Args:
        encoder: The data set's encoder, with the tokenizer of the model to train.
        labels: Label by position.
        max_tokens: The model's window.

    Returns:
        Rows in the order of ``labels``.

    Raises:
        ConfigError: If there are none.
        ContextOverflowError: If one does not fit; nothing is ever truncated.
    """
    rows = []
    for position, label in labels.items():
        prompt = tuple(token for segment in encoder.prompt_with([], position).segments for token in segment)
        row = Row(prompt, encoder.candidates[label], label)
        if len(row) > max_tokens:
            example = encoder.dataset.examples[position]
            raise ContextOverflowError(
                f"{example.location}: example {example.id!r} takes {len(row)} tokens, the model's context holds "
                f"{max_tokens}",
                fix="shorten or drop the example, or use a model with a longer context",
            )
        rows.append(row)
    if not rows:
        raise ConfigError("there is no labelled example to train on", fix="label more, or abstain from fewer")
    return rows


def rows_hash(rows: Sequence[Row]) -> str:
    """Hash of rows and their order."""
    content = [[row.prompt, row.completion, row.label] for row in rows]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def class_weights(spec: str | None, rows: Sequence[Row], space: LabelSpace) -> list[float]:
    """Weight of each label in the loss, scaled so that rows weigh 1 on average.

    Args:
        spec: ``balanced`` for equal total weight of all labels that occur, ``negative=2,positive=1`` for weights by label
            (1 where none is given), None for none.
        rows: What is trained on.
        space: Names the labels.

    Returns:
        One weight for each label.

    Raises:
        ConfigError: If a label is unknown or a weight is not positive.
    """
    counts = Counter(row.label for row in rows)
    weights = [1.0] * len(space)
    if spec == "balanced":
        weights = [1 / counts[label] if counts[label] else 0.0 for label in range(len(space))]
    elif spec is not None:
        for part in spec.split(","):
            name, _, value = part.strip().partition("=")
            if name not in space.labels:
                raise ConfigError(f"class weight for unknown label {name!r}", fix=f"use {', '.join(space.labels)}")
            try:
                weights[space.labels.index(name)] = float(value)
            except ValueError as error:
                raise ConfigError(f"class weight {part.strip()!r} has no number", fix="write label=2.5") from error
    if min(weights[label] for label in counts) <= 0 or not np.isfinite(weights).all():
        raise ConfigError(f"class weights got {spec!r}", fix="give positive numbers")
    mean = sum(weights[label] * count for label, count in counts.items()) / len(rows)
    return [weight / mean for weight in weights]


def training_order(lengths: Sequence[int], *, epochs: int, batch_size: int, rng: np.random.Generator) -> list[int]:
    """Order of the rows over all epochs: random, but with batches of similar length, so that little is padding.

    Each epoch deals the rows anew, sorts pools of a few batches by length, cuts them into batches and shuffles these. Rows that
    are left over at its end make a batch with the first ones of the next epoch, so that no later batch is cut elsewhere.

    Args:
        lengths: Tokens of each row.
        epochs: How often each row is seen.
        batch_size: Rows of a batch.
        rng: Deals.

    Returns:
        Row numbers, every row once an epoch; a batch is a run of ``batch_size`` of them.
    """
    order: list[int] = []
    for _ in range(epochs):
        dealt = rng.permutation(len(lengths)).tolist()
        size, missing = _POOL * batch_size, -len(order) % batch_size
        starts = [0, *range(missing + size, len(dealt), size)]
        pools = [sorted(dealt[i:j], key=lengths.__getitem__) for i, j in pairwise([*starts, len(dealt)])]
        # What is left over is the longest of its pool, and so is what it is put together with.
        cut = max(0, len(pools[0]) - missing)
        order += pools[0][cut:]
        pools[0] = pools[0][:cut]
        batches = [pool[i : i + batch_size] for pool in pools for i in range(0, len(pool), batch_size)]
        whole = [batch for batch in batches if len(batch) == batch_size]
        order += [row for k in rng.permutation(len(whole)).tolist() for row in whole[k]]
        order += [row for batch in batches if len(batch) < batch_size for row in batch]
    return order


def step_tokens(lengths: Sequence[int], order: Sequence[int], *, rows_a_step: int) -> list[int]:
    """Tokens of each optimizer step, padding left out."""
    return [
        sum(lengths[row] for row in order[start : start + rows_a_step]) for start in range(0, len(order), rows_a_step)
    ]

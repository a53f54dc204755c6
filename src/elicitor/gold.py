"""Gold labels and the votes of single annotators. Evaluation alone may keep what this module reads."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from elicitor.data import MissingColumnError, identified_rows, in_order_id, is_empty
from elicitor.errors import DataError
from elicitor.readers import Row
from elicitor.tasks import Task


@dataclass(frozen=True, slots=True)
class GoldLabels:
    """True labels, for evaluation alone; no search accepts this type.

    Attributes:
        labels: Label index by example id; examples whose gold is empty are absent.
        missing: Number of examples whose gold is empty.
        source: File or hub name.
    """

    labels: Mapping[str, int]
    missing: int
    source: str


def load_gold(source: str, task: Task, *, limit: int | None = None) -> GoldLabels:
    """Read gold labels. Evaluation alone may keep what this returns.

    Args:
        source: File or ``hf:NAME@SPLIT``.
        task: Names the gold column and what its values mean.
        limit: Use only the first rows.

    Returns:
        The labels by example id.

    Raises:
        MissingColumnError: If no row has the gold column.
        DataError: If a value is outside the label set, or the source cannot be read.
    """
    labels: dict[str, int] = {}
    missing = 0
    for example_id, label in _gold(source, task, limit=limit):
        if label is None:
            missing += 1 if task.mirror is None else 2
        elif task.mirror is None:
            labels[example_id] = label
        else:
            labels |= {in_order_id(example_id, 0): label, in_order_id(example_id, 1): 1 - label}
    return GoldLabels(labels, missing=missing, source=source)


def _gold(source: str, task: Task, *, limit: int | None) -> Iterator[tuple[str, int | None]]:
    """Id and gold label of each row, None where gold is empty; see `load_gold` for what is refused."""
    columns: list[str] = []
    found = False
    for row, example_id in identified_rows(source, task, limit=limit):
        columns = columns or list(row.values)
        found = found or task.gold_column in row.values
        value = row.values.get(task.gold_column)
        label = None if is_empty(value) else task.gold_label(value)
        if label is None and not is_empty(value):
            allowed = [*task.gold_values] or list(task.label_space.labels)
            raise DataError(
                f"{row.location} column {task.gold_column!r}: {value!r} is outside the label set, allowed are "
                f"{', '.join(allowed)}",
                fix="correct it, map it with the task's gold_values, or use another column (eval: --gold-column; label: "
                "remove it, labelling needs no gold)",
            )
        yield example_id, label
    if not found:
        raise MissingColumnError(
            f"{source} has no gold column {task.gold_column!r}; its columns are {', '.join(columns)}",
            fix="name the right one with --gold-column (eval, report, plot), or as 'gold' of the task",
        )


def check_gold(source: str, task: Task, *, limit: int | None = None) -> None:
    """Refuse gold outside the label set before hours go into labelling; nothing of it is kept.

    Args:
        source: File or ``hf:NAME@SPLIT``.
        task: Names the gold column, which need not be there.
        limit: Look only at the first rows.

    Raises:
        DataError: If a value is outside the label set, or the source cannot be read.
    """
    with contextlib.suppress(MissingColumnError):
        for _ in _gold(source, task, limit=limit):
            pass


def load_votes(source: str, task: Task, *, limit: int | None = None) -> dict[str, tuple[int, ...]]:
    """Read the labels that single annotators gave.

    Args:
        source: File or ``hf:NAME@SPLIT``.
        task: Names the votes column, which need not be there, and what its values mean.
        limit: Use only the first rows.

    Returns:
        Label indices by example id; examples without votes are absent. A vote for none of the labels (null) is left out.

    Raises:
        DataError: If a vote is outside the label set, or the source cannot be read.
    """
    votes = {}
    for row, example_id in identified_rows(source, task, limit=limit):
        cast = tuple(_label(vote, row, task) for vote in _votes(row, task) if vote is not None)
        if cast and task.mirror is None:
            votes[example_id] = cast
        elif cast:
            votes[in_order_id(example_id, 0)] = cast
            votes[in_order_id(example_id, 1)] = tuple(1 - vote for vote in cast)
    return votes


def _votes(row: Row, task: Task) -> list[Any]:
    """The votes of a row: a list, or a text that holds one, as in a CSV file."""
    value = row.values.get(task.votes_column)
    if value is None or value == "":
        return []
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            value = None
    if not isinstance(value, list):
        raise DataError(f"{row.location} column {task.votes_column!r} holds no list of votes", fix="write [1, 0, 1]")
    return value


def _label(vote: Any, row: Row, task: Task) -> int:
    label = task.gold_label(vote)
    if label is None:
        raise DataError(
            f"{row.location} column {task.votes_column!r}: vote {vote!r} is outside the label set",
            fix=f"write {', '.join(task.label_space.labels)}, or null for none of them",
        )
    return label

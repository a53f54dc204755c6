"""Labels that people gave, one by one. Evaluation alone reads them, like gold."""

from __future__ import annotations

import json
from typing import Any

from elicitor.data import in_order_id, row_ids
from elicitor.errors import DataError
from elicitor.readers import Row, read_rows
from elicitor.tasks import Task


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
    rows = read_rows(source, limit=limit)
    votes = {}
    for row, example_id in zip(rows, row_ids(rows, task), strict=True):
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

"""Which rows of a task's files a suite labels, and which it tests on: whole groups, none on both sides."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from elicitor.data import task_rows
from elicitor.errors import DataError
from elicitor.files import write_atomic
from elicitor.readers import Row
from elicitor.tasks import Task


def draw_rows(
    data: str, task: Task, *, test: str | None, limits: tuple[int | None, int | None], rng: np.random.Generator
) -> tuple[list[Row], list[Row]]:
    """Draw the rows to label and the test rows, whole groups at a time, none in both.

    Args:
        data: File or ``hf:NAME@SPLIT`` with rows to label, and those to test on where there is no ``test``.
        task: Says which rows belong together.
        test: File or ``hf:NAME@SPLIT`` with test rows.
        limits: Rows to label and test rows, at most; without limits and test file, half of the groups each.
        rng: Draws.

    Returns:
        Rows to label and test rows, each in the order of its file.

    Raises:
        DataError: If no row is left for one of them.
    """
    groups = _groups(task_rows(data, task), task)
    limit, test_limit = limits
    if test is None:
        half = sum(map(len, groups)) // 2
        chosen, rest = _take(groups, half if limit is None else limit, rng=rng)
        asked, _ = _take(rest, test_limit, rng=rng)
    else:
        chosen, _ = _take(groups, limit, rng=rng)
        asked, _ = _take(_groups(task_rows(test, task), task), test_limit, rng=rng)
    for what, rows in (("to label", chosen), ("to test on", asked)):
        if not rows:
            raise DataError(f"{data}: no row is left {what}", fix="set limits lower, or name a test file")
    return chosen, asked


def _groups(rows: Sequence[Row], task: Task) -> list[list[tuple[int, Row]]]:
    """Numbered rows by what they share: a cluster, a group, or nothing."""
    groups: dict[str, list[tuple[int, Row]]] = {}
    for number, row in enumerate(rows):
        names = (task.cluster_field, task.group_column, task.group_field)
        shared = [str(row.values[name]) for name in names if name and row.values.get(name) is not None]
        groups.setdefault(shared[0] if shared else row.location, []).append((number, row))
    return list(groups.values())


def _take(
    groups: Sequence[list[tuple[int, Row]]], limit: int | None, *, rng: np.random.Generator
) -> tuple[list[Row], list[list[tuple[int, Row]]]]:
    """Rows of groups drawn by lot until no further one fits the limit, and the other groups."""
    taken: list[tuple[int, Row]] = []
    rest = []
    for k in rng.permutation(len(groups)):
        if limit is None or len(taken) + len(groups[k]) <= limit:
            taken += groups[k]
        else:
            rest.append(groups[k])
    return [row for _, row in sorted(taken, key=lambda item: item[0])], rest


def write_drawn(file: Path, rows: Sequence[Row]) -> None:
    """Write rows as they were read, one JSON object a line.

    Raises:
        DataError: If a column cannot be written as JSON.
        DiskError: If the disk is full or the folder read-only.
    """
    try:
        text = "".join(json.dumps(row.values, ensure_ascii=False) + "\n" for row in rows)
    except TypeError as error:
        raise DataError(f"{rows[0].location}: a column cannot be written as JSON: {error}", fix="drop it") from error
    write_atomic(file, text)

"""Yes or no questions about a passage (Clark et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from elicitor.data import LabelSpace
from elicitor.tasks.table import Task


def adapt(row: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Rows of ``google/boolq``, whose gold is a truth value called ``answer``."""
    if "answer" not in row or "label" in row:
        return None
    return [{**row, "label": row["answer"]}]


TASK = Task(
    name="boolq",
    template="Passage: {passage}\nQuestion: {question}\nAnswer:",
    label_space=LabelSpace(("no", "yes"), (" no", " yes"), positive=1),
    adapt=adapt,
)

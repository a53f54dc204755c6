"""Sentiment of a single text, negative or positive."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from elicitor.data import LabelSpace
from elicitor.tasks.table import Task


def adapt(row: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Rows of ``stanfordnlp/sst2``: the text is called ``sentence``, and a label of -1 is a hidden one."""
    if "sentence" not in row or "text" in row:
        return None
    label = row.get("label")
    return [{"text": row["sentence"], "label": None if label == -1 else label}]


TASK = Task(
    name="sentiment",
    template="Review: {text}\nSentiment:",
    label_space=LabelSpace(("negative", "positive"), (" negative", " positive"), positive=1),
    adapt=adapt,
)

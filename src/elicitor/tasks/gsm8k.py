"""GSM8K verification: is a worked solution right (Cobbe et al. 2021; Wen et al. 2025, section 3.1).

Several solutions of one question are a group. What binds them is the number that each ends in, read from its own words:
solutions that end in the same number are both right or both wrong, and no two that end in different numbers are right.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from elicitor.data import LabelSpace
from elicitor.errors import DataError
from elicitor.tasks.table import Task


def adapt(row: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Refuse rows of ``openai/gsm8k``: they hold a question and its right answer, nothing that could be wrong.

    Raises:
        DataError: For such a row.
    """
    if "choice" not in row and {"question", "answer"} <= row.keys():
        raise DataError(
            "task 'gsm8k' judges solutions, and this row holds a question with its right answer alone",
            fix="draw solutions with 'elicitor sample-solutions', or rename the column of solutions to 'choice'",
        )
    return None


TASK = Task(
    name="gsm8k",
    template="Question: {question}\nClaim: {choice}\nI think this claim is",
    label_space=LabelSpace(("False", "True"), (" False", " True"), positive=1),
    group_column="consistency_id",
    group_field="question",
    constraint=("at_most_one", "equivalent"),
    key_columns=("choice",),
    key_normalizer="final_answer",
    adapt=adapt,
)

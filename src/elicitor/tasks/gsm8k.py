"""GSM8K verification: is a worked solution right (Cobbe et al. 2021; Wen et al. 2025, section 3.1).

Several solutions of one question are a group. What binds them is the number that each ends in, read from its own words:
solutions that end in the same number are both right or both wrong, and no two that end in different numbers are right.
"""

from elicitor.data import LabelSpace
from elicitor.tasks.table import Task

TASK = Task(
    name="gsm8k",
    template="Question: {question}\nClaim: {choice}\nI think this claim is",
    label_space=LabelSpace(("False", "True"), (" False", " True"), positive=1),
    group_column="consistency_id",
    group_field="question",
    constraint=("at_most_one", "equivalent"),
    key_columns=("choice",),
    key_normalizer="final_answer",
)

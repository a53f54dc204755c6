"""TruthfulQA claims: is a proposed answer to a question true (Lin et al. 2022; prompt of Wen et al. 2025, table 1).

The only constraint is that two claims of one question with the same wording have the same label. "Two different answers
cannot both be true" would be wrong: most questions have several true answers. The released code of the paper builds its
constraint from the gold labels, which leaks them; nothing here can see them.
"""

from elicitor.data import LabelSpace
from elicitor.tasks.table import Task

TASK = Task(
    name="truthfulqa",
    template="Question: {question}\nClaim: {choice}\nI think this claim is",
    label_space=LabelSpace(("False", "True"), (" False", " True"), positive=1),
    group_column="consistency_id",
    group_field="question",
    constraint=("equivalent",),
    key_columns=("choice",),
)

"""Yes or no questions about a passage (Clark et al. 2019)."""

from elicitor.data import LabelSpace
from elicitor.tasks.table import Task

TASK = Task(
    name="boolq",
    template="Passage: {passage}\nQuestion: {question}\nAnswer:",
    label_space=LabelSpace(("no", "yes"), (" no", " yes"), positive=1),
)

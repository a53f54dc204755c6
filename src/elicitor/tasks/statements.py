"""Single true or false statements (Marks and Tegmark 2023; Azaria and Mitchell 2023).

Where the data names groups and what each statement asserts (``consistency_key``), statements of one group that assert
different things are not both true and those that assert the same have one label. A statement with ``negated`` set denies
what its key says, so it has the opposite label of the one that asserts it.
"""

from elicitor.data import LabelSpace
from elicitor.tasks.table import Task

TASK = Task(
    name="statements",
    template="Claim: {text}\nI think this claim is",
    label_space=LabelSpace(("False", "True"), (" False", " True"), positive=1),
    group_column="consistency_id",
    constraint=("at_most_one", "equivalent"),
    key_columns=("consistency_key",),
    optional_columns=("consistency_id", "consistency_key", "negated"),
    negated_column="negated",
)

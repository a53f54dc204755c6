"""Which of two blog posts was written by a man (Schler et al. 2006; Wen et al. 2025, section 4.3).

People do little better than chance here, so labels that agree with gold go beyond what people could have given. Every pair
is asked about in both orders.
"""

from elicitor.data import LabelSpace
from elicitor.tasks.table import Task

TASK = Task(
    name="author_gender",
    template=(
        "Post A: {choice}\n\nPost B: {choice_2}\n\n"
        "Claim: Post A was written by a man and Post B by a woman.\nI think this claim is"
    ),
    label_space=LabelSpace(("False", "True"), (" False", " True"), positive=1),
    separator="\n\n\n",
    constraint=("asymmetric",),
    mirror=("choice", "choice_2"),
)

"""Sentiment of a single text, negative or positive."""

from elicitor.data import LabelSpace
from elicitor.tasks.table import Task

TASK = Task(
    name="sentiment",
    template="Review: {text}\nSentiment:",
    label_space=LabelSpace(("negative", "positive"), (" negative", " positive"), positive=1),
)

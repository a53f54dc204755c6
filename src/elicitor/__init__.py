"""Unsupervised elicitation of language models: find the labels that a pretrained model itself holds coherent.

Five lines do what the command line does::

    import elicitor

    run = elicitor.label("reviews.jsonl", task="sentiment", model="bundled", output_dir="runs/reviews")
    print(run.labels[0])
    print(elicitor.evaluate(run, "test.jsonl").to_markdown())
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from elicitor.backends.base import Backend as Backend
    from elicitor.backends.fake import FakeBackend as FakeBackend
    from elicitor.config import RunConfig as RunConfig
    from elicitor.errors import ElicitorError as ElicitorError
    from elicitor.evaluation import Evaluation as Evaluation
    from elicitor.evaluation import evaluate as evaluate
    from elicitor.labelling import Run as Run
    from elicitor.labelling import label as label
    from elicitor.labelling import load_run as load_run
    from elicitor.models import load_backend as load_backend
    from elicitor.tasks import Task as Task
    from elicitor.tasks import load_task as load_task

_PUBLIC = {
    "Backend": "elicitor.backends.base",
    "ElicitorError": "elicitor.errors",
    "Evaluation": "elicitor.evaluation",
    "FakeBackend": "elicitor.backends.fake",
    "Run": "elicitor.labelling",
    "RunConfig": "elicitor.config",
    "Task": "elicitor.tasks",
    "evaluate": "elicitor.evaluation",
    "label": "elicitor.labelling",
    "load_backend": "elicitor.models",
    "load_run": "elicitor.labelling",
    "load_task": "elicitor.tasks",
}

__all__ = sorted(_PUBLIC)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import public names when they are first used, so that ``import elicitor`` costs nothing."""
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'elicitor' has no attribute {name!r}")

"""Tasks by name, by YAML file or by declaration."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elicitor.errors import TaskError
from elicitor.tasks import author_gender, boolq, gsm8k, poems, preference, sentiment, statements, truthfulqa
from elicitor.tasks.table import ConstraintKind, Task, declare
from elicitor.yaml_files import read_mapping

_MODULES = (truthfulqa, gsm8k, preference, author_gender, poems, statements, boolq, sentiment)
BUILT_IN: dict[str, Task] = {module.TASK.name: module.TASK for module in _MODULES}
_EXAMPLE = """template: "Review: {text}\\nSentiment:", labels: [negative, positive]"""

__all__ = ["BUILT_IN", "ConstraintKind", "Task", "load_task", "resolve_task"]


def resolve_task(spec: str | Mapping[str, Any]) -> str | dict[str, Any]:
    """Replace the path of a task file by its content, so that a run keeps what it was made with.

    Args:
        spec: Name, path of a YAML file, or declaration.

    Returns:
        Name or declaration.

    Raises:
        TaskError: If the task is unknown or the file cannot be read.
    """
    if not isinstance(spec, str):
        return dict(spec)
    if spec in BUILT_IN:
        return spec
    if Path(spec).suffix in (".yaml", ".yml"):
        file = Path(spec)
        declaration = read_mapping(
            file, error=TaskError, hint=f"write a task declaration, such as {_EXAMPLE}", as_text=True
        )
        return {"name": file.stem, **declaration}
    if spec == "table":
        raise TaskError("task 'table' needs a declaration", fix=f"write a YAML file such as {_EXAMPLE} and name that")
    names = [*BUILT_IN, "table"]
    near = difflib.get_close_matches(spec, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise TaskError(f"unknown task {spec!r}", fix=f"{hint}use {', '.join(BUILT_IN)}, or a .yaml file of your own")


def load_task(spec: str | Mapping[str, Any]) -> Task:
    """A task by name, YAML file or declaration.

    Args:
        spec: Name, path of a YAML file, or declaration.

    Returns:
        The task.

    Raises:
        TaskError: If the task is unknown or its declaration is wrong.
    """
    resolved = resolve_task(spec)
    if isinstance(resolved, str):
        return BUILT_IN[resolved]
    return declare(resolved, source=spec if isinstance(spec, str) else f"task {resolved.get('name', 'table')!r}")

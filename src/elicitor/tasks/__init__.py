"""Tasks by name, by YAML file or by declaration."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from elicitor.errors import TaskError
from elicitor.tasks import sentiment, truthfulqa
from elicitor.tasks.table import ConstraintKind, Task, declare

BUILT_IN = {task.name: task for task in (truthfulqa.TASK, sentiment.TASK)}
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
        return {"name": Path(spec).stem, **_read_declaration(Path(spec))}
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


def _read_declaration(file: Path) -> dict[str, Any]:
    try:
        # Every scalar stays text: YAML's own rules would turn the labels no and yes into truth values.
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except FileNotFoundError as error:
        raise TaskError(f"task file {file} does not exist", fix="check the path") from error
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"task file {file} cannot be read: {error}", fix="save it as a UTF-8 text file") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise TaskError(f"{file}{where} is not valid YAML", fix="check indentation and quotes there") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise TaskError(f"{file} is not a task declaration", fix=f"write keys and values, such as {_EXAMPLE}")
    return content

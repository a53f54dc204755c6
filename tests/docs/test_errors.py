"""Errors speak with one voice: what was got, then one thing to do about it, without capitals and full stops."""

import ast
from pathlib import Path

import pytest

from elicitor import errors

SOURCE = Path(errors.__file__).parent
KINDS = {name for name, kind in vars(errors).items() if isinstance(kind, type)} | {"MissingColumnError"}
WITHOUT_FIX = {"comparison.py", "completions.py"}
"""A reason that another error wraps, and requests that a program sent, whose fix is in the message."""


def raised(path):
    """Every error made in a file: line, literal beginning and end of the problem, whether a fix is given, and its text."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        name = getattr(node.func, "id", getattr(node.func, "attr", None)) if isinstance(node, ast.Call) else None
        if name in KINDS and node.args:
            fixes = [keyword.value for keyword in node.keywords if keyword.arg == "fix"]
            yield node.lineno, literal(node.args[0]), literal(fixes[0]) if fixes else None


def literal(node):
    """Texts of a message; a value that is filled in counts as x."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in getattr(node, "values", []))


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_errors_say_what_to_do(path):
    for line, problem, fix in raised(path):
        where = f"{path.name}:{line}: {problem!r}; {fix!r}"
        assert fix is not None or path.name in WITHOUT_FIX, where
        assert not problem.endswith((".", " ", ";")), where
        assert not (fix or "").endswith((".", " ", ";")), where
        first = problem.split(" ")[0].strip("'")
        assert not first.istitle() or first in {"TRL"}, where


def test_the_files_without_fixes_still_have_such_errors():
    for name in WITHOUT_FIX:
        assert any(fix is None for _, _, fix in raised(SOURCE / name))

"""The one way to the terminal: whatever is printed passes `visible`, so that no text can move the cursor or hide another.

`say` prints lines, `Terminal` tables and bars, `print_json` results for programs. Nothing else in the package prints.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from elicitor.errors import ElicitorError
from elicitor.files import disk_error
from elicitor.visible import hides, visible

if TYPE_CHECKING:
    from rich.console import Console


def say(*texts: object, end: str = "\n", file: IO[str] | None = None, flush: bool = False) -> None:
    """Print texts.

    Args:
        *texts: What to print, with blanks between.
        end: What follows.
        file: Where to; standard output by default.
        flush: Whether it must be there at once.
    """
    print(*(visible(str(text)) for text in texts), end=end, file=file, flush=flush)


def say_line(text: str) -> None:
    """Print one line on standard error, whatever line ends the text holds: an error or a warning must not look like several."""
    say(one_line(text), file=sys.stderr, flush=True)


def one_line(text: str) -> str:
    """A text whose line ends are written out like other hidden characters."""
    return visible(text, keep="\t")


@contextmanager
def mistakes_in_a_line() -> Iterator[None]:
    """End the process where a user's mistake or a full disk comes out: one line on standard error, exit code 2."""
    try:
        yield
    except Exception as error:  # libraries that write themselves raise their own
        told = error if isinstance(error, ElicitorError) else disk_error(error)
        if told is None:
            raise
        say_line(f"error: {told}")
        sys.exit(2)


def print_json(values: Any) -> None:
    """Print JSON on standard output: equal to what it was when it is read, and harmless when it is looked at.

    Args:
        values: JSON values.
    """
    text = json.dumps(values, ensure_ascii=False, indent=2, allow_nan=False)
    print(re.sub(r"[^\x20-\x7e\n]", _escaped, text))


def _escaped(match: re.Match[str]) -> str:
    return json.dumps(match[0])[1:-1] if hides(match[0]) else match[0]


def terminal(*, stderr: bool = False, least_width: int = 0) -> Console:
    """A console for tables and bars: texts in them are neither markup nor control sequences.

    Args:
        stderr: Print on standard error rather than on standard output.
        least_width: Columns at least: it keeps a table whole in logs and pipes, where the terminal's width is only a guess.
    """
    from rich.console import Console
    from rich.text import Text

    class Terminal(Console):
        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(visible(text), **options)

    options: dict[str, Any] = {"stderr": stderr, "highlight": False, "markup": False, "emoji": False}
    width = Terminal(**options).width
    return Terminal(**options, width=max(width, least_width) if least_width else None)

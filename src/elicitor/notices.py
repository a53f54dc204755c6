"""Warnings about what is loaded, on their way to whoever shows them: a progress display, or Python's own warnings."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

OnNotice = Callable[[str], None]

_shown: ContextVar[OnNotice | None] = ContextVar("shown", default=None)


class ElicitorWarning(UserWarning):
    """Something a user should know, where no display is there to say it."""


def warn(message: str) -> None:
    """Say what a user should know.

    Args:
        message: What is the matter, and what to do.
    """
    show = _shown.get()
    if show is None:
        warnings.warn(message, ElicitorWarning, stacklevel=3)
    else:
        show(message)


@contextmanager
def shown_by(show: OnNotice) -> Iterator[None]:
    """Give warnings to a display while the block lasts."""
    token = _shown.set(show)
    try:
        yield
    finally:
        _shown.reset(token)

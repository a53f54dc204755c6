"""Commands of two words beside a command of the first one: ``eval reward`` beside ``eval RUN``."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup


class TwoWords(TyperGroup):
    """A group whose commands may have names of two words.

    A folder that is called like a second word is still reached as ``./reward``.
    """

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Take the first two words as a command if there is one of that name."""
        name = " ".join(args[:2])
        command = self.get_command(ctx, name) if len(args) > 1 else None
        return super().resolve_command(ctx, args) if command is None else (name, command, args[2:])

"""Commands about a run that somebody looks after: control, watch, review."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from elicitor.errors import ConfigError

Folder = Annotated[Path, typer.Argument(help="Folder of 'elicitor label' or of a training.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("control")(control_command)


def control_command(
    run: Folder,
    action: Annotated[str | None, typer.Argument(help="pause, resume or stop; leave it out to see the state.")] = None,
    as_json: Json = False,
) -> None:
    """Pause, resume or stop what runs in a folder, after the step that it is at; no result changes.

    Example: elicitor control runs/claims pause
    """
    from elicitor.control import ACTIONS, pending, request, state_of
    from elicitor.follow import check_watchable

    check_watchable(run)
    if action is not None and action not in ACTIONS:
        raise ConfigError(f"got {action!r}", fix=f"use {', '.join(ACTIONS)}")
    state = state_of(run) if action is None else request(run, action)
    waiting = pending(run)
    if as_json:
        from elicitor.console import print_json

        print_json({"state": state, "asked": waiting})
        return
    print(state if waiting is None or state == "stopping" else f"{state}, asked to {waiting}")

"""Commands about the scores that are kept on disk."""

from __future__ import annotations

import typer

from elicitor.cli_options import Json
from elicitor.terminal import say

_BOUND = 10**12
"""These commands write no scores, so no bound is ever reached."""


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(help="Scores kept on disk under backend.score_cache.", no_args_is_help=True)
    group.command("info")(info_command)
    group.command("clear")(clear_command)
    app.add_typer(group, name="cache")


def info_command(as_json: Json = False) -> None:
    """Print where scores are kept, how many, and how much room they take."""
    from elicitor.backends.score_store import ScoreStore, score_file
    from elicitor.terminal import print_json

    info = ScoreStore(score_file(), max_bytes=_BOUND).info()
    if as_json:
        print_json({"file": str(info.file), "answers": info.answers, "bytes": info.bytes})
        return
    say(f"{info.answers:,} scores, {info.bytes / 1e6:.1f} MB: {info.file}")


def clear_command() -> None:
    """Drop all scores on disk."""
    from elicitor.backends.score_store import ScoreStore, score_file

    store = ScoreStore(score_file(), max_bytes=_BOUND)
    dropped = store.info().answers
    store.clear()
    say(f"{dropped:,} scores dropped: {score_file()}")

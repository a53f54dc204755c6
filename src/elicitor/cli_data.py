"""Commands that make data: thin shells over public functions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from elicitor.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("sample-poems")(sample_poems_command)


def sample_poems_command(
    output: Annotated[Path, typer.Argument(help="JSONL file to write.")],
    n: Annotated[int, typer.Option("--n", help="Pairs of poems.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Write over an existing file.")] = False,
) -> None:
    """Write pairs of poems for the negative control (task poems), with gold that no model can know."""
    if n < 1 or seed < 0:
        raise ConfigError(f"got --n {n} and --seed {seed}", fix="give at least 1 pair and a seed of 0 or more")
    refuse_existing(output, force=force)
    import numpy as np

    from elicitor.runs import write_rows
    from elicitor.tasks.poems import generate_poems

    write_rows(output, generate_poems(n, rng=np.random.default_rng(seed)))
    print(f"{n} pairs of poems: {output}")


def refuse_existing(output: Path, *, force: bool) -> None:
    """Refuse an output file that is there already, or whose folder is not.

    Raises:
        ConfigError: If it cannot be written without loss.
    """
    if output.exists() and not force:
        raise ConfigError(f"{output} exists", fix="choose another file, or add --force")
    if not output.parent.is_dir():
        raise ConfigError(f"folder {output.parent} does not exist", fix="make it, or choose another file")

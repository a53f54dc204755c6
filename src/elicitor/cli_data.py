"""Commands that make data: thin shells over public functions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from elicitor.cli_options import Json
from elicitor.errors import ConfigError
from elicitor.terminal import say


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("sample-poems")(sample_poems_command)
    app.command("sample-solutions")(sample_solutions_command)


def sample_poems_command(
    output: Annotated[Path, typer.Argument(help="JSONL file to write.")],
    n: Annotated[int, typer.Option("--n", help="Pairs of poems.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Write over an existing file.")] = False,
) -> None:
    """Write pairs of poems, a negative control.

    For task poems: gold is something that no model can know.
    """
    if n < 1 or seed < 0:
        raise ConfigError(f"got --n {n} and --seed {seed}", fix="give at least 1 pair and a seed of 0 or more")
    refuse_existing(output, force=force)
    import numpy as np

    from elicitor.files import write_rows
    from elicitor.tasks.poems import generate_poems

    write_rows(output, generate_poems(n, rng=np.random.default_rng(seed)))
    say(f"{n} pairs of poems: {output}")


def sample_solutions_command(
    questions: Annotated[str, typer.Argument(help="Questions: a file with a column 'question', or hf:NAME@SPLIT.")],
    output_file: Annotated[Path, typer.Option("--output-file", "-o", help="JSONL file to write.")],
    model: Annotated[
        str, typer.Option(help="bundled, hf:NAME, gguf:FILE, vllm:NAME, openai:MODEL@URL or a folder.")
    ] = "bundled",
    k: Annotated[int, typer.Option("--k", help="Solutions drawn for each question.")] = 4,
    seed: Annotated[int, typer.Option(help="Seed of every draw.")] = 0,
    limit: Annotated[int | None, typer.Option(help="Use only the first questions.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Tokens of a solution at most.")] = 256,
    temperature: Annotated[float, typer.Option(help="Divides the logits.")] = 0.8,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a file that was begun.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the most it can cost, and one prompt.")] = False,
    as_json: Json = False,
) -> None:
    """Draw several solutions to each question.

    Data for task gsm8k, from questions alone.
    """
    from elicitor import console, progress
    from elicitor.solutions import SampleSettings

    settings = SampleSettings(k, seed, max_new_tokens, temperature, limit)
    if dry_run:
        console.show_sampling_cost(progress.sampling_cost_with_progress(questions, model, settings), as_json=as_json)
        return
    done = progress.sample_with_progress(questions, output_file, model=model, settings=settings, resume=resume)
    console.show_sampled(done, as_json=as_json)


def refuse_existing(output: Path, *, force: bool) -> None:
    """Refuse an output file that is there already, or whose folder is not.

    Raises:
        ConfigError: If it cannot be written without loss.
    """
    if output.exists() and not force:
        raise ConfigError(f"{output} exists", fix="choose another file, or add --force")
    if not output.parent.is_dir():
        raise ConfigError(f"folder {output.parent} does not exist", fix="make it, or choose another file")

"""``elicitor export``: a thin shell over `elicitor.export`."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from elicitor.cli_options import Json
from elicitor.terminal import say


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("export")(export_command)


def export_command(
    run: Annotated[Path, typer.Argument(help="Run folder of 'elicitor label'.")],
    output_dir: Annotated[Path, typer.Option("--output-dir", "-o", help="Folder to write.")],
    format: Annotated[str, typer.Option("--format", "-f", help="sft, preference, unpaired or dataset.")] = "dataset",
    conversational: Annotated[
        bool, typer.Option("--conversational", help="Chat messages, for models with a chat template.")
    ] = False,
    answer: Annotated[
        str | None, typer.Option(help="With unpaired: field with the answer that the label judges.")
    ] = None,
    keep_abstained: Annotated[
        bool, typer.Option("--keep-abstained", help="Keep examples in abstained.jsonl as well.")
    ] = False,
    push: Annotated[str | None, typer.Option(help="Upload to this data set of the hub, OWNER/NAME.")] = None,
    public: Annotated[bool, typer.Option("--public", help="With --push: for everybody to see.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over an earlier export.")] = False,
    as_json: Json = False,
) -> None:
    """Write a run's labels as a data set with a card.

    For TRL, datasets and the Hugging Face hub.
    """
    from elicitor import export

    done = export.export(
        run,
        output_dir,
        format=format,
        conversational=conversational,
        answer=answer,
        keep_abstained=keep_abstained,
        force=force,
    )
    if push is not None:
        done = replace(done, url=export.push(done, push, public=public))
    if as_json:
        from elicitor.terminal import print_json

        print_json({**asdict(done), "folder": str(done.folder)})
        return
    say(f"{done.rows} rows of format {done.format}: {done.folder / export.ROWS}")
    for reason, count in done.left_out.items():
        say(f"left out: {count} {reason}")
    if done.url:
        say(f"pushed: {done.url}")

"""``elicitor report`` and ``elicitor plot``: thin shells over `elicitor.report` and `elicitor.plot`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from elicitor.errors import ConfigError
from elicitor.terminal import say

if TYPE_CHECKING:
    from rich.status import Status

Folders = Annotated[
    list[Path], typer.Argument(help="Folders of 'elicitor label', 'eval --suite', 'ablate' or 'train'; one or more.")
]
Gold = Annotated[
    str | None,
    typer.Option(help="File with gold labels of the examples, by id: for the figures alone, no search sees it."),
]
GoldColumn = Annotated[str | None, typer.Option(help="Its column, if not the task's.")]
Json = Annotated[bool, typer.Option("--json", help="Print the gathered figures as JSON on standard output.")]
REPORT = "report.html"


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("report")(report_command)
    app.command("plot")(plot_command)


def report_command(
    folders: Folders,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="HTML file [default: report.html in the folder, if it is one]."),
    ] = None,
    gold: Gold = None,
    gold_column: GoldColumn = None,
    examples: Annotated[int, typer.Option(help="Examples of a run that the page holds at most.")] = 20_000,
    as_json: Json = False,
) -> None:
    """Write one page to look at.

    Accuracies, the search, confidence, audit, cost and every example.
    """
    from elicitor import report
    from elicitor.report.page import require_report
    from elicitor.terminal import print_json

    if examples < 1:
        raise ConfigError(f"--examples got {examples}", fix="give 1 or more")
    if output is None and len(folders) > 1:
        raise ConfigError(f"{len(folders)} folders have no common place for the page", fix="add -o FILE.html")
    require_report()
    file = output or folders[0] / REPORT
    with _status() as status:
        views = report.gather(
            folders, gold=gold, gold_column=gold_column, examples=examples, on_stage=lambda stage: status.update(stage)
        )
        status.update("writing the page")
        report.write_page(views, file)
    if as_json:
        print_json({"report": str(file), **views.summary()})
        return
    for note in (*views.notes, *(f"{run.name}: {note}" for run in views.runs for note in run.notes)):
        say(f"note: {note}")
    say(f"report: {file} ({file.stat().st_size / 1e6:.1f} MB, opens without a network)")


def plot_command(
    folders: Folders,
    output: Annotated[Path, typer.Option("--output", "-o", help="Image to write: .png, .pdf or .svg.")],
    figure: Annotated[
        list[str] | None,
        typer.Option(
            help="What to draw: bars, scaling, ablation, accuracy or utility; may be repeated [default: all there are]."
        ),
    ] = None,
    gold: Gold = None,
    gold_column: GoldColumn = None,
    as_json: Json = False,
) -> None:
    """Draw figures like the paper's.

    Conditions, scaling over models, ablations, the way of a search.
    """
    from elicitor import figures, report
    from elicitor.terminal import print_json

    figures.require_matplotlib()
    with _status() as status:
        views = report.gather(folders, gold=gold, gold_column=gold_column, on_stage=lambda stage: status.update(stage))
        status.update("drawing")
        drawn = figures.draw(views, output, only=figure or [])
    if as_json:
        print_json({"figure": str(output), "panels": drawn, **views.summary()})
        return
    say(f"{', '.join(drawn)}: {output}")


def report_line(folder: Path, *, gold: str) -> str:
    """Write the report of a run where that is possible, and say in one line where it is or why it is not.

    Args:
        folder: Folder of the run.
        gold: File with gold labels of its examples.

    Returns:
        The line.
    """
    from elicitor import report
    from elicitor.report.page import require_report

    try:
        require_report()
    except ConfigError as missing:
        return f"no report: {missing}"
    with _status() as status:
        status.update("writing the page")
        report.write_page(report.gather([folder], gold=gold), folder / REPORT)
    return f"report: {folder / REPORT}"


def _status() -> Status:
    """What is being done, on standard error, where that is a terminal."""
    from elicitor.terminal import terminal

    return terminal(stderr=True).status("reading")

"""The ``elicitor`` command: thin shells over public functions.

Nothing heavy is imported before a command needs it, so ``elicitor --help`` answers at once.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from elicitor import (
    cli_cache,
    cli_data,
    cli_eval,
    cli_examples,
    cli_export,
    cli_ray,
    cli_report,
    cli_reward,
    cli_serve,
    cli_train,
    cli_watch,
)
from elicitor.cli_options import ConfigFile, Json, OutputDir, Overrides, new_folder, run_settings
from elicitor.cli_words import TwoWords
from elicitor.terminal import mistakes_in_a_line, say

app = typer.Typer(
    name="elicitor",
    cls=TwoWords,
    help="Find the labels that a pretrained language model itself holds coherent. No labels go in.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=True,
)


@app.command("label")
def label_command(
    data: Annotated[str | None, typer.Argument(help="JSONL, CSV, TSV or Parquet file, or hf:NAME@SPLIT.")] = None,
    task: Annotated[
        str | None, typer.Option(help="A built-in task (truthfulqa, gsm8k, preference, ...) or a YAML file.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="bundled, hf:NAME, vllm:NAME, gguf:FILE, openai:MODEL@URL, adapter:FOLDER, fake or a folder."
        ),
    ] = None,
    search: Annotated[str | None, typer.Option(help="Search: icm, ensemble, gibbs, bootstrap or scalable.")] = None,
    plan: Annotated[str | None, typer.Option(help="Contexts: tree, in_order, folds or sampled.")] = None,
    calibration: Annotated[str | None, typer.Option(help="Calibration: none or batch.")] = None,
    alpha: Annotated[float | None, typer.Option(help="Weight of mutual predictability.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every random choice.")] = None,
    limit: Annotated[int | None, typer.Option(help="Use only the first rows.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples searched together, at most.")] = None,
    init: Annotated[str | None, typer.Option(help="First labels: review takes those of --review.")] = None,
    review: Annotated[Path | None, typer.Option(help="With --init review: run folder whose marks are taken.")] = None,
    output_dir: OutputDir = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --output-dir.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the cost and two prompts, write nothing.")] = False,
    report_to: Annotated[
        str | None, typer.Option(help="Trackers of the search: trackio, tensorboard, wandb; or none.")
    ] = None,
    ray: cli_ray.Address = None,
    ray_workers: cli_ray.Workers = None,
    ray_cpus: cli_ray.Cpus = 1.0,
    ray_gpus: cli_ray.Gpus = 0.0,
    price_per_million: Annotated[
        float | None, typer.Option(help="With --dry-run: price of a million prompt tokens of a hosted model.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Find coherent labels for unlabelled examples."""
    cluster = cli_ray.ray_options(ray, workers=ray_workers, cpus=ray_cpus, gpus=ray_gpus)
    flags: dict[str, Any] = {
        "data": data,
        "task": task,
        "model": model,
        "search": search,
        "plan.kind": plan,
        "objective.calibration": calibration,
        "objective.alpha": alpha,
        "seed": seed,
        "limit": limit,
        "batch_size": batch_size,
        "report_to": report_to,
        "backend.remote.price_per_million": price_per_million,
    }
    settings = run_settings(flags, config=config, overrides=overrides or [], output_dir=output_dir, resume=resume)
    from elicitor import console, progress
    from elicitor.gold import check_gold
    from elicitor.tasks import load_task

    check_gold(settings.data, load_task(settings.task), limit=settings.limit)
    if dry_run:
        with TemporaryDirectory() as scratch:
            settings = cli_watch.with_first_labels(settings, init, review, resume=resume, into=Path(scratch))
            console.show_dry_run(progress.estimate_with_progress(settings), as_json=as_json)
        return
    settings = cli_watch.with_first_labels(settings, init, review, resume=resume)
    folder = output_dir or new_folder(settings)
    done = progress.label_with_progress(settings, folder, resume=resume, cluster=cluster)
    console.show_run(done, as_json=as_json)


@app.command("quickstart")
def quickstart_command(
    output_dir: OutputDir = None,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
    as_json: Json = False,
) -> None:
    """Label a small data set that comes with elicitor.

    The bundled model labels it; then the labels are compared with gold.
    """
    from elicitor import console, progress, quickstart

    settings = quickstart.settings(seed=seed)
    done = progress.label_with_progress(settings, output_dir or new_folder(settings), resume=False)
    result = progress.evaluate_with_progress(
        done.path,
        str(quickstart.TEST),
        seeds=[0, 1, 2],
        limit=quickstart.TEST_LIMIT,
        gold_data=str(quickstart.GOLD),
    )
    written = cli_report.report_line(done.path, gold=str(quickstart.GOLD))
    console.show_run(done, as_json=False, quiet=as_json)
    console.show_evaluation(result, as_json=as_json)
    if not as_json:
        say(f"\nrun folder: {done.path}")
        say(written)


@app.command("models")
def models_command(as_json: Json = False) -> None:
    """List what --model takes, and the models at hand."""
    from elicitor import console
    from elicitor.models import list_models

    console.show_models(list_models(), as_json=as_json)


@app.command("env")
def env_command(as_json: Json = False) -> None:
    """Print versions and hardware, for bug reports."""
    from elicitor import console

    console.show_environment(as_json=as_json)


cli_eval.register(app)
cli_cache.register(app)
cli_data.register(app)
cli_serve.register(app)
cli_train.register(app)
cli_export.register(app)
cli_reward.register(app)
cli_report.register(app)
cli_watch.register(app)
cli_examples.add_examples(app)


def main() -> None:
    """Run the command; a user's mistake is one line on standard error and exit code 2."""
    try:
        with mistakes_in_a_line():
            app()
    except (KeyboardInterrupt, SystemExit) as end:
        # typer turns Ctrl-C into an exit with 130 before it gets here.
        if isinstance(end, SystemExit) and end.code != 130:
            raise
        say("\nstopped; the same command with --resume goes on from where it was", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output has gone; Python would complain again when it flushes standard output at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    main()

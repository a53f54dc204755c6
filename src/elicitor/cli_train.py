"""Commands that train on labels: ``elicitor train ...``, thin shells over public functions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from elicitor.cli_options import Json, check_limit, numbers

if TYPE_CHECKING:
    from elicitor.train.sft import SftSettings

train_app = typer.Typer(name="train", help="Train models on labels.", no_args_is_help=True, rich_markup_mode=None)

RunFolder = Annotated[Path, typer.Argument(help="Run folder of 'elicitor label'.")]
Folder = Annotated[Path, typer.Option("--output-dir", "-o", help="Folder to write.")]
Model = Annotated[str | None, typer.Option(help="Model to train [default: the one that found the labels].")]
Preset = Annotated[
    str, typer.Option(help="Settings: small, paper-8b (full, lr 1e-5) or paper-70b (LoRA r 16, lr 5e-5).")
]
Method = Annotated[str | None, typer.Option(help="Weights to train: lora or full.")]
Epochs = Annotated[int | None, typer.Option(help="Times that every example is seen.")]
LearningRate = Annotated[float | None, typer.Option(help="Highest learning rate.")]
ClassWeights = Annotated[
    str | None, typer.Option(help="Weights of labels in the loss: balanced, or such as negative=2,positive=1.")
]
Limit = Annotated[int | None, typer.Option(help="Train on the first examples only.")]
KeepAbstained = Annotated[bool, typer.Option("--keep-abstained", help="Train on examples in abstained.jsonl as well.")]
ReportTo = Annotated[str | None, typer.Option(help="Trackers: trackio, tensorboard, wandb; or none.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="Any training setting, e.g. lora_r=8.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with what is in --output-dir.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(train_app, name="train")


@train_app.command("sft")
def sft_command(
    run: RunFolder,
    output_dir: Folder,
    model: Model = None,
    preset: Preset = "small",
    method: Method = None,
    epochs: Epochs = None,
    learning_rate: LearningRate = None,
    class_weights: ClassWeights = None,
    seed: Annotated[int | None, typer.Option(help="Seed of order and adapter.")] = None,
    limit: Limit = None,
    keep_abstained: KeepAbstained = False,
    report_to: ReportTo = None,
    overrides: Overrides = None,
    resume: Resume = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print tokens, steps and time, write nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Fine-tune a model on a run's labels.

    The result is a model name: adapter:FOLDER, or FOLDER with --method full.
    """
    flags = {
        "method": method,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "class_weights": class_weights,
        "seed": seed,
        "report_to": report_to,
    }
    settings = _settings(preset, flags, overrides)
    check_limit(limit)
    from elicitor import console_train, progress_train

    chosen: dict[str, Any] = {
        "model": model,
        "settings": settings,
        "limit": limit,
        "keep_abstained": keep_abstained,
    }
    if dry_run:
        cost = progress_train.sft_cost_with_progress(run, **chosen)
        if is_main():
            console_train.show_training_cost(cost, as_json=as_json)
        return
    done = progress_train.sft_with_progress(run, output_dir, resume=resume, **chosen)
    if is_main():
        console_train.show_trained(done, as_json=as_json)


@train_app.command("compare")
def compare_command(
    run: RunFolder,
    test: Annotated[str, typer.Option(help="Test examples with gold: a file, or hf:NAME@SPLIT.")],
    output_dir: Folder,
    conditions: Annotated[
        str, typer.Option(help="Kinds of labels with commas.")
    ] = "untrained,random,found,noised_gold,golden",
    seeds: Annotated[str, typer.Option(help="Seeds with commas; each trains every condition once.")] = "0",
    model: Model = None,
    preset: Preset = "small",
    method: Method = None,
    epochs: Epochs = None,
    learning_rate: LearningRate = None,
    class_weights: ClassWeights = None,
    limit: Limit = None,
    test_limit: Annotated[int | None, typer.Option(help="Use only the first test rows.")] = None,
    keep_abstained: KeepAbstained = False,
    gold_column: Annotated[str | None, typer.Option(help="Column with gold, if not the task's.")] = None,
    gold: Annotated[str | None, typer.Option(help="File with gold of the labelled examples.")] = None,
    overrides: Overrides = None,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Train on found, random and golden labels and compare.

    The same examples each time; all models are asked zero-shot.
    """
    flags = {"method": method, "epochs": epochs, "learning_rate": learning_rate, "class_weights": class_weights}
    settings = _settings(preset, flags, overrides)
    check_limit(limit)
    check_limit(test_limit, flag="--test-limit")
    chosen = numbers("--seeds", seeds)
    from elicitor import console_train, progress_train

    result = progress_train.compare_with_progress(
        run,
        test,
        output_dir,
        conditions=[name.strip() for name in conditions.split(",") if name.strip()],
        seeds=chosen,
        settings=settings,
        model=model,
        limit=limit,
        test_limit=test_limit,
        keep_abstained=keep_abstained,
        gold_column=gold_column,
        gold_data=gold,
        resume=resume,
    )
    if is_main():
        console_train.show_comparison(result, folder=str(output_dir), as_json=as_json)


@train_app.command("iterate")
def iterate_command(
    output_dir: Folder,
    data: Annotated[str | None, typer.Argument(help="JSONL, CSV, TSV or Parquet file, or hf:NAME@SPLIT.")] = None,
    task: Annotated[str | None, typer.Option(help="A built-in task or a YAML file.")] = None,
    model: Annotated[str | None, typer.Option(help="Pretrained model that labels the first batch.")] = None,
    search: Annotated[
        str | None, typer.Option(help="Search: ensemble, icm, gibbs or bootstrap [default: ensemble].")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Examples labelled between two trainings [default: 256].")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every random choice.")] = None,
    limit: Annotated[int | None, typer.Option(help="Use only the first rows.")] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="YAML file with settings of labelling.")] = None,
    label_overrides: Annotated[
        list[str] | None, typer.Option("--label-set", metavar="KEY=VALUE", help="Any setting of labelling.")
    ] = None,
    preset: Preset = "small",
    method: Method = None,
    epochs: Epochs = None,
    learning_rate: LearningRate = None,
    class_weights: ClassWeights = None,
    report_to: ReportTo = None,
    overrides: Overrides = None,
    resume: Resume = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print tokens and time, write nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Label and fine-tune in turns, batch by batch.

    Each batch is labelled by the model fine-tuned on all labels before it.
    """
    from elicitor.config import build_config

    given = {
        "data": data,
        "task": task,
        "model": model,
        "search": search,
        "batch_size": batch_size,
        "seed": seed,
        "limit": limit,
    }
    flags = {
        "method": method,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "class_weights": class_weights,
        "seed": seed,
        "report_to": report_to,
    }
    settings = _settings(preset, flags, overrides)
    labelling = build_config(file=config, flags=given, overrides=label_overrides or [])
    from elicitor import console_train, progress_train

    if dry_run:
        cost = progress_train.iterate_cost_with_progress(labelling, settings=settings)
        console_train.show_iterate_cost(cost, as_json=as_json)
        return
    done = progress_train.iterate_with_progress(labelling, output_dir, settings=settings, resume=resume)
    console_train.show_iterated(done, as_json=as_json)


def is_main() -> bool:
    """Whether this process speaks for all that train together."""
    from elicitor.train.folder import is_main_process

    return is_main_process()


def _settings(preset: str, flags: dict[str, Any], overrides: list[str] | None) -> SftSettings:
    from elicitor.train.settings import build_settings
    from elicitor.train.sft import SftSettings

    return build_settings(SftSettings, preset=preset, flags=flags, overrides=overrides or [])

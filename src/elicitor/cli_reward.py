"""Commands of reward models and the policies trained on them: thin shells over public functions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from elicitor.cli_options import Json, check_limit
from elicitor.errors import ConfigError

OutputDir = Annotated[Path, typer.Option("--output-dir", "-o", help="Folder to write.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the training in --output-dir.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print tokens, steps and time, write nothing.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="Any training setting, e.g. lora_r=8.")
]
ReportTo = Annotated[
    str | None, typer.Option(help="Trackers with commas: trackio, tensorboard, wandb [default: none].")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    train = next((group.typer_instance for group in app.registered_groups if group.name == "train"), None)
    if train is None:
        train = typer.Typer(help="Train on found labels.", no_args_is_help=True)
        app.add_typer(train, name="train")
    train.command("reward")(train_reward_command)
    train.command("rl")(train_rl_command)
    app.command("eval reward")(eval_reward_command)
    app.command("eval winrate")(eval_winrate_command)


def train_reward_command(
    source: Annotated[str, typer.Argument(help="Run of 'elicitor label --task preference', or a file of pairs.")],
    output_dir: OutputDir,
    rest: Annotated[
        str | None, typer.Option(help="Further pairs: an initial reward model labels them, a final one learns all.")
    ] = None,
    labels: Annotated[str, typer.Option(help="Labels of the first pairs: found, golden, human, random.")] = "found",
    model: Annotated[str | None, typer.Option(help="Base model [default: that of the run, or bundled].")] = None,
    task: Annotated[str, typer.Option(help="Task of a file of pairs.")] = "preference",
    epochs: Annotated[
        int | None, typer.Option(help="Times that every pair is seen; 0: head alone [default: 1].")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Highest learning rate.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pairs in one forward pass of one device.")] = None,
    max_length: Annotated[int | None, typer.Option(help="Tokens of a prompt with a response [default: 1024].")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every random choice.")] = None,
    limit: Annotated[int | None, typer.Option(help="Use only the first labelled pairs.")] = None,
    rest_limit: Annotated[int | None, typer.Option(help="Use only the first rows of --rest.")] = None,
    keep_abstained: Annotated[
        bool, typer.Option("--keep-abstained", help="Train on pairs in abstained.jsonl as well.")
    ] = False,
    report_to: ReportTo = None,
    overrides: Overrides = None,
    resume: Resume = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Train a reward model on preferences.

    With --rest, it labels the rest, and a final one learns all.
    """
    check_limit(limit)
    check_limit(rest_limit, flag="--rest-limit")
    flags = {
        "epochs": epochs,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "max_length": max_length,
        "seed": seed,
        "report_to": report_to,
    }
    inputs: dict[str, Any] = {
        "model": model,
        "rest": rest,
        "labels": labels,
        "task": task,
        "limit": limit,
        "rest_limit": rest_limit,
        "keep_abstained": keep_abstained,
    }
    from elicitor import console_reward, progress_reward
    from elicitor.train.folder import is_main_process

    progress_reward.need_training()
    if dry_run:
        cost = progress_reward.reward_cost_with_progress(source, flags, overrides or [], inputs)
        if is_main_process():
            console_reward.show_reward_cost(cost, as_json=as_json)
        return
    result = progress_reward.train_reward_with_progress(
        source, output_dir, flags, overrides or [], inputs, resume=resume
    )
    if is_main_process():
        console_reward.show_reward(result, output_dir, as_json=as_json)


def eval_reward_command(
    models: Annotated[list[Path], typer.Argument(help="Folders of reward models; the first is compared with.")],
    test: Annotated[list[str], typer.Option(help="Pairs with gold: a file or hf:NAME@SPLIT; may be repeated.")],
    task: Annotated[str, typer.Option(help="Task that names the columns.")] = "preference",
    base: Annotated[str | None, typer.Option(help="Base model, if it is elsewhere now.")] = None,
    dtype: Annotated[str, typer.Option(help="Weights: auto, float32, bfloat16 or float16.")] = "auto",
    device: Annotated[str, typer.Option(help="Device: auto, cpu or cuda.")] = "auto",
    limit: Annotated[int | None, typer.Option(help="Use only the first rows of each test set.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
    as_json: Json = False,
) -> None:
    """Compare reward models on held-out preferences.

    Pairwise accuracy by subset, with intervals.
    """
    check_limit(limit)
    from elicitor import console_reward, progress_reward

    progress_reward.need_training()
    result = progress_reward.evaluate_reward_with_progress(
        models, test, task=task, base=base, dtype=dtype, device=device, limit=limit, seed=seed
    )
    console_reward.show_reward_evaluation(result, as_json=as_json)


def train_rl_command(
    prompts: Annotated[
        str, typer.Argument(help="File with a column question, prompt or instruction, or hf:NAME@SPLIT.")
    ],
    output_dir: OutputDir,
    reward: Annotated[str, typer.Option(help="Folder of a reward model, or MODULE:FUNCTION of prompts and responses.")],
    model: Annotated[str, typer.Option(help="Model name of the start.")] = "bundled",
    algorithm: Annotated[str | None, typer.Option(help="Algorithm: grpo or rloo.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps [default: 40].")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Highest learning rate.")] = None,
    beta: Annotated[float | None, typer.Option(help="Weight of the divergence from the start [default: 0.04].")] = None,
    group_size: Annotated[
        int | None, typer.Option(help="Responses to a prompt that are compared [default: 8].")
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Tokens of a response [default: 48].")] = None,
    vllm: Annotated[str | None, typer.Option(help="Generate with vLLM on a GPU: off, colocate, server.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every random choice.")] = None,
    limit: Annotated[int | None, typer.Option(help="Use only the first rows.")] = None,
    report_to: ReportTo = None,
    overrides: Overrides = None,
    resume: Resume = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Train a policy against a reward.

    With GRPO or RLOO; the checkpoint that is best on held-out prompts is kept.
    """
    check_limit(limit)
    flags = {
        "algorithm": algorithm,
        "steps": steps,
        "learning_rate": learning_rate,
        "beta": beta,
        "group_size": group_size,
        "max_new_tokens": max_new_tokens,
        "vllm": vllm,
        "seed": seed,
        "report_to": report_to,
    }
    from elicitor import console_reward, progress_reward
    from elicitor.train.folder import is_main_process

    progress_reward.need_training()
    if dry_run:
        cost = progress_reward.rl_cost_with_progress(prompts, flags, overrides or [], model=model, limit=limit)
        if is_main_process():
            console_reward.show_rl_cost(cost, as_json=as_json)
        return
    result = progress_reward.train_rl_with_progress(
        prompts, output_dir, flags, overrides or [], reward=reward, model=model, limit=limit, resume=resume
    )
    if is_main_process():
        console_reward.show_rl(result, output_dir, as_json=as_json)


def eval_winrate_command(
    first: Annotated[str, typer.Argument(help="Model name of the first policy, such as adapter:runs/rl.")],
    second: Annotated[str, typer.Argument(help="Model name of the second policy.")],
    prompts: Annotated[str, typer.Option(help="Prompts: a file, or hf:NAME@SPLIT.")],
    judge: Annotated[list[str], typer.Option(help="Folder of a reward model, or a model name; may be repeated.")],
    output_dir: Annotated[
        Path | None, typer.Option("--output-dir", "-o", help="Folder that keeps responses and verdicts.")
    ] = None,
    samples: Annotated[int, typer.Option(help="Duels on each prompt.")] = 1,
    max_new_tokens: Annotated[int, typer.Option(help="Tokens of a response at most.")] = 128,
    max_prompt_tokens: Annotated[int, typer.Option(help="Longer prompts are left out.")] = 512,
    temperature: Annotated[float, typer.Option(help="Divides the logits.")] = 1.0,
    limit: Annotated[int | None, typer.Option(help="Use only the first rows.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of draws and bootstrap.")] = 0,
    dtype: Annotated[str, typer.Option(help="Weights: auto, float32, bfloat16 or float16.")] = "auto",
    device: Annotated[str, typer.Option(help="Device: auto, cpu or cuda.")] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what is in --output-dir.")] = False,
    as_json: Json = False,
) -> None:
    """Let others judge two policies on the same prompts.

    Pairwise, and language models in both orders.
    """
    check_limit(limit)
    if resume and output_dir is None:
        raise ConfigError("--resume needs to know the comparison", fix="add --output-dir FOLDER")
    from elicitor import console_reward, progress_reward

    progress_reward.need_training()
    result = progress_reward.win_rate_with_progress(
        first,
        second,
        prompts,
        judges=judge,
        output_dir=output_dir,
        resume=resume,
        samples=samples,
        max_new_tokens=max_new_tokens,
        max_prompt_tokens=max_prompt_tokens,
        temperature=temperature,
        limit=limit,
        seed=seed,
        dtype=dtype,
        device=device,
    )
    console_reward.show_win_rates(result, as_json=as_json)

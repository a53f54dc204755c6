"""Commands that judge labels: eval, audit, ablate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from elicitor import cli_ray
from elicitor.cli_options import ConfigFile, Json, Overrides, now, numbers
from elicitor.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("eval")(eval_command)
    app.command("audit")(audit_command)
    app.command("ablate")(ablate_command)


def eval_command(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Run folder of 'elicitor label', or one for each of --seeds.")
    ] = None,
    test: Annotated[str | None, typer.Option(help="Test examples with gold: a file, or hf:NAME@SPLIT.")] = None,
    suite: Annotated[Path | None, typer.Option(help="YAML file with tasks: search, compare and draw them all.")] = None,
    tasks: Annotated[
        str | None, typer.Option(help="With --suite: names of its tasks with commas [default: all].")
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Seeds of demonstration order and random labels [default: 0,1,2].")
    ] = None,
    conditions: Annotated[
        str | None,
        typer.Option(
            help="Rows of the table with commas, or all [default: zero_shot,random,found,golden; with --suite all, unless "
            "its file says]."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Test rows; with --suite also rows to label.")] = None,
    shots: Annotated[int | None, typer.Option(help="Demonstrations at most [default: as many as fit].")] = None,
    probe_layer: Annotated[int | None, typer.Option(help="Layer that probes read [default: the middle one].")] = None,
    sweep_layers: Annotated[bool, typer.Option("--sweep-layers", help="Test probes at every layer (in JSON).")] = False,
    gold_column: Annotated[str | None, typer.Option(help="Column with gold, if not the task's.")] = None,
    gold: Annotated[
        str | None, typer.Option(help="File with gold of the labelled examples, if not their column.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="With --suite: model, if not the file's.")] = None,
    output_dir: Annotated[Path | None, typer.Option("--output-dir", "-o", help="With --suite: its folder.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="With --suite: go on with it in --output-dir.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --suite: print the cost, write nothing.")] = False,
    ray: cli_ray.Address = None,
    ray_workers: cli_ray.Workers = None,
    ray_cpus: cli_ray.Cpus = 1.0,
    ray_gpus: cli_ray.Gpus = 0.0,
    as_json: Json = False,
) -> None:
    """Compare found labels with cheaper and golden ones.

    On a test file; or, with --suite, search and compare on a list of tasks.
    """
    cluster = cli_ray.ray_options(ray, workers=ray_workers, cpus=ray_cpus, gpus=ray_gpus)
    chosen = None if seeds is None else numbers("--seeds", seeds)
    for flag, value in (("--limit", limit), ("--shots", shots)):
        if value is not None and value < 1:
            raise ConfigError(f"{flag} got {value}", fix="give 1 or more")
    names = None if conditions is None else [name.strip() for name in conditions.split(",") if name.strip()]
    from elicitor import console, progress
    from elicitor.baselines import CONDITIONS, DEFAULT_CONDITIONS

    if suite is not None:
        if runs or test or gold or gold_column or probe_layer is not None or sweep_layers:
            raise ConfigError(
                "--suite got run folders, --test, gold or probe options as well", fix="name files in the suite file"
            )
        from elicitor.suite import read_suite

        settings = read_suite(
            suite,
            only=None if tasks is None else [name.strip() for name in tasks.split(",")],
            model=model,
            seeds=chosen,
            conditions="all" if names == ["all"] else names,
            limit=limit,
            test_limit=limit,
            max_shots=shots,
        )
        if dry_run:
            console.show_suite_cost(progress.suite_cost_with_progress(settings), as_json=as_json)
            return
        if resume and output_dir is None:
            raise ConfigError("--resume needs to know the suite", fix="add --output-dir FOLDER")
        folder = output_dir or Path("runs") / f"{suite.stem}-{now()}"
        done = progress.suite_with_progress(settings, folder, resume=resume, cluster=cluster)
        console.show_suite(done, as_json=as_json)
        return
    if not runs or test is None:
        raise ConfigError("eval needs a run folder and --test, or --suite", fix="elicitor eval RUN --test FILE")
    for flag, given in (
        ("--tasks", tasks),
        ("--model", model),
        ("--output-dir", output_dir),
        ("--resume", resume),
        ("--dry-run", dry_run),
        ("--ray", ray),
    ):
        if given:
            raise ConfigError(
                f"{flag} goes with --suite alone", fix="leave it out; finished conditions are always kept"
            )
    every = names == ["all"]
    result = progress.evaluate_with_progress(
        runs,
        test,
        seeds=chosen or [0, 1, 2],
        conditions=CONDITIONS if every else DEFAULT_CONDITIONS if names is None else names,
        leave_out=every,
        limit=limit,
        max_shots=shots,
        probe_layer=probe_layer,
        sweep=sweep_layers,
        gold_column=gold_column,
        gold_data=gold,
    )
    console.show_evaluation(result, as_json=as_json)


def audit_command(
    run: Annotated[Path, typer.Argument(help="Run folder of 'elicitor label'.")],
    seeds: Annotated[str | None, typer.Option(help="Search again with these seeds, such as 1,2, and compare.")] = None,
    against: Annotated[
        list[Path] | None, typer.Option(help="Run of another seed or model on the same data; may be repeated.")
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="Column that might be what was found instead; may be repeated.")
    ] = None,
    orders: Annotated[int, typer.Option(help="Orders of the demonstrations in which to ask again.")] = 4,
    abstain: Annotated[
        bool, typer.Option("--abstain", help="Write indeterminate examples to abstained.jsonl.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Look for failed elicitation, without gold.

    Collapse to one label, trivial or swapped concepts, noise, instability: ok, look or failed for each.
    """
    from elicitor import console, progress

    result = progress.audit_with_progress(
        run,
        seeds=[] if seeds is None else numbers("--seeds", seeds),
        against=against or [],
        columns=column or [],
        orders=orders,
        abstain=abstain,
    )
    console.show_audit(result, as_json=as_json)


def ablate_command(
    data: Annotated[str, typer.Argument(help="Examples with gold labels: a file, or hf:NAME@SPLIT.")],
    task: Annotated[str | None, typer.Option(help="A built-in task or a YAML file.")] = None,
    model: Annotated[str | None, typer.Option(help="Model name; see 'elicitor models'.")] = None,
    search: Annotated[str | None, typer.Option(help="Search of the base [default: icm].")] = None,
    init: Annotated[str | None, typer.Option(help="First labels: random, golden, wrong, zero_shot.")] = None,
    consistency: Annotated[str | None, typer.Option(help="Whether the task's constraint counts: on, off.")] = None,
    alpha: Annotated[str | None, typer.Option(help="Weights of mutual predictability, such as 10,50,100.")] = None,
    num_seed_examples: Annotated[str | None, typer.Option(help="Numbers of first labels (K), such as 2,8,32.")] = None,
    calibration: Annotated[str | None, typer.Option(help="Calibration: none, batch.")] = None,
    plan: Annotated[str | None, typer.Option(help="Contexts: tree, in_order, folds, sampled.")] = None,
    verbalizers: Annotated[str | None, typer.Option(help="Label words, such as No/Yes,wrong/right.")] = None,
    balance: Annotated[str | None, typer.Option(help="Shares of positive examples in the pool: 0.1,0.5,0.9.")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds of the searches.")] = "0,1,2",
    limit: Annotated[int | None, typer.Option(help="Use only the first rows.")] = None,
    output_dir: Annotated[
        Path | None, typer.Option("--output-dir", "-o", help="Folder [default: runs/ablation-TIME].")
    ] = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the ablation in --output-dir.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the cost, write nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Vary one thing at a time and compare with gold.

    Each flag is a list with commas; each value is one variant of the base setting.
    """
    from elicitor.config import build_config

    given = {
        "init": init,
        "consistency": consistency,
        "alpha": alpha,
        "num_seed_examples": num_seed_examples,
        "calibration": calibration,
        "plan": plan,
        "verbalizers": verbalizers,
        "balance": balance,
    }
    factors = {name: text.split(",") for name, text in given.items() if text is not None}
    if not factors:
        raise ConfigError("nothing to vary", fix="add a factor, such as --init random,golden,wrong,zero_shot")
    if resume and output_dir is None:
        raise ConfigError("--resume needs to know the ablation", fix="add --output-dir FOLDER")
    flags = {"data": data, "task": task, "model": model, "search": search, "limit": limit}
    # What is varied are choices of the paper's search, unless another one is asked for.
    base = build_config(file=config, flags=flags, overrides=overrides or [], defaults={"search": "icm"})
    chosen = numbers("--seeds", seeds)
    from elicitor import console, progress

    if dry_run:
        from elicitor.ablation import make_variants

        searches = len(make_variants(base, factors)) * len(chosen)
        console.show_ablation_cost(progress.estimate_with_progress(base), searches=searches, as_json=as_json)
        return
    folder = output_dir or Path("runs") / f"ablation-{now()}"
    result = progress.ablate_with_progress(base, factors, folder, seeds=chosen, resume=resume)
    console.show_ablation(result, as_json=as_json)

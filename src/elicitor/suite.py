"""One file, all tasks, all conditions: the comparison of Wen et al. 2025 (figures 3 to 8) on any model.

For each task rows are drawn, labels are searched once for each seed, and every condition that applies is asked on the same
test rows. Searches resume from their last step and finished conditions are kept, so a killed suite goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from elicitor.backends.base import Backend, OnPart, OnStage, Progress
from elicitor.baselines import CONDITIONS, Condition, check_conditions
from elicitor.config import RunConfig, check_seeds, parse_config
from elicitor.errors import ConfigError, ResumeMismatchError
from elicitor.evaluation import Evaluation, evaluate
from elicitor.figures import bar_figure, require_matplotlib
from elicitor.files import changed_key, is_plain_name, make_folder, read_json, stray_entry, write_atomic, write_json
from elicitor.labelling import run
from elicitor.models import load_backend
from elicitor.pooled import run_on_pool
from elicitor.suite_rows import draw_rows, write_drawn
from elicitor.tables import evaluation_markdown, overview_markdown, to_csv, to_latex
from elicitor.tasks import load_task, resolve_task
from elicitor.yaml_files import read_mapping

if TYPE_CHECKING:
    from elicitor.distributed import WorkerPool

SETTINGS = "suite.json"
RESULTS = "results"
"""Stem of the files with the tables and the figure."""


class _Declared(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SuiteTask(_Declared):
    """One task of a suite."""

    name: str | None = Field(None, description="folder and heading; the task's name if left out")
    task: str | dict[str, Any] = Field(description="task name, YAML file, or the declaration itself")
    data: str = Field(description="examples to label, with gold for the comparison")
    test: str | None = Field(None, description="test examples with gold; if left out, other rows of data")
    limit: int | None = Field(None, ge=2, description="rows to label at most; the suite's limit holds as well")
    test_limit: int | None = Field(None, ge=2, description="test rows at most; the suite's test_limit holds as well")
    conditions: Literal["all"] | tuple[str, ...] | None = Field(None, description="the suite's if left out")
    label: dict[str, Any] = Field(
        {}, description="settings of 'elicitor label' for this task alone, section by section"
    )


class SuiteConfig(_Declared):
    """Everything that decides a suite."""

    tasks: tuple[SuiteTask, ...] = Field(min_length=1, description="what is compared")
    model: str = Field("bundled", description="model name")
    conditions: Literal["all"] | tuple[str, ...] = Field("all", description="rows of the table; all that apply")
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1, description="seeds of searches, orders and random labels")
    limit: int | None = Field(None, ge=2, description="rows to label of each task; none: all")
    test_limit: int | None = Field(None, ge=2, description="test rows of each task; none: all")
    max_shots: int | None = Field(None, ge=1, description="demonstrations in a context; none: as many as fit")
    sample_seed: int = Field(0, ge=0, description="seed by which rows are drawn")
    label: dict[str, Any] = Field({}, description="settings of 'elicitor label', such as search or objective")


@dataclass(frozen=True, slots=True)
class Suite:
    """Result of `run_suite`.

    Attributes:
        folder: Where everything is.
        names: Name of each task.
        evaluations: One for each task.
    """

    folder: Path
    names: list[str]
    evaluations: list[Evaluation]


def read_suite(file: Path, *, only: Sequence[str] | None = None, **overrides: Any) -> SuiteConfig:
    """Read a suite file.

    Args:
        file: YAML with the keys of `SuiteConfig`.
        only: Names of the tasks to keep, in the file's order; None keeps all.
        **overrides: Values that win over the file's, by key; None means not given. ``limit`` and ``test_limit`` are upper
            bounds: a task whose own limit is lower keeps it.

    Returns:
        The checked suite.

    Raises:
        ConfigError: If the file cannot be read, a key or a name is unknown or a value is wrong.
    """
    values = read_mapping(file, error=ConfigError, hint="write 'tasks:' and one entry for each")
    given = {key: value for key, value in overrides.items() if value is not None}
    try:
        config = SuiteConfig.model_validate(values | given)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{file}: {key}: {first['msg']}", fix="docs/evaluation.md shows a suite file") from error
    for conditions in (config.conditions, *(entry.conditions for entry in config.tasks)):
        if conditions not in ("all", None):
            check_conditions(conditions)
    check_seeds(config.seeds)
    names = task_names(config)
    for name in names:
        if not is_plain_name(name):
            raise ConfigError(f"{file}: {name!r} cannot be the name of a folder", fix="give the task another 'name'")
    if len(set(names)) < len(names):
        raise ConfigError(f"{file}: two tasks are called {max(names, key=names.count)!r}", fix="give each a 'name'")
    if only is None:
        return config
    if not only:
        raise ConfigError("no task is chosen", fix=f"give names of its tasks, such as {names[0]}")
    if unknown := [name for name in only if name not in names]:
        raise ConfigError(f"{file} has no task {unknown[0]!r}", fix=f"its tasks are {', '.join(names)}")
    kept = tuple(entry for name, entry in zip(names, config.tasks, strict=True) if name in only)
    return config.model_copy(update={"tasks": kept})


def task_names(config: SuiteConfig) -> list[str]:
    """Name of each task of a suite: folder, heading and bar."""
    return [entry.name or load_task(entry.task).name for entry in config.tasks]


def run_suite(
    config: SuiteConfig,
    folder: Path,
    *,
    resume: bool = False,
    command: str | None = None,
    backend: Backend | None = None,
    pool: WorkerPool | None = None,
    on_progress: Progress | None = None,
    on_stage: OnStage | None = None,
    on_part: OnPart | None = None,
) -> Suite:
    """Run or resume a suite.

    Args:
        config: What is compared.
        folder: Where runs, finished conditions, tables and the figure go; new or empty unless ``resume``.
        resume: Go on with the suite in ``folder`` if there is one; tasks, conditions and seeds may be added to it.
        command: Command line, written beside the tables.
        backend: Use this loaded model instead of loading ``config.model``.
        pool: Do all searches, and the conditions of each task, on these workers, which load the model.
        on_progress: Called after each forward pass with its tokens.
        on_stage: Called with what begins now.
        on_part: Called with finished and all parts after each search and each evaluation.

    Returns:
        The evaluations; tables and figure are written to ``results.md``, ``.csv``, ``.tex``, ``.json`` and ``.png``.

    Raises:
        ElicitorError: If a file, setting or model cannot be used.
        ResumeMismatchError: If ``folder`` holds a suite with other settings.
    """
    prepared = prepare_suite(config, folder, resume=resume)
    if pool is None and backend is None:
        first = prepared[0].runs[0]
        backend = load_backend(config.model, on_stage=on_stage, **first.backend.model_dump())
    parts = len(prepared) * (len(config.seeds) + 1)
    done = 0
    evaluations = []
    if pool is not None:
        searches = [
            (settings, part.folder / f"seed-{seed}")
            for part in prepared
            for seed, settings in zip(config.seeds, part.runs, strict=True)
        ]

        def searched(batches: int, all_batches: int) -> None:
            if on_part:
                on_part(batches * len(searches) // all_batches, parts)

        pooled = iter(
            run_on_pool(searches, pool, resume=True, on_progress=on_progress, on_stage=on_stage, on_part=searched)
        )
        done = len(searches)
    for part in prepared:
        found = []
        for seed, settings in zip(config.seeds, part.runs, strict=True):
            if pool is not None:
                found.append(next(pooled))
                continue
            if on_stage:
                on_stage(f"{part.name}: search with seed {seed}")
            place = part.folder / f"seed-{seed}"
            found.append(run(settings, place, resume=True, backend=backend, on_progress=on_progress))
            done += 1
            if on_part:
                on_part(done, parts)
        evaluations.append(
            evaluate(
                found,
                part.test,
                seeds=config.seeds,
                conditions=part.conditions,
                leave_out=True,
                max_shots=config.max_shots,
                backend=backend,
                pool=pool,
                folder=part.folder,
                on_progress=on_progress,
                on_stage=None if on_stage is None else _prefixed(on_stage, part.name),
            )
        )
        done += 1
        if on_part:
            on_part(done, parts)
    suite = Suite(folder=folder, names=[part.name for part in prepared], evaluations=evaluations)
    write_results(suite, config, command=command)
    return suite


@dataclass(frozen=True, slots=True)
class PreparedTask:
    """One task of a suite, its rows drawn and written.

    Attributes:
        name: Name in the suite.
        folder: Where its runs go.
        test: File with the test rows.
        runs: Settings of each search, one a seed.
        conditions: Rows of its table.
    """

    name: str
    folder: Path
    test: Path
    runs: list[RunConfig]
    conditions: tuple[Condition, ...]


def prepare_suite(config: SuiteConfig, folder: Path, *, resume: bool) -> list[PreparedTask]:
    """Check the settings, draw the rows of every task and write them.

    Args:
        config: What is compared.
        folder: Folder of the suite.
        resume: Whether the folder may hold this suite already.

    Returns:
        What to run.

    Raises:
        ElicitorError: If a file or setting cannot be used, or the folder is in use; nothing has been written then.
    """
    require_matplotlib()
    plan = []
    for entry, name in zip(config.tasks, task_names(config), strict=True):
        place = folder / name
        values = {"model": config.model, **_merged(config.label, entry.label)}
        values |= {"task": resolve_task(entry.task), "data": str(place / "label.jsonl")}
        runs = [parse_config(values | {"seed": seed}, source=f"suite task {name!r}") for seed in config.seeds]
        limits = _lower(entry.limit, config.limit), _lower(entry.test_limit, config.test_limit)
        rng = np.random.default_rng(config.sample_seed)
        drawn = draw_rows(entry.data, load_task(entry.task), test=entry.test, limits=limits, rng=rng)
        conditions = config.conditions if entry.conditions is None else entry.conditions
        chosen = CONDITIONS if conditions == "all" else check_conditions(conditions)
        plan.append((PreparedTask(name, place, place / "test.jsonl", runs, chosen), drawn))
    for part, _ in plan:
        own, first = part.runs[0], plan[0][0].runs[0]
        if (own.model, own.backend) != (config.model, first.backend):
            raise ConfigError(
                f"task {part.name!r} names another model, or other settings of it, than the suite",
                fix="give 'model' and 'backend' for all tasks, or make a suite for each model",
            )
    settings = json.loads(config.model_dump_json())
    if (folder / SETTINGS).exists():
        if not resume:
            raise ConfigError(f"{folder} holds a suite", fix="add --resume to go on, or choose another --output-dir")
        before = read_json(folder / SETTINGS)
        if (key := changed_key(before, settings, growing=("tasks", "conditions", "seeds"))) is not None:
            raise ResumeMismatchError(
                f"the suite in {folder} was made with {key} = {before.get(key)!r}, now it is {settings[key]!r}",
                fix="give the same again, with more tasks, conditions or seeds if you like, or choose another --output-dir",
            )
    elif folder.exists() and (not folder.is_dir() or stray_entry(folder)):
        raise ConfigError(f"{folder} is not an empty folder", fix="choose another --output-dir")
    make_folder(folder)
    # First, because they make the folder this suite's: a kill before the next line leaves one that can be resumed.
    write_json(folder / SETTINGS, settings)
    for part, (rows, test_rows) in plan:
        make_folder(part.folder)
        write_drawn(part.folder / "label.jsonl", rows)
        write_drawn(part.test, test_rows)
    return [part for part, _ in plan]


def _merged(common: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of one task over those of the suite, section by section."""
    sections = {
        key for key in common.keys() & own.keys() if isinstance(common[key], dict) and isinstance(own[key], dict)
    }
    return {**common, **own, **{key: {**common[key], **own[key]} for key in sections}}


def _lower(own: int | None, common: int | None) -> int | None:
    """The lower one of two limits, where None is none."""
    given = [limit for limit in (own, common) if limit is not None]
    return min(given) if given else None


def _prefixed(on_stage: OnStage, name: str) -> OnStage:
    return lambda stage: on_stage(f"{name}: {stage}")


def write_results(suite: Suite, config: SuiteConfig, *, command: str | None) -> None:
    """Write tables and figure beside the runs."""
    import datetime

    from elicitor.manifest import package_versions

    stem = suite.folder / RESULTS
    versions = ", ".join(f"{name} {version}" for name, version in package_versions().items())
    lines = ["# Results", ""]
    if command:
        lines += ["```sh", command, "```", ""]
    lines += [
        f"{datetime.date.today().isoformat()}; model {config.model}; {versions}.",
        "",
        "Accuracy with 95% intervals (bootstrap over groups and seeds), under the calibration of each run.",
        "",
        overview_markdown(suite.evaluations, suite.names),
        f"![accuracy by task and condition]({RESULTS}.png)",
        "",
    ]
    for name, result in zip(suite.names, suite.evaluations, strict=True):
        lines += [f"## {name}", "", evaluation_markdown(result)]
    write_atomic(stem.with_suffix(".md"), "\n".join(lines))
    write_atomic(stem.with_suffix(".csv"), to_csv(suite.evaluations, suite.names))
    write_atomic(stem.with_suffix(".tex"), to_latex(suite.evaluations, suite.names))
    write_json(
        stem.with_suffix(".json"),
        {name: asdict(result) for name, result in zip(suite.names, suite.evaluations, strict=True)},
    )
    bar_figure(suite.evaluations, suite.names, stem.with_suffix(".png"))

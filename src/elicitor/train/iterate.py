"""The paper's loop: label a batch, fine-tune on all labels so far, label the next batch with that model (section 2.3).

Read `iterate`. The first batch is labelled by the pretrained model M_0; M_j is M_0 fine-tuned on batches 1 to j and labels
batch j + 1; in the end one model is trained on everything. Every stage is a labelling run or a training with a folder of its
own, so each resumes by itself. A model is removed once the batch that it labels is done: at most two are on disk.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from elicitor.backends.base import OnPart, OnStage, Progress
from elicitor.config import RunConfig
from elicitor.data import Dataset, identified_rows, load_dataset
from elicitor.dry_run import estimate
from elicitor.errors import ConfigError
from elicitor.files import read_rows, write_atomic, write_json, write_rows
from elicitor.inputs import task_of
from elicitor.labelling import Observer, Run, load_run, prepare, run
from elicitor.runs import CONFIG, EVENTS, LABELS, MANIFEST, METRICS, read_manifest
from elicitor.tasks import Task, resolve_task
from elicitor.train.cost import training_cost
from elicitor.train.folder import finish, is_finished, refuse_several_processes, training_folder
from elicitor.train.sft import Labelled, SftSettings, Trained, fit

if TYPE_CHECKING:
    from elicitor.train.lora import OnTrainStep

RUN = "run"
MODEL = "model"


@dataclass(frozen=True, slots=True)
class Iterated:
    """A finished loop.

    Attributes:
        folder: Its folder.
        run: All labels as one run, for ``eval``, ``audit``, ``export`` and ``train``.
        trained: The model trained on all of them.
        batches: Examples of each batch.
    """

    folder: Path
    run: Run
    trained: Trained
    batches: list[int]


def iterate(
    config: RunConfig,
    output_dir: str | Path,
    *,
    settings: SftSettings | None = None,
    resume: bool = False,
    observer: Observer | None = None,
    on_step: OnTrainStep | None = None,
    on_progress: Progress | None = None,
    on_stage: OnStage | None = None,
    on_part: OnPart | None = None,
) -> Iterated:
    """Label and fine-tune in turns.

    Args:
        config: Settings of the labelling; ``batch_size`` is the size of a batch, ``model`` is M_0.
        output_dir: Folder for everything; new or empty unless ``resume``.
        settings: Settings of the trainings.
        resume: Go on with the loop in ``output_dir``.
        observer: Told of each step of a search.
        on_step: Told of each optimizer step.
        on_progress: Called after each forward pass of labelling with its tokens.
        on_stage: Called with what begins now.
        on_part: Called with finished and all stages after each one.

    Returns:
        The labels as one run, and the final model.

    Raises:
        ElicitorError: If settings, data, task or model cannot be used, or there is but one batch.
    """
    refuse_several_processes("train iterate")
    settings = settings or SftSettings()
    folder = Path(output_dir)
    config = config.model_copy(update={"task": resolve_task(config.task)})
    task = task_of(config)
    dataset = load_dataset(config.data, task, limit=config.limit)
    parts = _parts(config, dataset)
    made_from = {
        "kind": "iterate",
        "data": dataset.fingerprint,
        "config": config.model_dump(mode="json", exclude={"data"}),
        "settings": settings.model_dump(mode="json", exclude={"report_to", "checkpoint_steps"}),
    }
    stages = 2 * len(parts)
    with training_folder(folder, made_from, resume=resume):
        loop = _Loop(config, settings, folder, task, dataset, parts)
        for j in range(len(parts)):
            if on_stage:
                on_stage(f"labelling batch {j + 1} of {len(parts)}")
            if not loop.is_labelled(j):
                model = config.model if j == 0 else loop.train(j, on_step=on_step, on_stage=on_stage).model
                if j > 0 and on_part:
                    on_part(2 * j, stages)
                loop.label(j, model, observer=observer, on_progress=on_progress)
            shutil.rmtree(loop.model_folder(j), ignore_errors=True)
            if on_part:
                on_part(2 * j + 1, stages)
        done = loop.join()
        if on_stage:
            on_stage("training on all labels")
        trained = loop.train(len(parts), on_step=on_step, on_stage=on_stage)
        if not is_finished(folder):
            finish(folder, {"model": trained.model, "run": str(done.path), "batches": [len(part) for part in parts]})
        if on_part:
            on_part(stages, stages)
    return Iterated(folder, done, trained, [len(part) for part in parts])


@dataclass(frozen=True, slots=True)
class IterateCost:
    """Estimate of a loop.

    Attributes:
        batches: Examples of each batch.
        label_tokens: Least and most tokens of all labelling, as a single search in batches of this size would need.
        label_seconds: Least and most time of it.
        train_tokens: Tokens of all trainings.
        train_seconds: Time of them.
        train_rate: Tokens a second, measured in two steps.
    """

    batches: list[int]
    label_tokens: tuple[int, int]
    label_seconds: tuple[float, float]
    train_tokens: int
    train_seconds: float
    train_rate: float

    def to_json(self) -> dict[str, Any]:
        """The estimate as JSON values."""
        return asdict(self)


def iterate_cost(config: RunConfig, *, settings: SftSettings, on_stage: OnStage | None = None) -> IterateCost:
    """Count what a loop would cost, writing nothing.

    Args:
        config: Settings of the labelling.
        settings: Settings of the trainings.
        on_stage: Called with what begins now.

    Returns:
        The estimate.

    Raises:
        ElicitorError: If settings, data, task or model cannot be used, or there is but one batch.
    """
    task = task_of(config)
    dataset = load_dataset(config.data, task, limit=config.limit)
    parts = _parts(config, dataset)
    one = estimate(prepare(config, on_stage=on_stage))
    # Which label it is changes the tokens of a row by next to nothing.
    guessed = Labelled(task, dataset, dict.fromkeys(range(len(dataset)), 0), "none")
    trained = training_cost(guessed, model=config.model, settings=settings, on_stage=on_stage)
    share = sum((len(parts) - j) * len(part) for j, part in enumerate(parts)) / len(dataset)
    assert one.seconds is not None  # only a model behind a server has no known rate, and none of those can be trained
    return IterateCost(
        batches=[len(part) for part in parts],
        label_tokens=one.tokens,
        label_seconds=one.seconds,
        train_tokens=round(trained.tokens * share),
        train_seconds=trained.seconds * share,
        train_rate=trained.tokens_per_second,
    )


def _parts(config: RunConfig, dataset: Dataset) -> list[list[int]]:
    """Batches of a loop; `split` says how.

    Raises:
        ConfigError: If there is but one, or labels of the whole data are given to start with.
    """
    if config.start_labels is not None:
        raise ConfigError(
            f"{config.search}.start_labels gives labels of the whole data, and each batch is a search of its own",
            fix="leave it out, or use 'elicitor label' and 'elicitor train sft'",
        )
    parts = split(dataset, batch_size=config.batch_size, rng=np.random.default_rng(config.seed))
    if len(parts) < 2:
        raise ConfigError(
            f"{len(dataset)} examples are one batch of {config.batch_size}, so there is nothing to iterate",
            fix="set --batch-size lower, or use 'elicitor label' and 'elicitor train sft'",
        )
    return parts


def split(dataset: Dataset, *, batch_size: int, rng: np.random.Generator) -> list[list[int]]:
    """Deal whole groups into batches.

    Args:
        dataset: The examples.
        batch_size: Examples of a batch, at most; a larger group is a batch of its own.
        rng: Deals.

    Returns:
        Positions of each batch, ascending.
    """
    groups = dataset.groups()
    batches: list[list[int]] = []
    for number in rng.permutation(len(groups)).tolist():
        members = list(groups[number])
        if batches and len(batches[-1]) + len(members) <= batch_size:
            batches[-1] += members
        else:
            batches.append(members)
    return [sorted(batch) for batch in batches]


@dataclass(frozen=True, slots=True)
class _Loop:
    """The stages and where they live; batches are counted from 0, model j is trained on batches before j."""

    config: RunConfig
    settings: SftSettings
    folder: Path
    task: Task
    dataset: Dataset
    parts: Sequence[Sequence[int]]

    def run_folder(self, j: int) -> Path:
        return self.folder / f"batch-{j:03d}"

    def model_folder(self, j: int) -> Path:
        return self.folder / (MODEL if j == len(self.parts) else f"model-{j:03d}")

    def is_labelled(self, j: int) -> bool:
        return (self.run_folder(j) / METRICS).is_file()

    def label(self, j: int, model: str, *, observer: Observer | None, on_progress: Progress | None) -> None:
        data = self.folder / f"batch-{j:03d}.jsonl"
        if not data.is_file():
            write_rows(data, _unlabelled_rows(self.config, self.task, self.parts[j]))
        config = self.config.model_copy(update={"data": str(data), "limit": None, "model": model})
        run(config, self.run_folder(j), resume=True, observer=observer, on_progress=on_progress)

    def train(self, j: int, *, on_step: OnTrainStep | None, on_stage: OnStage | None) -> Trained:
        """M_j: M_0 fine-tuned on the labels of all batches before j."""
        found = {item.id: item.label for k in range(j) for item in load_run(self.run_folder(k)).labels}
        space = self.dataset.label_space
        examples = self.dataset.examples
        labels = {i: space.index(found[example.id]) for i, example in enumerate(examples) if example.id in found}
        return fit(
            Labelled(self.task, self.dataset, labels, "found"),
            self.model_folder(j),
            model=self.config.model,
            settings=self.settings,
            resume=True,
            on_step=on_step,
            on_stage=on_stage,
        )

    def join(self) -> Run:
        """All batches as one run folder; its metrics are written last."""
        path = self.folder / RUN
        if (path / METRICS).is_file():
            return load_run(path)
        path.mkdir(exist_ok=True)
        runs = [load_run(self.run_folder(j)) for j in range(len(self.parts))]
        by_id = {item.id: (item, j) for j, done in enumerate(runs) for item in done.labels}
        manifests = [read_manifest(done.path) for done in runs]
        identity = {**manifests[0]["identity"], "data": self.dataset.fingerprint}
        models = [manifest["identity"]["model"] for manifest in manifests]
        write_atomic(path / CONFIG, self.config.to_yaml())
        write_json(
            path / MANIFEST,
            {**manifests[0], "identity": identity, "examples": len(self.dataset), "models_of_batches": models},
        )
        write_rows(path / EVENTS, (event for done in runs for event in read_rows(done.path / EVENTS)))
        ordered = [by_id[example.id] for example in self.dataset.examples]
        write_rows(path / LABELS, [asdict(replace(item, batch=j)) for item, j in ordered])
        write_json(path / METRICS, joined_metrics([done.metrics for done in runs]))
        return load_run(path)


def joined_metrics(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Metrics of several runs as those of one: counts and costs add up, batches are numbered anew."""

    def total(section: str) -> dict[str, Any]:
        return {name: sum(one[section][name] for one in metrics) for name in metrics[0][section]}

    batches = [batch for one in metrics for batch in one["batches"]]
    return {
        "n_examples": sum(one["n_examples"] for one in metrics),
        "labels": total("labels"),
        "filled": sum(one["filled"] for one in metrics),
        "proposals": total("proposals"),
        "label_mass": sum(one["label_mass"] * one["cost"]["prompts"] for one in metrics)
        / max(1, sum(one["cost"]["prompts"] for one in metrics)),
        "warnings": [warning for one in metrics for warning in one["warnings"]],
        "cost": total("cost"),
        "batches": [{**batch, "batch": number} for number, batch in enumerate(batches)],
    }


def _unlabelled_rows(config: RunConfig, task: Task, positions: Sequence[int]) -> list[dict[str, Any]]:
    """Rows of some examples with the columns that labelling reads, and no other: gold stays where it is."""
    rows = list(identified_rows(config.data, task, limit=config.limit))
    wanted = [*task.fields, task.group_column, *task.key_columns, task.negated_column]
    width = 1 if task.mirror is None else 2
    chosen = sorted({position // width for position in positions})
    return [
        {task.id_column: example_id, **{name: row.values[name] for name in wanted if name and name in row.values}}
        for row, example_id in (rows[k] for k in chosen)
    ]

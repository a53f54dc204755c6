"""The main job: unlabelled examples in, coherent labels out, in a run folder that survives any kill.

`label` is what ``elicitor label`` calls. Gold labels are read by `elicitor.evaluation` alone, never here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from elicitor.backends.base import Backend, Cost, OnStage, Progress
from elicitor.config import RunConfig, build_config
from elicitor.consistency import Constraints
from elicitor.data import Dataset, load_dataset
from elicitor.errors import ConfigError, DataError
from elicitor.models import load_backend
from elicitor.objective import Meter, Problem
from elicitor.prompts import PromptEncoder, fit_batches
from elicitor.readers import read_rows as read_data_rows
from elicitor.runs import (
    EVENTS,
    LABELS,
    METRICS,
    Checkpoint,
    RunFolder,
    build_manifest,
    load_run_config,
    read_json,
    read_rows,
    refuse_used,
    write_json,
    write_rows,
)
from elicitor.search import FoundLabel, finish, make_search
from elicitor.search.events import AnyEvent
from elicitor.search.state import SearchState
from elicitor.tasks import Task, load_task, resolve_task


@dataclass(frozen=True, slots=True)
class Step:
    """What an observer of a run is told after each step.

    Attributes:
        events: What happened.
        state: Where the search stands.
        budget: Steps at most in this batch.
        batch: Number of the batch, from 0.
        n_batches: Number of batches.
        n_examples: Examples in this batch.
        meter: Cost of the run so far.
    """

    events: list[AnyEvent]
    state: SearchState
    budget: int
    batch: int
    n_batches: int
    n_examples: int
    meter: Meter


Observer = Callable[[Step], None]


@dataclass(frozen=True, slots=True)
class Run:
    """A finished labelling run.

    Attributes:
        path: Its folder.
        labels: One label an example, in the order of the data.
        metrics: Content of ``metrics.json``: cost, utility, acceptance, class shares.
    """

    path: Path
    labels: list[FoundLabel]
    metrics: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Workload:
    """A run's inputs, loaded and checked, nothing written yet.

    Attributes:
        config: Resolved settings.
        task: What is asked of each example.
        dataset: Unlabelled examples.
        backend: The model.
        batches: Positions of each batch; whole groups, ascending.
        start_labels: Label index by example id that the search may start with, from the file that the settings name.
    """

    config: RunConfig
    task: Task
    dataset: Dataset
    backend: Backend
    batches: tuple[tuple[int, ...], ...]
    start_labels: Mapping[str, int]

    def problem(self, batch: int, *, meter: Meter, on_progress: Progress | None = None) -> Problem:
        """The labelling problem of one batch."""
        dataset = self.dataset.subset(self.batches[batch])
        return Problem(
            dataset=dataset,
            encoder=PromptEncoder(self.backend.tokenizer, self.task, dataset),
            constraints=Constraints.from_dataset(dataset, self.task.constraint if self.config.consistency else ()),
            backend=self.backend,
            objective=self.config.objective,
            plan=self.config.plan,
            meter=meter,
            on_progress=on_progress,
            start_labels={
                i: self.start_labels[e.id] for i, e in enumerate(dataset.examples) if e.id in self.start_labels
            },
        )

    def generator(self, batch: int) -> np.random.Generator:
        """Source of a batch's random choices; batches do not depend on one another."""
        return np.random.default_rng([self.config.seed, batch])


def label(
    data: str | Path,
    *,
    task: str | Mapping[str, Any],
    output_dir: str | Path,
    model: str = "bundled",
    seed: int = 0,
    resume: bool = False,
    **settings: Any,
) -> Run:
    """Find coherent labels for unlabelled examples.

    Args:
        data: JSONL, CSV, TSV or Parquet file, or ``hf:NAME@SPLIT``.
        task: Built-in task name, YAML file, or the declaration as a mapping.
        output_dir: Run folder to write; must be new or empty unless ``resume``.
        model: Model name; see ``elicitor models``.
        seed: Seed of every random choice.
        resume: Go on with the run in ``output_dir`` if there is one.
        **settings: Any other key of `RunConfig`; sections as mappings, such as ``objective={"calibration": "batch"}``.

    Returns:
        The finished run.

    Raises:
        ElicitorError: If settings, data, task or model cannot be used; nothing has been written then.
    """
    flags = {"data": str(data), "task": task, "model": model, "seed": seed, **settings}
    return run(build_config(flags=flags), Path(output_dir), resume=resume)


def task_of(config: RunConfig) -> Task:
    """The task of a run, with the verbalizers that its settings name.

    Raises:
        TaskError: If the task is unknown or the verbalizers do not fit its labels.
    """
    return load_task(config.task).with_verbalizers(config.verbalizers)


def prepare(config: RunConfig, *, backend: Backend | None = None, on_stage: OnStage | None = None) -> Workload:
    """Load and check everything a run needs, writing nothing.

    Args:
        config: Settings.
        backend: Use this loaded model instead of loading ``config.model``.
        on_stage: Called when the model begins to load, after settings, task and data have been checked.

    Returns:
        The workload.

    Raises:
        ElicitorError: If settings, data, task or model cannot be used.
    """
    config = config.model_copy(update={"task": resolve_task(config.task)})
    task = task_of(config)
    dataset = load_dataset(config.data, task, limit=config.limit)
    prior = config.objective.class_prior
    if prior is not None and len(prior) != len(dataset.label_space):
        raise ConfigError(
            f"objective.class_prior has {len(prior)} shares for {len(dataset.label_space)} labels",
            fix=f"give one share for each of {', '.join(dataset.label_space.labels)}",
        )
    if backend is None:
        backend = load_backend(config.model, on_stage=on_stage, **config.backend.model_dump())
    encoder = PromptEncoder(backend.tokenizer, task, dataset)
    shots = config.plan.max_demonstrations if config.plan.kind == "sampled" else None
    batches = fit_batches(
        encoder,
        batch_size=config.batch_size,
        max_context_tokens=backend.max_context_tokens,
        policy=config.context_policy,
        max_demonstrations=shots,
        rng=np.random.default_rng(config.seed),
    )
    return Workload(config, task, dataset, backend, batches, _start_labels(config, dataset))


def _start_labels(config: RunConfig, dataset: Dataset) -> dict[str, int]:
    """Labels that the settings give the search to start with, by example id; other ids are refused."""
    file = (config.gibbs if config.search == "gibbs" else config.icm).start_labels
    if file is None:
        return {}
    known = {example.id for example in dataset.examples}
    labels = {}
    for row in read_data_rows(file):
        name, label = row.values.get("id"), row.values.get("label")
        if name not in known:
            raise DataError(f"{row.location}: id {name!r} is not in {dataset.source}", fix="give ids of the data")
        labels[str(name)] = dataset.label_space.index(str(label))
    return labels


def run(
    config: RunConfig,
    output_dir: Path,
    *,
    resume: bool = False,
    backend: Backend | None = None,
    observer: Observer | None = None,
    on_progress: Progress | None = None,
    on_stage: OnStage | None = None,
) -> Run:
    """Run or resume a labelling run.

    Args:
        config: Settings.
        output_dir: Run folder.
        resume: Go on with the run in ``output_dir`` if there is one.
        backend: Use this loaded model instead of loading ``config.model``.
        observer: Called after each step.
        on_progress: Called after each forward pass with its tokens.
        on_stage: Called when the model begins to load and when the search begins.

    Returns:
        The finished run.

    Raises:
        ElicitorError: If settings, data, task or model cannot be used; nothing has been written then.
    """
    if not resume:
        refuse_used(output_dir)
    workload = prepare(config, backend=backend, on_stage=on_stage)
    manifest = build_manifest(
        data_fingerprint=workload.dataset.fingerprint,
        model_fingerprint=workload.backend.fingerprint,
        model={"name": workload.backend.name, "max_context_tokens": workload.backend.max_context_tokens},
        start_labels=dict(workload.start_labels),
    )
    opened = RunFolder.resume if resume else RunFolder.create
    workload.backend.forget()
    with opened(output_dir, workload.config, manifest) as folder:
        if on_stage:
            on_stage(f"searching, {len(workload.dataset)} examples in {len(workload.batches)} batches")
        for batch in range(folder.checkpoint().batch, len(workload.batches)):
            _search_batch(workload, folder, batch, observer=observer, on_progress=on_progress)
        return _conclude(workload, folder)


def load_run(path: Path) -> Run:
    """Read a finished run.

    Raises:
        ConfigError: If the folder is not a run.
        DataError: If the run has not finished.
    """
    load_run_config(path)
    labels = [FoundLabel(**row) for row in read_rows(path / LABELS)]
    return Run(path=path, labels=labels, metrics=read_json(path / METRICS))


def _search_batch(
    workload: Workload, folder: RunFolder, batch: int, *, observer: Observer | None, on_progress: Progress | None
) -> None:
    """Search one batch from its checkpoint to its labels, saving after each step."""
    saved = folder.checkpoint()
    meter = _meter_from_json(saved.meter)
    problem = workload.problem(batch, meter=meter, on_progress=on_progress)
    search = make_search(workload.config, batch=batch)
    rng = workload.generator(batch)

    def keep(state: SearchState, events: list[AnyEvent], *, done: bool = False) -> None:
        folder.append(event.to_json() for event in events)
        folder.save(
            Checkpoint(
                batch=batch + 1 if done else batch,
                state=None if done else state.to_json(),
                rng=None if done else dict(rng.bit_generator.state),
                meter=asdict(meter),
            )
        )
        if observer:
            observer(
                Step(
                    events=events,
                    state=state,
                    budget=search.budget(problem),
                    batch=batch,
                    n_batches=len(workload.batches),
                    n_examples=len(problem.dataset),
                    meter=meter,
                )
            )

    if saved.state is None or saved.rng is None:
        state, started = search.start(problem, rng=rng)
        keep(state, [started])
    else:
        state = SearchState.from_json(saved.state)
        rng.bit_generator.state = saved.rng
    while state.finished is None:
        state, events = search.step(problem, state, rng=rng)
        keep(state, events)

    searched = state
    state, found, events = finish(problem, searched, batch=batch, rng=rng)
    # The batch counts as done at the next line but two; a kill before it repeats `finish` from the same generator state.
    write_rows(folder.batch_labels(batch), [asdict(item) for item in found])
    write_json(folder.batch_metrics(batch), _batch_metrics(batch, searched, state))
    keep(state, events, done=True)


def _batch_metrics(batch: int, searched: SearchState, final: SearchState) -> dict[str, Any]:
    return {
        "batch": batch,
        "finished": searched.finished,
        "iterations": searched.iteration,
        "searched": len(searched.assignment.labelled),
        "filled": len(searched.assignment.unlabelled),
        "utility": final.utility.total,
        "predictability": final.utility.predictability,
        "inconsistency": final.utility.inconsistency,
    }


def _conclude(workload: Workload, folder: RunFolder) -> Run:
    """Join the batches into ``labels.jsonl`` and ``metrics.json``, then drop the parts."""
    numbers = range(len(workload.batches))
    if not (folder.path / METRICS).exists():
        by_id = {row["id"]: row for number in numbers for row in read_rows(folder.batch_labels(number))}
        labels = [by_id[example.id] for example in workload.dataset.examples]
        batches = [read_json(folder.batch_metrics(number)) for number in numbers]
        meter = _meter_from_json(folder.checkpoint().meter)
        write_rows(folder.path / LABELS, labels)
        write_json(folder.path / METRICS, _metrics(workload, labels, batches, meter, read_rows(folder.path / EVENTS)))
    for number in numbers:
        folder.batch_labels(number).unlink(missing_ok=True)
        folder.batch_metrics(number).unlink(missing_ok=True)
    return load_run(folder.path)


def _metrics(
    workload: Workload,
    labels: list[dict[str, Any]],
    batches: list[dict[str, Any]],
    meter: Meter,
    events: list[dict[str, Any]],
) -> dict[str, Any]:
    counts = Counter(row["label"] for row in labels)
    judged = [event for event in events if event["kind"] == "proposed" and event["utility_proposed"] is not None]
    return {
        "n_examples": len(labels),
        "labels": {name: counts[name] for name in workload.dataset.label_space.labels},
        "filled": sum(row["filled"] for row in labels),
        "proposals": {
            "made": sum(event["kind"] == "proposed" for event in events),
            "judged": len(judged),
            "accepted": sum(event["accepted"] for event in judged),
        },
        "warnings": [event["message"] for event in events if event["kind"] == "warned"],
        "cost": {
            **asdict(meter.cost),
            "evaluations": meter.evaluations,
            "in_order_tokens_same_events": meter.in_order_tokens,
            "naive_tokens_same_events": meter.naive_tokens,
        },
        "batches": batches,
    }


def _meter_from_json(values: Mapping[str, Any]) -> Meter:
    return Meter(**{**values, "cost": Cost(**values["cost"])}) if values else Meter()

"""The main job: unlabelled examples in, coherent labels out, in a run folder that survives any kill.

`label` is what ``elicitor label`` calls. Gold labels are read by `elicitor.evaluation` alone, never here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from elicitor.backends.base import Backend, OnStage, Progress
from elicitor.batch_search import BatchJob, BatchResult, BatchStep, meter_from_json, search_batch
from elicitor.batching import Batches
from elicitor.checkpoint import Checkpoint
from elicitor.config import RunConfig, build_config
from elicitor.control import between_steps, controlled, on_pause
from elicitor.data import Dataset
from elicitor.errors import DataError
from elicitor.files import read_json
from elicitor.inputs import Inputs, read_inputs
from elicitor.joining import join_batches, read_labels
from elicitor.manifest import build_manifest
from elicitor.models import load_backend
from elicitor.objective import Meter, Problem
from elicitor.prompts import PromptEncoder
from elicitor.runs import LABELS, METRICS, RunFolder, load_run_config, refuse_used
from elicitor.search import FoundLabel
from elicitor.search.events import AnyEvent
from elicitor.search.state import SearchState
from elicitor.shapes import Metrics
from elicitor.tasks import Task
from elicitor.tracking import tracked


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
        meter: Cost of the batch so far.
    """

    events: list[AnyEvent]
    state: SearchState
    budget: int
    batch: int
    n_batches: int
    n_examples: int
    meter: Meter


Observer = Callable[[Step], None]


@dataclass(frozen=True)
class Run:
    """A finished labelling run.

    Attributes:
        path: Its folder.
        metrics: Content of ``metrics.json``: cost, utility, acceptance, class shares.
    """

    path: Path
    metrics: dict[str, Any]

    @cached_property
    def labels(self) -> list[FoundLabel]:
        """One label an example, in the order of the data; read when first asked for.

        Raises:
            DataError: If the file is not as the run has written it.
        """
        names = [field.name for field in fields(FoundLabel)]
        return [FoundLabel(**{name: row[name] for name in names}) for row in read_labels(self.path, self.metrics)]


@dataclass(frozen=True, slots=True)
class Workload:
    """Inputs, the model that is to label them, and how they are divided; nothing is written yet.

    Attributes:
        inputs: Settings, task and data.
        backend: The model.
        batches: Positions of each batch; whole groups, ascending.
    """

    inputs: Inputs
    backend: Backend
    batches: Batches

    @property
    def config(self) -> RunConfig:
        """Resolved settings."""
        return self.inputs.config

    @property
    def task(self) -> Task:
        """What is asked of each example."""
        return self.inputs.task

    @property
    def dataset(self) -> Dataset:
        """Unlabelled examples."""
        return self.inputs.dataset

    def problem(self, batch: int, *, meter: Meter, on_progress: Progress | None = None) -> Problem:
        """The labelling problem of one batch."""
        job = self.inputs.job(batch, self.batches[batch])
        return job.problem(self.backend, meter=meter, on_progress=on_progress)


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
    inputs = read_inputs(config)
    if backend is None:
        backend = load_backend(config.model, on_stage=on_stage, **config.backend.model_dump())
    sizes = PromptEncoder(backend.tokenizer, inputs.task, inputs.dataset).sizes()
    return Workload(inputs, backend, inputs.batches(sizes, max_context_tokens=backend.max_context_tokens))


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
    """Run or resume a labelling run in this process; `elicitor.pooled.run_on_pool` does it on a cluster.

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
        Stopped: If another process asked the run to stop; see `elicitor.control`. It can be resumed.
    """
    if not resume:
        refuse_used(output_dir)
    workload = prepare(config, backend=backend, on_stage=on_stage)
    inputs, batches = workload.inputs, workload.batches
    with (
        open_folder(inputs, batches, ModelFacts.of(workload.backend), output_dir, resume=resume) as folder,
        controlled(output_dir),
        on_pause(lambda _: folder.save_kept()),
        tracked(config, output_dir) as track,
    ):
        observers = [tell for tell in (observer, track) if tell]
        if on_stage:
            on_stage(f"searching, {len(inputs.dataset)} examples in {len(batches)} batches")
        for batch in folder.left(len(batches)):
            job = inputs.job(batch, batches[batch], checkpoint=folder.checkpoint())
            keep_result(folder, _search_here(job, folder, workload, observers=observers, on_progress=on_progress))
            between_steps()
        return conclude(folder, inputs, batches)


def open_folder(inputs: Inputs, batches: Batches, model: ModelFacts, output_dir: Path, *, resume: bool) -> RunFolder:
    """Begin a run in a new folder, or open the folder of one that was begun; see `elicitor.runs.RunFolder`."""
    manifest = build_manifest(
        data_fingerprint=inputs.dataset.fingerprint,
        model_fingerprint=model.fingerprint,
        model={"name": model.name, "max_context_tokens": model.max_context_tokens},
        batches=batches,
        start_labels=dict(inputs.start_labels),
        supervision=inputs.supervision,
    )
    opened = RunFolder.resume if resume else RunFolder.create
    return opened(output_dir, inputs.config, manifest)


def keep_result(folder: RunFolder, result: BatchResult) -> None:
    """Write a finished batch."""
    folder.finish_batch(
        result.batch,
        events=(event.to_json() for event in result.last.events),
        labels=result.labels,
        metrics={"metrics": result.metrics, "meter": asdict(result.meter)},
    )


def conclude(folder: RunFolder, inputs: Inputs, batches: Batches) -> Run:
    """Join the finished batches of a run."""
    join_batches(folder, batches, inputs.dataset.label_space)
    return load_run(folder.path)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a run must know of its model, wherever that is.

    Attributes:
        name: As the user gave it.
        fingerprint: See `elicitor.backends.base.Backend.fingerprint`.
        max_context_tokens: Its window.
    """

    name: str
    fingerprint: str
    max_context_tokens: int

    @classmethod
    def of(cls, backend: Backend) -> ModelFacts:
        """The facts of a loaded model."""
        return cls(backend.name, backend.fingerprint, backend.max_context_tokens)


def load_run(path: str | Path) -> Run:
    """Read a finished run.

    Raises:
        ConfigError: If the folder is not a run.
        DataError: If the run has not finished.
    """
    path = Path(path)
    load_run_config(path)
    if not (path / LABELS).exists():
        raise DataError(f"{path / LABELS} does not exist", fix="finish the run with --resume, or check the folder")
    return Run(path=path, metrics=read_json(path / METRICS, shape=Metrics))


def _search_here(
    job: BatchJob,
    folder: RunFolder,
    workload: Workload,
    *,
    observers: Sequence[Observer],
    on_progress: Progress | None,
) -> BatchResult:
    """Search one batch in this process, keeping each step."""
    finished = folder.checkpoint().done

    def tell(step: BatchStep) -> None:
        for observer in observers:
            observer(
                Step(
                    events=step.events,
                    state=step.state,
                    budget=step.budget,
                    batch=job.batch,
                    n_batches=len(workload.batches),
                    n_examples=len(job.dataset),
                    meter=meter_from_json(step.moment.meter),
                )
            )

    def keep(step: BatchStep) -> None:
        folder.append(event.to_json() for event in step.events)
        moment = step.moment
        folder.keep(Checkpoint(finished, job.batch, state=moment.state, rng=moment.rng, meter=moment.meter))
        tell(step)
        between_steps()

    result = search_batch(job, workload.backend, on_step=keep, on_progress=on_progress)
    tell(result.last)
    return result

"""A model fine-tuned for as long as it takes to ask it about other examples: what search ``scalable`` trains."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elicitor.backends.base import Cost, Progress
from elicitor.batch_search import BatchJob
from elicitor.config import RunConfig
from elicitor.errors import BackendError, ConfigError
from elicitor.models import load_backend, locate
from elicitor.search.scalable import Tuned
from elicitor.train.folder import refuse_several_processes
from elicitor.train.settings import build_settings
from elicitor.train.sft import Labelled, SftSettings, fit

if TYPE_CHECKING:
    from elicitor.train.lora import TrainStep


def scalable_settings(config: RunConfig) -> SftSettings:
    """Settings of each training of a run, checked together with its model.

    Raises:
        ConfigError: If a setting of ``scalable.train`` is unknown or out of range, or names trackers.
        BackendError: If the model is none that can be trained here.
    """
    try:
        locate(config.model)
    except BackendError as error:
        raise BackendError(
            f"search scalable trains its model, which {config.model!r} cannot be: {error.problem}",
            fix="use bundled, hf:NAME, gguf:FILE, adapter:FOLDER or a folder",
        ) from error
    given: dict[str, Any] = {"seed": config.seed, **config.scalable.train}
    settings = build_settings(SftSettings, flags=given)
    if settings.report_to != "none":
        raise ConfigError(
            "scalable.train.report_to: each training's folder goes when its model has been asked",
            fix="use --report-to, which follows the search",
        )
    return settings


@contextmanager
def fine_tuned(job: BatchJob, labels: Mapping[int, int], *, on_progress: Progress | None = None) -> Iterator[Tuned]:
    """Fine-tune a run's model on labels, and drop the result afterwards.

    Args:
        job: Settings, task and examples.
        labels: Labels by position.
        on_progress: Called after each optimizer step with its tokens.

    Yields:
        The model, loaded as the run's own is.

    Raises:
        ElicitorError: If it cannot be trained.
    """
    refuse_several_processes("search scalable")

    def count(step: TrainStep) -> None:
        if on_progress:
            on_progress(step.tokens)

    with tempfile.TemporaryDirectory(prefix="elicitor-") as place:
        trained = fit(
            Labelled(job.task, job.dataset, labels, "found"),
            Path(place) / "model",
            model=job.config.model,
            settings=scalable_settings(job.config),
            on_step=count,
        )
        backend = load_backend(trained.model, **job.config.backend.model_dump())
        yield Tuned(backend, Cost(0, trained.result["tokens"], 0, trained.result["seconds"]))

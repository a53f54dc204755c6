"""What runs in a worker's process: it holds one model, and applies functions to it.

Errors that a user can act on come back as values: Ray would wrap what is raised, and might try it again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from elicitor import __version__
from elicitor.backends.base import Backend
from elicitor.batch_search import BatchJob, BatchResult, search_batch
from elicitor.errors import ConfigError, ElicitorError
from elicitor.inputs import Inputs
from elicitor.labelling import ModelFacts
from elicitor.manifest import SEARCH
from elicitor.models import load_backend
from elicitor.prompts import PromptEncoder, Sizes


def own_code() -> str:
    """Which elicitor this process runs: its release, and the number of how searches divide and draw."""
    return f"elicitor {__version__} (search {SEARCH})"


class Worker:
    """Holds the model."""

    def __init__(self) -> None:
        self._backend: Backend | None = None

    def load(self, model: str, settings: dict[str, Any], code: str) -> ModelFacts | ElicitorError:
        """Load the model, unless another elicitor than the driver's is installed here."""
        if code != own_code():
            return ConfigError(
                f"a worker has {own_code()}, and the driver {code}: their labels may differ",
                fix="install the same release on all nodes",
            )
        try:
            self._backend = load_backend(model, **settings)
        except ElicitorError as error:
            return error
        return ModelFacts.of(self._backend)

    def alive(self) -> bool:
        """Answer, if this process still can."""
        return True

    def call(self, function: Callable[[Backend, Any], Any], argument: Any) -> Any:
        """What a function of the model and an argument returns."""
        assert self._backend is not None  # the pool gives work to workers that have loaded
        try:
            return function(self._backend, argument)
        except ElicitorError as error:
            return error


def measure(backend: Backend, chunk: tuple[int, Inputs]) -> tuple[int, Sizes]:
    """Lengths of the prompts of a part of a data set, with the number of its first example."""
    number, inputs = chunk
    return number, PromptEncoder(backend.tokenizer, inputs.task, inputs.dataset).sizes()


def search(backend: Backend, job: BatchJob) -> BatchResult:
    """Search a batch and hand over its events together, in the result's last step."""
    events: list[Any] = []
    result = search_batch(job, backend, on_step=lambda step: events.extend(step.events))
    return replace(result, last=replace(result.last, events=[*events, *result.last.events]))

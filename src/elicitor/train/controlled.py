"""Control of a training between its optimizer steps, agreed on by all of its processes, and where it stands on disk.

Read `elicitor.control`: the first process alone holds the folder and looks; the others are told, because a process that
waited while another went on would be waited for in the next step.
"""

from __future__ import annotations

import time
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback

from elicitor.control import Stopped, asked, folders, stop_asked
from elicitor.files import write_json
from elicitor.runs import has_run
from elicitor.train.folder import PROGRESS

_WRITE_SECONDS = 0.5
"""Seconds between two versions of the progress file, at least."""


def from_first(value: Any) -> Any:
    """The first process's value, in every process."""
    state = PartialState()
    if state.num_processes == 1:
        return value
    return broadcast_object_list([value])[0]


def between_steps() -> None:
    """As `elicitor.control.between_steps`, in all processes at once.

    Raises:
        Stopped: If it is to stop.
    """
    if _stop_asked():
        raise Stopped


class ControlCallback(TrainerCallback):  # type: ignore[misc]
    """Waits while the training is paused, ends it with a checkpoint when it is to stop, and writes where it stands."""

    def __init__(self) -> None:
        self.stopped = False
        self._loss: float | None = None
        self._written = float("-inf")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Remember the newest loss."""
        self._loss = (logs or {}).get("loss", self._loss)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Look what is asked; a training whose last step is done ends by itself."""
        last = state.global_step >= state.max_steps
        # Whoever waits for a pause or an end looks where it has come to.
        if last or asked() or time.monotonic() - self._written >= _WRITE_SECONDS:
            self._written = time.monotonic()
            for folder in folders():
                if not has_run(folder):
                    write_json(
                        folder / PROGRESS, {"step": state.global_step, "steps": state.max_steps, "loss": self._loss}
                    )
        if not last and _stop_asked():
            self.stopped = True
            control.should_save = control.should_training_stop = True


def _stop_asked() -> bool:
    return stop_asked(lambda: from_first(asked()))

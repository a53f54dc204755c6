"""Search metrics in the trackers that TRL reports trainings to: trackio, TensorBoard and Weights & Biases."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elicitor.config import RunConfig, deciding_settings
from elicitor.errors import ConfigError
from elicitor.search.events import Event, Proposal

if TYPE_CHECKING:
    from elicitor.labelling import Step

PROJECT = "elicitor"
"""Project of searches and trainings alike, unless ``TRACKIO_PROJECT`` or ``WANDB_PROJECT`` names another."""
TENSORBOARD = "tensorboard"
"""Folder of TensorBoard's files in a run's or a training's folder."""
TRACKERS = ("trackio", TENSORBOARD, "wandb")
_PACKAGES = {TENSORBOARD: (TENSORBOARD, "tensorboardX")}
"""Packages of which a tracker needs one, where that is not its name."""


def tracker_names(report_to: str) -> list[str]:
    """Read a list of trackers.

    Args:
        report_to: Names with commas, or ``none``.

    Raises:
        ConfigError: If a name is unknown, or its package is not installed.
    """
    names = [name.strip() for name in report_to.split(",") if name.strip() not in ("", "none")]
    for name in names:
        if name not in TRACKERS:
            raise ConfigError(f"unknown tracker {name!r}", fix=f"use {', '.join(TRACKERS)}, or none")
        if not any(importlib.util.find_spec(package) for package in _PACKAGES.get(name, (name,))):
            raise ConfigError(f"tracker {name!r} needs {name}", fix=f"pip install {name}")
    return names


def project(tracker: str) -> str:
    """Project that a tracker files runs under."""
    return os.environ.get(f"{tracker.upper()}_PROJECT", PROJECT)


@contextlib.contextmanager
def tracked(config: RunConfig, folder: Path) -> Iterator[Callable[[Step], None] | None]:
    """Open the trackers that a run's settings name.

    Args:
        config: Settings of the run; those that decide its result are told to the trackers.
        folder: Its folder, whose name is the run's.

    Yields:
        What is to be told of each step of the search; None without trackers.

    Raises:
        ConfigError: If a tracker is unknown, not installed, or cannot be opened.
    """
    names = tracker_names(config.report_to)
    if not names:
        yield None
        return
    trackers: list[Any] = []

    def tell(step: Step) -> None:
        for event in step.events:
            if isinstance(event, Event):
                for tracker in trackers:
                    tracker.log(_values(event, step), step=step.batch * step.budget + event.iteration)

    try:
        for name in names:
            trackers.append(_opened(name, folder, config))
        yield tell
    finally:
        with contextlib.redirect_stdout(sys.stderr):
            # Those that were opened: one that cannot be ends the loop above.
            for name, tracker in zip(names, trackers, strict=False):
                tracker.finish()
                if name == "trackio":
                    import trackio

                    # It would finish the run once more when the process ends, and say so on standard output.
                    trackio.context_vars.current_run.set(None)


def _opened(name: str, folder: Path, config: RunConfig) -> Any:
    try:
        from accelerate import PartialState
        from accelerate.tracking import TensorBoardTracker, TrackioTracker, WandBTracker

        PartialState()  # the trackers ask it which process may write
        # They print to standard output, which is kept for results.
        with contextlib.redirect_stdout(sys.stderr):
            if name == TENSORBOARD:
                # A run that is resumed within a second would else write over its first file.
                tracker: Any = TensorBoardTracker(TENSORBOARD, folder, filename_suffix=f".{time.time_ns()}")
            elif name == "trackio":
                tracker = TrackioTracker(project(name), name=folder.name, resume="allow", embed=False)
            else:
                tracker = WandBTracker(project(name), name=folder.name, dir=str(folder))
            tracker.start()
            if name != TENSORBOARD:
                # TensorBoard takes flat numbers only, and files them as a run of its own.
                tracker.store_init_configuration(deciding_settings(config))
    except ImportError as error:
        raise ConfigError(f"trackers need {error.name}", fix="pip install 'elicitor[track]'") from error
    except Exception as error:  # each tracker refuses in its own way: no key, no network, a broken store
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ConfigError(f"tracker {name!r} could not be opened: {reason}", fix="set --report-to none") from error
    return tracker


def _values(event: Event, step: Step) -> dict[str, float]:
    """What is plotted of one event."""
    counts = Counter(label for label in step.state.assignment.labels if label is not None)
    values = {
        "search/utility": event.utility,
        "search/predictability": event.predictability,
        "search/inconsistency": event.inconsistency,
        "search/labelled": event.n_labelled,
        "search/accepted": float(event.accepted),
        "search/tokens": step.meter.cost.tokens_computed,
        **{f"search/share_of_{label}": n / counts.total() for label, n in sorted(counts.items())},
    }
    if isinstance(event, Proposal):
        values["search/temperature"] = event.temperature
    return values

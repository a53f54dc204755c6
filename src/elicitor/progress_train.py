"""Trainings under a progress bar on standard error; see `elicitor.progress`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from elicitor.progress import Display
from elicitor.train.compare import TrainComparison, compare
from elicitor.train.cost import TrainingCost, training_cost
from elicitor.train.sft import SftSettings, Trained, labelled_run, train_sft

if TYPE_CHECKING:
    from elicitor.train.lora import TrainStep


def show_step(display: Display, step: TrainStep) -> None:
    """Show where a training stands."""
    display.tokens(step.tokens)
    display.update(step.step, step.steps, "" if step.loss is None else f"loss {step.loss:.3f}")


def sft_with_progress(run: Path, folder: Path, **options: Any) -> Trained:
    """Fine-tune on a run's labels under a progress bar; see `elicitor.train.sft.train_sft`."""
    with Display("train sft") as display:
        return train_sft(run, folder, on_step=lambda step: show_step(display, step), on_stage=display.stage, **options)


def sft_cost_with_progress(
    run: Path, *, model: str | None, settings: SftSettings, limit: int | None, keep_abstained: bool
) -> TrainingCost:
    """Estimate a training under a progress bar; see `elicitor.train.cost.training_cost`."""
    labelled, config = labelled_run(run, limit=limit, keep_abstained=keep_abstained)
    with Display("dry run") as display:
        return training_cost(labelled, model=model or config.model, settings=settings, on_stage=display.stage)


def compare_with_progress(run: Path, test: str, folder: Path, **options: Any) -> TrainComparison:
    """Compare kinds of labels to train on under a progress bar; see `elicitor.train.compare.compare`."""
    with Display("train compare") as display:
        return compare(
            run,
            test,
            folder,
            on_step=lambda step: show_step(display, step),
            on_progress=display.tokens,
            on_stage=display.stage,
            **options,
        )

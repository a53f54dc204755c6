"""Reward models and policies under a progress bar on standard error."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elicitor.errors import BackendError, ConfigError
from elicitor.progress import Display
from elicitor.reward_evaluation import RewardEvaluation, evaluate_reward

if TYPE_CHECKING:
    from elicitor.train.lora import TrainStep
    from elicitor.train.reward import RewardWork
    from elicitor.train.reward_cost import RewardCost
    from elicitor.train.reward_fit import RewardSettings


def need_training() -> None:
    """Refuse at once if the packages of training are missing.

    Raises:
        BackendError: If one is.
    """
    for name in ("torch", "transformers", "peft", "trl", "datasets"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise BackendError(f"training needs {name}", fix="pip install 'elicitor[hf,train]'") from error


def reward_cost_with_progress(
    source: str, flags: Mapping[str, Any], overrides: Sequence[str], inputs: Mapping[str, Any]
) -> RewardCost:
    """Estimate a reward training; see `elicitor.train.reward_cost.reward_cost`."""
    from elicitor.train.reward_cost import reward_cost

    with Display("dry run") as display:
        settings, work = _reward_work(source, flags, overrides, inputs, display)
        return reward_cost(work, settings, on_stage=display.stage)


def train_reward_with_progress(
    source: str,
    folder: Path,
    flags: Mapping[str, Any],
    overrides: Sequence[str],
    inputs: Mapping[str, Any],
    *,
    resume: bool,
) -> dict[str, Any]:
    """Train reward models; see `elicitor.train.reward.train_reward`."""
    from elicitor.train.reward import train_reward

    with Display("train reward") as display:
        settings, work = _reward_work(source, flags, overrides, inputs, display)
        left_out = work.labelled.without + work.labelled.contradictory
        if left_out:
            display.warn(f"{left_out} pairs have no label, or contradictory ones, and are left out")
        return train_reward(
            work,
            folder,
            settings,
            labels=inputs["labels"],
            resume=resume,
            on_stage=display.stage,
            on_progress=display.tokens,
            on_part=display.part,
            on_step=step_display(display),
        )


def step_display(display: Display) -> Any:
    """Shows optimizer steps on a display."""

    def show(step: TrainStep) -> None:
        loss = "" if step.loss is None else f"loss {step.loss:.4f}"
        display.update(step.step, step.steps, loss)

    return show


def evaluate_reward_with_progress(models: Sequence[Path], tests: Sequence[str], **options: Any) -> RewardEvaluation:
    """Evaluate reward models; see `elicitor.reward_evaluation.evaluate_reward`."""
    with Display("eval reward") as display:
        return evaluate_reward(
            models, tests, on_stage=display.stage, on_progress=display.tokens, on_part=display.part, **options
        )


def _reward_work(
    source: str, flags: Mapping[str, Any], overrides: Sequence[str], inputs: Mapping[str, Any], display: Display
) -> tuple[RewardSettings, RewardWork]:
    from elicitor.train.pairs import LABEL_SOURCES
    from elicitor.train.reward import prepare_reward
    from elicitor.train.reward_fit import RewardSettings
    from elicitor.train.settings import build_settings

    if inputs["labels"] not in LABEL_SOURCES:
        raise ConfigError(f"--labels got {inputs['labels']!r}", fix=f"use one of {', '.join(LABEL_SOURCES)}")
    settings = build_settings(RewardSettings, flags=flags, overrides=overrides)
    return settings, prepare_reward(source, seed=settings.seed, on_stage=display.stage, **inputs)

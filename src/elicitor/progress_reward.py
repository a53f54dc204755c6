"""Reward models and policies under a progress bar on standard error."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elicitor.errors import BackendError, ConfigError
from elicitor.progress import Display
from elicitor.reward_evaluation import RewardEvaluation, evaluate_reward
from elicitor.winrate import WinRate, win_rate

if TYPE_CHECKING:
    from elicitor.train.lora import TrainStep
    from elicitor.train.policy import Rewarder
    from elicitor.train.reward import RewardWork
    from elicitor.train.reward_cost import RewardCost
    from elicitor.train.reward_fit import RewardSettings
    from elicitor.train.rl_cost import RlCost


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
        if left_out := work.labelled.left_out:
            display.warn(f"{left_out} pairs have no label, contradictory or indeterminate ones, and are left out")
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


def rl_cost_with_progress(
    prompts: str, flags: Mapping[str, Any], overrides: Sequence[str], *, model: str, limit: int | None
) -> RlCost:
    """Estimate a training of a policy; see `elicitor.train.rl_cost.rl_cost`."""
    from elicitor.train.rl_cost import rl_cost
    from elicitor.train.rl_settings import RlSettings
    from elicitor.train.settings import build_settings

    settings = build_settings(RlSettings, flags=flags, overrides=overrides)
    with Display("dry run") as display:
        return rl_cost(prompts, settings, model=model, limit=limit, on_stage=display.stage)


def train_rl_with_progress(
    prompts: str,
    folder: Path,
    flags: Mapping[str, Any],
    overrides: Sequence[str],
    *,
    reward: str,
    model: str,
    limit: int | None,
    resume: bool,
) -> dict[str, Any]:
    """Train a policy; see `elicitor.train.rl.train_rl`."""
    from elicitor.train.rl import train_rl
    from elicitor.train.rl_settings import RlSettings
    from elicitor.train.settings import build_settings

    settings = build_settings(RlSettings, flags=flags, overrides=overrides)
    with Display("train rl") as display:
        rewarder, reward_name = _rewarder(reward, settings.dtype, settings.device, display)
        result = train_rl(
            prompts,
            folder,
            settings,
            reward=rewarder,
            reward_name=reward_name,
            model=model,
            limit=limit,
            resume=resume,
            on_stage=display.stage,
            on_step=step_display(display),
            on_progress=display.tokens,
        )
        for warning in result["warnings"]:
            display.warn(warning)
        return result


def win_rate_with_progress(first: str, second: str, prompts: str, **options: Any) -> list[WinRate]:
    """Compare two policies; see `elicitor.winrate.win_rate`."""
    with Display("eval winrate") as display:
        rates, _ = win_rate(
            first, second, prompts, on_stage=display.stage, on_progress=display.tokens, on_part=display.part, **options
        )
        return rates


def _rewarder(name: str, dtype: str, device: str, display: Display) -> tuple[Rewarder, str]:
    """A reward by the folder of its model or by module and function, and what identifies it."""
    module, colon, function = name.partition(":")
    if colon and not Path(name).exists():
        # A command that pip made does not look into the working folder, where the module is usually.
        sys.path.append(str(Path.cwd()))
        try:
            found = getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigError(
                f"--reward {name!r}: {error}", fix="give the folder of a reward model, or an importable MODULE:FUNCTION"
            ) from error
        return found, name
    from elicitor.backends.adapter import adapter_hash
    from elicitor.train.reward_model import RewardModel

    display.stage(f"loading reward model {name}")
    model = RewardModel.load(name, dtype=dtype, device=device)
    return model.score, adapter_hash(model.folder)

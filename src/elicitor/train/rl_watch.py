"""What watches a training of a policy from inside TRL's trainer: the reward, and the choice of the checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object
from numpy.typing import NDArray
from transformers import TrainerCallback

from elicitor.backends.adapter import BASE, AdapterBase
from elicitor.backends.base import OnStage
from elicitor.backends.hf_load import quiet
from elicitor.errors import BackendError
from elicitor.files import write_json
from elicitor.train.controlled import from_first
from elicitor.train.folder import is_main_process
from elicitor.train.policy import Rewarder, distinct_pairs, draw, log_probs
from elicitor.train.rendering import first_turn
from elicitor.train.rl_log import Point, RlLog
from elicitor.train.rl_settings import RlSettings

SELECT = 1
"""First word of the seeds of draws that choose the checkpoint."""


class Judge:
    """A reward in the form that TRL calls, which also logs what was rolled out.

    Args:
        reward: Gives the rewards.
        log: Keeps the rollouts of all processes.
    """

    __name__ = "reward"

    def __init__(self, reward: Rewarder, log: RlLog) -> None:
        self._reward = reward
        self._log = log

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], *, text: Sequence[str], trainer_state: Any, **_: Any
    ) -> list[float]:
        """Rewards of completions to the prompts of column ``text``."""
        said = [first_turn(c) if isinstance(c, str) else str(c[-1]["content"]).strip() for c in completions]
        rewards = checked(self._reward(text, said), len(said)).tolist()
        rows = [{"prompt": p, "response": r, "reward": value} for p, r, value in zip(text, said, rewards, strict=True)]
        if PartialState().num_processes > 1:
            rows = gather_object(rows)
        if is_main_process():
            self._log.add_rollouts(trainer_state.global_step, rows)
        return [float(value) for value in rewards]


def checked(rewards: Any, n: int) -> NDArray[np.float64]:
    """Rewards as numbers, one for each response.

    Raises:
        BackendError: If there are more or fewer, or some are not finite.
    """
    values = np.asarray(rewards, dtype=np.float64)
    if values.shape != (n,) or not np.isfinite(values).all():
        raise BackendError(
            f"the reward gave {values.size} values for {n} responses, {int(np.isfinite(values).sum())} of them finite",
            fix="return one finite number for each response",
        )
    return values


class Selector(TrainerCallback):  # type: ignore[misc]
    """Evaluates the policy every so many steps, keeps the best adapter, and stops one that has gone too far.

    Args:
        settings: How often, and how far.
        prompts: Held-out prompts.
        reward: The reward.
        tokenizer: The policy's tokenizer.
        log: Keeps curves and best adapter.
        base: What the adapter belongs to.
        on_stage: Called with each result.
    """

    def __init__(
        self,
        settings: RlSettings,
        prompts: Sequence[str],
        reward: Rewarder,
        tokenizer: Any,
        log: RlLog,
        base: AdapterBase,
        on_stage: OnStage | None,
    ) -> None:
        self._settings = settings
        self._prompts = prompts
        self._reward = reward
        self._tokenizer = tokenizer
        self._log = log
        self._base = base
        self._on_stage = on_stage
        self.stopped = False

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """The start is a candidate too."""
        if state.global_step == 0:
            self._look(state, control, model)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Look at the policy if it is time."""
        if state.global_step % self._settings.eval_steps == 0 or state.global_step == state.max_steps:
            self._look(state, control, model)

    def _look(self, state: Any, control: Any, model: Any) -> None:
        if state.is_world_process_zero:
            point = self._measure(getattr(model, "module", model), state.global_step)
            best = self._log.best()
            # What has gone too far is often what has found a hole in the reward.
            too_far = point.kl > self._settings.max_kl
            if not too_far and (best is None or point.reward > best["reward"]):
                save_adapter(getattr(model, "module", model), self._log.best_folder(point.step), self._base)
                self._log.set_best(point)
            self._log.add_point(point)
            if self._on_stage:
                self._on_stage(
                    f"step {point.step}: held-out reward {point.reward:.3f}, KL {point.kl:.2f}, {point.tokens:.0f} tokens"
                )
            self.stopped = too_far
        self.stopped = bool(from_first(self.stopped))
        control.should_training_stop = control.should_training_stop or self.stopped

    def _measure(self, model: Any, step: int) -> Point:
        settings = self._settings
        # The same draws at every step: with common random numbers, curves show the policy and not the draws.
        drawn = draw(
            model,
            self._tokenizer,
            self._prompts,
            samples=settings.eval_samples,
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            seed=[settings.seed, SELECT],
        )
        rewards = checked(self._reward(drawn.prompts, drawn.responses), len(drawn.responses))
        kl = 0.0
        if step:
            now = log_probs(model, drawn)
            with model.disable_adapter():
                kl = float((now - log_probs(model, drawn)).mean())
        return Point(
            step,
            float(rewards.mean()),
            kl,
            float(np.mean(drawn.tokens)),
            float(np.mean(drawn.ended)),
            distinct_pairs(drawn.responses),
        )


def save_adapter(model: Any, folder: Path, base: AdapterBase) -> None:
    """Write an adapter with the record of its base."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with quiet():
        model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    write_json(folder / BASE, base.to_json())

"""What a training of a policy would cost, from a short timed draw."""

from __future__ import annotations

import time
from dataclasses import dataclass

from elicitor.backends.base import OnStage
from elicitor.backends.hf_load import choose_device
from elicitor.train.folder import processes
from elicitor.train.policy import draw, prompt_ids
from elicitor.train.rl import load_policy, split_prompts
from elicitor.train.rl_settings import RlSettings

_LEARNING = 2.0
"""Time of rewards and of learning from responses, in times of drawing them."""


@dataclass(frozen=True, slots=True)
class RlCost:
    """Estimate of a training of a policy.

    Attributes:
        train_prompts: Prompts for rollouts.
        held_out: Prompts for choosing and comparing.
        too_long: Prompts left out.
        steps: Optimizer steps.
        responses_per_step: Responses of one step.
        new_tokens: Tokens drawn at most.
        new_tokens_per_second: Speed of drawing one step's responses, measured.
        seconds: Time in all, at most.
        rendered: The first prompt as the policy reads it.
    """

    train_prompts: int
    held_out: int
    too_long: int
    steps: int
    responses_per_step: int
    new_tokens: int
    new_tokens_per_second: float
    seconds: float
    rendered: str


def rl_cost(
    source: str, settings: RlSettings, *, model: str, limit: int | None = None, on_stage: OnStage | None = None
) -> RlCost:
    """Estimate what `elicitor.train.rl.train_rl` would cost.

    Args:
        source: Prompts.
        settings: How to train.
        model: Model name of the start.
        limit: Use only the first rows.
        on_stage: Called with what begins.

    Raises:
        ElicitorError: If prompts or model cannot be used.
    """
    if on_stage:
        on_stage(f"loading {model}")
    loaded = load_policy(model, settings)
    prompts = split_prompts(source, loaded.tokenizer, settings, limit=limit)
    per_step = settings.batch_size * settings.gradient_accumulation
    if on_stage:
        on_stage("timing")
    started = time.perf_counter()
    drawn = draw(
        loaded.model.to(choose_device(settings.device)),
        loaded.tokenizer,
        prompts.train[:1],
        samples=settings.group_size,
        max_new_tokens=min(16, settings.max_new_tokens),
        temperature=settings.temperature,
        seed=[settings.seed],
    )
    speed = sum(drawn.tokens) / max(time.perf_counter() - started, 1e-9)
    looks = settings.steps // settings.eval_steps + 2
    held = looks * len(prompts.select) + 2 * len(prompts.test)
    rollouts = settings.steps * per_step * settings.max_new_tokens
    compared = held * settings.eval_samples * settings.max_new_tokens
    return RlCost(
        train_prompts=len(prompts.train),
        held_out=len(prompts.select) + len(prompts.test),
        too_long=prompts.too_long,
        steps=settings.steps,
        responses_per_step=per_step * processes(),
        new_tokens=rollouts + compared,
        new_tokens_per_second=speed,
        seconds=(rollouts * (1 + _LEARNING) + compared * 1.5) / speed,
        rendered=str(loaded.tokenizer.decode(prompt_ids(loaded.tokenizer, prompts.train[0]))),
    )

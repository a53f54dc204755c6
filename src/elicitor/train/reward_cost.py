"""What a reward training would cost: tokens, steps and time, from a sample of the pairs and a few timed passes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import islice

from elicitor.backends.base import OnStage
from elicitor.train.head_start import MAX_PAIRS
from elicitor.train.rendering import Rendering
from elicitor.train.reward import RewardWork
from elicitor.train.reward_fit import RewardSettings, optimizer_steps
from elicitor.train.reward_model import load_base, score_tokens

_SAMPLE = 64
_BACKWARD = 3
"""Time of a training step in forward passes."""


@dataclass(frozen=True, slots=True)
class RewardCost:
    """Estimate of a reward training.

    Attributes:
        labelled: Pairs with labels.
        rest: Pairs that the initial reward model would label.
        steps: Optimizer steps of each reward model.
        tokens: Tokens of all forward passes; a training pass counts once.
        tokens_per_second: Speed of a forward pass, measured.
        seconds: Time in all.
        truncated: Share of responses in the sample whose prompt would lose its oldest tokens.
        rendered: A preferred response as the model reads it.
    """

    labelled: int
    rest: int
    steps: tuple[int, ...]
    tokens: int
    tokens_per_second: float
    seconds: float
    truncated: float
    rendered: str


def reward_cost(work: RewardWork, settings: RewardSettings, *, on_stage: OnStage | None = None) -> RewardCost:
    """Estimate what `elicitor.train.reward.train_reward` would cost.

    Args:
        work: What would be trained on.
        settings: How.
        on_stage: Called with what begins.
    """
    if on_stage:
        on_stage(f"loading {work.model}")
    base = load_base(work.model, dtype=settings.dtype, device=settings.device)
    rendering = Rendering.of(base.tokenizer, max_length=min(settings.max_length, base.max_tokens))
    sample = [item.pair for item in work.labelled.preferences[:_SAMPLE]] + list(islice(work.rest_pairs(), _SAMPLE))
    cut = [rendering.tokens(base.tokenizer, pair.prompt, text) for pair in sample for text in pair.responses]
    each = 2 * sum(len(ids) for ids, _ in cut) / len(cut)
    if on_stage:
        on_stage("timing")
    timed = [ids for ids, _ in cut[:16]]
    base.model.eval()
    score_tokens(base.model, timed[:2], padding=base.tokenizer.pad_token_id)
    started = time.perf_counter()
    score_tokens(base.model, timed, padding=base.tokenizer.pad_token_id)
    speed = sum(map(len, timed)) / max(time.perf_counter() - started, 1e-9)
    labelled = len(work.labelled.preferences)
    trained = [labelled, labelled + work.n_rest] if work.rest is not None else [labelled]
    read = sum(min(MAX_PAIRS, pairs) for pairs in trained) + work.n_rest
    learnt = settings.epochs * sum(trained)
    first, _ = rendering.tokens(base.tokenizer, sample[0].prompt, work.labelled.preferences[0].ordered[0])
    return RewardCost(
        labelled=labelled,
        rest=work.n_rest,
        steps=tuple(optimizer_steps(settings, pairs) for pairs in trained),
        tokens=round(each * (read + learnt)),
        tokens_per_second=speed,
        seconds=each * (read + _BACKWARD * learnt) / speed,
        truncated=sum(was_cut for _, was_cut in cut) / len(cut),
        rendered=str(base.tokenizer.decode(first)),
    )

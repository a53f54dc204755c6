"""What a reward training would cost: tokens, steps and time, from a sample of the pairs and a few timed passes."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from elicitor.backends.base import OnStage
from elicitor.train.head_start import MAX_PAIRS
from elicitor.train.pairs import Pair
from elicitor.train.rendering import Rendering
from elicitor.train.reward import RewardWork
from elicitor.train.reward_fit import RewardSettings, optimizer_steps
from elicitor.train.reward_model import BaseModel, load_base, score_tokens

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
        truncated: Share of responses whose prompt would lose its oldest tokens, estimated from the sample.
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
    labelled, rest = len(work.labelled.preferences), work.n_rest
    # Each part by itself: what is labelled is often much shorter than the rest, and much less of it.
    own = _sample((item.pair for item in work.labelled.preferences), n=labelled, base=base, rendering=rendering)
    more = _sample(work.rest_pairs(), n=rest, base=base, rendering=rendering)
    if on_stage:
        on_stage("timing")
    timed = own.sequences[:16] + more.sequences[:16]
    base.model.eval()
    score_tokens(base.model, timed[:2], padding=base.tokenizer.pad_token_id)
    started = time.perf_counter()
    score_tokens(base.model, timed, padding=base.tokenizer.pad_token_id)
    speed = sum(map(len, timed)) / max(time.perf_counter() - started, 1e-9)
    trained = {labelled: own.tokens} | ({labelled + rest: own.tokens + more.tokens} if rest else {})
    learnt = settings.epochs * sum(trained.values())
    read = sum(min(1.0, MAX_PAIRS / pairs) * tokens for pairs, tokens in trained.items()) + more.tokens
    first = work.labelled.preferences[0]
    shown, _ = rendering.tokens(base.tokenizer, first.pair.prompt, first.ordered[0])
    return RewardCost(
        labelled=labelled,
        rest=rest,
        steps=tuple(optimizer_steps(settings, pairs) for pairs in trained),
        tokens=round(read + learnt),
        tokens_per_second=speed,
        seconds=(read + _BACKWARD * learnt) / speed,
        truncated=(own.truncated + more.truncated) / (2 * (labelled + rest)),
        rendered=str(base.tokenizer.decode(shown)),
    )


@dataclass(frozen=True, slots=True)
class _Sample:
    """Some responses of a part, and what they say of the whole part.

    Attributes:
        sequences: Token ids of the responses.
        tokens: Tokens of all responses of the part, estimated.
        truncated: Responses of the part whose prompt would lose tokens, estimated.
    """

    sequences: list[list[int]]
    tokens: float
    truncated: float


def _sample(pairs: Iterable[Pair], *, n: int, base: BaseModel, rendering: Rendering) -> _Sample:
    """Render at most `_SAMPLE` of ``n`` pairs, from all over them: files are often sorted."""
    some = list(islice(pairs, 0, n, max(1, -(-n // _SAMPLE))))
    rendered = [rendering.tokens(base.tokenizer, pair.prompt, text) for pair in some for text in pair.responses]
    weight = n / max(1, len(some))
    return _Sample(
        sequences=[ids for ids, _ in rendered],
        tokens=weight * sum(len(ids) for ids, _ in rendered),
        truncated=weight * sum(was_cut for _, was_cut in rendered),
    )

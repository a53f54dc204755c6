"""Sampling continuations with a transformers model: one prompt, many draws, the prompt computed once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from elicitor.backends.base import Cost, Generations, Progress, TokenIds, Tokenizer
from elicitor.backends.hf_passes import log_probs_after
from elicitor.errors import BackendError


def sample(
    model: Any,
    tokenizer: Tokenizer,
    prompt: TokenIds,
    *,
    max_new_tokens: int,
    temperature: float,
    stop: Sequence[str],
    rngs: Sequence[np.random.Generator],
    expandable: bool,
    on_progress: Progress | None = None,
) -> Generations:
    """Draw one continuation for each generator.

    Every draw uses its own generator, one number a token, so it does not depend on how many are drawn beside it (up to
    rounding of the model's numbers).

    Args:
        model: Causal language model, in evaluation mode.
        tokenizer: Its tokenizer.
        prompt: Token ids, at least one.
        max_new_tokens: Tokens of a continuation at most.
        temperature: Divides the logits; positive.
        stop: Texts before which a continuation ends.
        rngs: One generator a continuation.
        expandable: Whether the state behind the prompt can be repeated; else the prompt runs once for each draw.
        on_progress: Called after each forward pass with its tokens.

    Returns:
        The continuations, in the order of the generators.

    Raises:
        BackendError: If the model returns numbers that are not finite.
    """
    started = time.perf_counter()
    ends = end_ids(model)
    drawn: list[list[int]] = [[] for _ in rngs]
    texts: dict[int, str] = {}
    lengths = [0] * len(rngs)
    computed = len(prompt) * (1 if expandable else len(rngs))
    with torch.inference_mode():
        cache = DynamicCache(config=model.config.get_text_config())
        copies = [list(prompt)] * (1 if expandable else len(rngs))
        logits = log_probs_after(model, copies, [], cache=cache)[:, -1]
        if on_progress:
            on_progress(computed)
        if expandable and len(rngs) > 1:
            cache.batch_repeat_interleave(len(rngs))
            logits = logits.repeat(len(rngs), 1)
        for _ in range(max_new_tokens):
            tokens = [_draw(row, temperature, rng, dtype=model.dtype) for row, rng in zip(logits, rngs, strict=True)]
            for k, token in enumerate(tokens):
                if k in texts:
                    continue
                lengths[k] += 1
                if token in ends:
                    texts[k] = tokenizer.decode(drawn[k])
                    continue
                drawn[k].append(token)
                text = tokenizer.decode(drawn[k])
                cuts = [place for mark in stop if (place := text.find(mark)) >= 0]
                if cuts:
                    texts[k] = text[: min(cuts)]
            if len(texts) == len(rngs):
                break
            logits = log_probs_after(model, [[token] for token in tokens], [], cache=cache)[:, -1]
            computed += len(rngs)
            if on_progress:
                on_progress(len(rngs))
    cost = Cost(prompts=len(rngs), tokens_computed=computed, seconds=time.perf_counter() - started)
    return Generations(
        texts=[texts.get(k, tokenizer.decode(drawn[k])) for k in range(len(rngs))],
        finished=[k in texts for k in range(len(rngs))],
        cost=cost,
        lengths=lengths,
    )


def _draw(log_probs: torch.Tensor, temperature: float, rng: np.random.Generator, *, dtype: torch.dtype) -> int:
    """A token by inverse transform: one uniform number picks a place in the cumulative distribution."""
    weights = torch.softmax(log_probs.double() / temperature, dim=-1).cpu().numpy()
    if not np.isfinite(weights).all():
        precision = str(dtype).removeprefix("torch.")
        raise BackendError(
            f"the model in {precision} gave a next-token distribution that is not finite",
            fix="set backend.dtype=float32, or bfloat16 where it was float16, or check the weights",
        )
    place = int(np.searchsorted(np.cumsum(weights), rng.random(), side="right"))
    return min(place, len(weights) - 1)


def end_ids(model: Any) -> frozenset[int]:
    """Tokens that end a text."""
    found = [getattr(source, "eos_token_id", None) for source in (model.config, model.generation_config)]
    return frozenset(token for ids in found if ids is not None for token in (ids if isinstance(ids, list) else [ids]))

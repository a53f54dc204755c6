"""Sampling from a policy and measuring it: rewards, lengths, distance from where it started."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import GenerationConfig

from elicitor.backends.base import Progress
from elicitor.backends.hf_load import choose_device, choose_dtype, load_model, quiet
from elicitor.errors import DataError
from elicitor.models import locate
from elicitor.readers import iter_rows
from elicitor.train.rendering import chat_ids, first_turn, messages, plain_prompt

PROMPT_COLUMNS = ("question", "prompt", "instruction")
BATCH_ROWS = 32
"""Responses that are drawn together."""

Rewarder = Callable[[Sequence[str], Sequence[str]], NDArray[np.float64]]
"""Anything that gives one reward for each prompt and response."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """Responses of a policy.

    Attributes:
        prompts: Prompt of each response.
        responses: Texts.
        tokens: Tokens of each response, the end of turn included.
        ended: Whether it ended by itself, before its tokens were used up.
        sequences: Token ids of prompt and response, for `log_probs`.
    """

    prompts: tuple[str, ...]
    responses: tuple[str, ...]
    tokens: tuple[int, ...]
    ended: tuple[bool, ...]
    sequences: tuple[tuple[int, ...], ...]


def read_prompts(source: str, *, limit: int | None = None) -> list[str]:
    """Different prompts of a file, in its order.

    Args:
        source: File or ``hf:NAME@SPLIT`` with a column ``question``, ``prompt`` or ``instruction``.
        limit: Use only the first rows.

    Raises:
        DataError: If it has no such column, or a cell is no text.
    """
    prompts: dict[str, None] = {}
    for row in iter_rows(source, limit=limit):
        column = next((name for name in PROMPT_COLUMNS if name in row.values), None)
        if column is None:
            raise DataError(
                f"{row.location} has none of the columns {', '.join(PROMPT_COLUMNS)}",
                fix="rename the column of prompts",
            )
        text = row.values[column]
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{row.location} column {column!r} holds no text", fix="fill it in or drop the row")
        prompts[text] = None
    return list(prompts)


def prompt_ids(tokenizer: Any, prompt: str) -> list[int]:
    """Token ids of a prompt, up to where the response begins."""
    if tokenizer.chat_template:
        return chat_ids(tokenizer, messages(prompt), ends=False)
    return [int(token) for token in tokenizer(plain_prompt(prompt), split_special_tokens=True)["input_ids"]]


def stop_ids(model: Any, tokenizer: Any) -> list[int]:
    """Tokens that end a response."""
    named = model.generation_config.eos_token_id
    ends = [] if named is None else [named] if isinstance(named, int) else list(named)
    return sorted({*ends, *([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id])})


def sample_plainly(model: Any) -> None:
    """Keep of what a model's folder says of sampling only which tokens end a text.

    A repetition penalty or a least probability would let responses come from another distribution than the one whose
    log-probabilities the algorithms of RL and the measured KL take; transformers applies it to whatever a caller leaves out.
    """
    own = model.generation_config
    model.generation_config = GenerationConfig(bos_token_id=own.bos_token_id, eos_token_id=own.eos_token_id)


def draw(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    samples: int,
    max_new_tokens: int,
    temperature: float,
    seed: Sequence[int],
    on_progress: Progress | None = None,
) -> Drawn:
    """Draw responses.

    Args:
        model: A causal language model, on its device; see `sample_plainly`.
        tokenizer: Its tokenizer.
        prompts: The prompts.
        samples: Responses for each prompt.
        max_new_tokens: Tokens of a response at most.
        temperature: Divides the logits.
        seed: Whole numbers that decide the draws; torch's own generator is left as it was.
        on_progress: Called after each batch with its new tokens.

    Returns:
        Responses, those of a prompt next to one another.
    """
    asked = [prompt for prompt in prompts for _ in range(samples)]
    heads = [prompt_ids(tokenizer, prompt) for prompt in asked]
    ends = stop_ids(model, tokenizer)
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else ends[0]
    bodies: list[list[int]] = [[] for _ in asked]
    # Neighbours in length waste little on padding; which rows are together is decided by the prompts alone.
    order = sorted(range(len(asked)), key=lambda i: (-len(heads[i]), i))
    was_training = model.training
    model.eval()
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.no_grad(), quiet():
        torch.manual_seed(int(np.random.SeedSequence(list(seed)).generate_state(1)[0]))
        for start in range(0, len(order), BATCH_ROWS):
            rows = order[start : start + BATCH_ROWS]
            longest = max(len(heads[i]) for i in rows)
            ids = torch.tensor([[padding] * (longest - len(heads[i])) + heads[i] for i in rows], device=model.device)
            mask = torch.tensor([[0] * (longest - len(heads[i])) + [1] * len(heads[i]) for i in rows])
            output = model.generate(
                input_ids=ids,
                attention_mask=mask.to(model.device),
                max_new_tokens=max_new_tokens,
                do_sample=True,
                temperature=temperature,
                top_k=0,
                top_p=1.0,
                eos_token_id=ends or None,
                pad_token_id=padding,
            )
            for row, new in zip(rows, output[:, longest:].tolist(), strict=True):
                end = next((k for k, token in enumerate(new) if token in ends), None)
                bodies[row] = new if end is None else new[: end + 1]
            if on_progress:
                on_progress(sum(len(bodies[i]) for i in rows))
    model.train(was_training)
    texts = [tokenizer.decode(body, skip_special_tokens=True).strip() for body in bodies]
    return Drawn(
        prompts=tuple(asked),
        responses=tuple(texts if tokenizer.chat_template else map(first_turn, texts)),
        tokens=tuple(map(len, bodies)),
        ended=tuple(bool(body) and body[-1] in ends for body in bodies),
        sequences=tuple(tuple(head + body) for head, body in zip(heads, bodies, strict=True)),
    )


def draw_from(
    name: str,
    prompts: Sequence[str],
    *,
    samples: int,
    max_new_tokens: int,
    max_prompt_tokens: int,
    temperature: float,
    seed: Sequence[int],
    dtype: str = "auto",
    device: str = "auto",
    on_progress: Progress | None = None,
) -> list[tuple[str, int, str]]:
    """Load a model, draw its responses, and let go of it.

    Args:
        name: Model name.
        prompts: The prompts; those of more than ``max_prompt_tokens`` are left out.
        samples: Responses for each prompt.
        max_new_tokens: Tokens of a response at most.
        max_prompt_tokens: Tokens of a prompt at most.
        temperature: Divides the logits.
        seed: Whole numbers that decide the draws.
        dtype: Precision of the weights.
        device: ``auto`` is CUDA if there is one.
        on_progress: Called after each batch with its new tokens.

    Returns:
        Prompt, number of the sample, and response.

    Raises:
        BackendError: If the model cannot be found or loaded.
    """
    place = choose_device(device)
    precision = choose_dtype(dtype, place)
    source = locate(name)
    location, weights = source.files(dtype=precision)
    loaded = load_model(location, name=name, weights=weights, adapters=source.adapters, dtype=precision)
    sample_plainly(loaded.model)
    asked = [text for text in prompts if len(prompt_ids(loaded.tokenizer, text)) <= max_prompt_tokens]
    if not asked:
        return []
    drawn = draw(
        loaded.model.to(place),
        loaded.tokenizer,
        asked,
        samples=samples,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        on_progress=on_progress,
    )
    places = [k for _ in asked for k in range(samples)]
    return list(zip(drawn.prompts, places, drawn.responses, strict=True))


def log_probs(model: Any, drawn: Drawn) -> NDArray[np.float64]:
    """Log-probability of each response under a model, in nats; shape (responses,)."""
    was_training = model.training
    model.eval()
    values = np.zeros(len(drawn.sequences))
    with torch.no_grad():
        for i, (sequence, new) in enumerate(zip(drawn.sequences, drawn.tokens, strict=True)):
            ids = torch.tensor([sequence], device=model.device)
            logits = model(input_ids=ids, use_cache=False, logits_to_keep=new + 1).logits[0, :-1].float()
            picked = torch.log_softmax(logits, dim=-1).gather(-1, ids[0, -new:, None])
            values[i] = float(picked.sum())
    model.train(was_training)
    return values


def distinct_pairs(responses: Sequence[str]) -> float:
    """Share of pairs of neighbouring words that are different ones, within each response; low is repetition."""
    shares = []
    for text in responses:
        words = text.split()
        pairs = list(pairwise(words))
        if pairs:
            shares.append(len(set(pairs)) / len(pairs))
    return float(np.mean(shares)) if shares else 1.0

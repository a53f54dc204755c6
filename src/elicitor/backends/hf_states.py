"""Hidden states of transformers models at the last token of each sequence."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from elicitor.backends.base import Cost, Progress, States, TokenIds
from elicitor.errors import BackendError, ContextOverflowError

BATCH_TOKENS = 1024
"""Tokens of one forward pass, padding included, unless one sequence alone is longer: every layer's states of all of them
are in memory at once, and on a processor larger passes are slower."""


def last_token_states(
    model: Any, sequences: Sequence[TokenIds], *, name: str, max_tokens: int, on_progress: Progress | None = None
) -> States:
    """Residual stream at the last token of each sequence, computed in batches of similar length.

    Transformers gives the states after the last layer as the head reads them, behind the final norm.

    Args:
        model: Causal language model, in evaluation mode.
        sequences: Token ids, at least one token each; at least one sequence.
        name: The model's name, for errors.
        max_tokens: The model's window.
        on_progress: Called after each forward pass with the tokens it computed, padding left out.

    Returns:
        States in the order of ``sequences``.

    Raises:
        ContextOverflowError: If a sequence exceeds the window.
        BackendError: If there is nothing to read, or states are not finite.
    """
    started = time.perf_counter()
    lengths = [len(tokens) for tokens in sequences]
    if min(lengths, default=0) == 0:
        raise BackendError("hidden states were asked of a text without tokens", fix="give at least one token")
    if max(lengths) > max_tokens:
        raise ContextOverflowError(
            f"a text of {max(lengths)} tokens does not fit the {max_tokens} of {name}",
            fix="shorten the example, or use a model with a longer context",
        )
    rows: list[NDArray[np.float32] | None] = [None] * len(sequences)
    with torch.inference_mode():
        for batch in batches(lengths, BATCH_TOKENS):
            for index, row in zip(batch, _forward(model, [sequences[i] for i in batch]), strict=True):
                rows[index] = row
            if on_progress:
                on_progress(sum(lengths[i] for i in batch))
    values = np.stack([row for row in rows if row is not None])
    if not np.isfinite(values).all():
        raise BackendError(
            f"{name} gave {int((~np.isfinite(values)).sum())} hidden states that are not finite",
            fix="use backend.dtype=float32, or check the weights",
        )
    cost = Cost(prompts=len(sequences), tokens_computed=sum(lengths), seconds=time.perf_counter() - started)
    return States(values, cost)


def batches(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Divide sequences into batches that waste little on padding.

    Args:
        lengths: Tokens of each sequence.
        tokens: Tokens of a batch at most, padding included; a longer sequence is a batch of its own.

    Returns:
        Indices of each batch, the longest sequences first: if memory is short, the first pass shows it.
    """
    dealt: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if dealt and lengths[dealt[-1][0]] * (len(dealt[-1]) + 1) <= tokens:
            dealt[-1].append(index)
        else:
            dealt.append([index])
    return dealt


def _forward(model: Any, sequences: Sequence[TokenIds]) -> NDArray[np.float32]:
    """One forward pass; shape (sequences, layers + 1, width)."""
    longest = max(map(len, sequences))
    # Padding stands on the right, where no token looks, so positions need no correction; its ids are never read.
    ids = torch.tensor([[*tokens, *[0] * (longest - len(tokens))] for tokens in sequences], device=model.device)
    mask = torch.tensor([[1] * len(s) + [0] * (longest - len(s)) for s in sequences], device=model.device)
    output = model(input_ids=ids, attention_mask=mask, use_cache=False, output_hidden_states=True, logits_to_keep=1)
    row = torch.arange(len(sequences), device=model.device)
    last = torch.tensor([len(tokens) - 1 for tokens in sequences], device=model.device)
    states = torch.stack([layer[row, last].float() for layer in output.hidden_states], dim=1)
    return np.asarray(states.cpu().numpy(), dtype=np.float32)

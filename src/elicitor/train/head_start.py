"""Where the head of a reward model starts: a linear probe on the base's last hidden state.

A random head pushes noise through the whole model in its first steps, and with few pairs the adapter never recovers from
it. Fitting the head alone first, then both, keeps what the features already hold (Kumar et al. 2022, LP-FT).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from elicitor.backends.base import Progress
from elicitor.backends.hf_states import batches
from elicitor.train.reward_model import BATCH_TOKENS, padded

MAX_PAIRS = 2000
"""Pairs that the probe reads at most; it has as many weights as a hidden state has dimensions."""


def pooled_states(
    model: Any, sequences: Sequence[Sequence[int]], *, padding: int, on_progress: Progress | None = None
) -> NDArray[np.float32]:
    """What the head reads: the last hidden state at the last token of each sequence.

    Args:
        model: A sequence-classification model.
        sequences: Token ids, at least one token each.
        padding: Id that fills the right of shorter sequences.
        on_progress: Called after each forward pass with its tokens, padding left out.

    Returns:
        Shape (sequences, width).
    """
    lengths = [len(ids) for ids in sequences]
    rows: list[Any] = [None] * len(sequences)
    with torch.inference_mode():
        for batch in batches(lengths, BATCH_TOKENS):
            ids, mask = padded([sequences[i] for i in batch], padding=padding, device=model.device)
            states = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            for row, index in enumerate(batch):
                rows[index] = states[row, lengths[index] - 1].float().cpu().numpy()
            if on_progress:
                on_progress(sum(lengths[i] for i in batch))
    return np.stack(rows)


def fit_head(differences: NDArray[np.float32], *, l2: float) -> NDArray[np.float64]:
    """Weights w that make sigmoid(w · difference) large: logistic regression without a constant.

    Args:
        differences: Shape (pairs, width): state of the chosen response less that of the rejected one.
        l2: Weight of the penalty on w in units of each dimension's standard deviation.

    Returns:
        Shape (width,).
    """
    scale = torch.tensor(differences, dtype=torch.float64).square().mean(0).sqrt().clamp_min(1e-6)
    x = torch.tensor(differences, dtype=torch.float64) / scale
    weights = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = torch.nn.functional.softplus(-x @ weights).mean() + l2 * weights.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return np.asarray((weights.detach() / scale).numpy())

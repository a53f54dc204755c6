"""Executing the passes of `elicitor.backends.trie` with a transformers model: caches, masks, chunks."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer

from elicitor.backends.trie import Pass

CHUNK_TOKENS = 2048
"""Long runs of tokens go through the model in chunks of this size, which bounds the memory of activations and masks."""

State = list[tuple[torch.Tensor, torch.Tensor] | None]
"""Keys and values of a run of tokens, layer by layer; None for a layer that keeps none of its own."""


def log_probs_after(model: Any, tokens: Sequence[int], rows: Sequence[int], **inputs: Any) -> torch.Tensor:
    """Run tokens and return log-probabilities over the vocabulary after some of them.

    Args:
        model: Causal language model.
        tokens: Token ids.
        rows: Indices of tokens, ascending; the last token alone if there are none.
        **inputs: Cache, positions, mask.

    Returns:
        Shape (rows, vocabulary), float32.
    """
    keep = torch.tensor(list(rows) or [len(tokens) - 1], device=model.device)
    ids = torch.tensor([list(tokens)], device=model.device)
    output = model(input_ids=ids, use_cache=True, logits_to_keep=keep, **inputs)
    return torch.log_softmax(output.logits[0].float(), dim=-1)


class GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values in room that doubles when it is full: appending copies what is new, not what is there."""

    def update(  # noqa: D102 - as the class it overrides
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._key_room, self._value_room = key_states[..., :0, :], value_states[..., :0, :]
        begin = self.get_seq_length()
        end = begin + key_states.shape[-2]
        if end > self._key_room.shape[-2]:
            self._key_room = _enlarged(self._key_room, key_states, begin, end)
            self._value_room = _enlarged(self._value_room, value_states, begin, end)
        self._key_room[..., begin:end, :] = key_states
        self._value_room[..., begin:end, :] = value_states
        self.keys, self.values = self._key_room[..., :end, :], self._value_room[..., :end, :]
        return self.keys, self.values


def _enlarged(room: torch.Tensor, like: torch.Tensor, used: int, needed: int) -> torch.Tensor:
    larger = like.new_empty((*like.shape[:-2], max(needed, 2 * room.shape[-2]), like.shape[-1]))
    larger[..., :used, :] = room[..., :used, :]
    return larger


class CroppedRun:
    """Executes passes on one cache that is cropped back to each pass's prefix."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._config = model.config.get_text_config()
        # Every attention layer keeps everything, so cropping is exact for sliding windows too.
        self._cache = Cache(layer_class_to_replicate=GrowingLayer)
        self._length = 0

    def forward(self, item: Pass) -> torch.Tensor:
        """Run one pass; log-probabilities of the rows it reads, shape (rows, vocabulary)."""
        if self._length > item.prefix:
            self._cache.crop(item.prefix - self._length)
        if item.restore is not None:
            self._restore(item.restore.state)
            self._length = item.prefix + len(item.restore.segment)
            return torch.empty(0)
        self._length = item.prefix + len(item.tokens)
        if item.is_chain:
            return _forward_chain(self._model, self._cache, item)
        mask, positions = tree_mask(item.parents, item.prefix)
        inputs: dict[str, Any] = {
            "position_ids": torch.from_numpy(positions)[None].to(self._model.device),
            "attention_mask": self._masks(mask, positions, item.prefix),
            "past_key_values": self._cache,
        }
        return log_probs_after(self._model, item.tokens, rows_read(item), **inputs)

    def copy_state(self, begin: int, end: int) -> State:
        """Keys and values of some tokens."""
        return [
            (layer.keys[..., begin:end, :].clone(), layer.values[..., begin:end, :].clone())
            if layer.is_initialized
            else None
            for layer in self._cache.layers
        ]

    def _restore(self, state: State) -> None:
        for index, kept in enumerate(state):
            if kept is not None:
                self._cache.update(*kept, index)

    def _masks(self, mask: np.ndarray, positions: np.ndarray, prefix: int) -> Any:
        """The mask in the form the model takes: one tensor, or one for each kind of layer."""
        kinds = getattr(self._config, "layer_types", None)
        size = getattr(self._config, "sliding_window", None)
        if kinds is None:
            everywhere = size and getattr(self._config, "use_sliding_window", True)
            return self._additive(_windowed(mask, positions, prefix, size) if everywhere else mask)
        if size is None or set(kinds) == {"full_attention"}:
            return self._additive(mask)
        return {
            "full_attention": self._additive(mask),
            "sliding_attention": self._additive(_windowed(mask, positions, prefix, size)),
        }

    def _additive(self, mask: np.ndarray) -> torch.Tensor:
        visible = torch.from_numpy(mask).to(self._model.device)
        hidden = torch.full((), torch.finfo(self._model.dtype).min, dtype=self._model.dtype, device=self._model.device)
        return torch.where(visible, torch.zeros((), dtype=self._model.dtype, device=self._model.device), hidden)[
            None, None
        ]


class CopiedRun:
    """Executes chain passes for models whose state cannot be cropped: each branch point's state is kept and copied."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._states: list[tuple[int, Any]] = [(0, DynamicCache(config=model.config))]

    def forward(self, item: Pass) -> torch.Tensor:
        """Run one pass, which must be a chain; shape (rows, vocabulary)."""
        while self._states[-1][0] > item.prefix:
            self._states.pop()
        cache = copy.deepcopy(self._states[-1][1])
        rows = _forward_chain(self._model, cache, item)
        self._states.append((item.prefix + len(item.tokens), cache))
        return rows


def _windowed(mask: np.ndarray, positions: np.ndarray, prefix: int, size: Any) -> np.ndarray:
    """What is left of a mask when each token sees the last ``size`` positions, its own among them."""
    keys = np.concatenate([np.arange(prefix), positions])
    seen: np.ndarray = mask & (positions[:, None] - keys[None, :] < size)
    return seen


def _forward_chain(model: Any, cache: Any, item: Pass) -> torch.Tensor:
    """Run consecutive tokens in chunks; shape (rows read, vocabulary)."""
    rows = rows_read(item)
    parts = []
    for begin in range(0, len(item.tokens), CHUNK_TOKENS):
        chunk = item.tokens[begin : begin + CHUNK_TOKENS]
        wanted = [row - begin for row in rows if begin <= row < begin + len(chunk)]
        part = log_probs_after(model, chunk, wanted, past_key_values=cache)
        if wanted:
            parts.append(part)
    return torch.cat(parts) if parts else part


def rows_read(item: Pass) -> list[int]:
    """Tokens of a pass whose output is read, ascending, each once."""
    return sorted({read.row for read in item.reads})


def read_index(item: Pass) -> list[int]:
    """Row of the output for each read."""
    index = {row: k for k, row in enumerate(rows_read(item))}
    return [index[read.row] for read in item.reads]


def tree_mask(parents: Sequence[int], prefix: int) -> tuple[np.ndarray, np.ndarray]:
    """What each token of a packed pass may see, and where in its context it stands.

    Args:
        parents: Index of the token before each token, -1 for the end of the prefix; parents come first.
        prefix: Cached tokens, all visible.

    Returns:
        Boolean mask of shape (tokens, prefix + tokens), and positions of shape (tokens,), counted from the context's
        first token.
    """
    n = len(parents)
    mask = np.zeros((n, prefix + n), dtype=bool)
    mask[:, :prefix] = True
    positions = np.empty(n, dtype=np.int64)
    for index, parent in enumerate(parents):
        if parent >= 0:
            mask[index, prefix:] = mask[parent, prefix:]
        mask[index, prefix + index] = True
        positions[index] = (positions[parent] if parent >= 0 else prefix - 1) + 1
    return mask, positions

"""Executing the passes of `elicitor.backends.trie` with a transformers model: caches, masks, chunks."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer

from elicitor.backends.split_attention import uses_split_attention
from elicitor.backends.trie import Pass

CHUNK_TOKENS = 2048
"""Long runs of tokens go through the model in chunks of this size, which bounds the memory of activations and masks."""

BATCH_PREFIX_TOKENS = 16_384
"""Prefixes of one batch of short passes hold at most so many tokens together, which bounds the memory of their copies."""

State = list[tuple[torch.Tensor, torch.Tensor] | None]
"""Keys and values of a run of tokens, layer by layer; None for a layer that keeps none of its own."""


def log_probs_after(
    model: Any, tokens: Sequence[Sequence[int]], rows: Sequence[int], *, cache: Any = None, **inputs: Any
) -> torch.Tensor:
    """Run tokens and return log-probabilities over the vocabulary after some of them.

    Args:
        model: Causal language model.
        tokens: Token ids, shape (batch, tokens).
        rows: Indices of tokens, ascending; the last token alone if there are none.
        cache: What the tokens stand behind, and are added to.
        **inputs: Positions, mask.

    Returns:
        Shape (batch, rows, vocabulary), float32.
    """
    keep = torch.tensor(list(rows) or [len(tokens[0]) - 1], device=model.device)
    ids = torch.tensor(tokens, device=model.device)
    inputs[_cache_argument(model.__class__)] = cache
    output = model(input_ids=ids, use_cache=True, logits_to_keep=keep, **inputs)
    return torch.log_softmax(output.logits.float(), dim=-1)


@lru_cache(maxsize=8)
def _cache_argument(kind: Any) -> str:
    """What this class of model calls its cache: transformers 5.24 renamed the argument."""
    return "cache" if "cache" in inspect.signature(kind.forward).parameters else "past_key_values"


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

    @classmethod
    def with_room(cls, like: DynamicLayer, batch: int, length: int, more: int) -> GrowingLayer:
        """A layer of ``length`` tokens whose content is yet to be written, and room for ``more`` of them."""
        layer = cls()
        if like.is_initialized:
            layer.lazy_initialization(like.keys, like.values)
            for name in ("key", "value"):
                _, heads, _, size = getattr(like, f"{name}s").shape
                room = getattr(like, f"{name}s").new_empty((batch, heads, length + more, size))
                setattr(layer, f"_{name}_room", room)
                setattr(layer, f"{name}s", room[..., :length, :])
        return layer


def _enlarged(room: torch.Tensor, like: torch.Tensor, used: int, needed: int) -> torch.Tensor:
    larger = like.new_empty((*like.shape[:-2], max(needed, 2 * room.shape[-2]), like.shape[-1]))
    larger[..., :used, :] = room[..., :used, :]
    return larger


@dataclass(frozen=True)
class Done:
    """A pass that has run.

    Attributes:
        item: The pass.
        rows: Log-probabilities over the vocabulary after each row that it reads, shape (rows, vocabulary).
        state: Gives keys and values of the pass's tokens from one index to another; None where they cannot be taken apart.
    """

    item: Pass
    rows: torch.Tensor
    state: Callable[[int, int], State] | None


def execute(model: Any, passes: Sequence[Pass], *, batch_tokens: int) -> Iterator[Done]:
    """Run passes on one cache that is cropped back to each pass's prefix.

    Short passes that nothing builds on are slow one by one: they stream all weights for a few tokens. Several of them
    run as one batch, each behind a copy of its own prefix.

    Args:
        model: Causal language model whose layers keep keys and values alone.
        passes: In depth-first order.
        batch_tokens: Tokens of a batch of short passes, at most; 0 for none, which is right for any model.

    Yields:
        Each pass that has tokens, when it has run.
    """
    run = _Run(model)
    together = _batches(passes, batch_tokens, max_prefix=BATCH_PREFIX_TOKENS)
    for index, item in enumerate(passes):
        if item.restore is not None:
            run.restore(item)
        elif index in together:
            batch = together[index]
            batch.add(item, run)
            if batch.is_full:
                yield from batch.forward(model)
        else:
            yield run.forward(item)


def _batches(passes: Sequence[Pass], batch_tokens: int, *, max_prefix: int) -> dict[int, _Batch]:
    """The batch of each pass that runs in one, by index of the pass."""
    short = [
        index
        for index, item in enumerate(passes)
        if item.tokens
        and item.prefix > 0
        and 2 * len(item.tokens) <= batch_tokens
        and (index + 1 == len(passes) or passes[index + 1].prefix <= item.prefix)
    ]
    groups: list[list[int]] = []
    for index in short:
        together = [*groups[-1], index] if groups else [index]
        longest = max(len(passes[i].tokens) for i in together)
        deepest = max(passes[i].prefix for i in together)
        if groups and len(together) * longest <= batch_tokens and len(together) * deepest <= max_prefix:
            groups[-1] = together
        else:
            groups.append([index])
    batches: dict[int, _Batch] = {}
    for group in groups:
        if len(group) > 1:
            batch = _Batch(
                size=len(group),
                prefix=max(passes[i].prefix for i in group),
                length=max(len(passes[i].tokens) for i in group),
            )
            batches |= dict.fromkeys(group, batch)
    return batches


class _Run:
    """One cache, and how far it is filled."""

    def __init__(self, model: Any) -> None:
        self._model = model
        # Every attention layer keeps everything, so cropping is exact for sliding windows too.
        self.cache = Cache(layer_class_to_replicate=GrowingLayer)
        self._length = 0

    def crop(self, length: int) -> None:
        if self._length > length:
            self.cache.crop(length - self._length)
        self._length = length

    def restore(self, item: Pass) -> None:
        assert item.restore is not None
        self.crop(item.prefix)
        for index, kept in enumerate(item.restore.state):
            if kept is not None:
                self.cache.update(*kept, index)
        self._length = item.prefix + len(item.restore.segment)

    def forward(self, item: Pass) -> Done:
        self.crop(item.prefix)
        self._length = item.prefix + len(item.tokens)
        if item.is_chain:
            rows = _forward_chain(self._model, self.cache, item)
        else:
            mask, positions = tree_mask(item.parents, item.prefix)
            keys = np.concatenate([np.arange(item.prefix), positions])
            rows = log_probs_after(
                self._model,
                [item.tokens],
                rows_read(item),
                position_ids=torch.from_numpy(positions)[None].to(self._model.device),
                attention_mask=attention_masks(self._model, mask[None], positions[None], keys[None]),
                cache=self.cache,
            )[0]
        return Done(item, rows, partial(_copied, self.cache, 0, item.prefix))


class _Batch:
    """Short passes that run together; prefixes end, and tokens begin, at the same index."""

    def __init__(self, *, size: int, prefix: int, length: int) -> None:
        self._size, self._prefix, self._length = size, prefix, length
        self._items: list[Pass] = []
        self._cache: Any = None

    @property
    def is_full(self) -> bool:
        return len(self._items) == self._size

    def add(self, item: Pass, run: _Run) -> None:
        """Copy the pass's prefix out of the running cache."""
        run.crop(item.prefix)
        if self._cache is None:
            layers = [GrowingLayer.with_room(x, self._size, self._prefix, self._length) for x in run.cache.layers]
            self._cache = Cache(layers=layers)
        row, pad = len(self._items), self._prefix - item.prefix
        for own, source in zip(self._cache.layers, run.cache.layers, strict=True):
            if source.is_initialized:
                # Nothing may see what stands before the prefix, but zero times an uninitialised infinity is no number.
                own.keys[row, :, :pad].zero_()
                own.values[row, :, :pad].zero_()
                own.keys[row, :, pad:] = source.keys[0]
                own.values[row, :, pad:] = source.values[0]
        self._items.append(item)

    def forward(self, model: Any) -> Iterator[Done]:
        """Run the passes and give the room back."""
        size, prefix, length = self._size, self._prefix, self._length
        tokens = np.zeros((size, length), dtype=np.int64)
        mask = np.zeros((size, length, prefix + length), dtype=bool)
        # A token that fills up a row sees itself alone and stands where nothing asks for it.
        mask[:, np.arange(length), prefix + np.arange(length)] = True
        positions = np.zeros((size, length), dtype=np.int64)
        keys = np.zeros((size, prefix + length), dtype=np.int64)
        for row, item in enumerate(self._items):
            n, begin = len(item.tokens), prefix - item.prefix
            visible, places = tree_mask(item.parents, item.prefix)
            tokens[row, :n] = item.tokens
            mask[row, :n, begin : prefix + n] = visible
            positions[row, :n] = places
            keys[row, begin:prefix] = np.arange(item.prefix)
            keys[row, prefix : prefix + n] = places
        wanted = sorted({row for item in self._items for row in rows_read(item)})
        index = {row: k for k, row in enumerate(wanted)}
        output = log_probs_after(
            model,
            tokens.tolist(),
            wanted,
            position_ids=torch.from_numpy(positions).to(model.device),
            attention_mask=attention_masks(model, mask, positions, keys),
            cache=self._cache,
        )
        for row, item in enumerate(self._items):
            rows = output[row, [index[k] for k in rows_read(item)]]
            yield Done(item, rows, partial(_copied, self._cache, row, prefix))
        self._cache = None


def _copied(cache: Any, row: int, offset: int, begin: int, end: int) -> State:
    """Copies of some tokens' keys and values in one row of a cache."""
    cut = slice(offset + begin, offset + end)
    return [
        (layer.keys[row : row + 1, :, cut].clone(), layer.values[row : row + 1, :, cut].clone())
        if layer.is_initialized
        else None
        for layer in cache.layers
    ]


def cut_state(state: State, length: int) -> tuple[State, State]:
    """Keys and values of the first so many tokens, and of the rest; both copied, so that either can be dropped alone."""
    parts: tuple[State, State] = ([], [])
    for part, cut in zip(parts, (slice(length), slice(length, None)), strict=True):
        part.extend(
            None if layer is None else (layer[0][:, :, cut].clone(), layer[1][:, :, cut].clone()) for layer in state
        )
    return parts


def attention_masks(model: Any, mask: np.ndarray, positions: np.ndarray, keys: np.ndarray) -> Any:
    """A boolean mask in the form the model takes: one additive tensor, or one for each kind of layer.

    Args:
        model: The model; its configuration tells which layers have a sliding window.
        mask: Shape (rows, tokens, keys): what each token may see, windows left out of account.
        positions: Shape (rows, tokens): place of each token in its context.
        keys: Shape (rows, keys): place of each key.

    Returns:
        Tensors of shape (rows, 1, tokens, keys); of shape (rows, 1, tokens, tokens) where all that stands before the tokens is
        visible to each of them and the model's attention takes that.
    """
    config = model.config.get_text_config()
    kinds = getattr(config, "layer_types", None)
    size = getattr(config, "sliding_window", None)
    in_window = mask if size is None else mask & (positions[:, :, None] - keys[:, None, :] < size)
    if kinds is None:
        return _additive(model, in_window if getattr(config, "use_sliding_window", True) else mask)
    if size is None or set(kinds) == {"full_attention"}:
        return _additive(model, mask)
    return {"full_attention": _additive(model, mask), "sliding_attention": _additive(model, in_window)}


def _additive(model: Any, mask: np.ndarray) -> torch.Tensor:
    prefix = mask.shape[2] - mask.shape[1]
    if uses_split_attention(model) and mask[:, :, :prefix].all():
        mask = mask[:, :, prefix:]
    options = {"dtype": model.dtype, "device": model.device}
    visible = torch.from_numpy(mask).to(model.device)
    hidden = torch.full((), torch.finfo(model.dtype).min, **options)
    return torch.where(visible, torch.zeros((), **options), hidden)[:, None]


def execute_copying(model: Any, passes: Sequence[Pass]) -> Iterator[Done]:
    """Run passes with a model whose state cannot be cropped: each branch point's state is kept and copied.

    Args:
        model: Causal language model.
        passes: Chains in depth-first order.

    Yields:
        Each pass, when it has run.
    """
    states: list[tuple[int, Any]] = [(0, DynamicCache(config=model.config))]
    for item in passes:
        while states[-1][0] > item.prefix:
            states.pop()
        cache = copy.deepcopy(states[-1][1])
        yield Done(item, _forward_chain(model, cache, item), None)
        states.append((item.prefix + len(item.tokens), cache))


def _forward_chain(model: Any, cache: Any, item: Pass) -> torch.Tensor:
    """Run consecutive tokens in chunks; shape (rows read, vocabulary)."""
    rows = rows_read(item)
    parts = []
    for begin in range(0, len(item.tokens), CHUNK_TOKENS):
        chunk = item.tokens[begin : begin + CHUNK_TOKENS]
        wanted = [row - begin for row in rows if begin <= row < begin + len(chunk)]
        part = log_probs_after(model, [chunk], wanted, cache=cache)[0]
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

"""Backend for transformers models: executes the passes of `elicitor.backends.trie` on one growing key-value cache.

Attention layers keep all their keys and values, sliding windows included (the window is enforced by the mask), so that
the cache can be cropped to any earlier length without losing anything, and the keys and values of one segment can be kept
and put back behind the same prefix in a later call. Models whose state cannot be cropped (recurrent or convolutional
layers) take a slower path that keeps a copy of the state at each branch point and nothing between calls.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from elicitor.backends.base import Generations, NextTokens, Progress, Prompt, Scores, States, TokenIds
from elicitor.backends.hf_generate import end_ids, sample
from elicitor.backends.hf_load import choose_device, choose_dtype, context_window, load_model
from elicitor.backends.hf_passes import Done, cut_state, execute, execute_copying, log_probs_after, read_index
from elicitor.backends.hf_states import last_token_states
from elicitor.backends.hf_tokenizer import HfTokenizer
from elicitor.backends.prefix_cache import PrefixCache
from elicitor.backends.radix import segmented
from elicitor.backends.split_attention import use_split_attention
from elicitor.backends.trie import Pass, Read, check_fit, check_room, cost, schedule
from elicitor.errors import BackendError


class HfBackend:
    """Scores prompts with a transformers causal language model.

    Args:
        model: The model, in evaluation mode, on its device.
        tokenizer: Its tokenizer.
        name: Name the user knows it by.
        weights: Identifies the weights, for `fingerprint`.
        pack_tokens: Neighbouring subtrees of up to this many tokens run in one pass with a tree mask; 0 turns it off.
        cache_gb: Gigabytes of keys and values kept from call to call; 0 turns it off.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str,
        weights: str,
        pack_tokens: int = 1024,
        cache_gb: float = 4.0,
    ) -> None:
        self._model = model
        self._tokenizer = HfTokenizer(tokenizer)
        self._name = name
        self._text_config = model.config.get_text_config()
        self.croppable = _has_croppable_state(self._text_config)
        self.attention = self._choose_attention()
        obstacle = _obstacle(self, packed=True) if pack_tokens else "pack_tokens is 0"
        self.packing = f"off: {obstacle}" if obstacle else "on"
        self._pack_tokens = 0 if obstacle else pack_tokens
        kept = int(cache_gb * 1e9 / _bytes_per_token(self)) if cache_gb and self.croppable else 0
        self._prefix_cache = PrefixCache(kept)
        settings = f"{weights}|{model.dtype}|{model.device.type}|{self.attention}|{self._pack_tokens}|{kept}"
        self._fingerprint = hashlib.sha256(settings.encode()).hexdigest()

    @property
    def name(self) -> str:
        """Model name as the user gave it."""
        return self._name

    @property
    def fingerprint(self) -> str:
        """Hash of weights, dtype, device type, attention, packing and reuse."""
        return self._fingerprint

    @property
    def tokenizer(self) -> HfTokenizer:
        """The model's tokenizer."""
        return self._tokenizer

    @property
    def max_context_tokens(self) -> int:
        """Longest sequence the model was made for."""
        return context_window(self._text_config, name=self._name)

    @property
    def reusable_tokens(self) -> int:
        """Tokens whose keys and values fit the memory set aside for them."""
        return self._prefix_cache.max_tokens

    def describe(self) -> dict[str, str]:
        """Facts about how this model is run."""
        return {
            "architecture": type(self._model).__name__,
            "dtype": str(self._model.dtype).removeprefix("torch."),
            "device": str(self._model.device),
            "state": "cropped" if self.croppable else "copied at branch points",
            "attention": self.attention,
            "packing": self.packing,
            "kept between calls": f"{self.reusable_tokens:,} tokens",
        }

    def score(self, prompts: Sequence[Prompt], *, keep: bool = False, on_progress: Progress | None = None) -> Scores:
        """Score every prompt, computing each shared prefix once; see `elicitor.backends.base.Backend.score`."""
        started = time.perf_counter()
        check_fit(prompts, max_context_tokens=self.max_context_tokens, name=self._name)
        cache = self._prefix_cache if keep and self.reusable_tokens else None
        known = cache.begin(prompts) if cache else [None] * len(prompts)
        todo = [index for index, answer in enumerate(known) if answer is None]
        passes = schedule([prompts[i] for i in todo], pack_tokens=self._pack_tokens, cache=cache)
        log_probs = np.zeros((len(prompts), len(prompts[0].candidates) if prompts else 0))
        with torch.inference_mode():
            for done in self._run(passes, cache, on_progress):
                item = done.item
                if item.reads:
                    values = done.rows[read_index(item), [read.token for read in item.reads]].double().cpu().numpy()
                    cells = [todo[read.prompt] for read in item.reads], [read.candidate for read in item.reads]
                    np.add.at(log_probs, cells, values)
        self._refuse_not_finite(log_probs)
        for index, answer in enumerate(known):
            if answer is not None:
                log_probs[index] = answer
            elif cache:
                cache.remember(prompts[index], log_probs[index].copy())
        return Scores(log_probs, replace(cost(prompts, passes), seconds=time.perf_counter() - started))

    @property
    def vocabulary_size(self) -> int:
        """Rows of the output matrix."""
        return int(self._text_config.vocab_size)

    @property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end a text."""
        return end_ids(self._model)

    def next_tokens(
        self, prompts: Sequence[TokenIds], *, top: int, tokens: Sequence[int] = (), on_progress: Progress | None = None
    ) -> NextTokens:
        """Ask about flat prompts; see `elicitor.backends.base.NextTokenBackend.next_tokens`."""
        started = time.perf_counter()
        alone = [Prompt((flat,), ((0,),)) for flat in prompts]
        check_fit(alone, max_context_tokens=self.max_context_tokens, name=self._name)
        ids = np.zeros((len(prompts), top), dtype=np.int64)
        best, asked = np.zeros((len(prompts), top)), np.zeros((len(prompts), len(tokens)))
        cache = self._prefix_cache if self.reusable_tokens else None
        with segmented(prompts, cache or PrefixCache(0), cut=cut_state) as parts, torch.inference_mode():
            passes = schedule(parts, pack_tokens=self._pack_tokens, cache=cache)
            for done in self._run(passes, cache, on_progress):
                if done.item.reads:
                    rows, index = done.rows[read_index(done.item)], [read.prompt for read in done.item.reads]
                    found = rows.topk(top, dim=-1)
                    ids[index], best[index] = found.indices.cpu().numpy(), found.values.double().cpu().numpy()
                    asked[index] = rows[:, list(tokens)].double().cpu().numpy()
            spent = replace(cost(parts, passes), seconds=time.perf_counter() - started)
        self._refuse_not_finite(best)
        self._refuse_not_finite(asked)
        return NextTokens(ids, best, asked, spent)

    def hidden_states(self, sequences: Sequence[TokenIds], *, on_progress: Progress | None = None) -> States:
        """Residual stream at each sequence's last token; see `elicitor.backends.base.StatesBackend.hidden_states`."""
        return last_token_states(
            self._model, sequences, name=self._name, max_tokens=self.max_context_tokens, on_progress=on_progress
        )

    def generate(
        self,
        prompt: TokenIds,
        *,
        max_new_tokens: int,
        temperature: float,
        stop: Sequence[str],
        rngs: Sequence[np.random.Generator],
        on_progress: Progress | None = None,
    ) -> Generations:
        """Draw continuations; see `elicitor.backends.base.GenerationBackend.generate`."""
        check_room(prompt, max_new_tokens=max_new_tokens, max_context_tokens=self.max_context_tokens, name=self._name)
        return sample(
            self._model,
            self._tokenizer,
            prompt,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            stop=stop,
            rngs=rngs,
            expandable=self.croppable,
            on_progress=on_progress,
        )

    def forget(self) -> None:
        """Drop the keys and values kept from earlier calls."""
        self._prefix_cache = PrefixCache(self.reusable_tokens)

    def _choose_attention(self) -> str:
        """Split the attention of tokens behind a prefix in two where that is possible and right."""
        before = self._text_config._attn_implementation
        if self.croppable and use_split_attention(self._model):
            if _obstacle(self, packed=False) is None:
                return "split"
            self._model.set_attn_implementation(before)
        return str(before)

    def _execute(self, passes: Sequence[Pass]) -> Iterator[Done]:
        if self.croppable:
            return execute(self._model, passes, batch_tokens=self._pack_tokens)
        return execute_copying(self._model, passes)

    def _run(self, passes: Sequence[Pass], cache: PrefixCache | None, on_progress: Progress | None) -> Iterator[Done]:
        """Execute passes, keep the states that they compute for later calls, and report."""
        for done in self._execute(passes):
            yield done
            for entry, first in done.item.fills:
                if cache and done.state and cache.has_room(entry):
                    cache.hold(entry, done.state(first, first + len(entry.segment)))
            if on_progress:
                on_progress(len(done.item.tokens))

    def _refuse_not_finite(self, log_probs: np.ndarray) -> None:
        count = int((~np.isfinite(log_probs)).sum())
        if count:
            precision = str(self._model.dtype).removeprefix("torch.")
            raise BackendError(
                f"{self._name} in {precision} gave {count} log-probabilities that are not finite",
                fix=_NOT_FINITE.get(precision, "check the weights"),
            )


_NOT_FINITE = {
    "float16": "set backend.dtype=bfloat16 or float32: float16 holds no number beyond 65504",
    "bfloat16": "set backend.dtype=float32, or check the weights",
}
"""What to do about scores that are no numbers, by precision."""


def _has_croppable_state(config: Any) -> bool:
    """Whether every layer keeps keys and values alone, as transformers' own cache for this configuration shows."""
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    layers = DynamicCache(config=config).layers
    plain = all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)
    return plain and kinds <= {"full_attention", "sliding_attention"}


def _bytes_per_token(backend: HfBackend) -> int:
    """Size of one token's keys and values, by running one."""
    with torch.inference_mode():
        (done,) = execute(backend._model, [Pass(0, [0], [-1], [])], batch_tokens=0)
    kept = [pair for pair in (done.state(0, 1) if done.state else []) if pair is not None]
    return sum(tensor.numel() * tensor.element_size() for pair in kept for tensor in pair)


def _obstacle(backend: HfBackend, *, packed: bool) -> str | None:
    """Why this model cannot run tokens behind a cached prefix as asked, found by trying: it may ignore a mask silently."""
    if not backend.croppable:
        return "the model has recurrent or convolutional layers"
    vocabulary = backend._text_config.vocab_size
    draw = np.random.default_rng(0).integers(vocabulary, size=64).tolist()
    prefix, left, right = draw[:20], draw[20:50], draw[50:]
    parents = [*range(-1, 29), -1 if packed else 29, *range(30, 43)]
    item = Pass(20, left + right, parents, [Read(29, 0, 0, 0), Read(43, 1, 0, 0)])
    texts = (prefix + left, prefix + ([] if packed else left) + right)
    try:
        with torch.inference_mode():
            *_, done = execute(backend._model, [Pass(0, prefix, list(range(-1, 19)), []), item], batch_tokens=0)
            wanted = torch.cat([log_probs_after(backend._model, [text], [])[0] for text in texts])
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        return f"the model refuses {'a tree mask' if packed else 'it'} ({type(error).__name__})"
    difference = (done.rows - wanted).abs().max().item()
    tolerance = 1e-3 if backend._model.dtype == torch.float32 else 0.5
    return None if difference <= tolerance else f"scores differ by {difference:.2g} nats"


def load(
    source: str,
    *,
    name: str,
    weights: str | None = None,
    adapters: Sequence[Path] = (),
    dtype: str = "auto",
    device: str = "auto",
    pack_tokens: int = 1024,
    cache_gb: float = 4.0,
    trust_remote_code: bool = False,
) -> HfBackend:
    """Load a model from a folder or the hub.

    Args:
        source: Folder or hub name.
        name: Name the user knows it by.
        weights: Identifies the weights; by default the hub's commit, or a hash over the folder's files.
        adapters: Folders of PEFT adapters to merge into the model, in this order.
        dtype: ``auto`` is bfloat16 on CUDA (float16 where that is missing), float32 elsewhere.
        device: ``auto`` is CUDA if there is one.
        pack_tokens: See `HfBackend`.
        cache_gb: See `HfBackend`.
        trust_remote_code: Run Python code that the repository carries.

    Returns:
        The backend.

    Raises:
        BackendError: If the model cannot be found, loaded or put on the device.
    """
    place = choose_device(device)
    loaded = load_model(
        source,
        name=name,
        weights=weights,
        adapters=adapters,
        dtype=choose_dtype(dtype, place),
        trust_remote_code=trust_remote_code,
    )
    try:
        model = loaded.model.to(place).eval()
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise BackendError(f"model {name!r} does not fit {place}: {reason}", fix="use a smaller model") from error
    return HfBackend(
        model, loaded.tokenizer, name=name, weights=loaded.weights, pack_tokens=pack_tokens, cache_gb=cache_gb
    )

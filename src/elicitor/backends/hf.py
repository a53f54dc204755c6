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

from elicitor.backends.base import Generations, Progress, Prompt, Scores, States, TokenIds
from elicitor.backends.hf_generate import sample
from elicitor.backends.hf_load import choose_device, choose_dtype, context_window, load_model
from elicitor.backends.hf_passes import Done, execute, execute_copying, log_probs_after, read_index
from elicitor.backends.hf_states import last_token_states
from elicitor.backends.prefix_cache import PrefixCache
from elicitor.backends.trie import Pass, Read, cost, schedule
from elicitor.errors import BackendError, ContextOverflowError


class HfTokenizer:
    """A transformers tokenizer as prompts need it.

    Args:
        tokenizer: Fast or slow tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        framed = tokenizer("")["input_ids"]
        end = tokenizer.eos_token_id
        self._start = tuple(int(t) for t in framed if t != end or t == tokenizer.bos_token_id)[:1]

    @property
    def start_ids(self) -> TokenIds:
        """The token the model expects before any text (BOS), or nothing."""
        return self._start

    def encode(self, text: str) -> TokenIds:
        """Token ids of a text without special tokens."""
        return tuple(int(t) for t in self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, special tokens included."""
        return str(self._tokenizer.decode(list(ids)))

    def chat(self, message: str) -> TokenIds | None:
        """The model's chat template around one user's message, up to where the reply begins; None if it has none."""
        if not self._tokenizer.chat_template:
            return None
        turns = [{"role": "user", "content": message}]
        ids = self._tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
        return tuple(int(t) for t in ids)


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
        self.packing = "off: pack_tokens is 0"
        self._pack_tokens = 0
        if pack_tokens:
            self.packing = _packing_obstacle(self) or "on"
            self._pack_tokens = pack_tokens if self.packing == "on" else 0
        kept = int(cache_gb * 1e9 / _bytes_per_token(self)) if cache_gb and self.croppable else 0
        self._prefix_cache = PrefixCache(kept)
        settings = f"{weights}|{model.dtype}|{model.device.type}|{self._pack_tokens}|{kept}"
        self._fingerprint = hashlib.sha256(settings.encode()).hexdigest()

    @property
    def name(self) -> str:
        """Model name as the user gave it."""
        return self._name

    @property
    def fingerprint(self) -> str:
        """Hash of weights, dtype, device type, packing and reuse."""
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
            "packing": self.packing,
            "kept between calls": f"{self.reusable_tokens:,} tokens",
        }

    def score(self, prompts: Sequence[Prompt], *, keep: bool = False, on_progress: Progress | None = None) -> Scores:
        """Score every prompt, computing each shared prefix once; see `elicitor.backends.base.Backend.score`."""
        started = time.perf_counter()
        self._check(prompts)
        cache = self._prefix_cache if keep and self.reusable_tokens else None
        known = cache.begin(prompts) if cache else [None] * len(prompts)
        todo = [index for index, answer in enumerate(known) if answer is None]
        passes = schedule([prompts[i] for i in todo], pack_tokens=self._pack_tokens, cache=cache)
        log_probs = np.zeros((len(prompts), len(prompts[0].candidates) if prompts else 0))
        with torch.inference_mode():
            for done in self._execute(passes):
                item = done.item
                if item.reads:
                    values = done.rows[read_index(item), [read.token for read in item.reads]].double().cpu().numpy()
                    cells = [todo[read.prompt] for read in item.reads], [read.candidate for read in item.reads]
                    np.add.at(log_probs, cells, values)
                for entry, first in item.fills:
                    if cache and done.state and cache.has_room(entry):
                        cache.hold(entry, done.state(first, first + len(entry.segment)))
                if on_progress:
                    on_progress(len(item.tokens))
        if not np.isfinite(log_probs).all():
            raise BackendError(
                f"{self._name} gave {int((~np.isfinite(log_probs)).sum())} label log-probabilities that are not finite",
                fix="use backend.dtype=float32, or check the weights",
            )
        for index, answer in enumerate(known):
            if answer is not None:
                log_probs[index] = answer
            elif cache:
                cache.remember(prompts[index], log_probs[index].copy())
        return Scores(log_probs, replace(cost(prompts, passes), seconds=time.perf_counter() - started))

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
        if len(prompt) + max_new_tokens > self.max_context_tokens:
            raise ContextOverflowError(
                f"a prompt of {len(prompt)} tokens and {max_new_tokens} new ones do not fit the "
                f"{self.max_context_tokens} of {self._name}",
                fix="ask for fewer new tokens, or leave out the longest questions",
            )
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

    def _execute(self, passes: Sequence[Pass]) -> Iterator[Done]:
        if self.croppable:
            return execute(self._model, passes, batch_tokens=self._pack_tokens)
        return execute_copying(self._model, passes)

    def _check(self, prompts: Sequence[Prompt]) -> None:
        for prompt in prompts:
            if len(prompt.candidates) != len(prompts[0].candidates):
                raise BackendError("prompts of one call differ in their number of candidates", fix="use two calls")
            length = len(prompt) + max(map(len, prompt.candidates), default=0)
            if len(prompt) == 0:
                raise BackendError("a prompt has no tokens", fix="give the task a template that is not empty")
            if length > self.max_context_tokens:
                raise ContextOverflowError(
                    f"a prompt of {length} tokens does not fit the {self.max_context_tokens} of {self._name}",
                    fix="use a smaller batch_size, or plan sampled with fewer demonstrations",
                )


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


def _packing_obstacle(backend: HfBackend) -> str | None:
    """Why this model cannot run packed passes, found by trying: a model may ignore a mask without saying so."""
    if not backend.croppable:
        return "off: the model has recurrent or convolutional layers"
    vocabulary = backend._text_config.vocab_size
    draw = np.random.default_rng(0).integers(vocabulary, size=64).tolist()
    prefix, left, right = draw[:20], draw[20:50], draw[50:]
    parents = [*range(-1, 29), -1, *range(30, 43)]
    packed = Pass(20, left + right, parents, [Read(29, 0, 0, 0), Read(43, 1, 0, 0)])
    try:
        with torch.inference_mode():
            *_, done = execute(backend._model, [Pass(0, prefix, list(range(-1, 19)), []), packed], batch_tokens=0)
            wanted = torch.cat([log_probs_after(backend._model, [prefix + part], [])[0] for part in (left, right)])
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        return f"off: the model refuses a tree mask ({type(error).__name__})"
    difference = (done.rows - wanted).abs().max().item()
    tolerance = 1e-3 if backend._model.dtype == torch.float32 else 0.5
    return None if difference <= tolerance else f"off: tree-masked scores differ by {difference:.2g} nats"


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

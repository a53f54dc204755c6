"""A deterministic world with a known hidden concept, for tests without a model.

Text is tokenised into bytes. The concept gives every body (a prompt up to its label) a true label. Asked about a query
after demonstrations, the world prefers the label that the concept gives the query, the more strongly the more of the
demonstrations agree with the concept, and it prefers a wrong one if most disagree: labels of either kind are coherent,
random labels are not. A bias towards one label, ignorance and noise by order can be dialled in.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np

from elicitor.backends.base import NextTokens, Progress, Prompt, Scores, TokenIds
from elicitor.backends.prefix_cache import PrefixCache
from elicitor.backends.radix import segmented
from elicitor.backends.trie import Pass, cost, schedule
from elicitor.errors import ConfigError, ContextOverflowError

NEVER = -50.0
"""Log-probability of a byte with which no label goes on."""

Concept = Callable[[str, int], int]
"""True label index of a body, given the number of labels."""


def concept_label(body: str, n_labels: int) -> int:
    """The default concept: a stable hash of the body, balanced over labels and invisible on the surface."""
    return _hash(body.encode()) % n_labels


def _hash(data: bytes, *, salt: int = 0) -> int:
    """64 bits that depend on every byte; a checksum would not do, its bits under two salts go together."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8, salt=salt.to_bytes(8, "big")).digest(), "big")


class ByteTokenizer:
    """Every byte of the UTF-8 text is a token."""

    @property
    def start_ids(self) -> TokenIds:
        """Nothing: the world needs no start token."""
        return ()

    def encode(self, text: str) -> TokenIds:
        """Bytes of the text."""
        return tuple(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        """Text of bytes."""
        return bytes(ids).decode(errors="replace")

    def chat(self, message: str) -> None:
        """The world is no chat model."""


@dataclass(frozen=True)
class FakeBackend:
    """The world; all strengths are in nats.

    Attributes:
        gain: Preference for the concept's label when every demonstration agrees with it; against it when all disagree.
        prior: Preference for the concept's label whatever the demonstrations say: zero-shot knowledge.
        bias: Preference for the last label whatever is asked; a large one makes uncalibrated labels collapse.
        noise: Standard size of a preference drawn from a hash of the whole prompt: demonstration order matters a little.
        shrink: Number of demonstrations at which half the gain is reached.
        context: Window in tokens (bytes).
        delay: Seconds each call takes, for tests that kill a run.
        reusable: Tokens kept from call to call.
        verbalizers: Texts of the labels, for flat prompts: nobody tells those, and demonstrations end with an empty line.
        concept: True label of a body.
    """

    gain: float = 4.0
    prior: float = 0.5
    bias: float = 0.0
    noise: float = 0.1
    shrink: float = 4.0
    context: int = 1_000_000
    delay: float = 0.0
    reusable: int = 10_000_000
    verbalizers: tuple[str, ...] = (" no", " yes")
    concept: Concept = concept_label
    _cache: PrefixCache = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_cache", PrefixCache(self.reusable))

    @property
    def name(self) -> str:
        """``fake``."""
        return "fake"

    @property
    def fingerprint(self) -> str:
        """The world's settings."""
        concept = getattr(self.concept, "__name__", "concept")
        strengths = f"{self.gain}:{self.prior}:{self.bias}:{self.noise}:{self.shrink}"
        return f"fake:{strengths}:{self.reusable}:{'/'.join(self.verbalizers)}:{concept}"

    @property
    def max_context_tokens(self) -> int:
        """Window in tokens."""
        return self.context

    @property
    def tokenizer(self) -> ByteTokenizer:
        """Bytes."""
        return ByteTokenizer()

    @property
    def reusable_tokens(self) -> int:
        """Tokens kept from call to call; there is nothing to compute, but costs are counted as a model's would be."""
        return self.reusable

    def score(self, prompts: Sequence[Prompt], *, keep: bool = False, on_progress: Progress | None = None) -> Scores:
        """Score prompts; see `elicitor.backends.base.Backend.score`."""
        started = time.perf_counter()
        time.sleep(self.delay)
        for prompt in prompts:
            self._check(len(prompt) + max(map(len, prompt.candidates)))
        cache = self._cache if keep else None
        known = cache.begin(prompts) if cache else [None] * len(prompts)
        todo = [prompt for prompt, answer in zip(prompts, known, strict=True) if answer is None]
        passes = schedule(todo, pack_tokens=0, cache=cache)
        log_probs = np.asarray([self._log_probs(prompt) for prompt in prompts], dtype=np.float64)
        _hold(passes, cache, on_progress)
        if cache:
            for prompt, row in zip(prompts, log_probs, strict=True):
                cache.remember(prompt, row)
        seconds = time.perf_counter() - started
        return Scores(log_probs.reshape(len(prompts), -1), replace(cost(prompts, passes), seconds=seconds))

    @property
    def vocabulary_size(self) -> int:
        """All bytes."""
        return 256

    @property
    def end_ids(self) -> frozenset[int]:
        """None: texts of this world never end."""
        return frozenset()

    def next_tokens(
        self, prompts: Sequence[TokenIds], *, top: int, tokens: Sequence[int] = (), on_progress: Progress | None = None
    ) -> NextTokens:
        """Ask about flat prompts; see `elicitor.backends.base.NextTokenBackend.next_tokens`."""
        started = time.perf_counter()
        time.sleep(self.delay)
        for flat in prompts:
            self._check(len(flat) + 1)
        with segmented(prompts, self._cache, cut=lambda state, _: (state, state)) as parts:
            passes = schedule(parts, pack_tokens=0, cache=self._cache)
            _hold(passes, self._cache, on_progress)
            spent = replace(cost(parts, passes), seconds=time.perf_counter() - started)
        rows = np.asarray([self._next_byte(bytes(flat)) for flat in prompts]).reshape(-1, 256)
        ids = np.argsort(-rows, axis=1, kind="stable")[:, :top]
        return NextTokens(ids, np.take_along_axis(rows, ids, axis=1), rows[:, list(tokens)], spent)

    def forget(self) -> None:
        """Drop what was kept from earlier calls."""
        object.__setattr__(self, "_cache", PrefixCache(self.reusable))

    def _check(self, length: int) -> None:
        if length > self.context:
            raise ContextOverflowError(
                f"a prompt of {length} tokens with its label does not fit the {self.context} of the fake world",
                fix="use a smaller batch_size",
            )

    def _next_byte(self, text: bytes) -> np.ndarray:
        """Shape (256,): what the labels' probabilities say about the byte after a text that may end within a label."""
        candidates = tuple(tuple(verbalizer.encode()) for verbalizer in self.verbalizers)
        begun = max((v[:n] for v in candidates for n in range(len(v)) if text.endswith(bytes(v[:n]))), key=len)
        pieces = text[: len(text) - len(begun)].split(b"\n\n")
        segments = [*(tuple(piece + b"\n\n") for piece in pieces[:-1]), tuple(pieces[-1])]
        labels = self._log_probs(Prompt(tuple(segments), candidates))
        going_on = [(v[len(begun)], p) for v, p in zip(candidates, labels, strict=True) if v[: len(begun)] == begun]
        row = np.full(256, -np.inf)
        for byte, log_prob in going_on:
            row[byte] = np.logaddexp(row[byte], log_prob)
        return np.asarray(np.maximum(row - np.logaddexp.reduce(row), NEVER))

    def _log_probs(self, prompt: Prompt) -> np.ndarray:
        n_labels = len(prompt.candidates)
        *before, query = prompt.segments
        agree = [hit for s in before if (hit := _agrees(s, prompt.candidates, self.concept)) is not None]
        # The share that agrees, rescaled so that 1 is all, 0 is what chance gives and -1 (for two labels) none.
        chance = 1 / n_labels
        share = (sum(agree) / len(agree) - chance) / (1 - chance) if agree else 0.0
        evidence = share * len(agree) / (len(agree) + self.shrink)
        logits = np.zeros(n_labels)
        logits[self.concept(bytes(query).decode(errors="replace"), n_labels)] += self.prior + self.gain * evidence
        logits[-1] += self.bias
        text = b"".join(bytes(segment) for segment in prompt.segments)
        logits += self.noise * np.asarray([_hash(text, salt=label) / 2**63 - 1 for label in range(n_labels)])
        return np.asarray(logits - np.logaddexp.reduce(logits))


def _hold(passes: Sequence[Pass], cache: PrefixCache | None, on_progress: Progress | None) -> None:
    """Do as if the passes ran: keep a state where a model would, and report their tokens."""
    for item in passes:
        for entry, _ in item.fills:
            if cache and cache.has_room(entry):
                cache.hold(entry, True)
        if on_progress:
            on_progress(len(item.tokens))


@lru_cache(maxsize=8192)
def _agrees(segment: TokenIds, candidates: tuple[TokenIds, ...], concept: Concept) -> bool | None:
    """Whether a demonstration's label is the concept's; None for a segment that is no demonstration."""
    text = bytes(segment)
    places = [text.rfind(bytes(candidate)) for candidate in candidates]
    label = int(np.argmax(places))
    if places[label] < 0:
        return None
    return concept(text[: places[label]].decode(errors="replace"), len(candidates)) == label


def from_options(text: str) -> FakeBackend:
    """A world from ``key=value,...`` with the settings of `FakeBackend`; verbalizers stand between slashes.

    Raises:
        ConfigError: If a key is unknown or a value is no number.
    """
    kinds: dict[str, Callable[[str], Any]] = {
        "gain": float,
        "prior": float,
        "bias": float,
        "noise": float,
        "shrink": float,
        "context": int,
        "delay": float,
        "reusable": int,
        "verbalizers": _verbalizers,
    }
    options: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        key, _, raw = part.partition("=")
        try:
            options[key] = kinds[key](raw)
        except (KeyError, ValueError) as error:
            raise ConfigError(f"model fake got {part!r}", fix=f"write key=value with {', '.join(kinds)}") from error
    return FakeBackend(**options)


def _verbalizers(text: str) -> tuple[str, ...]:
    parts = tuple(text.split("/"))
    if not all(parts):
        raise ValueError("a verbalizer is empty")
    return parts

"""Scores from disk: a prompt that was answered once, by any process, is never computed again.

An answer is found by the content that decides it: the model's fingerprint, the prompt's token ids and the labels' token ids,
hashed together. Names of runs, steps or examples play no part, so an edited template or data set can never meet an old score.
What is damaged on disk is computed again, with a warning; see `elicitor.backends.score_store`.
"""

from __future__ import annotations

import hashlib
import time
from array import array
from collections.abc import Sequence

import numpy as np

from elicitor.backends.base import (
    Backend,
    Cost,
    GenerationBackend,
    Generations,
    NextTokenBackend,
    NextTokens,
    Progress,
    Prompt,
    RemoteBackend,
    Scores,
    States,
    StatesBackend,
    TokenIds,
    Tokenizer,
)
from elicitor.backends.score_store import ScoreStore
from elicitor.backends.trie import unshared_tokens


class CachedBackend:
    """A backend whose scores are looked up before they are computed; made by `cached`.

    Args:
        backend: The model.
        store: Where its scores are kept.
    """

    def __init__(self, backend: Backend, store: ScoreStore) -> None:
        self._backend = backend
        self._store = store

    @property
    def _identity(self) -> str:
        """What decides an answer besides the prompt."""
        return self.fingerprint

    @property
    def name(self) -> str:
        """The model's name."""
        return self._backend.name

    @property
    def fingerprint(self) -> str:
        """The model's: where scores come from does not change them."""
        return self._backend.fingerprint

    @property
    def max_context_tokens(self) -> int:
        """The model's."""
        return self._backend.max_context_tokens

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's."""
        return self._backend.tokenizer

    @property
    def reusable_tokens(self) -> int:
        """The model's."""
        return self._backend.reusable_tokens

    def score(self, prompts: Sequence[Prompt], *, keep: bool = False, on_progress: Progress | None = None) -> Scores:
        """Score prompts; see `elicitor.backends.base.Backend.score`. What is found on disk counts as reused."""
        started = time.perf_counter()
        if len({len(prompt.candidates) for prompt in prompts}) != 1:
            return self._backend.score(prompts, keep=keep, on_progress=on_progress)
        keys = [_key(self._identity, prompt) for prompt in prompts]
        known = self._store.get(list(dict.fromkeys(keys)), size=len(prompts[0].candidates))
        missing = [index for index, key in enumerate(keys) if key not in known]
        computed = bounded = 0
        if missing:
            scores = self._backend.score([prompts[i] for i in missing], keep=keep, on_progress=on_progress)
            new = {keys[i]: row for i, row in zip(missing, scores.log_probs, strict=True)}
            computed, bounded = scores.cost.tokens_computed, scores.cost.bounded
            # What is only bounded is no score: another time the server may list it.
            if not bounded:
                self._store.put(new)
            known |= new
        log_probs = np.stack([known[key] for key in keys])
        reused = unshared_tokens(prompts) - computed
        cost = Cost(len(prompts), computed, reused, time.perf_counter() - started, bounded)
        return Scores(log_probs, cost)

    def forget(self) -> None:
        """Drop what the model keeps in memory; what is on disk stays."""
        self._backend.forget()


def uncached(backend: Backend) -> Backend:
    """The model behind a cache on disk, for questions that it must answer itself."""
    return backend._backend if isinstance(backend, CachedBackend) else backend


class _CachedRemote(CachedBackend):
    _backend: RemoteBackend  # type: ignore[assignment]

    @property
    def _identity(self) -> str:
        return f"{self.fingerprint} at {self.where}" if self.where else self.fingerprint

    @property
    def price_per_million(self) -> float | None:
        return self._backend.price_per_million

    @property
    def where(self) -> str:
        return self._backend.where


class _CachedStates(CachedBackend):
    _backend: StatesBackend  # type: ignore[assignment]

    def hidden_states(self, sequences: Sequence[TokenIds], *, on_progress: Progress | None = None) -> States:
        return self._backend.hidden_states(sequences, on_progress=on_progress)


class _CachedGeneration(CachedBackend):
    _backend: GenerationBackend  # type: ignore[assignment]

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
        return self._backend.generate(
            prompt,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            stop=stop,
            rngs=rngs,
            on_progress=on_progress,
        )


class _CachedNextTokens(CachedBackend):
    _backend: NextTokenBackend  # type: ignore[assignment]

    @property
    def vocabulary_size(self) -> int:
        return self._backend.vocabulary_size

    @property
    def end_ids(self) -> frozenset[int]:
        return self._backend.end_ids

    def next_tokens(
        self, prompts: Sequence[TokenIds], *, top: int, tokens: Sequence[int] = (), on_progress: Progress | None = None
    ) -> NextTokens:
        return self._backend.next_tokens(prompts, top=top, tokens=tokens, on_progress=on_progress)


def cached(backend: Backend, store: ScoreStore) -> Backend:
    """A backend that looks its scores up in a store, and can do all else that it could before.

    Args:
        backend: The model. Equal fingerprints must mean equal scores, for a server those of one place.
        store: Where its scores are kept.

    Returns:
        The wrapped backend.
    """
    kinds: tuple[type[CachedBackend], ...] = ()
    for protocol, kind in (
        (RemoteBackend, _CachedRemote),
        (StatesBackend, _CachedStates),
        (GenerationBackend, _CachedGeneration),
        (NextTokenBackend, _CachedNextTokens),
    ):
        if isinstance(backend, protocol):
            kinds = (*kinds, kind)
    made: CachedBackend = type("CachedBackend", (*kinds, CachedBackend), {})(backend, store)
    return made


def _key(fingerprint: str, prompt: Prompt) -> bytes:
    """Hash of what decides an answer; lengths stand before their parts, so no two contents read alike."""
    digest = hashlib.sha256(f"{len(fingerprint)}:{fingerprint}".encode())
    digest.update(array("q", [len(prompt)]).tobytes())
    for segment in prompt.segments:
        digest.update(array("q", segment).tobytes())
    for candidate in prompt.candidates:
        digest.update(array("q", [len(candidate), *candidate]).tobytes())
    return digest.digest()

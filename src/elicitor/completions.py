"""OpenAI's completions protocol over a backend: requests checked, answered and put into words. Knows nothing of HTTP.

Names and shapes follow OpenAI's ``/v1/completions`` and what vLLM's server adds to it (``logprob_token_ids``,
``return_tokens_as_token_ids``, ``add_special_tokens``, ``/tokenize``, ``/detokenize``). One thing differs: the tokens of
``logprob_token_ids`` stand *beside* the ``logprobs`` most probable ones, where vLLM drops those.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from elicitor.backends.base import Backend, GenerationBackend, NextTokenBackend, NextTokens, Progress, TokenIds
from elicitor.errors import ConfigError

GREEDY = 1e-6
"""Temperature that stands for 0 where several tokens are drawn: only exact ties are still decided by lot."""

MAX_PROMPTS = 4096
"""Prompts of one request at most."""

_WITHOUT_EFFECT: Mapping[str, tuple[Any, ...]] = {
    "echo": (False,),
    "stream": (False,),
    "stream_options": (),
    "suffix": ("",),
    "best_of": (1,),
    "top_p": (1,),
    "top_k": (0, -1),
    "min_p": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "logit_bias": ({},),
}
"""Parameters that clients often send, with the values that change nothing; null never does. Others are refused."""

TokenId = Annotated[int, Field(ge=0)]
Stop = Annotated[str, Field(min_length=1)]


class ServableBackend(Backend, NextTokenBackend, Protocol):
    """A model that a server can offer."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    model: str | None = None


class TokenizeRequest(_Body):
    """Body of ``POST /tokenize``."""

    prompt: str
    add_special_tokens: bool = True


class DetokenizeRequest(_Body):
    """Body of ``POST /detokenize``."""

    tokens: list[TokenId]


class CompletionRequest(_Body):
    """Body of ``POST /v1/completions``; null stands for the default."""

    prompt: str | list[TokenId] | list[str] | list[list[TokenId]]
    max_tokens: int = Field(16, ge=0)
    temperature: float = Field(1.0, ge=0, allow_inf_nan=False)
    seed: int | None = Field(None, ge=0)
    stop: Stop | list[Stop] = []
    n: int = Field(1, ge=1, le=128)
    logprobs: int | None = Field(None, ge=0)
    logprob_token_ids: list[TokenId] | None = Field(None, min_length=1)
    return_tokens_as_token_ids: bool = False
    add_special_tokens: bool = True
    user: str | None = None

    @field_validator("prompt")
    @classmethod
    def _check_prompt(cls, prompt: Any) -> Any:
        if not prompt or (isinstance(prompt, list) and not all(part != [] and part != "" for part in prompt)):
            raise ValueError("a prompt is empty")
        if isinstance(prompt, list) and not isinstance(prompt[0], int) and len(prompt) > MAX_PROMPTS:
            raise ValueError(f"{len(prompt)} prompts, at most {MAX_PROMPTS} are allowed")
        return prompt

    @property
    def stops(self) -> list[str]:
        """Texts before which a completion ends."""
        return [self.stop] if isinstance(self.stop, str) else self.stop

    @property
    def only_reads(self) -> bool:
        """Whether the distribution after each prompt answers it, so that nothing has to be drawn."""
        return self.max_tokens == 0 or (self.max_tokens == 1 and self.temperature == 0)


Body = TypeVar("Body", bound=_Body)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request.

    Attributes:
        prompt_tokens: Tokens of its prompts, each prompt on its own.
        cached_tokens: How many of them did not have to be computed for it.
        completion_tokens: Tokens of the answer.
    """

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int

    def to_json(self) -> dict[str, Any]:
        """OpenAI's form."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }


def parse(kind: type[Body], values: Any) -> Body:
    """Check a request's body.

    Args:
        kind: What it should be.
        values: Parsed JSON.

    Returns:
        The request.

    Raises:
        ConfigError: If a field is missing, unknown, wrong or asks for something that is not offered; the text of a prompt
            is never repeated.
    """
    if not isinstance(values, dict):
        raise ConfigError("the body must be a JSON object")
    given = {key: value for key, value in values.items() if value is not None}
    if kind is CompletionRequest:
        for key, harmless in _WITHOUT_EFFECT.items():
            if key in given and given.pop(key) not in harmless:
                raise ConfigError(f"{key!r} is not supported by this server", fix="leave it out")
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise ConfigError(f"{'.'.join(map(str, first['loc'][:1]))!r}: {first['msg']}") from None


def complete(
    backend: ServableBackend, request: CompletionRequest, *, on_progress: Progress | None = None
) -> tuple[dict[str, Any], Usage]:
    """Answer a completions request.

    Args:
        backend: The model.
        request: What is asked.
        on_progress: Called after each forward pass with the tokens it computed.

    Returns:
        OpenAI's ``text_completion`` object, and its usage.

    Raises:
        ConfigError: If the request cannot be answered by this model.
        ContextOverflowError: If a prompt and its completion exceed the model's window.
        BackendError: If the model fails.
    """
    prompts = _token_ids(backend, request)
    _check_ids(backend, [token for tokens in prompts for token in tokens], field="prompt")
    answer = _read if request.only_reads else _draw
    choices, usage = answer(backend, request, prompts, on_progress)
    return {
        "id": f"cmpl-{uuid.uuid4().hex}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": backend.name,
        "choices": [{"index": index, **choice} for index, choice in enumerate(choices)],
        "usage": usage.to_json(),
        "system_fingerprint": backend.fingerprint,
    }, usage


def tokenize(backend: Backend, request: TokenizeRequest) -> dict[str, Any]:
    """Token ids of a text."""
    tokens = _encode(backend, request.prompt, special=request.add_special_tokens)
    return {"count": len(tokens), "max_model_len": backend.max_context_tokens, "tokens": list(tokens)}


def detokenize(backend: ServableBackend, request: DetokenizeRequest) -> dict[str, Any]:
    """Text of token ids.

    Raises:
        ConfigError: If an id is outside the vocabulary.
    """
    _check_ids(backend, request.tokens, field="tokens")
    return {"prompt": backend.tokenizer.decode(request.tokens)}


def _encode(backend: Backend, text: str, *, special: bool) -> TokenIds:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"'prompt' holds half of a surrogate pair, {text[error.start]!r}") from error
    tokenizer = backend.tokenizer
    return (*(tokenizer.start_ids if special else ()), *tokenizer.encode(text))


def _token_ids(backend: Backend, request: CompletionRequest) -> list[TokenIds]:
    prompt = request.prompt
    parts: list[Any] = [prompt] if isinstance(prompt, str) or isinstance(prompt[0], int) else list(prompt)
    return [
        _encode(backend, part, special=request.add_special_tokens) if isinstance(part, str) else tuple(part)
        for part in parts
    ]


def _check_ids(backend: NextTokenBackend, ids: list[int], *, field: str) -> None:
    if ids and max(ids) >= backend.vocabulary_size:
        raise ConfigError(f"{field!r} holds token {max(ids)}; the vocabulary ends at {backend.vocabulary_size - 1}")


def _read(
    backend: ServableBackend, request: CompletionRequest, prompts: list[TokenIds], on_progress: Progress | None
) -> tuple[list[dict[str, Any]], Usage]:
    """Choices that the distribution after each prompt decides."""
    wanted = request.logprob_token_ids or []
    _check_ids(backend, wanted, field="logprob_token_ids")
    if wanted and request.logprobs is None:
        raise ConfigError("'logprob_token_ids' needs 'logprobs'", fix="add logprobs: 0")
    top = min(max(request.logprobs or 0, 1), backend.vocabulary_size)
    found = backend.next_tokens(prompts, top=top, tokens=wanted, on_progress=on_progress)
    choices = [_choice(backend, request, found, row) for row in range(len(prompts)) for _ in range(request.n)]
    asked = sum(map(len, prompts))
    return choices, Usage(asked, asked - found.cost.tokens_computed, request.max_tokens * len(choices))


def _choice(backend: ServableBackend, request: CompletionRequest, found: NextTokens, row: int) -> dict[str, Any]:
    best = int(found.top_ids[row, 0])
    if request.max_tokens == 0:
        return {"text": "", "logprobs": None, "finish_reason": "length", "stop_reason": None}
    text = "" if best in backend.end_ids else backend.tokenizer.decode([best])
    stop = next((mark for mark in request.stops if mark in text), None)
    ended = best in backend.end_ids or stop is not None
    logprobs = None
    if request.logprobs is not None:
        pairs = [*zip(found.top_ids[row].tolist(), found.top_log_probs[row].tolist(), strict=True)]
        pairs += zip(request.logprob_token_ids or [], found.log_probs[row].tolist(), strict=True)
        named: dict[str, float] = {}
        for token, log_prob in sorted(pairs, key=lambda pair: -pair[1]):
            # Two tokens can read alike; the name then goes to the more probable one.
            named.setdefault(_name(backend, request, token), log_prob)
        logprobs = {
            "tokens": [_name(backend, request, best)],
            "token_logprobs": [pairs[0][1]],
            "top_logprobs": [named],
            "text_offset": [0],
        }
    return {
        "text": text if stop is None else text[: text.index(stop)],
        "logprobs": logprobs,
        "finish_reason": "stop" if ended else "length",
        "stop_reason": stop,
    }


def _name(backend: Backend, request: CompletionRequest, token: int) -> str:
    return f"token_id:{token}" if request.return_tokens_as_token_ids else backend.tokenizer.decode([token])


def _draw(
    backend: ServableBackend, request: CompletionRequest, prompts: list[TokenIds], on_progress: Progress | None
) -> tuple[list[dict[str, Any]], Usage]:
    """Choices drawn token by token; each has a generator of its own, so it depends on the seed and its place alone."""
    if not isinstance(backend, GenerationBackend):
        raise ConfigError(f"model {backend.name} cannot write texts", fix="ask with max_tokens 1 and temperature 0")
    if request.logprobs is not None or request.logprob_token_ids is not None:
        raise ConfigError("'logprobs' are given for max_tokens 1 and temperature 0 alone", fix="ask for one token at 0")
    choices: list[dict[str, Any]] = []
    drawn = 0
    root = np.random.SeedSequence(request.seed)
    for tokens in prompts:
        made = backend.generate(
            tokens,
            max_new_tokens=request.max_tokens,
            temperature=max(request.temperature, GREEDY),
            stop=request.stops,
            rngs=[np.random.default_rng(seed) for seed in root.spawn(request.n)],
            on_progress=on_progress,
        )
        drawn += sum(made.lengths)
        choices += [
            {"text": text, "logprobs": None, "finish_reason": "stop" if ended else "length", "stop_reason": None}
            for text, ended in zip(made.texts, made.finished, strict=True)
        ]
    return choices, Usage(sum(map(len, prompts)), 0, drawn)

"""Who a server is and what it understands, asked once when a model behind it is loaded."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from elicitor.backends.base import TokenIds, Tokenizer
from elicitor.backends.completions import Dialect, prompt_tokens, read_choices, request_body
from elicitor.backends.http_client import Call, HttpClient, RefusedError
from elicitor.backends.remote_tokenizer import window_tokens
from elicitor.config import RemoteConfig
from elicitor.errors import BackendError, ConfigError

_PROBES = ("The 3 quick foxes:", "The 3 quick foxes: zebra, quiz!")
"""Prompts of the request that finds out what a server understands; each a beginning that tokenises alike in any text."""
_FINAL = {401, 402, 403, 404}
"""Statuses that another form of the request would not change."""


@dataclass(frozen=True, slots=True)
class Served:
    """What a server says about a model.

    Attributes:
        model: The model's name on the server.
        fingerprint: Identifies weights and build, as far as the server tells; empty if it does not.
        window: Longest prompt and answer in tokens; None if the server does not tell.
        is_own: Whether the server is elicitor's own, whose counts of cached tokens are sums over a request.
        answers_as: Name of the model that answers, which may be what an alias stands for now; empty if it is not told.
    """

    model: str
    fingerprint: str
    window: int | None
    is_own: bool
    answers_as: str = ""


@dataclass(frozen=True, slots=True)
class FirstAnswer:
    """What the first answer of a server's model shows.

    Attributes:
        dialect: What the server understands.
        build: Its ``system_fingerprint``; empty if it tells none.
        answers_as: Name of the model that answered; empty if it tells none.
        counts: Whether it tells how many prompt tokens it has read.
    """

    dialect: Dialect
    build: str
    answers_as: str
    counts: bool


def check_url(url: str) -> str:
    """A server's address up to and including ``/v1``.

    Raises:
        ConfigError: If there may be a secret in it, because it is kept with a run's settings.
    """
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(
            "the server's address carries a user, a password or a query",
            fix="put the key into an environment variable and name it with backend.remote.api_key_env",
        )
    url = url.rstrip("/")
    return url if parts.path.strip("/") else f"{url}/v1"


def api_key(settings: RemoteConfig) -> str | None:
    """The key of the environment, None if there is none.

    Raises:
        ConfigError: If it is missing though its variable was named, or cannot be sent; nothing of it is shown.
    """
    key = os.environ.get(settings.api_key_env, "").strip()
    if not key and settings.api_key_env != RemoteConfig().api_key_env:
        raise ConfigError(f"environment variable {settings.api_key_env} is not set", fix="set it to the server's key")
    if not all("!" <= sign <= "~" for sign in key):
        raise ConfigError(
            f"the key in environment variable {settings.api_key_env} holds blanks or signs that no header may carry",
            fix="copy the key again",
        )
    return key or None


def model_card(client: HttpClient, base_url: str, model: str) -> Served:
    """What ``/v1/models`` says about a model.

    Args:
        client: Sends the request.
        base_url: The server's address, up to and including ``/v1``.
        model: Name that the user gave.

    Returns:
        Nothing but the name where the server keeps no such list, or lists many models and not this one.

    Raises:
        BackendError: If the server cannot be reached, or serves another model alone.
    """
    unknown = Served(model, "", None, False)
    try:
        (answer,) = client.send([Call(f"{base_url}/models")])
    except RefusedError as error:
        if error.status in (404, 405, 501):
            return unknown
        raise
    data = answer.get("data")
    cards = [card for card in data if isinstance(card, dict)] if isinstance(data, list) else []
    for card in cards:
        if card.get("id") == model:
            own = str(card.get("fingerprint") or "")
            return Served(model, own, window_tokens(card.get("max_model_len")), bool(own))
    if len(cards) == 1:
        # A server of one model may answer for it whatever name it is called by.
        name = cards[0].get("id")
        raise BackendError(f"{base_url} serves {name!r}, not {model!r}", fix=f"use openai:{name}@{base_url}")
    return unknown


def llama_cpp_window(client: HttpClient, root: str) -> int | None:
    """Window in tokens, from the route where llama.cpp's server tells it; None elsewhere."""
    try:
        (answer,) = client.send([Call(f"{root}/props")])
    except RefusedError:
        return None
    settings = answer.get("default_generation_settings")
    return window_tokens(settings.get("n_ctx")) if isinstance(settings, dict) else None


def answering_model(answer: Mapping[str, Any]) -> str:
    """Name of the model that an answer says it is from; empty if it tells none."""
    return str(answer.get("model") or "")


def find_dialect(client: HttpClient, url: str, tokenizer: Tokenizer, model: str, settings: RemoteConfig) -> FirstAnswer:
    """Find the best form of request that the server understands.

    A server with all of vLLM's fields is asked once. Others refuse fields, or ignore them, which shows in the answer.

    Args:
        client: Sends the requests.
        url: Address of the completions route.
        tokenizer: The model's tokenizer.
        model: Model name on the server.
        settings: Which forms to try.

    Returns:
        What the server understands, and what it said of itself.

    Raises:
        BackendError: If it understands none, as it answered to the plainest.
    """
    tokens = [(*tokenizer.start_ids, *tokenizer.encode(text)) for text in _PROBES]
    wanted = list(dict.fromkeys(tokenizer.encode(_PROBES[1])))[:4]

    def ask(dialect: Dialect) -> FirstAnswer:
        prompts: list[TokenIds | str] = [*tokens] if dialect.token_prompts else [*_PROBES]
        number = len(prompts) if dialect.several else 1
        (answer,) = client.send([Call(url, request_body(model, prompts[:number], wanted, dialect))])
        lists = read_choices(answer, number)
        told, sent = prompt_tokens(answer), sum(map(len, tokens[:number]))
        if told is not None and abs(told - sent) > number:
            raise BackendError(
                f"the server counts {told} tokens where the tokenizer counts {sent}",
                fix="set backend.remote.tokenizer to the model's own",
            )
        # One most probable token was asked for beside the four, so all four are there only if they were understood.
        if dialect.exact and not all(set(wanted) <= found.by_id.keys() for found in lists):
            raise _IgnoredError
        build = str(answer.get("system_fingerprint") or "")
        return FirstAnswer(dialect, build, answering_model(answer), told is not None)

    refused: BackendError | None = None
    for token_prompts, several in _forms(settings):
        extensions = False
        # Best first; 5 is what OpenAI allows.
        tries = ((True, settings.top_k), (False, settings.top_k), (False, min(5, settings.top_k)))
        for exact, top_k in dict.fromkeys(tries):
            dialect = Dialect(token_prompts, several, exact, extensions or exact, top_k)
            try:
                return ask(dialect)
            except _IgnoredError:
                extensions = True
            except BackendError as error:
                if error.retryable or (isinstance(error, RefusedError) and error.status in _FINAL):
                    raise
                refused = error
    raise refused or BackendError(f"{url} understands no request", fix="use another server")


class _IgnoredError(Exception):
    """A server answered as if it had not been asked for certain tokens."""


def _forms(settings: RemoteConfig) -> Iterator[tuple[bool, bool]]:
    """(prompts are token ids, several in one request), best first."""
    for token_prompts in {"auto": (True, False), "tokens": (True,), "text": (False,)}[settings.prompts]:
        for several in (True, False) if settings.batch_prompts > 1 else (False,):
            yield token_prompts, several

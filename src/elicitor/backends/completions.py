"""The ``/v1/completions`` format: requests for one next token, and what servers answer about it. Pure.

Field names are those of vLLM (``logprob_token_ids``, ``return_tokens_as_token_ids``) on top of OpenAI's; llama.cpp answers with
a list ``content`` instead of ``top_logprobs``. Which of them a server understands is a `Dialect`, found out when it is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elicitor.backends.base import TokenIds
from elicitor.errors import BackendError

IMPOSSIBLE = -9999.0
"""What vLLM writes for a probability of zero, because JSON has no minus infinity."""
_ROUNDING = 1e-6
"""Error of a sum of single-precision probabilities, generously."""
_ABOVE_ONE = 0.05
"""How far rounding in half precision may lift a log-probability above 0."""
_PART_OF_CHARACTER = "\ufffd"
"""What stands for a token that is no whole character."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a server understands.

    Attributes:
        token_prompts: Prompts may be token ids; else they are text.
        several: One request may hold several prompts.
        exact: It can be asked for the log-probabilities of given tokens (``logprob_token_ids``).
        extensions: It does not refuse the fields that vLLM adds.
        top_k: Most probable tokens that it lists otherwise.
    """

    token_prompts: bool
    several: bool
    exact: bool
    extensions: bool
    top_k: int


def request_body(
    model: str, prompts: Sequence[TokenIds | str], wanted: Sequence[int], dialect: Dialect
) -> dict[str, Any]:
    """Ask for the next token after each prompt, and for how probable it might have been another.

    Args:
        model: Model name on the server.
        prompts: At least one; exactly one unless the dialect knows several.
        wanted: Tokens whose log-probabilities are needed after any of them.
        dialect: What the server understands.

    Returns:
        The request's JSON.
    """
    sent = [list(prompt) if isinstance(prompt, tuple) else prompt for prompt in prompts]
    body: dict[str, Any] = {
        "model": model,
        "prompt": sent if dialect.several else sent[0],
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": dialect.top_k,
    }
    if dialect.extensions:
        body["return_tokens_as_token_ids"] = True
    if dialect.exact:
        body |= {"logprobs": 1, "logprob_token_ids": list(wanted)}
    return body


def drawing_body(
    model: str, prompt: TokenIds | str, *, max_tokens: int, temperature: float, stop: Sequence[str], seed: int
) -> dict[str, Any]:
    """Ask for one continuation of one prompt.

    Args:
        model: Model name on the server.
        prompt: Token ids, or text.
        max_tokens: Tokens at most.
        temperature: Divides the logits.
        stop: Texts before which it ends.
        seed: Seed of the draw; a server that ignores it draws anew each time.

    Returns:
        The request's JSON.
    """
    sent = list(prompt) if isinstance(prompt, tuple) else prompt
    body = {"model": model, "prompt": sent, "max_tokens": max_tokens, "temperature": temperature, "seed": seed}
    return body | ({"stop": list(stop)} if stop else {})


@dataclass(frozen=True, slots=True)
class Drawn:
    """One continuation.

    Attributes:
        text: Its text, without what ended it.
        finished: Whether it ended by itself.
        tokens: Tokens drawn, None if the server does not tell.
    """

    text: str
    finished: bool
    tokens: int | None


def read_drawn(answer: Mapping[str, Any]) -> Drawn:
    """The continuation in an answer to `drawing_body`.

    Raises:
        BackendError: If it is missing.
    """
    choices = answer.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(first, dict) or not isinstance(first.get("text"), str):
        raise BackendError("the server answered without a text", fix="use a server with /v1/completions")
    return Drawn(
        first["text"], first.get("finish_reason") == "stop", _count(_section(answer, "usage"), "completion_tokens")
    )


@dataclass(frozen=True, slots=True)
class NextToken:
    """What a server tells about the token after one prompt.

    Attributes:
        by_id: Log-probability by token id, where the server tells ids.
        by_text: Log-probability by the token's text otherwise.
    """

    by_id: Mapping[int, float]
    by_text: Mapping[str, float]

    def get(self, token: int, text: Callable[[int], str]) -> float | None:
        """Log-probability of a token, None if it is not listed.

        Args:
            token: Its id.
            text: Gives its text as it stands inside a text; called only if ids are not told.
        """
        if self.by_id:
            return self.by_id.get(token)
        # Every token that is a part of a character has the same text, so that tells nothing of this one.
        return None if _PART_OF_CHARACTER in (name := text(token)) else self.by_text.get(name)

    @property
    def bound(self) -> float:
        """No token that is not listed is more probable than the last that is, nor than all that is left to 1."""
        listed = [*self.by_id.values(), *self.by_text.values()]
        rest = max(0.0, 1 - sum(map(math.exp, listed))) + _ROUNDING
        return min(*listed, math.log(rest), 0.0)


def read_choices(answer: Mapping[str, Any], n: int) -> list[NextToken]:
    """The next-token lists of an answer, in the order of its request's prompts.

    Args:
        answer: The server's JSON.
        n: Prompts in the request.

    Raises:
        BackendError: If an answer is missing, or holds no log-probabilities, or one that is not a number.
    """
    choices = answer.get("choices")
    if not isinstance(choices, list) or len(choices) != n or not all(isinstance(choice, dict) for choice in choices):
        got = len(choices) if isinstance(choices, list) else "no"
        raise BackendError(
            f"the server answered {got} choices to {n} prompts", fix="set backend.remote.batch_prompts=1"
        )
    places = [choice.get("index") for choice in choices]
    if all(isinstance(place, int) for place in places):
        if n > 1 and sorted(places) != [*range(n)]:
            raise BackendError(
                f"the server numbered {n} choices {places[:10]}", fix="set backend.remote.batch_prompts=1"
            )
        choices = sorted(choices, key=lambda choice: int(choice["index"]))
    return [_next_token(choice) for choice in choices]


def _next_token(choice: Mapping[str, Any]) -> NextToken:
    logprobs = choice.get("logprobs") or {}
    by_id: dict[int, float] = {}
    by_text: dict[str, float] = {}
    try:
        if logprobs.get("content"):
            for item in logprobs["content"][0]["top_logprobs"]:
                if "id" in item:
                    by_id[int(item["id"])] = float(item["logprob"])
                else:
                    by_text[str(item["token"])] = float(item["logprob"])
        else:
            for key, value in (logprobs.get("top_logprobs") or [{}])[0].items():
                name, sign, number = key.partition("token_id:")
                if sign and not name and number.isdecimal():
                    by_id[int(number)] = float(value)
                else:
                    by_text[key] = float(value)
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise BackendError(
            f"the server's log-probabilities have an unknown form ({type(error).__name__})",
            fix="use vLLM, SGLang, llama.cpp's server or 'elicitor serve-hf'",
        ) from error
    values = [*by_id.values(), *by_text.values()]
    if not values:
        raise BackendError(
            "the server answered without log-probabilities",
            fix="start it so that /v1/completions answers 'logprobs', or use another server",
        )
    if not all(math.isfinite(value) for value in values):
        raise BackendError(
            "the server answered a log-probability that is not a number", fix="check the model's weights and precision"
        )
    if max(values) > _ABOVE_ONE:
        raise BackendError(
            f"the server answered {max(values):g} as a log-probability, which is none above 0",
            fix="start it so that it answers log-probabilities, not logits",
        )
    # Listed texts beside ids would be tokens whose ids nobody can tell.
    return NextToken(by_id, {} if by_id else by_text)


def prompt_tokens(answer: Mapping[str, Any]) -> int | None:
    """Prompt tokens that the server counted, if it tells."""
    return _count(_section(answer, "usage"), "prompt_tokens")


def cached_tokens(answer: Mapping[str, Any]) -> int | None:
    """Prompt tokens that the server took from its prefix cache, if it tells."""
    return _count(_section(_section(answer, "usage"), "prompt_tokens_details"), "cached_tokens")


def _section(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    section = values.get(key)
    return section if isinstance(section, dict) else {}


def _count(values: Mapping[str, Any], key: str) -> int | None:
    count = values.get(key)
    return count if isinstance(count, int) and not isinstance(count, bool) and count >= 0 else None


def settle(log_probs: NDArray[np.float64], is_bound: NDArray[np.bool_], *, top_k: int) -> int:
    """Accept upper bounds in the place of unknown values where they decide nothing.

    A label that the server did not list has at most the probability of the last token that it did. Where a label whose
    probability is known is at least as probable as that, the most probable label is certain, and the bound stands for the
    unknown value: it makes the model look less sure than it is, never more.

    Args:
        log_probs: Shape (prompts, labels); known values, or upper bounds.
        is_bound: Same shape, which of them are bounds.
        top_k: Tokens that the server lists, for the error.

    Returns:
        The number of bounds.

    Raises:
        BackendError: If for some prompt a bound may hide the most probable label.
    """
    known = np.where(is_bound, -np.inf, log_probs).max(axis=1, initial=-np.inf)
    bounds = np.where(is_bound, log_probs, -np.inf).max(axis=1, initial=-np.inf)
    undecided = is_bound.any(axis=1) & ~(known >= bounds)
    if undecided.any():
        raise BackendError(
            f"{int(undecided.sum())} of {len(log_probs)} prompts: the label is unknown, because none of the labels is surely "
            f"the most probable among the {top_k} tokens that the server lists",
            fix="set backend.remote.top_k higher, choose likelier verbalizers, or use a server with logprob_token_ids (vLLM)",
        )
    return int(is_bound.sum())

"""JSON over HTTP, with patience: bounded concurrency, rate limits, retries. It knows nothing of models or prompts.

What may pass is tried again: refused and broken connections, slow answers, 408, 409, 425, 429, 5xx, JSON that was cut off.
Anything else is an error at once, in the server's own words. The key stands in the request's header and nowhere else: it is
taken out of whatever a server says before that is shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np

from elicitor.backends.base import OnStage
from elicitor.backends.pacing import Pace, asked_pause, pause
from elicitor.config import RemoteConfig
from elicitor.errors import BackendError

Answer = dict[str, Any]
OnAnswer = Callable[[int, Answer], None]
"""Called with the index of a call and its answer, in the order in which answers arrive."""

_PASSING = {408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529}
"""Statuses after which the same request may succeed later."""
_LONGEST_ANSWER = 2**26
"""Bytes of an answer at most; thousands of prompts with hundreds of tokens each stay far below."""
_SAID = 10_000
"""Bytes of an error page that are looked at."""
_CONNECT_TIMEOUT = 15.0
"""Seconds to wait for a connection, which needs no model to think."""


class RefusedError(BackendError):
    """A server answered, and the same request would be answered alike again.

    Args:
        problem: See `ElicitorError`.
        fix: See `ElicitorError`.
        status: HTTP status.
    """

    def __init__(self, problem: str, *, fix: str = "", status: int) -> None:
        super().__init__(problem, fix=fix)
        self.status = status


@dataclass(frozen=True, slots=True)
class Call:
    """One request.

    Attributes:
        url: Full address.
        body: What to post as JSON; None for a GET.
        tokens: Prompt tokens in it, for the limit on tokens.
    """

    url: str
    body: dict[str, Any] | None = None
    tokens: int = 0


class _PassingError(Exception):
    """One try failed in a way that may pass."""

    def __init__(self, reason: str, *, said: str = "", asked: float = 0.0, reached: bool = True) -> None:
        super().__init__(reason)
        self.said = said
        self.asked = asked
        self.reached = reached


@dataclass
class HttpClient:
    """Sends calls to one server.

    Attributes:
        settings: Concurrency, timeout, limits, patience.
        key: Secret for the ``Authorization`` header; None for none.
        on_stage: Told when the server stops answering and when it answers again.
        rng: Jitter of the pauses.
        sleep: Waits; replaced in tests.
        clock: Seconds from any fixed point; replaced in tests.
    """

    settings: RemoteConfig
    key: str | None = field(default=None, repr=False)
    on_stage: OnStage | None = None
    rng: np.random.Generator = field(default_factory=np.random.default_rng)
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    clock: Callable[[], float] = time.monotonic
    _reached: bool = False
    _troubled: bool = False
    _resume_at: float = 0.0

    def __post_init__(self) -> None:
        self._requests = Pace(self.settings.requests_per_minute)
        self._tokens = Pace(self.settings.tokens_per_minute)
        self._tls = httpx.create_ssl_context()
        # At level DEBUG the header compression of HTTP/2 writes out every header, the key among them.
        logging.getLogger("hpack").setLevel(logging.INFO)

    def send(self, calls: Sequence[Call], *, on_answer: OnAnswer | None = None) -> list[Answer]:
        """Send calls in their order, as many at once as the settings allow.

        Args:
            calls: What to send.
            on_answer: Told of each answer as it arrives; what it raises stops everything.

        Returns:
            The answers, in the order of the calls.

        Raises:
            BackendError: If a call is refused, or fails longer than the settings' patience; the others are cancelled.
        """
        return _run(self._send(calls, on_answer))

    async def _send(self, calls: Sequence[Call], on_answer: OnAnswer | None) -> list[Answer]:
        answers: list[Answer] = [{} for _ in calls]
        waiting = iter(range(len(calls)))
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        limits = httpx.Limits(max_connections=self.settings.concurrency)
        timeout = httpx.Timeout(self.settings.timeout, connect=min(_CONNECT_TIMEOUT, self.settings.timeout))

        async def work(client: httpx.AsyncClient) -> None:
            # Workers take turns at one queue, so calls leave in order and a server's prefix cache sees neighbours together.
            for index in waiting:
                answers[index] = await self._ask(client, calls[index])
                if on_answer:
                    on_answer(index, answers[index])

        async with httpx.AsyncClient(
            headers=headers, timeout=timeout, limits=limits, verify=self._tls, http2=self.settings.http2
        ) as client:
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self.settings.concurrency, len(calls))):
                        group.create_task(work(client))
            except BaseExceptionGroup as failures:
                raise failures.exceptions[0] from None
        return answers

    async def _ask(self, client: httpx.AsyncClient, call: Call) -> Answer:
        """One call until it is answered."""
        failures, give_up = 0, 0.0
        while True:
            await self._wait(call)
            try:
                answer = await self._try(client, call)
            except _PassingError as problem:
                now = self.clock()
                failures += 1
                if failures == 1:
                    give_up = now + self.settings.retry_seconds
                wait = max(problem.asked, pause(failures, rng=self.rng))
                if not problem.reached and not self._reached:
                    raise BackendError(
                        f"{call.url} cannot be reached: {problem}", fix="start the server, or correct the address"
                    ) from None
                if now + wait > give_up:
                    raise BackendError(
                        f"{call.url}: {problem}, {failures} times in a row{problem.said}, and the next try is {wait:.0f} s "
                        f"away, beyond the {self.settings.retry_seconds:g} s of backend.remote.retry_seconds",
                        fix="look after the server, then go on with --resume",
                        retryable=True,
                    ) from None
                self._note(f"the server fails ({problem}); trying again", troubled=True)
                # When a server asks for a pause, it means all requests, not only the one that it answered.
                self._resume_at = max(self._resume_at, now + problem.asked)
                await self.sleep(wait)
                continue
            self._reached = True
            self._note("the server answers again", troubled=False)
            return answer

    async def _wait(self, call: Call) -> None:
        """Until the limits, and a pause that the server asked for, allow the next request."""
        now = self.clock()
        limits = (self._requests.reserve(1, now=now), self._tokens.reserve(call.tokens, now=now))
        if (wait := max(*limits, self._resume_at - now)) > 0:
            await self.sleep(wait)

    async def _try(self, client: httpx.AsyncClient, call: Call) -> Answer:
        try:
            # httpx counts from piece to piece; a server that sends a byte a minute would be waited for without end.
            async with asyncio.timeout(self.settings.timeout):
                response = await self._received(client, call)
        except httpx.ConnectTimeout:
            raise _PassingError("no connection", reached=False) from None
        except (httpx.TimeoutException, TimeoutError):
            raise _PassingError(f"no answer within {self.settings.timeout:g} s") from None
        except httpx.TransportError as error:
            reason = self._clean(f"{type(error).__name__}: {error}")
            raise _PassingError(reason, reached=not isinstance(error, httpx.ConnectError)) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise BackendError(self._clean(f"{call.url}: {error}"), fix="check the address") from None
        if response.status_code in _PASSING and _SPENT not in response.content:
            asked = asked_pause(response.headers, wall_time=time.time())
            said = self._clean(_message(response)) if response.content else ""
            raise _PassingError(f"HTTP {response.status_code}", said=said and f" ({said})", asked=asked)
        if not response.is_success:
            said = self._clean(_message(response))
            raise RefusedError(
                f"{call.url} answered HTTP {response.status_code}: {said}",
                fix=_FIXES.get(response.status_code, ""),
                status=response.status_code,
            )
        return self._decoded(call, response)

    async def _received(self, client: httpx.AsyncClient, call: Call) -> httpx.Response:
        """The whole answer, within bounds also where it was packed."""
        async with client.stream("GET" if call.body is None else "POST", call.url, json=call.body) as response:
            content = bytearray()
            async for piece in response.aiter_bytes():
                content += piece
                if len(content) > _LONGEST_ANSWER:
                    raise RefusedError(
                        f"{call.url} answered more than {_LONGEST_ANSWER:,} bytes",
                        fix="check the address, or set backend.remote.batch_prompts lower",
                        status=response.status_code,
                    )
        # The content is unpacked by now.
        headers = [(name, value) for name, value in response.headers.raw if name.lower() != b"content-encoding"]
        return httpx.Response(response.status_code, headers=headers, content=bytes(content), request=response.request)

    def _decoded(self, call: Call, response: httpx.Response) -> Answer:
        try:
            answer = response.json()
        except (ValueError, RecursionError):
            kind = response.headers.get("content-type", "no content type").partition(";")[0]
            if "json" in kind:
                raise _PassingError("an answer whose JSON is cut off") from None
            raise RefusedError(
                self._clean(f"{call.url} answered {kind!r} where JSON is needed"),
                fix="check that the address is that of an OpenAI-compatible server, usually ending in /v1",
                status=response.status_code,
            ) from None
        if not isinstance(answer, dict):
            raise RefusedError(f"{call.url} answered JSON that is no object", status=response.status_code)
        return answer

    def _note(self, text: str, *, troubled: bool) -> None:
        """Tell the user once when trouble begins and once when it ends."""
        if self.on_stage and troubled != self._troubled:
            self.on_stage(text)
        self._troubled = troubled

    def _clean(self, text: str) -> str:
        """A server's words on one line, short, without the key, in whatever way it was written there."""
        if self.key:
            for form in (self.key, json.dumps(self.key)[1:-1], repr(self.key)[1:-1]):
                text = text.replace(form, "[key]")
        text = " ".join(text.split())
        return text if len(text) <= 500 else text[:500] + " ..."


_FIXES = {
    401: "put the key into the environment variable that backend.remote.api_key_env names",
    403: "check that the key may use this model",
    404: "check the base URL, usually ending in /v1, and the model's name",
    413: "set backend.remote.batch_prompts lower",
    429: "look after the account, then go on with --resume",
}
_SPENT = b"insufficient_quota"
"""What a hosted server says with HTTP 429 when money, not a pause, is missing."""


def _message(response: httpx.Response) -> str:
    """What an error's body says, whichever of the usual shapes it has."""
    with contextlib.suppress(ValueError, RecursionError):
        body = response.json()
        for key in ("error", "message", "detail"):
            if isinstance(body, dict) and body.get(key):
                body = body[key]
        return body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
    # Not in the character set that the header claims, which may be none of text.
    return response.content[:_SAID].decode(errors="replace") or response.reason_phrase


def _run(work: Coroutine[Any, Any, list[Answer]]) -> list[Answer]:
    """Run to the end; Ctrl-C cancels what is under way. Inside a running loop, as in a notebook, in a thread of its own."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()

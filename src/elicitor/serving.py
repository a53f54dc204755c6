"""An OpenAI-compatible HTTP server over one loaded model: the ASGI application, a function of a backend.

One thread owns the model and answers one request at a time; the others wait in a bounded queue. Prompts are never logged.
"""

from __future__ import annotations

import asyncio
import hmac
import math
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from elicitor.backends.base import Backend, NextTokenBackend, Progress
from elicitor.completions import (
    Body,
    CompletionRequest,
    DetokenizeRequest,
    TokenizeRequest,
    Usage,
    complete,
    detokenize,
    parse,
    tokenize,
)
from elicitor.errors import BackendError, ConfigError, ElicitorError
from elicitor.local_http import json_body

Result = TypeVar("Result")
Handler = Callable[[Request], Awaitable[Response]]

_ERROR_TYPES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    404: "NotFoundError",
    405: "MethodNotAllowedError",
    408: "RequestTimeoutError",
    413: "RequestTooLargeError",
    429: "RateLimitError",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What one server takes on.

    Attributes:
        body_bytes: Bytes of a request's body, at most.
        body_seconds: Seconds in which a body must have arrived.
        waiting: Requests that may be in work or waiting for the model, at most.
    """

    body_bytes: int = 32 * 2**20
    body_seconds: float = 30.0
    waiting: int = 128


class Totals:
    """What a server has done since it started."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self.requests = self.refused = self.cancelled = 0
        self.prompt_tokens = self.reused_tokens = self.completion_tokens = 0

    def add(self, usage: Usage) -> None:
        """Count a completion."""
        self.prompt_tokens += usage.prompt_tokens
        self.reused_tokens += usage.cached_tokens
        self.completion_tokens += usage.completion_tokens

    def summary(self) -> str:
        """One line for the end."""
        share = self.reused_tokens / max(self.prompt_tokens, 1)
        return (
            f"{self.requests} requests in {time.monotonic() - self._started:.0f} s; prompt tokens: {self.prompt_tokens:,} "
            f"asked, {self.prompt_tokens - self.reused_tokens:,} computed, {self.reused_tokens:,} reused ({share:.1%})"
        )

    def to_prometheus(self, *, waiting: int) -> str:
        """Counters, and the number of requests in work or waiting, in Prometheus' text format."""
        counters = {
            "requests": self.requests,
            "requests_refused": self.refused,
            "requests_cancelled": self.cancelled,
            "prompt_tokens": self.prompt_tokens,
            "prompt_tokens_computed": self.prompt_tokens - self.reused_tokens,
            "prompt_tokens_reused": self.reused_tokens,
            "completion_tokens": self.completion_tokens,
        }
        lines = [f"# TYPE elicitor_{name}_total counter\nelicitor_{name}_total {n}\n" for name, n in counters.items()]
        gauges = {"requests_waiting": str(waiting), "uptime_seconds": f"{time.monotonic() - self._started:.3f}"}
        lines += [f"# TYPE elicitor_{name} gauge\nelicitor_{name} {value}\n" for name, value in gauges.items()]
        return "".join(lines)


class _Gone(Exception):
    """Nobody waits for this answer any more."""


class _Worker:
    """The one thread that may touch the model."""

    def __init__(self, waiting: int) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
        self._most = waiting
        self._jobs: set[threading.Event] = set()
        self._seconds = 1.0

    @property
    def waiting(self) -> int:
        """Requests in work or waiting."""
        return len(self._jobs)

    async def run(self, work: Callable[[Progress], Result], request: Request) -> Result:
        """Do some work in the thread, unless too much waits; drop it when the client goes away.

        Raises:
            HTTPException: 429, with the seconds after which to come again, if the queue is full; 503 if the server stops.
            ClientDisconnect: If the client has gone.
        """
        if self.waiting >= self._most:
            again = {"Retry-After": str(max(1, math.ceil(self._seconds)))}
            raise HTTPException(429, f"{self.waiting} requests are waiting; come again later", headers=again)
        stop = threading.Event()

        def check(_: int) -> None:
            if stop.is_set():
                raise _Gone

        def job() -> Result:
            check(0)
            started = time.monotonic()
            try:
                return work(check)
            finally:
                self._seconds = time.monotonic() - started

        self._jobs.add(stop)
        answer = asyncio.wrap_future(self._pool.submit(job))
        gone = asyncio.create_task(_until_gone(request))
        either: list[asyncio.Future[Any]] = [answer, gone]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise ClientDisconnect
            return answer.result()
        except _Gone:
            raise HTTPException(503, "the server is stopping") from None
        finally:
            # What is still waiting is taken out of the queue, what runs ends after its next forward pass.
            stop.set()
            answer.cancel()
            gone.cancel()
            self._jobs.discard(stop)

    def close(self) -> None:
        """Let go of all work."""
        for stop in self._jobs:
            stop.set()
        self._pool.shutdown(wait=False, cancel_futures=True)


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def create_app(
    backend: Backend,
    *,
    key: str | None = None,
    limits: Limits | None = None,
    allowed_hosts: list[str] | None = None,
    on_ready: Callable[[], None] | None = None,
    on_close: Callable[[Totals], None] | None = None,
) -> Starlette:
    """The server's application.

    Args:
        backend: The model; it must be able to answer flat prompts, and writes texts if it can generate.
        key: What clients must send as a bearer token; none asks for nothing.
        limits: Bounds on requests.
        allowed_hosts: Values of the ``Host`` header that are answered, so that no web page can reach the server under a
            name of its own; None allows all.
        on_ready: Called when the application can answer.
        on_close: Called with the totals when it shuts down.

    Returns:
        An ASGI application.

    Raises:
        ConfigError: If the backend cannot be served.
    """
    if not isinstance(backend, NextTokenBackend):
        raise ConfigError(f"model {backend.name} cannot be served", fix="serve a model that runs in this process")
    served = backend
    bounds = limits or Limits()
    worker, totals = _Worker(bounds.waiting), Totals()
    created = int(time.time())

    async def body(request: Request, kind: type[Body]) -> Body:
        parsed = parse(kind, await json_body(request, most_bytes=bounds.body_bytes, seconds=bounds.body_seconds))
        if parsed.model not in (None, served.name):
            raise HTTPException(404, f"model {parsed.model!r} is not served here; use {served.name!r}")
        return parsed

    async def health(_: Request) -> Response:
        return Response()

    async def models(_: Request) -> Response:
        card = {
            "id": served.name,
            "object": "model",
            "created": created,
            "owned_by": "elicitor",
            "max_model_len": served.max_context_tokens,
            "fingerprint": served.fingerprint,
        }
        return JSONResponse({"object": "list", "data": [card]})

    async def completions(request: Request) -> Response:
        asked = await body(request, CompletionRequest)
        answer, usage = await worker.run(lambda check: complete(served, asked, on_progress=check), request)
        totals.add(usage)
        return JSONResponse(answer)

    # A tokenizer may not be used by two threads at once, so these wait their turn as well.
    async def to_tokens(request: Request) -> Response:
        asked = await body(request, TokenizeRequest)
        return JSONResponse(await worker.run(lambda _: tokenize(served, asked), request))

    async def to_text(request: Request) -> Response:
        asked = await body(request, DetokenizeRequest)
        return JSONResponse(await worker.run(lambda _: detokenize(served, asked), request))

    async def metrics(_: Request) -> Response:
        return PlainTextResponse(totals.to_prometheus(waiting=worker.waiting), media_type="text/plain; version=0.0.4")

    def guarded(handler: Handler) -> Handler:
        async def call(request: Request) -> Response:
            totals.requests += 1
            try:
                _authorize(request, key)
                return await handler(request)
            except ClientDisconnect:
                totals.cancelled += 1
                return Response(status_code=499)
            except (HTTPException, ElicitorError) as error:
                totals.refused += 1
                return _refusal(error)

        return call

    async def http_error(_: Request, error: Exception) -> Response:
        return _refusal(error)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        if on_ready:
            on_ready()
        try:
            yield
        finally:
            worker.close()
            if on_close:
                on_close(totals)

    return Starlette(
        routes=[
            Route("/health", health),
            Route("/metrics", guarded(metrics)),
            Route("/v1/models", guarded(models)),
            Route("/v1/completions", guarded(completions), methods=["POST"]),
            Route("/tokenize", guarded(to_tokens), methods=["POST"]),
            Route("/detokenize", guarded(to_text), methods=["POST"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=allowed_hosts)] if allowed_hosts else [],
        exception_handlers={HTTPException: http_error, Exception: http_error},
        lifespan=lifespan,
    )


def _authorize(request: Request, key: str | None) -> None:
    given = request.headers.get("Authorization", "")
    if key is not None and not hmac.compare_digest(given.encode(), f"Bearer {key}".encode()):
        raise HTTPException(401, "a key is needed: send it as 'Authorization: Bearer KEY'")


def _refusal(error: Exception) -> Response:
    """An error in OpenAI's form; of a defect nothing is told but that there is one."""
    status, message, headers = 500, "internal error", None
    if isinstance(error, HTTPException):
        status, message, headers = error.status_code, error.detail, error.headers
    elif isinstance(error, BackendError):
        status, message = 503 if error.retryable else 500, str(error)
    elif isinstance(error, ElicitorError):
        status, message = 400, str(error)
    kind = _ERROR_TYPES.get(status, "InternalServerError")
    content = {"error": {"message": message, "type": kind, "param": None, "code": status}}
    return JSONResponse(content, status_code=status, headers=headers)

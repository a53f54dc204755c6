"""The live page of a run folder: an ASGI application for one user of this machine.

Whoever knows the token in the address may see and control the run; requests that a browser sends on behalf of another page,
or under another host name, are refused whatever they know. The page and its data are given; they are made once for all
clients. See docs/review.md for the addresses.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from elicitor.control import ACTIONS, request
from elicitor.errors import ConfigError, ElicitorError
from elicitor.follow import Follower
from elicitor.local_http import LOOPBACK, json_body
from elicitor.notices import warn
from elicitor.review import VERDICTS, Reviewer
from elicitor.runs import has_run

_CHUNK = 2**16
_HEADERS = {
    # The page holds its scripts and styles itself; its own policy names them, this one is the outer bound.
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What the server takes on.

    Attributes:
        body_bytes: Bytes of a request's body, at most.
        body_seconds: Seconds in which a body must have arrived.
        send_seconds: Seconds in which a client must have taken a piece of an answer.
        look_seconds: Seconds between two looks at the folder, and so between two events.
        data_seconds: Seconds between two makings of the data, at least.
        quiet_seconds: Seconds after which an event stream in which nothing happens sends a comment.
    """

    body_bytes: int = 2**16
    body_seconds: float = 10.0
    send_seconds: float = 30.0
    look_seconds: float = 0.5
    data_seconds: float = 2.0
    quiet_seconds: float = 15.0


class Feed:
    """The newest progress, for any number of readers; who is slow misses what lies between.

    Args:
        follower: Reads the folder.
        seconds: Seconds between two looks.
    """

    def __init__(self, follower: Follower, *, seconds: float) -> None:
        self._follower = follower
        self._seconds = seconds
        self._changed = asyncio.Condition()
        self.version = 0
        self.newest: dict[str, Any] = {}
        self.closing = False

    async def run(self) -> None:
        """Look again and again."""
        while True:
            try:
                newest = await run_in_threadpool(self._follower.look)
            except ElicitorError as error:
                # What is there may be whole at the next look.
                newest = self.newest
                warn(str(error))
            async with self._changed:
                if newest != self.newest:
                    self.version, self.newest = self.version + 1, newest
                # Also those who have nothing new to be told must see that it ends.
                self._changed.notify_all()
            await asyncio.sleep(self._seconds)

    async def after(self, version: int) -> tuple[int, dict[str, Any]] | None:
        """Wait for a newer progress than that of a version; None at the end."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.version > version or self.closing)
            return None if self.closing else (self.version, self.newest)


class _Shared:
    """Something large that all clients get alike: made in a thread, for all who ask within some seconds and know no better.

    Who has heard of news waits until it may be made again, rather than getting what was made before: it may not ask once more.
    """

    def __init__(self, make: Callable[[], bytes], feed: Feed, *, seconds: float) -> None:
        self._make = make
        self._feed = feed
        self._seconds = seconds
        self._lock = asyncio.Lock()
        self._version = -1
        self._made = float("-inf")
        self._value = b""

    async def get(self) -> bytes:
        async with self._lock:
            left = self._made + self._seconds - time.monotonic()
            if left > 0 and self._version == self._feed.version:
                return self._value
            await asyncio.sleep(left)
            version = self._feed.version
            self._value = await run_in_threadpool(self._make)
            self._version, self._made = version, time.monotonic()
            return self._value


class Guarded:
    """An ASGI application behind its guard: refuses requests from elsewhere and bounds slow clients.

    Args:
        app: The application.
        token: First part of every path.
        send_seconds: Seconds in which a client must have taken a piece of an answer.
        close: Makes answers that last for ever end.
    """

    def __init__(self, app: Any, *, token: str, send_seconds: float, close: Callable[[], None]) -> None:
        self._app = app
        self._token = token.encode()
        self._send_seconds = send_seconds
        self.close = close

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request, with headers of protection on every answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded_send(message: Any) -> None:
            if message["type"] == "http.response.start":
                own = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", ()), *own]}
            try:
                async with asyncio.timeout(self._send_seconds):
                    await send(message)
            except TimeoutError:
                raise ClientDisconnect from None

        try:
            await (self._refusal(Request(scope)) or self._app)(scope, receive, guarded_send)
        except ClientDisconnect:
            return

    def _refusal(self, request: Request) -> Response | None:
        host, origin = request.headers.get("Host", ""), request.headers.get("Origin")
        # The name alone: the port is another one behind a tunnel. A page of another site has its own name here or, as an
        # origin, its own port.
        if _name(host) not in LOOPBACK:
            return _error(421, "this host name is not served here")
        follows_a_link = request.method == "GET" and request.headers.get("Sec-Fetch-Mode") == "navigate"
        site = request.headers.get("Sec-Fetch-Site", "none")
        if origin not in (None, f"http://{host}") or not (site in ("same-origin", "none") or follows_a_link):
            return _error(403, "another page may not ask")
        # A path may also be "*".
        if not hmac.compare_digest(request.scope["path"].removeprefix("/").split("/")[0].encode(), self._token):
            return _error(404, "not found")
        return None


def _name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def create_app(
    folder: Path,
    *,
    follower: Follower,
    page: Callable[[], str],
    data: Callable[[], object],
    token: str,
    limits: Limits | None = None,
    on_ready: Callable[[], None] | None = None,
) -> Guarded:
    """The server's application.

    Args:
        folder: Folder of the run or training.
        follower: Says where it stands; see `elicitor.follow.follow`.
        page: Makes the page, HTML.
        data: Makes the data that the page shows, JSON values.
        token: First part of every path.
        limits: Bounds on requests.
        on_ready: Called when the application can answer.

    Returns:
        An ASGI application.
    """
    bounds = limits or Limits()
    feed = Feed(follower, seconds=bounds.look_seconds)
    html = _Shared(lambda: page().encode(), feed, seconds=bounds.data_seconds)
    values = _Shared(lambda: _json_bytes(data()), feed, seconds=bounds.data_seconds)
    reviewer = Reviewer(folder) if has_run(folder) else None
    reviewing = asyncio.Lock()

    async def show_page(_: Request) -> Response:
        return _pieces(await html.get(), "text/html; charset=utf-8")

    async def show_data(_: Request) -> Response:
        return _pieces(await values.get(), "application/json")

    async def events(_: Request) -> Response:
        return StreamingResponse(_stream(feed, bounds), media_type="text/event-stream")

    async def control(request_: Request) -> Response:
        action = _field(await body(request_), "action", ACTIONS)
        try:
            state = request(folder, action)
        except ConfigError as error:
            raise HTTPException(409, str(error)) from None
        return JSONResponse({"state": state})

    def labels() -> Reviewer:
        if reviewer is None:
            raise HTTPException(404, "a training has no labels to review")
        return reviewer

    async def show_review(_: Request) -> Response:
        async with reviewing:
            return JSONResponse(await run_in_threadpool(lambda: labels().review().to_json()))

    async def mark(request_: Request) -> Response:
        values = await body(request_)
        verdict = _field(values, "verdict", VERDICTS)
        example_id = values.get("id")
        if not isinstance(example_id, str):
            raise HTTPException(400, "'id' must be a text")
        async with reviewing:
            await run_in_threadpool(lambda: labels().mark(example_id, verdict))
            return JSONResponse(await run_in_threadpool(lambda: labels().review().to_json()))

    async def body(request_: Request) -> dict[str, Any]:
        given = await json_body(request_, most_bytes=bounds.body_bytes, seconds=bounds.body_seconds)
        if not isinstance(given, dict):
            raise HTTPException(400, "the body must be a JSON object")
        return given

    async def refuse(_: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            return _error(error.status_code, error.detail, headers=error.headers)
        if isinstance(error, ElicitorError):
            return _error(409, str(error))
        return _error(500, "internal error")

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        looking = asyncio.create_task(feed.run())
        if on_ready:
            on_ready()
        try:
            yield
        finally:
            looking.cancel()

    app = Starlette(
        routes=[
            Route("/{token}/", show_page),
            Route("/{token}/data.json", show_data),
            Route("/{token}/events", events),
            Route("/{token}/control", control, methods=["POST"]),
            Route("/{token}/review", show_review, methods=["GET"]),
            Route("/{token}/review", mark, methods=["POST"]),
        ],
        exception_handlers={HTTPException: refuse, ElicitorError: refuse, Exception: refuse},
        lifespan=lifespan,
    )

    def close() -> None:
        feed.closing = True

    return Guarded(app, token=token, send_seconds=bounds.send_seconds, close=close)


async def _stream(feed: Feed, limits: Limits) -> AsyncIterator[bytes]:
    version = 0
    while True:
        try:
            async with asyncio.timeout(limits.quiet_seconds):
                news = await feed.after(version)
        except TimeoutError:
            yield b": nothing new\n\n"
            continue
        if news is None:
            return
        version, progress = news
        yield b"event: progress\ndata: " + _json_bytes(progress) + b"\n\n"
        await asyncio.sleep(limits.look_seconds)


def _pieces(content: bytes, media_type: str) -> Response:
    """A large answer, piece by piece: of what a slow client has not taken, only one is kept for it."""

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(content), _CHUNK):
            yield content[start : start + _CHUNK]

    return StreamingResponse(pieces(), media_type=media_type, headers={"Content-Length": str(len(content))})


def _json_bytes(values: object) -> bytes:
    return json.dumps(values, ensure_ascii=False, allow_nan=False).encode()


def _field(values: dict[str, Any], name: str, allowed: Sequence[str]) -> Any:
    if values.get(name) not in allowed:
        raise HTTPException(400, f"'{name}' must be one of {', '.join(allowed)}")
    return values[name]


def _error(status: int, message: str, *, headers: Any = None) -> Response:
    return JSONResponse({"error": message}, status_code=status, headers=headers)

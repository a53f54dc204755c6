"""What the HTTP servers of this package share: the socket, a body read within bounds, and a clean end."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

import h11
import uvicorn
from starlette.exceptions import HTTPException
from starlette.requests import Request
from uvicorn.protocols.http.h11_impl import H11Protocol

from elicitor.errors import ConfigError

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def bound(host: str, port: int) -> socket.socket:
    """A socket bound to an address, before anything slow is done, so that a port in use costs no wait.

    Args:
        host: Name or number.
        port: 0 takes a free one.

    Raises:
        ConfigError: If it cannot be bound.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot listen on {host} port {port}: {reason}", fix="choose another --port") from error
    return listener


class ImpatientProtocol(H11Protocol):  # type: ignore[misc]
    """HTTP of a connection that is closed where no whole request head comes: idle ones would take the places of others.

    Uvicorn bounds the pause after an answer alone; before the first request, or within its head, it waits for ever.
    """

    head_seconds = 10.0
    """Seconds in which the head of a request must have arrived, from the opening of the connection or its first byte on."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._waits: asyncio.TimerHandle | None = None
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Take some bytes; what follows an answer is waited for anew, and no longer than a first request."""
        super().data_received(data)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the wait with the connection."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            # The body is bounded where it is read, what comes after the answer by uvicorn.
            self._stop_waiting()
        elif self._waits is None and not self.transport.is_closing():
            self._waits = self.loop.call_later(self.head_seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._waits:
            self._waits.cancel()
            self._waits = None

    def _give_up(self) -> None:
        self._waits = None
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self.transport.close()


class _Server(uvicorn.Server):  # type: ignore[misc]
    """Says when it is told to end: answers that last for ever must then end by themselves."""

    def __init__(self, config: uvicorn.Config, on_exit: Callable[[], None] | None) -> None:
        super().__init__(config)
        self._on_exit = on_exit

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Begin to end."""
        if self._on_exit:
            self._on_exit()
        super().handle_exit(sig, frame)


def configured(app: Any, **options: Any) -> uvicorn.Config:
    """How our servers run: no logs, no hints of what they are, no waiting for clients that say nothing.

    Args:
        app: The application.
        **options: More for uvicorn's configuration, or other values.
    """
    ours = {
        "log_config": None,
        "access_log": False,
        "lifespan": "on",
        "server_header": False,
        "proxy_headers": False,
        "timeout_graceful_shutdown": 5,
        "http": ImpatientProtocol,
    }
    return uvicorn.Config(app, **(ours | options))


def serve(app: Any, listener: socket.socket, *, on_exit: Callable[[], None] | None = None, **options: Any) -> None:
    """Serve an ASGI application until Ctrl-C or SIGTERM, then leave the process with code 0.

    Args:
        app: The application.
        listener: A bound socket.
        on_exit: Called when the end begins.
        **options: More for uvicorn's configuration.
    """
    # Uvicorn ends cleanly on SIGTERM, then sends it once more to whoever handled it before.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        _Server(configured(app, **options), on_exit).run(sockets=[listener])
    except KeyboardInterrupt:
        sys.exit(0)


async def json_body(request: Request, *, most_bytes: int, seconds: float) -> Any:
    """The parsed body of a request.

    Args:
        request: The request.
        most_bytes: Bytes of the body, at most.
        seconds: Seconds in which it must have arrived.

    Raises:
        HTTPException: 413 if it is too large, 408 if it is too slow, 400 if it is not JSON.
    """
    too_large = HTTPException(413, f"a body may hold {most_bytes:,} bytes", headers={"Connection": "close"})
    declared = request.headers.get("Content-Length", "0")
    if declared.isdecimal() and int(declared) > most_bytes:
        raise too_large
    chunks = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                chunks += chunk
                if len(chunks) > most_bytes:
                    raise too_large
    except TimeoutError:
        raise HTTPException(408, f"no body within {seconds:g} s", headers={"Connection": "close"}) from None
    try:
        return json.loads(chunks)
    except (ValueError, RecursionError):
        raise HTTPException(400, "the body is not valid JSON") from None

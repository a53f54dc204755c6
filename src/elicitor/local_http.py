"""What the HTTP servers of this package share: the socket, a body read within bounds, and a clean end."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.exceptions import HTTPException
from starlette.requests import Request

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
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host} port {port}: {error.strerror}", fix="choose another --port"
        ) from error
    return listener


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
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="on",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=5,
        **options,
    )
    try:
        _Server(config, on_exit).run(sockets=[listener])
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

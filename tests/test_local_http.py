"""What the servers share, over real connections."""

import socket
import time

import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("uvicorn")
pytest.importorskip("starlette")

from starlette.applications import Starlette  # noqa: E402
from starlette.responses import PlainTextResponse  # noqa: E402
from starlette.routing import Route  # noqa: E402

from elicitor.local_http import ImpatientProtocol  # noqa: E402


@pytest.fixture
def client(serve_app, monkeypatch):
    """Serves one page, to eight connections at most."""
    monkeypatch.setattr(ImpatientProtocol, "head_seconds", 0.5)
    app = Starlette(routes=[Route("/", lambda _: PlainTextResponse("page"))])
    return serve_app(app, limit_concurrency=8)


def connected(client):
    return socket.create_connection((client.base_url.host, client.base_url.port), timeout=60)


def test_idle_connections_give_their_places_back(client):
    idle = [connected(client) for _ in range(8)]
    refused = client.get("/", headers={"Connection": "close"})
    for one in idle:
        # Closed by the server, without a word.
        assert one.recv(1) == b""
        one.close()
    assert refused.status_code == 503
    assert client.get("/").text == "page"


@pytest.mark.parametrize("before", ["", "GET / HTTP/1.1\r\nHost: x\r\n\r\n"])
def test_a_head_that_trickles_is_cut_off(client, before):
    with connected(client) as slow:
        slow.sendall(before.encode())
        if before:
            assert slow.recv(2**16).startswith(b"HTTP/1.1 200")
        slow.sendall(b"GET / HTTP/1.1\r\n")
        slow.settimeout(0.05)
        for _ in range(2000):
            try:
                slow.sendall(b"X-A: b\r\n")
                if slow.recv(1) == b"":
                    return
            except TimeoutError:
                continue
            except ConnectionError:
                return
        pytest.fail("the connection was held open")


def test_a_connection_in_use_is_kept(client):
    with connected(client) as kept:
        for _ in range(4):
            kept.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert kept.recv(2**16).startswith(b"HTTP/1.1 200")
            time.sleep(0.3)

"""What servers answer, and what clients ask of ours."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import math
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from elicitor.backends.completions import cached_tokens, prompt_tokens, read_choices, read_drawn
from elicitor.backends.fake import FakeBackend
from elicitor.backends.http_client import Call, HttpClient
from elicitor.backends.remote_server import llama_cpp_window, model_card
from elicitor.backends.remote_tokenizer import ServerTokenizer
from elicitor.config import RemoteConfig
from elicitor.errors import BackendError
from elicitor.follow import follow
from elicitor.serving import create_app as serving_app
from elicitor.watching import create_app as watching_app
from fuzzing.folders import make
from fuzzing.group import PIECES, Check, Group, edited, must, spoilt, values

KEY = "sk-secret-of-nobody"
LISTED = {"token_id:5": -0.5, "token_id:7": -1.5}
ANSWERS: list[dict[str, Any]] = [
    {
        "choices": [
            {"index": k, "text": " yes", "finish_reason": "stop", "logprobs": {"top_logprobs": [LISTED]}}
            for k in (0, 1)
        ],
        "usage": {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}},
        "system_fingerprint": "f",
    },
    {
        "choices": [
            {
                "index": 0,
                "text": "x",
                "logprobs": {"content": [{"top_logprobs": [{"id": 5, "token": "a", "logprob": -0.1}]}]},
            }
        ]
    },
    {"choices": [{"text": "x", "logprobs": {"top_logprobs": [{" a": -0.5, " b": -1.0}]}}]},
    {"object": "list", "data": [{"id": "m", "max_model_len": 4096, "fingerprint": "f"}]},
    {"count": 1, "max_model_len": 4096, "tokens": [5]},
    {"prompt": "text", "content": "text"},
    {"default_generation_settings": {"n_ctx": 512}},
    {"error": {"message": "no", "type": "x"}},
]


@contextlib.contextmanager
def answers(_: Path) -> Iterator[Check]:
    """The JSON of an answer, given to all that reads one."""

    def check(answer: Any) -> None:
        for n in (1, 2):
            for found in read_choices(answer, n):
                listed = [*found.by_id.values(), *found.by_text.values()]
                assert all(math.isfinite(value) and value < 0.1 for value in listed)
                assert math.isfinite(found.bound)
                assert found.bound <= 0
            if len(answer["choices"]) == n:
                break
        drawn = read_drawn(answer)
        assert isinstance(drawn.text, str)

    def every(answer: Any) -> None:
        if not isinstance(answer, dict):
            raise BackendError("no object: the client has refused it before")
        for count in (prompt_tokens(answer), cached_tokens(answer)):
            assert count is None or count >= 0
        client = Canned(answer)
        with contextlib.suppress(BackendError):
            model_card(client, "http://x/v1", "m")  # type: ignore[arg-type]
        assert (llama_cpp_window(client, "http://x") or 1) > 0  # type: ignore[arg-type]
        with contextlib.suppress(BackendError):
            tokenizer = ServerTokenizer(client, "http://x", "m")  # type: ignore[arg-type]
            assert (tokenizer.max_model_len or 1) > 0
            tokenizer.decode([5])
        check(answer)

    yield every


class Canned:
    """A client whose every call is answered alike."""

    on_stage = None

    def __init__(self, answer: dict[str, Any]) -> None:
        self._answer = answer

    def send(self, calls: list[Call], **_: Any) -> list[dict[str, Any]]:
        """Answer as it was told."""
        return [self._answer for _ in calls]


class RawServer:
    """Answers each connection with given bytes, slowly if it is to, and closes it."""

    def __init__(self) -> None:
        self.content = b""
        self.trickles = False
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1/completions"
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._ends.set()
        with contextlib.suppress(OSError):
            socket.create_connection(self._socket.getsockname(), timeout=5).close()
        self._thread.join(30)
        self._socket.close()

    def _serve(self) -> None:
        while not self._ends.is_set():
            connection, _ = self._socket.accept()
            with connection, contextlib.suppress(OSError):
                connection.settimeout(2)
                connection.recv(2**16)
                if self.trickles:
                    for k in range(len(self.content)):
                        connection.sendall(self.content[k : k + 1])
                        if self._ends.wait(0.2):
                            break
                else:
                    connection.sendall(self.content)


def http(body: bytes, *, status: str = "200 OK", kind: str = "application/json", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


bodies = st.sampled_from(ANSWERS).map(json.dumps).map(str.encode)
raw_answers = st.tuples(
    spoilt(bodies),
    st.sampled_from(
        ["200 OK", "200 OK", "200 OK", "400 Bad", "404 Not Found", "302 Found", "500 Oops", "999 X", "204 No", "x"]
    ),
    st.sampled_from(
        ["application/json", "text/html", "text/html; charset=rot13", "application/json; charset=undefined", ""]
    ),
    st.sampled_from(
        [
            "",
            "Content-Encoding: gzip\r\n",
            "Content-Encoding: br\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Location: http://[\r\n",
            "Retry-After: 1e308\r\n",
            "Retry-After: nan\r\n",
            "Location: /v1/completions\r\n",
            "Set-Cookie: a=b; expires=x\r\n",
        ]
    ),
).map(lambda parts: http(parts[0], status=parts[1], kind=parts[2], headers=parts[3]))
always_raw = [
    b"",
    http(gzip.compress(b" " * 2**28), headers="Content-Encoding: gzip\r\n"),
    http(b"[" * 10**6),
    http(b"<html>" + KEY.encode(), status="404 Not Found", kind="text/html; charset=rot13"),
    http(b'{"a": ' + b"9" * 10**5 + b"}"),
    ("trickle", http(b'{"choices": []}')),
]


@contextlib.contextmanager
def wire(_: Path) -> Iterator[Check]:
    """The bytes of an answer, over a real connection."""
    server = RawServer()
    # No patience: what may pass is an error at once.
    client = HttpClient(RemoteConfig(timeout=1.0, retry_seconds=0.0), key=KEY)

    def check(content: Any) -> None:
        server.trickles = isinstance(content, tuple)
        server.content = content[1] if isinstance(content, tuple) else content
        try:
            (answer,) = client.send([Call(server.url, {"prompt": "x"})])
        except BackendError as error:
            must(KEY not in str(error), "the key is shown")
            must("127.0.0.1" in str(error), "the message does not name the server")
            must(len(str(error)) < 2000, "the message is a page")
            raise
        assert isinstance(answer, dict)

    try:
        yield check
    finally:
        server.close()


REQUESTS: list[tuple[str, Any]] = [
    ("/v1/completions", {"prompt": "Review: x\nSentiment:", "max_tokens": 1, "temperature": 0, "logprobs": 5}),
    (
        "/v1/completions",
        {"prompt": [[1, 2], [3]], "max_tokens": 1, "temperature": 0, "logprobs": 1, "logprob_token_ids": [4]},
    ),
    ("/v1/completions", {"prompt": ["a", "b"], "max_tokens": 2, "temperature": 1.0, "seed": 1, "stop": ["x"], "n": 1}),
    ("/tokenize", {"prompt": "text", "add_special_tokens": True}),
    ("/detokenize", {"tokens": [1, 2, 3]}),
    ("/t/control", {"action": "pause"}),
    ("/t/review", {"id": "e1", "verdict": "right"}),
]


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str, bytes, dict[str, str]]:
    path, body = draw(st.sampled_from(REQUESTS))
    if draw(st.booleans()):
        content = json.dumps(draw(edited(body))).encode()
    else:
        content = draw(spoilt(st.just(json.dumps(body).encode())))
    if draw(st.integers(0, 9)) == 0:
        content = json.dumps(draw(values)).encode()
    if draw(st.integers(0, 9)) == 0:
        path = draw(
            st.sampled_from(
                ["*", "/", "//", "/t", "/t/", "/t/data.json", "/t/..%2f", "/%ff/", "/metrics", "/v1/models"]
            )
        )
    method = draw(st.sampled_from(["POST"] * 8 + ["GET", "PUT", "OPTIONS", "X"]))
    name = draw(st.sampled_from(["Host", "Origin", "Content-Length", "Authorization", "Sec-Fetch-Site", "X-A"]))
    value = draw(st.sampled_from(["127.0.0.1", "[", "x", "-1", "9" * 30, "Bearer \xe9", "", "null"]))
    return method, path, content, ({name: value} if draw(st.integers(0, 4)) == 0 else {})


@contextlib.contextmanager
def asked(folder: Path) -> Iterator[Check]:
    """A request to ``serve-hf`` and to ``watch``: an answer below 500 with JSON where it refuses, and never an exception."""
    made = make(folder)["finished"]
    apps = {
        False: serving_app(FakeBackend(), allowed_hosts=None),
        True: watching_app(made, follower=follow(made), page=lambda: "page", data=lambda: {"a": 1}, token="t"),
    }
    loop = asyncio.new_event_loop()

    async def ask(app: Any, method: str, path: str, content: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        sent: list[Any] = []
        given = {"host": "127.0.0.1", "content-length": str(len(content)), **{k.lower(): v for k, v in headers.items()}}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [(name.encode("latin1"), value.encode("latin1")) for name, value in given.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }
        parts = iter([{"type": "http.request", "body": content, "more_body": False}])

        async def receive() -> Any:
            part = next(parts, None)
            if part is None:
                await asyncio.sleep(3600)
            return part

        async def send(message: Any) -> None:
            sent.append(message)

        await asyncio.wait_for(app(scope, receive, send), 8)
        status = next(message["status"] for message in sent if message["type"] == "http.response.start")
        return status, b"".join(message.get("body", b"") for message in sent)

    def check(given: tuple[str, str, bytes, dict[str, str]]) -> None:
        method, path, content, headers = given
        status, body = loop.run_until_complete(ask(apps[path.startswith("/t")], method, path, content, headers))
        assert status < 500, f"status {status}: {body[:300]!r}"
        if status >= 400:
            if path.startswith("/t") or status not in (404, 405):
                assert json.loads(body)["error"]
            raise BackendError(f"refused with {status}")

    try:
        yield check
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


NETWORK_GROUPS = {
    "answers": Group(st.sampled_from(ANSWERS).flatmap(edited) | st.sampled_from(ANSWERS), answers, weight=2.5),
    "wire": Group(
        raw_answers | spoilt(bodies.map(http)) | st.sampled_from(PIECES), wire, weight=1.0, always=always_raw
    ),
    "requests": Group(requests(), asked, weight=2.0),
}

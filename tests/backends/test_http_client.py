"""Requests against a real server that fails in every way that a server can fail."""

import asyncio
import contextlib
import gzip
import socket
import threading

import numpy as np
import pytest

from elicitor.config import RemoteConfig
from elicitor.errors import BackendError
from elicitor.labelling import run
from elicitor.models import load_backend

pytest.importorskip("httpx")
from world_server import World, prompts

from elicitor.backends import http_client
from elicitor.backends.http_client import Call, HttpClient, RefusedError

SHORT = (b"N", b"Y")


def odd(number, path):
    """Whether this is an answer about prompts whose turn it is to fail; the first of all tells what the server understands."""
    return path == "/v1/completions" and number % 2 == 1


FAULTS = {
    "429 storm": lambda number, path: (
        {"status": 429, "headers": {"Retry-After": "0.02"}} if odd(number, path) else None
    ),
    "429 without a time": lambda number, path: {"status": 429} if odd(number, path) else None,
    "500": lambda number, path: {"status": 500} if odd(number, path) else None,
    "503 as a page": lambda number, path: (
        {"status": 503, "body": "<html>busy</html>", "type": "text/html"} if odd(number, path) else None
    ),
    "slow": lambda number, path: {"delay": 0.5} if odd(number, path) and number < 40 else None,
    "cut off": lambda number, path: {"cut": True} if odd(number, path) else None,
    "dropped": lambda number, path: {"drop": True} if odd(number, path) else None,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_that_pass_change_no_label(start, settings, tmp_path, fault):
    wanted = run(settings("fake"), tmp_path / "fake")
    world = World(labels=SHORT, fault=FAULTS[fault])
    done = run(settings(start(world), timeout=0.25, batch_prompts=5), tmp_path / "remote")
    assert [(item.id, item.label) for item in done.labels] == [(item.id, item.label) for item in wanted.labels]
    assert world.failed >= 5


LASTING = {
    "429": ({"status": 429}, r"HTTP 429, \d+ times in a row.*backend.remote.retry_seconds; .*--resume"),
    "429 in words": ({"status": 429}, r"times in a row \(told to fail\), and the next try"),
    "no money": (
        {"status": 429, "body": '{"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}'},
        "answered HTTP 429: You exceeded your quota; look after the account",
    ),
    "a long wait": ({"status": 429, "headers": {"Retry-After": "3600"}}, r"next try is 3600 s away, beyond the 0.2 s"),
    "slow": ({"delay": 0.15}, r"no answer within 0.05 s, \d+ times"),
    "cut off": ({"cut": True}, "an answer whose JSON is cut off"),
    "a page": (
        {"body": "<html>hi</html>", "type": "text/html"},
        "answered 'text/html' where JSON is needed; check that",
    ),
    "a list": ({"body": "[1]"}, "answered JSON that is no object"),
    "400": ({"status": 400}, "answered HTTP 400: told to fail"),
    "400 in other words": (
        {"status": 400, "body": '{"detail": [{"msg": "no\\nway"}]}'},
        r'HTTP 400: \[\{"msg": "no\\nway"\}\]',
    ),
    "400 as text": ({"status": 422, "body": "plain\n  words", "type": "text/plain"}, "HTTP 422: plain words"),
    "401": ({"status": 401}, "HTTP 401.*put the key into the environment variable"),
    "404": ({"status": 404}, "HTTP 404.*check the base URL"),
    "redirect": ({"status": 302, "headers": {"Location": "http://127.0.0.1:1/"}}, "answered HTTP 302"),
    "empty": ({"body": ""}, "JSON is cut off"),
}


@pytest.mark.parametrize("fault", LASTING)
def test_faults_that_last_end_in_one_line(start, fault):
    how, message = LASTING[fault]
    world = World(labels=SHORT)
    address = start(world)
    backend = load_backend(address, remote={"retry_seconds": 0.2, "timeout": 0.05 if "delay" in how else 5})
    world.fault = lambda number, path: how
    with pytest.raises(BackendError, match=message) as caught:
        backend.score(prompts(SHORT))
    assert "\n" not in str(caught.value)


def test_log_probabilities_that_are_missing_in_mid_run_end_in_one_line(start):
    world = World(labels=SHORT)
    backend = load_backend(start(world))
    world.style = "no_logprobs"
    with pytest.raises(BackendError, match="answered without log-probabilities; start it so that"):
        backend.score(prompts(SHORT))


def calls(address, n):
    base = address.partition("@")[2].removesuffix("/v1")
    return [Call(f"{base}/tokenize", {"prompt": str(i), "add_special_tokens": False}) for i in range(n)]


def test_answers_come_in_order_and_no_more_requests_are_under_way_than_allowed(start):
    under_way, most = 0, 0
    lock = threading.Lock()

    def watch(number, path):
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        threading.Event().wait(0.02 if number % 3 else 0.05)
        with lock:
            under_way -= 1

    world = World(fault=watch)
    heard = []
    client = HttpClient(RemoteConfig(concurrency=3))
    answers = client.send(calls(start(world), 12), on_answer=lambda index, answer: heard.append(index))
    assert [bytes(answer["tokens"]).decode() for answer in answers] == [str(i) for i in range(12)]
    assert sorted(heard) == list(range(12))
    assert most == 3
    alone = HttpClient(RemoteConfig(concurrency=1))
    world.requests.clear()
    alone.send(calls(start(world), 5))
    assert [body["prompt"] for _, body, _ in world.requests] == list("01234")


def test_the_first_refusal_stops_the_others(start):
    world = World(tokenizer=None)
    client = HttpClient(RemoteConfig(concurrency=2))
    with pytest.raises(RefusedError, match="HTTP 404: no route /tokenize"):
        client.send(calls(start(world), 100))
    assert world.served < 10


def test_what_a_listener_raises_stops_everything(start):
    class Stop(Exception):
        pass

    def stop(index, answer):
        raise Stop

    world = World()
    with pytest.raises(Stop):
        HttpClient(RemoteConfig(concurrency=2)).send(calls(start(world), 100), on_answer=stop)
    assert world.served < 10


class Clock:
    """A time that only sleeping moves."""

    def __init__(self):
        self.now = 1000.0
        self.slept = []

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds

    def __call__(self):
        return self.now


def test_limits_space_requests_and_tokens(start):
    clock = Clock()
    client = HttpClient(RemoteConfig(concurrency=1, requests_per_minute=120), sleep=clock.sleep, clock=clock)
    client.send(calls(start(World()), 4))
    assert clock.slept == [0.5, 0.5, 0.5]
    clock = Clock()
    client = HttpClient(RemoteConfig(concurrency=1, tokens_per_minute=60), sleep=clock.sleep, clock=clock)
    one = calls(start(World()), 1)[0]
    client.send([Call(one.url, one.body, tokens=tokens) for tokens in (3, 7, 1)])
    assert clock.slept == [3, 7]


def test_a_pause_that_the_server_asks_for_holds_for_all_requests(start):
    clock = Clock()
    world = World(fault=lambda number, path: {"status": 429, "headers": {"Retry-After": "9"}} if number == 1 else None)
    client = HttpClient(RemoteConfig(concurrency=1), sleep=clock.sleep, clock=clock, rng=np.random.default_rng(0))
    client.send(calls(start(world), 2))
    assert clock.slept == [9]
    client._resume_at = clock.now + 4
    client.send(calls(start(world), 1))
    assert clock.slept == [9, 4]


def test_patience_counts_from_the_first_failure_of_each_request(start):
    clock = Clock()
    world = World(fault=lambda number, path: {"status": 503})
    settings = RemoteConfig(concurrency=1, retry_seconds=1)
    client = HttpClient(settings, sleep=clock.sleep, clock=clock, rng=np.random.default_rng(0))
    with pytest.raises(BackendError, match=r"HTTP 503, \d+ times in a row") as caught:
        client.send(calls(start(world), 1))
    assert caught.value.retryable
    assert 0.9 < sum(clock.slept) <= 1
    assert world.served == len(clock.slept) + 1


def test_the_user_hears_once_of_trouble_and_once_of_its_end(start):
    said = []
    world = World(fault=lambda number, path: {"status": 503} if number in (2, 3, 4) else None)
    HttpClient(RemoteConfig(concurrency=1), on_stage=said.append).send(calls(start(world), 5))
    assert said == ["the server fails (HTTP 503); trying again", "the server answers again"]


def test_a_refused_connection_is_final_only_before_the_first_answer(start):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/tokenize"
    with pytest.raises(BackendError, match=r"cannot be reached.*start the server, or correct the address"):
        HttpClient(RemoteConfig()).send([Call(address)])
    client = HttpClient(RemoteConfig(retry_seconds=0.05))
    client.send(calls(start(World()), 1))
    with pytest.raises(BackendError, match=r"times in a row.*--resume"):
        client.send([Call(address)])


def test_hosts_that_do_not_exist_are_named():
    with pytest.raises(BackendError, match=r"nowhere\.invalid/v1/models cannot be reached"):
        load_backend("openai:m@http://nowhere.invalid")


def test_it_works_inside_a_running_loop_as_notebooks_have_one(start):
    address = start(World())

    async def cell():
        return HttpClient(RemoteConfig()).send(calls(address, 3))

    assert len(asyncio.run(cell())) == 3


def test_http2_falls_back_where_the_server_has_it_not(start):
    pytest.importorskip("h2")
    assert HttpClient(RemoteConfig(http2=True)).send(calls(start(World()), 1))[0]["tokens"] == [48]


@pytest.fixture
def raw():
    """Serves given bytes to each connection, one by one if they are to come slowly; gives the address."""
    servers = []

    def start(content, *, pause=0.0):
        server = socket.create_server(("127.0.0.1", 0))
        ends = threading.Event()

        def serve():
            while not ends.is_set():
                connection, _ = server.accept()
                with connection, contextlib.suppress(OSError):
                    connection.recv(2**16)
                    for piece in [content] if not pause else (content[k : k + 1] for k in range(len(content))):
                        connection.sendall(piece)
                        if ends.wait(pause):
                            return

        thread = threading.Thread(target=serve)
        thread.start()
        servers.append((server, ends, thread))
        return f"http://127.0.0.1:{server.getsockname()[1]}/v1/completions"

    yield start
    for server, ends, thread in servers:
        ends.set()
        with contextlib.suppress(OSError):
            socket.create_connection(server.getsockname()).close()
        thread.join(30)
        server.close()
        assert not thread.is_alive()


def answer(body, *, status="200 OK", kind="application/json", more=""):
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (answer(gzip.compress(b" " * 10**6), more="Content-Encoding: gzip\r\n"), "answered more than 100,000 bytes"),
        (answer(b"[" * 50_000), "cut off"),
        (answer(b'{"a": "b"}', more="Content-Encoding: gzip\r\n"), "incorrect header check"),
        (
            answer(b"no such page", status="404 No", kind="text/html; charset=rot13"),
            "404: no such page; check the base",
        ),
        (answer(b"\xff\xfe", status="400 No", kind="text/plain; charset=undefined"), "HTTP 400"),
    ],
)
def test_answers_that_cannot_be_read_end_in_one_line(raw, monkeypatch, content, message):
    monkeypatch.setattr(http_client, "_LONGEST_ANSWER", 100_000)
    client = HttpClient(RemoteConfig(retry_seconds=0, timeout=20))
    with pytest.raises(BackendError, match=message) as caught:
        client.send([Call(raw(content), {})])
    assert "\n" not in str(caught.value)


def test_an_answer_that_trickles_is_not_waited_for_without_end(raw):
    client = HttpClient(RemoteConfig(retry_seconds=0, timeout=0.5))
    with pytest.raises(BackendError, match=r"no answer within 0\.5 s"):
        client.send([Call(raw(answer(b'{"a": "b"}'), pause=0.2), {})])

"""The live page's server, over real connections and beside a real search."""

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("uvicorn")
pytest.importorskip("starlette")

from processes import running  # noqa: E402

from elicitor.config import build_config  # noqa: E402
from elicitor.errors import DataError  # noqa: E402
from elicitor.files import hold  # noqa: E402
from elicitor.follow import follow  # noqa: E402
from elicitor.labelling import run  # noqa: E402
from elicitor.notices import ElicitorWarning  # noqa: E402
from elicitor.watching import Feed, Limits, create_app  # noqa: E402

TOKEN = "a-token"
QUICK = {"look_seconds": 0.02, "data_seconds": 0.0, "quiet_seconds": 0.3}


def texts(folder, n=24):
    rows = [{"id": f"e{i}", "text": f"The {i}th thing was {'good' if i % 3 else 'bad'}."} for i in range(n)]
    path = folder / "x.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run."""
    folder = tmp_path_factory.mktemp("run")
    config = build_config(flags={"data": texts(folder), "task": "sentiment", "model": "fake"})
    return run(config, folder / "run").path


@pytest.fixture
def watch(serve_app):
    """Serves a folder; gives a client."""

    def start(folder, *, page=lambda: "<p>page</p>", data=lambda: {"runs": 1}, **limits):
        app = create_app(
            folder, follower=follow(folder), page=page, data=data, token=TOKEN, limits=Limits(**{**QUICK, **limits})
        )
        return serve_app(app)

    return start


def begun(folder):
    """A folder in which a run has begun; the caller holds its lock."""
    (folder / "manifest.json").write_text('{"schema": 1, "examples": 9}')
    (folder / "config.yaml").write_text("data: x.jsonl\ntask: sentiment\nmodel: fake\n")
    return folder


def progress(lines):
    """Data of the next progress event of an event stream."""
    assert next(line for line in lines if line and not line.startswith(":")) == "event: progress"
    return json.loads(next(lines).removeprefix("data: "))


def test_page_and_data_with_headers_of_protection(watch, finished):
    client = watch(finished)
    page = client.get(f"/{TOKEN}/")
    assert (page.status_code, page.text) == (200, "<p>page</p>")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    data = client.get(f"/{TOKEN}/data.json")
    assert data.json() == {"runs": 1}
    for answer in (page, data, client.get("/wrong/"), client.post(f"/{TOKEN}/control", json={})):
        headers = answer.headers
        assert "connect-src 'self'" in headers["Content-Security-Policy"]
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert "Server" not in headers or headers["Server"] == "uvicorn"


def test_without_the_token_nothing_is_told(watch, finished):
    client = watch(finished)
    for path in ("/", "/wrong/", "/wrong/data.json", "/a-toke/", "/a-tokens/", "/%61-toke%6f/", "//a-token/", "/é/"):
        assert client.get(path).status_code == 404, path
    for path in ("events", "review"):
        assert client.get(f"/wrong/{path}").status_code == 404
    for path in ("control", "review"):
        assert client.post(f"/wrong/{path}", json={"action": "stop"}).status_code == 404


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost@evil.example", "[", ""]
)
def test_foreign_host_names_are_refused(watch, finished, host):
    client = watch(finished)
    assert client.get(f"/{TOKEN}/data.json", headers={"Host": host}).status_code == 421


def test_own_names_are_served_also_behind_a_tunnel(watch, finished):
    client = watch(finished)
    for host in ("127.0.0.1:8080", "localhost:9", "localhost", "[::1]:77"):
        headers = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
        assert client.get(f"/{TOKEN}/data.json", headers=headers).status_code == 200
    # A link that is followed from elsewhere shows the page to its user, and to nobody else.
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert client.get(f"/{TOKEN}/", headers=link).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "https://{host}"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    ],
)
def test_other_pages_may_neither_read_nor_write(watch, finished, headers):
    client = watch(finished)
    headers = {name: value.format(host=client.base_url.netloc.decode()) for name, value in headers.items()}
    assert client.get(f"/{TOKEN}/data.json", headers=headers).status_code == 403
    assert client.post(f"/{TOKEN}/review", json={"id": "e1", "verdict": "right"}, headers=headers).status_code == 403
    crossing = {**headers, "Sec-Fetch-Mode": "navigate"}
    assert client.post(f"/{TOKEN}/review", json={"id": "e1", "verdict": "right"}, headers=crossing).status_code == 403
    assert not (finished / "review.jsonl").exists()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'"stop"', b"{}", b'{"action": "x"}', b'{"action": ["stop"]}', b"[" * 60_000]
)
def test_bodies_that_ask_for_nothing_known_are_refused(watch, finished, content):
    client = watch(finished)
    assert client.post(f"/{TOKEN}/control", content=content).status_code == 400
    assert client.post(f"/{TOKEN}/review", content=content).status_code == 400


def test_large_and_slow_bodies_are_refused(watch, finished):
    client = watch(finished, body_seconds=0.3)
    assert client.post(f"/{TOKEN}/control", content=b"x" * 70_000).status_code == 413
    assert client.post(f"/{TOKEN}/control", content=(b"x" * 100 for _ in range(700))).status_code == 413
    with socket.create_connection((client.base_url.host, client.base_url.port)) as raw:
        raw.sendall(f"POST /{TOKEN}/control HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{{".encode())
        raw.settimeout(100)
        assert raw.recv(100).startswith(b"HTTP/1.1 408")


def test_a_client_that_does_not_read_is_let_go_and_holds_little(watch, finished):
    content = "x" * 50_000_000
    client = watch(finished, page=lambda: content, send_seconds=0.5)
    with socket.create_connection((client.base_url.host, client.base_url.port)) as raw:
        raw.sendall(f"GET /{TOKEN}/ HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        time.sleep(2)
        raw.settimeout(100)
        received = 0
        while piece := raw.recv(2**20):
            received += len(piece)
    assert received < len(content) / 2
    assert len(client.get(f"/{TOKEN}/").content) == len(content)


def test_mistakes_of_the_data_are_told(watch, finished):
    def data():
        raise DataError("x.jsonl is gone", fix="put it back")

    client = watch(finished, data=data)
    answer = client.get(f"/{TOKEN}/data.json")
    assert (answer.status_code, answer.json()) == (409, {"error": "x.jsonl is gone; put it back"})
    assert client.get(f"/{TOKEN}/").status_code == 200


def test_data_are_made_once_for_many_clients_and_again_when_there_is_news(watch, tmp_path):
    made = []

    def data():
        time.sleep(0.05)
        made.append((tmp_path / ".lock").exists())
        return {"lock": made[-1]}

    folder = begun(tmp_path)
    client = watch(folder, data=data, data_seconds=1.0)
    with client.stream("GET", f"/{TOKEN}/events") as stream:
        lines = stream.iter_lines()
        assert progress(lines)["state"] == "idle"
        with ThreadPoolExecutor(50) as pool:
            answers = list(pool.map(lambda _: client.get(f"/{TOKEN}/data.json").json(), range(50)))
        assert answers == [{"lock": False}] * 50
        few = len(made)
        with hold(folder / ".lock"):
            while progress(lines)["state"] != "running":
                pass
            # Not what was made a moment before the news.
            assert client.get(f"/{TOKEN}/data.json").json() == {"lock": True}
    # One for each second that the fifty took on this machine.
    assert few < 10
    assert len(made) == few + 1


def test_mistakes_of_the_data_are_not_kept(watch, finished):
    answers = iter([DataError("x.jsonl is gone"), None])

    def data():
        if error := next(answers):
            raise error
        return []

    client = watch(finished, data=data, data_seconds=1.0)
    assert client.get(f"/{TOKEN}/data.json").status_code == 409
    assert client.get(f"/{TOKEN}/data.json").json() == []


def test_events_of_a_finished_run_and_its_quiet(watch, finished):
    client = watch(finished)
    with client.stream("GET", f"/{TOKEN}/events") as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        lines = stream.iter_lines()
        found = progress(lines)
        assert found["state"] == "finished"
        assert (found["labelled"], found["n"]) == (24, 24)
        assert set(found) == {"state", "asked", "iteration", "utility", "labelled", "n", "tokens", "seconds"}
        assert [line for line in (next(lines) for _ in range(4)) if line] == [": nothing new"] * 2


def test_fifty_clients_are_told_of_a_run_that_grows(watch, tmp_path):
    folder = begun(tmp_path)
    client = watch(folder)
    told = threading.Barrier(51)

    def listen(_):
        with httpx.stream("GET", f"{client.base_url}/{TOKEN}/events", timeout=300) as stream:
            lines = stream.iter_lines()
            progress(lines)
            told.wait(300)
            while (found := progress(lines))["labelled"] < 3:
                pass
            return found

    usual = {"kind": "started", "batch": 0, "iteration": 0, "accepted": True, "labels": {}, "seconds": 0.1}
    with ThreadPoolExecutor(50) as pool, hold(folder / ".lock"):
        answers = [pool.submit(listen, k) for k in range(50)]
        told.wait(300)
        for n in range(1, 4):
            with (folder / "events.jsonl").open("a") as stream:
                stream.write(json.dumps({**usual, "n_labelled": n, "utility": 1.0, "tokens_computed": 5}) + "\n")
            time.sleep(0.1)
        found = [answer.result(300) for answer in answers]
    assert all(one == {**found[0]} for one in found)
    assert (found[0]["tokens"], found[0]["state"]) == (15, "running")


def test_a_client_that_leaves_is_forgotten(serve_app, finished):
    app = create_app(finished, follower=follow(finished), page=str, data=dict, token=TOKEN, limits=Limits(**QUICK))
    waiting = []

    async def counting(scope, receive, send):
        waiting.append(scope)
        try:
            await app(scope, receive, send)
        finally:
            waiting.remove(scope)

    client = serve_app(counting)
    before = len(waiting)
    for _ in range(5):
        with client.stream("GET", f"/{TOKEN}/events") as stream:
            progress(stream.iter_lines())
    deadline = time.monotonic() + 60
    while len(waiting) > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(waiting) == before


def test_nothing_that_does_not_run_is_controlled(watch, finished):
    client = watch(finished)
    answer = client.post(f"/{TOKEN}/control", json={"action": "stop"})
    assert answer.status_code == 409
    assert "nothing is running" in answer.json()["error"]
    assert not (finished / "control.json").exists()


def test_marks_are_kept_and_estimated(watch, finished):
    client = watch(finished)
    address = f"/{TOKEN}/review"
    begun = client.get(address).json()
    assert begun["marks"] == []
    assert begun["estimate"] is None
    first, second = begun["proposed"][:2]
    state = client.post(address, json={"id": first, "verdict": "right"}).json()
    state = client.post(address, json={"id": second, "verdict": "wrong"}).json()
    assert client.get(address).json() == state
    assert [(mark["id"], mark["verdict"]) for mark in state["marks"]] == [(first, "right"), (second, "wrong")]
    assert set(state["marks"][0]) == {"id", "verdict", "label", "time"}
    assert state["estimate"]["value"] == 0.5
    assert state["estimate"]["n"] == 2
    assert first not in state["proposed"]
    for body, status in (
        ({"id": "strange", "verdict": "right"}, 409),
        ({"id": 3, "verdict": "right"}, 400),
        ({"id": first, "verdict": "maybe"}, 400),
    ):
        assert client.post(address, json=body).status_code == status
    (finished / "review.jsonl").unlink()


def test_a_training_has_nothing_to_review(watch, tmp_path):
    (tmp_path / "training.yaml").touch()
    client = watch(tmp_path)
    assert client.get(f"/{TOKEN}/review").status_code == 404
    with client.stream("GET", f"/{TOKEN}/events") as stream:
        assert progress(stream.iter_lines())["steps"] == 0


def test_a_running_search_is_watched_paused_stopped_and_resumed(elicitor, tmp_path):
    def words(model):
        return (
            "label",
            texts(tmp_path),
            "--task",
            "sentiment",
            "--search",
            "icm",
            "--model",
            model,
            "--batch-size",
            "12",
        )

    # Slow enough that a server can begin, and what it says be heard, before the search has finished.
    slow = words("fake:delay=0.2,noise=1.5")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert elicitor(*words("fake:noise=1.5"), "--output-dir", whole)[0] == 0
    start = [sys.executable, "-m", "elicitor", *slow, "--output-dir", str(broken)]
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with running(start, **pipe) as searching:
        while not (broken / "checkpoint.json").exists():
            assert searching.poll() is None
            time.sleep(0.01)
        with running([sys.executable, "-m", "elicitor", "watch", str(broken)], **pipe) as server:
            address = re.search(r"http://127\.0\.0\.1:\d+/[\w-]{40,}/", server.stdout.readline()).group()
            with httpx.stream("GET", f"{address}events", timeout=60) as stream:
                lines = stream.iter_lines()
                assert progress(lines)["n"] == 24
                assert httpx.post(f"{address}control", json={"action": "pause"}).json()["state"] in (
                    "running",
                    "paused",
                )
                while (found := progress(lines))["state"] != "paused":
                    assert found["state"] == "running"
                held = [httpx.get(f"{address}review").json()["proposed"], (broken / "events.jsonl").read_bytes()]
                time.sleep(0.5)
                assert held == [[], (broken / "events.jsonl").read_bytes()]
                httpx.post(f"{address}control", json={"action": "resume"})
                while progress(lines)["state"] != "running":
                    pass
                assert httpx.post(f"{address}control", json={"action": "stop"}).json() == {"state": "stopping"}
                assert searching.wait(300) == 130
                while progress(lines)["state"] != "idle":
                    pass
                assert "Traceback" not in searching.stderr.read()
                # The page goes on when the run does, and ends while its clients listen.
                assert elicitor(*slow, "--output-dir", broken, "--resume")[0] == 0
                while progress(lines)["state"] != "finished":
                    pass
                assert "<title>broken" in httpx.get(address, timeout=60).text
                assert httpx.get(f"{address}data.json", timeout=60).json()["live"] is True
                server.send_signal(signal.SIGINT)
                assert not any(lines)
            assert server.wait(60) == 0
            assert server.stderr.read() == ""
    assert (broken / "labels.jsonl").read_bytes() == (whole / "labels.jsonl").read_bytes()
    changing = {"seconds", "tokens_computed", "tokens_reused"}
    events = [
        [
            {key: value for key, value in json.loads(line).items() if key not in changing}
            for line in (folder / "events.jsonl").read_text().splitlines()
        ]
        for folder in (broken, whole)
    ]
    assert events[0] == events[1]


def test_mistakes_are_one_line(elicitor, tmp_path):
    code, out, err = elicitor("watch", tmp_path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "holds no run and no training" in err
    for words, message in (
        ((tmp_path,), "not a run folder"),
        ((tmp_path, "--mark", "a"), "not a run folder"),
    ):
        assert message in elicitor("review", *words)[2]


def test_the_review_command(elicitor, finished):
    code, out, _ = elicitor("review", finished, "--json")
    assert code == 0
    first, second = json.loads(out)["proposed"][:2]
    code, out, _ = elicitor("review", finished, "--mark", f"{first}=right", "--mark", f"{second}=wrong")
    assert code == 0
    assert "2 marks; 24 examples have labels" in out
    assert re.search(r"label accuracy 0\.500 \[0\.\d+, 0\.\d+\], from 2 marks", out)
    assert "The " in out
    assert "write ID=right" in elicitor("review", finished, "--mark", f"{first}=maybe")[2]
    assert "has no label" in elicitor("review", finished, "--mark", "strange=right")[2]
    (finished / "review.jsonl").unlink()


def test_a_look_that_fails_is_not_the_last():
    """What a run has half written may be whole at the next look."""

    class Follower:
        looks = 0

        def look(self):
            self.looks += 1
            if self.looks == 2:
                raise DataError("events.jsonl line 3 is cut off")
            return {"looks": self.looks}

    async def watched():
        feed = Feed(Follower(), seconds=0.001)
        looking = asyncio.create_task(feed.run())
        newest = await asyncio.wait_for(feed.after(0), 10)
        while newest[1]["looks"] < 3:
            newest = await asyncio.wait_for(feed.after(newest[0]), 10)
        looking.cancel()

    with pytest.warns(ElicitorWarning, match="line 3 is cut off"):
        asyncio.run(watched())

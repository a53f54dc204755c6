"""Servers of the fake world, for tests of what goes through HTTP, and what tests of other people's servers share."""

import contextlib
import json
import socket
import subprocess
import threading
import time
import urllib.request

import pytest

from elicitor.backends import pacing
from elicitor.backends.score_store import ScoreStore
from elicitor.config import build_config

TASK = {"template": "{text}:", "labels": {"no": "N", "yes": "Y"}}
"""Labels of one token each for a tokenizer of bytes."""


@pytest.fixture
def start(monkeypatch):
    """Starts servers on free ports; gives the model name for each. Pauses are short."""
    pytest.importorskip("httpx")
    from world_server import serve

    monkeypatch.setattr(pacing, "FIRST_PAUSE", 0.005)
    monkeypatch.setattr(pacing, "LONGEST_PAUSE", 0.05)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    running = []

    def make(world, *, model=None):
        server = serve(world)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((server, thread))
        return f"openai:{model or world.model}@http://127.0.0.1:{server.server_port}/v1"

    yield make
    for server, thread in running:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def settings(tmp_path):
    """Makes settings of a short run over a few texts."""
    rows = [{"id": f"e{i}", "text": f"text {i}"} for i in range(10)]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def make(model, *, task=TASK, **remote):
        flags = {"data": str(tmp_path / "x.jsonl"), "task": task, "model": model}
        flags |= {"search": "icm", "icm.iterations": 15}
        return build_config(flags=flags | {f"backend.remote.{key}": value for key, value in remote.items()})

    return make


@pytest.fixture(scope="session")
def started_server(tmp_path_factory):
    """Starts a program that serves on the port it is given and answers ``/health`` when it is ready; gives its address."""

    @contextlib.contextmanager
    def start(*command):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        # A file, since a server whose log nobody reads from a pipe stops answering.
        log = tmp_path_factory.mktemp("server") / "log"
        words = [*command, "--host", "127.0.0.1", "--port", str(port)]
        with log.open("w") as stream, subprocess.Popen(words, stdout=stream, stderr=stream) as process:
            while True:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                        break
                except OSError:
                    assert process.poll() is None, log.read_text()[-5000:]
                    time.sleep(0.2)
            yield f"http://127.0.0.1:{port}"
            process.terminate()

    return start


@pytest.fixture
def reviews_config(tmp_path):
    """Settings of a short search over twelve film reviews."""
    reviews = [
        *("A warm and funny film.", "Dull from start to end.", "The cast is a joy.", "I wanted my money back."),
        *("Clever, quick and moving.", "A lifeless script.", "Beautiful to look at.", "Nothing works in it."),
        *("I laughed all the way.", "Tedious and far too long.", "A small wonder.", "The jokes fall flat."),
    ]
    rows = [{"id": f"r{i}", "text": text} for i, text in enumerate(reviews)]
    (tmp_path / "reviews.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = {"data": str(tmp_path / "reviews.jsonl"), "task": "sentiment", "search": "icm", "icm.iterations": 16}
    return build_config(flags={**flags, "objective.calibration": "batch"})


@pytest.fixture
def store(tmp_path):
    made = ScoreStore(tmp_path / "scores.sqlite", max_bytes=10_000_000)
    yield made
    made.close()

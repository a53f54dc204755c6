"""Servers of the fake world, for tests of what goes through HTTP."""

import json
import threading

import pytest

from elicitor.backends import pacing
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
        flags = {"data": str(tmp_path / "x.jsonl"), "task": task, "model": model, "icm.iterations": 15}
        return build_config(flags=flags | {f"backend.remote.{key}": value for key, value in remote.items()})

    return make

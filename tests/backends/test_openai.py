"""Labels through HTTP are those of the same model without it, whatever the server can and however it fails."""

import threading

import numpy as np
import pytest

from elicitor.backends import pacing
from elicitor.backends.base import Prompt
from elicitor.backends.fake import FakeBackend
from elicitor.config import build_config
from elicitor.errors import BackendError, ConfigError, LabelTokenError
from elicitor.labelling import run
from elicitor.models import load_backend

httpx = pytest.importorskip("httpx")
from world_server import World, serve  # noqa: E402

TASK = {"template": "{text}:", "labels": ["no", "yes"]}
SECRET = "sk-not-for-anyone-8f1c"


@pytest.fixture
def start(monkeypatch):
    """Starts servers; gives the model's name for each."""
    monkeypatch.setattr(pacing, "FIRST_PAUSE", 0.005)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    running = []

    def make(world, model=None):
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
    import json

    (tmp_path / "x.jsonl").write_text(
        "".join(json.dumps({"id": f"e{i}", "text": f"text {i}"}) + "\n" for i in range(12))
    )

    def make(model, **remote):
        flags = {"data": str(tmp_path / "x.jsonl"), "task": TASK, "model": model, "icm.iterations": 20}
        return build_config(flags=flags | {f"backend.remote.{key}": value for key, value in remote.items()})

    return make


def labels(done):
    return [(item.id, item.label) for item in done.labels]


def prompts(n=3, candidates=(b" no", b" yes")):
    demonstrations = [tuple(f"text {i}: {'yes' if i % 2 else 'no'}\n\n".encode()) for i in range(n)]
    return [
        Prompt((*demonstrations[:k], tuple(f"text {k}:".encode())), tuple(map(tuple, candidates))) for k in range(n + 1)
    ]


KINDS = {
    "vllm": {},
    "serve_hf": {"fingerprint": "abc", "cached": True},
    "vllm_without_exact": {"exact": False},
    "sglang": {"exact": False, "id_keys": False, "tokenizer": "sglang"},
    "llama_cpp": {"style": "llama_cpp", "exact": False, "several": False, "tokenizer": "llama_cpp"},
    "hosted": {"unknown_fields": "refused", "max_top": 5, "id_keys": False, "exact": False},
    "text_only": {"token_prompts": False, "exact": False, "id_keys": False, "usage": False},
    "text_one_by_one": {"token_prompts": False, "several": False, "exact": False, "id_keys": False},
}


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_the_model_itself(start, kind):
    backend = load_backend(start(World(**KINDS[kind])))
    scores = backend.score(prompts())
    np.testing.assert_allclose(scores.log_probs, FakeBackend().score(prompts()).log_probs, atol=1e-9)
    assert scores.cost.prompts == 4
    assert scores.cost.bounded == 0


@pytest.mark.parametrize("kind", ["vllm", "llama_cpp", "hosted", "text_one_by_one"])
def test_labels_are_those_of_the_model_itself(start, settings, tmp_path, kind):
    wanted = run(settings("fake"), tmp_path / "fake")
    done = run(settings(start(World(**KINDS[kind]))), tmp_path / "remote")
    assert labels(done) == labels(wanted)
    assert done.metrics["batches"][0]["utility"] == pytest.approx(wanted.metrics["batches"][0]["utility"])
    assert done.metrics["cost"]["tokens_computed"] == wanted.metrics["cost"]["tokens_computed"]

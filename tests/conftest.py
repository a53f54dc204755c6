"""Fixtures shared by all tests."""

import os
import socket
import sys
import threading
import time
from pathlib import Path

import hypothesis
import pytest
from tiny_models import REVIEWS, byte_tokenizer, tiny_llama

from elicitor import cli
from elicitor.backends.fake import FakeBackend
from elicitor.config import ObjectiveConfig, PlanConfig
from elicitor.consistency import Constraints
from elicitor.data import Dataset, Example
from elicitor.objective import Meter, Problem
from elicitor.prompts import PromptEncoder
from elicitor.tasks import load_task

# How long something takes is measured in bench/, never asserted.
hypothesis.settings.register_profile("elicitor", deadline=None)
hypothesis.settings.load_profile("elicitor")

# Tiny models run faster on one thread, and two processes that both spin on all cores wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


def pytest_runtest_setup(item):
    """Begin no slow test once the time for them is spent, where ``ELICITOR_SLOW_UNTIL`` (seconds since 1970) sets one."""
    until = os.environ.get("ELICITOR_SLOW_UNTIL")
    if until and item.get_closest_marker("slow") and time.time() > float(until):
        pytest.skip("no time left for it here; 'pytest -m slow' runs them all")


@pytest.fixture
def shared_data() -> Path:
    """Folder with the real data sets, which are never part of the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real data not found: {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture
def elicitor(monkeypatch, capsys, tmp_path):
    """Runs the command in this process, in an empty folder; gives exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["elicitor", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as left:
            code = left.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def problem():
    """Makes a labelling problem in the fake world: ``n`` texts in groups, the hidden concept unknown to it."""

    def make(*, n=16, group_size=1, constraint="none", plan="tree", reusable=10_000_000, fake=None, **objective):
        examples = tuple(
            Example(f"e{i}", {"text": f"text {i}"}, f"g{i // group_size}", str(i % group_size), "here")
            for i in range(n)
        )
        declared = {"template": "{text}:", "labels": ["no", "yes"], "constraint": constraint}
        if constraint != "none":
            declared |= {"group": "group", "key": "key"}
        task = load_task(declared)
        dataset = Dataset(examples, task.label_space, "here", "print")
        backend = fake or FakeBackend(reusable=reusable)
        return Problem(
            dataset=dataset,
            encoder=PromptEncoder(backend.tokenizer, task, dataset),
            constraints=Constraints.from_dataset(dataset, task.constraint),
            backend=backend,
            objective=ObjectiveConfig(**objective),
            plan=PlanConfig(kind=plan),
            meter=Meter(),
        )

    return make


@pytest.fixture
def tiny_model(tmp_path):
    """A tiny model with a real tokenizer, saved as users have them."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("tokenizers")
    words = byte_tokenizer(REVIEWS, vocab_size=300, special=["<unk>", "<s>"])
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", unk_token="<unk>")
    config = tiny_llama(len(fast), window=1024)
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "tiny")
    fast.save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def serve_app():
    """Serves an ASGI application in a thread, as the commands do; gives a client."""
    httpx = pytest.importorskip("httpx")
    uvicorn = pytest.importorskip("uvicorn")
    pytest.importorskip("starlette")
    from elicitor.local_http import configured

    running = []

    def start(app, **options):
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        server = uvicorn.Server(configured(app, timeout_graceful_shutdown=1, **options))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        client = httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=300)
        running.append((server, thread, client, listener))
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        return client

    yield start
    for server, thread, client, listener in running:
        client.close()
        server.should_exit = True
        thread.join(120)
        listener.close()
        assert not thread.is_alive()


@pytest.fixture
def serve(serve_app):
    """Serves a backend in a thread; gives a client."""
    pytest.importorskip("starlette")
    from elicitor.serving import create_app

    return lambda backend, **options: serve_app(create_app(backend, **options))

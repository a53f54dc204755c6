"""A real server of llama.cpp (``.ci/llama-server`` builds one), with the bundled model's weights in float32."""

import os
import shutil

import numpy as np
import pytest

pytest.importorskip("httpx")
pytest.importorskip("gguf")

import gguf

from elicitor.errors import BackendError
from elicitor.labelling import run
from elicitor.models import bundled_file, load_backend
from elicitor.prompts import PromptEncoder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """The bundled model's file with every tensor in float32, so that both sides compute with the same numbers."""
    try:
        source = bundled_file()
    except BackendError as error:
        pytest.skip(f"no bundled model: {error}")
    reader = gguf.GGUFReader(source)
    path = tmp_path_factory.mktemp("gguf") / "float32.gguf"
    writer = gguf.GGUFWriter(path, arch="llama")
    skipped = ("GGUF.version", "GGUF.tensor_count", "GGUF.kv_count", "general.architecture", "general.file_type")
    for field in reader.fields.values():
        if field.name not in skipped:
            inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], inner)
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type).reshape(tensor.shape[::-1])
        writer.add_tensor(tensor.name, np.ascontiguousarray(values, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def server(weights, started_server):
    """Address of the server."""
    program = os.environ.get("ELICITOR_LLAMA_SERVER") or shutil.which("llama-server")
    if program is None:
        pytest.skip("no llama-server on the path or in ELICITOR_LLAMA_SERVER; .ci/llama-server builds one")
    options = ["--alias", "small", "--parallel", "1", "--ctx-size", "2048", "--threads", "2"]
    options += ["--cache-type-k", "f32", "--cache-type-v", "f32", "--flash-attn", "off"]
    with started_server(program, "-m", str(weights), *options) as address:
        yield address


def test_what_the_server_understands_is_found_out(server):
    backend = load_backend(f"openai:small@{server}/v1")
    assert backend.max_context_tokens == 2048
    assert backend.tokenizer.encode("Hello world") == load_backend("bundled").tokenizer.encode("Hello world")
    assert (backend.dialect.token_prompts, backend.dialect.exact) == (True, False)


def test_labels_and_scores_are_those_of_the_same_model_here(server, reviews_config, tmp_path):
    here = run(reviews_config.model_copy(update={"model": "bundled"}), tmp_path / "here")
    there = run(reviews_config.model_copy(update={"model": f"openai:small@{server}/v1"}), tmp_path / "there")
    assert [item.label for item in there.labels] == [item.label for item in here.labels]
    np.testing.assert_allclose(
        [item.log_odds for item in there.labels], [item.log_odds for item in here.labels], atol=0.01
    )


def test_its_own_prefix_cache_is_hit(server, reviews_config):
    from elicitor.data import Assignment
    from elicitor.labelling import prepare
    from elicitor.objective import Meter

    problem = prepare(reviews_config.model_copy(update={"model": f"openai:small@{server}/v1"})).problem(
        0, meter=Meter()
    )
    problem.utility(Assignment(tuple(i % 2 for i in range(12))), rng=np.random.default_rng(0))
    cost = problem.meter.cost
    assert cost.tokens_reused > cost.tokens_computed


def test_a_label_outside_the_list_is_an_error_not_a_number(server, reviews_config, tmp_path):
    from elicitor.errors import BackendError

    rare = reviews_config.model_copy(
        update={"model": f"openai:small@{server}/v1", "verbalizers": (" zygote", " quasar"), "search": "bootstrap"}
    )
    with pytest.raises(BackendError, match=r"top_k higher"):
        run(rare, tmp_path / "run")


def test_prompts_as_text_give_the_same_scores(server, reviews_config):
    from elicitor.inputs import read_inputs

    inputs = read_inputs(reviews_config)
    scores = []
    for prompts in ("tokens", "text"):
        backend = load_backend(f"openai:small@{server}/v1", remote={"prompts": prompts, "top_k": 2000})
        encoder = PromptEncoder(backend.tokenizer, inputs.task, inputs.dataset)
        scores.append(backend.score([encoder.prompt_with([], i) for i in range(4)]).log_probs)
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-3)

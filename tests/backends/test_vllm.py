"""The calls that the vLLM backend makes, against a stub with exactly the names that it uses; see test_vllm_real.py."""

import importlib.util
import math
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from elicitor.backends.base import Prompt
from elicitor.config import build_config
from elicitor.errors import BackendError, ConfigError, ContextOverflowError
from elicitor.labelling import run
from elicitor.models import load_backend

VOCABULARY = 300


def next_log_probs(text):
    """A model that depends on the whole text."""
    weights = np.random.default_rng([7, *text]).normal(size=VOCABULARY)
    return weights - np.logaddexp.reduce(weights)


class Tokenizer:
    """What a transformers tokenizer offers, over bytes."""

    eos_token_id = bos_token_id = None
    all_special_tokens = ()
    chat_template = None

    def __call__(self, text, add_special_tokens=True):
        return {"input_ids": list(text.encode())}

    def decode(self, ids):
        return bytes(ids).decode(errors="replace")


def stub(*, by_id):
    """A module ``vllm`` that refuses every argument which the backend does not use, and remembers the calls."""
    module, lora, request = ModuleType("vllm"), ModuleType("vllm.lora"), ModuleType("vllm.lora.request")
    module.calls, module.__version__ = [], "0.33.0"

    class SamplingParams:
        def __init__(
            self,
            *,
            max_tokens,
            temperature,
            detokenize=True,
            logprobs=None,
            logprob_token_ids=None,
            stop=None,
            seed=None,
        ):
            self.stop, self.seed, self.max_tokens = stop, seed, max_tokens
            if seed is not None:
                assert detokenize
                assert temperature > 0
                assert isinstance(stop, list)
                return
            assert (max_tokens, temperature, detokenize) == (1, 0.0, False)
            assert logprobs is not None
            assert logprob_token_ids is None or logprobs == len(logprob_token_ids)
            self.logprobs, self.logprob_token_ids = logprobs, logprob_token_ids

    class OldSamplingParams(SamplingParams):
        def __init__(self, *, max_tokens, temperature, detokenize, logprobs=None):
            super().__init__(max_tokens=max_tokens, temperature=temperature, detokenize=detokenize, logprobs=logprobs)

    class LLM:
        def __init__(
            self,
            model,
            *,
            enable_prefix_caching,
            tensor_parallel_size,
            pipeline_parallel_size,
            gpu_memory_utilization,
            dtype,
            max_model_len,
            max_logprobs,
            enable_lora,
            max_lora_rank,
            trust_remote_code,
            load_format,
            seed,
        ):
            module.options = {key: value for key, value in locals().items() if key not in ("self", "module")}
            facts = SimpleNamespace(
                max_model_len=max_model_len or 5000, dtype="bfloat16", hf_config=SimpleNamespace(_commit_hash="c0ffee")
            )
            self.llm_engine = SimpleNamespace(model_config=facts)
            self.resets = 0

        def get_tokenizer(self):
            return Tokenizer()

        def reset_prefix_cache(self):
            module.calls.append("reset")
            return True

        def generate(self, prompts, sampling_params, *, use_tqdm, lora_request):
            assert use_tqdm is False
            module.calls.append((prompts, lora_request))
            return [self._answer(*pair) for pair in zip(prompts, sampling_params, strict=True)]

        def _answer(self, prompt, params):
            assert set(prompt) == {"prompt_token_ids"}
            if params.seed is not None:
                drawn = SimpleNamespace(text=f"seed {params.seed}", token_ids=[1, 2, 3], finish_reason="stop")
                return SimpleNamespace(outputs=[drawn], num_cached_tokens=None)
            log_probs = next_log_probs(prompt["prompt_token_ids"])
            ranked = np.argsort(-log_probs)
            named = params.logprob_token_ids or ranked[: params.logprobs].tolist()
            # The sampled token comes as well, always.
            found = {int(t): SimpleNamespace(logprob=float(log_probs[t])) for t in {*named, int(ranked[0])}}
            return SimpleNamespace(outputs=[SimpleNamespace(logprobs=[found])], num_cached_tokens=None)

    request.LoRARequest = lambda name, number, path: (name, number, path)
    module.LLM, module.SamplingParams = LLM, SamplingParams if by_id else OldSamplingParams
    return {"vllm": module, "vllm.lora": lora, "vllm.lora.request": request}


@pytest.fixture
def engine(monkeypatch, request):
    modules = stub(by_id=getattr(request, "param", True))
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return modules["vllm"]


def test_scores_are_products_over_label_tokens_in_the_order_of_the_prompts(engine):
    backend = load_backend("vllm:org/model")
    labels = ((5, 6), (5, 9), (3,))
    prompts = [Prompt(((1,), (2, 4)), labels), Prompt(((1,), (8,)), labels)]
    scores = backend.score(prompts)
    for row, text in zip(scores.log_probs, ([1, 2, 4], [1, 8]), strict=True):
        first, second = next_log_probs(text), next_log_probs([*text, 5])
        assert row == pytest.approx([first[5] + second[6], first[5] + second[9], first[3]], abs=1e-12)
    ((sent, adapter),) = engine.calls
    assert [prompt["prompt_token_ids"] for prompt in sent] == [[1, 2, 4], [1, 2, 4, 5], [1, 8], [1, 8, 5]]
    assert adapter is None
    assert (scores.cost.prompts, scores.cost.tokens_computed) == (2, 3 + 4 + 2 + 3)
    assert backend.score([]).log_probs.shape == (0, 0)


@pytest.mark.parametrize("engine", [False], indirect=True)
def test_a_label_outside_the_most_probable_tokens_is_unknown(engine):
    backend = load_backend("vllm:org/model", vllm={"max_logprobs": 3})
    ranked = np.argsort(-next_log_probs([1])).tolist()
    kept = backend.score([Prompt(((1,),), ((ranked[0],), (ranked[2],)))])
    assert kept.log_probs[0] == pytest.approx(next_log_probs([1])[[ranked[0], ranked[2]]])
    with pytest.raises(
        BackendError, match=r"not among the 3 most probable .* unknown; use a vLLM .*max_logprobs higher"
    ):
        backend.score([Prompt(((1,),), ((ranked[0],), (ranked[3],)))])


def test_the_engine_is_started_as_the_settings_say(engine, tmp_path):
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    settings = {"tensor_parallel_size": 2, "pipeline_parallel_size": 3, "max_model_len": 4000, "adapter": str(tmp_path)}
    backend = load_backend("vllm:org/model", dtype="bfloat16", vllm=settings)
    assert engine.options == {
        "model": "org/model",
        "enable_prefix_caching": True,
        "tensor_parallel_size": 2,
        "pipeline_parallel_size": 3,
        "gpu_memory_utilization": 0.9,
        "dtype": "bfloat16",
        "max_model_len": 4000,
        "max_logprobs": 20,
        "enable_lora": True,
        "max_lora_rank": 16,
        "trust_remote_code": False,
        "load_format": "safetensors",
        "seed": 0,
    }
    backend.score([Prompt(((1,),), ((2,), (3,)))])
    assert engine.calls[-1][1] == ("adapter", 1, str(tmp_path))
    assert backend.max_context_tokens == 4000
    backend.forget()
    assert engine.calls[-1] == "reset"


def test_the_fingerprint_tells_adapters_and_division_apart(engine, tmp_path):
    prints = set()
    for k, content in enumerate((b"one", b"two")):
        (tmp_path / str(k)).mkdir()
        (tmp_path / str(k) / "adapter_model.safetensors").write_bytes(content)
        prints.add(load_backend("vllm:org/model", vllm={"adapter": str(tmp_path / str(k))}).fingerprint)
    for settings in ({}, {"tensor_parallel_size": 2}, {"max_model_len": 100}):
        prints.add(load_backend("vllm:org/model", vllm=settings).fingerprint)
    assert len(prints) == 5
    assert load_backend("vllm:org/model").fingerprint in prints


def test_what_cannot_be_used_is_said(engine, tmp_path):
    with pytest.raises(BackendError, match=r"holds no adapter_model\.safetensors"):
        load_backend("vllm:org/model", vllm={"adapter": str(tmp_path)})
    with pytest.raises(ConfigError, match=r"backend\.vllm\.tensor_parallel"):
        load_backend("vllm:org/model", vllm={"tensor_parallel": 2})
    with pytest.raises(ContextOverflowError, match="12 tokens does not fit the 10"):
        load_backend("vllm:org/model", vllm={"max_model_len": 10}).score([Prompt(((1,) * 11,), ((2,), (3,)))])


def test_numbers_that_are_not_finite_are_refused(engine, monkeypatch):
    backend = load_backend("vllm:org/model")
    monkeypatch.setattr(sys.modules[__name__], "next_log_probs", lambda text: np.full(VOCABULARY, math.nan))
    with pytest.raises(BackendError, match="2 label log-probabilities that are not finite"):
        backend.score([Prompt(((1,),), ((2,), (3,)))])


def test_a_search_runs_through_it(engine, tmp_path):
    (tmp_path / "x.csv").write_text("text\n" + "".join(f"text {k}\n" for k in range(10)))
    flags = {"data": str(tmp_path / "x.csv"), "task": "sentiment", "model": "vllm:org/model"}
    done = run(build_config(flags={**flags, "backend.vllm.reusable_tokens": 100_000}), tmp_path / "run")
    assert len(done.labels) == 10


def test_without_vllm_the_extra_is_named():
    if importlib.util.find_spec("vllm"):
        pytest.skip("vLLM is installed")
    with pytest.raises(BackendError, match=r"needs vllm; pip install 'elicitor\[vllm\]'"):
        load_backend("vllm:org/model")


def test_drawn_texts_follow_their_generators(engine):
    backend = load_backend("vllm:m")

    def draw(*seeds):
        rngs = [np.random.default_rng(seed) for seed in seeds]
        return backend.generate((1, 2), max_new_tokens=5, temperature=0.7, stop=["\n"], rngs=rngs)

    made = draw(0, 1)
    assert made.texts == draw(0, 1).texts == draw(1, 0).texts[::-1]
    assert made.texts[0] != made.texts[1]
    assert (made.lengths, made.finished) == ([3, 3], [True, True])
    assert (made.cost.tokens_computed, made.cost.tokens_reused) == (2 + 6, 2)
    with pytest.raises(ContextOverflowError):
        backend.generate((1,) * 4999, max_new_tokens=5, temperature=0.7, stop=[], rngs=[np.random.default_rng(0)])

"""Exactness of the transformers backend on tiny random models: every score against the prompt run from scratch."""

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from elicitor.backends import hf, hf_passes  # noqa: E402
from elicitor.backends.base import Prompt  # noqa: E402
from elicitor.backends.trie import token_cost  # noqa: E402
from elicitor.errors import BackendError, ContextOverflowError  # noqa: E402
from elicitor.plan import Context, TreeOrder, make_plan, tree_order  # noqa: E402

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WINDOW = 16
"""Sliding windows of the tiny models, far shorter than the contexts below."""


def gemma3():
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    return transformers.Gemma3TextConfig(**SIZES, head_dim=8, sliding_window=WINDOW, layer_types=kinds)


def qwen3_next():
    return transformers.Qwen3NextConfig(
        **SIZES,
        head_dim=8,
        linear_num_value_heads=4,
        linear_num_key_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        num_experts=0,
        mlp_only_layers=[0, 1, 2],
        layer_types=["linear_attention", "full_attention", "linear_attention"],
    )


CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**SIZES, head_dim=8),
    "qwen2": lambda: transformers.Qwen2Config(**SIZES),
    "mistral": lambda: transformers.MistralConfig(**SIZES, head_dim=8, sliding_window=WINDOW),
    "gemma2": lambda: transformers.Gemma2Config(**SIZES, head_dim=8, sliding_window=WINDOW),
    "gemma3": gemma3,
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=64,
        n_embd=32,
        n_layer=3,
        n_head=4,
        n_positions=512,
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "qwen3_next": qwen3_next,
}
PACKED = ["llama", "qwen2", "mistral", "gemma2", "gemma3", "gpt2"]
CANDIDATES = ((5, 6), (5, 7), (8,))


class Words:
    """Stands in for a tokenizer: these tests make token ids themselves."""

    eos_token_id = 2
    bos_token_id = 1
    all_special_tokens = ()

    def __call__(self, text, **options):
        return {"input_ids": []}


@pytest.fixture(scope="module")
def models():
    made = {}

    def get(name):
        if name not in made:
            torch.manual_seed(0)
            made[name] = transformers.AutoModelForCausalLM.from_config(CONFIGS[name](), dtype=torch.float32).eval()
        return made[name]

    return get


@pytest.fixture
def backend(models):
    def make(name, **options):
        return hf.HfBackend(models(name), Words(), name=name, weights="x", **options)

    return make


def pieces(n, seed=0):
    rng = np.random.default_rng(seed)
    demonstrations = [tuple(rng.integers(3, 64, size=rng.integers(4, 9)).tolist()) for _ in range(n)]
    return demonstrations, [tokens[:-2] for tokens in demonstrations]


def to_prompts(contexts, demonstrations, queries):
    return [
        Prompt(((1,), *(demonstrations[i] for i in context.demonstrations), queries[context.target]), CANDIDATES)
        for context in contexts
    ]


def from_scratch(model, prompts):
    wanted = np.zeros((len(prompts), len(CANDIDATES)))
    with torch.inference_mode():
        for (row, prompt), (column, label) in itertools.product(enumerate(prompts), enumerate(CANDIDATES)):
            text = [token for segment in prompt.segments for token in segment]
            log_probs = model(torch.tensor([text + list(label)])).logits[0].double().log_softmax(-1)
            wanted[row, column] = sum(log_probs[len(text) - 1 + k, token].item() for k, token in enumerate(label))
    return wanted


@pytest.mark.parametrize("pack_tokens", [0, 40, 1024])
@pytest.mark.parametrize("name", CONFIGS)
def test_tree_scores_equal_scores_from_scratch(models, backend, name, pack_tokens):
    prompts = to_prompts(make_plan("tree", range(11), np.random.default_rng(0)), *pieces(11))
    scores = backend(name, pack_tokens=pack_tokens).score(prompts)
    np.testing.assert_allclose(scores.log_probs, from_scratch(models(name), prompts), atol=1e-4)
    assert scores.cost.tokens_computed == token_cost(prompts).tokens_computed
    assert scores.cost.tokens_computed < sum(map(len, prompts)) / 2
    # The check can fail: the labels of these models do depend on the context.
    assert scores.log_probs.std(axis=0).min() > 0.1


@pytest.mark.parametrize("kind", ["in_order", "folds", "sampled"])
@pytest.mark.parametrize("name", ["llama", "gemma3", "qwen3_next"])
def test_every_plan_is_exact(models, backend, name, kind):
    contexts = make_plan(kind, range(9), np.random.default_rng(1), n_folds=3, max_demonstrations=4)
    prompts = to_prompts(contexts, *pieces(9, seed=1))
    scores = backend(name, pack_tokens=64).score(prompts)
    np.testing.assert_allclose(scores.log_probs, from_scratch(models(name), prompts), atol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_long_runs_are_chunked_exactly(models, backend, name, monkeypatch):
    monkeypatch.setattr(hf_passes, "CHUNK_TOKENS", 7)
    prompts = to_prompts(make_plan("tree", range(8), np.random.default_rng(2)), *pieces(8, seed=2))
    scores = backend(name, pack_tokens=0).score(prompts)
    # A recurrent layer adds up its state in another order when its input comes in chunks.
    tolerance = 1e-3 if name == "qwen3_next" else 1e-4
    np.testing.assert_allclose(scores.log_probs, from_scratch(models(name), prompts), atol=tolerance)


@pytest.mark.parametrize("name", PACKED)
def test_packing_is_on_where_attention_obeys_masks(backend, name):
    assert backend(name).describe()["packing"] == "on"


def test_recurrent_models_copy_their_state_and_keep_nothing(backend):
    model = backend("qwen3_next")
    assert (model.croppable, model.reusable_tokens) == (False, 0)
    assert model.describe()["packing"].startswith("off")


def test_a_wrong_mask_is_noticed(models, monkeypatch):
    monkeypatch.setattr(hf_passes, "tree_mask", lambda parents, prefix: _chain_mask(parents, prefix))
    model = hf.HfBackend(models("llama"), Words(), name="llama", weights="x")
    assert "differ" in model.packing


def _chain_mask(parents, prefix):
    return np.tril(np.ones((len(parents), prefix + len(parents)), bool), prefix), prefix + np.arange(len(parents))


@pytest.mark.parametrize("name", PACKED)
def test_growing_reuses_what_was_computed_and_stays_exact(models, backend, name):
    demonstrations, queries = pieces(14, seed=3)
    model = backend(name, pack_tokens=64)
    order = tree_order(range(8), np.random.default_rng(3))
    model.score(to_prompts(order.contexts(), demonstrations, queries), keep=True)
    for new in range(8, 14):
        proposal = to_prompts([Context(new, order.spine)], demonstrations, queries)
        scores = model.score(proposal, keep=True)
        np.testing.assert_allclose(scores.log_probs, from_scratch(models(name), proposal), atol=1e-4)
        order = TreeOrder(order.base, (*order.tail, new))
        prompts = to_prompts(order.contexts(), demonstrations, queries)
        scores = model.score(prompts, keep=True)
        np.testing.assert_allclose(scores.log_probs, from_scratch(models(name), prompts), atol=1e-4)
        # The new demonstration behind every other context, and every query after it but the one just asked.
        others = [i for i in order.spine if i != new]
        expected = len(others) * len(demonstrations[new]) + sum(len(queries[i]) + 1 for i in others)
        assert scores.cost.tokens_computed == expected


def test_what_was_asked_before_is_free(backend):
    model = backend("llama")
    prompts = to_prompts(make_plan("tree", range(6), np.random.default_rng(4)), *pieces(6, seed=4))
    first = model.score(prompts, keep=True)
    again = model.score(prompts, keep=True)
    assert (again.log_probs == first.log_probs).all()
    assert again.cost.tokens_computed == 0
    assert model.score(prompts).cost.tokens_computed == first.cost.tokens_computed


def test_reuse_keeps_within_its_memory(models, backend):
    model = backend("llama", cache_gb=20e-6)  # 52 tokens of this model
    assert 40 <= model.reusable_tokens <= 60
    for seed in range(4):
        prompts = to_prompts(make_plan("tree", range(9), np.random.default_rng(seed)), *pieces(9, seed=seed))
        scores = model.score(prompts, keep=True)
        np.testing.assert_allclose(scores.log_probs, from_scratch(models("llama"), prompts), atol=1e-4)
        assert sum(entry.state is not None for entry, _ in model._prefix_cache._walk()) > 0
        held = sum(len(entry.segment) for entry, _ in model._prefix_cache._walk() if entry.state is not None)
        assert held <= model._prefix_cache.tokens


def test_too_long_prompts_are_refused_not_cut(backend):
    prompt = Prompt(((1,), tuple([9] * 511)), CANDIDATES)
    with pytest.raises(ContextOverflowError, match="514 tokens does not fit the 512"):
        backend("llama").score([prompt])


def test_scores_that_are_not_finite_are_an_error(models, backend):
    model = backend("gpt2")
    with torch.no_grad():
        weight = models("gpt2").lm_head.weight
        before = weight[8].clone()
        weight[8] = float("nan")
    try:
        with pytest.raises(BackendError, match="not finite"):
            model.score([Prompt(((1, 2),), CANDIDATES)])
    finally:
        with torch.no_grad():
            weight[8] = before

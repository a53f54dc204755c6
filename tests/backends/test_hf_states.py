"""Hidden states of padded batches against the same texts run one by one."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from elicitor.backends import hf, hf_states  # noqa: E402
from elicitor.backends.base import StatesBackend  # noqa: E402
from elicitor.backends.fake import FakeBackend  # noqa: E402
from elicitor.errors import BackendError, ContextOverflowError  # noqa: E402
from elicitor.models import load_backend  # noqa: E402

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**SIZES, head_dim=8),
    "mistral": lambda: transformers.MistralConfig(**SIZES, head_dim=8, sliding_window=8),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=64, n_embd=32, n_layer=3, n_head=4, n_positions=64, initializer_range=0.3
    ),
    "qwen3_next": lambda: transformers.Qwen3NextConfig(
        **SIZES,
        head_dim=8,
        linear_num_value_heads=4,
        linear_num_key_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        num_experts=0,
        mlp_only_layers=[0, 1, 2],
        layer_types=["linear_attention", "full_attention", "linear_attention"],
    ),
}


class Words:
    """Stands in for a tokenizer: these tests make token ids themselves."""

    eos_token_id = 2
    all_special_tokens = ()
    bos_token_id = 1

    def __call__(self, text, **options):
        return {"input_ids": []}


def tiny(name):
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[name](), dtype=torch.float32).eval()
    return model, hf.HfBackend(model, Words(), name=name, weights="x")


def one_by_one(model, sequences):
    with torch.inference_mode():
        outputs = [model(torch.tensor([list(s)]), output_hidden_states=True).hidden_states for s in sequences]
    return np.stack([[layer[0, -1].numpy() for layer in layers] for layers in outputs])


def texts(lengths):
    rng = np.random.default_rng(0)
    return [tuple(rng.integers(3, 64, size=length).tolist()) for length in lengths]


@pytest.mark.parametrize("name", CONFIGS)
def test_padding_changes_nothing(name, monkeypatch):
    monkeypatch.setattr(hf_states, "BATCH_TOKENS", 60)
    model, backend = tiny(name)
    sequences = texts([5, 21, 1, 13, 2, 8, 64, 13])
    seen = []
    states = backend.hidden_states(sequences, on_progress=seen.append)
    assert states.values.shape == (8, 4, 32)
    assert states.values.dtype == np.float32
    np.testing.assert_allclose(states.values, one_by_one(model, sequences), atol=1e-4)
    assert states.values[:, 1:].std(axis=0).min() > 0.1
    assert (states.cost.prompts, states.cost.tokens_computed, states.cost.tokens_reused) == (8, 127, 0)
    # 64 alone; three of 21 would be 63, so 21 and 13; five of 13 would be 65, so 13, 8, 5 and 2; then 1.
    assert seen == [64, 34, 28, 1]


def test_the_first_state_is_the_embedding_and_the_last_is_what_the_head_reads():
    model, backend = tiny("llama")
    (sequence,) = texts([9])
    values = backend.hidden_states([sequence]).values[0]
    np.testing.assert_array_equal(values[0], model.model.embed_tokens.weight[sequence[-1]].detach().numpy())
    with torch.inference_mode():
        wanted = model(torch.tensor([sequence])).logits[0, -1]
        np.testing.assert_allclose(model.lm_head(torch.tensor(values[-1])), wanted, atol=1e-5)


def test_batches_hold_all_texts_and_little_padding():
    lengths = np.random.default_rng(0).integers(1, 50, size=200).tolist()
    dealt = hf_states.batches(lengths, 100)
    assert sorted(i for batch in dealt for i in batch) == list(range(200))
    padded = [len(batch) * max(lengths[i] for i in batch) for batch in dealt]
    assert max(padded) <= 100
    assert sum(padded) < 1.1 * sum(lengths)
    assert hf_states.batches([3, 500, 4], 100) == [[1], [2, 0]]


def test_too_long_and_empty_texts_are_refused():
    _, backend = tiny("gpt2")
    with pytest.raises(ContextOverflowError, match="a text of 65 tokens does not fit the 64 of gpt2"):
        backend.hidden_states(texts([3, 65]))
    for nothing in ([], texts([3, 0])):
        with pytest.raises(BackendError, match="without tokens"):
            backend.hidden_states(nothing)


def test_states_that_are_not_finite_are_an_error():
    model, backend = tiny("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0] = float("nan")
    with pytest.raises(BackendError, match=r"llama gave \d+ hidden states that are not finite; use backend.dtype"):
        backend.hidden_states(texts([4, 6]))


def test_only_models_with_states_have_the_protocol():
    assert isinstance(tiny("llama")[1], StatesBackend)
    assert not isinstance(FakeBackend(), StatesBackend)


def test_the_bundled_model_one_by_one_and_in_batches():
    backend = load_backend("bundled")
    lines = ["Short.", "Oslo is the capital of Norway, and a much longer line than the first.", "It rained all day."]
    sequences = [(*backend.tokenizer.start_ids, *backend.tokenizer.encode(line)) for line in lines]
    states = backend.hidden_states(sequences)
    assert states.values.shape == (3, 31, 576)
    wanted = one_by_one(backend._model, sequences)
    # Some directions of this model's residual stream are thousands of times larger than others.
    np.testing.assert_allclose(states.values, wanted, atol=1e-5 * np.abs(wanted).max())
    assert np.abs(states.values - wanted).mean() < 1e-4

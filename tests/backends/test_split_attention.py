"""Attention in two parts against torch's own under one dense mask."""

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from transformers.masking_utils import causal_mask_function, sliding_window_causal_mask_function  # noqa: E402

from elicitor.backends import hf, split_attention  # noqa: E402
from elicitor.backends.base import Prompt  # noqa: E402
from elicitor.backends.split_attention import attend, causal_mask  # noqa: E402

SIZE = 16
CANDIDATES = ((5,), (6,))


class Layer(torch.nn.Module):
    """What attention asks of its layer."""

    is_causal = True

    def __init__(self, groups):
        super().__init__()
        self.num_key_value_groups = groups


def states(*, tokens, prefix, groups, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 3 * groups, tokens, SIZE, generator=generator).to(dtype)
    key, value = (torch.randn(2, 3, prefix + tokens, SIZE, generator=generator).to(dtype) for _ in range(2))
    return query, key, value


def dense(query, key, value, among, groups, scale):
    """Torch's attention with every key in one mask; ``among`` says which new tokens see each other."""
    tokens, prefix = query.shape[2], key.shape[2] - query.shape[2]
    visible = torch.cat([torch.ones(tokens, prefix, dtype=torch.bool), among], dim=1)
    key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))
    attention = torch.nn.functional.scaled_dot_product_attention
    return attention(query, key, value, attn_mask=visible, scale=scale).transpose(1, 2)


def additive(among, dtype=torch.float32):
    return torch.zeros(among.shape, dtype=dtype).masked_fill(~among, torch.finfo(dtype).min)[None, None]


def tree(tokens):
    """Each token sees itself and some before it."""
    generator = torch.Generator().manual_seed(1)
    seen = torch.rand(tokens, tokens, generator=generator) < 0.4
    return seen.tril() | torch.eye(tokens, dtype=torch.bool)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize(("tokens", "prefix"), [(1, 9), (7, 50), (40, 3), (65, 700)])
@pytest.mark.parametrize("scale", [None, 0.5])
def test_two_parts_make_one_attention(groups, tokens, prefix, scale):
    query, key, value = states(tokens=tokens, prefix=prefix, groups=groups)
    causal = torch.ones(tokens, tokens, dtype=torch.bool).tril()
    for among, mask in [(tree(tokens), additive(tree(tokens))), (causal, None)]:
        found, weights = attend(Layer(groups), query, key, value, mask, scaling=scale)
        torch.testing.assert_close(found, dense(query, key, value, among, groups, scale), atol=2e-6, rtol=1e-5)
        assert weights is None


def test_scores_far_apart_do_not_overflow():
    query, key, value = states(tokens=5, prefix=20, groups=3)
    key[:, :, :20] *= 300
    among = tree(5)
    found, _ = attend(Layer(3), query, key, value, additive(among))
    torch.testing.assert_close(found, dense(query, key, value, among, 3, None), atol=2e-6, rtol=1e-5)


def test_bfloat16_is_as_exact_as_it_can_be():
    query, key, value = states(tokens=20, prefix=300, groups=3, dtype=torch.bfloat16)
    among = tree(20)
    found, _ = attend(Layer(3), query, key, value, additive(among, torch.bfloat16))
    wanted = dense(query.float(), key.float(), value.float(), among, 3, None)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), wanted, atol=0.02, rtol=0.02)


def test_a_mask_as_wide_as_the_keys_is_obeyed_everywhere():
    """Here the prefix itself is hidden in part, as by a sliding window or in front of a shorter row of a batch."""
    query, key, value = states(tokens=6, prefix=10, groups=3)
    visible = torch.cat([torch.ones(6, 10, dtype=torch.bool).triu(2), tree(6)], dim=1)
    found, _ = attend(Layer(3), query, key, value, additive(visible))
    wide = [part.repeat_interleave(3, dim=1) for part in (key, value)]
    wanted = torch.nn.functional.scaled_dot_product_attention(query, *wide, attn_mask=visible).transpose(1, 2)
    torch.testing.assert_close(found, wanted, atol=2e-6, rtol=1e-5)


def masked(kv_length, **options):
    return causal_mask(batch_size=1, q_length=4, kv_length=kv_length, q_offset=kv_length - 4, **options)


def test_a_mask_is_made_only_where_it_says_something():
    window = {"mask_function": sliding_window_causal_mask_function(8), "local_size": 8}
    assert masked(20, mask_function=causal_mask_function) is None
    assert masked(8, **window) is None
    assert masked(9, **window).shape == (1, 1, 4, 9)
    padded = torch.ones(1, 20, dtype=torch.bool)
    padded[0, 0] = False
    assert not masked(20, attention_mask=padded)[0, 0, :, 0].any()


@pytest.fixture
def llama():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.3,
    )  # fmt: skip
    return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


class Words:
    eos_token_id = bos_token_id = 2
    all_special_tokens = ()

    def __call__(self, text, **options):
        return {"input_ids": []}


def test_a_kernel_that_is_wrong_is_noticed_and_not_used(llama, monkeypatch):
    prompts = [Prompt(((1, 9, 30), (7, 8, last)), CANDIDATES) for last in (11, 12, 13)]
    right = hf.HfBackend(llama, Words(), name="x", weights="x")
    assert right.describe()["attention"] == "split"
    wanted = right.score(prompts).log_probs
    llama.set_attn_implementation("sdpa")
    kernel = split_attention._kernel

    def wrong(*arguments, **options):
        output, weight = kernel(*arguments, **options)
        return output, weight * 0

    monkeypatch.setattr(split_attention, "_kernel", wrong)
    safe = hf.HfBackend(llama, Words(), name="x", weights="x")
    assert (safe.describe()["attention"], safe.describe()["packing"]) == ("sdpa", "on")
    assert safe.score(prompts).log_probs == pytest.approx(wanted, abs=1e-5)
    assert safe.fingerprint != right.fingerprint


def test_models_that_chose_another_attention_keep_it(llama):
    llama.set_attn_implementation("eager")
    assert hf.HfBackend(llama, Words(), name="x", weights="x").describe()["attention"] == "eager"

"""Flat prompts: segments found, scores as from scratch, what is held reused and bounded."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elicitor.backends.base import NextTokenBackend, Prompt
from elicitor.backends.fake import NEVER, FakeBackend
from elicitor.backends.prefix_cache import PrefixCache
from elicitor.backends.radix import segmented
from elicitor.backends.trie import schedule
from elicitor.errors import BackendError, ContextOverflowError

flat = st.lists(st.integers(0, 2), min_size=1, max_size=12).map(tuple)
requests = st.lists(st.lists(flat, min_size=1, max_size=8), min_size=1, max_size=5)


def cut_tokens(state, length):
    """Stands in for keys and values: the tokens themselves, so that a wrong cut would show."""
    return state[:length], state[length:]


def run(cache, prompts):
    """One call with a model whose state is its tokens; the tokens it computed and its segments."""
    with segmented(prompts, cache, cut=cut_tokens) as parts:
        passes = schedule(parts, pack_tokens=0, cache=cache)
        context, computed = [], 0
        for item in passes:
            context = context[: item.prefix]
            if item.restore is not None:
                assert item.restore.state == item.restore.segment
                context += item.restore.state
                continue
            context += item.tokens
            computed += len(item.tokens)
            for read in item.reads:
                assert tuple(context) == prompts[read.prompt]
            for entry, first in item.fills:
                if cache.has_room(entry):
                    cache.hold(entry, tuple(item.tokens[first : first + len(entry.segment)]))
        return computed, [part.segments for part in parts]


@given(requests)
def test_segments_join_to_the_prompts_and_nothing_shared_is_computed_twice(calls):
    cache, seen, asked = PrefixCache(10_000), set(), set()
    for prompts in calls:
        computed, segments = run(cache, prompts)
        assert [tuple(token for part in parts for token in part) for parts in segments] == prompts
        beginnings = {tokens[:end] for tokens in prompts for end in range(1, len(tokens) + 1)}
        new = beginnings - seen
        # Only tokens that are read from run again, or were read from before.
        asked |= set(prompts)
        assert len(new) <= computed <= len(new | (beginnings & asked))
        seen |= {b for b in beginnings if any(b == p[: len(b)] and len(b) < len(p) for p in prompts)}


@given(requests, st.integers(0, 30))
def test_memory_is_bounded_and_entries_hold_what_they_say(calls, room):
    cache = PrefixCache(room)
    for prompts in calls:
        run(cache, prompts)
        entries = [entry for entry, _ in cache._walk()]
        held = [entry for entry in entries if entry.state is not None]
        assert all(entry.state == entry.segment for entry in held)
        assert sum(len(entry.segment) for entry in held) == cache.tokens <= room
        # Entries that hold nothing stay only where something is held behind them: the tree itself is bounded too.
        assert all(entry.children for entry in entries if entry.state is None)


def test_an_entry_is_split_where_a_prompt_leaves_it():
    cache = PrefixCache(100)
    assert run(cache, [(1, 2, 3, 4, 5)]) == (5, [((1, 2, 3, 4), (5,))])
    assert run(cache, [(1, 2, 7, 8), (1, 2, 3, 9)]) == (3, [((1, 2), (7,), (8,)), ((1, 2), (3,), (9,))])
    # 4 was held and still is; 3 was held too, 9 and 5 were read from.
    assert run(cache, [(1, 2, 3, 4, 5)]) == (1, [((1, 2), (3,), (4,), (5,))])


def test_the_least_recently_used_goes_first():
    cache = PrefixCache(8)
    run(cache, [(1, 1, 1, 1, 9)])
    run(cache, [(2, 2, 2, 2, 9)])
    assert run(cache, [(1, 1, 1, 1, 9)])[0] == 1
    assert run(cache, [(3, 3, 3, 3, 9)])[0] == 5
    assert run(cache, [(1, 1, 1, 1, 9)])[0] == 1
    assert run(cache, [(2, 2, 2, 2, 9)])[0] == 5


def test_the_fake_world_answers_flat_prompts_as_it_does_segments():
    world = FakeBackend(verbalizers=(" no", " yes"))
    assert isinstance(world, NextTokenBackend)
    parts = [tuple(b"text 1: yes\n\n"), tuple(b"text 2: no\n\n"), tuple(b"text 3:")]
    whole = tuple(token for part in parts for token in part)
    candidates = (tuple(b" no"), tuple(b" yes"))
    wanted = world.score([Prompt(tuple(parts), candidates)]).log_probs[0]
    for candidate, log_prob in zip(candidates, wanted, strict=True):
        steps = [whole + candidate[:n] for n in range(len(candidate))]
        found = world.next_tokens(steps, top=2, tokens=candidate)
        assert sum(found.log_probs[n, n] for n in range(len(candidate))) == pytest.approx(log_prob, abs=1e-12)
    first = world.next_tokens([whole], top=2, tokens=(0,))
    assert first.top_ids[0, 0] == ord(" ")
    assert first.log_probs[0, 0] == NEVER


@pytest.fixture(scope="module")
def tiny():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from elicitor.backends.hf import HfBackend

    class Words:
        eos_token_id, bos_token_id = 2, 1
        all_special_tokens = ()

        def __call__(self, text, **options):
            return {"input_ids": []}

    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "head_dim": 8}
    config = transformers.LlamaConfig(
        **sizes,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.3,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()

    def make(**options):
        return HfBackend(model, Words(), name="tiny", weights="x", **options)

    return make


def random_request(rng, n=9):
    """Prompts that share prefixes of all lengths, some the beginning of others."""
    trunk = rng.integers(3, 64, size=60)
    cuts = rng.integers(1, 60, size=n)
    return [(*trunk[:cut].tolist(), *rng.integers(3, 64, size=rng.integers(0, 9)).tolist()) for cut in cuts]


@pytest.mark.parametrize("options", [{}, {"pack_tokens": 0}, {"cache_gb": 0}, {"cache_gb": 60e-6}])
def test_distributions_are_exact_over_many_calls(tiny, options):
    model = tiny(**options)
    rng = np.random.default_rng(0)
    trunks = [random_request(rng) for _ in range(3)]
    reused = 0
    for call in range(12):
        prompts = [tokens + (3 + call,) * (call % 3) for tokens in trunks[call % 3]]
        found = model.next_tokens(prompts, top=4, tokens=(5, 9, 5))
        for row, tokens in enumerate(prompts):
            wanted = tiny().score([Prompt((tokens,), tuple((t,) for t in range(64)))]).log_probs[0]
            np.testing.assert_allclose(found.log_probs[row], wanted[[5, 9, 5]], atol=1e-4)
            np.testing.assert_allclose(found.top_log_probs[row], np.sort(wanted)[::-1][:4], atol=1e-4)
            np.testing.assert_allclose(wanted[found.top_ids[row]], found.top_log_probs[row], atol=1e-4)
        assert found.cost.tokens_computed + found.cost.tokens_reused == sum(map(len, prompts))
        alone = {tokens[:end] for tokens in prompts for end in range(1, len(tokens) + 1)}
        assert found.cost.tokens_computed <= len(alone)
        reused += found.cost.tokens_computed < len(alone)
        held = sum(len(e.segment) for e, _ in model._prefix_cache._walk() if e.state is not None)
        assert held <= model.reusable_tokens
    # Twice: what was computed in the round before is all there, unless memory is short.
    assert {0: reused == 0, 60e-6: reused < 9}.get(options.get("cache_gb"), reused == 9)


def test_flat_and_segmented_prompts_may_share_one_model(tiny):
    model = tiny()
    parts = ((4, 5, 6), (4, 7, 8), (9,))
    whole = tuple(token for part in parts for token in part)
    prompts = [Prompt(parts, ((5,), (6,))), Prompt((parts[0], parts[2]), ((5,), (6,)))]
    wanted = tiny().score(prompts).log_probs
    for _ in range(2):
        np.testing.assert_allclose(model.score(prompts, keep=True).log_probs, wanted, atol=1e-4)
        found = model.next_tokens([whole, (4, 5, 6, 9), (4, 5, 9)], top=1, tokens=(5, 6))
        np.testing.assert_allclose(found.log_probs[:2], wanted, atol=1e-4)


def test_what_cannot_be_answered_is_refused(tiny):
    with pytest.raises(ContextOverflowError, match="513 tokens"):
        tiny().next_tokens([(3,) * 512], top=1)
    with pytest.raises(BackendError, match="no tokens"):
        tiny().next_tokens([()], top=1)

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elicitor.backends.base import Prompt
from elicitor.backends.prefix_cache import PrefixCache
from elicitor.backends.trie import check_candidates, cost, schedule, token_cost, unshared_tokens
from elicitor.errors import LabelTokenError
from elicitor.plan import make_plan

token = st.integers(0, 3)
segment = st.lists(token, max_size=3).map(tuple)
ONE_TOKEN = ((1,), (2,))
SHARED = ((1, 1), (1, 2), (3,))


@st.composite
def prompt_lists(draw):
    """Prompts over a tiny vocabulary, so that segments and prefixes often coincide."""
    candidates = draw(st.sampled_from([ONE_TOKEN, SHARED]))
    pool = draw(st.lists(segment, min_size=1, max_size=4))
    paths = draw(st.lists(st.lists(st.sampled_from(pool), max_size=4), min_size=1, max_size=8))
    query = draw(st.lists(token, min_size=1, max_size=3).map(tuple))
    return [Prompt((*path, query), candidates) for path in paths]


def replay(passes):
    """Contexts that each read of the passes sees, with a plain list in place of a model's cache."""
    seen, running = {}, []
    for item in passes:
        assert len(running) >= item.prefix
        running = running[: item.prefix]
        if item.restore is not None:
            assert not item.tokens
            running = running + list(item.restore.segment)
            assert item.restore.state == tuple(running)
            continue
        contexts = []
        for index, (parent, value) in enumerate(zip(item.parents, item.tokens, strict=True)):
            assert parent < index
            contexts.append((*(contexts[parent] if parent >= 0 else running), value))
        for read in item.reads:
            seen.setdefault((read.prompt, read.candidate), []).append((contexts[read.row], read.token))
        for entry, first in item.fills:
            last = first + len(entry.segment) - 1
            entry.state = contexts[last]
        running = list(contexts[-1])
    return seen


@given(prompt_lists(), st.sampled_from([0, 3, 8, 1000]))
def test_every_candidate_token_is_read_after_its_own_prompt(prompts, pack_tokens):
    seen = replay(schedule(prompts, pack_tokens=pack_tokens))
    for index, prompt in enumerate(prompts):
        text = tuple(value for part in prompt.segments for value in part)
        for number, candidate in enumerate(prompt.candidates):
            expected = [(text + candidate[:k], candidate[k]) for k in range(len(candidate))]
            assert seen[index, number] == expected


@given(prompt_lists(), st.sampled_from([0, 3, 8, 1000]))
def test_tokens_counted_are_tokens_run(prompts, pack_tokens):
    passes = schedule(prompts, pack_tokens=pack_tokens)
    counted = token_cost(prompts)
    assert cost(prompts, passes) == counted
    alone = sum(token_cost([prompt]).tokens_computed for prompt in prompts)
    assert counted.tokens_computed + counted.tokens_reused == unshared_tokens(prompts) == alone


@given(prompt_lists(), prompt_lists(), st.sampled_from([0, 3, 1000]))
def test_what_a_cache_holds_is_restored_and_reads_stay_right(first, second, pack_tokens):
    cache = PrefixCache(10_000)
    cache.begin(first)
    replay(schedule(first, pack_tokens=pack_tokens, cache=cache))
    cache.begin(second)
    passes = schedule(second, pack_tokens=pack_tokens, cache=cache)
    assert replay(passes) == replay_without(second, pack_tokens)
    assert cost(second, passes).tokens_computed <= token_cost(second).tokens_computed


def replay_without(prompts, pack_tokens):
    return replay(schedule(prompts, pack_tokens=pack_tokens))


def test_leave_one_out_costs_n_log_n_demonstrations_and_n_queries():
    rng = np.random.default_rng(0)
    n, size = 64, 5
    demonstrations = [tuple(rng.integers(0, 100, size).tolist()) for _ in range(n)]
    queries = [(*part[:-1], 100 + i) for i, part in enumerate(demonstrations)]
    prompts = [
        Prompt((*(demonstrations[i] for i in context.demonstrations), queries[context.target]), ONE_TOKEN)
        for context in make_plan("tree", range(n), rng)
    ]
    assert token_cost(prompts).tokens_computed == size * n * 6 + size * n


def test_packs_fit_their_budget_and_chains_need_no_mask():
    rng = np.random.default_rng(0)
    contexts = make_plan("tree", range(16), rng)
    prompts = [Prompt((*((i,) * 5 for i in c.demonstrations), (99, c.target)), ONE_TOKEN) for c in contexts]
    passes = schedule(prompts, pack_tokens=60)
    assert all(item.is_chain or len(item.tokens) <= 60 for item in passes)
    assert any(not item.is_chain for item in passes)
    assert all(item.is_chain for item in schedule(prompts, pack_tokens=0))
    assert len(passes) < len(schedule(prompts, pack_tokens=0)) / 2


def test_a_prompt_that_is_the_beginning_of_another_is_still_read():
    prompts = [Prompt(((1,), (2,)), ONE_TOKEN), Prompt(((1,), (2,), (3,)), ONE_TOKEN)]
    cache = PrefixCache(100)
    for _ in range(2):
        cache.begin(prompts)
        seen = replay(schedule(prompts, pack_tokens=0, cache=cache))
        assert seen[0, 0] == [((1, 2), 1)]
        assert seen[1, 1] == [((1, 2, 3), 2)]


@pytest.mark.parametrize("candidates", [(), ((),), ((1,), (1,)), ((1,), (1, 2)), ((1, 2), (1,))])
def test_label_tokens_that_overlap_are_refused(candidates):
    with pytest.raises(LabelTokenError):
        check_candidates(candidates)
    with pytest.raises(LabelTokenError):
        schedule([Prompt(((1,),), candidates)], pack_tokens=0)


def test_cache_drops_the_oldest_and_never_what_this_call_needs():
    cache = PrefixCache(6)
    old, new = Prompt(((1, 1, 1), (2,)), ONE_TOKEN), Prompt(((3, 3, 3), (4, 4, 4), (2,)), ONE_TOKEN)
    hold = partial(hold_all, cache)
    hold(old)
    assert cache.tokens == 3
    hold(new)
    assert cache.tokens == 6
    assert (1, 1, 1) not in cache.root.children
    hold(Prompt(((5, 5, 5), (6, 6, 6), (7, 7, 7), (2,)), ONE_TOKEN))
    assert cache.tokens == 6
    entry = cache.root.children[5, 5, 5]
    assert entry.state is not None
    assert entry.children[6, 6, 6].state is not None
    assert entry.children[6, 6, 6].children[7, 7, 7].state is None


def hold_all(cache, prompt):
    cache.begin([prompt])
    for item in schedule([prompt], pack_tokens=0, cache=cache):
        for entry, _ in item.fills:
            if cache.has_room(entry):
                cache.hold(entry, "state")


def test_answers_are_found_by_the_exact_prompt_only():
    cache = PrefixCache(100)
    prompt = Prompt(((1,), (2,)), ONE_TOKEN)
    cache.remember(prompt, np.asarray([-1.0, -2.0]))
    others = [Prompt(((1,), (3,)), ONE_TOKEN), Prompt(((1,),), ONE_TOKEN), Prompt(((1,), (2,)), SHARED)]
    found, *missing = cache.begin([prompt, *others])
    assert found.tolist() == [-1.0, -2.0]
    assert missing == [None, None, None]

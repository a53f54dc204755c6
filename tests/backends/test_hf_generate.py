"""Sampling against the model's own distribution."""

from collections import Counter

import numpy as np
import pytest
import torch

from elicitor import load_backend
from elicitor.backends.hf_passes import log_probs_after


@pytest.fixture(scope="module")
def backend():
    return load_backend("bundled")


def generate(backend, text, n, *, seed=0, **options):
    settings = {"max_new_tokens": 1, "temperature": 1.0, "stop": (), **options}
    rngs = np.random.default_rng(seed).spawn(n)
    return backend.generate(backend.tokenizer.encode(text), rngs=rngs, **settings)


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_first_tokens_follow_the_distribution(backend, temperature):
    text = "The capital of France is"
    drawn = generate(backend, text, 400, temperature=temperature).texts
    with torch.inference_mode():
        row = log_probs_after(backend._model, [list(backend.tokenizer.encode(text))], [])[0, -1].double()
    wanted = torch.softmax(row / temperature, dim=0)
    best = int(wanted.argmax())
    share = Counter(drawn)[backend.tokenizer.decode([best])] / 400
    spread = float((wanted[best] * (1 - wanted[best]) / 400) ** 0.5)
    assert share == pytest.approx(float(wanted[best]), abs=4 * spread + 1e-9)


def test_draws_do_not_depend_on_what_is_drawn_beside_them(backend):
    options = {"max_new_tokens": 12, "temperature": 0.8}
    together = generate(backend, "One day the fox", 4, **options).texts
    rngs = np.random.default_rng(0).spawn(4)
    prompt = backend.tokenizer.encode("One day the fox")
    alone = [backend.generate(prompt, rngs=[rng], stop=(), **options).texts[0] for rng in rngs]
    assert together == alone
    assert len(set(together)) > 1


def test_a_text_ends_before_its_stop_or_at_the_limit(backend):
    made = generate(backend, "1, 2, 3, 4,", 3, max_new_tokens=12, temperature=0.01, stop=(" 7",))
    assert made.finished == [True] * 3
    assert made.texts == [" 5, 6,"] * 3
    cut = generate(backend, "1, 2, 3, 4,", 1, max_new_tokens=3, temperature=0.01)
    assert cut.finished == [False]
    assert cut.cost.prompts == 1


def test_the_prompt_is_computed_once(backend):
    prompt = backend.tokenizer.encode("Once upon a time")
    made = generate(backend, "Once upon a time", 5, max_new_tokens=4)
    assert made.cost.tokens_computed <= len(prompt) + 5 * 4

import numpy as np
import pytest

from elicitor.backends.base import Prompt
from elicitor.backends.fake import FakeBackend, concept_label, from_options
from elicitor.errors import ConfigError, ContextOverflowError

CANDIDATES = (b" no", b" yes")


def ask(backend, query, shots=(), **options):
    candidates = tuple(tuple(word) for word in CANDIDATES)
    demonstrations = [tuple(f"{text}:".encode() + CANDIDATES[label] + b"\n\n") for text, label in shots]
    return backend.score([Prompt((*demonstrations, tuple(f"{query}:".encode())), candidates)], **options).log_probs[0]


def shots(n, *, right):
    made = [(f"text {i}", concept_label(f"text {i}:", 2)) for i in range(n)]
    return [(text, label if i < right else 1 - label) for i, (text, label) in enumerate(made)]


def margin(log_probs, query):
    truth = concept_label(f"{query}:", 2)
    return log_probs[truth] - log_probs[1 - truth]


def test_demonstrations_that_agree_with_the_concept_pull_towards_it():
    world = FakeBackend(noise=0, prior=0)
    margins = [margin(ask(world, "query", shots(8, right=right)), "query") for right in (0, 2, 4, 6, 8)]
    assert margins == sorted(margins)
    assert margins[2] == pytest.approx(0)
    # All of eight agree: gain * 8 / (8 + shrink).
    assert margins[4] == pytest.approx(4 * 8 / 12)
    assert margins[0] == pytest.approx(-4 * 8 / 12)


def test_zero_shot_is_the_prior_and_bias_leans_to_the_last_label():
    assert margin(ask(FakeBackend(noise=0, prior=0.7), "q"), "q") == pytest.approx(0.7)
    plain, biased = ask(FakeBackend(noise=0), "q"), ask(FakeBackend(noise=0, bias=2.0), "q")
    assert (biased[1] - biased[0]) - (plain[1] - plain[0]) == pytest.approx(2.0)


def test_labels_are_balanced_and_noise_of_two_labels_is_independent():
    labels = [concept_label(f"text {i}:", 2) for i in range(1000)]
    assert 450 < sum(labels) < 550
    world = FakeBackend(gain=0, prior=0, noise=1)
    differences = np.asarray([np.subtract(*ask(world, f"text {i}")) for i in range(300)])
    assert len(set(differences.round(6))) == 300
    assert abs(differences.mean()) < 0.2


def test_scores_are_the_same_every_time_and_sum_to_one():
    first, second = (ask(FakeBackend(), "q", shots(3, right=2)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert np.exp(first).sum() == pytest.approx(1)
    kept = FakeBackend()
    np.testing.assert_array_equal(ask(kept, "q", keep=True), ask(kept, "q", keep=True))


def test_the_window_is_enforced():
    with pytest.raises(ContextOverflowError, match="fake world"):
        ask(FakeBackend(context=20), "a longer query than that")


def test_options_are_read_from_the_model_name():
    assert from_options("gain=2,context=99,bias=-1.5") == FakeBackend(gain=2, context=99, bias=-1.5)
    assert from_options("") == FakeBackend()
    for wrong in ("gain", "gain=x", "strength=2"):
        with pytest.raises(ConfigError, match="key=value with gain"):
            from_options(wrong)
    assert FakeBackend(gain=2).fingerprint != FakeBackend().fingerprint

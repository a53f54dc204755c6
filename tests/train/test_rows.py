from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elicitor.backends.fake import FakeBackend
from elicitor.data import LabelSpace
from elicitor.errors import ConfigError
from elicitor.prompts import PromptEncoder
from elicitor.train.rows import Row, class_weights, make_rows, step_tokens, training_order
from elicitor.train.sft import labelled_run

SPACE = LabelSpace(("no", "yes"), (" no", " yes"), positive=1)


def rows_of(*labels):
    return [Row((1, 2), (3,), label) for label in labels]


def test_a_row_is_the_prompt_that_a_backend_scores_and_the_tokens_it_asks_for(run):
    labelled, _ = labelled_run(run)
    encoder = PromptEncoder(FakeBackend().tokenizer, labelled.task, labelled.dataset)
    rows = make_rows(encoder, labelled.labels, max_tokens=10_000)
    for (position, label), row in zip(labelled.labels.items(), rows, strict=True):
        prompt = encoder.prompt_with([], position)
        assert row.prompt == tuple(token for segment in prompt.segments for token in segment)
        assert row.completion == prompt.candidates[label]


def test_class_weights_by_hand():
    rows = rows_of(0, 0, 0, 1)
    assert class_weights(None, rows, SPACE) == [1, 1]
    assert class_weights("balanced", rows, SPACE) == pytest.approx([2 / 3, 2])
    assert class_weights("yes=5", rows, SPACE) == pytest.approx([0.5, 2.5])


@pytest.mark.parametrize("spec", ["maybe=1", "yes=much", "yes=0", "yes=nan"])
def test_class_weights_that_mean_nothing_are_refused(spec):
    with pytest.raises(ConfigError, match="class weight"):
        class_weights(spec, rows_of(0, 1), SPACE)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=200), st.integers(1, 3), st.integers(1, 9), st.integers(0, 9))
def test_every_epoch_holds_every_row_once(lengths, epochs, batch_size, seed):
    order = training_order(lengths, epochs=epochs, batch_size=batch_size, rng=np.random.default_rng(seed))
    n = len(lengths)
    assert len(order) == epochs * n
    for epoch in range(epochs):
        assert Counter(order[epoch * n : (epoch + 1) * n]) == Counter(range(n))
    assert sum(step_tokens(lengths, order, rows_a_step=batch_size)) == epochs * sum(lengths)


def test_batches_of_similar_length_hold_little_padding():
    rng = np.random.default_rng(0)
    lengths = rng.integers(10, 60, size=1001).tolist()

    def padded(order):
        batches = [[lengths[row] for row in order[i : i + 16]] for i in range(0, len(order), 16)]
        return sum(max(batch) * len(batch) for batch in batches) / sum(map(sum, batches))

    ours = training_order(lengths, epochs=3, batch_size=16, rng=rng)
    for epoch in range(3):
        assert padded(ours[epoch * 1001 + (-epoch * 1001) % 16 :][:992]) < 1.08
    assert padded(rng.permutation(1001).tolist()) > 1.3
    assert ours != sorted(ours, key=lengths.__getitem__)

import json

import pytest

pytest.importorskip("trl")

from elicitor.train.head_start import MAX_PAIRS
from elicitor.train.reward import prepare_reward, train_reward
from elicitor.train.reward_cost import reward_cost
from elicitor.train.reward_fit import RewardSettings


@pytest.fixture
def make_work(tiny, pair_rows, tmp_path):
    """Makes a training of which the rest is much longer than what is labelled."""

    def make(labelled, rest):
        first, second = tmp_path / "first.jsonl", tmp_path / "rest.jsonl"
        first.write_text("".join(json.dumps(row) + "\n" for row in pair_rows(labelled)))
        longer = [{**row, "question": row["question"] + " " + 40 * "so "} for row in pair_rows(rest, start=labelled)]
        second.write_text("".join(json.dumps(row) + "\n" for row in longer))
        return prepare_reward(first, model=str(tiny), rest=str(second) if rest else None, labels="golden")

    return make


@pytest.mark.parametrize(("labelled", "rest"), [(20, 30), (50, 6), (12, 0)])
def test_tokens_of_a_small_training_are_counted_exactly(make_work, labelled, rest, tmp_path):
    work, read = make_work(labelled, rest), []
    settings = RewardSettings(epochs=0)
    cost = reward_cost(work, settings)
    train_reward(work, tmp_path / "rm", settings, labels="golden", on_progress=read.append)
    assert cost.tokens == sum(read)


def test_an_epoch_reads_the_labelled_pairs_for_both_models_and_the_rest_for_one(make_work):
    def tokens(rest, epochs):
        return reward_cost(make_work(20, rest), RewardSettings(epochs=epochs)).tokens

    own = tokens(0, epochs=0)
    assert tokens(0, epochs=3) == 4 * own
    # Without an epoch: the first probe reads what is labelled, the second both parts, and the rest is read to be labelled.
    both = tokens(30, epochs=0) // 2
    assert both > 3 * own
    assert tokens(30, epochs=3) == 2 * both + 3 * (own + both)


def test_a_sample_stands_for_each_part_by_its_own_size(make_work):
    cost = {n: reward_cost(make_work(20, n), RewardSettings(epochs=0)).tokens for n in (60, 600)}
    own = 2 * reward_cost(make_work(20, 0), RewardSettings(epochs=0)).tokens
    assert (cost[600] - own) == pytest.approx(10 * (cost[60] - own), rel=0.05)
    assert MAX_PAIRS > 620

import json
import re

import numpy as np
import pytest
from scipy import stats

from elicitor.consistency import Constraints
from elicitor.data import load_dataset
from elicitor.gold import load_gold
from elicitor.salience import best_predictor, trivial_features
from elicitor.tasks import load_task
from elicitor.tasks.poems import SUN, generate_poems

TASK = load_task("poems")


def poems(n, seed=0):
    return generate_poems(n, rng=np.random.default_rng(seed))


def test_exactly_the_better_poem_mentions_the_sun():
    for row in poems(200):
        sides = [SUN in re.findall(r"\w+", row[side]) for side in ("choice", "choice_2")]
        assert sides == [row["label"] == 1, row["label"] == 0]
        assert all(row[side].count("\n") == 3 for side in ("choice", "choice_2"))


def test_sides_are_balanced_pairs_differ_and_a_seed_gives_the_same():
    rows = poems(400)
    assert sum(row["label"] for row in rows) == 200
    assert len({(row["choice"], row["choice_2"]) for row in rows}) == 400
    assert rows == poems(400)
    assert rows != poems(400, seed=1)
    assert len({row[side] for row in poems(2000) for side in ("choice", "choice_2")}) > 3000
    with pytest.raises(ValueError, match="at least 1"):
        poems(0)


def test_nothing_but_the_sun_tells_the_poems_apart(tmp_path):
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in poems(400)))
    dataset, gold = load_dataset(str(tmp_path / "x.jsonl"), TASK), load_gold(str(tmp_path / "x.jsonl"), TASK)
    labels = [gold.labels[example.id] for example in dataset.examples]
    groups = [example.group_id for example in dataset.examples]
    features = trivial_features(dataset, TASK)
    best = best_predictor(features, labels, TASK.label_space.labels, groups, rng=np.random.default_rng(0))
    assert best.p_value > 0.05, best
    lengths = [len(row["choice"]) - len(row["choice_2"]) for row in poems(1000)]
    signs = [np.sign(length) * (1 if row["label"] else -1) for length, row in zip(lengths, poems(1000), strict=True)]
    longer, shorter = signs.count(1), signs.count(-1)
    assert stats.binomtest(longer, longer + shorter).pvalue > 0.01


def test_pairs_are_asked_about_in_both_orders(tmp_path):
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in poems(2)))
    dataset = load_dataset(str(tmp_path / "x.jsonl"), TASK)
    assert len(dataset) == 4
    assert len(Constraints.from_dataset(dataset, TASK.constraint).all) == 2
    text = TASK.render(dataset.examples[0])
    assert text.startswith("Poem A:\n")
    assert text.endswith("\n\nClaim: Poem A is a better poem than Poem B.\nI think this claim is")

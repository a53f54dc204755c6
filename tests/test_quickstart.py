import json
import re
from itertools import combinations

import pytest

from elicitor import quickstart
from elicitor.backends.fake import FakeBackend
from elicitor.data import load_dataset
from elicitor.gold import load_gold
from elicitor.labelling import prepare
from elicitor.tasks import load_task


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def everything():
    return [*read(quickstart.DATA), *read(quickstart.TEST)]


def test_the_data_is_large_balanced_and_gold_stands_aside():
    unlabelled, gold, test = read(quickstart.DATA), read(quickstart.GOLD), read(quickstart.TEST)
    assert all(row.keys() == {"id", "text"} for row in unlabelled)
    assert [row["id"] for row in gold] == [row["id"] for row in unlabelled]
    assert len(unlabelled) + len(test) >= 200
    assert len({row["id"] for row in everything()}) == len(everything())
    for rows in (gold, test):
        share = sum(row["label"] == "past" for row in rows) / len(rows)
        assert 0.4 < share < 0.6
    used = [row["label"] for row in gold[: quickstart.LIMIT]]
    assert 0.35 < used.count("past") / len(used) < 0.65


def test_texts_are_varied_not_templates_with_swapped_nouns():
    words = [set(re.findall(r"\w+", row["text"].lower())) for row in everything()]
    overlap = max(len(left & right) / len(left | right) for left, right in combinations(words, 2))
    assert overlap < 0.5
    openings = [" ".join(row["text"].lower().split()[:3]) for row in everything()]
    assert len(set(openings)) > 0.95 * len(openings)
    assert len(set().union(*words)) > 800
    assert all(row["text"].isascii() and "\n" not in row["text"] for row in everything())


def test_search_never_sees_the_gold_files():
    workload = prepare(quickstart.settings(seed=3).model_copy(update={"model": "fake"}), backend=FakeBackend())
    assert len(workload.dataset) == quickstart.LIMIT
    assert workload.config.seed == 3
    task = load_task(str(quickstart.TASK))
    with pytest.raises(Exception, match="no gold column"):
        load_gold(str(quickstart.DATA), task)
    assert len(load_gold(str(quickstart.GOLD), task).labels) == len(load_dataset(str(quickstart.DATA), task))

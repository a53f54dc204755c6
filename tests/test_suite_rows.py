import json

import numpy as np
import pytest

from elicitor.errors import DataError
from elicitor.readers import read_rows
from elicitor.suite_rows import draw_rows, write_drawn
from elicitor.tasks import load_task

TASK = {"template": "{text}:", "labels": ["no", "yes"], "group": "g"}


def rows(numbers):
    return [{"id": f"e{i}", "text": f"text {i}", "g": f"g{i // 3}"} for i in numbers]


def write(folder, name, content):
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in content))
    return str(folder / name)


def test_groups_are_drawn_whole_and_never_on_both_sides(tmp_path):
    source = write(tmp_path, "data.jsonl", rows(range(60)))
    task = load_task(TASK)
    for seed in range(5):
        label, test = draw_rows(source, task, test=None, limits=(20, 12), rng=np.random.default_rng(seed))
        assert (len(label), len(test)) == (18, 12)
        sides = [{row.values["g"] for row in side} for side in (label, test)]
        assert not sides[0] & sides[1]
        assert [len(groups) for groups in sides] == [6, 4]
    halves = draw_rows(source, task, test=None, limits=(None, None), rng=np.random.default_rng(0))
    assert [len(half) for half in halves] == [30, 30]
    draws = {
        tuple(
            r.values["id"] for r in draw_rows(source, task, test=None, limits=(20, 12), rng=np.random.default_rng(s))[0]
        )
        for s in range(5)
    }
    assert len(draws) == 5
    with pytest.raises(DataError, match="no row is left to test on"):
        draw_rows(source, task, test=None, limits=(60, 12), rng=np.random.default_rng(0))


def test_a_test_file_gives_the_test_rows(tmp_path):
    source, other = write(tmp_path, "data.jsonl", rows(range(30))), write(tmp_path, "test.jsonl", rows(range(90, 99)))
    label, test = draw_rows(source, load_task(TASK), test=other, limits=(None, 6), rng=np.random.default_rng(0))
    assert [row.values["id"] for row in label] == [f"e{i}" for i in range(30)]
    assert len(test) == 6
    assert {row.values["id"] for row in test} < {f"e{i}" for i in range(90, 99)}
    write_drawn(tmp_path / "drawn.jsonl", test)
    assert [row.values for row in read_rows(str(tmp_path / "drawn.jsonl"))] == [row.values for row in test]

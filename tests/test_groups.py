import json

import pytest

from elicitor.data import load_dataset
from elicitor.groups import GroupNames
from elicitor.tasks import load_task


def written(tmp_path, rows):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_dataset(str(file), load_task("statements"))


ALONE = {"id": "7", "text": "Water is wet", "consistency_key": "wet"}
GROUPED = [
    {"id": "a", "text": "Oslo is in Norway", "consistency_id": 7, "consistency_key": "Norway"},
    {"id": "b", "text": "Oslo is in Chad", "consistency_id": 7, "consistency_key": "Chad"},
]


@pytest.mark.parametrize("empty", [{}, {"consistency_id": None}, {"consistency_id": ""}])
def test_a_row_without_a_group_is_in_none_whatever_its_id(tmp_path, empty):
    assert written(tmp_path, [ALONE | empty, *GROUPED]).groups() == ((0,), (1, 2))
    assert written(tmp_path, [*GROUPED, ALONE | empty]).groups() == ((0, 1), (2,))
    assert written(tmp_path, [GROUPED[0], ALONE | empty, GROUPED[1]]).groups() == ((0, 2), (1,))


def test_a_row_may_call_its_group_by_its_own_id(tmp_path):
    assert written(tmp_path, [ALONE | {"consistency_id": "7"}, *GROUPED]).groups() == ((0, 1, 2),)


def test_a_name_that_is_taken_is_told_apart_and_kept():
    names = GroupNames()
    rows = [(None, "7"), ("7", "a"), ("7'", "b"), ("7", "c"), (None, "8"), ("8", "d"), ("9", "e"), (None, "9")]
    assert [names.of(*row) for row in rows] == ["7", "7'", "7''", "7'", "8", "8'", "9", "9'"]

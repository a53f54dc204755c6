import json
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elicitor.consistency import Constraints
from elicitor.data import Assignment, load_dataset
from elicitor.errors import DataError, TaskError
from elicitor.gold import load_gold
from elicitor.tasks import load_task
from elicitor.tasks.keys import normalize_text

TASK = load_task("truthfulqa")
WORDINGS = ["Paris.", "paris", "It is Paris", "Lyon", "Nobody knows", "NOBODY knows!"]


def claims(*parts, gold=None):
    """Rows from (question number, wording) pairs."""
    rows = [
        {"id": f"c{n}", "question": f"Question {q}?", "choice": choice, "consistency_id": q}
        for n, (q, choice) in enumerate(parts)
    ]
    if gold is not None:
        rows = [{**row, "label": label} for row, label in zip(rows, gold, strict=True)]
    return rows


def load(folder, rows):
    (folder / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_dataset(str(folder / "x.jsonl"), TASK)


def relations(dataset):
    return [(c.relation, c.members) for c in Constraints.from_dataset(dataset, TASK.constraint).all]


def test_the_prompt_is_that_of_the_paper(tmp_path):
    dataset = load(tmp_path, claims((1, "It is {so}.")))
    assert TASK.render(dataset.examples[0]) == "Question: Question 1?\nClaim: It is {so}.\nI think this claim is"
    assert TASK.label_space.labels == ("False", "True")
    assert TASK.label_space.verbalizers == (" False", " True")
    assert TASK.label_space.labels[TASK.label_space.positive] == "True"


def test_the_only_constraint_is_equal_wording_within_a_question(tmp_path):
    parts = [(1, "Paris."), (1, "Lyon"), (1, " PARIS "), (2, "Paris."), (2, "Paris!"), (1, "paris"), (2, "not Paris")]
    assert TASK.constraint == ("equivalent",)
    assert relations(load(tmp_path, claims(*parts))) == [
        ("equal", (0, 2)),
        ("equal", (0, 5)),
        ("equal", (2, 5)),
        ("equal", (3, 4)),
    ]


def test_different_answers_may_all_be_true_or_all_be_false(tmp_path):
    dataset = load(tmp_path, claims((1, "Paris"), (1, "In France"), (1, "Not Lyon")))
    built = Constraints.from_dataset(dataset, TASK.constraint)
    assert all(built.count(Assignment(labels)) == 0 for labels in product((0, 1), repeat=3))
    assert len(built.options((0, 1, 2), Assignment.empty(3), among_only=False)) == 8


questions = st.lists(st.tuples(st.integers(1, 2), st.sampled_from(WORDINGS)), min_size=1, max_size=8)


@given(questions, st.data())
def test_gold_permuted_or_deleted_changes_nothing(tmp_path_factory, parts, data):
    folder = tmp_path_factory.mktemp("claims")
    n = len(parts)
    gold = data.draw(st.lists(st.sampled_from([0, 1]), min_size=n, max_size=n))
    bare = load(folder, claims(*parts))
    for other in (gold, data.draw(st.permutations(gold)), [1 - g for g in gold], ["unread"] * n, [None] * n):
        assert load(folder, claims(*parts, gold=other)) == bare
    expected = {
        ("equal", (i, j))
        for j in range(n)
        for i in range(j)
        if parts[i][0] == parts[j][0] and normalize_text(parts[i][1]) == normalize_text(parts[j][1])
    }
    assert set(relations(bare)) == expected


@given(questions)
def test_the_number_of_violations_is_that_of_equal_claims_that_disagree(tmp_path_factory, parts):
    dataset = load(tmp_path_factory.mktemp("claims"), claims(*parts))
    labels = tuple(n % 2 for n in range(len(parts)))
    keys = [(question, normalize_text(choice)) for question, choice in parts]
    expected = sum(keys[i] == keys[j] and labels[i] != labels[j] for j in range(len(keys)) for i in range(j))
    assert Constraints.from_dataset(dataset, TASK.constraint).count(Assignment(labels)) == expected


def test_columns_that_tell_gold_play_no_part(tmp_path):
    rows = claims((1, "Paris"), (1, "Lyon"))
    told = [{**row, "is_best": 1, "consistency_key": "same", "category": "x", "label": 1} for row in rows]
    assert load(tmp_path, told) == load(tmp_path, rows)


def test_without_a_group_column_the_question_binds(tmp_path):
    rows = claims((1, "Paris"), (2, "Paris"), (1, "Paris."))
    for row in rows:
        del row["consistency_id"]
    dataset = load(tmp_path, rows)
    assert dataset.groups() == ((0, 2), (1,))
    assert dataset.examples[0].group_id == "Question 1?"
    assert relations(dataset) == [("equal", (0, 2))]


@pytest.mark.parametrize("column", ["question", "choice", "consistency_id"])
def test_what_labelling_sees_cannot_be_gold(column):
    with pytest.raises(TaskError, match=f"gold column '{column}' is used as a field, id, group or key"):
        TASK.with_gold_column(column)


@pytest.mark.parametrize("column", ["question", "choice"])
def test_a_missing_column_is_named(tmp_path, column):
    rows = claims((1, "Paris"), (1, "Lyon"))
    del rows[1][column]
    with pytest.raises(DataError, match=rf"x\.jsonl line 2: column '{column}' is missing, task 'truthfulqa' needs it"):
        load(tmp_path, rows)


def test_gold_is_one_for_a_true_answer(tmp_path):
    load(tmp_path, claims((1, "Paris"), (1, "Lyon"), (2, "x"), (2, "y"), gold=[1, 0, "True", False]))
    assert load_gold(str(tmp_path / "x.jsonl"), TASK).labels == {"c0": 1, "c1": 0, "c2": 1, "c3": 0}


def test_the_pilot_without_its_gold_is_the_same_data_set(shared_data, tmp_path):
    source = shared_data / "truthfulqa_pilot_train.jsonl"
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        del row["label"]
    whole, bare = load_dataset(str(source), TASK), load(tmp_path, rows)
    assert len(whole) == 256
    assert whole.fingerprint == bare.fingerprint
    assert relations(whole) == relations(bare)

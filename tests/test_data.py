import dataclasses
import json

import pytest

from elicitor.data import Assignment, LabelSpace, MissingColumnError, fingerprint, load_dataset, load_gold
from elicitor.errors import DataError, TaskError
from elicitor.tasks import load_task

SENTIMENT = load_task("sentiment")


def write(folder, rows, name="x.jsonl"):
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_examples_hold_the_fields_of_the_template_and_no_gold(tmp_path):
    source = write(tmp_path, [{"id": "a", "text": "fine", "label": "positive", "stars": 5}])
    dataset = load_dataset(source, SENTIMENT)
    (example,) = dataset.examples
    assert dict(example.fields) == {"text": "fine"}
    assert (example.id, example.group_id, example.key) == ("a", "a", None)
    assert example.location == f"{source} line 1"
    assert "positive" not in repr(dataset.examples)
    names = {field.name for field in dataclasses.fields(dataset)} | {
        field.name for field in dataclasses.fields(example)
    }
    assert not [name for name in names if "gold" in name]


def test_gold_changes_neither_examples_nor_fingerprint(tmp_path):
    rows = [{"id": str(k), "text": f"text {k}", "label": k % 2} for k in range(6)]
    flipped = [{**row, "label": 1 - row["label"]} for row in rows]
    bare = [{"id": row["id"], "text": row["text"]} for row in rows]
    prints = {load_dataset(write(tmp_path, x), SENTIMENT).fingerprint for x in (rows, flipped, bare)}
    assert len(prints) == 1
    other = [{**row, "text": row["text"] + "!"} for row in rows]
    assert load_dataset(write(tmp_path, other), SENTIMENT).fingerprint not in prints


def test_rows_without_an_id_are_numbered(tmp_path):
    dataset = load_dataset(write(tmp_path, [{"text": "one"}, {"text": "two"}]), SENTIMENT)
    assert [example.id for example in dataset.examples] == ["row-1", "row-2"]


def test_subset_keeps_the_order_asked_for_and_has_its_own_fingerprint(tmp_path):
    dataset = load_dataset(write(tmp_path, [{"text": str(k)} for k in range(5)]), SENTIMENT)
    part = dataset.subset([3, 1])
    assert [example.fields["text"] for example in part.examples] == ["3", "1"]
    assert part.fingerprint == fingerprint(part.examples, part.label_space) != dataset.fingerprint


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": "a", "txt": "fine"}], r"x\.jsonl line 1.*'text'"),
        ([{"id": "a", "text": "fine"}, {"id": "b"}], r"x\.jsonl line 2.*'text'"),
        ([{"id": "a", "text": "fine"}, {"id": "a", "text": "bad"}], r"x\.jsonl line 2: id 'a' stands at .* line 1"),
        ([{"id": "a", "text": ["fine"]}], r"x\.jsonl line 1.*'text'"),
        ([{"id": "a", "text": None}], r"x\.jsonl line 1.*'text'"),
    ],
)
def test_rows_that_cannot_be_examples_are_named(tmp_path, rows, message):
    with pytest.raises(DataError, match=message):
        load_dataset(write(tmp_path, rows), SENTIMENT)


def test_gold_takes_names_verbalizers_and_truth_values(tmp_path):
    values = ["negative", " Positive", 0, 1, "true", False, 1.0, "", None]
    source = write(tmp_path, [{"id": str(k), "text": "x", "label": value} for k, value in enumerate(values)])
    gold = load_gold(source, SENTIMENT)
    assert dict(gold.labels) == {"0": 0, "1": 1, "2": 0, "3": 1, "4": 1, "5": 0, "6": 1}
    assert gold.missing == 2


def test_gold_outside_the_set_and_gold_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"x\.jsonl line 1 column 'label': 'mixed' is outside.*negative, positive"):
        load_gold(write(tmp_path, [{"id": "a", "text": "x", "label": "mixed"}]), SENTIMENT)
    with pytest.raises(MissingColumnError, match=r"x\.jsonl has no gold column 'label'; its columns are id, text"):
        load_gold(write(tmp_path, [{"id": "a", "text": "x"}]), SENTIMENT)


def test_label_spaces():
    space = LabelSpace(("a", "b", "c"), (" a", " b", " c"), positive=0)
    assert (len(space), space.kind, space.index("b")) == (3, "multiclass", 1)
    assert LabelSpace(("a", "b"), (" a", " b"), positive=0).kind == "binary"
    with pytest.raises(DataError, match="not one of the labels"):
        space.index("d")
    with pytest.raises(TaskError, match="at least two labels"):
        LabelSpace(("a",), (" a",), positive=0)
    with pytest.raises(TaskError, match="twice"):
        LabelSpace(("a", "b"), (" a", " a"), positive=0)


def test_assignments_never_change():
    before = Assignment.empty(3)
    after = before.with_labels({1: 0, 2: 1})
    assert before == Assignment((None, None, None))
    assert (after.labelled, after.unlabelled, after[2]) == ((1, 2), (0,), 1)
    assert after.with_labels({1: None}).labelled == (2,)
    with pytest.raises(AttributeError):
        after.labels = ()


def test_real_files_load(shared_data):
    claims = load_dataset(str(shared_data / "truthfulqa_pilot_train.jsonl"), load_task("truthfulqa"))
    assert len(claims) > 200
    assert max(map(len, claims.groups())) > 1
    gold = load_gold(str(shared_data / "truthfulqa_pilot_train.jsonl"), load_task("truthfulqa"))
    assert len(gold.labels) == len(claims)
    reviews = load_dataset(str(shared_data / "movie_review_sentiment.jsonl"), SENTIMENT, limit=100)
    assert len(reviews) == 100

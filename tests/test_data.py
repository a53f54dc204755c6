import dataclasses
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elicitor.data import (
    Assignment,
    Dataset,
    Example,
    LabelSpace,
    MissingColumnError,
    fingerprint,
    load_dataset,
)
from elicitor.errors import DataError, TaskError
from elicitor.gold import check_gold, load_gold
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


def test_gold_is_not_in_memory_whatever_its_column_is_called(tmp_path):
    rows = [{"id": "a", "text": "fine", "label": "Zebra", "verdict": "Yak", "note": "Xenon"}]
    for task in (SENTIMENT, SENTIMENT.with_gold_column("verdict")):
        dataset = load_dataset(write(tmp_path, rows), task)
        content = pickle.dumps(dataset)
        assert b"fine" in content
        assert not [word for word in (b"Zebra", b"Yak", b"Xenon", b"verdict") if word in content]
        assert not [name for name in dir(dataset) + dir(dataset.examples[0]) if "gold" in name]
        with pytest.raises((AttributeError, TypeError)):
            dataset.examples[0].gold = 1


@pytest.mark.parametrize("gold", ["nonsense", ["a", "list"], {"a": 1}, 17, None])
def test_gold_that_is_broken_does_not_stop_labelling(tmp_path, gold):
    rows = [{"id": "a", "text": "fine", "label": gold}]
    assert load_dataset(write(tmp_path, rows), SENTIMENT).examples[0].fields == {"text": "fine"}


def test_numbers_and_truth_values_are_written_out(tmp_path):
    rows = [{"id": 7, "text": 12}, {"id": 8.5, "text": 0}, {"id": True, "text": False}]
    examples = load_dataset(write(tmp_path, rows), SENTIMENT).examples
    assert [(e.id, e.fields["text"]) for e in examples] == [("7", "12"), ("8.5", "0"), ("True", "False")]


def test_text_is_kept_to_the_letter(tmp_path):
    text = "  two\n\nlines, {text} and \u00e9\u0301\t "
    assert load_dataset(write(tmp_path, [{"text": text}]), SENTIMENT).examples[0].fields["text"] == text


def grouped(folder, rows):
    task = load_task({"template": "{text}", "labels": ["no", "yes"], "group": "thread"})
    return load_dataset(write(folder, rows), task)


def test_an_example_without_a_group_is_a_group_of_its_own(tmp_path):
    threads = [{"thread": 3}, {"thread": None}, {"thread": "3"}, {}, {"thread": ""}, {"thread": "b"}]
    dataset = grouped(tmp_path, [{"id": f"e{k}", "text": "x", **thread} for k, thread in enumerate(threads)])
    assert [e.group_id for e in dataset.examples] == ["3", "e1", "3", "e3", "e4", "b"]
    assert dataset.groups() == ((0, 2), (1,), (3,), (4,), (5,))


@given(st.lists(st.sampled_from("abcd"), max_size=12))
def test_groups_divide_the_examples_in_order(names):
    examples = tuple(Example(str(k), {}, name, None, "here") for k, name in enumerate(names))
    groups = Dataset(examples, SENTIMENT.label_space, "here", "print").groups()
    assert sorted(i for group in groups for i in group) == list(range(len(names)))
    assert [names[group[0]] for group in groups] == list(dict.fromkeys(names))
    assert all(list(group) == sorted(group) and len({names[i] for i in group}) == 1 for group in groups)


EXAMPLE = Example("a", {"text": "x"}, "g", "k", "here")


@pytest.mark.parametrize("change", [{"id": "b"}, {"fields": {"text": "y"}}, {"group_id": "h"}, {"key": None}])
def test_the_fingerprint_depends_on_all_that_labelling_sees(change):
    other = dataclasses.replace(EXAMPLE, **change)
    space = SENTIMENT.label_space
    assert fingerprint([EXAMPLE], space) != fingerprint([other], space)
    assert fingerprint([EXAMPLE, other], space) != fingerprint([other, EXAMPLE], space)
    assert fingerprint([EXAMPLE], space) == fingerprint([dataclasses.replace(EXAMPLE, location="there")], space)


def test_the_fingerprint_depends_on_the_label_set():
    spaces = [LabelSpace(("a", "b"), words, p) for words in ((" a", " b"), (" x", " y")) for p in (0, 1)]
    assert len({fingerprint([EXAMPLE], space) for space in spaces}) == 4


def test_a_limit_reads_no_further(tmp_path):
    source = write(tmp_path, [{"id": "a", "text": "x", "label": 1}, {"id": "a", "text": None, "label": "wrong"}])
    assert len(load_dataset(source, SENTIMENT, limit=1)) == 1
    assert load_gold(source, SENTIMENT, limit=1).labels == {"a": 1}
    check_gold(source, SENTIMENT, limit=1)


def test_numbers_and_texts_are_the_same_id(tmp_path):
    source = write(tmp_path, [{"id": 1, "text": "x"}, {"id": 2, "text": "x"}, {"id": "1", "text": "y"}])
    with pytest.raises(DataError, match=r"x\.jsonl line 3: id '1' stands at .*x\.jsonl line 1 already; give every row"):
        load_dataset(source, SENTIMENT)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": " \n\t"}, r"x\.jsonl line 2: column 'text' is empty; fill it in or drop the row"),
        ({"text": ""}, r"x\.jsonl line 2: column 'text' is empty; fill it in or drop the row"),
        ({"text": None}, r"x\.jsonl line 2: column 'text' holds null, not text; fill it in or drop the row"),
        ({"text": {"a": 1}}, r"x\.jsonl line 2: column 'text' holds dict, not text"),
        ({"id": None, "text": "x"}, r"x\.jsonl line 2: column 'id' holds null"),
        ({"id": "", "text": "x"}, r"x\.jsonl line 2: column 'id' is empty"),
        ({"id": ["b"], "text": "x"}, r"x\.jsonl line 2: column 'id' holds list"),
        ({"text": "\ud800x"}, r"x\.jsonl line 2: column 'text' holds half of a surrogate pair, .*ud800"),
        ({"text": "x", "thread": ["t"]}, r"x\.jsonl line 2: column 'thread' holds list"),
        ({}, r"x\.jsonl line 2: column 'text' is missing, task 'table' needs it; the columns are none; rename the col"),
    ],
)
def test_cells_that_are_no_text_are_named(tmp_path, row, message):
    with pytest.raises(DataError, match=message):
        grouped(tmp_path, [{"id": "a", "text": "fine", "thread": "t"}, row])


def test_a_missing_column_of_a_table_is_named_with_those_there_are(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("id,review,label\na,fine,1\n")
    with pytest.raises(
        MissingColumnError, match=r"x\.csv line 2: column 'text' is missing, task 'sentiment'"
    ) as caught:
        load_dataset(str(path), SENTIMENT)
    assert "the columns are id, review, label" in caught.value.problem
    assert caught.value.fix == "rename the column, or declare a task with your own column names"


def test_gold_of_every_format_is_the_same(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{"id": k, "text": f"t{k}", "label": k % 2} for k in range(5)]
    (tmp_path / "x.csv").write_text("id,text,label\n" + "".join(f"{k},t{k},{k % 2}\n" for k in range(5)))
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "x.parquet")
    sources = [write(tmp_path, rows), str(tmp_path / "x.csv"), str(tmp_path / "x.parquet")]
    assert len({load_dataset(source, SENTIMENT).fingerprint for source in sources}) == 1
    for source in sources:
        gold = load_gold(source, SENTIMENT)
        assert (gold.labels, gold.missing, gold.source) == ({str(k): k % 2 for k in range(5)}, 0, source)


def test_gold_of_rows_without_an_id_goes_by_their_number(tmp_path):
    source = write(tmp_path, [{"text": "x", "label": 1}, {"text": "x"}, {"text": "x", "label": 0}])
    gold = load_gold(source, SENTIMENT)
    assert (gold.labels, gold.missing) == ({"row-1": 1, "row-3": 0}, 1)
    assert {example.id for example in load_dataset(source, SENTIMENT).examples} > set(gold.labels)


@pytest.mark.parametrize("value", ["positively", 2, -1, 0.5, ["positive"], "yes", "10"])
def test_gold_outside_the_set_stops_before_labelling_starts(tmp_path, value):
    source = write(tmp_path, [{"id": "a", "text": "x", "label": 1}, {"id": "b", "text": "x", "label": value}])
    for read in (load_gold, check_gold):
        with pytest.raises(DataError, match=r"x\.jsonl line 2 column 'label': .* is outside the label set") as caught:
            read(source, SENTIMENT)
        assert repr(value) in caught.value.problem
        assert caught.value.fix


def test_gold_need_not_be_there_to_label(tmp_path):
    source = write(tmp_path, [{"id": "a", "text": "x"}])
    assert check_gold(source, SENTIMENT) is None
    with pytest.raises(DataError, match="does not exist"):
        check_gold(source + "l", SENTIMENT)


labels = st.lists(st.sampled_from([None, 0, 1]), min_size=1, max_size=8)


@given(labels, st.data())
def test_labelled_and_unlabelled_divide_the_positions(held, data):
    before = Assignment(tuple(held))
    position = data.draw(st.integers(0, len(held) - 1))
    label = data.draw(st.sampled_from([None, 0, 1]))
    after = before.with_labels({position: label})
    assert before.labels == tuple(held)
    assert [after[i] for i in range(len(held)) if i != position] == [x for i, x in enumerate(held) if i != position]
    assert after[position] == label
    assert sorted(after.labelled + after.unlabelled) == list(range(len(held)))
    assert all(after[i] is not None for i in after.labelled)


def test_the_pilot_has_the_rows_its_readme_counts(shared_data):
    source = str(shared_data / "truthfulqa_pilot_train.jsonl")
    dataset = load_dataset(source, load_task("truthfulqa"))
    assert [len(group) for group in dataset.groups()] == [4] * 64
    assert sum(load_gold(source, load_task("truthfulqa")).labels.values()) == 113


def test_the_movie_reviews_have_the_rows_their_readme_counts(shared_data):
    source = str(shared_data / "movie_review_sentiment.jsonl")
    dataset = load_dataset(source, SENTIMENT)
    gold = load_gold(source, SENTIMENT)
    assert (len(dataset), len(dataset.groups())) == (1500, 1500)
    assert (sum(gold.labels.values()), gold.missing) == (750, 0)
    assert set(gold.labels) == {example.id for example in dataset.examples}


def test_ids_that_repeat_are_refused_in_gold_as_well(tmp_path):
    source = write(tmp_path, [{"id": "a", "text": "x", "label": 1}, {"id": "a", "text": "y", "label": 0}])
    with pytest.raises(DataError, match=r"line 2: id 'a' stands at .*line 1 already; give every row its own id"):
        load_gold(source, SENTIMENT)


def test_numbers_that_are_missing_in_a_parquet_file_are_missing(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {"text": ["x", "y"], "thread": [float("nan"), 3.0], "label": [float("nan"), 1.0]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "x.parquet")
    source = str(tmp_path / "x.parquet")
    task = load_task({"template": "{text}", "labels": ["no", "yes"], "group": "thread"})
    assert [e.group_id for e in load_dataset(source, task).examples] == ["row-1", "3.0"]
    gold = load_gold(source, task)
    assert (gold.labels, gold.missing) == ({"row-2": 1}, 1)
    with pytest.raises(DataError, match=r"row 1: column 'thread' holds null, not text"):
        load_dataset(source, load_task({"template": "{text} {thread}", "labels": ["no", "yes"]}))


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ((("a", "b"), (" a",), 0), "2 labels have 1 verbalizers; give each label one"),
        ((("a", "b"), (" a", " b"), 2), "the positive label is number 2 of 2; count labels from 0"),
        ((("a", "b"), (" a", " b"), -1), "the positive label is number -1 of 2"),
    ],
)
def test_label_spaces_made_in_python_are_checked(space, message):
    with pytest.raises(TaskError, match=message):
        LabelSpace(*space)


@given(st.lists(st.tuples(st.text(min_size=1).filter(str.strip), st.integers(0, 3)), min_size=1, max_size=8))
def test_examples_on_disk_are_those_in_memory(tmp_path_factory, texts):
    rows = [{"text": text, "group": group, "key": k % 2} for k, (text, group) in enumerate(texts)]
    source = write(tmp_path_factory.mktemp("x"), rows)
    task = load_task(
        {"template": "{text}:", "labels": ["a", "b"], "group": "group", "key": "key", "constraint": "equivalent"}
    )
    here, there = (load_dataset(source, task, in_memory=in_memory) for in_memory in (True, False))
    assert (tuple(there.examples), there.fingerprint, len(there)) == (here.examples, here.fingerprint, len(here))
    assert there.examples[-1] == here.examples[-1]
    assert there.examples[1:] == here.examples[1:]
    assert there.subset([len(here) - 1, 0]) == here.subset([len(here) - 1, 0])
    # Groups are numbered in the order of their first example.
    numbers = here.group_numbers().tolist()
    assert [[i for i, g in enumerate(numbers) if g == k] for k in range(max(numbers) + 1)] == [
        *map(list, here.groups())
    ]


def test_a_whole_number_beyond_what_floats_hold_is_text(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"id": 1' + "0" * 400 + ', "text": "a"}\n')
    (example,) = load_dataset(str(tmp_path / "x.jsonl"), load_task("sentiment")).examples
    assert example.id == "1" + "0" * 400

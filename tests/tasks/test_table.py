import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elicitor.consistency import Constraints
from elicitor.data import Example, LabelSpace, load_dataset
from elicitor.errors import DataError, TaskError
from elicitor.gold import load_gold
from elicitor.tasks import BUILT_IN, load_task, resolve_task
from elicitor.tasks.table import Task

PAIR = {"template": "{text}", "labels": ["no", "yes"], "group": "g", "key": "k"}


def yaml_task(folder, text, name="mine.yaml"):
    (folder / name).write_text(text)
    return load_task(str(folder / name))


def load(folder, task, rows):
    (folder / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_dataset(str(folder / "x.jsonl"), task)


def example(**fields):
    return Example("a", fields, "a", None, "here")


def test_two_lines_of_yaml_are_enough(tmp_path):
    task = yaml_task(tmp_path, 'template: "{text} is"\nlabels: [off, on]\n')
    assert task.label_space == LabelSpace(("off", "on"), (" off", " on"), positive=1)
    assert (task.name, task.separator, task.preamble) == ("mine", "\n\n", "")
    assert (task.id_column, task.group_column, task.gold_column) == ("id", None, "label")
    assert (task.constraint, task.key_columns, task.gold_values) == ((), (), {})


def test_scalars_of_a_task_file_stay_text(tmp_path):
    text = "name: 1e3\ntemplate: '{text}'\nlabels: [no, 0, 1.0, null, 2020-01-01]\npositive: 0\n"
    task = yaml_task(tmp_path, text)
    assert task.label_space.labels == ("no", "0", "1.0", "null", "2020-01-01")
    assert (task.name, task.label_space.positive, task.label_space.kind) == ("1e3", 1, "multiclass")


def test_a_block_template_loses_its_last_line_end_only(tmp_path):
    task = yaml_task(tmp_path, "template: |\n  Text: {text}\n\n  Kind:\nlabels: [a, b]\n", name="mine.yml")
    assert task.render(example(text="x")) == "Text: x\n\nKind:"


def test_fields_may_repeat_and_real_braces_are_doubled():
    task = load_task({"template": "{{{a}}} {b} {{b}} {a}", "labels": ["no", "yes"]})
    assert task.fields == ("a", "b")
    assert task.render(example(a="1", b="2")) == "{1} 2 {b} 1"


@given(st.text(), st.text())
def test_the_text_of_a_field_is_never_read_as_a_template(a, b):
    task = load_task({"template": "{a}|{b}|{a}", "labels": ["no", "yes"]})
    assert task.render(example(a=a, b=b)) == a + "|" + b + "|" + a


def test_the_group_column_binds_examples(tmp_path):
    task = load_task({**PAIR, "constraint": "negation"})
    rows = [{"text": "x", "g": g, "k": k} for g, k in [(1, "p"), (2, "p"), (1, "q"), (2, "p"), ("", "q"), (None, "q")]]
    dataset = load(tmp_path, task, rows)
    assert dataset.groups() == ((0, 2), (1, 3), (4,), (5,))
    built = Constraints.from_dataset(dataset, task.constraint).all
    assert [(c.relation, c.members) for c in built] == [("opposite", (0, 2)), ("equal", (1, 3))]


@pytest.mark.parametrize(
    ("constraint", "relations"),
    [
        ("none", []),
        ([], []),
        ("at_most_one", [("not_both", (0, 2)), ("not_both", (1, 2))]),
        ("equivalent", [("equal", (0, 1))]),
        ("exactly_one", [("not_both", (0, 2)), ("not_both", (1, 2)), ("some", (0, 1, 2))]),
        ("asymmetric", [("equal", (0, 1)), ("opposite", (0, 2)), ("opposite", (1, 2))]),
        ("negation", [("equal", (0, 1)), ("opposite", (0, 2)), ("opposite", (1, 2))]),
        (["equivalent", "at_most_one"], [("not_both", (0, 2)), ("not_both", (1, 2)), ("equal", (0, 1))]),
    ],
)
def test_every_constraint_can_be_declared(tmp_path, constraint, relations):
    task = load_task({**PAIR, "constraint": constraint})
    dataset = load(tmp_path, task, [{"text": str(n), "g": "g", "k": k} for n, k in enumerate([27, "27", 28, None])])
    built = Constraints.from_dataset(dataset, task.constraint).all
    assert [(c.relation, c.members) for c in built] == relations
    assert {c.positive for c in built} <= {1}


@pytest.mark.parametrize(("normalize", "same"), [("exact", False), ("text", True)])
def test_keys_are_compared_as_declared(normalize, same):
    task = load_task({**PAIR, "constraint": "equivalent", "normalize": normalize})
    assert (task.constraint_key({"k": "It's 7."}) == task.constraint_key({"k": "its  7"})) is same
    assert task.constraint_key({"k": "It's 7."}) == task.constraint_key({"k": "It's 7."})


def test_a_key_of_several_columns_needs_all_of_them(tmp_path):
    task = load_task({**PAIR, "constraint": "equivalent", "key": ["p", "q"], "normalize": "exact"})
    rows = [{"p": 1, "q": 2}, {"p": "1", "q": "2"}, {"p": 1}, {"p": 1, "q": None}, {"p": "", "q": 2}, {"p": 2, "q": 1}]
    dataset = load(tmp_path, task, [{"text": "x", "g": "g", **row} for row in rows])
    keys = [e.key for e in dataset.examples]
    assert keys[0] == keys[1] != keys[5]
    assert keys[2:5] == [None] * 3
    assert task.constraint_key({"p": "a b", "q": "c"}) != task.constraint_key({"p": "a", "q": "b c"})
    assert load_task({**PAIR, "key": ["p", "q"]}).constraint_key({"p": "1", "q": "2"}) is None


def test_words_do_not_move_between_the_columns_of_a_key():
    task = load_task({**PAIR, "constraint": "equivalent", "key": ["p", "q"]})
    assert task.constraint_key({"p": "a b", "q": "c"}) != task.constraint_key({"p": "a", "q": "b c"})
    assert task.constraint_key({"p": "A  b.", "q": "c"}) == task.constraint_key({"p": "a b", "q": "C"})


@pytest.mark.parametrize(
    ("declared", "column"),
    [
        ({"constraint": "equivalent", "key": "kee"}, "kee"),
        ({"constraint": "equivalent", "key": ["k", "kee"]}, "kee"),
        ({"constraint": "equivalent", "group": "gruop"}, "gruop"),
        ({"group": "gruop"}, "gruop"),
        ({"negated": "denise"}, "denise"),
    ],
)
def test_a_misspelt_column_does_not_drop_the_constraint_in_silence(tmp_path, declared, column):
    task = load_task({**PAIR, **declared})
    with pytest.raises(DataError, match=rf"x\.jsonl: column '{column}' is missing, by which.*columns are text, g, k;"):
        load(tmp_path, task, [{"text": "x", "g": 1, "k": 1}] * 1)


def test_null_in_a_task_file_means_left_out(tmp_path):
    text = "template: '{x}'\nlabels: [a, b]\ngroup: null\npositive: ~\npreamble:\nseparator: ''\n"
    task = yaml_task(tmp_path, text)
    assert (task.group_column, task.label_space.positive, task.preamble, task.separator) == (None, 1, "", "")


def test_labels_that_differ_in_case_alone_are_told_apart():
    task = load_task({"template": "{text}", "labels": {"us": " America", "US": " we"}})
    assert [task.gold_label(v) for v in ("us", "US", "Us", "AMERICA")] == [0, 1, None, 0]


@pytest.mark.parametrize(
    ("key", "raw"), [(1.0, 1), ("1.0", 1), ("1", 1.0), (1, "1.0"), (True, True), ("true", True), ("TRUE", "true")]
)
def test_gold_values_may_be_written_in_several_ways(key, raw):
    task = load_task({**PAIR, "gold_values": {key: "yes", "x": "no"}})
    assert task.gold_label(raw) == 1


def test_the_constraint_that_does_not_fit_is_the_one_named():
    with pytest.raises(TaskError, match="constraint 'negation' needs exactly two labels"):
        load_task({**PAIR, "labels": ["a", "b", "c"], "constraint": ["equivalent", "negation"]})


def test_a_group_field_must_be_in_the_template():
    with pytest.raises(TaskError, match="group field 'topic' is not in the template; use one of text"):
        Task("mine", "{text}:", LabelSpace(("a", "b"), (" a", " b"), positive=0), group_field="topic")


def test_gold_values_alone_decide_where_they_are_given(tmp_path):
    task = load_task({**PAIR, "gold": "stars", "gold_values": {"1": "no", "5": "yes", "five": "yes"}})
    assert [task.gold_label(v) for v in ("1", 1, 1.0, " 5 ", 5, "five")] == [0, 0, 0, 1, 1, 1]
    assert [task.gold_label(v) for v in ("yes", "no", "true", 0, True, "3", "Fiv")] == [None] * 7
    (tmp_path / "x.csv").write_text("id,text,stars\na,x,5\nb,x,3\n")
    with pytest.raises(DataError, match=r"x\.csv line 3 column 'stars': '3' is outside the label set.*1, 5, five"):
        load_gold(str(tmp_path / "x.csv"), task)


@given(st.sampled_from(["ham", "Spam", "maybe so"]), st.sampled_from([str.upper, str.lower, str.title, " {} ".format]))
def test_gold_is_a_label_or_its_verbalizer_in_any_case(name, spell):
    words = {"ham": " fine", "Spam": " junk", "maybe so": " unclear"}
    task = load_task({"template": "{text}", "labels": words})
    assert task.gold_label(spell(name)) == task.gold_label(spell(words[name])) == list(words).index(name)


@pytest.mark.parametrize(("positive", "expected"), [("no", [0, 0, 1, 1]), ("yes", [1, 1, 0, 0])])
def test_truth_values_mean_the_positive_label(positive, expected):
    task = load_task({**PAIR, "positive": positive})
    assert [task.gold_label(v) for v in (1, True, 0, "FALSE")] == expected


def test_truth_values_mean_nothing_among_three_labels():
    task = load_task({"template": "{text}", "labels": ["a", "b", "c"]})
    assert [task.gold_label(v) for v in (0, 1, "true", False)] == [None] * 4


def test_gold_may_be_moved_to_another_column_but_not_onto_what_labelling_sees():
    task = load_task({**PAIR, "constraint": "equivalent"})
    assert task.with_gold_column("verdict").gold_column == "verdict"
    assert task.gold_column == "label"
    for column in ("text", "id", "g", "k"):
        with pytest.raises(
            TaskError, match=f"gold column '{column}' is used as a field, id, group or key; labels must not"
        ):
            task.with_gold_column(column)


def test_gold_as_one_of_several_keys_is_refused():
    with pytest.raises(TaskError, match="gold column 'k' is used as a field, id, group or key"):
        load_task({**PAIR, "constraint": "equivalent", "gold": "k", "key": ["j", "k"]})


@pytest.mark.parametrize("template", ["{}", "{x!r}", "{x:>3}", "{x[0]}", "{x.y}", "{my-column}", "{ x }"])
def test_only_plain_names_are_fields(template):
    with pytest.raises(TaskError, match=r"task 'table': the template has the field .*; name the column alone"):
        load_task({"template": template + " {y}", "labels": ["a", "b"]})


@pytest.mark.parametrize("template", ["{x", "x}", "{x} }", "{{x}"])
def test_single_braces_are_refused(template):
    with pytest.raises(TaskError, match=r"task 'table': template: .*; write fields as \{name\} and a real brace twice"):
        load_task({"template": template, "labels": ["a", "b"]})


@pytest.mark.parametrize("end", [" ", "\t", " \n", "\n "])
def test_a_template_that_ends_in_white_space_is_refused(end):
    with pytest.raises(TaskError, match=r"ends in white space; move it to the start of the verbalizers"):
        load_task({"template": "{x}:" + end, "labels": ["a", "b"]})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("labels: [a, b]\n", r"mine\.yaml: key 'template' is missing; add it"),
        ("template: '{x}'\n", r"mine\.yaml: key 'labels' is missing"),
        (
            "template: '{x}'\nlabels: [a, b]\nverbalizer: c\n",
            r"mine\.yaml: unknown key 'verbalizer'; allowed keys are .*gold",
        ),
        ("template: '{x}'\nlabels: a\n", r"mine\.yaml: key 'labels': "),
        ("template: [x]\nlabels: [a, b]\n", r"mine\.yaml: key 'template': "),
        (
            "template: '{x}'\nlabels: [a, b]\nnormalize: yes\n",
            r"mine\.yaml: key 'normalize': .*'exact', 'text' or 'final_answer'",
        ),
        (
            "template: '{x}'\nlabels: [a, b]\nconstraint: [equal]\n",
            r"mine\.yaml: unknown constraint 'equal'; use none, ",
        ),
        ("template: '{x}'\nlabels: [a, b]\npositive: c\n", r"mine\.yaml: positive 'c' is not a label; use one of a, b"),
        ("template: '{x}'\nlabels: [a, a]\n", r"a label appears twice in \['a', 'a'\]; make them different"),
        ("template: '{x}'\nlabels: {a: ' c', b: ' c'}\n", r"a verbalizer appears twice in \[' c', ' c'\]"),
        ("template: '{x}'\nlabels: []\n", r"at least two labels, got \[\]"),
        ("template: '{x}'\nlabels: [a, b\n", r"mine\.yaml line 3 is not valid YAML.*; check indentation and quotes"),
        ("template: '{x}'\n\tlabels: [a, b]\n", r"mine\.yaml line 2 is not valid YAML"),
        ("just words", r"mine\.yaml does not hold keys and values; write a task declaration, such as template"),
        ("", r"mine\.yaml does not hold keys and values"),
        (
            "template: '{x}'\nlabels: [a, b]\ntemplate: '{y}'\n",
            r"mine\.yaml line 3 .*the key 'template' stands there for the second time",
        ),
        ("template: '{x}'\nlabels: {a: b, a: c}\n", r"mine\.yaml line 2 .*the key 'a' stands there"),
        ("template:\nlabels: [a, b]\n", r"mine\.yaml: key 'template' is missing"),
        ("template: '{x}'\nlabels: []\n", r"^\S*mine\.yaml: a task needs at least two labels"),
    ],
)
def test_wrong_task_files_are_named_with_key_and_fix(tmp_path, text, message):
    with pytest.raises(TaskError, match=message) as caught:
        yaml_task(tmp_path, text)
    assert caught.value.fix


def test_a_task_file_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "mine.yaml").write_bytes(b"template: 'caf\xe9 {x}'\nlabels: [a, b]\n")
    with pytest.raises(TaskError, match=r"mine\.yaml cannot be read: .*0xe9.*; save it as a UTF-8 text file"):
        load_task(str(tmp_path / "mine.yaml"))
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(TaskError, match=r"folder\.yaml cannot be read"):
        load_task(str(tmp_path / "folder.yaml"))


@pytest.mark.parametrize("missing", ["group", "key"])
@pytest.mark.parametrize("kind", ["at_most_one", "equivalent", "exactly_one", "asymmetric", "negation"])
def test_a_constraint_needs_group_and_key(kind, missing):
    declared = {name: value for name, value in PAIR.items() if name != missing}
    with pytest.raises(
        TaskError, match="a constraint needs a group column and a key column; add 'group: COLUMN' and 'key"
    ):
        load_task({**declared, "constraint": kind})


@pytest.mark.parametrize(("kind", "legal"), [("asymmetric", False), ("negation", False), ("exactly_one", True)])
def test_opposites_need_two_labels(kind, legal):
    declared = {**PAIR, "labels": ["a", "b", "c"], "constraint": kind}
    if legal:
        assert load_task(declared).constraint == (kind,)
        return
    with pytest.raises(TaskError, match=f"constraint '{kind}' needs exactly two labels; use equivalent, at_most_one"):
        load_task(declared)


def test_a_declaration_is_copied_and_a_name_stays_a_name():
    declared = dict(PAIR)
    resolved = resolve_task(declared)
    declared["labels"] = ["c", "d"]
    assert load_task(resolved).label_space.labels == ("no", "yes")
    for name, task in BUILT_IN.items():
        assert resolve_task(name) == task.name == name
        assert load_task(name) is task


def test_a_name_in_the_file_counts_more_than_the_name_of_the_file(tmp_path):
    text = "template: '{x}'\nlabels: [a, b]\n"
    assert yaml_task(tmp_path, text + "name: other\n").name == "other"


@pytest.mark.parametrize("name", ["table", "sentimental", "mine.json", ""])
def test_names_that_are_no_task_are_explained(name):
    with pytest.raises(TaskError, match=r"task '.*\.yaml|task '.*YAML file"):
        load_task(name)


def test_a_task_made_in_python_is_checked_as_well():
    space = LabelSpace(("a", "b"), (" a", " b"), positive=0)
    with pytest.raises(TaskError, match="gold column 'label' is used"):
        Task("mine", "{label}:", space)
    with pytest.raises(AttributeError):
        Task("mine", "{text}:", space).template = "{label}"

import json

import pytest

from elicitor.consistency import Constraints
from elicitor.data import load_dataset
from elicitor.errors import TaskError
from elicitor.gold import load_gold
from elicitor.tasks import load_task, resolve_task

YAML = """\
template: "Message: {body}\\nKind:"
labels:
  no: " ham"
  yes: " spam"
  maybe: " unsure about it"
id: number
group: thread
gold: verdict
gold_values: {0: no, 1: yes, 2: maybe}
constraint: [equivalent]
key: subject
preamble: "Mail to a shop.\\n\\n"
separator: "\\n---\\n"
"""


def write(folder, rows):
    path = folder / "x.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def declared(tmp_path):
    path = tmp_path / "mail.yaml"
    path.write_text(YAML)
    return load_task(str(path))


def test_a_task_is_a_dozen_lines_of_yaml(declared, tmp_path):
    assert len(YAML.splitlines()) <= 14
    # YAML's own rules would have made truth values of the labels no and yes.
    assert declared.label_space.labels == ("no", "yes", "maybe")
    assert declared.label_space.verbalizers == (" ham", " spam", " unsure about it")
    assert (declared.name, declared.fields) == ("mail", ("body",))
    rows = [
        {"number": 7, "body": "Win {body} now", "thread": "t1", "subject": "Prize!", "verdict": 1},
        {"number": 8, "body": "Invoice", "thread": "t1", "subject": "prize", "verdict": 0},
    ]
    source = write(tmp_path, rows)
    dataset = load_dataset(source, declared)
    first, second = dataset.examples
    assert declared.render(first) == "Message: Win {body} now\nKind:"
    assert (first.id, first.group_id, first.key) == ("7", "t1", second.key)
    assert dict(load_gold(source, declared).labels) == {"7": 1, "8": 0}
    (constraint,) = Constraints.from_dataset(dataset, declared.constraint).all
    assert (constraint.relation, constraint.members) == ("equal", (0, 1))


def test_a_run_keeps_the_content_of_a_task_file(tmp_path):
    path = tmp_path / "mail.yaml"
    path.write_text(YAML)
    resolved = resolve_task(str(path))
    path.unlink()
    assert load_task(resolved).name == "mail"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"labels": ["a", "b"]}, "key 'template' is missing"),
        ({"template": "{x}", "labels": ["a", "b"], "lables": 1}, "unknown key 'lables'.*allowed keys"),
        ({"template": "{x}", "labels": ["a"]}, "at least two labels"),
        ({"template": "{x} ", "labels": ["a", "b"]}, "ends in white space"),
        ({"template": "nothing", "labels": ["a", "b"]}, "names no field"),
        ({"template": "{x.y}", "labels": ["a", "b"]}, "more than a plain name"),
        ({"template": "{x", "labels": ["a", "b"]}, "template"),
        ({"template": "{label}", "labels": ["a", "b"]}, "gold column 'label' is used"),
        ({"template": "{x}", "labels": ["a", "b"], "group": "label", "key": "x"}, "gold column 'label' is used"),
        ({"template": "{x}", "labels": ["a", "b"], "constraint": "equivalent"}, "group column and a key column"),
        ({"template": "{x}", "labels": ["a", "b"], "constraint": "same"}, "unknown constraint 'same'"),
        ({"template": "{x}", "labels": ["a", "b"], "positive": "c"}, "positive 'c' is not a label"),
        ({"template": "{x}", "labels": ["a", "b"], "gold_values": {"1": "c"}}, "'c', which is not a label"),
        (
            {"template": "{x}", "labels": ["a", "b", "c"], "constraint": "negation", "group": "g", "key": "k"},
            "exactly two labels",
        ),
    ],
)
def test_wrong_declarations_are_explained(values, message):
    with pytest.raises(TaskError, match=message):
        load_task(values)


def test_unknown_names_and_files_are_explained(tmp_path):
    with pytest.raises(TaskError, match="did you mean 'truthfulqa'"):
        load_task("truthfullqa")
    with pytest.raises(TaskError, match="does not exist"):
        load_task(str(tmp_path / "none.yaml"))
    path = tmp_path / "broken.yaml"
    path.write_text("template: 'x\nlabels: [")
    with pytest.raises(TaskError, match=r"broken\.yaml line \d is not valid YAML"):
        load_task(str(path))
    path.write_text("- a\n- b\n")
    with pytest.raises(TaskError, match="does not hold keys and values; write a task declaration"):
        load_task(str(path))


CLAIMS = [
    {"id": "1", "question": "Q?", "choice": "Yes, it is.", "consistency_id": 4, "label": 1},
    {"id": "2", "question": "Q?", "choice": "yes it is", "consistency_id": 4, "label": 1},
    {"id": "3", "question": "Q?", "choice": "It is not.", "consistency_id": 4, "label": 0},
    {"id": "4", "question": "R?", "choice": "yes it is", "consistency_id": 5, "label": 0},
]


def test_truthfulqa_binds_equal_wordings_of_one_question_only(tmp_path):
    task = load_task("truthfulqa")
    dataset = load_dataset(write(tmp_path, CLAIMS), task)
    assert task.render(dataset.examples[0]) == "Question: Q?\nClaim: Yes, it is.\nI think this claim is"
    (constraint,) = Constraints.from_dataset(dataset, task.constraint).all
    assert (constraint.relation, constraint.members) == ("equal", (0, 1))


def test_truthfulqa_constraints_do_not_move_with_gold(tmp_path):
    task = load_task("truthfulqa")
    before = load_dataset(write(tmp_path, CLAIMS), task)
    after = load_dataset(write(tmp_path, [{**row, "label": 1 - row["label"]} for row in CLAIMS]), task)
    assert before.fingerprint == after.fingerprint
    assert [e.key for e in before.examples] == [e.key for e in after.examples]
    assert Constraints.from_dataset(before, task.constraint).all == Constraints.from_dataset(after, task.constraint).all


def test_truthfulqa_constraints_agree_with_gold_on_real_claims(shared_data):
    task = load_task("truthfulqa")
    source = str(shared_data / "truthfulqa_claims.jsonl")
    dataset = load_dataset(source, task)
    gold = load_gold(source, task)
    labels = [gold.labels[example.id] for example in dataset.examples]
    constraints = Constraints.from_dataset(dataset, task.constraint).all
    assert sum(constraint.violated(labels) for constraint in constraints) == 0


def test_sentiment_renders_one_text(tmp_path):
    task = load_task("sentiment")
    dataset = load_dataset(write(tmp_path, [{"text": "I liked it."}]), task)
    assert task.render(dataset.examples[0]) == "Review: I liked it.\nSentiment:"
    assert task.label_space.verbalizers == (" negative", " positive")
    assert Constraints.from_dataset(dataset, task.constraint).all == ()

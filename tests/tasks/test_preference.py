import json

import pytest

from elicitor.consistency import Constraints
from elicitor.data import Assignment, load_dataset
from elicitor.errors import TaskError
from elicitor.gold import load_gold
from elicitor.tasks import load_task

TASK = load_task("preference")
ROWS = [
    {"id": "p", "question": "How?", "choice": "Thus.", "choice_2": "So.", "label": 1},
    {"id": "q", "question": "Why?", "choice": "Hm.", "choice_2": "Because.", "label": 0},
    {"id": "r", "question": "Who?", "choice": "Me.", "choice_2": "You.", "label": None},
]


def write(folder, rows):
    (folder / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / "x.jsonl")


def test_both_orders_to_the_letter(tmp_path):
    dataset = load_dataset(write(tmp_path, ROWS), TASK)
    assert [e.id for e in dataset.examples] == ["p/ab", "p/ba", "q/ab", "q/ba", "r/ab", "r/ba"]
    claim = "Claim: Response A is more helpful and harmless than Response B.\nI think this claim is"
    assert TASK.render(dataset.examples[0]) == f"Query: How?\nResponse A: Thus.\nResponse B: So.\n{claim}"
    assert TASK.render(dataset.examples[1]) == f"Query: How?\nResponse A: So.\nResponse B: Thus.\n{claim}"


def test_the_orders_of_one_pair_have_opposite_labels(tmp_path):
    dataset = load_dataset(write(tmp_path, ROWS), TASK)
    built = Constraints.from_dataset(dataset, TASK.constraint)
    assert [(c.relation, c.members) for c in built.all] == [("opposite", (k, k + 1)) for k in (0, 2, 4)]
    assert dataset.groups() == ((0, 1), (2, 3), (4, 5))


def test_gold_is_turned_round_with_the_pair(tmp_path):
    gold = load_gold(write(tmp_path, ROWS), TASK)
    assert gold.labels == {"p/ab": 1, "p/ba": 0, "q/ab": 0, "q/ba": 1}
    assert gold.missing == 2


def test_gold_and_votes_play_no_part(tmp_path):
    told = [{**row, "label": 0, "human_votes": [1, 1, 0, 1], "confidence": 1.0} for row in ROWS]
    bare = [{key: row[key] for key in ("id", "question", "choice", "choice_2")} for row in ROWS]
    assert load_dataset(write(tmp_path, told), TASK) == load_dataset(write(tmp_path, bare), TASK)


def test_a_limit_counts_pairs(tmp_path):
    source = write(tmp_path, ROWS)
    assert len(load_dataset(source, TASK, limit=2)) == len(load_gold(source, TASK, limit=2).labels) == 4


@pytest.mark.parametrize("name", ["alpaca_human_pairs", "hh_helpful_pairs", "pandalm_human_pairs", "llmbar_pairs"])
def test_real_pairs_agree_with_the_constraint(shared_data, name):
    source = str(shared_data / f"{name}.jsonl")
    dataset, gold = load_dataset(source, TASK), load_gold(source, TASK)
    labels = Assignment(tuple(gold.labels[e.id] for e in dataset.examples))
    assert Constraints.from_dataset(dataset, TASK.constraint).count(labels) == 0
    assert sum(gold.labels.values()) * 2 == len(dataset)


DECLARED = {"template": "{a} or {b}?", "labels": ["no", "yes"], "mirror": ["a", "b"], "constraint": "asymmetric"}


def test_a_task_file_can_mirror_its_pairs(tmp_path):
    dataset = load_dataset(write(tmp_path, [{"a": "x", "b": "y"}]), load_task(DECLARED))
    assert [dict(e.fields) for e in dataset.examples] == [{"a": "x", "b": "y"}, {"a": "y", "b": "x"}]
    assert [e.key for e in dataset.examples] == ["ab", "ba"]
    without = load_task({**DECLARED, "constraint": "none"})
    assert [e.key for e in load_dataset(write(tmp_path, [{"a": "x", "b": "y"}]), without).examples] == [None, None]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": ["a", "b", "c"], "constraint": "none"}, "'mirror' needs exactly two labels"),
        ({"mirror": ["a", "c"]}, r"mirror \['a', 'c'\] must be two fields of the template; use two of a, b"),
        ({"mirror": ["a", "a"]}, "must be two fields"),
        ({"mirror": ["a"]}, "key 'mirror'"),
        ({"key": "k"}, "a mirrored row is a group and its order the key; leave out group and key"),
        ({"group": "g"}, "a mirrored row is a group"),
    ],
)
def test_mirrors_that_make_no_sense_are_refused(change, message):
    with pytest.raises(TaskError, match=message):
        load_task({**DECLARED, **change})

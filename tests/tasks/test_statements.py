import json

import pytest

from elicitor.consistency import Constraints
from elicitor.data import Assignment, load_dataset
from elicitor.errors import DataError, TaskError
from elicitor.gold import load_gold
from elicitor.tasks import load_task

TASK = load_task("statements")


def load(folder, rows):
    (folder / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_dataset(str(folder / "x.jsonl"), TASK)


def statement(key, *, negated, group="Oslo"):
    words = f"{group} is {'not ' if negated else ''}in {key}."
    return {"text": words, "consistency_id": group, "consistency_key": key, "negated": negated}


def consistent(folder, rows):
    dataset = load(folder, rows)
    built = Constraints.from_dataset(dataset, TASK.constraint)
    options = built.options(range(len(rows)), Assignment.empty(len(rows)), among_only=False)
    return [tuple(option[i] for i in range(len(rows))) for option in options]


def test_the_prompt_to_the_letter(tmp_path):
    dataset = load(tmp_path, [{"text": "Water is wet."}])
    assert TASK.render(dataset.examples[0]) == "Claim: Water is wet.\nI think this claim is"


def test_a_file_without_groups_has_no_constraints(tmp_path):
    dataset = load(tmp_path, [{"text": "Water is wet."}, {"text": "Fire is wet."}])
    assert Constraints.from_dataset(dataset, TASK.constraint).all == ()


def test_a_statement_and_its_denial_have_opposite_labels(tmp_path):
    rows = [statement("Norway", negated=0), statement("Norway", negated=1), statement("NORWAY", negated=1)]
    assert consistent(tmp_path, rows) == [(0, 1, 1), (1, 0, 0)]


def test_two_places_are_not_both_right_and_their_denials_not_both_wrong(tmp_path):
    assert consistent(tmp_path, [statement("Norway", negated=0), statement("Peru", negated=0)]) == [
        (0, 0),
        (0, 1),
        (1, 0),
    ]
    assert consistent(tmp_path, [statement("Norway", negated=1), statement("Peru", negated=1)]) == [
        (0, 1),
        (1, 0),
        (1, 1),
    ]
    # "in Norway" and "not in Peru": only that both are so wrong that Oslo lies in both is ruled out.
    assert consistent(tmp_path, [statement("Norway", negated=0), statement("Peru", negated=1)]) == [
        (0, 0),
        (0, 1),
        (1, 1),
    ]


@pytest.mark.parametrize(("value", "negated"), [(0, False), (True, True), ("yes", True), ("", False), (None, False)])
def test_negation_is_read_from_its_column(tmp_path, value, negated):
    assert load(tmp_path, [{"text": "x", "negated": value}]).examples[0].negated is negated


def test_a_negation_that_is_neither_is_named(tmp_path):
    with pytest.raises(DataError, match=r"line 1 column 'negated': 'maybe' is neither yes nor no; write 1 or 0"):
        load(tmp_path, [{"text": "x", "negated": "maybe"}])


def test_negations_change_the_fingerprint(tmp_path):
    one, other = (load(tmp_path, [{"id": "a", "text": "x", "negated": k}]).fingerprint for k in (0, 1))
    assert one != other


def test_negation_needs_two_labels():
    with pytest.raises(TaskError, match="'negated' needs exactly two labels"):
        load_task({"template": "{text}", "labels": ["a", "b", "c"], "negated": "n"})


def test_cities_and_their_denials_agree_with_gold(shared_data, tmp_path):
    files = [shared_data / f"statements_{name}.jsonl" for name in ("cities", "neg_cities")]
    (tmp_path / "both.jsonl").write_text("".join(file.read_text() for file in files))
    source = str(tmp_path / "both.jsonl")
    dataset, gold = load_dataset(source, TASK), load_gold(source, TASK)
    built = Constraints.from_dataset(dataset, TASK.constraint)
    assert sum(bool(c.negated) for c in built.all) > 2000
    assert built.count(Assignment(tuple(gold.labels[e.id] for e in dataset.examples))) == 0

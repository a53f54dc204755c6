import json

import pytest

from elicitor.errors import DataError
from elicitor.gold import load_votes
from elicitor.tasks import load_task


def write(folder, rows, name="x.jsonl"):
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / name)


def test_votes_are_read_by_example_and_none_is_no_vote(tmp_path):
    rows = [
        {"id": "a", "text": "t", "human_votes": [1, "negative", 1.0, None]},
        {"id": "b", "text": "t", "human_votes": None},
        {"id": "c", "text": "t"},
        {"id": "d", "text": "t", "human_votes": [None]},
    ]
    assert load_votes(write(tmp_path, rows), load_task("sentiment")) == {"a": (1, 0, 1)}


def test_votes_on_a_pair_are_turned_round_with_it(tmp_path):
    rows = [{"id": "p", "question": "q", "choice": "a", "choice_2": "b", "human_votes": [1, 1, 0, 1]}]
    votes = load_votes(write(tmp_path, rows), load_task("preference"))
    assert votes == {"p/ab": (1, 1, 0, 1), "p/ba": (0, 0, 1, 0)}


def test_votes_in_a_csv_file_and_in_a_column_of_another_name(tmp_path):
    (tmp_path / "x.csv").write_text('text,crowd\ngood,"[1, 0]"\nbad,\n')
    declared = {"template": "{text}:", "labels": ["no", "yes"], "votes": "crowd"}
    assert load_votes(str(tmp_path / "x.csv"), load_task(declared)) == {"row-1": (1, 0)}


@pytest.mark.parametrize(("votes", "problem"), [([2], "vote 2 is outside"), ("yes", "no list"), (3, "no list")])
def test_votes_that_cannot_be_read_are_named(tmp_path, votes, problem):
    source = write(tmp_path, [{"id": "a", "text": "t", "human_votes": votes}])
    with pytest.raises(DataError, match=rf"x.jsonl line 1 column 'human_votes'.*{problem}"):
        load_votes(source, load_task("sentiment"))


def test_real_votes_agree_with_the_majority(shared_data):
    from elicitor.gold import load_gold

    task = load_task("preference")
    source = str(shared_data / "alpaca_human_pairs.jsonl")
    gold, votes = load_gold(source, task).labels, load_votes(source, task)
    assert votes.keys() == gold.keys()
    assert all(sum(cast) * 2 > len(cast) if gold[i] else sum(cast) * 2 < len(cast) for i, cast in votes.items())

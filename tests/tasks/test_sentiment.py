import json

import pytest

from elicitor.backends.fake import ByteTokenizer
from elicitor.consistency import Constraints
from elicitor.data import LabelSpace, load_dataset
from elicitor.errors import DataError, TaskError
from elicitor.gold import load_gold
from elicitor.prompts import PromptEncoder
from elicitor.tasks import load_task

TASK = load_task("sentiment")


def load(folder, rows):
    (folder / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_dataset(str(folder / "x.jsonl"), TASK)


def test_the_declaration():
    assert TASK.label_space == LabelSpace(("negative", "positive"), (" negative", " positive"), positive=1)
    assert (TASK.fields, TASK.constraint, TASK.group_column) == (("text",), (), None)


def test_a_demonstration_to_the_letter(tmp_path):
    encoder = PromptEncoder(ByteTokenizer(), TASK, load(tmp_path, [{"text": "no {fun} at all .\n"}]))
    assert bytes(encoder.query(0)) == b"Review: no {fun} at all .\n\nSentiment:"
    assert bytes(encoder.demonstration(0, 0)) == b"Review: no {fun} at all .\n\nSentiment: negative\n\n"
    assert bytes(encoder.demonstration(0, 1)) == b"Review: no {fun} at all .\n\nSentiment: positive\n\n"


def test_equal_texts_stand_alone(tmp_path):
    dataset = load(tmp_path, [{"id": k, "text": "fine", "group": "g", "consistency_id": 1} for k in range(3)])
    assert dataset.groups() == ((0,), (1,), (2,))
    assert Constraints.from_dataset(dataset, TASK.constraint).all == ()


@pytest.mark.parametrize(
    ("value", "label"),
    [(0, 0), (1, 1), ("0", 0), (1.0, 1), (False, 0), ("TRUE", 1), ("Negative", 0), (" positive", 1), ("POSITIVE ", 1)],
)
def test_gold_of_either_spelling(tmp_path, value, label):
    load(tmp_path, [{"id": "a", "text": "fine", "label": value}])
    assert load_gold(str(tmp_path / "x.jsonl"), TASK).labels == {"a": label}


@pytest.mark.parametrize("value", ["neg", "neutral", 2, "positive negative"])
def test_gold_of_another_set_is_refused(tmp_path, value):
    load(tmp_path, [{"id": "a", "text": "fine", "label": value}])
    with pytest.raises(DataError, match=r"x\.jsonl line 1 column 'label': .* allowed are negative, positive"):
        load_gold(str(tmp_path / "x.jsonl"), TASK)


def test_a_review_column_of_another_name_is_explained(tmp_path):
    with pytest.raises(
        DataError, match=r"line 1: column 'text' is missing, task 'sentiment'.*are review; rename the col"
    ):
        load(tmp_path, [{"review": "fine"}])
    with pytest.raises(TaskError, match="gold column 'text' is used"):
        TASK.with_gold_column("text")


def test_the_real_reviews_without_their_gold_are_the_same_data_set(shared_data, tmp_path):
    source = shared_data / "movie_review_sentiment.jsonl"
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    bare = load(tmp_path, [{"id": row["id"], "text": row["text"]} for row in rows])
    whole = load_dataset(str(source), TASK)
    assert (len(whole), whole.fingerprint) == (1500, bare.fingerprint)
    assert sum(load_gold(str(source), TASK).labels.values()) == 750

import json

from elicitor.data import load_dataset
from elicitor.gold import load_gold
from elicitor.tasks import load_task

TASK = load_task("boolq")


def test_the_prompt_to_the_letter_and_gold_as_truth_values(tmp_path):
    rows = [{"passage": "It rains.", "question": "is it dry", "label": label} for label in (0, True, "no")]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = str(tmp_path / "x.jsonl")
    dataset = load_dataset(source, TASK)
    assert TASK.render(dataset.examples[0]) == "Passage: It rains.\nQuestion: is it dry\nAnswer:"
    assert load_gold(source, TASK).labels == {"row-1": 0, "row-2": 1, "row-3": 0}


def test_real_questions_load(shared_data):
    source = str(shared_data / "boolq_dev.jsonl")
    assert len(load_dataset(source, TASK)) == len(load_gold(source, TASK).labels) == 1000

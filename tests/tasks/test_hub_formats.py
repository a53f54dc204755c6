"""Rows as they come from the hub: what becomes of them, and that gold leaves no trace in what labelling sees."""

import json
import sys
from types import SimpleNamespace

import pytest

from elicitor.data import load_dataset
from elicitor.errors import DataError
from elicitor.gold import load_gold
from elicitor.tasks import load_task


@pytest.fixture
def load(tmp_path):
    def read(task, *rows):
        path = tmp_path / "x.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        task = load_task(task)
        return load_dataset(str(path), task), load_gold(str(path), task).labels

    return read


def fields(dataset):
    return [dict(example.fields) for example in dataset.examples]


def test_boolq(load):
    row = {"question": "is it", "passage": "It is.", "answer": True}
    dataset, gold = load("boolq", row, {**row, "answer": False})
    assert fields(dataset) == [{"question": "is it", "passage": "It is."}] * 2
    assert gold == {"row-1": 1, "row-2": 0}


def test_truthfulqa_claims_stand_in_an_order_of_their_own(load):
    row = {
        "question": "Why?",
        "best_answer": "Because",
        "correct_answers": ["Because", "It just is", "Both", ""],
        "incorrect_answers": ["Magic", "Aliens", "Both", "Magic"],
    }
    dataset, gold = load("truthfulqa", row)
    claims = [example.fields["choice"] for example in dataset.examples]
    assert set(claims) == {"Because", "It just is", "Magic", "Aliens"}
    assert [example.id for example in dataset.examples] == [f"row-1/{k}" for k in range(4)]
    assert {example.group_id for example in dataset.examples} == {"Why?"}
    assert gold == {f"row-1/{k}": int(claim in ("Because", "It just is")) for k, claim in enumerate(claims)}


HH = {
    "chosen": "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: How?\n\nAssistant: Thus.",
    "rejected": "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: How?\n\nAssistant: No idea.\nNone.",
}


def chosen(dataset, gold):
    """The better response of each pair according to gold."""
    pairs = [example for example in dataset.examples if example.id.endswith("/ab")]
    return [example.fields["choice" if gold[example.id] else "choice_2"] for example in pairs]


@pytest.mark.parametrize(
    ("row", "question", "better"),
    [
        (HH, "Human: Hi\n\nAssistant: Hello.\n\nHuman: How?", "Thus."),
        (
            {"chosen": "\n\nHuman: How?\n\nAssistant: Thus.", "rejected": "\n\nHuman: How?\n\nAssistant: So."},
            "How?",
            "Thus.",
        ),
        ({"prompt": "How?", "chosen": "Thus.", "rejected": "So."}, "How?", "Thus."),
        ({"prompt": "How?\n", "chosen": "How?\nThus.", "rejected": "How?\nSo."}, "How?", "Thus."),
        (
            {
                "prompt": [{"role": "user", "content": "How?"}],
                "chosen": [{"role": "assistant", "content": "Thus."}],
                "rejected": [{"role": "assistant", "content": "So."}],
            },
            "How?",
            "Thus.",
        ),
        (
            {
                "chosen": [{"role": "user", "content": "How?"}, {"role": "assistant", "content": "Thus."}],
                "rejected": [{"role": "user", "content": "How?"}, {"role": "assistant", "content": "So."}],
            },
            "How?",
            "Thus.",
        ),
        (
            {"instruction": "How?", "input": "Data", "output_1": "Thus.", "output_2": "So.", "preference": 1},
            "How?\n\nData",
            "Thus.",
        ),
        ({"instruction": "How?", "input": "", "output_1": "A", "output_2": "B", "preference": 2}, "How?", "B"),
    ],
)
def test_preferences(load, row, question, better):
    dataset, gold = load("preference", row)
    assert {example.fields["question"] for example in dataset.examples} == {question}
    assert chosen(dataset, gold) == [better]


def test_sides_of_pairs_go_both_ways(load):
    rows = [{"prompt": f"Q{i}?", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(40)]
    dataset, gold = load("preference", *rows)
    firsts = [gold[example.id] for example in dataset.examples if example.id.endswith("/ab")]
    assert 8 < sum(firsts) < 32
    assert chosen(dataset, gold) == [f"good {i}" for i in range(40)]


def test_equal_responses_and_missing_preferences_have_no_gold(load):
    _, gold = load(
        "preference",
        {"prompt": "Q?", "chosen": "same", "rejected": "same"},
        {"prompt": "Q?", "chosen": "a", "rejected": "b"},
        {"instruction": "Q?", "output_1": "a", "output_2": "b"},
    )
    assert gold.keys() == {"row-2/ab", "row-2/ba"}


def test_dialogues_without_a_common_turn_are_refused(load):
    with pytest.raises(DataError, match=r"x.jsonl line 1: the two dialogues have no first turn in common"):
        load("preference", {"chosen": "\n\nHuman: A\n\nAssistant: B", "rejected": "\n\nHuman: C\n\nAssistant: D"})


def test_sst2(load):
    dataset, gold = load("sentiment", {"idx": 0, "sentence": "fine", "label": 1}, {"sentence": "hidden", "label": -1})
    assert fields(dataset) == [{"text": "fine"}, {"text": "hidden"}]
    assert gold == {"row-1": 1}


def test_gsm8k_questions_alone_lead_to_sampling(load):
    with pytest.raises(DataError, match=r"x.jsonl line 1: task 'gsm8k' judges solutions.*elicitor sample-solutions"):
        load("gsm8k", {"question": "1+1?", "answer": "2\n#### 2"})


SWAPS = {
    "boolq": ({"question": "q", "passage": "p", "answer": True}, {"question": "q", "passage": "p", "answer": False}),
    "truthfulqa": (
        {"question": "q", "correct_answers": ["a", "b"], "incorrect_answers": ["c"]},
        {"question": "q", "correct_answers": ["c"], "incorrect_answers": ["b", "a"]},
    ),
    "preference": (HH, {"chosen": HH["rejected"], "rejected": HH["chosen"]}),
    "sentiment": ({"sentence": "s", "label": 1}, {"sentence": "s", "label": 0}),
}


@pytest.mark.parametrize("task", SWAPS)
def test_gold_leaves_no_trace(load, task):
    (one, gold), (other, turned) = (load(task, row) for row in SWAPS[task])
    assert gold != turned
    assert one == other


def test_a_name_of_the_hub_end_to_end(monkeypatch):
    asked = []

    def load_named(name, config, *, split):
        asked.append((name, config, split))
        return [{"question": "is it", "passage": "It is.", "answer": True}]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_named))
    dataset = load_dataset("hf:google/boolq@train", load_task("boolq"))
    assert asked == [("google/boolq", None, "train")]
    assert dataset.examples[0].location == "hf:google/boolq@train row 1"


@pytest.mark.parametrize(
    ("task", "row", "said"),
    [
        # What CSV makes of a list.
        ("truthfulqa", {"correct_answers": "['Because']", "incorrect_answers": "['Magic']"}, "not a list of texts"),
        ("truthfulqa", {"correct_answers": ["Because"], "incorrect_answers": None}, "incorrect_answers is None, not a"),
        ("truthfulqa", {"correct_answers": [3], "incorrect_answers": []}, r"correct_answers is \[3\], not a"),
        ("preference", {"chosen": [{"from": "human", "value": "Hi"}], "rejected": []}, "without a role of user"),
        ("preference", {"chosen": [{"role": "user", "content": None}], "rejected": []}, "a content of text"),
        ("preference", {"chosen": ["Hi"], "rejected": ["Ho"]}, "a message is 'Hi', without"),
        ("preference", {"instruction": 3, "output_1": "a", "output_2": "b"}, "is 3, not text"),
    ],
)
def test_rows_of_another_make_are_refused_and_not_guessed_at(load, task, row, said):
    with pytest.raises(DataError, match=f"line 1: .*{said}"):
        load(task, {"question": "Why?"} | row if task == "truthfulqa" else row)


def test_a_prompt_of_messages_may_have_answers_of_text(load):
    asked = [{"role": "system", "content": "Be kind"}, {"role": "user", "content": "Why?"}]
    dataset, gold = load("preference", {"prompt": asked, "chosen": " Because. ", "rejected": "No."})
    assert {example.fields["question"] for example in dataset.examples} == {"System: Be kind\n\nHuman: Why?"}
    assert chosen(dataset, gold) == ["Because."]
    dataset, _ = load("preference", {"prompt": asked[1:], "chosen": "Because.", "rejected": "No."})
    assert {example.fields["question"] for example in dataset.examples} == {"Why?"}


def test_preferences_of_a_csv_file_are_numbers_in_words(load):
    row = {"instruction": "Why?", "input": "", "output_1": "Because.", "output_2": "No."}
    dataset, gold = load("preference", *(row | {"preference": value} for value in ("1", "2", 1, 2)))
    assert chosen(dataset, gold) == ["Because.", "No.", "Because.", "No."]

import json

from elicitor.consistency import Constraints
from elicitor.data import Assignment, load_dataset
from elicitor.gold import load_gold
from elicitor.tasks import load_task

TASK = load_task("gsm8k")


def load(folder, rows):
    (folder / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_dataset(str(folder / "x.jsonl"), TASK)


def solutions(*endings, **more):
    return [{"question": "How many?", "choice": f"Count. {ending}", **more} for ending in endings]


def test_the_prompt_to_the_letter(tmp_path):
    dataset = load(tmp_path, solutions("The answer is 3."))
    assert (
        TASK.render(dataset.examples[0]) == "Question: How many?\nClaim: Count. The answer is 3.\nI think this claim is"
    )


def test_solutions_are_bound_by_the_numbers_they_end_in(tmp_path):
    dataset = load(tmp_path, solutions("The answer is $27.", "The answer is 27.00.", "The answer is 28.", "Who knows?"))
    built = Constraints.from_dataset(dataset, TASK.constraint)
    assert dataset.groups() == ((0, 1, 2, 3),)
    assert {(c.relation, c.members) for c in built.all} == {
        ("equal", (0, 1)),
        ("not_both", (0, 2)),
        ("not_both", (1, 2)),
    }
    # Both wrong, or one right: (F, F, F), (T, T, F), (F, F, T), each with either label of the one without a number.
    assert len(built.options(range(4), Assignment.empty(4), among_only=False)) == 6


def test_columns_that_tell_gold_play_no_part(tmp_path):
    endings = ("The answer is 27.", "The answer is 28.")
    told = solutions(*endings, label=1, gold_answer="27", answer_matches_gold=1, consistency_key="same", answer="27")
    assert load(tmp_path, told).fingerprint == load(tmp_path, solutions(*endings)).fingerprint


def test_the_numbers_read_agree_with_gold_on_real_solutions(shared_data):
    source = str(shared_data / "gsm8k_model_solutions.jsonl")
    dataset, gold = load_dataset(source, TASK), load_gold(source, TASK)
    built = Constraints.from_dataset(dataset, TASK.constraint)
    assert len(built.all) > 3000
    # Gold of this file is whether the final number is right, so no constraint may contradict it.
    assert built.count(Assignment(tuple(gold.labels[e.id] for e in dataset.examples))) == 0

import json

from elicitor.consistency import Constraints
from elicitor.data import Assignment, load_dataset
from elicitor.gold import load_gold
from elicitor.tasks import load_task

TASK = load_task("author_gender")


def test_both_orders_to_the_letter(tmp_path):
    (tmp_path / "x.jsonl").write_text(json.dumps({"id": "p", "choice": "I went.", "choice_2": "She\nsaid."}) + "\n")
    dataset = load_dataset(str(tmp_path / "x.jsonl"), TASK)
    claim = "Claim: Post A was written by a man and Post B by a woman.\nI think this claim is"
    assert [TASK.render(e) for e in dataset.examples] == [
        f"Post A: I went.\n\nPost B: She\nsaid.\n\n{claim}",
        f"Post A: She\nsaid.\n\nPost B: I went.\n\n{claim}",
    ]


def test_real_posts_agree_with_the_constraint(shared_data):
    source = str(shared_data / "blog_gender_pairs.jsonl")
    dataset, gold = load_dataset(source, TASK), load_gold(source, TASK)
    built = Constraints.from_dataset(dataset, TASK.constraint)
    assert len(built.all) == 200
    assert built.count(Assignment(tuple(gold.labels[e.id] for e in dataset.examples))) == 0

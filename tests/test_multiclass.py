"""More than two labels, and groups of more than two, from the file to the audit's verdict."""

import json

import pytest

from elicitor import consistency, evaluate
from elicitor.audit import audit
from elicitor.backends.fake import FakeBackend
from elicitor.config import build_config
from elicitor.errors import TaskError
from elicitor.labelling import run

COLOURS = ["red", "green", "blue", "grey"]
EQUAL = {"template": "{text}:", "labels": COLOURS, "group": "g", "key": "k", "constraint": "equivalent"}
ONE = {**EQUAL, "constraint": "exactly_one", "positive": "red"}


def by_key(body, n_labels):
    """Colour of the key: equal keys of a group have equal labels, and exactly one of five keys is red."""
    group, key = (int(part) for part in body.rstrip(":").split(" ")[1:3])
    return 0 if key == group % 5 else 1 + (3 * group + key) % (n_labels - 1)


def rows(groups, *, copies=1):
    """Groups of five keys, each with some differently worded copies."""
    return [
        {
            "id": f"{g}-{k}-{c}",
            "text": f"text {g} {k} {c}",
            "g": g,
            "k": k,
            "label": COLOURS[by_key(f"text {g} {k} {c}:", 4)],
        }
        for g in groups
        for k in range(5)
        for c in range(copies)
    ]


def write(folder, name, content):
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in content))
    return str(folder / name)


@pytest.mark.parametrize(("task", "copies"), [(EQUAL, 2), (ONE, 1)])
@pytest.mark.parametrize("search", ["icm", "gibbs", "bootstrap", "ensemble"])
def test_from_file_to_verdict(tmp_path, task, copies, search):
    world = FakeBackend(prior=2.0, gain=6.0, noise=0.5, concept=by_key)
    source = write(tmp_path, "x.jsonl", rows(range(8), copies=copies))
    settings = build_config(flags={"data": source, "task": task, "model": "fake", "search": search})
    done = run(settings, tmp_path / "run", backend=world)
    assert done.metrics["batches"][0]["inconsistency"] == 0
    test = write(tmp_path, "test.jsonl", rows(range(20, 28), copies=copies))
    result = evaluate(
        done, test, conditions=["zero_shot", "random", "bootstrap_consistent", "found", "golden"], backend=world
    )
    table = {row.condition: row for row in result.rows}
    assert table["found"].label_accuracy > 0.9
    assert table["found"].raw.groups == 8
    assert table["found"].raw.value >= table["random"].raw.value
    verdicts = {check.name: check.verdict for check in audit(done, backend=world).checks}
    assert verdicts["consistency"] == "ok"
    assert verdicts["class balance"] == "ok"
    assert verdicts["orientation"] == "ok"


def test_groups_with_too_many_consistent_labellings_are_refused_before_the_model_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(consistency, "MAX_OPTIONS", 500)
    loose = {**EQUAL, "constraint": "at_most_one", "positive": "red"}
    few = write(tmp_path, "few.jsonl", rows(range(4), copies=2))
    lines = [{**row, "g": 0} if row["g"] == 3 else row for row in rows(range(4))]
    many = write(tmp_path, "many.jsonl", [{**row, "k": i} for i, row in enumerate(lines)])
    with pytest.raises(
        TaskError, match=r"many.jsonl line 1: a group of 10 examples has more than 500 consistent labellings"
    ):
        run(build_config(flags={"data": many, "task": loose, "model": "fake"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    # Large, but bound so closely that little is left; and nothing is enumerated where nothing is to be consistent.
    for chosen, more in ((EQUAL, {}), (loose, {"consistency": False})):
        run(build_config(flags={"data": few, "task": chosen, "model": "fake", **more}), tmp_path / chosen["constraint"])

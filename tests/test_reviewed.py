"""Reviewed labels as the first labels of another run."""

import json

import pytest

from elicitor.config import build_config
from elicitor.errors import ConfigError, DataError
from elicitor.evaluation import evaluate
from elicitor.labelling import run
from elicitor.report import gather
from elicitor.reviewed import known_labels, reviewed_ids, start_from_review

LABELS = ["negative", "positive"]


def write(path, numbers):
    rows = [{"id": f"e{i}", "text": f"text {i}", "label": LABELS[i % 2]} for i in numbers]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def settings(folder, **more):
    values = {"data": write(folder / "x.jsonl", range(24)), "task": "sentiment", "model": "fake"}
    values |= {"search": "icm", "batch_size": 12}
    return build_config(flags={**values, **more})


@pytest.fixture
def reviewed(tmp_path):
    """A finished run of 24 examples, ten of which are marked: e0 to e8 even ones wrong, and e15 right."""
    done = run(settings(tmp_path), tmp_path / "first")
    labels = {item.id: item.label for item in done.labels}
    marks = [(f"e{i}", "wrong" if i % 2 == 0 else "right") for i in range(9)] + [("e15", "right")]
    (done.path / "review.jsonl").write_text(
        "".join(
            json.dumps({"id": name, "verdict": verdict, "label": labels[name], "time": "2026-01-01T00:00:00Z"}) + "\n"
            for name, verdict in marks
        )
    )
    return done


def other(label):
    return LABELS[1 - LABELS.index(label)]


def test_right_stays_and_wrong_of_two_is_the_other(reviewed):
    found = {item.id: item.label for item in reviewed.labels}
    assert known_labels(reviewed.path) == {
        name: other(found[name]) if int(name[1:]) % 2 == 0 and name != "e15" else found[name]
        for name in [*(f"e{i}" for i in range(9)), "e15"]
    }


def test_wrong_of_three_is_left_out(tmp_path):
    task = {"template": "{text}:", "labels": ["a", "b", "c"]}
    (tmp_path / "x.jsonl").write_text(
        "".join(json.dumps({"id": f"e{i}", "text": f"text {i}"}) + "\n" for i in range(6))
    )
    done = run(build_config(flags={"data": str(tmp_path / "x.jsonl"), "task": task, "model": "fake"}), tmp_path / "run")
    with pytest.raises(ConfigError, match="no mark"):
        known_labels(done.path)
    lines = [
        {"id": f"e{i}", "verdict": verdict, "label": "b", "time": "2026-01-01T00:00:00Z"}
        for i, verdict in enumerate(("right", "wrong"))
    ]
    (done.path / "review.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert known_labels(done.path) == {"e0": "b"}


@pytest.mark.parametrize("search", ["icm", "gibbs"])
def test_the_first_labels_of_the_search_are_the_reviewed_ones(reviewed, tmp_path, search):
    known = known_labels(reviewed.path)
    config = start_from_review(settings(tmp_path, search=search), reviewed.path)
    second = run(config, tmp_path / "second")
    started = [json.loads(line) for line in (second.path / "events.jsonl").read_text().splitlines()]
    first = [event["labels"] for event in started if event["kind"] == "started"]
    # All ten, more than the eight that a search begins with by itself; each in its batch.
    assert {name: label for labels in first for name, label in labels.items()} == known
    manifest = json.loads((second.path / "manifest.json").read_text())
    assert manifest["supervision"] == {
        "labels": 10,
        "file": getattr(config, search).start_labels,
        "review_of": str(reviewed.path),
    }
    assert manifest["gold_used"] == "start labels were given"
    assert reviewed_ids(second.path) == set(known)
    assert reviewed_ids(reviewed.path) == set()
    assert json.loads((reviewed.path / "manifest.json").read_text())["supervision"] == "none"


def test_a_batch_without_reviewed_labels_begins_as_any_other(reviewed, tmp_path):
    marks = reviewed.path / "review.jsonl"
    batch = {item.id: item.batch for item in reviewed.labels}
    lines = [line for line in marks.read_text().splitlines(keepends=True) if batch[json.loads(line)["id"]] == 0]
    marks.write_text("".join(lines))
    second = run(start_from_review(settings(tmp_path), reviewed.path), tmp_path / "second")
    started = {
        event["batch"]: len(event["labels"])
        for event in map(json.loads, (second.path / "events.jsonl").read_text().splitlines())
        if event["kind"] == "started"
    }
    assert started == {0: len(lines), 1: 8}


def test_label_accuracy_leaves_the_reviewed_examples_out(reviewed, tmp_path):
    second = run(start_from_review(settings(tmp_path), reviewed.path), tmp_path / "second")
    test = write(tmp_path / "test.jsonl", range(100, 112))
    found = evaluate(second, test, seeds=[0], conditions=["zero_shot", "found"])
    assert found.label_accuracy.estimate.n == 14
    known = known_labels(reviewed.path)
    own = [item.label == LABELS[int(item.id[1:]) % 2] for item in second.labels if item.id not in known]
    assert found.label_accuracy.estimate.value == sum(own) / 14
    assert {row.condition: row.label_accuracy for row in found.rows}["found"] == sum(own) / 14
    page = gather([second.path], gold=tmp_path / "x.jsonl").runs[0]
    assert (page.label_accuracy.n, page.label_accuracy.value) == (14, sum(own) / 14)
    assert any("leaves out 10 examples" in note for note in page.notes)
    assert any("10 labels of a review" in note for note in found.notes)
    plain = evaluate(reviewed, test, seeds=[0], conditions=["zero_shot", "found"])
    assert plain.label_accuracy.estimate.n == 24
    assert not any("review" in note for note in plain.notes)
    # Without the file nobody knows which they are.
    (next(reviewed.path.glob("review-*.jsonl"))).unlink()
    with pytest.raises(DataError, match="is missing"):
        evaluate(second, test, seeds=[0], conditions=["zero_shot", "found"])


def test_a_dry_run_writes_nothing_and_counts_the_first_labels(elicitor, reviewed, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    words = ("label", "x.jsonl", "--task", "sentiment", "--model", "fake", "--search", "icm", "--dry-run", "--json")
    _, plain, _ = elicitor(*words)
    code, out, err = elicitor(*words, "--init", "review", "--review", reviewed.path)
    assert (code, err) == (0, "")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    # Ten labels stand from the beginning, not eight: two proposals less to the end.
    assert json.loads(plain)["evaluations"][0] - json.loads(out)["evaluations"][0] == 2


def test_the_command_and_its_resume(elicitor, reviewed, tmp_path):
    words = ("label", tmp_path / "x.jsonl", "--task", "sentiment", "--model", "fake", "--output-dir", "second")
    given = ("--init", "review", "--review", reviewed.path)
    code, _, err = elicitor(*words, *given)
    assert code == 0, err
    before = (tmp_path / "second" / "manifest.json").read_text()
    # A mark that comes later changes nothing for a run that has begun.
    assert elicitor("review", reviewed.path, "--mark", "e20=right")[0] == 0
    code, _, err = elicitor(*words, *given, "--resume")
    assert code == 0, err
    assert (tmp_path / "second" / "manifest.json").read_text() == before
    audited = elicitor("audit", "second")
    assert "10 labels were given to the search to start with" in audited[1]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--init", "review"), "give both or neither"),
        (("--review", "first"), "give both or neither"),
        (("--init", "golden"), "--init got 'golden'"),
        (("--init", "review", "--review", "."), "not a run folder"),
        (("--init", "review", "--review", "first", "--search", "bootstrap"), "takes no first labels"),
        (
            ("--init", "review", "--review", "first", "--search", "icm", "-s", "icm.start_labels=x"),
            "both give first labels",
        ),
    ],
)
def test_mistakes_are_one_line(elicitor, reviewed, tmp_path, more, message):
    words = ("label", tmp_path / "x.jsonl", "--task", "sentiment", "--model", "fake", "--output-dir", "second")
    code, out, err = elicitor(*words, *more)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not (tmp_path / "second").exists()

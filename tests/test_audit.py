"""Failures that an audit must catch, in worlds where it is known what was found."""

import json
import re

import pytest

from elicitor.audit import audit
from elicitor.backends.fake import FakeBackend, concept_label
from elicitor.config import build_config
from elicitor.errors import ConfigError, DataError
from elicitor.files import write_rows
from elicitor.labelling import run

TASK = {"template": "{text}:", "labels": ["no", "yes"], "group": "g", "key": "k", "constraint": "negation"}
FREE = {"template": "{text}:", "labels": ["no", "yes"]}


def is_long(body, n_labels):
    """A spurious concept: how many words a text has."""
    return int(body.count(" ") > 3)


def of_pairs(body, n_labels):
    """A concept that obeys the negation within each pair of numbers and is invisible otherwise."""
    number = int(re.search(r"\d+", body).group())
    return (concept_label(f"pair {number // 2}", 2) + number) % 2


@pytest.fixture
def labelled(tmp_path):
    def make(backend, *, n=40, task=FREE, text="text {}", name="run", **flags):
        rows = [
            {"id": f"e{i}", "text": text.format(i), "g": i // 2, "k": i % 2, "source": ["web", "book"][i % 3 == 0]}
            for i in range(n)
        ]
        source = tmp_path / "x.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        settings = build_config(flags={"data": str(source), "task": task, "model": "fake", "search": "icm", **flags})
        return run(settings, tmp_path / name, backend=backend)

    return make


def relabel(done, change):
    """Replace the labels of a run, as if a search had ended there."""
    rows = [json.loads(line) for line in (done.path / "labels.jsonl").read_text().splitlines()]
    write_rows(done.path / "labels.jsonl", [{**row, "label": change(k, row)} for k, row in enumerate(rows)])
    return done.path


def verdicts(result):
    return {check.name: check.verdict for check in result.checks}


def test_a_healthy_run_is_ok(labelled):
    backend = FakeBackend(prior=3.0, concept=of_pairs)
    result = audit(labelled(backend, task=TASK), backend=backend, seeds=[1, 2])
    assert verdicts(result) == {
        "class balance": "ok",
        "orientation": "ok",
        "consistency": "ok",
        "margins": "ok",
        "context": "ok",
        "trivial features": "ok",
        "seeds": "ok",
        "models": "not done",
    }
    assert result.verdict == "ok"
    assert result.abstained == {}


def test_collapse_to_one_label_fails_and_calibration_heals_it(labelled):
    world = FakeBackend(bias=6.0, prior=1.0, gain=2.0)
    collapsed = audit(labelled(world, search="bootstrap", name="raw"), backend=world)
    assert verdicts(collapsed)["class balance"] == "failed"
    assert collapsed.verdict == "failed"
    balance = collapsed.checks[0]
    assert balance.figures["counts"] == {"no": 0, "yes": 40}
    assert "calibration=batch" in balance.advice
    healed = labelled(world, search="bootstrap", name="calibrated", objective={"calibration": "batch"})
    assert verdicts(audit(healed, backend=world))["class balance"] == "ok"


def test_labels_of_one_kind_are_what_a_class_prior_expects(labelled):
    world = FakeBackend(prior=1.0)
    objective = {"calibration": "batch", "class_prior": [0.05, 0.95]}
    done = labelled(world, search="bootstrap", objective=objective)
    relabel(done, lambda k, row: "no" if k < 2 else "yes")
    assert verdicts(audit(done.path, backend=world))["class balance"] != "failed"


def test_a_length_concept_fails(labelled):
    world = FakeBackend(prior=1.0, concept=is_long)
    rows = "{}" + " word" * 1
    done = labelled(world, n=40, text=rows, name="short")
    assert done.metrics["n_examples"] == 40
    texts = [f"text {i}" + " word" * (i * 7 % 5) for i in range(40)]
    source = done.path.parent / "long.jsonl"
    source.write_text("".join(json.dumps({"id": f"e{i}", "text": text}) + "\n" for i, text in enumerate(texts)))
    settings = build_config(flags={"data": str(source), "task": FREE, "model": "fake"})
    result = audit(run(settings, done.path.parent / "long", backend=world), backend=world)
    salience = next(check for check in result.checks if check.name == "trivial features")
    assert salience.verdict == "failed"
    assert salience.figures["feature"] in ("words of text", "characters of text")
    assert salience.figures["p_value"] < 0.01


def test_an_unknowable_task_fails(labelled):
    """The model answers by noise that hangs on the whole prompt: nothing is known, whatever the labels."""
    world = FakeBackend(prior=0.0, gain=0.0, noise=1.0)
    result = audit(labelled(world, n=60), backend=world, seeds=[1, 2])
    found = verdicts(result)
    assert (found["context"], found["seeds"], result.verdict) == ("failed", "failed", "failed")
    assert len(result.abstained) > 40


def test_a_swapped_concept_fails(labelled):
    world = FakeBackend(prior=1.0)
    done = labelled(world)
    swapped = relabel(done, lambda k, row: "no" if row["label"] == "yes" else "yes")
    result = audit(swapped, backend=world)
    orientation = result.checks[1]
    assert (orientation.name, orientation.verdict) == ("orientation", "failed")
    assert orientation.figures["agreement_with_zero_shot"] < 0.1
    assert "exchange no and yes" in orientation.advice


def test_seeds_that_found_opposite_concepts_fail(labelled):
    world = FakeBackend(prior=0.0)
    done = labelled(world, name="a")
    other = labelled(world, name="b", seed=1)
    relabel(other, lambda k, row: {"no": "yes", "yes": "no"}[done.labels[k].label])
    result = audit(done, backend=world, against=[other.path])
    seeds = next(check for check in result.checks if check.name == "seeds")
    assert seeds.verdict == "failed"
    assert seeds.figures["kappa"] < -0.9
    assert "opposite labels" in seeds.advice
    assert len(result.abstained) == 40


def test_inconsistency_that_is_left_is_counted(labelled):
    world = FakeBackend(prior=1.0, concept=of_pairs)
    done = labelled(world, task=TASK)
    result = audit(relabel(done, lambda k, row: "yes" if k < 10 else row["label"]), backend=world)
    consistency = result.checks[2]
    assert (consistency.verdict, consistency.figures) == ("failed", {"violated": 5, "constraints": 20})


def test_another_model_that_finds_the_same_is_a_good_sign(labelled):
    one, other = FakeBackend(prior=1.0), FakeBackend(prior=1.2, noise=0.3)
    result = audit(labelled(one, name="a"), backend=one, against=[labelled(other, name="b").path])
    assert verdicts(result)["models"] == "ok"
    assert verdicts(result)["seeds"] == "not done"


def test_a_column_that_explains_the_labels_is_named(labelled):
    world = FakeBackend(prior=1.0)
    done = labelled(world)
    path = relabel(done, lambda k, row: "yes" if k % 3 == 0 else "no")
    result = audit(path, backend=world, columns=["source"])
    salience = next(check for check in result.checks if check.name == "trivial features")
    assert salience.verdict == "failed"
    assert salience.figures["feature"] in ("source = book", "source = web")
    assert salience.figures["balanced_accuracy"] == 1.0
    with pytest.raises(DataError, match="no column 'soruce'"):
        audit(path, backend=world, columns=["soruce"])
    with pytest.raises(ConfigError, match="'label' holds gold"):
        audit(path, backend=world, columns=["label"])


def test_a_column_of_gold_in_the_file_changes_nothing(labelled, tmp_path):
    world = FakeBackend(prior=1.0)
    done = labelled(world)
    before = audit(done, backend=world).to_json()
    rows = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    told = [{**row, "label": ["no", "yes"][concept_label(row["text"] + ":", 2)]} for row in rows]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told))
    after = audit(done, backend=world).to_json()
    assert re.sub(r"'seconds': [\d.e-]+", "", str(after)) == re.sub(r"'seconds': [\d.e-]+", "", str(before))


def test_indeterminate_examples_are_written_with_reasons(labelled):
    world = FakeBackend(prior=1.0)
    done = labelled(world)
    path = relabel(done, lambda k, row: {"no": "yes", "yes": "no"}[row["label"]] if k == 5 else row["label"])
    result = audit(path, backend=world)
    assert not (path / "abstained.jsonl").exists()
    audit(path, backend=world, abstain=True)
    rows = [json.loads(line) for line in (path / "abstained.jsonl").read_text().splitlines()]
    assert {row["id"]: row["reasons"] for row in rows} == result.abstained
    assert "contradicted by the other labels" in result.abstained["e5"]
    assert json.loads((path / "audit.json").read_text())["verdict"] == result.verdict


def test_more_than_two_labels_and_several_batches(labelled):
    world = FakeBackend(prior=2.0, gain=6.0)
    task = {"template": "{text}:", "labels": ["red", "green", "blue"]}
    result = audit(labelled(world, n=60, task=task, batch_size=30), backend=world, seeds=[1])
    assert result.verdict == "ok", [check for check in result.checks if check.verdict != "ok"]
    assert set(result.checks[1].figures["exchanged"]) == {"red and green", "red and blue", "green and blue"}


def test_runs_that_cannot_be_compared_are_refused(labelled, tmp_path):
    world = FakeBackend(prior=1.0)
    done = labelled(world, name="a")
    with pytest.raises(ConfigError, match="seed and the model of a run that is compared already"):
        audit(done, backend=world, against=[done.path])
    (tmp_path / "y.jsonl").write_text('{"id": "a", "text": "t"}\n{"id": "b", "text": "u"}\n')
    settings = build_config(flags={"data": str(tmp_path / "y.jsonl"), "task": FREE, "model": "fake", "seed": 9})
    other = run(settings, tmp_path / "other", backend=world)
    with pytest.raises(DataError, match="labelled other data"):
        audit(done, backend=world, against=[other.path])
    with pytest.raises(ConfigError, match="orders got 1"):
        audit(done, backend=world, orders=1)
    for seeds in ([1, 1], [-1]):
        with pytest.raises(ConfigError, match="different seeds"):
            audit(done, backend=world, seeds=seeds)


def test_a_seed_that_is_compared_already_is_refused_before_it_is_searched_with(labelled):
    backend = FakeBackend(prior=3.0)
    done, other = labelled(backend), labelled(backend, name="other", seed=7)
    for seed in (0, 7):
        with pytest.raises(ConfigError, match=f"--seeds got {seed}, the seed of a run that is compared already"):
            audit(done, backend=backend, seeds=[1, seed], against=[other])
    assert not list(done.path.glob("seed-*"))

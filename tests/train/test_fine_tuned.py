import json

import pytest

pytest.importorskip("trl")

import elicitor
from elicitor.config import build_config
from elicitor.dry_run import estimate
from elicitor.errors import BackendError, ConfigError, DataError
from elicitor.labelling import prepare, run

TRAIN = {"epochs": 6, "batch_size": 4, "lora_r": 4, "learning_rate": 1e-2}


class Stop(Exception):
    """A stand-in for a kill."""


@pytest.fixture
def settings(review_files, tiny_model, tmp_path):
    """Settings that start from labels of which a sixth is wrong."""
    rows = [{"id": f"r{i}", "label": ("negative", "positive")[(i % 2) ^ (i % 6 == 0)]} for i in range(24)]
    (tmp_path / "start.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    scalable = {"folds": 3, "rounds": 2, "start_labels": str(tmp_path / "start.jsonl"), "train": TRAIN}

    def make(**more):
        flags = {"data": str(review_files[0]), "task": "sentiment", "model": str(tiny_model), "search": "scalable"}
        return build_config(flags={**flags, "scalable": {**scalable, **more.pop("scalable", {})}, **more})

    return make


def labels(done):
    return [item.label for item in done.labels]


def test_wrong_labels_are_mended_by_what_the_others_teach(settings, tmp_path):
    done = run(settings(), tmp_path / "run")
    right = [("negative", "positive")[i % 2] for i in range(24)]
    assert sum(a == b for a, b in zip(labels(done), right, strict=True)) >= 23
    (batch,) = done.metrics["batches"]
    assert (batch["searched"], batch["filled"]) == (24, 0)


def test_killed_between_two_folds_it_goes_on_to_the_same_labels(settings, tmp_path):
    def kill(step):
        if step.state.iteration == 2:
            raise Stop

    whole = run(settings(), tmp_path / "whole")
    with pytest.raises(Stop):
        run(settings(), tmp_path / "run", observer=kill)
    again = run(settings(), tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "labels.jsonl").read_bytes() == (tmp_path / "whole" / "labels.jsonl").read_bytes()
    assert again.metrics["cost"]["tokens_computed"] == whole.metrics["cost"]["tokens_computed"]


def test_a_dry_run_bounds_the_tokens(settings, tmp_path):
    config = settings()
    guess = estimate(prepare(config))
    cost = run(config, tmp_path / "run").metrics["cost"]
    assert guess.tokens[0] <= cost["tokens_computed"] <= guess.tokens[1]
    assert guess.prompts[0] <= cost["prompts"] <= guess.prompts[1]
    assert guess.batch_sizes == [24]


@pytest.mark.parametrize(
    ("more", "error", "words"),
    [
        ({"model": "fake"}, BackendError, "search scalable trains its model, which 'fake' cannot be"),
        ({"scalable": {"train": {"epoch": 2}}}, ConfigError, "unknown training setting 'epoch'"),
        ({"scalable": {"train": {"report_to": "trackio"}}}, ConfigError, "use --report-to, which follows the search"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(settings, tmp_path, more, error, words):
    with pytest.raises(error, match=words):
        run(settings(**more), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_one_group_is_refused_before_anything_is_written(settings, tmp_path):
    file = tmp_path / "one.jsonl"
    file.write_text("".join(f'{{"text": "Text {k}.", "consistency_id": "g"}}\n' for k in range(6)))
    with pytest.raises(DataError, match="all 6 examples are of one group"):
        run(settings(data=str(file), task="statements", scalable={"start_labels": None}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_function_takes_it_too(review_files, tiny_model, tmp_path):
    done = elicitor.label(
        review_files[0],
        task="sentiment",
        model=str(tiny_model),
        output_dir=tmp_path / "run",
        limit=8,
        search="scalable",
        scalable={"folds": 2, "train": {**TRAIN, "epochs": 1}},
    )
    assert len(labels(done)) == 8

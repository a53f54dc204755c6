import numpy as np
import pytest

pytest.importorskip("trl")

import elicitor
from elicitor.config import build_config
from elicitor.errors import ConfigError, ResumeMismatchError
from elicitor.labelling import load_run
from elicitor.models import load_backend
from elicitor.train.iterate import iterate, iterate_cost, joined_metrics, split
from elicitor.train.sft import SftSettings, labelled_run

SETTINGS = SftSettings(epochs=1, batch_size=8, lora_r=4, checkpoint_steps=50)


@pytest.fixture
def config(review_files, tiny_model):
    flags = {"data": str(review_files[0]), "task": "sentiment", "model": str(tiny_model), "search": "bootstrap"}
    return build_config(flags={**flags, "batch_size": 8, "bootstrap.rounds": 1})


class Killed(BaseException):
    """Stands for a kill between two stages."""


def test_a_loop_that_is_stopped_after_any_stage_ends_in_the_same_labels(config, tmp_path):
    whole = iterate(config, tmp_path / "whole", settings=SETTINGS)
    assert whole.batches == [8, 8, 8]
    stopped = tmp_path / "stopped"
    left = 1

    def count(done, stages):
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed

    for stage in range(6):
        left = 2
        try:
            iterate(config, stopped, settings=SETTINGS, resume=stage > 0, on_part=count)
        except Killed:
            continue
    again = iterate(config, stopped, settings=SETTINGS, resume=True)
    assert again.run.labels == whole.run.labels
    adapters = [
        (folder / "model" / "adapter_model.safetensors").read_bytes() for folder in (tmp_path / "whole", stopped)
    ]
    assert adapters[0] == adapters[1]
    assert not list(stopped.glob("model-*"))
    # Each batch was labelled by a model of its own.
    manifests = [load_run(stopped / f"batch-{j:03d}").path / "manifest.json" for j in range(3)]
    assert len({file.read_text() for file in manifests}) == 3
    # The joined run is one that other commands take.
    labelled, _ = labelled_run(again.run.path)
    assert len(labelled.labels) == 24
    assert load_backend(again.trained.model).name == again.trained.model
    # Gold stays where it was.
    assert all('"label"' not in file.read_text() for file in stopped.glob("batch-*.jsonl"))
    with pytest.raises(ResumeMismatchError, match="config"):
        iterate(config.model_copy(update={"seed": 1}), stopped, settings=SETTINGS, resume=True)


def test_one_batch_is_nothing_to_iterate(config, tmp_path):
    with pytest.raises(ConfigError, match="are one batch of 24"):
        iterate(config.model_copy(update={"batch_size": 24}), tmp_path / "out", settings=SETTINGS)
    with pytest.raises(ConfigError, match="are one batch of 24"):
        iterate_cost(config.model_copy(update={"batch_size": 24}), settings=SETTINGS)


def test_labels_of_the_whole_data_are_refused_before_anything_is_written(config, tmp_path):
    icm = build_config(
        flags={**config.model_dump(include={"data", "task", "model"}), "icm.start_labels": "labels.jsonl"}
    )
    with pytest.raises(ConfigError, match="start_labels gives labels of the whole data"):
        iterate(icm.model_copy(update={"search": "icm"}), tmp_path / "out", settings=SETTINGS)
    assert not (tmp_path / "out").exists()


def test_groups_stay_whole(problem):
    dataset = problem(n=30, group_size=3).dataset
    parts = split(dataset, batch_size=8, rng=np.random.default_rng(0))
    assert sorted(i for part in parts for i in part) == list(range(30))
    assert all(len(part) <= 8 for part in parts)
    where = {i: number for number, part in enumerate(parts) for i in part}
    assert all(len({where[i] for i in members}) == 1 for members in dataset.groups())


def test_metrics_of_batches_add_up(run, review_files, tmp_path):
    other = elicitor.label(review_files[1], task="sentiment", model="fake", output_dir=tmp_path / "other")
    both = joined_metrics([run.metrics, other.metrics])
    assert both["n_examples"] == 44
    assert sum(both["labels"].values()) == 44
    assert both["cost"]["tokens_computed"] == sum(r.metrics["cost"]["tokens_computed"] for r in (run, other))
    assert [batch["batch"] for batch in both["batches"]] == [0, 1]

"""Trainings that are paused and stopped from outside."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("trl")

from processes import running
from safetensors.numpy import load_file

from elicitor import control
from elicitor.config import build_config
from elicitor.control import Stopped, request, state_of
from elicitor.follow import follow
from elicitor.labelling import run as label
from elicitor.train.iterate import iterate
from elicitor.train.reward import prepare_reward, train_reward
from elicitor.train.reward_fit import RewardSettings
from elicitor.train.rl import train_rl
from elicitor.train.rl_settings import RlSettings
from elicitor.train.sft import SftSettings, fit, labelled_run

FAST = SftSettings(epochs=2, batch_size=4, lora_r=4, learning_rate=1e-2, lora_dropout=0.2, checkpoint_steps=100)


def weights(folder):
    return load_file(folder / "adapter_model.safetensors")


def same(first, second):
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


@pytest.fixture
def pauses(monkeypatch):
    """What a follower sees in every pause, which then ends."""
    seen = []

    def sleep(_):
        (folder,) = control.folders()[:1]
        seen.append(follow(folder).look())
        request(folder, "resume")

    monkeypatch.setattr(control, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    return seen


def test_a_training_that_is_paused_stopped_and_resumed_ends_as_an_unbroken_one(run, tiny_model, tmp_path, pauses):
    labelled, _ = labelled_run(run)
    labelled = replace(labelled, labels={i: i % 2 for i in range(24)})
    options = {"model": str(tiny_model), "settings": FAST}
    whole = fit(labelled, tmp_path / "whole", **options)
    broken = tmp_path / "broken"

    def on_step(step):
        # Asked for during the step, obeyed after it.
        if step.step in (2, 5):
            request(broken, "pause" if step.step == 2 else "stop")

    with pytest.raises(Stopped):
        fit(labelled, broken, on_step=on_step, **options)
    assert [(one["state"], one["step"], one["steps"]) for one in pauses] == [("paused", 2, 12)]
    assert pauses[0]["loss"] > 0
    assert [path.name for path in (broken / "checkpoints").iterdir()] == ["checkpoint-5"]
    assert follow(broken).look()["state"] == "idle"
    again = fit(labelled, broken, resume=True, **options)
    assert again.result["resumed_at_step"] == 5
    assert again.result["losses"] == whole.result["losses"]
    assert same(weights(broken), weights(tmp_path / "whole"))
    end = follow(broken).look()
    assert (end["state"], end["step"], end["steps"]) == ("finished", 12, 12)


def test_a_stop_at_the_last_step_comes_too_late(run, tiny_model, tmp_path):
    labelled, _ = labelled_run(run, limit=8)
    done = fit(
        labelled,
        tmp_path / "out",
        model=str(tiny_model),
        settings=FAST,
        on_step=lambda step: step.step == step.steps and request(tmp_path / "out", "stop"),
    )
    assert done.result["steps"] == 4
    assert not (tmp_path / "out" / "control.json").exists()


@pytest.mark.parametrize("stage", ["initial", "relabel", "final"])
def test_reward_models(tiny, pairs_file, tmp_path, monkeypatch, stage):
    monkeypatch.setattr("elicitor.train.relabel.PAIRS_AT_ONCE", 16)
    rest = pairs_file(40, start=24, name="rest.jsonl")
    work = prepare_reward(pairs_file(24), model=str(tiny), rest=str(rest), labels="golden")
    settings = RewardSettings(learning_rate=1e-3, checkpoint_steps=100)
    folder, now = tmp_path / "rm", []

    def on_step(step):
        if stage in now[-1] and step.step == 1:
            request(folder, "stop")

    def on_part(done, total):
        if stage == "relabel" and done == 16:
            request(folder, "stop")

    options = {"labels": "golden", "on_stage": now.append, "on_part": on_part}
    with pytest.raises(Stopped):
        train_reward(work, folder, settings, on_step=on_step, **options)
    if stage == "relabel":
        assert (folder / "relabelled.jsonl").read_text().count("\n") == 16
    else:
        assert (folder / stage / "checkpoints" / "checkpoint-1").is_dir()
    stage = "none"
    train_reward(work, folder, settings, resume=True, **options)
    assert state_of(folder) == "finished"


def test_a_policy(tiny, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"id": f"{i}", "question": f"q {i}"}) + "\n" for i in range(12)))
    sizes = {"steps": 3, "batch_size": 2, "group_size": 2, "gradient_accumulation": 1, "max_new_tokens": 4}
    held = {"eval_prompts": 2, "test_prompts": 2, "eval_samples": 2, "eval_steps": 1, "checkpoint_steps": 100}

    def reward(prompts, responses):
        return np.asarray([len(text) / 10 for text in responses])

    def train(folder, **more):
        settings = RlSettings(**sizes, **held)
        return train_rl(str(prompts), folder, settings, reward=reward, reward_name="length", model=str(tiny), **more)

    train(tmp_path / "whole")
    broken = tmp_path / "broken"
    with pytest.raises(Stopped):
        train(broken, on_step=lambda step: step.step == 2 and request(broken, "stop"))
    assert not (broken / "training.json").exists()
    train(broken, resume=True)
    for name in ("rollouts.jsonl", "curve.jsonl", "samples.jsonl"):
        assert (broken / name).read_text() == (tmp_path / "whole" / name).read_text(), name


def test_the_training_within_a_search(review_files, tiny_model, tmp_path, pauses):
    scalable = {"folds": 2, "train": {"epochs": 2, "batch_size": 4, "lora_r": 4, "learning_rate": 1e-2}}
    flags = {"data": str(review_files[0]), "task": "sentiment", "model": str(tiny_model), "search": "scalable"}
    config = build_config(flags={**flags, "scalable": scalable})
    label(config, tmp_path / "whole")
    broken, passes = tmp_path / "broken", []

    def on_progress(tokens):
        # Forward passes of the zero-shot start come first, then those of the trainings.
        passes.append(tokens)
        if (broken / "checkpoint.json").exists():
            request(broken, "pause" if not pauses else "stop")

    with pytest.raises(Stopped):
        label(config, broken, on_progress=on_progress)
    assert [one["state"] for one in pauses] == ["paused"]
    assert not (broken / "progress.json").exists()
    label(config, broken, resume=True)
    assert (broken / "labels.jsonl").read_bytes() == (tmp_path / "whole" / "labels.jsonl").read_bytes()


@pytest.mark.slow
def test_the_loop_is_stopped_in_a_search_and_in_a_training(review_files, tiny_model, tmp_path):
    flags = {"data": str(review_files[0]), "task": "sentiment", "model": str(tiny_model), "search": "bootstrap"}
    config, settings = build_config(flags={**flags, "batch_size": 12}), FAST
    whole = iterate(config, tmp_path / "whole", settings=settings)
    broken = tmp_path / "broken"
    for asks in ({"observer": lambda _: request(broken, "stop")}, {"on_step": lambda _: request(broken, "stop")}):
        with pytest.raises(Stopped):
            iterate(config, broken, settings=settings, resume=True, **asks)
    again = iterate(config, broken, settings=settings, resume=True)
    assert [item.label for item in again.run.labels] == [item.label for item in whole.run.labels]
    assert json.loads((broken / "run" / "manifest.json").read_text())["examples"] == 24


@pytest.mark.slow
def test_processes_that_train_together_wait_and_stop_together(run, tiny_model, tmp_path):
    options = ["train", "sft", str(run.path), "--model", str(tiny_model), "-o", str(tmp_path / "out"), "--epochs", "40"]
    options += ["--set", "batch_size=2", "--set", "lora_r=4", "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "elicitor"]
    folder = tmp_path / "out"

    def until(condition):
        while not condition():
            assert process.poll() is None, process.stderr.read()[-3000:]
            time.sleep(0.02)

    with running([*launch, *options], env=environment, stderr=subprocess.PIPE, text=True) as process:
        until(lambda: (folder / "progress.json").exists())
        request(folder, "pause")
        until(lambda: state_of(folder) == "paused")
        before = (folder / "progress.json").read_bytes()
        time.sleep(1)
        assert (folder / "progress.json").read_bytes() == before
        request(folder, "stop")
        process.communicate()
    assert process.returncode != 0
    assert state_of(folder) == "idle"
    assert list((folder / "checkpoints").glob("checkpoint-*/trainer_state.json"))
    done = subprocess.run([*launch, *options, "--resume"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout)["resumed_at_step"] > 0

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace

import pytest

pytest.importorskip("trl")

from elicitor.errors import ConfigError, ContextOverflowError, ResumeMismatchError
from elicitor.files import write_rows
from elicitor.models import load_backend
from elicitor.prompts import PromptEncoder
from elicitor.train.sft import SftSettings, fit, labelled_run, train_sft

FAST = SftSettings(epochs=2, batch_size=4, lora_r=4, learning_rate=1e-2, checkpoint_steps=3)


def zero_shot(model, labelled):
    backend = load_backend(model)
    encoder = PromptEncoder(backend.tokenizer, labelled.task, labelled.dataset)
    prompts = [encoder.prompt_with([], i) for i in range(len(labelled.dataset))]
    return backend.score(prompts).log_probs


@pytest.fixture
def golden(run):
    """The training reviews with labels that their first word decides."""
    labelled, _ = labelled_run(run)
    return replace(labelled, labels={i: i % 2 for i in range(len(labelled.dataset))}, source="golden")


def test_an_adapter_learns_its_labels_and_is_a_model_name(golden, tiny_model, tmp_path):
    steps = []
    settings = FAST.model_copy(update={"epochs": 12})
    done = fit(golden, tmp_path / "out", model=str(tiny_model), settings=settings, on_step=steps.append)
    assert done.model == f"adapter:{tmp_path / 'out'}"
    after = zero_shot(done.model, golden)
    assert after.argmax(axis=1).tolist() == list(golden.labels.values())
    assert [step.step for step in steps] == list(range(1, done.result["steps"] + 1))
    assert sum(step.tokens for step in steps) == done.result["tokens"]
    assert not (tmp_path / "out" / "checkpoints").exists()
    # Loading says the same twice, and something else than the base.
    names = [load_backend(name).fingerprint for name in (done.model, done.model, str(tiny_model))]
    assert names[0] == names[1] != names[2]


def test_the_loss_is_the_one_that_a_backend_scores(golden, tiny_model, tmp_path):
    settings = FAST.model_copy(update={"epochs": 1, "batch_size": 24, "class_weights": "negative=3,positive=1"})
    done = fit(golden, tmp_path / "out", model=str(tiny_model), settings=settings)
    scored = zero_shot(str(tiny_model), golden)
    wanted = list(golden.labels.values())
    label_tokens = [
        len(candidate)
        for candidate in PromptEncoder(load_backend(str(tiny_model)).tokenizer, golden.task, golden.dataset).candidates
    ]
    weights = [1.5, 0.5]
    expected = sum(-weights[y] * scored[i, y] for i, y in enumerate(wanted)) / sum(label_tokens[y] for y in wanted)
    assert done.result["losses"][0]["loss"] == pytest.approx(expected, rel=1e-4)


def test_full_training_makes_a_folder_that_is_a_model(golden, tiny_model, tmp_path):
    settings = FAST.model_copy(update={"method": "full", "epochs": 8})
    done = fit(golden, tmp_path / "out", model=str(tiny_model), settings=settings)
    assert done.model == str(tmp_path / "out")
    assert zero_shot(done.model, golden).argmax(axis=1).tolist() == list(golden.labels.values())
    assert not list((tmp_path / "out").glob("*.bin"))


def test_indeterminate_examples_are_left_out(run, tiny_model, tmp_path):
    write_rows(run.path / "abstained.jsonl", [{"id": "r3", "reasons": ["margin"]}, {"id": "r5", "reasons": ["margin"]}])
    done = train_sft(run, tmp_path / "out", model=str(tiny_model), settings=FAST, limit=6)
    assert (done.result["rows"], done.result["left_out"]) == (4, 2)
    kept, _ = labelled_run(run, keep_abstained=True)
    assert len(kept.labels) == 24


@pytest.mark.slow
def test_a_killed_training_resumes_to_the_same_adapter(run, tiny_model, tmp_path):
    pytest.importorskip("safetensors")
    command = [
        sys.executable,
        "-m",
        "elicitor",
        "train",
        "sft",
        str(run.path),
        "--model",
        str(tiny_model),
        "--epochs",
        "24",  # long enough that the kill comes before the end on a busy machine
    ]
    command += [
        "--set",
        "batch_size=4",
        "--set",
        "checkpoint_steps=2",
        "--set",
        "lora_r=4",
        "--set",
        "lora_dropout=0.2",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, "-o", str(tmp_path / "killed")], env=environment, stderr=subprocess.PIPE)
    checkpoints = tmp_path / "killed" / "checkpoints"
    deadline = time.monotonic() + 240
    while not list(checkpoints.glob("checkpoint-*/trainer_state.json")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "killed" / "training.json").exists()
    # What a kill in the middle of writing a checkpoint leaves.
    (checkpoints / "checkpoint-999").mkdir()
    (checkpoints / "checkpoint-999" / "trainer_state.json").write_text('{"half')
    resumed = subprocess.run(
        [*command, "-o", str(tmp_path / "killed"), "--resume", "--json"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(resumed.stdout)["resumed_at_step"] >= 2
    subprocess.run([*command, "-o", str(tmp_path / "whole")], env=environment, check=True, capture_output=True)
    weights = [(tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("killed", "whole")]
    assert weights[0] == weights[1]


def test_resuming_refuses_another_training(run, tiny_model, tmp_path):
    train_sft(run, tmp_path / "out", model=str(tiny_model), settings=FAST, limit=4)
    with pytest.raises(ConfigError, match="holds a training"):
        train_sft(run, tmp_path / "out", model=str(tiny_model), settings=FAST, limit=4)
    with pytest.raises(ResumeMismatchError, match="rows"):
        train_sft(run, tmp_path / "out", model=str(tiny_model), settings=FAST, limit=5, resume=True)
    again = train_sft(run, tmp_path / "out", model=str(tiny_model), settings=FAST, limit=4, resume=True)
    assert again.result["rows"] == 4


def test_an_example_that_does_not_fit_is_refused_before_training(review_files, run, tiny_model, tmp_path):
    labelled, _ = labelled_run(run)
    config = json.loads((tiny_model / "config.json").read_text())
    (tiny_model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 8}))
    with pytest.raises(ContextOverflowError, match=r"takes .* tokens, the model's context holds 8"):
        fit(labelled, tmp_path / "out", model=str(tiny_model), settings=FAST)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "processes"),
    [
        (("accelerate.commands.launch", "--cpu", "--num_processes", "1", "--num_machines", "1"), 1),
        # accelerate starts several processes without a GPU only through MPI
        (("torch.distributed.run", "--standalone", "--nproc-per-node", "2"), 2),
    ],
)
def test_a_launcher_trains_with_all_of_its_processes(launcher, processes, run, tiny_model, tmp_path):
    options = ["train", "sft", str(run.path), "--model", str(tiny_model), "-o", str(tmp_path / "out"), "--epochs", "2"]
    options += ["--set", "batch_size=4", "--set", "lora_r=4", "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
    command = [sys.executable, "-m", *launcher, "-m", "elicitor", *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout)["steps"] == 12 // processes
    labelled, _ = labelled_run(run)
    assert zero_shot(f"adapter:{tmp_path / 'out'}", labelled).shape == (24, 2)


def test_trackers_outlive_the_checkpoints_and_keep_standard_output_clean(run, tiny_model, tmp_path):
    for name in ("trackio", "tensorboardX"):
        pytest.importorskip(name)
    options = ["train", "sft", str(run.path), "--model", str(tiny_model), "-o", str(tmp_path / "out"), "--epochs", "1"]
    options += ["--report-to", "trackio,tensorboard", "--set", "batch_size=8", "--json"]
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "elicitor", *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["steps"] == 3
    assert list((tmp_path / "out" / "tensorboard").glob("events.out.tfevents.*"))
    with sqlite3.connect(tmp_path / "trackio" / "elicitor.db") as store:
        rows = store.execute("SELECT run_name, metrics FROM metrics").fetchall()
    assert {name for name, _ in rows} == {"out"}
    assert any("loss" in key for _, metrics in rows for key in json.loads(metrics))

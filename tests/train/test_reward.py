import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("trl")

from processes import running
from safetensors.numpy import load_file

from elicitor.errors import BackendError, DataError, ResumeMismatchError
from elicitor.train.reward import prepare_reward, train_reward
from elicitor.train.reward_fit import RewardSettings
from elicitor.train.reward_model import RewardModel

SETTINGS = RewardSettings(learning_rate=1e-3, checkpoint_steps=1)


class Stop(Exception):
    """A stand-in for a kill."""


def weights(folder):
    return load_file(folder / "adapter_model.safetensors")


def same(first, second):
    assert first.keys() == second.keys()
    return all(np.allclose(first[name], second[name], atol=1e-6) for name in first)


@pytest.fixture
def work(tiny, pairs_file):
    rest = pairs_file(40, start=24, name="rest.jsonl")
    return prepare_reward(pairs_file(24), model=str(tiny), rest=str(rest), labels="golden")


@pytest.fixture(scope="module")
def whole(tiny, pair_rows, tmp_path_factory):
    """An unbroken training, and its result."""
    folder = tmp_path_factory.mktemp("whole")
    for name, n, start in (("part", 24, 0), ("rest", 40, 24)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pair_rows(n, start=start)))
    made = prepare_reward(folder / "part.jsonl", model=str(tiny), rest=str(folder / "rest.jsonl"), labels="golden")
    return folder / "rm", train_reward(made, folder / "rm", SETTINGS, labels="golden")


def test_golden_pairs_train_a_model_that_labels_the_rest(whole):
    folder, result = whole
    assert (result["labelled"], result["relabelled"]["pairs"], result["final_pairs"]) == (24, 40, 64)
    found = [json.loads(line) for line in (folder / "relabelled.jsonl").read_text().splitlines()]
    gold = [json.loads(line) for line in (folder.parent / "rest.jsonl").read_text().splitlines()]
    right = [row["chosen"] == 1 - g["label"] for row, g in zip(found, gold, strict=True)]
    assert np.mean(right) > 0.9
    one, two = RewardModel.load(folder).score(["what 99", "what 99"], ["zzzz 99", "xy 99"])
    assert one > two


def test_nothing_but_models_labels_and_records_is_left(whole):
    folder, _ = whole
    left = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    models = ("adapter_config.json", "adapter_model.safetensors", "reward_model.json")
    assert left == [
        ".lock",
        *(f"{stage}/{name}" for stage in ("final", "initial") for name in models),
        *("progress.json", "relabelled.jsonl", "training.json", "training.yaml"),
    ]
    about = json.loads((folder / "final" / "reward_model.json").read_text())
    assert about["rendering"] == {"kind": "chat", "max_length": 512}
    assert about["labels"] == "golden"


def test_training_changes_adapter_and_head(whole):
    tensors = weights(whole[0] / "final")
    moved = {name for name, value in tensors.items() if "lora_B" in name and np.abs(value).max() > 0}
    assert len(moved) == sum("lora_B" in name for name in tensors) > 0
    (head,) = [value for name, value in tensors.items() if "score" in name]
    assert head.dtype == np.float32
    assert np.abs(head).max() > 0


@pytest.mark.parametrize(("stage", "at"), [("initial", 1), ("relabel", 1), ("final", 2)])
def test_a_training_broken_off_anywhere_ends_in_the_same_model(work, whole, tmp_path, monkeypatch, stage, at):
    monkeypatch.setattr("elicitor.train.relabel.PAIRS_AT_ONCE", 16)
    now = []

    def on_step(step):
        if stage in now[-1] and step.step == at:
            raise Stop

    def on_part(done, total):
        if stage == "relabel":
            raise Stop

    with pytest.raises(Stop):
        train_reward(
            work, tmp_path / "rm", SETTINGS, labels="golden", on_stage=now.append, on_step=on_step, on_part=on_part
        )
    if stage == "relabel":
        with (tmp_path / "rm" / "relabelled.jsonl").open("a") as file:
            file.write('{"id": "p4')
    train_reward(work, tmp_path / "rm", SETTINGS, labels="golden", resume=True)
    for name in ("initial", "final"):
        assert same(weights(tmp_path / "rm" / name), weights(whole[0] / name)), name


def test_a_second_epoch_that_is_gone_on_with_is_the_one_it_was(tiny, pairs_file, tmp_path):
    made = prepare_reward(pairs_file(16), model=str(tiny), labels="golden")
    settings = SETTINGS.model_copy(update={"epochs": 2, "batch_size": 2, "gradient_accumulation": 2})
    train_reward(made, tmp_path / "unbroken", settings, labels="golden")

    def on_step(step):
        if step.step == 7:
            raise Stop

    with pytest.raises(Stop):
        train_reward(made, tmp_path / "broken", settings, labels="golden", on_step=on_step)
    train_reward(made, tmp_path / "broken", settings, labels="golden", resume=True)
    assert same(weights(tmp_path / "broken" / "final"), weights(tmp_path / "unbroken" / "final"))


def test_other_data_or_settings_cannot_be_resumed(tiny, whole, pairs_file):
    made = prepare_reward(pairs_file(20), model=str(tiny), labels="golden")
    with pytest.raises(ResumeMismatchError, match="made with"):
        train_reward(made, whole[0], SETTINGS, labels="golden", resume=True)


def test_a_rest_that_is_labelled_already_is_refused(tiny, pairs_file):
    with pytest.raises(DataError, match="no pairs but those that have labels"):
        prepare_reward(pairs_file(4), model=str(tiny), rest=str(pairs_file(4)), labels="golden")


@pytest.mark.slow
def test_the_real_command_killed_at_random(tiny, whole, tmp_path):
    source = whole[0].parent
    start = [
        *(sys.executable, "-m", "elicitor", "train", "reward", str(source / "part.jsonl"), "--labels", "golden"),
        *("--rest", str(source / "rest.jsonl"), "--model", str(tiny), "-o", str(tmp_path / "rm"), "--resume"),
        *("--learning-rate", "1e-3", "--set", "checkpoint_steps=1"),
    ]
    draw = random.Random(0)
    kills = 0
    for _ in range(6):
        with running(start, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            begun = time.monotonic()
            while process.poll() is None and not any((tmp_path / "rm").rglob("*")) and time.monotonic() < begun + 60:
                time.sleep(0.05)
            try:
                process.communicate(timeout=draw.uniform(0, 6))
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGKILL)
                kills += 1
    subprocess.run(start, check=True, capture_output=True)
    assert kills
    assert same(weights(tmp_path / "rm" / "final"), weights(whole[0] / "final"))


@pytest.mark.slow
def test_a_launcher_trains_with_all_of_its_processes(tiny, whole, tmp_path):
    source = whole[0].parent
    launcher = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    words = ["train", "reward", str(source / "part.jsonl"), "--labels", "golden", "--model", str(tiny)]
    words += ["--rest", str(source / "rest.jsonl"), "-o", str(tmp_path / "rm"), "--learning-rate", "1e-3"]
    done = subprocess.run(
        [sys.executable, "-m", *launcher, "-m", "elicitor", *words, "--set", "gradient_accumulation=2"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in (tmp_path / "rm" / "relabelled.jsonl").read_text().splitlines()]
    rows = [json.loads(line) for line in (source / "rest.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [row["id"] for row in rows]
    assert np.mean([line["chosen"] == 1 - row["label"] for line, row in zip(lines, rows, strict=True)]) > 0.9


def test_without_epochs_the_head_alone_is_fitted(tiny, pairs_file, tmp_path):
    made = prepare_reward(pairs_file(24), model=str(tiny), labels="golden")
    train_reward(made, tmp_path / "rm", SETTINGS.model_copy(update={"epochs": 0}), labels="golden")
    tensors = weights(tmp_path / "rm" / "final")
    assert all(np.abs(value).max() == 0 for name, value in tensors.items() if "lora_B" in name)
    one, two = RewardModel.load(tmp_path / "rm").score(["what 99", "what 99"], ["zzzz 99", "xy 99"])
    assert one > two


@pytest.mark.long
def test_golden_helpful_pairs_beat_chance(shared_data, tmp_path):
    from elicitor.models import bundled_file
    from elicitor.reward_evaluation import evaluate_reward

    try:
        bundled_file()
    except BackendError as error:
        pytest.skip(str(error))
    rows = (shared_data / "hh_helpful_pairs.jsonl").read_text().splitlines()
    dealt = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    for name, part in (("test", dealt[:300]), ("train", dealt[400:800])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(part) + "\n")
    made = prepare_reward(tmp_path / "train.jsonl", model="bundled", labels="golden")
    train_reward(made, tmp_path / "rm", RewardSettings(epochs=0), labels="golden")
    result = evaluate_reward([tmp_path / "rm"], [str(tmp_path / "test.jsonl")])
    assert result.rows[1].accuracy.lower > 0.5

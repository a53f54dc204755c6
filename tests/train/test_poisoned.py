"""Pickled files in every folder that a command loads from: none of them is ever opened for more than tensors."""

import errno
import json
import shutil

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from poison import poison  # noqa: E402

from elicitor import load_backend  # noqa: E402
from elicitor.errors import BackendError, DataError, DiskError  # noqa: E402
from elicitor.train.pairs import labelled_pairs  # noqa: E402
from elicitor.train.reward_fit import RewardSettings, fit_reward_model  # noqa: E402
from elicitor.train.reward_model import RewardModel  # noqa: E402
from elicitor.train.sft import SftSettings, fit, labelled_run  # noqa: E402

EVERYWHERE = (
    "pytorch_model.bin",
    "adapter_model.bin",
    "training_args.bin",
    "optimizer.pt",
    "optimizer.bin",
    "scheduler.pt",
    "rng_state.pth",
    "scaler.pt",
    "model.joblib",
    "model.pkl",
    "states.npy",
    "states.npz",
)
SETTINGS = SftSettings(epochs=2, batch_size=4, lora_r=4, learning_rate=1e-2, checkpoint_steps=3)


class Stop(Exception):
    pass


def stop_at(step):
    def stop(done):
        if done.step == step:
            raise Stop

    return stop


def test_the_poison_works(tmp_path):
    """Otherwise nothing below would mean anything."""
    import pickle

    import numpy as np

    for name, load in (
        ("a.bin", lambda path: torch.load(path, weights_only=False)),
        ("a.npy", lambda path: np.load(path, allow_pickle=True)),
        ("a.npz", lambda path: np.load(path, allow_pickle=True)["x"]),
        ("a.joblib", lambda path: pickle.loads(path.read_bytes())),
    ):
        mark = tmp_path / f"{name}.ran"
        load(poison(tmp_path, name, mark=mark))
        assert mark.exists()


@pytest.fixture
def labelled(run):
    return labelled_run(run)[0]


@pytest.fixture
def mark(tmp_path):
    made = tmp_path / "ran"
    yield made
    assert not made.exists()


def test_poison_beside_a_model_an_adapter_and_a_checkpoint_is_left_alone(labelled, tiny_model, tmp_path, mark):
    out = tmp_path / "out"
    with pytest.raises(Stop):
        fit(labelled, out, model=str(tiny_model), settings=SETTINGS, on_step=stop_at(5))
    (checkpoint,) = (out / "checkpoints").glob("checkpoint-*")
    read_on_resume = {"pytorch_model.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "scaler.pt"}
    for folder in (tiny_model, out, checkpoint):
        for name in EVERYWHERE:
            if folder != checkpoint or name not in read_on_resume:
                poison(folder, name, mark=mark)
    done = fit(labelled, out, model=str(tiny_model), settings=SETTINGS, resume=True)
    assert done.result["resumed_at_step"] == 3
    for name in EVERYWHERE:
        poison(out, name, mark=mark)
    assert load_backend(done.model).score  # base and adapter, both with poison beside


@pytest.mark.parametrize(
    "name",
    [
        "optimizer.pt",
        pytest.param("pytorch_model.bin", marks=pytest.mark.slow),
        pytest.param("scheduler.pt", marks=pytest.mark.slow),
        pytest.param("rng_state.pth", marks=pytest.mark.slow),
    ],
)
def test_poison_in_the_place_of_a_checkpoints_own_files_is_refused(labelled, tiny_model, tmp_path, mark, name):
    out = tmp_path / "out"
    with pytest.raises(Stop):
        fit(labelled, out, model=str(tiny_model), settings=SETTINGS, on_step=stop_at(5))
    (checkpoint,) = (out / "checkpoints").glob("checkpoint-*")
    poison(checkpoint, name, mark=mark)
    said = r"checkpoint-3 holds something else than a training's state \(UnpicklingError\); remove it"
    with pytest.raises(DataError, match=said):
        fit(labelled, out, model=str(tiny_model), settings=SETTINGS, resume=True)


def halve(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("adapter_model.safetensors", halve),
        ("optimizer.pt", halve),
        # Nothing reads it into a training without one.
        ("scaler.pt", lambda file: torch.save({"scale": 1.0}, file)),
    ],
)
def test_a_damaged_checkpoint_is_one_line(labelled, tiny_model, tmp_path, name, damage):
    out = tmp_path / "out"
    with pytest.raises(Stop):
        fit(labelled, out, model=str(tiny_model), settings=SETTINGS, on_step=stop_at(5))
    (checkpoint,) = (out / "checkpoints").glob("checkpoint-*")
    damage(checkpoint / name)
    with pytest.raises(DataError, match="checkpoint-3 holds something else than a training's state"):
        fit(labelled, out, model=str(tiny_model), settings=SETTINGS, resume=True)
    shutil.rmtree(checkpoint)
    assert fit(labelled, out, model=str(tiny_model), settings=SETTINGS, resume=True).result["resumed_at_step"] == 0


def test_a_disk_that_takes_no_more_is_not_a_damaged_checkpoint(labelled, tiny_model, tmp_path, monkeypatch):
    from elicitor.train.lora import StepCallback

    out = tmp_path / "out"
    with pytest.raises(Stop):
        fit(labelled, out, model=str(tiny_model), settings=SETTINGS, on_step=stop_at(5))

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", str(out / "progress.json"))

    monkeypatch.setattr(StepCallback, "on_train_begin", full)
    with pytest.raises(DiskError, match=r"progress\.json cannot be written: No space left"):
        fit(labelled, out, model=str(tiny_model), settings=SETTINGS, resume=True, on_step=stop_at(99))


@pytest.mark.parametrize("gone", ["model.safetensors", "adapter_model.safetensors"])
def test_poison_in_the_place_of_weights_is_refused(labelled, tiny_model, tmp_path, mark, gone):
    done = fit(labelled, tmp_path / "out", model=str(tiny_model), settings=SETTINGS)
    folder = tiny_model if gone.startswith("model") else tmp_path / "out"
    (folder / gone).unlink()
    for name in EVERYWHERE:
        poison(folder, name, mark=mark)
    with pytest.raises(BackendError, match=r"could not be loaded|pickled weights are not read"):
        load_backend(done.model)


def test_poison_in_a_reward_model_is_left_alone_or_refused(tiny, pair_rows, tmp_path, mark):
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pair_rows(8)))
    items = labelled_pairs(tmp_path / "x.jsonl", "golden").preferences
    folder = tmp_path / "rm"
    fit_reward_model(lambda: iter(items), folder, settings=RewardSettings(), base_name=str(tiny), facts={})
    for name in EVERYWHERE:
        poison(folder, name, mark=mark)
    assert RewardModel.load(folder).score(["a"], ["b"]).shape == (1,)
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(DataError, match=r"adapter_model\.safetensors.*pickled weights are not read"):
        RewardModel.load(folder)

import json

import numpy as np
import pytest

pytest.importorskip("trl")

import torch

from elicitor.errors import BackendError, DataError, ResumeMismatchError
from elicitor.train.head_start import fit_head, pooled_states
from elicitor.train.pairs import labelled_pairs
from elicitor.train.reward_fit import RewardSettings, fit_reward_model
from elicitor.train.reward_model import RewardModel, load_base, score_tokens


@pytest.fixture(scope="module")
def folder(tiny, pair_rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("rm")
    (path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pair_rows(16)))
    items = labelled_pairs(path / "x.jsonl", "golden").preferences
    fit_reward_model(lambda: iter(items), path / "rm", settings=RewardSettings(), base_name=str(tiny), facts={})
    return path / "rm"


def test_scores_do_not_depend_on_what_else_is_in_the_batch(folder):
    model = RewardModel.load(folder)
    prompts = [f"question {'x' * (3 * i)}" for i in range(9)]
    replies = [f"reply {'y' * (5 * (9 - i))}" for i in range(9)]
    together = model.score(prompts, replies)
    alone = [float(model.score([p], [r])[0]) for p, r in zip(prompts, replies, strict=True)]
    assert together == pytest.approx(alone, abs=1e-4)
    assert model.score(prompts, replies, batch_tokens=1) == pytest.approx(alone, abs=1e-4)
    assert model(prompts, replies) == together.tolist()


def test_the_score_is_the_head_at_the_end_of_the_sequence(folder):
    model = RewardModel.load(folder)
    ids, _ = model.rendering.tokens(model.base.tokenizer, "why", "zz")
    assert ids[-1] == model.base.tokenizer.eos_token_id != model.base.tokenizer.pad_token_id
    with torch.inference_mode():
        inner = model.model.base_model.model
        last = inner.model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
        by_hand = float(inner.score.modules_to_save["default"].weight[0] @ last)
    assert model.score(["why"], ["zz"])[0] == pytest.approx(by_hand, abs=1e-5)


def test_rewards_are_computed_in_float32_above_a_bfloat16_base(folder):
    model = RewardModel.load(folder, dtype="bfloat16")
    rewards = model.score([f"question {i}" for i in range(20)], [f"reply {i}" for i in range(20)])
    assert not np.array_equal(torch.tensor(rewards).bfloat16().double().numpy(), rewards)


def test_long_prompts_are_counted(folder):
    model = RewardModel.load(folder)
    model.score(["x" * 600, "short"], ["a", "b"])
    assert model.truncated == 1


def test_a_finished_folder_and_the_right_base_are_needed(folder, tiny, tmp_path):
    with pytest.raises(DataError, match="no finished reward model"):
        RewardModel.load(tmp_path)
    import shutil

    other = tmp_path / "other"
    shutil.copytree(tiny, other)
    weights = other / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(ResumeMismatchError, match="trained on other weights"):
        RewardModel.load(folder, base=str(other))


def test_damaged_and_incomplete_adapters_are_refused(folder, tmp_path):
    import shutil

    copy = tmp_path / "rm"
    shutil.copytree(folder, copy)
    weights = copy / "adapter_model.safetensors"
    content = weights.read_bytes()
    for broken in (content[:-1], content.replace(b"score.weight", b"scary.weight")):
        weights.write_bytes(broken)
        with pytest.raises(BackendError, match=r"the adapter in .* could not be loaded: .*; train it again"):
            RewardModel.load(copy)


def test_pickled_adapters_are_refused(folder, tmp_path):
    import shutil

    copy = tmp_path / "rm"
    shutil.copytree(folder, copy)
    (copy / "adapter_model.safetensors").unlink()
    torch.save({}, copy / "adapter_model.bin")
    with pytest.raises(DataError, match=r"adapter_model\.safetensors"):
        RewardModel.load(copy)


def test_rewards_that_are_not_finite_stop_the_work(tiny):
    base = load_base(str(tiny))
    with torch.no_grad():
        base.model.score.weight.fill_(float("nan"))
    with pytest.raises(BackendError, match="1 rewards are not finite"):
        score_tokens(base.model, [[5, 6]], padding=0)


def test_the_probe_reads_what_the_head_reads(tiny):
    base = load_base(str(tiny))
    sequences = [[5, 6, 7], [8, 9], [10]]
    with torch.no_grad():
        base.model.score.weight.normal_(generator=torch.Generator().manual_seed(0))
    padding = base.tokenizer.pad_token_id
    states = pooled_states(base.model.eval(), sequences, padding=padding)
    by_probe = states @ base.model.score.weight[0].detach().numpy()
    assert score_tokens(base.model, sequences, padding=padding) == pytest.approx(by_probe, abs=1e-5)


def test_the_probe_finds_a_direction_and_its_penalty_shortens_it():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=8)
    differences = rng.normal(size=(400, 8)) * [1, 1, 1, 1, 9, 9, 9, 9]
    differences *= np.sign(differences @ truth)[:, None]
    strong, weak = (fit_head(differences.astype(np.float32), l2=l2) for l2 in (1.0, 0.001))
    assert np.mean(differences @ weak > 0) > 0.98
    assert np.linalg.norm(strong) < np.linalg.norm(weak)


def test_one_pair_gives_the_hand_worked_head():
    # In units of its own size the difference is 1: w minimises log(1 + e^-w) + l2 w^2, so sigmoid(-w) = 2 l2 w.
    w = 2.0 * fit_head(np.array([[2.0]], dtype=np.float32), l2=0.1)[0]
    assert 1 / (1 + np.exp(w)) == pytest.approx(0.2 * w, abs=1e-5)

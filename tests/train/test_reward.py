import json

import numpy as np
import pytest

pytest.importorskip("trl")

from elicitor.train.reward import prepare_reward, train_reward
from elicitor.train.reward_fit import RewardSettings
from elicitor.train.reward_model import RewardModel


def test_golden_pairs_train_a_model_that_labels_the_rest(tiny, pairs_file, tmp_path):
    part, rest = pairs_file(24), pairs_file(40, start=24, name="rest.jsonl")
    work = prepare_reward(part, model=str(tiny), rest=str(rest), labels="golden")
    settings = RewardSettings(learning_rate=1e-3)
    result = train_reward(work, tmp_path / "rm", settings, labels="golden")
    assert (result["labelled"], result["relabelled"]["pairs"], result["final_pairs"]) == (24, 40, 64)
    found = [json.loads(line) for line in (tmp_path / "rm" / "relabelled.jsonl").read_text().splitlines()]
    gold = [json.loads(line) for line in rest.read_text().splitlines()]
    right = [row["chosen"] == 1 - g["label"] for row, g in zip(found, gold, strict=True)]
    assert np.mean(right) > 0.9
    model = RewardModel.load(tmp_path / "rm")
    one, two = model.score(["what 99", "what 99"], ["zzzz 99", "xy 99"])
    assert one > two
    left = sorted(str(path.relative_to(tmp_path / "rm")) for path in (tmp_path / "rm").rglob("*") if path.is_file())
    assert left == [".lock"] + [
        *(f"{stage}/{name}" for stage in ("final", "initial") for name in
          ("adapter_config.json", "adapter_model.safetensors", "reward_model.json")),
        "relabelled.jsonl", "training.json", "training.yaml",
    ]

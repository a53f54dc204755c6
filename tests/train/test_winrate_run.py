"""`elicitor.winrate.win_rate` from models to figures; what leads mean is in test_winrate.py."""

import json

import numpy as np
import pytest

pytest.importorskip("trl")

from elicitor.errors import ConfigError, DataError, ResumeMismatchError
from elicitor.train.reward import prepare_reward, train_reward
from elicitor.train.reward_fit import RewardSettings
from elicitor.winrate import win_rate

DRAWING = {"max_new_tokens": 5, "seed": 3}


class Stop(Exception):
    """A stand-in for a kill."""


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"question": f"what {i}"}) + "\n" for i in range(6)))
    return str(path)


@pytest.fixture(scope="module")
def judge(tiny, pair_rows, tmp_path_factory):
    """Folder of a small reward model."""
    folder = tmp_path_factory.mktemp("judge")
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pair_rows(12)))
    made = prepare_reward(folder / "pairs.jsonl", model=str(tiny), labels="golden")
    train_reward(made, folder / "rm", RewardSettings(epochs=1), labels="golden")
    return str(folder / "rm")


def test_all_judges_see_the_same_responses(tiny, prompts, judge, tmp_path):
    both = [judge, str(tiny)]
    rates, duels = win_rate(str(tiny), str(tiny), prompts, judges=both, output_dir=tmp_path / "out", **DRAWING)
    assert [rate.judge for rate in rates] == both
    assert {duel.prompt for duel in duels} == {f"what {i}" for i in range(6)}
    assert [rate.shown_first is None for rate in rates] == [True, False]
    alone, same = win_rate(str(tiny), str(tiny), prompts, judges=both[1:], **DRAWING)
    assert same == duels
    assert alone[0] == rates[1]


def test_killed_between_its_stages_it_does_nothing_twice(tiny, prompts, judge, tmp_path):
    stages = []

    def kill(name):
        stages.append(name)
        if "judges" in name and len(stages) < 5:
            raise Stop

    chosen = {"judges": [judge, "fake"], "output_dir": tmp_path / "out", "on_stage": kill, **DRAWING}
    with pytest.raises(Stop):
        win_rate(str(tiny), str(tiny), prompts, **chosen)
    with pytest.raises(Stop):
        win_rate(str(tiny), str(tiny), prompts, resume=True, **chosen)
    rates, _ = win_rate(str(tiny), str(tiny), prompts, resume=True, **chosen)
    assert [name.partition(" ")[0] for name in stages] == ["responses", "responses", judge, judge, judge, "fake"]
    again, _ = win_rate(str(tiny), str(tiny), prompts, judges=[judge, "fake"], **DRAWING)
    assert again == rates


def test_other_settings_or_a_policy_trained_anew_cannot_be_resumed(tiny, prompts, tmp_path):
    import shutil

    policy = tmp_path / "policy"
    shutil.copytree(tiny, policy)
    chosen = {"judges": ["fake"], "output_dir": tmp_path / "out", **DRAWING}
    win_rate(str(policy), str(tiny), prompts, **chosen)
    with pytest.raises(ConfigError, match="--resume"):
        win_rate(str(policy), str(tiny), prompts, **chosen)
    with pytest.raises(ResumeMismatchError, match="temperature"):
        win_rate(str(policy), str(tiny), prompts, resume=True, temperature=0.5, **chosen)
    from safetensors.numpy import load_file, save_file

    file = policy / "model.safetensors"
    save_file({name: value + np.float32(1) for name, value in load_file(file).items()}, file, {"format": "pt"})
    with pytest.raises(ResumeMismatchError, match="policies"):
        win_rate(str(policy), str(tiny), prompts, resume=True, **chosen)


def test_prompts_that_do_not_fit_are_an_error(tiny, prompts):
    with pytest.raises(DataError, match="no prompt of at most 2 tokens"):
        win_rate(str(tiny), str(tiny), prompts, judges=["fake"], max_prompt_tokens=2)


def test_a_models_own_way_of_sampling_is_not_used(tiny, opinionated, prompts):
    _, duels = win_rate(str(tiny), str(tiny), prompts, judges=["fake"], **DRAWING)
    _, same = win_rate(str(opinionated), str(opinionated), prompts, judges=["fake"], **DRAWING)
    assert same == duels

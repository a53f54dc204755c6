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

from safetensors.numpy import load_file
from transformers import AutoTokenizer

from elicitor.errors import BackendError, ConfigError, DataError, ResumeMismatchError
from elicitor.models import load_backend
from elicitor.notices import ElicitorWarning
from elicitor.train.folder import drop_scratch
from elicitor.train.policy import prompt_ids, read_prompts
from elicitor.train.rendering import messages
from elicitor.train.rl import hacking_signs, in_order_of_steps, reward_gain, split_prompts, train_rl
from elicitor.train.rl_log import Point, RlLog
from elicitor.train.rl_settings import RlSettings
from elicitor.train.settings import build_settings

SMALL = RlSettings(
    steps=3,
    batch_size=4,
    gradient_accumulation=1,
    group_size=4,
    max_new_tokens=6,
    eval_prompts=2,
    test_prompts=4,
    eval_samples=2,
    eval_steps=1,
    learning_rate=1e-2,
    checkpoint_steps=1,
)


class Stop(Exception):
    """A stand-in for a kill."""


def letters(prompts, responses):
    return np.array([sum(c.isascii() and c.isalpha() for c in text) / 10 for text in responses])


def weights(folder):
    return load_file(folder / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    path.write_text("".join(json.dumps({"id": f"{i}", "question": f"q {i}"}) + "\n" for i in range(40)))
    return str(path)


@pytest.fixture(scope="module")
def whole(tiny, prompts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rl") / "rl"
    return folder, train_rl(prompts, folder, SMALL, reward=letters, reward_name="letters", model=str(tiny))


def test_what_a_training_leaves(whole):
    folder, result = whole
    assert sorted(path.name for path in folder.iterdir()) == [
        *(".lock", "adapter_config.json", "adapter_model.safetensors", "base.json", "curve.jsonl"),
        *("progress.json", "rollouts.jsonl", "samples.jsonl", "training.json", "training.yaml"),
    ]
    assert [point["step"] for point in result["curve"]] == [0, 1, 2, 3]
    best = max(result["curve"], key=lambda point: point["reward"])
    assert result["best_step"] == best["step"]
    rollouts = [json.loads(line) for line in (folder / "rollouts.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rollouts] == [0] * 4 + [1] * 4 + [2] * 4
    assert all(row["reward"] == letters([""], [row["response"]])[0] for row in rollouts)
    groups = {tuple(row["prompt"] for row in rollouts if row["step"] == step) for step in range(3)}
    assert all(len(set(group)) == 1 for group in groups)


def test_a_models_own_way_of_sampling_is_not_used(whole, opinionated, prompts, tmp_path):
    train_rl(prompts, tmp_path / "rl", SMALL, reward=letters, reward_name="letters", model=str(opinionated))
    for name in ("rollouts.jsonl", "curve.jsonl", "samples.jsonl"):
        assert (tmp_path / "rl" / name).read_text() == (whole[0] / name).read_text()


def test_held_out_prompts_are_not_trained_on(whole):
    folder, result = whole
    trained = {json.loads(line)["prompt"] for line in (folder / "rollouts.jsonl").read_text().splitlines()}
    tested = {json.loads(line)["prompt"] for line in (folder / "samples.jsonl").read_text().splitlines()}
    assert len(tested) == 4
    assert not trained & tested
    assert result["prompts"] == {"train": 34, "select": 2, "test": 4}


def test_the_reported_gain_is_that_of_the_samples(whole):
    folder, result = whole
    rows = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    gain = np.mean([row["policy_reward"] - row["start_reward"] for row in rows])
    assert result["gain"]["value"] == pytest.approx(gain)
    assert result["gain"]["n"] == 4


def test_the_policy_is_a_model_by_its_name(whole):
    assert load_backend(f"adapter:{whole[0]}").max_context_tokens == 512


@pytest.mark.parametrize("at", [1, 2])
def test_a_training_broken_off_ends_in_the_same_policy(tiny, prompts, whole, tmp_path, at):
    def on_step(step):
        if step.step == at + 1:
            raise Stop

    options = {"reward": letters, "reward_name": "letters", "model": str(tiny)}
    with pytest.raises(Stop):
        train_rl(prompts, tmp_path / "rl", SMALL, on_step=on_step, **options)
    for name in ("rollouts.jsonl", "curve.jsonl"):
        with (tmp_path / "rl" / name).open("a") as file:
            file.write('{"step": 9')
    result = train_rl(prompts, tmp_path / "rl", SMALL, resume=True, **options)
    for name in ("rollouts.jsonl", "curve.jsonl", "samples.jsonl"):
        assert (tmp_path / "rl" / name).read_text() == (whole[0] / name).read_text(), name
    assert result["best_step"] == whole[1]["best_step"]
    assert all(np.allclose(weights(tmp_path / "rl")[key], value, atol=1e-6) for key, value in weights(whole[0]).items())
    with pytest.raises(ResumeMismatchError, match="reward"):
        train_rl(prompts, tmp_path / "rl", SMALL, resume=True, **{**options, "reward_name": "other"})


def test_a_model_without_a_chat_template_and_rloo(plain, prompts, tmp_path):
    seen = []

    def reward(asked, responses):
        seen.extend(responses)
        return letters(asked, responses)

    settings = SMALL.model_copy(update={"algorithm": "rloo", "steps": 1})
    result = train_rl(prompts, tmp_path / "rl", settings, reward=reward, reward_name="r", model=str(plain))
    assert len(result["curve"]) == 2
    assert not any("Human:" in text for text in seen)


def test_a_policy_that_strays_is_stopped(tiny, prompts, tmp_path):
    settings = SMALL.model_copy(update={"max_kl": 1e-6, "steps": 20, "beta": 0.0})
    result = train_rl(prompts, tmp_path / "rl", settings, reward=letters, reward_name="r", model=str(tiny))
    assert result["stopped_by_kl"]
    assert len(result["curve"]) < 20


def test_rewards_that_are_no_numbers_stop_the_work(tiny, prompts, tmp_path):
    with pytest.raises(BackendError, match="3 of them finite"):
        train_rl(
            prompts,
            tmp_path / "rl",
            SMALL,
            reward=lambda asked, said: np.array([float("nan"), *[0.0] * (len(said) - 1)]),
            reward_name="r",
            model=str(tiny),
        )


def test_the_gain_is_paired_by_prompt():
    start = np.array([[0.0, 2.0], [10.0, 12.0], [20.0, 22.0], [30.0, 32.0]])
    gain = reward_gain(start, start + 1, seed=0)
    assert (gain.value, gain.lower, gain.upper) == (1.0, 1.0, 1.0)
    assert reward_gain(start, start[::-1], seed=0).value == 0


def test_signs_of_a_gamed_reward():
    start = Point(0, 0.0, 0.0, 20.0, 0.9, 0.95)
    assert hacking_signs([start, Point(9, 1.0, 3.0, 22.0, 0.9, 0.9)]) == []
    signs = " ".join(hacking_signs([start, Point(9, 9.0, 50.0, 48.0, 0.0, 0.3)]))
    assert "48 tokens" in signs
    assert "0.95 to 0.30" in signs
    assert "90% to 0%" in signs


def test_prompts_are_read_once_each(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"prompt": "a"}\n{"question": "b"}\n{"prompt": "a"}\n')
    assert read_prompts(str(path)) == ["a", "b"]
    path.write_text('{"text": "a"}\n')
    with pytest.raises(DataError, match="none of the columns question, prompt, instruction"):
        read_prompts(str(path))


def test_prompts_in_which_trl_would_read_a_control_token_are_left_out(tiny, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    control = tokenizer.eos_token
    path = tmp_path / "x.jsonl"
    texts = [f"q {i}" for i in range(12)] + [f"q {control} answer", control]
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    with pytest.warns(ElicitorWarning, match="2 of 14 prompts are left out: TRL would read a control token"):
        dealt = split_prompts(str(path), tokenizer, SMALL)
    assert {*dealt.train, *dealt.select, *dealt.test} == set(texts[:12])
    assert (dealt.control_tokens, dealt.too_long) == (2, 0)

    def as_trl(text):
        return tokenizer.apply_chat_template(messages(text), add_generation_prompt=True, return_dict=False)

    assert all(as_trl(text) == prompt_ids(tokenizer, text) for text in texts[:12])
    assert all(as_trl(text) != prompt_ids(tokenizer, text) for text in texts[12:])


def test_too_few_prompts_and_uneven_groups_are_refused(tiny, prompts, tmp_path):
    with pytest.raises(DataError, match="6 are held out"):
        train_rl(prompts, tmp_path / "rl", SMALL, reward=letters, reward_name="r", model=str(tiny), limit=5)
    with pytest.raises(ConfigError, match="multiple of group_size"):
        build_settings(RlSettings, flags={"batch_size": 3})


@pytest.mark.slow
def test_a_reward_for_letters_is_learnt(tiny, prompts, tmp_path):
    settings = SMALL.model_copy(
        update={
            "steps": 40,
            "batch_size": 16,
            "group_size": 8,
            "eval_steps": 10,
            "test_prompts": 16,
            "eval_samples": 4,
            "max_new_tokens": 10,
            "max_kl": 1000.0,
        }
    )
    result = train_rl(prompts, tmp_path / "rl", settings, reward=letters, reward_name="r", model=str(tiny))
    assert result["gain"]["lower"] > 0


REWARD = "import numpy\ndef letters(p, r):\n    return numpy.array([sum(c.isalpha() for c in t) / 10 for t in r])\n"


@pytest.mark.slow
def test_a_launcher_trains_with_all_of_its_processes(tiny, prompts, tmp_path):
    (tmp_path / "rewards.py").write_text(REWARD)
    settings = ["steps=2", "batch_size=4", "gradient_accumulation=1", "group_size=4", "max_new_tokens=6"]
    settings += ["eval_prompts=2", "test_prompts=4", "eval_samples=2", "eval_steps=1"]
    launcher = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    words = ["train", "rl", prompts, "--reward", "rewards:letters", "--model", str(tiny), "-o", str(tmp_path / "rl")]
    path = os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))
    done = subprocess.run(
        [sys.executable, "-m", *launcher, "-m", "elicitor", *words, *(x for text in settings for x in ("--set", text))],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rollouts = [json.loads(line) for line in (tmp_path / "rl" / "rollouts.jsonl").read_text().splitlines()]
    # Two processes draw four responses each, to two prompts together.
    assert [row["step"] for row in rollouts] == [0] * 8 + [1] * 8
    assert [len({row["prompt"] for row in rollouts if row["step"] == step}) for step in (0, 1)] == [2, 2]


@pytest.mark.slow
def test_the_real_command_killed_at_random(tiny, prompts, tmp_path):
    (tmp_path / "rewards.py").write_text(REWARD)
    settings = ["steps=6", "batch_size=4", "gradient_accumulation=1", "group_size=4", "max_new_tokens=6"]
    settings += ["eval_prompts=2", "test_prompts=4", "eval_samples=2", "eval_steps=2", "checkpoint_steps=1"]

    def start(output):
        more = [word for text in settings for word in ("--set", text)]
        words = ["train", "rl", prompts, "--reward", "rewards:letters", "--model", str(tiny), "-o", str(output)]
        return [sys.executable, "-m", "elicitor", *words, "--resume", *more]

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))}
    draw = random.Random(1)
    kills = 0
    for _ in range(5):
        process = subprocess.Popen(
            start(tmp_path / "rl"), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        begun = time.monotonic()
        while (
            process.poll() is None and not (tmp_path / "rl" / "curve.jsonl").exists() and time.monotonic() < begun + 90
        ):
            time.sleep(0.05)
        try:
            process.wait(timeout=draw.uniform(0, 4))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
    for output in (tmp_path / "rl", tmp_path / "unbroken"):
        subprocess.run(start(output), env=environment, check=True, capture_output=True)
    assert kills
    for name in ("rollouts.jsonl", "curve.jsonl", "samples.jsonl"):
        assert (tmp_path / "rl" / name).read_text() == (tmp_path / "unbroken" / name).read_text(), name


def test_prompts_are_dealt_anew_for_each_pass_and_never_by_the_process():
    settings = RlSettings(steps=6, batch_size=4, gradient_accumulation=1, group_size=2)
    dealt = in_order_of_steps(["a", "b", "c", "d", "e"], settings)
    assert len(dealt) == 12
    assert sorted(dealt[:5]) == sorted(dealt[5:10]) == ["a", "b", "c", "d", "e"]
    assert dealt[:5] != dealt[5:10]
    assert dealt == in_order_of_steps(["a", "b", "c", "d", "e"], settings)


def test_what_was_best_at_the_last_checkpoint_is_there_for_a_kill_before_the_next(tmp_path):
    def point(step, reward):
        (log.best_folder(step)).mkdir()
        log.set_best(Point(step, reward, 0.0, 1.0, 1.0, 1.0))
        log.add_point(Point(step, reward, 0.0, 1.0, 1.0, 1.0))

    log = RlLog(tmp_path, steps=6, max_kl=30)
    point(0, 1.0)
    point(1, 2.0)
    checkpoint = tmp_path / "checkpoints" / "checkpoint-2"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text("{}")
    point(3, 3.0)
    # Killed here, the training goes back to step 2, whose best was step 1.
    assert log.best_folder(1).is_dir()
    log.cut(2)
    assert log.best()["step"] == 1
    assert [one.step for one in log.points()] == [0, 1]
    drop_scratch(log.folder)
    assert not list(tmp_path.glob("best*"))


def test_what_has_gone_too_far_is_never_the_best(tmp_path):
    log = RlLog(tmp_path, steps=6, max_kl=0.2)
    for step, reward, kl in ((0, 3.2, 0.0), (3, 3.1, 0.1), (6, 9.9, 0.3)):
        log.add_point(Point(step, reward, kl, 1.0, 1.0, 1.0))
    log.cut(6)
    assert log.best()["step"] == 0
    assert [point.step for point in log.points()] == [0, 3, 6]


def test_a_reward_function_is_found_in_the_working_folder(tmp_path, monkeypatch):
    from elicitor.progress import Display
    from elicitor.progress_reward import _rewarder

    (tmp_path / "my_own_reward.py").write_text("def score(prompts, responses):\n    return [1.0] * len(responses)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    with Display("train rl") as display:
        found, name = _rewarder("my_own_reward:score", "auto", "auto", display)
        assert (found(["a"], ["b"]), name) == ([1.0], "my_own_reward:score")
        for wrong in (":score", "my_own_reward:scores", "no_such_module:score"):
            with pytest.raises(
                ConfigError, match="give the folder of a reward model, or an importable MODULE:FUNCTION"
            ):
                _rewarder(wrong, "auto", "auto", display)

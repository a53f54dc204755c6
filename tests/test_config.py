"""Settings: precedence, typos, bounds, round trip."""

import re
from pathlib import Path

import pytest

from elicitor.config import build_config, deciding_settings, read_config, setting_keys, split_remote
from elicitor.errors import ConfigError


def test_flags_win_over_the_file_and_overrides_over_flags(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("data: a.jsonl\ntask: sentiment\nseed: 1\nobjective: {alpha: 30, calibration: batch}\n")
    config = build_config(
        file=file, flags={"seed": 2, "limit": None, "objective.alpha": 40.0}, overrides=["objective.alpha=20"]
    )
    assert (config.seed, config.limit) == (2, None)
    assert (config.objective.alpha, config.objective.calibration) == (20, "batch")


def test_resolved_settings_survive_the_round_trip(tmp_path):
    config = build_config(
        flags={"data": "ü.jsonl", "task": {"name": "t", "template": "{x}:", "labels": ["a", "b"]}},
        overrides=["objective.calibration=batch", "objective.class_prior=[0.3, 0.7]", "ensemble.rounds=4"],
    )
    (tmp_path / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    assert read_config(tmp_path / "config.yaml") == config


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["objective.alhpa=3"], r"unknown setting 'objective.alhpa'; did you mean 'objective.alpha'\?"),
        (["objective.alpha=0"], r"'objective.alpha' got 0"),
        (["icm.beta=2"], "icm.beta: search is ensemble, which has no such setting; add --search icm"),
        (["objective.alpha=.nan"], r"'objective.alpha' got nan"),
        (["seed"], r"--set got 'seed'; write --set key=value"),
        (["seed.x=1"], r"'seed' got \{'x': 1\}"),
        (["objective.class_prior=[0.5,0.5]"], r"class_prior needs calibration: batch"),
        (["objective={calibration: batch, class_prior: [0.5, 0.4]}"], r"sum to 1"),
        (["search=annealing"], r"'search' got 'annealing'"),
        (["seed=[1"], r"not a YAML value"),
        (["limit=0"], r"'limit' got 0"),
    ],
)
def test_mistakes_are_named(overrides, message):
    with pytest.raises(ConfigError, match=message) as caught:
        build_config(flags={"data": "a.jsonl", "task": "sentiment"}, overrides=overrides)
    assert "\n" not in str(caught.value)


def test_missing_setting_is_named():
    with pytest.raises(ConfigError, match="'data' is missing; give"):
        build_config(flags={"task": "sentiment"})


@pytest.mark.parametrize("content", ["a: [", "- 1", "\x00"])
def test_broken_files_are_named(tmp_path, content):
    file = tmp_path / "run.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=r"run\.yaml"):
        build_config(file=file)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no\.yaml does not exist"):
        build_config(file=tmp_path / "no.yaml")


def test_every_setting_is_described():
    undescribed = [key for key, text in setting_keys().items() if not text]
    assert undescribed == []


def test_settings_that_cannot_change_a_result_are_those_of_the_docs():
    config = build_config(flags={"data": "x.jsonl", "task": "sentiment"})
    free = setting_keys().keys() - deciding_settings(config).keys()
    page = (Path(__file__).parents[1] / "docs" / "configuration.md").read_text()
    named = re.findall(r"`([\w.]+)`", page.partition("A run may be resumed under another value")[2])
    assert free == set(named) - {"model"}


def test_a_remote_model_counts_without_its_address():
    def model(name):
        return deciding_settings(build_config(flags={"data": "x", "task": "sentiment", "model": name}))["model"]

    assert model("openai:a/b@c@http://host:8000/v1") == model("openai:a/b@c@https://other/v1") == "openai:a/b@c"
    assert model("hf:a@http://b") == "hf:a@http://b"
    assert split_remote("openai:m@host") is None

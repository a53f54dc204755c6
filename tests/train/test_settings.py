import re
from pathlib import Path

import pytest

from elicitor.errors import ConfigError
from elicitor.train.settings import PRESETS, build_settings
from elicitor.train.sft import SftSettings

PAGE = Path(__file__).parents[2] / "docs" / "training.md"


def test_every_training_setting_is_documented_with_its_default():
    table = PAGE.read_text().partition("### Settings")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (`.+?`|none) \| (.+) \|$", table, re.M)
    wanted = {}
    for key, field in SftSettings.model_fields.items():
        value = str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
        wanted[key] = ("none" if field.default is None else f"`{value}`", field.description)
    assert {key: (default, meaning) for key, default, meaning in rows} == wanted


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid_and_flags_win_over_them(name):
    settings = build_settings(SftSettings, preset=name, flags={"epochs": 7}, overrides=["lora_r=3"])
    assert (settings.epochs, settings.lora_r) == (7, 3)


def test_the_papers_settings():
    full, lora = (build_settings(SftSettings, preset=name) for name in ("paper-8b", "paper-70b"))
    assert (full.method, full.learning_rate, full.epochs) == ("full", 1e-5, 3)
    assert (lora.method, lora.learning_rate, lora.epochs, lora.lora_r) == ("lora", 5e-5, 3, 16)


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["lora_rank=3"], "unknown training setting 'lora_rank'"),
        (["epochs=0"], "'epochs' got 0"),
        (["seed=4294967296"], "'seed' got 4294967296"),
        (["report_to=mlflow"], "unknown tracker 'mlflow'"),
        (["epochs"], "--set"),
    ],
)
def test_wrong_settings_are_named(overrides, problem):
    with pytest.raises(ConfigError, match=problem):
        build_settings(SftSettings, overrides=overrides)


def test_layers_that_get_an_adapter_are_those_that_are_named():
    torch = pytest.importorskip("torch")
    pytest.importorskip("peft")
    from elicitor.train.lora import lora_config

    model = torch.nn.ModuleDict({name: torch.nn.Linear(2, 2) for name in ("q_proj", "v_proj")})

    def targets(given):
        return lora_config(SftSettings(lora_targets=given), model).target_modules

    assert targets("q_proj, v_proj") == targets(("q_proj", "v_proj")) == {"q_proj", "v_proj"}
    assert targets("all-linear") == "all-linear"
    for unknown in ("v_porj", "layers.0.q_proj", "proj"):
        with pytest.raises(ConfigError, match=f"lora_targets names '{unknown}', and the model has no such layer"):
            targets(f"q_proj,{unknown}")

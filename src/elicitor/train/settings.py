"""Settings of a training, and the paper's as presets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from elicitor.errors import ConfigError
from elicitor.tracking import tracker_names
from elicitor.yaml_files import read_value


class TrainSettings(BaseModel):
    """What every training shares, whatever it trains."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    PAGE: ClassVar[str] = "docs/training.md"

    method: Literal["lora", "full"] = Field("lora", description="train an adapter, or all weights")
    epochs: int = Field(2, ge=1, description="times that every example is seen")
    learning_rate: float = Field(1e-3, gt=0, description="highest learning rate; it warms up, then falls")
    schedule: Literal["linear", "cosine", "constant"] = Field("linear", description="how the learning rate falls")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps in which the learning rate rises")
    weight_decay: float = Field(0.0, ge=0, description="weight decay of AdamW")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients longer than this are shortened to it")
    batch_size: int = Field(16, ge=1, description="examples in one forward pass of one device")
    gradient_accumulation: int = Field(1, ge=1, description="forward passes in one optimizer step")
    gradient_checkpointing: bool = Field(False, description="compute activations twice instead of keeping them")
    lora_r: int = Field(16, ge=1, description="rank of the adapter")
    lora_alpha: int = Field(32, ge=1, description="scale of the adapter, in units of its rank")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="dropout before the adapter")
    lora_targets: str | tuple[str, ...] = Field(
        "all-linear", description="layers that get an adapter: all-linear, or names such as q_proj,v_proj"
    )
    seed: int = Field(
        0, ge=0, lt=2**32, description="seed of the order of the examples and of the adapter's first weights"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="weights; auto is float32 for full training and on a CPU, else as for scoring"
    )
    device: Literal["auto", "cpu"] = Field("auto", description="auto is CUDA if there is one")
    checkpoint_steps: int | None = Field(
        None, ge=1, description="optimizer steps between checkpoints; none means ten in a training"
    )
    report_to: str = Field("none", description="trackers with commas: trackio, tensorboard, wandb; or none")


Settings = TypeVar("Settings", bound=TrainSettings)

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "small": {},
    "paper-8b": {"method": "full", "epochs": 3, "learning_rate": 1e-5},
    "paper-70b": {"method": "lora", "epochs": 3, "learning_rate": 5e-5, "lora_r": 16},
}
"""``small`` is tuned on the bundled model; the others are what Wen et al. (2025) give for Llama 3.1 8B and 70B (appendix).
What the paper does not say (batch size, schedule) stays at the defaults."""


def build_settings(
    kind: type[Settings],
    *,
    preset: str = "small",
    flags: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
) -> Settings:
    """Merge a preset, flags and ``key=value`` texts, the later ones winning.

    Args:
        kind: Class of the settings.
        preset: One of `PRESETS`.
        flags: Values by key; None means not given.
        overrides: Texts such as ``"lora_r=8"``; the value is read as YAML.

    Returns:
        The checked settings.

    Raises:
        ConfigError: If the preset or a key is unknown, or a value is out of range.
    """
    if preset not in PRESETS:
        raise ConfigError(f"unknown preset {preset!r}", fix=f"use one of {', '.join(PRESETS)}")
    values = {**PRESETS[preset], **{key: value for key, value in (flags or {}).items() if value is not None}}
    for text in overrides:
        key, sign, raw = text.partition("=")
        if not sign:
            raise ConfigError(f"--set got {text!r}", fix="write --set key=value, such as lora_r=8")
        values[key.strip()] = read_value(raw, place=f"--set {key}")
    try:
        settings = kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise ConfigError(
                f"unknown training setting {key!r}", fix=f"use one of {', '.join(kind.model_fields)}"
            ) from error
        got = f"training setting {key!r} got {first['input']!r:.200}" if key else "training settings"
        raise ConfigError(f"{got}: {first['msg']}", fix=f"see {kind.PAGE}") from error
    tracker_names(settings.report_to)
    return settings

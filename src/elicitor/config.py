"""Settings of a run: one pydantic model, read from YAML and flags, written back resolved.

Field descriptions are the reference for ``--set key=value``; unknown keys are refused, so a typo never passes silently.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from elicitor.errors import ConfigError
from elicitor.plan import PlanKind
from elicitor.search_settings import (
    BootstrapConfig,
    EnsembleConfig,
    GibbsConfig,
    IcmConfig,
    ScalableConfig,
    Settings,
)
from elicitor.yaml_files import read_mapping, read_value

TRUST_VARIABLE = "ELICITOR_TRUST_REMOTE_CODE"
_HINT = "write 'key: value' lines"
_MOST_SEED = 2**63
_FREE: dict[str, Any] = {"decides": False}
"""Marks a setting that cannot change a result, so that a run may be resumed under another value of it."""


class ObjectiveConfig(Settings):
    """U(D) = alpha * P(D) - I(D) (Wen et al. 2025, section 2)."""

    alpha: float = Field(50.0, gt=0, description="weight of mutual predictability, in inconsistencies per nat")
    score: Literal["log_odds", "log_prob"] = Field(
        "log_odds",
        description="term of one example: log-odds of its label (the release) or log-probability (as printed)",
    )
    reduce: Literal["mean", "sum"] = Field(
        "mean", description="mean compares sets of different size; sum is the formula as printed and stalls growth"
    )
    calibration: Literal["none", "batch"] = Field(
        "none", description="batch: subtract the mean log-odds over the current batch (Zhou et al. 2023)"
    )
    class_prior: tuple[float, ...] | None = Field(
        None, description="with calibration batch: assumed share of each label; none means equal shares"
    )

    @model_validator(mode="after")
    def _check_prior(self) -> ObjectiveConfig:
        if self.class_prior is not None:
            if self.calibration != "batch":
                raise ValueError("class_prior needs calibration: batch")
            if min(self.class_prior) <= 0 or abs(sum(self.class_prior) - 1) > 1e-6:
                raise ValueError(f"class_prior must be positive and sum to 1, got {list(self.class_prior)}")
        return self


class PlanConfig(Settings):
    """Contexts of one evaluation of the utility."""

    kind: PlanKind = Field("tree", description="tree, in_order, folds or sampled")
    folds: int = Field(8, ge=2, description="number of folds of plan folds")
    max_demonstrations: int = Field(32, ge=1, description="demonstrations a context holds under plan sampled")


class RemoteConfig(Settings):
    """A model behind an HTTP server; see docs/models.md."""

    tokenizer: str | None = Field(
        None, description="hub name or folder of the model's tokenizer, or gguf:FILE; none: the server's /tokenize"
    )
    prompts: Literal["auto", "tokens", "text"] = Field(
        "auto", description="how prompts are sent: as token ids, as text, or as ids where the server takes them"
    )
    top_k: int = Field(
        20, ge=1, description="most probable tokens asked for where the server cannot be asked for the labels' own"
    )
    context: int | None = Field(None, ge=1, description="window in tokens, if the server does not tell it")
    reusable_tokens: int = Field(
        10_000_000,
        ge=0,
        description="tokens taken to fit the server's prefix cache; orders that a search renews depend on it; 0: none",
    )
    batch_prompts: int = Field(
        64, ge=1, description="prompts sent in one request, where the server takes several", json_schema_extra=_FREE
    )
    concurrency: int = Field(8, ge=1, description="requests under way at once", json_schema_extra=_FREE)
    timeout: float = Field(
        300.0, gt=0, description="seconds to wait for an answer before asking again", json_schema_extra=_FREE
    )
    retry_seconds: float = Field(
        600.0, ge=0, description="how long one request is tried again before the run stops", json_schema_extra=_FREE
    )
    requests_per_minute: float | None = Field(
        None, gt=0, description="limit on requests; none: no limit", json_schema_extra=_FREE
    )
    tokens_per_minute: float | None = Field(
        None, gt=0, description="limit on prompt tokens; none: no limit", json_schema_extra=_FREE
    )
    http2: bool = Field(False, description="use HTTP/2 where the server offers it", json_schema_extra=_FREE)
    api_key_env: str = Field(
        "OPENAI_API_KEY", description="environment variable that holds the key, if any", json_schema_extra=_FREE
    )
    price_per_million: float | None = Field(
        None, ge=0, description="price of a million prompt tokens, for --dry-run", json_schema_extra=_FREE
    )


class VllmConfig(Settings):
    """How vLLM runs a model named ``vllm:...``."""

    tensor_parallel_size: int = Field(1, ge=1, description="GPUs that share each layer")
    pipeline_parallel_size: int = Field(1, ge=1, description="stages into which the layers are divided")
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1, description="share of each GPU's memory that vLLM takes")
    max_model_len: int | None = Field(None, ge=1, description="context window in tokens; none: the model's own")
    max_logprobs: int = Field(
        20, ge=1, description="most probable tokens that are asked for where vLLM cannot be asked for the labels' own"
    )
    reusable_tokens: int = Field(
        200_000, ge=0, description="prompt tokens that the prefix cache is counted on to keep between calls"
    )
    adapter: str | None = Field(None, description="folder of a LoRA adapter")
    max_lora_rank: int = Field(16, ge=1, description="rank of the adapter at most")


class BackendConfig(Settings):
    """How the model is loaded and run; see ``elicitor models``."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="weights and activations")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, ...")
    pack_tokens: int = Field(
        1024, ge=0, description="subtrees of up to this many tokens run as one forward pass; 0: off"
    )
    cache_gb: float = Field(
        4.0, ge=0, description="memory for keys and values that later evaluations reuse, in gigabytes; 0: off"
    )
    score_cache: bool = Field(
        False,
        description="keep scores on disk, where later runs and other processes find them",
        json_schema_extra=_FREE,
    )
    score_cache_mb: int = Field(
        512,
        ge=1,
        description="megabytes of scores on disk; the least recently used go first",
        json_schema_extra=_FREE,
    )
    trust_remote_code: bool = Field(False, description="run Python code that a model repository carries")
    remote: RemoteConfig = RemoteConfig()
    vllm: VllmConfig = VllmConfig()


Search = Literal["icm", "gibbs", "bootstrap", "ensemble", "scalable"]


class RunConfig(Settings):
    """Everything that decides a labelling run."""

    # Its path is free because its content is compared by fingerprint.
    data: str = Field(description="JSONL, CSV, TSV or Parquet file, or hf:NAME@SPLIT", json_schema_extra=_FREE)
    task: str | dict[str, Any] = Field(description="task name, YAML file, or the declaration itself")
    verbalizers: tuple[str, ...] | None = Field(None, description="texts that stand for the labels, if not the task's")
    model: str = Field(
        "bundled", description="bundled, hf:NAME, vllm:NAME, gguf:FILE, openai:MODEL@URL, fake or a local folder"
    )
    search: Search = Field("ensemble", description="search algorithm")
    seed: int = Field(0, ge=0, lt=_MOST_SEED, description="seed of every random choice")
    limit: int | None = Field(None, ge=1, description="use only the first rows")
    batch_size: int = Field(256, ge=2, description="examples searched together, at most")
    report_to: str = Field(
        "none", description="trackers with commas: trackio, tensorboard, wandb; or none", json_schema_extra=_FREE
    )
    context_policy: Literal["batch", "error"] = Field(
        "batch", description="when a batch does not fit the context window: make smaller batches, or stop"
    )
    consistency: bool = Field(True, description="whether the task's constraint counts; false is an ablation")
    objective: ObjectiveConfig = ObjectiveConfig()
    plan: PlanConfig = PlanConfig()
    icm: IcmConfig = IcmConfig()
    gibbs: GibbsConfig = GibbsConfig()
    bootstrap: BootstrapConfig = BootstrapConfig()
    ensemble: EnsembleConfig = EnsembleConfig()
    scalable: ScalableConfig = ScalableConfig()
    backend: BackendConfig = BackendConfig()

    @model_validator(mode="after")
    def _check_sampled(self) -> RunConfig:
        if self.icm.utility == "sampled" and self.plan.kind != "tree":
            raise ValueError(f"icm.utility sampled needs plan.kind tree, got {self.plan.kind}")
        return self

    @property
    def start_labels(self) -> str | None:
        """File of labels that the search may start with, if it takes one."""
        match self.search:
            case "bootstrap":
                return None
            case "icm":
                return self.icm.start_labels
            case "gibbs":
                return self.gibbs.start_labels
            case "ensemble":
                return self.ensemble.start_labels
            case "scalable":
                return self.scalable.start_labels

    def to_yaml(self) -> str:
        """The resolved settings as YAML text."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def build_config(
    *,
    file: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    defaults: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Merge a YAML file, command-line flags and ``key=value`` overrides, the later ones winning.

    Args:
        file: YAML file with any of `RunConfig`'s keys.
        flags: Values by dotted key, such as ``{"plan.kind": "folds"}``; a value of None means not given.
        overrides: Texts such as ``"objective.alpha=30"``; the value is read as YAML.
        defaults: Values of a command that wants others than `RunConfig`'s; anything else given wins over them.

    Returns:
        The checked settings.

    Raises:
        ConfigError: If the file cannot be read, a key is unknown, a value is out of range, or an override is a setting of
            a search that is not the one chosen.
    """
    merged: dict[str, Any] = dict(defaults or {})
    merged |= read_mapping(file, error=ConfigError, hint=_HINT) if file else {}
    for key, value in (flags or {}).items():
        if value is not None:
            _put(merged, key, value)
    keys = []
    for text in overrides:
        key, sign, raw = text.partition("=")
        if not sign:
            raise ConfigError(f"--set got {text!r}", fix="write --set key=value, such as objective.alpha=30")
        keys.append(key.strip())
        _put(merged, keys[-1], read_value(raw, place=f"--set {key}"))
    config = parse_config(merged, source=str(file) if file else "the settings")
    for key in keys:
        section, dot, _ = key.partition(".")
        if dot and section in get_args(Search) and section != config.search:
            raise ConfigError(
                f"--set {key}: search is {config.search}, which has no such setting", fix=f"add --search {section}"
            )
    return config


def parse_backend(values: Mapping[str, Any]) -> BackendConfig:
    """Check settings of section ``backend``.

    Raises:
        ConfigError: If a key is unknown or out of range.
    """
    try:
        return BackendConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = "backend." + ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"setting {key!r} got {first.get('input')!r:.200}: {first['msg']}", fix=_closest(key)
        ) from error


def parse_config(values: Mapping[str, Any], *, source: str) -> RunConfig:
    """Check a mapping of settings.

    Args:
        values: Nested settings.
        source: Where they come from, for the error.

    Returns:
        The checked settings.

    Raises:
        ConfigError: If a key is unknown, missing or out of range; the first problem is named.
    """
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"{source}: unknown setting {key!r}", fix=_closest(key)) from error
        if first["type"] == "missing":
            raise ConfigError(
                f"{source}: setting {key!r} is missing",
                fix=f"give {'a file as the first argument' if key == 'data' else f'--{key}'}, or put it into --config",
            ) from error
        problem = f"{source}: setting {key!r} got {first.get('input')!r:.200}: {first['msg']}"
        raise ConfigError(problem, fix=f"correct it, for instance with --set {key}=VALUE") from error


def check_seeds(seeds: Collection[int]) -> None:
    """Refuse seeds that no generator takes, and equal ones: one result would count as two.

    Args:
        seeds: What somebody asked for.

    Raises:
        ConfigError: If there are such seeds, or none at all.
    """
    if not seeds or len(set(seeds)) < len(seeds) or not all(0 <= seed < _MOST_SEED for seed in seeds):
        shown = ", ".join(map(str, seeds))[:80] or "none"
        raise ConfigError(f"seeds got {shown}", fix="give different seeds from 0 on, such as 0,1,2")


def check_trust(config: RunConfig, path: Path) -> None:
    """Refuse to run code because a file says so: a run folder may come from somebody else.

    Args:
        config: Settings read from the folder.
        path: The folder.

    Raises:
        ConfigError: If they allow a model to bring code of its own, and the user has not.
    """
    if config.backend.trust_remote_code and os.environ.get(TRUST_VARIABLE) != "1":
        raise ConfigError(
            f"{path} asks to run Python code that comes with {config.model}",
            fix=f"if you trust it, set the environment variable {TRUST_VARIABLE}=1",
        )


def read_config(file: Path) -> RunConfig:
    """Read a run folder's ``config.yaml``."""
    return parse_config(read_mapping(file, error=ConfigError, hint=_HINT), source=str(file))


def deciding_settings(config: RunConfig) -> dict[str, Any]:
    """Settings that can change a run's result, by dotted key; a remote model counts without its address."""
    settings = _deciding(config)
    remote = split_remote(config.model)
    return settings | ({"model": f"openai:{remote[0]}"} if remote else {})


def _deciding(section: BaseModel, prefix: str = "") -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            settings |= _deciding(value, f"{prefix}{name}.")
        elif field.json_schema_extra != _FREE:
            settings[prefix + name] = value
    return settings


def split_remote(name: str) -> tuple[str, str] | None:
    """Model and base URL of a model name ``openai:MODEL@BASE_URL``; None for any other name."""
    found = re.fullmatch(r"openai:(.+?)@(https?://.+)", name)
    return (found[1], found[2]) if found else None


def setting_keys() -> dict[str, str]:
    """Every dotted setting with its description."""
    return _described(RunConfig)


def _described(section: type[BaseModel], prefix: str = "") -> dict[str, str]:
    keys: dict[str, str] = {}
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            keys |= _described(inner, f"{prefix}{name}.")
        else:
            keys[prefix + name] = field.description or ""
    return keys


def _closest(key: str) -> str:
    near = difflib.get_close_matches(key, setting_keys(), n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else "see docs/configuration.md for the keys"


def _put(tree: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for name in parents:
        tree = tree.setdefault(name, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"setting {dotted!r}: {name!r} is a value, not a section", fix=_closest(dotted))
    tree[last] = value

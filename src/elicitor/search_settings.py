"""Settings of each search; `elicitor.config` puts them together with those of the rest of a run."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Settings(BaseModel):
    """A section of settings: frozen, and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class StartConfig(Settings):
    """Labels of the first examples."""

    num_seed_examples: int = Field(8, ge=1, description="examples that start with a label (the paper's K)")
    start: Literal["random", "zero_shot"] = Field(
        "random", description="labels of the first examples: by lot, or the model's zero-shot answers"
    )
    start_labels: str | None = Field(
        None, description="file of ids and labels that the first examples start with instead; they may change later"
    )
    all_start_labels: bool = Field(
        False, description="start with all labels of start_labels rather than with num_seed_examples of them"
    )


class IcmConfig(StartConfig):
    """Internal Coherence Maximization (Wen et al. 2025, algorithms 1 and 2)."""

    initial_temperature: float = Field(10.0, gt=0, description="T_0 of the cooling schedule")
    min_temperature: float = Field(0.01, gt=0, description="T_min of the cooling schedule")
    beta: float = Field(0.99, ge=0, description="cooling rate: T = max(T_min, T_0 / (1 + beta * ln(iteration)))")
    iterations: int | None = Field(None, ge=1, description="budget a batch; none means 3 iterations an example")
    group_weight: float = Field(
        100.0, ge=1, description="weight of unlabelled members of a group that has labelled ones"
    )
    repair_rounds: int = Field(10, ge=0, description="violated constraints tried after one proposal")
    utility: Literal["exact", "sampled"] = Field(
        "exact",
        description="how a proposal is judged: by all terms of U, or by a random part of them where that decides",
    )
    block_size: int = Field(
        8, ge=2, description="utility sampled: proposals made behind one kept context, and terms of U read at first"
    )
    test_level: float = Field(
        0.005, gt=0, lt=0.5, description="utility sampled: probability of error at which a part of the terms decides"
    )
    check: float = Field(
        0.0,
        ge=0,
        le=1,
        description="utility sampled: share of the decisions by a part that all terms then confirm or overrule",
    )


class BootstrapConfig(Settings):
    """Repeated few-shot relabelling of everything (Shrivastava et al. 2026)."""

    start: Literal["zero_shot", "random"] = Field("zero_shot", description="labels before the first round")
    rounds: int = Field(5, ge=1, description="rounds at most; it stops before when no label changes")
    keep: float = Field(
        1.0, gt=0, le=1, description="share of the examples, the most confident, that serve as demonstrations"
    )


class EnsembleConfig(Settings):
    """Best responses to the average of all readings so far, in contexts of some folds."""

    start: Literal["zero_shot", "random"] = Field("zero_shot", description="labels before the first round")
    start_labels: str | None = Field(
        None, description="file of ids and labels that examples start with instead; they may change later"
    )
    rounds: int = Field(
        5, ge=1, description="rounds at most, each reads every example once; it stops after one that changes no label"
    )
    folds: int = Field(
        2, ge=2, description="each fold is read behind all others; more folds, longer contexts at a higher cost"
    )


class GibbsConfig(StartConfig):
    """Gibbs sampling of labels from their conditionals, annealed (Choi et al. 2026)."""

    sweeps: int = Field(
        6, ge=1, description="passes over all examples; the first one also labels what has no label yet"
    )
    burn_in: int = Field(2, ge=0, description="sweeps that cool down and do not vote")
    thinning: int = Field(1, ge=1, description="every how many sweeps after burn_in a vote is counted")
    initial_temperature: float = Field(
        1.0, gt=0, description="temperature of the first sweep; 1 samples as the model says"
    )
    min_temperature: float = Field(
        0.1, gt=0, description="temperature from the end of burn_in on; near 0 takes the likeliest"
    )
    block_size: int | None = Field(
        None, ge=1, description="examples resampled behind one kept context; none means about sqrt(2 n)"
    )

    @model_validator(mode="after")
    def _check_votes(self) -> GibbsConfig:
        if self.burn_in >= self.sweeps:
            raise ValueError(f"burn_in {self.burn_in} leaves no sweep of {self.sweeps} to vote")
        if self.min_temperature > self.initial_temperature:
            raise ValueError("min_temperature is above initial_temperature")
        return self


class ScalableConfig(Settings):
    """Fine-tuning on some folds to relabel another (Wen et al. 2025, version 2, algorithms 3 and 4)."""

    folds: int = Field(4, ge=2, description="folds of whole groups; each is relabelled by a model tuned on the others")
    rounds: int = Field(1, ge=1, description="passes over all folds at most; it stops before when no label changes")
    start: Literal["zero_shot", "random"] = Field("zero_shot", description="labels before the first round")
    start_labels: str | None = Field(
        None, description="file of ids and labels that examples start with instead, such as another run's labels.jsonl"
    )
    train: dict[str, Any] = Field(
        default_factory=dict,
        description="settings of each training, as of 'elicitor train sft'; e.g. scalable.train.epochs=3",
    )

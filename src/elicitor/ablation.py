"""One factor at a time: what each choice of the search does to the labels (Wen et al. 2025, figures 9 and 10).

A base setting and variants that differ from it in one thing, each searched once for each seed on the same examples, compared
by label accuracy. Gold is read here, after and beside the searches; where a variant starts from golden labels they are handed
to its search as a file of start labels, and its manifest says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np

from elicitor.backends.base import Backend, Cost, OnPart, OnStage, Progress
from elicitor.config import RunConfig, check_seeds, parse_config
from elicitor.data import Dataset, load_dataset, task_rows
from elicitor.errors import ConfigError, DataError, ResumeMismatchError
from elicitor.files import changed_key, make_folder, read_json, stray_entry, write_json, write_rows
from elicitor.gold import load_gold
from elicitor.inputs import task_of
from elicitor.labelling import Run, run
from elicitor.metrics import Difference, Estimate, accuracy, difference
from elicitor.models import load_backend
from elicitor.plan import PlanKind

SETTINGS = "ablation.json"
RESULT = "ablation-result.json"
POOL_SEED = 0
"""Draws the examples of imbalanced pools, the same for every seed of the search."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One setting of one factor.

    Attributes:
        factor: Name of the factor, or ``base``.
        value: Its value, as the user wrote it.
        settings: Settings by dotted key that differ from the base.
        start: ``golden`` or ``wrong``: where the first labels come from, if from gold.
        positive_share: Share of positive examples in the pool, if it is not taken as it is.
    """

    factor: str
    value: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    start: str | None = None
    positive_share: float | None = None

    @property
    def name(self) -> str:
        """Folder and row heading."""
        return self.factor if self.factor == "base" else f"{self.factor}={self.value}"


@dataclass(frozen=True, slots=True)
class VariantResult:
    """One row of the table.

    Attributes:
        variant: What was set.
        label_accuracy: Found labels against gold.
        less_base: Label accuracy less that of the base on the same examples and seeds; None for the base and other pools.
        utility: U at the end, mean over seeds and batches.
        inconsistency: I at the end, summed over batches, mean over seeds.
        largest_share: Share of the most frequent label, mean over seeds.
        cost: All seeds together.
    """

    variant: Variant
    label_accuracy: Estimate
    less_base: Difference | None
    utility: float
    inconsistency: float
    largest_share: float
    cost: Cost


@dataclass(frozen=True, slots=True)
class Ablation:
    """Result of `run_ablation`.

    Attributes:
        folder: Where the runs are.
        seeds: Seeds of the searches.
        results: The base first.
    """

    folder: Path
    seeds: list[int]
    results: list[VariantResult]

    def to_json(self) -> dict[str, Any]:
        """The result as JSON values."""
        return {**asdict(self), "folder": str(self.folder)}


def make_variants(base: RunConfig, factors: Mapping[str, Sequence[str]]) -> list[Variant]:
    """The base and one variant for each value of each factor that differs from it.

    Args:
        base: Settings of the base.
        factors: Values as text by factor: ``init``, ``consistency``, ``alpha``, ``num_seed_examples``, ``calibration``,
            ``plan``, ``verbalizers`` (texts with slashes) and ``balance`` (share of positive examples).

    Returns:
        Variants in the order given.

    Raises:
        ConfigError: If a factor or value is unknown.
    """
    variants = [Variant("base", "")]
    for factor, values in factors.items():
        if factor not in _FACTORS:
            raise ConfigError(f"unknown factor {factor!r}", fix=f"use {', '.join(_FACTORS)}")
        variants += [_FACTORS[factor](factor, value.strip()) for value in values]
    if any(v.factor in ("init", "num_seed_examples") for v in variants) and base.search != "icm":
        raise ConfigError(f"search {base.search} has no first labels to vary", fix="use --search icm")
    for variant in variants:
        configured(base, variant.settings)
    plain = base.model_dump()
    return [
        v
        for k, v in enumerate(variants)
        if k == 0 or v.start or v.positive_share is not None or configured(base, v.settings).model_dump() != plain
    ]


def configured(base: RunConfig, settings: Mapping[str, Any]) -> RunConfig:
    """The base with some settings, by dotted key, changed.

    Raises:
        ConfigError: If a value is out of range.
    """
    values = base.model_dump()
    for key, value in settings.items():
        section, _, name = key.rpartition(".")
        (values[section] if section else values)[name] = value
    return parse_config(values, source="ablation")


def _choice(factor: str, value: str, allowed: Sequence[str]) -> str:
    if value not in allowed:
        raise ConfigError(f"--{factor.replace('_', '-')} got {value!r}", fix=f"use {', '.join(allowed)}")
    return value


def _number(factor: str, value: str, kind: type[int] | type[float]) -> Any:
    try:
        return kind(value)
    except ValueError as error:
        raise ConfigError(f"--{factor.replace('_', '-')} got {value!r}", fix="give a number") from error


def _init(factor: str, value: str) -> Variant:
    _choice(factor, value, ("random", "golden", "wrong", "zero_shot"))
    if value in ("golden", "wrong"):
        return Variant(factor, value, start=value)
    return Variant(factor, value, {"icm.start": value})


def _balance(factor: str, value: str) -> Variant:
    share = _number(factor, value, float)
    if not 0 < share < 1:
        raise ConfigError(f"--balance got {value!r}", fix="give a share between 0 and 1")
    return Variant(factor, value, positive_share=share)


_FACTORS: Mapping[str, Callable[[str, str], Variant]] = {
    "init": _init,
    "consistency": lambda f, v: Variant(f, v, {"consistency": _choice(f, v, ("on", "off")) == "on"}),
    "alpha": lambda f, v: Variant(f, v, {"objective.alpha": _number(f, v, float)}),
    "num_seed_examples": lambda f, v: Variant(f, v, {"icm.num_seed_examples": _number(f, v, int)}),
    "calibration": lambda f, v: Variant(f, v, {"objective.calibration": _choice(f, v, ("none", "batch"))}),
    "plan": lambda f, v: Variant(f, v, {"plan.kind": _choice(f, v, get_args(PlanKind))}),
    "verbalizers": lambda f, v: Variant(f, v, {"verbalizers": tuple(f" {word.strip()}" for word in v.split("/"))}),
    "balance": _balance,
}


def run_ablation(
    base: RunConfig,
    factors: Mapping[str, Sequence[str]],
    folder: Path,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    resume: bool = False,
    backend: Backend | None = None,
    on_progress: Progress | None = None,
    on_stage: OnStage | None = None,
    on_part: OnPart | None = None,
) -> Ablation:
    """Search with the base setting and with each variant, and compare label accuracies.

    Args:
        base: Settings; its data need gold labels.
        factors: See `make_variants`.
        folder: Where the runs go; new or empty unless ``resume``.
        seeds: Seeds of the searches.
        resume: Go on with the ablation in ``folder`` if there is one; seeds may be added to it.
        backend: Use this loaded model instead of loading ``base.model``.
        on_progress: Called after each forward pass with its tokens.
        on_stage: Called with what begins now.
        on_part: Called with finished and all searches after each one.

    Returns:
        The table, written to ``ablation-result.json`` in the folder as well.

    Raises:
        ElicitorError: If a setting, file or model cannot be used.
        ResumeMismatchError: If ``folder`` holds an ablation with other settings.
    """
    variants = make_variants(base, factors)
    check_seeds(seeds)
    task = task_of(base)
    dataset = load_dataset(base.data, task, limit=base.limit)
    # Pools of a given balance are drawn from all rows.
    drawn = any(variant.positive_share is not None for variant in variants)
    gold = load_gold(base.data, task, limit=None if drawn else base.limit).labels
    without = [example.id for example in dataset.examples if example.id not in gold]
    if without:
        raise DataError(f"{base.data}: example {without[0]!r} has no gold label", fix="drop rows without gold")
    pools = {v.name: _pool(base, v, variants) for v in variants}
    _claim(folder, base, variants, seeds, resume=resume)
    backend = backend or load_backend(base.model, on_stage=on_stage, **base.backend.model_dump())
    correct: dict[str, np.ndarray] = {}
    results: list[VariantResult] = []
    for number, variant in enumerate(variants):
        place = folder / variant.name.replace("/", "-").replace(" ", "")
        make_folder(place)
        settings = configured(base, variant.settings)
        if pools[variant.name] is not None:
            write_rows(place / "pool.jsonl", pools[variant.name] or [])
            settings = settings.model_copy(update={"data": str(place / "pool.jsonl"), "limit": None})
        if variant.start:
            write_rows(place / "start.jsonl", _start_rows(dataset, gold, wrong=variant.start == "wrong"))
            settings = configured(settings, {"icm.start_labels": str(place / "start.jsonl")})
        runs = []
        for k, seed in enumerate(seeds):
            if on_stage:
                on_stage(f"{variant.name}, seed {seed}")
            mine = settings.model_copy(update={"seed": seed})
            runs.append(run(mine, place / f"seed-{seed}", resume=True, backend=backend, on_progress=on_progress))
            if on_part:
                on_part(number * len(seeds) + k + 1, len(variants) * len(seeds))
        examples = load_dataset(settings.data, task, limit=settings.limit).examples
        names = task.label_space.labels
        truth = [names[gold[example.id]] for example in examples]
        correct[variant.name] = np.asarray(
            [[item.label == t for item, t in zip(r.labels, truth, strict=True)] for r in runs]
        )
        clusters = [task.cluster(example) for example in examples]
        comparable = variant.factor != "base" and variant.positive_share is None
        results.append(
            VariantResult(
                variant=variant,
                label_accuracy=accuracy(correct[variant.name], clusters, rng=np.random.default_rng(0)),
                less_base=difference(correct[variant.name], correct["base"], clusters, rng=np.random.default_rng(0))
                if comparable
                else None,
                utility=float(np.mean([batch["utility"] for r in runs for batch in r.metrics["batches"]])),
                inconsistency=float(np.mean([sum(b["inconsistency"] for b in r.metrics["batches"]) for r in runs])),
                largest_share=float(np.mean([max(r.metrics["labels"].values()) / len(examples) for r in runs])),
                cost=sum((_cost(r) for r in runs), Cost()),
            )
        )
    ablation = Ablation(folder=folder, seeds=list(seeds), results=results)
    write_json(folder / RESULT, ablation.to_json())
    return ablation


def _cost(done: Run) -> Cost:
    cost = done.metrics["cost"]
    return Cost(**{name: cost[name] for name in ("prompts", "tokens_computed", "tokens_reused", "seconds")})


def _start_rows(dataset: Dataset, gold: Mapping[str, int], *, wrong: bool) -> list[dict[str, str]]:
    """Gold labels, or for each example the next label after its gold one, which is wrong."""
    names = dataset.label_space.labels
    return [{"id": e.id, "label": names[(gold[e.id] + wrong) % len(names)]} for e in dataset.examples]


def _pool(base: RunConfig, variant: Variant, variants: Sequence[Variant]) -> list[dict[str, Any]] | None:
    """Rows of an imbalanced pool, all pools of equal size; None if the data are taken as they are."""
    if variant.positive_share is None:
        return None
    task = task_of(base)
    if task.mirror:
        raise ConfigError("--balance: pairs in both orders are always balanced", fix="leave it out for this task")
    rows = task_rows(base.data, task)
    gold = load_gold(base.data, task).labels
    examples = load_dataset(base.data, task).examples
    known = np.asarray([example.id in gold for example in examples])
    positive = np.asarray([gold.get(example.id) == task.label_space.positive for example in examples])
    negative = known & ~positive
    shares = [v.positive_share for v in variants if v.positive_share is not None]
    # The largest size that every pool can have.
    most = min(min(positive.sum() / share, negative.sum() / (1 - share)) for share in shares)
    size = int(min(most, base.limit or most))
    wanted = round(variant.positive_share * size)
    if not 0 < wanted < size:
        raise DataError(f"{base.data} has too few examples for a pool with --balance {variant.value}", fix="add more")
    rng = np.random.default_rng(POOL_SEED)
    chosen = [
        *rng.permutation(np.flatnonzero(positive))[:wanted],
        *rng.permutation(np.flatnonzero(negative))[: size - wanted],
    ]
    return [{task.id_column: examples[i].id, **rows[i].values} for i in rng.permutation(np.asarray(chosen)).tolist()]


def _claim(folder: Path, base: RunConfig, variants: Sequence[Variant], seeds: Sequence[int], *, resume: bool) -> None:
    """Begin in an empty folder, or check that it holds this ablation, if with fewer seeds."""
    settings = {
        "base": json.loads(base.model_dump_json()),
        "variants": json.loads(json.dumps([asdict(variant) for variant in variants])),
        "seeds": list(seeds),
    }
    if (folder / SETTINGS).exists():
        if not resume:
            raise ConfigError(
                f"{folder} holds an ablation", fix="add --resume to go on, or choose another --output-dir"
            )
        if (key := changed_key(read_json(folder / SETTINGS), settings, growing=("seeds",))) is not None:
            raise ResumeMismatchError(
                f"the ablation in {folder} was made with another value of {key!r}",
                fix="give the same again, with more seeds if you like, or another --output-dir",
            )
    elif folder.exists() and (not folder.is_dir() or stray_entry(folder)):
        raise ConfigError(f"{folder} is not an empty folder", fix="choose another --output-dir")
    make_folder(folder)
    write_json(folder / SETTINGS, settings)

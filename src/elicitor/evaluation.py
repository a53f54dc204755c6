"""How good are the found labels? The only place that reads gold.

Every condition puts the same examples in the same order before the same test queries; only the labels differ. Accuracy
is given raw and after batch calibration (which looks at the unlabelled test batch), with intervals clustered on groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import numpy as np
from annotated_types import MinLen

from elicitor.answers import Answers
from elicitor.backends.base import Backend, Cost, OnPart, OnStage, Progress
from elicitor.baselines import DEFAULT_CONDITIONS, NEEDS_GOLD, Condition, check_conditions
from elicitor.comparison import Comparison
from elicitor.config import RunConfig, check_seeds, check_trust
from elicitor.data import Dataset, MissingColumnError, load_dataset
from elicitor.errors import ConfigError, DataError
from elicitor.files import write_json
from elicitor.gold import GoldLabels, load_gold, load_votes
from elicitor.inputs import task_of
from elicitor.label_accuracy import LabelAccuracy, label_accuracy
from elicitor.labelling import ModelFacts, Run, load_run
from elicitor.metrics import (
    Difference,
    Estimate,
    accuracy,
    auroc,
    calibration_error,
    difference,
    few_groups_note,
    gap_recovered,
)
from elicitor.models import load_backend
from elicitor.objective import Array, batch_offset, normalize
from elicitor.pooled import answers_on_pool
from elicitor.probes import LayerAccuracy
from elicitor.reviewed import reviewed_ids
from elicitor.runs import check_same_data, load_run_config, read_manifest
from elicitor.tasks import Task

if TYPE_CHECKING:
    from elicitor.distributed import WorkerPool


@dataclass(frozen=True, slots=True)
class ConditionResult:
    """One row of the table.

    Attributes:
        condition: What stood before the test queries.
        demonstrations: Demonstrations in a context; the fewest over seeds.
        label_accuracy: Share of their labels that agree with gold, averaged over seeds; None without gold or labels.
        raw: Test accuracy from the label probabilities as they are.
        calibrated: Test accuracy after batch calibration.
        auroc: Area under the ROC curve of the positive label; None for more than two labels. Calibration does not change it.
        calibration_error: Expected calibration error under the calibration of the run.
        gap_recovered: Share of the way from zero-shot to golden, under the calibration of the run.
        found_less_this: Accuracy with found labels less accuracy under this condition, on the same items, under the
            calibration of the run; None for ``found`` itself or without it.
        cost: Prompts, tokens, seconds.
        layers: Accuracy of a probe at every layer under the first seed, where a sweep was asked for.
    """

    condition: Condition
    demonstrations: int
    label_accuracy: float | None
    raw: Estimate
    calibrated: Estimate
    auroc: Estimate | None
    calibration_error: Estimate
    gap_recovered: Estimate | None
    found_less_this: Difference | None
    cost: Cost
    layers: list[LayerAccuracy] | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Result of `evaluate`.

    Attributes:
        task: Name of the task.
        model: Name of the model.
        n_labels: Size of the label set.
        rows: One for each condition.
        label_accuracy: Found labels against gold, None when the labelled data has no gold column.
        search_cost: What finding the labels cost, all runs together.
        calibration: Calibration of the run, which ``gap_recovered`` and the like go by.
        seeds: Seeds of demonstration order and random labels.
        notes: What a reader must know, such as test examples left out.
    """

    task: str
    model: str
    n_labels: int
    rows: Annotated[list[ConditionResult], MinLen(1)]
    label_accuracy: LabelAccuracy | None
    search_cost: Cost
    calibration: str
    seeds: list[int]
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """The result as JSON values."""
        return asdict(self)

    def to_markdown(self) -> str:
        """The table in Markdown."""
        from elicitor.tables import evaluation_markdown

        return evaluation_markdown(self)


def evaluate(
    run: Run | str | Path | Sequence[Run | str | Path],
    test_data: str | Path,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    conditions: Sequence[str] = DEFAULT_CONDITIONS,
    limit: int | None = None,
    max_shots: int | None = None,
    probe_layer: int | None = None,
    sweep: bool = False,
    gold_column: str | None = None,
    gold_data: str | Path | None = None,
    backend: Backend | None = None,
    folder: Path | None = None,
    leave_out: bool = False,
    pool: WorkerPool | None = None,
    on_progress: Progress | None = None,
    on_stage: OnStage | None = None,
    on_part: OnPart | None = None,
) -> Evaluation:
    """Compare the found labels with none, with cheaper ones and with golden ones, in context, on a test file.

    Finished conditions are kept in the folder and not done again for the same runs, data, model and seeds.

    Args:
        run: A finished run or its folder; or several of them that differ in nothing but the seed of the search, one for
            each of ``seeds``.
        test_data: Test examples with gold.
        seeds: Each seed draws its own order of demonstrations and its own random labels.
        conditions: Rows of the table; see `elicitor.baselines.Condition`.
        limit: Use only the first test rows.
        max_shots: Demonstrations in a context at most; as many as fit if None.
        probe_layer: Layer that probes read, 0 for the embeddings; the middle one if None.
        sweep: Test probes at every layer as well.
        gold_column: Column that holds gold, when it is not the task's.
        gold_data: File with the gold labels of the labelled examples by id, when they are no column of the data itself.
        backend: Use this loaded model instead of the run's.
        folder: Where the table and the finished conditions are written; the folder of the first run by default.
        leave_out: Leave conditions that do not apply to this data or model out, with a note, instead of refusing them.
        pool: Ask the conditions on these workers, which load the model, instead of one after the other in this process.
        on_progress: Called after each forward pass with its tokens.
        on_stage: Called when the model begins to load, and with the name of each condition as it begins.
        on_part: Called with finished and all conditions after each one.

    Returns:
        The table, written to ``eval-<test file>.json`` in the folder as well.

    Raises:
        ElicitorError: If a file, column, condition or model cannot be used.
    """
    chosen = check_conditions(conditions)
    check_seeds(seeds)
    runs, config = _load_runs(run, seeds)
    task = task_of(config)
    train = load_dataset(config.data, task, limit=config.limit)
    found = [found_labels(done, task, train) for done in runs]
    gold_task = task.with_gold_column(gold_column) if gold_column else task
    gold_limit = config.limit if gold_data is None else None
    needs_gold = bool(NEEDS_GOLD & set(chosen))
    gold = train_gold(str(gold_data or config.data), gold_task, limit=gold_limit, needed=needs_gold and not leave_out)
    golden = {} if gold is None else {i: gold.labels[e.id] for i, e in enumerate(train.examples) if e.id in gold.labels}
    if gold_data is not None and not golden:
        raise DataError(
            f"{gold_data} knows none of the labelled examples", fix="give gold with the ids of the run's data"
        )
    votes = load_votes(config.data, task, limit=config.limit) if "human" in chosen else {}
    test, test_gold, notes = test_set(str(test_data), gold_task, train=train, task=task, limit=limit)
    reviewed = frozenset[str]().union(*(reviewed_ids(done.path) for done in runs))
    judged = {i: y for i, y in golden.items() if train.examples[i].id not in reviewed}
    if needs_gold and 0 < len(golden) < len(train):
        notes.append(
            f"{len(train) - len(golden)} of {len(train)} labelled examples have no gold: no condition demonstrates them"
        )
    if reviewed:
        notes.append(
            f"{len(reviewed)} labels of a review went into the search: label accuracy leaves these examples out; as "
            "demonstrations they are in"
        )

    truth = [test_gold.labels[example.id] for example in test.examples]
    model: Backend | ModelFacts
    if pool is not None:
        model = pool.load(config, pieces=len(chosen), on_stage=on_stage)
    else:
        model = backend or load_backend(config.model, on_stage=on_stage, **config.backend.model_dump())
    if any(read_manifest(done.path)["identity"]["model"] != model.fingerprint for done in runs):
        notes.append(
            "the model that is asked has other weights, precision or device than the one that found the labels"
        )
    comparison = Comparison(
        # With a pool workers ask, each with the model that it has loaded.
        backend=cast(Backend, model),
        task=task,
        train=train,
        test=test,
        # Golden labels may be missing for some examples; every condition then uses the same ones that have gold.
        usable=sorted(golden) if needs_gold and golden else range(len(train)),
        found=found,
        golden=golden,
        judged=judged,
        votes={i: votes[e.id] for i, e in enumerate(train.examples) if e.id in votes},
        objective=config.objective,
        plan=config.plan,
        seeds=seeds,
        max_shots=max_shots,
        bootstrap_rounds=config.bootstrap.rounds,
        probe_layer=probe_layer,
        sweep_truth=truth if sweep else None,
        on_progress=None if pool else on_progress,
    )
    folder = folder or runs[0].path
    name = f"eval-{Path(str(test_data)).stem.replace(':', '-')}"
    answers: dict[Condition, Answers] = {}
    if pool is not None:
        asked = answers_on_pool(comparison, chosen, pool, folder=folder / name)
    else:
        asked = comparison.ask(chosen, folder=folder / name, on_stage=on_stage)
    for condition, given in asked:
        if isinstance(given, Answers):
            answers[condition] = given
            if on_part:
                on_part(len(answers), len(chosen))
        elif leave_out:
            notes.append(f"condition {condition} left out: {given}")
        else:
            raise ConfigError(f"condition {condition}: {given}", fix="leave it out of --conditions")
    answers = {condition: answers[condition] for condition in chosen if condition in answers}

    clusters = [task.cluster(example) for example in test.examples]
    notes += few_groups_note(clusters)
    result = Evaluation(
        task=task.name,
        model=model.name,
        n_labels=len(task.label_space),
        rows=condition_results(
            answers, np.asarray(truth), clusters, task=task, calibration=config.objective.calibration
        ),
        label_accuracy=label_accuracy(runs, train, found, judged, task, rng=_rng()) if judged else None,
        search_cost=sum((_search_cost(done) for done in runs), Cost()),
        calibration=config.objective.calibration,
        seeds=list(seeds),
        notes=notes,
    )
    write_json(folder / f"{name}.json", result.to_json())
    return result


def condition_results(
    answers: dict[Condition, Answers], truth: Any, clusters: Sequence[str], *, task: Task, calibration: str
) -> list[ConditionResult]:
    """Statistics of each condition.

    Args:
        answers: What the model answered.
        truth: Shape (items,): true label of each test example.
        clusters: Cluster of each test example.
        task: Says which label is the positive one.
        calibration: ``none`` or ``batch``: what differences, gaps and calibration errors are computed under.

    Returns:
        One row for each condition, in the order of ``answers``.
    """
    predicted = {c: (given.log_probs, _calibrated(given.log_probs)) for c, given in answers.items()}
    right = {c: [rows.argmax(axis=2) == truth for rows in both] for c, both in predicted.items()}
    used = 1 if calibration == "batch" else 0
    judged = {c: both[used] for c, both in right.items()}
    ends = judged.get("zero_shot"), judged.get("golden")
    rows = []
    for condition, given in answers.items():
        raw, calibrated = predicted[condition]
        known = [share for share in given.label_accuracy if share is not None]
        rows.append(
            ConditionResult(
                condition=condition,
                demonstrations=min(given.shots),
                label_accuracy=float(np.mean(known)) if known else None,
                raw=accuracy(right[condition][0], clusters, rng=_rng()),
                calibrated=accuracy(right[condition][1], clusters, rng=_rng()),
                auroc=None
                if len(task.label_space) > 2
                else auroc(
                    raw[..., task.label_space.positive], truth == task.label_space.positive, clusters, rng=_rng()
                ),
                calibration_error=calibration_error(np.exp((raw, calibrated)[used]), truth, clusters, rng=_rng()),
                gap_recovered=None
                if condition in ("zero_shot", "golden") or ends[0] is None or ends[1] is None
                else gap_recovered(judged[condition], ends[0], ends[1], clusters, rng=_rng()),
                found_less_this=None
                if condition == "found" or "found" not in judged
                else difference(judged["found"], judged[condition], clusters, rng=_rng()),
                cost=given.cost,
                layers=given.layers,
            )
        )
    return rows


def _rng() -> np.random.Generator:
    """The same resamples for every figure of every table, so that no interval depends on what else was computed."""
    return np.random.default_rng(0)


def _load_runs(
    given: Run | str | Path | Sequence[Run | str | Path], seeds: Sequence[int]
) -> tuple[list[Run], RunConfig]:
    """The runs, and the settings that they share."""
    several = [given] if isinstance(given, (Run, str, Path)) else list(given)
    runs = [one if isinstance(one, Run) else load_run(Path(one)) for one in several]
    if not runs:
        raise ConfigError("no run was given", fix="give the --output-dir of an earlier 'elicitor label'")
    configs = [load_run_config(done.path) for done in runs]
    check_trust(configs[0], runs[0].path)
    if len(runs) > 1 and len(runs) != len(seeds):
        raise ConfigError(f"got {len(runs)} runs for {len(seeds)} seeds", fix="give one run, or one for each seed")
    for done, config in zip(runs[1:], configs[1:], strict=True):
        if config.model_copy(update={"seed": configs[0].seed}) != configs[0]:
            raise ConfigError(
                f"{done.path} and {runs[0].path} differ in more than their seed", fix="evaluate them one by one"
            )
    return runs, configs[0]


def found_labels(run: Run, task: Task, train: Dataset) -> dict[int, int]:
    """Found label by position; the data must still be what the run labelled."""
    by_id = {item.id: task.label_space.index(item.label) for item in run.labels}
    missing = [example for example in train.examples if example.id not in by_id]
    if missing or len(by_id) != len(train):
        example = f"; {missing[0].location} ({missing[0].id}) has no found label" if missing else ""
        raise DataError(
            f"{train.source} has {len(train)} examples, the run labelled {len(by_id)}{example}",
            fix="put back the data file that the run was made from",
        )
    check_same_data(run.path, train.fingerprint, train.source)
    return {i: by_id[example.id] for i, example in enumerate(train.examples)}


def train_gold(source: str, task: Task, *, limit: int | None, needed: bool) -> GoldLabels | None:
    """Gold labels of the labelled examples; None where the data has no gold column and it is not needed."""
    try:
        return load_gold(source, task, limit=limit)
    except DataError as error:
        if not needed and isinstance(error, MissingColumnError):
            return None
        raise


def test_set(
    source: str, gold_task: Task, *, train: Dataset, task: Task, limit: int | None
) -> tuple[Dataset, GoldLabels, list[str]]:
    """Test examples that have gold and were not labelled themselves, with a note on those left out."""
    test = load_dataset(source, task, limit=limit)
    gold = load_gold(source, gold_task, limit=limit)
    seen = {task.render(example) for example in train.examples}
    repeated = [i for i, example in enumerate(test.examples) if task.render(example) in seen]
    without = [i for i, example in enumerate(test.examples) if example.id not in gold.labels]
    left_out = set(repeated) | set(without)
    keep = [i for i in range(len(test)) if i not in left_out]
    notes = []
    if repeated:
        notes.append(f"{len(repeated)} of {len(test)} test examples left out: they are among the labelled examples")
    if without:
        notes.append(f"{len(without)} of {len(test)} test examples left out: they have no gold label")
    if not keep:
        raise DataError(
            f"{source} leaves no test example ({'; '.join(notes)})", fix="give a test file with other examples and gold"
        )
    return test.subset(keep), gold, notes


def _calibrated(log_probs: Array) -> Array:
    """Each seed's answers less their batch's mean, shape (seeds, items, labels)."""
    return np.stack([normalize(rows - batch_offset(rows)) for rows in log_probs])


def _search_cost(run: Run) -> Cost:
    cost = run.metrics["cost"]
    return Cost(**{name: cost[name] for name in ("prompts", "tokens_computed", "tokens_reused", "seconds")})

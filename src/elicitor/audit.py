"""Did elicitation fail? Checks that need no gold, each with a verdict and what to do about it.

Coherent labels can be useless: one label for everything, a trivial concept, the right concept upside down, or noise that a
search has talked itself into. Each check looks for one of these. None proves labels right; only gold can.

Read `audit`, then the checks in `elicitor.audit_checks` in the order in which they are called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elicitor.audit_checks import (
    GRAVITY,
    NEAR_TIE,
    Asked,
    Check,
    Verdict,
    check_agreement,
    check_class_balance,
    check_consistency,
    check_context,
    check_margins,
    check_orientation,
    check_salience,
    own_log_odds,
)
from elicitor.backends.base import Backend, Cost, OnPart, OnStage, Progress
from elicitor.config import RunConfig, check_seeds, check_trust
from elicitor.consistency import Constraints
from elicitor.data import Assignment, task_rows
from elicitor.errors import ConfigError, DataError
from elicitor.files import read_rows, write_json, write_rows
from elicitor.inputs import task_of
from elicitor.labelling import Run, Workload, load_run, prepare, run
from elicitor.manifest import Supervision
from elicitor.objective import Meter
from elicitor.runs import check_same_data, load_run_config, read_manifest
from elicitor.salience import best_predictor, trivial_features
from elicitor.tasks import Task

AUDIT = "audit.json"
ABSTAINED = "abstained.jsonl"


@dataclass(frozen=True, slots=True)
class Audit:
    """Result of `audit`.

    Attributes:
        verdict: The gravest verdict of all checks.
        n_examples: Examples of the run.
        checks: Everything that was looked at.
        abstained: Reasons by id of examples whose label is indeterminate.
        cost: Prompts, tokens, seconds.
        supervision: Labels that were given to the search, and to those of other seeds; they are counted like the others.
    """

    verdict: Verdict
    n_examples: int
    checks: list[Check]
    abstained: dict[str, list[str]]
    cost: Cost
    supervision: Supervision = "none"

    def to_json(self) -> dict[str, Any]:
        """The result as JSON values."""
        return asdict(self)


def audit(
    done: Run | str | Path,
    *,
    against: Sequence[Run | str | Path] = (),
    seeds: Sequence[int] = (),
    columns: Sequence[str] = (),
    orders: int = 4,
    permutations: int = 1000,
    abstain: bool = False,
    backend: Backend | None = None,
    on_progress: Progress | None = None,
    on_stage: OnStage | None = None,
    on_part: OnPart | None = None,
) -> Audit:
    """Look for the known ways in which elicitation fails, without gold.

    Args:
        done: A finished run or its folder.
        against: Other finished runs on the same data, with other seeds or models, to compare with.
        seeds: Search again with these seeds, in the run folder, and compare.
        columns: Columns of the data that might be what was found instead of the concept, such as a source.
        orders: Fresh orders of the demonstrations in which every label is asked for again, at least 2.
        permutations: Random labels against which the best trivial feature is judged.
        abstain: Write the ids of indeterminate examples, with reasons, to ``abstained.jsonl``.
        backend: Use this loaded model instead of the run's.
        on_progress: Called after each forward pass with its tokens.
        on_stage: Called with what begins now.
        on_part: Called with finished and all evaluations after each one.

    Returns:
        The verdicts, written to ``audit.json`` in the run folder as well.

    Raises:
        ElicitorError: If a run, column or model cannot be used.
    """
    if orders < 2:
        raise ConfigError(f"orders got {orders}", fix="give 2 or more")
    done = done if isinstance(done, Run) else load_run(Path(done))
    config = load_run_config(done.path)
    check_trust(config, done.path)
    # What the user got wrong is said before a model is loaded.
    if seeds:
        check_seeds(seeds)
    suspected = _columns(config, task_of(config), columns)
    others = [one if isinstance(one, Run) else load_run(Path(one)) for one in against]
    known = {config.seed, *(load_run_config(one.path).seed for one in _split_by_model(done, others)[0])}
    if again := sorted(known & set(seeds)):
        raise ConfigError(f"--seeds got {again[0]}, the seed of a run that is compared already", fix="leave it out")
    workload = prepare(config, backend=backend, on_stage=on_stage)
    found = _labels_of(done, workload)
    for seed in seeds:
        if on_stage:
            on_stage(f"search with seed {seed}")
        other = config.model_copy(update={"seed": seed})
        folder = done.path / f"seed-{seed}"
        others.append(run(other, folder, resume=True, backend=workload.backend, on_progress=on_progress))
    same, other_models = _split_by_model(done, others)

    if on_stage:
        on_stage("asking again in other orders")
    workload.backend.forget()
    meter = Meter()
    asked = _ask_again(workload, found, orders=orders, meter=meter, on_progress=on_progress, on_part=on_part)
    labels = np.asarray(found)
    names = workload.dataset.label_space.labels
    checks = [
        check_class_balance(labels, asked, names, class_prior=config.objective.class_prior),
        check_orientation(labels, asked, names),
        check_consistency(found, Constraints.from_dataset(workload.dataset, workload.task.constraint)),
        check_margins(labels, asked),
        check_context(labels, asked),
        _check_salience(workload, found, suspected, permutations=permutations),
        *_check_agreement(workload, labels, same, other_models),
    ]
    result = Audit(
        verdict=max((check.verdict for check in checks), key=GRAVITY.index),
        n_examples=len(found),
        checks=checks,
        abstained=_indeterminate(workload, labels, asked, [_labels_of(one, workload) for one in same]),
        cost=meter.cost,
        supervision=workload.inputs.supervision,
    )
    write_json(done.path / AUDIT, result.to_json())
    if abstain:
        rows = [{"id": name, "reasons": reasons} for name, reasons in result.abstained.items()]
        write_rows(done.path / ABSTAINED, rows)
    return result


def abstained_ids(path: Path) -> set[str]:
    """Ids of the examples that ``elicitor audit --abstain`` set aside; none where that was not run.

    Args:
        path: Folder of a run.
    """
    file = path / ABSTAINED
    return {row["id"] for row in read_rows(file)} if file.is_file() else set()


def _ask_again(
    workload: Workload,
    found: Sequence[int],
    *,
    orders: int,
    meter: Meter,
    on_progress: Progress | None,
    on_part: OnPart | None,
) -> Asked:
    """Ask for every label in fresh orders, and evaluate the labellings that a failed run would resemble."""
    n, names = len(found), workload.dataset.label_space.labels
    log_probs = np.zeros((orders, n, len(names)))
    zero_shot = np.zeros((n, len(names)))
    totals: dict[str, list[tuple[int, float]]] = {}
    done = 0
    for batch, positions in enumerate(workload.batches):
        problem = workload.problem(batch, meter=meter, on_progress=on_progress)
        here = Assignment(tuple(found[i] for i in positions))
        labellings = [(f"found {k}", here, k) for k in range(orders)]
        # Others in the same order as the first, so that nothing but labels differs.
        labellings += [(name, assignment, 0) for name, assignment in _alternatives(here, names).items()]
        for name, assignment, k in labellings:
            utility = problem.utility(assignment, rng=_order(workload, batch, k))
            totals.setdefault(name, []).append((len(positions), utility.predictability))
            if assignment is here:
                log_probs[k, list(positions)] = utility.calibrated()
            done += 1
            if on_part:
                on_part(done, len(labellings) * len(workload.batches))
        empty = Assignment.empty(len(positions))
        zero_shot[list(positions)] = problem.predict(range(len(positions)), empty, rng=_order(workload, batch, 0))
    overall = {name: _weighted_mean(parts) for name, parts in totals.items()}
    return Asked(
        log_probs=log_probs,
        found=[overall[f"found {k}"] for k in range(orders)],
        constant={name: overall[f"constant {name}"] for name in names},
        exchanged={f"{a} and {b}": overall[f"exchanged {a} and {b}"] for a, b in combinations(names, 2)},
        zero_shot=zero_shot - zero_shot.mean(axis=0),
    )


def _alternatives(here: Assignment, names: Sequence[str]) -> dict[str, Assignment]:
    constant = {f"constant {name}": replace(here, labels=(y,) * len(here.labels)) for y, name in enumerate(names)}
    exchanged = {}
    for a, b in combinations(range(len(names)), 2):
        swap = {a: b, b: a}
        labels = tuple(None if y is None else swap.get(y, y) for y in here.labels)
        exchanged[f"exchanged {names[a]} and {names[b]}"] = Assignment(labels)
    return constant | exchanged


def _order(workload: Workload, batch: int, k: int) -> np.random.Generator:
    return np.random.default_rng([workload.config.seed, batch, 1 + k])


def _weighted_mean(parts: Sequence[tuple[int, float]]) -> float:
    return sum(n * value for n, value in parts) / sum(n for n, _ in parts)


def _labels_of(done: Run, workload: Workload) -> list[int]:
    """Labels of a run in the order of the data, which must be what that run labelled."""
    by_id = {item.id: item.label for item in done.labels}
    missing = [example for example in workload.dataset.examples if example.id not in by_id]
    if missing or len(by_id) != len(workload.dataset):
        raise DataError(
            f"{done.path} labelled {len(by_id)} examples, {workload.dataset.source} has {len(workload.dataset)}"
            + (f", among them {missing[0].id}, which it did not label" if missing else ""),
            fix="put back the data file that the run was made from, or compare with a run on the same data",
        )
    check_same_data(done.path, workload.dataset.fingerprint, workload.dataset.source)
    return [workload.dataset.label_space.index(by_id[example.id]) for example in workload.dataset.examples]


def _split_by_model(done: Run, others: Sequence[Run]) -> tuple[list[Run], list[Run]]:
    """Runs of the same model and of others; all must have labelled the same data, under another seed or model."""
    mine = read_manifest(done.path)["identity"]
    seen = {(mine["model"], load_run_config(done.path).seed)}
    same: list[Run] = []
    other_models: list[Run] = []
    for other in others:
        theirs = read_manifest(other.path)["identity"]
        if theirs["data"] != mine["data"]:
            raise DataError(f"{other.path} labelled other data than {done.path}", fix="compare runs on the same data")
        key = (theirs["model"], load_run_config(other.path).seed)
        if key in seen:
            raise ConfigError(
                f"{other.path} has the seed and the model of a run that is compared already", fix="leave it out"
            )
        seen.add(key)
        (same if theirs["model"] == mine["model"] else other_models).append(other)
    return same, other_models


def _check_salience(
    workload: Workload, found: Sequence[int], suspected: Mapping[str, Sequence[str | None]], *, permutations: int
) -> Check:
    dataset = workload.dataset
    predictor = best_predictor(
        trivial_features(dataset, workload.task, columns=suspected),
        found,
        dataset.label_space.labels,
        [example.group_id for example in dataset.examples],
        rng=np.random.default_rng(workload.config.seed),
        permutations=permutations,
    )
    return check_salience(predictor, n=len(found))


def _check_agreement(
    workload: Workload, labels: NDArray[np.int64], same: Sequence[Run], other_models: Sequence[Run]
) -> list[Check]:
    groups = [workload.task.cluster(example) for example in workload.dataset.examples]
    rng = np.random.default_rng(workload.config.seed)
    return [
        check_agreement("seeds", labels, [_labels_of(one, workload) for one in same], groups=groups, rng=rng),
        check_agreement("models", labels, [_labels_of(one, workload) for one in other_models], groups=groups, rng=rng),
    ]


def _columns(config: RunConfig, task: Task, names: Sequence[str]) -> dict[str, list[str | None]]:
    """Values of columns that the user suspects, one an example."""
    if not names:
        return {}
    rows = task_rows(config.data, task, limit=config.limit)
    each = 2 if task.mirror else 1
    for name in names:
        if name == task.gold_column:
            raise ConfigError(f"column {name!r} holds gold, which an audit does not read", fix="use 'elicitor eval'")
        if not any(name in row.values for row in rows):
            raise DataError(f"{config.data} has no column {name!r}", fix=f"use one of {', '.join(rows[0].values)}")
    return {
        name: [None if (value := row.values.get(name)) is None else str(value) for row in rows for _ in range(each)]
        for name in names
    }


def _indeterminate(
    workload: Workload, labels: NDArray[np.int64], asked: Asked, others: Sequence[Sequence[int]]
) -> dict[str, list[str]]:
    """Reasons by id of examples whose label another order, another seed or a small margin puts in doubt."""
    margins = own_log_odds(labels, asked).mean(axis=0)
    stable = (asked.log_probs.argmax(axis=2) == labels).all(axis=0)
    agreed = np.all([np.asarray(other) == labels for other in others], axis=0) if others else np.ones_like(stable)
    doubts = {
        "contradicted by the other labels": margins <= -NEAR_TIE,
        "near-tie": np.abs(margins) < NEAR_TIE,
        "changes with the order of the demonstrations": ~stable,
        "changes with the seed": ~agreed.astype(bool),
    }
    reasons = {
        example.id: [reason for reason, doubtful in doubts.items() if doubtful[i]]
        for i, example in enumerate(workload.dataset.examples)
    }
    return {name: found for name, found in reasons.items() if found}

"""How good are the found labels? The only place that reads gold.

Every condition puts the same examples in the same order before the same test queries; only the labels differ. Accuracy
is given raw and after batch calibration (which looks at the unlabelled test batch), with intervals clustered on groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from elicitor.backends.base import Backend, Cost, OnStage, Progress, TokenIds
from elicitor.baselines import DEFAULT_CONDITIONS, NEEDS_GOLD, Condition, check_conditions, demonstration_labels
from elicitor.data import Dataset, GoldLabels, MissingColumnError, load_dataset, load_gold
from elicitor.errors import ConfigError, ContextOverflowError, DataError
from elicitor.labelling import Run, load_run
from elicitor.metrics import Correct, Estimate, accuracy, gap_recovered
from elicitor.models import load_backend
from elicitor.objective import Array, batch_offset, normalize
from elicitor.prompts import PromptEncoder
from elicitor.runs import EVENTS, load_run_config, read_rows, write_json
from elicitor.search.events import replay
from elicitor.tasks import Task, load_task


@dataclass(frozen=True, slots=True)
class ConditionResult:
    """One row of the table.

    Attributes:
        condition: Which labels stood before the test queries.
        demonstrations: Demonstrations in a context; the fewest over seeds.
        label_accuracy: Share of those labels that agree with gold, averaged over seeds; None without gold or labels.
        raw: Test accuracy from the label probabilities as they are.
        calibrated: Test accuracy after batch calibration.
        gap_recovered: Share of the way from zero-shot to golden, under the calibration of the run.
        cost: Prompts, tokens, seconds.
    """

    condition: Condition
    demonstrations: int
    label_accuracy: float | None
    raw: Estimate
    calibrated: Estimate
    gap_recovered: Estimate | None
    cost: Cost


@dataclass(frozen=True, slots=True)
class LabelAccuracy:
    """Agreement of the found labels with gold.

    Attributes:
        estimate: At the end of the run, over the examples that have gold.
        curve: (iteration, labelled examples, accuracy) after each change of the assignment, over those labelled then.
    """

    estimate: Estimate
    curve: list[tuple[int, int, float]]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Result of `evaluate`.

    Attributes:
        rows: One for each condition.
        label_accuracy: Found labels against gold, None when the labelled data has no gold column.
        calibration: Calibration of the run, which `ConditionResult.gap_recovered` goes by.
        seeds: Seeds of demonstration order and random labels.
        notes: What a reader must know, such as test examples left out.
    """

    rows: list[ConditionResult]
    label_accuracy: LabelAccuracy | None
    calibration: str
    seeds: list[int]
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """The result as JSON values."""
        return asdict(self)

    def to_markdown(self) -> str:
        """The table in Markdown."""
        head = (
            "| condition | shots | label accuracy | accuracy (raw) | accuracy (calibrated) | gap recovered | tokens |"
        )
        lines = [head, "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
        lines += ["| " + " | ".join(row_cells(row)) + " |" for row in self.rows]
        return "\n".join([*lines, "", *(f"- {note}" for note in self.notes)])


def row_cells(row: ConditionResult) -> list[str]:
    """Cells of one table row as text."""
    return [
        row.condition,
        str(row.demonstrations),
        "" if row.label_accuracy is None else f"{row.label_accuracy:.3f}",
        str(row.raw),
        str(row.calibrated),
        "" if row.gap_recovered is None else str(row.gap_recovered),
        f"{row.cost.tokens_computed:,}",
    ]


def evaluate(
    run: Run | str | Path,
    test_data: str | Path,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    conditions: Sequence[str] = DEFAULT_CONDITIONS,
    limit: int | None = None,
    gold_column: str | None = None,
    gold_data: str | Path | None = None,
    backend: Backend | None = None,
    on_progress: Progress | None = None,
    on_stage: OnStage | None = None,
) -> Evaluation:
    """Compare the found labels with no, random and golden labels, in context, on a test file.

    Args:
        run: A finished run or its folder.
        test_data: Test examples with gold.
        seeds: Each seed draws its own order of demonstrations and its own random labels.
        conditions: Rows of the table; see `elicitor.baselines.Condition`.
        limit: Use only the first test rows.
        gold_column: Column that holds gold, when it is not the task's.
        gold_data: File with the gold labels of the labelled examples by id, when they are no column of the data itself.
        backend: Use this loaded model instead of the run's.
        on_progress: Called after each forward pass with its tokens.
        on_stage: Called when the model begins to load, and with the name of each condition as it begins.

    Returns:
        The table, written to ``eval-<test file>.json`` in the run folder as well.

    Raises:
        ElicitorError: If a file, column, condition or model cannot be used.
    """
    chosen = check_conditions(conditions)
    if len(set(seeds)) < 1 or len(set(seeds)) != len(seeds):
        raise ConfigError(f"seeds got {list(seeds)}", fix="give different seeds, at least 3 for a fair interval")
    run = run if isinstance(run, Run) else load_run(Path(run))
    config = load_run_config(run.path)
    task = load_task(config.task)
    train, found = _found_labels(run, task, load_dataset(config.data, task, limit=config.limit))
    gold_task = task.with_gold_column(gold_column) if gold_column else task
    gold_limit = config.limit if gold_data is None else None
    needs_gold = bool(NEEDS_GOLD & set(chosen))
    gold = _train_gold(str(gold_data or config.data), gold_task, limit=gold_limit, needed=needs_gold)
    golden = {} if gold is None else {i: gold.labels[e.id] for i, e in enumerate(train.examples) if e.id in gold.labels}
    test, test_gold, notes = _test_set(str(test_data), gold_task, train=train, task=task, limit=limit)

    backend = backend or load_backend(config.model, on_stage=on_stage, **config.backend.model_dump())
    comparison = _Comparison(
        backend=backend,
        demonstrations=PromptEncoder(backend.tokenizer, task, train),
        queries=PromptEncoder(backend.tokenizer, task, test),
        n_queries=len(test),
        n_labels=len(task.label_space),
        on_progress=on_progress,
    )
    # Golden labels may be missing for some examples; every condition then uses the same ones that have gold.
    usable = sorted(found.keys() & golden.keys()) if needs_gold else sorted(found)
    answers: dict[Condition, list[Array]] = {}
    demonstrations: dict[Condition, list[dict[int, int]]] = {}
    costs: dict[Condition, Cost] = {}
    for condition in chosen:
        if on_stage:
            on_stage(condition)
        answers[condition], demonstrations[condition], costs[condition] = [], [], Cost()
        for seed in seeds[:1] if condition == "zero_shot" else seeds:
            rng = np.random.default_rng(seed)
            # The order comes first, so that it is the same for every condition of a seed.
            order = rng.permutation(np.asarray(usable, dtype=np.int64)).tolist()
            kept = {i: found[i] for i in comparison.as_many_as_fit(order)}
            labels = demonstration_labels(
                condition,
                found=kept,
                golden={i: golden[i] for i in kept if i in golden},
                n_labels=len(task.label_space),
                rng=rng,
            )
            log_probs, cost = comparison.score(labels)
            answers[condition].append(log_probs)
            demonstrations[condition].append(labels)
            costs[condition] += cost

    truth = np.asarray([test_gold.labels[example.id] for example in test.examples])
    groups = [example.group_id for example in test.examples]
    raw = {c: np.stack([rows.argmax(axis=1) == truth for rows in answers[c]]) for c in chosen}
    calibrated = {c: np.stack([_calibrated(rows).argmax(axis=1) == truth for rows in answers[c]]) for c in chosen}
    judged = calibrated if config.objective.calibration == "batch" else raw
    result = Evaluation(
        rows=[
            ConditionResult(
                condition=condition,
                demonstrations=min(map(len, demonstrations[condition])),
                label_accuracy=_agreement(demonstrations[condition], golden),
                raw=accuracy(raw[condition], groups, rng=np.random.default_rng(0)),
                calibrated=accuracy(calibrated[condition], groups, rng=np.random.default_rng(0)),
                gap_recovered=_gap(condition, judged, groups),
                cost=costs[condition],
            )
            for condition in chosen
        ],
        label_accuracy=None if gold is None or not golden else _label_accuracy(run, train, found, golden),
        calibration=config.objective.calibration,
        seeds=list(seeds),
        notes=notes,
    )
    write_json(run.path / f"eval-{Path(str(test_data)).stem.replace(':', '-')}.json", result.to_json())
    return result


@dataclass(frozen=True, slots=True)
class _Comparison:
    """Scores the test set after any labelled demonstrations."""

    backend: Backend
    demonstrations: PromptEncoder
    queries: PromptEncoder
    n_queries: int
    n_labels: int
    on_progress: Progress | None

    def as_many_as_fit(self, order: Sequence[int]) -> list[int]:
        """Leading positions whose demonstrations leave room for the longest test query, whatever their labels."""
        longest = max(len(self.queries.query(i)) for i in range(self.n_queries))
        room = self.backend.max_context_tokens - len(self.queries.start) - longest
        room -= max(map(len, self.queries.candidates))
        kept = []
        for position in order:
            room -= max(len(self.demonstrations.demonstration(position, y)) for y in range(self.n_labels))
            if room < 0:
                break
            kept.append(position)
        if order and not kept:
            raise ContextOverflowError(
                f"no demonstration fits before the longest test example of {longest} tokens in a window of "
                f"{self.backend.max_context_tokens}",
                fix="leave out the longest examples or use a model with a longer context",
            )
        return kept

    def score(self, labels: dict[int, int]) -> tuple[Array, Cost]:
        """Normalised label log-probabilities of the test set, shape (test examples, labels)."""
        segments: list[TokenIds] = [self.demonstrations.demonstration(i, label) for i, label in labels.items()]
        prompts = [self.queries.prompt_with(segments, position) for position in range(self.n_queries)]
        scores = self.backend.score(prompts, on_progress=self.on_progress)
        return normalize(scores.log_probs), scores.cost


def _found_labels(run: Run, task: Task, train: Dataset) -> tuple[Dataset, dict[int, int]]:
    """Found label by position; the data must still be what the run labelled."""
    by_id = {item.id: task.label_space.index(item.label) for item in run.labels}
    missing = [example for example in train.examples if example.id not in by_id]
    if missing or len(by_id) != len(train):
        example = f"; {missing[0].location} ({missing[0].id}) has no found label" if missing else ""
        raise DataError(
            f"{train.source} has {len(train)} examples, the run labelled {len(by_id)}{example}",
            fix="put back the data file that the run was made from",
        )
    return train, {i: by_id[example.id] for i, example in enumerate(train.examples)}


def _train_gold(source: str, task: Task, *, limit: int | None, needed: bool) -> GoldLabels | None:
    try:
        return load_gold(source, task, limit=limit)
    except DataError as error:
        if not needed and isinstance(error, MissingColumnError):
            return None
        raise


def _test_set(
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
    return log_probs - batch_offset(log_probs)


def _agreement(demonstrations: Sequence[dict[int, int]], golden: dict[int, int]) -> float | None:
    shares = [
        float(np.mean([labels[i] == golden[i] for i in labels.keys() & golden.keys()]))
        for labels in demonstrations
        if labels.keys() & golden.keys()
    ]
    return float(np.mean(shares)) if shares else None


def _gap(condition: Condition, correct: dict[Condition, Correct], groups: Sequence[str]) -> Estimate | None:
    if condition in ("zero_shot", "golden") or not {"zero_shot", "golden"} <= correct.keys():
        return None
    return gap_recovered(
        correct[condition], correct["zero_shot"], correct["golden"], groups, rng=np.random.default_rng(0)
    )


def _label_accuracy(run: Run, train: Dataset, found: dict[int, int], golden: dict[int, int]) -> LabelAccuracy:
    positions = sorted(golden)
    correct = np.asarray([[found[i] == golden[i] for i in positions]])
    groups = [train.examples[i].group_id for i in positions]
    names = train.label_space.labels
    truth = {train.examples[i].id: names[golden[i]] for i in positions}
    curve = []
    for event, held in replay(read_rows(run.path / EVENTS)):
        known = held.keys() & truth.keys()
        if event["accepted"] and event["labels"] and known:
            share = sum(held[k] == truth[k] for k in known) / len(known)
            curve.append((event["iteration"], len(held), share))
    return LabelAccuracy(estimate=accuracy(correct, groups, rng=np.random.default_rng(0)), curve=curve)

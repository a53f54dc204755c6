"""Are the found labels good to train on? One model trained on each kind of labels, all asked zero-shot on the same test set.

Read `compare`. The untrained model and the one trained on golden labels are the ends that gap recovered is measured between.
Answers are kept under a key of all that they depend on, so a comparison that was killed does nothing twice.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from elicitor.answers import Answers
from elicitor.backends.base import Backend, Cost, OnPart, OnStage, Progress
from elicitor.baselines import NEEDS_GOLD, Condition, check_votes, noised_gold, one_vote_each, random_labels
from elicitor.comparison import agreement
from elicitor.config import RunConfig, check_seeds
from elicitor.data import Dataset
from elicitor.errors import ConfigError
from elicitor.evaluation import ConditionResult, condition_results, test_set, train_gold
from elicitor.files import make_folder, read_json, stray_entry, write_json
from elicitor.gold import load_votes
from elicitor.labelling import Run
from elicitor.models import load_backend
from elicitor.objective import normalize
from elicitor.prompts import PromptEncoder
from elicitor.reviewed import reviewed_ids
from elicitor.train.folder import refuse_several_processes
from elicitor.train.sft import Labelled, SftSettings, fit, labelled_run

if TYPE_CHECKING:
    from elicitor.train.lora import OnTrainStep

TrainedOn = Literal["untrained", "random", "found", "human", "noised_gold", "golden"]
TRAINED_ON: tuple[TrainedOn, ...] = get_args(TrainedOn)
DEFAULT: tuple[TrainedOn, ...] = tuple(name for name in TRAINED_ON if name != "human")
"""Without ``human``, for which few data sets have votes."""
RESULT = "comparison.json"


@dataclass(frozen=True, slots=True)
class TrainComparison:
    """Result of `compare`.

    Attributes:
        task: Name of the task.
        model: Base model.
        method: ``lora`` or ``full``.
        rows: One for each kind of labels. Condition ``zero_shot`` is the untrained model; ``demonstrations`` counts the
            examples trained on, 0 for it; the cost is that of training and asking, all seeds.
        calibration: Calibration of the run, which ``gap_recovered`` goes by.
        seeds: Seeds of training order, adapter, random labels and noise.
        notes: What a reader must know, such as test examples left out.
    """

    task: str
    model: str
    method: str
    rows: list[ConditionResult]
    calibration: str
    seeds: list[int]
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """The result as JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is trained and asked.

    Attributes:
        labelled: Examples with found labels, those that every condition uses.
        golden: Gold label by position of the same examples, empty if no condition needs it.
        votes: Labels that annotators gave, by position, empty if no condition needs them.
        judged: Those of them whose found label is the search's own and not a review's: label accuracy is over them.
        test: Test examples.
        truth: Gold label of each of them.
        config: Settings of the run.
        model: Model to train.
        settings: Settings of the trainings; the seed is set for each.
        notes: What was left out.
    """

    labelled: Labelled
    golden: Mapping[int, int]
    votes: Mapping[int, Sequence[int]]
    judged: Mapping[int, int]
    test: Dataset
    truth: list[int]
    config: RunConfig
    model: str
    settings: SftSettings
    notes: list[str]

    def labels(self, condition: TrainedOn, *, seed: int) -> dict[int, int]:
        """Labels of the training examples under a condition."""
        found = dict(self.labelled.labels)
        n_labels = len(self.labelled.task.label_space)
        rng = np.random.default_rng([seed, 1])
        match condition:
            case "random":
                return random_labels(list(found), n_labels=n_labels, rng=rng)
            case "human":
                return one_vote_each(check_votes(self.votes, list(found)), rng=rng)
            case "noised_gold":
                return noised_gold(self.golden, found, n_labels=n_labels, rng=rng)
            case "golden":
                return dict(self.golden)
            case _:
                return found


def compare(
    run: Run | str | Path,
    test_data: str | Path,
    output_dir: str | Path,
    *,
    conditions: Sequence[str] = DEFAULT,
    seeds: Sequence[int] = (0,),
    settings: SftSettings | None = None,
    model: str | None = None,
    limit: int | None = None,
    test_limit: int | None = None,
    keep_abstained: bool = False,
    gold_column: str | None = None,
    gold_data: str | Path | None = None,
    resume: bool = False,
    on_step: OnTrainStep | None = None,
    on_progress: Progress | None = None,
    on_stage: OnStage | None = None,
    on_part: OnPart | None = None,
) -> TrainComparison:
    """Train on found labels and on others of the same examples, and ask all models zero-shot (Wen et al. 2025, figure 3).

    Args:
        run: A finished run or its folder.
        test_data: Test examples with gold.
        output_dir: Folder for the trainings and the table; new or empty unless ``resume``.
        conditions: Any of `TRAINED_ON`; gap recovered needs untrained and golden.
        seeds: Each trains every condition once.
        settings: Settings of the trainings.
        model: Model to train; the one that found the labels if None.
        limit: Train on the first examples only.
        test_limit: Use only the first test rows.
        keep_abstained: Use examples that ``elicitor audit --abstain`` found indeterminate as well.
        gold_column: Column that holds gold, when it is not the task's.
        gold_data: File with the gold labels of the labelled examples, when they are no column of the data itself.
        resume: Go on with the comparison in ``output_dir``.
        on_step: Told of each optimizer step.
        on_progress: Called after each forward pass of asking with its tokens.
        on_stage: Called with what begins now.
        on_part: Called with finished and all trainings after each one.

    Returns:
        The table, written to ``comparison.json`` in the folder as well.

    Raises:
        ElicitorError: If a file, condition, model or setting cannot be used.
    """
    refuse_several_processes("train compare")
    folder = Path(output_dir)
    chosen = _check(conditions, seeds)
    if stray_entry(folder) and not resume:
        raise ConfigError(f"{folder} is not empty", fix="add --resume to go on with it, or choose another --output-dir")
    labelled, config = labelled_run(run, limit=limit, keep_abstained=keep_abstained)
    plan = _plan(
        labelled,
        config,
        str(test_data),
        reviewed=reviewed_ids(run.path if isinstance(run, Run) else Path(run)),
        needs_gold=bool(NEEDS_GOLD & set(chosen)),
        needs_votes="human" in chosen,
        test_limit=test_limit,
        gold_column=gold_column,
        gold_data=None if gold_data is None else str(gold_data),
        model=model or config.model,
        settings=settings or SftSettings(),
    )
    base = load_backend(plan.model, on_stage=on_stage, **config.backend.model_dump())
    answers: dict[Condition, Answers] = {}
    jobs = [(condition, seed) for condition in chosen for seed in (seeds if condition != "untrained" else seeds[:1])]
    done: dict[TrainedOn, list[Answers]] = {}
    for number, (condition, seed) in enumerate(jobs):
        if on_stage:
            on_stage(condition if condition == "untrained" else f"{condition}, seed {seed}")
        one = _job(plan, condition, seed, folder, base=base, on_step=on_step, on_progress=on_progress)
        done.setdefault(condition, []).append(one)
        if on_part:
            on_part(number + 1, len(jobs))
    for condition, parts in done.items():
        name = _as_condition(condition)
        answers[name] = Answers(
            condition=name,
            log_probs=np.concatenate([part.log_probs for part in parts]),
            shots=[shots for part in parts for shots in part.shots],
            label_accuracy=[share for part in parts for share in part.label_accuracy],
            cost=sum((part.cost for part in parts), Cost()),
        )
    task = labelled.task
    result = TrainComparison(
        task=task.name,
        model=plan.model,
        method=plan.settings.method,
        rows=condition_results(
            answers,
            np.asarray(plan.truth),
            [task.cluster(example) for example in plan.test.examples],
            task=task,
            calibration=config.objective.calibration,
        ),
        calibration=config.objective.calibration,
        seeds=list(seeds),
        notes=plan.notes,
    )
    write_json(folder / RESULT, result.to_json())
    return result


def _check(conditions: Sequence[str], seeds: Sequence[int]) -> list[TrainedOn]:
    unknown = [name for name in conditions if name not in TRAINED_ON]
    if unknown or not conditions:
        got = repr(unknown[0]) if unknown else "none"
        raise ConfigError(f"unknown condition {got}", fix=f"choose from {', '.join(TRAINED_ON)}")
    check_seeds(seeds)
    return [name for name in TRAINED_ON if name in conditions]


def _plan(
    labelled: Labelled,
    config: RunConfig,
    test_data: str,
    *,
    reviewed: frozenset[str],
    needs_gold: bool,
    needs_votes: bool,
    test_limit: int | None,
    gold_column: str | None,
    gold_data: str | None,
    model: str,
    settings: SftSettings,
) -> Plan:
    task = labelled.task
    gold_task = task.with_gold_column(gold_column) if gold_column else task
    test, test_gold, notes = test_set(test_data, gold_task, train=labelled.dataset, task=task, limit=test_limit)
    gold = train_gold(
        gold_data or config.data, gold_task, limit=config.limit if gold_data is None else None, needed=needs_gold
    )
    examples = labelled.dataset.examples
    known = (
        {}
        if gold is None
        else {i: gold.labels[examples[i].id] for i in labelled.labels if examples[i].id in gold.labels}
    )
    if needs_gold:
        # Every condition trains on the same examples, so those without gold are left out of all.
        if without := len(labelled.labels) - len(known):
            notes.append(f"{without} of {len(labelled.labels)} examples not trained on: they have no gold label")
        labelled = replace(labelled, labels={i: label for i, label in labelled.labels.items() if i in known})
    votes = load_votes(config.data, task, limit=config.limit) if needs_votes else {}
    cast = {i: votes[examples[i].id] for i in labelled.labels if examples[i].id in votes}
    if needs_votes:
        check_votes(cast, list(labelled.labels))
    if labelled.left_out:
        notes.append(f"{labelled.left_out} examples not trained on: the audit found their labels indeterminate")
    judged = {i: label for i, label in known.items() if examples[i].id not in reviewed}
    if given := len(labelled.labels.keys() & known.keys()) - len(labelled.labels.keys() & judged.keys()):
        notes.append(f"label accuracy leaves out {given} examples: a review gave their labels to the search")
    truth = [test_gold.labels[example.id] for example in test.examples]
    return Plan(
        labelled=labelled,
        golden=known,
        votes=cast,
        judged=judged,
        test=test,
        truth=truth,
        config=config,
        model=model,
        settings=settings,
        notes=notes,
    )


def _job(
    plan: Plan,
    condition: TrainedOn,
    seed: int,
    folder: Path,
    *,
    base: Backend,
    on_step: OnTrainStep | None,
    on_progress: Progress | None,
) -> Answers:
    """Train under one condition and seed, and ask the test set, unless that was done before."""
    labels = plan.labels(condition, seed=seed)
    settings = plan.settings.model_copy(update={"seed": seed})
    name = condition if condition == "untrained" else f"{condition}-{seed}"
    key = _key(plan, condition, labels, settings, base)
    file = folder / "answers" / f"{name}.json"
    if file.is_file() and (kept := read_json(file)).get("key") == key:
        return Answers.from_json(kept["answers"])
    spent, backend = Cost(), base
    if condition != "untrained":
        trained = fit(
            replace(plan.labelled, labels=labels, source=condition),
            folder / name,
            model=plan.model,
            settings=settings,
            resume=True,
            on_step=on_step,
        )
        spent = Cost(tokens_computed=trained.result["tokens"], seconds=trained.result["seconds"])
        backend = load_backend(trained.model, **plan.config.backend.model_dump())
    encoder = PromptEncoder(backend.tokenizer, plan.labelled.task, plan.test)
    prompts = [encoder.prompt_with([], position) for position in range(len(plan.test))]
    scores = backend.score(prompts, on_progress=on_progress)
    answers = Answers(
        condition=_as_condition(condition),
        log_probs=normalize(scores.log_probs)[None],
        shots=[0 if condition == "untrained" else len(labels)],
        label_accuracy=[None if condition == "untrained" else agreement(labels, plan.judged)],
        cost=spent + scores.cost,
    )
    make_folder(file.parent)
    write_json(file, {"key": key, "answers": answers.to_json()})
    if settings.method == "full" and condition not in ("untrained", "found"):
        # Whole models of baselines have done their duty; several of them could fill a disk.
        shutil.rmtree(folder / name, ignore_errors=True)
    return answers


def _as_condition(condition: TrainedOn) -> Condition:
    return "zero_shot" if condition == "untrained" else condition


def _key(plan: Plan, condition: TrainedOn, labels: Mapping[int, int], settings: SftSettings, base: Backend) -> str:
    """Hash of all that the answers depend on."""
    task = plan.labelled.task
    trained = {
        "train": plan.labelled.dataset.fingerprint,
        "labels": sorted(labels.items()),
        "judged": sorted(plan.judged.items()),
        "settings": settings.model_dump(mode="json", exclude={"report_to", "checkpoint_steps"}),
    }
    content = {
        "condition": condition,
        "model": base.fingerprint,
        "task": [task.template, task.preamble, task.label_space.verbalizers],
        "test": plan.test.fingerprint,
        "trained": None if condition == "untrained" else trained,
    }
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
